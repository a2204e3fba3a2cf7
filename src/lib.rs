//! A registry of shared, reference-counted objects with lock-free reads.
//!
//! It is for programs that look objects up far more often than they change them: connection tracking, path and
//! name caches, tables of sessions, actors and devices, namespaces of ids.
//!
//! It is the pattern of the Linux kernel's nf_conntrack, dcache and IPC ids, as a library:
//!
//! - A reader walks an RCU-protected hash table without locks. It borrows the entry that it finds, or keeps it
//!   with a reference count.
//! - A writer takes the lock of one shard, unlinks an entry, and retires it.
//! - An entry that nothing refers to any more is destroyed after a grace period, and never by a reader.
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
//! | | borrows ([`Entry`]) | owns ([`Handle`]) | costs | note |
//! |---|---|---|---|---|
//! | [`Registry::reader`] | `reader.get` | `reader.lookup` | no fence | take it [`offline`](Reader::offline) to block |
//! | [`Registry::owned_reader`] | `reader.get` | `reader.lookup` | no fence | a reader that owns its share of the registry |
//! | [`Registry::pin`] | `guard.get` | `guard.lookup` | a fence for the pin, none for its reads | drop it soon |
//! | [`Registry::with`], [`Registry::lookup`] | within a closure | one handle | a fence | |
//! | [`View::get_batch`], [`View::get_many`] | many at once | [`View::lookup_batch`] | cache misses overlap | |
//!
//! # One value
//!
//! An [`RcuCell`] publishes one value that is replaced as a whole, such as a configuration. It shares the domain, its sessions,
//! grace periods, limits and reports with registries.
//!
//! ```
//! use epoch_registry::RcuCell;
//!
//! let routes = RcuCell::new(vec!["10.0.0.1"]);
//! let mut reader = routes.reader(); // a thread that reads all the time
//! assert_eq!(reader.read().len(), 1);
//! let cookie = routes.update(|old| [old.as_slice(), &["10.0.0.2"]].concat());
//! assert_eq!(reader.read().len(), 2);
//! drop(reader);
//! routes.domain().wait(cookie); // every reader has left the old version
//! ```
//!
//! # A list, and counts
//!
//! An [`RcuList`] is a linked list that readers walk while writers change it; an [`RcuBidirList`] is walked both ways. A
//! [`Counter`] is a statistic that each thread counts on its own cache line. A [`PercpuRef`] counts references in that way,
//! until what they refer to is to end.
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
//!              │ bits 57..63     └────┬────┴──────┴──┬───┴── ─ ─ ─ ──┴──────┘
//!              └── compared with all ─┘              │ the one that matched
//!                  seven tags at once                ▼
//!                                     ┌──────┬──────┬──────┬─────┬───────┐
//!                                     │ refs │ ...  │ hash │ key │ value │  a node, in a slab
//!                                     └──────┴──────┴──────┴─────┴───────┘
//! ```
//!
//! A read takes no lock and does not wait. It writes no memory that other threads read, with two exceptions: a
//! read that takes a handle counts a reference, and where entries are evicted or expire, a read may leave a mark
//! of its use, or end an expired entry.
//!
//! # A teardown
//!
//! ```text
//!  remove ── lock shard ── unlink ──▶ open bag of the shard ── unlock
//!                                        │ when it is full, or a collector closes it:
//!                                        ▼ a write, reclaim, barrier, the domain's thread
//!                                    closed bags of the domain
//!                                        │ in a batch, after its grace period: all
//!                                        ▼ critical sections that were open have closed
//!  last handle dropped later ────────▶ ready
//!                                        │ at most a budget at a time; never on a reader
//!                                        ▼
//!                                    dropped; the bag goes back as a magazine of free slots
//! ```
//!
//! # Reclamation
//!
//! A [`Domain`] is a set of readers, with the backlog of objects that wait for these readers. By default all
//! registries share one process-wide domain. Give a registry [its own](Builder::domain) to keep it apart from the
//! slow readers of other registries.
//!
//! Values are dropped
//!
//! - by writers, a bounded share with a write: after 128 removals in a shard, or with the first removal in a shard if
//!   the coarse clock has ticked since the last round (every 4 ms);
//! - by a thread that the domain starts when something waits: within 50 ms of the last write, with no further
//!   call;
//! - instead of both, by a [thread](DomainBuilder::reclaimer) that takes all of that work from writers, or by an
//!   [executor](DomainBuilder::executor) of the program's;
//! - by [`Domain::reclaim`], which drops at once what no reader is in the way of, and by [`Domain::barrier`],
//!   which waits.
//!
//! [`Domain`] has a table of the ways to reclaim, and how to choose.
//!
//! The backlog can be [limited](DomainBuilder::backlog_objects), in objects and bytes. A reader that holds up a
//! grace period for too long is [reported](DomainBuilder::on_stall) by name.
//!
//! # Features
//!
//! - `ahash`, on by default: ahash as the hasher of a registry that has no other ([`RandomState`]). Without the feature
//!   that is std's hasher, and the crate has four dependencies fewer.
//!
//! The others are off by default.
//!
//! - `serde`: the statistics can be serialised.
//! - `metrics`: `Stats::export` records the statistics with the `metrics` crate.
//! - `pressure`: the module `pressure`, which has registries remove entries when memory runs out.
//! - `rayon`: [`Registry::par_scan`](Registry::scan_parallel), a walk on rayon's threads.
//!
//! # Guarantees
//!
//! `docs/guarantees.md` of the repository lists the guarantees, each with the tests that check it.
//! `docs/verification.md` lists the methods of verification. Its section "Testing your own code under loom" says
//! how to test code that uses this crate under loom.
//!
//! # From the kernel
//!
//! `docs/kernel-map.md` says what corresponds here to each part of the kernel's RCU and of liburcu, from
//! `rcu_read_lock` to shrinkers. It lists the contexts in which calls are allowed, and the pitfalls of RCU with what
//! stops each.

#![deny(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

// The architecture, from top to bottom. Each module imports only from the modules below it (`tests/layers.rs`
// checks this).

#[cfg(feature = "pressure")]
pub mod pressure;

// What users call.
mod registry;

// Writes, under the lock of a shard.
mod shard;

// Handles and borrowed entries.
mod handle;

// Linked lists.
mod list;

// One published pointer.
mod cell;

// Counted values in allocations of their own, which cells and lists publish.
mod object;

// References that threads count apart.
mod percpu_ref;

// Readers, grace periods, and the backlog.
mod domain;

// The hash table that readers walk.
mod table;

// The memory of an entry.
mod node;

// The interface of reapers.
mod reap;

// Counts that threads keep apart.
mod percpu;

mod util;

// std and crossbeam, or loom.
mod sync;

#[cfg(not(loom))]
pub use cell::StaticVersion;
pub use cell::{
    CellReader, Changed, NewVersion, Part, Projection, RcuCell, RcuOptionCell, Superseded, SupersededOption, Version,
};
pub use domain::{
    Backlog, BacklogFull, BarrierFuture, Cookie, CriticalSection, Domain, DomainBuilder, DomainGuard, DomainStats,
    Histogram, Reached, ReclaimJob, Section, Session, StallReport, StalledReader, WhenFull,
};
pub use equivalent::Equivalent;
pub use handle::local::{LocalHandle, LocalHandles};
pub use handle::{Entry, Handle};
pub use list::{
    BothWays, Forward, ListEntry, ListHandle, ListIter, ListIterBack, NotInList, RcuBidirList, RcuList, Splice, Walk,
};
pub use percpu::Counter;
pub use percpu_ref::{LiveRef, PercpuRef};
pub use reap::{Cause, Cursor, Reaped, Reaper, Scan};
pub use registry::Registry;
pub use registry::builder::Builder;
pub use registry::error::{ForeignGuard, Occupied};
pub use registry::fallible::Fallible;
pub use registry::iter::Iter;
pub use registry::keys::{Keys, Values};
pub use registry::memory_order::MemoryOrder;
pub use registry::owned_reader::OwnedReader;
pub use registry::policy::{self, Candidate, Policy, Verdict};
pub use registry::policy_reaper::PolicyReaper;
pub use registry::reader::Reader;
pub use registry::registration::Registration;
pub use registry::set::RegistrySet;
pub use registry::stats::Stats;
pub use registry::sweep::Drain;
pub use registry::view::{Guard, View};
pub use util::clock::{Clock, ManualClock, MonotonicClock};
pub use util::hasher::RandomState;

/// Checks that the README's example compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
