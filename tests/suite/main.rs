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
mod collections;
mod counter;
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
mod hashed;
mod huge_weights;
mod listeners;
mod local;
mod locks;
mod lying_keys;
mod owned_reader;
mod panics;
mod percpu_ref;
mod reads_in_eq;
mod reapers;
mod reentry;
mod registrations;
mod resize;
mod resize_overflow;
mod set;
mod stalls;
mod stress;
mod sweeps;
mod traits;
mod types;
mod writes;
