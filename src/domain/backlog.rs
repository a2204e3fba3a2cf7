//! What waits to be destroyed, in objects and bytes.

use crossbeam_utils::CachePadded;
use std::fmt;
use std::iter::Sum;
use std::ops::{AddAssign, SubAssign};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// What waits to be destroyed: objects, and the bytes that they take.
///
/// An entry is an object, and takes the bytes of its node and what the registry's
/// [weigher](crate::Builder::weigher) says of it. A callback is one. A table that was replaced by a larger or smaller one
/// counts by its bytes alone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Backlog {
    /// Entries and callbacks.
    pub objects: u64,
    /// Their bytes, and those of tables.
    pub bytes: u64,
}

impl Backlog {
    #[inline]
    pub(crate) fn of(objects: u64, bytes: u64) -> Self {
        Backlog { objects, bytes }
    }

    #[inline]
    pub(crate) fn one(bytes: u64) -> Self {
        Backlog::of(1, bytes)
    }

    pub(crate) fn max(self, other: Backlog) -> Backlog {
        Backlog { objects: self.objects.max(other.objects), bytes: self.bytes.max(other.bytes) }
    }
}

impl AddAssign for Backlog {
    fn add_assign(&mut self, other: Backlog) {
        self.objects = self.objects.saturating_add(other.objects);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

impl SubAssign for Backlog {
    fn sub_assign(&mut self, other: Backlog) {
        self.objects = self.objects.saturating_sub(other.objects);
        self.bytes = self.bytes.saturating_sub(other.bytes);
    }
}

impl Sum for Backlog {
    fn sum<I: Iterator<Item = Backlog>>(amounts: I) -> Backlog {
        amounts.fold(Backlog::default(), |mut sum, amount| {
            sum += amount;
            sum
        })
    }
}

impl fmt::Display for Backlog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} objects of {} bytes", self.objects, self.bytes)
    }
}

/// What a domain has been given and has not destroyed yet: closed bags, orphans, callbacks and tables. (Of std's type: nothing is
/// ordered by it, and no model is about it.)
#[derive(Default)]
pub(crate) struct Waiting(CachePadded<Amounts>);

#[derive(Default)]
struct Amounts {
    objects: AtomicU64,
    bytes: AtomicU64,
}

impl Waiting {
    /// Before the objects are handed over, so that they are not subtracted before they are added.
    pub(crate) fn add(&self, amount: Backlog) {
        // ORDERING: Relaxed, both: counts. (Modulo 2^64, so that a sum beyond that comes right again.)
        self.0.objects.fetch_add(amount.objects, Relaxed);
        self.0.bytes.fetch_add(amount.bytes, Relaxed);
    }

    pub(crate) fn subtract(&self, amount: Backlog) {
        // ORDERING: Relaxed, as in `add`.
        self.0.objects.fetch_sub(amount.objects, Relaxed);
        self.0.bytes.fetch_sub(amount.bytes, Relaxed);
    }

    pub(crate) fn get(&self) -> Backlog {
        // ORDERING: Relaxed, as in `add`.
        Backlog { objects: self.0.objects.load(Relaxed), bytes: self.0.bytes.load(Relaxed) }
    }
}
