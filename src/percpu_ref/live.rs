//! The guard of one reference.

use super::PercpuRef;
use crate::domain::CriticalSection;
use std::fmt;
use std::mem;

/// A reference that [`PercpuRef::try_get_live`] took. Its drop puts it, by any thread.
///
/// The drop pins the domain. [`put_in`](Self::put_in) does without.
#[must_use = "the reference is put when the guard is dropped"]
pub struct LiveRef<'r> {
    of: &'r PercpuRef,
}

impl<'r> LiveRef<'r> {
    pub(super) fn new(of: &'r PercpuRef) -> Self {
        LiveRef { of }
    }

    /// Puts the reference within a critical section of the caller's, and so without a pin.
    ///
    /// # Panics
    ///
    /// If the section is of another domain. The reference is then put by a pin.
    ///
    /// # Progress
    ///
    /// As [`PercpuRef::put_in`].
    #[inline]
    pub fn put_in(self, section: &impl CriticalSection) {
        self.of.put_in(section);
        mem::forget(self);
    }
}

/// A clone is a further reference. It may be taken after a kill.
impl Clone for LiveRef<'_> {
    fn clone(&self) -> Self {
        self.of.get();
        LiveRef { of: self.of }
    }
}

impl Drop for LiveRef<'_> {
    #[inline]
    fn drop(&mut self) {
        self.of.put();
    }
}

impl fmt::Debug for LiveRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveRef").field("of", self.of).finish()
    }
}
