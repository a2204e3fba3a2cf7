//! The frames on a thread's stack in which it runs destructors and callbacks.
//!
//! A frame belongs to a domain. A destructor that tries to reclaim in the same domain, or puts the last reference to a
//! node of the same domain, finds the frame and leaves the work to it. So chains of destructors do not nest.

#![allow(unsafe_code)]

use super::Inner;
use super::state::Object;
use crate::node::Header;
use crate::util::reentrancy;
use std::cell::{Cell, RefCell};
use std::ptr::NonNull;

const NO_DOMAIN: u64 = u64::MAX;

/// The address that identifies these frames, whatever their domain.
fn what() -> *const () {
    static WHAT: u8 = 0;
    (&raw const WHAT).cast()
}

/// A node or object without references, whose owner is the run that adopts it.
pub(crate) enum Orphan {
    Node(NonNull<Header>),
    Object(Object),
}

/// A frame on the thread's stack that runs destructors or callbacks of a domain.
pub(crate) struct Running {
    domain: u64,
    /// Set when a destructor or callback of this run tries to reclaim in the same domain: there may be more to do.
    pub(crate) cascade: Cell<bool>,
    /// What a destructor of this run has put the last reference of, in the same domain.
    pub(crate) orphans: RefCell<Vec<Orphan>>,
    /// Whether destructors or callbacks of this run are running. The run takes `orphans` afterwards. Other user
    /// code that runs in the frame, such as an executor's `spawn`, must leave no node there.
    adopts: Cell<bool>,
}

impl Running {
    /// Calls `f` with a frame for `domain`. If an outer frame of this thread's stack reclaims in the domain
    /// already, tells that frame that there is more to do, and returns `Err`: so chains of destructors do not nest.
    pub(crate) fn enter<R>(domain: &Inner, f: impl FnOnce(&Running) -> R) -> Result<R, ()> {
        if Running::cascade(domain) {
            return Err(());
        }
        Ok(Running::frame(domain.id, f))
    }

    /// Calls `f` as a callback that belongs to no domain: `f` may retire and reclaim, and must not wait.
    pub(crate) fn callback<R>(f: impl FnOnce() -> R) -> R {
        Running::frame(NO_DOMAIN, |_| f())
    }

    fn frame<R>(domain: u64, f: impl FnOnce(&Running) -> R) -> R {
        let frame =
            Running { domain, cascade: Cell::new(false), orphans: RefCell::default(), adopts: Cell::new(false) };
        let result = reentrancy::enter(what(), &frame, || f(&frame));
        debug_assert!(frame.orphans.borrow().is_empty(), "a run has left orphans in its frame");
        result
    }

    /// If this thread runs destructors or callbacks of `domain`, tells that run that there is more to do. Returns
    /// whether it does.
    pub(crate) fn cascade(domain: &Inner) -> bool {
        Running::find(domain, |frame| frame.cascade.set(true))
    }

    /// Calls `f`, which runs destructors and callbacks of the frame's domain, contains their panics, and takes
    /// `orphans`.
    pub(crate) fn destroy<R>(&self, f: impl FnOnce() -> R) -> R {
        self.adopts.set(true);
        let result = f();
        self.adopts.set(false);
        result
    }

    /// If a destructor or callback of `domain` runs on this thread, leaves `orphan` to its run. Returns the orphan if
    /// there is no such run.
    pub(crate) fn adopt(domain: &Inner, orphan: Orphan) -> Option<Orphan> {
        let mut orphan = Some(orphan);
        Running::find(domain, |frame| {
            if frame.adopts.get() {
                frame.orphans.borrow_mut().extend(orphan.take());
            }
        });
        orphan
    }

    /// Returns whether this thread runs destructors or callbacks of any domain.
    pub(crate) fn is_anywhere() -> bool {
        // SAFETY: `frame` is the only caller of `enter` for `what`, with a `Running`.
        unsafe { reentrancy::find::<Running>(what(), |_| true) }
    }

    /// Calls `found` with the innermost frame of the domain. Returns whether there is one.
    fn find(domain: &Inner, mut found: impl FnMut(&Running)) -> bool {
        let is_found = |frame: &Running| {
            let is_this = frame.domain == domain.id;
            if is_this {
                found(frame);
            }
            is_this
        };
        // SAFETY: `frame` is the only caller of `enter` for `what`, with a `Running`.
        unsafe { reentrancy::find(what(), is_found) }
    }
}
