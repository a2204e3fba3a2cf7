//! Compares the registry with its peers, in one run of one process. The contenders take turns in many short rounds, and
//! are compared by the ratio of their times within a round.
//!
//! - `plan`: the command line
//! - `keys`, `peers`: the contenders, each in its best idiom, with the same hasher and presized
//! - `harness`: turns, rounds, threads
//! - `work`: the workloads, by group
//! - `cases`, `targets`, `json`: the results, and the targets that they must reach
//! - `baseline`: a comparison of reads with an earlier run
//!
//! A cell is a median, or a median of ratios with its quartiles. A ratio above 1 means that ours is faster. A contender
//! in brackets is a limit, which does less than a registry.

mod baseline;
mod cases;
mod harness;
mod json;
mod keys;
mod peers;
mod plan;
mod targets;
mod work;

use plan::{GROUPS, Plan};
use std::fmt::Display;
use std::path::Path;
use work::Results;

/// Counts bytes for the group `memory` and for the peaks of writes. Otherwise each call only reads a flag.
#[global_allocator]
static ALLOCATOR: benches::heap::Counting = benches::heap::Counting;

fn main() {
    // A panic ends the process: in the harness, the other threads would wait forever for a thread that panicked.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::exit(101);
    }));
    let plan = Plan::read();
    let mut results = Results::default();
    type Group = fn(&Plan, &mut Results);
    let groups: [(&str, Group); GROUPS.len()] = [
        ("reads", work::reads::run),
        ("hot", work::reads::hot),
        ("writes", work::writes::run),
        ("mixes", work::mixes::run),
        ("dropped", work::dropped::run),
        ("scaling", work::scaling::run),
        ("iteration", work::whole::iteration),
        ("teardown", work::whole::teardown),
        ("growth", work::growth::run),
        ("tails", work::tails::run),
        ("memory", work::memory::run),
        ("seed", work::seed::run),
        ("bounded", work::bounded::run),
        ("conntrack", work::conntrack::run),
        ("cell", work::cell::run),
        ("counter", work::counter::run),
        ("list", work::list::run),
        ("locks", work::locks::run),
    ];
    for (group, run) in groups {
        if plan.wants(group) {
            run(&plan, &mut results);
        }
    }
    let rows = targets::rows(&plan, &results.0);
    println!("{}", targets::table(&rows));
    if let Some(path) = &plan.baseline {
        match baseline::compared(path, &results.0) {
            Ok(report) => println!("{report}"),
            Err(error) => fail(path, &error),
        }
    }
    if let Some(path) = &plan.json {
        let written = std::fs::write(path, json::document(&plan, &results.0, &rows));
        if let Err(error) = written {
            fail(path, &error);
        }
    }
}

fn fail(path: &Path, error: &dyn Display) -> ! {
    eprintln!("compare: {}: {error}", path.display());
    std::process::exit(1);
}
