//! Measures what reclamation costs the readers of a map of 10,000 keys: the time of single reads of one thread, alone,
//! and while another thread removes and inserts values with a slow destructor (the *churn*).
//!
//! The time of a read includes the pin and the unpin, if each read has its own. The churn has the same fixed pace for
//! all contenders. Destructors take a quarter of a core's time, on whichever thread they run. There are two kinds of
//! churn:
//!
//! - Few changes, of values that take long to destroy. This shows which thread destroys them.
//! - Many changes, of values that take less. About one read in ten then loads a cache line that was changed since the
//!   reader's last load, and waits for it, in any map.
//!
//! The contenders take turns in several rounds, each time with a new map. All rounds together take `--seconds` for each
//! contender and kind of churn.
//!
//! Percentiles count reads: a reader that loses its core for a millisecond counts one slow read, whatever the cause.
//! The contender `empty` reads nothing, while another thread spins for as long as destructors would run. It shows the
//! noise of the machine and the cost of the clock.

use benches::{Clock, CommandLine, Sorted, Table, Xorshift, stay_on_core};
use crossbeam_epoch::{Atomic, Collector, Owned};
use epoch_registry::{Domain, Registry};
use hdrhistogram::Histogram;
use papaya::Guard as _;
use std::cell::Cell;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const KEYS: u64 = 10_000;
const ROUNDS: u32 = 8;
/// Reads between two renewals of the guard, for contenders that hold one.
const HELD: u32 = 64;

/// The work of the other thread.
struct Churn {
    name: &'static str,
    /// The number of changes in one burst, and the time between two bursts.
    burst: u64,
    interval: Duration,
    /// The time to destroy one value.
    destructor: Duration,
}

const CHURNS: [Churn; 2] = [
    Churn {
        name: "1,000 changes a second, destructors of 250 us",
        burst: 1,
        interval: Duration::from_micros(1000),
        destructor: Duration::from_micros(250),
    },
    Churn {
        name: "125,000 changes a second, destructors of 2 us",
        burst: 25,
        interval: Duration::from_micros(200),
        destructor: Duration::from_micros(2),
    },
];

/// A value whose destructor takes the time that the current churn sets. It holds its own key.
struct Slow(u64);

/// The destructor's time in nanoseconds. It is zero while a map is torn down.
static DESTRUCTOR: AtomicU64 = AtomicU64::new(0);

/// The number of destructors that ran on any thread.
static DESTROYED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The number of destructors that ran on this thread.
    static DESTROYED_HERE: Cell<u64> = const { Cell::new(0) };
}

impl Drop for Slow {
    fn drop(&mut self) {
        // ORDERING: Relaxed, for both accesses: a parameter and a statistic, which order nothing.
        spin(Duration::from_nanos(DESTRUCTOR.load(Ordering::Relaxed)));
        DESTROYED_HERE.set(DESTROYED_HERE.get() + 1);
        DESTROYED.fetch_add(1, Ordering::Relaxed);
    }
}

fn spin(time: Duration) {
    let begin = Instant::now();
    while begin.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// One contender's turn.
struct Trial<'c> {
    clock: &'c Clock,
    phase: Duration,
    round: u64,
    churn: &'c Churn,
}

/// The read times in ticks, and the number of values destroyed while another thread changed the map.
struct Outcome {
    alone: Histogram<u64>,
    churned: Histogram<u64>,
    changes: u64,
    destroyed: u64,
    destroyed_by_reader: u64,
}

impl Trial<'_> {
    /// Measures one map. On the reading thread, `reader` returns a function that reads the value of a key. On the other
    /// thread, `churner` returns a function that removes a key and inserts it again.
    fn run<R, C>(&self, reader: impl Fn() -> R + Sync, churner: impl Fn() -> C + Sync) -> Outcome
    where
        R: FnMut(u64) -> Option<u64>,
        C: FnMut(u64),
    {
        let read = || {
            stay_on_core(1);
            let times = self.read(reader());
            (times, DESTROYED_HERE.get())
        };
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (alone, _) = scope.spawn(read).join().unwrap();
            DESTRUCTOR.store(self.churn.destructor.as_nanos() as u64, Ordering::Relaxed);
            // ORDERING: Relaxed, here and below: a statistic, a parameter and a flag, none of which publishes anything.
            let destroyed = DESTROYED.load(Ordering::Relaxed);
            let churn = scope.spawn(|| {
                stay_on_core(0);
                self.churn(churner(), &over)
            });
            let reader = scope.spawn(read).join();
            let destroyed = DESTROYED.load(Ordering::Relaxed) - destroyed;
            over.store(true, Ordering::Relaxed);
            DESTRUCTOR.store(0, Ordering::Relaxed);
            let changes = churn.join().unwrap();
            let (churned, destroyed_by_reader) = reader.unwrap();
            Outcome { alone, churned, changes, destroyed, destroyed_by_reader }
        })
    }

    /// Reads for one phase. The first tenth does not count, so that the caches and the scheduler settle.
    fn read(&self, mut read: impl FnMut(u64) -> Option<u64>) -> Histogram<u64> {
        let clock = self.clock;
        // Two digits keep the histogram small in the cache. No read takes as long as an hour.
        let mut times = Histogram::new_with_max(clock.ticks(Duration::from_secs(3600)), 2).unwrap();
        let mut keys = Xorshift::new(2 * self.round + 1);
        let counts_from = clock.now() + clock.ticks(self.phase / 10);
        let ends = clock.now() + clock.ticks(self.phase);
        loop {
            let key = black_box(keys.below(KEYS));
            let begin = clock.now();
            let value = black_box(read(key));
            let end = clock.now();
            assert!(value.is_none_or(|value| value == key), "the value of key {key} is {value:?}");
            if begin >= counts_from {
                times.saturating_record(end - begin);
            }
            if end >= ends {
                return times;
            }
        }
    }

    /// Changes the map at a fixed pace until `over` is set. It catches up on delayed changes.
    fn churn(&self, mut churn: impl FnMut(u64), over: &AtomicBool) -> u64 {
        let mut keys = Xorshift::new(2 * self.round + 2);
        let mut due = Instant::now();
        let mut changes = 0;
        while !over.load(Ordering::Relaxed) {
            for _ in 0..self.churn.burst {
                churn(keys.below(KEYS));
            }
            changes += self.churn.burst;
            due += self.churn.interval;
            // This thread sleeps, since a reclaimer thread also needs a core.
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        changes
    }
}

fn empty(trial: &Trial) -> Outcome {
    trial.run(|| Some, || |_| spin(trial.churn.destructor))
}

fn registry(domain: Domain) -> Registry<u64, Slow> {
    let registry = Registry::builder().domain(domain).capacity(KEYS as usize).build();
    for key in 0..KEYS {
        assert!(registry.try_insert(key, Slow(key)).is_ok());
    }
    registry
}

fn churn_registry(registry: &Registry<u64, Slow>) -> impl FnMut(u64) {
    |key| {
        drop(registry.remove(&key));
        assert!(registry.try_insert(key, Slow(key)).is_ok());
    }
}

/// Returns a domain with a reclaimer thread.
fn reclaimed() -> Domain {
    Domain::builder().reclaimer(true).build()
}

fn ours_session(trial: &Trial, domain: Domain) -> Outcome {
    let registry = registry(domain);
    let reader = || {
        let mut reader = registry.reader();
        move |key| reader.get(&key).map(|value| value.0)
    };
    trial.run(reader, || churn_registry(&registry))
}

fn ours_pin(trial: &Trial) -> Outcome {
    let registry = registry(Domain::new());
    trial.run(|| |key| registry.pin().get(&key).map(|value| value.0), || churn_registry(&registry))
}

type Papaya = papaya::HashMap<u64, Slow, ahash::RandomState>;

fn papaya_map() -> Papaya {
    let map = Papaya::with_capacity_and_hasher(KEYS as usize, ahash::RandomState::new());
    for key in 0..KEYS {
        map.pin().insert(key, Slow(key));
    }
    map
}

fn churn_papaya(map: &Papaya) -> impl FnMut(u64) {
    |key| {
        let map = map.pin();
        map.remove(&key);
        map.insert(key, Slow(key));
    }
}

fn papaya_pin(trial: &Trial) -> Outcome {
    let map = papaya_map();
    trial.run(|| |key| map.pin().get(&key).map(|value| value.0), || churn_papaya(&map))
}

fn papaya_held(trial: &Trial) -> Outcome {
    let map = papaya_map();
    let reader = || {
        let (mut guard, mut reads) = (map.guard(), 0);
        let map = &map;
        move |key| {
            reads += 1;
            if reads % HELD == 0 {
                guard.refresh();
            }
            map.get(&key, &guard).map(|value| value.0)
        }
    };
    trial.run(reader, || churn_papaya(&map))
}

type Scc = scc::HashIndex<u64, Slow, ahash::RandomState>;

fn scc_map() -> Scc {
    let map = Scc::with_capacity_and_hasher(KEYS as usize, ahash::RandomState::new());
    for key in 0..KEYS {
        assert!(map.insert_sync(key, Slow(key)).is_ok());
    }
    map
}

fn churn_scc(map: &Scc) -> impl FnMut(u64) {
    |key| {
        map.remove_sync(&key);
        assert!(map.insert_sync(key, Slow(key)).is_ok());
    }
}

fn scc_peek_with(trial: &Trial) -> Outcome {
    let map = scc_map();
    trial.run(|| |key| map.peek_with(&key, |_, value| value.0), || churn_scc(&map))
}

fn scc_held(trial: &Trial) -> Outcome {
    let map = scc_map();
    let reader = || {
        let (mut guard, mut reads) = (Some(scc::Guard::new()), 0);
        let map = &map;
        move |key| {
            reads += 1;
            if reads % HELD == 0 {
                // The old guard must be dropped before the new one is made: nested guards share one section.
                guard = None;
            }
            map.peek(&key, guard.get_or_insert_with(scc::Guard::new)).map(|value| value.0)
        }
    };
    trial.run(reader, || churn_scc(&map))
}

/// A lower bound for the read times of maps over crossbeam-epoch: an array indexed by key. It has its own collector,
/// so that the garbage of one round is not destroyed in the next.
struct Slots(Vec<Atomic<Slow>>);

impl Drop for Slots {
    fn drop(&mut self) {
        for slot in self.0.drain(..) {
            // SAFETY: every slot holds a value, and no other thread can reach it any more.
            drop(unsafe { slot.into_owned() });
        }
    }
}

fn crossbeam_pin(trial: &Trial) -> Outcome {
    let collector = Collector::new();
    let slots = Slots((0..KEYS).map(|key| Atomic::new(Slow(key))).collect());
    let slots = &slots.0;
    let reader = || {
        let local = collector.register();
        move |key: u64| {
            let guard = local.pin();
            // ORDERING: Acquire, pairs with the AcqRel of the swap below.
            let value = slots[key as usize].load(Ordering::Acquire, &guard);
            // SAFETY: a value that was swapped out is destroyed after all sections that may have loaded it have ended.
            unsafe { value.as_ref() }.map(|value| value.0)
        }
    };
    let churner = || {
        let local = collector.register();
        move |key: u64| {
            let guard = local.pin();
            // ORDERING: AcqRel. Release publishes the new value, Acquire makes the old one visible to its destructor.
            let old = slots[key as usize].swap(Owned::new(Slow(key)), Ordering::AcqRel, &guard);
            // SAFETY: the swap has unlinked the value, and returned it to this thread only.
            unsafe { guard.defer_destroy(old) };
        }
    };
    trial.run(reader, churner)
}

type Contender = fn(&Trial) -> Outcome;

const CONTENDERS: [(&str, Contender); 9] = [
    ("empty", empty),
    ("ours, session", |trial| ours_session(trial, Domain::new())),
    ("ours, session, reclaimer", |trial| ours_session(trial, reclaimed())),
    ("ours, pin per read", ours_pin),
    ("papaya, pin per read", papaya_pin),
    ("papaya, guard of 64 reads", papaya_held),
    ("scc HashIndex, peek_with", scc_peek_with),
    ("scc HashIndex, guard of 64", scc_held),
    ("crossbeam array, pin per read", crossbeam_pin),
];

/// Returns p50, p99, p99.9, p99.99 and the maximum of a histogram, in ticks.
fn points(times: &Histogram<u64>) -> [u64; 5] {
    [50.0, 99.0, 99.9, 99.99, 100.0].map(|percent| times.value_at_percentile(percent))
}

fn main() {
    let CommandLine { amount, test } = CommandLine::read("seconds", 2);
    let rounds = if test { 1 } else { ROUNDS };
    let time = if test { Duration::from_millis(20) } else { Duration::from_secs(amount) };
    let clock = Clock::calibrate();
    println!("Single reads, in nanoseconds; {rounds} rounds. Ratios: the median of the rounds' [and the quartiles].");
    for churn in &CHURNS {
        let mut outcomes: [Vec<Outcome>; CONTENDERS.len()] = Default::default();
        for round in 0..rounds {
            let trial = Trial { clock: &clock, phase: time / rounds / 2, round: round.into(), churn };
            for ((_, contender), outcomes) in CONTENDERS.iter().zip(&mut outcomes) {
                outcomes.push(contender(&trial));
            }
        }
        println!("\n{}\n\n{}", churn.name, table(&clock, &outcomes));
    }
}

fn table(clock: &Clock, outcomes: &[Vec<Outcome>]) -> Table {
    let header =
        ["contender", "", "reads", "p50", "p99", "p99.9", "p99.99", "max", "changes", "destroyed", "by the reader"];
    let mut table = Table::new(2, header);
    for ((name, _), outcomes) in CONTENDERS.iter().zip(outcomes) {
        let mut row = |name: &str, what: &str, reads: String, times: [String; 5], counts: [String; 3]| {
            let ([p50, p99, p999, p9999, max], [changes, destroyed, by_reader]) = (times, counts);
            table.row([name.into(), what.into(), reads, p50, p99, p999, p9999, max, changes, destroyed, by_reader]);
        };
        let nanoseconds = |times| points(times).map(|ticks| format!("{:.0}", clock.nanoseconds(ticks)));
        let sum = |times: fn(&Outcome) -> &Histogram<u64>| {
            outcomes.iter().map(times).cloned().reduce(|sum, times| sum + times).expect("there is a round")
        };
        let alone = sum(|of| &of.alone);
        row(name, "alone", alone.len().to_string(), nanoseconds(&alone), Default::default());
        let churned = sum(|of| &of.churned);
        let counts: [fn(&Outcome) -> u64; 3] = [|of| of.changes, |of| of.destroyed, |of| of.destroyed_by_reader];
        let counts = counts.map(|count| outcomes.iter().map(count).sum::<u64>().to_string());
        row("", "churn", churned.len().to_string(), nanoseconds(&churned), counts);
        let ratio = |point: usize| {
            let ratio = |of: &Outcome| points(&of.churned)[point] as f64 / points(&of.alone)[point] as f64;
            Sorted::new(outcomes.iter().map(ratio)).to_string()
        };
        row("", "churn/alone", String::new(), [0, 1, 2, 3, 4].map(ratio), Default::default());
    }
    table
}
