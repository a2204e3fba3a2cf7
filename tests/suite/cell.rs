//! Cells: what readers see, when versions are dropped, and what user code in writes may do.

use crate::common::{DropsOn, Ledger, OnDrop, Stop, a_while, in_time, panic_of, soon, times, with_reader};
use epoch_registry::{Domain, RcuCell, RcuOptionCell, Registry, StaticVersion, Version, WhenFull};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

/// A domain in which only the test's own calls reclaim.
fn domain() -> Domain {
    Domain::builder().writers_only().build()
}

#[test]
fn each_version_is_dropped_once_and_only_when_reader_and_owners_have_left_it() {
    let (domain, ledger) = (domain(), Ledger::new());
    let cell = RcuCell::new_in(ledger.value(0), &domain);
    let kept = cell.load();
    with_reader(&domain, || {
        let cookie = cell.store(ledger.value(1));
        assert!(!domain.poll(cookie), "a reader is in a critical section");
        domain.reclaim(100);
        assert_eq!(ledger.dropped(), 0);
    });
    domain.barrier();
    assert_eq!(ledger.dropped(), 0, "the version is still owned");
    assert_eq!(kept.get(), 0);
    drop(kept);
    assert_eq!(ledger.dropped(), 0, "the drop of a reference runs no destructor");
    domain.barrier();
    assert_eq!(ledger.dropped(), 1);
    drop(cell);
    assert_eq!((ledger.dropped(), ledger.live()), (2, 0));
}

#[test]
fn a_version_outlives_its_cell_and_its_domain() {
    let ledger = Ledger::new();
    let domain = domain();
    let cell = RcuCell::new_in(ledger.value(0), &domain);
    let (first, second) = (cell.load(), {
        cell.store(ledger.value(1));
        cell.load()
    });
    drop((cell, domain));
    assert_eq!((first.get(), second.get(), ledger.dropped()), (0, 1, 0));
    let clone = first.clone();
    drop((first, second));
    assert_eq!(ledger.dropped(), 1);
    drop(clone);
    assert_eq!(ledger.live(), 0);
}

#[test]
fn versions_that_wait_do_not_keep_the_domain() {
    let ledger = Ledger::new();
    let domain = Domain::builder().manual().build();
    let cell = RcuCell::new_in(ledger.value(0), &domain);
    for n in 1..10 {
        cell.store(ledger.value(n));
    }
    assert_eq!(domain.backlog().objects, 9);
    drop((cell, domain));
    assert_eq!(ledger.live(), 0, "the last user of the domain has torn it down, with what waited in it");
}

#[test]
fn no_version_is_dropped_by_a_reader() {
    let drops = Arc::new(Mutex::new(Vec::new()));
    let cell = Arc::new(RcuCell::new(DropsOn(Arc::clone(&drops))));
    let stop = Stop::default();
    let mut readers = Vec::new();
    thread::scope(|scope| {
        let _end = stop.at_end();
        for _ in 0..2 {
            let reader = scope.spawn(|| {
                while !stop.stopped() {
                    let kept = cell.load();
                    thread::yield_now();
                    drop(kept);
                    cell.with(|_| ());
                }
            });
            readers.push(reader.thread().id());
        }
        let begun = Instant::now();
        while begun.elapsed() < a_while() {
            cell.store(DropsOn(Arc::clone(&drops)));
        }
    });
    cell.domain().barrier();
    let drops = drops.lock().unwrap();
    assert!(!drops.is_empty());
    assert!(drops.iter().all(|thread| !readers.contains(thread)), "a reader has dropped a version");
}

/// Also checks that a session sees the versions of several cells and a registry in one section.
#[test]
fn one_session_reads_cells_and_registries_while_writers_replace() {
    let (domain, ledger) = (Domain::new(), Ledger::new());
    let cells: Vec<_> = (0..2).map(|_| RcuCell::new_in(ledger.value(0), &domain)).collect();
    let registry = Registry::builder().domain(domain.clone()).build();
    registry.insert(0, ledger.value(0));
    let stop = Stop::default();
    thread::scope(|scope| {
        scope.spawn(|| {
            let _end = stop.at_end();
            for n in 1..times(20_000) as u64 {
                cells[0].store(ledger.value(n));
                cells[1].update(|_| ledger.value(n));
                registry.insert(0, ledger.value(n));
            }
        });
        scope.spawn(|| {
            let mut session = domain.session();
            let mut newest = [0; 3];
            while !stop.stopped() {
                let section = session.section();
                let view = registry.view(&section).unwrap();
                let entry = view.get(&0).unwrap();
                let seen = [cells[0].read(&section).get(), cells[1].read(&section).get(), entry.get()];
                assert!(seen.iter().zip(&newest).all(|(now, before)| now >= before), "a value went back");
                newest = seen;
            }
        });
    });
    drop((cells, registry));
    domain.barrier();
    assert_eq!(ledger.live(), 0);
}

#[test]
fn a_cookie_is_over_when_the_readers_of_the_old_version_have_left() {
    let domain = domain();
    let cell = RcuCell::new_in(0, &domain);
    // A later reader does not matter.
    let cookie = cell.store(1);
    let reader = domain.pin();
    assert!(domain.poll_timeout(cookie, Duration::from_secs(10)) || cfg!(miri));
    drop(reader);
    let cookies: Vec<_> = (2..200).map(|n| cell.store(n)).collect();
    domain.wait(*cookies.last().unwrap());
    assert!(cookies.iter().all(|cookie| domain.poll(*cookie)), "the grace periods are over in their order");
    let empty = RcuOptionCell::<u8>::empty_in(&domain);
    assert!(domain.poll(empty.store(Some(1))), "there was no version to leave");
}

#[test]
fn a_cookie_of_another_domain_is_refused() {
    let cell = RcuCell::new_in(0, &domain());
    let (cookie, other) = (cell.store(1), domain());
    for refused in
        [panic_of(|| other.poll(cookie)), panic_of(|| other.wait(cookie)), panic_of(|| drop(other.reached(cookie)))]
    {
        assert!(refused.contains("a cookie of another domain"), "{refused}");
    }
}

#[test]
fn a_section_of_another_domain_is_refused() {
    let (cell, other) = (RcuCell::new_in(0, &domain()), domain());
    let registry = Registry::<u8, u8>::builder().domain(other.clone()).build();
    let mut session = other.session();
    for refused in [
        panic_of(|| *cell.read(&other.pin())),
        panic_of(|| cell.load_in(&registry.pin())),
        panic_of(|| *cell.read(&session.section())),
    ] {
        assert!(refused.contains("another domain than the cell's"), "{refused}");
    }
    let in_global = RcuCell::new(7);
    assert_eq!(*in_global.read(&Domain::global().pin()), 7);
    assert!(panic_of(|| *in_global.read(&other.pin())).contains("another domain"));
}

#[test]
fn updates_are_serialised_and_run_once() {
    let (threads, updates) = (4, times(5_000));
    let (cell, calls) = (RcuCell::new(0_usize), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..updates {
                    cell.update(|n| {
                        calls.fetch_add(1, SeqCst);
                        n + 1
                    });
                }
            });
        }
    });
    assert_eq!((*cell.load(), calls.load(SeqCst)), (threads * updates, threads * updates));
    assert_eq!(cell.version(), (threads * updates) as u64);
}

#[test]
fn a_store_waits_for_an_update_that_is_under_way() {
    let cell = Arc::new(RcuCell::new(1));
    let (begun, has_begun) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            cell.update(|n| {
                begun.send(()).unwrap();
                // Long enough for the store below to come in between if it did not wait.
                thread::sleep(Duration::from_millis(50));
                n + 1
            });
        });
        has_begun.recv().unwrap();
        assert_eq!(*cell.replace(10), 2, "the store comes after the update");
    });
    assert_eq!(*cell.load(), 10);
}

#[test]
fn a_failed_or_panicking_update_leaves_the_version_and_the_turn() {
    let domain = Domain::builder().writers_only().backlog_objects(4).build();
    let cell = RcuCell::new_in(1, &domain);
    let before = cell.load();
    for _ in 0..100 {
        assert_eq!(cell.try_update(|_| Err::<i32, _>("no")), Err("no"));
        assert_eq!(panic_of(|| cell.update(|_| -> i32 { panic!("in update") })), "in update");
    }
    assert!(Version::ptr_eq(&before, &cell.load()) && cell.version() == 0);
    in_time(move || cell.store(2));
    assert_eq!(domain.stats().overruns, 0, "the places in the backlog were given back");
}

#[test]
fn a_write_or_wait_within_an_update_of_the_same_cell_panics() {
    let cell = RcuCell::new(1);
    let expect = "within an update of the same cell";
    for refused in [
        panic_of(|| {
            cell.update(|n| {
                cell.store(5);
                *n
            })
        }),
        panic_of(|| {
            cell.update(|n| {
                cell.update(|n| *n);
                *n
            })
        }),
        panic_of(|| {
            cell.update(|n| {
                cell.wait_changed(0);
                *n
            })
        }),
    ] {
        assert!(refused.contains(expect), "{refused}");
    }
    cell.update(|n| n + cell.with(|same| *same));
    assert_eq!(*cell.load(), 2, "reads are fine");
    let other = RcuCell::new(1);
    cell.update(|n| {
        other.store(9);
        n + 1
    });
    assert_eq!((*cell.load(), *other.load()), (3, 9), "so are other cells");
}

#[test]
fn only_the_expected_version_is_exchanged() {
    let cell = RcuCell::new_in("a", &domain());
    let first = cell.load();
    cell.store("b");
    // An equal value is not the same version.
    cell.store("a");
    let rejected = cell.compare_exchange(&first, "c").unwrap_err();
    assert_eq!((*rejected.current, *rejected.new, Version::number(&rejected.current)), ("a", "c", 2));
    assert!(Version::is_superseded(&first) && !Version::is_superseded(&rejected.current));
    assert!(cell.compare_exchange(&rejected.current, rejected.new).is_ok());
    assert!(cell.compare_exchange_version(2, "d").is_err());
    assert!(cell.compare_exchange_version(3, "d").is_ok());
    assert_eq!((*cell.load(), cell.version()), ("d", 4));
}

#[test]
fn compare_exchange_succeeds_once_for_each_version() {
    let cell = RcuCell::new(0_u64);
    let won = AtomicUsize::new(0);
    let rounds = times(2_000);
    let start = Barrier::new(3);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..rounds {
                    let current = cell.load();
                    start.wait();
                    won.fetch_add(usize::from(cell.compare_exchange(&current, *current + 1).is_ok()), SeqCst);
                    start.wait();
                }
            });
        }
    });
    assert_eq!((won.load(SeqCst), *cell.load()), (rounds, rounds as u64));
}

#[test]
fn an_optional_cell_is_empty_or_has_a_version() {
    let ledger = Ledger::new();
    let domain = domain();
    let cell = RcuOptionCell::empty_in(&domain);
    assert!(cell.load().is_none() && cell.read(&domain.pin()).is_none() && cell.take().is_none());
    assert!(cell.compare_exchange(None, Some(ledger.value(1))).is_ok());
    assert!(cell.compare_exchange(None, Some(ledger.value(2))).is_err());
    let one = cell.load().unwrap();
    assert!(cell.compare_exchange(Some(&one), None::<common_value::Value>).is_ok());
    cell.update(|old| {
        assert!(old.is_none());
        Some(ledger.value(3))
    });
    assert_eq!(cell.replace(Some(ledger.value(4))).unwrap().get(), 3);
    assert_eq!(cell.try_update(|_| Err::<Option<common_value::Value>, _>(5)), Err(5));
    assert_eq!(cell.with(|value| value.map(|value| value.get())), Some(4));
    assert_eq!(cell.version(), 5, "a take of nothing counts as a write");
    drop((cell, one));
    domain.barrier();
    assert_eq!(ledger.live(), 0);
}

mod common_value {
    pub type Value = crate::common::Counted;
}

#[test]
fn values_of_any_size_and_alignment_are_in_place() {
    #[repr(align(128))]
    #[derive(Debug, PartialEq)]
    struct Aligned(u8);
    let cell = RcuCell::new(Aligned(7));
    cell.store(Aligned(8));
    let loaded = cell.load();
    assert_eq!((&*loaded, std::ptr::from_ref(&*loaded).addr() % 128), (&Aligned(8), 0));
    let unit = RcuCell::new(());
    unit.store(());
    assert_eq!(*unit.load(), ());
    let boxed = RcuCell::<[u64; 40]>::of(Box::new([3; 40]));
    boxed.store(Box::new([4; 40]));
    assert_eq!(boxed.with(|array| array.iter().sum::<u64>()), 160);
    assert_eq!(size_of::<Option<Version<dyn Send + Sync>>>(), size_of::<usize>());
}

#[test]
fn unsized_values_are_dropped_once() {
    trait Numbered: Send + Sync {
        fn number(&self) -> u64;
    }
    impl Numbered for crate::common::Counted {
        fn number(&self) -> u64 {
            self.get()
        }
    }
    let (domain, ledger) = (domain(), Ledger::new());
    let new = |n| -> Box<dyn Numbered> { Box::new(ledger.value(n)) };
    let cell: RcuCell<dyn Numbered> = RcuCell::of_in(new(0), &domain);
    let kept = cell.load();
    cell.update(|old| new(old.number() + 1));
    assert_eq!((kept.number(), cell.with(|value| value.number())), (0, 1));
    let slice: RcuCell<[crate::common::Counted]> = RcuCell::of_in(vec![ledger.value(2), ledger.value(3)], &domain);
    slice.store(Vec::new());
    assert!(slice.with(<[_]>::is_empty));
    let text: RcuCell<str> = RcuCell::of_in("one", &domain);
    text.store("two".to_string());
    assert_eq!(&*text.load(), "two");
    assert!(text.compare_exchange_version(0, "three").is_err(), "the new version is dropped with the error");
    drop((cell, slice, kept));
    domain.barrier();
    assert_eq!((ledger.created(), ledger.live()), (4, 0));
}

#[test]
fn a_static_cell_needs_no_initialisation() {
    static FIRST: StaticVersion<[u16; 3]> = StaticVersion::new([1, 2, 3]);
    static CELL: RcuCell<[u16; 3]> = RcuCell::from_static(&FIRST);
    let first = CELL.load();
    for _ in 0..1000 {
        drop(CELL.load());
    }
    CELL.store([4, 5, 6]);
    CELL.domain().barrier();
    assert_eq!((*first, *CELL.load()), ([1, 2, 3], [4, 5, 6]));
    assert!(Version::is_superseded(&first));
    drop(first);
    CELL.domain().barrier();
}

/// Counts its wakes.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn a_new_version_wakes_threads_and_tasks_that_wait_for_it() {
    let cell = RcuCell::new(0);
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut context = Context::from_waker(&waker);
    let mut changed = pin!(cell.changed(0));
    let dropped = {
        let mut early = Box::pin(cell.changed(0));
        assert!(early.as_mut().poll(&mut context).is_pending());
        early
    };
    for _ in 0..3 {
        assert!(changed.as_mut().poll(&mut context).is_pending());
    }
    drop(dropped);
    assert_eq!(cell.wait_changed_timeout(0, Duration::from_millis(5)), None);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| cell.wait_changed(0));
        thread::sleep(Duration::from_millis(5));
        cell.store(1);
        assert_eq!(waiting.join().unwrap(), 1);
    });
    assert_eq!(wakes.0.load(SeqCst), 1, "the future that was polled three times; not the one that was dropped");
    assert_eq!(changed.as_mut().poll(&mut context), Poll::Ready(1));
    assert!(cell.has_changed(0) && !cell.has_changed(1));
    assert_eq!(cell.wait_changed_timeout(0, Duration::MAX), Some(1));
}

#[test]
fn a_waker_may_write_the_cell_and_may_panic() {
    struct Writes(Arc<RcuCell<u32>>, AtomicUsize);
    impl Wake for Writes {
        fn wake(self: Arc<Self>) {
            if self.1.fetch_add(1, SeqCst) == 0 {
                self.0.store(100);
                panic!("in a waker");
            }
        }
    }
    let cell = Arc::new(RcuCell::new(0));
    let waker = Waker::from(Arc::new(Writes(Arc::clone(&cell), AtomicUsize::new(0))));
    let mut changed = Box::pin(cell.changed(0));
    assert!(changed.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    cell.store(1);
    assert_eq!((*cell.load(), cell.version()), (100, 2));
}

#[test]
fn waiters_are_never_lost() {
    let cell = RcuCell::new(0_u64);
    let rounds = times(20_000) as u64;
    in_time(move || {
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut seen = 0;
                while seen < rounds {
                    seen = cell.wait_changed(seen);
                }
            });
            scope.spawn(|| {
                for n in 1..=rounds {
                    cell.store(n);
                }
            });
        });
    });
}

#[test]
fn a_future_of_a_cookie_is_woken_by_the_domain() {
    let domain = Domain::new();
    let cell = RcuCell::new_in(0, &domain);
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut context = Context::from_waker(&waker);
    let reader = domain.pin();
    let cookie = cell.store(1);
    let mut reached = pin!(domain.reached(cookie));
    drop({
        let mut early = Box::pin(domain.reached(cookie));
        assert!(early.as_mut().poll(&mut context).is_pending());
        early
    });
    for _ in 0..3 {
        assert!(reached.as_mut().poll(&mut context).is_pending());
    }
    assert_eq!(wakes.0.load(SeqCst), 0);
    drop(reader);
    assert!(soon(|| wakes.0.load(SeqCst) >= 1), "no one has woken the task");
    assert!(reached.as_mut().poll(&mut context).is_ready());
    domain.barrier();
    assert_eq!(wakes.0.load(SeqCst), 2, "each future is woken once");
}

#[test]
fn a_flood_of_stores_stays_bounded() {
    for domain in [Domain::new(), domain(), Domain::builder().reclaimer(true).build()] {
        let cell = RcuCell::new_in([0_u64; 16], &domain);
        let mut most = 0;
        for n in 0..times(200_000) as u64 {
            cell.store([n; 16]);
            if n % 1000 == 0 {
                most = most.max(domain.stats().backlog.objects);
            }
        }
        assert!(most < 20_000, "{most} versions wait in {domain:?}");
    }
}

#[test]
fn a_limit_of_the_backlog_holds_for_stores() {
    let domain =
        Domain::builder().writers_only().backlog_objects(8).when_full(WhenFull::Wait(Duration::from_millis(1))).build();
    let cell = RcuCell::new_in(0, &domain);
    for n in 0..1000 {
        cell.store(n);
        assert!(domain.backlog().objects <= 8);
    }
    assert_eq!(domain.stats().overruns, 0);
    with_reader(&domain, || {
        for n in 0..20 {
            cell.store(n);
        }
    });
    assert!(domain.stats().overruns >= 12, "an infallible store proceeds beyond the limit, and is counted");
}

#[test]
fn destructors_of_versions_may_write_cells_and_panic() {
    let domain = domain();
    let cell = Arc::new(RcuOptionCell::<OnDrop>::empty_in(&domain));
    let count = Arc::new(AtomicUsize::new(0));
    let writes = {
        let (cell, count) = (Arc::clone(&cell), Arc::clone(&count));
        OnDrop::new(move || {
            count.fetch_add(1, SeqCst);
            cell.store(Some(OnDrop::new(|| panic!("in a destructor"))));
        })
    };
    cell.store(Some(writes));
    cell.store(None::<OnDrop>);
    domain.barrier();
    assert_eq!(count.load(SeqCst), 1);
    cell.store(None::<OnDrop>);
    domain.barrier();
    assert_eq!(domain.stats().callback_panics, 1);
    assert_eq!(domain.backlog().objects, 0);
}

/// A chain: each version owns the one before. The drop of the newest drops all, without recursion.
#[test]
fn a_long_chain_of_versions_is_dropped_without_recursion_and_awaited_by_a_barrier() {
    struct Link(#[allow(dead_code)] Option<Version<Link>>, Arc<AtomicUsize>);
    impl Drop for Link {
        fn drop(&mut self) {
            self.1.fetch_add(1, SeqCst);
        }
    }
    let (domain, drops) = (Domain::builder().manual().build(), Arc::new(AtomicUsize::new(0)));
    let length = times(100_000);
    let cell = RcuCell::new_in(Link(None, Arc::clone(&drops)), &domain);
    for _ in 0..length {
        let before = cell.load();
        cell.store(Link(Some(before), Arc::clone(&drops)));
    }
    domain.barrier();
    assert_eq!(drops.load(SeqCst), 0);
    cell.store(Link(None, Arc::clone(&drops)));
    domain.barrier();
    assert_eq!(drops.load(SeqCst), length + 1);
}

#[test]
fn projections_follow_the_cell() {
    let cell = RcuCell::new_in((1, "one".to_string()), &domain());
    let names = cell.project(|pair| pair.1.as_str());
    let kept = names.load();
    cell.store((2, "two".to_string()));
    assert_eq!((&*kept, names.with(str::len), names.read(&cell.domain().pin())), ("one", 3, "two"));
    let version: &Version<_> = epoch_registry::Part::version(&kept);
    assert_eq!(Version::number(version), 0);
}

#[test]
fn cells_work_in_destructors_of_thread_locals() {
    struct Late;
    impl Drop for Late {
        fn drop(&mut self) {
            CELL.store(CELL.with(|n| n + 1));
            drop(CELL.load());
        }
    }
    static CELL: RcuCell<u32> = RcuCell::from_static(&FIRST);
    static FIRST: StaticVersion<u32> = StaticVersion::new(0);
    thread_local! {
        static LATE: Late = const { Late };
    }
    for _ in 0..10 {
        thread::spawn(|| {
            LATE.with(|_| ());
            CELL.with(|_| ());
        })
        .join()
        .unwrap();
    }
    assert_eq!(*CELL.load(), 10);
}
