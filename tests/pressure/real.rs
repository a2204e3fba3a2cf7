//! Real sources, if this machine has them.

use crate::scripted::*;
use epoch_registry::pressure::{
    Available, Cgroup, Driver, Marks, Own, Reading, Source, SourceState, Unavailable, Version, detect,
};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// Prints what cannot be tested on this machine.
fn is_there<S>(source: Result<S, Unavailable>) -> Option<S> {
    source.map_err(|why| eprintln!("NOT TESTED on this machine: {why}")).ok()
}

/// Lets a driver check this source once, and returns the source's state and last reading.
fn looked_at(source: impl Source) -> (SourceState, Option<Reading>) {
    let driver = Driver::builder().source(source).build();
    driver.check();
    let stats = driver.stats();
    eprintln!("{stats}");
    (stats.sources[0].state.clone(), stats.sources[0].last)
}

#[test]
fn own_memory_is_read_and_a_limit_below_it_demands() {
    let Some(mut own) = is_there(Own::new(1 << 50)) else { return };
    let before = own.used().unwrap();
    let ballast = vec![1_u8; 64 << 20];
    let after = own.used().unwrap();
    assert!(after > before + (32 << 20), "{before} before, {after} after 64 MiB more");
    assert!(ballast.iter().all(|byte| *byte == 1));
    let fake = Fake::with(1 << 20, 2, |asked| removed(asked, 4096 * asked as u64));
    let driver = Driver::builder().source(Own::new(after / 2).unwrap()).build();
    driver.add(&fake);
    assert!(driver.check().unwrap().met);
}

#[test]
fn available_memory_is_read() {
    let Some(available) = is_there(Available::new()) else { return };
    let (state, last) = looked_at(available.marks(Marks::new(1.0, 1.0)));
    let Some(Reading::Level(level)) = last else { panic!("{state:?}, {last:?}") };
    assert!(level.used > 0 && level.used < level.limit && level.limit > 16 << 20);
}

#[test]
fn control_groups_are_read() {
    for version in [Version::V2, Version::V1] {
        let Some(group) = is_there(Cgroup::new(version)) else { continue };
        let (state, last) = looked_at(group.marks(Marks::new(1.0, 1.0)));
        let Some(Reading::Level(level)) = last else { panic!("{state:?}, {last:?}") };
        assert!(level.used > 0 && level.used <= level.limit * 11 / 10, "{level}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn pressure_stall_information_on_memory_is_waited_for() {
    use epoch_registry::pressure::{Psi, Trigger};
    let (psi, missing) = Psi::detect(Trigger::default());
    missing.iter().for_each(|why| eprintln!("NOT TESTED on this machine: {why}"));
    let Some(psi) = psi else { return };
    eprintln!("{} with {:?}", psi.name(), psi.trigger());
    assert_eq!(looked_at(psi).0, SourceState::Works);
}

/// The test uses pressure on the processor: it has the same interface, and a test can cause it.
#[cfg(target_os = "linux")]
#[test]
fn an_event_of_pressure_stall_information_wakes_the_thread() {
    use epoch_registry::pressure::{Psi, Trigger};
    let trigger = Trigger { full: false, threshold: Duration::from_millis(5), window: Duration::from_millis(500) };
    let Some(psi) = is_there(Psi::with("/proc/pressure/cpu", trigger)) else { return };
    eprintln!("{} with {:?}", psi.name(), psi.trigger());
    let fake = Fake::with(1 << 16, 2, |_| removed(1, 1));
    let driver = Driver::builder().source(psi).start().unwrap();
    driver.add(&fake);
    let done = AtomicBool::new(false);
    let threads = 4 * std::thread::available_parallelism().map_or(1, |cores| cores.get());
    std::thread::scope(|scope| {
        (0..threads).for_each(|_| {
            scope.spawn(|| {
                while !done.load(SeqCst) {
                    std::hint::spin_loop();
                }
            });
        });
        let begun = Instant::now();
        while fake.scanned() == 0 && begun.elapsed() < Duration::from_secs(60) {
            std::thread::yield_now();
        }
        done.store(true, SeqCst);
    });
    assert!(driver.stats().sources[0].events > 0, "{}", driver.stats());
}

#[test]
fn a_trigger_on_a_missing_file_is_refused_and_the_file_is_named() {
    use epoch_registry::pressure::{Psi, Trigger};
    let why = Psi::with("/nowhere/memory.pressure", Trigger::default()).unwrap_err().to_string();
    assert!(why.starts_with("PSI /nowhere/memory.pressure is not available: "), "{why}");
}

#[test]
fn detected_sources_work_and_missing_ones_are_reported() {
    let detected = detect();
    eprintln!("{detected:?}");
    let (found, missing) = (detected.sources.len(), detected.unavailable.len());
    assert!(found > 0, "no source was found");
    drop(detected);
    let driver = Driver::builder().detect().start().unwrap();
    wait_for("a check", || driver.stats().checks > 0);
    let stats = driver.stats();
    eprintln!("{stats}");
    let works = stats.sources.iter().filter(|source| source.state == SourceState::Works).count();
    let unavailable = |state: &SourceState| matches!(state, SourceState::Unavailable(_));
    assert_eq!(works, found);
    assert_eq!(stats.sources.iter().filter(|source| unavailable(&source.state)).count(), missing);
}
