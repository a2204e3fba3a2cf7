//! How a table is gone through.

#![allow(unsafe_code)]

use super::Table;
use crate::node::Node;
use crate::table::bucket::{Control, Slots};
use crate::util::prefetch;
use std::ptr::NonNull;

impl<K, V> Table<K, V> {
    /// Adds to `found` every node whose hash, masked with `mask`, is `unit`, where `mask` is one less than a power of
    /// two. By whoever is in a critical section, or holds the lock. A node that is in the table all the while is found
    /// exactly once, whatever writers do meanwhile.
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

    /// Whether no node can be found by way of this home. By whoever holds the lock.
    pub(crate) fn is_vacant(self, home: usize) -> bool {
        self.bucket(home).control().is_vacant()
    }

    /// Every node. By whoever holds the lock, or has taken the table away from everybody. (All are found before the first can be
    /// given away: the way through a home looks at nodes of other homes again.)
    pub(crate) fn nodes(self) -> Vec<NonNull<Node<K, V>>> {
        let mut found = Vec::new();
        for home in 0..=self.mask() {
            self.visit(home, self.mask(), &mut found);
        }
        found
    }

    /// Brings the lines of the nodes in a bucket into the cache.
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
                    // SAFETY: B1.
                    let node = unsafe { NonNull::new_unchecked(self.bucket(index).slot(slot)) };
                    // SAFETY: B2, or the lock.
                    if unsafe { node.as_ref() }.header.hash() as usize & mask == unit {
                        found.push(node);
                    }
                }
            }
            // T3, as in `find_beyond`.
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

/// Buckets whose nodes are prefetched before they are looked at: about 32 nodes.
const AHEAD: usize = 8;
/// Buckets from which on a table, with its nodes, is taken to be too large for the nearest caches, and nodes are prefetched.
const LARGE: usize = 256;

/// A walk through the homes of a table in their order. In a critical section that was open when the table was loaded.
///
/// A node that is in the shard all the while is met exactly once, whatever writers do meanwhile.
pub(crate) struct Walk<K, V> {
    place: Place<K, V>,
    /// The nodes of the present home, where not all of them live in its bucket, or nodes of other homes do.
    scattered: Vec<NonNull<Node<K, V>>>,
}

/// Where a walk is.
struct Place<K, V> {
    table: Table<K, V>,
    home: usize,
    /// The slots of that home's bucket that are left. All of them hold nodes of this home.
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

    /// Begins anew, with another table.
    pub(crate) fn enter_table(&mut self, table: Table<K, V>) {
        self.place = Place::new(table, &mut self.scattered);
    }

    #[inline]
    pub(crate) fn next(&mut self) -> Option<NonNull<Node<K, V>>> {
        loop {
            if let Some(slot) = self.place.slots.next() {
                return Some(self.place.node(slot));
            }
            if let Some(node) = self.scattered.pop() {
                return Some(node);
            }
            if !self.place.advance(&mut self.scattered) {
                return None;
            }
        }
    }

    /// As [`next`](Self::next) until the end of the table, in a loop that the compiler can keep in registers.
    #[inline]
    pub(crate) fn fold<B>(&mut self, init: B, mut each: impl FnMut(B, NonNull<Node<K, V>>) -> B) -> B {
        let (mut result, mut place) = (init, self.place);
        // If `each` panics, the walk goes on with the next home.
        self.place.slots = Slots::NONE;
        loop {
            for slot in place.slots {
                result = each(result, place.node(slot));
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
        // Nodes of the last homes may live in the first bucket, as if one before it overflowed.
        let mut place = Place { table, home: 0, slots: Slots::NONE, overflows: true, is_large };
        place.enter(scattered);
        place
    }

    /// The node in a slot whose tag was set.
    ///
    /// By now it may be another node, which was inserted meanwhile. Its home is this one or one that the walk has left, since nodes
    /// live in the bucket of their home or in a later one. So it is not met again.
    #[inline]
    fn node(&self, slot: usize) -> NonNull<Node<K, V>> {
        // SAFETY: B1.
        unsafe { NonNull::new_unchecked(self.table.bucket(self.home).slot(slot)) }
    }

    /// Goes on to the next home. Returns false, and stays at the end of the last, if there is none.
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

    /// Finds the nodes of the present home.
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
    /// Adds the nodes of a home whose bucket holds other nodes too, or not all of them.
    #[cold]
    fn scattered(self, home: usize, control: Control, found: &mut Vec<NonNull<Node<K, V>>>) {
        if !control.is_complete() {
            return self.visit(home, self.mask(), found);
        }
        // By the word that said so. One read anew may say that a node of this home lives in the next bucket by now, which the walk
        // would meet again there.
        for slot in control.full() {
            // SAFETY: B1.
            let node = unsafe { NonNull::new_unchecked(self.bucket(home).slot(slot)) };
            // SAFETY: B2.
            if self.home(unsafe { node.as_ref() }.header.hash().into()) == home {
                found.push(node);
            }
        }
    }
}
