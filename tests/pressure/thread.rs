//! The driver's thread: what wakes it, and what ends it.

use crate::common::{isolated_builder, times};
use crate::scripted::*;
use epoch_registry::pressure::{Demand, Driver, Manual};
#[cfg(target_os = "linux")]
use epoch_registry::pressure::{Reading, Source, SourceState, Unavailable};
use epoch_registry::{Domain, Registry};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[test]
fn a_manual_source_drives_the_thread_and_the_registry_shrinks() {
    let registry = isolated_builder::<u64, Vec<u8>>().weigher(|_, value: &Vec<u8>| value.len()).build();
    let registry = Arc::new(registry);
    (0..10_000).for_each(|key| drop(registry.try_insert(key, vec![0; 100]).unwrap()));
    let (source, pressure) = Manual::new("test");
    let driver = Driver::builder().name("drives").source(source).start().unwrap();
    driver.add_named("values", &registry);
    let weight = registry.weight();
    pressure.demand(weight / 2);
    wait_for("half the weight", || registry.weight() <= weight / 2);
    pressure.raise();
    wait_for("the event", || driver.stats().sources[0].events == 2);
    pressure.demand(u64::MAX);
    wait_for("everything", || registry.is_empty());
    wait_for("the figures", || driver.stats().demands == 3);
    let stats = driver.stats();
    assert_eq!((stats.removed, stats.reapers[0].removed, stats.panics), (10_000, 10_000, 0));
    let text = stats.to_string();
    assert!(text.contains("\n  source test: works, events 3") && text.contains("\n  reaper values: "), "{text}");
}

#[test]
fn the_thread_is_stopped_and_joined_and_may_be_started_again() {
    let (source, pressure) = Manual::new("test");
    let (called, alive) = (Arc::new(AtomicUsize::new(0)), Arc::new(()));
    let held = Arc::downgrade(&alive);
    let count = Arc::clone(&called);
    let hook = move |_: &_| {
        let _alive = &alive;
        count.fetch_add(1, SeqCst);
    };
    let driver = Driver::builder().source(source).on_shed(hook).build();
    pressure.raise();
    driver.start().unwrap();
    driver.start().unwrap();
    wait_for("the hook", || called.load(SeqCst) == 1);
    driver.stop();
    driver.stop();
    pressure.raise();
    assert_eq!(called.load(SeqCst), 1, "the hook was called without a thread");
    driver.start().unwrap();
    wait_for("the hook", || called.load(SeqCst) == 2);
    drop(driver);
    assert_eq!(held.strong_count(), 0, "the thread was not joined");
    pressure.raise();
}

#[test]
fn a_driver_may_be_dropped_by_its_own_thread() {
    let (source, pressure) = Manual::new("test");
    let (held, done) = (Arc::new(Mutex::new(None)), Arc::new(AtomicBool::new(false)));
    let (place, flag) = (Arc::clone(&held), Arc::clone(&done));
    let hook = move |_: &_| {
        // The driver is dropped after the lock is released.
        let driver = place.lock().unwrap().take();
        drop::<Option<Driver>>(driver);
        flag.store(true, SeqCst);
    };
    *held.lock().unwrap() = Some(Driver::builder().source(source).on_shed(hook).start().unwrap());
    pressure.raise();
    wait_for("the drop", || done.load(SeqCst));
    // The thread ends, and drops everything it holds.
    wait_for("its end", || Arc::strong_count(&done) == 1);
}

#[test]
fn a_hook_that_panics_is_counted() {
    let driver = Driver::builder().on_shed(|_| panic!("not today")).build();
    driver.relieve(Demand::Round(0));
    assert_eq!((driver.relieve(Demand::Round(0)).met, driver.stats().panics), (true, 2));
}

#[test]
fn a_driver_and_many_writers_do_not_block_each_other() {
    let (source, pressure) = Manual::new("test");
    let driver = Driver::builder().source(source).start().unwrap();
    let domain = Domain::new();
    let registries: Vec<Arc<Registry<usize, usize>>> =
        (0..3).map(|_| Arc::new(Registry::builder().domain(domain.clone()).build())).collect();
    registries.iter().for_each(|registry| driver.add(registry));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (registries, driver, pressure) = (&registries, &driver, pressure.clone());
            scope.spawn(move || {
                for key in 0..times(20_000) {
                    let registry = &registries[key % 3];
                    drop(registry.insert(key * 4 + thread, key));
                    match key % 512 {
                        0 => pressure.raise(),
                        128 => pressure.demand(1000),
                        256 => assert_eq!(driver.relieve(Demand::Bytes(1000)).panics, 0),
                        384 => assert!(driver.check().is_none_or(|relieved| relieved.panics == 0)),
                        _ => {}
                    }
                }
            });
        }
    });
    drop(driver);
    domain.barrier();
    for registry in registries {
        let stats = registry.stats();
        assert_eq!(stats.inserted, stats.live + stats.reaped + stats.replaced + stats.removed);
    }
}

/// A source with a descriptor.
#[cfg(target_os = "linux")]
struct Wire(std::os::unix::net::UnixStream);

#[cfg(target_os = "linux")]
impl Source for Wire {
    fn name(&self) -> &str {
        "wire"
    }

    fn check(&mut self, signalled: bool) -> Result<Reading, Unavailable> {
        Ok(if signalled { Reading::Event } else { Reading::Quiet })
    }

    fn descriptor(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        Some(std::os::fd::AsFd::as_fd(&self.0))
    }

    fn is_polled(&self) -> bool {
        false
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_lost_descriptor_is_reported_and_no_longer_polled() {
    let (source, peer) = std::os::unix::net::UnixStream::pair().unwrap();
    let (manual, pressure) = Manual::new("manual");
    let driver = Driver::builder().source(Wire(source)).source(manual).start().unwrap();
    wait_for("a check", || driver.stats().sources[0].state == SourceState::Works);
    drop(peer);
    wait_for("the loss", || driver.stats().sources[0].state == SourceState::Lost);
    let looks = driver.stats().checks;
    pressure.raise();
    wait_for("the event", || driver.stats().demands == 1);
    let stats = driver.stats();
    // One check may have been under way.
    assert!(stats.sources[0].events == 0 && stats.checks <= looks + 2, "the thread spins: {stats}");
}

/// A clock that panics at its first call.
struct Broken(AtomicBool);

impl epoch_registry::Clock for Broken {
    fn now(&self) -> Duration {
        assert!(!self.0.swap(false, SeqCst), "broken");
        Duration::ZERO
    }
}

#[test]
fn a_panic_of_the_clock_ends_neither_the_driver_nor_its_thread() {
    let (source, pressure) = Manual::new("test");
    let clock = Broken(AtomicBool::new(true));
    let driver = Driver::builder().source(source).clock(clock).start().unwrap();
    wait_for("the panic", || driver.stats().panics == 1);
    pressure.raise();
    wait_for("the event", || driver.stats().demands == 1);
}

/// Other threads may use a driver and its waker.
#[test]
fn a_driver_can_be_shared_by_threads() {
    fn is_shared<T: Send + Sync>(_: &T) {}
    let driver = Driver::builder().build();
    is_shared(&driver);
    is_shared(&driver.waker());
    driver.waker().wake();
    assert!(format!("{driver:?}").starts_with("Driver"));
}
