//! Handles: what they keep alive, how long, and their size.

use crate::common::*;
use epoch_registry::{Domain, Handle, Registry};
use std::thread;

#[test]
fn a_handle_is_one_word_and_so_is_an_option_of_one() {
    assert_eq!(size_of::<Handle<String, [u64; 100]>>(), size_of::<usize>());
    assert_eq!(size_of::<Option<Handle<String, [u64; 100]>>>(), size_of::<usize>());
    assert_eq!(size_of::<Option<Handle<(), ()>>>(), size_of::<usize>());
}

#[test]
fn a_handle_outlives_removal_registry_and_domain() {
    let ledger = Ledger::new();
    let domain = Domain::new();
    let registry = Registry::builder().domain(domain.clone()).build();
    let kept = registry.try_insert("kept".to_string(), ledger.value(1)).unwrap();
    let removed = registry.try_insert("removed".to_string(), ledger.value(2)).unwrap();
    drop(registry.remove("removed"));
    domain.barrier();
    assert_eq!((removed.key().as_str(), removed.get(), ledger.live()), ("removed", 2, 2));
    drop(registry);
    domain.barrier();
    drop(domain);
    assert_eq!((kept.key().as_str(), kept.get()), ("kept", 1));
    assert_eq!((removed.key().as_str(), removed.get()), ("removed", 2));
    drop((kept, removed));
    assert_eq!(ledger.live(), 0, "the last handle of a dropped registry and domain leaked");
}

#[test]
fn a_value_is_dropped_after_its_last_handle_and_not_before() {
    let ledger = Ledger::new();
    let registry = isolated();
    let first = registry.try_insert(1, ledger.value(1)).unwrap();
    let second = registry.lookup(&1).unwrap();
    let third = registry.pin().get(&1).unwrap().handle().unwrap();
    let fourth = registry.remove(&1).unwrap();
    for handle in [first, second, third, fourth] {
        registry.domain().barrier();
        assert_eq!((ledger.live(), handle.get()), (1, 1));
        drop(handle);
    }
    registry.domain().barrier();
    assert_eq!(ledger.live(), 0);
}

#[test]
fn clones_made_and_dropped_on_many_threads_keep_the_count_exact() {
    let ledger = Ledger::new();
    let registry = isolated();
    let handle = registry.try_insert(1, ledger.value(7)).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            let mut mine = handle.clone();
            scope.spawn(move || {
                for _ in 0..times(10_000) {
                    let clone = mine.clone();
                    assert_eq!(clone.get(), 7);
                    mine = clone;
                }
            });
        }
        drop(registry.remove(&1));
    });
    registry.domain().barrier();
    assert_eq!(ledger.live(), 1);
    // Several threads drop the last clones at the same time.
    for _ in 0..times(200) {
        let handle = registry.try_insert(2, ledger.value(8)).unwrap();
        drop(registry.remove(&2));
        thread::scope(|scope| {
            for handle in [handle.clone(), handle.clone(), handle] {
                scope.spawn(move || assert_eq!(handle.get(), 8));
            }
        });
    }
    drop(handle);
    registry.domain().barrier();
    assert_eq!(ledger.live(), 0);
}

#[test]
fn is_unlinked_reports_removal_replacement_reaping_clear_and_the_end_of_the_registry() {
    let registry: Registry<u64, u64> = isolated();
    let unlinked_by = |how: &dyn Fn()| {
        let handle = registry.get_or_insert_with(1, || 1);
        let guard = registry.pin();
        let entry = guard.get(&1).unwrap();
        assert!(!handle.is_unlinked() && !entry.is_unlinked());
        how();
        handle.is_unlinked() && entry.is_unlinked()
    };
    assert!(unlinked_by(&|| drop(registry.remove(&1))));
    assert!(unlinked_by(&|| drop(registry.insert(1, 2))));
    assert!(unlinked_by(&|| drop(registry.update(&1, |_, n| n + 1))));
    assert!(unlinked_by(&|| registry.clear()));
    assert!(unlinked_by(&|| assert_eq!(registry.reap_if(usize::MAX, |_| true).removed, 1)));
    assert!(unlinked_by(&|| registry.retain(|_, _| false)));
    assert!(unlinked_by(&|| registry.drain().for_each(drop)));
    let handle = registry.try_insert(1, 1).unwrap();
    drop(registry);
    assert!(handle.is_unlinked());
}

#[test]
fn an_entry_gives_no_handle_after_its_removal() {
    let registry: Registry<u64, u64> = isolated();
    registry.try_insert(1, 1).unwrap();
    let guard = registry.pin();
    let entry = guard.get(&1).unwrap();
    assert!(entry.handle().is_some());
    thread::scope(|scope| {
        scope.spawn(|| drop(registry.remove(&1)));
    });
    assert!(entry.handle().is_none());
    assert_eq!((*entry.key(), *entry), (1, 1), "the borrowed entry changed");
}

#[test]
fn remove_handle_removes_exactly_this_entry_and_only_once() {
    let registry: Registry<u64, u64> = isolated();
    let old = registry.try_insert(1, 1).unwrap();
    let new = registry.insert(1, 2).map(|_| registry.lookup(&1).unwrap()).unwrap();
    assert!(!old.ptr_eq(&new) && new.ptr_eq(&new.clone()));
    assert!(!registry.remove_handle(&old), "remove_handle removed another entry of the key");
    assert_eq!(*registry.lookup(&1).unwrap(), 2);
    assert!(registry.remove_handle(&new));
    assert!(!registry.remove_handle(&new));
    assert!(registry.is_empty());
}

#[test]
fn remove_handle_returns_false_for_a_handle_of_another_registry() {
    let (one, two): (Registry<u64, u64>, Registry<u64, u64>) = (isolated(), isolated());
    let same = FewBits { mask: u64::MAX };
    let (three, four) = (isolated_builder().hasher(same).build(), isolated_builder().shards(64).hasher(same).build());
    for key in 0..100 {
        let handles =
            [one.try_insert(key, 1).unwrap(), two.try_insert(key, 2).unwrap(), three.try_insert(key, 3).unwrap()];
        four.try_insert(key, 4).unwrap();
        assert!(!one.remove_handle(&handles[1]) && !two.remove_handle(&handles[0]));
        assert!(!three.remove_handle(&handles[0]) && !four.remove_handle(&handles[2]));
        assert!(handles.iter().all(|handle| !handle.is_unlinked()));
    }
    assert_eq!((one.len(), two.len(), three.len(), four.len()), (100, 100, 100, 100));
}

#[test]
fn of_many_threads_that_remove_one_handle_exactly_one_succeeds() {
    let registry: Registry<u64, u64> = isolated();
    for round in 0..times(500) as u64 {
        let handle = registry.try_insert(round, round).unwrap();
        let wins: usize = thread::scope(|scope| {
            let tries: Vec<_> = (0..3).map(|_| scope.spawn(|| registry.remove_handle(&handle))).collect();
            tries.into_iter().map(|one| usize::from(one.join().unwrap())).sum()
        });
        assert_eq!(wins, 1);
    }
}

#[test]
fn handles_compare_hash_and_print_by_value() {
    let registry: Registry<u64, u64> = isolated();
    let (a, b, c) =
        (registry.try_insert(1, 5).unwrap(), registry.try_insert(2, 5).unwrap(), registry.try_insert(3, 6).unwrap());
    assert!(a == b && a != c && !a.ptr_eq(&b));
    let set: std::collections::HashSet<_> = [a.clone(), b, c].into_iter().collect();
    assert_eq!(set.len(), 2);
    assert_eq!((format!("{a}"), format!("{a:?}"), *a.as_ref()), ("5".into(), "5".into(), 5));
}
