//! What a shard's lock guards.

#![allow(unsafe_code)]

use crate::domain::{Bag, Credits, Inner};
use crate::node::Header;
use crate::shard::early::Early;
use crate::shard::evict::{Bounds, Hand};
use crate::shard::resize::Resize;
use crate::shard::slab::{Shape, Slabs};
use crate::shard::timers::Timers;
use crate::table::Table;
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
    pub(crate) credits: Credits,
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

impl<K, V> State<K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
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
