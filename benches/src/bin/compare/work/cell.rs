//! One published pointer: reads without and with a writer, and writes, beside arc-swap, left-right and a lock around an
//! `Arc`.

use super::Results;
use crate::cases::{Case, Drops, Idiom, Kind};
use crate::harness::{Lane, Sample, interleave};
use crate::plan::Plan;
use arc_swap::{ArcSwap, Cache};
use epoch_registry::{Domain, RcuCell};
use left_right::{Absorb, ReadHandle, ReadHandleFactory, WriteHandle};
use parking_lot::{Mutex, RwLock};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

pub const READ: &str = "borrowed reads of one cell";
pub const LOAD: &str = "owned reads of one cell";
pub const STORE: &str = "stores to one cell";
pub const QUIET: &str = "no writer";
pub const WRITTEN: &str = "1,000 stores a second";
/// The number of threads that are registered as readers of all cells, and asleep, while one thread stores.
const SLEEPERS: usize = 16;

pub fn case(work: &'static str, what: impl Into<String>, threads: usize) -> Case {
    Case { group: "cell", work, what: what.into(), size: 1, threads }
}

/// Returns the parameters of a case of stores.
pub fn with_registered(threads: usize) -> String {
    format!("{threads} threads registered")
}

/// left-right's data: one number, and the operation that sets it.
#[derive(Clone, Default)]
struct Number(u64);

struct Set(u64);

impl Absorb<Set> for Number {
    fn absorb_first(&mut self, operation: &mut Set, _: &Self) {
        self.0 = operation.0;
    }

    fn sync_with(&mut self, first: &Self) {
        *self = first.clone();
    }
}

/// The contenders, each with one number.
struct Cells {
    ours: RcuCell<u64>,
    arc_swap: ArcSwap<u64>,
    left_right: ReadHandleFactory<Number>,
    writer: Mutex<WriteHandle<Number, Set>>,
    rwlock: RwLock<Arc<u64>>,
}

impl Cells {
    fn new() -> Cells {
        let (mut writer, reader) = left_right::new::<Number, Set>();
        writer.publish();
        let left_right = ReadHandle::factory(&reader);
        let ours = RcuCell::new_in(0, &Domain::builder().name("cell").build());
        let (arc_swap, rwlock) = (ArcSwap::from_pointee(0), RwLock::new(Arc::new(0)));
        Cells { ours, arc_swap, left_right, writer: Mutex::new(writer), rwlock }
    }

    fn store_left_right(&self, number: u64) {
        let mut writer = self.writer.lock();
        writer.append(Set(number));
        writer.publish();
    }

    /// Stores to all contenders every millisecond until `stop` is set.
    fn write(&self, stop: &AtomicBool) {
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            number += 1;
            self.ours.store(number);
            self.arc_swap.store(Arc::new(number));
            *self.rwlock.write() = Arc::new(number);
            self.store_left_right(number);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn readers(&self, count: usize) -> Vec<Lane<'_, ()>> {
        vec![
            Lane::new("RcuCell", Idiom::Session, Kind::Ours, move |()| {
                let mut reader = self.ours.reader();
                times(count, || *reader.read())
            }),
            Lane::new("RcuCell, section", Idiom::Session, Kind::Ours, move |()| {
                let mut session = self.ours.domain().session();
                times(count, || *self.ours.read(&session.section()))
            }),
            Lane::new("RcuCell", Idiom::Each, Kind::Ours, move |()| times(count, || self.ours.with(|number| *number))),
            Lane::new("arc-swap load", Idiom::Each, Kind::LockFree, move |()| times(count, || **self.arc_swap.load())),
            Lane::new("arc-swap Cache", Idiom::Session, Kind::LockFree, move |()| {
                let mut cache = Cache::new(&self.arc_swap);
                times(count, || **cache.load())
            }),
            Lane::new("left-right", Idiom::Each, Kind::LockFree, move |()| {
                let handle = self.left_right.handle();
                times(count, || handle.enter().expect("the writer lives").0)
            }),
            Lane::new("RwLock<Arc>", Idiom::Each, Kind::Locking, move |()| times(count, || **self.rwlock.read())),
        ]
    }

    fn owners(&self, count: usize) -> Vec<Lane<'_, ()>> {
        vec![
            Lane::new("RcuCell", Idiom::Session, Kind::Ours, move |()| {
                let mut reader = self.ours.reader();
                times(count, || *reader.load())
            }),
            Lane::new("RcuCell", Idiom::Each, Kind::Ours, move |()| times(count, || *self.ours.load())),
            Lane::new("arc-swap load_full", Idiom::Each, Kind::LockFree, move |()| {
                times(count, || *self.arc_swap.load_full())
            }),
            Lane::new("RwLock<Arc>", Idiom::Each, Kind::Locking, move |()| {
                times(count, || *Arc::clone(&self.rwlock.read()))
            }),
        ]
    }

    fn writers(&self, count: usize) -> Vec<Lane<'_, ()>> {
        vec![
            stores(count, Drops::Later, "RcuCell", Kind::Ours, move |number| _ = black_box(self.ours.store(number))),
            stores(count, Drops::AtOnce, "arc-swap load", Kind::LockFree, move |number| {
                self.arc_swap.store(Arc::new(number))
            }),
            stores(count, Drops::AtOnce, "left-right", Kind::LockFree, move |number| self.store_left_right(number)),
            stores(count, Drops::AtOnce, "RwLock<Arc>", Kind::Locking, move |number| {
                *self.rwlock.write() = Arc::new(number)
            }),
        ]
    }

    /// Registers this thread as a reader of all cells, and sleeps between the two waits.
    fn sleep(&self, barrier: &Barrier) {
        self.ours.with(|_| ());
        drop(self.arc_swap.load());
        let _handle = self.left_right.handle();
        barrier.wait();
        barrier.wait();
    }
}

/// Returns a lane of `count` stores of the numbers that follow each other.
fn stores<'c>(count: usize, drops: Drops, name: &'static str, kind: Kind, store: impl Fn(u64) + 'c) -> Lane<'c, ()> {
    let turn = move |()| {
        let mut number = 0;
        times(count, || {
            number += 1;
            store(number);
            number
        })
    };
    Lane { drops: Some(drops), ..Lane::new(name, Idiom::Each, kind, move |&()| turn(())) }
}

/// Times `count` calls of `work` after a few that do not count. The checksum is zero: values change under a writer.
fn times(count: usize, mut work: impl FnMut() -> u64) -> Sample {
    let mut run = |count: usize| (0..count).fold(0_u64, |sum, _| sum.wrapping_add(black_box(work())));
    black_box(run(count / 4));
    let begin = Instant::now();
    black_box(run(count));
    Sample::new(begin.elapsed(), count, 0)
}

pub fn run(plan: &Plan, results: &mut Results) {
    let (count, rounds) = (plan.amount(65_536, 1_024), plan.rounds(31));
    for threads in plan.threads() {
        for (what, is_written) in [(QUIET, false), (WRITTEN, true)] {
            let (cells, stop) = (Cells::new(), AtomicBool::new(false));
            std::thread::scope(|scope| {
                if is_written {
                    scope.spawn(|| cells.write(&stop));
                }
                let series = interleave(threads, rounds, |_, _| (), || cells.readers(count));
                results.add(case(READ, what, threads), "ns/read", series);
                let series = interleave(threads, rounds, |_, _| (), || cells.owners(count));
                results.add(case(LOAD, what, threads), "ns/read", series);
                stop.store(true, Ordering::Relaxed);
            });
        }
    }
    for registered in [1, SLEEPERS] {
        let cells = Cells::new();
        let barrier = Barrier::new(registered);
        std::thread::scope(|scope| {
            for _ in 1..registered {
                scope.spawn(|| cells.sleep(&barrier));
            }
            barrier.wait();
            let count = plan.amount(4_096, 256);
            let series = interleave(1, rounds, |_, _| (), || cells.writers(count));
            results.add(case(STORE, with_registered(registered), 1), "ns/store", series);
            barrier.wait();
        });
    }
}
