//! What a read does besides finding an entry: the duties of a registry's reads, and the marks that reads leave
//! in an entry.
//!
//! A read loads one word of the registry, its duties. If the word is zero, the read is done. Otherwise it compares the
//! word with the marks of the entry. If the entry has them all, the read is done. Otherwise it stores the missing marks,
//! out of line. If the duties require it, it also checks there whether the entry has expired, and counts itself as a hit
//! or a miss.
//!
//! The marks order no other access. Only the choice of entries to evict or reap depends on them. Not modelled
//! by loom: only hints.

use crate::reap::Priority;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, fence};

/// The duties of reads.
///
/// ```text
///  bit 31 .. 9   8        7       6        5 .. 2   1      0
///  ┌─────────┬────────┬───────┬────────┬─────────┬──────┬──────┐
///  │    0    │ shared │ count │ expiry │    0    │ busy │ used │
///  └─────────┴────────┴───────┴────────┴─────────┴──────┴──────┘
/// ```
///
/// The lower byte is compared with the byte of the entry, a [`FirstMarks`]. Bits 0 and 1 are the marks that a read leaves.
/// Bits 2 to 5 stay zero, because the entry's mean something else. No entry ever has bits 6 and 7, so a read with these
/// duties never finds that all is done. Bit 8 is for the path out of line alone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Duties(u32);

impl Duties {
    /// A read marks the entry that it finds as used, for second chance.
    const USED: u32 = 1;
    /// A read marks the entry that it finds as not idle.
    const BUSY: u32 = 2;
    /// A read checks whether the entry that it finds has expired.
    const EXPIRY: u32 = 1 << 6;
    /// A read counts whether it has found an entry.
    const COUNT: u32 = 1 << 7;
    /// A read leaves its marks by an atomic operation, because priorities change in the same byte.
    const SHARED: u32 = 1 << 8;

    #[inline]
    pub(crate) fn is_nothing(self) -> bool {
        self.0 == 0
    }

    #[inline]
    pub(crate) fn expiry(self) -> bool {
        self.0 & Self::EXPIRY != 0
    }

    #[inline]
    pub(crate) fn count(self) -> bool {
        self.0 & Self::COUNT != 0
    }

    fn marks(self) -> u8 {
        self.0 as u8 & (Self::USED | Self::BUSY) as u8
    }
}

const USED: u8 = Duties::USED as u8;
const BUSY: u8 = Duties::BUSY as u8;

/// The byte with which an entry starts: its marks, its [`Priority`], and how it was admitted.
///
/// ```text
///  bit 7 .. 6   5        4        3 .. 2     1      0
///  ┌────────┬────────┬────────┬──────────┬──────┬──────┐
///  │   0    │ refuse │ exempt │ priority │ busy │ used │
///  └────────┴────────┴────────┴──────────┴──────┴──────┘
/// ```
///
/// Bits 4 and 5 matter only until the entry is published. Bits 6 and 7 stay zero: see [`Duties`].
#[derive(Clone, Copy)]
pub(crate) struct FirstMarks(u8);

impl FirstMarks {
    const PRIORITY: u32 = 2;
    const PRIORITIES: u8 = 3 << Self::PRIORITY;
    const EXEMPT: u8 = 1 << 4;
    const REFUSE: u8 = 1 << 5;

    #[inline]
    pub(crate) fn new(is_marked: bool) -> Self {
        FirstMarks(u8::from(is_marked))
    }

    /// Returns the bits of a priority. Those of [`Priority::Normal`] are zero.
    fn bits(priority: Priority) -> u8 {
        let number = match priority {
            Priority::Normal => 0,
            Priority::First => 1,
            Priority::Last => 2,
            Priority::Never => 3,
        };
        number << Self::PRIORITY
    }

    /// Returns the priority.
    pub(crate) fn priority(self) -> Priority {
        match (self.0 & Self::PRIORITIES) >> Self::PRIORITY {
            0 => Priority::Normal,
            1 => Priority::First,
            2 => Priority::Last,
            _ => Priority::Never,
        }
    }

    pub(crate) fn with_priority(self, priority: Priority) -> Self {
        FirstMarks(self.0 & !Self::PRIORITIES | Self::bits(priority))
    }

    /// Says that the entry is admitted even if there is no room.
    pub(crate) fn exempt(self) -> Self {
        FirstMarks(self.0 | Self::EXEMPT)
    }

    /// Says that the entry may be refused.
    pub(crate) fn refusable(self) -> Self {
        FirstMarks(self.0 | Self::REFUSE)
    }

    /// Returns whether the entry is refused if there is no room.
    pub(crate) fn may_be_refused(self) -> bool {
        self.0 & (Self::REFUSE | Self::EXEMPT) == Self::REFUSE
    }
}

/// The marks of an entry, and its priority: a [`FirstMarks`] that changes.
pub(crate) struct UseMarks(AtomicU8);

impl UseMarks {
    #[inline]
    pub(crate) fn new(first: FirstMarks) -> Self {
        UseMarks(AtomicU8::new(first.0))
    }

    pub(crate) fn priority(&self) -> Priority {
        // ORDERING: Relaxed: set before the entry was published, or under the shard lock.
        FirstMarks(self.0.load(Relaxed)).priority()
    }

    /// Changes the priority. The caller holds the shard lock. Reads of the registry share the byte
    /// ([`ReadDuties::share_marks`]), so none of them undoes the change.
    pub(crate) fn set_priority(&self, priority: Priority) {
        // ORDERING: Relaxed, both: the shard lock orders changes and uses of the priority.
        let _ = self.0.fetch_update(Relaxed, Relaxed, |byte| Some(FirstMarks(byte).with_priority(priority).0));
    }

    /// Returns whether the entry was used since its mark was last cleared.
    pub(crate) fn is_marked(&self) -> bool {
        // ORDERING: Relaxed, a hint.
        self.0.load(Relaxed) & USED != 0
    }

    /// Clears the mark of a use. Returns whether it was set. It is meaningful only if the caller has [enabled
    /// marks](ReadDuties::enable_marks) before.
    pub(crate) fn clear(&self) -> bool {
        self.take(USED)
    }

    /// Returns whether the entry was used since the last check for idle entries.
    pub(crate) fn is_busy(&self) -> bool {
        // ORDERING: Relaxed, a hint.
        self.0.load(Relaxed) & BUSY != 0
    }

    /// Clears the mark of a busy entry. Returns whether it was set.
    pub(crate) fn take_busy(&self) -> bool {
        self.take(BUSY)
    }

    fn take(&self, mark: u8) -> bool {
        // One `fetch_and`, so that the other mark is not lost if a use stores it at this moment.
        // ORDERING: Relaxed, both accesses: hints.
        self.0.load(Relaxed) & mark != 0 && self.0.fetch_and(!mark, Relaxed) & mark != 0
    }

    /// Returns whether a read with these duties has something to do.
    #[inline]
    pub(crate) fn lacks(&self, duties: Duties) -> bool {
        // ORDERING: Relaxed: marks are hints, and the other duties do not depend on the byte.
        !self.0.load(Relaxed) & duties.0 as u8 != 0
    }

    /// Stores the marks that the duties require, if they are missing.
    #[inline]
    pub(crate) fn mark(&self, duties: Duties) {
        // ORDERING: Relaxed, all accesses: hints. (A mark that another thread clears at this moment may stay set.)
        let (marks, wanted) = (self.0.load(Relaxed), duties.marks());
        if marks & wanted == wanted {
            return;
        }
        if duties.0 & Duties::SHARED != 0 {
            // One operation, so that a change of the priority at this moment is not undone.
            // ORDERING: Relaxed, a hint, as above.
            self.0.fetch_or(wanted, Relaxed);
        } else {
            // ORDERING: Relaxed, a hint, as above.
            self.0.store(marks | wanted, Relaxed);
        }
    }
}

/// The duties of the reads of one registry.
pub(crate) struct ReadDuties {
    duties: AtomicU32,
    /// Whether new entries start without the mark of a use. They do in bounded registries.
    unmarked: AtomicBool,
    /// Whether reads find entries that have expired and are not reaped yet.
    stale_reads: bool,
}

impl ReadDuties {
    pub(crate) fn new(stale_reads: bool) -> Self {
        ReadDuties { duties: AtomicU32::new(0), unmarked: AtomicBool::new(false), stale_reads }
    }

    #[inline]
    pub(crate) fn get(&self) -> Duties {
        // ORDERING: Relaxed. The marks are hints. A read that must check for expiry continues with the Acquire
        // fence in `acquire`.
        Duties(self.duties.load(Relaxed))
    }

    fn set(&self, bit: u32) {
        // ORDERING: Relaxed, only avoids the write, which would take the cache line from all readers.
        if self.duties.load(Relaxed) & bit == 0 {
            // ORDERING: Release, pairs with the fence in `acquire`.
            self.duties.fetch_or(bit, Release);
        }
    }

    /// Makes visible what was written before the expiry duty was set. Called after [`get`](Self::get) has
    /// returned that duty.
    pub(crate) fn acquire() {
        // ORDERING: Acquire, pairs with the Release in `set`.
        fence(std::sync::atomic::Ordering::Acquire);
    }

    /// Makes reads mark the entries that they find as used, from now on.
    pub(crate) fn enable_marks(&self) {
        self.set(Duties::USED);
    }

    /// Makes reads count hits and misses, from now on.
    pub(crate) fn count_lookups(&self) {
        self.set(Duties::COUNT);
    }

    /// Makes reads leave their marks without undoing changes of the priority. Called before the registry has entries.
    pub(crate) fn share_marks(&self) {
        self.set(Duties::SHARED);
    }

    /// Makes reads check whether the entries that they find have expired, for good: an entry that a read found
    /// to have expired must not come back. With [stale reads](crate::Builder::stale_reads), reads only mark
    /// entries as not idle, if `idleness` is set.
    pub(crate) fn check_expiry(&self, idleness: bool) {
        if !self.stale_reads {
            self.set(Duties::EXPIRY);
        } else if idleness {
            self.set(Duties::BUSY);
        }
    }

    /// Sets whether new entries start without the mark of a use, from now on.
    pub(crate) fn set_unmarked(&self, unmarked: bool) {
        if unmarked {
            self.enable_marks();
        }
        // ORDERING: Relaxed, a setting: an entry that is inserted at the same time may start either way.
        self.unmarked.store(unmarked, Relaxed);
    }

    /// Returns whether a new entry starts with the mark of a use.
    #[inline]
    pub(crate) fn begins_marked(&self) -> bool {
        // ORDERING: Relaxed, a setting.
        !self.unmarked.load(Relaxed)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_use_mark_lasts_until_it_is_taken_and_does_not_affect_the_other() {
        let read_duties = ReadDuties::new(true);
        let used = UseMarks::new(FirstMarks::new(false));
        assert!(read_duties.get().is_nothing());
        used.mark(read_duties.get());
        assert!(!used.is_marked() && !used.is_busy(), "a read left a mark that was not asked for");
        read_duties.enable_marks();
        read_duties.check_expiry(true);
        assert!(!read_duties.get().expiry(), "stale reads check expiry");
        used.mark(read_duties.get());
        assert!(used.is_marked() && used.clear() && !used.is_marked() && !used.clear());
        assert!(used.is_busy() && used.take_busy() && !used.is_busy() && !used.take_busy());
    }

    #[test]
    fn marks_and_priorities_do_not_affect_each_other() {
        let duties = |shared: bool| {
            let duties = ReadDuties::new(true);
            duties.enable_marks();
            if shared {
                duties.share_marks();
            }
            duties.get()
        };
        for priority in [Priority::First, Priority::Normal, Priority::Last, Priority::Never] {
            for shared in [false, true] {
                let first = FirstMarks::new(false).with_priority(Priority::Never).with_priority(priority);
                let used = UseMarks::new(first.refusable());
                assert!(used.lacks(duties(shared)));
                used.mark(duties(shared));
                assert!(!used.lacks(duties(shared)) && used.priority() == priority && used.is_marked());
                used.set_priority(Priority::Last);
                assert!(used.priority() == Priority::Last && used.clear() && !used.is_marked());
                assert_eq!(used.priority(), Priority::Last);
            }
        }
        let first = FirstMarks::new(true);
        let read_duties = ReadDuties::new(false);
        read_duties.count_lookups();
        assert!(UseMarks::new(first.exempt().refusable()).lacks(read_duties.get()), "each read is counted");
        assert!(!first.may_be_refused() && first.refusable().may_be_refused());
        assert!(!first.refusable().exempt().may_be_refused());
    }
}
