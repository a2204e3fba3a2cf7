//! Reapers that stop, panic, go, or call back.

use crate::scripted::*;
use epoch_registry::pressure::{Demand, Driver};
use epoch_registry::{Reaped, Reaper, Scan};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};

#[test]
fn a_reaper_that_stops_is_left_alone_for_the_round_and_owes_the_rest() {
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
fn a_reaper_that_panics_is_counted_and_harms_no_neighbour() {
    let panics = Fake::with(10_000, 2, |_| panic!("not today"));
    let goes_on = Fake::new(10_000, 2);
    let driver = driver_of(&[&panics, &goes_on]);
    let relieved = driver.relieve(Demand::Round(3));
    assert_eq!((relieved.panics, relieved.met), (1, true));
    assert_eq!(table(&driver.stats()), [(0, 2500), (2432, 68)]);
    assert_eq!((driver.stats().panics, driver.stats().reapers[0].panics), (1, 1));
    assert_eq!(driver.relieve(Demand::Round(3)).panics, 1);
}

/// A reaper of which all methods panic, and the destructor.
struct Bad;

impl Reaper for Bad {
    fn count(&self) -> usize {
        panic!("count")
    }

    fn scan(&self, _: &mut Scan) -> Reaped {
        unreachable!("it has told of nothing to scan")
    }
}

impl Drop for Bad {
    fn drop(&mut self) {
        panic!("drop")
    }
}

#[test]
fn a_reaper_that_can_only_panic_is_contained() {
    let (bad, good) = (Arc::new(Bad), Fake::new(10_000, 2));
    let driver = Driver::builder().build();
    driver.add(&bad);
    driver.add(&good);
    assert_eq!(driver.relieve(Demand::Round(3)).panics, 1);
    assert_eq!(good.scanned(), 2432);
    std::mem::forget(bad);
}

#[test]
fn a_reaper_that_is_gone_is_forgotten() {
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
fn a_reaper_may_be_the_last_to_be_dropped_by_the_driver() {
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
fn a_reaper_may_call_its_driver_which_does_not_begin_anew() {
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
