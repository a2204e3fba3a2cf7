//! Runs contenders in turns (A B C A B C) in many short rounds. The same threads run all turns, and start each
//! together.

use crate::cases::{Drops, Idiom, Kind, Series};
use benches::{heap, stay_on_core};
use parking_lot::Mutex;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The most times that a turn is repeated.
const ATTEMPTS: usize = 15;

/// The result of one turn on one thread.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Nanoseconds per operation.
    pub nanoseconds: f64,
    /// A checksum, on which all contenders must agree.
    pub sum: u64,
    time: Duration,
    end: Instant,
}

impl Sample {
    /// Returns a sample of `operations` operations that took `time`.
    pub fn new(time: Duration, operations: usize, sum: u64) -> Sample {
        let nanoseconds = time.as_nanos() as f64 / operations.max(1) as f64;
        Sample { nanoseconds, sum, time, end: Instant::now() }
    }

    /// Returns the sample of a turn that did not finish.
    pub fn none(sum: u64) -> Sample {
        Sample { nanoseconds: f64::NAN, ..Sample::new(Duration::ZERO, 1, sum) }
    }
}

/// Times `pass` over `keys`. The first quarter warms up the caches and does not count.
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

/// Times `read` of each key in `keys`.
#[inline(always)]
pub fn reads<K>(keys: &[K], mut read: impl FnMut(&K) -> Option<u64>) -> Sample {
    timed(keys, |keys| keys.iter().fold(0, |sum, key| sum.wrapping_add(read(key).unwrap_or(1))))
}

/// A contender, with the function that runs one of its turns on the input drawn for the round.
pub struct Lane<'m, T> {
    pub name: &'static str,
    pub idiom: Idiom,
    pub kind: Kind,
    /// The index of the contender's input, if several inputs are drawn for a round. Contenders with the same input must
    /// return the same checksum.
    pub set: usize,
    /// When removed values are dropped, for a contender that writes.
    pub drops: Option<Drops>,
    pub turn: Box<dyn FnMut(&T) -> Sample + 'm>,
}

impl<'m, T> Lane<'m, T> {
    pub fn new(name: &'static str, idiom: Idiom, kind: Kind, turn: impl FnMut(&T) -> Sample + 'm) -> Self {
        Lane { name, idiom, kind, set: idiom as usize, drops: None, turn: Box::new(turn) }
    }
}

/// A barrier for the threads. Waiting threads spin, because a thread that slept would start late.
struct Start {
    threads: usize,
    /// The number of spins after which a thread yields its core, minus one. If there is a core for each thread, that is
    /// longer than a turn.
    patience: u32,
    arrived: AtomicUsize,
}

impl Start {
    fn wait(&self) {
        // ORDERING: AcqRel here, and Acquire below: what each thread did before the barrier happens before what any
        // thread does after it.
        let place = self.arrived.fetch_add(1, Ordering::AcqRel);
        let all = (place / self.threads + 1) * self.threads;
        let mut spins = 0_u32;
        while self.arrived.load(Ordering::Acquire) < all {
            spins += 1;
            if spins & self.patience == 0 { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
    }
}

/// Returns whether all threads ran at the same time for at least three quarters of the slowest thread's time.
fn overlap(samples: impl Iterator<Item = Sample> + Clone) -> bool {
    let begin = samples.clone().map(|sample| sample.end - sample.time).max();
    let end = samples.clone().map(|sample| sample.end).min();
    let longest = samples.map(|sample| sample.time).max();
    let (Some(begin), Some(end), Some(longest)) = (begin, end, longest) else { return false };
    4 * end.saturating_duration_since(begin) >= 3 * longest
}

/// Runs the contenders that `lanes` makes in turns on `threads` threads, for `rounds` rounds after one that does not
/// count. Each turn gets the input that `draw` makes for the round and the thread. The time of a turn is that of its
/// slowest thread.
///
/// If there is a core for each thread, a turn in which the threads did not overlap is repeated. If they never
/// overlap, the turn gives no sample: on a machine with other load, one thread may have waited for its core while
/// another ran without competition.
pub fn interleave<'m, T>(
    threads: usize,
    rounds: usize,
    draw: impl Fn(usize, usize) -> T + Sync,
    lanes: impl Fn() -> Vec<Lane<'m, T>> + Sync,
) -> Vec<Series> {
    turns(threads, rounds, false, draw, lanes)
}

/// Works as [`interleave`], and adds a last round that is not timed and in which allocated bytes are counted.
pub fn interleave_weighed<'m, T>(
    threads: usize,
    rounds: usize,
    draw: impl Fn(usize, usize) -> T + Sync,
    lanes: impl Fn() -> Vec<Lane<'m, T>> + Sync,
) -> Vec<Series> {
    turns(threads, rounds, true, draw, lanes)
}

/// Runs one turn of each contender on all threads, and returns its peak of allocated bytes. Only the first thread
/// returns peaks; the others return 0.
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
                    // Draws another input, because the old one is in the cache now.
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
    // Turns on one thread also use a spawned thread: in some runs the locked instructions of some contenders took
    // longer on the main thread than on others.
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
            assert_eq!(
                sum(lane),
                sum(first),
                "{name}, {idiom:?}: the checksum differs from that of the first contender"
            );
        }
    }
    let series = |(lane, (named, _)): (usize, &(Series, usize))| Series {
        rounds: (1..=rounds)
            .map(|round| {
                let times = || of(round, lane).map(|sample| sample.nanoseconds);
                // `f64::max` ignores NaN.
                let slowest = if times().any(f64::is_nan) { f64::NAN } else { times().fold(0.0, f64::max) };
                if together && !overlap(of(round, lane)) { f64::NAN } else { slowest }
            })
            .collect(),
        peak: peaks.get(lane).copied(),
        ..named.clone()
    };
    names.iter().enumerate().map(series).collect()
}
