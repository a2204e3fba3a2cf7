//! The listener is told of every entry that leaves, once, with its cause, and outside every lock, whatever the listener
//! does.

use crate::common::*;
use epoch_registry::{Cause, Domain, Handle, ManualClock, Reaper, Registry, Scan};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::thread;
use std::time::Duration;

type Told = Arc<Mutex<Vec<(Cause, u64, u64)>>>;

/// Returns a listener that records what it is told, and its records.
fn notes() -> (Told, impl Fn(Cause, Handle<u64, u64>) + Send + Sync + 'static) {
    let told = Told::default();
    let log = told.clone();
    (told, move |cause, entry: Handle<u64, u64>| {
        assert!(entry.is_unlinked());
        log.lock().unwrap().push((cause, *entry.key(), *entry));
    })
}

fn take(told: &Told) -> Vec<(Cause, u64, u64)> {
    let mut told = std::mem::take(&mut *told.lock().unwrap());
    told.sort_by_key(|&(_, key, value)| (key, value));
    told
}

#[test]
fn the_listener_is_told_of_every_way_to_leave_with_its_cause() {
    let ((told, listener), clock) = (notes(), ManualClock::new());
    let builder = isolated_builder().shards(1).listener(listener).clock(clock.clone());
    let registry = builder.max_age(Duration::from_secs(60)).max_idle(Duration::from_secs(20)).build();
    let fill = |keys: std::ops::Range<u64>| keys.for_each(|key| drop(registry.try_insert(key, key)));

    fill(0..9);
    assert!(registry.try_insert(1, 100).is_err() && registry.remove(&100).is_none());
    registry.remove(&0);
    registry.remove_if(&1, |_, _| true);
    registry.remove_handle(&registry.lookup(&2).unwrap());
    registry.retain(|key, _| *key != 3);
    assert_eq!(registry.fallible().remove(&4).unwrap().map(|entry| *entry), Some(4));
    assert_eq!(take(&told), [0, 1, 2, 3, 4].map(|key| (Cause::Removed, key, key)));

    registry.insert(5, 50);
    registry.update(&5, |_, old| old + 1);
    registry.replace_handle(&registry.lookup(&5).unwrap(), 52).unwrap();
    assert_eq!(take(&told), [5, 50, 51].map(|value| (Cause::Replaced, 5, value)));

    assert_eq!(registry.reap_if(100, |entry| *entry.key() == 6).removed, 1);
    assert_eq!(take(&told), [(Cause::Reaped, 6, 6)]);
    registry.evict(1);
    assert_eq!(take(&told).iter().map(|told| told.0).collect::<Vec<_>>(), [Cause::Capacity]);

    registry.clear();
    assert_eq!(take(&told).len(), 2);
    fill(10..12);
    assert_eq!(registry.drain().count(), 2);
    assert_eq!(take(&told), [10, 11].map(|key| (Cause::Removed, key, key)));

    fill(20..22);
    for _ in 0..70 {
        clock.advance(Duration::from_secs(1));
        registry.lookup(&20);
        registry.expire(10);
    }
    assert_eq!(take(&told), [(Cause::Expired, 20, 20), (Cause::Idle, 21, 21)]);

    fill(30..40);
    registry.set_max_entries(Some(6));
    assert_eq!(take(&told).len(), 4);
    fill(40..42);
    assert!(registry.insert(42, 42).is_none());
    assert_eq!(take(&told).iter().filter(|told| told.0 == Cause::Capacity).count(), 3);

    // These entries have no use mark, so the first scan removes them.
    assert_eq!(Reaper::scan(&registry, &mut Scan::new(1000)).removed, 6);
    assert_eq!(take(&told).iter().filter(|told| told.0 == Cause::Pressure).count(), 6);
    fill(50..55);
    drop(registry);
    assert_eq!(take(&told), [], "the drop of the registry called the listener");
}

#[test]
fn the_listener_is_told_of_each_entry_once_under_writers_of_many_threads() {
    in_time(|| {
        let counts: Arc<Mutex<HashMap<Cause, u64>>> = Arc::default();
        let (sum, told_values) = (counts.clone(), Arc::new(AtomicU64::new(0)));
        let values = told_values.clone();
        let clock = ManualClock::new();
        let registry: Registry<u64, Counted> = isolated_builder()
            .max_entries(200)
            .max_age(Duration::from_secs(10))
            .clock(clock.clone())
            .listener(move |cause, entry: Handle<u64, Counted>| {
                values.fetch_add(entry.get(), SeqCst);
                *sum.lock().unwrap().entry(cause).or_default() += 1;
            })
            .build();
        let (ledger, stop, inserted) = (Ledger::new(), Stop::default(), AtomicU64::new(0));
        thread::scope(|scope| {
            for seed in 0..3 {
                let (registry, ledger, stop, inserted, clock) = (&registry, &ledger, &stop, &inserted, &clock);
                scope.spawn(move || {
                    let mut rng = Rng::new(seed + 1);
                    while !stop.stopped() {
                        let (key, value) = (rng.below(400), rng.below(1 << 20));
                        let enter = || {
                            inserted.fetch_add(value, SeqCst);
                            ledger.value(value)
                        };
                        match rng.below(8) {
                            0..3 => {
                                if registry.try_insert(key, enter()).is_err() {
                                    inserted.fetch_sub(value, SeqCst);
                                }
                            }
                            3..5 => drop(registry.insert(key, enter())),
                            5 => drop(registry.remove(&key)),
                            6 if rng.below(50) == 0 => registry.clear(),
                            6 => drop(registry.reap_if(10, |entry| entry.get() % 3 == 0)),
                            _ => {
                                clock.advance(Duration::from_millis(rng.below(100)));
                                registry.expire(8);
                            }
                        }
                    }
                });
            }
            let _end = stop.at_end();
            thread::sleep(a_while());
            let enough = || counts.lock().unwrap().values().filter(|&&count| count > 20).count() == 5;
            assert!(soon(enough), "{counts:?}");
        });
        // The iteration below does not find expired entries, so they are reaped first.
        registry.expire(usize::MAX);
        let (stats, counts) = (registry.stats(), counts.lock().unwrap().clone());
        println!("{stats}\n{counts:?}");
        let told = |cause| counts.get(&cause).copied().unwrap_or(0);
        assert_eq!(told(Cause::Removed), stats.removed);
        assert_eq!(told(Cause::Replaced), stats.replaced);
        assert_eq!(told(Cause::Expired), stats.expired);
        assert_eq!(told(Cause::Capacity), stats.evicted);
        assert_eq!(told(Cause::Reaped), stats.reaped);
        let left: u64 = registry.pin().iter().map(|entry| entry.get()).sum();
        assert_eq!(
            told_values.load(SeqCst) + left,
            inserted.load(SeqCst),
            "the listener was not told of each entry exactly once"
        );
        registry.domain().barrier();
        assert_eq!(ledger.live(), registry.len() as u64);
    });
}

#[test]
fn a_listener_that_writes_to_the_registry_neither_deadlocks_nor_recurses() {
    in_time(|| {
        let registry: Arc<OnceLock<Weak<Registry<u64, u64>>>> = Arc::default();
        let (inner, calls, depth) = (registry.clone(), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (counted, nested) = (calls.clone(), depth.clone());
        let bounded = isolated_builder()
            .max_entries(4)
            .listener(move |cause, entry: Handle<u64, u64>| {
                assert_eq!(nested.fetch_add(1, SeqCst), 0, "the listener recursed");
                let registry = inner.get().and_then(Weak::upgrade).unwrap();
                // A chain of a hundred thousand evictions, each of which causes the next.
                if cause == Cause::Capacity && counted.fetch_add(1, SeqCst) < 100_000 {
                    drop(registry.try_insert(*entry.key() + 1_000_000, *entry));
                }
                registry.lookup(entry.key());
                nested.fetch_sub(1, SeqCst);
            })
            .build();
        let bounded = Arc::new(bounded);
        registry.set(Arc::downgrade(&bounded)).unwrap();
        (0..20).for_each(|key| drop(bounded.try_insert(key, key)));
        assert!(calls.load(SeqCst) >= 100_000 && bounded.len() == 4);
        bounded.clear();
        bounded.domain().barrier();
        assert_eq!(bounded.stats().backlog, 0);
    });
}

#[test]
fn two_registries_may_listen_to_each_other() {
    in_time(|| {
        let other: Arc<OnceLock<Weak<Registry<u64, u64>>>> = Arc::default();
        let seen = other.clone();
        let hops = Arc::new(AtomicUsize::new(0));
        let hopped = hops.clone();
        let first: Registry<u64, u64> = isolated_builder()
            .listener(move |_, entry: Handle<u64, u64>| {
                hopped.fetch_add(1, SeqCst);
                if let Some(second) = seen.get().and_then(Weak::upgrade) {
                    second.remove(entry.key());
                }
            })
            .build();
        let first = Arc::new(first);
        let back = Arc::downgrade(&first);
        let second = isolated_builder()
            .listener(move |_, entry: Handle<u64, u64>| {
                if let Some(first) = back.upgrade() {
                    first.remove(&(*entry.key() + 1));
                }
            })
            .build();
        let second = Arc::new(second);
        other.set(Arc::downgrade(&second)).unwrap();
        (0..10_000).for_each(|key| drop((first.try_insert(key, key), second.try_insert(key, key))));
        first.remove(&0);
        assert_eq!((first.len(), second.len(), hops.load(SeqCst)), (0, 0, 10_000));
    });
}

#[test]
fn a_listener_that_panics_is_counted_and_called_again() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let registry: Registry<u64, u64> =
        isolated_builder().listener(move |_, _| assert!(counted.fetch_add(1, SeqCst) % 2 == 1, "planned")).build();
    (0..100).for_each(|key| drop(registry.try_insert(key, key)));
    (0..50).for_each(|key| assert!(registry.remove(&key).is_some()));
    registry.clear();
    assert_eq!((calls.load(SeqCst), registry.stats().listener_panics), (100, 50));
    assert_eq!((registry.stats().removed, registry.len()), (100, 0));
}

// Listeners that write, on threads that end, and listeners that keep handles.

/// Guarantee: the thread that made an entry leave calls the listener. If a listener makes entries leave, it is told of
/// them after it has returned.
#[test]
fn entries_that_a_listener_removes_are_reported_by_its_thread_after_it_returns() {
    static REGISTRY: OnceLock<Weak<Registry<u64, u64>>> = OnceLock::new();
    static IN: AtomicBool = AtomicBool::new(false);
    static OUT: AtomicBool = AtomicBool::new(false);
    let told: Arc<Mutex<Vec<(u64, thread::ThreadId, bool)>>> = Arc::default();
    let log = told.clone();
    let registry = Registry::<u64, u64>::builder()
        .domain(Domain::new())
        .listener(move |_, entry| {
            log.lock().unwrap().push((*entry.key(), thread::current().id(), IN.load(SeqCst) && !OUT.load(SeqCst)));
            if *entry.key() == 1 {
                REGISTRY.get().unwrap().upgrade().unwrap().remove(&2);
                IN.store(true, SeqCst);
                thread::sleep(Duration::from_millis(300));
                OUT.store(true, SeqCst);
            }
        })
        .build();
    let registry = Arc::new(registry);
    REGISTRY.set(Arc::downgrade(&registry)).unwrap();
    for key in 1..4 {
        registry.try_insert(key, key).unwrap();
    }
    let first = thread::scope(|s| {
        let first = s.spawn(|| {
            registry.remove(&1);
            thread::current().id()
        });
        while !IN.load(SeqCst) {
            thread::yield_now();
        }
        registry.remove(&3);
        first.join().unwrap()
    });
    let told = told.lock().unwrap();
    println!("{told:?}");
    let two = told.iter().find(|(key, ..)| *key == 2).unwrap();
    assert_eq!(two.1, first, "another thread told the listener");
    assert!(!two.2, "the listener was told before the call that caused it returned");
}

/// On a thread whose thread-locals are destroyed, the listener does not recurse either.
#[test]
fn a_listener_does_not_recurse_after_thread_locals_are_destroyed() {
    static REGISTRY: OnceLock<Weak<Registry<u64, u64>>> = OnceLock::new();
    static DEEPEST: AtomicU32 = AtomicU32::new(0);
    thread_local!(static DEPTH: Cell<u32> = const { Cell::new(0) });
    let registry = Registry::<u64, u64>::builder()
        .domain(Domain::new())
        .shards(1)
        .max_entries(10)
        .listener(move |cause, entry| {
            let depth = DEPTH.get() + 1;
            DEPTH.set(depth);
            DEEPEST.fetch_max(depth, SeqCst);
            // Each eviction in the full registry causes an insertion with a smaller value.
            if cause == Cause::Capacity && *entry.value() > 0 {
                let registry = REGISTRY.get().unwrap().upgrade().unwrap();
                let _ = registry.try_insert(entry.key() + 1000, entry.value() - 1);
            }
            DEPTH.set(depth - 1);
        })
        .build();
    let registry = Arc::new(registry);
    REGISTRY.set(Arc::downgrade(&registry)).unwrap();
    struct AtExit;
    impl Drop for AtExit {
        fn drop(&mut self) {
            let registry = REGISTRY.get().unwrap().upgrade().unwrap();
            for key in 0..30 {
                let _ = registry.try_insert(key, 50);
            }
        }
    }
    thread_local!(static LOCAL: RefCell<Option<AtExit>> = const { RefCell::new(None) });
    thread::spawn(|| {
        // This thread-local is registered before the crate's own, so it is destroyed after that.
        LOCAL.with(|local| *local.borrow_mut() = Some(AtExit));
        let registry = REGISTRY.get().unwrap().upgrade().unwrap();
        for key in 0..11 {
            let _ = registry.try_insert(key + 500_000, 0);
        }
    })
    .join()
    .unwrap();
    println!("deepest {}", DEEPEST.load(SeqCst));
    assert!(DEEPEST.load(SeqCst) <= 1, "{}", DEEPEST.load(SeqCst));
}

/// The listener keeps handles, but not the registry.
#[test]
fn a_listener_that_keeps_handles_does_not_leak_them_with_the_registry() {
    static LIVE: AtomicU32 = AtomicU32::new(0);
    struct Value;
    impl Value {
        fn new() -> Self {
            LIVE.fetch_add(1, SeqCst);
            Value
        }
    }
    impl Drop for Value {
        fn drop(&mut self) {
            LIVE.fetch_sub(1, SeqCst);
        }
    }
    let domain = Domain::new();
    let told: Arc<Mutex<Vec<Handle<u64, Value>>>> = Arc::default();
    let log = told.clone();
    let registry = Registry::<u64, Value>::builder()
        .domain(domain.clone())
        .listener(move |_, entry| log.lock().unwrap().push(entry))
        .build();
    for key in 0..10 {
        registry.try_insert(key, Value::new()).unwrap();
        registry.remove(&key);
    }
    drop(registry);
    drop(told);
    domain.barrier();
    assert_eq!(LIVE.load(SeqCst), 0, "values leaked");
}

thread_local! {
    /// How often this thread can compare keys until a comparison panics.
    static COMPARISONS: std::cell::Cell<usize> = const { std::cell::Cell::new(usize::MAX) };
}

/// A key whose comparison panics after some calls.
struct Touchy(u64);

impl PartialEq for Touchy {
    fn eq(&self, other: &Touchy) -> bool {
        let left = COMPARISONS.get();
        assert!(left > 0, "planned");
        COMPARISONS.set(left - 1);
        self.0 == other.0
    }
}

impl Eq for Touchy {}

impl std::hash::Hash for Touchy {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

/// A replacement by a heavier value evicts other entries. It then looks for its key again, and that comparison panics.
#[test]
fn the_listener_is_told_outside_the_lock_of_evictions_before_a_panic() {
    let told: Arc<Registry<u64, Cause>> = Arc::new(isolated());
    let log = Arc::clone(&told);
    let registry: Registry<Touchy, Vec<u8>> = isolated_builder()
        .shards(1)
        .max_weight(10_000)
        .weigher(|_, value: &Vec<u8>| value.capacity())
        // The listener writes. Under a shard lock, that would panic.
        .listener(move |cause, entry: Handle<Touchy, Vec<u8>>| drop(log.insert(entry.key().0, cause)))
        .build();
    (0..9).for_each(|key| assert!(!registry.set(Touchy(key), vec![0; 1000])));
    COMPARISONS.set(1);
    let panic = catch_unwind(AssertUnwindSafe(|| registry.set(Touchy(8), vec![0; 5000])));
    COMPARISONS.set(usize::MAX);
    assert!(panic.is_err() && registry.len() < 9, "the write did not panic after an eviction");
    assert_eq!(told.len(), 9 - registry.len());
    assert_eq!(registry.stats().listener_panics, 0);
    assert!(!registry.set(Touchy(100), vec![]), "key 100 was already present");
}

/// The domain's thread is parked. The write that panics wakes it.
#[test]
fn entries_evicted_before_a_panic_are_destroyed_without_a_further_call() {
    for builder in [Domain::builder(), Domain::builder().reclaimer(true)] {
        let registry: Registry<Touchy, (usize, OnDrop)> = Registry::builder()
            .shards(1)
            .max_weight(10_000)
            .weigher(|_, value: &(usize, OnDrop)| value.0)
            .domain(builder.build())
            .build();
        let dropped = Arc::new(AtomicUsize::new(0));
        for key in 0..9 {
            let dropped = Arc::clone(&dropped);
            registry.set(
                Touchy(key),
                (
                    1000,
                    OnDrop::new(move || {
                        dropped.fetch_add(1, SeqCst);
                    }),
                ),
            );
        }
        // The thread runs once, and then parks.
        registry.domain().call(|| ());
        registry.domain().barrier();
        thread::sleep(Duration::from_millis(300));
        COMPARISONS.set(1);
        let panic = catch_unwind(AssertUnwindSafe(|| registry.set(Touchy(8), (5000, OnDrop::new(|| ())))));
        COMPARISONS.set(usize::MAX);
        let evicted = 9 - registry.len();
        assert!(panic.is_err() && evicted > 0);
        assert!(
            soon(|| dropped.load(SeqCst) == evicted),
            "only {} of {evicted} entries were destroyed",
            dropped.load(SeqCst)
        );
    }
}
