//! What a registry is told when it is built, and its shards go by.

use crate::handle::listener::Listeners;
use crate::shard::expiry::Lifetimes;
use crate::util::clock::Timekeeper;

/// What a registry is told when it is built.
pub(crate) struct Settings<K: 'static, V: 'static> {
    pub(crate) clock: Timekeeper,
    pub(crate) weigher: Option<Weigher<K, V>>,
    pub(crate) lifetimes: Lifetimes<K, V>,
    pub(crate) listeners: Listeners<K, V>,
    pub(crate) spare_held: bool,
    pub(crate) seeks: u32,
}

/// The bytes that an entry holds beyond its node.
pub(crate) type Weigher<K, V> = Box<dyn Fn(&K, &V) -> usize + Send + Sync>;
