//! Walks through a whole registry: under one guard, or in chunks between which nothing is held.
//!
//! Both walks go by *homes*. For each home of a table of a certain size they meet the nodes that belong there,
//! wherever these nodes live now. So a node that stays in the registry is met once, also during resizes.
//!
//! - [`Iter`] takes the size of a shard's table when it enters the shard. It goes through the homes in ascending
//!   order, from one cache line to the next. The nodes in a bucket are those of its home, unless an earlier
//!   bucket overflows: only then does it look at their hashes. It prefetches the nodes of the buckets to come.
//! - A [`Cursor`] is a plain number, which must stay meaningful if the table is resized between two chunks. It
//!   goes through the homes in the order of their bit-reversed numbers (as Redis' `SCAN` does, by Pieter
//!   Noordhuis). If the table has doubled, the homes that a home was split into are all before or all behind the
//!   cursor, so no node is missed or met twice. If the table has shrunk, homes were merged, of which some may
//!   have been visited and others not: the merged home is visited, possibly again.

#![allow(unsafe_code)]

use crate::handle::Entry;
use crate::node::Node;
use crate::reap::Cursor;
use crate::registry::core::Core;
use crate::table::{Root, Walk};
use crate::util::clock::Time;
use std::fmt;
use std::iter::FusedIterator;
use std::marker::PhantomData;
use std::ptr::NonNull;

impl Cursor {
    /// Adds the nodes of one home to `found`, and moves on to the next home.
    ///
    /// # Safety
    ///
    /// The caller is in a critical section of the core's domain. The nodes are valid until its end.
    pub(crate) unsafe fn step<K, V>(&mut self, core: &Core<K, V>, found: &mut Vec<NonNull<Node<K, V>>>)
    where
        K: Send + Sync + 'static,
        V: Send + Sync + 'static,
    {
        if self.done {
            return;
        }
        let Some(shard) = core.shards().nth(self.shard) else {
            self.done = true;
            return;
        };
        let table = shard.root.load();
        let mask = table.mask();
        table.visit(self.home & mask, mask, found);
        // Add one to the bit-reversed number: the carry goes from the mask's top bit down.
        self.home = (self.home | !mask).reverse_bits().wrapping_add(1).reverse_bits();
        if self.home == 0 {
            self.shard += 1;
            self.done = self.shard == core.shards().len();
        }
    }
}

/// An iterator over the entries of a registry. Returned by [`View::iter`](crate::View::iter) and
/// [`View::iter_shard`](crate::View::iter_shard).
pub struct Iter<'g, K: 'static, V: 'static> {
    core: &'g Core<K, V>,
    /// The roots of the shards that the walk has not entered yet.
    roots: std::slice::Iter<'g, Root<K, V>>,
    /// The walk through the table of the present shard.
    walk: Option<Walk<K, V>>,
    /// When the walk entered that shard, if entries may expire.
    now: Option<Time>,
    /// Not `Send`: the critical section belongs to this thread.
    _section: PhantomData<*const ()>,
}

impl<'g, K, V> Iter<'g, K, V> {
    /// Returns an iterator over the shards of `roots`.
    ///
    /// # Safety
    ///
    /// The caller is in a critical section of the core's domain that outlasts `'g`.
    pub(crate) unsafe fn new(core: &'g Core<K, V>, roots: &'g [Root<K, V>]) -> Self {
        Iter { core, roots: roots.iter(), walk: None, now: None, _section: PhantomData }
    }
}

impl<K, V> Iter<'_, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Enters the next shard. Returns false if there is none.
    fn enter(&mut self) -> bool {
        let Some(root) = self.roots.as_slice().first() else { return false };
        // First, since the user's clock may panic.
        let now = self.core.time_to_read();
        self.roots.next();
        match &mut self.walk {
            Some(walk) => walk.enter_table(root.load()),
            None => self.walk = Some(Walk::new(root.load())),
        }
        self.now = now;
        true
    }
}

impl<'g, K, V> Iterator for Iter<'g, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    type Item = Entry<'g, K, V>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(node) = self.walk.as_mut().and_then(Walk::next) {
                // SAFETY: the node was found within the critical section that outlasts `'g`.
                if !unsafe { self.core.is_there(node, self.now) } {
                    continue;
                }
                // SAFETY: the node was found within the critical section that outlasts `'g`.
                return Some(unsafe { Entry::new(node) });
            }
            if !self.enter() {
                return None;
            }
        }
    }

    fn fold<B, F: FnMut(B, Self::Item) -> B>(mut self, init: B, mut each: F) -> B {
        let mut result = init;
        loop {
            if let Some(walk) = &mut self.walk {
                result = walk.fold(result, |result, node| {
                    // SAFETY: the node was found within the critical section that outlasts `'g`.
                    if !unsafe { self.core.is_there(node, self.now) } {
                        return result;
                    }
                    // SAFETY: the node was found within the critical section that outlasts `'g`.
                    each(result, unsafe { Entry::new(node) })
                });
            }
            if !self.enter() {
                return result;
            }
        }
    }
}

impl<K, V> FusedIterator for Iter<'_, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
}

impl<K, V> fmt::Debug for Iter<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter").finish_non_exhaustive()
    }
}
