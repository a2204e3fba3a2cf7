//! Keys and values of unusual types, sizes and hashes.

use crate::common::*;
use epoch_registry::{Domain, Equivalent, Registry};
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;

#[test]
fn keys_and_values_without_a_size_work() {
    static DROPS: AtomicU64 = AtomicU64::new(0);
    struct Zero;
    impl Drop for Zero {
        fn drop(&mut self) {
            DROPS.fetch_add(1, SeqCst);
        }
    }
    let registry: Registry<(), Zero> = isolated();
    assert!(registry.try_insert((), Zero).is_ok() && registry.try_insert((), Zero).is_err());
    assert!(registry.insert((), Zero).is_some() && registry.update(&(), |_, _| Zero).is_some());
    assert_eq!((registry.len(), registry.pin().iter().count()), (1, 1));
    let handle = registry.remove(&()).unwrap();
    assert!(registry.lookup(&()).is_none());
    registry.domain().barrier();
    assert_eq!(DROPS.load(SeqCst), 3);
    drop(handle);
    registry.domain().barrier();
    assert_eq!(DROPS.load(SeqCst), 4);
    let set: Registry<u64, ()> = isolated();
    (0..1000).for_each(|key| assert!(set.try_insert(key, ()).is_ok()));
    assert!((0..1000).all(|key| set.contains_key(&key)) && !set.contains_key(&1000));
}

#[repr(align(128))]
struct Align128(u64);

#[repr(align(4096))]
struct Align4096(u8);

fn is_aligned<T>(value: &T) -> bool {
    std::ptr::from_ref(value).addr() % align_of::<T>() == 0
}

#[test]
fn over_aligned_keys_and_values_are_aligned() {
    #[derive(PartialEq, Eq, Hash, Clone)]
    #[repr(align(256))]
    struct Key(u64);
    let (small, large): (Registry<Key, Align128>, Registry<Key, Align4096>) = (isolated(), isolated());
    for n in 0..200u64 {
        let handle = small.try_insert(Key(n), Align128(n)).ok().unwrap();
        assert!(is_aligned(handle.key()) && is_aligned(handle.value()) && handle.0 == n);
        let handle = large.try_insert(Key(n), Align4096(n as u8)).ok().unwrap();
        assert!(is_aligned(handle.key()) && is_aligned(handle.value()) && handle.0 == n as u8);
    }
    for entry in large.pin().iter() {
        assert!(is_aligned(entry.key()) && is_aligned(entry.value()) && entry.value().0 == entry.key().0 as u8);
    }
    small.clear();
    (0..200).for_each(|n| drop(large.update(&Key(n), |_, old| Align4096(old.0 ^ 1)).unwrap()));
    assert_eq!(large.lookup(&Key(6)).unwrap().0, 7);
    drop((small, large));
}

#[test]
fn a_value_of_a_megabyte_works() {
    type Huge = [u64; 1 << 17];
    let body = || {
        let registry: Registry<u64, Huge> = isolated();
        for key in 0..4 {
            registry.try_insert(key, [key; 1 << 17]).unwrap();
        }
        assert_eq!(registry.try_insert(0, [9; 1 << 17]).unwrap_err().value[5], 9);
        registry.update(&1, |_, old| [old[7] + 10; 1 << 17]).unwrap();
        assert_eq!(registry.lookup(&1).unwrap()[(1 << 17) - 1], 11);
        let handle = registry.remove(&2).unwrap();
        drop(registry);
        assert!(handle.iter().all(|&n| n == 2));
    };
    // A value is passed by value, and in a debug build through several frames.
    thread::Builder::new().stack_size(64 << 20).spawn(body).unwrap().join().unwrap();
}

#[test]
fn two_thousand_keys_of_one_hash_work() {
    for shards in [1, 16] {
        let registry = Registry::builder().shards(shards).hasher(FewBits { mask: 0 }).domain(Domain::new()).build();
        let keys = if cfg!(debug_assertions) { 1000 } else { 2000u64 };
        (0..keys).for_each(|key| drop(registry.try_insert(key, key).unwrap()));
        assert!(registry.try_insert(7, 0).is_err());
        (0..keys).step_by(17).for_each(|key| assert_eq!(*registry.lookup(&key).unwrap(), key));
        assert_eq!((registry.pin().iter().count(), registry.contains_key(&keys)), (keys as usize, false));
        (0..keys).filter(|key| key % 3 > 0).for_each(|key| assert_eq!(*registry.remove(&key).unwrap(), key));
        registry.shrink_to_fit();
        (0..keys).for_each(|key| assert_eq!(registry.contains_key(&key), key % 3 == 0));
        registry.retain(|_, _| false);
        assert!(registry.is_empty());
        (0..100).for_each(|key| drop(registry.try_insert(key, key).unwrap()));
        assert_eq!(registry.len(), 100);
    }
}

#[test]
fn a_million_keys_are_all_found_and_all_freed() {
    let count = if cfg!(debug_assertions) { 100_000 } else { 1_000_000u64 };
    let registry: Registry<u64, u64> = isolated();
    (0..count).for_each(|key| drop(registry.try_insert(key * 3, key).unwrap()));
    let mut reader = registry.reader();
    for key in 0..count {
        assert_eq!(reader.get(&(key * 3)).map(|entry| *entry), Some(key));
        assert!(!reader.contains_key(&(key * 3 + 1)));
    }
    drop(reader);
    assert_eq!(registry.pin().iter().map(|entry| *entry).sum::<u64>(), (count - 1) * count / 2);
    (0..count).for_each(|key| assert_eq!(registry.remove(&(key * 3)).map(|old| *old), Some(key)));
    registry.domain().barrier();
    let stats = registry.stats();
    assert_eq!((stats.live, stats.freed, stats.backlog), (0, count, 0));
}

#[test]
fn keys_are_found_by_their_borrowed_forms() {
    let names: Registry<String, u64> = isolated();
    let blobs: Registry<Vec<u8>, u64> = isolated();
    let boxes: Registry<Box<[u64]>, u64> = isolated();
    for n in 0..100u64 {
        names.try_insert(n.to_string(), n).unwrap();
        blobs.try_insert(vec![n as u8; n as usize], n).unwrap();
        boxes.try_insert(Box::from([n, n + 1]), n).unwrap();
    }
    for n in 0..100u64 {
        let (name, blob) = (&*n.to_string(), &*vec![n as u8; n as usize]);
        assert_eq!(names.lookup(name).map(|handle| *handle), Some(n));
        assert_eq!(names.reader().get(name).map(|entry| *entry), Some(n));
        assert_eq!(names.pin().get_many([name, "x"]).map(|found| found.map(|entry| *entry)), [Some(n), None]);
        assert_eq!(blobs.lookup(blob).map(|handle| *handle), Some(n));
        assert_eq!(boxes.pin().get(&[n, n + 1][..]).map(|entry| *entry), Some(n));
        assert_eq!(names.update(name, |_, n| n + 1000).map(|handle| *handle), Some(n + 1000));
        assert!(names.remove_if(name, |key, _| key == name).is_some() && blobs.remove(blob).is_some());
    }
    assert!(names.is_empty() && blobs.is_empty() && boxes.contains_key(&[5, 6][..]));
}

#[test]
fn keys_are_found_by_equivalent_types() {
    /// Hashes like a pair of both.
    #[derive(PartialEq, Hash)]
    struct Parts<'t>(u64, &'t str);
    impl Equivalent<(u64, String)> for Parts<'_> {
        fn equivalent(&self, key: &(u64, String)) -> bool {
            *self == Parts(key.0, &key.1)
        }
    }
    let names: Registry<(u64, String), u64> = isolated();
    (0..100).for_each(|n| drop(names.try_insert((n, n.to_string()), n).unwrap()));
    for n in 0..100 {
        let text = n.to_string();
        let (parts, other) = (Parts(n, &text), Parts(n + 1, &text));
        assert_eq!(names.lookup(&parts).map(|handle| *handle), Some(n));
        assert_eq!(names.with(&parts, |entry| *entry), Some(n));
        assert_eq!(names.reader().get(&parts).map(|entry| *entry), Some(n));
        assert_eq!(names.pin().get_many([&other, &parts]).map(|found| found.map(|entry| *entry)), [None, Some(n)]);
        let mut found = Vec::new();
        names.pin().lookup_batch([&parts, &other], |_, handle| found.push(handle.is_some()));
        assert_eq!(found, [true, false]);
        assert_eq!(names.update(&parts, |_, n| n + 1000).map(|handle| *handle), Some(n + 1000));
        assert!(!names.contains_key(&other) && names.remove(&other).is_none());
        assert!(names.remove_if(&parts, |_, _| false).is_none() && names.remove(&parts).is_some());
    }
    assert!(names.is_empty());
}

fn round_trip<K: Hash + Eq + Clone + Send + Sync + std::fmt::Debug + 'static>(
    registry: Registry<K, u64>,
    keys: impl Iterator<Item = K>,
) {
    let keys: Vec<K> = keys.collect();
    for (n, key) in keys.iter().enumerate() {
        registry.try_insert(key.clone(), n as u64).unwrap();
    }
    let guard = registry.pin();
    for (n, key) in keys.iter().enumerate() {
        assert_eq!(guard.get(key).map(|entry| *entry), Some(n as u64), "{key:?}");
    }
    assert_eq!(guard.iter().count(), keys.len());
}

#[test]
fn wide_keys_and_any_number_of_shards_work() {
    round_trip(isolated(), (0..1000u128).map(|n| n << 64 | n));
    round_trip(isolated(), (0..1000u64).map(|n| [n; 32]));
    round_trip(isolated(), (0..1000i64).map(|n| (n, Some(n.to_string()))));
    for shards in [0, 1, 3, 64, 1 << 12] {
        round_trip(isolated_builder().shards(shards).build(), 0..3000u64);
        round_trip(isolated_builder().shards(shards).capacity(5000).build(), 0..3000u64);
    }
}

#[test]
fn a_registry_keeps_room_for_the_requested_capacity() {
    for (shards, capacity) in [(1, 1), (1, 1000), (8, 10_000), (64, 100)] {
        let registry: Registry<u64, u64> = isolated_builder().shards(shards).capacity(capacity).build();
        assert!(registry.capacity() >= capacity);
        let bytes = registry.table_bytes();
        (0..capacity as u64 / 2).for_each(|key| drop(registry.try_insert(key, key)));
        (0..capacity as u64 / 2).for_each(|key| drop(registry.remove(&key)));
        assert!(registry.capacity() >= capacity && (shards > 1 || registry.table_bytes() == bytes));
        registry.reserve(capacity * 4);
        assert!(registry.capacity() >= capacity * 4);
    }
}

#[test]
fn a_default_registry_works_with_any_default_hasher() {
    let registry: Registry<&str, u64, std::hash::RandomState> = Registry::default();
    registry.try_insert("a", 1).unwrap();
    assert_eq!(
        (registry.lookup("a").map(|handle| *handle), registry.lookup("b").map(|handle| *handle)),
        (Some(1), None)
    );
}
