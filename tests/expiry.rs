//! Entries whose time comes: by age, by a life of their own, for want of use. All by a clock that is moved by hand.

mod common;

use common::*;
use epoch_registry::{Builder, Domain, Reaped, Reaper, Registry, Scan, Stats, WhenFull};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// One tick of an age, and one for the insertion within a tick.
const SLACK: Duration = Duration::from_millis(34);

/// Seconds that an entry lives.
struct Lease(AtomicU64);

fn lease(seconds: u64) -> Lease {
    Lease(AtomicU64::new(seconds))
}

fn leased(builder: Builder<u64, Lease>) -> Builder<u64, Lease> {
    builder.lifetime(|_, lease: &Lease| Some(lease.0.load(SeqCst)).filter(|&s| s > 0).map(Duration::from_secs))
}

#[test]
fn expiry_costs_in_proportion_to_what_expires() {
    let (builder, clock) = clocked();
    let live = times(1_000_000) / 10 * 10;
    let registry = leased(builder).capacity(live).build();
    for key in 0..live as u64 {
        let seconds = if key % (live as u64 / 10) == 0 { 10 } else { 3600 + key % 1000 };
        registry.try_insert(key, lease(seconds)).unwrap();
    }
    clock.advance(60 * SECOND);
    let reaped = registry.expire(usize::MAX);
    println!("{live} live, {} expired: {} examined", reaped.removed, reaped.examined);
    assert_eq!((reaped.removed, registry.len()), (10, live - 10));
    assert!(reaped.examined < 4 * reaped.removed, "{reaped:?}");
    // And when all of them have expired.
    clock.advance(5000 * SECOND);
    let reaped = registry.expire(usize::MAX);
    println!("{} expired: {} examined", reaped.removed, reaped.examined);
    assert_eq!((reaped.removed, registry.len()), (live - 10, 0));
    assert!(reaped.examined < 2 * reaped.removed);
    assert_eq!(registry.expire(usize::MAX), Reaped::default());
}

#[test]
fn insertions_keep_up_with_what_expires_without_any_call() {
    let (builder, clock) = clocked();
    let registry = builder.max_age(10 * SECOND).build();
    let inserted = 30_000 + times(100_000) as u64;
    for key in 0..inserted {
        clock.advance(Duration::from_millis(1));
        registry.try_insert(key, key).unwrap();
    }
    // 10,000 are younger than ten seconds.
    println!("{} live", registry.len());
    assert!((10_000..10_200).contains(&registry.len()), "{}", registry.stats());
    assert_eq!(registry.stats().expired, inserted - registry.len() as u64);
}

#[test]
fn of_random_lives_those_end_that_have_come_to_their_end_and_no_others() {
    struct Model {
        inserted: Duration,
        seconds: u64,
    }
    for seed in 0..times(60) as u64 {
        let mut rng = Rng::new(seed);
        let (builder, clock) = clocked();
        if seed % 2 == 1 {
            // Across the end of the 32 bits that a time is kept in.
            clock.advance(Duration::from_nanos(u64::from(u32::MAX) << 24) - 30 * SECOND);
        }
        let registry = leased(builder).max_age(60 * SECOND).build();
        let (mut model, mut max_age) = (HashMap::<u64, Model>::new(), 60);
        let mut now = Duration::ZERO;
        for _ in 0..600 {
            let (key, seconds) = (rng.below(100), rng.below(50));
            match rng.below(12) {
                0..3 if !model.contains_key(&key) => {
                    registry.try_insert(key, lease(seconds)).unwrap();
                    model.insert(key, Model { inserted: now, seconds });
                }
                3 => {
                    registry.insert(key, lease(seconds));
                    model.insert(key, Model { inserted: now, seconds });
                }
                4 => assert_eq!(registry.remove(&key).is_some(), model.remove(&key).is_some()),
                // A longer life; a shorter one would be noticed late.
                5 => {
                    if let Some(entry) = model.get_mut(&key).filter(|entry| entry.seconds > 0) {
                        entry.seconds += seconds;
                        registry.lookup(&key).unwrap().0.store(entry.seconds, SeqCst);
                    }
                }
                6 => {
                    max_age = 1 + rng.below(80);
                    registry.set_max_age(Some(Duration::from_secs(max_age)));
                }
                7 if rng.below(40) == 0 => {
                    registry.clear();
                    model.clear();
                }
                8 if rng.below(10) == 0 => registry.shrink_to_fit(),
                _ => {
                    let step = Duration::from_millis(rng.below(4000));
                    clock.advance(step);
                    now += step;
                }
            }
            registry.expire(rng.below(200) as usize);
            registry.expire(usize::MAX);
            model.retain(|key, entry| {
                let own = if entry.seconds == 0 { u64::MAX } else { entry.seconds };
                let (age, limit) = (now - entry.inserted, Duration::from_secs(own.min(max_age)));
                let there = registry.contains_key(key);
                assert!(there || age > limit, "seed {seed}: {key} gone at {age:?} of {limit:?}");
                assert!(!there || age <= limit + SLACK, "seed {seed}: {key} there at {age:?} of {limit:?}");
                there
            });
            assert_eq!(registry.len(), model.len(), "seed {seed}");
        }
        let stats = registry.stats();
        assert!(stats.expired > 20, "{stats}");
    }
}

#[test]
fn what_is_used_is_not_idle() {
    let (builder, clock) = clocked();
    let registry = builder.max_idle(32 * SECOND).build();
    (0..1000_u64).for_each(|key| drop(registry.try_insert(key, key)));
    let mut last_use: HashMap<u64, u64> = (0..1000).map(|key| (key, 0)).collect();
    let mut rng = Rng::new(7);
    let (mut examined, mut expired, mut reader) = (0, 0, registry.reader());
    for second in 1..300 {
        clock.advance(SECOND);
        for turn in 0..20 {
            // Few keys often, many rarely.
            let key = rng.below(if turn % 2 == 0 { 50 } else { 1000 });
            if reader.get(&key).is_some() {
                last_use.insert(key, second);
            }
        }
        let reaped = registry.expire(usize::MAX);
        examined += reaped.examined;
        expired += reaped.removed;
        let there: HashSet<u64> = registry.pin().iter().map(|entry| *entry.key()).collect();
        last_use.retain(|key, used| {
            let idle = second - *used;
            if there.contains(key) {
                assert!(idle <= 32 + 32 / 16 + 1, "{key} there after {idle} s");
            } else {
                assert!(idle >= 32, "{key} gone after {idle} s");
            }
            there.contains(key)
        });
    }
    println!("{expired} expired, {examined} examined, {} left", registry.len());
    assert!(expired > 500 && registry.len() > 20);
    // Each that is used is looked at once in 32 seconds.
    assert!(examined < 4 * expired, "{examined} for {expired}");
}

#[test]
fn the_limit_of_idleness_can_be_set_changed_and_lifted() {
    let (builder, clock) = clocked();
    let registry = builder.build();
    (0..100_u64).for_each(|key| drop(registry.try_insert(key, key)));
    clock.advance(1000 * SECOND);
    assert_eq!(registry.expire(1000), Reaped::default());
    registry.set_max_idle(Some(10 * SECOND));
    assert_eq!(registry.expire(1000).removed, 0, "they count as used now");
    clock.advance(8 * SECOND);
    registry.expire(1000);
    (0..10).for_each(|key| assert!(registry.contains_key(&key)));
    clock.advance(4 * SECOND);
    assert_eq!((registry.expire(1000).removed, registry.len()), (90, 10));
    registry.set_max_idle(None);
    clock.advance(1000 * SECOND);
    assert_eq!((registry.expire(1000).removed, registry.len()), (0, 10));
    registry.set_max_age(Some(SECOND));
    assert_eq!((registry.expire(1000).removed, registry.len()), (10, 0));
    assert_eq!(registry.stats().expired, 100);
}

#[test]
fn those_with_handles_are_spared_if_that_is_wanted() {
    for spared in [false, true] {
        let (builder, clock) = clocked();
        let registry = builder.max_age(SECOND).spare_held(spared).build();
        let held = registry.try_insert(1, 1).unwrap();
        drop(registry.try_insert(2, 2));
        clock.advance(2 * SECOND);
        let reaped = registry.expire(1000);
        assert_eq!((reaped.removed, reaped.skipped), if spared { (1, 1) } else { (2, 0) });
        assert_eq!(held.is_unlinked(), !spared);
        drop(held);
        clock.advance(2 * SECOND);
        assert_eq!((registry.expire(1000).removed, registry.len()), (usize::from(spared), 0));
    }
}

#[test]
fn a_panic_in_a_lifetime_loses_no_entry_and_no_timer() {
    let armed = Arc::new(AtomicUsize::new(usize::MAX));
    let countdown = armed.clone();
    let (builder, clock) = clocked::<u64, Counted>();
    let ledger = Ledger::new();
    let registry = builder
        .lifetime(move |_, _| {
            assert_ne!(countdown.fetch_sub(1, SeqCst), 0, "planned");
            Some(SECOND)
        })
        .build();
    (0..100).for_each(|key| drop(registry.try_insert(key, ledger.value(key))));
    armed.store(0, SeqCst);
    assert!(panic_of(|| registry.try_insert(1000, ledger.value(1000))).contains("planned"));
    assert_eq!((registry.len(), ledger.live()), (100, 100));
    clock.advance(2 * SECOND);
    for panics in 1..=3 {
        armed.store(0, SeqCst);
        registry.expire(usize::MAX);
        assert_eq!((registry.len(), registry.stats().lifetime_panics), (1, panics), "the others went");
        // An insertion has nothing to do with it.
        armed.store(1, SeqCst);
        drop(registry.try_insert(2000, ledger.value(2000)));
        drop(registry.remove(&2000));
        clock.advance(2 * SECOND);
    }
    armed.store(usize::MAX, SeqCst);
    assert_eq!((registry.expire(usize::MAX).removed, registry.len()), (1, 0));
    registry.domain().barrier();
    assert_eq!(ledger.live(), 0);
}

#[test]
fn where_the_backlog_is_full_expiry_stops_and_goes_on_later() {
    let domain = Domain::builder().backlog_objects(10).when_full(WhenFull::Refuse).manual().build();
    let (builder, clock) = clocked();
    let registry = builder.domain(domain.clone()).max_age(SECOND).build();
    (0..100_u64).for_each(|key| drop(registry.try_insert(key, key)));
    clock.advance(2 * SECOND);
    let guard = domain.pin();
    let reaped = registry.expire(usize::MAX);
    assert!(reaped.stopped && (5..=10).contains(&reaped.removed), "{reaped:?}");
    assert!(domain.backlog().objects <= 10);
    drop(guard);
    let mut removed = reaped.removed;
    assert!(soon(|| {
        clock.advance(SECOND);
        domain.barrier();
        registry.expire(usize::MAX);
        registry.is_empty()
    }));
    removed += registry.stats().expired as usize - removed;
    assert_eq!((removed, domain.stats().overruns), (100, 0));
}

#[test]
fn timers_of_replaced_entries_do_not_pile_up() {
    let (builder, clock) = clocked();
    let registry = builder.shards(1).max_age(3600 * SECOND).build();
    (0..10_u64).for_each(|key| drop(registry.try_insert(key, 0)));
    let rounds = times(200_000) as u64;
    for round in 0..rounds {
        registry.insert(round % 10, round);
        clock.advance(4000 * SECOND / rounds as u32);
    }
    // 4000 seconds have passed. Had each left a timer, a tenth of them would be due now.
    let reaped = registry.expire(usize::MAX);
    assert_eq!((reaped.removed, registry.len()), (0, 10));
    clock.advance(3601 * SECOND);
    let reaped = registry.expire(usize::MAX);
    println!("{reaped:?}");
    assert_eq!((reaped.removed, registry.len()), (10, 0));
    assert!(reaped.examined <= 20, "{reaped:?}");
}

#[test]
fn expiry_races_with_everything_and_the_accounts_balance() {
    within_a_minute(|| {
        let (builder, clock) = clocked::<u64, Counted>();
        let registry = builder.max_age(5 * SECOND).max_idle(3 * SECOND).build();
        let (ledger, stop) = (Ledger::new(), Stop::default());
        thread::scope(|scope| {
            for seed in 0..2 {
                let (registry, ledger, stop) = (&registry, &ledger, &stop);
                scope.spawn(move || {
                    let mut rng = Rng::new(seed + 1);
                    while !stop.stopped() {
                        let key = rng.below(500);
                        match rng.below(10) {
                            0..3 => drop(registry.try_insert(key, ledger.value(key))),
                            3 => drop(registry.insert(key, ledger.value(key))),
                            4 => drop(registry.update(&key, |key, old| ledger.value(*key | (old.get() - *key)))),
                            5 => drop(registry.remove(&key)),
                            6 => {
                                registry.reap_if(50, |entry| entry.get() % 7 == 0);
                            }
                            _ => assert!(registry.lookup(&key).is_none_or(|entry| entry.get() == key)),
                        }
                    }
                });
            }
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.stopped() {
                        registry.expire(64);
                    }
                });
            }
            scope.spawn(|| {
                let mut rng = Rng::new(9);
                while !stop.stopped() {
                    clock.advance(Duration::from_millis(rng.below(2000)));
                    if rng.below(1000) == 0 {
                        registry.set_max_age(Some(Duration::from_secs(1 + rng.below(10))));
                    }
                    thread::yield_now();
                }
            });
            let _end = stop.at_end();
            thread::sleep(a_while());
            let enough = |stats: &Stats| stats.expired > 100 && stats.removed > 100 && stats.replaced > 100;
            assert!(soon(|| enough(&registry.stats())), "{}", registry.stats());
        });
        println!("{}", registry.stats());
        // What is left has a timer: all of it goes when its time comes.
        clock.advance(20 * SECOND);
        registry.expire(usize::MAX);
        assert_eq!(registry.len(), 0);
        registry.domain().barrier();
        assert_eq!((ledger.live(), registry.stats().backlog), (0, 0));
    });
}

#[test]
fn a_reclaimer_reaps_in_the_background_as_long_as_the_registry_is_there() {
    within_a_minute(|| {
        let domain = Domain::builder().reclaimer(true).reap_every(Duration::from_millis(1)).build();
        let (builder, clock) = clocked();
        let registry = Arc::new(builder.domain(domain.clone()).max_age(SECOND).build());
        let ledger = Ledger::new();
        domain.add_reaper(&registry);
        for round in 0..3 {
            (0..5000).for_each(|key| drop(registry.try_insert(key, ledger.value(key))));
            assert_eq!(registry.len(), 5000, "round {round}");
            clock.advance(2 * SECOND);
            assert!(soon(|| registry.is_empty() && ledger.live() == 0), "round {round}: {}", registry.stats());
        }
        let weak = Arc::downgrade(&registry);
        drop(registry);
        assert!(soon(|| weak.upgrade().is_none()), "the domain does not keep it");
        // The thread ends.
        domain.stop_reclaimer();
    });
}

/// A reaper that panics at every other call, and drops something that is part of itself.
struct Odd {
    calls: AtomicUsize,
    last: Option<Arc<AtomicUsize>>,
}

impl Reaper for Odd {
    fn count(&self) -> usize {
        0
    }

    fn scan(&self, _: &mut Scan) -> Reaped {
        Reaped::default()
    }

    fn expire(&self, _: usize) -> Reaped {
        let calls = self.calls.fetch_add(1, SeqCst);
        assert!(calls % 2 == 0, "planned");
        Reaped::default()
    }
}

impl Drop for Odd {
    fn drop(&mut self) {
        self.last.take().unwrap().fetch_add(1, SeqCst);
    }
}

#[test]
fn a_reaper_may_panic_and_end_in_the_background_by_thread_or_executor() {
    within_a_minute(|| {
        let (send, jobs) = std::sync::mpsc::channel::<epoch_registry::ReclaimJob>();
        let pool = thread::spawn(move || jobs.iter().for_each(epoch_registry::ReclaimJob::run));
        let quick = || Domain::builder().reap_every(Duration::from_millis(1));
        let domains = [quick().reclaimer(true).build(), quick().executor(move |job| send.send(job).unwrap()).build()];
        for domain in &domains {
            let dropped = Arc::new(AtomicUsize::new(0));
            let odd = Arc::new(Odd { calls: AtomicUsize::new(0), last: Some(dropped.clone()) });
            domain.add_reaper(&odd);
            assert!(soon(|| odd.calls.load(SeqCst) >= 10 && domain.stats().callback_panics >= 4), "{}", domain.stats());
            drop(odd);
            assert!(soon(|| dropped.load(SeqCst) == 1));
            // The domain does its other work all the while.
            let registry: Registry<u64, u64> = Registry::builder().domain(domain.clone()).build();
            registry.try_insert(1, 1).unwrap();
            registry.remove(&1);
            assert!(soon(|| registry.stats().freed == 1));
        }
        drop(domains);
        pool.join().unwrap();
        let nobody = Domain::builder().writers_only().build();
        let registry = Arc::new(Registry::<u64, u64>::new());
        assert!(panic_of(|| nobody.add_reaper(&registry)).contains("neither"));
    });
}
