//! A shard's table, and how it changes its size: a few homes with each write.

#![allow(unsafe_code)]

use crate::bucket::Tag;
use crate::counts::Counts;
use crate::domain::{Allowance, Domain, List};
use crate::evict::{Bounds, Hand};
use crate::node::Node;
use crate::table::{Root, Table};
use crate::timers::Timers;
use std::ptr::NonNull;

/// What the lock guards. In the order of how often it is used: a write brings few lines over from the core that wrote last.
#[repr(C)]
pub(crate) struct State<K, V> {
    /// The table at the root.
    pub(crate) table: Table<K, V>,
    pub(crate) resize: Option<Resize<K, V>>,
    /// Nodes in the shard.
    pub(crate) live: usize,
    /// The bytes that they count for.
    pub(crate) weight: u64,
    pub(crate) bounds: Bounds,
    /// Nodes that were unlinked under the lock, to be retired after it (S3). Empty while nobody has the lock.
    pub(crate) unlinked: List,
    /// Room in the domain's backlog for what leaves the shard.
    pub(crate) allowance: Allowance,
    /// A table that the root has left, to be retired without the lock.
    pub(crate) outgoing: Option<Table<K, V>>,
    /// The size below which the table does not shrink, in buckets.
    pub(crate) floor: usize,
    /// The settings by which entries expire.
    pub(crate) generation: u32,
    pub(crate) hand: Box<Hand<K, V>>,
    pub(crate) timers: Box<Timers>,
}

/// A move of all nodes to another table, under way.
pub(crate) struct Resize<K, V> {
    pub(crate) to: Table<K, V>,
    /// The first home that may not have moved.
    next_home: usize,
}

/// What a resize touches outside the lock's own state.
pub(crate) struct Site<'s, K, V> {
    pub(crate) root: &'s Root<K, V>,
    pub(crate) counts: &'s Counts,
}

impl<K, V> Clone for Site<'_, K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for Site<'_, K, V> {}

/// Homes that a write moves while a resize is under way, beside the one that it uses.
const STEP: usize = 2;

/// Frees a table that the root has left, after a grace period.
pub(crate) fn retire_table<K, V>(domain: &Domain, table: Table<K, V>)
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    // SAFETY: T1: the root has left it, and this runs after a grace period.
    domain.inner().defer(table.bytes(), move || unsafe { table.free() });
}

impl<K, V> State<K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// The table that writes go to.
    pub(crate) fn newest(&self) -> Table<K, V> {
        self.resize.as_ref().map_or(self.table, |resize| resize.to)
    }

    /// The table to write `hash` to, after a step of the resize if one is under way.
    #[inline]
    pub(crate) fn table_for(&mut self, hash: u64, site: Site<'_, K, V>) -> Table<K, V> {
        if self.resize.is_none() { self.table } else { self.table_for_resizing(hash, site) }
    }

    #[cold]
    fn table_for_resizing(&mut self, hash: u64, site: Site<'_, K, V>) -> Table<K, V> {
        self.step(site, STEP);
        if let Some(resize) = &self.resize {
            // T4.
            self.table.move_home(self.table.home(hash), resize.to);
        }
        self.newest()
    }

    pub(crate) fn publish(&mut self, table: Table<K, V>, hash: u64, node: NonNull<Node<K, V>>, site: Site<'_, K, V>) {
        table.place(hash as u32 as usize, Tag::of(hash), node);
        self.live += 1;
        // SAFETY: published under this lock, S1.
        self.weight += unsafe { node.as_ref() }.header.weight.bytes();
        site.counts.inserted.add(1);
        if self.live >= Table::<K, V>::limit(table.buckets()) {
            // The resize before this one is over long since, but for a hash that puts everything in one home.
            self.step(site, usize::MAX);
            self.begin_resize(table.buckets() * 2, site.counts);
        }
    }

    /// At an eighth of what the table holds, goes to a quarter of it.
    #[inline]
    pub(crate) fn shrink_if_sparse(&mut self, counts: &Counts) {
        let buckets = self.table.buckets();
        if self.resize.is_none() && buckets > self.floor && self.live < Table::<K, V>::limit(buckets) / 6 {
            self.begin_resize((buckets / 4).max(self.floor), counts);
        }
    }

    #[cold]
    pub(crate) fn begin_resize(&mut self, buckets: usize, counts: &Counts) {
        debug_assert!(self.resize.is_none());
        let to = Table::new(buckets);
        self.table.set_next(to);
        self.resize = Some(Resize { to, next_home: 0 });
        counts.resizes.add(1);
        self.measure(counts);
    }

    pub(crate) fn measure(&self, counts: &Counts) {
        let next = self.resize.as_ref().map_or(0, |resize| resize.to.bytes());
        counts.capacity.set(Table::<K, V>::limit(self.newest().buckets()) as u64);
        counts.set_resizing(self.resize.is_some());
        counts.bytes.set((self.table.bytes() + next) as u64);
    }

    /// Moves up to `homes` homes of a resize that is under way. After the last one the new table becomes the root.
    pub(crate) fn step(&mut self, site: Site<'_, K, V>, homes: usize) {
        let Some(resize) = &mut self.resize else { return };
        let end = resize.next_home.saturating_add(homes).min(self.table.buckets());
        for home in resize.next_home..end {
            self.table.move_home(home, resize.to);
        }
        resize.next_home = end;
        if end == self.table.buckets() {
            let old = std::mem::replace(&mut self.table, resize.to);
            self.resize = None;
            site.root.store(self.table);
            self.measure(site.counts);
            // Under one lock no more than one resize ends: what begins after it is not stepped under the same lock.
            debug_assert!(self.outgoing.is_none());
            self.outgoing = Some(old);
        }
    }
}
