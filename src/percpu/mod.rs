//! Counts that threads keep apart: each thread writes its own cache lines, and a reader adds up.
//!
//! - `blocks`: the memory, one block of slots for each thread
//! - `counter`: a counter

mod blocks;
mod counter;

pub(crate) use blocks::Column;

pub use counter::Counter;
