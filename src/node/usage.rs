//! What a read has to mind beside finding an entry: one word of the registry, which is zero where there is nothing; and the
//! marks that it leaves in an entry.
//!
//! A read loads the word. If it is zero, that is all. Otherwise the read leaves the marks that are wanted in the entry, by a
//! plain store where they are missing, and asks whether the entry has expired.
//!
//! The marks order nothing, and only the choice of what to evict or reap depends on them: they are of std's types, which the
//! model checker does not see.

use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, fence};

/// What reads have to mind. Bits 0 and 1 are the marks that they leave.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Duties(u32);

impl Duties {
    /// An entry that is found is marked as used, for second chance.
    const USED: u32 = 1;
    /// An entry that is found is marked as not idle.
    const BUSY: u32 = 2;
    /// An entry may have expired.
    const EXPIRY: u32 = 4;

    #[inline]
    pub(crate) fn is_nothing(self) -> bool {
        self.0 == 0
    }

    #[inline]
    pub(crate) fn expiry(self) -> bool {
        self.0 & Self::EXPIRY != 0
    }

    #[inline]
    fn marks(self) -> u8 {
        self.0 as u8 & (Self::USED | Self::BUSY) as u8
    }
}

const USED: u8 = Duties::USED as u8;
const BUSY: u8 = Duties::BUSY as u8;

/// The marks of an entry.
///
/// ```text
///  bit 7 .. 2   1      0
///  ┌────────┬──────┬──────┐
///  │   0    │ busy │ used │
///  └────────┴──────┴──────┘
/// ```
pub(crate) struct UseMarks(AtomicU8);

impl UseMarks {
    #[inline]
    pub(crate) fn new(is_marked: bool) -> Self {
        UseMarks(AtomicU8::new(u8::from(is_marked)))
    }

    /// Whether it was used since the last look that took the mark away.
    pub(crate) fn is_marked(&self) -> bool {
        // ORDERING: Relaxed, a hint.
        self.0.load(Relaxed) & USED != 0
    }

    /// Takes the mark away. True if there was one. For callers that have the registry [watched](ReadDuties::enable_marks).
    pub(crate) fn clear(&self) -> bool {
        self.take(USED)
    }

    /// Whether it was used since the last look for idle entries.
    pub(crate) fn is_busy(&self) -> bool {
        // ORDERING: Relaxed, a hint.
        self.0.load(Relaxed) & BUSY != 0
    }

    /// Takes that mark away. True if there was one.
    pub(crate) fn take_busy(&self) -> bool {
        self.take(BUSY)
    }

    fn take(&self, mark: u8) -> bool {
        // One step, so that the other mark of a use at this moment is not lost.
        // ORDERING: Relaxed, a hint.
        self.0.load(Relaxed) & mark != 0 && self.0.fetch_and(!mark, Relaxed) & mark != 0
    }

    /// Leaves the marks that are wanted.
    #[inline]
    pub(crate) fn mark(&self, duties: Duties) {
        // ORDERING: Relaxed, both: hints. (A mark that is taken away at this moment may stay.)
        let (marks, wanted) = (self.0.load(Relaxed), duties.marks());
        if marks & wanted != wanted {
            self.0.store(marks | wanted, Relaxed);
        }
    }
}

/// What the reads of a registry have to mind.
pub(crate) struct ReadDuties {
    duties: AtomicU32,
    /// Whether entries begin without the mark that their first use leaves: so they do where there is a bound.
    unmarked: AtomicBool,
    /// Whether reads find what has expired and was not reaped.
    stale_reads: bool,
}

impl ReadDuties {
    pub(crate) fn new(stale_reads: bool) -> Self {
        ReadDuties { duties: AtomicU32::new(0), unmarked: AtomicBool::new(false), stale_reads }
    }

    #[inline]
    pub(crate) fn get(&self) -> Duties {
        // ORDERING: Relaxed, a hint for marks; a read that sees that entries may expire goes on with an Acquire fence.
        Duties(self.duties.load(Relaxed))
    }

    fn set(&self, bit: u32) {
        // ORDERING: Relaxed, a look before a write that all reads would wait for.
        if self.duties.load(Relaxed) & bit == 0 {
            // ORDERING: Release, pairs with the fence in `acquire`.
            self.duties.fetch_or(bit, Release);
        }
    }

    /// After [`get`](Self::get) has said that entries may expire: what was written before that was set is seen.
    pub(crate) fn acquire() {
        // ORDERING: Acquire, pairs with the Release in `set`.
        fence(std::sync::atomic::Ordering::Acquire);
    }

    /// Has readers mark what they use from now on.
    pub(crate) fn enable_marks(&self) {
        self.set(Duties::USED);
    }

    /// Has readers look at the time of what they find, for good: what was found to have expired must not come back. With
    /// [stale reads](crate::Builder::stale_reads), they do not.
    pub(crate) fn check_expiry(&self, idleness: bool) {
        if !self.stale_reads {
            self.set(Duties::EXPIRY);
        } else if idleness {
            self.set(Duties::BUSY);
        }
    }

    /// Sets whether entries begin without the mark, from now on.
    pub(crate) fn set_unmarked(&self, unmarked: bool) {
        if unmarked {
            self.enable_marks();
        }
        // ORDERING: Relaxed, a setting: an entry that is inserted meanwhile begins in either way.
        self.unmarked.store(unmarked, Relaxed);
    }

    /// Whether an entry begins with the mark.
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
    fn a_mark_lasts_until_it_is_taken_and_leaves_the_other() {
        let read_duties = ReadDuties::new(true);
        let used = UseMarks::new(false);
        assert!(read_duties.get().is_nothing());
        used.mark(read_duties.get());
        assert!(!used.is_marked() && !used.is_busy(), "nothing is wanted");
        read_duties.enable_marks();
        read_duties.check_expiry(true);
        assert!(!read_duties.get().expiry(), "reads are stale");
        used.mark(read_duties.get());
        assert!(used.is_marked() && used.clear() && !used.is_marked() && !used.clear());
        assert!(used.is_busy() && used.take_busy() && !used.is_busy() && !used.take_busy());
    }
}
