//! Reapers, loggers and destructors that call drivers, in situations in which threads could wait for each other.

use crate::common::{OnDrop, in_time, isolated, with_reader};
use crate::scripted::*;
use epoch_registry::pressure::{Demand, Driver, Reading};
use epoch_registry::{Domain, Reaped, Registry};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex, OnceLock, Weak};
use std::thread;
use std::time::Duration;

type Place = Arc<OnceLock<Weak<Driver>>>;

/// Makes a driver of one reaper, which calls `what` with the driver in `place`.
fn calling(place: &Place, what: impl Fn(&Driver) + Send + Sync + 'static) -> (Arc<Driver>, Arc<Fake>) {
    let other = Arc::clone(place);
    let reaper = Fake::with(10_000, 2, move |_| {
        if let Some(driver) = other.get().and_then(Weak::upgrade) {
            what(&driver);
        }
        Reaped::default()
    });
    (Arc::new(driver_of(&[&reaper])), reaper)
}

/// Two threads, each in a reaper of its own driver, call `what` with the driver of the other thread.
fn crossed(what: impl Fn(&Driver) + Send + Sync + Clone + 'static) {
    in_time(|| {
        let (first, second): (Place, Place) = Default::default();
        let meeting = Arc::new(Barrier::new(2));
        let once = || {
            let (meeting, what, times) = (Arc::clone(&meeting), what.clone(), AtomicUsize::new(0));
            move |driver: &Driver| {
                if times.fetch_add(1, SeqCst) == 0 {
                    meeting.wait();
                    what(driver);
                }
            }
        };
        let (one, _kept) = calling(&second, once());
        let (other, _also) = calling(&first, once());
        first.set(Arc::downgrade(&one)).unwrap();
        second.set(Arc::downgrade(&other)).unwrap();
        one.start().unwrap();
        other.start().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| one.relieve(Demand::Round(0)));
            scope.spawn(|| other.relieve(Demand::Round(0)));
        });
    });
}

#[test]
fn reapers_of_two_drivers_may_relieve_each_other() {
    crossed(|driver| assert!(driver.relieve(Demand::Round(0)).rounds <= 1));
}

#[test]
fn reapers_of_two_drivers_may_check_each_other() {
    crossed(|driver| assert!(driver.check().is_none()));
}

#[test]
fn reapers_of_two_drivers_may_stop_each_other() {
    crossed(Driver::stop);
}

#[test]
fn reapers_of_two_drivers_may_ask_each_other_for_figures() {
    crossed(|driver| assert!(!format!("{driver:?} {}", driver.stats()).is_empty()));
}

/// The hook waits in a barrier. Meanwhile destructors and readers that the barrier waits for call the driver.
#[test]
fn destructors_and_readers_that_a_hook_waits_for_may_call_its_driver() {
    let what: [fn(&Driver); 3] = [
        |driver| assert!(driver.relieve(Demand::Round(0)).panics <= 1),
        |driver| assert!(driver.check().is_none()),
        Driver::stop,
    ];
    for what in what {
        in_time(move || {
            let domain = Domain::new();
            let (of_hook, waits) = (domain.clone(), Arc::new(Barrier::new(2)));
            let (place, meeting): (Place, _) = (Place::default(), Arc::clone(&waits));
            let once = AtomicUsize::new(0);
            let hook = move |_: &_| {
                if once.fetch_add(1, SeqCst) == 0 {
                    meeting.wait();
                    of_hook.barrier();
                }
            };
            let driver = Arc::new(Driver::builder().on_shed(hook).build());
            driver.start().unwrap();
            place.set(Arc::downgrade(&driver)).unwrap();
            let theirs = Arc::clone(&driver);
            let relieving = thread::spawn(move || theirs.relieve(Demand::Round(0)));
            // First case: the call comes from a destructor.
            let registry: Registry<u64, OnDrop> = Registry::builder().domain(domain.clone()).build();
            let (begun, found) = (Arc::clone(&waits), Arc::clone(&place));
            let value = OnDrop::new(move || {
                begun.wait();
                thread::sleep(Duration::from_millis(50));
                what(&found.get().unwrap().upgrade().unwrap());
            });
            drop(registry.try_insert(1, value));
            drop(registry.remove(&1));
            domain.barrier();
            relieving.join().unwrap();
        });
        in_time(move || {
            let domain = Domain::new();
            let (of_hook, waits) = (domain.clone(), Arc::new(Barrier::new(2)));
            let (meeting, once) = (Arc::clone(&waits), AtomicUsize::new(0));
            let hook = move |_: &_| {
                if once.fetch_add(1, SeqCst) == 0 {
                    meeting.wait();
                    of_hook.barrier();
                }
            };
            let driver = Arc::new(Driver::builder().on_shed(hook).build());
            driver.start().unwrap();
            let theirs = Arc::clone(&driver);
            let relieving = thread::spawn(move || theirs.relieve(Demand::Round(0)));
            // Second case: the call comes from a critical section.
            let guard = domain.pin();
            waits.wait();
            what(&driver);
            drop(guard);
            relieving.join().unwrap();
        });
    }
}

#[test]
fn a_driver_may_be_dropped_in_a_destructor_that_its_hook_waits_for() {
    in_time(|| {
        let domain = Domain::new();
        let (of_hook, waits) = (domain.clone(), Arc::new(Barrier::new(2)));
        let meeting = Arc::clone(&waits);
        let once = AtomicUsize::new(0);
        let hook = move |_: &_| {
            if once.fetch_add(1, SeqCst) == 0 {
                meeting.wait();
                of_hook.barrier();
            }
        };
        let (source, pressure) = epoch_registry::pressure::Manual::new("test");
        let driver = Driver::builder().source(source).on_shed(hook).start().unwrap();
        let registry: Registry<u64, OnDrop> = Registry::builder().domain(domain.clone()).build();
        let value = OnDrop::new(move || {
            waits.wait();
            thread::sleep(Duration::from_millis(50));
            drop(driver);
        });
        drop(registry.try_insert(1, value));
        drop(registry.remove(&1));
        pressure.raise();
        domain.barrier();
    });
}

/// In an `Eq` that runs under a shard lock, a driver does nothing.
#[test]
fn a_driver_that_is_called_in_an_eq_does_nothing() {
    static DRIVER: OnceLock<Driver> = OnceLock::new();
    static RELIEVED: Mutex<Option<u32>> = Mutex::new(None);
    #[allow(clippy::derived_hash_with_manual_eq)]
    #[derive(Hash, Clone)]
    struct Key(u64);
    impl PartialEq for Key {
        fn eq(&self, other: &Key) -> bool {
            if let Some(driver) = DRIVER.get() {
                let mut relieved = RELIEVED.lock().unwrap();
                relieved.get_or_insert_with(|| driver.relieve(Demand::Round(0)).rounds);
                drop(relieved);
                drop((driver.check(), driver.stats()));
            }
            self.0 == other.0
        }
    }
    impl Eq for Key {}
    in_time(|| {
        let registry: Arc<Registry<Key, u64>> = Arc::new(isolated());
        registry.try_insert(Key(1), 1).ok().unwrap();
        let driver = Driver::builder().build();
        driver.add(&registry);
        DRIVER.set(driver).unwrap();
        drop(registry.remove(&Key(1)));
        assert_eq!(*RELIEVED.lock().unwrap(), Some(0));
    });
}

/// A logger that calls `stats`, `relieve`, `check` and `stop` of the driver for each line.
struct Asking(Mutex<Vec<Arc<Driver>>>);

static LOGGER: Asking = Asking(Mutex::new(Vec::new()));
static LINES: AtomicUsize = AtomicUsize::new(0);

impl log::Log for Asking {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if !record.args().to_string().contains("asked by the logger") {
            return;
        }
        let drivers = self.0.lock().unwrap().clone();
        for driver in drivers {
            assert!(driver.stats().checks > 0);
            driver.relieve(Demand::Round(12));
            driver.check();
            driver.stop();
            // Another thread may call the driver too.
            thread::spawn(move || driver.relieve(Demand::Round(12))).join().unwrap();
            LINES.fetch_add(1, SeqCst);
        }
    }

    fn flush(&self) {}
}

#[test]
fn a_logger_may_call_the_driver_that_logs() {
    in_time(|| {
        log::set_logger(&LOGGER).unwrap();
        log::set_max_level(log::LevelFilter::Warn);
        let next: Next = Arc::new(Mutex::new(Err("asked by the logger")));
        let driver = Arc::new(Driver::builder().source(Script(Arc::clone(&next))).build());
        LOGGER.0.lock().unwrap().push(Arc::clone(&driver));
        driver.check();
        assert_eq!(LINES.load(SeqCst), 1);
        *next.lock().unwrap() = Ok(Reading::Quiet);
        driver.check();
        *next.lock().unwrap() = Err("asked by the logger");
        driver.start().unwrap();
        wait_for("the line", || LINES.load(SeqCst) == 2);
        LOGGER.0.lock().unwrap().clear();
    });
}

/// A name that asks the driver for its figures when it is converted to a string.
struct Asks<'d>(&'d Driver);

impl From<Asks<'_>> for String {
    fn from(asks: Asks<'_>) -> String {
        format!("{} reapers", asks.0.stats().reapers.len())
    }
}

#[test]
fn a_name_may_be_made_of_the_drivers_figures() {
    in_time(|| {
        let (driver, reaper) = (Driver::builder().build(), Fake::new(1, 2));
        driver.add_named(Asks(&driver), &reaper);
        driver.add_named(Asks(&driver), &reaper);
        let names: Vec<_> = driver.stats().reapers.into_iter().map(|reaper| reaper.name).collect();
        assert_eq!(names, ["0 reapers", "1 reapers"]);
    });
}

#[test]
fn a_driver_whose_gate_is_taken_waits_unless_in_a_critical_section() {
    in_time(|| {
        let (begun, calls) = (Arc::new(Barrier::new(2)), Arc::new(AtomicUsize::new(0)));
        let (meeting, count) = (Arc::clone(&begun), Arc::clone(&calls));
        let slow = Fake::with(10_000, 2, move |_| {
            if count.fetch_add(1, SeqCst) == 0 {
                meeting.wait();
                thread::sleep(Duration::from_millis(50));
            }
            Reaped::default()
        });
        let driver = driver_of(&[&slow]);
        thread::scope(|scope| {
            scope.spawn(|| driver.relieve(Demand::Round(3)));
            begun.wait();
            assert_eq!(driver.relieve(Demand::Round(3)).rounds, 1);
        });
        // In a critical section it does not wait.
        with_reader(&Domain::new(), || assert_eq!(driver.relieve(Demand::Round(3)).rounds, 1));
    });
}

#[test]
fn intervals_may_be_zero_and_endless() {
    let next: Next = Arc::new(Mutex::new(Ok(Reading::Quiet)));
    let often = Driver::builder().interval(Duration::ZERO).source(Script(Arc::clone(&next))).start().unwrap();
    thread::sleep(Duration::from_millis(200));
    let checks = often.stats().checks;
    assert!((5..=250).contains(&checks), "{checks} checks in 200 ms");
    drop(often);
    *next.lock().unwrap() = Ok(Reading::Bytes(1));
    let stops = Fake::with(10_000, 2, |_| stopped());
    for quiet in [Duration::ZERO, Duration::MAX] {
        let source = Script(Arc::clone(&next));
        let never = Driver::builder().interval(Duration::MAX).quiet(quiet).source(source).build();
        never.add(&stops);
        assert!(never.check().is_some_and(|relieved| relieved.reaped.stopped));
        never.start().unwrap();
        wait_for("a check", || never.stats().checks >= 2);
        assert_eq!(never.stats().panics, 0);
        *next.lock().unwrap() = Ok(Reading::Event);
        never.check();
    }
}
