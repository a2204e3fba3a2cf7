//! Reapers that stop, panic, are dropped, or call their driver.

use crate::scripted::*;
use epoch_registry::pressure::{Demand, Driver};
use epoch_registry::{Reaped, Reaper, Scan};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};

#[test]
fn a_reaper_that_stops_is_not_asked_again_in_the_round_and_its_rest_is_deferred() {
    let calls = AtomicUsize::new(0);
    let on_scan = move |_| if calls.fetch_add(1, SeqCst) < 2 { Reaped::default() } else { stopped() };
    let (stops, goes_on) = (Fake::with(10_000, 2, on_scan), Fake::new(10_000, 2));
    let driver = driver_of(&[&stops, &goes_on]);
    let relieved = driver.relieve(Demand::Round(3));
    assert!(relieved.reaped.stopped);
    assert_eq!(table(&driver.stats()), [(256, 2500 - 256), (2432, 68)]);
    assert_eq!((stops.scans.lock().unwrap().len(), driver.stats().reapers[0].stops), (3, 1));
}

#[test]
fn a_reaper_that_panics_is_counted_and_does_not_affect_others() {
    let panics = Fake::with(10_000, 2, |_| panic!("not today"));
    let goes_on = Fake::new(10_000, 2);
    let driver = driver_of(&[&panics, &goes_on]);
    let relieved = driver.relieve(Demand::Round(3));
    assert_eq!((relieved.panics, relieved.met), (1, true));
    assert_eq!(table(&driver.stats()), [(0, 2500), (2432, 68)]);
    assert_eq!((driver.stats().panics, driver.stats().reapers[0].panics), (1, 1));
    assert_eq!(driver.relieve(Demand::Round(3)).panics, 1);
}

/// A reaper whose methods all panic, and its destructor too.
struct Bad;

impl Reaper for Bad {
    fn count(&self) -> usize {
        panic!("count")
    }

    fn scan(&self, _: &mut Scan) -> Reaped {
        unreachable!("its count failed, so there is nothing to scan")
    }
}

impl Drop for Bad {
    fn drop(&mut self) {
        panic!("drop")
    }
}

#[test]
fn panics_in_every_method_of_a_reaper_are_contained() {
    let (bad, good) = (Arc::new(Bad), Fake::new(10_000, 2));
    let driver = Driver::builder().build();
    driver.add(&bad);
    driver.add(&good);
    assert_eq!(driver.relieve(Demand::Round(3)).panics, 1);
    assert_eq!(good.scanned(), 2432);
    std::mem::forget(bad);
}

#[test]
fn a_reaper_that_was_dropped_is_forgotten() {
    let (gone, stays) = (Fake::new(10_000, 2), Fake::new(10_000, 2));
    let driver = driver_of(&[&gone]);
    driver.add_named("stays", &stays);
    drop(gone);
    driver.relieve(Demand::Round(3));
    let names: Vec<_> = driver.stats().reapers.into_iter().map(|reaper| reaper.name).collect();
    assert_eq!(names, ["stays"]);
    assert_eq!(stays.scanned(), 2432);
}

#[test]
fn the_driver_may_drop_the_last_reference_to_a_reaper() {
    let (held, driver) = (Arc::new(Mutex::new(None)), Driver::builder().build());
    let handle = Arc::clone(&held);
    let last = Fake::with(10_000, 2, move |_| {
        *handle.lock().unwrap() = None;
        Reaped::default()
    });
    driver.add(&last);
    *held.lock().unwrap() = Some(last);
    driver.relieve(Demand::Round(3));
    assert!(driver.stats().reapers.is_empty());
}

#[test]
fn a_reaper_may_call_its_driver_which_starts_no_second_round() {
    let place: Arc<OnceLock<Arc<Driver>>> = Arc::default();
    let found = Arc::clone(&place);
    let calls = Fake::with(10_000, 2, move |_| {
        let driver = found.get().unwrap();
        assert_eq!(driver.relieve(Demand::Round(0)).rounds, 0);
        assert_eq!(driver.check(), None);
        assert_eq!(driver.stats().reapers.len(), 1);
        removed(1, 1)
    });
    let driver = Arc::new(driver_of(&[&calls]));
    assert!(place.set(Arc::clone(&driver)).is_ok());
    let relieved = driver.relieve(Demand::Round(3));
    assert_eq!((relieved.reaped.removed, relieved.panics), (19, 0));
}
