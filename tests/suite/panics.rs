//! Panics in all code that the user supplies. The registry contains and counts them, and nothing else is affected.

use crate::common::*;
use epoch_registry::{Clock, Cursor, Domain, Registry};
use std::cell::Cell;
use std::hash::{Hash, Hasher};
use std::panic::panic_any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

#[derive(Clone, Copy, PartialEq)]
enum Where {
    Nowhere,
    Hash,
    Eq,
    Clone,
}

thread_local!(static PANIC: Cell<Where> = const { Cell::new(Where::Nowhere) });

fn panic_in(place: Where) {
    if PANIC.get() == place {
        panic!("planned");
    }
}

/// A key that panics where the test plans it, and counts its drops.
struct Key(u64, Arc<Counted>);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        panic_in(Where::Hash);
        self.0.hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        panic_in(Where::Eq);
        self.0 == other.0
    }
}

impl Eq for Key {}

impl Clone for Key {
    fn clone(&self) -> Self {
        panic_in(Where::Clone);
        Key(self.0, Arc::clone(&self.1))
    }
}

/// Runs `f` with a panic planned, and checks that `f` panicked.
fn planned(place: Where, f: impl FnOnce()) {
    PANIC.set(place);
    let message = panic_of(f);
    PANIC.set(Where::Nowhere);
    assert_eq!(message, "planned");
}

#[test]
fn panics_in_hash_eq_and_clone_leave_the_registry_unchanged() {
    let (keys, values) = (Ledger::new(), Ledger::new());
    let key = |n| Key(n, Arc::new(keys.value(n)));
    let registry: Registry<Key, Counted> = isolated();
    for n in 0..100 {
        drop(registry.try_insert(key(n), values.value(n)));
    }
    for n in 0..100 {
        for place in [Where::Hash, Where::Eq] {
            planned(place, || drop(registry.try_insert(key(n), values.value(1000))));
            planned(place, || drop(registry.insert(key(n), values.value(1000))));
            planned(place, || drop(registry.remove(&key(n))));
            planned(place, || drop(registry.remove_if(&key(n), |_, _| true)));
            planned(place, || drop(registry.update(&key(n), |_, _| values.value(1000))));
            planned(place, || drop(registry.get_or_insert_with(key(n), || values.value(1000))));
            planned(place, || drop(registry.lookup(&key(n))));
            planned(place, || drop(registry.reader().lookup(&key(n))));
            planned(place, || drop(registry.pin().lookup_many([&key(n), &key(n)])));
        }
        planned(Where::Clone, || drop(registry.update(&key(n), |_, _| values.value(1000))));
    }
    registry.domain().barrier();
    assert_eq!((registry.len(), keys.live(), values.live()), (100, 100, 100));
    for n in 0..100 {
        assert_eq!(registry.remove(&key(n)).unwrap().get(), n);
    }
    registry.domain().barrier();
    assert_eq!((keys.live(), values.live(), registry.stats().drop_panics), (0, 0, 0));
}

#[test]
fn panics_in_closures_leave_the_registry_unchanged() {
    let ledger = Ledger::new();
    let registry: Registry<u64, Counted> = isolated();
    (0..200).for_each(|key| drop(registry.try_insert(key, ledger.value(key))));
    let planned = |f: &mut dyn FnMut()| assert_eq!(panic_of(f), "planned");
    planned(&mut || drop(registry.update(&1, |_, _| panic!("planned"))));
    planned(&mut || drop(registry.get_or_insert_with(1000, || panic!("planned"))));
    planned(&mut || drop(registry.get_or_try_insert_with(1000, || -> Result<_, ()> { panic!("planned") })));
    planned(&mut || drop(registry.remove_if(&1, |_, _| panic!("planned"))));
    planned(&mut || drop(registry.fallible().update(&1, |_, _| panic!("planned"))));
    planned(&mut || drop(registry.fallible().remove_if(&1, |_, _| panic!("planned"))));
    planned(&mut || assert!(registry.fallible().retain(&mut Cursor::new(), |_, _| panic!("planned")).is_ok()));
    planned(&mut || assert_eq!(registry.scan(&mut Cursor::new(), 10, |_| panic!("planned")), 0));
    planned(&mut || assert_eq!(registry.with(&1, |_| panic!("planned")), None::<()>));
    assert!(!registry.domain().in_critical_section());
    planned(&mut || registry.pin().get_batch(&[1, 2], |_, _| panic!("planned")));
    planned(&mut || registry.pin().lookup_batch(&[1, 2], |_, _| panic!("planned")));
    planned(&mut || registry.reader().offline(|| panic!("planned")));
    assert_eq!(registry.len(), 200);
    // The closure panics late in a sweep. Entries swept before the panic are removed, and no others.
    let mut seen = 0;
    let mut late = || {
        seen += 1;
        if seen % 100 == 0 { panic!("planned") } else { seen % 2 == 0 }
    };
    planned(&mut || registry.retain(|_, _| late()));
    planned(&mut || assert_eq!(registry.reap_if(usize::MAX, |_| late()).removed, 0));
    registry.domain().barrier();
    let stats = registry.stats();
    assert_eq!(
        (stats.live, stats.backlog, ledger.live()),
        (registry.len() as u64, 0, registry.len() as u64),
        "{stats}"
    );
    assert!((1..200).contains(&registry.len()));
    assert_eq!(registry.pin().iter().count(), registry.len());
    let left = registry.len();
    assert_eq!(registry.reap_if(usize::MAX, |_| true).removed, left);
}

#[test]
fn a_scan_goes_on_after_a_panic_and_misses_nothing() {
    let registry: Registry<u64, u64> = isolated();
    (0..200).for_each(|key| drop(registry.try_insert(key, key)));
    let (mut cursor, mut met, mut calls) = (Cursor::new(), std::collections::HashSet::new(), 0);
    while !cursor.is_done() {
        let mut one = || {
            registry.scan(&mut cursor, usize::MAX, |entry| {
                calls += 1;
                if calls % 50 == 0 {
                    panic!("planned");
                }
                met.insert(*entry);
            })
        };
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(&mut one));
        assert!(calls < 10_000);
    }
    assert_eq!(met.len(), 200);
}

/// Checks values that `value` makes in each way of destruction: by writers, `reclaim` and `barrier`, with the registry,
/// and with the domain.
fn in_every_destruction<V: Send + Sync + 'static>(per_value: u64, value: impl Fn() -> V, dropped: &AtomicU64) {
    let mut expected = 0;
    let check = |expected: &mut u64, more: u64, what: &str| {
        *expected += more;
        assert_eq!(dropped.load(SeqCst), *expected, "{what}");
    };
    let registry: Registry<u64, V> = isolated();
    let fill = || (0..50).for_each(|key| drop(registry.try_insert(key, value())));
    fill();
    (0..50).for_each(|key| drop(registry.remove(&key)));
    registry.domain().barrier();
    check(&mut expected, 50, "barrier");
    assert_eq!(registry.stats().drop_panics, 50 * per_value);
    fill();
    let handles: Vec<_> = registry.drain().collect();
    registry.domain().barrier();
    drop(handles);
    assert!(soon(|| registry.domain().reclaim(10) == 0 && registry.stats().backlog == 0));
    check(&mut expected, 50, "reclaim");
    // Writes succeed, whatever the destructors do.
    for _ in 0..500 {
        drop(registry.insert(1, value()));
    }
    drop(registry.remove(&1));
    registry.domain().barrier();
    check(&mut expected, 500, "writers");
    assert_eq!(registry.stats().drop_panics, 600 * per_value);
    fill();
    let (domain, handle) = (registry.domain().clone(), registry.lookup(&7).unwrap());
    drop(registry);
    check(&mut expected, 49, "the drop of the registry");
    domain.call(|| panic!("planned, too"));
    drop(domain);
    drop(handle);
    check(&mut expected, 1, "the last handle");
}

#[test]
fn a_panicking_drop_of_a_value_is_counted_and_affects_no_other_entry() {
    struct Bad(Arc<AtomicU64>);
    impl Drop for Bad {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
            panic!("planned");
        }
    }
    let dropped = Arc::new(AtomicU64::new(0));
    in_every_destruction(1, || Bad(Arc::clone(&dropped)), &dropped);
}

/// A panic payload whose own drop panics.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic_any(Bomb);
    }
}

#[test]
fn a_panic_payload_whose_drop_panics_is_contained() {
    struct Bad(Arc<AtomicU64>);
    impl Drop for Bad {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
            panic_any(Bomb);
        }
    }
    let dropped = Arc::new(AtomicU64::new(0));
    in_every_destruction(1, || Bad(Arc::clone(&dropped)), &dropped);
}

#[test]
fn a_key_and_a_value_that_both_panic_in_drop_are_both_dropped_and_counted() {
    struct BadKey(u64, Arc<AtomicU64>);
    impl PartialEq for BadKey {
        fn eq(&self, other: &Self) -> bool {
            self.0 == other.0
        }
    }
    impl Eq for BadKey {}
    impl Hash for BadKey {
        fn hash<H: Hasher>(&self, state: &mut H) {
            self.0.hash(state);
        }
    }
    impl Drop for BadKey {
        fn drop(&mut self) {
            self.1.fetch_add(1, SeqCst);
            panic!("planned");
        }
    }
    let (keys, values) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let registry: Registry<BadKey, OnDrop> = isolated();
    for key in 0..100 {
        let values = Arc::clone(&values);
        let value = OnDrop::new(move || {
            values.fetch_add(1, SeqCst);
            panic!("planned");
        });
        drop(registry.try_insert(BadKey(key, Arc::clone(&keys)), value));
    }
    registry.clear();
    registry.domain().barrier();
    let stats = registry.stats();
    assert_eq!((keys.load(SeqCst), values.load(SeqCst)), (100, 100));
    assert_eq!((stats.drop_panics, stats.freed, stats.backlog), (200, 100, 0));
}

#[test]
fn a_panicking_callback_is_counted_and_the_others_run() {
    for reclaimer in [false, true] {
        let domain = Domain::builder().reclaimer(reclaimer).build();
        let ran = Arc::new(AtomicU64::new(0));
        for n in 0..100 {
            let ran = Arc::clone(&ran);
            domain.call(move || {
                ran.fetch_add(1, SeqCst);
                match n % 4 {
                    0 => panic!("planned"),
                    1 => panic_any(Bomb),
                    _ => (),
                }
            });
        }
        domain.barrier();
        assert_eq!((ran.load(SeqCst), domain.stats().callback_panics), (100, 50));
    }
}

#[test]
fn a_panicking_clock_loses_nothing() {
    struct Broken(Arc<AtomicBool>);
    impl Clock for Broken {
        fn now(&self) -> Duration {
            assert!(!self.0.load(SeqCst), "planned");
            Duration::ZERO
        }
    }
    let (broken, ledger) = (Arc::new(AtomicBool::new(false)), Ledger::new());
    let registry: Registry<u64, Counted> = isolated_builder().clock(Broken(Arc::clone(&broken))).build();
    drop(registry.try_insert(1, ledger.value(1)));
    broken.store(true, SeqCst);
    panic_of(|| drop(registry.try_insert(2, ledger.value(2))));
    panic_of(|| drop(registry.insert(1, ledger.value(2))));
    panic_of(|| drop(registry.update(&1, |_, _| ledger.value(2))));
    panic_of(|| registry.reap_older_than(Duration::ZERO, 10).removed);
    broken.store(false, SeqCst);
    registry.domain().barrier();
    assert_eq!((ledger.live(), registry.len()), (1, 1));
}

/// With `STRESS=50` there are a million entries.
#[test]
fn one_panicking_destructor_in_a_thousand_affects_no_other_entry() {
    static DROPPED: AtomicU64 = AtomicU64::new(0);
    struct OneInAThousand(u64);
    impl Drop for OneInAThousand {
        fn drop(&mut self) {
            DROPPED.fetch_add(1, SeqCst);
            assert!(self.0 % 1000 != 999, "planned");
        }
    }
    let count = times(20_000) as u64;
    for domain in [Domain::new(), Domain::builder().reclaimer(true).build()] {
        let before = DROPPED.load(SeqCst);
        let registry: Registry<u64, OneInAThousand> = Registry::builder().domain(domain.clone()).build();
        for key in 0..count {
            assert!(registry.try_insert(key, OneInAThousand(key)).is_ok());
        }
        (0..count).for_each(|key| drop(registry.remove(&key)));
        domain.barrier();
        let stats = registry.stats();
        assert_eq!((stats.freed, stats.drop_panics, stats.backlog), (count, count / 1000, 0), "{stats}");
        assert_eq!(DROPPED.load(SeqCst) - before, count);
    }
}

#[test]
fn an_entry_whose_weigher_panics_is_not_inserted() {
    let ledger = Ledger::new();
    let builder = isolated_builder().weigher(|key, _: &Counted| if *key == 7 { panic!("planned") } else { 10 });
    let registry: Registry<u64, Counted> = builder.build();
    assert_eq!(panic_of(|| drop(registry.try_insert(7, ledger.value(7)))), "planned");
    assert_eq!((ledger.live(), registry.len()), (0, 0));
    registry.try_insert(8, ledger.value(8)).unwrap();
    assert_eq!(registry.len(), 1);
}
