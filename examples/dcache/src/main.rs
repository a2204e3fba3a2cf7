//! A path cache over a real directory tree, like the Linux kernel's dcache. Entries are looked up by directory
//! and name. Names that do not exist are cached too. The number of entries is bounded, with second chance. Every
//! answer is compared with the file system's.
//!
//! `cargo run --release -p dcache-example -- --help` explains what it does. The modules:
//!
//! - `args`: the command line
//! - `dentry`: the entries, and how they are found by parts of their key
//! - `cache`: path walks, filling, invalidation
//! - `tree`, `sample`: the names of the tree, and the paths made of them
//! - `measure`, `compare`: how fast the answers are, and whether they are right
//! - `upheaval`: whether the answers follow when a tree changes

#![forbid(unsafe_code)]

mod args;
mod cache;
mod compare;
mod dentry;
mod measure;
#[path = "../../common/random.rs"]
mod random;
mod sample;
#[cfg(test)]
mod tests;
mod tree;
mod upheaval;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::SystemTime;

use indicatif::HumanCount;

use args::{Args, Command};
use cache::Dcache;
use compare::Comparison;
use measure::{Both, Measured};
use sample::{Class, Population};
use tree::Tree;
use upheaval::Upheaval;

/// The most differences to list. Further ones are only counted.
const MAX_LISTED: usize = 20;

/// The exit status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Outcome {
    Proved = 0,
    Unreadable = 1,
    Usage = 2,
    Wrong = 3,
}

fn main() -> ExitCode {
    let args = match Args::parse(std::env::args_os()) {
        Ok(Command::Run(args)) => args,
        // It is no failure if the reading end of a pipe closes early, as `head` does.
        Ok(Command::Help) => {
            return write!(io::stdout(), "{}", args::HELP).map_or(ExitCode::SUCCESS, |()| ExitCode::SUCCESS);
        }
        Err(error) => {
            eprintln!("dcache: {error}; --help explains the options");
            return ExitCode::from(Outcome::Usage as u8);
        }
    };
    ExitCode::from(run(&args, &mut io::stdout().lock(), &mut io::stderr()) as u8)
}

/// The figures of a run.
struct Report {
    tree: Tree,
    population: Population,
    by_cache: Measured,
    by_file_system: Measured,
    watched: Watched,
    stats: epoch_registry::Stats,
    negative: usize,
    /// The bytes of the table, and of the entries with their names, at the end.
    bytes: u64,
    comparison: Comparison,
    upheaval: Upheaval,
    /// Entries created, and entries destroyed by the end.
    made: u64,
    destroyed: u64,
}

/// Samples of the cache's state while it was used.
#[derive(Default)]
struct Watched {
    samples: u64,
    most_entries: usize,
    /// The most evicted entries in the backlog.
    most_waiting: u64,
    /// Entries that exceeded the backlog's limit: the thread waited for room in vain.
    overruns: u64,
}

impl Watched {
    fn look(&mut self, cache: &Dcache) {
        self.samples += 1;
        self.most_entries = self.most_entries.max(cache.registry().len());
        let waiting = cache.registry().domain().stats();
        self.most_waiting = self.most_waiting.max(waiting.backlog.objects);
        self.overruns = waiting.overruns;
    }
}

/// Runs to the end. Writes the report to `out`, and errors to `problems`.
fn run(args: &Args, out: &mut dyn Write, problems: &mut dyn Write) -> Outcome {
    let began = SystemTime::now();
    let root = match std::fs::canonicalize(&args.root).and_then(|root| std::fs::read_dir(&root).map(|_| root)) {
        Ok(root) => root,
        Err(error) => return fail(problems, Outcome::Unreadable, &format!("{}: {error}", args.root.display())),
    };
    let cache = Dcache::new(root.clone(), args.entries);
    let mut tree = tree::walk(&cache, args.threads);
    let population = Population::new(&root, std::mem::take(&mut tree.paths), args.threads);
    let mut watched = Watched::default();
    watched.look(&cache);
    let Both { by_cache, by_file_system } =
        measure::measure(&cache, &population, args.threads, args.time, || watched.look(&cache));
    let doubtful = by_cache.doubtful.union(&by_file_system.doubtful).copied().collect();
    let comparison = compare::compare(&cache, &population, &doubtful, began, args.threads);
    watched.look(&cache);
    let upheaval = match upheaval::run(args.threads) {
        Ok(upheaval) => upheaval,
        Err(error) => return fail(problems, Outcome::Unreadable, &format!("a temporary tree: {error}")),
    };

    let registry = cache.registry();
    let stats = registry.stats();
    let negative = registry.pin().iter().filter(|entry| entry.is_negative()).count();
    let bytes = registry.weight() + registry.table_bytes() as u64;
    // Entries hold handles to their directories. A directory goes when the last entry in it goes.
    registry.clear();
    registry.domain().barrier();
    let (made, destroyed) = (registry.stats().inserted, registry.stats().freed);
    let report = Report {
        tree,
        population,
        by_cache,
        by_file_system,
        watched,
        stats,
        negative,
        bytes,
        comparison,
        upheaval,
        made,
        destroyed,
    };
    // A closed pipe must not change the exit status, which tells whether the answers were right.
    let _ = report.print(args, out);
    let wrong = report.wrong(args);
    let _ = match wrong.len() {
        0 => writeln!(out, "proved: the answers are the file system's, the bound held, every entry was dropped once"),
        count => writeln!(out, "WRONG: {count} differences"),
    };
    for difference in wrong.iter().take(MAX_LISTED) {
        fail(problems, Outcome::Wrong, difference);
    }
    if wrong.len() > MAX_LISTED {
        fail(problems, Outcome::Wrong, &format!("and {} more", wrong.len() - MAX_LISTED));
    }
    if wrong.is_empty() { Outcome::Proved } else { Outcome::Wrong }
}

fn fail(problems: &mut dyn Write, outcome: Outcome, message: &str) -> Outcome {
    // If the report of an error fails, there is nowhere to report that.
    let _ = writeln!(problems, "dcache: {message}");
    outcome
}

impl Report {
    /// Returns everything that is wrong.
    fn wrong(&self, args: &Args) -> Vec<String> {
        let mut wrong = self.comparison.differences.clone();
        wrong.extend(self.upheaval.differences.iter().cloned());
        if self.watched.most_entries > args.entries {
            wrong.push(format!("{} entries, but at most {} are allowed", self.watched.most_entries, args.entries));
        }
        let most_waiting = cache::most_waiting(args.entries) as u64;
        if self.watched.most_waiting > most_waiting + self.watched.overruns {
            wrong.push(format!("{} waited to be destroyed, but at most {most_waiting} may", self.watched.most_waiting));
        }
        if self.made != self.destroyed {
            wrong.push(format!("{} entries made, {} destroyed", self.made, self.destroyed));
        }
        wrong
    }

    fn print(&self, args: &Args, out: &mut dyn Write) -> io::Result<()> {
        let Report { tree, population, by_cache, by_file_system, watched, stats, comparison, upheaval, .. } = self;
        let mut line = |label: &str, figures: &str| writeln!(out, "{label:<12} {figures}");
        let names = population.count(Class::Existing);
        let walked = names as f64 / tree.elapsed.as_secs_f64().max(1e-9);
        line(
            "tree",
            &format!("{}: {} names in {} directories", args.root.display(), grouped(names), grouped(tree.directories)),
        )?;
        line("", &format!("{} directories unreadable, {} names refused", tree.unreadable, tree.refused))?;
        line("walk", &format!("{:.2?}, {} names/s with {} threads", tree.elapsed, grouped(walked), args.threads))?;
        let classes = Class::ALL.map(|(class, name)| format!("{} {name}", grouped(population.count(class))));
        line("paths", &format!("{}: {}", grouped(population.samples.len()), classes.join(", ")))?;
        let [cached, filled, passed_on] = by_cache.sources.map(grouped);
        line("answers", &format!("{cached} by the cache, {filled} filled, {passed_on} passed on"))?;
        line("hit rate", &format!("{:.2}% of what is cached", 100.0 * by_cache.hit_rate()))?;
        let (ours, theirs) = (by_cache.per_second(), by_file_system.per_second());
        line(
            "lookups/s",
            &format!(
                "{} by the cache, {} by symlink_metadata: {:.1} to 1",
                grouped(ours),
                grouped(theirs),
                ours / theirs.max(1.0)
            ),
        )?;
        line(
            "entries",
            &format!(
                "{} of at most {}, {} of them negative; {:.1} MB",
                grouped(stats.live),
                grouped(args.entries),
                grouped(self.negative),
                self.bytes as f64 / 1e6
            ),
        )?;
        line(
            "bound",
            &format!(
                "at most {} entries, and {} of {} waiting to be destroyed ({} overruns), in {} samples",
                grouped(watched.most_entries),
                grouped(watched.most_waiting),
                grouped(cache::most_waiting(args.entries)),
                watched.overruns,
                grouped(watched.samples)
            ),
        )?;
        line("evicted", &format!("{} of {} inserted", grouped(stats.evicted), grouped(stats.inserted)))?;
        line(
            "compared",
            &format!(
                "{} answers while resolving; then {} paths, {} of them by the cache alone",
                grouped(by_cache.resolved),
                grouped(comparison.compared),
                grouped(comparison.cached)
            ),
        )?;
        line(
            "",
            &format!("{} differ, {} because the tree has changed", comparison.differences.len(), comparison.explained),
        )?;
        line(
            "upheaval",
            &format!(
                "{} changes, {} answers compared, {} differ; {} evicted, {} pruned",
                upheaval.changes,
                grouped(upheaval.compared),
                upheaval.differences.len(),
                grouped(upheaval.evicted),
                upheaval.pruned
            ),
        )?;
        line("", &format!("{} resolved at the same time by {} threads", grouped(upheaval.resolved), args.threads))?;
        line("dropped", &format!("{} entries of {}", grouped(self.destroyed), grouped(self.made)))
    }
}

/// A number that can be written as a whole number with its digits in groups of three.
trait Figure {
    fn to_figure(self) -> u64;
}

impl Figure for u64 {
    fn to_figure(self) -> u64 {
        self
    }
}

impl Figure for usize {
    fn to_figure(self) -> u64 {
        self as u64
    }
}

impl Figure for f64 {
    fn to_figure(self) -> u64 {
        self as u64
    }
}

fn grouped(number: impl Figure) -> HumanCount {
    HumanCount(number.to_figure())
}
