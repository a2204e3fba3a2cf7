//! The statistics of a domain.

use super::Domain;
use super::budget::Backlog;
use super::histogram::Histogram;
use crate::sync::atomic::Ordering;
use std::fmt;

/// What a domain has done, and what waits in it. From [`Domain::stats`].
///
/// The figures are taken after everything that was retired has been collected, and are exact while no thread
/// writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct DomainStats {
    /// What waits for a grace period, or for its turn. Entries that handles keep after their grace period are not
    /// included.
    pub backlog: Backlog,
    /// The largest backlog seen by the threads that reclaim.
    pub peak: Backlog,
    /// The number of batches collected.
    pub batches: u64,
    /// The number of grace periods that are over.
    pub grace_periods: u64,
    /// How many of them were expedited: for `synchronize_expedited`, or because of the backlog.
    pub expedited: u64,
    /// How long grace periods took, from their beginning until a thread saw that they were over.
    pub latency: Histogram,
    /// The number of reports of grace periods that took too long.
    pub stalls: u64,
    /// The number of objects retired beyond the backlog's limit, because the operation could not be refused.
    pub overruns: u64,
    /// The number of callbacks, stall handlers, reapers, and destructors of versions of cells, that panicked.
    pub callback_panics: u64,
    /// The number of threads and sessions that are registered as readers.
    pub readers: u64,
}

impl Domain {
    /// Returns statistics of the domain.
    ///
    /// # Progress
    ///
    /// Takes short locks: those of the shards that have retired nodes, and that of the domain. Collects what was
    /// retired into a batch. Destroys nothing.
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
