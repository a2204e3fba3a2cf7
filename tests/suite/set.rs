//! The set form of a registry. std's `HashSet` is the oracle.

use crate::common::*;
use epoch_registry::{Registry, RegistrySet};
use std::collections::HashSet;
use std::thread;

#[test]
fn a_set_agrees_with_a_hash_set() {
    let (set, mut oracle) = (RegistrySet::from(isolated::<u64, ()>()), HashSet::new());
    let mut rng = Rng::new(5);
    for _ in 0..times(20_000) {
        let key = rng.below(200);
        match rng.below(6) {
            0 | 1 => assert_eq!(set.insert(key), oracle.insert(key)),
            2 => assert_eq!(set.remove(&key), oracle.remove(&key)),
            3 => assert_eq!(set.take(&key).map(|handle| *handle.key()), oracle.take(&key)),
            4 => assert_eq!(set.get(&key).map(|handle| *handle.key()), oracle.get(&key).copied()),
            _ => assert_eq!(set.contains(&key), oracle.contains(&key)),
        }
    }
    set.retain(|key| key % 2 == 0);
    oracle.retain(|key| key % 2 == 0);
    let keys: HashSet<u64> = set.registry().pin().keys().copied().collect();
    assert_eq!((&keys, set.len(), set.is_empty()), (&oracle, oracle.len(), false));
    set.clear();
    assert!(set.is_empty() && set.into_registry().is_empty());
}

#[test]
fn a_present_key_of_a_set_stays() {
    let set: RegistrySet<String> = ["a", "b", "a"].into_iter().map(String::from).collect();
    let (a, c) = (set.get("a").unwrap(), set.get_or_insert("c".to_string()));
    let mut set = set;
    set.extend(["a".to_string(), "d".to_string()]);
    (&set).extend(["a".to_string()]);
    assert!(!set.insert("a".to_string()) && !a.is_unlinked() && set.len() == 4);
    assert!(set.get_or_insert_by_ref("a").ptr_eq(&a) && set.get_or_insert("c".to_string()).ptr_eq(&c));
    assert_eq!((RegistrySet::from([1, 2, 1]).len(), RegistrySet::<u8>::default().len()), (2, 0));
    assert_eq!(size_of::<RegistrySet<u64>>(), size_of::<Registry<u64, ()>>());
}

#[test]
fn of_many_threads_that_insert_a_key_one_does() {
    for _ in 0..times(200) {
        let set = RegistrySet::from(isolated::<u64, ()>());
        let inserted: u32 = thread::scope(|scope| {
            let tries: Vec<_> = (0..3).map(|_| scope.spawn(|| u32::from(set.insert(1)))).collect();
            tries.into_iter().map(|one| one.join().unwrap()).sum()
        });
        assert_eq!(inserted, 1);
    }
}
