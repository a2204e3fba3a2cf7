//! The lifetime state of an entry: three words that follow its node, in registries whose entries expire.
//!
//! # How an entry expires
//!
//! Readers: a reader that finds an entry loads its deadline and compares it with the current time. While the
//! deadline is in the future, the entry has not expired by age.
//!
//! Ending: a reader, writer or reaper that finds the deadline in the past *ends* the entry before it reports
//! the entry absent. It ends the entry by one compare-exchange that replaces the deadline with `ENDED`.
//!
//! Changes: a call that changes a deadline (`set_max_age`, `set_ttl`, a lifetime that has grown longer) also uses a
//! compare-exchange, and never changes `ENDED`. So a change and an end of the same deadline are ordered. Once a
//! call has reported an entry absent, every later call finds it absent, whatever the clock of its thread shows.
//!
//! Fixed deadlines: the deadline says whether the user has set the end of this entry, by `set_ttl` or its like. The
//! lifetime function is then not asked about the entry.
//!
//! Idleness: the time of the last use is a separate word, which is ended in the same way. A read that finds an
//! entry in use updates the word only if the value would move by more than a sixteenth of the limit.
//!
//! Replacement: a writer that replaces an entry first *claims* it, by exchanging both words for `CLAIMED`. A
//! claimed entry never expires. Without the claim, a reader that still holds the old node could see its
//! deadline pass after the replacement. It would then report the key absent, although the key was present all
//! the time. Removed entries are not claimed, because their key does become absent.
//!
//! # Invariants
//!
//! - **L1** The words of an entry that has ended stay ended.
//! - **L2** Before a node is replaced by another node with the same key, it has ended or has been claimed.
//! - **L3** Every node in the table of a shard that was [prepared for
//!   expiry](crate::shard::state::ShardState::extend) has a `Life`. If the node's [`kind`](crate::node::Kind) says
//!   so, the `Life` follows the node; otherwise it is in the shard's [`Early`](crate::shard::early::Early).

use crate::reap::Cause;
use crate::sync::AtomicU64;
use crate::sync::atomic::Ordering::Relaxed;
use crate::util::clock::{Stamp, Time};
use std::sync::atomic::AtomicU32;

/// The expiry state of one entry.
pub(crate) struct Life {
    /// The low bits of the insertion time, which the stamp of the node does not hold.
    rest: u32,
    /// The low 32 bits of the due time of the entry's token (W1). Accessed under the shard lock. Not modelled
    /// by loom: the shard lock orders all accesses.
    armed: AtomicU32,
    /// The [`Deadline`] of the entry; or `ENDED`; or `CLAIMED`.
    deadline: AtomicU64,
    /// The time of the last use, exact to a sixteenth of the limit; or `IDLE`; or `CLAIMED`.
    used: AtomicU64,
}

/// The deadline of an entry that has ended. It is always in the past.
const ENDED: u64 = 0;
/// The last use of an entry that has ended because it was idle.
const IDLE: u64 = u64::MAX - 1;
/// The value of both words of a claimed entry: a deadline that never comes, or a last use that is never too
/// long ago.
const CLAIMED: u64 = u64::MAX;

/// The idleness limits that apply to a check of an entry.
#[derive(Clone, Copy)]
pub(crate) struct Idleness {
    /// A read stores the time of a use only if the stored last use is longer ago than this. `NEVER` if there is
    /// no limit.
    pub(crate) note: Time,
    /// An entry has expired if it was not used for longer than this. `NEVER` if there is no limit.
    pub(crate) limit: Time,
    /// Every entry counts as used at this time or later.
    pub(crate) floor: Time,
}

/// The result of a check of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// The entry lives until at least the given time, unless its deadline or the limits change.
    Lives(Time),
    /// The entry has ended.
    Ended(Cause),
    /// The entry is past its deadline and has not ended. The deadline that was loaded is given.
    Past(Deadline),
    /// The entry was not used for too long and has not ended. The last use that was loaded is given.
    Idle(LastUse),
}

/// The first time at which an entry has expired by age, and whether it is *fixed*: whether the user has set the end of
/// this entry, so that the lifetime function is not asked about it.
///
/// | bits 63, 62 | bits 61 .. 0 | deadline |
/// |---|---|---|
/// | 0, 0 | a time | that time (zero: the entry has ended) |
/// | 0, 1 | a time | that time, fixed |
/// | 1, 0 | 0 | never, fixed |
/// | 1, 1 | all ones | never (or the entry is claimed) |
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Deadline(u64);

impl Deadline {
    pub(crate) const NEVER: Deadline = Deadline(Time::NEVER.word());
    const FIXED: u64 = 1 << 62;
    const FIXED_NEVER: u64 = 1 << 63;

    /// Returns a deadline that is not fixed.
    #[inline]
    pub(crate) fn at(end: Time) -> Self {
        Deadline(end.word())
    }

    /// Returns a fixed deadline.
    pub(crate) fn fixed(end: Time) -> Self {
        Deadline(if end == Time::NEVER { Self::FIXED_NEVER } else { end.word() | Self::FIXED })
    }

    /// Returns whether the deadline is fixed: whether its two top bits differ.
    #[inline]
    pub(crate) fn is_fixed(self) -> bool {
        (self.0 ^ self.0 << 1) >> 63 != 0
    }

    /// Returns the time, which may be `NEVER`.
    #[inline]
    pub(crate) fn time(self) -> Time {
        if self.0 >> 63 != 0 { Time::NEVER } else { Time::of_word(self.0 & !Self::FIXED) }
    }

    /// Returns the earlier of this deadline and `end`. It is fixed if this one is.
    #[inline]
    pub(crate) fn or_at(self, end: Time) -> Self {
        match end < self.time() {
            true if self.is_fixed() => Deadline::fixed(end),
            true => Deadline::at(end),
            false => self,
        }
    }
}

/// The value of a last-use word that was loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LastUse(u64);

impl Life {
    pub(crate) fn new(inserted: Time, deadline: Deadline, used: Time) -> Self {
        Life {
            rest: Stamp::rest(inserted),
            armed: AtomicU32::new(0),
            deadline: AtomicU64::new(deadline.0),
            used: AtomicU64::new(used.word()),
        }
    }

    /// Returns the life of a node that was inserted before its registry was prepared for expiry. The low bits
    /// of its insertion time are not known. Its last use is zero, because [`Idleness::floor`] applies to it.
    pub(crate) fn early() -> Self {
        Life { rest: u32::MAX, ..Life::new(Time::ZERO, Deadline::NEVER, Time::ZERO) }
    }

    /// Returns the insertion time, given the stamp of the node. It is never earlier than the actual insertion.
    #[inline]
    pub(crate) fn inserted(&self, stamp: Stamp) -> Time {
        stamp.with_rest(self.rest)
    }

    /// Checks whether the entry lives. If the result is `Past` or `Idle`, the caller must either end the entry
    /// or prolong it.
    #[inline]
    pub(crate) fn standing(&self, now: Time, idleness: Idleness) -> Standing {
        // ORDERING: Relaxed, both loads. An entry has ended if either word says so. An ended word stays ended
        // (L1), so by the coherence of that word a call that comes after one that reported the entry absent
        // also finds it ended. If neither load finds an ended word, neither word had ended at the earlier of
        // the two loads.
        let deadline = Deadline(self.deadline.load(Relaxed));
        if deadline.0 == ENDED {
            return Standing::Ended(Cause::Expired);
        }
        let by_age = deadline.time();
        if now >= by_age {
            return Standing::Past(deadline);
        }
        // ORDERING: Relaxed, see the load of the deadline above.
        match self.used.load(Relaxed) {
            // Also if there is no limit any more (L1).
            IDLE => Standing::Ended(Cause::Idle),
            CLAIMED => Standing::Lives(by_age),
            _ if idleness.limit == Time::NEVER => Standing::Lives(by_age),
            used => {
                let end = Time::of_word(used).max(idleness.floor).end_of(idleness.limit);
                if now < end { Standing::Lives(end.min(by_age)) } else { Standing::Idle(LastUse(used)) }
            }
        }
    }

    /// Stores the time of a use, if it is long enough after the stored one (see [`Idleness::note`]).
    #[inline]
    pub(crate) fn note_use(&self, now: Time, idleness: Idleness) {
        if idleness.limit == Time::NEVER {
            return;
        }
        // ORDERING: Relaxed, the load and the exchange in `move_use`, as in `standing`.
        let used = self.used.load(Relaxed);
        if used < IDLE && now >= Time::of_word(used).end_of(idleness.note) {
            // The exchange fails if another use was stored at the same time, or if the entry has ended or is
            // claimed. All three cases need no retry.
            self.move_use(LastUse(used), now);
        }
    }

    /// Sets the last use to `now`, if it is still `old`. Returns whether it was.
    pub(crate) fn move_use(&self, old: LastUse, now: Time) -> bool {
        // ORDERING: Relaxed, as in `standing`.
        self.used.compare_exchange(old.0, now.word(), Relaxed, Relaxed).is_ok()
    }

    /// Ends the entry, if its last use is still `old`. Returns false if it has changed: then the caller must
    /// check the entry again.
    pub(crate) fn end_idle(&self, old: LastUse) -> bool {
        // ORDERING: Relaxed, as in `standing`.
        self.used.compare_exchange(old.0, IDLE, Relaxed, Relaxed).is_ok()
    }

    /// Returns the time of the last use.
    pub(crate) fn last_use(&self, idleness: Idleness) -> Time {
        // ORDERING: Relaxed, only a hint.
        match self.used.load(Relaxed) {
            IDLE => idleness.floor,
            used => Time::of_word(used).max(idleness.floor),
        }
    }

    /// Ends the entry, if its deadline is still `past`. Returns false if it has changed: then the caller must
    /// check the entry again.
    pub(crate) fn end(&self, past: Deadline) -> bool {
        self.change(past, ENDED)
    }

    /// Sets the deadline to `new`, if it is still `old`. Returns whether it was.
    pub(crate) fn move_deadline(&self, old: Deadline, new: Deadline) -> bool {
        self.change(old, new.0)
    }

    fn change(&self, old: Deadline, new: u64) -> bool {
        // ORDERING: Relaxed, as in `standing`.
        self.deadline.compare_exchange(old.0, new, Relaxed, Relaxed).is_ok()
    }

    /// Returns the deadline.
    pub(crate) fn deadline(&self) -> Deadline {
        // ORDERING: Relaxed, as in `standing`.
        Deadline(self.deadline.load(Relaxed))
    }

    /// Sets the deadline to what `new` makes of the present one, unless the entry has ended or is claimed. Returns
    /// whether it did. Called under the shard lock, under which no entry becomes claimed meanwhile.
    pub(crate) fn set_deadline(&self, new: impl Fn(Deadline) -> Deadline) -> bool {
        loop {
            let old = self.deadline();
            // ORDERING: Relaxed, as in `standing`.
            if old.0 == ENDED || matches!(self.used.load(Relaxed), IDLE | CLAIMED) {
                return false;
            }
            if self.move_deadline(old, new(old)) {
                return true;
            }
        }
    }

    /// Returns the next time at which the entry may have expired, as far as its words tell. The entry needs a
    /// check at that time.
    pub(crate) fn due(&self, idleness: Idleness) -> Time {
        // ORDERING: Relaxed, both loads, as in `standing`.
        let deadline = self.deadline().time();
        match self.used.load(Relaxed) {
            IDLE => Time::ZERO,
            _ if idleness.limit == Time::NEVER => deadline,
            used => deadline.min(Time::of_word(used).max(idleness.floor).end_of(idleness.limit)),
        }
    }

    /// Claims the entry for its replacement (L2). Called under the shard lock. Returns the cause if the entry
    /// has already ended.
    pub(crate) fn claim(&self) -> Option<Cause> {
        // The last use is claimed first: if the entry has ended as idle, its deadline is left unclaimed. Once
        // both words are claimed, no thread can end the entry. A word that is ended stays as it is (L1).
        let claim = |word: &AtomicU64, ended: u64| loop {
            // ORDERING: Relaxed, the load and the exchange, as in `standing`.
            let old = word.load(Relaxed);
            if old == ended {
                return false;
            }
            if word.compare_exchange(old, CLAIMED, Relaxed, Relaxed).is_ok() {
                return true;
            }
        };
        if !claim(&self.used, IDLE) {
            return Some(Cause::Idle);
        }
        if claim(&self.deadline, ENDED) { None } else { Some(Cause::Expired) }
    }

    /// Records that the token with this due time is the entry's own (W1). Called under the shard lock.
    pub(crate) fn arm(&self, due: Time) {
        // ORDERING: Relaxed, the shard lock orders it.
        self.armed.store(due.word() as u32, Relaxed);
    }

    /// Makes sure that no token with this due time counts as the entry's own. Called under the shard lock.
    pub(crate) fn disarm(&self, due: Time) {
        // ORDERING: Relaxed, the shard lock orders it.
        self.armed.store(!due.word() as u32, Relaxed);
    }

    /// Returns whether a token with this due time is the entry's own. Called under the shard lock.
    pub(crate) fn is_armed_by(&self, due: Time) -> bool {
        // ORDERING: Relaxed, the shard lock orders it.
        self.armed.load(Relaxed) == due.word() as u32
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const NONE: Idleness = Idleness { note: Time::NEVER, limit: Time::NEVER, floor: Time::ZERO };

    fn at(word: u64) -> Time {
        Time::of_word(word)
    }

    #[test]
    fn an_ended_life_stays_ended() {
        let life = Life::new(at(5), Deadline::at(at(10)), at(5));
        assert_eq!(life.standing(at(9), NONE), Standing::Lives(at(10)));
        let Standing::Past(past) = life.standing(at(10), NONE) else { panic!() };
        assert!(life.move_deadline(past, Deadline::at(at(20))) && !life.end(past));
        assert_eq!(life.standing(at(19), NONE), Standing::Lives(at(20)));
        let Standing::Past(past) = life.standing(at(20), NONE) else { panic!() };
        assert!(life.end(past));
        assert!(!life.set_deadline(|_| Deadline::at(at(100))));
        assert_eq!(life.standing(at(0), NONE), Standing::Ended(Cause::Expired));
        assert_eq!(life.claim(), Some(Cause::Expired));
    }

    #[test]
    fn a_claimed_life_never_ends() {
        let idleness = Idleness { note: at(1), limit: at(16), floor: Time::ZERO };
        let life = Life::new(at(5), Deadline::at(at(10)), at(5));
        let Standing::Past(past) = life.standing(at(10), idleness) else { panic!() };
        assert_eq!(life.claim(), None);
        assert!(!life.end(past));
        assert!(!life.set_deadline(|_| Deadline::at(at(7))));
        assert_eq!(life.standing(at(1 << 60), idleness), Standing::Lives(Time::NEVER));
    }

    #[test]
    fn a_use_prolongs_a_life_and_idleness_ends_it() {
        let idleness = Idleness { note: at(2), limit: at(32), floor: Time::ZERO };
        let life = Life::new(at(0), Deadline::NEVER, at(0));
        life.note_use(at(2), idleness);
        assert_eq!(life.due(idleness), at(33), "a use just after the last one was noted");
        life.note_use(at(3), idleness);
        assert_eq!(life.standing(at(35), idleness), Standing::Lives(at(36)));
        let Standing::Idle(last) = life.standing(at(36), idleness) else { panic!() };
        assert!(life.end_idle(last));
        life.note_use(at(36), idleness);
        assert_eq!(life.standing(at(0), idleness), Standing::Ended(Cause::Idle));
        assert!(!life.set_deadline(|_| Deadline::fixed(at(100))), "an idle entry came back");
        assert_eq!((life.due(idleness), life.claim()), (Time::ZERO, Some(Cause::Idle)));
    }

    #[test]
    fn a_deadline_keeps_its_time_and_whether_it_is_fixed() {
        let last = at((1 << 62) - 1);
        for time in [at(0), at(1), at(1 << 61), last, Time::NEVER] {
            assert_eq!((Deadline::at(time).time(), Deadline::at(time).is_fixed()), (time, false));
            let fixed = Deadline::fixed(time);
            assert_eq!((fixed.time(), fixed.is_fixed()), (time, true));
            assert_ne!(fixed.0, ENDED);
            assert_eq!(Deadline::NEVER.or_at(time), Deadline::at(time));
            assert_eq!(Deadline::fixed(Time::NEVER).or_at(time), fixed);
            assert_eq!(fixed.or_at(Time::NEVER), fixed);
        }
        let life = Life::new(at(5), Deadline::fixed(at(10)), at(5));
        assert_eq!(life.standing(at(9), NONE), Standing::Lives(at(10)));
        assert_eq!(life.standing(at(10), NONE), Standing::Past(Deadline::fixed(at(10))));
        assert!(life.set_deadline(|old| old.or_at(at(8))) && life.deadline() == Deadline::fixed(at(8)));
    }
}
