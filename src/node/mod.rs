//! The node of an entry: the memory that a slot of a table and a handle point to.
//!
//! # Invariants
//!
//! - **N1** After a node is published, its key, value and hash are not written until the node is destroyed.
//! - **N2** The words that hold the hash and the insertion time become a list link after the grace period of
//!   the node, when its last reference has been put. From then on only the owner of the node (R2) accesses
//!   them.
//! - **N3** A node is destroyed once, by the owner that put its last reference (R2).
//! - **N4** A node lies in a slot of its shard's [`Slabs`](crate::shard::slab::Slabs). Its [`Kind`] says how to
//!   find the shard from the node's address, and whether a [`Life`] follows the node in its slot. The kind
//!   stays valid after the node is destroyed, until the slot is reused.
//! - **N5** The weight of a published node changes only while the node is in its table, under the lock of its shard. So
//!   a node leaves the backlog with the weight with which it entered it.

#![allow(unsafe_code)]

pub(crate) mod life;
pub(crate) mod owner;
pub(crate) mod refs;
pub(crate) mod usage;
pub(crate) mod weight;

use crate::node::life::{Deadline, Life};
use crate::node::owner::SlabSize;
use crate::node::refs::Refs;
use crate::node::usage::{FirstMarks, UseMarks};
use crate::node::weight::{EntryWeight, Weight};
use crate::util::clock::{Stamp, Time};
use crate::util::panics::contain;
use std::alloc::Layout;
use std::cell::UnsafeCell;
use std::mem::{self, ManuallyDrop};
use std::ptr::{self, NonNull};

/// The part of a node that does not depend on the types of key and value. Reclamation uses only this part. It
/// is the first field, so the address of a node is the address of its header.
#[repr(C)]
pub(crate) struct Header {
    pub(crate) refs: Refs,
    /// The bytes that the entry counts for (N5).
    pub(crate) weight: EntryWeight,
    pub(crate) used: UseMarks,
    pub(crate) kind: Kind,
    words: UnsafeCell<Words>,
}

/// The hash and the insertion time. As large and as aligned as a list link, which replaces them (N2).
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Words {
    /// The low half of the key's hash. A resize needs it to find the node's new home.
    hash: u32,
    /// The low 32 bits of the stamp of the insertion time.
    stamp: u32,
}

/// The properties of a node that never change, in one byte.
///
/// ```text
///  bit 7      6       5      4 .. 0
///  ┌────────┬───────┬──────┬──────────────────┐
///  │ single │ large │ life │ top of its stamp │
///  └────────┴───────┴──────┴──────────────────┘
/// ```
///
/// `large` says that the node lies in a [large slab](SlabSize::Large). A single node lies in none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind(u8);

impl Kind {
    const LIFE: u8 = 1 << Stamp::HIGH_BITS;
    const LARGE: u8 = Self::LIFE << 1;
    const SINGLE: u8 = Self::LARGE << 1;

    /// Returns the kind of a slot. `slab` is the size of its slab, `None` if the slot has an allocation of its
    /// own. `has_life` says whether a life follows the node.
    pub(crate) const fn new(slab: Option<SlabSize>, has_life: bool) -> Kind {
        let place = match slab {
            None => Self::SINGLE,
            Some(SlabSize::Small) => 0,
            Some(SlabSize::Large) => Self::LARGE,
        };
        Kind(place | if has_life { Self::LIFE } else { 0 })
    }

    #[inline]
    fn with_stamp(self, stamp: Stamp) -> Kind {
        Kind(self.0 | stamp.high())
    }

    #[inline]
    fn stamp_high(self) -> u8 {
        self.0 & (Self::LIFE - 1)
    }

    /// Returns whether the node has an allocation of its own, instead of a slot in a slab.
    #[inline]
    pub(crate) fn is_single(self) -> bool {
        self.0 & Self::SINGLE != 0
    }

    /// Returns the size of the slab in which the node lies. The node is not single.
    #[inline]
    pub(crate) fn slab(self) -> SlabSize {
        debug_assert!(!self.is_single());
        if self.0 & Self::LARGE != 0 { SlabSize::Large } else { SlabSize::Small }
    }

    /// Returns whether a life follows the node.
    #[inline]
    pub(crate) fn has_life(self) -> bool {
        self.0 & Self::LIFE != 0
    }
}

/// The bits of a kind fit its byte, and those of the stamp do not overlap the others.
const _: () = assert!(Kind::SINGLE == 1 << 7);

const _: () = assert!(size_of::<Words>() >= size_of::<*mut Header>());

#[cfg(all(target_pointer_width = "64", not(loom)))]
const _: () = assert!(size_of::<Header>() == 16);

/// Sound to observe after a panic: the words are owned by one party at a time and are never half written.
impl std::panic::RefUnwindSafe for Header {}

impl Header {
    /// Returns the low half of the key's hash.
    #[inline]
    pub(crate) fn hash(&self) -> u32 {
        // SAFETY: N2 (the caller holds a reference, or is still in the critical section or under the shard lock
        // in which it found the node).
        unsafe { (*self.words.get()).hash }
    }

    /// Returns the time at which the node was inserted.
    #[inline]
    pub(crate) fn stamp(&self) -> Stamp {
        // SAFETY: N2 (the caller holds a reference, or is still in the critical section or under the shard lock
        // in which it found the node).
        Stamp::from_halves(unsafe { (*self.words.get()).stamp }, self.kind.stamp_high())
    }

    /// Returns the next node of the list that contains this node.
    ///
    /// # Safety
    ///
    /// The caller owns the node, and the node was linked by [`set_link`](Self::set_link).
    pub(crate) unsafe fn link(&self) -> *mut Header {
        // SAFETY: N2 (the caller owns the node, and `set_link` wrote the link).
        unsafe { self.words.get().cast::<*mut Header>().read() }
    }

    /// Links the node to the next node of a list.
    ///
    /// # Safety
    ///
    /// The caller owns the node, and its grace period is over (N2).
    pub(crate) unsafe fn set_link(&self, next: *mut Header) {
        // SAFETY: N2 (the caller owns the node, and its grace period is over).
        unsafe { self.words.get().cast::<*mut Header>().write(next) };
    }
}

/// A node: header, key and value. If key and value are small, they share a cache line with the header.
#[repr(C)]
pub(crate) struct Node<K, V> {
    pub(crate) header: Header,
    key: ManuallyDrop<K>,
    value: ManuallyDrop<V>,
}

impl<K, V> Node<K, V> {
    /// Whether the destruction of a node runs user code.
    pub(crate) const NEEDS_DROP: bool = mem::needs_drop::<K>() || mem::needs_drop::<V>();

    /// The offset of the life in a slot that has one (N4).
    const LIFE_AT: usize = size_of::<Self>().next_multiple_of(align_of::<Life>());

    /// Returns the size and alignment of a slot for a node, with or without a life.
    pub(crate) const fn layout(has_life: bool) -> Layout {
        if !has_life {
            return Layout::new::<Self>();
        }
        let align = if align_of::<Self>() > align_of::<Life>() { align_of::<Self>() } else { align_of::<Life>() };
        match Layout::from_size_align(Self::LIFE_AT + size_of::<Life>(), align) {
            Ok(layout) => layout,
            Err(_) => panic!("a node does not fit the address space"),
        }
    }

    /// Returns the life that follows a node. `None` if there is none.
    ///
    /// # Safety
    ///
    /// The node is not freed during the lifetime of the returned reference.
    #[inline]
    pub(crate) unsafe fn life<'n>(node: NonNull<Self>) -> Option<&'n Life> {
        // SAFETY: the caller guarantees that the node is not freed.
        if !unsafe { node.as_ref() }.header.kind.has_life() {
            return None;
        }
        // SAFETY: N4 (the kind has a life, so the slot extends past this offset).
        let life = unsafe { node.byte_add(Self::LIFE_AT) }.cast::<Life>();
        // SAFETY: N4 (the life was written before the node was published). The caller guarantees that the node
        // is not freed during the lifetime of the reference.
        Some(unsafe { life.as_ref() })
    }

    /// Writes the life of a node that is not published yet.
    ///
    /// # Safety
    ///
    /// The node's kind has a life (N4), and no other thread can reach the node.
    #[inline]
    pub(crate) unsafe fn write_life(node: NonNull<Self>, life: Life) {
        // SAFETY: N4 (the kind has a life, so the slot extends past this offset).
        let place = unsafe { node.byte_add(Self::LIFE_AT) }.cast::<Life>();
        // SAFETY: N4 (the place is in the slot and aligned for a life). No other thread can reach the node.
        unsafe { place.write(life) };
    }

    #[inline]
    pub(crate) fn key(&self) -> &K {
        &self.key
    }

    #[inline]
    pub(crate) fn value(&self) -> &V {
        &self.value
    }

    /// Drops key and value. Returns how many of the two drops panicked. A panic in one drop does not prevent
    /// the other, and does not propagate.
    ///
    /// # Safety
    ///
    /// `header` is the header of a `Node<K, V>` that the caller owns alone (N3). The caller frees the slot.
    #[inline]
    pub(crate) unsafe fn destroy(header: NonNull<Header>) -> u32 {
        if !Self::NEEDS_DROP {
            return 0;
        }
        // SAFETY: N3 (the caller owns the node alone).
        let node = unsafe { header.cast::<Self>().as_mut() };
        // SAFETY: N3 (the value is dropped here and nowhere else).
        let panics = contain(|| unsafe { ManuallyDrop::drop(&mut node.value) });
        // SAFETY: N3 (the key is dropped here and nowhere else).
        panics + contain(|| unsafe { ManuallyDrop::drop(&mut node.key) })
    }
}

/// An entry that is not published yet.
pub(crate) struct UnpublishedNode<K, V> {
    pub(crate) key: K,
    pub(crate) value: V,
    pub(crate) particulars: Particulars,
}

/// What the header and the life of a node hold at first.
#[derive(Clone, Copy)]
pub(crate) struct Particulars {
    pub(crate) hash: u64,
    /// The insertion time.
    pub(crate) time: Time,
    pub(crate) weight: Weight,
    /// The marks and the priority with which it starts, and whether it may be refused.
    pub(crate) marks: FirstMarks,
    /// When the entry expires by its own lifetime.
    pub(crate) own_end: Deadline,
}

impl<K, V> UnpublishedNode<K, V> {
    /// Writes the node into a free slot of this kind, with `references` references. Does not panic.
    ///
    /// # Safety
    ///
    /// The caller owns `slot`. The slot has the size and alignment of a `Node<K, V>`, with a life if the kind
    /// says so.
    #[inline]
    pub(crate) unsafe fn write(self, slot: NonNull<Header>, kind: Kind, references: u32) -> NonNull<Node<K, V>> {
        let node = slot.cast::<Node<K, V>>();
        let Particulars { hash, time, weight, marks, .. } = self.particulars;
        let stamp = Stamp::of(time);
        let words = Words { hash: hash as u32, stamp: stamp.low() };
        let header = Header {
            refs: Refs::new(references),
            weight: EntryWeight::new(weight),
            used: UseMarks::new(marks),
            kind: kind.with_stamp(stamp),
            words: UnsafeCell::new(words),
        };
        let (key, value) = (ManuallyDrop::new(self.key), ManuallyDrop::new(self.value));
        // SAFETY: the caller owns the slot, which has the size and alignment of the node.
        unsafe { ptr::write(node.as_ptr(), Node { header, key, value }) };
        node
    }
}
