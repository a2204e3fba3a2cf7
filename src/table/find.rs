//! How readers find a node.

#![allow(unsafe_code)]

use super::Table;
use crate::node::Node;
use crate::table::bucket::{Bucket, Control, Tag};
use std::ptr::NonNull;

impl<K, V> Table<K, V> {
    /// The node of `hash` that satisfies `eq`. Wait-free: at most two lines and the node, in a table without overflow.
    ///
    /// The node is valid while the caller is in the critical section in which it loaded this table from its root, or
    /// holds the shard lock.
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

    /// What [`find`](Self::find) does when the home is not the whole story.
    #[cold]
    fn find_beyond(
        self,
        hash: u64,
        home: Control,
        eq: impl Fn(&Node<K, V>) -> bool + Copy,
    ) -> Option<NonNull<Node<K, V>>> {
        let mut table = self;
        let mut control = home;
        // Ends, as each turn goes to a table that a further resize has made since.
        loop {
            let home = table.home(hash);
            if !control.is_moved() {
                let found = table
                    .walk(home, control)
                    .find_map(|(index, control)| find_in(table.bucket(index), control, Tag::of(hash), eq));
                // T3: what the walk was to find may have moved meanwhile. Whoever sees a tag cleared sees the mark.
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

    /// The buckets beyond `home` that nodes of it may live in, with their control words, given that of the home.
    fn walk(self, home: usize, control: Control) -> impl Iterator<Item = (usize, Control)> {
        let mut control = control;
        let mut index = home;
        std::iter::from_fn(move || {
            if !control.overflows() {
                return None;
            }
            index = (index + 1) & self.mask();
            if index == home {
                // Once around: every count is stuck.
                return None;
            }
            control = self.bucket(index).control();
            Some((index, control))
        })
    }

    /// The buckets that nodes of `home` may live in, the home first.
    pub(super) fn chain(self, home: usize) -> impl Iterator<Item = (usize, Control)> {
        self.chain_from(home, self.bucket(home).control())
    }

    /// The same, given the control word of the home.
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
        // SAFETY: B2.
        if eq(unsafe { node.as_ref() }) {
            return Some(node);
        }
        matching = matching.rest();
    }
    None
}
