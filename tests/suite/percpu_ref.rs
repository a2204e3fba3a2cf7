//! References that threads count apart: the count is exact, whichever threads take and put, and however it ends.

use crate::common::*;
use epoch_registry::{Domain, LiveRef, PercpuRef};
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, LazyLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(2);

/// A domain in which nothing happens but by the test's own calls.
fn still() -> Domain {
    Domain::builder().writers_only().build()
}

/// A count, and how often it was released.
fn released(domain: &Domain) -> (PercpuRef, Arc<AtomicUsize>) {
    let releases = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&releases);
    (PercpuRef::with_release(domain, move || _ = count.fetch_add(1, SeqCst)), releases)
}

#[test]
fn references_are_taken_until_the_kill_and_zero_is_reached_with_the_last() {
    let domain = Domain::new();
    let count = PercpuRef::new(&domain);
    assert!(!count.is_dying() && !count.is_zero() && count.domain() == &domain);
    let (one, two) = (count.try_get_live().unwrap(), count.try_get_live().unwrap());
    drop(two);
    assert!(!count.is_zero(), "a live count is never zero");
    assert!(count.kill());
    assert!(count.is_dying() && count.try_get_live().is_none());
    assert!(!count.wait_zero(SHORT));
    let further = one.clone();
    drop(one);
    assert!(!count.wait_zero(SHORT), "a clone is a reference");
    drop(further);
    assert!(count.wait_zero(LONG) && count.is_zero());
    assert!(count.try_get_live().is_none());
}

#[test]
fn a_kill_without_references_reaches_zero_with_a_barrier_and_is_released_by_it() {
    let domain = still();
    let (count, releases) = released(&domain);
    drop(count.try_get_live());
    assert!(count.kill());
    assert!(!count.is_zero(), "not before the grace period");
    domain.barrier();
    assert!(count.is_zero());
    assert_eq!(releases.load(SeqCst), 1);
    assert!(!count.kill(), "a second kill does nothing");
    domain.barrier();
    assert_eq!(releases.load(SeqCst), 1);
}

#[test]
fn the_release_runs_once_for_a_kill_and_never_within_a_put() {
    let domain = still();
    let (count, releases) = released(&domain);
    for round in 1..=10 {
        let references: Vec<_> = (0..round).map(|_| count.try_get_live().unwrap()).collect();
        assert!(count.kill());
        domain.barrier();
        assert!(!count.is_zero());
        drop(references);
        assert!(count.is_zero());
        assert_eq!(releases.load(SeqCst), round - 1, "not within the put");
        domain.barrier();
        domain.barrier();
        assert_eq!(releases.load(SeqCst), round);
        assert!(count.resurrect());
    }
}

#[test]
fn references_may_be_put_by_other_threads_than_took_them() {
    let domain = still();
    let count = PercpuRef::new(&domain);
    for _ in 0..times(20) {
        thread::scope(|scope| {
            let (send, receive) = mpsc::channel::<LiveRef<'_>>();
            scope.spawn(|| (0..20).for_each(|_| std::mem::forget(count.try_get_live().unwrap())));
            let count = &count;
            scope.spawn(move || (0..20).for_each(|_| send.send(count.try_get_live().unwrap()).unwrap()));
            scope.spawn(move || receive.iter().for_each(drop));
        });
        assert!(count.kill());
        domain.barrier();
        assert!(!count.is_zero(), "20 are left, of threads that have ended");
        thread::scope(|scope| drop(scope.spawn(|| (0..19).for_each(|_| count.put()))));
        assert!(!count.is_zero());
        count.put();
        assert!(count.is_zero() && count.resurrect());
    }
}

#[test]
fn a_confirmation_waits_for_open_sections_but_not_for_references() {
    let domain = still();
    let (count, releases) = released(&domain);
    let confirmed = Arc::new(AtomicBool::new(false));
    let reference = count.try_get_live().unwrap();
    with_reader(&domain, || {
        let flag = Arc::clone(&confirmed);
        assert!(count.kill_and_confirm(move || flag.store(true, SeqCst)));
        for _ in 0..20 {
            domain.reclaim(10);
            thread::sleep(Duration::from_micros(100));
        }
        assert!(!confirmed.load(SeqCst), "a reader could be in `try_get_live`");
    });
    domain.barrier();
    assert!(confirmed.load(SeqCst) && !count.is_zero());
    drop(reference);
    domain.barrier();
    assert!(count.is_zero());
    assert_eq!(releases.load(SeqCst), 1);
}

/// A get that began before the kill is counted, even if it comes to an end after it.
#[test]
fn a_reference_that_was_taken_within_a_section_that_the_kill_found_open_is_counted() {
    let domain = still();
    let count = PercpuRef::new(&domain);
    let guard = domain.pin();
    let reference = count.try_get_live_in(&guard).unwrap();
    thread::scope(|scope| drop(scope.spawn(|| count.kill())));
    // In this section the kill is visible by now.
    assert!(count.try_get_live_in(&guard).is_none());
    count.get_in(&guard);
    drop(guard);
    domain.barrier();
    drop(reference);
    assert!(!count.is_zero());
    count.put();
    assert!(count.is_zero());
}

#[test]
fn a_confirmation_that_has_no_kill_is_dropped_and_not_called() {
    let domain = still();
    let count = PercpuRef::new(&domain);
    let called = Arc::new(AtomicUsize::new(0));
    let confirm = || {
        let called = Arc::clone(&called);
        move || _ = called.fetch_add(1, SeqCst)
    };
    assert!(count.kill_and_confirm(confirm()));
    assert!(!count.kill_and_confirm(confirm()));
    assert!(count.resurrect(), "the kill is called off");
    domain.barrier();
    assert_eq!((called.load(SeqCst), Arc::strong_count(&called)), (0, 1));
    assert!(!count.is_zero() && count.try_get_live().is_some());
    // The fold of a kill that was called off is not taken for that of the next.
    assert!(count.kill_and_confirm(confirm()) && count.resurrect() && count.kill_and_confirm(confirm()));
    domain.barrier();
    assert_eq!((called.load(SeqCst), Arc::strong_count(&called)), (1, 1));
    assert!(count.is_zero());
}

#[test]
fn a_fold_of_a_kill_that_was_called_off_does_not_end_the_next_kill_too_early() {
    let domain = still();
    let (count, releases) = released(&domain);
    assert!(count.kill());
    // Ends the grace period of this kill, and does not run its fold.
    for _ in 0..20 {
        assert_eq!(domain.reclaim(0), 0);
    }
    assert!(!count.is_zero() && count.resurrect());
    // In the section a thread could be counting in its slot.
    with_reader(&domain, || {
        assert!(count.kill());
        for _ in 0..50 {
            domain.reclaim(10);
        }
        assert!(!count.is_zero());
    });
    domain.barrier();
    assert!(count.is_zero());
    assert_eq!(releases.load(SeqCst), 1);
}

#[test]
fn resurrection_keeps_references_in_every_phase() {
    let domain = still();
    let (count, releases) = released(&domain);
    assert!(!count.resurrect(), "it is live");
    let first = count.try_get_live().unwrap();
    // Before the grace period is over.
    assert!(count.kill());
    let second = first.clone();
    assert!(count.resurrect());
    let third = count.try_get_live().unwrap();
    domain.barrier();
    // While references drain.
    assert!(count.kill());
    domain.barrier();
    drop(first);
    assert!(count.resurrect() && !count.is_zero());
    drop(second);
    let fourth = count.try_get_live().unwrap();
    assert!(count.kill());
    domain.barrier();
    drop(third);
    assert!(!count.is_zero());
    assert_eq!(releases.load(SeqCst), 0);
    drop(fourth);
    // After zero, before the release.
    assert!(count.is_zero() && count.resurrect() && !count.is_zero());
    domain.barrier();
    assert_eq!(releases.load(SeqCst), 1);
    let fifth = count.try_get_live().unwrap();
    assert!(count.kill());
    domain.barrier();
    assert!(!count.is_zero());
    drop(fifth);
    assert!(count.is_zero());
    domain.barrier();
    assert_eq!(releases.load(SeqCst), 2);
}

#[test]
fn wait_zero_returns_with_the_last_put_the_timeout_or_the_resurrection() {
    in_time(|| {
        let count = PercpuRef::new(&Domain::new());
        assert!(!count.wait_zero(Duration::MAX), "a live count does not come to zero");
        count.get();
        assert!(count.kill());
        let since = Instant::now();
        assert!(!count.wait_zero(Duration::from_millis(20)));
        assert!(since.elapsed() >= Duration::from_millis(20));
        for resurrects in [true, false] {
            thread::scope(|scope| {
                let waiting = scope.spawn(|| count.wait_zero(Duration::MAX));
                thread::sleep(SHORT);
                assert!(!waiting.is_finished());
                if resurrects {
                    assert!(count.resurrect());
                    assert!(!waiting.join().unwrap());
                    assert!(count.kill());
                } else {
                    count.put();
                    assert!(waiting.join().unwrap());
                }
            });
        }
    });
}

#[test]
fn wait_zero_is_refused_where_it_could_wait_for_itself() {
    let domain = Domain::new();
    let count = Arc::new(PercpuRef::new(&domain));
    count.kill();
    let guard = domain.pin();
    assert!(panic_of(|| count.wait_zero(SHORT)).contains("wait_zero"));
    drop(guard);
    let (send, refused) = mpsc::channel();
    let ours = Arc::clone(&count);
    domain.call(move || send.send(panic_of(|| ours.wait_zero(SHORT))).unwrap());
    domain.barrier();
    assert!(refused.recv().unwrap().contains("within a destructor or callback"));
    assert!(count.wait_zero(LONG));
}

#[test]
fn sections_of_another_domain_are_refused() {
    let (count, other) = (PercpuRef::new(&Domain::new()), Domain::new());
    let guard = other.pin();
    for refused in [
        panic_of(|| count.get_in(&guard)),
        panic_of(|| count.put_in(&guard)),
        panic_of(|| drop(count.try_get_live_in(&guard))),
    ] {
        assert!(refused.contains("another domain"), "{refused}");
    }
    let reference = count.try_get_live().unwrap();
    assert!(panic_of(|| reference.put_in(&guard)).contains("another domain"));
    drop(guard);
    count.kill();
    assert!(count.wait_zero(LONG), "the reference was put all the same");
}

#[test]
fn a_session_counts_without_a_pin() {
    let domain = still();
    let count = PercpuRef::new(&domain);
    let mut session = domain.session();
    let one = count.try_get_live_in(&session.section()).unwrap();
    count.get_in(&session.section());
    one.put_in(&session.section());
    count.kill();
    assert!(count.try_get_live_in(&session.section()).is_none());
    session.offline(|| domain.barrier());
    assert!(!count.is_zero());
    count.put_in(&session.section());
    assert!(count.is_zero());
}

#[test]
fn more_puts_than_gets_do_no_harm_but_to_the_count() {
    let domain = still();
    let (count, releases) = released(&domain);
    let reference = count.try_get_live().unwrap();
    // Unnoticed while the count is live, and more than there are references.
    (0..5).for_each(|_| count.put());
    assert!(count.kill());
    domain.barrier();
    assert!(count.is_zero());
    assert_eq!(releases.load(SeqCst), 1);
    // Beyond zero.
    drop(reference);
    (0..5).for_each(|_| count.put());
    domain.barrier();
    assert!(count.is_zero());
    assert_eq!(releases.load(SeqCst), 1);
    // A new life has no debts.
    assert!(count.resurrect());
    let reference = count.try_get_live().unwrap();
    assert!(count.kill());
    domain.barrier();
    assert!(!count.is_zero());
    drop(reference);
    assert!(count.is_zero());
    // A late get does not undo the release, and its put does not repeat it.
    domain.barrier();
    count.get();
    count.put();
    domain.barrier();
    assert!(count.is_zero());
    assert_eq!(releases.load(SeqCst), 2);
}

#[test]
fn panics_of_the_release_and_of_the_confirmation_are_contained_and_counted() {
    let domain = still();
    let count = PercpuRef::with_release(&domain, || panic!("planned"));
    let panics = || domain.stats().callback_panics;
    assert!(count.kill_and_confirm(|| panic!("planned")));
    domain.barrier();
    assert!(count.is_zero());
    assert_eq!(panics(), 2, "neither panic keeps the other callback from its run");
    assert!(count.resurrect());
    let reference = count.try_get_live();
    assert!(count.kill());
    domain.barrier();
    drop(reference);
    domain.barrier();
    assert!(count.is_zero());
    assert_eq!(panics(), 3);
}

#[test]
fn the_release_runs_after_the_drop_of_a_killed_count_but_not_of_a_live_one() {
    let domain = still();
    let (live, never) = released(&domain);
    live.get();
    drop(live);
    let (killed, once) = released(&domain);
    killed.kill();
    drop(killed);
    let (drained, later) = released(&domain);
    drained.get();
    drained.kill();
    domain.barrier();
    drained.put();
    drop(drained);
    domain.barrier();
    assert_eq!((never.load(SeqCst), once.load(SeqCst), later.load(SeqCst)), (0, 1, 1));
    assert_eq!((Arc::strong_count(&never), Arc::strong_count(&once), Arc::strong_count(&later)), (1, 1, 1));
}

#[test]
fn callbacks_and_destructors_may_kill_put_and_resurrect() {
    let domain = Domain::new();
    let count = Arc::new(PercpuRef::new(&domain));
    count.get();
    let ours = Arc::clone(&count);
    domain.call(move || assert!(ours.kill()));
    let ours = Arc::clone(&count);
    domain.call(move || {
        ours.put();
        assert!(ours.resurrect());
        drop(ours.try_get_live().unwrap());
        assert!(ours.kill());
    });
    domain.barrier();
    assert!(count.wait_zero(LONG));
    assert_eq!(domain.stats().callback_panics, 0);
}

#[test]
fn debug_shows_the_phase_and_the_count_once_there_is_one() {
    let domain = Domain::builder().name("shown").writers_only().build();
    let count = PercpuRef::new(&domain);
    let reference = count.try_get_live().unwrap();
    assert_eq!(format!("{count:?}"), "PercpuRef { domain: \"shown\", phase: Live, count: None }");
    count.kill();
    domain.barrier();
    assert_eq!(
        format!("{reference:?}"),
        "LiveRef { of: PercpuRef { domain: \"shown\", phase: Draining, count: Some(1) } }"
    );
}

thread_local! {
    /// References that a thread leaves to the destructor of a thread-local.
    static LEFT_EARLY: RefCell<Vec<LiveRef<'static>>> = const { RefCell::new(Vec::new()) };
    static LEFT_LATE: RefCell<Vec<LiveRef<'static>>> = const { RefCell::new(Vec::new()) };
}

/// Takes a further reference in the destructor of a thread-local, and leaves it.
struct TakesAtExit(&'static PercpuRef);

impl Drop for TakesAtExit {
    fn drop(&mut self) {
        drop(self.0.try_get_live());
        self.0.get();
    }
}

thread_local! {
    static TAKES: RefCell<Option<TakesAtExit>> = const { RefCell::new(None) };
}

#[test]
fn threads_that_end_lose_no_reference_nor_do_their_thread_local_destructors() {
    // (In a static, where LeakSanitizer finds it.)
    static COUNT: LazyLock<PercpuRef> = LazyLock::new(|| PercpuRef::new(&still()));
    let count: &'static PercpuRef = &COUNT;
    let domain = count.domain();
    for round in 0..times(50) {
        let threads: Vec<_> = (0..4)
            .map(|n| {
                thread::spawn(move || {
                    let take = || count.try_get_live().expect("it is live");
                    if n % 2 == 0 {
                        LEFT_EARLY.with(|left| left.borrow_mut().push(take()));
                    }
                    if n == round % 4 {
                        TAKES.with(|takes| *takes.borrow_mut() = Some(TakesAtExit(count)));
                    }
                    drop(take());
                    LEFT_LATE.with(|left| left.borrow_mut().push(take()));
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(count.kill());
        domain.barrier();
        assert!(!count.is_zero(), "one reference was left by a destructor");
        count.put();
        assert!(count.is_zero() && count.resurrect());
    }
}

/// Workers take and put, by guards, by hand, by sessions, and for each other. The count is killed and resurrected all the
/// time. Whenever zero is reached, no worker has a reference, and none gets one before the resurrection.
#[test]
fn zero_is_reached_exactly_when_no_reference_is_left() {
    in_time(|| {
        let domain = Domain::new();
        let (count, releases) = released(&domain);
        let (held, stop) = (AtomicI64::new(0), Stop::default());
        let (end, mut drained, mut called_off) = (Instant::now() + a_while(), 0, 0);
        let (send, receive) = mpsc::channel::<LiveRef<'_>>();
        thread::scope(|scope| {
            let _end = stop.at_end();
            let (count, held, stop, domain) = (&count, &held, &stop, &domain);
            let take = move || {
                let taken = count.try_get_live();
                held.fetch_add(i64::from(taken.is_some()), SeqCst);
                taken
            };
            scope.spawn(move || {
                while !stop.stopped() {
                    if let Some(reference) = take() {
                        let clone = reference.clone();
                        drop(reference);
                        held.fetch_sub(1, SeqCst);
                        drop(clone);
                    }
                }
            });
            scope.spawn(move || {
                while !stop.stopped() {
                    take().into_iter().for_each(|reference| send.send(reference).unwrap());
                    thread::yield_now();
                }
            });
            scope.spawn(move || {
                receive.iter().for_each(|reference| {
                    held.fetch_sub(1, SeqCst);
                    drop(reference);
                });
            });
            scope.spawn(move || {
                let mut session = domain.session();
                while !stop.stopped() {
                    for _ in 0..50 {
                        if let Some(reference) = count.try_get_live_in(&session.section()) {
                            held.fetch_add(1, SeqCst);
                            held.fetch_sub(1, SeqCst);
                            reference.put_in(&session.section());
                        }
                    }
                    session.offline(thread::yield_now);
                }
            });
            // Threads that come and go.
            scope.spawn(move || {
                while !stop.stopped() {
                    thread::scope(|inner| {
                        inner.spawn(|| {
                            if let Some(reference) = take() {
                                held.fetch_sub(1, SeqCst);
                                drop(reference);
                            }
                        });
                    });
                }
            });
            while Instant::now() < end || drained < 20 {
                assert!(count.kill());
                if drained % 3 == 2 {
                    // Called off, unless zero is reached first.
                    assert!(count.resurrect());
                    called_off += 1;
                    assert!(count.kill());
                }
                assert!(count.wait_zero(Duration::MAX));
                for _ in 0..10 {
                    assert_eq!(held.load(SeqCst), 0, "zero was reached with references");
                    assert!(count.is_zero());
                }
                drained += 1;
                assert!(count.resurrect());
            }
        });
        assert!(count.kill());
        assert!(count.wait_zero(LONG));
        domain.barrier();
        domain.barrier();
        assert_eq!(held.load(SeqCst), 0);
        let (least, released) = (drained + 1, releases.load(SeqCst));
        assert!((least..=least + called_off).contains(&released), "{released} releases for {least} drains");
    });
}
