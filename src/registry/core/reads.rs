//! What a read owes an entry that it has found.

#![allow(unsafe_code)]

use super::Core;
use crate::node::Node;
use crate::node::usage::ReadDuties;
use crate::shard::expiry::{Look, Looker};
use crate::util::clock::Time;
use std::ptr::NonNull;

impl<K, V> Core<K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Does what a read owes an entry that it has found: leaves the marks that are wanted, and checks whether the
    /// entry has expired. Returns the node, or `None` if it has expired.
    ///
    /// The caller calls this only if there is something to do. This function loads the duties again, and returns
    /// the node, so that the inlined read keeps no value in a register across the call of the cold part. Such
    /// registers would also cost the reads that have nothing to do.
    ///
    /// # Safety
    ///
    /// The node was found within a critical section that is still open.
    #[inline(always)]
    pub(crate) unsafe fn use_at_read(&self, node: NonNull<Node<K, V>>) -> Option<NonNull<Node<K, V>>> {
        // Load the duties again.
        let duties = self.read_duties.get();
        // If the entry lacks a mark, or the duties are more than marks, go on out of line.
        // SAFETY: B2 (the critical section in which the node was found is still open).
        if unsafe { node.as_ref() }.header.used.lacks(duties) {
            // SAFETY: the caller guarantees that the node was found in a critical section that is still open.
            return unsafe { self.use_out_of_line(node) };
        }
        Some(node)
    }

    /// Returns the node and notes the use, unless the entry has expired. Counts the read if reads are counted.
    ///
    /// # Safety
    ///
    /// As for [`use_at_read`](Self::use_at_read).
    #[cold]
    #[inline(never)]
    unsafe fn use_out_of_line(&self, node: NonNull<Node<K, V>>) -> Option<NonNull<Node<K, V>>> {
        let duties = self.read_duties.get();
        // SAFETY: B2 (the critical section in which the node was found is still open).
        unsafe { node.as_ref() }.header.used.mark(duties);
        // SAFETY: the caller guarantees that the node was found in a critical section that is still open.
        let found = if duties.expiry() { unsafe { self.use_if_in_time(node) } } else { Some(node) };
        // An entry that has expired is a miss.
        if let Some(lookups) = self.settings.lookups.as_deref().filter(|_| duties.count()) {
            lookups.count(found.is_some());
        }
        found
    }

    /// Counts a read that has found no entry, if reads are counted.
    #[cold]
    #[inline(never)]
    pub(crate) fn count_miss(&self) {
        if let Some(lookups) = &self.settings.lookups {
            lookups.count(false);
        }
    }

    /// Returns the node and notes the use, unless the entry has expired.
    ///
    /// # Safety
    ///
    /// As for [`use_at_read`](Self::use_at_read).
    #[inline]
    unsafe fn use_if_in_time(&self, node: NonNull<Node<K, V>>) -> Option<NonNull<Node<K, V>>> {
        // Acquire what was written before the registry began to expire entries: the lives of early nodes.
        ReadDuties::acquire();
        // Read the clock.
        let now = self.now();
        // Find the entry's deadline and last use. A node without a life does not expire.
        // SAFETY: the caller guarantees that the node was found in a critical section that is still open.
        let Some(life) = (unsafe { self.life_of(node) }) else { return Some(node) };
        // Compare them with the clock. If the entry is past its time, this call ends it, unless the lifetime
        // prolongs it or its handles spare it.
        // SAFETY: the caller guarantees that the node was found in a critical section that is still open.
        let look = self.settings.lifetimes.look(unsafe { node.as_ref() }, life, now, Looker::READER);
        // An entry that has ended is absent.
        if let Look::Ended(_) = look {
            return None;
        }
        // Note the time of this use, at most once in a sixteenth of the limit on idleness.
        life.note_use(now, self.settings.lifetimes.idleness());
        Some(node)
    }

    /// Returns whether an entry that a walk has met has not expired by `now`, from
    /// [`time_to_read`](Self::time_to_read). This does not count as a use of the entry.
    ///
    /// # Safety
    ///
    /// As for [`use_at_read`](Self::use_at_read).
    pub(crate) unsafe fn is_there(&self, node: NonNull<Node<K, V>>, now: Option<Time>) -> bool {
        let Some(now) = now else { return true };
        // A node without a life does not expire.
        // SAFETY: the caller guarantees that the node was found in a critical section that is still open.
        let Some(life) = (unsafe { self.life_of(node) }) else { return true };
        // SAFETY: the caller guarantees that the node was found in a critical section that is still open.
        let look = self.settings.lifetimes.look(unsafe { node.as_ref() }, life, now, Looker::READER);
        !matches!(look, Look::Ended(_))
    }
}
