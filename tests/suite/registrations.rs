//! Registrations: entries that leave with the object that registered them.

use crate::common::*;
use epoch_registry::{Handle, Registration, Registry};
use std::sync::{Arc, Mutex};
use std::thread;

fn shared() -> Arc<Registry<u64, u64>> {
    Arc::new(isolated())
}

#[test]
fn a_registration_removes_its_entry_once() {
    let registry = shared();
    let registration = registry.register(1, 10).unwrap();
    assert_eq!((*registration.key(), **registration, *registration.handle().value()), (1, 10, 10));
    let occupied = registry.register(1, 20).unwrap_err();
    assert!(occupied.value == 20 && occupied.entry.ptr_eq(&registration));
    drop(registration);
    assert!(registry.is_empty());
    let registration = registry.register(1, 30).unwrap();
    assert!(registration.remove() && registry.is_empty());
    assert_eq!(registry.stats().removed, 2);
}

#[test]
fn a_registration_never_removes_a_successor() {
    let ways: [fn(&Registry<u64, u64>); 5] = [
        |registry| drop(registry.insert(1, 2)),
        |registry| drop(registry.update(&1, |_, _| 2)),
        |registry| drop((registry.remove(&1), registry.insert(1, 2))),
        |registry| {
            registry.clear();
            // The slot of the entry would be free for the successor, if the registration did not hold it.
            registry.domain().barrier();
            registry.set(1, 2);
        },
        |registry| drop((registry.drain().count(), registry.insert(1, 2))),
    ];
    for way in ways {
        let registry = shared();
        let (one, two) = (registry.register(1, 1).unwrap(), registry.lookup(&1).unwrap());
        let two = Registration::of(&registry, two);
        way(&registry);
        drop(one);
        assert_eq!(registry.lookup(&1).map(|entry| *entry), Some(2));
        assert!(!two.remove(), "a registration removed a successor");
        assert_eq!(registry.len(), 1);
    }
}

#[test]
fn a_kept_entry_stays_and_a_foreign_entry_is_left_alone() {
    let (registry, other) = (shared(), shared());
    let entry = registry.register(1, 10).unwrap().keep();
    assert!(!entry.is_unlinked() && registry.len() == 1);
    drop(Registration::of(&other, entry.clone()));
    assert!(!entry.is_unlinked() && registry.len() == 1);
    drop(Registration::of(&registry, entry));
    assert!(registry.is_empty());
}

#[test]
fn a_registration_does_not_keep_the_registry_and_outlives_it() {
    let ledger = Ledger::new();
    let registry = Arc::new(isolated());
    let registration = registry.register(1, ledger.value(1)).unwrap();
    drop(registry.register(2, ledger.value(2)).unwrap());
    drop(registry);
    assert!(registration.is_unlinked() && registration.get() == 1 && ledger.live() == 1);
    drop(registration);
    assert_eq!(ledger.live(), 0);
}

/// The destructors of values may drop registrations of other entries.
#[test]
fn registrations_are_dropped_by_destructors_also_at_the_end_of_the_registry() {
    struct Service {
        _also: Option<Registration<u64, Service>>,
        _counted: Counted,
    }
    let ledger = Ledger::new();
    let make = |also| Service { _also: also, _counted: ledger.value(0) };
    for removes in [true, false] {
        let registry: Arc<Registry<u64, Service>> = Arc::new(isolated());
        let mut last = None;
        for key in 0..100 {
            last = Some(registry.register(key, make(last)).ok().unwrap());
        }
        if removes {
            drop(last);
            // Each destructor removes the next entry.
            while ledger.live() > 0 {
                registry.domain().barrier();
            }
            assert!(registry.is_empty());
        } else {
            drop(last.unwrap().keep());
            drop(registry);
            assert_eq!(ledger.live(), 0);
        }
    }
}

#[test]
fn a_listener_may_drop_registrations() {
    type Slot = Mutex<Option<Registration<u64, u64>>>;
    static OTHER: Slot = Mutex::new(None);
    let registry = Arc::new(
        isolated_builder()
            .listener(|_, entry: Handle<u64, u64>| {
                assert!(entry.is_unlinked());
                let other = OTHER.lock().unwrap().take();
                drop(other);
            })
            .build(),
    );
    *OTHER.lock().unwrap() = Some(registry.register(2, 20).unwrap());
    drop(registry.register(1, 10).unwrap());
    assert!(registry.is_empty());
    assert_eq!((registry.stats().removed, registry.stats().listener_panics), (2, 0));
}

#[test]
fn of_registrations_and_removals_at_once_each_entry_is_removed_once() {
    let registry = shared();
    for _ in 0..times(500) {
        let one = registry.register(1, 1).unwrap();
        let two = Registration::of(&registry, one.clone());
        let removed: u32 = thread::scope(|scope| {
            let tries = [
                scope.spawn(|| u32::from(one.remove())),
                scope.spawn(|| u32::from(two.remove())),
                scope.spawn(|| u32::from(registry.delete(&1))),
            ];
            tries.into_iter().map(|one| one.join().unwrap()).sum()
        });
        assert_eq!((removed, registry.len()), (1, 0));
    }
    // The registry ends while registrations are dropped.
    for _ in 0..times(200) {
        let ledger = Ledger::new();
        let registry = Arc::new(isolated());
        let registrations: Vec<_> = (0..4).map(|key| registry.register(key, ledger.value(key)).unwrap()).collect();
        thread::scope(|scope| {
            registrations.into_iter().for_each(|one| drop(scope.spawn(move || drop(one))));
            drop(registry);
        });
        assert_eq!(ledger.live(), 0);
    }
}
