//! Sources that report a level: when a level demands memory again.

use crate::common::isolated_builder;
use crate::scripted::*;
use epoch_registry::ManualClock;
use epoch_registry::pressure::{Driver, Level, Marks, Reading, SourceState};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn level(used: u64) -> Result<Reading, &'static str> {
    // The high mark is 900,000, the low mark 800,000, and a step 3906.
    Ok(Reading::Level(Level::new(used, 1_000_000, Marks::new(0.9, 0.8))))
}

#[test]
fn a_level_demands_again_only_if_usage_has_grown() {
    let next: Next = Arc::new(Mutex::new(level(0)));
    let fake = Fake::with(10_000, 2, |asked| removed(asked, 100 * asked as u64));
    let driver = Driver::builder().source(Script(Arc::clone(&next))).build();
    driver.add(&fake);
    let at = |used: u64| {
        *next.lock().unwrap() = level(used);
        driver.check().map(|relieved| relieved.reaped.bytes / 12_800)
    };
    // The numbers are removed batches of 12,800 bytes.
    assert_eq!(at(900_000), None);
    assert_eq!(at(920_000), Some(10), "120,000 bytes");
    assert_eq!([at(920_000), at(910_000), at(923_900)], [None; 3], "the memory that was shed is still being freed");
    // The growth of 10,000 is new. Three times as much is demanded, less the 8000 that were shed beyond the demand.
    assert_eq!(at(930_000), Some(2), "22,000 bytes");
    assert_eq!(at(930_000), None);
    // More than half of what was shed has been added again, and usage is the same. So new entries took the place of the
    // old ones.
    fake.count.fetch_add(1300, SeqCst);
    assert!(at(930_000).is_some_and(|batches| batches >= 8));
    assert_eq!(at(930_000), None);
    // Usage goes down to the mark, and then above it again.
    assert_eq!(at(900_000), None);
    assert_eq!(at(900_001), Some(8), "100,001 bytes");
    assert_eq!(driver.stats().unmet, 0);
}

#[test]
fn a_level_demands_nothing_more_while_its_usage_stays_the_same() {
    let next: Next = Arc::new(Mutex::new(level(950_000)));
    let registry = isolated_builder::<u64, Vec<u8>>().weigher(|_, value: &Vec<u8>| value.len()).build();
    let registry = Arc::new(registry);
    (0..9000).for_each(|key| drop(registry.try_insert(key, vec![0; 100]).unwrap()));
    let driver = Driver::builder().source(Script(next)).build();
    driver.add(&registry);
    assert!(driver.check().unwrap().met);
    let left = registry.len();
    assert!(left > 5000, "{left} of 9000 left");
    for _ in 0..1000 {
        assert_eq!(driver.check(), None);
    }
    assert_eq!(registry.len(), left);
}

#[test]
fn a_level_whose_reaper_stopped_demands_again_after_an_interval() {
    let next: Next = Arc::new(Mutex::new(level(950_000)));
    let (fake, clock) = (Fake::with(10_000, 2, |_| stopped()), ManualClock::new());
    let driver = Driver::builder().source(Script(next)).clock(clock.clone()).build();
    driver.add(&fake);
    let met = || driver.check().map(|relieved| relieved.met);
    assert_eq!([met(), met()], [Some(false), None]);
    clock.advance(Duration::from_millis(99));
    assert_eq!(met(), None);
    clock.advance(Duration::from_millis(1));
    assert_eq!([met(), met()], [Some(false), None]);
}

#[test]
fn a_source_that_fails_or_panics_is_reported_and_asked_again() {
    let next: Next = Arc::new(Mutex::new(Err("it rains")));
    let driver = Driver::builder().source(Script(Arc::clone(&next))).build();
    let state = || {
        driver.check();
        driver.stats().sources[0].state.clone()
    };
    assert_eq!(state(), SourceState::Fails("it rains".into()));
    *next.lock().unwrap() = Err("panic");
    assert_eq!(state(), SourceState::Fails("it panicked".into()));
    assert_eq!(driver.stats().panics, 1);
    *next.lock().unwrap() = Ok(Reading::Quiet);
    assert_eq!(state(), SourceState::Works);
    assert_eq!(driver.stats().sources[0].last, Some(Reading::Quiet));
}
