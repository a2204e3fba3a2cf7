//! The state that a shard's lock guards.

#![allow(unsafe_code)]

use crate::domain::{Bag, Credits, Inner};
use crate::node::Header;
use crate::shard::early::Early;
use crate::shard::evict::{Bounds, Hand};
use crate::shard::places::Holding;
use crate::shard::reserve::{Landing, Reservations};
use crate::shard::resize::Resize;
use crate::shard::slab::{Shape, Slabs};
use crate::shard::timers::Timers;
use crate::shard::weak::WeakLinks;
use crate::table::Table;
use std::ptr::NonNull;

/// The state that the lock guards. The most used fields come first, so that a write fetches few cache lines from
/// the core that wrote last.
#[repr(C)]
pub(crate) struct ShardState<K, V> {
    /// The table at the root.
    pub(crate) table: Table<K, V>,
    /// The features in use that a write must handle, beside the table.
    pub(crate) special: Special,
    /// The work that the holder of the lock leaves for after the lock.
    pub(crate) work: Work,
    /// The value of `work` at the beginning of a write.
    pub(crate) usual_work: Work,
    /// The open bag: nodes that were retired and are not handed over yet. It is never empty.
    pub(crate) open: Option<Box<Bag>>,
    /// The slabs from which nodes are allocated.
    pub(crate) slabs: Slabs,
    /// The slabs of nodes without lives, in a shard that was prepared for expiry while it held nodes. `None` once
    /// all of them are freed, if they lie in slabs and not in allocations of their own.
    pub(crate) early_slabs: Option<Box<Slabs>>,
    /// The resize that is under way.
    pub(crate) resize: Option<Resize<K, V>>,
    pub(crate) bounds: Bounds,
    /// Whether the shard is in its domain's dirty list (Q1).
    pub(crate) is_dirty: bool,
    /// Room in the backlog for one object of this many bytes, which the holder of the lock has reserved and not
    /// used.
    pub(crate) reservation: Option<u64>,
    /// An empty bag, kept for the next open bag.
    pub(crate) spare: Option<Box<Bag>>,
    /// Room in the domain's backlog, taken in advance for nodes that leave the shard.
    pub(crate) credits: Credits,
    /// A table that the root has left. It is retired after the lock.
    pub(crate) old_table: Option<Table<K, V>>,
    /// The number of buckets below which the table does not shrink.
    pub(crate) floor: usize,
    pub(crate) hand: Box<Hand<K, V>>,
    /// The places that the shard has taken, in a registry that refuses.
    pub(crate) taken: Holding,
    pub(crate) timers: Box<Timers>,
    /// The reserved keys. `None` until the first reservation.
    pub(crate) reservations: Option<Box<Reservations<K>>>,
    /// What is left of a reservation that the holder of the lock has ended. It lands after the lock (K3).
    pub(crate) landing: Option<Landing<K>>,
    /// The links of entries that have weak handles. `None` if there are none.
    pub(crate) weak: Option<Box<WeakLinks>>,
}

/// The features of a shard that are in use, one bit each. A write to a shard without any takes the short path.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Special(u32);

impl Special {
    pub(crate) const NONE: Special = Special(0);
    /// A resize is under way, or its old table is not retired yet.
    pub(crate) const RESIZING: Special = Special(1);
    /// The number of entries or their weight is bounded.
    pub(crate) const BOUNDED: Special = Special(2);
    /// The backlog is limited: a node that leaves the shard needs room in it.
    pub(crate) const LIMITED: Special = Special(4);
    /// There is a limit on how long entries stay, or there was one at some time.
    pub(crate) const EXPIRING: Special = Special(8);
    /// A listener is told of insertions.
    pub(crate) const TOLD: Special = Special(16);
    /// Insertions take places from a count that all shards share.
    pub(crate) const REFUSING: Special = Special(32);
    /// Keys are reserved (K2).
    pub(crate) const RESERVED: Special = Special(64);
    /// Entries have weak handles (Y2).
    pub(crate) const WEAK: Special = Special(128);

    #[inline]
    pub(crate) fn has(self, one: Special) -> bool {
        self.0 & one.0 != 0
    }

    pub(crate) fn set(&mut self, one: Special, on: bool) {
        self.0 = if on { self.0 | one.0 } else { self.0 & !one.0 };
    }
}

/// The work that a write leaves for after the lock, in one word.
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
    /// The write looks for something to reclaim, at times. Set for every write to a domain in which writers alone
    /// reclaim.
    pub(crate) const LOOK: Work = Work(2);

    /// Notes that the shard has become dirty.
    pub(crate) fn add_dirty(&mut self) {
        self.0 |= 1;
    }

    /// Notes that this many nodes were handed over to the domain.
    pub(crate) fn add_handed_over(&mut self, nodes: usize) {
        self.0 = self.0.saturating_add((nodes as u32).saturating_mul(4));
    }

    /// Returns the number of nodes that were handed over.
    pub(crate) fn handed_over(self) -> usize {
        (self.0 >> 2) as usize
    }
}

impl<K, V> ShardState<K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Returns whether all nodes lie in slabs of one kind, which can be visited one after another.
    pub(crate) fn lies_in_slabs(&self) -> bool {
        self.slabs.can_sweep() && self.early_slabs.is_none()
    }

    /// Prepares the shard for entries that expire: nodes that are made later have lives, and the nodes that are
    /// there get theirs in the [`Early`] that this returns (L3). Returns `None` if the shard is prepared already.
    ///
    /// The nodes that are there stay in slabs of their own. Their slots are too short for nodes with lives, so
    /// they are not used again.
    ///
    /// This visits all nodes under the lock, once.
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

    /// Takes back the slots of destroyed nodes, as [`Slabs::recycle`] does.
    ///
    /// # Safety
    ///
    /// The nodes were of this shard, and are destroyed.
    pub(crate) unsafe fn recycle(&mut self, mut bag: Box<Bag>) -> Option<Box<Bag>> {
        if self.early_slabs.is_none() {
            // SAFETY: the caller guarantees that the nodes were of this shard, whose only slabs these are, and
            // are destroyed.
            return unsafe { self.slabs.recycle(bag) };
        }
        // A magazine must not hold slots of both kinds.
        while let Some(slot) = bag.pop_free() {
            // SAFETY: the caller guarantees that the node was of this shard and is destroyed.
            unsafe { self.free(slot) };
        }
        Some(bag)
    }

    /// Takes back the slot of a destroyed node.
    ///
    /// # Safety
    ///
    /// As for [`recycle`](Self::recycle).
    pub(crate) unsafe fn free(&mut self, slot: NonNull<Header>) {
        // SAFETY: N4 (the kind outlasts the node: its slot is still there).
        let kind = unsafe { &raw const (*slot.as_ptr()).kind };
        // SAFETY: N4 (the kind outlasts the node: its slot is still there).
        let has_life = unsafe { kind.read() }.has_life();
        match &mut self.early_slabs {
            Some(early) if !has_life => {
                // SAFETY: the node is destroyed, and its slot is in these slabs: it has no life.
                unsafe { early.free(slot) };
                if early.is_empty() {
                    self.early_slabs = None;
                }
            }
            // SAFETY: the node is destroyed, and its slot is in these slabs: it has a life, or there are no
            // others.
            _ => unsafe { self.slabs.free(slot) },
        }
    }

    /// Hands the open bag over to the domain, if there is one. Returns how many nodes it holds.
    pub(crate) fn close_bag(&mut self, domain: &Inner) -> usize {
        let Some(bag) = self.open.take() else { return 0 };
        let nodes = bag.amount().objects as usize;
        domain.hand_over(bag);
        nodes
    }
}
