//! Grace periods, numbered.
//!
//! A grace period is one [`Marker`] given to the epoch collector by `defer_destroy`: the collector destroys it once
//! every critical section that was open at that moment has closed, and its destruction says so here. Batches of
//! retired nodes, callbacks and those who wait for a grace period all wait for a number, so that one deferral serves
//! any amount of garbage, and whatever thread the collector runs on (it may be a reader's) does no more than add to
//! a counter.

#![allow(unsafe_code)]

use crate::sync::atomic::Ordering;
use crate::sync::epoch::{Guard, Owned};
use crate::sync::{Arc, AtomicBool, AtomicU64};

/// What outlives the domain: the collector may destroy a marker later.
pub(crate) struct Grace {
    /// All grace periods up to this one are over.
    completed: AtomicU64,
    /// The domain is gone; threads forget their registration when they see it.
    abandoned: AtomicBool,
}

impl Grace {
    pub(crate) fn new() -> Self {
        Grace { completed: AtomicU64::new(0), abandoned: AtomicBool::new(false) }
    }

    /// The newest grace period that is over. Everything that its critical sections did happens before this returns.
    pub(crate) fn completed(&self) -> u64 {
        // ORDERING: Acquire, pairs with the Release in `Marker::drop`.
        self.completed.load(Ordering::Acquire)
    }

    pub(crate) fn abandon(&self) {
        // ORDERING: Relaxed. A hint by which memory is given back earlier.
        self.abandoned.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        // ORDERING: Relaxed, as in `abandon`.
        self.abandoned.load(Ordering::Relaxed)
    }

    /// Begins grace period `number`. The caller holds the domain's lock, so that numbers begin in order.
    pub(crate) fn begin(grace: &Arc<Self>, number: u64, guard: &Guard) {
        let marker = Owned::new(Marker { grace: Arc::clone(grace), number }).into_shared(guard);
        // SAFETY: the marker was made here and is reachable from nowhere else.
        unsafe { guard.defer_destroy(marker) };
    }
}

struct Marker {
    grace: Arc<Grace>,
    number: u64,
}

impl Drop for Marker {
    fn drop(&mut self) {
        // A later grace period may end first, by a few instructions; what is over stays over.
        // ORDERING: Release, pairs with the Acquire in `completed`: the collector has ordered the end of all critical
        // sections before this destructor, and this hands it on.
        self.grace.completed.fetch_max(self.number, Ordering::Release);
    }
}
