//! What is asked of the reapers together, and what came of it.

use crate::reap::Reaped;

/// The priority of the first round: a 4096th of the entries, times four by the seeks. (The kernel's `DEF_PRIORITY`.)
pub(super) const FIRST: u32 = 12;

/// What the reapers are to do together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Demand {
    /// To remove entries that count for so many bytes: in rounds from priority 12 down to 0, until they have.
    Bytes(u64),
    /// One round of this priority, from 12, the mildest, to 0, which scans everything. Higher ones count as 12.
    Round(u32),
}

/// What a driver has done about a [`Demand`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Relieved {
    /// What the reapers have done, all together. (`stopped`: one of them has.)
    pub reaped: Reaped,
    /// Rounds through the reapers.
    pub rounds: u32,
    /// The demand is met. (One for a round is, when that is done.)
    pub met: bool,
    /// Calls of reapers that panicked.
    pub panics: u64,
}

impl Relieved {
    pub(super) fn add(&mut self, reaped: Reaped) {
        let stopped = self.reaped.stopped | reaped.stopped;
        self.reaped += reaped;
        self.reaped.stopped = stopped;
    }

    /// Both, one after the other.
    pub(super) fn then(mut self, next: Relieved) -> Relieved {
        self.add(next.reaped);
        self.rounds += next.rounds;
        self.met &= next.met;
        self.panics += next.panics;
        self
    }
}
