//! Writes without handles, and writes of many keys at once.

use crate::common::*;
use epoch_registry::{Domain, Registry};
use std::collections::HashMap;

fn isolated() -> Registry<u64, Counted, FewBits> {
    Registry::builder().hasher(FewBits { mask: 0xff00_0000_0000_00ff }).domain(Domain::new()).build()
}

#[test]
fn writes_without_handles_agree_with_a_hash_map() {
    let (registry, ledger, mut rng) = (isolated(), Ledger::new(), Rng::new(7));
    let mut oracle = HashMap::new();
    for value in 0..times(50_000) as u64 {
        let key = rng.below(500);
        match rng.below(3) {
            0 => {
                let taken = oracle.contains_key(&key);
                let added = registry.add(key, ledger.value(value));
                assert_eq!(added.is_err(), taken);
                if let Err(occupied) = added {
                    assert_eq!((occupied.key, occupied.value.get(), occupied.entry.get()), (key, value, oracle[&key]));
                } else {
                    oracle.insert(key, value);
                }
            }
            1 => assert_eq!(registry.set(key, ledger.value(value)), oracle.insert(key, value).is_some()),
            _ => assert_eq!(registry.delete(&key), oracle.remove(&key).is_some()),
        }
    }
    let guard = registry.pin();
    assert_eq!(guard.iter().map(|entry| (*entry.key(), entry.get())).collect::<HashMap<_, _>>(), oracle);
    drop(guard);
    registry.domain().barrier();
    assert_eq!((ledger.live(), registry.len()), (oracle.len() as u64, oracle.len()));
}

#[test]
fn writes_of_many_keys_agree_with_a_hash_map() {
    let (registry, ledger, mut rng) = (isolated(), Ledger::new(), Rng::new(8));
    let mut oracle = HashMap::new();
    for round in 0..times(1_000) as u64 {
        let keys: Vec<u64> = (0..rng.below(100)).map(|_| rng.below(500)).collect();
        match rng.below(3) {
            0 => {
                let replaced = keys.iter().filter(|&&key| oracle.insert(key, round).is_some()).count();
                assert_eq!(registry.set_many(keys.iter().map(|&key| (key, ledger.value(round)))), replaced);
            }
            1 => {
                let removed = keys.iter().filter(|key| oracle.remove(key).is_some()).count();
                assert_eq!(registry.delete_many(&keys), removed);
            }
            _ => {
                let expected: Vec<_> = keys.iter().map(|key| (*key, oracle.remove(key))).collect();
                let mut removed = Vec::new();
                registry.remove_many(&keys, |&key, entry| removed.push((key, entry.map(|entry| entry.get()))));
                assert_eq!(removed, expected);
            }
        }
    }
    let mut registry = registry;
    registry.extend((0..500).map(|key| (key, ledger.value(0))));
    registry.domain().barrier();
    assert_eq!((ledger.live(), registry.len()), (500, 500));
}

#[test]
fn a_panic_among_many_writes_loses_no_entry_written_before() {
    let (registry, ledger) = (isolated(), Ledger::new());
    let entries = (0..1000).map(|key| {
        assert_ne!(key, 700, "planned");
        (key, ledger.value(key))
    });
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| registry.set_many(entries))).is_err());
    assert!((700 - 32..=700).contains(&registry.len()), "{}", registry.len());
    registry.domain().barrier();
    assert_eq!(ledger.live(), registry.len() as u64);
}
