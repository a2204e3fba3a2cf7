//! The tests that need no process of their own are in this binary: `cargo test --test suite SUBJECT::`.

#[path = "../common/mod.rs"]
mod common;

mod accounting;
mod backlog;
mod barriers;
mod bookkeeping;
mod bounds;
mod cell;
mod chains;
mod drops;
mod durations;
mod emptying;
mod executors;
mod expiry;
mod expiry_panics;
mod expiry_reads;
mod expiry_times;
mod forgotten;
mod grace;
mod handles;
mod huge_weights;
mod listeners;
mod local;
mod lock_waits;
mod locks;
mod lying_keys;
mod panics;
mod reads_in_eq;
mod reapers;
mod reentry;
mod resize;
mod resize_overflow;
mod stalls;
mod stress;
mod sweeps;
mod traits;
mod types;
mod writes;
