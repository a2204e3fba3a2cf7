//! The limit, the executor and the figures while all operations run at once.

#![allow(clippy::derived_hash_with_manual_eq, clippy::type_complexity)]

use crate::common::*;
use epoch_registry::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

#[test]
fn the_bound_is_never_exceeded_under_a_guard() {
    for (limit, shards) in [(1, 4), (7, 16), (100, 4), (1000, 8), (1000, 1)] {
        let domain =
            Domain::builder().backlog_objects(limit).backlog_bytes(limit * 60).when_full(WhenFull::Refuse).build();
        let registries: Vec<Registry<u64, u64>> = (0..3)
            .map(|_| {
                Registry::builder()
                    .shards(shards)
                    .capacity(100_000)
                    .weigher(|k, _| (*k % 50) as usize)
                    .domain(domain.clone())
                    .build()
            })
            .collect();
        let _guard = domain.pin();
        thread::scope(|scope| {
            for thread in 0..4u64 {
                let registries = &registries;
                let domain = &domain;
                scope.spawn(move || {
                    let mut rng = Rng::new(thread + 1);
                    for turn in 0..3000 {
                        let registry = &registries[rng.below(3) as usize];
                        let key = rng.below(300);
                        match rng.below(6) {
                            0..3 => drop(registry.try_insert(key, turn)),
                            3 => drop(registry.fallible().remove(&key)),
                            4 => drop(registry.fallible().insert(key, turn)),
                            _ if turn % 100 == 0 => drop(registry.fallible().retain(&mut Cursor::new(), |_, _| false)),
                            _ => drop(registry.fallible().update(&key, |_, v| v + 1)),
                        }
                        if turn % 16 == 0 {
                            let backlog = domain.backlog();
                            assert!(backlog.objects <= limit as u64 && backlog.bytes <= limit as u64 * 60, "{backlog}");
                        }
                    }
                });
            }
        });
        let stats = domain.stats();
        println!("{limit}/{shards}: {}", stats.backlog);
        assert!(stats.peak.objects <= limit as u64 && stats.overruns == 0);
    }
}

/// Guarantee: `spawn` and the stall handler run outside every lock. Here they become due while a shard lock is held.
#[test]
fn spawn_runs_outside_every_lock() {
    static DOMAIN: OnceLock<Domain> = OnceLock::new();
    static OTHER: OnceLock<Registry<u64, u64>> = OnceLock::new();
    static ARMED: AtomicBool = AtomicBool::new(false);
    static LOCKED: AtomicBool = AtomicBool::new(false);
    static STALL_LOCKED: AtomicBool = AtomicBool::new(false);
    #[derive(Hash)]
    struct Key(u64);
    impl PartialEq for Key {
        fn eq(&self, other: &Key) -> bool {
            if ARMED.swap(false, SeqCst) {
                let domain = DOMAIN.get().unwrap();
                domain.call(|| ());
                domain.poll(domain.start_poll());
            }
            self.0 == other.0
        }
    }
    impl Eq for Key {}
    let write = |locked: &AtomicBool| {
        let other = OTHER.get().unwrap();
        let wrote = catch_unwind(AssertUnwindSafe(|| drop(other.try_insert(1, 1))));
        locked.fetch_or(wrote.is_err(), SeqCst);
    };
    OTHER.get_or_init(|| Registry::builder().domain(Domain::new()).build());
    let clock = ManualClock::new();
    DOMAIN.get_or_init(|| {
        Domain::builder()
            .manual_clock(clock.clone())
            .executor(move |job| {
                write(&LOCKED);
                drop(job);
            })
            .on_stall(move |_| write(&STALL_LOCKED))
            .build()
    });
    let domain = DOMAIN.get().unwrap();
    let registry: Registry<Key, u64> = Registry::builder().shards(1).domain(Domain::new()).build();
    registry.try_insert(Key(1), 1).ok().unwrap();
    let _guard = domain.pin();
    domain.call(|| ());
    domain.reclaim(1);
    clock.advance(Duration::from_secs(60));
    ARMED.store(true, SeqCst);
    registry.remove(&Key(1));
    assert_eq!(
        (LOCKED.load(SeqCst), STALL_LOCKED.load(SeqCst)),
        (false, false),
        "(spawn, handler) ran under a shard lock"
    );
}

/// Threads, `Eq`, destructors and callbacks ask for the figures.
#[test]
fn stats_may_be_called_anywhere() {
    in_time(|| {
        static REGISTRY: OnceLock<Registry<Key, OnDrop>> = OnceLock::new();
        static ARMED: AtomicBool = AtomicBool::new(false);
        #[derive(Hash, Clone)]
        struct Key(u64);
        impl PartialEq for Key {
            fn eq(&self, other: &Key) -> bool {
                if ARMED.swap(false, SeqCst) {
                    ask();
                }
                self.0 == other.0
            }
        }
        impl Eq for Key {}
        fn ask() {
            let registry = REGISTRY.get().unwrap();
            let _ = format!("{registry:?} {} {:?}", registry.stats(), registry.domain());
            registry.domain().stats();
            registry.domain().backlog();
            registry.domain().reclaim(1);
            let cookie = registry.domain().start_poll();
            registry.domain().poll(cookie);
            registry.domain().poll_timeout(cookie, Duration::from_micros(10));
            let _ = registry.len() + registry.capacity() + registry.table_bytes();
        }
        let registry = REGISTRY.get_or_init(|| {
            Registry::builder()
                .shards(1)
                .domain(
                    Domain::builder().backlog_objects(8).when_full(WhenFull::Wait(Duration::from_micros(100))).build(),
                )
                .build()
        });
        thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    for turn in 0..2000u64 {
                        let key = Key((turn + thread) % 7);
                        ARMED.store(turn % 3 == 0, SeqCst);
                        let _ = registry.try_insert(key.clone(), OnDrop::new(ask));
                        ARMED.store(turn % 3 == 1, SeqCst);
                        let guard = (turn % 5 == 0).then(|| registry.pin());
                        registry.remove(&key);
                        if turn % 50 == 0 {
                            registry.domain().call(ask);
                        }
                        ask();
                        drop(guard);
                    }
                });
            }
        });
        registry.clear();
        registry.domain().barrier();
        let stats = registry.stats();
        assert_eq!(stats.domain.backlog, Backlog::default());
        assert_eq!(stats.freed, stats.inserted);
        assert_eq!(stats.drop_panics, 0);
    });
    let _: (Option<Arc<AtomicU64>>, Option<Mutex<()>>) = (None, None);
}
