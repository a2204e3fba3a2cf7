//! Memory pressure: drivers that have reapers shed entries when memory runs short. (Feature `pressure`.)
//!
//! A [`Driver`] holds weak references to the [reapers](crate::Reaper) of any number of registries. It divides the
//! work among them by the rule of the Linux kernel's shrinker. The driver acts when one of its [sources](Source)
//! reports pressure, or when the program calls [`Driver::relieve`].
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
//! // ... and from time to time:
//! println!("{}", driver.stats());
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # Sources
//!
//! | source | reports | available on |
//! |---|---|---|
//! | [`Psi`] | events: tasks stalled because memory was short | Linux, for the machine or a control group (v2) |
//! | [`Cgroup`] | usage against the limits of the control group | Linux, v2 and v1 |
//! | [`Available`] | the memory that the machine has left | all systems |
//! | [`Own`] | the resident memory of the process against a limit set by the program | all systems |
//! | [`Manual`] | what the program tells it through a handle | all systems |
//!
//! [`detect()`] returns the sources that are available, and the name of each that is not, with the reason. To
//! write your own source, implement [`Source`].
//!
//! # What a source demands
//!
//! - **Bytes**: a level above its high [mark](Marks) demands the bytes above the low mark. While the usage stays
//!   the same, it does not demand them again: see [`Level`].
//! - **A round**: an event says that there is pressure, but not how much. It demands one round. The round gets
//!   [harder](Builder::event_priority) with each event in a row.
//!
//! Sources describe the same memory, so their demands are not added up. Of the demands found in one look at the
//! sources, the driver meets the largest demand for bytes and the hardest round.
//!
//! # What the reapers do
//!
//! In a round of priority `p` each reaper scans `count / 2^p · 4 / seeks` entries in batches. If `seeks` is 0, it
//! scans half of all entries.
//!
//! For a demand for bytes, the driver runs rounds with `p` from 12 down to 0. It stops as soon as the removed
//! entries count for the demanded bytes. If the reapers do not report how many bytes they free, the demand is
//! never met: all rounds run, and the last one scans every entry twice (with the default `seeks`). To avoid this,
//! give the registry a [weigher](crate::Builder::weigher).
//!
//! A reaper may leave a part of its work undone: because it stopped, because it panicked, or because the rest was
//! smaller than a batch. The driver defers this part to later rounds, up to twice the number of the reaper's
//! entries.
//!
//! # Reaction time
//!
//! An event wakes the driver's thread at once. Levels are read at [intervals](Builder::interval), which get
//! shorter near the limit. A shed entry is freed after a grace period. A reader that stays in its critical
//! section and a handle that is kept delay this.
//!
//! A program can fill memory at a gigabyte per second, and a thread may wait some milliseconds for a core. If the
//! memory left to the limit is not much more than the program fills in 100 ms, do one or several of these:
//!
//! - Leave more room: set lower [marks](Marks).
//! - Have the threads that fill memory call [`Driver::check`] themselves, for instance once per megabyte. This is
//!   the kernel's direct reclaim. The call takes microseconds if there is no demand, and delays the caller if
//!   there is one.
//! - Have the [hook](Builder::on_shed) wait until the shed entries are freed
//!   ([`Domain::barrier`](crate::Domain::barrier)). This also delays every thread that calls `check`, so no such
//!   thread may be in a critical section then.
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
