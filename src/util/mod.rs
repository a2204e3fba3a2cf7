//! What the rest of the crate stands on, and what knows nothing of it: time, panics, threads, the processor.

pub(crate) mod check;
pub(crate) mod clock;
pub(crate) mod panics;
pub(crate) mod prefetch;
pub(crate) mod reentrancy;
