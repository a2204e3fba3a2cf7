//! Reports of readers that hold up a grace period for long: after the kernel's RCU CPU stall warning.
//!
//! Whoever drives reclamation looks at the oldest grace period that is not over: writers, waiters, the reclaimer thread. A
//! reader is named if it has been in one critical section since early in that grace period.

use super::budget::Backlog;
use super::readers::{Readers, Section, StalledReader};
use std::fmt;
use std::time::Duration;

/// A grace period that something waits for has lasted longer than it should: given to the handler of
/// [`DomainBuilder::on_stall`](crate::DomainBuilder::on_stall).
///
/// Its `Display` is one line for a log.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StallReport {
    /// The domain's name.
    pub domain: String,
    /// How long the grace period has lasted. The readers have been in their critical sections for nearly as long, or
    /// longer.
    pub lasted: Duration,
    /// The readers that hold it up. Empty if they are unknown: a thread that is exiting, or one that has left just now.
    pub readers: Vec<StalledReader>,
    /// What waits to be destroyed.
    pub backlog: Backlog,
    /// Callers that wait in `synchronize`, `barrier` or `poll_timeout`.
    pub waiters: usize,
    /// Reports of the same grace period before this one.
    pub repeats: u32,
}

impl fmt::Display for StallReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "domain `{}`: a grace period has lasted {:.1?}, held up by ", self.domain, self.lasted)?;
        if self.readers.is_empty() {
            f.write_str("an unknown reader")?;
        }
        for (index, reader) in self.readers.iter().enumerate() {
            let what = if reader.is_session { "a session" } else { "a guard" };
            let name = reader.thread_name.as_deref().unwrap_or("unnamed");
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{what} of thread `{name}` ({:?})", reader.thread_id)?;
        }
        write!(f, "; {} and {} callers wait", self.backlog, self.waiters)
    }
}

pub(crate) type StallHandler = Box<dyn Fn(&StallReport) + Send + Sync>;

/// The grace period that may be stalled.
pub(crate) struct Watchdog {
    threshold: Duration,
    suspect: Option<Suspect>,
}

struct Suspect {
    number: u64,
    /// Critical sections that were open when the grace period was so old.
    sections: Vec<Section>,
    sampled: Duration,
    /// None of the sections was open any more when the report was due: others have been looked for.
    sampled_again: bool,
    /// The age of the grace period at which the next report is due, and how long after that the one that follows.
    due: Duration,
    interval: Duration,
    reports: u32,
}

/// What is found out under the lock, to be completed and given to the handler without it.
pub(crate) struct Stall {
    pub(crate) lasted: Duration,
    pub(crate) readers: Vec<StalledReader>,
    pub(crate) repeats: u32,
}

impl Watchdog {
    pub(crate) fn new(threshold: Duration) -> Self {
        Watchdog { threshold, suspect: None }
    }

    /// Something waits for the grace period of that number, which is the oldest and began so long ago.
    pub(crate) fn look(&mut self, number: u64, lasted: Duration, readers: &Readers) -> Option<Stall> {
        // Most grace periods end long before, and no list of readers is made for them.
        if lasted < self.threshold / 20 {
            return None;
        }
        // How long a section must have been watched to be named: nearly the threshold.
        let watch = self.threshold.mul_f64(0.9);
        let known = self.suspect.take().filter(|suspect| suspect.number == number);
        let suspect = self.suspect.insert(known.unwrap_or_else(|| Suspect {
            number,
            sections: readers.open(),
            sampled: lasted,
            sampled_again: false,
            due: self.threshold,
            interval: self.threshold,
            reports: 0,
        }));
        // (It may be old for no better reason than that nobody has come by to end it.)
        if lasted < suspect.due.max(suspect.sampled.saturating_add(watch)) {
            return None;
        }
        let found: Vec<_> = suspect.sections.iter().filter_map(Section::reader).collect();
        if found.is_empty() && !suspect.sampled_again {
            (suspect.sections, suspect.sampled, suspect.sampled_again) = (readers.open(), lasted, true);
            return None;
        }
        suspect.interval = suspect.interval.saturating_mul(2);
        suspect.due = lasted.saturating_add(suspect.interval);
        suspect.sampled_again = false;
        suspect.reports += 1;
        Some(Stall { lasted, readers: found, repeats: suspect.reports - 1 })
    }
}
