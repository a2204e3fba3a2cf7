//! Numbered grace periods.
//!
//! To begin a grace period, a thread gives the epoch collector one [`Marker`], by `defer_destroy`. The collector
//! destroys the marker once every critical section that was open at that moment has closed. The marker's destructor
//! then raises `completed` to the number of its grace period.
//!
//! Batches of retired nodes, callbacks and waiting callers all wait for a number. So:
//!
//! - one deferral serves any amount of garbage;
//! - a thread that runs the collector, which may be a reader, does no more than update a counter.

#![allow(unsafe_code)]

use crate::sync::atomic::Ordering;
use crate::sync::epoch::{Guard, Owned};
use crate::sync::{Arc, AtomicBool, AtomicU64};

/// The progress of a domain's grace periods. It may outlive the domain, as the collector may destroy a marker later.
pub(crate) struct Grace {
    /// All grace periods up to this one are over.
    completed: AtomicU64,
    /// The domain is gone. Only a debug assertion reads this, when a thread drops its record of the domain.
    abandoned: AtomicBool,
}

impl Grace {
    pub(crate) fn new() -> Self {
        Grace { completed: AtomicU64::new(0), abandoned: AtomicBool::new(false) }
    }

    /// Returns the newest grace period that is over. Everything done in the critical sections that it waited for
    /// happens before this returns.
    pub(crate) fn completed(&self) -> u64 {
        // ORDERING: Acquire, pairs with the Release in `Marker::drop`.
        self.completed.load(Ordering::Acquire)
    }

    pub(crate) fn abandon(&self) {
        // ORDERING: Relaxed. The lock of `DepartedDomains`, which tells the threads that the domain is gone, orders it.
        self.abandoned.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        // ORDERING: Relaxed, as in `abandon`.
        self.abandoned.load(Ordering::Relaxed)
    }

    /// Begins grace period `number`. The caller holds the domain's lock, so that grace periods begin in the order of
    /// their numbers.
    pub(crate) fn begin(grace: &Arc<Self>, number: u64, guard: &Guard) {
        let marker = Owned::new(Marker { grace: Arc::clone(grace), number }).into_shared(guard);
        // SAFETY: the marker was allocated above, and nothing else points to it.
        unsafe { guard.defer_destroy(marker) };
    }
}

/// The object that the collector destroys when grace period `number` is over.
struct Marker {
    grace: Arc<Grace>,
    number: u64,
}

impl Drop for Marker {
    fn drop(&mut self) {
        // `fetch_max`, as the collector may destroy the marker of a later grace period first, by a few instructions.
        // When the later one is over, so is this one, and `completed` must not go back.
        // ORDERING: Release, pairs with the Acquire in `completed`. The collector orders the end of all critical
        // sections before this destructor, and this store passes that order on.
        self.grace.completed.fetch_max(self.number, Ordering::Release);
    }
}
