//! Places in the backlog that could be lost, lent too far, or counted twice.

mod common;

use common::*;
use epoch_registry::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

fn limited(objects: usize, policy: WhenFull) -> Domain {
    Domain::builder().manual().backlog_objects(objects).when_full(policy).build()
}

/// Two threads remove one key while the backlog is full; one wins, and the other gives its place back.
#[test]
fn the_loser_of_a_race_for_a_key_keeps_no_place() {
    let domain = limited(1, WhenFull::Wait(Duration::from_secs(10)));
    let a: Registry<u64, u64> = Registry::builder().shards(1).domain(domain.clone()).build();
    let b: Registry<u64, u64> = Registry::builder().shards(1).domain(domain.clone()).build();
    (0..4).for_each(|key| drop(a.try_insert(key, key)));
    (0..4).for_each(|key| drop(b.try_insert(key, key)));
    let guard = domain.pin();
    assert!(a.fallible().remove(&0).is_ok()); // full
    let found = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                if a.fallible().remove(&1).expect("room in time").is_some() {
                    found.fetch_add(1, SeqCst);
                }
            });
        }
        thread::sleep(Duration::from_millis(100));
        drop(guard);
    });
    assert_eq!(found.load(SeqCst), 1);
    domain.barrier();
    domain.barrier();
    assert_eq!(domain.stats().backlog.objects, 0, "nothing waits, nobody reads");
    assert!(b.fallible().remove(&0).is_ok(), "refused with an empty backlog and no reader, after ten seconds");
}

/// A fourth of the bytes is lent at the most to all registries together, and not to each in turn.
#[test]
fn registries_that_come_one_by_one_are_not_lent_everything() {
    let domain = Domain::builder().manual().backlog_bytes(100_000).when_full(WhenFull::Refuse).build();
    let registries: Vec<Registry<u64, u64>> = (0..40)
        .map(|_| {
            let registry =
                Registry::builder().shards(1).weigher(|_, bytes| *bytes as usize).domain(domain.clone()).build();
            registry.try_insert(0, 0).unwrap();
            assert!(registry.fallible().remove(&0).is_ok());
            domain.barrier();
            registry
        })
        .collect();
    domain.barrier();
    assert_eq!(domain.backlog().objects, 0);
    let last = &registries[39];
    last.try_insert(5, 10_000).unwrap();
    assert!(last.fallible().remove(&5).is_ok(), "a tenth of the limit is refused with an empty backlog and no reader");
}

/// The same with objects, and many more registries: how much is lent in the end.
#[test]
fn at_most_a_fourth_of_the_objects_is_lent() {
    let domain = limited(10_000, WhenFull::Refuse);
    let registries: Vec<Registry<u64, u64>> = (0..1250)
        .map(|_| {
            let registry = Registry::builder().shards(1).domain(domain.clone()).build();
            registry.try_insert(1, 1).unwrap();
            assert!(registry.fallible().remove(&1).is_ok());
            domain.reclaim(10_000);
            registry
        })
        .collect();
    domain.barrier();
    assert_eq!(domain.backlog().objects, 0);
    let guard = domain.pin();
    let last = &registries[1249];
    let mut removed = 0;
    for key in 10..20_000u64 {
        last.try_insert(key, key).unwrap();
        if last.fallible().remove(&key).is_err() {
            break;
        }
        removed += 1;
    }
    drop(guard);
    assert!(removed >= 7_500, "a shard gets {removed} of 10,000 places, with nothing else in the backlog");
}

/// Objects that were lent are given back where the bytes are refused.
#[test]
fn a_refusal_for_bytes_keeps_no_objects() {
    let domain =
        Domain::builder().manual().backlog_objects(64).backlog_bytes(10_000).when_full(WhenFull::Refuse).build();
    let registries: Vec<Registry<u64, u64>> =
        (0..64).map(|_| Registry::builder().shards(1).domain(domain.clone()).build()).collect();
    for registry in &registries {
        (0..64).for_each(|key| drop(registry.try_insert(key, key)));
    }
    domain.barrier(); // tables
    // The bytes are full, by one heavy callback.
    let guard = domain.pin();
    let heavy = [0u8; 10_000];
    (0..2).for_each(|_| domain.try_call(move || assert_eq!(std::hint::black_box(heavy)[0], 0)).unwrap());
    for registry in &registries {
        assert!(registry.fallible().remove(&0).is_err());
    }
    drop(guard);
    domain.barrier();
    assert_eq!(domain.backlog().objects, 0);
    let guard = domain.pin();
    let mut removed = 0;
    for key in 0..64 {
        removed += u64::from(registries[63].fallible().remove(&key).is_ok());
    }
    drop(guard);
    assert!(removed >= 48, "one shard gets {removed} places of 64, with an empty backlog");
}

/// With `Grow`, more than the limit may be lent: what is lent and waits for nothing does not press.
#[test]
fn a_manual_domain_is_not_pressed_by_an_empty_backlog() {
    let domain = limited(1000, WhenFull::Grow);
    let registry: Registry<u64, u64> = Registry::builder().shards(64).capacity(10_000).domain(domain.clone()).build();
    (0..4000).for_each(|key| drop(registry.try_insert(key, key)));
    let guard = domain.pin();
    (0..2000).for_each(|key| drop(registry.remove(&key)));
    drop(guard);
    domain.barrier();
    assert_eq!(domain.backlog().objects, 0);
    let dropped = Arc::new(AtomicU64::new(0));
    let other: Registry<u64, OnDrop> = Registry::builder().shards(1).domain(domain.clone()).build();
    let count = Arc::clone(&dropped);
    other.try_insert(0, OnDrop::new(move || assert!(count.fetch_add(1, SeqCst) < u64::MAX))).unwrap();
    other.remove(&0);
    let write = dropped.load(SeqCst);
    // "no write runs a destructor, unless the backlog is beyond half of its limit"
    for key in 0..1000u64 {
        other.try_insert(key, OnDrop::new(|| {})).unwrap();
        other.remove(&key);
        if dropped.load(SeqCst) > 0 {
            panic!("a write ran a destructor with {} of 1000 in the backlog (first: {write})", key + 1);
        }
        if key > 400 {
            break;
        }
    }
}

/// Places are given back after the figures are changed, so that `peak` shows no more than there ever was.
#[test]
fn the_peak_never_exceeds_a_hard_limit() {
    let domain = Domain::builder().manual().backlog_objects(64).when_full(WhenFull::Refuse).build();
    let stop = Stop::default();
    let (given, ran) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    thread::scope(|scope| {
        let _end = stop.at_end();
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.stopped() {
                    let ran = Arc::clone(&ran);
                    if domain.try_call(move || assert!(ran.fetch_add(1, SeqCst) < u64::MAX)).is_ok() {
                        given.fetch_add(1, SeqCst);
                    }
                }
            });
        }
        scope.spawn(|| {
            while !stop.stopped() {
                domain.backlog();
            }
        });
        thread::sleep(Duration::from_secs(2));
    });
    domain.barrier();
    let stats = domain.stats();
    assert_eq!(given.load(SeqCst), ran.load(SeqCst));
    assert_eq!(stats.overruns, 0);
    assert!(
        stats.peak.objects <= 64,
        "peak {} of 64, without overruns; {} calls",
        stats.peak.objects,
        given.load(SeqCst)
    );
}

/// A place that the loser of a race for a key had is there for those that cannot be refused: they need not wait.
#[test]
fn a_removal_waits_for_nothing() {
    let domain =
        Domain::builder().manual().backlog_objects(2).when_full(WhenFull::Wait(Duration::from_millis(500))).build();
    let a: Registry<u64, u64> = Registry::builder().shards(1).capacity(99).domain(domain.clone()).build();
    let b: Registry<u64, u64> = Registry::builder().shards(1).capacity(99).domain(domain.clone()).build();
    (0..9).for_each(|key| drop((a.try_insert(key, key), b.try_insert(key, key))));
    let guard = domain.pin();
    a.remove(&0);
    a.remove(&1);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| a.remove(&2)); // a key that three threads evict
        }
        thread::sleep(Duration::from_millis(100));
        drop(guard);
    });
    domain.barrier();
    assert_eq!(domain.backlog(), Backlog::default());
    let since = Instant::now();
    b.remove(&0);
    let took = since.elapsed();
    domain.barrier();
    assert_eq!((domain.stats().overruns, took < Duration::from_millis(100)), (0, true), "took {took:?}");
}
