//! What a slot of a table points to, and what a handle is.
//!
//! # Invariants
//!
//! - **N1** Once published, a node's key, value and hash are not written until its destruction.
//! - **N2** The words that hold hash and time of insertion become the link of a list once the node's last reference was
//!   put after its grace period. From then on only the owner of the node (R2) uses them.
//! - **N3** A node is destroyed once, by the owner that reached a count of zero (R2).
//! - **N4** A node lies in a slot of its shard's [`Slabs`](crate::shard::slab::Slabs), and its [`Kind`] says how to find the shard from
//!   the node's address, and whether a [`Life`] follows the node in its slot. The kind outlasts the node: it is
//!   there until the slot is used again.

#![allow(unsafe_code)]

pub(crate) mod life;
pub(crate) mod owner;
pub(crate) mod refs;
pub(crate) mod usage;
pub(crate) mod weight;

use crate::node::life::Life;
use crate::node::refs::Refs;
use crate::node::usage::UseMarks;
use crate::node::weight::Weight;
use crate::util::clock::{Stamp, Time};
use crate::util::panics::contain;
use std::alloc::Layout;
use std::cell::UnsafeCell;
use std::mem::{self, ManuallyDrop};
use std::ptr::{self, NonNull};

/// The part of a node that reclamation knows, whatever the types of key and value. It comes first: the address of a node is
/// that of its header.
#[repr(C)]
pub(crate) struct Header {
    pub(crate) refs: Refs,
    /// The bytes that it counts for.
    pub(crate) weight: Weight,
    pub(crate) used: UseMarks,
    pub(crate) kind: Kind,
    words: UnsafeCell<Words>,
}

/// As large and aligned as a link (N2).
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Words {
    /// The low half of the key's hash: what the table needs to place the node anew when it is resized.
    hash: u32,
    /// The low half of the stamp of the time at which the node was inserted.
    stamp: u32,
}

/// What never changes of a node, in one byte.
///
/// ```text
///  bit 7      6      5 .. 0
///  ┌────────┬──────┬──────────────────┐
///  │ single │ life │ top of its stamp │
///  └────────┴──────┴──────────────────┘
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind(u8);

impl Kind {
    const LIFE: u8 = 1 << Stamp::HIGH_BITS;
    const SINGLE: u8 = Self::LIFE << 1;

    /// Of slots that have allocations of their own, or not, and in which lives follow the nodes, or not.
    pub(crate) const fn new(is_single: bool, has_life: bool) -> Kind {
        Kind(if is_single { Self::SINGLE } else { 0 } | if has_life { Self::LIFE } else { 0 })
    }

    #[inline]
    fn with_stamp(self, stamp: Stamp) -> Kind {
        Kind(self.0 | stamp.high())
    }

    #[inline]
    fn stamp_high(self) -> u8 {
        self.0 & (Self::LIFE - 1)
    }

    /// Whether the node has an allocation of its own, and does not lie in a slab with others.
    #[inline]
    pub(crate) fn is_single(self) -> bool {
        self.0 & Self::SINGLE != 0
    }

    /// Whether a life follows the node.
    #[inline]
    pub(crate) fn has_life(self) -> bool {
        self.0 & Self::LIFE != 0
    }
}

const _: () = assert!(size_of::<Words>() >= size_of::<*mut Header>());

#[cfg(all(target_pointer_width = "64", not(loom)))]
const _: () = assert!(size_of::<Header>() == 16);

/// The words change hands with the node, and are never seen half written.
impl std::panic::RefUnwindSafe for Header {}

impl Header {
    /// The low half of the key's hash.
    #[inline]
    pub(crate) fn hash(&self) -> u32 {
        // SAFETY: N2, callers hold a reference, or stand in a critical section or under the lock in which they found it.
        unsafe { (*self.words.get()).hash }
    }

    /// When the node was inserted.
    #[inline]
    pub(crate) fn stamp(&self) -> Stamp {
        // SAFETY: N2, as in `hash`.
        Stamp::from_halves(unsafe { (*self.words.get()).stamp }, self.kind.stamp_high())
    }

    /// The next node of the list that this one is in.
    ///
    /// # Safety
    ///
    /// The caller owns the node, which was linked by [`set_link`](Self::set_link).
    pub(crate) unsafe fn link(&self) -> *mut Header {
        // SAFETY: N2, by the caller's promise.
        unsafe { self.words.get().cast::<*mut Header>().read() }
    }

    /// Links the node to the next one of a list.
    ///
    /// # Safety
    ///
    /// The caller owns the node, and its grace period is over (N2).
    pub(crate) unsafe fn set_link(&self, next: *mut Header) {
        // SAFETY: N2, by the caller's promise.
        unsafe { self.words.get().cast::<*mut Header>().write(next) };
    }
}

/// The header, the key, its value: a small key and value lie on one cache line with the header.
#[repr(C)]
pub(crate) struct Node<K, V> {
    pub(crate) header: Header,
    key: ManuallyDrop<K>,
    value: ManuallyDrop<V>,
}

impl<K, V> Node<K, V> {
    /// Whether the destruction of a node runs code of the user's.
    pub(crate) const NEEDS_DROP: bool = mem::needs_drop::<K>() || mem::needs_drop::<V>();

    /// Where the life of a node is in its slot, if it has one (N4).
    const LIFE_AT: usize = size_of::<Self>().next_multiple_of(align_of::<Life>());

    /// Size and alignment of a slot for a node, with a life or without.
    pub(crate) const fn layout(has_life: bool) -> Layout {
        if !has_life {
            return Layout::new::<Self>();
        }
        let align = if align_of::<Self>() > align_of::<Life>() { align_of::<Self>() } else { align_of::<Life>() };
        match Layout::from_size_align(Self::LIFE_AT + size_of::<Life>(), align) {
            Ok(layout) => layout,
            Err(_) => panic!("a node fits the address space"),
        }
    }

    /// The life that follows a node. `None` if there is none.
    ///
    /// # Safety
    ///
    /// The node is not freed before the reference that is returned is gone.
    #[inline]
    pub(crate) unsafe fn life<'n>(node: NonNull<Self>) -> Option<&'n Life> {
        // SAFETY: the caller's promise.
        if !unsafe { node.as_ref() }.header.kind.has_life() {
            return None;
        }
        // SAFETY: N4, the slot is so long.
        let life = unsafe { node.byte_add(Self::LIFE_AT) }.cast::<Life>();
        // SAFETY: N4, written before the node was published; the caller's promise.
        Some(unsafe { life.as_ref() })
    }

    /// Writes the life of a node that is not published yet.
    ///
    /// # Safety
    ///
    /// The node's kind has a life (N4), and the caller alone knows of it.
    #[inline]
    pub(crate) unsafe fn write_life(node: NonNull<Self>, life: Life) {
        // SAFETY: N4, the slot is so long.
        let place = unsafe { node.byte_add(Self::LIFE_AT) }.cast::<Life>();
        // SAFETY: the caller's promise.
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

    /// Drops key and value. Returns how many of the two drops panicked: a panic in one does not lose the other, and goes no
    /// further.
    ///
    /// # Safety
    ///
    /// `header` is that of a `Node<K, V>` that the caller owns alone (N3), and whose slot the caller frees.
    #[inline]
    pub(crate) unsafe fn destroy(header: NonNull<Header>) -> u32 {
        if !Self::NEEDS_DROP {
            return 0;
        }
        // SAFETY: N3.
        let node = unsafe { header.cast::<Self>().as_mut() };
        // SAFETY: N3: both are dropped here and nowhere else.
        let panics = contain(|| unsafe { ManuallyDrop::drop(&mut node.value) });
        // SAFETY: as said.
        panics + contain(|| unsafe { ManuallyDrop::drop(&mut node.key) })
    }
}

/// An entry that is to be published: key, value, and what its node will say of them.
pub(crate) struct UnpublishedNode<K, V> {
    pub(crate) key: K,
    pub(crate) value: V,
    pub(crate) hash: u64,
    /// When it is inserted.
    pub(crate) time: Time,
    pub(crate) weight: Weight,
    pub(crate) is_marked: bool,
    /// When it expires by a life of its own.
    pub(crate) own_end: Time,
}

impl<K, V> UnpublishedNode<K, V> {
    /// Makes a node of it, in a free slot of this kind, with so many references. Does not panic.
    ///
    /// # Safety
    ///
    /// `slot` is the caller's, and of the size and alignment of a `Node<K, V>`, with a life if the kind says so.
    #[inline]
    pub(crate) unsafe fn write(self, slot: NonNull<Header>, kind: Kind, references: u32) -> NonNull<Node<K, V>> {
        let node = slot.cast::<Node<K, V>>();
        let stamp = Stamp::of(self.time);
        let words = Words { hash: self.hash as u32, stamp: stamp.low() };
        let header = Header {
            refs: Refs::new(references),
            weight: self.weight,
            used: UseMarks::new(self.is_marked),
            kind: kind.with_stamp(stamp),
            words: UnsafeCell::new(words),
        };
        let (key, value) = (ManuallyDrop::new(self.key), ManuallyDrop::new(self.value));
        // SAFETY: the caller's promise.
        unsafe { ptr::write(node.as_ptr(), Node { header, key, value }) };
        node
    }
}
