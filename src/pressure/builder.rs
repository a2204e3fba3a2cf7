//! What a driver is built with.

use super::demand::{FIRST, Relieved};
use super::detect::detect;
use super::driver::{Driver, SHORTEST};
use super::source::Source;
use super::stats::{SourceState, SourceStats, Stats};
use crate::util::clock::{Clock, MonotonicClock};
use std::fmt;
use std::io;
use std::time::Duration;

/// Builds a [`Driver`]: from [`Driver::builder`].
pub struct Builder {
    settings: Settings,
    sources: Vec<Box<dyn Source>>,
    unavailable: Vec<SourceStats>,
}

/// Called after each demand with what was done.
pub(super) type Hook = Box<dyn Fn(&Relieved) + Send + Sync>;

pub(super) struct Settings {
    pub(super) name: String,
    pub(super) interval: Duration,
    pub(super) quiet: Duration,
    pub(super) event_priority: u32,
    pub(super) clock: Box<dyn Clock>,
    pub(super) on_shed: Option<Hook>,
}

impl Driver {
    /// A driver to be configured. It has no sources, unless given some.
    pub fn builder() -> Builder {
        let settings = Settings {
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

    /// Adds what this machine has: see [`detect`](crate::pressure::detect()). What it has not is logged, as
    /// information, and stands in the [figures](Stats::sources), with the reason.
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

    /// The longest time between two looks at sources that are to be looked at: 100 ms by default, 1 ms at least. A level is looked at
    /// sooner, down to every millisecond, where what is left to its limit could be filled at 4 GiB a second before the
    /// next look: with less than 400 MiB to go.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.settings.interval = interval.max(SHORTEST);
        self
    }

    /// The name of the driver's thread: "pressure" by default.
    ///
    /// # Panics
    ///
    /// [`Driver::start`] does, if there is a zero byte in it.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.settings.name = name.into();
        self
    }

    /// The priority of the round that the first [event](crate::pressure::Reading::Event) after quiet is worth: 6 by
    /// default, which scans a 64th of the entries, times four by their seeks. Each further event is worth one less,
    /// which is twice as much, down to 0.
    pub fn event_priority(mut self, priority: u32) -> Self {
        self.settings.event_priority = priority.min(FIRST);
        self
    }

    /// How long there has to be no event for the next one to be a first one: 10 s by default.
    pub fn quiet(mut self, time: Duration) -> Self {
        self.settings.quiet = time;
        self
    }

    /// What quiet, and waiting for a reaper that stopped, is measured by. By default the [`MonotonicClock`]. (The
    /// thread sleeps by the machine's.)
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.settings.clock = Box::new(clock);
        self
    }

    /// Who is called when the reapers have shed, by the thread that had them: to return the allocator's memory to the
    /// system (`malloc_trim`), or for a log. A panic in it is contained, and counted.
    ///
    /// What was removed may wait for a grace period still. Where that matters, have the hook wait until it is freed, by
    /// [`Domain::barrier`](crate::Domain::barrier). (A thread that calls [`Driver::check`] or [`Driver::relieve`] in a critical
    /// section of that domain would make the hook wait for itself: `barrier` panics, which is counted.)
    pub fn on_shed(mut self, hook: impl Fn(&Relieved) + Send + Sync + 'static) -> Self {
        self.settings.on_shed = Some(Box::new(hook));
        self
    }

    /// The driver, without a thread: for [`Driver::relieve`] and [`Driver::check`]; or for [`Driver::start`] later.
    pub fn build(self) -> Driver {
        let unavailable = Stats { sources: self.unavailable, ..Stats::default() };
        Driver::new(self.settings, self.sources, unavailable)
    }

    /// The driver, with its thread.
    ///
    /// # Errors
    ///
    /// As [`Driver::start`].
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
