//! How a shard's table changes its size: a few homes with each write.

#![allow(unsafe_code)]

use crate::domain::Domain;
use crate::node::Node;
use crate::shard::ShardRef;
use crate::shard::state::{ShardState, Special};
use crate::table::Table;
use crate::table::bucket::Tag;
use std::ptr::NonNull;

/// A resize that is under way: it moves all nodes to another table.
pub(crate) struct Resize<K, V> {
    pub(crate) to: Table<K, V>,
    /// The first home that may not have moved yet. All homes before it have moved.
    next_home: usize,
}

/// The number of homes that each write moves during a resize, besides the home that it uses.
const STEP: usize = 2;

/// Retires a table that cannot be reached from the root any more: frees it after a grace period.
pub(crate) fn retire_table<K, V>(domain: &Domain, table: Table<K, V>)
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    // SAFETY: T1 (the table cannot be reached from the root, and this runs after a grace period).
    domain.inner().defer(table.bytes(), move || unsafe { table.free() });
}

impl<K, V> ShardState<K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Returns the table that writes go to.
    pub(crate) fn newest(&self) -> Table<K, V> {
        self.resize.as_ref().map_or(self.table, |resize| resize.to)
    }

    /// Returns the table to which to write `hash`. During a resize, first moves a few homes and the home of
    /// `hash`.
    #[inline]
    pub(crate) fn table_for(&mut self, hash: u64, shard: ShardRef<'_, K, V>) -> Table<K, V> {
        if self.resize.is_none() { self.table } else { self.table_for_resizing(hash, shard) }
    }

    #[cold]
    fn table_for_resizing(&mut self, hash: u64, shard: ShardRef<'_, K, V>) -> Table<K, V> {
        self.step(shard, STEP);
        if let Some(resize) = &self.resize {
            // T4: the home has moved before the write uses it.
            self.table.move_home(self.table.home(hash), resize.to);
        }
        self.newest()
    }

    /// Publishes a node in `table`, which is the newest one, and counts the node before that. Nothing that can
    /// panic runs in between (S4). Begins to grow a table that reaches its limit.
    #[inline(always)]
    pub(crate) fn publish(
        &mut self,
        table: Table<K, V>,
        hash: u64,
        node: NonNull<Node<K, V>>,
        shard: ShardRef<'_, K, V>,
    ) {
        // SAFETY: S1 (the shard lock is held). The caller has made the node, and no thread can unlink it before
        // the lock is released.
        let weight = unsafe { node.as_ref() }.header.weight.bytes();
        let counts = shard.counts();
        counts.weight.add(weight);
        counts.live.add(1);
        counts.inserted.add(1);
        table.place(hash as u32 as usize, Tag::of(hash), node);
        if counts.live.get() >= table.grows_at() as u64 {
            self.grow(shard);
        }
    }

    /// Begins to move to a table of twice the size.
    #[cold]
    fn grow(&mut self, shard: ShardRef<'_, K, V>) {
        // The previous resize has nearly always ended by now. One case in which it has not: the hash puts all
        // nodes into one home.
        self.step(shard, usize::MAX);
        self.begin_resize(self.table.buckets() * 2, shard);
    }

    /// Begins to shrink the table to a quarter of its size if it uses less than an eighth of its slots.
    #[inline]
    pub(crate) fn shrink_if_sparse(&mut self, shard: ShardRef<'_, K, V>) {
        if shard.counts().live.get() < self.table.grows_at() as u64 / 6
            && self.table.buckets() > self.floor
            && self.resize.is_none()
        {
            self.begin_resize((self.table.buckets() / 4).max(self.floor), shard);
        }
    }

    /// Begins a resize to a new table of `buckets`. The previous resize has ended.
    #[cold]
    pub(crate) fn begin_resize(&mut self, buckets: usize, shard: ShardRef<'_, K, V>) {
        debug_assert!(self.resize.is_none());
        let to = Table::new(buckets);
        self.table.set_next(to);
        self.resize = Some(Resize { to, next_home: 0 });
        self.special.set(Special::RESIZING, true);
        shard.counts().resizes.add(1);
        self.measure(shard);
    }

    /// Updates the statistics that depend on the tables: capacity, memory, and whether a resize is under way.
    pub(crate) fn measure(&self, shard: ShardRef<'_, K, V>) {
        let counts = shard.counts();
        let next = self.resize.as_ref().map_or(0, |resize| resize.to.bytes());
        counts.capacity.set(Table::<K, V>::limit(self.newest().buckets()) as u64);
        counts.set_resizing(self.resize.is_some());
        counts.bytes.set((self.table.bytes() + next) as u64);
    }

    /// Moves up to `homes` homes, if a resize is under way. After the last home, the new table becomes the root.
    pub(crate) fn step(&mut self, shard: ShardRef<'_, K, V>, homes: usize) {
        let Some(resize) = &mut self.resize else { return };
        let end = resize.next_home.saturating_add(homes).min(self.table.buckets());
        for home in resize.next_home..end {
            self.table.move_home(home, resize.to);
        }
        resize.next_home = end;
        if end == self.table.buckets() {
            let old = std::mem::replace(&mut self.table, resize.to);
            self.resize = None;
            shard.root.store(self.table);
            self.measure(shard);
            // At most one resize ends before the lock is released: after a new resize has begun, no step is made
            // under the same lock.
            debug_assert!(self.old_table.is_none());
            self.old_table = Some(old);
        }
    }
}
