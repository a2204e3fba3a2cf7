//! How long one entry lives: three words that lie after its node, in registries whose entries expire.
//!
//! # How it is decided that an entry has expired
//!
//! A reader that finds an entry loads its deadline, and compares it with the time. While the deadline is ahead, the entry is
//! there. A reader, writer or reaper that finds it past *ends* the entry, by one compare-exchange of the deadline for `ENDED`,
//! before it reports the entry absent. What changes a deadline (`set_max_age`, a lifetime that has grown longer) exchanges it
//! in the same way, and never an `ENDED` one. So of a change and an end one comes first, and an entry that was once reported
//! absent is absent for all that ask later, whatever the clocks of their threads show.
//!
//! The time of the last use is a word of its own, which is ended in the same way. A read that finds an entry in use moves it
//! on, if it would move by more than a sixteenth of the limit.
//!
//! A writer that replaces an entry first *claims* it: it exchanges both words for `CLAIMED`, which never passes. So a reader
//! that still holds the old node, of which the time comes after that, does not report a key absent that was there all the
//! time. Entries that are removed are not claimed: their key is absent then, at some time.
//!
//! # Invariants
//!
//! - **L1** The words of an entry that has ended stay ended.
//! - **L2** A node that is replaced by another of its key has ended, or was claimed, before that.
//! - **L3** A node in the table of a shard that was [told to expire](crate::shard::state::State::extend) has a `Life`: behind it, if its
//!   [`kind`](crate::node::Kind) says so; else in the shard's [`Early`](crate::shard::early::Early).

use crate::reap::Cause;
use crate::sync::AtomicU64;
use crate::sync::atomic::Ordering::Relaxed;
use crate::util::clock::{Stamp, Time};
use std::sync::atomic::AtomicU32;

/// What an entry that can expire has beside its node.
pub(crate) struct Life {
    /// What the stamp of the node lacks of the time of its insertion.
    rest: u32,
    /// The end of the due time of its token (W1). Under the shard lock. (Of std's type: it is the lock that orders it.)
    armed: AtomicU32,
    /// The first time at which it has expired by age, or `ENDED`, or `CLAIMED`.
    deadline: AtomicU64,
    /// When it was used last, to a sixteenth of the limit, or `IDLE`, or `CLAIMED`.
    used: AtomicU64,
}

/// A deadline of an entry that has ended: always past.
const ENDED: u64 = 0;
/// The last use of an entry that has ended because it was idle.
const IDLE: u64 = u64::MAX - 1;
/// A deadline that never comes, and a last use that is never long ago.
const CLAIMED: u64 = u64::MAX;

/// The limits that a look at an entry goes by.
#[derive(Clone, Copy)]
pub(crate) struct Idleness {
    /// Reads that come later than this after the last use are noted, in registries whose reads note the time.
    pub(crate) note: Time,
    /// An entry has expired when it was not used for longer than this. `NEVER`: there is no limit.
    pub(crate) limit: Time,
    /// All count as used then.
    pub(crate) floor: Time,
}

/// What a look at an entry has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// It lives, until the given time at least, unless that is changed.
    Lives(Time),
    /// It has ended.
    Ended(Cause),
    /// It is past its deadline, which was this one, and has not ended.
    Past(Deadline),
    /// It was not used for too long, since this use, and has not ended.
    Idle(LastUse),
}

/// A deadline as it was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Deadline(u64);

/// A last use as it was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LastUse(u64);

impl Life {
    pub(crate) fn new(inserted: Time, deadline: Time, used: Time) -> Self {
        Life {
            rest: Stamp::rest(inserted),
            armed: AtomicU32::new(0),
            deadline: AtomicU64::new(deadline.word()),
            used: AtomicU64::new(used.word()),
        }
    }

    /// Of a node that was inserted before its registry was told to expire: what its stamp lacks is not known. (That it was not used is
    /// no matter: see [`Idleness::floor`].)
    pub(crate) fn early() -> Self {
        Life { rest: u32::MAX, ..Life::new(Time::ZERO, Time::NEVER, Time::ZERO) }
    }

    /// When it was inserted, given the stamp of its node. No earlier than it was.
    #[inline]
    pub(crate) fn inserted(&self, stamp: Stamp) -> Time {
        stamp.with_rest(self.rest)
    }

    /// Whether it is there. If it is `Past` or `Idle`, it is for the caller to end it, or to prolong it.
    #[inline]
    pub(crate) fn standing(&self, now: Time, idleness: Idleness) -> Standing {
        // ORDERING: Relaxed, both: each word by itself decides (L1), and what a call has reported absent, a later one finds
        // ended, by the coherence of that word. A deadline that is ahead was there no later than the last use was loaded.
        let deadline = self.deadline.load(Relaxed);
        if deadline == ENDED {
            return Standing::Ended(Cause::Expired);
        }
        if now.word() >= deadline {
            return Standing::Past(Deadline(deadline));
        }
        if idleness.limit == Time::NEVER || deadline == CLAIMED && self.is_claimed() {
            return Standing::Lives(Time::of_word(deadline));
        }
        // ORDERING: Relaxed, as before.
        match self.used.load(Relaxed) {
            IDLE => Standing::Ended(Cause::Idle),
            CLAIMED => Standing::Lives(Time::of_word(deadline)),
            used => {
                let end = Time::of_word(used).max(idleness.floor).end_of(idleness.limit);
                if now < end {
                    Standing::Lives(end.min(Time::of_word(deadline)))
                } else {
                    Standing::Idle(LastUse(used))
                }
            }
        }
    }

    fn is_claimed(&self) -> bool {
        // ORDERING: Relaxed, as in `standing`.
        self.used.load(Relaxed) == CLAIMED
    }

    /// Notes a use, if that is worth it.
    #[inline]
    pub(crate) fn note_use(&self, now: Time, idleness: Idleness) {
        if idleness.limit == Time::NEVER {
            return;
        }
        // ORDERING: Relaxed, both, as in `standing`.
        let used = self.used.load(Relaxed);
        if used < IDLE && now >= Time::of_word(used).end_of(idleness.note) {
            // If it fails, another use was noted at the same time, or the entry has ended, or is claimed.
            self.move_use(LastUse(used), now);
        }
    }

    /// Has it count as used `now`, if it was not used since `old`.
    pub(crate) fn move_use(&self, old: LastUse, now: Time) -> bool {
        // ORDERING: Relaxed, as in `standing`.
        self.used.compare_exchange(old.0, now.word(), Relaxed, Relaxed).is_ok()
    }

    /// Ends it, if it was not used since `old`. False if it was: then its standing is to be asked for again.
    pub(crate) fn end_idle(&self, old: LastUse) -> bool {
        // ORDERING: Relaxed, as in `standing`.
        self.used.compare_exchange(old.0, IDLE, Relaxed, Relaxed).is_ok()
    }

    /// When it was used last.
    pub(crate) fn last_use(&self, idleness: Idleness) -> Time {
        // ORDERING: Relaxed, a hint.
        match self.used.load(Relaxed) {
            IDLE => idleness.floor,
            used => Time::of_word(used).max(idleness.floor),
        }
    }

    /// Ends it, if its deadline is still `past`. False if that has changed: then its standing is to be asked for again.
    pub(crate) fn end(&self, past: Deadline) -> bool {
        self.change(past, ENDED)
    }

    /// Gives it another deadline, if that is still `old`.
    pub(crate) fn move_deadline(&self, old: Deadline, new: Time) -> bool {
        self.change(old, new.word())
    }

    fn change(&self, old: Deadline, new: u64) -> bool {
        // ORDERING: Relaxed, as in `standing`.
        self.deadline.compare_exchange(old.0, new, Relaxed, Relaxed).is_ok()
    }

    /// Its deadline.
    pub(crate) fn deadline(&self) -> Time {
        // ORDERING: Relaxed, as in `standing`.
        Time::of_word(self.deadline.load(Relaxed))
    }

    /// Gives it another deadline, unless it has ended or is claimed. Under the shard lock.
    pub(crate) fn set_deadline(&self, new: Time) {
        loop {
            // ORDERING: Relaxed, as in `standing`.
            let old = self.deadline.load(Relaxed);
            if old == ENDED || self.is_claimed() || self.change(Deadline(old), new.word()) {
                return;
            }
        }
    }

    /// When it is to be looked at, as far as is known: the next time at which it may have expired.
    pub(crate) fn due(&self, idleness: Idleness) -> Time {
        // ORDERING: Relaxed, both, as in `standing`.
        let deadline = Time::of_word(self.deadline.load(Relaxed));
        if idleness.limit == Time::NEVER {
            return deadline;
        }
        match self.used.load(Relaxed) {
            IDLE => Time::ZERO,
            used => deadline.min(Time::of_word(used).max(idleness.floor).end_of(idleness.limit)),
        }
    }

    /// Claims it for its replacement, under the shard lock (L2). `Some` if it has ended before.
    pub(crate) fn claim(&self) -> Option<Cause> {
        // The last use first: once both are claimed, nothing ends it. One that has ended is left as it is (L1).
        let claim = |word: &AtomicU64, ended: u64| loop {
            // ORDERING: Relaxed, both, as in `standing`.
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

    /// Takes it for an entry that is looked at by the token of this due time (W1). Under the shard lock.
    pub(crate) fn arm(&self, due: Time) {
        // ORDERING: Relaxed, under the lock.
        self.armed.store(due.word() as u32, Relaxed);
    }

    /// So that no token of this due time is its own any more. Under the shard lock.
    pub(crate) fn disarm(&self, due: Time) {
        // ORDERING: Relaxed, under the lock.
        self.armed.store(!due.word() as u32, Relaxed);
    }

    /// Whether a token of this due time is its own. Under the shard lock.
    pub(crate) fn is_armed_by(&self, due: Time) -> bool {
        // ORDERING: Relaxed, under the lock.
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
    fn what_has_ended_stays_ended() {
        let life = Life::new(at(5), at(10), at(5));
        assert_eq!(life.standing(at(9), NONE), Standing::Lives(at(10)));
        let Standing::Past(past) = life.standing(at(10), NONE) else { panic!() };
        assert!(life.move_deadline(past, at(20)) && !life.end(past));
        assert_eq!(life.standing(at(19), NONE), Standing::Lives(at(20)));
        let Standing::Past(past) = life.standing(at(20), NONE) else { panic!() };
        assert!(life.end(past));
        life.set_deadline(at(100));
        assert_eq!(life.standing(at(0), NONE), Standing::Ended(Cause::Expired));
        assert_eq!(life.claim(), Some(Cause::Expired));
    }

    #[test]
    fn what_is_claimed_never_ends() {
        let idleness = Idleness { note: at(1), limit: at(16), floor: Time::ZERO };
        let life = Life::new(at(5), at(10), at(5));
        let Standing::Past(past) = life.standing(at(10), idleness) else { panic!() };
        assert_eq!(life.claim(), None);
        assert!(!life.end(past));
        life.set_deadline(at(7));
        assert_eq!(life.standing(at(1 << 60), idleness), Standing::Lives(Time::NEVER));
    }

    #[test]
    fn a_use_prolongs_and_idleness_ends() {
        let idleness = Idleness { note: at(2), limit: at(32), floor: Time::ZERO };
        let life = Life::new(at(0), Time::NEVER, at(0));
        life.note_use(at(2), idleness);
        assert_eq!(life.due(idleness), at(33), "not worth it");
        life.note_use(at(3), idleness);
        assert_eq!(life.standing(at(35), idleness), Standing::Lives(at(36)));
        let Standing::Idle(last) = life.standing(at(36), idleness) else { panic!() };
        assert!(life.end_idle(last));
        life.note_use(at(36), idleness);
        assert_eq!(life.standing(at(0), idleness), Standing::Ended(Cause::Idle));
        assert_eq!((life.due(idleness), life.claim()), (Time::ZERO, Some(Cause::Idle)));
    }
}
