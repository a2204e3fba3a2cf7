//! How a reader finds a node.

#![allow(unsafe_code)]

use super::Table;
use crate::node::Node;
use crate::table::bucket::{Bucket, Control, Tag};
use std::ptr::NonNull;

impl<K, V> Table<K, V> {
    /// Returns the node with this hash that satisfies `eq`. Wait-free, but for resizes: each
    /// further step of the outer loop is a table that a resize has created during the call.
    ///
    /// If the home does not overflow and has not moved, it reads one bucket, and the nodes whose tags match.
    ///
    /// The returned node is valid while the caller is in the critical section in which it loaded this table
    /// from its root, or while it holds the shard lock.
    #[inline]
    pub(crate) fn find(self, hash: u64, eq: impl Fn(&Node<K, V>) -> bool + Copy) -> Option<NonNull<Node<K, V>>> {
        let home = self.home(hash);
        let bucket = self.bucket(home);
        let control = bucket.control();
        let tag = Tag::of(hash);
        if let Some(node) = find_in(bucket, control, tag, eq) {
            return Some(node);
        }
        if control.is_complete() {
            return None;
        }
        self.find_beyond(hash, control, eq)
    }

    /// Continues [`find`](Self::find) when nodes of the home live in later buckets or in the next table.
    #[cold]
    fn find_beyond(
        self,
        hash: u64,
        home: Control,
        eq: impl Fn(&Node<K, V>) -> bool + Copy,
    ) -> Option<NonNull<Node<K, V>>> {
        let mut table = self;
        let mut control = home;
        // The loop ends: each iteration continues in a table that a further resize has created.
        loop {
            let home = table.home(hash);
            if !control.is_moved() {
                let found = table
                    .walk(home, control)
                    .find_map(|(index, control)| find_in(table.bucket(index), control, Tag::of(hash), eq));
                // T3: the node may have moved during the walk. If the walk saw a cleared tag, this load sees
                // the mark.
                if found.is_some() || !table.bucket(home).control().is_moved() {
                    return found;
                }
            }
            table = table.next()?;
            let bucket = table.bucket(table.home(hash));
            control = bucket.control();
            if let Some(node) = find_in(bucket, control, Tag::of(hash), eq) {
                return Some(node);
            }
        }
    }

    /// Returns the buckets after `home` in which nodes of `home` may live, with their control words. `control`
    /// is the control word of the home.
    fn walk(self, home: usize, control: Control) -> impl Iterator<Item = (usize, Control)> {
        let mut control = control;
        let mut index = home;
        std::iter::from_fn(move || {
            if !control.overflows() {
                return None;
            }
            index = (index + 1) & self.mask();
            if index == home {
                // The walk is back at the home: every bucket overflows.
                return None;
            }
            control = self.bucket(index).control();
            Some((index, control))
        })
    }

    /// Returns the buckets in which nodes of `home` may live, with their control words. The home comes first.
    pub(super) fn chain(self, home: usize) -> impl Iterator<Item = (usize, Control)> {
        self.chain_from(home, self.bucket(home).control())
    }

    /// Does the same as [`chain`](Self::chain), given the control word of the home.
    pub(super) fn chain_from(self, home: usize, control: Control) -> impl Iterator<Item = (usize, Control)> {
        std::iter::once((home, control)).chain(self.walk(home, control))
    }
}

#[inline]
fn find_in<K, V>(
    bucket: &Bucket<Node<K, V>>,
    control: Control,
    tag: Tag,
    eq: impl Fn(&Node<K, V>) -> bool,
) -> Option<NonNull<Node<K, V>>> {
    let mut matching = control.matching(tag);
    while let Some(slot) = matching.first() {
        // SAFETY: B1 (the tag is set).
        let node = unsafe { NonNull::new_unchecked(bucket.slot(slot)) };
        // SAFETY: B2 (the caller is in a critical section or holds the shard lock).
        if eq(unsafe { node.as_ref() }) {
            return Some(node);
        }
        matching = matching.rest();
    }
    None
}
