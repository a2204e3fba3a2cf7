//! Reports of readers that hold up a grace period for long. By a clock of the tests' own, but for one.

use crate::common::{*};
use epoch_registry::{Domain, DomainBuilder, ManualClock, Registry, StallReport, WhenFull, *};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::{
    Arc, Mutex, {Arc, Mutex, mpsc},
};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::thread::{self, Scope};
use std::time::{
    Duration, Instant, {Duration, Instant},
};

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

/// What is reported where nobody looks for an idle minute, then a reader comes, and somebody looks after each of these steps
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
