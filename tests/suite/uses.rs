//! Which operations count as a use of an entry, and as a hit or a miss: the table of `Builder`.

use crate::common::*;
use epoch_registry::{Builder, Candidate, Cursor, ManualClock, Registry, Scan, Verdict, policy};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

type Shared = Arc<Registry<u64, u64>>;
type Operation = (&'static str, fn(&Shared, u64));

/// The operations that look up a key, and so are a use of its entry.
const USES: [Operation; 18] = [
    ("View::get", |registry, key| assert!(registry.pin().get(&key).is_some())),
    ("View::lookup", |registry, key| assert!(registry.pin().lookup(&key).is_some())),
    ("View::contains_key", |registry, key| assert!(registry.pin().contains_key(&key))),
    ("View::get_many", |registry, key| assert!(registry.pin().get_many([&key])[0].is_some())),
    ("View::get_batch", |registry, key| registry.pin().get_batch([&key], |_, found| assert!(found.is_some()))),
    ("View::lookup_many", |registry, key| assert!(registry.pin().lookup_many([&key])[0].is_some())),
    ("View::lookup_batch", |registry, key| registry.pin().lookup_batch([&key], |_, found| assert!(found.is_some()))),
    ("View::get_hashed", |registry, key| {
        assert!(registry.pin().get_hashed(registry.hash_of(&key), &key).is_some());
    }),
    ("Registry::with", |registry, key| assert!(registry.with(&key, |_| ()).is_some())),
    ("Registry::lookup", |registry, key| assert!(registry.lookup(&key).is_some())),
    ("Registry::contains_key", |registry, key| assert!(registry.contains_key(&key))),
    ("Registry::lookup_hashed", |registry, key| {
        assert!(registry.lookup_hashed(registry.hash_of(&key), &key).is_some());
    }),
    ("Reader::get", |registry, key| assert!(registry.reader().get(&key).is_some())),
    ("OwnedReader::get", |registry, key| assert!(registry.owned_reader().get(&key).is_some())),
    ("get_or_insert_with", |registry, key| drop(registry.get_or_insert_with(key, || unreachable!()))),
    ("get_or_try_insert_with", |registry, key| {
        drop(registry.get_or_try_insert_with(key, || -> Result<u64, ()> { unreachable!() }).unwrap());
    }),
    ("Registry::with_hashed", |registry, key| {
        assert!(registry.with_hashed(registry.hash_of(&key), &key, |_| ()).is_some());
    }),
    ("remove_if", |registry, key| assert!(registry.remove_if(&key, |_, _| false).is_none())),
];

/// The operations that meet the entry of a key in another way.
const NOT_USES: [Operation; 16] = [
    ("View::peek", |registry, key| assert!(registry.pin().peek(&key).is_some())),
    ("Reader::peek", |registry, key| assert!(registry.reader().peek(&key).is_some())),
    ("OwnedReader::peek", |registry, key| assert!(registry.owned_reader().peek(&key).is_some())),
    ("Registry::peek", |registry, key| assert!(registry.peek(&key).is_some())),
    ("try_insert", |registry, key| assert!(registry.try_insert(key, 0).is_err())),
    ("add", |registry, key| assert!(registry.add(key, 0).is_err())),
    ("iter", |registry, _| assert_eq!(registry.pin().iter().count(), 2)),
    ("iter_in_memory_order", |registry, _| assert_eq!(registry.pin().iter_in_memory_order().count(), 2)),
    ("keys and values", |registry, _| assert_eq!(registry.pin().keys().count(), registry.pin().values().count())),
    ("scan", |registry, _| assert_eq!(registry.scan(&mut Cursor::new(), 100, |_| {}), 2)),
    ("retain", |registry, _| registry.retain(|_, _| true)),
    ("reap_if", |registry, _| assert_eq!(registry.reap_if(100, |_| false).removed, 0)),
    ("age and remaining", |registry, key| {
        let entry = registry.peek(&key).unwrap();
        assert!(registry.age(&entry) < 100 * SECOND && registry.remaining(&entry).is_none_or(|left| !left.is_zero()));
    }),
    ("set_ttl", |registry, key| assert!(registry.set_ttl(&registry.peek(&key).unwrap(), Some(1000 * SECOND)))),
    ("renew", |registry, key| assert!(registry.renew(&registry.peek(&key).unwrap()))),
    ("reweigh and a handle", |registry, key| {
        let entry = registry.peek(&key).unwrap();
        assert!(registry.reweigh(&entry) > 0 && *entry.clone() == key && !entry.is_unlinked());
    }),
];

fn registry(limit: impl Fn(Builder<u64, u64>) -> Builder<u64, u64>) -> (Shared, ManualClock) {
    let (builder, clock) = clocked::<u64, u64>();
    let registry = limit(builder.shards(1)).build();
    registry.set_many([(1, 1), (2, 2)]);
    (Arc::new(registry), clock)
}

/// Calls `check` with each operation and whether it is a use.
fn for_each_operation(check: impl Fn(&str, fn(&Shared, u64), bool)) {
    for (operations, is_use) in [(&USES[..], true), (&NOT_USES, false)] {
        operations.iter().for_each(|(name, operation)| check(name, *operation, is_use));
    }
}

#[test]
fn a_lookup_prolongs_an_entry_that_would_become_idle_and_nothing_else_does() {
    for stale in [false, true] {
        for_each_operation(|name, operation, is_use| {
            let (registry, clock) = registry(|builder| builder.max_idle(16 * SECOND).stale_reads(stale));
            clock.advance(10 * SECOND);
            operation(&registry, 1);
            clock.advance(10 * SECOND);
            let reaped = registry.expire(100).removed;
            assert_eq!(registry.peek(&1).is_some(), is_use, "{name}, stale reads: {stale}");
            assert_eq!(reaped, if is_use { 1 } else { 2 }, "{name}, stale reads: {stale}");
        });
    }
}

#[test]
fn a_lookup_marks_an_entry_for_a_second_chance_and_nothing_else_does() {
    for_each_operation(|name, operation, is_use| {
        let (registry, _clock) = registry(|builder| builder.max_entries(100));
        let is_used = || {
            let seen = std::sync::atomic::AtomicBool::new(false);
            let look = |candidate: &Candidate<'_, u64, u64>| {
                if *candidate.key() == 1 {
                    seen.store(candidate.is_used(), std::sync::atomic::Ordering::SeqCst);
                }
                Verdict::Keep
            };
            registry.reap_by(&look, &mut Scan::new(100));
            seen.into_inner()
        };
        assert!(!is_used(), "{name}");
        operation(&registry, 1);
        assert_eq!(is_used(), is_use, "{name}");
    });
}

#[test]
fn a_lookup_is_counted_as_one_hit_and_nothing_else_is() {
    for expiring in [false, true] {
        for_each_operation(|name, operation, is_use| {
            let (registry, _clock) = registry(|builder| builder.count_hits(true).per_entry_ttl(expiring));
            operation(&registry, 1);
            let stats = registry.stats();
            assert_eq!((stats.hits, stats.misses), (Some(u64::from(is_use)), Some(0)), "{name}, expiring: {expiring}");
        });
    }
}

#[test]
fn an_update_counts_as_a_use_of_the_old_entry() {
    let (registry, _clock) = registry(|builder| builder.count_hits(true));
    registry.update(&1, |_, value| value + 1).unwrap();
    assert!(registry.update(&3, |_, value| value + 1).is_none());
    let stats = registry.stats();
    assert_eq!((stats.hits, stats.misses), (Some(1), Some(1)));
}

#[test]
fn a_policy_sees_entries_without_a_use_of_them() {
    let (registry, clock) = registry(|builder| builder.max_idle(16 * SECOND).count_hits(true));
    clock.advance(10 * SECOND);
    registry.reap_by(&policy::idle_for(100 * SECOND), &mut Scan::new(100));
    clock.advance(10 * SECOND);
    assert_eq!((registry.expire(100).removed, registry.stats().hits), (2, Some(0)));
}

#[test]
fn hits_and_misses_are_counted_only_on_request() {
    let (registry, _clock) = registry(|builder| builder);
    assert!(registry.contains_key(&1) && !registry.contains_key(&3));
    assert_eq!((registry.stats().hits, registry.stats().misses), (None, None));
    assert!(registry.stats().to_string().contains("hits uncounted"), "{}", registry.stats());
}

#[test]
fn a_lookup_that_finds_nothing_or_an_expired_entry_is_a_miss() {
    let (registry, clock) = registry(|builder| builder.count_hits(true).per_entry_ttl(true));
    registry.set_with_ttl(3, 3, SECOND);
    let misses = || registry.stats().misses.unwrap();
    assert!(registry.lookup(&3).is_some() && misses() == 0);
    clock.advance(2 * SECOND);
    assert!(registry.lookup(&3).is_none() && misses() == 1);
    assert!(registry.reader().get(&4).is_none() && misses() == 2);
    registry.pin().get_batch(&[1, 2, 3, 4, 5], |_, _| {});
    assert_eq!((registry.stats().hits, misses()), (Some(3), 5));
    registry.get_or_insert_with(6, || 6);
    assert_eq!((registry.stats().hits, misses()), (Some(3), 6));
}

#[test]
fn all_threads_hits_and_misses_are_counted() {
    let registry = isolated_builder::<u64, u64>().count_hits(true).build();
    (0..100).for_each(|key| drop(registry.insert(key, key)));
    let each = times(10_000) as u64;
    thread::scope(|scope| {
        for seed in 0..4 {
            let registry = &registry;
            scope.spawn(move || {
                let (mut reader, mut rng) = (registry.reader(), Rng::new(seed + 1));
                for _ in 0..each {
                    let key = rng.below(400);
                    assert_eq!(reader.get(&key).is_some(), key < 100);
                }
            });
        }
    });
    let stats = registry.stats();
    let (hits, misses) = stats.hits.zip(stats.misses).unwrap();
    assert_eq!(hits + misses, 4 * each);
    assert!((each / 2..2 * each).contains(&hits), "{stats}");
}
