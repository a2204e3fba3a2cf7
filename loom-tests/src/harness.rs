//! Runs models, counts their executions, and prints what was explored.
//!
//! Each model runs in a process of its own, and as many processes run as the machine has processors. A model's output is
//! printed when the model ends.
//!
//! `loom-tests/executions/` records how many executions each model takes, in one file per layer. A model fails if it
//! takes fewer than half or more than one and a half times the recorded number: the race that it explores has changed.
//! `--record` writes the numbers of the models that ran into the file.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Output, exit};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A model of one race, explored exhaustively or up to a number of preemptions.
pub struct Model {
    pub name: &'static str,
    /// The property that holds in every execution.
    pub claim: &'static str,
    /// The maximum number of preemptions explored, or `None` for no bound.
    pub bound: Option<usize>,
    pub run: fn(),
}

/// Command-line overrides of the models' own bounds. No executions are recorded for overridden bounds.
#[derive(Clone, Copy, Default, PartialEq)]
struct Depth {
    /// Replaces the bound of every model.
    bound: Option<usize>,
    /// Added to the bound of each model that has one.
    more: usize,
}

impl Depth {
    fn of(self, model: &Model) -> Option<usize> {
        self.bound.or(model.bound).map(|bound| bound + self.more)
    }
}

/// The name of the layer. Each layer has its own recorded numbers of executions.
const LAYER: &str =
    if cfg!(crossbeam_loom) { "whole: over crossbeam-epoch" } else { "contract: over an abstract epoch" };

/// The recorded executions: one line per model, with its name and its number.
const RECORDED: &str = if cfg!(crossbeam_loom) {
    include_str!("../executions/whole.txt")
} else {
    include_str!("../executions/contract.txt")
};

/// The path of the file that holds the recorded executions.
const RECORD: &str = if cfg!(crossbeam_loom) {
    concat!(env!("CARGO_MANIFEST_DIR"), "/executions/whole.txt")
} else {
    concat!(env!("CARGO_MANIFEST_DIR"), "/executions/contract.txt")
};

/// Returns the names and numbers in a file of recorded executions.
fn entries(file: &str) -> impl Iterator<Item = (&str, u64)> {
    file.lines().filter_map(|line| line.split_once(' ')).filter_map(|(name, count)| Some((name, count.parse().ok()?)))
}

/// Returns the recorded number of executions of a model.
fn recorded(name: &str) -> Option<u64> {
    entries(RECORDED).find(|&(known, _)| known == name).map(|(_, count)| count)
}

/// Returns the range of executions that a model may take, or `None` if nothing is recorded for it.
fn expected(name: &str) -> Option<RangeInclusive<u64>> {
    let count = recorded(name)?;
    Some(count / 2..=(3 * count).div_ceil(2))
}

/// Sets the recorded number of `name` in the file. Models that record run one after another, so only one process writes at
/// a time.
fn record(name: &str, executions: u64) {
    let file = std::fs::read_to_string(RECORD).expect("the file of recorded executions must be readable");
    let mut all: BTreeMap<&str, u64> = entries(&file).collect();
    all.insert(name, executions);
    let lines: String = all.iter().map(|(name, count)| format!("{name} {count}\n")).collect();
    std::fs::write(RECORD, lines).expect("the file of recorded executions must be writable");
}

pub fn main(models: &[Model]) {
    let mut names = Vec::new();
    let mut depth = Depth::default();
    let (mut alone, mut records) = (false, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || match arguments.next().and_then(|number| number.parse().ok()) {
            Some(number) => number,
            None => usage(&format!("{argument} takes a number")),
        };
        match argument.as_str() {
            "--alone" => alone = true,
            "--record" => records = true,
            "--bound" => depth.bound = Some(number()),
            "--more" => depth.more = number(),
            name if models.iter().any(|model| model.name == name) => names.push(name.to_string()),
            other => usage(&format!("there is no model `{other}`")),
        }
    }
    if records && depth != Depth::default() {
        usage("--record cannot be combined with --bound or --more: only runs with the models' own bounds are recorded");
    }
    if alone {
        let outcome = models
            .iter()
            .filter(|model| names.iter().any(|name| name == model.name))
            .try_for_each(|model| explore(model, depth, records));
        if let Err(why) = &outcome {
            println!("  FAILED: {why}");
        }
        exit(i32::from(outcome.is_err()));
    }
    let started = Instant::now();
    let wanted = |model: &&Model| names.is_empty() || names.iter().any(|name| name == model.name);
    let mut queue: Vec<&Model> = models.iter().filter(wanted).collect();
    // The one with the most executions begins first, so that no model runs alone for long at the end. The queue is taken from its end.
    queue.sort_by_key(|model| recorded(model.name));
    let processes = if records { 1 } else { std::thread::available_parallelism().map_or(1, usize::from) };
    println!("loom models, layer {LAYER}, {processes} at a time");
    let queue = Mutex::new(queue);
    let results = Mutex::new((0, Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..processes {
            scope.spawn(|| {
                while let Some(model) = next(&queue) {
                    let (has_passed, output) = apart(model, depth, records);
                    let (passed, failures) = &mut *results.lock().expect("no thread panics with the results");
                    print!("{output}");
                    match has_passed {
                        true => *passed += 1,
                        false => failures.push(model.name),
                    }
                }
            });
        }
    });
    let (passed, failures) = results.into_inner().expect("no thread panics with the results");
    println!("{:.1?} in all", started.elapsed());
    if !failures.is_empty() {
        println!("failed: {}", failures.join(", "));
    }
    println!("{passed} passed, {} failed", failures.len());
    exit(i32::from(!failures.is_empty()));
}

fn usage(problem: &str) -> ! {
    eprintln!("{problem}\nusage: models [NAME ...] [--bound N] [--more N] [--record]");
    exit(2);
}

/// Takes a model from the queue. The lock is released before the model runs.
fn next<'m>(queue: &Mutex<Vec<&'m Model>>) -> Option<&'m Model> {
    queue.lock().expect("no thread panics with the queue").pop()
}

/// Explores a model in its own process, because a failing model may abort or leave loom in a broken state. Returns
/// whether it has passed, and its output.
fn apart(model: &Model, depth: Depth, records: bool) -> (bool, String) {
    let program = std::env::current_exe().expect("the path of this program must be known");
    let mut command = std::process::Command::new(program);
    command.args(["--alone", model.name, "--more", &depth.more.to_string()]);
    if let Some(bound) = depth.bound {
        command.args(["--bound", &bound.to_string()]);
    }
    if records {
        command.arg("--record");
    }
    let Output { status, stdout, stderr } = match command.output() {
        Ok(output) => output,
        Err(why) => return (false, format!("{}\n  FAILED: {why}\n", model.name)),
    };
    let mut output = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    if !status.success() && status.code() != Some(1) {
        output += &format!("  FAILED: the model ended by {status}\n");
    }
    (status.success(), output)
}

fn explore(model: &Model, depth: Depth, records: bool) -> Result<(), String> {
    println!("{}: {}", model.name, model.claim);
    let executions = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&executions);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = depth.of(model);
    // Reaching a limit on duration or permutations would end the exploration as a success, so neither is set.
    builder.max_duration = None;
    builder.max_permutations = None;
    builder.max_branches = 100_000;
    let run = model.run;
    let started = Instant::now();
    let explored = catch_unwind(AssertUnwindSafe(|| {
        builder.check(move || {
            counter.fetch_add(1, Ordering::Relaxed);
            run();
        });
    }));
    let (executions, took) = (executions.load(Ordering::Relaxed), started.elapsed());
    let limit = builder.preemption_bound.map_or("no bound".to_string(), |bound| format!("{bound} preemptions"));
    println!("  {executions} executions, {limit}, {:.1?}", Duration::from_millis(took.as_millis() as u64));
    if explored.is_err() {
        return Err(format!("the claim does not hold in execution {executions} (panic below)"));
    }
    if records {
        record(model.name, executions);
        return Ok(());
    }
    if depth != Depth::default() {
        return Ok(());
    }
    match expected(model.name) {
        Some(expected) if expected.contains(&executions) => Ok(()),
        Some(expected) => Err(format!("{executions} executions are not in the recorded range {expected:?}")),
        None => Err(format!("{executions} executions are not recorded: run with --record")),
    }
}
