//! Entries that expire: by age, by their own lifetime, or because they are idle. Almost all tests use a manual clock.

use crate::common::*;
use epoch_registry::{Builder, Cause, Domain, ManualClock, Reaped, Reaper, Registry, Scan, Stats, WhenFull};
use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

/// The most that an entry expires late: one tick for its age, and one for the rounding of its insertion time.
const SLACK: Duration = Duration::from_millis(34);

/// A value that holds its lifetime in seconds.
struct Lease(AtomicU64);

fn lease(seconds: u64) -> Lease {
    Lease(AtomicU64::new(seconds))
}

fn leased(builder: Builder<u64, Lease>) -> Builder<u64, Lease> {
    builder.lifetime(|_, lease: &Lease| Some(lease.0.load(SeqCst)).filter(|&s| s > 0).map(Duration::from_secs))
}

#[test]
fn the_cost_of_expiry_is_proportional_to_the_expired_entries() {
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
    // The same when all entries have expired.
    clock.advance(5000 * SECOND);
    let reaped = registry.expire(usize::MAX);
    println!("{} expired: {} examined", reaped.removed, reaped.examined);
    assert_eq!((reaped.removed, registry.len()), (live - 10, 0));
    assert!(reaped.examined < 2 * reaped.removed);
    assert_eq!(registry.expire(usize::MAX), Reaped::default());
}

#[test]
fn insertions_reap_expired_entries_without_a_further_call() {
    let (builder, clock) = clocked();
    let registry = builder.max_age(10 * SECOND).build();
    let inserted = 30_000 + times(100_000) as u64;
    for key in 0..inserted {
        clock.advance(Duration::from_millis(1));
        registry.try_insert(key, key).unwrap();
    }
    // 10,000 entries are younger than ten seconds.
    println!("{} live", registry.len());
    assert!((10_000..10_200).contains(&registry.len()), "{}", registry.stats());
    assert_eq!(registry.stats().expired, inserted - registry.len() as u64);
}

#[test]
fn with_random_lifetimes_exactly_the_expired_entries_are_absent() {
    struct Model {
        inserted: Duration,
        seconds: u64,
    }
    for seed in 0..times(60) as u64 {
        let mut rng = Rng::new(seed);
        let (builder, clock) = clocked();
        if seed % 2 == 1 {
            // Crosses the point at which a time of 32 bits overflows.
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
                // Prolongs a lifetime. The registry would notice a shorter one only late.
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
                assert!(
                    there || age > limit,
                    "seed {seed}: {key} expired at the age {age:?}, before its limit {limit:?}"
                );
                assert!(
                    !there || age <= limit + SLACK,
                    "seed {seed}: {key} still present at the age {age:?}, after its limit {limit:?}"
                );
                there
            });
            assert_eq!(registry.len(), model.len(), "seed {seed}");
        }
        let stats = registry.stats();
        assert!(stats.expired > 20, "{stats}");
    }
}

#[test]
fn a_used_entry_is_not_idle() {
    let (builder, clock) = clocked();
    let registry = builder.max_idle(32 * SECOND).build();
    (0..1000_u64).for_each(|key| drop(registry.try_insert(key, key)));
    let mut last_use: HashMap<u64, u64> = (0..1000).map(|key| (key, 0)).collect();
    let mut rng = Rng::new(7);
    let (mut examined, mut expired, mut reader) = (0, 0, registry.reader());
    for second in 1..300 {
        clock.advance(SECOND);
        for turn in 0..20 {
            // A few keys are used often, and many rarely.
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
                assert!(idle <= 32 + 32 / 16 + 1, "{key} still present after {idle} s");
            } else {
                assert!(idle >= 32, "{key} absent after {idle} s");
            }
            there.contains(key)
        });
    }
    println!("{expired} expired, {examined} examined, {} left", registry.len());
    assert!(expired > 500 && registry.len() > 20);
    // An entry that is used is examined once in 32 seconds.
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
    assert_eq!(registry.expire(1000).removed, 0, "the entries do not count as used now");
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
fn held_entries_do_not_expire_with_spare_held() {
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
        assert_eq!(
            (registry.len(), registry.stats().lifetime_panics),
            (1, panics),
            "entries other than the one that panicked were not reaped"
        );
        // The panic does not affect an insertion.
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
fn expiry_stops_at_a_full_backlog_and_goes_on_later() {
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
    // 4000 seconds have passed. If each replaced entry had left a timer, a tenth of the timers would be due now.
    let reaped = registry.expire(usize::MAX);
    assert_eq!((reaped.removed, registry.len()), (0, 10));
    clock.advance(3601 * SECOND);
    let reaped = registry.expire(usize::MAX);
    println!("{reaped:?}");
    assert_eq!((reaped.removed, registry.len()), (10, 0));
    assert!(reaped.examined <= 20, "{reaped:?}");
}

#[test]
fn expiry_races_with_all_operations_and_the_counts_stay_exact() {
    in_time(|| {
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
        // Each entry that is left has a timer, so all of them expire.
        clock.advance(20 * SECOND);
        registry.expire(usize::MAX);
        assert_eq!(registry.len(), 0);
        registry.domain().barrier();
        assert_eq!((ledger.live(), registry.stats().backlog), (0, 0));
    });
}

#[test]
fn a_reclaimer_reaps_in_the_background_until_the_registry_is_dropped() {
    in_time(|| {
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
        assert!(soon(|| weak.upgrade().is_none()), "the domain keeps the registry alive");
        // The thread can be stopped.
        domain.stop_reclaimer();
    });
}

/// A reaper that panics at every other call, and whose destructor takes a part of it out.
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
fn reapers_called_by_a_thread_or_executor_may_panic_and_be_dropped() {
    in_time(|| {
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
            // The domain continues its other work.
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

// Entries that expire while something else happens: settings change, lifetimes panic or call back, uses race, clocks
// stand still or jump.

const A_SECOND: Duration = Duration::from_secs(1);

/// All keys collide.
const ONE_HASH: FewBits = FewBits { mask: 0 };

/// A reaper has taken entries to examine. A listener shortens the age of all entries. The reaper puts its entries back
/// by the new age.
#[test]
fn an_age_that_a_listener_shortens_holds_for_entries_under_examination() {
    static REGISTRY: OnceLock<Weak<Registry<u64, AtomicU64>>> = OnceLock::new();
    let (builder, clock) = clocked::<u64, AtomicU64>();
    let registry = builder
        .shards(1)
        .max_age(1_000_000 * A_SECOND)
        .lifetime(|_, v: &AtomicU64| Some(Duration::from_secs(v.load(SeqCst))))
        .listener(|cause, _| {
            // Acts at the last of ten calls, when entries that stay have been examined too.
            static GONE: AtomicUsize = AtomicUsize::new(0);
            if cause == Cause::Expired && GONE.fetch_add(1, SeqCst) == 9 {
                REGISTRY.get().unwrap().upgrade().unwrap().set_max_age(Some(10 * A_SECOND));
            }
        })
        .build();
    let registry = Arc::new(registry);
    REGISTRY.set(Arc::downgrade(&registry)).unwrap();
    // Half of the entries get a longer lifetime after their token was armed. When the token is due, they get the limit
    // of max_age.
    for key in 0..20 {
        registry.try_insert(key, AtomicU64::new(5)).unwrap();
    }
    clock.advance(A_SECOND);
    let prolonged: Vec<u64> = (0..20).filter(|k| k % 2 == 0).collect();
    for key in &prolonged {
        registry.lookup(key).unwrap().store(100_000_000, SeqCst);
    }
    clock.advance(7 * A_SECOND);
    println!("{:?}", registry.expire(1000));
    assert_eq!(registry.len(), 10);
    // The maximum age is now 10 s.
    clock.advance(60 * A_SECOND);
    println!("{:?}", registry.expire(1000));
    clock.advance(60 * A_SECOND);
    println!("{:?}", registry.expire(1000));
    assert_eq!(registry.len(), 0, "entries older than max_age were forgotten");
}

/// The same with threads: one thread is in the lifetime closure of a reap while another shortens the age.
#[test]
fn an_age_that_another_thread_shortens_holds_for_entries_under_examination() {
    let (entered_tx, entered) = mpsc::channel::<()>();
    let (go, go_rx) = mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(Some((entered_tx, go_rx)));
    let armed = Arc::new(AtomicBool::new(false));
    let (armed2, long) = (armed.clone(), Arc::new(AtomicBool::new(false)));
    let long2 = long.clone();
    let (builder, clock) = clocked::<u64, ()>();
    let registry = builder
        .shards(1)
        .max_age(1_000_000 * A_SECOND)
        .lifetime(move |key, _| {
            if *key == 1 && armed2.load(SeqCst) {
                let taken = gate.lock().unwrap().take();
                if let Some((tx, rx)) = taken {
                    tx.send(()).unwrap();
                    rx.recv().unwrap();
                }
            }
            (!long2.load(SeqCst)).then_some(5 * A_SECOND)
        })
        .build();
    for key in 0..2 {
        registry.try_insert(key, ()).unwrap();
    }
    long.store(true, SeqCst);
    armed.store(true, SeqCst);
    clock.advance(6 * A_SECOND);
    thread::scope(|s| {
        s.spawn(|| registry.expire(100));
        entered.recv().unwrap();
        registry.set_max_age(Some(10 * A_SECOND));
        go.send(()).unwrap();
    });
    for _ in 0..5 {
        clock.advance(60 * A_SECOND);
        registry.expire(1000);
    }
    assert_eq!(registry.len(), 0, "entries older than max_age were forgotten");
}

/// Reaps fifty expired entries 200 times. The lifetime of the entry with key `bad` panics. Returns the registry.
fn reaped_beside_a_panic<S: BuildHasher + Send + Sync + 'static>(bad: u64, hasher: S) -> Registry<u64, (), S> {
    let armed = Arc::new(AtomicBool::new(false));
    let is_armed = Arc::clone(&armed);
    let (builder, clock) = clocked::<u64, ()>();
    let registry = builder
        .shards(1)
        .hasher(hasher)
        .lifetime(move |key, _| {
            if *key == bad && is_armed.load(SeqCst) {
                // `resume_unwind` prints no message. A normal panic would print one 200 times.
                resume_unwind(Box::new("bad"));
            }
            Some(5 * A_SECOND)
        })
        .build();
    for key in 0..50 {
        registry.try_insert(key, ()).unwrap();
    }
    armed.store(true, SeqCst);
    clock.advance(60 * A_SECOND);
    let mut panics = 0;
    for _ in 0..200 {
        panics += u32::from(catch_unwind(AssertUnwindSafe(|| registry.expire(1000))).is_err());
        clock.advance(10 * A_SECOND);
    }
    println!("{panics} panics in 200 reaps; {} of 50 left", registry.len());
    registry
}

/// The other entries are reaped, and almost no insertion is affected.
#[test]
fn an_entry_whose_lifetime_panics_does_not_delay_the_others() {
    let registry = reaped_beside_a_panic(7, std::hash::RandomState::new());
    let mut hit = 0;
    for key in 1000..1100 {
        hit += u32::from(catch_unwind(AssertUnwindSafe(|| drop(registry.try_insert(key, ())))).is_err());
    }
    let left = (0..50).filter(|k| registry.contains_key(k)).count();
    assert!(left <= 1, "{left} left");
    assert!(hit <= 2, "{hit} of 100 insertions panicked");
}

/// The entry whose lifetime panics has the smallest hash, so it always comes first.
#[test]
fn an_entry_whose_lifetime_panics_and_comes_first_does_not_delay_the_others() {
    let registry = reaped_beside_a_panic(0, Same(0));
    assert!(registry.len() <= 1, "{} left after 200 reaps", registry.len());
}

#[test]
fn set_max_age_reaches_all_entries_although_a_lifetime_panics() {
    let bad = Arc::new(AtomicBool::new(false));
    let bad2 = bad.clone();
    let (builder, clock) = clocked::<u64, ()>();
    let registry = builder
        .shards(1)
        .max_age(1_000_000 * A_SECOND)
        .lifetime(move |key, _| {
            assert!(!(*key == 7 && bad2.load(SeqCst)), "bad");
            None
        })
        .build();
    for key in 0..1000 {
        registry.try_insert(key, ()).unwrap();
    }
    bad.store(true, SeqCst);
    registry.set_max_age(Some(A_SECOND));
    assert_eq!(registry.stats().lifetime_panics, 1);
    bad.store(false, SeqCst);
    for _ in 0..10 {
        clock.advance(60 * A_SECOND);
        registry.expire(10000);
    }
    assert!(registry.len() <= 1, "{} entries were forgotten", registry.len());
}

/// The lifetime closure calls the registry.
#[test]
fn a_lifetime_that_reaps_does_not_recurse_by_the_number_of_entries() {
    thread_local!(static DEPTH: Cell<u32> = const { Cell::new(0) });
    static DEEPEST: AtomicU64 = AtomicU64::new(0);
    static REGISTRY: OnceLock<Weak<Registry<u64, ()>>> = OnceLock::new();
    let (builder, clock) = clocked::<u64, ()>();
    let live = Arc::new(AtomicBool::new(false));
    let live2 = live.clone();
    let registry = builder
        .shards(1)
        .lifetime(move |_, _| {
            if live2.load(SeqCst) {
                let depth = DEPTH.get() + 1;
                DEPTH.set(depth);
                DEEPEST.fetch_max(depth.into(), SeqCst);
                REGISTRY.get().unwrap().upgrade().unwrap().expire(1);
                DEPTH.set(depth - 1);
            }
            Some(5 * A_SECOND)
        })
        .build();
    let registry = Arc::new(registry);
    REGISTRY.set(Arc::downgrade(&registry)).unwrap();
    for key in 0..500 {
        registry.try_insert(key, ()).unwrap();
    }
    live.store(true, SeqCst);
    clock.advance(60 * A_SECOND);
    registry.expire(1);
    println!("deepest {}", DEEPEST.load(SeqCst));
    assert!(DEEPEST.load(SeqCst) < 20, "{} levels for 500 entries", DEEPEST.load(SeqCst));
}

/// Reaps with a budget of one while another thread writes one key. With `stuck` the clock stands still. Returns the
/// longest time of a reap, and the number of reaps.
fn reap_beside_a_hot_key(stuck: bool) -> (Duration, u64) {
    let builder = Registry::<u64, u64>::builder().domain(Domain::new()).shards(1).max_age(3600 * A_SECOND);
    let registry = if stuck { builder.clock(ManualClock::new()).build() } else { builder.build() };
    let (stop, mut longest) = (AtomicBool::new(false), Duration::ZERO);
    let mut count = 0;
    thread::scope(|s| {
        s.spawn(|| {
            let end = Instant::now() + Duration::from_secs(3);
            while Instant::now() < end && !stop.load(SeqCst) {
                for n in 0..100 {
                    registry.insert(1, n);
                }
            }
        });
        let end = Instant::now() + Duration::from_secs(2);
        thread::sleep(Duration::from_millis(50));
        while Instant::now() < end {
            let start = Instant::now();
            registry.expire(1);
            longest = longest.max(start.elapsed());
            count += 1;
        }
        stop.store(true, SeqCst);
    });
    println!("stuck {stuck}: {count} reaps, longest {longest:?}");
    (longest, count)
}

#[test]
fn a_reap_ends_beside_a_writer_although_the_clock_stands_still() {
    assert!(reap_beside_a_hot_key(true).0 < Duration::from_secs(2));
}

#[test]
fn a_reap_ends_beside_a_writer() {
    assert!(reap_beside_a_hot_key(false).0 < Duration::from_secs(2));
}

#[derive(Clone, Copy)]
struct Slow(u64);
impl std::hash::Hash for Slow {
    fn hash<H: Hasher>(&self, h: &mut H) {
        h.write_u64(self.0);
    }
}
static SLOW: AtomicBool = AtomicBool::new(false);
static IN_EQ: AtomicBool = AtomicBool::new(false);
impl PartialEq for Slow {
    fn eq(&self, other: &Slow) -> bool {
        if SLOW.swap(false, SeqCst) {
            IN_EQ.store(true, SeqCst);
            thread::sleep(Duration::from_millis(300));
        }
        self.0 == other.0
    }
}
impl Eq for Slow {}

/// The first limit is set while an insertion is under way.
#[test]
fn an_entry_inserted_while_the_first_age_is_set_expires() {
    let (builder, clock) = clocked::<Slow, ()>();
    let registry = builder.shards(1).hasher(ONE_HASH).build();
    registry.try_insert(Slow(1), ()).unwrap();
    thread::scope(|s| {
        SLOW.store(true, SeqCst);
        s.spawn(|| registry.try_insert(Slow(2), ()).map(drop).unwrap());
        while !IN_EQ.load(SeqCst) {
            thread::yield_now();
        }
        registry.set_max_age(Some(A_SECOND));
    });
    for _ in 0..1000 {
        clock.advance(3600 * A_SECOND);
        registry.expire(1000);
    }
    assert_eq!(registry.len(), 0, "the entry does not expire, although max_age is a second");
}

/// A reader uses an entry at the moment at which a reaper takes its use mark away. The use still counts.
#[test]
fn a_use_that_races_with_a_second_chance_counts() {
    let (builder, clock) = clocked::<u64, u64>();
    let registry = builder.shards(1).max_idle(160 * A_SECOND).build();
    const N: u64 = 2000;
    let policy = epoch_registry::policy::when::<u64, u64>(|_| false);
    let _ = &policy;
    let mut early = 0;
    let end = Instant::now() + Duration::from_secs(1);
    let mut rounds = 0;
    while Instant::now() < end && early == 0 {
        rounds += 1;
        for key in 0..N {
            registry.get_or_insert_with(key, || key);
        }
        registry.iter_touch(N);
        for _ in 0..12 {
            clock.advance(11 * A_SECOND);
            registry.expire(0);
        }
        // All entries have been idle for 132 s. Now each is used while another thread takes the use marks.
        let guard = registry.pin();
        let order: Vec<u64> = guard.iter().map(|e| *e.key()).collect();
        drop(guard);
        let gate = std::sync::Barrier::new(2);
        thread::scope(|s| {
            s.spawn(|| {
                gate.wait();
                let guard = registry.pin();
                for key in &order {
                    assert!(guard.get(key).is_some());
                }
            });
            gate.wait();
            let mut scan = epoch_registry::Scan::new(usize::MAX);
            registry.reap_by(&|_: &epoch_registry::Candidate<'_, u64, u64>| epoch_registry::Verdict::Rotate, &mut scan);
        });
        for _ in 0..5 {
            clock.advance(11 * A_SECOND);
            registry.expire(0);
        }
        // 55 s have passed since the uses.
        early += registry.expire(usize::MAX).removed;
    }
    println!("{early} entries expired early in {rounds} rounds of {N}");
    assert_eq!(early, 0);
}

trait Touch {
    fn iter_touch(&self, n: u64);
}
impl Touch for Registry<u64, u64> {
    fn iter_touch(&self, n: u64) {
        for key in 0..n {
            self.lookup(&key).unwrap();
        }
    }
}

/// In 420 days the count of ticks wraps around.
#[test]
fn an_entry_that_expired_420_days_ago_is_reaped() {
    let (builder, clock) = clocked::<u64, u64>();
    let registry = builder.shards(1).max_age(3600 * A_SECOND).build();
    registry.try_insert(1, 1).unwrap();
    clock.advance(420 * 24 * 3600 * A_SECOND);
    registry.expire(10);
    clock.advance(2 * 3600 * A_SECOND);
    registry.expire(10);
    clock.advance(24 * 3600 * A_SECOND);
    registry.expire(10);
    assert_eq!(registry.len(), 0, "an entry with a lifetime of an hour is still present after 421 days");
}

/// Guarantee: if there was no limit on idleness before, the entries count as used at the time when it is set.
#[test]
fn entries_count_as_used_when_idleness_is_limited_again() {
    let (builder, clock) = clocked::<u64, u64>();
    let registry = builder.shards(1).max_idle(160 * A_SECOND).build();
    registry.try_insert(1, 1).unwrap();
    for _ in 0..5 {
        clock.advance(20 * A_SECOND);
        registry.expire(10);
    }
    registry.set_max_idle(None);
    clock.advance(1000 * A_SECOND);
    registry.expire(10);
    registry.set_max_idle(Some(160 * A_SECOND));
    registry.expire(10);
    assert_eq!(registry.len(), 1);
}

#[derive(Clone, Default)]
struct Same(u64);
impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, b: &[u8]) {
        self.0 = u64::from_le_bytes(b.try_into().unwrap());
    }
}
impl BuildHasher for Same {
    type Hasher = Same;
    fn build_hasher(&self) -> Same {
        Same(0)
    }
}

#[test]
#[cfg_attr(target_pointer_width = "32", ignore = "the table takes 3 GB")]
fn entries_expire_in_tables_of_more_homes_than_a_token_can_tell_apart() {
    let (builder, clock) = clocked::<u64, u64>();
    let registry = builder.shards(1).capacity(250_000_000).hasher(Same(0)).max_age(10 * A_SECOND).build();
    for key in 0..64u64 {
        registry.try_insert(key << 23 | 5, key).unwrap();
    }
    clock.advance(5 * A_SECOND);
    for key in 0..64u64 {
        if key % 2 == 0 {
            registry.insert(key << 23 | 5, key);
        }
    }
    clock.advance(6 * A_SECOND);
    registry.expire(1000);
    assert_eq!(registry.len(), 32);
    clock.advance(6 * A_SECOND);
    registry.expire(1000);
    assert_eq!(registry.len(), 0);
}

/// All operations at once, with all keys of one hash or with good hashes. The listener is told of each entry once, and
/// no entry is forgotten.
#[test]
fn expiry_under_all_operations_at_once_tells_each_entry_once() {
    for one in [false, true] {
        for spare in [false, true] {
            if one { run(ONE_HASH, spare, 40) } else { run(ahash_like(), spare, 3000) }
        }
    }
    fn ahash_like() -> std::hash::RandomState {
        std::hash::RandomState::new()
    }
    fn run<S: BuildHasher + Send + Sync + Clone + 'static>(hasher: S, spare: bool, keys: u64) {
        let (told, clock) = (Arc::new(AtomicU64::new(0)), ManualClock::new());
        let count = told.clone();
        let registry = Registry::<u64, u64>::builder()
            .domain(Domain::builder().backlog_objects(200).when_full(epoch_registry::WhenFull::Refuse).build())
            .clock(clock.clone())
            .shards(2)
            .spare_held(spare)
            .max_age(50 * A_SECOND)
            .max_idle(20 * A_SECOND)
            .lifetime(|_, v| (v % 3 > 0).then(|| Duration::from_millis(v % 60_000)))
            .listener(move |_, _| {
                count.fetch_add(1, SeqCst);
            })
            .hasher(hasher)
            .build();
        let end = Instant::now() + Duration::from_millis(1500);
        thread::scope(|s| {
            for t in 0..4u64 {
                let (registry, clock) = (&registry, &clock);
                s.spawn(move || {
                    let mut rng = Rng::new(t + 1);
                    while Instant::now() < end {
                        let (op, key, v) = (rng.below(200), rng.below(keys), rng.below(u64::MAX));
                        match op {
                            0 => registry.clear(),
                            1 => drop(registry.drain().take(20).count()),
                            2 => registry.set_max_age(Some(Duration::from_secs(1 + v % 100))),
                            3 => registry.set_max_age(None),
                            4 => registry.set_max_idle(Some(Duration::from_secs(1 + v % 100))),
                            5 => registry.set_max_idle(None),
                            6 => registry.set_max_entries(Some(2 + (v % keys) as usize)),
                            7 => registry.set_max_entries(None),
                            8 => registry.shrink_to_fit(),
                            9 => drop(registry.evict((v % 50) as usize)),
                            10..20 => {
                                registry.expire((v % 100) as usize);
                            }
                            20..40 => clock.advance(Duration::from_millis(v % 3000)),
                            40..60 => {
                                registry.remove(&key);
                            }
                            60..70 => {
                                let _ = registry.fallible().insert(key, v);
                            }
                            70..80 => {
                                registry.reap_if(30, |e| *e.value() % 5 == 0);
                            }
                            80..120 => {
                                registry.lookup(&key);
                            }
                            120..160 => {
                                registry.insert(key, v);
                            }
                            _ => drop(registry.try_insert(key, v)),
                        }
                    }
                });
            }
        });
        let stats = registry.stats();
        assert_eq!(told.load(SeqCst) + registry.len() as u64, stats.inserted, "{stats}");
        registry.set_max_age(Some(A_SECOND));
        for _ in 0..10 {
            clock.advance(200 * A_SECOND);
            registry.expire(usize::MAX);
            registry.domain().barrier();
        }
        assert_eq!(registry.len(), 0, "some entries were forgotten");
        println!("{} inserted", stats.inserted);
    }
}
