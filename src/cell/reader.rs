//! A session that is bound to one cell.

#![allow(unsafe_code)]

use super::raw::Raw;
use super::{ALWAYS, Version};
use crate::domain::{Inner, Session};
use std::fmt;

/// A thread's long-lived read session on a cell: the fastest way to read it. From [`RcuCell::reader`](super::RcuCell::reader).
///
/// A read costs two loads and one comparison. See [`Session`] for how it works, and for its price: take the reader
/// [`offline`](Self::offline) for work that blocks, or drop it.
///
/// ```
/// use epoch_registry::RcuCell;
///
/// let cell = RcuCell::new("one");
/// let mut reader = cell.reader();
/// assert_eq!(*reader.read(), "one");
/// cell.store("two");
/// assert_eq!(*reader.read(), "two");
/// ```
///
/// Each read ends the borrow of the one before:
///
/// ```compile_fail,E0499
/// let cell = epoch_registry::RcuCell::new(1);
/// let mut reader = cell.reader();
/// let (one, two) = (reader.read(), reader.read());
/// println!("{one} {two}");
/// ```
pub struct CellReader<'c, T: ?Sized + 'static> {
    /// In a box, so that the cold path of a read knows no address but that of the session. In a loop of reads the
    /// compiler then keeps the rest of the reader in registers.
    session: Box<Session>,
    /// The session's domain, copied, because every read loads from it.
    domain: &'c Inner,
    raw: &'c Raw<T>,
}

impl<'c, T: ?Sized + Send + Sync + 'static> CellReader<'c, T> {
    pub(super) fn new(raw: &'c Raw<T>) -> Self {
        let domain = raw.domain();
        CellReader { session: Box::new(domain.session()), domain: domain.inner(), raw }
    }

    /// Returns the current version, borrowed until the next read.
    ///
    /// # Progress
    ///
    /// Wait-free. No fence and no locked instruction, unless a quiescent state has been requested since the last read.
    #[inline]
    pub fn read(&mut self) -> &T {
        self.quiescent();
        // SAFETY: the session is of the cell's domain, and in a critical section until the next quiescent state. The
        // reference borrows the reader, which excludes that.
        let place = unsafe { self.raw.find_unchecked() }.expect(ALWAYS);
        // SAFETY: O1 (the version was found in the critical section that the reference borrows).
        unsafe { place.value() }
    }

    /// Returns a counted reference to the current version.
    ///
    /// # Progress
    ///
    /// As [`read`](Self::read), and one locked instruction.
    #[inline]
    pub fn load(&mut self) -> Version<T> {
        self.quiescent();
        // SAFETY: the session is of the cell's domain, and in a critical section until this returns.
        let place = unsafe { self.raw.find_unchecked() }.expect(ALWAYS);
        // SAFETY: O1 (the version was found in the open critical section).
        unsafe { Version::take(place) }
    }

    /// Announces a quiescent state if one was requested. Call this in a loop that has nothing to read for a while.
    ///
    /// # Progress
    ///
    /// Wait-free.
    #[inline]
    pub fn quiescent(&mut self) {
        self.session.answer(self.domain.asked());
    }

    /// Calls `f` with the session offline, so that it holds up no grace period. Use this for work that blocks.
    pub fn offline<R>(&mut self, f: impl FnOnce() -> R) -> R {
        self.session.offline(f)
    }
}

impl<T: ?Sized> fmt::Debug for CellReader<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CellReader").field("session", &self.session).finish_non_exhaustive()
    }
}
