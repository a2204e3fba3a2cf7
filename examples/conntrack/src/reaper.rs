//! Evicts flows that are idle by the capture's own clock.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::thread::Thread;
use std::time::Duration;

use crate::replay::Flows;
use crate::timeouts::Timeouts;

/// The number of entries examined, and of evicted flows destroyed, at a time.
const BUDGET: usize = 512;
/// How long the reaper sleeps when no sweep is due.
const NAP: Duration = Duration::from_millis(1);
/// The shortest time between two sweeps by the capture's clock, in nanoseconds.
const SHORTEST_INTERVAL: u64 = 1_000_000;
/// The threads that create flows wait for the reaper when there are more flows than this, plus twice what the
/// last sweep left.
const LEEWAY: usize = 16 << 10;

/// The progress of each worker, by the capture's clock.
pub struct Positions(Vec<AtomicU64>);

impl Positions {
    pub fn new(workers: usize) -> Self {
        Positions((0..workers).map(|_| AtomicU64::new(0)).collect())
    }

    /// Announces that the worker has counted every packet up to this time.
    pub fn announce(&self, worker: usize, time: u64) {
        // ORDERING: Release, pairs with the Acquire load in `clock`. A reaper that reads this time also sees the
        // packets counted before it, so it evicts no flow that such a packet keeps alive.
        self.0[worker].store(time, Release);
    }

    /// Returns the time that all workers have passed.
    fn clock(&self) -> u64 {
        // ORDERING: Acquire, pairs with the Release store in `announce`.
        self.0.iter().map(|position| position.load(Acquire)).min().unwrap_or(0)
    }
}

pub struct Reaper<'r> {
    registry: &'r Flows,
    positions: &'r Positions,
    timeouts: &'r Timeouts,
    /// When the next sweep is due, by the capture's clock.
    next_sweep: AtomicU64,
    /// The number of live flows after the last sweep.
    left: AtomicUsize,
    is_stopped: AtomicBool,
    peak_live: AtomicU64,
}

impl<'r> Reaper<'r> {
    pub fn new(registry: &'r Flows, positions: &'r Positions, timeouts: &'r Timeouts) -> Self {
        Reaper {
            registry,
            positions,
            timeouts,
            next_sweep: AtomicU64::new(0),
            left: AtomicUsize::new(0),
            is_stopped: AtomicBool::new(false),
            peak_live: AtomicU64::new(0),
        }
    }

    /// Sweeps the registry until it is stopped, each time the capture's clock has advanced by half the shortest
    /// timeout. So a flow stays for at most one and a half times its timeout.
    pub fn run(&self) {
        let interval = (self.timeouts.shortest() / 2).max(SHORTEST_INTERVAL);
        // ORDERING: Relaxed on all fields: counters and a flag that publish nothing. Joining the workers orders
        // their work.
        while !self.is_stopped.load(Relaxed) {
            if !self.is_due() {
                std::thread::park_timeout(NAP);
                continue;
            }
            let clock = self.positions.clock();
            self.sweep(clock);
            self.left.store(self.registry.len(), Relaxed);
            self.next_sweep.store(clock.saturating_add(interval), Relaxed);
        }
    }

    /// Waits while a sweep is due and the number of flows has more than doubled since the last one. Otherwise the
    /// threads that create flows could outrun the reaper, and memory would grow with the number of flows ever
    /// seen.
    pub fn catch_up(&self) {
        while self.is_due() && self.registry.len() > 2 * self.left.load(Relaxed) + LEEWAY {
            std::thread::sleep(NAP / 10);
        }
    }

    /// Returns whether a sweep is due or in progress.
    fn is_due(&self) -> bool {
        self.positions.clock() >= self.next_sweep.load(Relaxed)
    }

    pub fn stop(&self, thread: &Thread) {
        self.is_stopped.store(true, Relaxed);
        thread.unpark();
    }

    /// Returns the largest number of live flows at a sweep.
    pub fn peak_live(&self) -> u64 {
        self.peak_live.load(Relaxed)
    }

    /// Examines all entries in batches, and destroys what earlier evictions left behind.
    fn sweep(&self, clock: u64) {
        let live = self.registry.len();
        // ORDERING: Relaxed. A number for the report, which is read after this thread has been joined.
        self.peak_live.fetch_max(live as u64, Relaxed);
        for _ in 0..live.div_ceil(BUDGET) {
            self.registry.reap_if(BUDGET, |flow| flow.is_idle(clock, self.timeouts));
            self.registry.domain().reclaim(BUDGET);
        }
    }
}
