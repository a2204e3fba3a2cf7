//! Reports of readers that hold up a grace period for long, like the RCU CPU stall warnings of the Linux kernel.
//!
//! Each thread that drives reclamation (a writer, a waiter, the reclaimer thread, a job) looks at the oldest grace
//! period that is not over. A report names a reader if it has been in one critical section since early in that
//! grace period.

use super::budget::Backlog;
use super::readers::{Readers, Section, StalledReader};
use std::fmt;
use std::time::Duration;

/// A report of a grace period that something waits for and that has lasted longer than it should. The handler of
/// [`DomainBuilder::on_stall`](crate::DomainBuilder::on_stall) receives it.
///
/// Its `Display` is one line for a log.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StallReport {
    /// The domain's name.
    pub domain: String,
    /// How long the grace period has lasted. The readers have been in their critical sections for nearly as long,
    /// or longer.
    pub lasted: Duration,
    /// The readers that hold it up. Empty if they are unknown: the reader's thread exits, or the reader has just
    /// left.
    pub readers: Vec<StalledReader>,
    /// What waits to be destroyed.
    pub backlog: Backlog,
    /// The number of callers that wait in `synchronize`, `barrier` or `poll_timeout`.
    pub waiters: usize,
    /// The number of earlier reports of the same grace period.
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

/// Watches for a grace period that stalls.
pub(crate) struct Watchdog {
    threshold: Duration,
    suspect: Option<Suspect>,
}

struct Suspect {
    number: u64,
    /// The critical sections that were open when the grace period had the age `sampled`.
    sections: Vec<Section>,
    sampled: Duration,
    /// Whether the sections were sampled again, because all sections of the first sample had ended when the report
    /// was due.
    sampled_again: bool,
    /// The age of the grace period at which the next report is due. With each report, `interval` doubles, and `due`
    /// becomes the age at that report plus `interval`.
    due: Duration,
    interval: Duration,
    reports: u32,
}

/// What is found under the domain's lock. The caller completes it, and calls the handler, without the lock.
pub(crate) struct Stall {
    pub(crate) lasted: Duration,
    pub(crate) readers: Vec<StalledReader>,
    pub(crate) repeats: u32,
}

impl Watchdog {
    pub(crate) fn new(threshold: Duration) -> Self {
        Watchdog { threshold, suspect: None }
    }

    /// Looks at grace period `number`, the oldest one, which something waits for and which has lasted for `lasted`.
    /// Returns a stall if a report is due.
    pub(crate) fn look(&mut self, number: u64, lasted: Duration, readers: &Readers) -> Option<Stall> {
        // Most grace periods end long before that. They need no list of readers.
        if lasted < self.threshold / 20 {
            return None;
        }
        // How long a section must have been watched before it is named: nearly the threshold.
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
        // (The sections must have been watched, too: the grace period may be old only because no thread has tried
        // to end it.)
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
