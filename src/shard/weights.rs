//! Changes of the weight of an entry that is in its table.

#![allow(unsafe_code)]

use crate::handle::Handle;
use crate::node::weight::Weight;
use crate::shard::ShardRef;
use crate::shard::locked::Locked;

impl<K, V> ShardRef<'_, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Changes the weight of an entry, if the entry is in the table (N5). Returns whether the shard then exceeds its
    /// bounds.
    pub(crate) fn set_weight(self, entry: &Handle<K, V>, weight: Weight) -> bool {
        let mut locked = self.lock();
        if locked.table_for(entry.hash().into(), self).locate_exact(entry.node()).is_none() {
            return false;
        }
        let sum = &self.counts().weight;
        sum.subtract(entry.weight());
        sum.add(weight.bytes());
        // N5: the node is in the table, under the lock.
        entry.get().header.weight.set(weight);
        let exceeds = locked.exceeds_bounds();
        locked.finish();
        exceeds
    }
}

impl<K, V> Locked<'_, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Returns whether the shard holds more than its bounds allow. An entry that is alone may have any weight.
    pub(crate) fn exceeds_bounds(&self) -> bool {
        let weight = self.shard.counts().weight.get();
        self.live() > self.bounds.entries || weight > self.bounds.weight && self.live() > 1
    }
}
