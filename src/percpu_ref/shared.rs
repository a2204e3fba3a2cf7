//! The count of a [`PercpuRef`](super::PercpuRef), and how it changes from many counts to one.
//!
//! While the count is live, a reference is a count in the thread's slot of a [`Column`]. Only the sum of all slots means
//! anything, since a reference may be put by another thread. After a kill the count is one atomic. The actors:
//!
//! - **A get or put** is in a critical section from before its load of `killed` until after its count. If it loads
//!   false, it counts in its slot. If it loads true, it counts in `count`. A get of live references fails instead.
//! - **The killer** sets `killed`, and then begins a grace period.
//! - **The fold** is the callback at the end of that grace period. Each section that loaded false has ended, so no thread
//!   writes its slot any more, and the fold's loads see what they wrote. It adds what the slots count to `count`, and
//!   takes the bias off. The bias is what keeps `count` from zero before.
//! - **The last put** after the fold finds that it has changed `count` to zero. It takes the lock, records the drain, and
//!   queues the release.
//! - **The resurrector** adds the bias again, and then clears `killed`. Slots keep their totals. The next fold counts from
//!   what this one saw.
//!
//! Which of them does what is decided by the phase, under the lock:
//!
//! ```text
//!           kill               fold: references left            last put
//!   Live ─────────▶ Switching ──────────────────────▶ Draining ──────────▶ Drained
//!    ▲                │   │ fold: none left                │                 ▲ │
//!    │                │   └────────────────────────────────┼─────────────────┘ │
//!    └────────────────┴────────────────────────────────────┴───────────────────┘
//!                                resurrect
//! ```
//!
//! docs/ordering.md, "References counted per thread", has the proof that the count is exact.

use crate::domain::Domain;
use crate::percpu::Column;
use crate::sync::atomic::Ordering;
use crate::sync::{AtomicBool, AtomicU64, Condvar, Mutex, Pause, wait_for};
use crossbeam_utils::CachePadded;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What `count` has beside references, except in the phases `Draining` and `Drained`. No program has so many references.
const BIAS: u64 = 1 << 62;

/// The most objects that a thread destroys between two looks while it waits.
const ROUND: usize = 256;

type Release = Box<dyn Fn() + Send + Sync>;
type Confirm = Box<dyn FnOnce() + Send>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Live,
    /// Killed. The grace period is not over.
    Switching,
    /// Folded, with references left.
    Draining,
    /// Zero was reached.
    Drained,
}

struct Control {
    phase: Phase,
    /// The number of kills so far. A fold does nothing if there was another kill since its own.
    kills: u64,
    /// The sum of the column at the last fold.
    folded: u64,
}

pub(super) struct Shared {
    /// Whether the count was killed, and not resurrected since. Written under the lock.
    killed: AtomicBool,
    column: Column,
    domain: Domain,
    release: Option<Release>,
    /// References that are not counted in slots, modulo 2^64, and the bias. Negative if there were more puts than gets.
    count: CachePadded<AtomicU64>,
    control: Mutex<Control>,
    /// Notified when the phase changes.
    changed: Condvar,
}

fn is_zero(count: u64) -> bool {
    count as i64 <= 0
}

impl Shared {
    pub(super) fn new(domain: Domain, release: Option<Release>) -> Self {
        Shared {
            killed: AtomicBool::new(false),
            column: Column::new(),
            domain,
            release,
            count: CachePadded::new(AtomicU64::new(BIAS)),
            control: Mutex::new(Control { phase: Phase::Live, kills: 0, folded: 0 }),
            changed: Condvar::new(),
        }
    }

    #[inline]
    pub(super) fn domain(&self) -> &Domain {
        &self.domain
    }

    #[inline(always)]
    pub(super) fn is_killed(&self) -> bool {
        // ORDERING: Acquire, pairs with the Release in `resurrect`: a count in a slot follows the fold before. Also pairs
        // with the Release in `kill`, for the caller's sake.
        self.killed.load(Ordering::Acquire)
    }

    /// Takes a reference unless the count was killed. The caller is in a critical section.
    #[inline(always)]
    pub(super) fn try_get_live(&self) -> bool {
        let is_live = !self.is_killed();
        if is_live {
            self.count_apart(1);
        }
        is_live
    }

    /// Takes a reference. The caller is in a critical section.
    #[inline(always)]
    pub(super) fn get(&self) {
        if self.is_killed() {
            // ORDERING: Relaxed. The caller has a reference, so the count is not zero.
            self.count.fetch_add(1, Ordering::Relaxed);
        } else {
            self.count_apart(1);
        }
    }

    /// Puts a reference. The caller is in a critical section.
    #[inline(always)]
    pub(super) fn put(this: &Arc<Self>) {
        if this.is_killed() {
            Shared::put_killed(this);
        } else {
            this.count_apart(1_u64.wrapping_neg());
        }
    }

    /// Adds `by` to the thread's slot. The caller has loaded that the count is live, and is in a critical section.
    #[inline(always)]
    fn count_apart(&self, by: u64) {
        if self.column.with(|slot| slot.add(by)).is_none() {
            self.count_without_slot(by);
        }
    }

    #[cold]
    fn count_without_slot(&self, by: u64) {
        // ORDERING: Relaxed. The fold is ordered after this section, and `count` has its bias until then.
        self.count.fetch_add(by, Ordering::Relaxed);
    }

    #[cold]
    fn put_killed(this: &Arc<Self>) {
        // ORDERING: AcqRel. Release: what the caller did with the reference happens before what follows zero. Acquire: if
        // this one reaches zero, it continues with what the other puts have released.
        let before = this.count.fetch_sub(1, Ordering::AcqRel);
        if before == 1 {
            Shared::reach_zero(this);
        } else if is_zero(before) {
            // ORDERING: AcqRel, so that the puts before stay released to a load of this value.
            this.count.fetch_add(1, Ordering::AcqRel);
            this.report_surplus(1);
        }
    }

    /// Records the drain, after this thread has seen zero.
    fn reach_zero(this: &Arc<Self>) {
        let mut control = this.control.lock();
        // Since then, the count may have been resurrected, and killed again. Then zero was noted by the resurrector, or is
        // not reached yet.
        if control.phase != Phase::Draining || !this.is_zero() {
            return;
        }
        control.phase = Phase::Drained;
        drop(control);
        this.changed.notify_all();
        Shared::queue_release(this);
    }

    pub(super) fn is_zero(&self) -> bool {
        // ORDERING: Acquire, pairs with the Release of each put, and of the fold. They form one chain of updates.
        is_zero(self.count.load(Ordering::Acquire))
    }

    pub(super) fn kill(this: &Arc<Self>, confirm: Option<Confirm>) -> bool {
        let kill = {
            let mut control = this.control.lock();
            if control.phase != Phase::Live {
                return false;
            }
            control.phase = Phase::Switching;
            control.kills += 1;
            // ORDERING: Release, pairs with the Acquire in `is_killed`. The count needs no order here: each section that
            // opens after the deferral below sees this store, and the fold waits for all others.
            this.killed.store(true, Ordering::Release);
            control.kills
        };
        let shared = Arc::clone(this);
        this.domain.inner().defer(size_of::<Shared>(), move || Shared::fold(&shared, kill, confirm));
        true
    }

    /// Makes one count of all, after the grace period of kill number `kill`.
    fn fold(this: &Arc<Self>, kill: u64, confirm: Option<Confirm>) {
        let mut control = this.control.lock();
        if control.phase != Phase::Switching || control.kills != kill {
            // The kill was called off.
            return;
        }
        let sum = this.column.sum();
        let counted = sum.wrapping_sub(control.folded);
        control.folded = sum;
        let change = counted.wrapping_sub(BIAS);
        // ORDERING: AcqRel. Release: the grace period has ordered what was done with the references in slots before this,
        // and so it happens before what follows zero. Acquire: the same for puts in `count`, if this reaches zero.
        let left = this.count.fetch_add(change, Ordering::AcqRel).wrapping_add(change);
        let surplus = (left as i64).min(0).unsigned_abs();
        if surplus > 0 {
            // ORDERING: AcqRel, as in `put_killed`.
            this.count.fetch_add(surplus, Ordering::AcqRel);
        }
        let is_drained = is_zero(left);
        control.phase = if is_drained { Phase::Drained } else { Phase::Draining };
        drop(control);
        this.changed.notify_all();
        if surplus > 0 {
            this.report_surplus(surplus);
        }
        if let Some(confirm) = confirm {
            this.domain.inner().contained(confirm);
        }
        if is_drained && let Some(release) = &this.release {
            this.domain.inner().contained(release);
        }
    }

    pub(super) fn resurrect(this: &Arc<Self>) -> bool {
        let mut control = this.control.lock();
        let is_drained = match control.phase {
            Phase::Live => return false,
            // The fold of this kill will do nothing. `count` has its bias.
            Phase::Switching => false,
            Phase::Draining | Phase::Drained => {
                // ORDERING: AcqRel, a link in the chain of updates, as a put.
                let before = this.count.fetch_add(BIAS, Ordering::AcqRel);
                // The last put has reached zero, and waits for the lock. It will find another phase.
                control.phase == Phase::Draining && is_zero(before)
            }
        };
        control.phase = Phase::Live;
        // ORDERING: Release, pairs with the Acquire in `is_killed`. A thread that counts in its slot from now on does so
        // after the fold has loaded it, and after `count` has its bias.
        this.killed.store(false, Ordering::Release);
        drop(control);
        this.changed.notify_all();
        if is_drained {
            Shared::queue_release(this);
        }
        true
    }

    /// Has the release run where destructors run. The caller may hold locks of the program.
    fn queue_release(this: &Arc<Self>) {
        if this.release.is_none() {
            return;
        }
        let shared = Arc::clone(this);
        this.domain.inner().defer(size_of::<Shared>(), move || {
            if let Some(release) = &shared.release {
                release();
            }
        });
    }

    /// Waits for zero, until the deadline if there is one.
    pub(super) fn wait_zero(&self, deadline: Option<Instant>) -> bool {
        let left = || deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
        let mut pause = Pause::new();
        loop {
            let mut control = self.control.lock();
            match control.phase {
                Phase::Live => return false,
                Phase::Drained => return true,
                _ if left().is_zero() => return false,
                Phase::Draining => wait_for(&self.changed, &mut control, left()),
                Phase::Switching => {
                    drop(control);
                    self.domain.reclaim(ROUND);
                    pause.pause();
                }
            }
        }
    }

    /// Logs that there were more puts than gets.
    #[cold]
    fn report_surplus(&self, puts: u64) {
        log::error!("domain `{}`: a PercpuRef has had more puts than gets, by {puts}", self.domain.name());
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Control { phase, .. } = *self.control.lock();
        // ORDERING: Relaxed, a figure.
        let count = self.count.load(Ordering::Relaxed);
        let count = matches!(phase, Phase::Draining | Phase::Drained).then_some(count as i64);
        let domain = self.domain.name();
        f.debug_struct("PercpuRef").field("domain", &domain).field("phase", &phase).field("count", &count).finish()
    }
}
