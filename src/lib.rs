//! A registry of shared, reference-counted objects with lock-free reads, for programs that look things up far more often
//! than they change them: connection tracking, path and name caches, tables of sessions, actors and devices, namespaces
//! of ids.
//!
//! It is the pattern of the Linux kernel's nf_conntrack, dcache and IPC ids, as a library: readers walk an RCU-protected
//! hash table without locks, and borrow what they find or pin it with a reference count; writers take the lock of one
//! shard, unlink, and put; what nobody refers to any more is destroyed after a grace period, off the readers' time.
//!
//! ```
//! use epoch_registry::Registry;
//! use std::sync::atomic::{AtomicU64, Ordering};
//!
//! let flows: Registry<(u32, u16), AtomicU64> = Registry::new();
//!
//! // Write: under the lock of one shard.
//! let flow = flows.get_or_insert_with((0x7f00_0001, 80), || AtomicU64::new(0));
//! flow.fetch_add(1500, Ordering::Relaxed);
//!
//! // Read: a session's reads take no lock and no fence. Borrow ...
//! let mut reader = flows.reader();
//! if let Some(flow) = reader.get(&(0x7f00_0001, 80)) {
//!     flow.fetch_add(40, Ordering::Relaxed);
//! }
//! // ... or take a handle, which outlives the read, the entry's removal, and the registry.
//! let kept = reader.lookup(&(0x7f00_0001, 80)).unwrap();
//!
//! flows.remove(&(0x7f00_0001, 80));
//! assert_eq!(kept.load(Ordering::Relaxed), 1540);
//! ```
//!
//! # Which way to read
//!
//! | | borrows ([`Entry`]) | owns ([`Handle`]) | costs | mind |
//! |---|---|---|---|---|
//! | [`Registry::reader`] | `reader.get` | `reader.lookup` | no fence | take it [`offline`](Reader::offline) when it blocks |
//! | [`Registry::pin`] | `guard.get` | `guard.lookup` | a fence for the pin, none for its reads | drop it soon |
//! | [`Registry::with`], [`Registry::lookup`] | for the time of a closure | once | a fence | |
//! | [`View::get_batch`], [`View::get_many`] | many at once | [`View::lookup_batch`] | overlaps their cache misses | |
//!
//! # A lookup
//!
//! ```text
//!  key ──hash──┐
//!              │ bits 31..   ┌──────┐  the shard's table
//!              ├────────────▶│ root │─────────┐
//!              │             └──────┘         ▼
//!              │ bits 0..        ┌─────────┬──────┬──────┬── ─ ─ ─ ──┬──────┐  a bucket:
//!              ├────────────────▶│ control │ slot │ slot │           │ slot │  one cache line
//!              │ bits 40..46     └────┬────┴──────┴──┬───┴── ─ ─ ─ ──┴──────┘
//!              └── compared with all ─┘              │ the one that matched
//!                  seven tags at once                ▼
//!                                     ┌──────┬──────┬──────┬─────┬───────┐
//!                                     │ refs │ ...  │ hash │ key │ value │  a node, in a slab
//!                                     └──────┴──────┴──────┴─────┴───────┘
//! ```
//!
//! Reads neither lock nor wait, and write nothing that others read, unless they count a reference.
//!
//! # A teardown
//!
//! ```text
//!  remove ── lock shard ── unlink ──▶ open bag of the shard ── unlock
//!                                        │ when it is full, or a collector comes by:
//!                                        ▼ a write, reclaim, barrier, the domain's thread
//!                                    closed bags of the domain
//!                                        │ a batch, which waits for a grace period: all
//!                                        ▼ critical sections that were open have closed
//!  last handle dropped later ────────▶ ready
//!                                        │ at most a budget at a time; never on a reader
//!                                        ▼
//!                                    dropped; the bag goes back as a magazine of free slots
//! ```
//!
//! # Reclamation
//!
//! A [`Domain`] is a set of readers and what waits for them. By default registries share a process-wide one; give a
//! registry [its own](Builder::domain) to keep the slow readers of others away from it. Values are dropped
//!
//! - by writers, a bounded share with each write: after 128 removals in a shard, or with the first write of a new tick of the
//!   coarse clock (about 4 ms);
//! - by a thread that the domain starts when something waits, within 50 ms of the last write, with no further call;
//! - or, instead of both, by a [thread](DomainBuilder::reclaimer) that takes all of that work from writers, or an
//!   [executor](DomainBuilder::executor) of the program's;
//! - at once, as far as no reader is in the way, by [`Domain::reclaim`]; and by [`Domain::barrier`], which waits.
//!
//! [`Domain`] has a table of who reclaims, and how to choose.
//!
//! How much may wait for a reader that stays can be [limited](DomainBuilder::backlog_objects), in objects and bytes, and
//! such a reader is [reported](DomainBuilder::on_stall) by name.
//!
//! # Features
//!
//! None is on by default. `serde`: the statistics can be serialised. `metrics`: `Stats::export` hands them to the `metrics`
//! crate. `pressure`: the module of that name, which has registries shed when memory runs out. `rayon`:
//! [`Registry::par_scan`](Registry::scan_parallel), on rayon's threads.
//!
//! # Guarantees
//!
//! In `docs/guarantees.md` of the repository, lettered, each with the tests that hold it; and what proves them, in
//! `docs/verification.md`. How to test your own code that uses this crate under loom stands there too, in "Testing your own code
//! under loom".

#![deny(unsafe_code)]

// The architecture, from the top to the bottom. Each module imports from those below it alone (`tests/layers.rs`).

#[cfg(feature = "pressure")]
pub mod pressure;

// What users call.
mod registry;

// Writing, under the lock of a shard.
mod shard;

// Owning and borrowing an entry.
mod handle;

// Readers, grace periods, and what waits to be destroyed.
mod domain;

// The hash table that readers walk.
mod table;

// An entry's memory.
mod node;

// What reapers are asked and answer.
mod reap;

mod util;

// std and crossbeam, or loom.
mod sync;

pub use domain::{
    Backlog, BacklogFull, Cookie, Domain, DomainBuilder, DomainGuard, DomainStats, Histogram, ReclaimJob, Session,
    StallReport, StalledReader, WhenFull,
};
pub use equivalent::Equivalent;
pub use handle::local::{LocalHandle, LocalHandles};
pub use handle::{Entry, Handle};
pub use reap::{Cause, Cursor, Reaped, Reaper, Scan};
pub use registry::Registry;
pub use registry::builder::Builder;
pub use registry::error::{ForeignGuard, Occupied};
pub use registry::fallible::Fallible;
pub use registry::iter::Iter;
pub use registry::memory_order::MemoryOrder;
pub use registry::policy::{self, Candidate, Policy, Verdict};
pub use registry::policy_reaper::PolicyReaper;
pub use registry::reader::Reader;
pub use registry::stats::Stats;
pub use registry::sweep::Drain;
pub use registry::view::{Guard, View};
pub use util::clock::{Clock, ManualClock, MonotonicClock};

/// The README's example compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
