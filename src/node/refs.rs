//! The reference count of a node, and the mark of a node that has left its table.
//!
//! # Invariants
//!
//! - **R1** The table owns one reference, from before the node is published until a grace period after the node
//!   is unlinked. So a thread that finds the node in a table within a critical section finds a count of at
//!   least one. Taking another reference is one unconditional addition: the kernel's `refcount_inc_not_zero`
//!   without its loop and without its failure.
//! - **R2** The thread that puts the last reference owns the node alone. A reference is the last if its put
//!   brings the count to zero. The table's reference is also the last if, after the grace period, the count
//!   shows no other reference: then no thread can take one from the table any more.
//! - **R3** A count that reaches the limit stays saturated: the node leaks, and is never freed early. (As in
//!   the kernel's `refcount_t`, 2^30 threads would have to stop between two instructions to defeat this.)

use crate::sync::atomic::Ordering;
use crate::sync::{AtomicU32, const_fn};

/// Bit 0: the node is unlinked. Bits 1 to 31: the count. A count of 2^30 or more is saturated.
pub(crate) struct Refs(AtomicU32);

const UNLINKED: u32 = 1;
const ONE: u32 = 2;
const LIMIT: u32 = 1 << 31;
/// The middle of the saturated half, far from both of its ends.
const SATURATED: u32 = LIMIT + (LIMIT >> 1);

impl Refs {
    const_fn! {
        /// Returns a count of `references`, for a node that is not unlinked.
        pub(crate) fn new(references: u32) -> Self {
            Refs(AtomicU32::new(references * ONE))
        }
    }

    /// Takes a reference. The caller must rely on an existing reference (R1): the table's or its own.
    #[inline]
    pub(crate) fn get(&self) {
        // ORDERING: Relaxed. The caller already reaches the node, and the addition publishes nothing.
        let old = self.0.fetch_add(ONE, Ordering::Relaxed);
        debug_assert!(old >= ONE, "a reference was taken from zero");
        if old >= LIMIT {
            self.saturate();
        }
    }

    /// Takes a reference unless the node is unlinked. Returns whether it did. The caller is in a critical
    /// section, in which the table's reference keeps the count above zero (R1).
    #[inline]
    pub(crate) fn get_unless_unlinked(&self) -> bool {
        // ORDERING: Relaxed, as in `get`.
        let old = self.0.fetch_add(ONE, Ordering::Relaxed);
        debug_assert!(old >= ONE, "a reference was taken from zero");
        if old >= LIMIT {
            self.saturate();
        }
        if old & UNLINKED == 0 {
            return true;
        }
        let last = self.put();
        debug_assert!(!last, "the table's reference was gone inside a critical section");
        false
    }

    /// Puts a reference. Returns whether it was the last: then the caller owns the node alone (R2).
    #[inline]
    #[must_use]
    pub(crate) fn put(&self) -> bool {
        // ORDERING: Release, pairs with the Acquire below or in `put_tables`, in the thread that puts the last
        // reference: every use of the node happens before its destruction.
        let old = self.0.fetch_sub(ONE, Ordering::Release);
        debug_assert!(old >= ONE, "a reference was put twice");
        if old & !UNLINKED == ONE {
            // ORDERING: Acquire, pairs with the Release of every earlier `put`: they all belong to the release
            // sequence that this load reads from. (An Acquire fence would also do, but ThreadSanitizer does not
            // support fences.)
            self.0.load(Ordering::Acquire);
            return true;
        }
        if old >= LIMIT {
            self.saturate();
        }
        false
    }

    /// Puts the table's reference. Called once, after the grace period. Returns whether it was the last: then the
    /// caller owns the node alone (R2). If there is no other reference, the count is left as it is.
    #[inline]
    #[must_use]
    pub(crate) fn put_tables(&self) -> bool {
        // ORDERING: Acquire, pairs with the Release of every `put` of a handle, as in `put`. If no handle is
        // left, there will be none: a handle comes only from another handle, or from a critical section in
        // which the node can be found.
        self.0.load(Ordering::Acquire) & !UNLINKED <= ONE || self.put()
    }

    /// Puts the table's reference of a node that is still in the table of a registry that is being dropped.
    /// Returns whether it was the last.
    pub(crate) fn put_of_dropped_registry(&self) -> bool {
        // ORDERING: Acquire, as in `put_tables`. No thread can find the node any more, so if no handle is left,
        // there will be none.
        if self.0.load(Ordering::Acquire) == ONE {
            return true;
        }
        self.set_unlinked();
        self.put_tables()
    }

    /// Takes a reference and marks the node as unlinked: [`get`](Self::get) and
    /// [`set_unlinked`](Self::set_unlinked) in one step.
    #[inline]
    pub(crate) fn get_and_set_unlinked(&self) {
        // ORDERING: Relaxed, as in `get` and `set_unlinked`. The addition sets the bit: the bit was clear, and
        // only the holder of the shard lock sets it.
        let old = self.0.fetch_add(ONE | UNLINKED, Ordering::Relaxed);
        debug_assert!(old >= ONE && old & UNLINKED == 0, "a reference was taken from zero, or a node unlinked twice");
        if old >= LIMIT {
            self.saturate();
        }
    }

    /// Marks the node as unlinked. Called once, under the shard lock.
    #[inline]
    pub(crate) fn set_unlinked(&self) {
        // ORDERING: Relaxed. A hint for `get_unless_unlinked` and `is_unlinked`. The table orders the unlink
        // itself.
        self.0.fetch_or(UNLINKED, Ordering::Relaxed);
    }

    pub(crate) fn is_unlinked(&self) -> bool {
        // ORDERING: Relaxed, a hint, as in `set_unlinked`.
        self.0.load(Ordering::Relaxed) & UNLINKED != 0
    }

    /// Returns whether there are more than `references` references at this moment.
    pub(crate) fn is_more_than(&self, references: u32) -> bool {
        // ORDERING: Relaxed, a hint: the count may change at once.
        self.0.load(Ordering::Relaxed) / ONE > references
    }

    /// Marks the slot of a destroyed node as free: no references, not unlinked. Called by the owner of the node
    /// (R2).
    #[inline]
    pub(crate) fn set_free(&self) {
        // ORDERING: Relaxed. Only the owner accesses the node, and the shard lock orders the handover of the
        // slot.
        self.0.store(0, Ordering::Relaxed);
    }

    /// Returns whether the node is in a table, that is, neither unlinked nor a free slot. Called under the
    /// shard lock while no `clear` is marking nodes, or when no writer is left.
    pub(crate) fn is_in_table(&self) -> bool {
        // ORDERING: Relaxed. The shard lock orders publication and unlinking.
        let refs = self.0.load(Ordering::Relaxed);
        refs & UNLINKED == 0 && refs >= ONE
    }

    #[cold]
    fn saturate(&self) {
        // ORDERING: Relaxed, both, because the node is never destroyed. Bit 0 stays: the node may have been unlinked.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |refs| Some(SATURATED | refs & UNLINKED));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_last_put_is_reported_once() {
        let refs = Refs::new(2);
        refs.get();
        refs.set_unlinked();
        assert!(!refs.put());
        assert!(!refs.put());
        assert!(refs.put());
        assert!(!refs.is_in_table());
    }

    #[test]
    fn a_saturated_count_keeps_the_mark_of_an_unlinked_node() {
        let refs = Refs::new(2);
        refs.set_unlinked();
        refs.saturate();
        assert!(refs.is_unlinked() && !refs.is_in_table() && !refs.put());
    }

    #[test]
    fn an_unlinked_node_gives_no_new_handle() {
        let refs = Refs::new(1);
        assert!(refs.get_unless_unlinked());
        refs.set_unlinked();
        assert!(!refs.get_unless_unlinked());
        assert!(!refs.put());
        assert!(refs.put());
    }

    #[test]
    fn a_count_at_the_limit_saturates_and_never_reaches_zero() {
        let refs = Refs(AtomicU32::new(LIMIT - ONE));
        refs.get();
        refs.get();
        assert_eq!(refs.0.load(Ordering::Relaxed), SATURATED);
        for _ in 0..1000 {
            assert!(!refs.put());
            assert_eq!(refs.0.load(Ordering::Relaxed), SATURATED);
        }
        let refs = Refs(AtomicU32::new(u32::MAX - 1));
        refs.get();
        assert_eq!(refs.0.load(Ordering::Relaxed), SATURATED, "an addition never wraps to a small count");
    }
}
