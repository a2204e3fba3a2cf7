//! A count of sessions that were created and dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the creation and the drop of each [`Counted`].
#[derive(Clone, Default)]
pub struct Census(Arc<Counts>);

#[derive(Default)]
struct Counts {
    created: AtomicU64,
    dropped: AtomicU64,
}

/// A part of a value that is to be counted.
pub struct Counted(Census);

impl Census {
    /// Counts a creation.
    pub fn count(&self) -> Counted {
        // ORDERING: Relaxed, a statistic.
        self.0.created.fetch_add(1, Ordering::Relaxed);
        Counted(self.clone())
    }

    pub fn created(&self) -> u64 {
        // ORDERING: Relaxed, as a caller that needs the exact number has waited for the creations.
        self.0.created.load(Ordering::Relaxed)
    }

    pub fn dropped(&self) -> u64 {
        // ORDERING: Relaxed, as a caller that needs the exact number has waited for a barrier.
        self.0.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        // ORDERING: Relaxed, a statistic. A barrier orders it before what follows the barrier.
        self.0.0.dropped.fetch_add(1, Ordering::Relaxed);
    }
}
