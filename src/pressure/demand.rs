//! What the driver demands of all reapers together, and the result.

use crate::reap::Reaped;

/// The priority of the first round, which scans a 4096th of the entries, times 4 / `seeks`. (The kernel's
/// `DEF_PRIORITY`.)
pub(super) const FIRST: u32 = 12;

/// What the reapers have to do together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Demand {
    /// Remove entries that count for so many bytes, in rounds from priority 12 down to 0.
    Bytes(u64),
    /// Run one round of this priority, from 12 (the mildest) to 0 (which scans everything). Larger values count
    /// as 12.
    Round(u32),
}

/// The result of a [`Demand`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Relieved {
    /// The sum of what the reapers did. `stopped` is set if one of them stopped.
    pub reaped: Reaped,
    /// Rounds run.
    pub rounds: u32,
    /// Whether the demand is met. A demand for a round is met when the round is done.
    pub met: bool,
    /// Calls to reapers that panicked.
    pub panics: u64,
}

impl Relieved {
    pub(super) fn add(&mut self, reaped: Reaped) {
        let stopped = self.reaped.stopped | reaped.stopped;
        self.reaped += reaped;
        self.reaped.stopped = stopped;
    }

    /// Returns the sum of both results. It is met if both are.
    pub(super) fn then(mut self, next: Relieved) -> Relieved {
        self.add(next.reaped);
        self.rounds += next.rounds;
        self.met &= next.met;
        self.panics += next.panics;
        self
    }
}
