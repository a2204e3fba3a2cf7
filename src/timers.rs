//! When the entries of a shard are to be looked at because their time may have come.
//!
//! A heap of tokens of eight bytes, one for each entry that can expire. A token does not say which entry, only its hash:
//! it is found again in the table. A token that finds none is stale, its entry has left; when there are many of those,
//! the heap is gone through, a few tokens with each write.
//!
//! # Invariants
//!
//! - **W1** An entry that can expire has a token that is due no later than the entry expires, and whose due time ends in
//!   the six bits that the entry has as its [`Armed`]. (There may be more that end alike; they do no harm.)

use ahash::RandomState;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::Relaxed;

/// A time in ticks of 2^24 ns that does not wrap: up to 584 years from the clock's origin.
pub(crate) type Due = u64;

/// Never.
pub(crate) const NEVER: Due = u64::MAX;

/// Bits of the hash that are in a token.
const HASH_BITS: u32 = 24;
/// They alone choose the homes that a token stands for.
pub(crate) const HASH_MASK: usize = (1 << HASH_BITS) - 1;

/// Tokens that are more than twice the entries are too many, and more than these.
const SPARE: usize = 64;

/// When an entry is to be looked at, and the settings by which that was told.
#[derive(Clone, Copy)]
pub(crate) struct Timer {
    pub(crate) due: Due,
    pub(crate) generation: u32,
}

/// A due time, and the low bits of a hash. In the order of the times.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Token(u64);

impl Token {
    fn new(due: Due, hash: u32) -> Self {
        // What is due later than the last time there is, is never due.
        Token(due.min((1 << (u64::BITS - HASH_BITS)) - 1) << HASH_BITS | u64::from(hash) & HASH_MASK as u64)
    }

    pub(crate) fn due(self) -> Due {
        self.0 >> HASH_BITS
    }

    /// The masked hash of the entry.
    pub(crate) fn hash(self) -> usize {
        self.0 as usize & HASH_MASK
    }
}

/// One byte of a node, in two fields:
///
/// ```text
///  bit 7    6  5 .. 0
///  ┌─────────┬────────────────────────────────────────┐
///  │  class  │ the end of the due time of its token   │
///  └─────────┴────────────────────────────────────────┘
/// ```
///
/// The class of its slot never changes (N4). The rest is written under the shard lock, or before the entry is published (W1).
/// (Of std's type: it is the lock that orders it.)
pub(crate) struct Armed(AtomicU8);

/// Bits of the due time that are in an [`Armed`].
const ARMED_BITS: u32 = 6;
const ARMED_MASK: u8 = (1 << ARMED_BITS) - 1;

impl Armed {
    #[inline]
    pub(crate) fn new(class: u8, due: Due) -> Self {
        Armed(AtomicU8::new(class << ARMED_BITS | due as u8 & ARMED_MASK))
    }

    /// How the slab that the node lies in is found.
    #[inline]
    pub(crate) fn class(&self) -> u8 {
        // ORDERING: Relaxed, as these bits never change.
        self.0.load(Relaxed) >> ARMED_BITS
    }

    pub(crate) fn set(&self, due: Due) {
        // ORDERING: Relaxed, under the lock.
        self.0.store(self.0.load(Relaxed) & !ARMED_MASK | due as u8 & ARMED_MASK, Relaxed);
    }

    /// Changes it so that no token of this due time matches any more.
    pub(crate) fn disarm(&self, due: Due) {
        self.set(due.wrapping_add(1 << (ARMED_BITS - 1)));
    }

    pub(crate) fn is_by(&self, token: Token) -> bool {
        // ORDERING: Relaxed, under the lock.
        (self.0.load(Relaxed) ^ token.due() as u8) & ARMED_MASK == 0
    }
}

/// The tokens of a shard. Under its lock.
#[derive(Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<Token>>,
    /// Tokens of which it is not known whether they are stale, and that are on their way back into the heap if not.
    doubtful: Vec<Reverse<Token>>,
    /// Those that are back, for as long as there are others: one of a kind is enough.
    trusted: HashSet<Token, RandomState>,
}

impl Timers {
    pub(crate) fn push(&mut self, due: Due, hash: u32) {
        self.heap.push(Reverse(Token::new(due, hash)));
    }

    /// When there is something to do: when the first token is due, or now if any are in doubt.
    pub(crate) fn next_due(&self) -> Due {
        match self.heap.peek() {
            _ if !self.doubtful.is_empty() => 0,
            Some(Reverse(token)) => token.due(),
            None => NEVER,
        }
    }

    /// The next token that is due, and is in no doubt.
    pub(crate) fn pop(&mut self, now: Due) -> Option<Token> {
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

    /// Whether there are too many tokens for so many entries.
    pub(crate) fn is_crowded(&self, live: usize) -> bool {
        self.doubtful.is_empty() && self.heap.len() > 2 * live + SPARE
    }

    /// Puts all tokens in doubt.
    pub(crate) fn doubt_all(&mut self) {
        debug_assert!(self.doubtful.is_empty());
        self.doubtful = std::mem::take(&mut self.heap).into_vec();
    }

    /// A token that is in doubt, which is to be put back with [`trust`](Self::trust) unless it is stale.
    pub(crate) fn doubtful(&mut self) -> Option<Token> {
        let Some(Reverse(token)) = self.doubtful.pop() else {
            if self.trusted.capacity() > 0 {
                self.doubtful = Vec::new();
                self.trusted = HashSet::default();
            }
            return None;
        };
        Some(token)
    }

    pub(crate) fn trust(&mut self, token: Token) {
        if self.trusted.insert(token) {
            self.heap.push(Reverse(token));
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.heap.len() + self.doubtful.len()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_when_they_are_due_and_in_order() {
        let mut timers = Timers::default();
        for due in [7, 3, 1 << 39, 5, 3] {
            timers.push(due, due as u32);
        }
        assert_eq!((timers.next_due(), timers.pop(2).is_none()), (3, true));
        let come: Vec<_> = std::iter::from_fn(|| timers.pop(6)).map(|token| (token.due(), token.hash())).collect();
        assert_eq!(come, [(3, 3), (3, 3), (5, 5)]);
        assert_eq!((timers.pop(7).map(Token::due), timers.pop(NEVER).map(Token::due)), (Some(7), Some(1 << 39)));
        assert_eq!((timers.next_due(), timers.len()), (NEVER, 0));
    }

    #[test]
    fn tokens_in_doubt_are_due_now_until_none_is_left() {
        let mut timers = Timers::default();
        (0..1000).for_each(|due| timers.push(100 + due, 0));
        assert!(timers.is_crowded(400) && !timers.is_crowded(500));
        timers.doubt_all();
        assert!(!timers.is_crowded(400) && timers.pop(NEVER).is_none());
        for left in (0..1000).rev() {
            assert_eq!(timers.next_due(), 0);
            let token = timers.doubtful().unwrap();
            if left % 2 == 0 {
                timers.trust(token);
            }
        }
        assert!(timers.doubtful().is_none());
        assert_eq!((timers.len(), timers.next_due() >= 100), (500, true));
        while timers.pop(NEVER).is_some() {}
        assert!(timers.heap.capacity() <= 4 * SPARE, "memory follows");
    }

    #[test]
    fn a_token_tells_its_entry_by_what_its_due_time_ends_in() {
        let (token, armed) = (Token::new(0x1_2345, 0xabcd_ef01), Armed::new(2, 0x1_2345));
        assert_eq!((token.hash(), token.due(), armed.is_by(token)), (0xcd_ef01, 0x1_2345, true));
        armed.set(0x1_2346);
        assert!(!armed.is_by(token));
        armed.set(token.due());
        armed.disarm(token.due());
        assert!(!armed.is_by(token) && armed.class() == 2);
    }
}
