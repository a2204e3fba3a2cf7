//! What the calling thread is in the middle of, so that it does not begin it again.
//!
//! [`enter`] puts a frame on a list while it runs a closure; [`find`] looks for a frame. The frames lie on the stack of the calls
//! of `enter`. The head of the list is a plain pointer in a thread-local without a destructor, so that it can be used until the
//! thread is gone.

#![allow(unsafe_code)]

use crate::sync::const_thread_local;
use std::cell::Cell;
use std::ptr;

struct Frame {
    /// The address of what the thread is in the middle of.
    what: *const (),
    /// What `find` hands out.
    with: *const (),
    outer: *const Frame,
}

thread_local! {
    static INNERMOST: Cell<*const Frame> = const { Cell::new(ptr::null()) };
}

const_thread_local! {
    /// Whether this thread holds the lock of a shard, in which case it is in the user's `Eq`.
    static SHARD_LOCKED: Cell<bool> = Cell::new(false);
}

/// Returns whether this thread holds the lock of a shard.
#[inline]
pub(crate) fn shard_locked() -> bool {
    SHARD_LOCKED.with(Cell::get)
}

/// Says that this thread has taken the lock of a shard, or is about to give it back.
#[inline]
pub(crate) fn set_shard_locked(locked: bool) {
    SHARD_LOCKED.with(|cell| cell.set(locked));
}

/// Returns a tag of the calling thread. No two running threads have the same.
pub(crate) fn thread_tag() -> usize {
    SHARD_LOCKED.with(|cell| ptr::from_ref(cell).addr())
}

/// Runs `f` as a part of `what`. Until it returns, [`find`] finds `with` by `what` on this thread.
pub(crate) fn enter<T, R>(what: *const (), with: &T, f: impl FnOnce() -> R) -> R {
    /// Takes the innermost frame off the list, by a panic too.
    struct Leave(*const Frame);

    impl Drop for Leave {
        fn drop(&mut self) {
            INNERMOST.set(self.0);
        }
    }

    let outer = INNERMOST.get();
    let frame = Frame { what, with: ptr::from_ref(with).cast(), outer };
    INNERMOST.set(&raw const frame);
    let _leave = Leave(outer);
    f()
}

/// Calls `f` with what the innermost call of [`enter`] for `what` was given. Returns whether this thread is in such a call.
///
/// # Safety
///
/// Every call of [`enter`] for `what` is given a `T`.
pub(crate) unsafe fn find<T>(what: *const (), f: impl FnOnce(&T)) -> bool {
    let mut next = INNERMOST.get();
    // SAFETY: the frames of the list are those of calls of `enter` on this thread that have not returned.
    while let Some(frame) = unsafe { next.as_ref() } {
        if frame.what == what {
            // SAFETY: the caller's promise; it was borrowed for that call.
            f(unsafe { &*frame.with.cast::<T>() });
            return true;
        }
        next = frame.outer;
    }
    false
}
