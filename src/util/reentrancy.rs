//! Tracks which operations the calling thread is executing, so that it does not start one of them again.
//!
//! [`enter`] puts a frame on a list while it runs a closure; [`find`] searches the list for a frame. The frames
//! lie on the stack, in the calls of `enter`. The head of the list is a plain pointer in a thread-local without
//! a destructor, so it can be used until the thread ends.

#![allow(unsafe_code)]

use crate::sync::const_thread_local;
use std::cell::Cell;
use std::ptr;

struct Frame {
    /// The address that identifies the operation.
    what: *const (),
    /// The value that `find` passes on.
    with: *const (),
    outer: *const Frame,
}

const_thread_local! {
    static INNERMOST: Cell<*const Frame> = Cell::new(ptr::null());
}

const_thread_local! {
    /// Whether this thread holds a shard lock. User code that runs then is called from the `Eq` of a key (S2).
    static SHARD_LOCKED: Cell<bool> = Cell::new(false);
}

/// Returns whether this thread holds a shard lock.
#[inline]
pub(crate) fn shard_locked() -> bool {
    SHARD_LOCKED.with(Cell::get)
}

/// Records that this thread has taken a shard lock, or is about to release it.
#[inline]
pub(crate) fn set_shard_locked(locked: bool) {
    SHARD_LOCKED.with(|cell| cell.set(locked));
}

/// Returns a tag of the calling thread. No two running threads have the same tag.
pub(crate) fn thread_tag() -> usize {
    SHARD_LOCKED.with(|cell| ptr::from_ref(cell).addr())
}

/// Runs `f` as a part of the operation `what`. Until it returns, [`find`] for `what` finds `with` on this
/// thread.
pub(crate) fn enter<T, R>(what: *const (), with: &T, f: impl FnOnce() -> R) -> R {
    /// Removes the innermost frame from the list, even after a panic.
    struct Leave(*const Frame);

    impl Drop for Leave {
        fn drop(&mut self) {
            INNERMOST.with(|innermost| innermost.set(self.0));
        }
    }

    let outer = INNERMOST.with(Cell::get);
    let frame = Frame { what, with: ptr::from_ref(with).cast(), outer };
    INNERMOST.with(|innermost| innermost.set(&raw const frame));
    let _leave = Leave(outer);
    f()
}

/// Calls `f` with the values that the calls of [`enter`] for `what` were given, from the innermost outward, until `f`
/// returns true. Returns whether it did.
///
/// # Safety
///
/// Every call of [`enter`] for `what` is given a `T`.
pub(crate) unsafe fn find<T>(what: *const (), mut f: impl FnMut(&T) -> bool) -> bool {
    let mut next = INNERMOST.with(Cell::get);
    // SAFETY: the frames in the list belong to calls of `enter` on this thread that have not returned.
    while let Some(frame) = unsafe { next.as_ref() } {
        if frame.what == what {
            // SAFETY: the caller guarantees that `enter` was given a `T` for `what`. That call has not
            // returned, so its borrow of the value is still valid.
            let with = unsafe { &*frame.with.cast::<T>() };
            if f(with) {
                return true;
            }
        }
        next = frame.outer;
    }
    false
}
