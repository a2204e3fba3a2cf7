//! Insertions by all calls are told, on request; and so are the entries of a registry that is dropped.

use crate::common::*;
use epoch_registry::{Cause, Domain, Handle, ManualClock, Registry};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::thread;
use std::time::Duration;

/// What the listeners were told: the cause of a departure, or `None` for an insertion, with key and value.
type Told = Arc<Mutex<Vec<(Option<Cause>, u64, u64)>>>;

/// Returns the builder of a registry whose listeners record everything, and the record.
fn recorded() -> (epoch_registry::Builder<u64, u64>, Told) {
    let told = Told::default();
    let (entered, left) = (told.clone(), told.clone());
    let builder = isolated_builder()
        .on_insert(move |entry: &Handle<u64, u64>| entered.lock().unwrap().push((None, *entry.key(), **entry)))
        .listener(move |cause, entry| left.lock().unwrap().push((Some(cause), *entry.key(), *entry)));
    (builder, told)
}

fn take(told: &Told) -> Vec<(Option<Cause>, u64, u64)> {
    std::mem::take(&mut *told.lock().unwrap())
}

#[test]
fn every_way_to_insert_is_told_once() {
    let (builder, told) = recorded();
    let registry = Arc::new(builder.build());
    let new = |key| vec![(None, key, key)];
    let replaced = |key, old, new| vec![(Some(Cause::Replaced), key, old), (None, key, new)];

    assert!(registry.insert(0, 0).is_none());
    assert_eq!(take(&told), new(0));
    registry.insert(0, 1);
    assert_eq!(take(&told), replaced(0, 0, 1));
    registry.try_insert(1, 1).unwrap();
    assert_eq!(take(&told), new(1));
    registry.add(2, 2).unwrap();
    assert_eq!(take(&told), new(2));
    assert!(!registry.set(3, 3));
    assert_eq!(take(&told), new(3));
    assert!(registry.set(3, 30));
    assert_eq!(take(&told), replaced(3, 3, 30));
    registry.insert_and_get(4, 4);
    assert_eq!(take(&told), new(4));
    registry.get_or_insert_with(5, || 5);
    assert_eq!(take(&told), new(5));
    registry.get_or_try_insert_with(6, || Ok::<_, ()>(6)).unwrap();
    assert_eq!(take(&told), new(6));
    registry.update(&6, |_, old| old + 1);
    assert_eq!(take(&told), replaced(6, 6, 7));
    registry.replace_handle(&registry.lookup(&6).unwrap(), 8).unwrap();
    assert_eq!(take(&told), replaced(6, 7, 8));
    registry.set_many([(7, 7), (7, 70)]);
    assert_eq!(take(&told), [new(7), replaced(7, 7, 70)].concat());
    (&*registry).extend([(8, 8)]);
    assert_eq!(take(&told), new(8));
    registry.fallible().insert(9, 9).unwrap();
    assert_eq!(take(&told), new(9));
    drop(registry.register(10, 10).unwrap());
    assert_eq!(take(&told), [new(10), vec![(Some(Cause::Removed), 10, 10)]].concat());

    // No entry is inserted here.
    assert!(registry.try_insert(1, 100).is_err() && registry.add(1, 100).is_err());
    registry.get_or_insert_with(1, || 100);
    registry.get_or_try_insert_with(100, || Err::<u64, _>(())).unwrap_err();
    assert!(registry.update(&100, |_, old| *old).is_none());
    assert_eq!(take(&told), []);
}

#[test]
fn insertions_are_told_without_a_listener_of_departures() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let registry: Registry<u64, u64> = isolated_builder()
        .on_insert(move |_| {
            counted.fetch_add(1, SeqCst);
        })
        .build();
    registry.insert(1, 1);
    registry.insert(1, 2);
    assert_eq!((registry.remove(&1).map(|entry| *entry), count.load(SeqCst)), (Some(2), 2));
}

#[test]
fn what_an_insertion_displaces_is_told_before_it() {
    let (builder, told) = recorded();
    let clock = ManualClock::new();
    let registry = builder.shards(1).max_entries(2).max_age(Duration::from_secs(9)).clock(clock.clone()).build();
    (0..2).for_each(|key| drop(registry.insert(key, key)));
    take(&told);
    registry.insert(2, 2);
    let events = take(&told);
    assert_eq!(events.iter().map(|event| event.0).collect::<Vec<_>>(), [Some(Cause::Capacity), None]);
    clock.advance(Duration::from_secs(10));
    registry.insert(2, 3);
    let events = take(&told);
    assert_eq!(events[..2], [(Some(Cause::Expired), 2, 2), (None, 2, 3)], "{events:?}");
}

#[test]
fn told_insertions_minus_told_departures_are_what_is_live_under_writers_of_many_threads() {
    in_time(|| {
        let balance: Arc<Mutex<HashMap<(u64, u64), i64>>> = Arc::default();
        let (entered, left) = (balance.clone(), balance.clone());
        let clock = ManualClock::new();
        let registry: Registry<u64, u64> = isolated_builder()
            .max_entries(100)
            .max_age(Duration::from_secs(10))
            .clock(clock.clone())
            .on_insert(move |entry: &Handle<u64, u64>| {
                *entered.lock().unwrap().entry((*entry.key(), **entry)).or_default() += 1
            })
            .listener(move |_, entry: Handle<u64, u64>| {
                *left.lock().unwrap().entry((*entry.key(), *entry)).or_default() -= 1
            })
            .build();
        thread::scope(|scope| {
            for seed in 0..4 {
                let (registry, clock) = (&registry, &clock);
                scope.spawn(move || {
                    let mut rng = Rng::new(seed + 1);
                    for step in 0..times(5000) as u64 {
                        // Each value is inserted once.
                        let (key, value) = (rng.below(200), seed << 32 | step);
                        match rng.below(9) {
                            0 => drop(registry.insert(key, value)),
                            1 => drop(registry.try_insert(key, value)),
                            2 => drop(registry.get_or_insert_with(key, || value)),
                            3 => drop(registry.update(&key, |_, _| value)),
                            4 => drop(registry.set_many([(key, value)])),
                            5 => drop(registry.remove(&key)),
                            6 if rng.below(50) == 0 => registry.clear(),
                            6 => drop(registry.add(key, value)),
                            7 => drop(registry.reap_if(5, |entry| *entry % 3 == 0)),
                            _ => {
                                clock.advance(Duration::from_millis(rng.below(100)));
                                registry.expire(8);
                            }
                        }
                    }
                });
            }
        });
        registry.expire(usize::MAX);
        let stats = registry.stats();
        let mut live = balance.lock().unwrap().clone();
        assert!(live.len() > 1000 && live.values().all(|&count| count == 0 || count == 1), "told twice or never");
        live.retain(|_, count| *count == 1);
        let found: HashMap<_, _> = registry.pin().iter().map(|entry| ((*entry.key(), *entry), 1)).collect();
        assert_eq!(live, found, "{stats}");
    });
}

/// The recipe of the documentation: a callback leaves out entries that have left, under the lock of its mirror.
#[test]
fn a_mirror_that_leaves_out_what_has_left_is_exact() {
    in_time(|| {
        let mirror: Arc<Mutex<HashMap<u64, Handle<u64, u64>>>> = Arc::default();
        let (entered, left) = (mirror.clone(), mirror.clone());
        let registry: Registry<u64, u64> = isolated_builder()
            .on_insert(move |entry: &Handle<u64, u64>| {
                let mut mirror = entered.lock().unwrap();
                if !entry.is_unlinked() {
                    mirror.insert(*entry.key(), entry.clone());
                }
            })
            .listener(move |_, entry| {
                let mut mirror = left.lock().unwrap();
                if mirror.get(entry.key()).is_some_and(|mirrored| mirrored.ptr_eq(&entry)) {
                    mirror.remove(entry.key());
                }
            })
            .build();
        thread::scope(|scope| {
            for seed in 0..4 {
                let registry = &registry;
                scope.spawn(move || {
                    let mut rng = Rng::new(seed + 1);
                    for value in 0..times(10_000) as u64 {
                        let key = rng.below(4);
                        if rng.below(2) == 0 {
                            drop(registry.insert(key, value));
                        } else {
                            drop(registry.remove(&key));
                        }
                    }
                });
            }
        });
        let mirror = mirror.lock().unwrap();
        assert_eq!(mirror.len(), registry.len());
        assert!(mirror.iter().all(|(key, entry)| registry.lookup(key).is_some_and(|found| found.ptr_eq(entry))));
    });
}

#[test]
fn a_callback_that_inserts_and_removes_does_not_recurse_and_keeps_the_order() {
    in_time(|| {
        let cell: Arc<OnceLock<Weak<Registry<u64, u64>>>> = Arc::default();
        let (depth, log) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (entered, left) = ((cell.clone(), depth.clone(), log.clone()), (depth.clone(), log.clone()));
        let registry: Registry<u64, u64> = isolated_builder()
            .on_insert(move |entry: &Handle<u64, u64>| {
                let (cell, depth, log) = &entered;
                assert_eq!(depth.fetch_add(1, SeqCst), 0, "a callback runs within another");
                log.lock().unwrap().push((true, *entry.key()));
                let registry = cell.get().and_then(Weak::upgrade).unwrap();
                registry.remove(entry.key());
                if *entry.key() < 50_000 {
                    registry.insert(*entry.key() + 1, 0);
                }
                depth.fetch_sub(1, SeqCst);
            })
            .listener(move |_, entry| {
                let (depth, log) = &left;
                assert_eq!(depth.fetch_add(1, SeqCst), 0, "a callback runs within another");
                log.lock().unwrap().push((false, *entry.key()));
                depth.fetch_sub(1, SeqCst);
            })
            .build();
        let registry = Arc::new(registry);
        cell.set(Arc::downgrade(&registry)).unwrap();
        registry.insert(0, 0);
        let expected: Vec<_> = (0..=50_000).flat_map(|key| [(true, key), (false, key)]).collect();
        assert!(*log.lock().unwrap() == expected && registry.is_empty());
        assert_eq!(registry.stats().listener_panics, 0);
    });
}

#[test]
fn a_callback_that_panics_is_counted_and_the_entry_stays() {
    let registry: Registry<u64, u64> =
        isolated_builder().on_insert(|entry: &Handle<u64, u64>| assert!(*entry.key() % 2 == 1, "planned")).build();
    (0..10).for_each(|key| drop(registry.insert(key, key)));
    assert_eq!((registry.len(), registry.stats().listener_panics), (10, 5));
}

/// Fills a registry in which most ways to hold an entry occur, drops it, and checks what is told.
fn drop_and_account<V: Send + Sync + 'static>(domain: Domain, expires: bool, value: impl Fn(u64) -> V) {
    let told: Arc<Mutex<Vec<(Cause, u64)>>> = Arc::default();
    let log = told.clone();
    let kept: Arc<Mutex<Vec<Handle<u64, V>>>> = Arc::default();
    let keeper = kept.clone();
    let mut builder = Registry::<u64, V>::builder().shards(4).domain(domain.clone()).tell_dropped(true);
    let clock = ManualClock::new();
    if expires {
        builder = builder.max_age(Duration::from_secs(60)).clock(clock.clone());
    }
    let registry = builder
        .listener(move |cause, entry| {
            assert!(entry.is_unlinked());
            log.lock().unwrap().push((cause, *entry.key()));
            if *entry.key() % 3 == 0 {
                keeper.lock().unwrap().push(entry);
            }
        })
        .build();
    (0..5000).for_each(|key| assert!(registry.add(key, value(key)).is_ok()));
    (0..100).for_each(|key| assert!(registry.delete(&key)));
    let held: Vec<_> = (200..300).filter_map(|key| registry.lookup(&key)).collect();
    // Some entries have expired, and are not reaped.
    clock.advance(Duration::from_secs(61));
    assert_eq!(std::mem::take(&mut *told.lock().unwrap()).len(), 100);
    drop(registry);
    let mut all = std::mem::take(&mut *told.lock().unwrap());
    all.sort_by_key(|&(_, key)| key);
    assert!(all.iter().all(|&(cause, _)| cause == Cause::Dropped));
    assert_eq!(all.iter().map(|&(_, key)| key).collect::<Vec<_>>(), (100..5000).collect::<Vec<_>>());
    assert!(held.iter().all(|entry| (200..300).contains(entry.key())));
    let kept = std::mem::take(&mut *kept.lock().unwrap());
    assert_eq!(kept.len(), (0..5000).filter(|key| key % 3 == 0).count());
    assert!(kept.iter().all(|entry| entry.key() % 3 == 0));
    // These handles outlive the registry, and one of them is dropped on another thread.
    thread::spawn(move || drop(kept)).join().unwrap();
    drop(held);
    domain.barrier();
}

#[test]
fn each_entry_of_a_dropped_registry_is_told_once_with_its_cause() {
    for expires in [false, true] {
        let ledger = Ledger::new();
        drop_and_account(Domain::new(), expires, |key| key);
        drop_and_account(Domain::new(), expires, |key| ledger.value(key));
        // Nodes with allocations of their own.
        drop_and_account(Domain::builder().writers_only().build(), expires, |key| (ledger.value(key), [0; 2000]));
        assert_eq!(ledger.live(), 0);
    }
}

#[test]
fn the_drop_of_a_registry_is_told_only_on_request() {
    let (builder, told) = recorded();
    let registry = builder.build();
    registry.insert(1, 1);
    drop(registry);
    assert_eq!(take(&told), [(None, 1, 1)]);
    let registry: Registry<u64, u64> = isolated_builder().tell_dropped(true).build();
    registry.insert(1, 1);
    drop(registry);
}

#[test]
fn a_listener_may_panic_or_use_another_registry_and_its_domain_while_its_registry_is_dropped() {
    in_time(|| {
        let ledger = Ledger::new();
        let domain = Domain::new();
        let other: Arc<Registry<u64, Cause>> = Arc::new(Registry::builder().domain(domain.clone()).build());
        let (seen, of) = (other.clone(), domain.clone());
        let registry: Registry<u64, Counted> = Registry::builder()
            .domain(domain.clone())
            .tell_dropped(true)
            .listener(move |cause, entry: Handle<u64, Counted>| {
                seen.insert(*entry.key(), cause);
                seen.remove(&(*entry.key() + 1));
                of.reclaim(10);
                if *entry.key() % 100 == 0 {
                    of.barrier();
                }
                assert!(*entry.key() % 7 != 0, "planned");
            })
            .build();
        (0..1000).for_each(|key| drop(registry.insert(key, ledger.value(key))));
        assert!(catch_unwind(AssertUnwindSafe(|| drop(registry))).is_ok());
        assert!(other.stats().inserted == 1000 && other.pin().values().all(|&cause| cause == Cause::Dropped));
        domain.barrier();
        assert_eq!(ledger.live(), 0);
    });
}
