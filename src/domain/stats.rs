//! Figures on a domain.

use super::Domain;
use super::budget::Backlog;
use super::histogram::Histogram;
use crate::sync::atomic::Ordering;
use std::fmt;

/// What a domain has done, and what waits in it: from [`Domain::stats`].
///
/// Taken under the domain's lock, after a look at everything that was retired: exact while nobody writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct DomainStats {
    /// What waits for a grace period, or for its turn. (What handles keep after their grace period does not.)
    pub backlog: Backlog,
    /// The most that has waited, as seen by those who reclaim.
    pub peak: Backlog,
    /// Batches that were collected.
    pub batches: u64,
    /// Grace periods that are over.
    pub grace_periods: u64,
    /// Those of them that somebody pushed on without a rest: for `synchronize_expedited`, or because of the backlog.
    pub expedited: u64,
    /// How long grace periods took, from their beginning until they were seen to be over.
    pub latency: Histogram,
    /// Reports of grace periods that took too long.
    pub stalls: u64,
    /// Objects that were retired beyond the backlog's limit, because the operation could not be refused.
    pub overruns: u64,
    /// Callbacks, stall handlers and reapers that panicked.
    pub callback_panics: u64,
    /// Threads and sessions that are registered as readers.
    pub readers: u64,
}

impl Domain {
    /// Figures on the domain.
    ///
    /// # Progress
    ///
    /// Takes the domain's lock, shortly, and collects what was retired into a batch. Destroys nothing.
    pub fn stats(&self) -> DomainStats {
        let inner = self.inner();
        let backlog = inner.backlog();
        let readers = inner.readers.count() as u64;
        let state = inner.state.lock();
        let figures = &state.figures;
        DomainStats {
            backlog,
            peak: figures.peak,
            batches: figures.batches,
            grace_periods: inner.grace.completed(),
            expedited: figures.expedited,
            latency: figures.latency,
            stalls: figures.stalls,
            // ORDERING: Relaxed, here and below: statistics.
            overruns: inner.overruns.load(Ordering::Relaxed),
            callback_panics: inner.panics.load(Ordering::Relaxed),
            readers,
        }
    }
}

impl fmt::Display for DomainStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DomainStats { backlog, peak, batches, grace_periods, expedited, latency, .. } = self;
        write!(
            f,
            "backlog {backlog}, peak {peak}, batches {batches}, grace periods {grace_periods} ({latency}), \
             expedited {expedited}, stalls {}, overruns {}, callback panics {}, readers {}",
            self.stalls, self.overruns, self.callback_panics, self.readers
        )
    }
}
