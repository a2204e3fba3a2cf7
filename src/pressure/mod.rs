//! Memory pressure: reapers that shed when the machine, or the program's share of it, runs out. (Feature `pressure`.)
//!
//! A [`Driver`] holds the [reapers](crate::Reaper) of many registries, weakly, and divides among them what has to go,
//! by the rule of the Linux kernel's shrinker. Its [sources](Source) tell when; or the program does, by
//! [`Driver::relieve`].
//!
//! ```no_run
//! use epoch_registry::{Domain, Registry, pressure::Driver};
//! use std::sync::Arc;
//!
//! let domain = Domain::builder().reclaimer(true).build();
//! let pages: Registry<u64, Vec<u8>> =
//!     Registry::builder().domain(domain).weigher(|_, page: &Vec<u8>| page.capacity()).build();
//! let pages = Arc::new(pages);
//!
//! let driver = Driver::builder().detect().start()?;
//! driver.add_named("pages", &pages);
//! // ... and on occasion:
//! println!("{}", driver.stats());
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # Sources
//!
//! | | tells of | where |
//! |---|---|---|
//! | [`Psi`] | tasks that stall for want of memory: events | Linux, of the machine or a control group (v2) |
//! | [`Cgroup`] | usage against the limits of the control group | Linux, v2 and v1 |
//! | [`Available`] | what the machine has left | everywhere |
//! | [`Own`] | the process's resident memory against a limit set by hand | everywhere |
//! | [`Manual`] | what its owner says | everywhere |
//!
//! [`detect()`] takes what is there, and says by name what is not, and why. Users write their own by implementing
//! [`Source`].
//!
//! # What a source demands
//!
//! - **Bytes**: a level above its [mark](Marks) demands what is above the lower mark. It does not demand the same again
//!   because usage is still as it was: see [`Level`].
//! - **A round**: an event says that there is pressure, and not how much. It is worth one round, of a priority that
//!   rises with each event in a row: [the more, the harder](Builder::event_priority).
//!
//! Of several demands at one look the largest counts, as they are about the same memory.
//!
//! # What the reapers do
//!
//! In a round of priority `p` each reaper scans `count / 2^p · 4 / seeks` entries (half of all, if `seeks` is 0), in
//! batches. A demand for bytes is dealt with in rounds of `p` from 12 down to 0, until entries are removed that count
//! for so many bytes. Where reapers do not say how many bytes they free, that is never the case, and everything is
//! scanned, twice: have a registry [weigh](crate::Builder::weigher) its values. What a reaper did not scan, as it
//! stopped or panicked or it was less than a batch, is deferred to later rounds, up to twice its entries.
//!
//! # How fast it is
//!
//! Events wake the driver's thread at once. Levels are looked at in [intervals](Builder::interval), which are shorter
//! near the limit. What was shed is freed after a grace period, so readers that stay and handles that are kept keep
//! memory.
//!
//! Memory can be filled at a gigabyte a second, and a thread may wait for a core for some milliseconds. Where what is
//! left to the limit is not much more than is filled in 100 ms, do one or several of these:
//!
//! - Leave more room, by lower [marks](Marks).
//! - Have those who fill memory [check](Driver::check) themselves, once in a megabyte, say: the kernel's direct
//!   reclaim. It takes microseconds when there is no demand, and holds them up when there is one.
//! - Have the [hook](Builder::on_shed) wait until what was shed is freed ([`Domain::barrier`](crate::Domain::barrier)).
//!   Those who check are held up until then too, so none of them may be in a critical section then.
//! - Bound the registry by [weight](crate::Builder::max_weight) too.
//!
//! The example `pressure` does the second and the third, and fills 256 MiB ten times over at full speed.

mod builder;
mod cgroup;
mod demand;
mod detect;
mod driver;
mod hold;
mod manual;
mod member;
mod memory;
mod psi;
mod share;
mod source;
mod stats;
mod wait;
mod watch;

pub use builder::Builder;
pub use cgroup::{Cgroup, Version};
pub use demand::{Demand, Relieved};
pub use detect::{Detected, detect};
pub use driver::Driver;
pub use manual::{Manual, ManualHandle};
pub use memory::{Available, Own};
pub use psi::{Psi, Trigger};
pub use source::{Level, Marks, Reading, Source, Unavailable};
pub use stats::{ReaperStats, SourceState, SourceStats, Stats};
pub use wait::Waker;
