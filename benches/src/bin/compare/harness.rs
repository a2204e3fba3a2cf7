//! Contenders in turns, A B C A B C, in many short rounds; their threads stay, and begin each turn together.

use crate::cases::{Drops, Idiom, Kind, Series};
use benches::{heap, stay_on_core};
use parking_lot::Mutex;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How often a turn is tried again.
const ATTEMPTS: usize = 15;

/// What one turn came to on one thread.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Nanoseconds for one operation.
    pub nanoseconds: f64,
    /// What all contenders agree on, or the program is wrong.
    pub sum: u64,
    time: Duration,
    end: Instant,
}

impl Sample {
    /// So many operations in this time.
    pub fn new(time: Duration, operations: usize, sum: u64) -> Sample {
        let nanoseconds = time.as_nanos() as f64 / operations.max(1) as f64;
        Sample { nanoseconds, sum, time, end: Instant::now() }
    }

    /// A turn that did not come to its end.
    pub fn none(sum: u64) -> Sample {
        Sample { nanoseconds: f64::NAN, ..Sample::new(Duration::ZERO, 1, sum) }
    }
}

/// Times `pass` over `keys`, of which the first quarter settles caches and does not count.
#[inline(always)]
pub fn timed<K>(keys: &[K], mut pass: impl FnMut(&[K]) -> u64) -> Sample {
    let (first, rest) = keys.split_at(keys.len() / 4);
    let (mut sum, mut time) = (0_u64, Duration::ZERO);
    for part in [first, rest] {
        let begin = Instant::now();
        sum = sum.wrapping_add(black_box(pass(black_box(part))));
        time = begin.elapsed();
    }
    Sample::new(time, rest.len(), sum)
}

/// Times `read` of each of `keys`.
#[inline(always)]
pub fn reads<K>(keys: &[K], mut read: impl FnMut(&K) -> Option<u64>) -> Sample {
    timed(keys, |keys| keys.iter().fold(0, |sum, key| sum.wrapping_add(read(key).unwrap_or(1))))
}

/// A contender: what it does in one turn, with what was drawn for the round.
pub struct Lane<'m, T> {
    pub name: &'static str,
    pub idiom: Idiom,
    pub kind: Kind,
    /// Which of the things drawn for a round it is given, where they are several: what contenders that are given the same
    /// must agree on.
    pub set: usize,
    /// When removed values are dropped, of a contender that writes.
    pub drops: Option<Drops>,
    pub turn: Box<dyn FnMut(&T) -> Sample + 'm>,
}

impl<'m, T> Lane<'m, T> {
    pub fn new(name: &'static str, idiom: Idiom, kind: Kind, turn: impl FnMut(&T) -> Sample + 'm) -> Self {
        Lane { name, idiom, kind, set: idiom as usize, drops: None, turn: Box::new(turn) }
    }
}

/// Where the threads wait for one another. It spins: a thread that slept would begin late.
struct Start {
    threads: usize,
    /// Spins after which a thread lets others have its core, less one: more than a turn takes, if there is a core for
    /// each.
    patience: u32,
    arrived: AtomicUsize,
}

impl Start {
    fn wait(&self) {
        // ORDERING: AcqRel here and Acquire below, as for any barrier.
        let place = self.arrived.fetch_add(1, Ordering::AcqRel);
        let all = (place / self.threads + 1) * self.threads;
        let mut spins = 0_u32;
        while self.arrived.load(Ordering::Acquire) < all {
            spins += 1;
            if spins & self.patience == 0 { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
    }
}

/// Whether the threads were at it together, for three quarters of the time of the slowest at least.
fn overlap(samples: impl Iterator<Item = Sample> + Clone) -> bool {
    let begin = samples.clone().map(|sample| sample.end - sample.time).max();
    let end = samples.clone().map(|sample| sample.end).min();
    let longest = samples.map(|sample| sample.time).max();
    let (Some(begin), Some(end), Some(longest)) = (begin, end, longest) else { return false };
    4 * end.saturating_duration_since(begin) >= 3 * longest
}

/// Has the contenders that `lanes` makes take turns on so many threads, for so many rounds after one that does not
/// count, each with what `draw` draws for the round and the thread. A turn takes as long as its slowest thread.
///
/// Where there is a core for each thread, a turn in which they were not at it together is tried again, and is no sample
/// in the end: on a machine with other work to do, one may have waited for its core while the other had no competition.
pub fn interleave<'m, T>(
    threads: usize,
    rounds: usize,
    draw: impl Fn(usize, usize) -> T + Sync,
    lanes: impl Fn() -> Vec<Lane<'m, T>> + Sync,
) -> Vec<Series> {
    turns(threads, rounds, false, draw, lanes)
}

/// As [`interleave`], with a last round that is not timed and in which the bytes allocated are counted.
pub fn interleave_weighed<'m, T>(
    threads: usize,
    rounds: usize,
    draw: impl Fn(usize, usize) -> T + Sync,
    lanes: impl Fn() -> Vec<Lane<'m, T>> + Sync,
) -> Vec<Series> {
    turns(threads, rounds, true, draw, lanes)
}

/// The peak of each contender in a turn of its own on all threads, as the first thread sees it.
fn weigh<T>(thread: usize, start: &Start, drawn: &T, lanes: &mut [Lane<'_, T>]) -> Vec<f64> {
    let peak = |lane: &mut Lane<'_, T>| {
        start.wait();
        if thread == 0 {
            heap::start();
        }
        start.wait();
        (lane.turn)(drawn);
        start.wait();
        if thread == 0 { heap::stop().peak as f64 } else { 0.0 }
    };
    lanes.iter_mut().map(peak).collect()
}

fn turns<'m, T>(
    threads: usize,
    rounds: usize,
    weighed: bool,
    draw: impl Fn(usize, usize) -> T + Sync,
    lanes: impl Fn() -> Vec<Lane<'m, T>> + Sync,
) -> Vec<Series> {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let together = threads > 1 && threads <= cores;
    let patience = if together { 0xffff } else { 0x3ff };
    let start = Start { threads, patience, arrived: AtomicUsize::new(0) };
    let attempts = if together { ATTEMPTS } else { 0 };
    let turns: Vec<Mutex<Option<Sample>>> = (0..threads).map(|_| Mutex::new(None)).collect();
    let work = |thread: usize| {
        if together {
            stay_on_core(thread);
        }
        let mut lanes = lanes();
        let mut samples = Vec::new();
        for round in 0..=rounds {
            let drawn = draw(round, thread);
            for lane in &mut lanes {
                start.wait();
                let mut sample = (lane.turn)(&drawn);
                let sum = sample.sum;
                for attempt in 1..=attempts {
                    *turns[thread].lock() = Some(sample);
                    start.wait();
                    if overlap(turns.iter().filter_map(|turn| *turn.lock())) {
                        break;
                    }
                    // With other things than before, which are in the cache now.
                    let drawn = draw(round + attempt * (rounds + 1), thread);
                    start.wait();
                    sample = (lane.turn)(&drawn);
                }
                samples.push(Sample { sum, ..sample });
            }
        }
        let peaks = if weighed {
            let drawn = draw((attempts + 1) * (rounds + 1), thread);
            weigh(thread, &start, &drawn, &mut lanes)
        } else {
            vec![]
        };
        let names = lanes.iter().map(|lane| {
            (Series { drops: lane.drops, ..Series::new(lane.name, lane.idiom, lane.kind, vec![]) }, lane.set)
        });
        (names.collect::<Vec<_>>(), samples, peaks)
    };
    // One thread's turns are a spawned thread's too: in some runs the main thread's locked instructions took longer than
    // others', those of some contenders only.
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let work = &work;
        let workers: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
        workers.into_iter().map(|worker| worker.join().expect("no contender panics")).collect()
    });
    let (names, _, peaks) = &outcomes[0];
    let of =
        |round: usize, lane: usize| outcomes.iter().map(move |(_, samples, _)| samples[round * names.len() + lane]);
    for round in 0..=rounds {
        let sum = |lane| of(round, lane).fold(0_u64, |sum, sample| sum.wrapping_add(sample.sum));
        for (lane, (Series { name, idiom, .. }, set)) in names.iter().enumerate() {
            let first = names.iter().position(|(_, other)| other == set).expect("at least this one");
            assert_eq!(sum(lane), sum(first), "{name}, {idiom:?}: a result of its own");
        }
    }
    let series = |(lane, (named, _)): (usize, &(Series, usize))| Series {
        rounds: (1..=rounds)
            .map(|round| {
                let times = || of(round, lane).map(|sample| sample.nanoseconds);
                // `f64::max` passes over what is not a number.
                let slowest = if times().any(f64::is_nan) { f64::NAN } else { times().fold(0.0, f64::max) };
                if together && !overlap(of(round, lane)) { f64::NAN } else { slowest }
            })
            .collect(),
        peak: peaks.get(lane).copied(),
        ..named.clone()
    };
    names.iter().enumerate().map(series).collect()
}
