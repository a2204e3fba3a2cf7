//! Utilities that depend on no other module of the crate than `sync`: time, panics, re-entry, debug checks,
//! prefetching.

pub(crate) mod check;
pub(crate) mod clock;
pub(crate) mod hasher;
pub(crate) mod panics;
pub(crate) mod prefetch;
pub(crate) mod reentrancy;
