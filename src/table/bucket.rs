//! One cache line of the table: seven slots, and a word that says what is in them.
//!
//! ```text
//!            byte 7      6     5     4     3     2     1     0
//!  control  ┌────────┬─────┬─────┬─────┬─────┬─────┬─────┬─────┐
//!           │overflow│tag 6│tag 5│tag 4│tag 3│tag 2│tag 1│tag 0│
//!           └────────┴─────┴─────┴─────┴─────┴─────┴─────┴─────┘
//!  slots     seven pointers to nodes
//! ```
//!
//! A lookup loads the control word, compares all tags at once, and follows only the slot that matched.
//!
//! # Invariants
//!
//! - **B1** A slot whose tag is set points to a node. The pointer is stored before the tag (Release), so whoever reads
//!   the tag (Acquire) reads that pointer or a later one.
//! - **B2** A slot keeps its last pointer when its tag is cleared. Whoever still follows it does so by a control word
//!   that it read before, inside a critical section that was open when the node was unlinked: the node is there.
//! - **B3** Only the holder of the shard lock writes.

#![allow(unsafe_code)]

use crate::sync::atomic::Ordering;
use crate::sync::{AtomicPtr, AtomicU64};
use std::ptr;

/// Slots in a bucket.
pub(crate) const SLOTS: usize = 7;

/// A bucket of nodes `N`.
#[repr(C, align(64))]
pub(crate) struct Bucket<N> {
    control: AtomicU64,
    slots: [AtomicPtr<N>; SLOTS],
}

#[cfg(all(target_pointer_width = "64", not(loom)))]
const _: () = assert!(size_of::<Bucket<u8>>() == 64);

impl<N> Bucket<N> {
    /// An empty bucket. All zero bytes, but for the model checker.
    pub(crate) fn new() -> Self {
        Bucket { control: AtomicU64::new(0), slots: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())) }
    }

    #[inline]
    pub(crate) fn control(&self) -> Control {
        // ORDERING: Acquire, pairs with the Release in `set_control` (B1).
        Control(self.control.load(Ordering::Acquire))
    }

    /// Under the shard lock (B3).
    pub(crate) fn set_control(&self, control: Control) {
        // ORDERING: Release, pairs with the Acquire in `control` (B1): publishes the slot stored before, and in a resize
        // the copies in the new table.
        self.control.store(control.0, Ordering::Release);
    }

    /// The node that slot `index` points to. Not null if the tag was set in a control word read before (B1).
    #[inline]
    pub(crate) fn slot(&self, index: usize) -> *mut N {
        // ORDERING: Acquire, pairs with the Release in `set_slot`: the slot may have been given another node since its
        // control word was read.
        self.slots[index].load(Ordering::Acquire)
    }

    /// Under the shard lock (B3). The tag is set afterwards, if it is not already.
    pub(crate) fn set_slot(&self, index: usize, node: *mut N) {
        // ORDERING: Release, pairs with the Acquire in `slot`: publishes the node.
        self.slots[index].store(node, Ordering::Release);
    }
}

/// A control word: see the picture at the top of this module.
///
/// A tag is seven bits of the hash with bit 7 set; an empty slot's is zero. Bits 0 to 6 of the overflow byte count the
/// nodes that belong here or before and live further on, and stick at 127. Its bit 7 says that the nodes whose home this
/// is have moved to the next table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Control(u64);

const LOW_BITS: u64 = 0x0001_0101_0101_0101;
const HIGH_BITS: u64 = LOW_BITS << 7;
const OVERFLOW_ONE: u64 = 1 << 56;
const OVERFLOW_MASK: u64 = 0x7f << 56;
const MOVED: u64 = 1 << 63;

impl Control {
    /// The slots whose tag is `tag`, and at times one more, whose tag differs from it in the lowest bit alone.
    #[inline]
    pub(crate) fn matching(self, tag: Tag) -> Slots {
        let differing = self.0 ^ (LOW_BITS * tag.0);
        // A byte whose top bit is not set is zero if subtracting one borrows from that bit; it is not set where the slot's is
        // (as the tag's is), which leaves empty slots out. A byte of one above a zero byte is mistaken for a zero too: the
        // borrow goes through it.
        Slots(differing.wrapping_sub(LOW_BITS) & self.0 & HIGH_BITS)
    }

    /// The slots that hold a node.
    #[inline]
    pub(crate) fn full(self) -> Slots {
        Slots(self.0 & HIGH_BITS)
    }

    /// The slots that hold none.
    #[inline]
    pub(crate) fn empty(self) -> Slots {
        Slots(!self.0 & HIGH_BITS)
    }

    /// Whether all nodes whose home this is are in this bucket.
    #[inline]
    pub(crate) fn is_complete(self) -> bool {
        self.0 >> 56 == 0
    }

    /// Whether there is nothing here, nor anything that belongs here or before further on or in another table.
    pub(crate) fn is_vacant(self) -> bool {
        self.0 == 0
    }

    /// Whether nodes that belong here or before live further on.
    #[inline]
    pub(crate) fn overflows(self) -> bool {
        self.0 & OVERFLOW_MASK != 0
    }

    /// Whether the nodes whose home this is have moved to the next table.
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

    /// One more node lives further on.
    pub(crate) fn with_overflow(self) -> Control {
        if self.0 & OVERFLOW_MASK == OVERFLOW_MASK { self } else { Control(self.0 + OVERFLOW_ONE) }
    }

    /// One node less lives further on. A count that stuck stays: nobody knows any more.
    pub(crate) fn without_overflow(self) -> Control {
        debug_assert!(self.overflows());
        if self.0 & OVERFLOW_MASK == OVERFLOW_MASK { self } else { Control(self.0 - OVERFLOW_ONE) }
    }
}

/// The byte that stands for a hash in a control word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tag(u64);

impl Tag {
    /// From the top bits: bucket and shard are chosen by the low half.
    #[inline]
    pub(crate) fn of(hash: u64) -> Tag {
        Tag(hash >> 57 | 0x80)
    }
}

/// A set of slots of one bucket, in ascending order: the top bit of each one's byte.
#[derive(Clone, Copy)]
pub(crate) struct Slots(u64);

impl Slots {
    pub(crate) const NONE: Slots = Slots(0);

    #[inline]
    pub(crate) fn first(self) -> Option<usize> {
        // At most 6, as the bits are those of `HIGH_BITS`: the compiler sees it by the mask, and needs no bounds check.
        (self.0 != 0).then(|| (self.0.trailing_zeros() / 8) as usize & 7)
    }

    /// All but the first, of which there is one.
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
            // Few values, so that tags repeat; some slots empty.
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
