//! What the holder of the shard lock does with a table.

#![allow(unsafe_code)]

use super::Table;
use crate::node::Node;
use crate::table::bucket::{Control, Tag};
use std::ptr::NonNull;

/// A slot of a table, by the home of the node in it and the bucket that it lives in.
#[derive(Clone, Copy)]
pub(crate) struct Position {
    home: usize,
    bucket: usize,
    slot: usize,
}

/// An entry and where it is.
pub(crate) type Located<K, V> = Option<(Position, NonNull<Node<K, V>>)>;

impl<K, V> Table<K, V> {
    /// Where the node of `hash` is that satisfies `eq`.
    #[inline(always)]
    pub(crate) fn locate(self, hash: u64, mut eq: impl FnMut(&Node<K, V>) -> bool) -> Located<K, V> {
        let home = self.home(hash);
        let control = self.bucket(home).control();
        let found = self.locate_in(home, home, control, hash, &mut eq);
        if found.is_some() || control.is_complete() { found } else { self.locate_beyond(home, control, hash, &mut eq) }
    }

    /// What [`locate`](Self::locate) does when the home is not the whole story.
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
            // SAFETY: B1.
            let node = unsafe { NonNull::new_unchecked(bucket.slot(slot)) };
            // SAFETY: a node in the table is there while the shard lock is held.
            let found = unsafe { node.as_ref() };
            // The hash first: a key may claim to equal one that has another hash, and lives in another chain.
            if found.header.hash() == hash as u32 && eq(found) {
                return Some((Position { home, bucket: index, slot }, node));
            }
            matching = matching.rest();
        }
        None
    }

    /// Where `node` is, if it is in the table.
    pub(crate) fn locate_exact(self, node: NonNull<Node<K, V>>) -> Located<K, V> {
        // SAFETY: callers hold a reference to it, or the lock.
        let home = unsafe { node.as_ref() }.header.hash() as usize & self.mask();
        for (index, control) in self.chain(home) {
            let bucket = self.bucket(index);
            if let Some(slot) = control.full().find(|&slot| bucket.slot(slot) == node.as_ptr()) {
                return Some((Position { home, bucket: index, slot }, node));
            }
        }
        None
    }

    /// Publishes a node that is not in the table. There is room: see [`limit`](Self::limit).
    #[inline(always)]
    pub(crate) fn place(self, hash: usize, tag: Tag, node: NonNull<Node<K, V>>) {
        let home = hash & self.mask();
        if !self.place_in(home, tag, node) {
            self.place_beyond(home, tag, node);
        }
    }

    /// What [`place`](Self::place) does when the home is full.
    #[cold]
    fn place_beyond(self, home: usize, tag: Tag, node: NonNull<Node<K, V>>) {
        let mut index = home;
        loop {
            index = (index + 1) & self.mask();
            assert_ne!(index, home, "a table is never full");
            if self.place_in(index, tag, node) {
                break;
            }
        }
        self.for_each_before(home, index, Control::with_overflow);
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

    /// Puts `node` in the place of the one at `position`, which has the same key. No reader sees the key absent.
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
        // T3, in its order. The first round leaves tags as they are, but for those of the home, which go with the mark.
        let mut left = first.with_moved();
        self.for_each_of(home, &mut |index, slot, control, node| {
            // SAFETY: a node in the table is there while the shard lock is held.
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

    /// Calls `each` with the nodes whose home is `home`, their bucket and slot, and the control word of that bucket.
    fn for_each_of(self, home: usize, each: &mut impl FnMut(usize, usize, Control, NonNull<Node<K, V>>)) {
        for (index, control) in self.chain(home) {
            for slot in control.full() {
                // SAFETY: B1.
                let node = unsafe { NonNull::new_unchecked(self.bucket(index).slot(slot)) };
                // SAFETY: a node in the table is there while the shard lock is held.
                if unsafe { node.as_ref() }.header.hash() as usize & self.mask() == home {
                    each(index, slot, control, node);
                }
            }
        }
    }
}
