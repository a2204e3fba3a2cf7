//! Inserts an endless stream of entries into a registry, within limited memory. With the driver of the feature
//! `pressure` the program runs to its end; without it, it exceeds the limit.
//!
//! `cargo run --release --features pressure --example pressure -- --help`

#![allow(unsafe_code)]

use epoch_registry::pressure::{Cgroup, Driver, Own, Relieved, Stats, Version};
use epoch_registry::{Domain, Registry};
use lexopt::{Arg, ValueExt};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

const HELP: &str = "\
Inserts a stream of values of 1 to 8 KiB, within limited memory.

usage: pressure [--inserts N] [--limit SIZE] [--threads N] [--no-reaper] [--background]
                [--rate MIB] [--trim]

options:
    --inserts N     number of values (default: eleven times what fits)
    --limit SIZE    limit on the process's own memory, such as 256M (default: the limit of its control group, or 256M)
    --threads N     number of inserting threads (default: 2)
    --no-reaper     sheds nothing, to show what happens then
    --background    leaves shedding to the driver's thread: the inserting threads do not check
    --rate MIB      most MiB per second that each thread inserts (default: no limit)
    --trim          returns memory to the system after shedding (glibc only)
    -h, --help      prints this text

It exits with an error if the limit is exceeded. (In a control group, the kernel kills it then.)";

/// The number of rows of the chart, and the width of the limit in it.
const ROWS: u64 = 22;
const WIDTH: u64 = 50;

/// The mean size of a value, including the overhead of the registry and the allocator.
const MEAN: u64 = 4608 + 100;

struct Args {
    inserts: Option<u64>,
    limit: Option<u64>,
    threads: u64,
    reaper: bool,
    background: bool,
    rate: Option<u32>,
    trim: bool,
}

fn parse() -> Result<Option<Args>, lexopt::Error> {
    let mut args =
        Args { inserts: None, limit: None, threads: 2, reaper: true, background: false, rate: None, trim: false };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Long("inserts") => args.inserts = Some(parser.value()?.parse()?),
            Arg::Long("limit") => args.limit = Some(parser.value()?.parse_with(size)?),
            Arg::Long("threads") => args.threads = parser.value()?.parse::<u64>()?.clamp(1, 256),
            Arg::Long("no-reaper") => args.reaper = false,
            Arg::Long("background") => args.background = true,
            Arg::Long("rate") => args.rate = Some(parser.value()?.parse::<u32>()?.max(1)),
            Arg::Long("trim") => args.trim = true,
            Arg::Long("help") | Arg::Short('h') => return Ok(None),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(args))
}

fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(['K', 'M', 'G']);
    let shift = match &text[digits.len()..] {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return Err("not a size such as 256M".into()),
    };
    let number: u64 = digits.parse().map_err(|_| "not a size such as 256M")?;
    number
        .checked_mul(1 << shift)
        .filter(|size| *size >= 16 << 20)
        .ok_or_else(|| "less than 16M, or far too much".into())
}

/// The limit to observe, and the source that measures the usage.
enum Limit {
    Group(Cgroup),
    Own(Box<Own>, u64),
}

impl Limit {
    fn find(by_hand: Option<u64>) -> Result<Self, String> {
        if let Some(limit) = by_hand {
            return Self::own(limit);
        }
        for version in [Version::V2, Version::V1] {
            match Cgroup::new(version) {
                Ok(group) => return Ok(Limit::Group(group)),
                Err(why) => println!("{why}"),
            }
        }
        println!("no control group limits this process; the program sets a limit of 256 MiB");
        Self::own(256 << 20)
    }

    fn own(limit: u64) -> Result<Self, String> {
        Own::new(limit).map(|own| Limit::Own(Box::new(own), limit)).map_err(|why| why.to_string())
    }

    /// Returns the bytes in use, and the limit.
    fn read(&mut self) -> Result<(u64, u64), String> {
        match self {
            Limit::Group(group) => {
                let level = group.level().map_err(|why| why.to_string())?;
                let level = level.ok_or("the control group has no limit any more")?;
                Ok((level.used, level.limit))
            }
            Limit::Own(own, limit) => Ok((own.used().map_err(|why| why.to_string())?, *limit)),
        }
    }

    fn driver(&self, domain: &Domain, trim: bool) -> Result<Driver, String> {
        let builder = match self {
            Limit::Group(_) => Driver::builder().detect(),
            Limit::Own(_, limit) => Driver::builder().source(Own::new(*limit).map_err(|why| why.to_string())?),
        };
        let domain = domain.clone();
        let hook = move |_: &Relieved| {
            // Waits until the shed entries are freed. Threads that call `check` wait too.
            domain.barrier();
            if trim {
                give_back();
            }
        };
        builder.on_shed(hook).start().map_err(|error| error.to_string())
    }
}

/// Makes the allocator return unused memory to the system.
fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `malloc_trim` has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}

type Page = Box<[u8]>;
type Pages = Registry<u64, Page>;

/// The counters of the inserting threads.
#[derive(Default)]
struct Progress {
    next: AtomicU64,
    inserted: AtomicU64,
    bytes: AtomicU64,
    looked_up: AtomicU64,
    hits: AtomicU64,
    stop: AtomicBool,
}

/// Returns a hash of a number, for sizes and choices.
fn mix(number: u64) -> u64 {
    let number = (number ^ number >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (number ^ number >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 16
}

/// How many bytes a thread inserts between two of its own checks. (It can fill memory faster than the driver's
/// thread gets a core. The kernel calls this direct reclaim.)
const CHECK: u64 = 1 << 20;

/// The work of an inserting thread.
#[derive(Clone, Copy)]
struct Work<'w> {
    pages: &'w Pages,
    /// The driver to check, unless the driver's thread works alone.
    driver: Option<&'w Driver>,
    progress: &'w Progress,
    inserts: u64,
    /// How many of the newest keys are looked up.
    recent: u64,
    /// The least time for inserting one MiB.
    least: Duration,
}

/// Inserts values, and looks up one of the newest keys after each insertion.
fn insert(work: Work<'_>) {
    let Work { pages, driver, progress, inserts, recent, least } = work;
    let (mut unchecked, mut next) = (0, Instant::now() + least);
    loop {
        // ORDERING: Relaxed (in all of this file). The counters and the flag order nothing.
        let key = progress.next.fetch_add(1, Relaxed);
        if key >= inserts || progress.stop.load(Relaxed) {
            return;
        }
        let length = 1024 + mix(key) % (7 * 1024 + 1);
        let value = vec![key as u8; length as usize].into_boxed_slice();
        assert!(pages.try_insert(key, value).is_ok(), "every key is inserted once");
        progress.inserted.fetch_add(1, Relaxed);
        progress.bytes.fetch_add(length, Relaxed);
        unchecked += length;
        if unchecked >= CHECK {
            unchecked = 0;
            driver.map(Driver::check);
            thread::sleep(next.saturating_duration_since(Instant::now()));
            next += least;
        }
        if key > recent {
            let old = key - 1 - mix(!key) % recent;
            // A guard and not a session, so that a grace period need not wait for a thread that waits for memory
            // or a core.
            if let Some(value) = pages.pin().get(&old) {
                assert_eq!(value[0], old as u8, "the value belongs to another key");
                progress.hits.fetch_add(1, Relaxed);
            }
            progress.looked_up.fetch_add(1, Relaxed);
        }
    }
}

fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

/// Prints a row of the chart: `#` marks the usage, `|` the limit.
fn row(begun: Instant, inserted: u64, pages: &Pages, shed: u64, peak: u64, limit: u64) {
    let bar = (peak * WIDTH / limit).min(WIDTH + 8) as usize;
    let line: String = (0..=WIDTH as usize + 8)
        .map(|at| {
            if at == WIDTH as usize {
                '|'
            } else if at < bar {
                '#'
            } else {
                ' '
            }
        })
        .collect();
    let seconds = begun.elapsed().as_secs_f64();
    println!("{seconds:7.2} {inserted:9} {:9} {:9} {:8} {}", pages.len(), mib(shed), mib(peak), line.trim_end());
}

/// Runs to the end. Fails if the usage exceeds the limit, or if not all values were inserted.
fn run(args: &Args) -> Result<(), String> {
    let mut limit = Limit::find(args.limit)?;
    let (at_start, most) = limit.read()?;
    let fits = most / MEAN;
    let inserts = args.inserts.unwrap_or(fits * 11);
    let name = if let Limit::Group(_) = limit { "control group" } else { "set by hand" };
    println!(
        "limit {} MiB ({name}), {} MiB used at the start; about {fits} values fit, {inserts} are inserted",
        mib(most),
        mib(at_start)
    );

    let domain = Domain::builder().reclaimer(true).build();
    let pages: Pages = Registry::builder().domain(domain.clone()).weigher(|_, page: &Page| page.len()).build();
    let pages = Arc::new(pages);
    let driver = if args.reaper { Some(limit.driver(&domain, args.trim)?) } else { None };
    if let Some(driver) = &driver {
        driver.add_named("pages", &pages);
    }
    let stats = || driver.as_ref().map(Driver::stats).unwrap_or_default();

    println!("seconds  inserted      live  shed MiB used MiB  (highest since the last row; | is the limit)");
    let (begun, progress) = (Instant::now(), Progress::default());
    let mut highest = 0;
    let work = Work {
        pages: &pages,
        driver: driver.as_ref().filter(|_| !args.background),
        progress: &progress,
        inserts,
        recent: fits / 4,
        least: args.rate.map_or(Duration::ZERO, |rate| Duration::from_secs(1) / rate),
    };
    let exceeded = thread::scope(|scope| {
        let workers: Vec<_> = (0..args.threads).map(|_| scope.spawn(move || insert(work))).collect();
        let (mut peak, mut rows) = (0, 0);
        loop {
            let done = workers.iter().all(|worker| worker.is_finished());
            let used = limit.read().map(|(used, _)| used);
            let inserted = progress.inserted.load(Relaxed);
            peak = peak.max(*used.as_ref().unwrap_or(&0));
            highest = highest.max(peak);
            if done || highest > most || used.is_err() || inserted * ROWS > rows * inserts {
                row(begun, inserted, &pages, stats().bytes, peak, most);
                (peak, rows) = (0, inserted * ROWS / inserts.max(1) + 1);
            }
            if done || highest > most || used.is_err() {
                progress.stop.store(true, Relaxed);
                return used.map(|_| highest > most);
            }
            thread::sleep(Duration::from_millis(2));
        }
    })?;

    let (inserted, bytes) = (progress.inserted.load(Relaxed), progress.bytes.load(Relaxed));
    report(&progress, &stats(), &pages, fits);
    if exceeded {
        return Err(format!("limit exceeded: {} MiB used after {inserted} inserts", mib(highest)));
    }
    println!(
        "inserted {} MiB, {:.1} times the limit; highest usage {} of {} MiB",
        mib(bytes),
        bytes as f64 / most as f64,
        mib(highest),
        mib(most)
    );
    if inserted < inserts { Err(format!("only {inserted} of {inserts} inserted")) } else { Ok(()) }
}

fn report(progress: &Progress, stats: &Stats, pages: &Pages, fits: u64) {
    let (looked_up, hits) = (progress.looked_up.load(Relaxed), progress.hits.load(Relaxed));
    let rate = 100.0 * hits as f64 / looked_up.max(1) as f64;
    println!("\n{hits} of {looked_up} lookups of the last {} keys hit: {rate:.1}%", fits / 4);
    println!("registry: live {}, weight {} MiB, {}", pages.len(), mib(pages.weight()), pages.stats());
    println!("driver: {stats}");
}

fn main() -> ExitCode {
    let args = match parse() {
        Ok(Some(args)) => args,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("pressure: {error}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("pressure: {why}");
            ExitCode::FAILURE
        }
    }
}
