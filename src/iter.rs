//! Walking a whole registry: under one guard, or in chunks between which nothing is held.
//!
//! The walk visits a shard home by home, in the order of the home's number with its bits reversed (as Redis' `SCAN`
//! does, by Pieter Noordhuis). When a table has doubled since, the homes that one home was split into are all before
//! or all behind the cursor, so nothing is missed or met twice; when it has shrunk, homes were merged of which one may
//! have been visited and another not, so that the merged home is visited (again).

#![allow(unsafe_code)]

use crate::core::Core;
use crate::cursor::Cursor;
use crate::node::Node;
use crate::view::Entry;
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
    cursor: Cursor,
    /// The nodes of the home visited last that are still to be returned.
    found: Vec<NonNull<Node<K, V>>>,
    /// Not `Send`: the critical section is this thread's.
    _section: PhantomData<*const ()>,
}

impl<'g, K, V> Iter<'g, K, V> {
    /// # Safety
    ///
    /// Within a critical section that outlasts `'g`.
    pub(crate) unsafe fn new(core: &'g Core<K, V>) -> Self {
        Iter { core, cursor: Cursor::new(), found: Vec::new(), _section: PhantomData }
    }
}

impl<'g, K, V> Iterator for Iter<'g, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    type Item = Entry<'g, K, V>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(node) = self.found.pop() {
                // SAFETY: found within the critical section that outlasts 'g.
                return Some(unsafe { Entry::new(node) });
            }
            if self.cursor.is_done() {
                return None;
            }
            // SAFETY: `new`'s promise.
            unsafe { self.cursor.step(self.core, &mut self.found) };
        }
    }
}

impl<K, V> FusedIterator for Iter<'_, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
}
