//! Threads that end: what they leave behind, and destructors of thread-locals that use the registry.

mod common;

use common::*;
use epoch_registry::{Guard, Handle, Reader, Registry, *};
use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::thread;

#[test]
fn a_barrier_of_another_thread_destroys_what_an_ended_thread_retired() {
    let ledger = Ledger::new();
    let registry: Registry<u64, Counted> = isolated();
    for round in 0..times(50) as u64 {
        thread::scope(|scope| {
            scope.spawn(|| {
                for key in 0..10 {
                    drop(registry.try_insert(round * 10 + key, ledger.value(key)));
                    drop(registry.remove(&(round * 10 + key)));
                }
            });
        });
        registry.domain().barrier();
        assert_eq!(ledger.live(), 0);
    }
}

#[test]
fn a_thread_that_panics_in_a_critical_section_delays_no_grace_period() {
    let ledger = Ledger::new();
    let registry: Registry<u64, Counted> = isolated();
    for round in 0..20 {
        drop(registry.try_insert(round, ledger.value(round)));
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

/// An object that uses the registry when its thread exits.
#[derive(Default)]
struct AtExit(Option<Errand>);

struct Errand {
    registry: Arc<R>,
    ledger: Ledger,
    /// The number of destructors that began. The upper half counts the destructors that ended.
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
        assert!(registry.try_insert(key, ledger.value(key)).is_ok());
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

/// The test tries both orders. Thread-locals registered before the registry's own are destroyed after it, and the other
/// way round.
#[test]
fn destructors_of_thread_locals_may_use_the_registry() {
    in_time(|| {
        let ledger = Ledger::new();
        let registry: Arc<R> = Arc::new(isolated());
        drop(registry.try_insert(1, ledger.value(1)));
        let ran = Arc::new(AtomicU64::new(0));
        for round in 0..20 {
            let handle = |key| {
                let handle = registry.try_insert(key, ledger.value(key)).ok();
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
                    // Registers this thread with the domain between the two thread-locals.
                    assert!(registry.lookup(&1).is_some());
                    LATE.with(|late| late.borrow_mut().0 = errand(second));
                });
            });
        }
        // A thread scope ends before the thread-locals of its threads are destroyed.
        assert!(soon(|| ran.load(SeqCst) >> 32 == 40), "{:x}", ran.load(SeqCst));
        registry.domain().barrier();
        assert_eq!(ledger.live(), 1);
    });
}

/// The destructor of a thread-local drops the registry and its domain.
#[test]
fn a_thread_local_may_drop_the_last_reference_to_a_registry() {
    in_time(|| {
        thread_local!(static LAST: RefCell<Vec<(R, H)>> = RefCell::default());
        let ledger = Ledger::new();
        for pinned_first in [true, false] {
            let ledger = ledger.clone();
            let thread = thread::spawn(move || {
                let registry: R = isolated();
                if !pinned_first {
                    LAST.with(|last| assert!(last.borrow().is_empty()));
                }
                (0..100).for_each(|key| drop(registry.try_insert(key, ledger.value(key))));
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
    in_time(|| {
        let ledger = Ledger::new();
        // A static, because the leak check would report a leaked box.
        static REGISTRY: OnceLock<Registry<u64, Counted, FewBits>> = OnceLock::new();
        let registry = REGISTRY.get_or_init(|| isolated_builder().hasher(FewBits { mask: u64::MAX }).build());
        for round in 0..20 {
            drop(registry.try_insert(round, ledger.value(round)));
            let counts = ledger.clone();
            let thread = thread::spawn(move || {
                // In every second round these are registered before the registry's own thread-local.
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
fn many_short_threads_with_short_lived_domains_leak_nothing() {
    let ledger = Ledger::new();
    let outer: R = isolated();
    for round in 0..times(20) as u64 {
        thread::scope(|scope| {
            for id in 0..4 {
                let (ledger, outer) = (&ledger, &outer);
                scope.spawn(move || {
                    for key in 0..5 {
                        let inner: R = isolated();
                        drop(inner.try_insert(key, ledger.value(key)));
                        drop(outer.try_insert(round * 100 + id * 10 + key, ledger.value(key)));
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

/// The guard is opened before the registry's own thread-local is destroyed, and the wait comes after that.
#[test]
fn waiting_is_refused_under_a_guard_in_a_thread_local_that_is_destroyed_last() {
    struct Waits(Option<(Guard<'static, u64, Counted, FewBits>, std::sync::mpsc::Sender<String>)>);
    impl Drop for Waits {
        fn drop(&mut self) {
            if let Some((guard, result)) = self.0.take() {
                // Only the guard that this thread holds here makes the wait panic.
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
        // This thread-local is registered first, so it is destroyed last.
        KEPT.with(|kept| assert!(kept.borrow().0.is_none()));
        let guard = REGISTRY.pin();
        KEPT.with(|kept| kept.borrow_mut().0 = Some((guard, result)));
    });
    let message =
        results.recv_timeout(std::time::Duration::from_secs(5)).expect("synchronize waits for its own thread");
    assert!(message.contains("critical section"), "{message}");
}

/// Runs `first` on a new thread named `late`. Runs `last` when that thread is about to end, in the destructor of a key
/// of the C library. That destructor runs after all of std's, so `std::thread::current` panics there.
///
/// glibc calls the destructors of keys in rounds, as long as they set keys again. std cleans up in the second round.
/// ThreadSanitizer ends a thread there too, and cannot watch what comes after.
#[cfg(all(target_os = "linux", target_env = "gnu", not(crossbeam_sanitize_thread)))]
fn after_std(first: impl FnOnce() + Send + 'static, last: impl FnOnce() + Send + 'static) {
    type Last = (usize, Option<Box<dyn FnOnce() + Send>>);
    static KEY: std::sync::LazyLock<libc::pthread_key_t> = std::sync::LazyLock::new(|| {
        let mut key = 0;
        // SAFETY: the pointer is to a local variable.
        assert_eq!(unsafe { libc::pthread_key_create(&mut key, Some(destructor)) }, 0);
        key
    });
    unsafe extern "C" fn destructor(value: *mut libc::c_void) {
        // SAFETY: the pointer comes from `set`, and no other call of this destructor gets it.
        let mut value = unsafe { Box::from_raw(value.cast::<Last>()) };
        value.0 += 1;
        if value.0 < 4 {
            set(value);
        } else {
            value.1.take().unwrap()();
        }
    }
    fn set(value: Box<Last>) {
        // SAFETY: the key was created, and is never deleted.
        unsafe { libc::pthread_setspecific(*KEY, Box::into_raw(value).cast()) };
    }
    let ran = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&ran);
    let last = move || {
        assert!(panic_of(thread::current).contains("after the thread's local data has been destroyed"));
        last();
        seen.store(1, SeqCst);
    };
    let thread = move || {
        first();
        set(Box::new((0, Some(Box::new(last)))));
    };
    thread::Builder::new().name("late".to_string()).spawn(thread).unwrap().join().unwrap();
    assert_eq!(ran.load(SeqCst), 1);
}

#[cfg(all(target_os = "linux", target_env = "gnu", not(crossbeam_sanitize_thread)))]
#[test]
fn a_destructor_that_runs_after_those_of_std_may_use_the_registry() {
    let ledger = Ledger::new();
    let registry: Arc<R> = Arc::new(isolated());
    drop(registry.try_insert(1, ledger.value(1)));
    let domain = registry.domain();
    domain.barrier();
    let readers = domain.stats().readers;
    for used_before in [true, false] {
        let uses: [fn(&R); 4] = [
            |registry| assert_eq!(registry.pin().get(&1).unwrap().get(), 1),
            |registry| assert_eq!(registry.reader().get(&1).unwrap().get(), 1),
            |registry| {
                let mut session = registry.domain().session();
                session.quiescent();
                assert!(registry.view(&session.pin()).unwrap().contains_key(&1));
                assert!(registry.domain().in_critical_section());
                session.offline(|| assert!(!registry.domain().in_critical_section()));
            },
            |registry| {
                let ledger = Ledger::new();
                let guard = registry.pin();
                assert!(panic_of(|| registry.domain().barrier()).contains("critical section"));
                drop(guard);
                drop((registry.try_insert(2, ledger.value(2)), registry.remove(&2)));
                registry.domain().barrier();
                assert_eq!(ledger.live(), 0);
            },
        ];
        for last in uses {
            let (first, then) = (Arc::clone(&registry), Arc::clone(&registry));
            after_std(move || assert!(!used_before || first.contains_key(&1)), move || last(&then));
            domain.barrier();
            assert_eq!(domain.stats().readers, readers, "readers of ended threads are still registered");
            assert!(!domain.in_critical_section());
        }
    }
}

/// The report knows the thread's id if the thread has used a domain before.
#[cfg(all(target_os = "linux", target_env = "gnu", not(crossbeam_sanitize_thread)))]
#[test]
fn a_session_made_after_the_destructors_of_std_is_reported_with_its_threads_id() {
    use epoch_registry::{Domain, ManualClock, StallReport};
    use std::sync::Mutex;
    use std::time::Duration;

    for used_before in [true, false] {
        let reports: Arc<Mutex<Vec<StallReport>>> = Arc::default();
        let (clock, log) = (ManualClock::new(), Arc::clone(&reports));
        let domain = Domain::builder()
            .manual()
            .manual_clock(clock.clone())
            .on_stall(move |report| log.lock().unwrap().push(report.clone()))
            .build();
        let id = Arc::new(Mutex::new(None));
        let (to_note, used, watched) = (Arc::clone(&id), domain.clone(), domain.clone());
        let first = move || {
            *to_note.lock().unwrap() = Some(thread::current().id());
            if used_before {
                drop(used.pin());
            }
        };
        after_std(first, move || {
            let _session = watched.session();
            watched.call(|| ());
            for _ in 0..100 {
                clock.advance(Duration::from_secs(1));
                watched.reclaim(0);
            }
        });
        let reports = reports.lock().unwrap();
        let report = reports.first().expect("a report");
        match (report.readers.as_slice(), used_before) {
            ([reader], true) => {
                assert_eq!((Some(reader.thread_id), &reader.thread_name), (*id.lock().unwrap(), &None));
                assert!(reader.is_session);
            }
            ([], false) => assert!(report.to_string().contains("an unknown reader"), "{report}"),
            _ => panic!("{report}"),
        }
    }
}

// Guards and sessions in thread-locals that are destroyed after their thread's records.

/// A thread ends with a guard in a thread-local, which drops the guard. No record of the thread is left.
#[test]
fn threads_that_ended_with_a_guard_in_a_thread_local_leave_no_record() {
    static DOMAIN: OnceLock<Domain> = OnceLock::new();
    thread_local!(static KEPT: RefCell<Option<DomainGuard<'static>>> = const { RefCell::new(None) });
    let domain = DOMAIN.get_or_init(Domain::new);
    for _ in 0..100 {
        thread::spawn(|| {
            // The destructor of KEPT is registered first. It runs after that of the crate's own thread-local.
            KEPT.with_borrow_mut(|kept| assert!(kept.is_none()));
            KEPT.set(Some(DOMAIN.get().unwrap().pin()));
        })
        .join()
        .unwrap();
    }
    domain.barrier();
    let readers = domain.stats().readers;
    assert!(readers <= 1, "{readers} readers of ended threads are still registered");
}

/// The destructor of a thread-local first drops the session in it.
#[test]
fn after_the_drop_of_a_late_session_no_critical_section_is_open() {
    static DOMAIN: OnceLock<Domain> = OnceLock::new();
    struct AtExit(Option<Session>);
    impl Drop for AtExit {
        fn drop(&mut self) {
            drop(self.0.take());
            let domain = DOMAIN.get().unwrap();
            assert!(!domain.in_critical_section(), "a critical section is still open");
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

/// The destructor of a thread-local uses guards after the crate's own thread-local is destroyed. The guards are nested,
/// dropped out of order, repinned, and used beside a session.
#[test]
fn late_guards_keep_their_critical_section_open_and_leave_no_record() {
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
            // This thread-local is registered first, so it is destroyed after the crate's own.
            KEPT.with(|_| ());
            assert!(REGISTRY.get().unwrap().contains_key(&1));
        })
        .join()
        .unwrap();
    }
    registry.domain().barrier();
    let stats = registry.domain().stats();
    assert_eq!((ENDED.load(SeqCst), stats.readers), (20, readers), "readers of ended threads are still registered");
    assert_eq!(registry.stats().backlog, 0);
}
