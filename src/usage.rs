//! When an entry was used last, as far as somebody wants to know: one byte of it, and eras.
//!
//! Readers read no clock. They compare the byte with that of the present *era*, which whoever reads a clock anyway
//! (writers, reapers) moves on every now and then, and store it if it differs. So an entry is written once an era at the
//! most. Where nobody has wanted to know yet, the byte of the present era has no mark, and readers look at no entry's:
//! all count as used.
//!
//! ```text
//!  bit 7 .. 1    0
//!  ┌──────────┬──────┐
//!  │   era    │ mark │
//!  └──────────┴──────┘
//! ```
//!
//! The mark goes with the era, and is taken away by whoever looks for something to evict: second chance. None of this
//! orders anything, and nothing but the choice of what to reap depends on it: it is of std's types, which the model
//! checker does not see.

use crate::clock::Tick;
use std::sync::Mutex;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32};

const MARK: u8 = 1;
/// Eras that are told apart.
const ERAS: usize = 128;

/// The byte of an entry.
pub(crate) struct Used(AtomicU8);

impl Used {
    #[inline]
    pub(crate) fn new(byte: u8) -> Self {
        Used(AtomicU8::new(byte))
    }

    pub(crate) fn is_marked(&self) -> bool {
        // ORDERING: Relaxed, a hint.
        self.0.load(Relaxed) & MARK != 0
    }

    /// Takes the mark away. True if there was one. For whoever has the registry [watched](Eras::watch).
    pub(crate) fn clear(&self) -> bool {
        // At once, lest the era of a use at this very moment be lost. (Its mark may be.)
        // ORDERING: Relaxed, a hint.
        self.is_marked() && self.0.fetch_and(!MARK, Relaxed) & MARK != 0
    }

    fn era(&self) -> usize {
        // ORDERING: Relaxed, a number: when the era ended is acquired by `last_use`.
        usize::from(self.0.load(Relaxed) >> 1)
    }
}

/// The eras of a registry.
pub(crate) struct Eras {
    /// The byte of the present one: with the mark, if somebody wants to know of uses.
    present: AtomicU8,
    /// Whether entries begin without the mark that their first use leaves: so they do where there is a bound.
    unmarked: AtomicBool,
    /// How long an era is, in ticks. 0: there is but one.
    span: AtomicU32,
    began: AtomicU32,
    /// When each ended that did. Of those that bear one number, the last.
    ended: Box<[AtomicU32; ERAS]>,
    advancing: Mutex<()>,
}

impl Eras {
    pub(crate) fn new() -> Self {
        Eras {
            present: AtomicU8::new(0),
            unmarked: AtomicBool::new(false),
            span: AtomicU32::new(0),
            began: AtomicU32::new(0),
            ended: Box::new([const { AtomicU32::new(0) }; ERAS]),
            advancing: Mutex::new(()),
        }
    }

    /// For readers of an entry, if anybody wants to know: a store at its first use in an era, or since the last look, and
    /// none at those that follow.
    #[inline]
    pub(crate) fn touch(&self, used: &Used) {
        // ORDERING: Relaxed, all three: an old era counts as an earlier use, and the byte has no partner but hints.
        let present = self.present.load(Relaxed);
        if present & MARK != 0 && used.0.load(Relaxed) != present {
            used.0.store(present, Relaxed);
        }
    }

    /// Has readers take note of uses from now on.
    pub(crate) fn watch(&self) {
        // ORDERING: Relaxed, a flag: readers take note when they see it, and those before count as used.
        if self.present.load(Relaxed) & MARK == 0 {
            self.present.fetch_or(MARK, Relaxed);
        }
    }

    /// Sets whether entries begin without the mark, from now on.
    pub(crate) fn set_unmarked(&self, unmarked: bool) {
        if unmarked {
            self.watch();
        }
        // ORDERING: Relaxed, a setting: an entry that is inserted meanwhile begins in either way.
        self.unmarked.store(unmarked, Relaxed);
    }

    /// The byte of an entry that nobody has used yet.
    #[inline]
    pub(crate) fn fresh(&self) -> u8 {
        // ORDERING: Relaxed, as in `touch` and `set_unmarked`.
        (self.present.load(Relaxed) | MARK) ^ u8::from(self.unmarked.load(Relaxed))
    }

    /// Has all that were ever used count as used now: nobody has taken note of it for a while.
    pub(crate) fn forget(&self, now: Tick) {
        let _advancing = self.advancing.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // ORDERING: Relaxed, released by `begin`.
        self.ended.iter().for_each(|ended| ended.store(now.0, Relaxed));
        self.begin(now);
    }

    /// Begins an era, and ends the one before.
    fn begin(&self, now: Tick) {
        // ORDERING: Relaxed, these three: only who holds `advancing` writes them, but for the mark; released below.
        let present = self.present.load(Relaxed);
        self.ended[usize::from(present >> 1)].store(now.0, Relaxed);
        self.began.store(now.0, Relaxed);
        // ORDERING: Release, pairs with the Acquire in `last_use`: who sees that the era is over sees when it ended. (An
        // addition: another thread may begin to watch.)
        self.present.fetch_add(MARK + 1, Release);
    }

    /// Sets how long an era is to be; `None` for no end.
    pub(crate) fn set_span(&self, span: Option<u32>) {
        if span.is_some() {
            self.watch();
        }
        // ORDERING: Relaxed, a setting: an era that is under way may end by the old one.
        self.span.store(span.map_or(0, |span| span.max(1)), Relaxed);
    }

    /// Ends the present era, if it is over.
    #[inline]
    pub(crate) fn advance(&self, now: Tick) {
        // ORDERING: Relaxed, both: whether it is time is asked again in `end`, under the lock.
        let span = self.span.load(Relaxed);
        if span != 0 && now.since(Tick(self.began.load(Relaxed))) >= span {
            self.end(now, span);
        }
    }

    #[cold]
    fn end(&self, now: Tick, span: u32) {
        // Whoever finds somebody at it leaves it to him.
        let Ok(_advancing) = self.advancing.try_lock() else { return };
        // ORDERING: Relaxed, written under the lock alone.
        if now.since(Tick(self.began.load(Relaxed))) >= span {
            self.begin(now);
        }
    }

    /// The latest time at which an entry can have been used, if it is not used at this moment. (If it was used so long ago
    /// that its era bears the number of a later one, that.)
    pub(crate) fn last_use(&self, used: &Used, now: Tick) -> Tick {
        let era = used.era();
        // ORDERING: Acquire, pairs with the Release in `begin`.
        if era == usize::from(self.present.load(Acquire) >> 1) { now } else { Tick(self.ended[era].load(Relaxed)) }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_last_use_is_known_to_an_era() {
        let eras = Eras::new();
        eras.set_span(Some(10));
        eras.set_unmarked(true);
        let used = Used::new(eras.fresh());
        for tick in 0..5000 {
            eras.advance(Tick(tick));
            if tick % 500 == 0 {
                eras.touch(&used);
            }
            let since = Tick(tick).since(eras.last_use(&used, Tick(tick)));
            let really = tick % 500;
            assert!(since <= really && really <= since + 10, "{tick}: {since}");
        }
    }

    #[test]
    fn a_mark_lasts_until_it_is_cleared_and_leaves_the_era() {
        let eras = Eras::new();
        let used = Used::new(0);
        eras.touch(&used);
        assert!(!used.is_marked(), "nobody wants to know");
        eras.set_span(Some(1));
        assert!(!used.is_marked() && !used.clear());
        eras.touch(&used);
        eras.advance(Tick(7));
        assert!(used.is_marked() && used.clear() && !used.is_marked() && !used.clear());
        assert_eq!(eras.last_use(&used, Tick(9)), Tick(7));
        eras.touch(&used);
        assert_eq!(eras.last_use(&used, Tick(9)), Tick(9));
    }
}
