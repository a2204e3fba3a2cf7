//! Grace periods end under any readers, and cover what they must. With `STRESS=50` the tests run longer.

use crate::common::*;
use epoch_registry::{Domain, Registry};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

/// With `STRESS=50` there are 100,000 grace periods.
#[test]
fn grace_periods_end_under_readers_that_hardly_leave_their_sections() {
    in_time(|| {
        let registry: Registry<u64, u64> = isolated();
        registry.try_insert(1, 1).unwrap();
        let domain = registry.domain();
        let stop = Stop::default();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut reader = registry.reader();
                while !stop.stopped() {
                    assert!(reader.contains_key(&1));
                }
            });
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.stopped() {
                        assert!(registry.contains_key(&1));
                    }
                });
            }
            let _end = stop.at_end();
            for round in 0..times(2000) {
                match round % 3 {
                    0 => domain.synchronize(),
                    1 => domain.synchronize_expedited(),
                    _ => assert!(domain.poll_timeout(domain.start_poll(), Duration::from_secs(60))),
                }
            }
        });
        let stats = domain.stats();
        assert_eq!(stats.grace_periods as usize, times(2000), "{stats}");
        assert_eq!(stats.latency.count(), stats.grace_periods, "{stats}");
        assert!(stats.expedited as usize >= times(2000) / 3, "{stats}");
    });
}

/// The usual RCU pattern: a writer unpublishes a slot, waits, and then writes to it. The sections of the readers
/// overlap all the time.
#[test]
fn synchronize_returns_after_the_sections_that_were_open() {
    in_time(|| {
        let domain = Domain::new();
        let slots: Vec<AtomicU64> = (0..2).map(|_| AtomicU64::new(0)).collect();
        let current = AtomicU64::new(0);
        let stop = Stop::default();
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !stop.stopped() {
                        let _guard = domain.pin();
                        let slot = &slots[current.load(SeqCst) as usize];
                        let seen = slot.load(SeqCst);
                        assert_ne!(seen, u64::MAX, "a reader found a slot that is not published");
                        (0..50).for_each(|_| std::hint::spin_loop());
                        assert_eq!(slot.load(SeqCst), seen, "the slot was written while a reader used it");
                    }
                });
            }
            let _end = stop.at_end();
            for round in 0..times(2000) as u64 {
                let old = current.load(SeqCst);
                slots[1 - old as usize].store(round, SeqCst);
                current.store(1 - old, SeqCst);
                if round % 2 == 0 {
                    domain.synchronize()
                } else {
                    domain.synchronize_expedited()
                }
                slots[old as usize].store(u64::MAX, SeqCst);
            }
        });
    });
}

#[test]
fn a_cookie_is_over_exactly_when_the_sections_open_at_its_start_have_closed() {
    let domain = Domain::new();
    let guard = domain.pin();
    let cookie = domain.start_poll();
    let started = Instant::now();
    assert!(!domain.poll(cookie) && !domain.poll_timeout(cookie, Duration::from_millis(30)));
    assert!(started.elapsed() >= Duration::from_millis(30));
    drop(guard);
    assert!(soon(|| domain.poll(cookie)));
    let later = domain.pin();
    assert!(domain.poll(cookie), "a grace period that was over is not over any more");
    assert!(!domain.poll(domain.start_poll()));
    drop(later);
    assert!(panic_of(|| Domain::new().poll(cookie)).contains("another domain"));
}

#[test]
fn barriers_end_and_cover_their_part_of_a_flood_of_calls() {
    in_time(|| {
        let domain = Domain::new();
        let stop = Stop::default();
        let (floods, barriers) = (AtomicU64::new(0), Barrier::new(2));
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.stopped() {
                    domain.call(|| ());
                    // The flood is as fast as possible, but must fit into memory.
                    if floods.fetch_add(1, SeqCst) % 10_000 == 0 {
                        domain.reclaim(10_000);
                    }
                }
            });
            let (domain, barriers) = (&domain, &barriers);
            let callers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(move || {
                        let ran = Arc::new(AtomicU64::new(0));
                        for round in 1..=times(300) as u64 {
                            let counter = Arc::clone(&ran);
                            domain.call(move || assert!(counter.fetch_add(1, SeqCst) < u64::MAX));
                            // Two threads call `barrier` at the same time.
                            barriers.wait();
                            domain.barrier();
                            assert_eq!(ran.load(SeqCst), round);
                        }
                    })
                })
                .collect();
            let _end = stop.at_end();
            let results: Vec<_> = callers.into_iter().map(|caller| caller.join()).collect();
            assert!(results.iter().all(Result::is_ok));
        });
        domain.barrier();
        assert_eq!(domain.backlog().objects, 0);
    });
}

#[test]
fn the_domain_says_whether_this_thread_is_in_a_critical_section() {
    let (domain, other) = (Domain::new(), Domain::new());
    let inside = || domain.in_critical_section();
    assert!(!inside());
    let guard = domain.pin();
    assert!(inside() && !other.in_critical_section());
    assert!(thread::scope(|scope| scope.spawn(|| !inside()).join().unwrap()));
    drop(guard);
    let mut session = domain.session();
    assert!(inside());
    assert!(!session.offline(inside));
    drop(session);
    assert!(!inside());
}

/// The collecting thread empties the retire queues. What is retired meanwhile waits for a grace period that begins
/// after that. The queue that is emptied first is long. While it is emptied, another thread opens a section, finds an
/// entry, and removes it.
#[test]
fn an_entry_removed_while_the_queues_are_emptied_waits_for_the_section_that_found_it() {
    const LONG: u64 = 50_000;
    let domain = Domain::builder().manual().build();
    let short: Registry<u64, OnDrop> = Registry::builder().shards(1).domain(domain.clone()).build();
    let long: Registry<u64, u64> = Registry::builder().shards(1).domain(domain.clone()).build();
    for round in 0..times(10) as u64 {
        let (dropped, begun) = (Arc::new(AtomicBool::new(false)), AtomicBool::new(false));
        let drops = Arc::clone(&dropped);
        drop(short.try_insert(0, OnDrop::new(|| ())));
        drop(short.try_insert(1, OnDrop::new(move || drops.store(true, SeqCst))));
        (0..LONG).for_each(|key| drop(long.try_insert(key, key)));
        // The queue that was used last is emptied first.
        short.remove(&0);
        (0..LONG).for_each(|key| drop(long.remove(&key)));
        thread::scope(|scope| {
            let collecting = scope.spawn(|| {
                // At the first pin of a thread, the collector advances its epoch by itself. This pin comes before the
                // test begins.
                drop(domain.pin());
                begun.store(true, SeqCst);
                domain.reclaim(usize::MAX)
            });
            while !begun.load(SeqCst) {
                std::hint::spin_loop();
            }
            // Some rounds are too early or too late.
            let open = Instant::now() + Duration::from_micros(round % 10 * 30);
            while Instant::now() < open {
                std::hint::spin_loop();
            }
            let guard = short.pin();
            let _entry = guard.get(&1).expect("no other thread removes the entry");
            short.remove(&1);
            collecting.join().unwrap();
            assert!(!dropped.load(SeqCst), "round {round}: the entry was destroyed in the section that found it");
        });
        domain.barrier();
        assert!(dropped.load(SeqCst));
    }
}
