//! Registries with a bound on entries or weight, and what they evict.

use crate::common::*;
use epoch_registry::{Domain, Registry, WhenFull};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

const BOUND: usize = 1000;

fn bounded(bound: usize) -> Registry<u64, Counted> {
    isolated_builder().max_entries(bound).build()
}

#[test]
fn the_bound_holds_at_every_instant_under_writers_of_many_threads() {
    let (registry, ledger, stop) = (bounded(BOUND), Ledger::new(), Stop::default());
    assert_eq!(registry.max_entries(), Some(BOUND));
    let seen = AtomicU64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.stopped() {
                seen.fetch_max(registry.len() as u64, SeqCst);
            }
        });
        let _end = stop.at_end();
        let (registry, ledger) = (&registry, &ledger);
        let writers: Vec<_> = (0..3)
            .map(|seed| {
                scope.spawn(move || {
                    let mut rng = Rng::new(seed + 1);
                    for _ in 0..times(20_000) {
                        let key = rng.below(5000);
                        match rng.below(8) {
                            0..4 => drop(registry.try_insert(key, ledger.value(key))),
                            4 => drop(registry.insert(key, ledger.value(key))),
                            5 => drop(registry.get_or_insert_with(key, || ledger.value(key))),
                            6 => assert!(registry.lookup(&key).is_none_or(|entry| entry.get() == key)),
                            _ => drop(registry.remove(&key)),
                        }
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
    });
    println!("at most {} of {BOUND}", seen.load(SeqCst));
    assert!((900..=BOUND as u64).contains(&seen.load(SeqCst)), "{seen:?}");
    registry.domain().barrier();
    let stats = registry.stats();
    assert_eq!(ledger.live(), registry.len() as u64, "{stats}");
    assert!(stats.evicted > 1000 && stats.backlog == 0, "{stats}");
}

#[test]
fn used_entries_survive_a_scan_and_unused_ones_are_evicted() {
    let registry: Registry<u64, u64> = isolated_builder().max_entries(BOUND).build();
    let hot = || 0..200_u64;
    hot().for_each(|key| drop(registry.try_insert(key, key)));
    let mut reader = registry.reader();
    for cold in 1000..50_000 {
        // Each hot key is used about once in each lap of the clock hand.
        if cold % 500 == 0 {
            hot().for_each(|key| drop(reader.lookup(&key)));
        }
        drop(registry.try_insert(cold, cold));
    }
    let left = hot().filter(|key| registry.contains_key(key)).count();
    println!("{left} of 200 used entries are left after 49,000 insertions");
    assert!(left >= 190, "{left}");
    assert_eq!(registry.len(), registry.max_entries().unwrap(), "the registry is not full");
}

#[test]
fn the_bound_can_be_lowered_raised_and_lifted() {
    let (registry, ledger) = (isolated(), Ledger::new());
    assert_eq!(registry.max_entries(), None);
    let fill = |from: u64| (from..from + 2000).for_each(|key| drop(registry.try_insert(key, ledger.value(key))));
    fill(0);
    let before = registry.table_bytes();
    registry.set_max_entries(Some(100));
    assert_eq!((registry.max_entries(), registry.len()), (Some(100), 100));
    assert!(registry.table_bytes() < before, "the tables did not shrink");
    fill(10_000);
    assert_eq!(registry.len(), 100);
    registry.set_max_entries(Some(500));
    fill(20_000);
    assert_eq!(registry.len(), 500);
    registry.set_max_entries(None);
    fill(30_000);
    assert_eq!((registry.max_entries(), registry.len()), (None, 2500));
    // Each of the four shards keeps one entry.
    registry.set_max_entries(Some(0));
    assert_eq!((registry.max_entries(), registry.len()), (Some(4), 4));
    registry.domain().barrier();
    assert_eq!(ledger.live(), 4);
}

#[test]
fn evict_and_shrink_to_remove_as_many_entries_as_asked() {
    let (registry, ledger) = (isolated(), Ledger::new());
    (0..1000).for_each(|key| drop(registry.try_insert(key, ledger.value(key))));
    assert_eq!((registry.evict(0), registry.evict(1), registry.evict(99), registry.len()), (0, 1, 99, 900));
    let kept: Vec<_> = (0..1000).filter_map(|key| registry.lookup(&key)).collect();
    assert_eq!((registry.shrink_to(2000), registry.shrink_to(50), registry.len()), (0, 850, 50));
    assert_eq!((registry.evict(usize::MAX), registry.evict(1), registry.is_empty()), (50, 0, true));
    assert!(
        kept.iter().all(|entry| entry.is_unlinked() && entry.get() == *entry.key()),
        "an evicted entry changed although a handle holds it"
    );
    drop(kept);
    registry.domain().barrier();
    assert_eq!((ledger.live(), registry.stats().evicted, registry.stats().backlog), (0, 1000, 0));
}

#[test]
fn replacements_and_rejected_insertions_evict_nothing() {
    let registry: Registry<u64, u64> = isolated_builder().shards(1).max_entries(10).build();
    (0..10).for_each(|key| drop(registry.try_insert(key, key)));
    (0..10).for_each(|key| assert!(registry.insert(key, key + 1).is_some()));
    (0..10).for_each(|key| assert!(registry.try_insert(key, key).is_err()));
    assert!((0..10).all(|key| registry.update(&key, |_, old| old + 1).is_some()));
    assert_eq!((registry.len(), registry.stats().evicted), (10, 0));
    assert!(registry.insert(100, 100).is_none());
    assert_eq!((registry.len(), registry.stats().evicted), (10, 1));
}

#[test]
fn small_bounds_hold_with_few_shards() {
    for bound in [0, 1, 2, 3, 7, 100] {
        let registry: Registry<u64, u64> = Registry::builder().domain(Domain::new()).max_entries(bound).build();
        (0..1000).for_each(|key| drop(registry.try_insert(key, key).unwrap()));
        assert!((1..=bound.max(1)).contains(&registry.len()), "{} of {bound}", registry.len());
        assert!(registry.contains_key(&999), "the last inserted entry was evicted");
    }
}

#[test]
fn an_insertion_that_evicts_follows_the_backlogs_policy() {
    in_time(|| {
        let builder = Domain::builder().backlog_objects(50).when_full(WhenFull::Wait(Duration::from_millis(1)));
        let domain = builder.build();
        let registry: Registry<u64, u64> = Registry::builder().domain(domain.clone()).max_entries(100).build();
        (0..1000).for_each(|key| drop(registry.try_insert(key, key).unwrap()));
        assert_eq!(domain.stats().overruns, 0, "a write overran the limit without a reader");
        let guard = domain.pin();
        (1000..1100).for_each(|key| drop(registry.try_insert(key, key).unwrap()));
        let stats = domain.stats();
        assert!(
            stats.overruns > 0 && registry.len() <= 100,
            "the bound on entries does not hold, or there is no overrun: {stats}"
        );
        assert_eq!(registry.evict(10), 0, "an eviction was not refused");
        drop(guard);
        domain.barrier();
        assert_eq!(registry.evict(10), 10);
    });
}

/// Returns a registry in which each value is its own weight.
fn weighed(shards: usize, bound: u64) -> Registry<u64, Counted> {
    isolated_builder().shards(shards).max_weight(bound).weigher(|_, value: &Counted| value.get() as usize).build()
}

#[test]
fn the_bound_on_weight_holds_at_every_instant_under_writers_of_many_threads() {
    const BOUND: u64 = 1 << 20;
    let (registry, ledger, stop) = (weighed(4, BOUND), Ledger::new(), Stop::default());
    assert_eq!(registry.max_weight(), Some(BOUND));
    let seen = AtomicU64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.stopped() {
                seen.fetch_max(registry.weight(), SeqCst);
            }
        });
        let _end = stop.at_end();
        let (registry, ledger) = (&registry, &ledger);
        let writers: Vec<_> = (0..3)
            .map(|seed| {
                scope.spawn(move || {
                    let mut rng = Rng::new(seed + 1);
                    for _ in 0..times(20_000) {
                        // Most weights are below 4000. Now and then a weight is a tenth of a shard's share.
                        let weight = if rng.below(100) == 0 { 26_000 } else { rng.below(4000) };
                        let key = rng.below(3000);
                        match rng.below(8) {
                            0..4 => drop(registry.try_insert(key, ledger.value(weight))),
                            4..6 => drop(registry.insert(key, ledger.value(weight))),
                            6 => drop(registry.update(&key, |_, old| ledger.value(old.get() / 2 + weight))),
                            _ => drop(registry.remove(&key)),
                        }
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
    });
    println!("at most {} of {BOUND}, {}", seen.load(SeqCst), registry.stats());
    assert!((BOUND * 9 / 10..=BOUND).contains(&seen.load(SeqCst)), "{seen:?}");
    registry.domain().barrier();
    assert_eq!(ledger.live(), registry.len() as u64);
    let weight: u64 = registry.pin().iter().map(|entry| entry.get()).sum();
    assert!(registry.weight() > weight && registry.weight() < weight + 1000 * registry.len() as u64);
    registry.clear();
    assert_eq!(registry.weight(), 0);
}

#[test]
fn a_heavy_entry_displaces_light_ones_and_one_beyond_the_bound_stays_alone() {
    let (registry, ledger) = (weighed(1, 100_000), Ledger::new());
    (0..1000).for_each(|key| drop(registry.try_insert(key, ledger.value(10))));
    let before = registry.len();
    assert_eq!(before, 1000);
    registry.try_insert(1000, ledger.value(50_000)).unwrap();
    assert!(registry.weight() <= 100_000 && registry.contains_key(&1000) && registry.len() > 300);
    // A replacement by a heavier value evicts other entries, not itself.
    registry.insert(1000, ledger.value(99_000));
    assert!(registry.weight() <= 100_000 && registry.contains_key(&1000) && registry.len() < 30);
    let entry = registry.update(&1000, |_, old| ledger.value(old.get() * 5)).unwrap();
    assert_eq!((entry.get(), registry.len()), (495_000, 1));
    registry.replace_handle(&entry, ledger.value(600_000)).map_err(|_| ()).unwrap();
    assert_eq!((registry.len(), registry.contains_key(&1000)), (1, true));
    registry.try_insert(1, ledger.value(1)).unwrap();
    assert_eq!((registry.len(), registry.contains_key(&1)), (1, true), "the heavy entry was not evicted");
    drop(entry);
    registry.set_max_weight(None);
    (0..1000).for_each(|key| drop(registry.try_insert(key, ledger.value(1000))));
    assert_eq!((registry.max_weight(), registry.len()), (None, 1000));
    registry.set_max_weight(Some(10_000));
    assert!(registry.weight() <= 10_000 && registry.len() > 5);
    registry.domain().barrier();
    assert_eq!((ledger.live(), registry.stats().backlog), (registry.len() as u64, 0));
}

#[test]
fn held_entries_are_evicted_last_with_spare_held() {
    for spared in [false, true] {
        let builder = isolated_builder::<u64, u64>().shards(1).max_entries(100);
        let registry = builder.spare_held(spared).build();
        let held: Vec<_> = (0..50).map(|key| registry.try_insert(key, key).unwrap()).collect();
        (50..1000).for_each(|key| drop(registry.try_insert(key, key)));
        let left = held.iter().filter(|entry| !entry.is_unlinked()).count();
        println!("{left} of 50 held entries are left (spared: {spared})");
        assert!(if spared { left >= 40 } else { left == 0 }, "{left}");
        // The bound also holds if all entries are held.
        let all: Vec<_> = (2000..2500).map(|key| registry.try_insert(key, key).unwrap()).collect();
        assert_eq!((registry.len(), all.len()), (100, 500));
    }
}

// Bounds in special cases: the backlog has no room, or the table is nearly empty.

fn heavy(when: WhenFull) -> (Domain, Registry<u64, usize>) {
    let domain = Domain::builder().backlog_objects(8).when_full(when).build();
    let registry = Registry::<u64, usize>::builder()
        .domain(domain.clone())
        .shards(1)
        .max_weight(40_000)
        .weigher(|_, v| *v)
        .build();
    (domain, registry)
}

/// An insertion waits only once, like a sweep, although it evicts many entries.
#[test]
fn an_insertion_that_evicts_many_waits_once() {
    let (domain, registry) = heavy(WhenFull::Wait(Duration::from_millis(100)));
    for key in 0..60 {
        registry.try_insert(key, 500).unwrap();
    }
    with_reader(&domain, || {
        let start = Instant::now();
        registry.try_insert(1000, 39_000).unwrap();
        println!("{:?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
    });
}

#[test]
fn a_bound_lowered_with_a_full_backlog_costs_the_next_insertion_one_wait() {
    let (domain, registry) = heavy(WhenFull::Wait(Duration::from_millis(100)));
    registry.set_max_weight(None);
    for key in 0..60 {
        registry.try_insert(key, 500).unwrap();
    }
    with_reader(&domain, || {
        registry.set_max_entries(Some(10));
        println!("{} left", registry.len());
        let start = Instant::now();
        registry.try_insert(1000, 5).unwrap();
        println!("{:?}, {} left", start.elapsed(), registry.len());
        assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
    });
}

/// Guarantee: "The `try_` operations never exceed the limit under `Wait` and `Refuse`, whatever readers do."
#[test]
fn a_fallible_replace_by_a_heavier_entry_is_refused_and_does_not_overrun() {
    let (domain, registry) = heavy(WhenFull::Refuse);
    for key in 0..60 {
        registry.try_insert(key, 500).unwrap();
    }
    with_reader(&domain, || {
        let result = registry.fallible().insert(5, 39_000).is_ok();
        println!("ok {result}; backlog {:?}, {} overruns", domain.backlog(), domain.stats().overruns);
        assert!(domain.backlog().objects <= 8, "{:?}", domain.backlog());
    });
}

/// Guarantee: entries that were not used lately are evicted first.
#[test]
fn evicting_one_by_one_removes_unused_entries() {
    let registry = Registry::<u64, u64>::builder().domain(Domain::new()).shards(8).max_entries(8000).build();
    for key in 0..800 {
        registry.try_insert(key, key).unwrap();
    }
    let mut hot_lost = 0;
    for _ in 0..200 {
        for key in 0..400 {
            let _ = registry.lookup(&key);
        }
        assert_eq!(registry.evict(1), 1);
    }
    hot_lost += (0..400).filter(|key| !registry.contains_key(key)).count();
    println!("{hot_lost} used entries evicted, of 200, while {} unused remain", registry.len() - (400 - hot_lost));
    assert!(hot_lost < 20, "{hot_lost}");
}

/// The entries become heavier, and the table shrinks. Otherwise the clock hand would walk past many empty homes under
/// the lock.
#[test]
fn insertions_of_few_heavy_entries_after_many_light_ones_are_cheap() {
    let registry = Registry::<u64, usize>::builder()
        .domain(Domain::new())
        .shards(1)
        .max_weight(100_000_000)
        .weigher(|_, v| *v)
        .build();
    for key in 0..600_000 {
        registry.try_insert(key, 10).unwrap();
    }
    let light = registry.capacity();
    let start = Instant::now();
    registry.try_insert(1 << 40, 99_000_000).unwrap();
    println!("first heavy: {:?}, {} left, capacity {light} {}", start.elapsed(), registry.len(), registry.capacity());
    for key in 0..20 {
        registry.try_insert(1 << 41 | key, 9_000_000).unwrap();
    }
    let (start, mut longest) = (Instant::now(), Duration::ZERO);
    for key in 0..100u64 {
        let one = Instant::now();
        registry.try_insert(1 << 42 | key, 9_000_000).unwrap();
        longest = longest.max(one.elapsed());
    }
    let mean = start.elapsed() / 100;
    println!("{} entries, capacity {}: insertion {mean:?}, longest {longest:?}", registry.len(), registry.capacity());
    // The search for a victim visits only a few homes.
    assert!(registry.capacity() < light / 100, "{}", registry.capacity());
}

/// An insertion needs no room in the backlog. So it does not wait to reap expired entries.
#[test]
fn an_insertion_does_not_wait_to_reap_expired_entries() {
    let clock = epoch_registry::ManualClock::new();
    let when = WhenFull::Wait(Duration::from_millis(100));
    let domain = Domain::builder().backlog_objects(8).when_full(when).build();
    let registry = Registry::<u64, u64>::builder()
        .domain(domain.clone())
        .shards(1)
        .max_age(Duration::from_secs(5))
        .clock(clock.clone())
        .build();
    for key in 0..100 {
        registry.try_insert(key, key).unwrap();
    }
    clock.advance(Duration::from_secs(60));
    with_reader(&domain, || {
        let start = Instant::now();
        for key in 1000..1020 {
            registry.try_insert(key, key).unwrap();
        }
        println!("20 insertions: {:?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_millis(1000), "{:?}", start.elapsed());
    });
}

#[test]
fn set_max_entries_waits_once_and_not_for_each_shard() {
    let when = WhenFull::Wait(Duration::from_millis(50));
    let domain = Domain::builder().backlog_objects(8).when_full(when).build();
    let registry = Registry::<u64, u64>::builder().domain(domain.clone()).shards(64).build();
    for key in 0..6400 {
        registry.try_insert(key, key).unwrap();
    }
    with_reader(&domain, || {
        let start = Instant::now();
        registry.set_max_entries(Some(640));
        println!("set_max_entries: {:?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
    });
}

/// The bounds hold at every instant under writes that make entries heavier, resizes and clears.
#[test]
fn bounds_hold_under_a_storm() {
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    for spare in [false, true] {
        let registry = Registry::<u64, usize>::builder()
            .domain(Domain::builder().backlog_objects(500).when_full(WhenFull::Refuse).build())
            .shards(4)
            .max_weight(4 * 100_000)
            .max_entries(4 * 300)
            .spare_held(spare)
            .weigher(|_, v| *v)
            .build();
        let stop = AtomicBool::new(false);
        thread::scope(|s| {
            for t in 0..3u64 {
                let (registry, stop) = (&registry, &stop);
                s.spawn(move || {
                    let mut rng = Rng::new(t + 1);
                    let mut held = Vec::new();
                    while !stop.load(SeqCst) {
                        let (op, key, v) = (rng.below(100), rng.below(3000), rng.below(5000) as usize);
                        match op {
                            0 => registry.shrink_to_fit(),
                            1 if key < 100 => registry.clear(),
                            2..30 => drop(registry.update(&key, |_, old| (old + 1000).min(50_000))),
                            30..40 => drop(registry.insert(key, v)),
                            40..50 => {
                                if let Some(old) = registry.lookup(&key) {
                                    if let Ok(new) = registry.replace_handle(&old, v * 4) {
                                        held.push(new);
                                        held.truncate(200);
                                    }
                                }
                            }
                            50..60 => {
                                let _ = registry.fallible().update(&key, |_, old| old / 2);
                            }
                            60..65 => {
                                registry.remove(&key);
                            }
                            _ => drop(registry.try_insert(key, v)),
                        }
                    }
                });
            }
            let end = Instant::now() + Duration::from_secs(3);
            while Instant::now() < end {
                let (len, weight) = (registry.len(), registry.weight());
                if len > 1200 || weight > 400_000 {
                    stop.store(true, SeqCst);
                    panic!("{len} entries of {weight} bytes");
                }
            }
            stop.store(true, SeqCst);
        });
    }
}
