//! What the driver keeps for each reaper, and the reaper's turn in a round.

use super::demand::Relieved;
use super::share::Share;
use super::stats::ReaperStats;
use crate::reap::{Reaper, Scan};
use crate::util::panics::contain;
use parking_lot::{Mutex, MutexGuard};
use std::cmp::Ordering;
use std::sync::{Arc, Weak};

pub(super) struct Member {
    reaper: Weak<dyn Reaper>,
    /// Locked only behind the driver's gate, so without contention. The reaper's code runs under this lock.
    place: Mutex<Place>,
    /// Never held while the user's code runs.
    figures: Mutex<ReaperStats>,
}

struct Place {
    scan: Scan,
    deferred: u64,
}

impl Member {
    pub(super) fn new(name: String, reaper: Weak<dyn Reaper>) -> Self {
        let figures = Mutex::new(ReaperStats { name, ..ReaperStats::default() });
        Member { reaper, place: Mutex::new(Place { scan: Scan::new(0), deferred: 0 }), figures }
    }

    pub(super) fn is_alive(&self) -> bool {
        self.reaper.strong_count() > 0
    }

    pub(super) fn stats(&self) -> ReaperStats {
        self.figures.lock().clone()
    }

    /// Returns the number of entries that the reaper holds. 0 if it is gone or panics.
    pub(super) fn count(&self) -> usize {
        let mut count = 0;
        if let Some(reaper) = self.reaper.upgrade() {
            self.run(|| count = reaper.count());
            self.run(|| drop(reaper));
        }
        count
    }

    /// Begins its turn in a round. Returns `None` if the reaper is gone or panics.
    pub(super) fn begin(&self, priority: u32, relieved: &mut Relieved) -> Option<Turn<'_>> {
        let reaper = self.reaper.upgrade()?;
        let place = self.place.lock();
        let mut asked = None;
        relieved.panics += self.run(|| {
            let share = Share::of(reaper.count() as u64, reaper.seeks(), priority, place.deferred);
            asked = Some((share, (reaper.batch() as u64).max(1)));
        });
        let Some((share, size)) = asked else {
            relieved.panics += self.run(|| drop(reaper));
            return None;
        };
        Some(Turn { member: self, reaper, place, share, size, scanned: 0, is_over: false })
    }

    /// Runs the user's code, and counts a panic in it. Returns the number of panics: 0 or 1.
    fn run(&self, f: impl FnOnce()) -> u64 {
        let panics = u64::from(contain(f));
        self.figures.lock().panics += panics;
        panics
    }
}

/// What a reaper has to do in a round, and how much of it is done.
pub(super) struct Turn<'m> {
    member: &'m Member,
    reaper: Arc<dyn Reaper>,
    place: MutexGuard<'m, Place>,
    share: Share,
    /// The size of a batch.
    size: u64,
    scanned: u64,
    /// Whether the reaper has stopped or panicked.
    is_over: bool,
}

impl Turn<'_> {
    fn next(&self) -> Option<u64> {
        self.share.batch(self.share.total - self.scanned, self.size).filter(|_| !self.is_over)
    }

    /// Returns whether there is another batch to do.
    pub(super) fn is_open(&self) -> bool {
        self.next().is_some()
    }

    /// Compares the fractions of their totals that are done.
    pub(super) fn cmp_done(&self, other: &Turn<'_>) -> Ordering {
        let cross = |one: &Turn<'_>, other: &Turn<'_>| u128::from(one.scanned) * u128::from(other.share.total);
        cross(self, other).cmp(&cross(other, self))
    }

    /// Runs the next batch.
    pub(super) fn batch(&mut self, relieved: &mut Relieved) {
        let Some(batch) = self.next() else { return };
        self.place.scan.nr_to_scan = usize::try_from(batch).unwrap_or(usize::MAX);
        let (reaper, scan) = (&self.reaper, &mut self.place.scan);
        let mut reaped = None;
        relieved.panics += self.member.run(|| reaped = Some(reaper.scan(scan)));
        self.is_over = reaped.is_none_or(|reaped| reaped.stopped);
        if !self.is_over {
            self.scanned += batch;
        }
        if let Some(reaped) = reaped {
            relieved.add(reaped);
            self.member.figures.lock().add(reaped, if self.is_over { 0 } else { batch });
        }
    }

    /// Ends the turn. If batches are left because the demand is met, they are forgotten. Any other rest is deferred.
    pub(super) fn end(mut self, relieved: &mut Relieved) {
        let done = if self.is_open() { self.share.total } else { self.scanned };
        self.place.deferred = self.share.deferred(done);
        self.member.figures.lock().deferred = self.place.deferred;
        drop(self.place);
        // This may be the last reference: the destructor is the user's code too.
        let reaper = self.reaper;
        relieved.panics += self.member.run(|| drop(reaper));
    }
}
