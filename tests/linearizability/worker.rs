//! A thread that makes random calls to a registry and records them.

use super::checker::{Call, Effect};
use super::common::{FewBits, Rng};
use super::history::{Record, Watch};
use epoch_registry::{Handle, Reader, Registry};
use std::cell::RefCell;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;

thread_local! {
    static PAUSES: RefCell<Rng> = RefCell::new(Rng::new(1));
}

/// Spins for a short time or yields, now and then. It yields because there may be more threads than cores.
pub fn pause() {
    match PAUSES.with_borrow_mut(|rng| rng.below(96)) {
        0 => thread::yield_now(),
        spins @ 1..16 => (0..spins * 4).for_each(|_| std::hint::spin_loop()),
        _ => {}
    }
}

/// A key that pauses when it is compared. This is in the middle of a lookup, or of a write under the shard lock.
#[derive(Clone, Copy, Debug)]
pub struct Key(pub u64);

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        pause();
        self.0 == other.0
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

pub type Map = Registry<Key, u64, FewBits>;

/// The threads of a round meet here before each history. A thread spins at first, so that all threads start together.
/// It yields after that, because there may be more threads than cores.
pub struct Meeting {
    threads: usize,
    arrived: AtomicUsize,
    failed: AtomicBool,
}

impl Meeting {
    pub fn new(threads: usize) -> Self {
        Meeting { threads, arrived: AtomicUsize::new(0), failed: AtomicBool::new(false) }
    }

    pub fn wait(&self) {
        let goal = (self.arrived.fetch_add(1, SeqCst) / self.threads + 1) * self.threads;
        let mut turns = 0;
        while self.arrived.load(SeqCst) < goal {
            assert!(!self.failed.load(SeqCst), "another thread panicked");
            turns += 1;
            if turns < 200 { std::hint::spin_loop() } else { thread::yield_now() }
        }
    }
}

/// Tells the other threads if its thread panics.
struct Presence<'m>(&'m Meeting);

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.failed.store(true, SeqCst);
        }
    }
}

/// The data that the threads of a round share.
pub struct Round<'r> {
    pub seed: u64,
    pub histories: usize,
    /// The calls of each thread in a history. A thread makes up to three more.
    pub calls: u64,
    pub map: &'r Map,
    /// The domain's backlog has a limit, and removals may be refused.
    pub refusing: bool,
    /// The map takes so few entries that insertions evict others.
    pub bounded: bool,
    pub watch: Watch,
    pub meeting: Meeting,
}

/// The first of the filler keys. Threads use them to make tables grow and shrink. No history is about them.
pub const FILLERS: u64 = 1 << 32;

pub struct Worker<'r> {
    pub round: &'r Round<'r>,
    pub thread: usize,
    pub rng: Rng,
    pub reader: Reader<'r, Key, u64, FewBits>,
    pub held: Vec<(usize, Handle<Key, u64>)>,
    pub fillers: u64,
    pub values: u64,
    /// The first key of the history.
    pub base: u64,
    pub keys: usize,
    pub records: Vec<Record>,
}

impl<'r> Worker<'r> {
    pub fn new(round: &'r Round<'r>, thread: usize) -> Self {
        let seed = round.seed << 8 | thread as u64;
        PAUSES.set(Rng::new(seed));
        Worker {
            round,
            thread,
            rng: Rng::new(seed),
            reader: round.map.reader(),
            held: Vec::new(),
            fillers: 0,
            values: thread as u64 * 1_000_000,
            base: 0,
            keys: 0,
            records: Vec::new(),
        }
    }

    /// Runs the thread's part of all histories of the round.
    pub fn run(mut self) -> Vec<Vec<Record>> {
        let _presence = Presence(&self.round.meeting);
        // The same random numbers for all threads.
        let mut common = Rng::new(self.round.seed);
        (0..self.round.histories as u64).map(|history| self.history(history, &mut common)).collect()
    }

    fn history(&mut self, number: u64, common: &mut Rng) -> Vec<Record> {
        let before = self.base..self.base + self.keys as u64;
        self.base = number * 4;
        self.keys = 2 + common.below(2) as usize;
        self.records = Vec::with_capacity(64);
        // Enables one to three operations of every three. So each history has operations that insert and operations
        // that read.
        let mut enabled: Vec<fn(&mut Self, usize)> = Vec::new();
        for three in Self::OPERATIONS.chunks(3) {
            let which = 1 + common.below(7);
            enabled.extend((0..3).filter(|bit| which >> bit & 1 == 1).map(|bit| three[bit]));
        }
        if common.below(2) == 0 && self.thread == 1 {
            // A thread that only watches reads often enough to see short gaps.
            enabled = vec![Self::watch];
        }
        let filled = common.below(2) == 0;
        self.round.meeting.wait();
        if self.thread == 0 {
            before.for_each(|key| drop(self.round.map.remove(&Key(key))));
            (0..if filled { self.keys } else { 0 }).for_each(|key| self.insert(key));
        }
        for _ in 0..self.round.calls + self.rng.below(4) {
            pause();
            // The first key is chosen more often than the others.
            let key = self.rng.below(self.keys as u64) * self.rng.below(2);
            let operation = enabled[self.rng.below(enabled.len() as u64) as usize];
            operation(self, key as usize);
        }
        self.held.clear();
        std::mem::take(&mut self.records)
    }

    pub fn key(&self, key: usize) -> Key {
        Key(self.base + key as u64)
    }

    pub fn value(&mut self) -> u64 {
        self.values += 1;
        self.values
    }

    pub fn record(&mut self, key: usize, name: &'static str, begun: u64, ended: u64, effect: Effect) {
        let call = Call { begun, ended, effect };
        self.records.push(Record { thread: self.thread, key, name, call });
    }

    /// Records that a call may have evicted any entry of the history, except the one under key `spared`.
    pub fn record_eviction(&mut self, spared: Option<usize>, name: &'static str, begun: u64, ended: u64) {
        for key in (0..self.keys).filter(|&key| Some(key) != spared) {
            self.record(key, name, begun, ended, Effect::MayHaveCleared);
        }
    }

    /// Calls `f`, and records the effect that it returns.
    pub fn call(&mut self, key: usize, name: &'static str, f: impl FnOnce(&mut Self, &Map, Key) -> Effect) {
        let (map, which) = (self.round.map, self.key(key));
        let begun = self.round.watch.now();
        let effect = f(self, map, which);
        let ended = self.round.watch.now();
        self.record(key, name, begun, ended, effect);
        if self.round.bounded && matches!(effect, Effect::Changed(None, Some(_))) {
            self.record_eviction(Some(key), name, begun, ended);
        }
    }
}
