//! Reports of readers that hold up a grace period for long. By a clock of the tests' own, but for one.

#![allow(clippy::derived_hash_with_manual_eq, clippy::type_complexity)]

use crate::common::*;
use epoch_registry::*;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::thread::Scope;
use std::time::{Duration, Instant};

const THRESHOLD: Duration = Duration::from_secs(21);

/// Where code of the user's finds the registry that calls it.
type Slot = Arc<Mutex<Option<Arc<Registry<u64, u64>>>>>;

type Reports = Arc<Mutex<Vec<StallReport>>>;

/// A domain whose time stands still, and where its reports go.
fn watched() -> (DomainBuilder, ManualClock, Reports) {
    let (clock, reports) = (ManualClock::new(), Reports::default());
    let log = Arc::clone(&reports);
    let builder = Domain::builder().name("watched").manual_clock(clock.clone());
    (builder.on_stall(move |report| log.lock().unwrap().push(report.clone())), clock, reports)
}

fn named<'scope>(scope: &'scope Scope<'scope, '_>, name: &str, f: impl FnOnce() + Send + 'scope) {
    thread::Builder::new().name(name.to_string()).spawn_scoped(scope, f).unwrap();
}

/// Holds a guard of `domain` on a thread of that name while `f` runs.
fn while_held(domain: &Domain, name: &str, f: impl FnOnce()) {
    let (reading, read) = channel();
    let (leave, left) = channel::<()>();
    thread::scope(|scope| {
        named(scope, name, move || {
            let _guard = domain.pin();
            reading.send(()).unwrap();
            left.recv().unwrap_err();
        });
        read.recv().unwrap();
        f();
        drop(leave);
    });
}

/// Garbage in `domain`, collected.
fn retire(domain: &Domain) {
    domain.call(|| ());
    domain.reclaim(0);
}

#[test]
fn a_stall_is_reported_once_at_its_threshold_and_again_at_growing_intervals() {
    let (builder, clock, reports) = watched();
    let domain = builder.build();
    while_held(&domain, "sleeper", || {
        retire(&domain);
        let mut reported_at = Vec::new();
        for second in 1..=400 {
            clock.advance(Duration::from_secs(1));
            domain.reclaim(0);
            let mut reports = reports.lock().unwrap();
            assert!(reports.len() <= 1);
            if let Some(report) = reports.pop() {
                assert_eq!(report.lasted.as_secs(), second);
                assert_eq!(report.repeats as usize, reported_at.len());
                assert_eq!(report.readers.len(), 1, "{report}");
                assert_eq!(report.readers[0].thread_name.as_deref(), Some("sleeper"));
                assert!(!report.readers[0].is_session);
                assert_eq!((report.backlog.objects, report.waiters), (1, 0));
                assert!(report.to_string().contains("domain `watched`: a grace period has lasted"), "{report}");
                assert!(report.to_string().contains("a guard of thread `sleeper` (ThreadId("), "{report}");
                reported_at.push(second);
            }
        }
        assert_eq!(reported_at, [21, 21 + 42, 21 + 42 + 84, 21 + 42 + 84 + 168]);
    });
    assert_eq!(domain.stats().stalls, 4);
    domain.barrier();
    clock.advance(10 * THRESHOLD);
    retire(&domain);
    domain.barrier();
    assert_eq!(domain.stats().stalls, 4);
}

#[test]
fn nothing_is_reported_when_nothing_waits_or_nobody_is_in_the_way() {
    let (builder, clock, reports) = watched();
    let domain = builder.build();
    while_held(&domain, "sleeper", || {
        // A grace period that was begun for a poll that no thread makes keeps no thread waiting.
        let cookie = domain.start_poll();
        for _ in 0..10 {
            clock.advance(THRESHOLD);
            domain.reclaim(0);
        }
        assert!(!domain.poll(cookie));
        assert!(reports.lock().unwrap().is_empty());
    });
    for _ in 0..10 {
        clock.advance(THRESHOLD);
        retire(&domain);
        clock.advance(THRESHOLD);
        domain.barrier();
    }
    // The reader left in time, and has come again.
    for _ in 0..10 {
        while_held(&domain, "regular", || {
            retire(&domain);
            clock.advance(THRESHOLD / 2);
            domain.reclaim(0);
        });
        clock.advance(THRESHOLD);
        domain.barrier();
    }
    assert!(reports.lock().unwrap().is_empty(), "{:?}", reports.lock().unwrap());
    assert_eq!(domain.stats().stalls, 0);
}

#[test]
fn callers_that_wait_are_counted_and_report_themselves() {
    let (builder, clock, reports) = watched();
    let domain = builder.build();
    while_held(&domain, "sleeper", || {
        thread::scope(|scope| {
            scope.spawn(|| {
                let cookie = domain.start_poll();
                assert!(!domain.poll_timeout(cookie, Duration::from_secs(4)));
            });
            // It looks every millisecond or so.
            assert!(soon(|| {
                clock.advance(THRESHOLD / 100);
                thread::sleep(Duration::from_millis(10));
                !reports.lock().unwrap().is_empty()
            }));
        });
    });
    let reports = reports.lock().unwrap();
    assert_eq!((reports[0].waiters, reports[0].backlog.objects), (1, 0));
    assert_eq!(reports[0].readers[0].thread_name.as_deref(), Some("sleeper"));
}

#[test]
fn of_many_readers_those_that_stay_are_named() {
    let (builder, clock, reports) = watched();
    let domain = builder.build();
    let registry: Registry<u64, u64> = Registry::builder().domain(domain.clone()).build();
    registry.try_insert(1, 1).unwrap();
    let stop = Stop::default();
    let ready = std::sync::Barrier::new(4);
    let wait = || {
        ready.wait();
        while !stop.stopped() {
            thread::sleep(Duration::from_millis(1));
        }
    };
    thread::scope(|scope| {
        // One with an idle session, one with an idle session that is offline, one that reads on by a session.
        let (registry, ready, stop, wait) = (&registry, &ready, &stop, &wait);
        named(scope, "idle", move || {
            let _reader = registry.reader();
            wait();
        });
        named(scope, "offline", move || {
            let mut reader = registry.reader();
            reader.offline(wait);
        });
        named(scope, "busy", move || {
            let mut reader = registry.reader();
            ready.wait();
            while !stop.stopped() {
                assert!(reader.contains_key(&1));
                let mut guard = registry.pin();
                guard.repin();
            }
        });
        ready.wait();
        let _end = stop.at_end();
        retire(&domain);
        clock.advance(THRESHOLD / 10);
        domain.reclaim(0);
        // Time for the one that reads on to say so.
        thread::sleep(Duration::from_millis(50));
        clock.advance(THRESHOLD);
        domain.reclaim(0);
        let reports = reports.lock().unwrap();
        assert_eq!(reports.len(), 1);
        let names: Vec<_> = reports[0].readers.iter().map(|reader| reader.thread_name.as_deref()).collect();
        assert_eq!(names, [Some("idle")], "{}", reports[0]);
        assert!(reports[0].readers[0].is_session);
    });
}

/// A reader that stays, under a flood: it is named, the policy engages, and when it leaves one barrier clears the backlog.
#[test]
fn a_reader_that_stays_under_a_flood_is_named_and_the_backlog_is_bounded_until_it_leaves() {
    let (builder, clock, reports) = watched();
    let domain = builder.backlog_objects(500).when_full(WhenFull::Refuse).build();
    let registry: Registry<u64, u64> = Registry::builder().domain(domain.clone()).shards(4).build();
    let mut refused = 0;
    while_held(&domain, "sleeper", || {
        for key in 0..5000 {
            registry.try_insert(key, key).unwrap();
            refused += usize::from(registry.fallible().remove(&key).is_err());
            clock.advance(THRESHOLD / 500);
            if key % 10 == 0 {
                // What writers do every few milliseconds of real time.
                domain.reclaim(0);
            }
        }
    });
    let report = reports.lock().unwrap().remove(0);
    assert_eq!(report.readers[0].thread_name.as_deref(), Some("sleeper"));
    assert!(report.lasted <= THRESHOLD.mul_f64(1.1), "{report}");
    let stats = domain.stats();
    assert!(refused > 4000 && stats.peak.objects <= 500, "{stats}");
    domain.barrier();
    assert_eq!(domain.backlog().objects, 0);
}

#[test]
fn the_handler_may_use_the_domain_but_not_wait_and_may_panic() {
    let (clock, seen) = (ManualClock::new(), Arc::new(Mutex::new(Vec::new())));
    let slot: Slot = Arc::default();
    let (inside, log) = (Arc::clone(&slot), Arc::clone(&seen));
    let domain = Domain::builder()
        .manual_clock(clock.clone())
        .on_stall(move |report| {
            let registry = inside.lock().unwrap().clone().unwrap();
            assert!(registry.domain().stats().backlog.objects >= 1);
            drop(registry.try_insert(7, 7));
            drop(registry.remove(&7));
            registry.domain().call(|| ());
            registry.domain().reclaim(10);
            log.lock().unwrap().push(panic_of(|| registry.domain().barrier()));
            assert!(report.repeats > 0, "the first time");
        })
        .build();
    let registry: Arc<Registry<u64, u64>> = Arc::new(Registry::builder().domain(domain.clone()).build());
    *slot.lock().unwrap() = Some(Arc::clone(&registry));
    within_a_minute(|| {
        while_held(&domain, "sleeper", || {
            retire(&domain);
            for _ in 0..10 {
                clock.advance(THRESHOLD / 2);
                domain.reclaim(0);
            }
        });
    });
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|message| message.contains("within a destructor or callback")), "{seen:?}");
    assert_eq!((domain.stats().callback_panics, domain.stats().stalls), (1, 2));
    *slot.lock().unwrap() = None;
}

/// By the real clock: with a reclaimer thread no other thread needs to look.
#[test]
fn a_reclaimer_thread_reports_within_a_tenth_of_the_threshold() {
    let threshold = Duration::from_secs(1);
    let (send, reports) = channel();
    let send = Mutex::new(send);
    let domain = Domain::builder()
        .reclaimer(true)
        .stall_after(threshold)
        .on_stall(move |report| drop(send.lock().unwrap().send((Instant::now(), report.clone()))))
        .build();
    let _guard = domain.pin();
    let begun = Instant::now();
    domain.call(|| ());
    let (at, report) = reports.recv_timeout(Duration::from_secs(20)).unwrap();
    let lasted = at - begun;
    assert!(lasted >= threshold && report.lasted <= threshold.mul_f64(1.1), "{lasted:?}, {report}");
    assert_eq!(report.readers[0].thread_id, thread::current().id());
}

/// The one report of a stall that lasts while `step` is called again and again: it must name a session of this thread.
fn names_a_session_of_this_thread(domain: &Domain, clock: &ManualClock, reports: &Reports, mut step: impl FnMut()) {
    reports.lock().unwrap().clear();
    retire(domain);
    for _ in 0..25 {
        clock.advance(THRESHOLD / 20);
        step();
        domain.reclaim(0);
    }
    let reports = reports.lock().unwrap();
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].readers.len(), 1, "{}", reports[0]);
    let reader = &reports[0].readers[0];
    assert!(reader.is_session && reader.thread_id == thread::current().id(), "{}", reports[0]);
}

/// The guard keeps the session in the critical section in which it was opened, whatever the session announces.
#[test]
fn a_session_with_a_forgotten_guard_is_named_though_it_reads_on() {
    let (builder, clock, reports) = watched();
    let domain = builder.build();
    let mut session = domain.session();
    std::mem::forget(session.pin());
    names_a_session_of_this_thread(&domain, &clock, &reports, || session.quiescent());
}

#[test]
fn a_session_with_a_forgotten_guard_is_named_though_it_is_offline_or_dropped() {
    let (builder, clock, reports) = watched();
    let domain = builder.build();
    let mut session = domain.session();
    std::mem::forget(session.pin());
    session.offline(|| names_a_session_of_this_thread(&domain, &clock, &reports, || ()));
    drop(session);
    assert!(domain.in_critical_section());
    // The stall of the same grace period is reported again.
    let before = reports.lock().unwrap().len();
    clock.advance(10 * THRESHOLD);
    domain.reclaim(0);
    let reports = reports.lock().unwrap();
    assert_eq!((reports.len(), reports[before].readers.len()), (before + 1, 1), "{}", reports[before]);
}

/// A guard that ends as it should, within the session, leaves the session as it was.
#[test]
fn a_session_whose_guards_are_dropped_is_not_named() {
    let (builder, clock, reports) = watched();
    let domain = builder.build();
    let mut session = domain.session();
    drop(session.pin());
    retire(&domain);
    for _ in 0..25 {
        clock.advance(THRESHOLD / 20);
        drop(session.pin());
        session.offline(|| domain.reclaim(0));
    }
    assert!(reports.lock().unwrap().is_empty());
}

/// What the section "Async" of `Session` says, with the text that it quotes.
#[test]
fn a_session_that_is_held_across_an_await_is_named() {
    let (builder, clock, reports) = watched();
    let domain = builder.build();
    let registry: Registry<u64, u64> = Registry::builder().domain(domain.clone()).build();
    registry.try_insert(1, 1).unwrap();
    thread::scope(|scope| {
        named(scope, "executor", || {
            let mut polled = false;
            let suspends_once = std::future::poll_fn(|_| match std::mem::replace(&mut polled, true) {
                false => Poll::Pending,
                true => Poll::Ready(()),
            });
            let mut task = pin!(async {
                let mut reader = registry.reader();
                assert_eq!(reader.get(&1).map(|entry| *entry), Some(1));
                suspends_once.await;
                drop(reader);
            });
            let mut context = Context::from_waker(Waker::noop());
            assert!(task.as_mut().poll(&mut context).is_pending());
            retire(&domain);
            for _ in 0..25 {
                clock.advance(THRESHOLD / 20);
                domain.reclaim(0);
            }
            assert!(task.as_mut().poll(&mut context).is_ready());
        });
    });
    let reports = reports.lock().unwrap();
    assert_eq!(reports.len(), 1);
    let (text, id) = (reports[0].to_string(), reports[0].readers[0].thread_id);
    let quoted = format!("held up by a session of thread `executor` ({id:?})");
    assert!(
        text.starts_with("domain `watched`: a grace period has lasted 21.0s, ") && text.contains(&quoted),
        "{text}"
    );
    println!("{text}");
}

// Who is reported, when, and who is not; how long a write waits.

type StallReports = Arc<Mutex<Vec<StallReport>>>;

fn watched_domain() -> (Domain, ManualClock, StallReports) {
    let reports = StallReports::default();
    let clock = ManualClock::new();
    let noted = Arc::clone(&reports);
    let domain = Domain::builder()
        .manual()
        .stall_after(Duration::from_secs(20))
        .manual_clock(clock.clone())
        .on_stall(move |report| noted.lock().unwrap().push(report.clone()))
        .build();
    (domain, clock, reports)
}

/// A thread that is registered with the domain, and holds a guard from `open` to `close`.
struct Holder(mpsc::Sender<()>, mpsc::Receiver<()>, thread::JoinHandle<()>);

fn ready(domain: &Domain, name: &str) -> Holder {
    let (order, wait) = mpsc::channel::<()>();
    let (done, is_done) = mpsc::channel();
    let domain = domain.clone();
    let thread = thread::Builder::new()
        .name(name.into())
        .spawn(move || {
            drop(domain.pin());
            done.send(()).unwrap();
            if wait.recv().is_err() {
                return;
            }
            let _guard = domain.pin();
            done.send(()).unwrap();
            let _ = wait.recv();
        })
        .unwrap();
    is_done.recv().unwrap();
    Holder(order, is_done, thread)
}

fn hold(domain: &Domain, name: &str) -> Holder {
    ready(domain, name).open()
}

impl Holder {
    fn open(self) -> Self {
        self.0.send(()).unwrap();
        self.1.recv().unwrap();
        self
    }

    fn close(self) {
        drop(self.0);
        self.2.join().unwrap();
    }
}

/// What is reported when no thread looks for an idle minute, then a reader comes, and a thread looks after each of these steps
/// of the clock.
fn reports_after_an_idle_minute(steps: &[Duration]) -> Vec<StallReport> {
    let (domain, clock, reports) = watched_domain();
    let registry: Registry<u64, u64> = Registry::builder().shards(1).capacity(99).domain(domain.clone()).build();
    (0..9).for_each(|key| drop(registry.try_insert(key, key)));
    let (brief, innocent) = (hold(&domain, "brief"), ready(&domain, "innocent"));
    registry.remove(&1);
    domain.reclaim(0);
    registry.remove(&2);
    domain.reclaim(0);
    brief.close();
    clock.advance(Duration::from_secs(60)); // idle: no reader, no writer
    let innocent = innocent.open();
    for step in steps {
        clock.advance(*step);
        domain.reclaim(100);
    }
    let found = reports.lock().unwrap().clone();
    innocent.close();
    found
}

#[test]
fn a_reader_that_has_just_come_is_not_reported() {
    let found = reports_after_an_idle_minute(&[Duration::ZERO]);
    assert!(found.is_empty(), "a reader that came 0 s ago is reported: {}", found[0]);
}

/// A twentieth of the threshold is not enough.
#[test]
fn a_reader_that_came_a_second_ago_is_not_reported() {
    let found = reports_after_an_idle_minute(&[Duration::ZERO, Duration::from_secs(1)]);
    assert!(found.is_empty(), "a reader that came 1 s ago is reported, where 20 s are allowed: {}", found[0]);
}

/// A reader stays, is reported, and leaves. The next grace period began as long ago; who reads now did not.
#[test]
fn after_a_stall_the_next_grace_period_names_nobody_who_has_just_come() {
    let (domain, clock, reports) = watched_domain();
    let registry: Registry<u64, u64> = Registry::builder().shards(1).capacity(99).domain(domain.clone()).build();
    (0..9).for_each(|key| drop(registry.try_insert(key, key)));
    drop(domain.pin()); // registers this thread
    let (innocent, culprit) = (ready(&domain, "innocent"), hold(&domain, "culprit"));
    for second in 0..25 {
        if second < 3 {
            registry.remove(&second);
        }
        domain.reclaim(100);
        clock.advance(Duration::from_secs(1));
    }
    let before = reports.lock().unwrap().clone();
    assert_eq!(before.len(), 1);
    assert_eq!(before[0].readers[0].thread_name.as_deref(), Some("culprit"));
    culprit.close();
    let innocent = innocent.open();
    domain.reclaim(100);
    innocent.close();
    let reports = reports.lock().unwrap();
    assert!(reports.len() == 1, "{}", reports[1]);
}

/// A grace period is reported when it is due, and not at every turn of a loop around `poll_timeout`.
#[test]
fn a_loop_of_poll_timeout_does_not_flood() {
    let (domain, clock, reports) = watched_domain();
    let culprit = hold(&domain, "culprit");
    let cookie = domain.start_poll();
    for _ in 0..50 {
        clock.advance(Duration::from_secs(1));
        assert!(!domain.poll_timeout(cookie, Duration::from_millis(1)));
    }
    culprit.close();
    let reports = reports.lock().unwrap();
    let repeats: Vec<_> = reports.iter().map(|report| report.repeats).collect();
    // At 20 s, and after 40 s more.
    assert!(reports.len() == 1, "{} reports of one grace period, repeats {repeats:?}", reports.len());
}

/// A session that reads on, nested guards and repins are not named.
#[test]
fn those_who_move_on_are_not_named() {
    let (domain, clock, reports) = watched_domain();
    let registry: Registry<u64, u64> = Registry::builder().shards(1).capacity(99).domain(domain.clone()).build();
    (0..9).for_each(|key| drop(registry.try_insert(key, key)));
    let culprit = hold(&domain, "culprit");
    let stop = Stop::default();
    thread::scope(|scope| {
        let _end = stop.at_end();
        scope.spawn(|| {
            let mut reader = registry.reader();
            while !stop.stopped() {
                reader.get(&1);
            }
        });
        scope.spawn(|| {
            let mut guard = registry.pin();
            while !stop.stopped() {
                guard.repin();
            }
        });
        scope.spawn(|| {
            while !stop.stopped() {
                let _outer = registry.pin();
                let _inner = domain.pin();
            }
        });
        let other = Domain::new();
        let _foreign = other.pin();
        registry.remove(&1);
        for _ in 0..25 {
            domain.reclaim(10);
            thread::sleep(Duration::from_millis(5));
            clock.advance(Duration::from_secs(1));
        }
    });
    culprit.close();
    let reports = reports.lock().unwrap();
    assert_eq!(reports.len(), 1);
    let names: Vec<_> = reports[0].readers.iter().map(|reader| reader.thread_name.clone()).collect();
    assert_eq!(names, [Some("culprit".to_string())]);
}

/// A handler that calls everything back.
#[test]
fn the_handler_may_call_back() {
    let done = Arc::new(AtomicU64::new(0));
    let slot: Arc<Mutex<Option<Arc<Registry<u64, u64>>>>> = Arc::default();
    let (count, found) = (Arc::clone(&done), Arc::clone(&slot));
    let clock = ManualClock::new();
    let time = clock.clone();
    let domain = Domain::builder()
        .manual_clock(clock.clone())
        .backlog_objects(4)
        .when_full(WhenFull::Wait(Duration::from_secs(1)))
        .on_stall(move |_| {
            let registry = found.lock().unwrap().clone().unwrap();
            let domain = registry.domain();
            domain.stats();
            domain.reclaim(10);
            time.advance(Duration::from_secs(1));
            registry.clear();
            let _ = registry.try_insert(5, 5);
            registry.remove(&5);
            domain.call(|| ());
            assert!(panic_of(|| domain.barrier()).contains("callback"));
            assert!(panic_of(|| domain.stop_reclaimer()).contains("callback"));
            count.fetch_add(1, SeqCst);
            panic!("contained");
        })
        .build();
    let registry: Arc<Registry<u64, u64>> =
        Arc::new(Registry::builder().shards(1).capacity(99).domain(domain.clone()).build());
    *slot.lock().unwrap() = Some(Arc::clone(&registry));
    (0..9).for_each(|key| drop(registry.try_insert(key, key)));
    let culprit = hold(&domain, "culprit");
    registry.remove(&1);
    domain.reclaim(1);
    clock.advance(Duration::from_secs(30));
    domain.reclaim(1);
    clock.advance(Duration::from_secs(20));
    domain.reclaim(1);
    assert_eq!(done.load(SeqCst), 1);
    culprit.close();
    *slot.lock().unwrap() = None;
    domain.barrier();
    assert_eq!(domain.stats().callback_panics, 1);
}

/// `clear` waits once, and not for each entry.
#[test]
fn a_sweep_waits_no_longer_than_told() {
    let domain = Domain::builder().backlog_objects(4).when_full(WhenFull::Wait(Duration::from_millis(50))).build();
    let registry: Registry<u64, u64> = Registry::builder().shards(1).capacity(999).domain(domain.clone()).build();
    (0..100).for_each(|key| drop(registry.try_insert(key, key)));
    let reader = hold(&domain, "reader");
    let since = Instant::now();
    registry.clear();
    let took = since.elapsed();
    reader.close();
    assert!(took < Duration::from_secs(1), "a `clear` of 100 entries waited {took:?}, told to wait 50 ms at the most");
}

/// A callback that is larger than the limit counts for half of it, so that it can go at all.
#[test]
fn a_large_callback_can_go_at_all() {
    let domain = Domain::builder().backlog_bytes(1000).when_full(WhenFull::Wait(Duration::from_secs(2))).build();
    let large = [0u8; 2000];
    let since = Instant::now();
    domain.call(move || assert_eq!(std::hint::black_box(large)[0], 0));
    let took = since.elapsed();
    assert!(
        domain.try_call(move || assert_eq!(std::hint::black_box(large)[0], 0)).is_ok() && took < Duration::from_secs(1)
    );
}

/// A place may be taken away by another thread of the same shard: how long a removal waits under contention.
#[test]
fn the_deadline_is_honoured_under_contention() {
    let patience = Duration::from_millis(20);
    let domain = Domain::builder().backlog_objects(1).when_full(WhenFull::Wait(patience)).build();
    let registry: Registry<u64, u64> = Registry::builder().shards(1).capacity(9999).domain(domain.clone()).build();
    let stop = AtomicBool::new(false);
    let worst = Mutex::new(Duration::ZERO);
    thread::scope(|scope| {
        for thread in 0..8u64 {
            let (stop, registry, worst) = (&stop, &registry, &worst);
            scope.spawn(move || {
                let mut n = 0;
                while !stop.load(SeqCst) {
                    n += 1;
                    let key = thread * 1000 + n % 100;
                    let _ = registry.try_insert(key, n);
                    let since = Instant::now();
                    let _ = registry.fallible().remove(&key);
                    let mut worst = worst.lock().unwrap();
                    *worst = (*worst).max(since.elapsed());
                }
            });
        }
        thread::sleep(Duration::from_secs(3));
        stop.store(true, SeqCst);
    });
    // Eight threads share the cores: none may have to wait for all of the others' patience, time after time.
    let worst = *worst.lock().unwrap();
    assert!(worst < 50 * patience, "a removal took {worst:?}");
}
