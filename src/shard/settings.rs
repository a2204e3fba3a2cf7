//! The settings of a registry that its shards use.

use crate::handle::listener::Listeners;
use crate::node::owner::SlabSize;
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
    /// The cost of making an entry again: see [`Reaper::seeks`](crate::Reaper::seeks).
    pub(crate) seeks: u32,
    /// The size of the slabs that hold the nodes.
    pub(crate) slab: SlabSize,
}

/// The user's function that returns the bytes that an entry holds beyond its node.
pub(crate) type Weigher<K, V> = Box<dyn Fn(&K, &V) -> usize + Send + Sync>;
