//! Local handles, which a thread counts for itself.

use crate::common::{Counted, FewBits, Ledger, Rng, isolated, isolated_builder, times};
use epoch_registry::{LocalHandle, LocalHandles, Registry, Scan, policy};
use std::thread;

/// Reaps all entries without handles. Returns how many entries were reaped, and how many were spared.
fn reap_unless_held(registry: &Registry<u64, u64>) -> (usize, usize) {
    let reaped = registry.reap_by(&policy::unless_held(policy::when(|_| true)), &mut Scan::new(usize::MAX));
    (reaped.removed, reaped.skipped)
}

#[test]
fn a_thread_holds_an_entry_until_its_last_local_handle_is_dropped() {
    let registry = isolated();
    registry.try_insert(1, 10).unwrap();
    let mut handles = LocalHandles::new(8);
    let guard = registry.pin();
    let first: LocalHandle<u64, u64> = handles.of(guard.get(&1).unwrap());
    let many: Vec<_> = (0..100).map(|_| handles.of(guard.get(&1).unwrap())).chain([first.clone()]).collect();
    drop(guard);
    assert!(many.iter().all(|handle| (**handle, *handle.key(), handle.is_unlinked()) == (10, 1, false)));
    handles.clear();
    drop(many);
    assert_eq!(reap_unless_held(&registry), (0, 1), "the first handle does not hold the entry");
    let shared = first.to_handle();
    drop(first);
    assert_eq!(reap_unless_held(&registry), (0, 1), "the shared handle does not hold the entry");
    thread::spawn(move || assert_eq!(*shared, 10)).join().unwrap();
    assert_eq!(reap_unless_held(&registry), (1, 0));
}

#[test]
fn a_removed_entry_is_kept_until_it_is_shed_or_the_handles_are_dropped() {
    let (ledger, registry) = (Ledger::new(), isolated_builder().hasher(FewBits { mask: !0 }).build());
    // So many places that no two of these keys share one.
    let mut handles = LocalHandles::new(4096);
    for key in 0..8u64 {
        registry.try_insert(key, ledger.value(key)).unwrap();
        drop(handles.of(registry.pin().get(&key).unwrap()));
    }
    let held = handles.of(registry.pin().get(&0).unwrap());
    (0..4).for_each(|key| drop(registry.remove(&key)));
    registry.domain().barrier();
    assert_eq!(ledger.dropped(), 0);
    assert_eq!((handles.shed(), handles.shed()), (4, 0));
    registry.domain().barrier();
    assert_eq!(ledger.dropped(), 3);
    assert!(held.is_unlinked() && held.get() == 0);
    drop(held);
    drop(handles);
    registry.clear();
    registry.domain().barrier();
    assert_eq!(ledger.live(), 0);
}

#[test]
fn entries_of_one_place_displace_each_other_and_are_never_confused() {
    let registry: Registry<u64, u64, FewBits> = isolated_builder().hasher(FewBits { mask: 0 }).build();
    (0..10).for_each(|key| drop(registry.try_insert(key, 7 * key)));
    let mut handles = LocalHandles::new(0);
    for turn in 0..100 {
        let key = turn % 10;
        let handle = handles.of(registry.pin().get(&key).unwrap());
        assert_eq!((*handle.key(), *handle), (key, 7 * key));
    }
    assert_eq!(format!("{handles:?}"), "LocalHandles { places: 1, held: 1 }");
}

#[test]
fn a_new_entry_is_never_confused_with_the_old_one_of_its_key() {
    let registry = isolated();
    registry.try_insert(1, 0).unwrap();
    let mut handles = LocalHandles::new(1);
    for value in 1..1000 {
        let old = handles.of(registry.pin().get(&1).unwrap());
        if value % 2 == 0 {
            registry.insert(1, value);
        } else {
            registry.remove(&1);
            registry.domain().reclaim(usize::MAX);
            registry.try_insert(1, value).unwrap();
        }
        let new = handles.of(registry.pin().get(&1).unwrap());
        assert_eq!((*old, *new), (value - 1, value));
    }
}

#[test]
fn local_handles_race_with_writers_and_the_counts_stay_exact() {
    let (ledger, registry) = (Ledger::new(), isolated::<u64, Counted>());
    const KEYS: u64 = 8;
    (0..KEYS).for_each(|key| drop(registry.try_insert(key, ledger.value(key))));
    thread::scope(|scope| {
        for seed in 0..4 {
            let (registry, ledger) = (&registry, &ledger);
            scope.spawn(move || {
                let (mut reader, mut handles, mut kept) = (registry.reader(), LocalHandles::new(4), Vec::new());
                let mut random = Rng::new(seed + 1);
                for _ in 0..times(20_000) {
                    let key = random.below(KEYS);
                    match random.below(16) {
                        0 => drop(registry.insert(key, ledger.value(key))),
                        1 => drop(handles.shed()),
                        2 => kept.clear(),
                        _ => {
                            let handle = handles.of(reader.get(&key).expect("the key is replaced, but never removed"));
                            assert_eq!(handle.get(), key);
                            kept.push(handle);
                        }
                    }
                }
                assert!(kept.iter().all(|handle| handle.get() == *handle.key()));
            });
        }
    });
    registry.clear();
    registry.domain().barrier();
    assert_eq!(ledger.live(), 0);
}
