//! Guards and sessions in thread-locals, after their thread's records.

mod common;

use common::*;
use epoch_registry::*;
use std::cell::RefCell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;

/// A thread that ends with a guard in a thread-local, which is dropped as it should, leaves no record behind.
#[test]
fn threads_that_ended_with_a_guard_in_a_thread_local_are_forgotten() {
    static DOMAIN: OnceLock<Domain> = OnceLock::new();
    thread_local!(static KEPT: RefCell<Option<DomainGuard<'static>>> = const { RefCell::new(None) });
    let domain = DOMAIN.get_or_init(Domain::new);
    for _ in 0..100 {
        thread::spawn(|| {
            // The destructor of KEPT is registered first, and runs after that of the crate's own thread-local.
            KEPT.with_borrow_mut(|kept| assert!(kept.is_none()));
            KEPT.set(Some(DOMAIN.get().unwrap().pin()));
        })
        .join()
        .unwrap();
    }
    domain.barrier();
    let readers = domain.stats().readers;
    assert!(readers <= 1, "{readers} readers are registered, of threads that have ended");
}

/// In a destructor of a thread-local, after the session in it was dropped.
#[test]
fn nothing_is_open_any_more() {
    static DOMAIN: OnceLock<Domain> = OnceLock::new();
    struct AtExit(Option<Session>);
    impl Drop for AtExit {
        fn drop(&mut self) {
            drop(self.0.take());
            let domain = DOMAIN.get().unwrap();
            assert!(!domain.in_critical_section(), "nothing is open");
        }
    }
    thread_local!(static KEPT: RefCell<AtExit> = const { RefCell::new(AtExit(None)) });
    DOMAIN.get_or_init(Domain::new);
    thread::spawn(|| {
        KEPT.with_borrow_mut(|kept| kept.0 = Some(DOMAIN.get().unwrap().session()));
    })
    .join()
    .unwrap();
    let _ = Ledger::new();
}

/// In a destructor of a thread-local, when the crate's own is gone: guards that are nested, dropped out of order, renewed, and
/// beside a session.
#[test]
fn late_guards_are_open_as_long_as_they_are_and_leave_nothing_behind() {
    static REGISTRY: OnceLock<Registry<u64, u64>> = OnceLock::new();
    static ENDED: AtomicU64 = AtomicU64::new(0);
    struct AtExit;
    impl Drop for AtExit {
        fn drop(&mut self) {
            let registry = REGISTRY.get().unwrap();
            let domain = registry.domain();
            let outer = registry.pin();
            let mut inner = registry.pin();
            drop(outer);
            assert!(domain.in_critical_section());
            assert_eq!(inner.get(&1).map(|entry| *entry), Some(1));
            inner.repin();
            assert!(domain.in_critical_section());
            drop(inner);
            assert!(!domain.in_critical_section());
            let session = domain.session();
            let guard = registry.pin();
            drop(session);
            assert!(domain.in_critical_section());
            drop(guard);
            assert!(!domain.in_critical_section());
            assert_eq!((registry.with(&1, |entry| *entry), registry.contains_key(&2)), (Some(1), false));
            drop(registry.insert(1, 1));
            domain.barrier();
            ENDED.fetch_add(1, SeqCst);
        }
    }
    thread_local!(static KEPT: AtExit = const { AtExit });
    let registry = REGISTRY.get_or_init(isolated);
    drop(registry.try_insert(1, 1));
    registry.domain().barrier();
    let readers = registry.domain().stats().readers;
    for _ in 0..20 {
        thread::spawn(|| {
            // Registered first, it is destroyed after the crate's own.
            KEPT.with(|_| ());
            assert!(REGISTRY.get().unwrap().contains_key(&1));
        })
        .join()
        .unwrap();
    }
    registry.domain().barrier();
    let stats = registry.domain().stats();
    assert_eq!((ENDED.load(SeqCst), stats.readers), (20, readers), "readers of threads that have ended");
    assert_eq!(registry.stats().backlog, 0);
}
