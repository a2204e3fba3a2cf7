//! What this thread is in the midst of, that it must not begin once more.
//!
//! A list of frames, which lie on the stack of those who are at it; the thread-local is its head, a plain pointer, which is
//! there until the thread is gone.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::ptr;

struct Frame {
    /// The address of the thing that it is about.
    what: *const (),
    /// What whoever comes upon the frame may find in it.
    with: *const (),
    outer: *const Frame,
}

thread_local! {
    static INNERMOST: Cell<*const Frame> = const { Cell::new(ptr::null()) };
}

/// Runs `f` in the midst of `what`, with something for those who would begin it once more.
pub(crate) fn within<T, R>(what: *const (), with: &T, f: impl FnOnce() -> R) -> R {
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

/// Whether this thread is in the midst of `what`: calls `f` with what is there for those who come upon that.
///
/// # Safety
///
/// Whoever calls [`within`] for `what` does so with a `T`.
pub(crate) unsafe fn is_within<T>(what: *const (), f: impl FnOnce(&T)) -> bool {
    let mut next = INNERMOST.get();
    // SAFETY: the frames of the list are those of calls of `within` on this thread that have not returned.
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
