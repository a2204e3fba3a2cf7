//! A guard, session or handle that is forgotten (`mem::forget`) delays what it protects, and does no other harm.

use crate::common::*;
use epoch_registry::{Domain, Registry};
use std::mem::forget;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;

/// Calls `forget_it` with a registry in a domain of its own. Checks that nothing of that domain is destroyed any more,
/// that everything else in it works, and that another domain is not affected.
fn holds_up_its_domain_alone(forget_it: impl Fn(&Registry<u64, Counted>)) {
    in_time(|| {
        let (ledger, others) = (Ledger::new(), Ledger::new());
        let (registry, other): (Registry<u64, Counted>, Registry<u64, Counted>) = (isolated(), isolated());
        (0..100).for_each(|key| drop(registry.try_insert(key, ledger.value(key))));
        forget_it(&registry);
        (0..50).for_each(|key| drop(registry.remove(&key)));
        let domain = registry.domain();
        thread::scope(|scope| {
            scope.spawn(|| {
                let cookie = domain.start_poll();
                assert!(!domain.poll_timeout(cookie, std::time::Duration::from_millis(20)));
            });
        });
        for key in 100..10_000 {
            drop(registry.try_insert(key, ledger.value(key)));
            assert!(registry.remove(&key).is_some());
            assert_eq!(registry.lookup(&(50 + key % 50)).unwrap().get(), 50 + key % 50);
        }
        assert_eq!(ledger.dropped(), 0, "something was destroyed under an open critical section");
        drop(other.try_insert(1, others.value(1)));
        drop(other.remove(&1));
        other.domain().barrier();
        assert_eq!(others.live(), 0, "reclamation in another domain is delayed");
        // The drop of a registry needs no grace period, because no reader can be in it.
        drop(registry);
        assert_eq!(ledger.live(), 0);
    });
}

#[test]
fn a_forgotten_guard_delays_only_its_domain() {
    holds_up_its_domain_alone(|registry| forget(registry.pin()));
}

#[test]
fn a_forgotten_domain_guard_delays_only_its_domain() {
    holds_up_its_domain_alone(|registry| forget(registry.domain().pin()));
}

#[test]
fn a_guard_forgotten_by_a_thread_that_exits_delays_only_its_domain() {
    holds_up_its_domain_alone(|registry| {
        thread::scope(|scope| {
            scope.spawn(|| forget(registry.pin()));
        });
    });
}

#[test]
fn a_forgotten_session_delays_only_its_domain() {
    holds_up_its_domain_alone(|registry| forget(registry.reader()));
    holds_up_its_domain_alone(|registry| forget(registry.domain().session()));
}

#[test]
fn a_guard_forgotten_within_a_session_delays_only_its_domain() {
    holds_up_its_domain_alone(|registry| {
        let mut session = registry.domain().session();
        forget(session.pin());
    });
}

#[test]
fn a_forgotten_guard_of_this_thread_makes_a_wait_panic_and_not_hang() {
    in_time(|| {
        let domain = Domain::new();
        forget(domain.pin());
        assert!(panic_of(|| domain.barrier()).contains("critical section"));
        let mut session = domain.session();
        forget(domain.session());
        assert!(panic_of(|| session.offline(|| domain.synchronize())).contains("critical section"));
        let domain = Domain::new();
        let mut session = domain.session();
        forget(session.pin());
        assert!(panic_of(|| session.offline(|| domain.synchronize())).contains("critical section"));
        drop(session);
        assert!(panic_of(|| domain.synchronize()).contains("critical section"));
    });
}

#[test]
fn a_forgotten_handle_keeps_its_entry_and_nothing_else() {
    let ledger = Ledger::new();
    let registry: Registry<u64, Counted> = isolated();
    (0..100).for_each(|key| drop(registry.try_insert(key, ledger.value(key))));
    forget(registry.lookup(&7));
    registry.clear();
    registry.domain().barrier();
    assert_eq!((ledger.live(), registry.stats().backlog), (1, 1));
    let domain = registry.domain().clone();
    drop(registry);
    domain.barrier();
    assert_eq!(ledger.live(), 1);
}

#[test]
fn forgotten_iterators_and_drains_leave_the_other_entries_in_place() {
    let ledger = Ledger::new();
    let registry: Registry<u64, Counted> = isolated();
    (0..1000).for_each(|key| drop(registry.try_insert(key, ledger.value(key))));
    {
        let guard = registry.pin();
        let mut iter = guard.iter();
        assert!(iter.next().is_some());
        forget(iter);
    }
    registry.domain().barrier();
    assert_eq!(registry.len(), 1000);
    let mut drain = registry.drain();
    let drained: Vec<_> = drain.by_ref().take(10).collect();
    forget(drain);
    assert_eq!((registry.len(), drained.len()), (990, 10));
    drop(drained);
    registry.domain().barrier();
    assert_eq!(ledger.live(), 990);
    registry.clear();
    registry.domain().barrier();
    // Handles that the drain had taken in advance are lost with it. They are at most one chunk, not the whole registry.
    assert!(ledger.live() < 100, "{} lost", ledger.live());
}

#[test]
fn a_domain_whose_guard_was_forgotten_is_still_torn_down() {
    let ran = Arc::new(AtomicBool::new(false));
    let domain = Domain::builder().reclaimer(true).build();
    forget(domain.pin());
    let seen = Arc::clone(&ran);
    domain.call(move || seen.store(true, SeqCst));
    drop(domain);
    assert!(soon(|| ran.load(SeqCst)));
}

#[test]
fn a_forgotten_job_leaves_its_work_to_barriers_and_the_teardown() {
    let (domain, ledger) = (Domain::builder().executor(std::mem::forget).build(), Ledger::new());
    let registry: Registry<u64, Counted> = Registry::builder().domain(domain.clone()).build();
    let come_and_go =
        || (0..1000).for_each(|key| drop((registry.try_insert(key, ledger.value(key)), registry.remove(&key))));
    come_and_go();
    assert_eq!(ledger.live(), 1000, "entries were destroyed, although no new job is made");
    domain.barrier();
    assert_eq!(ledger.live(), 0);
    come_and_go();
    drop((registry, domain));
    assert_eq!(ledger.live(), 0);
}
