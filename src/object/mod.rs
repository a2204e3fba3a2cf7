//! Objects: values in allocations of their own, counted, and retired through a domain.
//!
//! A *container* publishes objects to readers: a cell publishes versions, a list publishes elements. Unlike the node of
//! a registry, an object needs no shard: its header says how to destroy it.
//!
//! # Invariants
//!
//! - **O1** The container owns one reference, from before the object is published until a grace period after it was
//!   unlinked. So a thread that finds the object in a critical section may take a reference unconditionally
//!   (R1 of [`refs`](crate::node::refs)).
//! - **O2** From its publication until it is destroyed, the object's value is not written, except by the value's own
//!   interior mutability.
//! - **O3** The thread that puts the last reference owns the object (R2), and destroys it or hands it over, once.
//! - **O4** The fields `bytes` and `destroy` are written before the object is published, and never again. The field
//!   `domain` is written once, by the thread that is about to put the container's reference, if there are others. It is
//!   read by the thread that puts the last of those. The count orders the two (R2).

#![allow(unsafe_code)]

use crate::domain::{Backlog, IfFull, Inner, Object, WeakDomain};
use crate::node::refs::Refs;
use crate::sync::Presence;
use std::cell::UnsafeCell;
use std::convert::Infallible;
use std::mem;
use std::ptr::NonNull;

/// The first field of an object.
pub(crate) struct ObjectHeader {
    pub(crate) refs: Refs,
    /// The bytes that the object counts for in the backlog.
    bytes: usize,
    /// Destroys the object and frees its memory.
    destroy: unsafe fn(NonNull<ObjectHeader>),
    /// The domain of the container, for references that are left when the container's is put (O4).
    domain: UnsafeCell<WeakDomain>,
    /// The presence of the object, for the model checker.
    pub(crate) presence: Presence,
}

/// Sound to observe after a panic: the header's own fields are never half written.
impl std::panic::RefUnwindSafe for ObjectHeader {}

impl ObjectHeader {
    /// Returns the header of an object that is not published yet, with the container's reference (O1).
    ///
    /// `destroy` must fit the object that the header is put in.
    pub(crate) fn new(bytes: usize, destroy: unsafe fn(NonNull<ObjectHeader>)) -> Self {
        ObjectHeader {
            refs: Refs::new(1),
            bytes,
            destroy,
            domain: UnsafeCell::new(WeakDomain::global()),
            presence: Presence::new(),
        }
    }

    /// Returns the header of an object in a `static`, which is never destroyed.
    #[cfg(not(loom))]
    pub(crate) const fn of_static() -> Self {
        const fn keep(_: NonNull<ObjectHeader>) {}
        // So many references that the containers that give theirs back never give the last one.
        let refs = Refs::new(1 << 28);
        ObjectHeader {
            refs,
            bytes: 0,
            destroy: keep,
            domain: UnsafeCell::new(WeakDomain::global()),
            presence: Presence::new(),
        }
    }

    /// Returns the bytes that the object counts for.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes as u64
    }
}

/// A place in the backlog for an object that a write is about to retire. It is given back unless it is used.
pub(crate) struct Reserved<'d> {
    domain: &'d Inner,
    amount: Backlog,
}

impl<'d> Reserved<'d> {
    /// Takes a place for an object of `bytes` bytes, as [`Inner::reserve`] does. The caller holds no lock.
    pub(crate) fn new(domain: &'d Inner, bytes: u64, if_full: &mut IfFull<Infallible>) -> Self {
        let Ok(amount) = domain.reserve(bytes, if_full);
        Reserved { domain, amount }
    }

    /// Takes a place if there is room. The caller may hold locks.
    pub(crate) fn try_new(domain: &'d Inner, bytes: u64) -> Option<Self> {
        domain.try_reserve(bytes).map(|amount| Reserved { domain, amount })
    }

    /// Returns the place, for [`retire`].
    pub(crate) fn use_up(self) -> Backlog {
        let amount = self.amount;
        mem::forget(self);
        amount
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.domain.give_back(self.amount);
    }
}

/// Retires an object that its container has unlinked: puts the container's reference after a grace period. Also does a
/// writer's share of reclamation. Returns the number of the retired object, for a [`Cookie`](crate::Cookie).
///
/// # Safety
///
/// No reader that enters a critical section of `domain` from now on can find the object. The container gives up its
/// reference (O1). The object is of this domain, and any thread may destroy it. The place `amount` in the backlog is
/// taken. The caller holds no lock.
pub(crate) unsafe fn retire(object: NonNull<ObjectHeader>, domain: &Inner, amount: Backlog) -> u64 {
    /// Puts the container's reference.
    ///
    /// # Safety
    ///
    /// The object was retired in `domain`, and its grace period is over.
    unsafe fn put_retired(object: NonNull<()>, domain: &Inner) {
        // SAFETY: the caller guarantees that no reader can find the object.
        unsafe { put_containers(object.cast(), domain) };
    }
    // SAFETY: the caller gives up the container's reference, and guarantees that any thread may destroy the object.
    domain.retire(unsafe { Object::new(object.cast(), put_retired) }, amount)
}

/// Puts a reference that is not the container's. If it is the last one, hands the object over to its domain: this thread
/// may be a reader, which runs no destructor. If the domain is gone, destroys the object on this thread.
///
/// # Safety
///
/// The caller owns the reference, and does not use the object afterwards. The object was published.
#[inline]
pub(crate) unsafe fn put(object: NonNull<ObjectHeader>) {
    // SAFETY: O1 (the caller's reference keeps the object).
    let header = unsafe { object.as_ref() };
    header.presence.touch();
    if header.refs.put() {
        // SAFETY: O3 (this was the last reference).
        unsafe { put_last(object) };
    }
}

/// # Safety
///
/// The caller owns the object (O3), and does not use it afterwards.
#[cold]
unsafe fn put_last(object: NonNull<ObjectHeader>) {
    /// # Safety
    ///
    /// As for [`destroy`].
    unsafe fn destroy_last(object: NonNull<()>, _: &Inner) {
        // SAFETY: the caller passes on the ownership of the object (O3).
        unsafe { destroy(object.cast()) };
    }
    // SAFETY: O3 (the caller owns the object, so it is not freed).
    let header = unsafe { object.as_ref() };
    // SAFETY: O4 (the container's reference was put before this one, and the count orders the write of the field).
    match unsafe { &*header.domain.get() }.upgrade() {
        // SAFETY: O3 (the caller owns the object, and passes it on). The containers' bounds are `Send` and `Sync`.
        Some(domain) => domain.inner().retire_last(unsafe { Object::new(object.cast(), destroy_last) }),
        // SAFETY: O3 (the caller owns the object).
        None => unsafe { destroy(object) },
    }
}

/// Puts the container's reference of an object that no reader can find: its grace period is over, or its container is
/// being dropped. Destroys the object if there is no other reference.
///
/// # Safety
///
/// No reader can find the object any more. Its container is of `domain`. The caller does not use it afterwards.
pub(crate) unsafe fn put_containers(object: NonNull<ObjectHeader>, domain: &Inner) {
    // SAFETY: O1 (the container's reference keeps the object).
    let header = unsafe { object.as_ref() };
    header.presence.touch();
    // A count of one does not rise again: without a reader, references come only from references.
    if header.refs.is_more_than(1) {
        // SAFETY: O4 (this thread alone puts the container's reference, and the other references read the field only
        // after that).
        unsafe { *header.domain.get() = domain.downgrade() };
    }
    if header.refs.put_tables() {
        // SAFETY: O3 (this was the last reference).
        unsafe { destroy(object) };
    }
}

/// Destroys an object.
///
/// # Safety
///
/// The caller owns the object (O3): it has put the last reference, or the object was never published.
pub(crate) unsafe fn destroy(object: NonNull<ObjectHeader>) {
    // SAFETY: O3 (the caller owns the object, so it is not freed).
    let header = unsafe { object.as_ref() };
    header.presence.own();
    let destroy = header.destroy;
    // SAFETY: O3 (the caller owns the object), and `destroy` fits it.
    unsafe { destroy(object) };
}
