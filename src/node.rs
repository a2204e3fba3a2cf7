//! What a slot of a table points to, and what a handle is.
//!
//! # Invariants
//!
//! - **N1** Once published, a node's key, value and hash are not written until its destruction.
//! - **N2** `link` is the node's owner (the retire queue of its shard) while the node is live, and while handles keep it
//!   after its grace period; it is the next node of a list while the node is retired. Only whoever holds the last
//!   reference, the shard lock, or the list may use it.
//! - **N3** A node is destroyed once, by whoever reached a count of zero (R2).

#![allow(unsafe_code)]

use crate::check;
use crate::domain::RetireQueue;
use crate::refs::Refs;
use crate::sync::atomic::Ordering;
use crate::sync::{self, AtomicPtr};
use crate::timers::{Armed, NEVER, Timer};
use crate::usage::Used;
use crate::weight::Weight;
use std::mem::{ManuallyDrop, offset_of};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};

/// The part of a node that reclamation knows, whatever the types of key and value.
#[repr(C)]
pub(crate) struct Header {
    /// N2.
    link: AtomicPtr<()>,
    pub(crate) refs: Refs,
    /// The low half of the key's hash: what the table needs to place the node anew when it is resized.
    pub(crate) hash: u32,
    /// When the node was inserted, in [ticks](crate::clock::Tick).
    pub(crate) stamp: u32,
    /// The bytes that it counts for.
    pub(crate) weight: Weight,
    pub(crate) used: Used,
    pub(crate) armed: Armed,
}

#[cfg(all(target_pointer_width = "64", not(loom)))]
const _: () = assert!(size_of::<Header>() == 24);

impl Header {
    pub(crate) fn owner(&self) -> NonNull<RetireQueue> {
        // ORDERING: Relaxed. Whoever may read the owner (N2) has acquired the node.
        let owner = self.link.load(Ordering::Relaxed).cast::<RetireQueue>();
        debug_assert!(!owner.is_null());
        // SAFETY: N2, the link of a node that is in no list is its owner, which `Node::new` took as a reference.
        unsafe { NonNull::new_unchecked(owner) }
    }

    pub(crate) fn set_owner(&self, owner: NonNull<RetireQueue>) {
        // ORDERING: Relaxed. The put that follows releases it to whoever puts the last reference.
        self.link.store(owner.as_ptr().cast(), Ordering::Relaxed);
    }

    pub(crate) fn next(&self) -> *mut Header {
        // ORDERING: Relaxed. The list's holder reads it, having acquired the list.
        self.link.load(Ordering::Relaxed).cast()
    }

    pub(crate) fn set_next(&self, next: *mut Header) {
        // ORDERING: Relaxed. Publishing the list releases it.
        self.link.store(next.cast(), Ordering::Relaxed);
    }
}

/// A key, its value, and the header: in this order, as a lookup looks at the key first, and a small key and value lie on
/// one cache line then, wherever the allocator puts the node.
#[repr(C)]
pub(crate) struct Node<K, V> {
    key: ManuallyDrop<K>,
    value: ManuallyDrop<V>,
    pub(crate) header: Header,
}

impl<K, V> Node<K, V> {
    pub(crate) fn key(&self) -> &K {
        &self.key
    }

    pub(crate) fn value(&self) -> &V {
        &self.value
    }

    /// What reclamation knows of a node.
    ///
    /// # Safety
    ///
    /// The node is there.
    pub(crate) unsafe fn header_of(node: NonNull<Self>) -> NonNull<Header> {
        // SAFETY: the caller's promise. (By way of no reference: the header stands for the whole of the node.)
        let header = unsafe { &raw mut (*node.as_ptr()).header };
        // SAFETY: within the node.
        unsafe { NonNull::new_unchecked(header) }
    }

    /// Drops key and value and frees the node. Returns how many of the two drops panicked: a panic in one loses
    /// neither the other nor the memory, and goes no further.
    ///
    /// # Safety
    ///
    /// `header` is that of a `Node<K, V>`, and the caller owns the node alone (N3).
    pub(crate) unsafe fn destroy(header: NonNull<Header>) -> u32
    where
        K: 'static,
        V: 'static,
    {
        // SAFETY: the header is that of a node, as `header_of` gives it.
        let node = unsafe { header.byte_sub(offset_of!(Self, header)) }.cast::<Self>();
        // SAFETY: N3; a node was made from a box.
        let mut node = unsafe { Box::from_raw(node.as_ptr()) };
        let mut panics = 0;
        // SAFETY: N3, and this is the only place that drops the value.
        panics += contain(|| unsafe { ManuallyDrop::drop(&mut node.value) });
        // SAFETY: N3, and this is the only place that drops the key.
        panics += contain(|| unsafe { ManuallyDrop::drop(&mut node.key) });
        sync::free(node);
        panics
    }
}

/// A node that nobody else knows of yet. Dropping it drops key and value.
pub(crate) struct Draft<K, V> {
    node: NonNull<Node<K, V>>,
    /// When it is to be looked at because it may have expired.
    timer: Timer,
}

/// What a node is made with, beside key and value.
pub(crate) struct Making<'q> {
    pub(crate) owner: &'q RetireQueue,
    pub(crate) hash: u64,
    pub(crate) stamp: u32,
    pub(crate) weight: Weight,
    pub(crate) used: u8,
}

impl<K, V> Draft<K, V> {
    /// A node with two references: the table's, and one for the handle that its creator gets.
    pub(crate) fn new(making: Making<'_>, key: K, value: V) -> Self {
        let Making { owner, hash, stamp, weight, used } = making;
        let node = Box::new(Node {
            header: Header {
                link: AtomicPtr::new(ptr::from_ref(owner).cast_mut().cast()),
                refs: Refs::new(2),
                hash: hash as u32,
                stamp,
                weight,
                used: Used::new(used),
                armed: Armed::new(NEVER),
            },
            key: ManuallyDrop::new(key),
            value: ManuallyDrop::new(value),
        });
        Draft { node: NonNull::from(Box::leak(node)), timer: Timer { due: NEVER, generation: 0 } }
    }

    /// Gives the reference up that is for a handle: its creator wants none.
    pub(crate) fn forgo_handle(&mut self) {
        // SAFETY: the draft owns the node.
        unsafe { self.node.as_mut() }.header.refs = Refs::new(1);
    }

    /// Sets when it is to be looked at.
    pub(crate) fn set_timer(&mut self, timer: Timer) {
        self.timer = timer;
    }

    pub(crate) fn timer(&self) -> Timer {
        self.timer
    }

    pub(crate) fn header(&self) -> &Header {
        // SAFETY: the draft owns the node.
        &unsafe { self.node.as_ref() }.header
    }

    pub(crate) fn value(&self) -> &V {
        // SAFETY: the draft owns the node.
        unsafe { self.node.as_ref() }.value()
    }

    pub(crate) fn key(&self) -> &K {
        // SAFETY: the draft owns the node.
        unsafe { self.node.as_ref() }.key()
    }

    /// Gives the draft up: its node is about to be published.
    pub(crate) fn published(self) -> NonNull<Node<K, V>> {
        ManuallyDrop::new(self).node
    }

    /// Takes the draft apart.
    pub(crate) fn into_parts(self) -> (K, V) {
        // SAFETY: the draft is given up, and nobody else knows of the node.
        unsafe { Self::unbuild(ManuallyDrop::new(self).node) }
    }

    /// # Safety
    ///
    /// The caller owns the node alone, and has both key and value still in it.
    unsafe fn unbuild(node: NonNull<Node<K, V>>) -> (K, V) {
        // SAFETY: the caller's promise; a node is made from a box.
        let node = unsafe { Box::from_raw(node.as_ptr()) };
        let Node { key, value, .. } = *node;
        (ManuallyDrop::into_inner(key), ManuallyDrop::into_inner(value))
    }
}

impl<K, V> Drop for Draft<K, V> {
    fn drop(&mut self) {
        // SAFETY: the draft owns the node, and is dropped once.
        drop(unsafe { Self::unbuild(self.node) });
    }
}

/// Runs `f` and keeps a panic of it in here. Returns how many there were: 0 or 1. (A payload whose own drop panics is
/// leaked, since there is no end to that otherwise.)
pub(crate) fn contain(f: impl FnOnce()) -> u32 {
    check::user_code();
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(()) => 0,
        Err(payload) => {
            if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
                std::mem::forget(again);
            }
            1
        }
    }
}
