//! A shard's table, and how it changes its size: a few homes with each write.

#![allow(unsafe_code)]

use crate::bucket::Tag;
use crate::domain::{Allowance, Bag, Domain, Inner};
use crate::evict::{Bounds, Hand};
use crate::life::Early;
use crate::node::{Header, Node};
use crate::shard::ShardRef;
use crate::slab::{Shape, Slabs};
use crate::table::Table;
use crate::timers::Timers;
use std::ptr::NonNull;

/// What the lock guards. In the order of how often it is used: a write brings few lines over from the core that wrote last.
#[repr(C)]
pub(crate) struct State<K, V> {
    /// The table at the root.
    pub(crate) table: Table<K, V>,
    /// What a write has to mind, beside the table.
    pub(crate) special: Special,
    /// What the holder of the lock has left for the domain to do.
    pub(crate) work: Work,
    /// What that is before a write has done anything.
    pub(crate) usual_work: Work,
    /// Nodes that were retired and not handed over yet. Not empty if it is there.
    pub(crate) open: Option<Box<Bag>>,
    pub(crate) slabs: Slabs,
    /// The slabs of nodes without lives, if there are any of a shard that was told to expire later.
    pub(crate) early_slabs: Option<Box<Slabs>>,
    pub(crate) resize: Option<Resize<K, V>>,
    pub(crate) bounds: Bounds,
    /// The shard is in its domain's dirty list (Q1).
    pub(crate) is_dirty: bool,
    /// A place in the backlog that the holder of the lock has reserved, of so many bytes.
    pub(crate) place: Option<u64>,
    /// An empty bag.
    pub(crate) spare: Option<Box<Bag>>,
    /// Room in the domain's backlog for what leaves the shard.
    pub(crate) allowance: Allowance,
    /// A table that the root has left, to be retired without the lock.
    pub(crate) old_table: Option<Table<K, V>>,
    /// The size below which the table does not shrink, in buckets.
    pub(crate) floor: usize,
    pub(crate) hand: Box<Hand<K, V>>,
    pub(crate) timers: Box<Timers>,
}

/// Which features of a shard are in use, one bit each: a write to one without any takes the short way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Special(u32);

impl Special {
    pub(crate) const NONE: Special = Special(0);
    /// A resize is under way, or its old table is still to be retired.
    pub(crate) const RESIZING: Special = Special(1);
    /// Entries or weight are bounded.
    pub(crate) const BOUNDED: Special = Special(2);
    /// What leaves the shard takes its place in a limited backlog.
    pub(crate) const LIMITED: Special = Special(4);
    /// Entries may expire, or might at some time.
    pub(crate) const EXPIRING: Special = Special(8);

    #[inline]
    pub(crate) fn has(self, one: Special) -> bool {
        self.0 & one.0 != 0
    }

    pub(crate) fn set(&mut self, one: Special, on: bool) {
        self.0 = if on { self.0 | one.0 } else { self.0 & !one.0 };
    }
}

/// What a write leaves for after the lock, in one word.
///
/// ```text
///  bit 31 .. 2            1        0
///  ┌───────────────────┬──────┬───────────┐
///  │ nodes handed over │ look │ new dirty │
///  └───────────────────┴──────┴───────────┘
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Work(u32);

impl Work {
    pub(crate) const NONE: Work = Work(0);
    /// To look for something to reclaim now and then: after every write to a domain that has neither a thread nor an executor.
    pub(crate) const LOOK: Work = Work(2);

    /// The shard has become dirty.
    pub(crate) fn add_dirty(&mut self) {
        self.0 |= 1;
    }

    pub(crate) fn add_handed_over(&mut self, nodes: usize) {
        self.0 = self.0.saturating_add((nodes as u32).saturating_mul(4));
    }

    pub(crate) fn handed_over(self) -> usize {
        (self.0 >> 2) as usize
    }
}

/// A move of all nodes to another table, under way.
pub(crate) struct Resize<K, V> {
    pub(crate) to: Table<K, V>,
    /// The first home that may not have moved.
    next_home: usize,
}

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
    pub(crate) fn table_for(&mut self, hash: u64, shard: ShardRef<'_, K, V>) -> Table<K, V> {
        if self.resize.is_none() { self.table } else { self.table_for_resizing(hash, shard) }
    }

    #[cold]
    fn table_for_resizing(&mut self, hash: u64, shard: ShardRef<'_, K, V>) -> Table<K, V> {
        self.step(shard, STEP);
        if let Some(resize) = &self.resize {
            // T4.
            self.table.move_home(self.table.home(hash), resize.to);
        }
        self.newest()
    }

    /// Publishes a node in the newest table. It is counted before: nothing can come between the two.
    #[inline(always)]
    pub(crate) fn publish(
        &mut self,
        table: Table<K, V>,
        hash: u64,
        node: NonNull<Node<K, V>>,
        shard: ShardRef<'_, K, V>,
    ) {
        // SAFETY: made by the caller, and the lock is held from here to its unlinking (S1).
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

    #[cold]
    fn grow(&mut self, shard: ShardRef<'_, K, V>) {
        // The resize before this one is over long since, but for a hash that puts everything in one home.
        self.step(shard, usize::MAX);
        self.begin_resize(self.table.buckets() * 2, shard);
    }

    /// At an eighth of what the table holds, goes to a quarter of it.
    #[inline]
    pub(crate) fn shrink_if_sparse(&mut self, shard: ShardRef<'_, K, V>) {
        if shard.counts().live.get() < self.table.grows_at() as u64 / 6
            && self.table.buckets() > self.floor
            && self.resize.is_none()
        {
            self.begin_resize((self.table.buckets() / 4).max(self.floor), shard);
        }
    }

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

    pub(crate) fn measure(&self, shard: ShardRef<'_, K, V>) {
        let counts = shard.counts();
        let next = self.resize.as_ref().map_or(0, |resize| resize.to.bytes());
        counts.capacity.set(Table::<K, V>::limit(self.newest().buckets()) as u64);
        counts.set_resizing(self.resize.is_some());
        counts.bytes.set((self.table.bytes() + next) as u64);
    }

    /// Moves up to `homes` homes of a resize that is under way. After the last one the new table becomes the root.
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
            // Under one lock no more than one resize ends: what begins after it is not stepped under the same lock.
            debug_assert!(self.old_table.is_none());
            self.old_table = Some(old);
        }
    }

    /// Prepares for entries that expire: nodes get lives from now on, and those that are there get theirs (L3). They are kept
    /// apart, as their slots are too short to be used again.
    ///
    /// It takes a look at all nodes under the lock, once.
    pub(crate) fn extend(&mut self, shape: Shape) -> Option<Early> {
        if self.special.has(Special::EXPIRING) {
            return None;
        }
        self.special.set(Special::EXPIRING, true);
        let early = self.table.nodes().into_iter().map(|node| node.addr().get()).collect();
        let mut slabs = std::mem::replace(&mut self.slabs, Slabs::new(shape));
        slabs.retire();
        if !slabs.is_empty() {
            self.early_slabs = Some(Box::new(slabs));
        }
        Some(Early::new(early))
    }

    /// Takes the slots of destroyed nodes back, as [`Slabs::recycle`].
    ///
    /// # Safety
    ///
    /// The nodes were of this shard, and are destroyed.
    pub(crate) unsafe fn recycle(&mut self, mut bag: Box<Bag>) -> Option<Box<Bag>> {
        if self.early_slabs.is_none() {
            // SAFETY: the caller's promise.
            return unsafe { self.slabs.recycle(bag) };
        }
        // A magazine must not hold slots of both kinds.
        while let Some(slot) = bag.pop_free() {
            // SAFETY: the caller's promise.
            unsafe { self.free(slot) };
        }
        Some(bag)
    }

    /// Takes the slot of a destroyed node back.
    ///
    /// # Safety
    ///
    /// As for [`recycle`](Self::recycle).
    pub(crate) unsafe fn free(&mut self, slot: NonNull<Header>) {
        // SAFETY: N4, the kind outlasts the node.
        let kind = unsafe { &raw const (*slot.as_ptr()).kind };
        // SAFETY: as said.
        let has_life = unsafe { kind.read() }.has_life();
        match &mut self.early_slabs {
            Some(early) if !has_life => {
                // SAFETY: the caller's promise, and it is a slot of theirs.
                unsafe { early.free(slot) };
                if early.is_empty() {
                    self.early_slabs = None;
                }
            }
            // SAFETY: the caller's promise, and it is a slot of theirs.
            _ => unsafe { self.slabs.free(slot) },
        }
    }

    /// Hands the open bag over to the domain. Returns how many nodes it holds.
    pub(crate) fn close_bag(&mut self, domain: &Inner) -> usize {
        let Some(bag) = self.open.take() else { return 0 };
        let nodes = bag.amount().objects as usize;
        domain.hand_over(bag);
        nodes
    }
}
