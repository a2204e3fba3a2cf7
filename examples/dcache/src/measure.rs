//! Resolves the paths of a population with many threads for a while, and calls a watcher at intervals.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::cache::{Dcache, Source};
use crate::dentry::{Answer, ask};
use crate::sample::{Population, Sample};

#[derive(Default)]
pub struct Measured {
    pub resolved: u64,
    /// The number of answers by their origin, in the order of [`Source`].
    pub sources: [u64; 3],
    pub elapsed: Duration,
    /// The samples for which an answer differed from the expected one.
    pub doubtful: BTreeSet<u32>,
}

impl Measured {
    pub fn per_second(&self) -> f64 {
        self.resolved as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Returns the share of answers that came from the cache, among the paths that are cached.
    pub fn hit_rate(&self) -> f64 {
        let [cache, filled, _] = self.sources;
        cache as f64 / (cache + filled).max(1) as f64
    }

    fn add(&mut self, one: Measured) {
        self.resolved += one.resolved;
        self.elapsed += one.elapsed;
        self.sources.iter_mut().zip(one.sources).for_each(|(all, one)| *all += one);
        self.doubtful.extend(one.doubtful);
    }
}

/// The measurements of the cache and of the file system.
pub struct Both {
    pub by_cache: Measured,
    pub by_file_system: Measured,
}

/// The number of turns. The two take turns, so that other work of the machine disturbs both alike.
const TURNS: usize = 4;

/// The time between two calls of the watcher.
const INTERVAL: Duration = Duration::from_millis(2);

/// Resolves paths for `time` by the cache, and for `time` by the file system.
pub fn measure(
    cache: &Dcache,
    population: &Population,
    threads: usize,
    time: Duration,
    mut watch: impl FnMut(),
) -> Both {
    let (mut by_cache, mut by_file_system) = (Measured::default(), Measured::default());
    for turn in 0..TURNS {
        let run = Run { population, threads, turn, time: time / TURNS as u32 };
        by_cache.add(run.measure(&mut watch, |resolve_all| {
            let mut reader = cache.reader();
            resolve_all(&mut |sample| cache.resolve(&mut reader, &sample.relative));
        }));
        by_file_system.add(run.measure(&mut watch, |resolve_all| {
            resolve_all(&mut |sample| (ask(&sample.absolute), Source::FileSystem));
        }));
    }
    Both { by_cache, by_file_system }
}

/// One turn.
struct Run<'p> {
    population: &'p Population,
    threads: usize,
    turn: usize,
    time: Duration,
}

type Resolve<'a> = dyn FnMut(&Sample) -> (Answer, Source) + 'a;

impl Run<'_> {
    /// `with_resolver` calls its argument with a resolver that belongs to the calling thread.
    fn measure(
        &self,
        watch: &mut impl FnMut(),
        with_resolver: impl Fn(&mut dyn FnMut(&mut Resolve<'_>)) + Sync,
    ) -> Measured {
        let stop = AtomicBool::new(self.population.trace.is_empty());
        let started = Instant::now();
        let resolve = |thread: usize| {
            let mut measured = Measured::default();
            with_resolver(&mut |resolver| measured = self.resolve(thread, &stop, resolver));
            measured
        };
        let mut all = Measured::default();
        std::thread::scope(|scope| {
            let resolve = &resolve;
            let running: Vec<_> = (0..self.threads).map(|thread| scope.spawn(move || resolve(thread))).collect();
            // ORDERING: Relaxed, as in `resolve`.
            while started.elapsed() < self.time && !stop.load(Ordering::Relaxed) {
                std::thread::sleep(INTERVAL.min(self.time));
                watch();
            }
            stop.store(true, Ordering::Relaxed);
            running.into_iter().for_each(|thread| all.add(thread.join().expect("a resolver panicked")));
        });
        Measured { elapsed: started.elapsed(), ..all }
    }

    /// Resolves paths on one thread. Each thread begins at another place of the trace, and so does each turn.
    fn resolve(&self, thread: usize, stop: &AtomicBool, resolver: &mut Resolve<'_>) -> Measured {
        let mut measured = Measured::default();
        let (samples, trace) = (&self.population.samples, &self.population.trace);
        let first = trace.len() / (TURNS * self.threads) * (self.turn * self.threads + thread);
        let (last, next) = trace.split_at(first);
        for &at in next.iter().chain(last).cycle() {
            // ORDERING: Relaxed. The flag publishes nothing.
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let sample = &samples[at as usize];
            let (answer, source) = resolver(sample);
            measured.resolved += 1;
            measured.sources[source as usize] += 1;
            if answer != sample.expected {
                measured.doubtful.insert(at);
            }
        }
        measured
    }
}
