//! The reference count of a node, and whether the node has left its table.
//!
//! # Invariants
//!
//! - **R1** The table owns one reference from before the node is published until a grace period after it is unlinked.
//!   So whoever finds the node in a table inside a critical section finds a count of at least one, and taking another
//!   is one unconditional addition: the kernel's `refcount_inc_not_zero` without the loop and without its failure.
//! - **R2** Whoever puts the last reference owns the node alone: whoever brings the count to zero; or, for the table's
//!   reference, whoever finds no other beside it after its grace period, when none can be taken from the table any more.
//! - **R3** A count that reaches the limit is stuck there: the node leaks, it is never freed early. (The kernel's
//!   `refcount_t`; as there, 2^30 threads would have to stop between two instructions to defeat it.)

use crate::sync::AtomicU32;
use crate::sync::atomic::Ordering;

/// Bit 0: the node is unlinked. Bits 1 to 31: the count, in which anything from 2^30 on is saturated.
pub(crate) struct Refs(AtomicU32);

const UNLINKED: u32 = 1;
const ONE: u32 = 2;
const LIMIT: u32 = 1 << 31;
/// In the middle of the saturated half, far from both of its ends.
const SATURATED: u32 = LIMIT + (LIMIT >> 1);

impl Refs {
    /// A count of `references`, of a node that is not unlinked.
    pub(crate) fn new(references: u32) -> Self {
        Refs(AtomicU32::new(references * ONE))
    }

    /// Takes a reference, from one that is held (R1: the table's, or the caller's own).
    #[inline]
    pub(crate) fn get(&self) {
        // ORDERING: Relaxed. Whoever may call this already reaches the node; nothing is published by it.
        let old = self.0.fetch_add(ONE, Ordering::Relaxed);
        debug_assert!(old >= ONE, "a reference was taken from none");
        if old >= LIMIT {
            self.saturate();
        }
    }

    /// Takes a reference unless the node is unlinked. For callers in a critical section, in which the table's
    /// reference is there to stand on (R1).
    #[inline]
    pub(crate) fn get_unless_unlinked(&self) -> bool {
        // ORDERING: Relaxed, as in `get`.
        let old = self.0.fetch_add(ONE, Ordering::Relaxed);
        debug_assert!(old >= ONE, "a reference was taken from none");
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

    /// Gives a reference back. True if it was the last: the caller then owns the node alone (R2).
    #[inline]
    #[must_use]
    pub(crate) fn put(&self) -> bool {
        // ORDERING: Release, pairs with the Acquire below in whichever thread puts the last one, so that every use of
        // the node happens before its destruction.
        let old = self.0.fetch_sub(ONE, Ordering::Release);
        debug_assert!(old >= ONE, "a reference was put twice");
        if old & !UNLINKED == ONE {
            // ORDERING: Acquire, pairs with the Release of every earlier `put`: they are all in the release sequence that
            // this reads from. (A fence would do as well, but ThreadSanitizer knows of none.)
            self.0.load(Ordering::Acquire);
            return true;
        }
        if old >= LIMIT {
            self.saturate();
        }
        false
    }

    /// Gives the table's reference back, if it has not been given back before, after its grace period. True if it was the
    /// last: the caller then owns the node alone (R2).
    #[inline]
    #[must_use]
    pub(crate) fn put_tables(&self) -> bool {
        // ORDERING: Acquire, pairs with the Release of every `put` of a handle, as in `put`. If there is no handle there will be
        // none: one can be had only from a handle, or within a critical section in which the node can be found.
        self.0.load(Ordering::Acquire) & !UNLINKED <= ONE || self.put()
    }

    /// Gives the table's reference back, of a node that is in the table of a registry that is being dropped. True if it was the
    /// last.
    pub(crate) fn put_of_dropped_registry(&self) -> bool {
        // ORDERING: Acquire, as in `put_tables`. Nobody can find the node any more: if there is no handle there will be none.
        if self.0.load(Ordering::Acquire) == ONE {
            return true;
        }
        self.set_unlinked();
        self.put_tables()
    }

    /// Takes a reference, and marks the node as unlinked: [`get`](Self::get) and [`set_unlinked`](Self::set_unlinked) in one
    /// step.
    #[inline]
    pub(crate) fn get_and_set_unlinked(&self) {
        // ORDERING: Relaxed, as in both. An addition sets the bit, as nobody else does and it was not set.
        let old = self.0.fetch_add(ONE | UNLINKED, Ordering::Relaxed);
        debug_assert!(old >= ONE && old & UNLINKED == 0, "a reference was taken from none, or a node unlinked twice");
        if old >= LIMIT {
            self.saturate();
        }
    }

    /// Marks the node as unlinked. Under the shard lock, once.
    #[inline]
    pub(crate) fn set_unlinked(&self) {
        // ORDERING: Relaxed. A hint for `get_unless_unlinked` and `is_unlinked`; the unlink itself is the table's.
        self.0.fetch_or(UNLINKED, Ordering::Relaxed);
    }

    pub(crate) fn is_unlinked(&self) -> bool {
        // ORDERING: Relaxed, as in `set_unlinked`.
        self.0.load(Ordering::Relaxed) & UNLINKED != 0
    }

    /// Whether there are more than so many references, at this moment.
    pub(crate) fn is_more_than(&self, references: u32) -> bool {
        // ORDERING: Relaxed. A hint: the count may change at once.
        self.0.load(Ordering::Relaxed) / ONE > references
    }

    /// Marks the slot of a destroyed node as free: no reference, and not unlinked. For the owner of the node (R2).
    #[inline]
    pub(crate) fn set_free(&self) {
        // ORDERING: Relaxed. The owner is alone with the node, and the shard lock hands the slot over.
        self.0.store(0, Ordering::Relaxed);
    }

    /// Whether the node is in a table: not unlinked, and no free slot. Under the shard lock, or where no writer is left.
    pub(crate) fn is_in_table(&self) -> bool {
        // ORDERING: Relaxed. The shard lock orders publication and unlinking.
        let refs = self.0.load(Ordering::Relaxed);
        refs & UNLINKED == 0 && refs >= ONE
    }

    #[cold]
    fn saturate(&self) {
        // ORDERING: Relaxed, as nobody will ever destroy this node. Bit 0 may be lost, which a leaked node can bear.
        self.0.store(SATURATED, Ordering::Relaxed);
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
