//! Reads and writes that are given the hash of their key.

use crate::common::*;
use epoch_registry::{Builder, Registry};
use std::hash::{BuildHasher, Hash};

fn agree<S: BuildHasher + Clone>(builder: Builder<u64, u64, S>) {
    let registry: Registry<u64, u64, S> = builder.build();
    for key in 0..500 {
        let hash = registry.hash_of(&key);
        assert_eq!((hash, registry.pin().hash_of(&key)), (registry.hash_of(&key), hash));
        match key % 2 {
            0 => assert!(registry.insert_hashed(hash, key, key).is_none()),
            _ => assert!(registry.try_insert_hashed(hash, key, key).is_ok()),
        }
        assert_eq!(registry.try_insert_hashed(hash, key, 0).unwrap_err().value, 0);
    }
    let mut reader = registry.reader();
    for key in 0..600u64 {
        let hash = registry.hash_of(&key);
        let expected = registry.lookup(&key).map(|entry| *entry);
        assert_eq!(expected.is_some(), key < 500);
        assert_eq!(registry.lookup_hashed(hash, &key).map(|entry| *entry), expected);
        assert_eq!(registry.with_hashed(hash, &key, |entry| *entry), expected);
        assert_eq!(registry.pin().get_hashed(hash, &key).map(|entry| *entry), expected);
        assert_eq!(registry.pin().lookup_hashed(hash, &key).map(|entry| *entry), expected);
        assert_eq!(reader.get_hashed(hash, &key).map(|entry| *entry), expected);
        assert_eq!(reader.lookup_hashed(hash, &key).map(|entry| *entry), expected);
        assert_eq!(registry.remove_hashed(hash, &key).map(|entry| *entry), expected);
        assert!(!registry.contains_key(&key));
    }
    assert!(registry.is_empty());
}

#[test]
fn the_methods_with_a_hash_do_what_those_without_do() {
    agree(isolated_builder());
    agree(isolated_builder().hasher(std::hash::RandomState::new()));
    agree(isolated_builder().hasher(FewBits { mask: 3 }));
}

#[test]
fn registries_with_equal_hashers_share_their_hashes() {
    let one: Registry<String, u64> = isolated();
    let two: Registry<u64, String, _> = isolated_builder().hasher(one.hasher().clone()).build();
    let three: Registry<String, u64> = isolated_builder().shards(64).hasher(one.hasher().clone()).build();
    assert_eq!((one.hash_of("a"), two.hash_of(&7)), (three.hash_of("a"), two.hash_of(&7)));
    three.insert_hashed(one.hash_of("a"), "a".to_string(), 1);
    assert_eq!(three.lookup("a").map(|entry| *entry), Some(1));
}

/// Calls each method that is given a hash, with a wrong one.
fn with_a_wrong_hash<S: BuildHasher>(registry: &Registry<u64, u64, S>, hash: u64, key: u64, call: u32) {
    match call {
        0 => drop(registry.insert_hashed(hash, key, key)),
        1 => drop(registry.try_insert_hashed(hash, key, key)),
        2 => drop(registry.remove_hashed(hash, &key)),
        3 => drop(registry.lookup_hashed(hash, &key)),
        4 => drop(registry.with_hashed(hash, &key, |entry| assert_eq!(*entry, key))),
        5 => drop(registry.pin().get_hashed(hash, &key).map(|entry| assert_eq!(*entry, key))),
        6 => drop(registry.pin().lookup_hashed(hash, &key)),
        _ => drop(registry.reader().get_hashed(hash, &key).map(|entry| assert_eq!(*entry, key))),
    }
}

#[test]
#[cfg(debug_assertions)]
fn a_wrong_hash_panics_in_debug_builds_and_changes_nothing() {
    let registry: Registry<u64, u64> = isolated();
    registry.set(1, 1);
    for call in 0..8 {
        let hash = registry.hash_of(&1) ^ 1 << (7 * call);
        let result = std::panic::catch_unwind(|| with_a_wrong_hash(&registry, hash, 1, call));
        assert!(result.is_err(), "call {call} accepted a wrong hash");
    }
    assert_eq!((registry.len(), registry.lookup(&1).map(|entry| *entry)), (1, Some(1)));
}

#[test]
#[cfg(not(debug_assertions))]
fn wrong_hashes_harm_only_their_entries_in_release_builds() {
    let ledger = Ledger::new();
    let owned: Registry<u64, Counted> = isolated();
    let registry: Registry<u64, u64> = isolated();
    (0..1000).for_each(|key| drop(registry.insert(key, key)));
    let mut rng = Rng::new(3);
    for round in 0..20_000 {
        let (key, hash) = (1000 + rng.below(1000), rng.below(u64::MAX) << 33 | rng.below(u64::MAX));
        with_a_wrong_hash(&registry, hash, key, round % 8);
        owned.insert_hashed(hash, key, ledger.value(key));
        drop(owned.remove_hashed(rng.below(u64::MAX), &key));
    }
    assert!((0..1000).all(|key| registry.lookup(&key).is_some_and(|entry| *entry == key)));
    // Entries with wrong hashes are met by walks, found by their handles, and removed.
    let strays = registry.pin().iter().filter(|entry| *entry.key() >= 1000).count();
    assert_eq!(strays, registry.len() - 1000);
    registry.retain(|key, _| *key < 1000);
    assert_eq!((registry.len(), registry.pin().iter().count()), (1000, 1000));
    registry.shrink_to_fit();
    owned.clear();
    owned.domain().barrier();
    assert_eq!(ledger.live(), 0);
}

#[test]
fn a_borrowed_key_has_the_hash_of_its_owned_form() {
    fn same<A: Hash + Eq + Send + Sync + 'static, Q: Hash + epoch_registry::Equivalent<A> + ?Sized>(
        registry: &Registry<A, ()>,
        owned: &A,
        borrowed: &Q,
    ) {
        assert_eq!(registry.hash_of(owned), registry.hash_of(borrowed));
    }
    same(&isolated(), &"text".to_string(), "text");
    same(&isolated(), &vec![1u8, 2], &[1u8, 2][..]);
    same(&isolated(), &Box::new(7u64), &7u64);
}
