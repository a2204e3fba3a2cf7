//! The shrinker's interface: who can be asked to shed entries, how much, and what came of it.
//!
//! After the Linux kernel's `struct shrinker`: count, then scan a bounded number, in batches.

mod cause;
mod cursor;

pub use cause::Cause;
pub use cursor::Cursor;

use std::iter::Sum;
use std::ops::AddAssign;
use std::time::Duration;

/// What can be asked to give memory back: the kernel's shrinker.
///
/// Every [`Registry`](crate::Registry) is one, and so is a registry with a [policy](crate::PolicyReaper) of the caller's.
/// Implement it for what is no registry (a pool of buffers, a cache on a disk), and have it called in the background of a
/// [domain](crate::Domain::add_reaper), or under memory pressure (feature `pressure`).
///
/// ```
/// use epoch_registry::{Reaped, Reaper, Scan};
/// use std::sync::Mutex;
///
/// /// Buffers for reuse.
/// struct Pool(Mutex<Vec<Box<[u8; 4096]>>>);
///
/// impl Reaper for Pool {
///     fn count(&self) -> usize {
///         self.0.lock().unwrap().len()
///     }
///
///     fn scan(&self, scan: &mut Scan) -> Reaped {
///         let mut buffers = self.0.lock().unwrap();
///         let left = buffers.len().saturating_sub(scan.nr_to_scan);
///         let freed = buffers.split_off(left);
///         drop(buffers);
///         let mut reaped = Reaped::default();
///         reaped.examined = freed.len();
///         reaped.removed = freed.len();
///         reaped.bytes = 4096 * freed.len() as u64;
///         reaped
///     }
///
///     // A buffer is soon made again.
///     fn seeks(&self) -> u32 {
///         1
///     }
/// }
///
/// let pool = Pool(Mutex::new(vec![Box::new([0; 4096]); 10]));
/// assert_eq!(pool.scan(&mut Scan::new(4)).bytes, 16384);
/// assert_eq!(pool.count(), 6);
/// ```
pub trait Reaper: Send + Sync {
    /// About how many entries there are to reap. Cheap, and takes no contended lock: it is asked often. 0 if there are none.
    fn count(&self) -> usize;

    /// Examines up to about [`scan.nr_to_scan`](Scan::nr_to_scan) entries, and removes those that can be missed.
    ///
    /// It is called with no lock held, by one thread or several.
    fn scan(&self, scan: &mut Scan) -> Reaped;

    /// Removes what is due by itself, pressure or no pressure: what is past its time. Examines up to about `budget` entries.
    /// Called every now and then, in the background of a [domain](crate::Domain::add_reaper). By default it does nothing.
    fn expire(&self, budget: usize) -> Reaped {
        let _ = budget;
        Reaped::default()
    }

    /// How long it may be until there is something to [expire](Self::expire) again, where that is known. Called after `expire`, in
    /// the background of a [domain](crate::Domain::add_reaper), which calls again at that time or
    /// [as usual](crate::DomainBuilder::reap_every), whichever is sooner.
    fn due_in(&self) -> Option<Duration> {
        None
    }

    /// What it costs to make an entry again, in seeks of a disk, as the kernel has it: 2 by default. With 4 half as many are
    /// scanned; with 0, half of all there are.
    fn seeks(&self) -> u32 {
        2
    }

    /// How many to examine in one scan under pressure: 128 by default.
    fn batch(&self) -> usize {
        128
    }

    /// What it is called, in figures and reports.
    fn name(&self) -> &str {
        "reaper"
    }
}

/// How much a [reaper](Reaper) is to examine, and where it goes on.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Scan {
    /// The most entries to examine, about.
    pub nr_to_scan: usize,
    /// Where a registry goes on, and has stopped when it returns: use one `Scan` for a sequence of calls. At the end it
    /// begins anew. Reapers of other kinds may leave it alone.
    pub cursor: Cursor,
}

impl Scan {
    /// From the beginning, so many entries.
    pub fn new(nr_to_scan: usize) -> Self {
        Scan { nr_to_scan, cursor: Cursor::new() }
    }
}

/// What a [reaper](Reaper) has done. Those examined that are in none of the other counts were kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Reaped {
    /// Entries looked at.
    pub examined: usize,
    /// Entries removed.
    pub removed: usize,
    /// The bytes that the removed ones counted for.
    pub bytes: u64,
    /// Entries that were used lately, and get a second chance.
    pub rotated: usize,
    /// Entries that could not be judged or removed now, as they are in use.
    pub skipped: usize,
    /// It is of no use to go on at this time, whatever the budget: there is no room for more in the domain's backlog, say.
    /// (The kernel's `SHRINK_STOP`.)
    pub stopped: bool,
}

impl AddAssign for Reaped {
    /// Both. Where one of them had to stop, so had the sum.
    fn add_assign(&mut self, next: Reaped) {
        self.examined += next.examined;
        self.removed += next.removed;
        self.bytes += next.bytes;
        self.rotated += next.rotated;
        self.skipped += next.skipped;
        self.stopped |= next.stopped;
    }
}

impl Sum for Reaped {
    fn sum<I: Iterator<Item = Reaped>>(all: I) -> Reaped {
        all.fold(Reaped::default(), |mut sum, one| {
            sum += one;
            sum
        })
    }
}
