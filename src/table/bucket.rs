//! A bucket: one cache line of the table, with seven slots and a control word that describes them.
//!
//! ```text
//!            byte 7      6     5     4     3     2     1     0
//!  control  ┌────────┬─────┬─────┬─────┬─────┬─────┬─────┬─────┐
//!           │overflow│tag 6│tag 5│tag 4│tag 3│tag 2│tag 1│tag 0│
//!           └────────┴─────┴─────┴─────┴─────┴─────┴─────┴─────┘
//!  slots     seven pointers to nodes
//! ```
//!
//! A lookup loads the control word, compares all tags at once, and follows only the slots whose tag matches.
//!
//! # Invariants
//!
//! - **B1** A slot whose tag is set points to a node. The writer stores the pointer before the tag (Release).
//!   So a reader that loads the tag (Acquire) then loads that pointer or a later one.
//! - **B2** A slot keeps its last pointer when its tag is cleared. A reader may still follow that pointer,
//!   because of a control word that it loaded earlier. Its critical section was open when the node was
//!   unlinked, so the node is still valid.
//! - **B3** Only the holder of the shard lock writes to a bucket.

#![allow(unsafe_code)]

use crate::sync::atomic::Ordering;
use crate::sync::{AtomicPtr, AtomicU64};
use std::ptr;

/// The number of slots in a bucket.
pub(crate) const SLOTS: usize = 7;

/// A bucket of nodes of type `N`.
#[repr(C, align(64))]
pub(crate) struct Bucket<N> {
    control: AtomicU64,
    slots: [AtomicPtr<N>; SLOTS],
}

#[cfg(all(target_pointer_width = "64", not(loom)))]
const _: () = assert!(size_of::<Bucket<u8>>() == 64);

impl<N> Bucket<N> {
    /// Returns an empty bucket. All its bytes are zero, except under the model checker.
    pub(crate) fn new() -> Self {
        Bucket { control: AtomicU64::new(0), slots: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())) }
    }

    #[inline]
    pub(crate) fn control(&self) -> Control {
        // ORDERING: Acquire, pairs with the Release in `set_control` (B1).
        Control(self.control.load(Ordering::Acquire))
    }

    /// Stores the control word. Called under the shard lock (B3).
    pub(crate) fn set_control(&self, control: Control) {
        // ORDERING: Release, pairs with the Acquire in `control` (B1). Publishes the slot that was stored
        // before and, in a resize, the copies in the next table.
        self.control.store(control.0, Ordering::Release);
    }

    /// Returns the node that slot `index` points to. It is not null if the slot's tag was set in a control word
    /// that was loaded before (B1).
    #[inline]
    pub(crate) fn slot(&self, index: usize) -> *mut N {
        // ORDERING: Acquire, pairs with the Release in `set_slot`: the slot may have received another node
        // since the control word was loaded.
        self.slots[index].load(Ordering::Acquire)
    }

    /// Stores the pointer of a slot. Called under the shard lock (B3). The caller then sets the tag, if it is
    /// not set yet.
    pub(crate) fn set_slot(&self, index: usize, node: *mut N) {
        // ORDERING: Release, pairs with the Acquire in `slot`. Publishes the node.
        self.slots[index].store(node, Ordering::Release);
    }
}

/// A control word: see the diagram at the top of this module.
///
/// - A tag is seven bits of the hash, with bit 7 set. The tag of an empty slot is zero.
/// - Bits 0 to 6 of the overflow byte count the nodes that passed over this bucket: their home is this bucket
///   or an earlier one, and they live in a later one. The count saturates at 127.
/// - Bit 7 of the overflow byte is the *moved* mark: the nodes whose home is this bucket have moved to the next
///   table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Control(u64);

const LOW_BITS: u64 = 0x0001_0101_0101_0101;
const HIGH_BITS: u64 = LOW_BITS << 7;
const OVERFLOW_ONE: u64 = 1 << 56;
const OVERFLOW_MASK: u64 = 0x7f << 56;
const MOVED: u64 = 1 << 63;

impl Control {
    /// Returns the slots whose tag is `tag`. The result may also contain slots whose tag differs from it only
    /// in the lowest bit.
    #[inline]
    pub(crate) fn matching(self, tag: Tag) -> Slots {
        let differing = self.0 ^ (LOW_BITS * tag.0);
        // `differing` has a zero byte where the tags are equal. The top bit of a byte is clear in `differing`
        // if the slot is full, as both tags have it set. In such a byte, subtracting one sets the top bit only
        // if the byte was zero. Empty slots are masked out by `self.0`. A byte of one above a zero byte also
        // counts as zero, because the borrow passes through it.
        Slots(differing.wrapping_sub(LOW_BITS) & self.0 & HIGH_BITS)
    }

    /// Returns the slots that hold a node.
    #[inline]
    pub(crate) fn full(self) -> Slots {
        Slots(self.0 & HIGH_BITS)
    }

    /// Returns the empty slots.
    #[inline]
    pub(crate) fn empty(self) -> Slots {
        Slots(!self.0 & HIGH_BITS)
    }

    /// Returns whether all nodes whose home is this bucket are in it.
    #[inline]
    pub(crate) fn is_complete(self) -> bool {
        self.0 >> 56 == 0
    }

    /// Returns whether the bucket is empty, no node passed over it, and its nodes have not moved to the next
    /// table.
    pub(crate) fn is_vacant(self) -> bool {
        self.0 == 0
    }

    /// Returns whether nodes passed over this bucket: their home is this bucket or an earlier one, and they
    /// live in a later one.
    #[inline]
    pub(crate) fn overflows(self) -> bool {
        self.0 & OVERFLOW_MASK != 0
    }

    /// Returns whether the nodes whose home is this bucket have moved to the next table.
    #[inline]
    pub(crate) fn is_moved(self) -> bool {
        self.0 & MOVED != 0
    }

    pub(crate) fn tag(self, slot: usize) -> Tag {
        Tag(self.0 >> (8 * slot) & 0xff)
    }

    pub(crate) fn with_tag(self, slot: usize, tag: Tag) -> Control {
        Control(self.without_tag(slot).0 | tag.0 << (8 * slot))
    }

    pub(crate) fn without_tag(self, slot: usize) -> Control {
        Control(self.0 & !(0xff << (8 * slot)))
    }

    pub(crate) fn with_moved(self) -> Control {
        Control(self.0 | MOVED)
    }

    /// Returns the control word after one more node has passed over the bucket.
    pub(crate) fn with_overflow(self) -> Control {
        if self.0 & OVERFLOW_MASK == OVERFLOW_MASK { self } else { Control(self.0 + OVERFLOW_ONE) }
    }

    /// Returns the control word after a node that passed over the bucket has left. A saturated count stays as
    /// it is, because the true count is unknown.
    pub(crate) fn without_overflow(self) -> Control {
        debug_assert!(self.overflows());
        if self.0 & OVERFLOW_MASK == OVERFLOW_MASK { self } else { Control(self.0 - OVERFLOW_ONE) }
    }
}

/// The byte that represents a hash in a control word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tag(u64);

impl Tag {
    /// Returns the tag of a hash: its top seven bits. The low half of the hash chooses shard and bucket.
    #[inline]
    pub(crate) fn of(hash: u64) -> Tag {
        Tag(hash >> 57 | 0x80)
    }
}

/// A set of slots of one bucket, iterated in ascending order. Each slot is represented by the top bit of its
/// byte.
#[derive(Clone, Copy)]
pub(crate) struct Slots(u64);

impl Slots {
    pub(crate) const NONE: Slots = Slots(0);

    #[inline]
    pub(crate) fn first(self) -> Option<usize> {
        // The index is at most 6, because only bits of `HIGH_BITS` are set. The mask lets the compiler drop the
        // bounds check of the slots.
        (self.0 != 0).then(|| (self.0.trailing_zeros() / 8) as usize & 7)
    }

    /// Returns the set without its first slot. The set must not be empty.
    #[inline]
    pub(crate) fn rest(self) -> Slots {
        Slots(self.0 & (self.0 - 1))
    }
}

impl Iterator for Slots {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        let slot = self.first()?;
        *self = self.rest();
        Some(slot)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn control(tags: [u8; 7], overflow: u8) -> Control {
        let mut word = u64::from(overflow) << 56;
        for (slot, tag) in tags.into_iter().enumerate() {
            word |= u64::from(tag) << (8 * slot);
        }
        Control(word)
    }

    #[test]
    fn matching_finds_every_equal_tag_and_no_empty_slot() {
        let mut seed = 1u64;
        for _ in 0..200_000 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let bytes = seed.rotate_right(13).to_le_bytes();
            // Few different values, so that tags repeat. Some slots are empty.
            let tags = std::array::from_fn(|slot| match bytes[slot] {
                byte if byte & 0x30 == 0 => 0,
                byte => 0x80 | byte & 3,
            });
            let word = control(tags, bytes[7]);
            for wanted in 0x80..0x84u8 {
                let found: Vec<usize> = word.matching(Tag(u64::from(wanted))).collect();
                for (slot, tag) in tags.into_iter().enumerate() {
                    assert!(tag != wanted || found.contains(&slot), "{word:?} misses {wanted:x}");
                    assert!(tag != 0 || !found.contains(&slot), "{word:?} finds an empty slot");
                }
                assert!(found.iter().all(|&slot| slot < SLOTS));
            }
            assert_eq!(word.full().count() + word.empty().count(), SLOTS);
            assert!(word.empty().all(|slot| tags[slot] == 0));
        }
    }

    #[test]
    fn overflow_counts_and_sticks_at_its_limit() {
        let mut word = control([0x80; 7], 0);
        for _ in 0..126 {
            word = word.with_overflow();
        }
        for _ in 0..126 {
            assert!(word.overflows());
            word = word.without_overflow();
        }
        assert_eq!(word, control([0x80; 7], 0));
        for _ in 0..1000 {
            word = word.with_overflow();
        }
        for _ in 0..2000 {
            word = word.without_overflow();
        }
        assert!(word.overflows() && !word.is_moved());
        assert_eq!(word.full().count(), SLOTS);
    }

    #[test]
    fn a_moved_bucket_is_not_complete_and_keeps_its_tags() {
        let word = control([0x81, 0, 0x83, 0, 0, 0, 0xff], 0);
        assert!(word.is_complete());
        let moved = word.with_moved();
        assert!(!moved.is_complete() && moved.is_moved() && !moved.overflows());
        assert_eq!(moved.tag(6), Tag(0xff));
        assert_eq!(moved.without_tag(6).with_tag(1, Tag(0x99)).tag(1), Tag(0x99));
    }
}
