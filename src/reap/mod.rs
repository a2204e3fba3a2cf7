//! The shrinker interface: which objects can be asked to free entries, how many entries to examine, and what
//! the result was.
//!
//! Modelled on the Linux kernel's `struct shrinker`: count the entries, then scan a bounded number of them, in
//! batches.

mod cause;
mod cursor;
mod priority;

pub use cause::Cause;
pub use cursor::Cursor;
pub use priority::Priority;

use std::iter::Sum;
use std::ops::AddAssign;
use std::time::Duration;

/// An object that can be asked to give memory back, like a shrinker of the kernel.
///
/// Every [`Registry`](crate::Registry) is a reaper, and so is a registry with a [policy](crate::PolicyReaper)
/// of the user. Implement this trait for other objects that hold memory, such as a pool of buffers or a cache
/// on a disk. A reaper is called in the background of a [domain](crate::Domain::add_reaper), or under memory
/// pressure (feature `pressure`).
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
///     // A buffer is cheap to make again.
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
    /// Returns the approximate number of entries that can be reaped, or 0 if there are none. It is called
    /// often, so it must be cheap and take no contended lock.
    fn count(&self) -> usize;

    /// Examines up to about [`scan.nr_to_scan`](Scan::nr_to_scan) entries, and removes the ones that the
    /// program can do without.
    ///
    /// The caller holds no lock of a registry or a domain. Several threads may call this at the same time.
    fn scan(&self, scan: &mut Scan) -> Reaped;

    /// Removes the entries whose time has come, with or without memory pressure. Examines up to about `budget`
    /// entries. It is called periodically, in the background of a [domain](crate::Domain::add_reaper). By
    /// default it does nothing.
    fn expire(&self, budget: usize) -> Reaped {
        let _ = budget;
        Reaped::default()
    }

    /// Returns how long it may be until there is something to [expire](Self::expire) again, if that is known.
    /// It is called after `expire`, in the background of a [domain](crate::Domain::add_reaper). The domain then
    /// calls again at that time or [as usual](crate::DomainBuilder::reap_every), whichever is sooner.
    fn due_in(&self) -> Option<Duration> {
        None
    }

    /// Returns the cost of making an entry again, in disk seeks, as the kernel measures it. 2 by default. With
    /// 4, half as many entries are scanned; with 0, half of all entries are.
    fn seeks(&self) -> u32 {
        2
    }

    /// Returns how many entries to examine in one scan under pressure. 128 by default.
    fn batch(&self) -> usize {
        128
    }

    /// Returns the name of the reaper in statistics and reports.
    fn name(&self) -> &str {
        "reaper"
    }
}

/// How many entries a [reaper](Reaper) should examine, and where it continues.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Scan {
    /// The approximate maximum number of entries to examine.
    pub nr_to_scan: usize,
    /// Where a registry starts to scan. When the scan returns, it is where the scan stopped, so use one `Scan`
    /// for a sequence of calls. After the end of the registry, the next scan starts from the beginning. Reapers
    /// that are not registries may ignore it.
    pub cursor: Cursor,
}

impl Scan {
    /// Returns a scan of `nr_to_scan` entries, from the beginning.
    pub fn new(nr_to_scan: usize) -> Self {
        Scan { nr_to_scan, cursor: Cursor::new() }
    }
}

/// The result of a call of a [reaper](Reaper). Entries that were examined and are in none of the other counts
/// were kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Reaped {
    /// Entries that were examined.
    pub examined: usize,
    /// Entries that were removed.
    pub removed: usize,
    /// The bytes that the removed entries counted for.
    pub bytes: u64,
    /// Entries that were used recently and get a second chance.
    pub rotated: usize,
    /// Entries that could not be judged or removed now, because they are in use.
    pub skipped: usize,
    /// Whether it is useless to continue now, whatever the budget: for example, the domain's backlog has no
    /// room for more. (The kernel's `SHRINK_STOP`.)
    pub stopped: bool,
}

impl AddAssign for Reaped {
    /// Adds the counts. The sum has `stopped` set if either operand has.
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
