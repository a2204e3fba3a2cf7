//! Threads that end: what they leave behind, and thread-local destructors that use the registry.

mod common;

use common::*;
use epoch_registry::{Guard, Handle, Reader, Registry};
use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::thread;

#[test]
fn garbage_of_a_thread_that_exits_is_destroyed_by_the_barrier_of_another() {
    let ledger = Ledger::new();
    let registry: Registry<u64, Counted> = isolated();
    for round in 0..times(50) as u64 {
        thread::scope(|scope| {
            scope.spawn(|| {
                for key in 0..10 {
                    drop(registry.insert(round * 10 + key, ledger.value(key)));
                    drop(registry.remove(&(round * 10 + key)));
                }
            });
        });
        registry.domain().barrier();
        assert_eq!(ledger.live(), 0);
    }
}

#[test]
fn a_thread_that_dies_by_a_panic_in_a_critical_section_holds_nothing_up() {
    let ledger = Ledger::new();
    let registry: Registry<u64, Counted> = isolated();
    for round in 0..20 {
        drop(registry.insert(round, ledger.value(round)));
        thread::scope(|scope| {
            let dies = scope.spawn(|| {
                let guard = registry.pin();
                let mut reader = registry.reader();
                let (_entry, _other) = (guard.get(&round), reader.get(&round));
                let _handle = registry.remove(&round);
                panic!("planned");
            });
            dies.join().unwrap_err();
        });
        registry.domain().barrier();
        assert_eq!(ledger.live(), 0);
    }
}

type R = Registry<u64, Counted>;
type H = Handle<u64, Counted>;

/// Does things with the registry when its thread exits.
#[derive(Default)]
struct AtExit(Option<Errand>);

struct Errand {
    registry: Arc<R>,
    ledger: Ledger,
    /// How many destructors began, and, in its upper half, how many came to their end.
    ran: Arc<AtomicU64>,
    handle: Option<H>,
}

impl Drop for AtExit {
    fn drop(&mut self) {
        let Some(Errand { registry, ledger, ran, handle }) = self.0.take() else { return };
        let key = ran.fetch_add(1, SeqCst) + 1_000_000;
        {
            let guard = registry.pin();
            assert_eq!(guard.get(&1).unwrap().get(), 1);
            let nested = registry.domain().pin();
            assert!(registry.view(&nested).unwrap().get(&1).is_some());
            assert!(panic_of(|| registry.domain().barrier()).contains("critical section"));
        }
        assert!(registry.insert(key, ledger.value(key)).is_ok());
        assert_eq!(registry.lookup(&key).unwrap().get(), key);
        assert!(registry.pin().iter().any(|entry| entry.get() == key));
        assert!(registry.reader().get(&key).is_some());
        drop(registry.remove(&key));
        drop(handle);
        registry.domain().barrier();
        ran.fetch_add(1 << 32, SeqCst);
    }
}

thread_local! {
    static EARLY: RefCell<AtExit> = RefCell::default();
    static LATE: RefCell<AtExit> = RefCell::default();
}

/// Both orders: thread-locals registered before the registry's own are destroyed after it, and the other way round.
#[test]
fn destructors_of_thread_locals_may_use_the_registry() {
    within_a_minute(|| {
        let ledger = Ledger::new();
        let registry: Arc<R> = Arc::new(isolated());
        drop(registry.insert(1, ledger.value(1)));
        let ran = Arc::new(AtomicU64::new(0));
        for round in 0..20 {
            let handle = |key| {
                let handle = registry.insert(key, ledger.value(key)).ok();
                drop(registry.remove(&key));
                handle
            };
            let pair = [handle(10 + round), handle(100 + round)];
            let (registry, ledger, ran) = (&registry, &ledger, &ran);
            thread::scope(|scope| {
                scope.spawn(move || {
                    let [first, second] = pair;
                    let errand = |handle| {
                        let (registry, ledger, ran) = (Arc::clone(registry), ledger.clone(), Arc::clone(ran));
                        Some(Errand { registry, ledger, ran, handle })
                    };
                    EARLY.with(|early| early.borrow_mut().0 = errand(first));
                    // Registers this thread with the domain, between the two.
                    assert!(registry.lookup(&1).is_some());
                    LATE.with(|late| late.borrow_mut().0 = errand(second));
                });
            });
        }
        // A scope ends before its threads' thread-locals do.
        assert!(soon(|| ran.load(SeqCst) >> 32 == 40), "{:x}", ran.load(SeqCst));
        registry.domain().barrier();
        assert_eq!(ledger.live(), 1);
    });
}

/// The registry and its domain end in the destructor of a thread-local.
#[test]
fn the_last_of_a_registry_may_go_with_a_thread_local() {
    within_a_minute(|| {
        thread_local!(static LAST: RefCell<Vec<(R, H)>> = RefCell::default());
        let ledger = Ledger::new();
        for pinned_first in [true, false] {
            let ledger = ledger.clone();
            let thread = thread::spawn(move || {
                let registry: R = isolated();
                if !pinned_first {
                    LAST.with(|last| assert!(last.borrow().is_empty()));
                }
                (0..100).for_each(|key| drop(registry.insert(key, ledger.value(key))));
                let handle = registry.lookup(&7).unwrap();
                drop(registry.remove(&8));
                LAST.with(|last| last.borrow_mut().push((registry, handle)));
            });
            thread.join().unwrap();
        }
        assert!(soon(|| ledger.dropped() == 200));
    });
}

type StaticGuard = Guard<'static, u64, Counted, FewBits>;
type StaticReader = Reader<'static, u64, Counted, FewBits>;

thread_local! {
    static GUARD: RefCell<Option<StaticGuard>> = const { RefCell::new(None) };
    static READER: RefCell<Option<StaticReader>> = const { RefCell::new(None) };
}

#[test]
fn guards_and_sessions_kept_in_thread_locals_end_with_their_thread() {
    within_a_minute(|| {
        let ledger = Ledger::new();
        // A static, and not a leaked box, which would be one to the leak check too.
        static REGISTRY: OnceLock<Registry<u64, Counted, FewBits>> = OnceLock::new();
        let registry = REGISTRY.get_or_init(|| isolated_builder().hasher(FewBits { mask: u64::MAX }).build());
        for round in 0..20 {
            drop(registry.insert(round, ledger.value(round)));
            let counts = ledger.clone();
            let thread = thread::spawn(move || {
                // Registered before the registry's own thread-local in every second round.
                if round % 2 == 0 {
                    GUARD.with(|guard| assert!(guard.borrow().is_none()));
                    READER.with(|reader| assert!(reader.borrow().is_none()));
                }
                let guard = registry.pin();
                GUARD.with(|kept| *kept.borrow_mut() = Some(guard));
                READER.with(|kept| *kept.borrow_mut() = Some(registry.reader()));
                GUARD.with(|kept| {
                    let kept = kept.borrow();
                    let entry = kept.as_ref().unwrap().get(&round).unwrap();
                    drop(registry.remove(&round));
                    assert_eq!((entry.get(), counts.dropped()), (round, round));
                });
            });
            thread.join().unwrap();
            registry.domain().barrier();
            assert_eq!(ledger.live(), 0);
        }
    });
}

#[test]
fn many_short_threads_with_domains_that_come_and_go_leave_nothing() {
    let ledger = Ledger::new();
    let outer: R = isolated();
    for round in 0..times(20) as u64 {
        thread::scope(|scope| {
            for id in 0..4 {
                let (ledger, outer) = (&ledger, &outer);
                scope.spawn(move || {
                    for key in 0..5 {
                        let inner: R = isolated();
                        drop(inner.insert(key, ledger.value(key)));
                        drop(outer.insert(round * 100 + id * 10 + key, ledger.value(key)));
                        assert!(inner.pin().get(&key).is_some() && outer.lookup(&(round * 100 + id * 10)).is_some());
                    }
                });
            }
        });
    }
    outer.clear();
    outer.domain().barrier();
    assert_eq!(ledger.live(), 0);
}

/// The guard is older than the end of the registry's own thread-local, the wait comes after it.
#[test]
fn waiting_is_refused_under_a_guard_kept_in_a_thread_local_to_the_very_end() {
    struct Waits(Option<(Guard<'static, u64, Counted, FewBits>, std::sync::mpsc::Sender<String>)>);
    impl Drop for Waits {
        fn drop(&mut self) {
            if let Some((guard, result)) = self.0.take() {
                // Sessions and guards of other threads aside: this one is pinned here and now.
                assert!(guard.get(&1).is_none());
                let domain = REGISTRY.domain();
                result.send(panic_of(|| domain.synchronize())).unwrap();
            }
        }
    }
    static REGISTRY: std::sync::LazyLock<Registry<u64, Counted, FewBits>> =
        std::sync::LazyLock::new(|| isolated_builder().hasher(FewBits { mask: u64::MAX }).build());
    thread_local!(static KEPT: RefCell<Waits> = const { RefCell::new(Waits(None)) });
    let (result, results) = std::sync::mpsc::channel();
    thread::spawn(move || {
        // Registered first, so destroyed last.
        KEPT.with(|kept| assert!(kept.borrow().0.is_none()));
        let guard = REGISTRY.pin();
        KEPT.with(|kept| kept.borrow_mut().0 = Some((guard, result)));
    });
    let message = results.recv_timeout(std::time::Duration::from_secs(5)).expect("it waits for itself");
    assert!(message.contains("critical section"), "{message}");
}
