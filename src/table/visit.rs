//! How a table is gone through.

#![allow(unsafe_code)]

use super::Table;
use crate::bucket::Slots;
use crate::node::Node;
use crate::prefetch;
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
        if prefetch::WORKS {
            let bucket = self.bucket(index);
            bucket.control().full().for_each(|slot| prefetch::to_read(bucket.slot(slot)));
        }
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

/// Buckets whose nodes are asked for in advance: 16 nodes, at the usual load.
const AHEAD: usize = 4;

/// A walk through the homes of a table in their order. In a critical section that was open when the table was loaded.
///
/// A node that is in the shard all the while is met exactly once, whatever writers do meanwhile.
pub(crate) struct Walk<K, V> {
    table: Table<K, V>,
    /// The home whose bucket is being gone through.
    home: usize,
    /// The slots of that bucket that are left.
    slots: Slots,
    /// Whether the bucket may hold nodes of other homes.
    is_mixed: bool,
    /// Whether nodes of this home, or of one before, may live in the next bucket.
    overflows: bool,
    /// The nodes of the home, if they do not all live in its bucket.
    scattered: Vec<NonNull<Node<K, V>>>,
}

impl<K, V> Walk<K, V> {
    pub(crate) fn new(table: Table<K, V>) -> Self {
        for home in 0..AHEAD.min(table.buckets()) {
            table.prefetch_nodes(home);
        }
        let mut walk =
            Walk { table, home: 0, slots: Slots::NONE, is_mixed: true, overflows: true, scattered: Vec::new() };
        walk.enter();
        walk
    }

    #[inline]
    pub(crate) fn next(&mut self) -> Option<NonNull<Node<K, V>>> {
        loop {
            while let Some(slot) = self.slots.next() {
                // SAFETY: B1.
                let node = unsafe { NonNull::new_unchecked(self.table.bucket(self.home).slot(slot)) };
                if !self.is_mixed || self.is_at_home(node) {
                    return Some(node);
                }
            }
            if let Some(node) = self.scattered.pop() {
                return Some(node);
            }
            if !self.leave() {
                return None;
            }
        }
    }

    /// As [`next`](Self::next) until the end, in a loop that the compiler can keep in registers.
    pub(crate) fn fold<B>(mut self, init: B, mut each: impl FnMut(B, NonNull<Node<K, V>>) -> B) -> B {
        let mut result = init;
        loop {
            let (bucket, slots) = (self.table.bucket(self.home), self.slots);
            for slot in slots {
                // SAFETY: B1.
                let node = unsafe { NonNull::new_unchecked(bucket.slot(slot)) };
                if !self.is_mixed || self.is_at_home(node) {
                    result = each(result, node);
                }
            }
            while let Some(node) = self.scattered.pop() {
                result = each(result, node);
            }
            if !self.leave() {
                return result;
            }
        }
    }

    fn is_at_home(&self, node: NonNull<Node<K, V>>) -> bool {
        // SAFETY: B2.
        self.table.home(unsafe { node.as_ref() }.header.hash().into()) == self.home
    }

    /// Goes on to the next home. False if there is none.
    #[inline]
    fn leave(&mut self) -> bool {
        self.home += 1;
        if self.home + AHEAD <= self.table.buckets() {
            self.table.prefetch_nodes(self.home + AHEAD - 1);
        }
        if self.home >= self.table.buckets() {
            (self.home, self.slots) = (self.table.mask(), Slots::NONE);
            return false;
        }
        self.enter();
        true
    }

    /// Finds the nodes of the present home.
    #[inline]
    fn enter(&mut self) {
        let control = self.table.bucket(self.home).control();
        // The first bucket may hold nodes of the last homes, which a writer can put there while this reader is here: they are
        // met with their home. (Nodes that are put into another bucket meanwhile have a home that this walk has left.)
        self.is_mixed = self.overflows || self.home == 0;
        self.overflows = control.overflows();
        self.slots = control.full();
        if !control.is_complete() {
            self.enter_scattered();
        }
    }

    #[cold]
    fn enter_scattered(&mut self) {
        self.slots = Slots::NONE;
        self.table.visit(self.home, self.table.mask(), &mut self.scattered);
    }
}
