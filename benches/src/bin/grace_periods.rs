//! Measures how long a caller waits for one grace period. Compares our `synchronize` with liburcu's `synchronize_rcu`
//! (memb flavour, with the feature `liburcu`) and with a bare crossbeam-epoch.
//!
//! The contenders take turns, a few grace periods each, for `--rounds` rounds. Each contender has its own readers,
//! which exist only during its turn. A ratio compares the medians of two contenders in the same round, and so under
//! the same condition of the machine.
//!
//! Each thread is pinned to one core. With readers on every core, the waiting thread shares its core with one of
//! them, and sleeps before each grace period. If a reader is preempted inside a section, it must run again before the
//! grace period can end. For a session this holds wherever it is preempted. So this case measures mostly how a
//! contender waits: a waiter that spins or yields keeps the reader off the core for longer than a waiter that sleeps,
//! by up to whole slices of the scheduler.

use benches::{Clock, CommandLine, Sorted, Table, figure, stay_on_core};
use epoch_registry::Domain;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// The most grace periods in one contender's turn.
const TURN: usize = 32;
/// The time after which a turn begins no further grace period.
const TURN_TIME: Duration = Duration::from_millis(12);
/// Grace periods at the start of each turn that do not count, because the readers have only just started.
const WARM_UP: usize = 3;

/// The sleep before each grace period with readers on every core. The readers run in that time, and are then
/// preempted at an arbitrary point.
const SLEEP: Duration = Duration::from_micros(200);

/// The cell that readers read.
static CELL: AtomicU64 = AtomicU64::new(7);

fn read_cell() {
    // ORDERING: Relaxed, because nothing depends on the value.
    black_box(CELL.load(Ordering::Relaxed));
}

/// The work of the reader threads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// They read once, and then sleep outside any section.
    Idle,
    /// They read in a loop, with one section per read.
    Sections,
    /// The same, but by sessions in our case. A session is always in a section, and leaves it on request.
    Sessions,
}

struct Scenario {
    name: &'static str,
    /// The number of readers, each on its own core. The waiting thread is on the last core, which it may share with the
    /// last reader.
    threads: usize,
    reading: Reading,
    shared: bool,
}

fn scenarios(cores: usize) -> Vec<Scenario> {
    let scenario = |name, threads, reading| Scenario { name, threads, reading, shared: threads >= cores };
    vec![
        scenario("no reader", 0, Reading::Idle),
        scenario("one idle reader", 1, Reading::Idle),
        scenario("sections, a core free", (cores - 1).max(1), Reading::Sections),
        scenario("sessions, a core free", (cores - 1).max(1), Reading::Sessions),
        scenario("sections, every core", cores, Reading::Sections),
        scenario("sessions, every core", cores, Reading::Sessions),
    ]
}

/// The state of one turn, by which its readers learn that it is over.
struct Turn {
    reading: Reading,
    begun: AtomicUsize,
    over: AtomicBool,
    sleepers: Mutex<()>,
    woken: Condvar,
}

impl Turn {
    fn new(reading: Reading) -> Turn {
        Turn {
            reading,
            begun: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            sleepers: Mutex::new(()),
            woken: Condvar::new(),
        }
    }

    /// Runs a reader: calls `read` until the turn is over.
    fn serve(&self, mut read: impl FnMut()) {
        // The thread is registered by its first read at the latest.
        read();
        // ORDERING: Relaxed, here and for `over`: signals that publish nothing.
        self.begun.fetch_add(1, Ordering::Relaxed);
        if self.reading == Reading::Idle {
            let sleepers = self.sleepers.lock().unwrap();
            drop(self.woken.wait_while(sleepers, |()| !self.over.load(Ordering::Relaxed)));
        }
        while !self.over.load(Ordering::Relaxed) {
            read();
        }
    }

    fn wait_for_readers(&self, readers: usize) {
        while self.begun.load(Ordering::Relaxed) < readers {
            std::thread::yield_now();
        }
    }
}

/// Ends the turn when it is dropped, even by a panic, so that the readers can be joined.
struct End<'t>(&'t Turn);

impl Drop for End<'_> {
    fn drop(&mut self) {
        let sleepers = self.0.sleepers.lock();
        self.0.over.store(true, Ordering::Relaxed);
        drop(sleepers);
        self.0.woken.notify_all();
    }
}

trait Contender: Sync {
    fn name(&self) -> &'static str;
    /// Waits for one grace period.
    fn wait(&self);
    /// Runs a reader thread in `turn`.
    fn read(&self, turn: &Turn);
}

/// One of our ways to wait.
struct Ours {
    name: &'static str,
    wait: fn(&Domain),
    domain: Domain,
}

fn ours(name: &'static str, wait: fn(&Domain)) -> Box<dyn Contender> {
    Box::new(Ours { name, wait, domain: Domain::new() })
}

impl Contender for Ours {
    fn name(&self) -> &'static str {
        self.name
    }

    fn wait(&self) {
        (self.wait)(&self.domain);
    }

    fn read(&self, turn: &Turn) {
        if turn.reading == Reading::Sessions {
            let mut session = self.domain.session();
            turn.serve(|| {
                let _section = session.pin();
                read_cell();
            });
        } else {
            turn.serve(|| {
                let _section = self.domain.pin();
                read_cell();
            });
        }
    }
}

/// The collector alone: defers a function, and pins and flushes until it has run. This is the default collector, which
/// nothing else uses here: each of our domains has its own collector.
struct Crossbeam;

impl Contender for Crossbeam {
    fn name(&self) -> &'static str {
        "crossbeam-epoch"
    }

    fn wait(&self) {
        let done = Arc::new(AtomicBool::new(false));
        let deferred = Arc::clone(&done);
        let guard = crossbeam_epoch::pin();
        // ORDERING: Release, pairs with the Acquire below.
        guard.defer(move || deferred.store(true, Ordering::Release));
        guard.flush();
        drop(guard);
        let backoff = crossbeam_utils::Backoff::new();
        // ORDERING: Acquire, pairs with the Release above.
        while !done.load(Ordering::Acquire) {
            crossbeam_epoch::pin().flush();
            backoff.snooze();
        }
    }

    fn read(&self, turn: &Turn) {
        turn.serve(|| {
            let _section = crossbeam_epoch::pin();
            read_cell();
        });
    }
}

#[cfg(feature = "liburcu")]
struct Liburcu;

#[cfg(feature = "liburcu")]
impl Contender for Liburcu {
    fn name(&self) -> &'static str {
        "liburcu memb"
    }

    fn wait(&self) {
        benches::liburcu::synchronize();
    }

    fn read(&self, turn: &Turn) {
        // SAFETY: this thread was spawned for this call, and calls it once, so it is not registered.
        let reader = unsafe { benches::liburcu::Reader::register() };
        turn.serve(|| {
            black_box(reader.read(&CELL));
        });
    }
}

/// Returns the contenders. The others are compared with the first.
fn contenders() -> Vec<Box<dyn Contender>> {
    vec![
        ours("ours, synchronize", Domain::synchronize),
        ours("ours, expedited", Domain::synchronize_expedited),
        #[cfg(feature = "liburcu")]
        Box::new(Liburcu),
        Box::new(Crossbeam),
    ]
}

/// Runs one turn. Returns the times of its grace periods in microseconds.
fn measure(clock: &Clock, scenario: &Scenario, contender: &dyn Contender) -> Vec<f64> {
    let turn = Turn::new(scenario.reading);
    std::thread::scope(|scope| {
        let _end = End(&turn);
        for core in 0..scenario.threads {
            let turn = &turn;
            scope.spawn(move || {
                stay_on_core(core);
                contender.read(turn);
            });
        }
        turn.wait_for_readers(scenario.threads);
        for _ in 0..WARM_UP {
            contender.wait();
        }
        let mut taken = Vec::with_capacity(TURN);
        let started = Instant::now();
        while taken.len() < TURN && (taken.is_empty() || started.elapsed() < TURN_TIME) {
            if scenario.shared {
                std::thread::sleep(SLEEP);
            }
            let begin = clock.now();
            contender.wait();
            taken.push(clock.nanoseconds(clock.now() - begin) / 1000.0);
        }
        taken
    })
}

/// The times of all grace periods of one contender in one scenario, and their median in each round, in microseconds.
#[derive(Clone, Default)]
struct Results {
    all: Vec<f64>,
    medians: Vec<f64>,
}

fn main() {
    let CommandLine { amount, test } = CommandLine::read("rounds", 30);
    let rounds = if test { 1 } else { amount };
    let clock = Clock::calibrate();
    let cores = std::thread::available_parallelism().map_or(2, |cores| cores.get());
    stay_on_core(cores - 1);
    let (scenarios, contenders) = (scenarios(cores), contenders());
    let mut results = vec![vec![Results::default(); contenders.len()]; scenarios.len()];
    for _ in 0..rounds {
        for (scenario, results) in scenarios.iter().zip(&mut results) {
            for (contender, results) in contenders.iter().zip(results) {
                let taken = measure(&clock, scenario, &**contender);
                results.all.extend(&taken);
                results.medians.push(Sorted::new(taken).median());
            }
        }
    }

    let header = ["readers", "contender", "number", "min", "median", "p90", "p99", "mean", "medians' ratio", "means'"];
    let mut table = Table::new(2, header);
    for (scenario, results) in scenarios.iter().zip(&results) {
        let (ours, ours_all) = (&results[0].medians, &results[0]);
        for (place, (contender, results)) in contenders.iter().zip(results).enumerate() {
            let all = Sorted::new(results.all.iter().copied());
            let [min, median, p90, p99] = [0.0, 50.0, 90.0, 99.0].map(|at| figure(all.percentile(at)));
            let mean = |of: &Results| of.all.iter().sum::<f64>() / of.all.len() as f64;
            let medians = Sorted::new(results.medians.iter().zip(ours).map(|(theirs, ours)| theirs / ours));
            let means = format!("{:.2}", mean(results) / mean(ours_all));
            let (reader, [medians, means]) = match place {
                0 => (scenario.name, Default::default()),
                _ => ("", [medians.to_string(), means]),
            };
            let (name, number) = (contender.name().into(), all.count().to_string());
            table.row([reader.into(), name, number, min, median, p90, p99, figure(mean(results)), medians, means]);
        }
    }
    println!("A grace period, in microseconds; {rounds} rounds. Ratios: theirs over ours [and the quartiles].");
    if cfg!(not(feature = "liburcu")) {
        println!("Without liburcu: build with `--features liburcu` to compare with it.");
    }
    print!("\n{table}");
}
