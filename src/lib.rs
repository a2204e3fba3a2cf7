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
//!
//! struct Session(&'static str);
//!
//! impl Drop for Session {
//!     fn drop(&mut self) {
//!         println!("{}'s session is dropped", self.0);
//!     }
//! }
//!
//! let sessions: Registry<u64, Session> = Registry::new();
//! sessions.insert(1, Session("ada"));
//! sessions.insert(2, Session("bob"));
//!
//! // Borrow: no lock, no fence, no reference count. Or keep, by a handle of one word.
//! let mut reader = sessions.reader();
//! println!("session 2 is {}'s", reader.get(&2).unwrap().0);
//! let ada = reader.lookup(&1).unwrap();
//! drop(reader);
//!
//! sessions.clear();
//! sessions.domain().barrier(); // waits until what can be dropped has been dropped
//! println!("{}'s session is still in use", ada.0);
//! drop(ada);
//! sessions.domain().barrier();
//! assert_eq!((sessions.stats().inserted, sessions.stats().freed), (2, 2));
//! ```
//!
//! It prints:
//!
//! ```text
//! session 2 is bob's
//! bob's session is dropped
//! ada's session is still in use
//! ada's session is dropped
//! ```
//!
//! # Guides
//!
//! - The [cookbook](guide::cookbook): sessions of a web server, a DNS cache, actors, routes, a reloaded configuration,
//!   ids, a key-value server, each in its simplest form.
//! - [Moving from](guide::moving_from) dashmap, papaya, moka, arc-swap and `RwLock<HashMap>`.
//! - [What each crate has](guide::features): this crate and six others.
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
//! # Batches
//!
//! A lookup in a large map waits for memory: for the line of a bucket, then for that of an entry. A batch has up to 32
//! lookups wait at the same time. In a map of a million entries a key of a batch takes half as long as a key that is looked
//! up alone (45 ns and 88 ns by one thread, `docs/benchmarks.md`). So collect the keys of a request, of a pipeline or of a
//! burst of packets, and look them up in one call. `docs/kv.md` of the repository measures a server that answers pipelines of
//! GETs by [`View::get_batch`], beside the same server over dashmap, papaya and a mutex. In a map that fits the processor's
//! caches a batch gains nothing.
//!
//! ```
//! let registry = epoch_registry::Registry::from([(1, "one"), (3, "three")]);
//! let mut answers = Vec::new();
//! registry.pin().get_batch(&[1, 2, 3], |_key, entry| answers.push(entry.map(|entry| *entry)));
//! assert_eq!(answers, [Some("one"), None, Some("three")]);
//! ```
//!
//! Writes have batches too: [`Registry::set_many`], [`delete_many`](Registry::delete_many),
//! [`remove_many`](Registry::remove_many), and `extend` and `collect`.
//!
//! # Caching and expiry
//!
//! | an entry leaves | set by | changed by |
//! |---|---|---|
//! | when there are too many | [`Builder::max_entries`] | [`Registry::set_max_entries`] |
//! | when all weigh too much | [`Builder::max_weight`] with a [weigher](Builder::weigher) | [`Registry::set_max_weight`] |
//! | at some age | [`Builder::max_age`] | [`Registry::set_max_age`] |
//! | when it was not used for some time | [`Builder::max_idle`] | [`Registry::set_max_idle`] |
//! | after a lifetime of its own | [`Builder::lifetime`], [`Registry::insert_with_ttl`] | [`Registry::set_ttl`] |
//! | never: another is refused instead | [`Builder::at_capacity`], [`Registry::admit`] | |
//! | by a policy of the program | [`PolicyReaper`], [`Registry::reap_if`] | |
//! | when memory runs out | the feature `pressure` | |
//!
//! - **Bounds hold at every instant.** An insertion evicts first, by second chance. Each shard has its part of the bound, so a
//!   shard may evict while others have room.
//! - **What [`max_weight`](Builder::max_weight) bounds** are the entries in the registry: their own size and what the weigher
//!   returned. It does not bound the tables, the unused slots of slabs, and entries that have left and are not destroyed yet.
//!   Its documentation has the list.
//! - **An expired entry is absent** to every call from its time on. Its memory is freed when it is reaped: by later insertions,
//!   by [`Registry::expire`], or in the background ([`Builder::reap_in_background`]).
//! - **Evicted and expired entries live on** while there are handles to them ([`Builder::spare_held`] and
//!   [`Builder::priority`] prefer others).
//! - [`Registry::get_or_insert_with`] loads what is absent, once for all threads that ask.
//! - A [listener](Builder::listener) is told which entries leave, and why, and on request which were inserted.
//!
//! ```
//! use epoch_registry::{Cause, ManualClock, Registry};
//! use std::sync::{Arc, Mutex};
//! use std::time::Duration;
//!
//! let (clock, left) = (ManualClock::new(), Arc::new(Mutex::new(Vec::new())));
//! let log = left.clone();
//! let pages = Registry::<&str, String>::builder()
//!     .max_entries(100)
//!     .max_age(Duration::from_secs(60))
//!     .clock(clock.clone()) // for the test; without it, the system's monotonic clock
//!     .listener(move |cause, page| log.lock().unwrap().push((*page.key(), cause)))
//!     .build();
//!
//! let page = pages.get_or_insert_with("/", || "rendered".to_string());
//! clock.advance(Duration::from_secs(61));
//! assert!(!pages.contains_key("/")); // absent, though no reaper has run
//! pages.expire(1000);
//! assert_eq!(*left.lock().unwrap(), [("/", Cause::Expired)]);
//! assert_eq!(*page, "rendered"); // the handle keeps it
//! ```
//!
//! # Async
//!
//! All reads and writes are plain calls that suit a task. Reads never wait. A write waits for a shard's lock, which other writers
//! hold for a few instructions, and may drop a bounded number of values. What matters is what a task holds across an `await`.
//!
//! | may be held across an `await` | must not |
//! |---|---|
//! | `Arc<`[`Registry`]`>`, [`Domain`], [`RcuCell`], [`RcuList`] | [`Guard`], [`View`], [`DomainGuard`] |
//! | [`Handle`], [`WeakHandle`], [`Version`], [`ListHandle`] | [`Entry`] and every other borrow of a read; iterators over entries |
//! | [`Registration`], [`Reservation`] | |
//! | [`Cookie`], [`Cursor`] | [`Reader`], [`OwnedReader`], [`CellReader`], [`Session`] |
//! | the futures: [`Reached`], [`BarrierFuture`], [`Changed`] | |
//!
//! The types on the left are `Send` if keys and values are `Send + Sync`. Guards and sessions are not `Send`, so an executor with several
//! threads refuses a future that holds one. An executor of one thread (`block_on`, `LocalSet`) accepts it. While that task
//! is suspended, its guard or session holds up all destruction in its domain. So take a handle and end the borrow before the `await`:
//!
//! ```
//! use epoch_registry::Registry;
//! use std::sync::Arc;
//!
//! async fn send(bytes: &[u8]) -> usize {
//!     bytes.len()
//! }
//!
//! async fn serve(pages: Arc<Registry<String, Vec<u8>>>, path: &str) -> Option<usize> {
//!     let page = pages.lookup(path)?; // a handle; the critical section of the read has ended
//!     Some(send(&page).await)
//! }
//!
//! fn spawn(_: impl Future<Output = Option<usize>> + Send) {}
//! spawn(serve(Arc::new(Registry::new()), "/"));
//! ```
//!
//! **A stall.** Where a guard or session stays too long, the backlog grows ([`DomainStats::backlog`]), and a barrier does not
//! return. After 21 s ([`DomainBuilder::stall_after`]) a warning is logged that names the thread, with the target
//! `epoch_registry`. [`DomainBuilder::on_stall`] takes the report instead, and [`DomainStats::stalls`] counts them.
//! [`Session`](Session#async) says what to do.
//!
//! ```
//! use epoch_registry::{Domain, Registry};
//! use std::sync::mpsc::channel;
//! use std::time::Duration;
//!
//! let (send, reports) = channel();
//! let report = move |report: &epoch_registry::StallReport| drop(send.send(report.to_string()));
//! let domain = Domain::builder().name("pages").stall_after(Duration::from_millis(20)).on_stall(report).build();
//! let pages: Registry<u64, String> = Registry::builder().domain(domain).build();
//! pages.set(1, "old".to_string());
//!
//! let guard = pages.pin(); // held for too long, as across an `await`
//! pages.set(1, "new".to_string());
//! let report = reports.recv().unwrap();
//! drop(guard);
//! assert!(report.starts_with("domain `pages`: a grace period has lasted"));
//! assert!(report.contains("held up by a guard of thread"));
//! ```
//!
//! **On tokio.** A default domain needs nothing: it has a thread of its own that sleeps when there is nothing to drop. To have
//! values dropped by a task of the runtime instead:
//!
//! ```text
//! let runtime = tokio::runtime::Handle::current();
//! let domain = Domain::builder()
//!     .executor(move |job| drop(runtime.spawn(job.run_with(tokio::time::sleep))))
//!     .build();
//! ```
//!
//! `examples/tokio` of the repository has the whole program, with tests. [`ReclaimJob::run_with`] says how the task shares its thread
//! with others. Waits are futures: [`Domain::barrier_async`], [`Domain::synchronize_async`], [`Domain::reached`],
//! [`RcuCell::changed`].
//!
//! **Values that tasks make.** [`Registry::get_or_insert_async`] runs one loader for a key, however many tasks ask, and takes the
//! next one if it fails or its task is dropped. [`Registry::update_async`], [`Registry::compute_async`] and
//! [`Registry::reserve_key_async`] do the same for other writes. [`Registry::get_or_reserve_async`] is for values that no loader
//! can make: one query for many keys returns them. While a key is reserved, a write of that key by a method that is not `async`
//! blocks its thread.
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
//! # Prompt drops
//!
//! A [`Domain`] is a set of readers, with the backlog of objects that wait for these readers. By default all
//! registries share one process-wide domain. Give a registry [its own](Builder::domain) to keep it apart from the
//! slow readers of other registries.
//!
//! A removed value is dropped when no reader is in the way and its last handle is gone: by default within 50 ms of that, with no
//! further call. It is dropped once, and never by a reader.
//!
//! | to have values dropped | use |
//! |---|---|
//! | soon, without further calls | the default: writers drop a bounded share each, and a thread of the domain the rest |
//! | soon, and never by writers | [`DomainBuilder::reclaimer`], a thread; [`DomainBuilder::executor`], the program's own |
//! | before the next line | [`Domain::barrier`], or [`barrier_async`](Domain::barrier_async): created = dropped + live afterwards |
//! | at a moment that suits the program | [`DomainBuilder::manual`] and [`Domain::reclaim`], which drops at once what no reader is in the way of |
//! | by writers alone, without a thread | [`DomainBuilder::writers_only`] |
//!
//! ```
//! use epoch_registry::{Domain, Registry};
//! use std::sync::Arc;
//!
//! // A file, a socket, a lease: what counts its drops shows that none is left.
//! let resource = Arc::new(());
//! let domain = Domain::builder().name("files").reclaimer(true).build();
//! let files: Registry<u32, Arc<()>> = Registry::builder().domain(domain.clone()).build();
//! files.set_many((0..1000).map(|id| (id, resource.clone())));
//! assert_eq!(Arc::strong_count(&resource), 1001);
//!
//! files.clear();
//! domain.barrier();
//! assert_eq!(Arc::strong_count(&resource), 1);
//! ```
//!
//! By default a writer takes its share after 128 removals in a shard, or with the first removal in a shard if the coarse clock has
//! ticked since the last round (every 4 ms). [`Domain`] has a table of the ways to reclaim, and how to choose.
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
//! - `metrics`: `Stats::export` records the statistics with the `metrics` crate, with descriptions and units.
//!   `examples/metrics` of the repository shows them as the Prometheus exporter prints them.
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
pub use node::owner::SlabSize;
pub use percpu::Counter;
pub use percpu_ref::{LiveRef, PercpuRef};
pub use reap::{Cause, Cursor, Priority, Reaped, Reaper, Scan};
pub use registry::Registry;
pub use registry::admission::AtCapacity;
pub use registry::builder::Builder;
pub use registry::compute::Change;
pub use registry::error::{ForeignGuard, KeyReserved, Occupied, Refused, RegistryFull};
pub use registry::fallible::Fallible;
pub use registry::iter::Iter;
pub use registry::keys::{Keys, Values};
pub use registry::memory_order::MemoryOrder;
pub use registry::owned_reader::OwnedReader;
pub use registry::policy::{self, Candidate, Policy, Verdict};
pub use registry::policy_reaper::PolicyReaper;
pub use registry::reader::Reader;
pub use registry::registration::Registration;
pub use registry::reservation::Reservation;
pub use registry::set::RegistrySet;
pub use registry::stats::Stats;
pub use registry::sweep::Drain;
pub use registry::view::{Guard, View};
pub use registry::weak_handle::WeakHandle;
pub use util::clock::{Clock, ManualClock, MonotonicClock};
pub use util::hasher::RandomState;

/// Guides: recipes, ways from other crates, and a comparison.
#[cfg(doc)]
pub mod guide {
    #[doc = include_str!("../docs/cookbook.md")]
    pub mod cookbook {}

    #[doc = include_str!("../docs/features.md")]
    pub mod features {}

    /// Ways from other crates: tables of calls, and the same program before and after.
    // The package `benches` tests the programs, because it depends on these crates.
    #[cfg(not(doctest))]
    pub mod moving_from {
        #[doc = include_str!("../docs/moving-from/arc-swap.md")]
        pub mod arc_swap {}
        #[doc = include_str!("../docs/moving-from/dashmap.md")]
        pub mod dashmap {}
        #[doc = include_str!("../docs/moving-from/moka.md")]
        pub mod moka {}
        #[doc = include_str!("../docs/moving-from/papaya.md")]
        pub mod papaya {}
        #[doc = include_str!("../docs/moving-from/rwlock-hashmap.md")]
        pub mod rwlock_hashmap {}
    }
}

/// Checks that the README's example compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
