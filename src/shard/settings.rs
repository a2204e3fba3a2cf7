//! The settings of a registry that its shards use.

use crate::handle::listener::Listeners;
use crate::node::life::Deadline;
use crate::node::owner::SlabSize;
use crate::node::usage::FirstMarks;
use crate::node::{Particulars, UnpublishedNode};
use crate::percpu::Counter;
use crate::reap::Priority;
use crate::shard::expiry::Lifetimes;
use crate::shard::places::Places;
use crate::util::clock::{Time, Timekeeper};
use std::sync::Arc;

/// The settings that a registry gets when it is built.
pub(crate) struct RegistrySettings<K: 'static, V: 'static> {
    pub(crate) clock: Timekeeper,
    /// Set if any of the three functions is: `prioritizer` and `exempts` are asked with it.
    pub(crate) weigher: Option<Weigher<K, V>>,
    pub(crate) prioritizer: Option<Prioritizer<K, V>>,
    pub(crate) exempts: Option<Exempts<K, V>>,
    pub(crate) lifetimes: Lifetimes<K, V>,
    pub(crate) listeners: Listeners<K, V>,
    /// Whether entries with handles are spared.
    pub(crate) spare_held: bool,
    /// The counts of hits and misses, if they are counted.
    pub(crate) lookups: Option<Box<Lookups>>,
    /// The cost of making an entry again: see [`Reaper::seeks`](crate::Reaper::seeks).
    pub(crate) seeks: u32,
    /// The places of a registry that refuses. `None` in a registry that evicts.
    pub(crate) places: Option<Arc<Places>>,
    /// The size of the slabs that hold the nodes.
    pub(crate) slab: SlabSize,
}

/// The counts of reads that have found an entry, and of reads that have found none. Each thread counts by itself.
#[derive(Default)]
pub(crate) struct Lookups {
    pub(crate) hits: Counter,
    pub(crate) misses: Counter,
}

impl Lookups {
    /// Counts a read.
    pub(crate) fn count(&self, is_hit: bool) {
        if is_hit { &self.hits } else { &self.misses }.increment();
    }
}

impl<K, V> RegistrySettings<K, V> {
    /// Takes the time of an entry anew, because its writer has waited, and the end of its life with it. Calls user code,
    /// which may panic.
    pub(crate) fn retime(&self, unpublished: &mut UnpublishedNode<K, V>) {
        let Particulars { time: before, own_end, .. } = unpublished.particulars;
        if !self.lifetimes.expires() {
            unpublished.particulars.time = self.clock.now();
            return;
        }
        let time = self.clock.beginning();
        let own_end = match own_end.is_fixed() {
            true if own_end.time() == Time::NEVER => own_end,
            true => Deadline::fixed(time.end_of(Time::ceil_from(own_end.time().since(before)))),
            false => Deadline::at(self.lifetimes.own_end((&unpublished.key, &unpublished.value), time)),
        };
        (unpublished.particulars.time, unpublished.particulars.own_end) = (time, own_end);
    }

    /// Returns the marks with which an entry starts, with its priority and whether it is exempt. Calls user code, which
    /// may panic.
    #[inline(never)]
    pub(crate) fn judge(&self, mut marks: FirstMarks, key: &K, value: &V) -> FirstMarks {
        if let Some(prioritizer) = &self.prioritizer {
            marks = marks.with_priority(prioritizer(key, value));
        }
        match &self.exempts {
            Some(exempts) if exempts(key, value) => marks.exempt(),
            _ => marks,
        }
    }
}

/// The user's function that returns the priority of an entry.
pub(crate) type Prioritizer<K, V> = Box<dyn Fn(&K, &V) -> Priority + Send + Sync>;

/// The user's function that returns whether an entry is admitted even if there is no room for it.
pub(crate) type Exempts<K, V> = Box<dyn Fn(&K, &V) -> bool + Send + Sync>;

/// The user's function that returns the bytes that an entry holds beyond its node.
pub(crate) type Weigher<K, V> = Box<dyn Fn(&K, &V) -> usize + Send + Sync>;
