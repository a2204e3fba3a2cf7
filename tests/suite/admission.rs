//! Registries that refuse at their bounds, exempt entries, and priorities of eviction.

use crate::common::*;
use epoch_registry::{AtCapacity, Builder, Domain, Handle, ManualClock, Priority, Refused, Registry, WhenFull};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Returns the builder of a registry that refuses at this many entries.
fn refusing<V: Send + Sync + 'static>(bound: usize) -> Builder<u64, V> {
    isolated_builder().max_entries(bound).at_capacity(AtCapacity::Refuse)
}

/// Checks that this many more entries are admitted, and not one more. Leaves the registry full. All keys are new.
fn fill_up(registry: &Registry<u64, u64>, room: usize) {
    static NEXT: AtomicU64 = AtomicU64::new(1 << 40);
    for more in (0..room).rev() {
        let key = NEXT.fetch_add(1, SeqCst);
        assert!(registry.admit(key, key).is_ok(), "refused with room for {more} more");
    }
    let full = registry.admit(NEXT.fetch_add(1, SeqCst), 0);
    assert!(matches!(full, Err(Refused::Full(_))), "admitted beyond the bound");
}

#[test]
fn a_bound_admits_as_many_as_it_says_however_keys_spread() {
    for (shards, bound) in [(1, 1), (64, 1), (64, 7), (16, 1000), (4, 0)] {
        let registry: Registry<u64, u64> = refusing(bound).shards(shards).build();
        assert_eq!(registry.max_entries(), Some(bound.max(1)));
        fill_up(&registry, bound.max(1));
        let stats = registry.stats();
        assert_eq!((registry.len(), stats.refused, stats.overruns, stats.evicted), (bound.max(1), 1, 0, 0));
    }
    // All keys in one shard.
    let registry: Registry<u64, u64, _> = refusing(100).shards(8).hasher(FewBits { mask: 0 }).build();
    assert_eq!((0..200).filter(|&key| registry.admit(key, key).is_ok()).count(), 100);
}

#[test]
fn a_refused_entry_comes_back_whole_and_the_key_is_told_before_the_room() {
    let ledger = Ledger::new();
    let registry: Registry<u64, Counted> = refusing(2).build();
    let first = registry.admit(1, ledger.value(10)).unwrap();
    registry.admit(2, ledger.value(20)).unwrap();
    let Err(Refused::Full(full)) = registry.admit(3, ledger.value(30)) else { panic!("admitted") };
    assert_eq!((full.key, full.value.get(), full.to_string()), (3, 30, "the registry is full".to_string()));
    drop(full);
    let Err(Refused::Occupied(occupied)) = registry.admit(1, ledger.value(11)) else { panic!("not occupied") };
    assert!(occupied.entry.ptr_eq(&first) && occupied.value.get() == 11);
    let Err(refused) = registry.admit(4, ledger.value(40)) else { panic!("admitted") };
    assert_eq!(
        (refused.to_string(), format!("{refused:?}")),
        ("the registry is full".into(), "Full(RegistryFull { .. })".into())
    );
    let (key, value) = refused.into_parts();
    assert_eq!((key, value.get()), (4, 40));
    // A replacement needs no room.
    let old = registry.admit_or_replace(1, ledger.value(12)).unwrap().unwrap();
    assert!(old.ptr_eq(&first) && registry.len() == 2);
    let full = registry.admit_or_replace(3, ledger.value(31)).err().unwrap();
    assert_eq!((full.key, full.value.get()), (3, 31));
    drop(full);
    assert!(registry.update(&1, |_, _| ledger.value(13)).is_some());
    assert_eq!((registry.stats().refused, registry.stats().overruns), (3, 0));
    drop((first, old, occupied, value));
    registry.domain().barrier();
    assert_eq!(ledger.live(), 2);
}

#[test]
fn every_way_to_leave_gives_the_place_back() {
    let clock = ManualClock::new();
    let builder = refusing(10).max_age(Duration::from_secs(60)).clock(clock.clone());
    let registry: Registry<u64, u64> = builder.build();
    let leave = |how: &str, f: &mut dyn FnMut()| {
        registry.clear();
        fill_up(&registry, 10);
        f();
        let room = 10 - registry.len();
        assert!(room > 0, "{how}: no entry has left");
        (0..room as u64).for_each(|key| assert!(registry.admit(key, key).is_ok(), "{how}: a place is lost"));
        assert!(registry.admit(1000, 0).is_err(), "{how}: a place was given back twice");
    };
    let some = || *registry.pin().keys().next().unwrap();
    leave("remove", &mut || drop(registry.remove(&some())));
    leave("delete", &mut || assert!(registry.delete(&some())));
    leave("remove_if", &mut || drop(registry.remove_if(&some(), |_, _| true)));
    leave("remove_handle", &mut || assert!(registry.remove_handle(&registry.lookup(&some()).unwrap())));
    leave("fallible", &mut || drop(registry.fallible().remove(&some()).unwrap()));
    leave("retain", &mut || registry.retain(|key, _| key % 2 == 0));
    leave("drain", &mut || assert!(registry.drain().next().is_some()));
    leave("clear", &mut || registry.clear());
    leave("reap_if", &mut || assert!(registry.reap_if(100, |entry| *entry % 2 == 0).removed > 0));
    leave("evict", &mut || assert_eq!(registry.evict(3), 3));
    leave("delete_many", &mut || assert_eq!(registry.delete_many(&[some()]), 1));
    leave("expire", &mut || {
        clock.advance(Duration::from_secs(61));
        assert_eq!(registry.expire(100).removed, 10);
    });
    leave("an expired entry that is removed by key", &mut || {
        let key = some();
        clock.advance(Duration::from_secs(61));
        assert!(registry.remove(&key).is_none() && registry.len() == 9);
        assert_eq!(registry.expire(100).removed, 9);
    });
    leave("an insertion that panics", &mut || {
        registry.delete(&some());
        let panic = catch_unwind(AssertUnwindSafe(|| registry.update(&some(), |_, _| panic!("planned"))));
        assert!(panic.is_err());
    });
    // What replaces an entry takes no place, and gives none back.
    registry.clear();
    fill_up(&registry, 10);
    let key = some();
    registry.insert(key, 1);
    registry.set(key, 2);
    registry.update(&key, |_, old| old + 1);
    registry.replace_handle(&registry.lookup(&key).unwrap(), 4).unwrap();
    assert!(registry.try_insert(key, 5).is_err() && registry.admit(1000, 0).is_err());
    assert_eq!((registry.stats().overruns, registry.len()), (0, 10));
}

#[test]
fn operations_that_cannot_be_refused_go_beyond_the_bound_and_are_counted() {
    let registry: Registry<u64, u64> = refusing(3).build();
    fill_up(&registry, 3);
    registry.insert(10, 10);
    registry.set(11, 11);
    registry.try_insert(12, 12).unwrap();
    registry.add(13, 13).unwrap();
    registry.get_or_insert_with(14, || 14);
    registry.set_many([(15, 15), (16, 16)]);
    let stats = registry.stats();
    assert_eq!((registry.len(), stats.overruns, stats.evicted), (10, 7, 0));
    // Each takes its place like any other: seven must leave before one is admitted.
    for left in (3..10).rev() {
        assert!(registry.admit(0, 0).is_err());
        registry.drain().next();
        assert_eq!(registry.len(), left);
    }
    assert!(registry.admit(0, 0).is_err());
    registry.drain().next();
    assert!(registry.admit(0, 0).is_ok());
}

#[test]
fn the_bound_of_a_registry_that_refuses_can_be_changed_and_evicts_nothing() {
    let registry: Registry<u64, u64> = refusing(5).build();
    fill_up(&registry, 5);
    registry.set_max_entries(Some(2));
    assert_eq!((registry.max_entries(), registry.len()), (Some(2), 5));
    let kept = *registry.pin().keys().next().unwrap();
    registry.retain(|key, _| *key == kept);
    assert!(registry.admit(1, 1).is_ok() && registry.admit(2, 2).is_err());
    registry.set_max_entries(Some(4));
    assert!(registry.admit(2, 2).is_ok() && registry.admit(3, 3).is_ok() && registry.admit(4, 4).is_err());
    registry.set_max_entries(None);
    assert_eq!(registry.max_entries(), None);
    (0..1000).for_each(|key| drop(registry.admit(key, key)));
    assert_eq!((registry.len(), registry.stats().evicted), (1001, 0));
}

#[test]
fn expired_entries_are_reaped_before_an_entry_is_refused_whatever_their_shard() {
    let clock = ManualClock::new();
    let registry: Registry<u64, u64> =
        refusing(200).shards(16).max_age(Duration::from_secs(60)).clock(clock.clone()).build();
    fill_up(&registry, 100 + 100);
    clock.advance(Duration::from_secs(61));
    fill_up(&registry, 200);
    assert_eq!((registry.stats().expired, registry.stats().refused), (200, 2));
}

#[test]
fn an_entry_whose_lifetime_is_prolonged_keeps_its_place() {
    let clock = ManualClock::new();
    let (asked, prolong) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(true)));
    let (count, on) = (asked.clone(), prolong.clone());
    let registry: Registry<u64, u64> = refusing(100)
        .lifetime(move |_, _| {
            count.fetch_add(1, SeqCst);
            Some(Duration::from_secs(if on.load(SeqCst) { 1000 } else { 10 }))
        })
        .clock(clock.clone())
        .build();
    prolong.store(false, SeqCst);
    fill_up(&registry, 100);
    prolong.store(true, SeqCst);
    clock.advance(Duration::from_secs(11));
    assert!(registry.admit(1, 1).is_err());
    assert!(asked.load(SeqCst) >= 200, "not every entry that was due was asked: {asked:?}");
    prolong.store(false, SeqCst);
    clock.advance(Duration::from_secs(1000));
    assert!(registry.admit(1, 1).is_ok());
}

#[test]
fn exempt_entries_are_admitted_to_a_full_registry_and_take_places() {
    let registry: Registry<u64, u64> = refusing(4).exempt(|key, _| *key >= 1 << 50).build();
    let root = 1 << 50;
    assert!(registry.admit(root, 0).is_ok());
    fill_up(&registry, 3);
    assert!((1..4).all(|next| registry.admit(root + next, 0).is_ok()));
    assert!(registry.admit_or_replace(root + 9, 0).unwrap().is_none());
    assert_eq!((registry.len(), registry.stats().overruns), (8, 4));
    registry.retain(|key, _| *key < root || *key > root + 2);
    assert!(registry.admit(1, 1).is_err(), "an exempt entry takes no place");
    assert!(matches!(registry.admit(root + 9, 1), Err(Refused::Occupied(_))));
}

#[test]
fn weight_is_bounded_exactly_and_a_replacement_needs_room_for_what_it_weighs_more() {
    let builder = isolated_builder().max_weight(100_000).at_capacity(AtCapacity::Refuse).shards(16);
    let registry: Registry<u64, u64> = builder.weigher(|_, weight| *weight as usize).build();
    assert_eq!((registry.max_weight(), registry.max_entries()), (Some(100_000), None));
    // An entry that weighs more than a shard's part of the bound.
    registry.admit(1, 50_000).unwrap();
    registry.admit(2, 40_000).unwrap();
    assert!(registry.admit(3, 20_000).is_err() && registry.admit(3, 200_000).is_err());
    assert!(registry.admit_or_replace(2, 60_000).is_err());
    assert_eq!(registry.lookup(&2).map(|entry| *entry), Some(40_000));
    assert!(registry.admit_or_replace(1, 20_000).is_ok());
    assert!(registry.admit_or_replace(2, 70_000).is_ok());
    assert!(registry.weight() <= 100_000 && registry.stats().overruns == 0);
    registry.update(&1, |_, _| 80_000);
    assert_eq!((registry.stats().overruns, registry.admit(3, 1).is_err()), (1, true));
    registry.remove(&2);
    assert!(registry.admit(3, 1000).is_ok());
    registry.clear();
    assert!(registry.admit(3, 99_000).is_ok());
    registry.set_max_weight(None);
    assert!(registry.admit(4, 1 << 40).is_ok());
}

/// Four threads admit and remove. Each counts its own entries, and at no instant are there more than the bound. At the
/// end there is room for exactly the rest.
#[test]
fn the_bound_is_exact_under_writers_of_many_threads() {
    in_time(|| {
        const BOUND: i64 = 20;
        let clock = ManualClock::new();
        let builder = refusing(BOUND as usize).shards(8).max_age(Duration::from_secs(10)).clock(clock.clone());
        let registry: Registry<u64, u64> = builder.build();
        // Counted up after an admission, and down before a removal, so it is never more than what is there.
        let (held, most, refused) = (AtomicI64::new(0), AtomicI64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            for seed in 0..4_u64 {
                let (registry, held, most, refused) = (&registry, &held, &most, &refused);
                scope.spawn(move || {
                    let mut rng = Rng::new(seed + 1);
                    let mut mine: Vec<Handle<u64, u64>> = Vec::new();
                    for step in 0..times(20_000) as u64 {
                        if mine.is_empty() || rng.below(20) > mine.len() as u64 {
                            match registry.admit(seed << 32 | step, step) {
                                Ok(entry) => {
                                    mine.push(entry);
                                    most.fetch_max(held.fetch_add(1, SeqCst) + 1, SeqCst);
                                }
                                Err(Refused::Full(full)) => {
                                    assert_eq!(full.value, step);
                                    refused.fetch_add(1, SeqCst);
                                }
                                Err(Refused::Occupied(_)) => unreachable!("each key is used once"),
                            }
                        } else {
                            held.fetch_sub(1, SeqCst);
                            let entry = mine.swap_remove(rng.below(mine.len() as u64) as usize);
                            if rng.below(2) == 0 {
                                registry.update(entry.key(), |_, old| old + 1).unwrap();
                                assert!(registry.delete(entry.key()));
                            } else {
                                assert!(registry.remove_handle(&entry));
                            }
                        }
                    }
                });
            }
        });
        let (most, refused, held) = (most.load(SeqCst), refused.load(SeqCst), held.load(SeqCst));
        println!("at most {most} of {BOUND}, {refused} refused, {}", registry.stats());
        assert!((BOUND - 2..=BOUND).contains(&most) && refused > 100, "{most}, {refused}");
        assert_eq!((registry.len() as i64, registry.stats().overruns, registry.stats().evicted), (held, 0, 0));
        fill_up(&registry, (BOUND - held) as usize);
        // Entries that expire give their places back, too.
        clock.advance(Duration::from_secs(11));
        fill_up(&registry, BOUND as usize);
    });
}

/// Two threads want the last place again and again: one gets it each time.
#[test]
fn of_threads_that_want_the_last_place_exactly_one_gets_it() {
    in_time(|| {
        let registry: Registry<u64, u64> = refusing(1).shards(8).build();
        let (barrier, admitted) = (std::sync::Barrier::new(4), AtomicUsize::new(0));
        thread::scope(|scope| {
            for thread in 0..4_u64 {
                let (registry, barrier, admitted) = (&registry, &barrier, &admitted);
                scope.spawn(move || {
                    for round in 0..times(2000) as u64 {
                        barrier.wait();
                        let entry = registry.admit(round * 4 + thread, 0);
                        admitted.fetch_add(usize::from(entry.is_ok()), SeqCst);
                        if barrier.wait().is_leader() {
                            assert_eq!(admitted.swap(0, SeqCst), 1);
                            registry.clear();
                        }
                    }
                });
            }
        });
    });
}

#[test]
fn an_admission_follows_the_policy_of_the_backlog() {
    in_time(|| {
        let domain = Domain::builder().backlog_objects(4).when_full(WhenFull::Refuse).build();
        let builder = Registry::<u64, u64>::builder().domain(domain.clone()).shards(4).max_entries(8);
        let registry = builder.at_capacity(AtCapacity::Refuse).build();
        fill_up(&registry, 8);
        with_reader(&domain, || {
            let keys: Vec<_> = registry.pin().keys().copied().collect();
            let removed = keys.iter().filter(|&key| registry.fallible().remove(key).is_ok()).count();
            assert!(removed > 0 && removed < 8);
            fill_up(&registry, removed);
            assert!(registry.fallible().insert(*registry.pin().keys().next().unwrap(), 7).is_err());
            registry.admit_or_replace(*registry.pin().keys().next().unwrap(), 7).unwrap().unwrap();
            assert_eq!(domain.stats().overruns, 1);
        });
        drop(registry);
        domain.barrier();
        assert_eq!(domain.backlog().objects, 0);
    });
}

/// The accounts of listeners hold where entries are refused: what was told is what is there.
#[test]
fn a_refused_entry_is_not_told_and_a_listener_may_admit() {
    in_time(|| {
        let told: Arc<Mutex<HashMap<u64, i64>>> = Arc::default();
        let (entered, left) = (told.clone(), told.clone());
        let registry: Registry<u64, u64> = refusing(50)
            .on_insert(move |entry: &Handle<u64, u64>| *entered.lock().unwrap().entry(*entry.key()).or_default() += 1)
            .listener(move |_, entry: Handle<u64, u64>| *left.lock().unwrap().entry(*entry.key()).or_default() -= 1)
            .build();
        thread::scope(|scope| {
            for seed in 0..4 {
                let registry = &registry;
                scope.spawn(move || {
                    let mut rng = Rng::new(seed + 1);
                    for _ in 0..times(5000) {
                        let key = rng.below(100);
                        match rng.below(3) {
                            0 => drop(registry.admit(key, 0)),
                            1 => drop(registry.admit_or_replace(key, 0)),
                            _ => drop(registry.remove(&key)),
                        }
                    }
                });
            }
        });
        let mut live = told.lock().unwrap().clone();
        live.retain(|_, count| *count != 0);
        let found: HashMap<_, _> = registry.pin().keys().map(|key| (*key, 1)).collect();
        assert!(live == found && live.len() <= 50 && registry.stats().refused > 0);
    });
}

// Priorities.

/// Returns a registry with one shard in which the value is the priority.
fn prioritized(bound: usize) -> Registry<u64, Priority> {
    isolated_builder().shards(1).max_entries(bound).priority(|_, priority: &Priority| *priority).build()
}

fn left(registry: &Registry<u64, Priority>, priority: Priority) -> usize {
    registry.pin().values().filter(|&&found| found == priority).count()
}

#[test]
fn entries_of_the_first_priority_are_evicted_first_even_if_used() {
    let registry = prioritized(100);
    (0..90).for_each(|key| drop(registry.insert(key, Priority::Normal)));
    (90..100).for_each(|key| drop(registry.insert(key, Priority::First)));
    // Each entry is used. The first ten victims are those of the first priority, or met before them.
    for key in 100..110 {
        (0..key).for_each(|key| drop(registry.lookup(&key)));
        registry.insert(key, Priority::Normal);
    }
    let rest = left(&registry, Priority::First);
    println!("{rest} of 10 left");
    assert!(rest < 5, "{rest}");
    // Without a use, they go as fast as any other.
    let registry = prioritized(16);
    (0..15).for_each(|key| drop(registry.insert(key, Priority::Last)));
    registry.insert(15, Priority::First);
    registry.lookup(&15).unwrap();
    registry.insert(16, Priority::Last);
    assert!(!registry.contains_key(&15), "an entry of the first priority outlived one of the last");
}

#[test]
fn entries_of_the_last_priority_are_evicted_only_if_there_is_no_other() {
    let registry = prioritized(16);
    (0..8).for_each(|key| drop(registry.insert(key, Priority::Last)));
    for key in 8..1000 {
        registry.insert(key, Priority::Normal);
        // All are used, so the search comes to its end.
        (0..=key).for_each(|key| drop(registry.lookup(&key)));
    }
    assert_eq!((left(&registry, Priority::Last), registry.len()), (8, 16));
    (2000..2016).for_each(|key| drop(registry.insert(key, Priority::Last)));
    assert_eq!((left(&registry, Priority::Last), left(&registry, Priority::Normal)), (16, 0));
    assert!((2000..2016).filter(|key| registry.contains_key(key)).count() >= 8);
}

#[test]
fn entries_of_the_priority_never_stay_and_the_others_go() {
    let registry = prioritized(1000);
    (0..999).for_each(|key| drop(registry.insert(key, Priority::Never)));
    for key in 1000..3000 {
        registry.insert(key, if key % 2 == 0 { Priority::Normal } else { Priority::Last });
        registry.lookup(&key).unwrap();
    }
    assert_eq!((left(&registry, Priority::Never), registry.len(), registry.stats().overruns), (999, 1000, 0));
    assert_eq!((registry.evict(5), registry.shrink_to(0), registry.len()), (1, 0, 999));
    registry.set_max_entries(Some(10));
    assert_eq!(registry.len(), 999);
    registry.set_max_entries(Some(2000));
    (3000..9000).for_each(|key| drop(registry.insert(key, Priority::Normal)));
    assert_eq!((left(&registry, Priority::Never), registry.len(), registry.stats().overruns), (999, 2000, 0));
}

#[test]
fn without_a_victim_an_admission_is_refused_and_another_insertion_goes_beyond() {
    let registry = prioritized(100);
    (0..100).for_each(|key| assert!(registry.admit(key, Priority::Never).is_ok()));
    assert!(matches!(registry.admit(100, Priority::Normal), Err(Refused::Full(_))));
    assert!(registry.admit_or_replace(5, Priority::Never).unwrap().is_some());
    assert_eq!((registry.len(), registry.stats().refused, registry.stats().overruns), (100, 1, 0));
    registry.insert(100, Priority::Normal);
    assert_eq!((registry.len(), registry.stats().overruns), (101, 1));
    // The next insertion finds a victim, but needs another for the one beyond.
    assert!(registry.admit(101, Priority::Normal).is_err());
    assert_eq!(registry.len(), 100);
    registry.remove(&0);
    assert!(registry.admit(101, Priority::Normal).is_ok() && registry.admit(102, Priority::Normal).is_ok());
    assert_eq!((registry.len(), registry.stats().evicted, left(&registry, Priority::Normal)), (100, 2, 1));
}

#[test]
fn the_entry_that_is_replaced_is_no_victim_of_its_own_replacement() {
    let builder = isolated_builder().shards(1).max_weight(10_000).weigher(|_, &(_, weight): &(Priority, usize)| weight);
    let registry: Registry<u64, (Priority, usize)> = builder.priority(|_, value: &(Priority, usize)| value.0).build();
    (0..8).for_each(|key| drop(registry.insert(key, (Priority::Never, 1000))));
    registry.insert(8, (Priority::Normal, 100));
    assert!(registry.admit_or_replace(8, (Priority::Normal, 5000)).is_err());
    assert_eq!((registry.len(), registry.lookup(&8).map(|entry| entry.1)), (9, Some(100)));
    // The search has left it out, and finds it for another.
    assert!(registry.admit(9, (Priority::Normal, 1600)).is_ok());
    assert!(!registry.contains_key(&8) && registry.contains_key(&9));
    registry.insert(9, (Priority::Normal, 5000));
    assert_eq!((registry.len(), registry.stats().overruns), (9, 1));
}

#[test]
fn a_changed_priority_holds_after_reprioritize_also_among_readers() {
    in_time(|| {
        let priority = |_: &u64, never: &AtomicBool| match never.load(SeqCst) {
            true => Priority::Never,
            false => Priority::Normal,
        };
        let registry: Registry<u64, AtomicBool> =
            isolated_builder().shards(1).max_entries(100).priority(priority).build();
        let other: Registry<u64, AtomicBool> = isolated_builder().priority(priority).build();
        let stop = Stop::default();
        thread::scope(|scope| {
            // Reads leave marks in the byte that holds the priority.
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut reader = registry.reader();
                    while !stop.stopped() {
                        (0..10).for_each(|key| assert!(reader.get(&key).is_none_or(|entry| *entry.key() == key)));
                    }
                });
            }
            let _end = stop.at_end();
            let mut next = 1000;
            for _ in 0..times(300) {
                let entry = registry.insert_and_get(next % 10, AtomicBool::new(false));
                entry.store(true, SeqCst);
                assert!(registry.reprioritize(&entry) && !other.reprioritize(&entry));
                for _ in 0..150 {
                    next += 1;
                    registry.insert(next, AtomicBool::new(false));
                }
                assert!(!entry.is_unlinked(), "an entry was evicted that is never to be");
                // And back: the search for a victim finds it again.
                entry.store(false, SeqCst);
                assert!(registry.reprioritize(&entry));
                assert!(registry.remove_handle(&entry) && !registry.reprioritize(&entry));
            }
        });
        let full: Vec<_> = (0..100).map(|key| registry.insert_and_get(key, AtomicBool::new(true))).collect();
        registry.set_max_entries(Some(50));
        assert!(registry.admit(5000, AtomicBool::new(false)).is_err());
        full.iter().for_each(|entry| entry.store(false, SeqCst));
        assert!(full.iter().filter(|entry| registry.reprioritize(entry)).count() >= 99);
        assert!(registry.admit(5000, AtomicBool::new(false)).is_ok() && registry.len() == 50);
    });
}

#[test]
fn priorities_hold_in_large_and_sparse_tables_and_without_a_bound() {
    let builder = isolated_builder().shards(1).capacity(100_000);
    let registry: Registry<u64, Priority> = builder.priority(|_, priority: &Priority| *priority).build();
    (0..50).for_each(|key| drop(registry.insert(key, Priority::Never)));
    assert_eq!(registry.evict(10), 0);
    registry.insert(50, Priority::Last);
    assert_eq!((registry.evict(10), registry.len()), (1, 50));
    registry.set_max_entries(Some(50));
    assert!(matches!(registry.admit(51, Priority::Normal), Err(Refused::Full(_))));
    registry.insert(52, Priority::First);
    registry.insert(53, Priority::First);
    assert!(registry.len() <= 52 && left(&registry, Priority::Never) == 50);
}

#[test]
fn a_panic_of_the_functions_reaches_the_caller_and_takes_no_place() {
    let registry: Registry<u64, u64> = refusing(2)
        .priority(|key, _| if *key == 7 { panic!("planned") } else { Priority::Never })
        .exempt(|key, _| if *key == 8 { panic!("planned") } else { false })
        .build();
    for key in [7, 8] {
        assert_eq!(panic_of(|| registry.admit(key, 0)), "planned");
        assert_eq!(panic_of(|| registry.insert(key, 0)), "planned");
    }
    fill_up(&registry, 2);
}

/// A storm with all priorities: the bound holds, the entries that never go stay, and nothing is lost.
#[test]
fn a_storm_with_priorities_keeps_what_must_stay() {
    in_time(|| {
        let ledger = Ledger::new();
        let registry: Registry<u64, Counted> = isolated_builder()
            .max_entries(200)
            .priority(|key, _| match key % 8 {
                0 if *key < 400 => Priority::Never,
                1 => Priority::First,
                2 => Priority::Last,
                _ => Priority::Normal,
            })
            .build();
        (0..400).step_by(8).for_each(|key| drop(registry.insert(key, ledger.value(key))));
        thread::scope(|scope| {
            for seed in 0..4 {
                let (registry, ledger) = (&registry, &ledger);
                scope.spawn(move || {
                    let mut rng = Rng::new(seed + 1);
                    for _ in 0..times(10_000) {
                        let key = rng.below(4000);
                        match rng.below(6) {
                            0..2 => drop(registry.insert(key, ledger.value(key))),
                            2 => drop(registry.admit(key, ledger.value(key))),
                            3 => drop(registry.lookup(&key)),
                            4 if key >= 400 => drop(registry.remove(&key)),
                            4 => drop(registry.lookup(&key).map(|entry| registry.reprioritize(&entry))),
                            _ => drop(registry.evict(1)),
                        }
                    }
                });
            }
        });
        assert!((0..400).step_by(8).all(|key| registry.contains_key(&key)));
        assert!(registry.len() <= 200 && registry.stats().overruns == 0 && registry.stats().evicted > 1000);
        registry.domain().barrier();
        assert_eq!(ledger.live(), registry.len() as u64);
    });
}

/// std's `HashMap`, which is asked for its length before each admission, is the oracle.
#[test]
fn random_operations_agree_with_a_map_that_counts() {
    for seed in 0..times(20) as u64 {
        let mut rng = Rng::new(seed + 1);
        let mut bound = 1 + rng.below(30) as usize;
        let registry: Registry<u64, u64> =
            refusing(bound).shards(1 << rng.below(5)).exempt(|_, value| value % 16 == 0).build();
        let (mut map, mut overruns, mut refused) = (HashMap::new(), 0, 0);
        for value in 0..2000 {
            let key = rng.below(40);
            let (is_there, is_full, is_exempt) = (map.contains_key(&key), map.len() >= bound, value % 16 == 0);
            let beyond = u64::from(!is_there && is_full);
            match rng.below(10) {
                0..3 => match registry.admit(key, value) {
                    Ok(entry) => {
                        assert!(!is_there && (!is_full || is_exempt) && *entry == value);
                        map.insert(key, value);
                        overruns += beyond;
                    }
                    Err(Refused::Occupied(occupied)) => assert_eq!(map.get(&key), Some(&*occupied.entry)),
                    Err(Refused::Full(full)) => {
                        assert!(!is_there && is_full && !is_exempt && (full.key, full.value) == (key, value));
                        refused += 1;
                    }
                },
                3..5 => match registry.admit_or_replace(key, value) {
                    Ok(old) => {
                        assert!(is_there || !is_full || is_exempt);
                        assert_eq!(map.insert(key, value), old.map(|old| *old));
                        overruns += beyond;
                    }
                    Err(full) => {
                        assert!(!is_there && is_full && !is_exempt && (full.key, full.value) == (key, value));
                        refused += 1;
                    }
                },
                5 if rng.below(4) == 0 => {
                    assert_eq!(registry.insert(key, value).map(|old| *old), map.insert(key, value));
                    overruns += beyond;
                }
                6 if rng.below(50) == 0 => {
                    bound = 1 + rng.below(30) as usize;
                    registry.set_max_entries(Some(bound));
                }
                7 => drop(registry.update(&key, |_, old| old + 1).map(|new| map.insert(key, *new))),
                8 if rng.below(20) == 0 => {
                    registry.retain(|key, _| key % 3 == 0);
                    map.retain(|key, _| key % 3 == 0);
                }
                _ => assert_eq!(registry.remove(&key).map(|old| *old), map.remove(&key)),
            }
            assert_eq!(registry.len(), map.len());
        }
        let found: HashMap<_, _> = registry.pin().iter().map(|entry| (*entry.key(), *entry)).collect();
        assert_eq!((found, registry.stats().evicted), (map, 0));
        assert_eq!((registry.stats().overruns, registry.stats().refused), (overruns, refused));
    }
}
