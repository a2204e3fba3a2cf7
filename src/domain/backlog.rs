//! The amount of what waits to be destroyed, in objects and bytes.

use crossbeam_utils::CachePadded;
use std::fmt;
use std::iter::Sum;
use std::ops::{AddAssign, SubAssign};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicI64, AtomicU64};

/// What waits to be destroyed: the number of objects, and the bytes that they take.
///
/// - An entry counts as one object. Its bytes are those of its node, plus what the registry's
///   [weigher](crate::Builder::weigher) returns for it.
/// - A callback counts as one object.
/// - A table that was replaced by a larger or smaller one counts as no object, and with its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Backlog {
    /// Entries and callbacks.
    pub objects: u64,
    /// The bytes of entries, callbacks and tables.
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

/// The amount that was handed over to a domain and is not destroyed yet: closed bags, orphans, callbacks and tables.
/// (Not modelled by loom: nothing is ordered by these counts.)
#[derive(Default)]
pub(crate) struct Waiting(CachePadded<Amounts>);

#[derive(Default)]
struct Amounts {
    objects: AtomicU64,
    /// The sum of the bytes, modulo 2^64.
    bytes: AtomicU64,
    /// How often the sum of the bytes has wrapped around: 2^64 times this is to be added to `bytes`.
    wraps: AtomicI64,
}

impl Waiting {
    /// Adds an amount. To be called before the objects are handed over, so that they are not subtracted before they
    /// are added.
    pub(crate) fn add(&self, amount: Backlog) {
        let Amounts { objects, bytes, wraps } = &*self.0;
        // ORDERING: Relaxed, here and below. These are counts, and no other memory is read by their values.
        objects.fetch_add(amount.objects, Relaxed);
        if bytes.fetch_add(amount.bytes, Relaxed).checked_add(amount.bytes).is_none() {
            wraps.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn subtract(&self, amount: Backlog) {
        let Amounts { objects, bytes, wraps } = &*self.0;
        // ORDERING: Relaxed, as in `add`.
        objects.fetch_sub(amount.objects, Relaxed);
        if bytes.fetch_sub(amount.bytes, Relaxed) < amount.bytes {
            wraps.fetch_sub(1, Relaxed);
        }
    }

    pub(crate) fn get(&self) -> Backlog {
        let Amounts { objects, bytes, wraps } = &*self.0;
        // ORDERING: Relaxed, as in `add`.
        let has_wrapped = wraps.load(Relaxed) > 0;
        // ORDERING: Relaxed, as in `add`.
        let (objects, bytes) = (objects.load(Relaxed), bytes.load(Relaxed));
        Backlog { objects, bytes: if has_wrapped { u64::MAX } else { bytes } }
    }
}
