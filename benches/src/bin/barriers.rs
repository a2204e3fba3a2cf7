//! Measures how long a barrier takes while other threads flood the domain. Compares `Domain::barrier` with liburcu's
//! `rcu_barrier` (memb flavour, with the feature `liburcu`).
//!
//! One thread floods on each core except the last, but at least one thread floods. The thread on the last core calls
//! barriers in a loop. The contenders take turns, a few barriers each, for `--rounds` rounds. A turn ends when its
//! flood is drained, so that it does not slow the next turn.
//!
//! A barrier waits for everything deferred before it. So its latency is a grace period plus the time of all functions
//! and destructors that are already waiting. A collector that lets them pile up has a long latency here.

use benches::{Clock, CommandLine, Sorted, Table, figure, stay_on_core};
use epoch_registry::{Domain, Registry};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The most barriers in one turn.
const TURN: usize = 64;
/// The time after which a turn begins no further barrier.
const TURN_TIME: Duration = Duration::from_millis(60);
/// The pause before each barrier.
const PAUSE: Duration = Duration::from_micros(200);
/// The number of entries whose values are replaced.
const ENTRIES: u64 = 1_024;

/// The kind of flood.
#[derive(Clone, Copy, PartialEq)]
enum Load {
    None,
    /// Deferred functions that own 64 bytes, one per microsecond on each thread.
    PacedCalls,
    /// The same at full speed.
    Calls,
    /// Replacements of 64-byte values at full speed.
    Replacements,
}

const LOADS: [(&str, Load); 4] = [
    ("none", Load::None),
    ("a call each µs", Load::PacedCalls),
    ("calls", Load::Calls),
    ("replacements", Load::Replacements),
];

/// The state of one turn, by which the flooding threads learn that it is over.
#[derive(Default)]
struct Turn {
    begun: AtomicUsize,
    over: AtomicBool,
}

impl Turn {
    /// Calls `operation` until the turn is over. If `paced`, calls it about once per microsecond.
    fn flood(&self, paced: bool, mut operation: impl FnMut()) {
        operation();
        // ORDERING: Relaxed, here and for `over`: signals that publish nothing.
        self.begun.fetch_add(1, Ordering::Relaxed);
        let mut next = Instant::now();
        while !self.over.load(Ordering::Relaxed) {
            operation();
            if paced {
                next += Duration::from_micros(1);
                while Instant::now() < next {
                    std::hint::spin_loop();
                }
                // After a preemption the thread catches up on at most one millisecond.
                next = next.max(Instant::now() - Duration::from_millis(1));
            }
        }
    }
}

trait Contender: Sync {
    fn name(&self) -> &'static str;
    /// Waits for everything deferred before the call.
    fn barrier(&self);
    /// Runs a flooding thread in a turn.
    fn flood(&self, load: Load, turn: &Turn);
}

struct Ours {
    name: &'static str,
    domain: Domain,
    registry: Registry<u64, [u64; 8]>,
}

fn ours(name: &'static str, domain: Domain) -> Box<dyn Contender> {
    let registry = Registry::builder().domain(domain.clone()).capacity(ENTRIES as usize).build();
    (0..ENTRIES).for_each(|key| drop(registry.try_insert(key, [key; 8])));
    Box::new(Ours { name, domain, registry })
}

impl Contender for Ours {
    fn name(&self) -> &'static str {
        self.name
    }

    fn barrier(&self) {
        self.domain.barrier();
    }

    fn flood(&self, load: Load, turn: &Turn) {
        let mut key = 0;
        if load == Load::Replacements {
            turn.flood(false, || {
                key = (key + 1) % ENTRIES;
                drop(self.registry.insert(key, [key; 8]));
            });
        } else {
            turn.flood(load == Load::PacedCalls, || {
                let owned = Box::new([key; 8]);
                self.domain.call(move || drop(black_box(owned)));
            });
        }
    }
}

#[cfg(feature = "liburcu")]
struct Liburcu;

#[cfg(feature = "liburcu")]
impl Contender for Liburcu {
    fn name(&self) -> &'static str {
        "liburcu memb"
    }

    fn barrier(&self) {
        benches::liburcu::barrier();
    }

    fn flood(&self, load: Load, turn: &Turn) {
        // SAFETY: this thread was spawned for this call, and calls it once, so it is not registered.
        let reader = unsafe { benches::liburcu::Reader::register() };
        if load == Load::Replacements {
            let mut cells: Vec<benches::liburcu::Cell> = (0..ENTRIES).map(|_| benches::liburcu::Cell::new()).collect();
            let mut place = 0;
            turn.flood(false, || {
                place = (place + 1) % cells.len();
                cells[place].replace(&reader);
            });
        } else {
            turn.flood(load == Load::PacedCalls, || benches::liburcu::call(&reader));
        }
    }
}

/// Returns the contenders.
fn contenders() -> Vec<Box<dyn Contender>> {
    vec![
        ours("ours, writers reclaim", Domain::new()),
        ours("ours, a thread reclaims", Domain::builder().reclaimer(true).build()),
        #[cfg(feature = "liburcu")]
        Box::new(Liburcu),
    ]
}

/// Runs one turn. Returns the times of its barriers in microseconds.
fn measure(clock: &Clock, load: Load, contender: &dyn Contender, threads: usize) -> Vec<f64> {
    let (turn, threads) = (Turn::default(), if load == Load::None { 0 } else { threads });
    let mut taken = Vec::with_capacity(TURN);
    thread::scope(|scope| {
        for core in 0..threads {
            let turn = &turn;
            scope.spawn(move || {
                stay_on_core(core);
                contender.flood(load, turn);
            });
        }
        while turn.begun.load(Ordering::Relaxed) < threads {
            thread::yield_now();
        }
        let started = Instant::now();
        while taken.len() < TURN && started.elapsed() < TURN_TIME {
            thread::sleep(PAUSE);
            let begin = clock.now();
            contender.barrier();
            taken.push(clock.nanoseconds(clock.now() - begin) / 1000.0);
        }
        turn.over.store(true, Ordering::Relaxed);
    });
    contender.barrier();
    taken
}

fn main() {
    let CommandLine { amount, test } = CommandLine::read("rounds", 20);
    let rounds = if test { 1 } else { amount };
    let clock = Clock::calibrate();
    let cores = thread::available_parallelism().map_or(2, |cores| cores.get());
    let contenders = contenders();
    stay_on_core(cores - 1);
    let mut results = vec![vec![Vec::new(); contenders.len()]; LOADS.len()];
    for _ in 0..rounds {
        for ((_, load), results) in LOADS.iter().zip(&mut results) {
            for (contender, taken) in contenders.iter().zip(results) {
                taken.extend(measure(&clock, *load, &**contender, (cores - 1).max(1)));
            }
        }
    }
    let mut table = Table::new(2, ["load", "contender", "number", "p50", "p99", "max"]);
    for ((name, _), results) in LOADS.iter().zip(results) {
        for (contender, taken) in contenders.iter().zip(results) {
            let taken = Sorted::new(taken);
            let [p50, p99, max] = [50.0, 99.0, 100.0].map(|at| figure(taken.percentile(at)));
            table.row([(*name).into(), contender.name().into(), taken.count().to_string(), p50, p99, max]);
        }
    }
    println!("A barrier, in microseconds; {rounds} rounds.");
    if cfg!(not(feature = "liburcu")) {
        println!("Without liburcu: build with `--features liburcu` to compare with it.");
    }
    print!("\n{table}");
}
