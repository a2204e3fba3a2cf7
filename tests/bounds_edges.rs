//! Bounds where the backlog has no room, or the table is nearly empty.

mod common;

use common::{Rng, with_reader};
use epoch_registry::{Domain, Registry, WhenFull};
use std::thread;
use std::time::{Duration, Instant};

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

/// One insertion waits once, as a sweep does, and not once for each entry that it evicts.
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
        assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
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
        assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
    });
}

/// "The `try_` operations never exceed the limit under `Wait` and `Refuse`, whatever readers do."
#[test]
fn a_try_replace_by_a_heavier_one_is_refused_and_does_not_overrun() {
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

/// "those first that were not used lately"
#[test]
fn evict_one_by_one_takes_those_that_are_not_used() {
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

/// Entries become heavier: the table follows, so that the hand does not go round empty homes under the lock.
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
    // Looking for a victim is a matter of a few homes.
    assert!(registry.capacity() < light / 100, "{}", registry.capacity());
}

/// An insertion needs no room in the backlog: it is not to wait for the sake of others that have expired.
#[test]
fn an_insertion_does_not_wait_for_what_has_expired() {
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
        assert!(start.elapsed() < Duration::from_millis(300), "{:?}", start.elapsed());
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
        assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
    });
}

/// Bounds at every instant under everything that makes entries heavier, resizes and clears.
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
