//! Guarantee H: the backlog is bounded, whatever readers do. `cargo test --test suite backlog:: -- --nocapture` prints
//! the peaks.

use crate::common::*;
use epoch_registry::{BacklogFull, Cursor, Domain, DomainBuilder, Registry, WhenFull, *};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

const LIMIT: u64 = 1000;

fn limited(policy: WhenFull) -> DomainBuilder {
    Domain::builder().name("limited").backlog_objects(LIMIT as usize).when_full(policy)
}

fn filled(domain: &Domain, entries: u64) -> Registry<u64, u64> {
    let registry = Registry::builder().domain(domain.clone()).capacity(entries as usize).shards(8).build();
    (0..entries).for_each(|key| drop(registry.try_insert(key, key).unwrap()));
    registry
}

/// Prints the peak of the backlog, and checks that it is within the limit.
fn peak(what: &str, domain: &Domain) -> u64 {
    let stats = domain.stats();
    println!("{what}: peak {} of {LIMIT} objects, overruns {}", stats.peak.objects, stats.overruns);
    assert!(stats.peak.objects <= LIMIT && stats.overruns == 0, "{what}: {stats}");
    stats.peak.objects
}

#[test]
fn a_flood_of_removals_under_the_writers_own_guard_stays_within_the_limit() {
    // A write that waited would wait for its own thread's guard. So it is refused at once.
    for policy in [WhenFull::Refuse, WhenFull::Wait(Duration::from_secs(3600))] {
        in_time(|| {
            let domain = limited(policy).build();
            let registry = filled(&domain, 5000);
            let guard = registry.pin();
            let removed = (0..5000).filter(|key| registry.fallible().remove(key).is_ok()).count() as u64;
            // Up to a fourth may be lent to shards that do not use it.
            assert!((LIMIT * 3 / 4..=LIMIT).contains(&removed), "{removed}");
            let backlog = domain.backlog().objects;
            assert_eq!(backlog, removed);
            assert_eq!(registry.len() as u64, 5000 - removed, "refused entries do not stay");
            drop(guard);
            domain.barrier();
            assert_eq!(domain.stats().backlog.objects, 0);
            assert!(
                (0..5000).all(|key| registry.fallible().remove(&key).is_ok()),
                "a removal was refused without a reader"
            );
            peak("own guard", &domain);
        });
    }
}

#[test]
fn a_flood_from_many_threads_stays_within_the_limit_while_a_reader_sleeps() {
    in_time(|| {
        let domain = limited(WhenFull::Refuse).build();
        let registry = filled(&domain, 20_000);
        let guard = registry.pin();
        let refused = AtomicU64::new(0);
        thread::scope(|scope| {
            for part in 0..4 {
                let (registry, domain, refused) = (&registry, &domain, &refused);
                scope.spawn(move || {
                    for key in (part..20_000).step_by(4) {
                        let full = match key % 3 {
                            0 => registry.fallible().remove(&key).is_err(),
                            1 => {
                                registry.fallible().insert(key, key).is_err_and(|BacklogFull(pair)| pair == (key, key))
                            }
                            _ => registry.fallible().update(&key, |_, old| old + 1).is_err(),
                        };
                        refused.fetch_add(u64::from(full), SeqCst);
                        assert!(key % 100 != 0 || domain.backlog().objects <= LIMIT);
                    }
                });
            }
        });
        let let_through = 20_000 - refused.load(SeqCst);
        assert!((LIMIT * 3 / 4..=LIMIT).contains(&let_through), "{let_through}");
        drop(guard);
        domain.barrier();
        assert_eq!(domain.backlog().objects, 0);
        peak("many threads", &domain);
    });
}

/// With `STRESS=50` the registry has ten million entries.
#[test]
fn a_retain_over_many_entries_stays_within_the_limit_while_readers_come_and_go() {
    in_time(|| {
        let entries = times(200_000) as u64;
        let domain = limited(WhenFull::Wait(Duration::from_secs(3600))).build();
        let registry = filled(&domain, entries);
        let stop = Stop::default();
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.stopped() {
                    let guard = registry.pin();
                    (0..1000).for_each(|key| assert!(guard.get(&key).is_none_or(|entry| *entry == key)));
                }
            });
            let _end = stop.at_end();
            registry.retain(|key, _| key % 1000 == 0);
        });
        assert_eq!(registry.len() as u64, entries.div_ceil(1000));
        domain.barrier();
        assert_eq!(domain.backlog().objects, 0);
        peak("retain", &domain);
    });
}

#[test]
fn without_room_a_reaper_stops_and_a_retain_returns_an_error() {
    let domain = limited(WhenFull::Refuse).build();
    let registry = filled(&domain, 5000);
    let guard = domain.pin();
    let reaped = registry.reap_if(usize::MAX, |_| true).removed as u64;
    assert!((LIMIT * 3 / 4..=LIMIT).contains(&reaped), "{reaped}");
    let mut cursor = Cursor::new();
    let BacklogFull(removed) = registry.fallible().retain(&mut cursor, |_, _| false).unwrap_err();
    assert!(reaped + removed as u64 <= LIMIT);
    drop(guard);
    let mut rounds = 0;
    while registry.fallible().retain(&mut cursor, |_, _| false).is_err() {
        rounds += 1;
        assert!(rounds < 1000, "no progress");
    }
    assert!(registry.is_empty() && cursor.is_done());
    peak("reaper", &domain);
}

#[test]
fn clear_and_drain_never_fail_and_wait_for_room() {
    in_time(|| {
        let domain = limited(WhenFull::Wait(Duration::from_secs(3600))).build();
        let registry = filled(&domain, 50_000);
        registry.clear();
        assert!(registry.is_empty());
        (0..5000).for_each(|key| drop(registry.try_insert(key, key)));
        assert_eq!(registry.drain().count(), 5000);
        peak("clear and drain", &domain);
        (0..500).for_each(|key| drop(registry.try_insert(key, key)));
        domain.barrier();
        let before = domain.stats().batches;
        registry.clear();
        domain.barrier();
        assert!(domain.stats().batches - before <= 10, "entries that fit into the limit were not cleared at once");
    });
}

#[test]
fn a_write_that_waits_goes_on_when_the_reader_leaves_and_is_refused_at_its_deadline() {
    in_time(|| {
        let domain = limited(WhenFull::Wait(Duration::from_millis(300))).build();
        let registry = filled(&domain, 5000);
        let (reading, stop) = (AtomicBool::new(false), Stop::default());
        let patience = Duration::from_millis(300);
        thread::scope(|scope| {
            scope.spawn(|| {
                let _guard = domain.pin();
                reading.store(true, SeqCst);
                while !stop.stopped() {
                    thread::sleep(Duration::from_millis(1));
                }
            });
            let end = stop.at_end();
            while !reading.load(SeqCst) {
                thread::yield_now();
            }
            let started = Instant::now();
            let refused = (0..5000).find(|key| registry.fallible().remove(key).is_err()).unwrap();
            assert!(started.elapsed() >= patience, "{:?}", started.elapsed());
            // A removal that cannot fail waits just as long, and then counts as an overrun.
            let (started, before) = (Instant::now(), domain.stats());
            assert!(registry.remove(&refused).is_some());
            assert!(started.elapsed() >= patience);
            assert_eq!(domain.stats().overruns, before.overruns + 1);
            assert_eq!(domain.backlog().objects, before.backlog.objects + 1);
            registry.try_insert(refused, 1).unwrap();
            scope.spawn(|| {
                thread::sleep(patience / 6);
                drop(end);
            });
            let started = Instant::now();
            assert!(registry.fallible().remove(&refused).is_ok());
            assert!(started.elapsed() < patience, "{:?}", started.elapsed());
        });
    });
}

#[test]
fn nothing_waits_in_a_destructor_callback_or_session() {
    in_time(|| {
        let domain = limited(WhenFull::Wait(Duration::from_secs(3600))).build();
        let registry = Arc::new(filled(&domain, 5000));
        let (refused, other) = (Arc::new(AtomicU64::new(0)), Domain::new());
        let reader = registry.reader();
        let key = (0..5000).find(|key| registry.fallible().remove(key).is_err()).unwrap();
        let (inner, count) = (Arc::clone(&registry), Arc::clone(&refused));
        other.call(move || {
            count.fetch_add(u64::from(inner.fallible().remove(&key).is_err()), SeqCst);
            assert!(inner.remove(&key).is_some());
        });
        other.barrier();
        assert_eq!((refused.load(SeqCst), other.stats().callback_panics), (1, 0));
        assert_eq!(domain.stats().overruns, 1);
        drop(reader);
    });
}

#[test]
fn with_the_policy_grow_nothing_is_refused() {
    let domain = limited(WhenFull::Grow).build();
    let registry = filled(&domain, 5000);
    let guard = registry.pin();
    assert!((0..5000).all(|key| registry.fallible().remove(&key).is_ok()));
    assert!(domain.try_call(|| ()).is_ok());
    let stats = domain.stats();
    assert_eq!((stats.backlog.objects, stats.overruns), (5001, 0));
    drop(guard);
    // Beyond the soft mark, a write reclaims more than its usual share.
    drop(registry.try_insert(1, 1));
    (2..1000).for_each(|key| drop(registry.try_insert(key, key)));
    (2..1000).for_each(|key| drop(registry.remove(&key)));
    let stats = domain.stats();
    assert!(stats.backlog.objects < LIMIT && stats.expedited > 0, "{stats}");
}

#[test]
fn callbacks_count_for_the_limit_and_refused_ones_are_returned() {
    let domain = limited(WhenFull::Refuse).build();
    let ran = Arc::new(AtomicU64::new(0));
    let guard = domain.pin();
    let mut given = 0;
    let refused = loop {
        let ran = Arc::clone(&ran);
        match domain.try_call(move || assert!(ran.fetch_add(1, SeqCst) < u64::MAX)) {
            Ok(()) => given += 1,
            Err(BacklogFull(call)) => break call,
        }
    };
    assert_eq!((given, ran.load(SeqCst)), (LIMIT, 0));
    refused();
    drop(guard);
    domain.barrier();
    assert_eq!(ran.load(SeqCst), LIMIT + 1);
    peak("callbacks", &domain);
}

#[test]
fn bytes_are_limited_by_the_weigher() {
    const BYTES: u64 = 1 << 20;
    let domain = Domain::builder().backlog_bytes(BYTES as usize).when_full(WhenFull::Refuse).build();
    let builder = Registry::builder().domain(domain.clone()).shards(4);
    let registry: Registry<u64, Vec<u8>> = builder.weigher(|_, value: &Vec<u8>| value.capacity()).build();
    let sizes = [10, 1000, 10_000, 100_000];
    for key in 0..2000 {
        registry.try_insert(key, Vec::with_capacity(sizes[key as usize % 4])).unwrap();
    }
    let guard = registry.pin();
    let removed: usize =
        (0..2000).filter(|key| registry.fallible().remove(key).is_ok()).map(|key| sizes[key as usize % 4]).sum();
    let stats = domain.stats();
    println!("bytes: peak {} of {BYTES}", stats.peak.bytes);
    assert!(stats.peak.bytes <= BYTES && stats.backlog.bytes >= removed as u64, "{stats}, {removed} removed");
    assert!(stats.backlog.bytes > BYTES / 2, "{stats}");
    drop(guard);
    // An entry that weighs more than the whole limit can still be removed.
    registry.try_insert(5000, Vec::with_capacity(3 << 20)).unwrap();
    domain.barrier();
    assert!(registry.fallible().remove(&5000).is_ok());
    domain.barrier();
    assert_eq!(domain.backlog().bytes, 0);
}

/// Each object gives its place back, in whatever way it leaves the backlog. At the end as much fits as at the
/// beginning.
#[test]
fn every_place_in_the_backlog_is_given_back() {
    in_time(|| {
        let domain = limited(WhenFull::Refuse).reclaimer(true).backlog_bytes(1 << 20).build();
        let ledger = Ledger::new();
        thread::scope(|scope| {
            for seed in 0..3 {
                let (domain, ledger) = (&domain, &ledger);
                scope.spawn(move || {
                    let mut rng = Rng::new(seed + 1);
                    for _ in 0..times(30) {
                        churn(domain, ledger, &mut rng);
                    }
                });
            }
        });
        domain.barrier();
        assert_eq!((ledger.live(), domain.backlog().objects, domain.backlog().bytes), (0, 0, 0));
        let registry = filled(&domain, 5000);
        let _guard = domain.pin();
        let removed = (0..5000).filter(|key| registry.fallible().remove(key).is_ok()).count() as u64;
        assert!((LIMIT * 3 / 4..=LIMIT).contains(&removed), "{removed}");
    });
}

/// Makes a registry, writes to it in every way, and drops it while handles are outstanding.
fn churn(domain: &Domain, ledger: &Ledger, rng: &mut Rng) {
    let builder = Registry::builder().domain(domain.clone()).shards(2);
    let registry: Registry<u64, Counted> = builder.weigher(|key, _| *key as usize).build();
    let mut kept = Vec::new();
    for _ in 0..2000 {
        let key = rng.below(300);
        match rng.below(10) {
            0..3 => kept.extend(registry.try_insert(key, ledger.value(key))),
            3 => drop(registry.insert(key, ledger.value(key))),
            4 => drop(registry.fallible().insert(key, ledger.value(key))),
            5 => kept.extend(registry.fallible().remove(&key).ok().flatten()),
            6 => drop(registry.fallible().update(&key, |_, old| ledger.value(old.get()))),
            7 => kept.truncate(rng.below(20) as usize),
            8 => drop(registry.reap_if(3, |entry| entry.get() % 2 == 0).removed),
            _ if rng.below(200) == 0 => registry.clear(),
            _ => drop(domain.try_call(|| ())),
        }
        if rng.below(50) == 0 {
            let _guard = registry.pin();
            drop(registry.remove(&key));
        }
    }
    drop(registry);
}

// Places in the backlog that a bug could lose, lend too often, or count twice.

fn limited_to(objects: usize, policy: WhenFull) -> Domain {
    Domain::builder().manual().backlog_objects(objects).when_full(policy).build()
}

/// Two threads remove one key while the backlog is full. One removes it, and the other gives its place back.
#[test]
fn the_loser_of_a_race_for_a_key_gives_its_place_back() {
    let domain = limited_to(1, WhenFull::Wait(Duration::from_secs(10)));
    let a: Registry<u64, u64> = Registry::builder().shards(1).domain(domain.clone()).build();
    let b: Registry<u64, u64> = Registry::builder().shards(1).domain(domain.clone()).build();
    (0..4).for_each(|key| drop(a.try_insert(key, key)));
    (0..4).for_each(|key| drop(b.try_insert(key, key)));
    let guard = domain.pin();
    assert!(a.fallible().remove(&0).is_ok()); // The backlog is full now.
    let found = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                if a.fallible().remove(&1).expect("the backlog has room in time").is_some() {
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
    assert_eq!(domain.stats().backlog.objects, 0, "objects wait without a reader");
    assert!(
        b.fallible().remove(&0).is_ok(),
        "the removal was refused after ten seconds, with an empty backlog and no reader"
    );
}

/// All registries together are lent at most a fourth of the bytes, not each of them.
#[test]
fn registries_that_are_made_one_by_one_are_not_lent_everything() {
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
    assert!(
        last.fallible().remove(&5).is_ok(),
        "an entry of a tenth of the limit was refused, with an empty backlog and no reader"
    );
}

/// The same with objects and many more registries.
#[test]
fn at_most_a_fourth_of_the_objects_is_lent() {
    let domain = limited_to(10_000, WhenFull::Refuse);
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
    assert!(removed >= 7_500, "a shard got only {removed} of 10,000 places, with an empty backlog");
}

/// If the bytes of a place are refused, its object count is given back.
#[test]
fn a_refusal_for_bytes_gives_the_object_back() {
    let domain =
        Domain::builder().manual().backlog_objects(64).backlog_bytes(10_000).when_full(WhenFull::Refuse).build();
    let registries: Vec<Registry<u64, u64>> =
        (0..64).map(|_| Registry::builder().shards(1).domain(domain.clone()).build()).collect();
    for registry in &registries {
        (0..64).for_each(|key| drop(registry.try_insert(key, key)));
    }
    domain.barrier(); // Destroys retired tables.
    // Heavy callbacks use up all bytes.
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
    assert!(removed >= 48, "a shard got only {removed} of 64 places, with an empty backlog");
}

/// With `Grow`, shards may be lent more than the limit. Places that are lent but unused do not make the domain pressed.
#[test]
fn a_manual_domain_is_not_pressed_by_an_empty_backlog() {
    let domain = limited_to(1000, WhenFull::Grow);
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
    // The documents say: "no write runs a destructor, unless the backlog is beyond half of its limit".
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

/// A place is given back only after the figures have changed. So `peak` never exceeds the true maximum.
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

/// The loser of a race for a key gives its place back. So a later removal, which cannot fail, finds room and need not
/// wait.
#[test]
fn a_removal_does_not_wait_if_there_is_room() {
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
            scope.spawn(|| a.remove(&2)); // Three threads remove one key.
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
    assert_eq!((domain.stats().overruns, took < Duration::from_millis(400)), (0, true), "took {took:?}");
}

/// This holds even if other writers replace the entry while the update waits.
#[test]
fn an_update_waits_for_the_backlog_once() {
    const PATIENCE: Duration = Duration::from_millis(300);
    let domain = Domain::builder().backlog_objects(1).when_full(WhenFull::Wait(PATIENCE)).build();
    let registry: Registry<u64, u64> = Registry::builder().shards(1).domain(domain.clone()).build();
    registry.set_many([(1, 0), (2, 0)]);
    let (ready, wait) = std::sync::mpsc::channel();
    let (leave, left) = std::sync::mpsc::channel::<()>();
    thread::scope(|scope| {
        let domain = &domain;
        scope.spawn(move || {
            let _reading = domain.pin();
            ready.send(()).unwrap();
            left.recv().unwrap_err();
        });
        wait.recv().unwrap();
        // This write fills the backlog.
        registry.set(2, 1);
        for turn in 0..3 {
            let registry = &registry;
            scope.spawn(move || {
                thread::sleep((PATIENCE + Duration::from_millis(50)) * turn);
                registry.set(1, 10);
            });
        }
        thread::sleep(PATIENCE / 3);
        let since = Instant::now();
        registry.update(&1, |_, value| value + 100).unwrap();
        let took = since.elapsed();
        drop(leave);
        assert!(took < PATIENCE * 2, "it took {took:?}");
    });
}

/// A thread that writes and calls `Domain::call` does not pause to let itself reclaim.
#[test]
fn a_lone_thread_is_not_slowed_down_by_its_own_calls() {
    let domain = Domain::builder().writers_only().build();
    let registry: Registry<u64, u64> = Registry::builder().shards(1).domain(domain.clone()).build();
    for _ in 0..3 {
        registry.set(1, 1);
        thread::sleep(Duration::from_millis(5));
    }
    (0..2049).for_each(|_| domain.call(|| ()));
    let paused = || {
        let since = Instant::now();
        domain.call(|| ());
        since.elapsed() > Duration::from_micros(800)
    };
    let paused = (0..1000).filter(|_| paused()).count();
    assert!(paused < 30, "{paused} of 1000 calls paused");
}
