//! Weak handles: they refer to exactly one entry, for as long as it is in its registry, and keep nothing.

use crate::common::{Ledger, a_while, clocked, in_time, isolated, isolated_builder};
use epoch_registry::{Cursor, Registry, WeakHandle};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

type Remove = (&'static str, fn(&Registry<u64, u64>));

/// All ways for the entry of key 1 to leave.
const WAYS: &[Remove] = &[
    ("remove", |registry| drop(registry.remove(&1))),
    ("delete", |registry| assert!(registry.delete(&1))),
    ("insert", |registry| drop(registry.insert(1, 9))),
    ("set", |registry| assert!(registry.set(1, 9))),
    ("update", |registry| drop(registry.update(&1, |_, _| 9))),
    ("remove_handle", |registry| assert!(registry.remove_handle(&registry.lookup(&1).unwrap()))),
    ("replace_handle", |registry| drop(registry.replace_handle(&registry.lookup(&1).unwrap(), 9).unwrap())),
    ("retain", |registry| registry.retain(|_, _| false)),
    ("fallible retain", |registry| _ = registry.fallible().retain(&mut Cursor::new(), |_, _| false)),
    ("drain", |registry| _ = registry.drain().count()),
    ("clear", |registry| registry.clear()),
    ("reap_if", |registry| _ = registry.reap_if(100, |_| true)),
    ("evict", |registry| _ = registry.evict(100)),
];

#[test]
fn a_weak_handle_ends_with_its_entry_however_that_leaves() {
    for (name, leave) in WAYS {
        for others in [0, 100] {
            let registry: Registry<u64, u64> = isolated_builder().shards(1).build();
            registry.set_many((2..2 + others).map(|key| (key, key)));
            let entry = registry.insert_and_get(1, 1);
            let weak = registry.downgrade(&entry);
            let again = registry.downgrade(&entry).clone();
            assert!(weak.upgrade().unwrap().ptr_eq(&entry) && again.upgrade().unwrap().ptr_eq(&entry), "{name}");
            leave(&registry);
            assert!(weak.upgrade().is_none() && again.upgrade().is_none(), "{name}");
            assert!(weak.ptr_eq(&again) && !weak.ptr_eq(&registry.downgrade(&entry)), "{name}");
            // Not even if its key or its memory is used again.
            drop(entry);
            registry.domain().barrier();
            for round in 0..10 {
                registry.set(1, round);
                registry.delete(&1);
                registry.domain().barrier();
            }
            registry.set(1, 1);
            assert!(weak.upgrade().is_none(), "{name}");
            assert!(registry.downgrade(&registry.lookup(&1).unwrap()).upgrade().is_some(), "{name}");
        }
    }
}

#[test]
fn an_expired_entry_is_not_upgraded() {
    let (builder, clock) = clocked::<u64, u64>();
    let registry = builder.max_age(Duration::from_secs(10)).build();
    let weak = registry.downgrade(&registry.insert_and_get(1, 1));
    clock.advance(Duration::from_secs(9));
    assert!(weak.upgrade().is_some());
    clock.advance(Duration::from_secs(2));
    assert!(weak.upgrade().is_none());
    registry.expire(10);
    assert!(weak.upgrade().is_none() && registry.is_empty());
}

#[test]
fn a_weak_handle_keeps_neither_entry_nor_registry() {
    struct Actor {
        me: OnceLock<WeakHandle<u64, Actor>>,
        _counted: crate::common::Counted,
    }
    let (registry, ledger) = (isolated(), Ledger::new());
    for key in 0..100 {
        let actor = registry.insert_and_get(key, Actor { me: OnceLock::new(), _counted: ledger.value(key) });
        assert!(actor.me.set(registry.downgrade(&actor)).is_ok());
    }
    (0..50).for_each(|key| assert!(registry.delete(&key)));
    registry.domain().barrier();
    assert_eq!((ledger.live(), registry.len()), (50, 50));
    let weak = registry.lookup(&70).unwrap().me.get().unwrap().clone();
    let strong = weak.upgrade().unwrap();
    drop(registry);
    assert_eq!(ledger.live(), 1);
    assert!(weak.upgrade().is_none() && strong.me.get().unwrap().upgrade().is_none());
    drop(strong);
    assert_eq!(ledger.live(), 0);
}

#[test]
fn what_is_not_in_the_registry_has_no_weak_handle() {
    let (registry, other) = (isolated(), isolated());
    let removed = registry.insert_and_get(1, 1);
    registry.delete(&1);
    assert!(registry.downgrade(&removed).upgrade().is_none());
    let foreign = other.insert_and_get(1, 1);
    assert!(registry.downgrade(&foreign).upgrade().is_none());
    assert!(WeakHandle::<u64, u64>::new().upgrade().is_none());
}

#[test]
fn tables_may_be_resized_and_entries_may_expire_later() {
    let registry = isolated();
    let weak: Vec<_> = (0..1000).map(|key| registry.downgrade(&registry.insert_and_get(key, key))).collect();
    registry.set_many((1000..50_000).map(|key| (key, key)));
    registry.retain(|key, _| *key < 500);
    registry.shrink_to_fit();
    registry.set_max_age(Some(Duration::from_secs(3600)));
    for (key, weak) in weak.iter().enumerate() {
        assert_eq!(weak.upgrade().map(|entry| *entry.key()), (key < 500).then_some(key as u64));
    }
}

#[test]
fn upgrades_race_with_removals_replacements_and_the_end_of_the_registry() {
    in_time(|| {
        for _ in 0..4 {
            let (registry, ledger, stop) = (isolated(), Ledger::new(), AtomicBool::new(false));
            let entry = |key: u64| registry.insert_and_get(key, ledger.value(key));
            let weak: Vec<_> = (0..64).map(|key| registry.downgrade(&entry(key))).collect();
            thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        while !stop.load(SeqCst) {
                            for (key, weak) in weak.iter().enumerate() {
                                if let Some(entry) = weak.upgrade() {
                                    assert_eq!((*entry.key(), entry.get()), (key as u64, key as u64));
                                }
                            }
                        }
                    });
                }
                let end = std::time::Instant::now() + a_while() / 4;
                let mut key = 0;
                while std::time::Instant::now() < end {
                    key = (key + 1) % 64;
                    match key % 3 {
                        0 => _ = registry.delete(&key),
                        1 => drop(registry.insert(key, ledger.value(key))),
                        _ => drop(registry.lookup(&key).map(|entry| registry.downgrade(&entry).upgrade())),
                    }
                }
                drop(registry);
                stop.store(true, SeqCst);
            });
            assert_eq!(ledger.live(), 0);
            assert!(weak.iter().all(|weak| weak.upgrade().is_none()));
        }
    });
}
