//! Reports of readers that hold up a grace period for long. All tests but one use a manual clock.

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

/// A slot in which user code finds the registry that calls it.
type Slot = Arc<Mutex<Option<Arc<Registry<u64, u64>>>>>;

type Reports = Arc<Mutex<Vec<StallReport>>>;

/// Returns the builder of a domain with a manual clock, the clock, and the stall reports. No thread but those of the
/// test reports: it would do so after another step of the clock.
fn watched() -> (DomainBuilder, ManualClock, Reports) {
    let (clock, reports) = (ManualClock::new(), Reports::default());
    let log = Arc::clone(&reports);
    let builder = Domain::builder().name("watched").manual().manual_clock(clock.clone());
    (builder.on_stall(move |report| log.lock().unwrap().push(report.clone())), clock, reports)
}

fn named<'scope>(scope: &'scope Scope<'scope, '_>, name: &str, f: impl FnOnce() + Send + 'scope) {
    thread::Builder::new().name(name.to_string()).spawn_scoped(scope, f).unwrap();
}

/// Runs `f` while a thread with that name holds a guard of `domain`.
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

/// Retires a callback in `domain`, and collects it.
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
fn without_waiting_objects_or_a_stalled_reader_nothing_is_reported() {
    let (builder, clock, reports) = watched();
    let domain = builder.build();
    while_held(&domain, "sleeper", || {
        // A cookie that no thread polls makes no thread wait.
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
    // The reader leaves in time, and comes again.
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
fn waiting_callers_are_counted_and_report_stalls() {
    let (builder, clock, reports) = watched();
    let domain = builder.build();
    while_held(&domain, "sleeper", || {
        thread::scope(|scope| {
            scope.spawn(|| {
                let cookie = domain.start_poll();
                assert!(!domain.poll_timeout(cookie, Duration::from_secs(4)));
            });
            // The waiting thread checks for a stall every millisecond or so.
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
fn of_many_readers_the_report_names_only_the_stalled_ones() {
    let (builder, clock, reports) = watched();
    let domain = builder.build();
    let registry: Registry<u64, u64> = Registry::builder().domain(domain.clone()).build();
    registry.try_insert(1, 1).unwrap();
    let stop = Stop::default();
    let (ready, rounds) = (std::sync::Barrier::new(4), AtomicU64::new(0));
    let wait = || {
        ready.wait();
        while !stop.stopped() {
            thread::sleep(Duration::from_millis(1));
        }
    };
    thread::scope(|scope| {
        // One thread has an idle session, one has an offline session, and one reads all the time.
        let (registry, ready, rounds, stop, wait) = (&registry, &ready, &rounds, &stop, &wait);
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
                rounds.fetch_add(1, SeqCst);
            }
        });
        ready.wait();
        let _end = stop.at_end();
        retire(&domain);
        clock.advance(THRESHOLD / 10);
        domain.reclaim(0);
        // Gives the reading session time to announce a quiescent state.
        let before = rounds.load(SeqCst);
        assert!(soon(|| rounds.load(SeqCst) >= before + 3));
        clock.advance(THRESHOLD);
        domain.reclaim(0);
        let reports = reports.lock().unwrap();
        assert_eq!(reports.len(), 1);
        let names: Vec<_> = reports[0].readers.iter().map(|reader| reader.thread_name.as_deref()).collect();
        assert_eq!(names, [Some("idle")], "{}", reports[0]);
        assert!(reports[0].readers[0].is_session);
    });
}

/// A reader stays during a flood. The report names it, the limit holds, and when the reader leaves, one barrier clears
/// the backlog.
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
                // A writer does this every few milliseconds of real time.
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
        .manual()
        .manual_clock(clock.clone())
        .on_stall(move |report| {
            let registry = inside.lock().unwrap().clone().unwrap();
            assert!(registry.domain().stats().backlog.objects >= 1);
            drop(registry.try_insert(7, 7));
            drop(registry.remove(&7));
            registry.domain().call(|| ());
            registry.domain().reclaim(10);
            log.lock().unwrap().push(panic_of(|| registry.domain().barrier()));
            assert!(report.repeats > 0, "planned panic of the first report");
        })
        .build();
    let registry: Arc<Registry<u64, u64>> = Arc::new(Registry::builder().domain(domain.clone()).build());
    *slot.lock().unwrap() = Some(Arc::clone(&registry));
    in_time(|| {
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

/// This test uses the real clock. With a reclaimer thread, no other thread needs to check for stalls.
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

/// Checks that one stall, during which `step` is called again and again, gives one report, and that the report names a
/// session of this thread.
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

/// The forgotten guard keeps its critical section open, although the session announces quiescent states.
#[test]
fn a_session_with_a_forgotten_guard_is_named_although_it_announces_quiescent_states() {
    let (builder, clock, reports) = watched();
    let domain = builder.build();
    let mut session = domain.session();
    std::mem::forget(session.pin());
    names_a_session_of_this_thread(&domain, &clock, &reports, || session.quiescent());
}

#[test]
fn a_session_with_a_forgotten_guard_is_named_although_it_is_offline_or_dropped() {
    let (builder, clock, reports) = watched();
    let domain = builder.build();
    let mut session = domain.session();
    std::mem::forget(session.pin());
    session.offline(|| names_a_session_of_this_thread(&domain, &clock, &reports, || ()));
    drop(session);
    assert!(domain.in_critical_section());
    // The same stall is reported again.
    let before = reports.lock().unwrap().len();
    clock.advance(10 * THRESHOLD);
    domain.reclaim(0);
    let reports = reports.lock().unwrap();
    assert_eq!((reports.len(), reports[before].readers.len()), (before + 1, 1), "{}", reports[before]);
}

/// A guard that is dropped within its session does not keep the session in a critical section.
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

/// Checks what the section "Async" of `Session` says, and the text that it quotes.
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

// Which readers are reported and when, which are not, and how long a write waits.

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

/// A thread that is registered with a domain. It holds a guard from `open` to `close`.
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

/// Returns the reports in this case: no thread checks for an idle minute, then a reader comes. After that a thread
/// checks after each of these steps of the clock.
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
    clock.advance(Duration::from_secs(60)); // An idle minute without readers and writers.
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
    assert!(found.is_empty(), "the report names a reader that came 0 s ago: {}", found[0]);
}

/// A twentieth of the threshold is not enough for a report.
#[test]
fn a_reader_that_came_a_second_ago_is_not_reported() {
    let found = reports_after_an_idle_minute(&[Duration::ZERO, Duration::from_secs(1)]);
    assert!(found.is_empty(), "the report names a reader that came 1 s ago, although 20 s are allowed: {}", found[0]);
}

/// A reader stays, is reported, and leaves. The next grace period began just as long ago. But the reader that reads now
/// has just come.
#[test]
fn after_a_stall_the_next_report_names_no_reader_that_has_just_come() {
    let (domain, clock, reports) = watched_domain();
    let registry: Registry<u64, u64> = Registry::builder().shards(1).capacity(99).domain(domain.clone()).build();
    (0..9).for_each(|key| drop(registry.try_insert(key, key)));
    drop(domain.pin()); // Registers this thread.
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

/// A stall is reported when a report is due, and not in every iteration of a loop around `poll_timeout`.
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
    // The first report is due at 20 s, and the second 40 s later.
    assert!(reports.len() == 1, "{} reports of one grace period, repeats {repeats:?}", reports.len());
}

/// A report does not name a session that announces quiescent states, nested guards that are dropped, or a guard that
/// repins.
#[test]
fn readers_that_move_on_are_not_named() {
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

/// The stall handler calls every kind of operation.
#[test]
fn the_handler_may_call_the_registry_and_domain() {
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

/// `clear` waits only once, not for each entry.
#[test]
fn a_sweep_waits_no_longer_than_its_patience() {
    let domain = Domain::builder().backlog_objects(4).when_full(WhenFull::Wait(Duration::from_millis(50))).build();
    let registry: Registry<u64, u64> = Registry::builder().shards(1).capacity(999).domain(domain.clone()).build();
    (0..100).for_each(|key| drop(registry.try_insert(key, key)));
    let reader = hold(&domain, "reader");
    let since = Instant::now();
    registry.clear();
    let took = since.elapsed();
    reader.close();
    assert!(took < Duration::from_secs(1), "a `clear` of 100 entries waited {took:?}, with a patience of 50 ms");
}

/// A callback larger than the limit counts for half of the limit. Otherwise it could never be passed.
#[test]
fn a_callback_larger_than_the_limit_can_be_passed() {
    let domain = Domain::builder().backlog_bytes(1000).when_full(WhenFull::Wait(Duration::from_secs(2))).build();
    let large = [0u8; 2000];
    let since = Instant::now();
    domain.call(move || assert_eq!(std::hint::black_box(large)[0], 0));
    let took = since.elapsed();
    assert!(
        domain.try_call(move || assert_eq!(std::hint::black_box(large)[0], 0)).is_ok() && took < Duration::from_secs(1)
    );
}

/// Another thread of the same shard may take the place that a removal waits for. The test measures how long a removal
/// waits under contention.
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
    // Eight threads share the cores. No thread may wait for the patience of all others again and again.
    let worst = *worst.lock().unwrap();
    assert!(worst < 50 * patience, "a removal took {worst:?}");
}
