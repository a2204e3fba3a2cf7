//! Pressure that the program reports itself, from its own knowledge or for a test.

use super::source::{Reading, Source, Unavailable};
use super::wait::Waker;
use parking_lot::Mutex;
use std::sync::Arc;

/// A source that reports pressure when the program uses its [handle](ManualHandle).
///
/// ```
/// use epoch_registry::Registry;
/// use epoch_registry::pressure::{Driver, Manual};
/// use std::sync::Arc;
///
/// let cache = Arc::new(Registry::new());
/// (0..10_000).for_each(|key: u64| drop(cache.insert(key, key)));
///
/// let (source, pressure) = Manual::new("operator");
/// let driver = Driver::builder().source(source).start().unwrap();
/// driver.add(&cache);
/// pressure.demand(1 << 40);
/// while !cache.is_empty() {
///     std::thread::yield_now();
/// }
/// ```
#[derive(Debug)]
pub struct Manual {
    name: String,
    wanted: Arc<Mutex<Wanted>>,
}

/// Raises the pressure of a [`Manual`] source. All clones act on the same source.
#[derive(Clone, Debug)]
pub struct ManualHandle(Arc<Mutex<Wanted>>);

#[derive(Debug, Default)]
struct Wanted {
    event: bool,
    bytes: u64,
    waker: Option<Waker>,
}

impl Manual {
    /// Creates a source for a driver, and the handle that raises its pressure.
    pub fn new(name: impl Into<String>) -> (Self, ManualHandle) {
        let wanted = Arc::default();
        (Manual { name: name.into(), wanted: Arc::clone(&wanted) }, ManualHandle(wanted))
    }
}

impl ManualHandle {
    /// Reports pressure of unknown amount: see [`Reading::Event`]. Calls made before the driver has seen the
    /// first have the effect of one call.
    pub fn raise(&self) {
        self.want(|wanted| wanted.event = true);
    }

    /// Demands this many bytes. Calls made before the driver has seen the first are added up.
    pub fn demand(&self, bytes: u64) {
        self.want(|wanted| wanted.bytes = wanted.bytes.saturating_add(bytes));
    }

    fn want(&self, what: impl FnOnce(&mut Wanted)) {
        let mut wanted = self.0.lock();
        what(&mut wanted);
        let waker = wanted.waker.clone();
        drop(wanted);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Source for Manual {
    fn name(&self) -> &str {
        &self.name
    }

    fn check(&mut self, _signalled: bool) -> Result<Reading, Unavailable> {
        let mut wanted = self.wanted.lock();
        if wanted.bytes > 0 {
            let bytes = std::mem::take(&mut wanted.bytes);
            if let (true, Some(waker)) = (wanted.event, &wanted.waker) {
                // A look returns one reading, so have the driver come back for the event.
                waker.wake();
            }
            return Ok(Reading::Bytes(bytes));
        }
        Ok(if std::mem::take(&mut wanted.event) { Reading::Event } else { Reading::Quiet })
    }

    fn is_polled(&self) -> bool {
        false
    }

    fn attach(&mut self, waker: Waker) {
        self.wanted.lock().waker = Some(waker);
    }
}
