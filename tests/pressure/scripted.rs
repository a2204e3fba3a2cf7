//! Reapers and sources that do what they are told.

use epoch_registry::pressure::{Driver, Reading, Source, Stats, Unavailable};
use epoch_registry::{Reaped, Reaper, Scan};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Waits for something that is to come. Long enough for a machine that has other things to do.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}: not within a minute");
        std::thread::yield_now();
    }
}

/// What a [`Fake`] does when it is asked to scan.
pub type OnScan = dyn Fn(usize) -> Reaped + Send + Sync;

/// A reaper that has what it is told to have, and notes what it is asked for.
pub struct Fake {
    pub count: AtomicUsize,
    seeks: u32,
    pub scans: Mutex<Vec<usize>>,
    on_scan: Box<OnScan>,
}

impl Fake {
    /// It finds nothing that can go.
    pub fn new(count: usize, seeks: u32) -> Arc<Self> {
        Self::with(count, seeks, |_| Reaped::default())
    }

    pub fn with(count: usize, seeks: u32, on_scan: impl Fn(usize) -> Reaped + Send + Sync + 'static) -> Arc<Self> {
        let (count, on_scan) = (AtomicUsize::new(count), Box::new(on_scan));
        Arc::new(Fake { count, seeks, scans: Mutex::default(), on_scan })
    }

    pub fn scanned(&self) -> usize {
        self.scans.lock().unwrap().iter().sum()
    }
}

impl Reaper for Fake {
    fn count(&self) -> usize {
        self.count.load(SeqCst)
    }

    fn scan(&self, scan: &mut Scan) -> Reaped {
        self.scans.lock().unwrap().push(scan.nr_to_scan);
        let reaped = (self.on_scan)(scan.nr_to_scan);
        self.count.fetch_sub(reaped.removed, SeqCst);
        reaped
    }

    fn seeks(&self) -> u32 {
        self.seeks
    }

    fn name(&self) -> &str {
        "fake"
    }
}

pub fn removed(entries: usize, bytes: u64) -> Reaped {
    let mut reaped = Reaped::default();
    (reaped.examined, reaped.removed, reaped.bytes) = (entries, entries, bytes);
    reaped
}

pub fn stopped() -> Reaped {
    let mut reaped = Reaped::default();
    reaped.stopped = true;
    reaped
}

/// A driver of these, without sources.
pub fn driver_of(fakes: &[&Arc<Fake>]) -> Driver {
    let driver = Driver::builder().build();
    fakes.iter().for_each(|fake| driver.add(fake));
    driver
}

/// Scanned and deferred, of each reaper.
pub fn table(stats: &Stats) -> Vec<(u64, u64)> {
    stats.reapers.iter().map(|reaper| (reaper.scanned, reaper.deferred)).collect()
}

/// What the next look at a [`Script`] is to show.
pub type Next = Arc<Mutex<Result<Reading, &'static str>>>;

/// A source that says what it is told to say, and panics if there is nothing.
pub struct Script(pub Next);

impl Source for Script {
    fn name(&self) -> &str {
        "script"
    }

    fn check(&mut self, _: bool) -> Result<Reading, Unavailable> {
        let next = *self.0.lock().unwrap();
        match next {
            Err("panic") => std::panic::resume_unwind(Box::new(())),
            next => next.map_err(|why| Unavailable::new("script", why)),
        }
    }
}
