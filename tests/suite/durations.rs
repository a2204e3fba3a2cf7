//! Durations of zero, and endless ones.

use crate::common::*;
use epoch_registry::{Domain, ManualClock, Registry, WhenFull};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn reapers_are_called_once_a_millisecond_at_most() {
    let pool = |job: epoch_registry::ReclaimJob| drop(thread::spawn(move || job.run()));
    for builder in [Domain::builder(), Domain::builder().reclaimer(true), Domain::builder().executor(pool)] {
        let domain = builder.reap_every(Duration::ZERO).build();
        let reaper = Arc::new(Calls(AtomicUsize::new(0)));
        domain.add_reaper(&reaper);
        thread::sleep(Duration::from_millis(300));
        let calls = reaper.0.load(SeqCst);
        assert!((10..=310).contains(&calls), "{calls} calls in 300 ms");
    }
}

#[test]
fn an_endless_reap_interval_calls_reapers_once() {
    let pool = |job: epoch_registry::ReclaimJob| drop(thread::spawn(move || job.run()));
    for builder in [Domain::builder(), Domain::builder().reclaimer(true), Domain::builder().executor(pool)] {
        let domain = builder.reap_every(Duration::MAX).build();
        let (reaper, ledger) = (Arc::new(Calls(AtomicUsize::new(0))), Ledger::new());
        domain.add_reaper(&reaper);
        assert!(soon(|| reaper.0.load(SeqCst) == 1));
        let registry = Registry::builder().domain(domain.clone()).build();
        drop(registry.try_insert(1, ledger.value(1)));
        drop(registry.remove(&1));
        assert!(soon(|| ledger.live() == 0));
    }
}

/// Counts the stall reports while a reader stays for 200 ms and the domain is polled all the time.
fn reports(threshold: Duration) -> usize {
    let count = Arc::new(AtomicUsize::new(0));
    let reported = Arc::clone(&count);
    let domain = Domain::builder()
        .stall_after(threshold)
        .on_stall(move |_| {
            reported.fetch_add(1, SeqCst);
        })
        .build();
    with_reader(&domain, || {
        let cookie = domain.start_poll();
        assert!(!domain.poll_timeout(cookie, Duration::from_millis(200)));
        domain.call(|| ());
        let end = Instant::now() + Duration::from_millis(100);
        while Instant::now() < end {
            domain.reclaim(1);
        }
    });
    domain.barrier();
    count.load(SeqCst)
}

#[test]
fn a_stall_threshold_of_zero_reports_only_a_few_times() {
    // Reports come after 1, 3, 7, 15, 31, 63, 127 and 255 ms.
    let count = reports(Duration::ZERO);
    assert!((1..=10).contains(&count), "{count} reports");
}

#[test]
fn an_endless_stall_threshold_reports_nothing() {
    assert_eq!(reports(Duration::MAX), 0);
}

#[test]
fn a_poll_may_have_a_zero_or_endless_timeout() {
    let domain = Domain::new();
    let (cookie, begun) = (domain.start_poll(), Instant::now());
    with_reader(&domain, || assert!(!domain.poll_timeout(domain.start_poll(), Duration::ZERO)));
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(domain.poll_timeout(cookie, Duration::MAX));
    in_time(|| {
        let reader = domain.clone();
        let (entered, has_entered) = std::sync::mpsc::channel();
        let reader = thread::spawn(move || {
            let _guard = reader.pin();
            entered.send(()).unwrap();
            thread::sleep(Duration::from_millis(50));
        });
        has_entered.recv().unwrap();
        assert!(domain.poll_timeout(domain.start_poll(), Duration::MAX));
        reader.join().unwrap();
    });
}

#[test]
fn a_removal_may_have_zero_or_endless_patience() {
    in_time(|| {
        for patience in [Duration::ZERO, Duration::MAX] {
            let domain = Domain::builder().backlog_objects(2).when_full(WhenFull::Wait(patience)).build();
            let registry: Registry<u64, u64> = Registry::builder().domain(domain.clone()).shards(1).build();
            (0..10).for_each(|key| drop(registry.try_insert(key, key)));
            let reader = domain.clone();
            let (entered, has_entered) = std::sync::mpsc::channel();
            let reader = thread::spawn(move || {
                let _guard = reader.pin();
                entered.send(()).unwrap();
                thread::sleep(Duration::from_millis(50));
            });
            has_entered.recv().unwrap();
            let refused = (0..10).filter(|key| registry.fallible().remove(key).is_err()).count();
            reader.join().unwrap();
            assert_eq!(refused > 0, patience.is_zero(), "{refused} refused");
            domain.barrier();
        }
    });
}

#[test]
fn zero_lifetimes_expire_and_endless_ones_do_not() {
    for end in [Duration::ZERO, Duration::MAX] {
        let expires = end.is_zero();
        for kind in 0..3 {
            let clock = ManualClock::new();
            let builder = Registry::<u64, u64>::builder().shards(1).clock(clock.clone());
            let registry = match kind {
                0 => builder.max_age(end).build(),
                1 => builder.max_idle(end).build(),
                _ => builder.lifetime(move |_, _| Some(end)).build(),
            };
            (0..10).for_each(|key| drop(registry.try_insert(key, key)));
            // The first look at an entry starts the time for which it is idle.
            for _ in 0..3 {
                clock.advance(Duration::from_secs(100 * 24 * 3600));
                registry.expire(100);
            }
            assert_eq!(registry.is_empty(), expires, "{end:?}, {kind}");
        }
    }
    let (builder, clock) = clocked::<u64, u64>();
    let registry = builder.max_age(Duration::from_secs(1)).max_idle(Duration::from_secs(1)).build();
    drop(registry.try_insert(1, 1));
    registry.set_max_age(Some(Duration::MAX));
    registry.set_max_idle(Some(Duration::MAX));
    clock.advance(Duration::from_secs(3600));
    registry.expire(100);
    assert_eq!(registry.len(), 1);
    registry.set_max_age(Some(Duration::ZERO));
    registry.expire(100);
    assert!(registry.is_empty());
}
