//! Counts that must be exact after rarely taken paths.

use crate::common::*;
use epoch_registry::{Domain, DomainGuard, Handle, ManualClock, Registry, WhenFull};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

#[test]
fn a_wait_that_timed_out_does_not_count_as_waiting() {
    let (clock, reports) = (ManualClock::new(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&reports);
    let builder = Domain::builder().manual().manual_clock(clock.clone()).stall_after(Duration::from_secs(21));
    let domain = builder.on_stall(move |_| _ = count.fetch_add(1, SeqCst)).build();
    with_reader(&domain, || {
        let cookie = domain.start_poll();
        assert!(!domain.poll_timeout(cookie, Duration::from_millis(1)));
        for _ in 0..10 {
            clock.advance(Duration::from_secs(60));
            assert!(!domain.poll(cookie));
        }
        assert_eq!(reports.load(SeqCst), 0, "a stall was reported, although no caller and no object waits");
    });
}

#[test]
fn a_registry_that_a_destructor_drops_is_counted_and_gives_its_places_back() {
    let domain = Domain::builder().manual().backlog_objects(100).when_full(WhenFull::Refuse).build();
    let ledger = Ledger::new();
    let outer: Registry<u64, Registry<u64, Counted>> = Registry::builder().domain(domain.clone()).build();
    for key in 0..10 {
        let inner: Registry<u64, Counted> = Registry::builder().domain(domain.clone()).build();
        (0..50).for_each(|number| drop(inner.try_insert(number, ledger.value(number)).unwrap()));
        outer.try_insert(key, inner).unwrap();
    }
    outer.retain(|_, _| false);
    domain.barrier();
    assert_eq!((ledger.live(), domain.backlog().objects, domain.backlog().bytes), (0, 0, 0));
    assert_eq!(places(&domain), 100);
}

#[test]
fn a_dropped_registry_gives_back_the_places_it_was_lent() {
    let domain = Domain::builder().manual().backlog_objects(100).when_full(WhenFull::Refuse).build();
    let registry: Registry<u64, u64> = Registry::builder().shards(1).domain(domain.clone()).build();
    (0..9).for_each(|key| drop(registry.try_insert(key, key).unwrap()));
    assert!(registry.fallible().remove(&0).is_ok());
    drop(registry);
    assert_eq!(places(&domain), 100);
}

/// Counts the removals that the backlog of a domain has room for.
fn places(domain: &Domain) -> usize {
    let registry: Registry<u64, u64> = Registry::builder().shards(1).domain(domain.clone()).build();
    (0..300).for_each(|key| drop(registry.try_insert(key, key).unwrap()));
    let _guard = domain.pin();
    (0..300).filter(|key| registry.fallible().remove(key).is_ok()).count()
}

/// A removal takes a place for the entry under its key. Before it removes the entry, another write replaces it by a
/// heavier one.
#[test]
fn a_removal_takes_a_place_of_the_size_of_the_removed_entry() {
    let domain = Domain::builder().manual().backlog_bytes(10_000).when_full(WhenFull::Refuse).build();
    let builder = Registry::<u64, u64>::builder().shards(1).domain(domain.clone());
    let registry = Arc::new(builder.weigher(|_, bytes| *bytes as usize).build());
    (0..30).for_each(|key| drop(registry.try_insert(key, 1000).unwrap()));
    let other = Arc::clone(&registry);
    domain.call(move || assert!(other.set(29, 4000)));
    let guard = domain.pin();
    let removed = (0..29).take_while(|key| registry.fallible().remove(key).is_ok()).count();
    assert!((5..10).contains(&removed), "{removed}");
    drop(guard);
    (0..5).for_each(|_| _ = domain.reclaim(0));
    // There is no room. To make some, the removal destroys what is ready. This runs the callback.
    assert_eq!(registry.fallible().remove(&29).map(|entry| entry.map(|entry| *entry)), Ok(Some(4000)));
    domain.barrier();
    assert_eq!(domain.backlog().bytes, 0);
    let _guard = domain.pin();
    let again = (0..29).filter(|key| matches!(registry.fallible().remove(key), Ok(Some(_)))).count();
    assert!((removed..10).contains(&again), "{again} now, {removed} before");
}

#[test]
fn a_registry_dropped_just_after_a_removal_leaks_no_core() {
    let is_alive = Arc::new(());
    let held = Arc::clone(&is_alive);
    let domain = Domain::builder().manual().on_stall(move |_| _ = &held).build();
    let registry: Registry<u64, u64> = Registry::builder().shards(1).domain(domain.clone()).build();
    (0..10).for_each(|key| drop(registry.try_insert(key, key).unwrap()));
    assert!(registry.delete(&1));
    drop((registry, domain));
    assert_eq!(Arc::strong_count(&is_alive), 1);
}

/// Another thread reclaims while registries are dropped. Their cores and the domain are freed. A core holds the domain,
/// so the test checks only the domain.
#[test]
fn the_core_of_a_dropped_registry_is_freed_although_another_thread_reclaims() {
    for round in 0..times(500) {
        let is_alive = Arc::new(());
        let held = Arc::clone(&is_alive);
        let domain = Domain::builder().manual().on_stall(move |_| _ = &held).build();
        let registry: Registry<u64, Box<u64>> = Registry::builder().shards(1).domain(domain.clone()).build();
        (0..300).for_each(|key| drop(registry.try_insert(key, Box::new(key)).unwrap()));
        let budget = if round % 2 == 0 { usize::MAX } else { 100 };
        thread::scope(|scope| {
            scope.spawn(|| {
                (0..3).for_each(|_| _ = domain.reclaim(budget));
            });
            (0..290).for_each(|key| assert!(registry.delete(&key)));
            drop(registry);
        });
        drop(domain);
        assert_eq!(Arc::strong_count(&is_alive), 1, "round {round}");
    }
}

/// A budget leaves a chain of destructors unfinished. The rest counts as one object until it is destroyed.
#[test]
fn the_rest_of_an_unfinished_chain_is_counted() {
    struct Link(#[allow(dead_code)] Option<Handle<u64, Link>>);
    let domain = Domain::builder().manual().backlog_objects(200).when_full(WhenFull::Refuse).build();
    let registry: Registry<u64, Link> = Registry::builder().domain(domain.clone()).build();
    let mut next = None;
    for key in 0..100 {
        next = registry.try_insert(key, Link(next)).ok();
        assert!(registry.delete(&key));
    }
    domain.barrier();
    drop(next);
    let mut destroyed = 0;
    while destroyed < 100 {
        assert_eq!(domain.backlog().objects, 1, "after {destroyed}");
        destroyed += domain.reclaim(7);
    }
    assert_eq!((destroyed, domain.backlog().objects, domain.backlog().bytes), (100, 0, 0));
    drop(registry);
    assert_eq!(places(&domain), 200);
}

/// The guard is in a thread-local that is destroyed after the crate's own thread-local.
#[test]
fn a_guard_that_outlives_the_records_of_its_thread_stays_open() {
    static DOMAIN: OnceLock<Domain> = OnceLock::new();
    static ENDED: AtomicUsize = AtomicUsize::new(0);
    struct Kept(Cell<Option<DomainGuard<'static>>>);
    impl Drop for Kept {
        fn drop(&mut self) {
            let domain = DOMAIN.get().unwrap();
            assert!(domain.in_critical_section());
            self.0.take();
            assert!(!domain.in_critical_section());
            ENDED.fetch_add(1, SeqCst);
        }
    }
    thread_local!(static KEPT: Kept = const { Kept(Cell::new(None)) });
    let domain = DOMAIN.get_or_init(|| Domain::builder().manual().build());
    // This thread-local is registered first, so it is destroyed last.
    thread::spawn(|| KEPT.with(|kept| kept.0.set(Some(domain.pin())))).join().unwrap();
    assert_eq!(ENDED.load(SeqCst), 1);
    domain.synchronize();
}

#[test]
fn a_max_age_that_is_set_later_holds_for_entries_inserted_after_it() {
    let (builder, clock) = clocked::<u64, u64>();
    let registry = builder.build();
    registry.set_max_age(Some(Duration::from_secs(1)));
    registry.try_insert(1, 1).unwrap();
    clock.advance(Duration::from_secs(2));
    assert_eq!((registry.expire(10).removed, registry.len()), (1, 0));
}

/// The shard becomes dirty again while another thread puts free slots back under the shard lock.
#[test]
fn a_registry_dropped_while_its_slots_are_put_back_leaks_no_core() {
    for round in 0..times(100) {
        let is_alive = Arc::new(());
        let held = Arc::clone(&is_alive);
        let domain = Domain::builder().manual().on_stall(move |_| _ = &held).build();
        let registry: Registry<u64, u64> = Registry::builder().shards(1).domain(domain.clone()).build();
        (0..5000).for_each(|key| drop(registry.try_insert(key, key).unwrap()));
        (1..5000).for_each(|key| assert!(registry.delete(&key)));
        thread::scope(|scope| {
            scope.spawn(|| while domain.reclaim(usize::MAX) == 0 {});
            while registry.stats().freed < 500 + 30 * round as u64 {
                std::hint::spin_loop();
            }
            assert!(registry.delete(&0));
            drop(registry);
        });
        drop(domain);
        assert_eq!(Arc::strong_count(&is_alive), 1, "round {round}");
    }
}

#[test]
fn callbacks_of_one_thread_run_in_the_order_of_their_calls() {
    let domain = Domain::builder().manual().build();
    let ran: Arc<Mutex<Vec<usize>>> = Arc::default();
    let call = |number: usize| {
        let ran = Arc::clone(&ran);
        domain.call(move || ran.lock().unwrap().push(number));
    };
    (0..100).for_each(call);
    // Destroys only a part of them.
    with_reader(&domain, || assert_eq!(domain.reclaim(usize::MAX), 0));
    while ran.lock().unwrap().is_empty() {
        domain.reclaim(30);
    }
    assert_eq!(ran.lock().unwrap().len(), 30);
    (100..200).for_each(call);
    domain.barrier();
    assert_eq!(*ran.lock().unwrap(), (0..200).collect::<Vec<_>>());
}
