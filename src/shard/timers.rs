//! The timers of a shard: when to look at entries because their time may have come.
//!
//! The timers are a heap of tokens of twelve bytes, one for each entry that can expire. A token holds a due time
//! and half of the hash of its entry, by which the entry is found in the table.
//!
//! A token is *stale* if its entry has left or has a newer token. Stale tokens stay in the heap until they are
//! due. If there are too many, a *purge* takes all tokens out of the heap. Each write then examines a few of
//! them, and puts back the tokens that are not stale.
//!
//! # Invariants
//!
//! - **W1** An entry that can expire has a token that is due no later than the entry expires, and whose due time
//!   ends in the 32 bits by which the entry's [`Life`](crate::node::life::Life) is armed. Other tokens may end in
//!   the same bits, which does no harm. Exceptions: while a reaper has taken the entry
//!   ([`DueEntries`](crate::shard::expiry::DueEntries)), it has no token. If the reaper had to keep an entry that
//!   is due, the token is due at the next attempt.

use crate::util::clock::Time;
use crate::util::hasher::RandomState;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};

/// A purge begins when the heap holds more than twice as many tokens as there are entries, and this many more.
const SPARE: usize = 64;

/// A due time and the half of a hash that a node keeps. Ordered by due time. Three words of four bytes, so that
/// the size is twelve bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Token {
    due_high: u32,
    due_low: u32,
    hash: u32,
}

impl Token {
    /// Creates a token.
    fn new(due: Time, hash: u32) -> Self {
        Token { due_high: (due.word() >> 32) as u32, due_low: due.word() as u32, hash }
    }

    /// Returns the due time.
    pub(crate) fn due(self) -> Time {
        Time::of_word(u64::from(self.due_high) << 32 | u64::from(self.due_low))
    }

    /// Returns the low half of the hash.
    pub(crate) fn hash(self) -> u32 {
        self.hash
    }
}

/// The tokens of a shard. The shard lock guards them.
#[derive(Default)]
pub(crate) struct Timers {
    /// The tokens that are not candidates of a purge. The earliest one comes first.
    heap: BinaryHeap<Reverse<Token>>,
    /// The candidates of a purge: tokens that may be stale. They return to the heap if they are not.
    next_candidate: Vec<Reverse<Token>>,
    /// The tokens that the current purge has put back. A second copy of one of these is not needed.
    trusted: HashSet<Token, RandomState>,
}

impl Timers {
    /// Adds a token.
    pub(crate) fn push(&mut self, due: Time, hash: u32) {
        self.heap.push(Reverse(Token::new(due, hash)));
    }

    /// Returns when there is something to do: when the first token is due, or `Time::ZERO` while a purge has
    /// candidates.
    pub(crate) fn next_due(&self) -> Time {
        match self.heap.peek() {
            _ if !self.next_candidate.is_empty() => Time::ZERO,
            Some(Reverse(token)) => token.due(),
            None => Time::NEVER,
        }
    }

    /// Takes a token that is due by `now` out of the heap. Candidates of a purge are not considered.
    pub(crate) fn pop(&mut self, now: Time) -> Option<Token> {
        let Reverse(token) = *self.heap.peek()?;
        if token.due() > now {
            return None;
        }
        self.heap.pop();
        if self.heap.capacity() > 4 * self.heap.len() + 4 * SPARE {
            self.heap.shrink_to(2 * self.heap.len());
        }
        Some(token)
    }

    /// Returns whether a purge should begin: whether there are too many tokens for `live` entries.
    pub(crate) fn is_crowded(&self, live: usize) -> bool {
        self.next_candidate.is_empty() && self.heap.len() > 2 * live + SPARE
    }

    /// Begins a purge: makes all tokens candidates.
    pub(crate) fn begin_purge(&mut self) {
        debug_assert!(self.next_candidate.is_empty());
        self.next_candidate = std::mem::take(&mut self.heap).into_vec();
    }

    /// Takes a candidate of the purge. The caller puts it back with [`keep`](Self::keep) unless it is stale. Ends
    /// the purge if there is none left.
    pub(crate) fn next_candidate(&mut self) -> Option<Token> {
        let Some(Reverse(token)) = self.next_candidate.pop() else {
            if self.trusted.capacity() > 0 {
                self.next_candidate = Vec::new();
                self.trusted = HashSet::default();
            }
            return None;
        };
        Some(token)
    }

    /// Puts a candidate back into the heap, unless the purge has put back an equal token.
    pub(crate) fn keep(&mut self, token: Token) {
        if self.trusted.insert(token) {
            self.heap.push(Reverse(token));
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.heap.len() + self.next_candidate.len()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn at(word: u64) -> Time {
        Time::of_word(word)
    }

    #[test]
    fn tokens_are_taken_when_they_are_due_and_in_order() {
        assert_eq!(size_of::<Token>(), 12);
        let mut timers = Timers::default();
        for due in [7, 3, 1 << 39, 5, 3] {
            timers.push(at(due), due as u32);
        }
        assert_eq!((timers.next_due(), timers.pop(at(2)).is_none()), (at(3), true));
        let come: Vec<_> = std::iter::from_fn(|| timers.pop(at(6))).map(|token| (token.due(), token.hash())).collect();
        assert_eq!(come, [(at(3), 3), (at(3), 3), (at(5), 5)]);
        assert_eq!(
            (timers.pop(at(7)).map(Token::due), timers.pop(Time::NEVER).map(Token::due)),
            (Some(at(7)), Some(at(1 << 39)))
        );
        assert_eq!((timers.next_due(), timers.len()), (Time::NEVER, 0));
    }

    #[test]
    fn during_a_purge_all_candidates_are_due_at_once() {
        let mut timers = Timers::default();
        (0..1000).for_each(|due| timers.push(at(100 + due), 0));
        assert!(timers.is_crowded(400) && !timers.is_crowded(500));
        timers.begin_purge();
        assert!(!timers.is_crowded(400) && timers.pop(Time::NEVER).is_none());
        for left in (0..1000).rev() {
            assert_eq!(timers.next_due(), Time::ZERO);
            let token = timers.next_candidate().unwrap();
            if left % 2 == 0 {
                timers.keep(token);
            }
        }
        assert!(timers.next_candidate().is_none());
        assert_eq!((timers.len(), timers.next_due() >= at(100)), (500, true));
        while timers.pop(Time::NEVER).is_some() {}
        assert!(timers.heap.capacity() <= 4 * SPARE, "the heap did not shrink");
    }
}
