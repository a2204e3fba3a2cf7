//! Walking a whole registry: under one guard, or in chunks between which nothing is held.
//!
//! Both walks go by *homes*: for each home of a table of a certain size they meet the nodes that belong there, wherever these
//! live now. So a node that stays in the registry is met once, whatever resizes go on.
//!
//! - [`Iter`] takes the table's size when it enters a shard and goes through its homes in their order, from one cache line to
//!   the next. A bucket's nodes are those of its home, unless an earlier bucket overflows: only then their hashes are looked
//!   at. The nodes of the buckets to come are asked for in advance.
//! - A [`Cursor`] is a plain number, which must stay meaningful when the table is resized between two chunks. It goes
//!   through the homes in the order of their numbers with the bits reversed (as Redis' `SCAN` does, by Pieter Noordhuis). When
//!   a table has doubled since, the homes that one home was split into are all before or all behind the cursor, so nothing is
//!   missed or met twice; when it has shrunk, homes were merged of which one may have been visited and another not, so that
//!   the merged home is visited (again).

#![allow(unsafe_code)]

use crate::handle::Entry;
use crate::node::Node;
use crate::reap::Cursor;
use crate::registry::core::Core;
use crate::table::{Root, Walk};
use crate::util::clock::Time;
use std::iter::FusedIterator;
use std::marker::PhantomData;
use std::ptr::NonNull;

impl Cursor {
    /// Adds the nodes of one home to `found`, and moves on.
    ///
    /// # Safety
    ///
    /// In a critical section of the core's domain; the nodes are valid until its end.
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
        // One more, counted from the top bit of the mask down.
        self.home = (self.home | !mask).reverse_bits().wrapping_add(1).reverse_bits();
        if self.home == 0 {
            self.shard += 1;
            self.done = self.shard == core.shards().len();
        }
    }
}

/// All entries of a registry: from [`View::iter`](crate::View::iter).
pub struct Iter<'g, K: 'static, V: 'static> {
    core: &'g Core<K, V>,
    /// Of the shards that are still to be entered.
    roots: std::slice::Iter<'g, Root<K, V>>,
    /// The walk through the table of the present shard.
    walk: Option<Walk<K, V>>,
    /// When that shard was entered, if entries may expire.
    now: Option<Time>,
    /// Not `Send`: the critical section is this thread's.
    _section: PhantomData<*const ()>,
}

impl<'g, K, V> Iter<'g, K, V> {
    /// # Safety
    ///
    /// Within a critical section that outlasts `'g`.
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
        let Some(root) = self.roots.next() else { return false };
        match &mut self.walk {
            Some(walk) => walk.enter_table(root.load()),
            None => self.walk = Some(Walk::new(root.load())),
        }
        self.now = self.core.time_to_read();
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
                // SAFETY: found within the critical section that outlasts 'g.
                if !unsafe { self.core.is_there(node, self.now) } {
                    continue;
                }
                // SAFETY: found within the critical section that outlasts 'g.
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
                    // SAFETY: found within the critical section that outlasts 'g.
                    if !unsafe { self.core.is_there(node, self.now) } {
                        return result;
                    }
                    // SAFETY: as said.
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
