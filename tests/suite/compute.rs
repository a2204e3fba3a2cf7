//! `update`, `update_or_insert` and `compute`: closures that run once, and whose outcome is written atomically.

use crate::common::{block_on, in_time, isolated, panic_of, times};
use epoch_registry::{Change, Handle};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;

#[test]
fn no_update_is_lost_and_each_closure_runs_once() {
    let (registry, calls) = (isolated::<u64, u64>(), AtomicU64::new(0));
    let rounds = times(2000) as u64;
    in_time(|| {
        thread::scope(|scope| {
            for thread in 0..4 {
                let (registry, calls) = (&registry, &calls);
                scope.spawn(move || {
                    for _ in 0..rounds {
                        let add = |old: u64| {
                            calls.fetch_add(1, SeqCst);
                            old + 1
                        };
                        match thread {
                            0 => drop(registry.update_or_insert(1, |_, old| add(*old), || add(0))),
                            1 => drop(registry.compute(1, |_, old| Change::Set(add(old.copied().unwrap_or(0))))),
                            2 => {
                                let update = async |old: Handle<u64, u64>| add(*old);
                                drop(block_on(registry.update_or_insert_async(1, update, async || add(0))));
                            }
                            _ => {
                                let change =
                                    async |old: Option<Handle<u64, u64>>| Change::Set(add(old.map_or(0, |old| *old)));
                                drop(block_on(registry.compute_async(1, change)));
                            }
                        }
                    }
                });
            }
        });
    });
    assert_eq!(registry.lookup(&1).as_deref(), Some(&(4 * rounds)));
    assert_eq!(calls.into_inner(), 4 * rounds);
}

#[test]
fn compute_keeps_sets_or_removes() {
    let registry = isolated::<u64, u64>();
    assert!(registry.compute(1, |_, old| if old.is_none() { Change::Keep } else { Change::Remove }).is_none());
    assert!(registry.compute(1, |_, _| Change::Remove).is_none());
    assert_eq!(registry.compute(1, |key, _| Change::Set(key + 1)).as_deref(), Some(&2));
    let kept = registry.compute(1, |_, _| Change::Keep).unwrap();
    assert!(kept.ptr_eq(&registry.lookup(&1).unwrap()));
    assert!(registry.compute(1, |_, old| if old == Some(&2) { Change::Remove } else { Change::Keep }).is_none());
    assert!(registry.is_empty());
    let stats = registry.stats();
    assert_eq!((stats.inserted, stats.removed, stats.replaced), (1, 1, 0));
}

#[test]
fn an_update_whose_entry_leaves_inserts_nothing_and_a_computation_inserts() {
    let registry = isolated::<u64, u64>();
    registry.set(1, 1);
    let updated = registry.update(&1, |_, old| {
        registry.retain(|_, _| false);
        old + 1
    });
    assert!(updated.is_none() && registry.is_empty());
    registry.set(1, 1);
    let updated = block_on(registry.update_async(&1, async |old: Handle<u64, u64>| {
        assert!(registry.remove_handle(&old));
        *old + 1
    }));
    assert!(updated.is_none() && registry.is_empty());
    registry.set(1, 1);
    let set = registry.compute(1, |_, old| {
        registry.clear();
        Change::Set(old.unwrap() + 1)
    });
    assert_eq!((set.as_deref(), registry.len()), (Some(&2), 1));
}

#[test]
fn a_closure_that_panics_changes_nothing() {
    let registry = isolated::<u64, u64>();
    let entry = registry.insert_and_get(1, 1);
    panic_of(|| registry.update(&1, |_, _| panic!("on purpose")));
    panic_of(|| registry.compute(1, |_, _| panic!("on purpose")));
    panic_of(|| registry.update_or_insert(1, |_, _| panic!("on purpose"), || 1));
    panic_of(|| registry.update_or_insert(2, |_, _| 1, || panic!("on purpose")));
    panic_of(|| block_on(registry.compute_async(1, async |_| panic!("on purpose"))));
    assert!(registry.lookup(&1).unwrap().ptr_eq(&entry) && registry.len() == 1);
    assert!(registry.try_reserve_key(1).is_ok() && registry.try_reserve_key(2).is_ok());
}
