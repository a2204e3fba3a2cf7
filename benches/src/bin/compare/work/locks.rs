//! One small structure that all threads share: read and written under locks, a seqlock, arc-swap, a cell of ours and a
//! registry of ours with one key.

use super::Results;
use crate::cases::{Case, Drops, Idiom, Kind};
use crate::harness::{Lane, Sample, interleave};
use crate::peers;
use crate::plan::Plan;
use arc_swap::{ArcSwap, Cache};
use crossbeam_utils::atomic::AtomicCell;
use crossbeam_utils::sync::ShardedLock;
use epoch_registry::{Domain, RcuCell, Registry};
use parking_lot::{Mutex, RwLock};
use seqlock::SeqLock;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

/// Three numbers that belong together: each is one more than the one before.
type Three = [u64; 3];

fn three(number: u64) -> Three {
    [number, number + 1, number + 2]
}

/// Returns zero, unless the numbers do not belong together. This uses all of them.
#[inline(always)]
fn torn(three: &Three) -> u64 {
    let [first, second, third] = *three;
    (second.wrapping_sub(first) ^ 1) | (third.wrapping_sub(second) ^ 1)
}

/// How many of the operations are writes.
#[derive(Clone, Copy)]
enum Mix {
    Reads,
    /// One write in this many operations.
    OneIn(usize),
    Writes,
}

impl Mix {
    const ALL: [(&'static str, Mix); 4] = [
        ("reads", Mix::Reads),
        ("writes", Mix::Writes),
        ("999 reads, 1 write", Mix::OneIn(1_000)),
        ("1 read, 1 write", Mix::OneIn(2)),
    ];

    /// Returns whether the mix is measured on this many threads: one, or all cores.
    fn wants(self, threads: usize) -> bool {
        match self {
            Mix::Reads => true,
            Mix::Writes => threads == 1,
            Mix::OneIn(_) => threads > 1,
        }
    }
}

/// The contenders, each with one structure.
struct Structures {
    cell: RcuCell<Three>,
    registry: Registry<u64, Three>,
    arc_swap: ArcSwap<Three>,
    seqlock: SeqLock<Three>,
    atomic_cell: AtomicCell<Three>,
    rwlock: RwLock<Three>,
    sharded: ShardedLock<Three>,
    mutex: Mutex<Three>,
    std_mutex: std::sync::Mutex<Three>,
}

/// The only key of the registry.
const KEY: u64 = 0;

impl Structures {
    fn new() -> Structures {
        let registry = Registry::builder()
            .hasher(peers::our_hasher())
            .domain(Domain::builder().name("locks: registry").build())
            .build();
        registry.set(KEY, three(0));
        Structures {
            cell: RcuCell::new_in(three(0), &Domain::builder().name("locks: cell").build()),
            registry,
            arc_swap: ArcSwap::from_pointee(three(0)),
            seqlock: SeqLock::new(three(0)),
            atomic_cell: AtomicCell::new(three(0)),
            rwlock: RwLock::new(three(0)),
            sharded: ShardedLock::new(three(0)),
            mutex: Mutex::new(three(0)),
            std_mutex: std::sync::Mutex::new(three(0)),
        }
    }

    /// Returns the contenders. Each makes what its thread reads with at the beginning of its turn.
    fn lanes(&self, mix: Mix, count: usize) -> Vec<Lane<'_, ()>> {
        use Drops::{AtOnce, Later};
        use Idiom::{Each, Session};
        use Kind::{LockFree, Locking, Ours};
        let store = move |number| _ = black_box(self.cell.store(three(number)));
        let set = move |number| _ = black_box(self.registry.set(KEY, three(number)));
        let swap = move |number| self.arc_swap.store(Arc::new(three(number)));
        let found = "the key is present";
        let mut lanes = vec![
            lane(mix, "RcuCell", Session, Ours, Later, move |()| {
                let mut reader = self.cell.reader();
                turn(mix, count, || torn(reader.read()), store)
            }),
            lane(mix, "RcuCell, section", Session, Ours, Later, move |()| {
                let mut session = self.cell.domain().session();
                turn(mix, count, || torn(self.cell.read(&session.section())), store)
            }),
            lane(mix, "RcuCell", Each, Ours, Later, move |()| turn(mix, count, || self.cell.with(torn), store)),
            lane(mix, "registry", Session, Ours, Later, move |()| {
                let mut reader = self.registry.reader();
                turn(mix, count, || torn(&reader.get(&KEY).expect(found)), set)
            }),
            lane(mix, "registry", Each, Ours, Later, move |()| {
                turn(mix, count, || self.registry.with(&KEY, |entry| torn(&entry)).expect(found), set)
            }),
            lane(mix, "arc-swap", Each, LockFree, AtOnce, move |()| {
                turn(mix, count, || torn(&self.arc_swap.load()), swap)
            }),
            lane(mix, "arc-swap Cache", Session, LockFree, Later, move |()| {
                let mut cache = Cache::new(&self.arc_swap);
                turn(mix, count, || torn(cache.load()), swap)
            }),
            lane(mix, "seqlock", Each, Locking, AtOnce, move |()| {
                let write = |number| *self.seqlock.lock_write() = three(number);
                turn(mix, count, || torn(&self.seqlock.read()), write)
            }),
            lane(mix, "AtomicCell", Each, Locking, AtOnce, move |()| {
                turn(mix, count, || torn(&self.atomic_cell.load()), |number| self.atomic_cell.store(three(number)))
            }),
            lane(mix, "RwLock (parking_lot)", Each, Locking, AtOnce, move |()| {
                let read = || {
                    let copy = *self.rwlock.read();
                    torn(&copy)
                };
                turn(mix, count, read, |number| *self.rwlock.write() = three(number))
            }),
            lane(mix, "ShardedLock", Each, Locking, AtOnce, move |()| {
                let read = || {
                    let copy = *self.sharded.read().unwrap();
                    torn(&copy)
                };
                turn(mix, count, read, |number| *self.sharded.write().unwrap() = three(number))
            }),
            lane(mix, "Mutex (parking_lot)", Each, Locking, AtOnce, move |()| {
                let read = || {
                    let copy = *self.mutex.lock();
                    torn(&copy)
                };
                turn(mix, count, read, |number| *self.mutex.lock() = three(number))
            }),
            lane(mix, "Mutex (std)", Each, Locking, AtOnce, move |()| {
                let read = || {
                    let copy = *self.std_mutex.lock().unwrap();
                    torn(&copy)
                };
                turn(mix, count, read, |number| *self.std_mutex.lock().unwrap() = three(number))
            }),
        ];
        // How a thread reads makes no difference where none reads.
        lanes.retain(|lane| !matches!(mix, Mix::Writes) || lane.idiom == Each);
        lanes
    }
}

fn lane<'s>(
    mix: Mix,
    name: &'static str,
    idiom: Idiom,
    kind: Kind,
    drops: Drops,
    turn: impl FnMut(&()) -> Sample + 's,
) -> Lane<'s, ()> {
    let drops = (!matches!(mix, Mix::Reads)).then_some(drops);
    // One checksum for all: it is always zero.
    Lane { drops, set: 0, ..Lane::new(name, idiom, kind, turn) }
}

/// Times `count` operations after a few that do not count. The checksum is zero, unless a read was torn.
#[inline(always)]
fn turn(mix: Mix, count: usize, mut read: impl FnMut() -> u64, mut write: impl FnMut(u64)) -> Sample {
    let period = match mix {
        Mix::Reads => usize::MAX,
        Mix::OneIn(period) => period,
        Mix::Writes => 1,
    };
    let (mut sum, mut number, mut left) = (0, 0, period);
    let mut run = |count: usize| {
        for _ in 0..count {
            left -= 1;
            if left == 0 {
                (left, number) = (period, number + 1);
                write(number);
            } else {
                sum |= black_box(read());
            }
        }
    };
    run(count / 4);
    let begin = Instant::now();
    run(count);
    let time = begin.elapsed();
    Sample::new(time, count, sum)
}

pub fn run(plan: &Plan, results: &mut Results) {
    // The turns are short. A thread that loses its core, or sleeps for a lock, spoils the rest of its turn.
    let (count, rounds) = (plan.amount(8_192, 2_048), plan.rounds(101));
    for threads in plan.threads() {
        for (work, mix) in Mix::ALL.into_iter().filter(|(_, mix)| mix.wants(threads)) {
            let structures = Structures::new();
            let series = interleave(threads, rounds, |_, _| (), || structures.lanes(mix, count));
            let case = Case { group: "locks", work, what: "three numbers".into(), size: 1, threads };
            results.add(case, "ns/operation", series);
        }
    }
}
