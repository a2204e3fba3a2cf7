//! Entries with times to live of their own, and how they go together with the other limits.

use crate::common::*;
use epoch_registry::{Builder, Cause, Domain, Handle, ManualClock, Registry};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const NANO: Duration = Duration::from_nanos(1);

/// Registries in which entries come to have times to live: prepared when they are built, by the first time to live, or by
/// another limit.
fn registries() -> [(&'static str, Registry<u64, u64>, ManualClock); 4] {
    let built = |what, change: fn(Builder<u64, u64>) -> Builder<u64, u64>| {
        let (builder, clock) = clocked::<u64, u64>();
        clock.advance(100 * SECOND);
        let registry = change(builder).build();
        clock.advance(SECOND);
        (what, registry, clock)
    };
    [
        built("prepared", |builder| builder.per_entry_ttl(true)),
        built("not prepared", |builder| builder),
        built("max_age", |builder| builder.max_age(1_000_000 * SECOND)),
        built("lifetime", |builder| builder.lifetime(|_, _| None)),
    ]
}

/// Checks that the entry of `key` expires after exactly `time`, by reads and by a reaper.
fn assert_expires_in(what: &str, registry: &Registry<u64, u64>, clock: &ManualClock, key: u64, time: Duration) {
    let entry = registry.peek(&key).unwrap_or_else(|| panic!("{what}: the entry is absent"));
    assert_eq!(registry.remaining(&entry), Some(time), "{what}");
    clock.advance(time);
    assert_eq!(registry.expire(1000).removed, 0, "{what}");
    assert!(registry.peek(&key).is_some() && registry.remaining(&entry) == Some(Duration::ZERO), "{what}");
    clock.advance(NANO);
    assert!(!registry.contains_key(&key) && registry.peek(&key).is_none(), "{what}: it is found too late");
    assert!(!entry.is_unlinked(), "{what}: reaped by a read");
    assert_eq!(registry.expire(1000).removed, 1, "{what}: the reaper misses it");
    assert!(entry.is_unlinked() && registry.remaining(&entry) == Some(Duration::ZERO), "{what}");
}

#[test]
fn an_entry_expires_when_it_is_older_than_its_time_to_live() {
    for (what, registry, clock) in registries() {
        registry.set(1, 10);
        assert_eq!(registry.insert_with_ttl(1, 11, 10 * SECOND).as_deref(), Some(&10), "{what}");
        assert!(!registry.set_with_ttl(2, 20, 5 * SECOND), "{what}");
        assert!(registry.try_insert_with_ttl(2, 21, SECOND).is_err(), "{what}");
        assert!(registry.try_insert_with_ttl(3, 30, 20 * SECOND).is_ok(), "{what}");
        registry.set(4, 40);
        assert_expires_in(what, &registry, &clock, 2, 5 * SECOND);
        assert_expires_in(what, &registry, &clock, 1, 5 * SECOND - NANO);
        assert!(registry.try_insert_with_ttl(2, 22, 40 * SECOND).is_ok(), "{what}: an expired entry keeps its key");
        assert_expires_in(what, &registry, &clock, 3, 10 * SECOND - NANO);
        assert_eq!((registry.len(), registry.contains_key(&4)), (2, true), "{what}");
    }
}

#[test]
fn a_replacement_does_not_inherit_the_time_to_live() {
    for (what, registry, clock) in registries() {
        registry.set_with_ttl(1, 1, SECOND);
        registry.set_with_ttl(2, 2, SECOND);
        registry.set(1, 10);
        registry.update(&2, |_, value| value + 1).unwrap();
        clock.advance(2 * SECOND);
        assert!(registry.expire(1000).removed == 0 && registry.len() == 2, "{what}");
    }
}

#[test]
fn a_time_to_live_can_be_shortened_prolonged_and_removed() {
    for (what, registry, clock) in registries() {
        let entry = registry.insert_and_get(1, 1);
        assert!(registry.set_ttl(&entry, Some(10 * SECOND)), "{what}");
        clock.advance(9 * SECOND);
        assert!(registry.set_ttl(&entry, Some(10 * SECOND)), "{what}");
        clock.advance(9 * SECOND);
        assert!(registry.set_ttl(&entry, None), "{what}");
        clock.advance(1000 * SECOND);
        assert!(registry.expire(1000).removed == 0 && registry.contains_key(&1), "{what}");
        assert!(registry.set_ttl(&entry, Some(100 * SECOND)) && registry.set_ttl(&entry, Some(3 * SECOND)), "{what}");
        assert_expires_in(what, &registry, &clock, 1, 3 * SECOND);
    }
}

#[test]
fn an_entry_expires_when_the_clock_shows_more_than_the_given_time() {
    for (what, registry, clock) in registries() {
        let entry = registry.insert_and_get(1, 1);
        assert!(registry.expire_at(&entry, registry.now() + 7 * SECOND), "{what}");
        assert_expires_in(what, &registry, &clock, 1, 7 * SECOND);
        for past in [registry.now() - NANO, registry.now() - 50 * SECOND, Duration::ZERO] {
            let entry = registry.insert_and_get(1, 1);
            assert!(registry.expire_at(&entry, past) && !registry.contains_key(&1), "{what} {past:?}");
            assert!(!registry.expire_at(&entry, past), "{what}: an entry that has expired was set");
            assert_eq!(registry.expire(10).removed, 1, "{what}");
        }
        let entry = registry.insert_and_get(1, 1);
        assert!(registry.expire_at(&entry, Duration::MAX) && registry.contains_key(&1), "{what}");
    }
}

#[test]
fn an_entry_that_is_gone_gets_no_time_to_live() {
    for (what, registry, clock) in registries() {
        let other = isolated::<u64, u64>();
        let foreign = other.insert_and_get(1, 1);
        let refuses = |entry: &Handle<u64, u64>| {
            assert!(!registry.set_ttl(entry, Some(SECOND)) && !registry.set_ttl(entry, None), "{what}");
            assert!(!registry.expire_at(entry, Duration::MAX) && !registry.renew(entry), "{what}");
            assert_eq!(registry.remaining(entry), Some(Duration::ZERO), "{what}");
        };
        let removed = registry.insert_and_get(1, 1);
        registry.remove(&1);
        let replaced = registry.insert_and_get(1, 1);
        let expired = registry.insert_and_get(1, 2);
        registry.set_ttl(&expired, Some(SECOND));
        clock.advance(2 * SECOND);
        [&removed, &replaced, &expired, &foreign].into_iter().for_each(refuses);
        assert!(other.contains_key(&1) && other.remaining(&foreign).is_none(), "{what}: it changed a foreign entry");
        assert_eq!(registry.age(&foreign), Duration::ZERO, "{what}");
    }
}

#[test]
fn an_entry_that_ended_as_idle_gets_no_time_to_live() {
    let (builder, clock) = clocked::<u64, u64>();
    let registry = builder.max_idle(16 * SECOND).build();
    let entry = registry.insert_and_get(1, 1);
    assert_eq!(registry.remaining(&entry), Some(17 * SECOND + NANO));
    clock.advance(18 * SECOND);
    assert!(registry.peek(&1).is_none() && !registry.set_ttl(&entry, Some(100 * SECOND)));
    assert!(registry.peek(&1).is_none());
}

#[test]
fn the_earliest_of_all_limits_counts() {
    let (builder, clock) = clocked::<u64, u64>();
    let registry = builder.max_age(10 * SECOND).max_idle(16 * SECOND).build();
    registry.set_with_ttl(1, 1, 100 * SECOND);
    assert_expires_in("max_age", &registry, &clock, 1, 10 * SECOND);
    registry.set_max_age(None);
    let entry = registry.insert_and_get(2, 2);
    registry.set_ttl(&entry, Some(100 * SECOND));
    assert_expires_in("max_idle", &registry, &clock, 2, 17 * SECOND + NANO);
    registry.set_with_ttl(3, 3, 5 * SECOND);
    assert_expires_in("ttl", &registry, &clock, 3, 5 * SECOND);
}

#[test]
fn a_later_limit_of_age_shortens_a_time_to_live_and_does_not_prolong_it() {
    for (what, registry, clock) in registries() {
        registry.set_with_ttl(1, 1, 10 * SECOND);
        registry.set_max_age(Some(5 * SECOND));
        assert_expires_in(what, &registry, &clock, 1, 5 * SECOND);
        let entry = registry.insert_and_get(3, 3);
        registry.set_ttl(&entry, Some(3 * SECOND));
        registry.set_max_age(Some(100 * SECOND));
        assert_eq!(registry.remaining(&entry), Some(3 * SECOND), "{what}");
        registry.set_max_age(None);
        assert_expires_in(what, &registry, &clock, 3, 3 * SECOND);
    }
}

#[test]
fn a_time_to_live_takes_the_place_of_the_lifetime_until_the_entry_is_renewed() {
    let (builder, clock) = clocked::<u64, u64>();
    let (asked, calls) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (answer, count) = (Arc::clone(&asked), Arc::clone(&calls));
    let registry = builder
        .lifetime(move |_, _| {
            count.fetch_add(1, SeqCst);
            Some(answer.load(SeqCst)).filter(|&seconds| seconds > 0).map(Duration::from_secs)
        })
        .build();
    registry.set_with_ttl(1, 1, 10 * SECOND);
    assert_eq!(calls.load(SeqCst), 0, "the lifetime is asked about an entry with a time to live");
    asked.store(1000, SeqCst);
    assert_expires_in("ttl", &registry, &clock, 1, 10 * SECOND);
    assert_eq!(calls.load(SeqCst), 0, "the lifetime is asked when the time to live is over");
    let entry = registry.insert_and_get(2, 2);
    assert!(registry.set_ttl(&entry, Some(10 * SECOND)));
    registry.set_max_age(Some(5000 * SECOND));
    assert_eq!((calls.load(SeqCst), registry.remaining(&entry)), (1, Some(10 * SECOND)));
    asked.store(20, SeqCst);
    clock.advance(5 * SECOND);
    assert!(registry.renew(&entry));
    assert_expires_in("renewed", &registry, &clock, 2, 15 * SECOND);
}

#[test]
fn an_answer_of_the_lifetime_is_not_final() {
    let (builder, clock) = clocked::<u64, AtomicU64>();
    let registry = builder
        .lifetime(|_, seconds: &AtomicU64| {
            Some(Duration::from_secs(seconds.load(SeqCst))).filter(|time| !time.is_zero())
        })
        .build();
    let entry = registry.insert_and_get(1, AtomicU64::new(0));
    assert_eq!(registry.remaining(&entry), None);
    for seconds in [100, 10, 0, 50] {
        entry.store(seconds, SeqCst);
        assert!(registry.renew(&entry));
        let expected = (seconds > 0).then(|| Duration::from_secs(seconds));
        assert_eq!(registry.remaining(&entry), expected);
    }
    clock.advance(51 * SECOND);
    assert!(registry.expire(10).removed == 1 && !registry.renew(&entry));
}

#[test]
fn a_lifetime_that_panics_or_renews_its_entry_leaves_it_as_it_was() {
    let (builder, _clock) = clocked::<u64, u64>();
    let state = Arc::new(Mutex::new((false, None::<Handle<u64, u64>>, Vec::new())));
    let shared = Arc::clone(&state);
    let cell = Arc::new(std::sync::OnceLock::<std::sync::Weak<Registry<u64, u64>>>::new());
    let within = Arc::clone(&cell);
    let registry = builder
        .lifetime(move |_, _| {
            let (panics, entry) = {
                let state = shared.lock().unwrap();
                (state.0, state.1.clone())
            };
            if let Some((entry, registry)) = entry.zip(within.get().and_then(std::sync::Weak::upgrade)) {
                let renewed = registry.renew(&entry);
                shared.lock().unwrap().2.push(renewed);
            }
            assert!(!panics, "the lifetime panics");
            Some(100 * SECOND)
        })
        .build();
    let registry = Arc::new(registry);
    cell.set(Arc::downgrade(&registry)).unwrap();
    let entry = registry.insert_and_get(1, 1);
    registry.set_ttl(&entry, Some(10 * SECOND));
    state.lock().unwrap().0 = true;
    assert!(!registry.renew(&entry));
    assert_eq!((registry.remaining(&entry), registry.stats().lifetime_panics), (Some(10 * SECOND), 1));
    *state.lock().unwrap() = (false, Some(entry.clone()), Vec::new());
    assert!(registry.renew(&entry));
    assert_eq!((&*state.lock().unwrap().2, registry.remaining(&entry)), (&[false][..], Some(100 * SECOND)));
    state.lock().unwrap().1 = None;
}

#[test]
fn an_entry_that_is_spared_can_be_prolonged_past_its_end() {
    let (builder, clock) = clocked::<u64, u64>();
    let registry = builder.per_entry_ttl(true).spare_held(true).build();
    registry.set_with_ttl(1, 1, SECOND);
    let entry = registry.lookup(&1).unwrap();
    clock.advance(5 * SECOND);
    assert_eq!((registry.expire(10).skipped, registry.remaining(&entry)), (1, Some(Duration::ZERO)));
    // The reaper looks again a second later. The new end comes before that.
    assert!(registry.set_ttl(&entry, Some(SECOND / 2)));
    drop(entry);
    clock.advance(SECOND / 2 + NANO);
    assert_eq!((registry.expire(10).removed, registry.len()), (1, 0));
}

#[test]
fn the_listener_hears_of_an_entry_whose_time_to_live_is_over() {
    let (builder, clock) = clocked::<u64, u64>();
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&told);
    let registry = builder.listener(move |cause, entry| log.lock().unwrap().push((cause, *entry))).build();
    registry.set_with_ttl(1, 10, SECOND);
    clock.advance(2 * SECOND);
    registry.expire(10);
    registry.set_with_ttl(1, 11, SECOND);
    clock.advance(2 * SECOND);
    assert!(!registry.set_with_ttl(1, 12, SECOND), "an expired entry counts as replaced");
    assert_eq!(*told.lock().unwrap(), [(Cause::Expired, 10), (Cause::Expired, 11)]);
}

#[test]
fn entries_from_before_the_first_time_to_live_can_get_one() {
    let (builder, clock) = clocked::<u64, u64>();
    let registry = builder.build();
    (0..1000).for_each(|key| drop(registry.insert(key, key)));
    clock.advance(20 * SECOND);
    for key in (0..1000).step_by(2) {
        assert!(registry.set_ttl(&registry.peek(&key).unwrap(), Some((1 + key as u32) * SECOND)));
    }
    let age = registry.age(&registry.peek(&1).unwrap());
    assert!((20 * SECOND - Duration::from_millis(34)..=20 * SECOND).contains(&age), "{age:?}");
    clock.advance(501 * SECOND);
    assert_eq!(registry.expire(10_000).removed, 250);
    assert!((0..1000).all(|key| registry.contains_key(&key) == (key % 2 == 1 || key >= 500)));
}

#[test]
fn a_sliding_time_to_live_needs_no_new_timers() {
    let (builder, clock) = clocked::<u64, u64>();
    let registry = builder.shards(1).build();
    let entries: Vec<_> = (0..100).map(|key| registry.insert_and_get(key, key)).collect();
    let mut examined = 0;
    for _ in 0..1000 {
        for entry in &entries {
            assert!(registry.set_ttl(entry, Some(100 * SECOND)));
        }
        clock.advance(SECOND);
        examined += registry.expire(10_000).examined;
    }
    // Each entry is looked at about once in the length of its time to live.
    assert!((900..=1100).contains(&examined), "{examined}");
    clock.advance(100 * SECOND);
    assert_eq!(registry.expire(10_000).removed, 100);
}

#[test]
fn the_background_reaps_an_entry_whose_time_to_live_was_shortened() {
    let domain = Domain::builder().reclaimer(true).build();
    let registry = Registry::builder().domain(domain).per_entry_ttl(true).reap_in_background(true).build();
    let entry = registry.insert_and_get(1, 1);
    registry.set_ttl(&entry, Some(3600 * SECOND));
    thread::sleep(Duration::from_millis(20));
    registry.set_ttl(&entry, Some(Duration::from_millis(20)));
    assert!(soon(|| entry.is_unlinked()), "the reclaimer was not woken");
}

#[test]
fn threads_that_prepare_the_registry_at_once_all_have_their_entries_expire() {
    for _ in 0..times(50) {
        let (builder, clock) = clocked::<u64, u64>();
        let registry = builder.shards(4).build();
        (100..200).for_each(|key| drop(registry.insert(key, key)));
        thread::scope(|scope| {
            for key in 0..4 {
                let (registry, clock) = (&registry, clock.clone());
                scope.spawn(move || {
                    registry.set_with_ttl(key, key, SECOND);
                    clock.advance(2 * SECOND);
                    assert!(!registry.contains_key(&key), "an expired entry is found");
                });
            }
        });
        registry.expire(1000);
        assert_eq!(registry.len(), 100);
    }
}

#[test]
fn an_age_is_that_of_the_entry_and_goes_on_after_it_has_left() {
    for (what, registry, clock) in registries() {
        if what == "not prepared" {
            continue;
        }
        let entry = registry.insert_and_get(1, 1);
        clock.advance(5 * SECOND + NANO);
        assert_eq!(registry.age(&entry), 5 * SECOND + NANO, "{what}");
        let guard = registry.pin();
        assert_eq!(guard.age(guard.peek(&1).unwrap()), 5 * SECOND + NANO, "{what}");
        drop(guard);
        registry.remove(&1);
        clock.advance(SECOND);
        assert_eq!(registry.age(&entry), 6 * SECOND + NANO, "{what}");
    }
}

#[test]
fn the_monotonic_clock_serves_times_to_live() {
    let registry = isolated::<u64, u64>();
    registry.set_with_ttl(1, 1, Duration::from_millis(30));
    let entry = registry.insert_and_get(2, 2);
    assert!(registry.expire_at(&entry, registry.now() + Duration::from_millis(30)));
    registry.set_with_ttl(3, 3, 3600 * SECOND);
    assert!(soon(|| !registry.contains_key(&1) && !registry.contains_key(&2)));
    let left = registry.remaining(&registry.peek(&3).unwrap()).unwrap();
    assert!((3500 * SECOND..=3601 * SECOND).contains(&left), "{left:?}");
}
