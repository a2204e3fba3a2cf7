//! The builder of a driver, and the settings that it collects.

use super::demand::{FIRST, Relieved};
use super::detect::detect;
use super::driver::{Driver, SHORTEST};
use super::source::Source;
use super::stats::{SourceState, SourceStats, Stats};
use crate::util::clock::{Clock, MonotonicClock};
use std::fmt;
use std::io;
use std::time::Duration;

/// Builds a [`Driver`]. [`Driver::builder`] creates it.
pub struct Builder {
    settings: DriverSettings,
    sources: Vec<Box<dyn Source>>,
    unavailable: Vec<SourceStats>,
}

/// The callback that runs after each demand and gets the result.
pub(super) type Hook = Box<dyn Fn(&Relieved) + Send + Sync>;

pub(super) struct DriverSettings {
    pub(super) name: String,
    pub(super) interval: Duration,
    pub(super) quiet: Duration,
    pub(super) event_priority: u32,
    pub(super) clock: Box<dyn Clock>,
    pub(super) on_shed: Option<Hook>,
}

impl Driver {
    /// Returns a builder with the default settings and no sources.
    pub fn builder() -> Builder {
        let settings = DriverSettings {
            name: "pressure".into(),
            interval: Duration::from_millis(100),
            quiet: Duration::from_secs(10),
            event_priority: 6,
            clock: Box::new(MonotonicClock),
            on_shed: None,
        };
        Builder { settings, sources: Vec::new(), unavailable: Vec::new() }
    }
}

impl Builder {
    /// Adds a source.
    pub fn source(mut self, source: impl Source) -> Self {
        self.sources.push(Box::new(source));
        self
    }

    /// Adds the sources that [`detect`](crate::pressure::detect()) finds on this machine. Each source that is not
    /// available is logged at level info, and is listed in the [figures](Stats::sources) with the reason.
    pub fn detect(mut self) -> Self {
        let detected = detect();
        for why in detected.unavailable {
            log::info!(target: "epoch_registry", "pressure source {why}");
            let (name, state) = (why.name().to_owned(), SourceState::Unavailable(why.reason()));
            self.unavailable.push(SourceStats { name, state, ..SourceStats::default() });
        }
        self.sources.extend(detected.sources);
        self
    }

    /// Sets the longest time between two looks at polled sources: 100 ms by default, at least 1 ms.
    ///
    /// A level is read sooner, down to every millisecond, if a program that fills 4 GiB per second could reach
    /// its limit before the next look. With the default, this applies to levels less than 400 MiB below their
    /// limit.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.settings.interval = interval.max(SHORTEST);
        self
    }

    /// Sets the name of the driver's thread: "pressure" by default.
    ///
    /// # Panics
    ///
    /// [`Driver::start`] panics if the name contains a zero byte.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.settings.name = name.into();
        self
    }

    /// Sets the priority of the round that the first [event](crate::pressure::Reading::Event) after a quiet time
    /// demands.
    ///
    /// The default is 6: a round scans a 64th of the entries, times 4 / `seeks`. Each further event lowers the
    /// priority by one, down to 0, and so doubles the work.
    pub fn event_priority(mut self, priority: u32) -> Self {
        self.settings.event_priority = priority.min(FIRST);
        self
    }

    /// Sets the time without events after which the next event counts as the first one again: 10 s by default.
    pub fn quiet(mut self, time: Duration) -> Self {
        self.settings.quiet = time;
        self
    }

    /// Sets the clock that measures the [quiet time](Self::quiet) and the delay before a stopped reaper is tried
    /// again. The default is [`MonotonicClock`]. (The driver's thread sleeps by the clock of the machine.)
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.settings.clock = Box::new(clock);
        self
    }

    /// Sets a hook, which runs after the reapers have shed, on the thread that called them. Use it to return the
    /// allocator's memory to the system (`malloc_trim`), or to log. A panic in the hook is contained and counted.
    ///
    /// The removed entries may still wait for a grace period. If that matters, have the hook call
    /// [`Domain::barrier`](crate::Domain::barrier), which waits until they are freed. (If a thread calls
    /// [`Driver::check`] or [`Driver::relieve`] in a critical section of that domain, the hook would wait for its
    /// own thread. `barrier` panics then, and the panic is counted.)
    pub fn on_shed(mut self, hook: impl Fn(&Relieved) + Send + Sync + 'static) -> Self {
        self.settings.on_shed = Some(Box::new(hook));
        self
    }

    /// Builds the driver without a thread. Call [`Driver::relieve`] or [`Driver::check`] on it, or
    /// [`Driver::start`] later.
    pub fn build(self) -> Driver {
        let unavailable = Stats { sources: self.unavailable, ..Stats::default() };
        Driver::new(self.settings, self.sources, unavailable)
    }

    /// Builds the driver and starts its thread.
    ///
    /// # Errors
    ///
    /// See [`Driver::start`].
    pub fn start(self) -> io::Result<Driver> {
        let driver = self.build();
        driver.start()?;
        Ok(driver)
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sources: Vec<_> = self.sources.iter().map(|source| source.name()).collect();
        f.debug_struct("Builder").field("name", &self.settings.name).field("sources", &sources).finish_non_exhaustive()
    }
}
