//! The operations of a writer, which holds the shard lock, on a table.

#![allow(unsafe_code)]

use super::Table;
use crate::node::Node;
use crate::table::bucket::{Control, Tag};
use std::ptr::NonNull;

/// The position of a node in a table: its home, the bucket in which it lives, and the slot.
#[derive(Clone, Copy)]
pub(crate) struct Position {
    home: usize,
    bucket: usize,
    slot: usize,
}

/// A node and its position, if it was found.
pub(crate) type Located<K, V> = Option<(Position, NonNull<Node<K, V>>)>;

impl<K, V> Table<K, V> {
    /// Finds the node with this hash that satisfies `eq`.
    #[inline(always)]
    pub(crate) fn locate(self, hash: u64, mut eq: impl FnMut(&Node<K, V>) -> bool) -> Located<K, V> {
        let home = self.home(hash);
        let control = self.bucket(home).control();
        let found = self.locate_in(home, home, control, hash, &mut eq);
        if found.is_some() || control.is_complete() { found } else { self.locate_beyond(home, control, hash, &mut eq) }
    }

    /// Continues [`locate`](Self::locate) beyond the home, when nodes of the home live in later buckets.
    #[cold]
    fn locate_beyond(
        self,
        home: usize,
        control: Control,
        hash: u64,
        eq: &mut impl FnMut(&Node<K, V>) -> bool,
    ) -> Located<K, V> {
        self.chain_from(home, control)
            .skip(1)
            .find_map(|(index, control)| self.locate_in(home, index, control, hash, eq))
    }

    #[inline(always)]
    fn locate_in(
        self,
        home: usize,
        index: usize,
        control: Control,
        hash: u64,
        eq: &mut impl FnMut(&Node<K, V>) -> bool,
    ) -> Located<K, V> {
        let bucket = self.bucket(index);
        let mut matching = control.matching(Tag::of(hash));
        while let Some(slot) = matching.first() {
            // SAFETY: B1 (the tag is set).
            let node = unsafe { NonNull::new_unchecked(bucket.slot(slot)) };
            // SAFETY: S1 (the shard lock is held; the node is in the table).
            let found = unsafe { node.as_ref() };
            // Compare the hash first: the user's `Eq` may call two keys equal although their hashes differ.
            // Such a node has another home.
            if found.header.hash() == hash as u32 && eq(found) {
                return Some((Position { home, bucket: index, slot }, node));
            }
            matching = matching.rest();
        }
        None
    }

    /// Finds `node`, if it is in the table.
    pub(crate) fn locate_exact(self, node: NonNull<Node<K, V>>) -> Located<K, V> {
        // SAFETY: the caller holds a reference to the node, or holds the shard lock and found the node in the
        // table.
        let home = unsafe { node.as_ref() }.header.hash() as usize & self.mask();
        for (index, control) in self.chain(home) {
            let bucket = self.bucket(index);
            if let Some(slot) = control.full().find(|&slot| bucket.slot(slot) == node.as_ptr()) {
                return Some((Position { home, bucket: index, slot }, node));
            }
        }
        None
    }

    /// Publishes a node that is not in the table. The table has room: see [`limit`](Self::limit).
    #[inline(always)]
    pub(crate) fn place(self, hash: usize, tag: Tag, node: NonNull<Node<K, V>>) {
        let home = hash & self.mask();
        if !self.place_in(home, tag, node) {
            self.place_beyond(home, tag, node);
        }
    }

    /// Continues [`place`](Self::place) beyond the home, when the home is full.
    #[cold]
    fn place_beyond(self, home: usize, tag: Tag, node: NonNull<Node<K, V>>) {
        let mut index = home;
        loop {
            index = (index + 1) & self.mask();
            assert_ne!(index, home, "the table has no free slot");
            if self.bucket(index).control().empty().first().is_some() {
                break;
            }
        }
        // Before the tag: a walk that finds the node there also finds that the buckets before overflow. (A lookup that
        // follows an overflow to no node finds none.)
        self.for_each_before(home, index, Control::with_overflow);
        let is_placed = self.place_in(index, tag, node);
        debug_assert!(is_placed);
    }

    #[inline]
    fn place_in(self, index: usize, tag: Tag, node: NonNull<Node<K, V>>) -> bool {
        let bucket = self.bucket(index);
        let control = bucket.control();
        let Some(slot) = control.empty().first() else { return false };
        bucket.set_slot(slot, node.as_ptr());
        bucket.set_control(control.with_tag(slot, tag));
        true
    }

    /// Replaces the node at `position` by `node`, which has the same key. No reader sees the key absent.
    #[inline]
    pub(crate) fn swap(self, position: Position, node: NonNull<Node<K, V>>) {
        self.bucket(position.bucket).set_slot(position.slot, node.as_ptr());
    }

    /// Unlinks the node at `position`.
    #[inline]
    pub(crate) fn unlink(self, position: Position) {
        let bucket = self.bucket(position.bucket);
        bucket.set_control(bucket.control().without_tag(position.slot));
        if position.home != position.bucket {
            self.for_each_before(position.home, position.bucket, Control::without_overflow);
        }
    }

    #[cold]
    fn for_each_before(self, home: usize, end: usize, change: impl Fn(Control) -> Control) {
        let mut index = home;
        while index != end {
            let bucket = self.bucket(index);
            bucket.set_control(change(bucket.control()));
            index = (index + 1) & self.mask();
        }
    }

    /// Moves the nodes of `home` to the next table, if they have not moved yet.
    pub(crate) fn move_home(self, home: usize, next: Table<K, V>) {
        let first = self.bucket(home).control();
        if first.is_moved() {
            return;
        }
        // T3, in this order:
        // 1. Publish all nodes of the home in the next table.
        // 2. Mark the home as moved and clear the tags of its nodes in the home bucket, by one store.
        // 3. Clear the tags of its nodes in later buckets.
        let mut left = first.with_moved();
        self.for_each_of(home, &mut |index, slot, control, node| {
            // SAFETY: S1 (the shard lock is held; the node is in the table).
            next.place(unsafe { node.as_ref() }.header.hash() as usize, control.tag(slot), node);
            if index == home {
                left = left.without_tag(slot);
            }
        });
        self.bucket(home).set_control(left);
        if first.overflows() {
            self.for_each_of(home, &mut |index, slot, _, _| {
                let bucket = self.bucket(index);
                bucket.set_control(bucket.control().without_tag(slot));
            });
        }
    }

    /// Calls `each` for every node whose home is `home`, with its bucket, its slot, the control word of that
    /// bucket, and the node.
    fn for_each_of(self, home: usize, each: &mut impl FnMut(usize, usize, Control, NonNull<Node<K, V>>)) {
        for (index, control) in self.chain(home) {
            for slot in control.full() {
                // SAFETY: B1 (the tag is set).
                let node = unsafe { NonNull::new_unchecked(self.bucket(index).slot(slot)) };
                // SAFETY: S1 (the shard lock is held; the node is in the table).
                if unsafe { node.as_ref() }.header.hash() as usize & self.mask() == home {
                    each(index, slot, control, node);
                }
            }
        }
    }
}
