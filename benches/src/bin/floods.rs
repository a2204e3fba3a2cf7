//! Measures peak memory while writers flood a domain: the peak of allocated bytes, divided by the bytes of the live
//! entries.
//!
//! Each case runs with each kind of reclamation: by the writers, by the domain's thread, and by an executor. The
//! number of live entries is constant in a case, so everything above 1 waits for a grace period or for its
//! destructor.
//!
//! The program uses only operations that exist since commit 63a605b, so that it can compare two commits:
//!
//! ```sh
//! git worktree add /tmp/before 63a605b
//! cp benches/src/lib.rs benches/src/heap.rs /tmp/before/benches/src/
//! cp benches/src/bin/floods.rs /tmp/before/benches/src/bin/
//! (cd /tmp/before && cargo run --release -p benches --bin floods)
//! cargo run --release -p benches --bin floods
//! ```

use benches::{CommandLine, Sorted, Table, Xorshift, Zipf, figure, heap, stay_on_core};
use epoch_registry::{Domain, ReclaimJob, Registry};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: heap::Counting = heap::Counting;

/// An entry's value: 128 bytes.
type Value = [u64; 16];
type Map = Registry<u64, Value>;

fn value(key: u64) -> Value {
    [key; 16]
}

/// The size of a case.
#[derive(Clone, Copy)]
struct Size {
    /// The number of live entries.
    live: u64,
    /// The number of writes of each writer.
    writes: u64,
    writers: u64,
}

/// A load on a registry that holds the keys below `live`. Each case leaves the number of entries unchanged.
struct Case {
    name: &'static str,
    bounded: bool,
    /// The work of one writer.
    write: fn(&Map, Size, u64),
    /// Whether one thread also reads, both by a session and in plain sections.
    readers: bool,
}

const CASES: [Case; 5] = [
    Case { name: "flood: replace", bounded: false, write: flood, readers: false },
    Case { name: "flood: domain.call", bounded: false, write: calls, readers: false },
    Case { name: "clear and refill", bounded: false, write: refill, readers: false },
    Case { name: "cache of a tenth of the keys", bounded: true, write: cache, readers: false },
    Case { name: "server: connect, read, disconnect", bounded: false, write: serve, readers: true },
];

/// Replaces entries at full speed.
fn flood(map: &Map, size: Size, writer: u64) {
    let mut random = Xorshift::new(writer);
    for _ in 0..size.writes {
        let key = random.below(size.live);
        drop(map.insert(key, value(key)));
    }
}

/// Defers functions that own as much memory as an entry. One operation in 64 replaces an entry instead: a caller of
/// `call` runs no deferred functions itself, so without a reclaimer a write is needed to run them.
fn calls(map: &Map, size: Size, writer: u64) {
    for number in 0..size.writes {
        let owned = Box::new(value(number ^ writer));
        if number % 64 == 63 {
            drop(map.insert(number % size.live, *owned));
        } else {
            map.domain().call(move || drop(black_box(owned)));
        }
    }
}

/// Clears the registry and fills it again. Only one writer does so, since others would refill while it clears.
fn refill(map: &Map, size: Size, writer: u64) {
    if writer > 0 {
        return;
    }
    for _ in 0..size.writes * size.writers / size.live {
        map.clear();
        for key in 0..size.live {
            drop(map.try_insert(key, value(key)));
        }
    }
}

/// Looks up keys of a Zipf distribution, and inserts absent ones. The registry evicts entries to make room.
fn cache(map: &Map, size: Size, writer: u64) {
    let (zipf, mut random) = (Zipf::new(10 * size.live as usize, 0.8), Xorshift::new(writer));
    for _ in 0..size.writes {
        let key = zipf.draw(&mut random);
        if map.pin().get(&key).is_none() {
            drop(map.try_insert(key, value(key)));
        }
    }
}

/// Opens and closes connections, and closes the oldest first. Each writer has its own connections.
fn serve(map: &Map, size: Size, writer: u64) {
    let own = |number: u64| number * size.writers + writer;
    let live = (0..size.live).filter(|key| key % size.writers == writer).count() as u64;
    for number in 0..size.writes {
        drop(map.try_insert(own(number + live), value(number)));
        drop(map.remove(&own(number)));
    }
    // The last step restores the keys below `live`.
    for number in 0..live {
        drop(map.try_insert(own(number), value(number)));
        drop(map.remove(&own(number + size.writes)));
    }
}

/// Reads until `over` is set.
fn read(map: &Map, live: u64, over: &AtomicBool) {
    let (mut reader, mut random) = (map.reader(), Xorshift::new(99));
    // ORDERING: Relaxed, a signal that publishes nothing.
    while !over.load(Ordering::Relaxed) {
        for _ in 0..64 {
            black_box(reader.get(&random.below(live)).map(|entry| entry[0]));
        }
        let guard = map.pin();
        for _ in 0..64 {
            black_box(guard.get(&random.below(live)).map(|entry| entry[0]));
        }
    }
}

/// The reclaimer.
#[derive(Clone, Copy, PartialEq)]
enum Reclaims {
    Writers,
    Thread,
    Executor,
}

impl Reclaims {
    const ALL: [(Reclaims, &str); 3] =
        [(Reclaims::Writers, "writers"), (Reclaims::Thread, "thread"), (Reclaims::Executor, "executor")];

    /// Returns a domain, and the thread of its executor, which ends when the domain is dropped.
    fn domain(self) -> (Domain, Option<thread::JoinHandle<()>>) {
        match self {
            Reclaims::Writers => (Domain::new(), None),
            Reclaims::Thread => (Domain::builder().reclaimer(true).build(), None),
            Reclaims::Executor => {
                let (send, jobs) = mpsc::channel();
                let pool = thread::spawn(move || jobs.iter().for_each(ReclaimJob::run));
                let spawn = move |job| drop(send.send(job));
                (Domain::builder().executor(spawn).build(), Some(pool))
            }
        }
    }
}

/// The result of one run.
struct Outcome {
    live: f64,
    peak: f64,
    /// The time of one write.
    nanoseconds: f64,
    /// The duration of the barrier at the end.
    barrier: Duration,
}

/// Waits until at most `before` bytes are in use, for half a second at most. Memory that other threads have not freed
/// yet would be counted in the next run.
fn settle(before: isize) {
    let begin = Instant::now();
    while heap::bytes().in_use > before && begin.elapsed() < Duration::from_millis(500) {
        thread::sleep(Duration::from_millis(1));
    }
}

fn run(case: &Case, reclaims: Reclaims, size: Size) -> Outcome {
    let before = heap::bytes().in_use;
    let (domain, pool) = reclaims.domain();
    let builder = Registry::builder().domain(domain.clone()).capacity(size.live as usize);
    let map: Map = if case.bounded { builder.max_entries(size.live as usize).build() } else { builder.build() };
    (0..size.live).for_each(|key| drop(map.try_insert(key, value(key))));
    domain.barrier();
    let live = (heap::bytes().in_use - before) as f64;
    heap::restart_peak();
    let (over, begin) = (AtomicBool::new(false), Instant::now());
    thread::scope(|scope| {
        if case.readers {
            scope.spawn(|| read(&map, size.live, &over));
        }
        let write = |writer| {
            let map = &map;
            scope.spawn(move || {
                stay_on_core(writer as usize);
                (case.write)(map, size, writer);
            })
        };
        let writers: Vec<_> = (0..size.writers).map(write).collect();
        writers.into_iter().for_each(|writer| writer.join().expect("a writer panicked"));
        over.store(true, Ordering::Relaxed);
    });
    let time = begin.elapsed();
    let ended = Instant::now();
    domain.barrier();
    let barrier = ended.elapsed();
    let peak = (heap::bytes().peak - before) as f64;
    drop((map, domain));
    if let Some(pool) = pool {
        pool.join().expect("the executor panicked");
    }
    settle(before);
    let nanoseconds = time.as_nanos() as f64 / (size.writes * size.writers) as f64;
    Outcome { live, peak, nanoseconds, barrier }
}

fn main() {
    let CommandLine { amount, test } = CommandLine::read("rounds", 3);
    let rounds = if test { 1 } else { amount };
    let writers = thread::available_parallelism().map_or(2, |cores| cores.get()).min(4) as u64;
    let size = if test {
        Size { live: 1_000, writes: 4_000, writers }
    } else {
        Size { live: 100_000, writes: 500_000, writers }
    };
    heap::start();
    let header = ["case", "reclaims", "live, KiB", "peak, KiB", "peak over live", "ns/write", "barrier at the end, µs"];
    let mut table = Table::new(2, header);
    for case in &CASES {
        for (reclaims, name) in Reclaims::ALL {
            let outcomes: Vec<_> = (0..rounds).map(|_| run(case, reclaims, size)).collect();
            let median = |of: fn(&Outcome) -> f64| figure(Sorted::new(outcomes.iter().map(of)).median());
            table.row([
                case.name.to_owned(),
                name.to_owned(),
                median(|outcome| outcome.live / 1024.0),
                median(|outcome| outcome.peak / 1024.0),
                Sorted::new(outcomes.iter().map(|outcome| outcome.peak / outcome.live)).to_string(),
                median(|outcome| outcome.nanoseconds),
                median(|outcome| outcome.barrier.as_nanos() as f64 / 1e3),
            ]);
        }
    }
    println!(
        "Peak of allocated bytes while {} writers write {} times each; medians of {rounds} rounds [and quartiles].\n",
        size.writers, size.writes
    );
    print!("{table}");
}
