//! Runs models, counts their executions, and prints what was explored.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One race, explored exhaustively or up to a number of preemptions.
pub struct Model {
    pub name: &'static str,
    /// What holds in every execution.
    pub claim: &'static str,
    /// Preemptions explored; `None` for all.
    pub bound: Option<usize>,
    /// How many executions it takes, at least and at most: fewer, and the model has lost its subject.
    pub expected: std::ops::RangeInclusive<u64>,
    pub run: fn(),
}

/// Other bounds than the models' own, for which no number of executions is recorded.
#[derive(Clone, Copy, Default, PartialEq)]
struct Depth {
    /// For all models, instead of theirs.
    bound: Option<usize>,
    /// Preemptions more than that.
    more: usize,
}

impl Depth {
    fn of(self, model: &Model) -> Option<usize> {
        self.bound.or(model.bound).map(|bound| bound + self.more)
    }
}

/// The layer, which the ranges of executions depend on.
const LAYER: &str =
    if cfg!(crossbeam_loom) { "whole: over crossbeam-epoch" } else { "contract: over an abstract epoch" };

pub fn main(models: &[Model]) {
    let mut names = Vec::new();
    let mut depth = Depth::default();
    let mut alone = false;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || match arguments.next().and_then(|number| number.parse().ok()) {
            Some(number) => number,
            None => usage(&format!("{argument} takes a number")),
        };
        match argument.as_str() {
            "--alone" => alone = true,
            "--bound" => depth.bound = Some(number()),
            "--more" => depth.more = number(),
            name if models.iter().any(|model| model.name == name) => names.push(name.to_string()),
            other => usage(&format!("there is no model `{other}`")),
        }
    }
    if alone {
        let outcome = models
            .iter()
            .filter(|model| names.iter().any(|name| name == model.name))
            .try_for_each(|model| explore(model, depth));
        if let Err(why) = &outcome {
            println!("  FAILED: {why}");
        }
        exit(i32::from(outcome.is_err()));
    }
    println!("loom models, layer {LAYER}");
    let started = Instant::now();
    let mut failures = Vec::new();
    let mut passed = 0;
    for model in models.iter().filter(|model| names.is_empty() || names.iter().any(|name| name == model.name)) {
        match apart(model, depth) {
            true => passed += 1,
            false => failures.push(model.name),
        }
    }
    println!("{:.1?} in all", started.elapsed());
    if !failures.is_empty() {
        println!("failed: {}", failures.join(", "));
    }
    println!("{passed} passed, {} failed", failures.len());
    exit(i32::from(!failures.is_empty()));
}

fn usage(problem: &str) -> ! {
    eprintln!("{problem}\nusage: models [NAME ...] [--bound N] [--more N]");
    exit(2);
}

/// Explores a model in a process of its own: one that fails may leave loom unable to go on, or abort.
fn apart(model: &Model, depth: Depth) -> bool {
    let program = std::env::current_exe().expect("this program has a path");
    let mut command = std::process::Command::new(program);
    command.args(["--alone", model.name, "--more", &depth.more.to_string()]);
    if let Some(bound) = depth.bound {
        command.args(["--bound", &bound.to_string()]);
    }
    match command.status() {
        Ok(status) if status.success() => true,
        Ok(status) if status.code() == Some(1) => false,
        Ok(status) => {
            println!("  FAILED: the model ended by {status}");
            false
        }
        Err(why) => {
            println!("  FAILED: {why}");
            false
        }
    }
}

fn explore(model: &Model, depth: Depth) -> Result<(), String> {
    println!("{}: {}", model.name, model.claim);
    let executions = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&executions);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = depth.of(model);
    // A limit that strikes would end the exploration as if all were well: there is none.
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
        return Err(format!("the claim does not hold in execution {executions} (panic above)"));
    }
    if depth == Depth::default() && !model.expected.contains(&executions) {
        return Err(format!("{executions} executions are not in the recorded range {:?}", model.expected));
    }
    Ok(())
}
