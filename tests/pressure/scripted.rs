//! Reapers and sources with scripted behaviour.

use epoch_registry::pressure::{Driver, Reading, Source, Stats, Unavailable};
use epoch_registry::{Reaped, Reaper, Scan};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Waits until `condition` holds. The limit is long enough for a busy machine.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what} did not happen within a minute");
        std::thread::yield_now();
    }
}

/// What a [`Fake`] does in a scan. The argument is the number of entries to scan.
pub type OnScan = dyn Fn(usize) -> Reaped + Send + Sync;

/// A reaper with a settable count of entries, which records the scans that it is asked for.
pub struct Fake {
    pub count: AtomicUsize,
    seeks: u32,
    pub scans: Mutex<Vec<usize>>,
    on_scan: Box<OnScan>,
}

impl Fake {
    /// A reaper that finds nothing to remove.
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

/// Makes a driver of these reapers, without sources.
pub fn driver_of(fakes: &[&Arc<Fake>]) -> Driver {
    let driver = Driver::builder().build();
    fakes.iter().for_each(|fake| driver.add(fake));
    driver
}

/// The scanned and deferred entries of each reaper.
pub fn table(stats: &Stats) -> Vec<(u64, u64)> {
    stats.reapers.iter().map(|reaper| (reaper.scanned, reaper.deferred)).collect()
}

/// The result of the next check of a [`Script`].
pub type Next = Arc<Mutex<Result<Reading, &'static str>>>;

/// A source that returns the next result. It panics if that is the error "panic".
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
