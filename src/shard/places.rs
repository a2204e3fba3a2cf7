//! The bound of a registry that refuses: one count for all shards, so that it is exact.
//!
//! A registry that evicts divides its bound among the shards, and a full shard evicts. A registry that refuses must not
//! refuse below its bound, however the keys spread. So its shards take *places* from a common count.
//!
//! An insertion takes its place under the lock of its shard, just before it publishes the entry. Removals do not look
//! for places. When a lock is released, the shard compares what it holds with the places that it has taken, and gives
//! back the rest ([`Places::settle`]). So each way to leave gives its place back, before the call that removed the entry
//! returns.

use crate::sync::AtomicU64;
use crate::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Entries and their weight in bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Holding {
    pub(crate) entries: u64,
    pub(crate) weight: u64,
}

/// The places of a registry that refuses.
#[derive(Debug)]
pub(crate) struct Places {
    entries: Gauge,
    weight: Gauge,
}

impl Places {
    pub(crate) fn new(entries: Option<usize>, weight: Option<u64>) -> Self {
        let places = Places { entries: Gauge::default(), weight: Gauge::default() };
        places.set_max_entries(entries);
        places.set_max_weight(weight);
        places
    }

    /// Sets the most entries. What is there beyond them stays.
    pub(crate) fn set_max_entries(&self, bound: Option<usize>) {
        self.entries.set_bound(bound.map_or(u64::MAX, |bound| bound.max(1) as u64));
    }

    /// Sets the most bytes. What is there beyond them stays.
    pub(crate) fn set_max_weight(&self, bound: Option<u64>) {
        self.weight.set_bound(bound.unwrap_or(u64::MAX));
    }

    pub(crate) fn max_entries(&self) -> Option<usize> {
        Some(self.entries.bound()).filter(|&bound| bound != u64::MAX).map(|bound| bound as usize)
    }

    pub(crate) fn max_weight(&self) -> Option<u64> {
        Some(self.weight.bound()).filter(|&bound| bound != u64::MAX)
    }

    /// Takes places within the bounds. Returns whether there were enough; if not, takes none.
    pub(crate) fn take(&self, more: Holding) -> bool {
        if !self.entries.take(more.entries) {
            return false;
        }
        let taken = self.weight.take(more.weight);
        if !taken {
            self.entries.give_back(more.entries);
        }
        taken
    }

    /// Takes places whether or not they are within the bounds.
    pub(crate) fn take_beyond(&self, more: Holding) {
        self.entries.take_beyond(more.entries);
        self.weight.take_beyond(more.weight);
    }

    /// Gives back the places that a shard has taken and does not use, or takes what it uses beyond them.
    pub(crate) fn settle(&self, taken: Holding, used: Holding) {
        self.entries.settle(taken.entries, used.entries);
        self.weight.settle(taken.weight, used.weight);
    }
}

/// A count with a bound.
#[derive(Default, Debug)]
struct Gauge {
    /// What the shards have taken. (A sum of weights beyond 2^64 wraps. Only insertions beyond the bound lead there: four
    /// million of the heaviest entries.)
    taken: AtomicU64,
    /// The bound. `u64::MAX` if there is none. Not modelled by loom: a setting.
    bound: std::sync::atomic::AtomicU64,
}

impl Gauge {
    fn bound(&self) -> u64 {
        // ORDERING: Relaxed, a setting.
        self.bound.load(Relaxed)
    }

    fn set_bound(&self, bound: u64) {
        // ORDERING: Relaxed, a setting.
        self.bound.store(bound, Relaxed);
    }

    /// Takes `more` within the bound. Returns false, and takes nothing, if that is not possible.
    ///
    /// The test and the change are one step. An addition that is taken back if it was too much would let two
    /// insertions refuse each other, although there is room for one.
    fn take(&self, more: u64) -> bool {
        let bound = self.bound();
        let take = |taken: u64| taken.checked_add(more).filter(|&sum| sum <= bound);
        // ORDERING: Acquire, pairs with the Release in `give_back`: the removal that gave the place back happens before
        // the insertion that takes it. A thread that finds the new entry does not find the removed one.
        // ORDERING: Relaxed on failure: nothing follows from it.
        more == 0 || self.taken.fetch_update(Acquire, Relaxed, take).is_ok()
    }

    fn take_beyond(&self, more: u64) {
        if more != 0 {
            // ORDERING: Acquire, as in `take`.
            self.taken.fetch_add(more, Acquire);
        }
    }

    fn give_back(&self, less: u64) {
        if less != 0 {
            // ORDERING: Release, pairs with the Acquire in `take`.
            self.taken.fetch_sub(less, Release);
        }
    }

    fn settle(&self, taken: u64, used: u64) {
        self.give_back(taken.saturating_sub(used));
        self.take_beyond(used.saturating_sub(taken));
    }
}
