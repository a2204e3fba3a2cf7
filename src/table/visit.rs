//! How a table is gone through.

#![allow(unsafe_code)]

use super::Table;
use crate::node::Node;
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

    /// Calls `each` with every node. By whoever holds the lock, or has taken the table away from everybody.
    pub(crate) fn visit_all(self, each: &mut impl FnMut(NonNull<Node<K, V>>)) {
        let mut found = Vec::new();
        for home in 0..=self.mask() {
            self.visit(home, self.mask(), &mut found);
            found.drain(..).for_each(&mut *each);
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
