//! The settings of a registry that its shards use.

use crate::handle::listener::Listeners;
use crate::percpu::Counter;
use crate::shard::expiry::Lifetimes;
use crate::util::clock::Timekeeper;

/// The settings that a registry gets when it is built.
pub(crate) struct RegistrySettings<K: 'static, V: 'static> {
    pub(crate) clock: Timekeeper,
    pub(crate) weigher: Option<Weigher<K, V>>,
    pub(crate) lifetimes: Lifetimes<K, V>,
    pub(crate) listeners: Listeners<K, V>,
    /// Whether entries with handles are spared.
    pub(crate) spare_held: bool,
    /// The counts of hits and misses, if they are counted.
    pub(crate) lookups: Option<Box<Lookups>>,
    /// The cost of making an entry again: see [`Reaper::seeks`](crate::Reaper::seeks).
    pub(crate) seeks: u32,
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

/// The user's function that returns the bytes that an entry holds beyond its node.
pub(crate) type Weigher<K, V> = Box<dyn Fn(&K, &V) -> usize + Send + Sync>;
