//! How a table is traversed.

#![allow(unsafe_code)]

use super::Table;
use crate::node::Node;
use crate::table::bucket::{Control, Slots};
use crate::util::prefetch;
use std::ptr::NonNull;

impl<K, V> Table<K, V> {
    /// Adds to `found` every node whose hash, masked with `mask`, equals `unit`. `mask` is a power of two minus
    /// one.
    ///
    /// The caller is in a critical section or holds the shard lock. A node that is in the table during the
    /// whole call is found exactly once, whatever writers do at the same time.
    pub(crate) fn visit(self, unit: usize, mask: usize, found: &mut Vec<NonNull<Node<K, V>>>) {
        if self.mask() <= mask {
            return self.visit_home(unit & self.mask(), unit, mask, found);
        }
        let mut home = unit;
        while home <= self.mask() {
            self.visit_home(home, home, self.mask(), found);
            home += mask + 1;
        }
    }

    /// Returns whether no node can be reached through this home. The caller holds the shard lock.
    pub(crate) fn is_vacant(self, home: usize) -> bool {
        self.bucket(home).control().is_vacant()
    }

    /// Returns every node. The caller holds the shard lock, or no other thread can reach the table any more.
    ///
    /// It collects all nodes before it returns, because the visit of a home also reads nodes of other homes. So
    /// the caller may free the returned nodes one by one.
    pub(crate) fn nodes(self) -> Vec<NonNull<Node<K, V>>> {
        let mut found = Vec::new();
        for home in 0..=self.mask() {
            self.visit(home, self.mask(), &mut found);
        }
        found
    }

    /// Prefetches the nodes in a bucket.
    #[inline]
    fn prefetch_nodes(self, index: usize) {
        let bucket = self.bucket(index);
        bucket.control().full().for_each(|slot| prefetch::to_read(bucket.slot(slot)));
    }

    fn visit_home(self, home: usize, unit: usize, mask: usize, found: &mut Vec<NonNull<Node<K, V>>>) {
        let before = found.len();
        let first = self.bucket(home).control();
        if !first.is_moved() {
            for (index, control) in self.chain_from(home, first) {
                for slot in control.full() {
                    // SAFETY: B1 (the tag is set).
                    let node = unsafe { NonNull::new_unchecked(self.bucket(index).slot(slot)) };
                    // SAFETY: B2 (the caller is in a critical section), or S1 (the caller holds the shard
                    // lock).
                    if unsafe { node.as_ref() }.header.hash() as usize & mask == unit {
                        found.push(node);
                    }
                }
            }
            // T3, as in `find_beyond`: the home may have moved during the walk.
            if !first.overflows() || !self.bucket(home).control().is_moved() {
                return;
            }
            found.truncate(before);
        }
        if let Some(next) = self.next() {
            next.visit(unit, mask, found);
        }
    }
}

/// How many buckets ahead of the walk nodes are prefetched: about 32 nodes.
const AHEAD: usize = 8;
/// The number of buckets from which a table with its nodes is assumed not to fit the nearest caches. The walk
/// then prefetches nodes.
const LARGE: usize = 256;

/// A walk through the homes of a table, in ascending order. The caller is in the critical section in which it
/// loaded the table.
///
/// A node that is in the shard during the whole walk is returned exactly once, whatever writers do at the same
/// time.
pub(crate) struct Walk<K, V> {
    place: Place<K, V>,
    /// The remaining nodes of the current home, if some of them live in other buckets, or if its bucket may
    /// hold nodes of other homes.
    scattered: Vec<NonNull<Node<K, V>>>,
}

/// The position of a walk.
struct Place<K, V> {
    table: Table<K, V>,
    home: usize,
    /// The remaining slots of the home's bucket. All of them hold nodes of this home.
    slots: Slots,
    /// Whether nodes of this home, or of an earlier one, may live in the next bucket.
    overflows: bool,
    is_large: bool,
}

impl<K, V> Clone for Place<K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for Place<K, V> {}

impl<K, V> Walk<K, V> {
    pub(crate) fn new(table: Table<K, V>) -> Self {
        let mut scattered = Vec::new();
        Walk { place: Place::new(table, &mut scattered), scattered }
    }

    /// Starts again, with another table.
    pub(crate) fn enter_table(&mut self, table: Table<K, V>) {
        self.place = Place::new(table, &mut self.scattered);
    }

    #[inline]
    pub(crate) fn next(&mut self) -> Option<NonNull<Node<K, V>>> {
        loop {
            if let Some(slot) = self.place.slots.next() {
                match self.place.node(slot) {
                    Some(node) => return Some(node),
                    None => continue,
                }
            }
            if let Some(node) = self.scattered.pop() {
                return Some(node);
            }
            if !self.place.advance(&mut self.scattered) {
                return None;
            }
        }
    }

    /// Folds the nodes that [`next`](Self::next) would return until the end of the table. The compiler can keep
    /// the state of this loop in registers.
    #[inline]
    pub(crate) fn fold<B>(&mut self, init: B, mut each: impl FnMut(B, NonNull<Node<K, V>>) -> B) -> B {
        let (mut result, mut place) = (init, self.place);
        // If `each` panics, the walk is not used again.
        self.place.slots = Slots::NONE;
        loop {
            for slot in place.slots {
                if let Some(node) = place.node(slot) {
                    result = each(result, node);
                }
            }
            while let Some(node) = self.scattered.pop() {
                result = each(result, node);
            }
            if !place.advance(&mut self.scattered) {
                self.place = place;
                return result;
            }
        }
    }
}

impl<K, V> Place<K, V> {
    fn new(table: Table<K, V>, scattered: &mut Vec<NonNull<Node<K, V>>>) -> Self {
        let is_large = prefetch::WORKS && table.buckets() >= LARGE;
        if is_large {
            (0..AHEAD).for_each(|home| table.prefetch_nodes(home));
        }
        // Nodes of the last homes may live in the first bucket, as if a bucket before it overflowed.
        let mut place = Place { table, home: 0, slots: Slots::NONE, overflows: true, is_large };
        place.enter(scattered);
        place
    }

    /// Returns the node in a slot whose tag was set. `None` if the walk returns it later.
    ///
    /// The slot may hold a node of another home, which was inserted during the walk: `enter` may have seen no overflow yet. A
    /// node lives in the bucket of its home or in a later one. So the walk has left its home, and does not return it again;
    /// unless its home is one of the last, whose nodes overflow into the first buckets.
    #[inline]
    fn node(&self, slot: usize) -> Option<NonNull<Node<K, V>>> {
        // SAFETY: B1 (the tag was set in the control word that `enter` loaded).
        let node = unsafe { NonNull::new_unchecked(self.table.bucket(self.home).slot(slot)) };
        // SAFETY: B2 (the walk is in a critical section that was open when the table was loaded).
        let home = self.table.home(unsafe { node.as_ref() }.header.hash().into());
        (home <= self.home).then_some(node)
    }

    /// Advances to the next home. Returns false and stays at the last home if there is none.
    #[inline]
    fn advance(&mut self, scattered: &mut Vec<NonNull<Node<K, V>>>) -> bool {
        if self.home == self.table.mask() {
            self.slots = Slots::NONE;
            return false;
        }
        self.home += 1;
        if self.is_large && self.home + AHEAD <= self.table.buckets() {
            self.table.prefetch_nodes(self.home + AHEAD - 1);
        }
        self.enter(scattered);
        true
    }

    /// Collects the nodes of the current home.
    #[inline]
    fn enter(&mut self, scattered: &mut Vec<NonNull<Node<K, V>>>) {
        let control = self.table.bucket(self.home).control();
        let is_mixed = std::mem::replace(&mut self.overflows, control.overflows());
        self.slots = control.full();
        if is_mixed || !control.is_complete() {
            self.slots = Slots::NONE;
            self.table.scattered(self.home, control, scattered);
        }
    }
}

impl<K, V> Table<K, V> {
    /// Adds the nodes of a home whose bucket may hold nodes of other homes, or does not hold all nodes of its
    /// own.
    #[cold]
    fn scattered(self, home: usize, control: Control, found: &mut Vec<NonNull<Node<K, V>>>) {
        if !control.is_complete() {
            return self.visit(home, self.mask(), found);
        }
        // Use the control word that showed the bucket as complete. If it were loaded again, a node of this home
        // might have overflowed into the next bucket by then. The walk would return that node again there.
        for slot in control.full() {
            // SAFETY: B1 (the tag is set).
            let node = unsafe { NonNull::new_unchecked(self.bucket(home).slot(slot)) };
            // SAFETY: B2 (the caller is in a critical section).
            if self.home(unsafe { node.as_ref() }.header.hash().into()) == home {
                found.push(node);
            }
        }
    }
}
