//! Guards and sessions in thread-locals, after their thread's records.

mod common;

use common::*;
use epoch_registry::*;
use std::cell::RefCell;
use std::sync::OnceLock;
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
