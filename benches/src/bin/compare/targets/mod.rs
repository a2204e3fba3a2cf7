//! The targets, and whether they are reached.
//!
//! - `reads`: all kinds of reads
//! - `lean`: writes, iteration and teardown, against scc's `HashIndex` and against a mutex
//! - `writes`: writes, growth, tails, memory and connection tracking, against the best peer
//! - `cell`: one published pointer
//! - `counter`: counts that all threads change
//! - `lists`: walks of lists, against lists that nothing protects
//! - `choices`: which contenders are compared

mod cell;
mod choices;
mod counter;
mod lean;
mod lists;
mod reads;
mod writes;

use crate::cases::{Case, Measured};
use crate::plan::Plan;
use benches::{Sorted, Table};
use choices::Choice;
use std::fmt;

/// A bound on a ratio.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    AtLeast(f64),
    AtMost(f64),
    /// No bound. The ratio is shown for comparison only.
    Shown,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::AtLeast(ratio) => write!(f, "at least {ratio:?}"),
            Target::AtMost(ratio) => write!(f, "at most {ratio:?}"),
            Target::Shown => f.write_str("-"),
        }
    }
}

/// A target with its measured ratio: one line of the table.
pub struct Row {
    pub work: String,
    pub against: &'static str,
    pub target: Target,
    /// The smallest ratio. `None` if the case was not run.
    pub measured: Option<Sorted>,
    /// The contender that has the smallest ratio.
    pub peer: Option<String>,
}

impl Row {
    /// Returns whether the target is reached, or `None` if there is no target or no sample.
    pub fn reached(&self) -> Option<bool> {
        let median = Some(self.measured.as_ref()?.median()).filter(|median| !median.is_nan())?;
        match self.target {
            Target::AtLeast(ratio) => Some(median >= ratio),
            Target::AtMost(ratio) => Some(median <= ratio),
            Target::Shown => None,
        }
    }
}

struct Rows<'r> {
    results: &'r [Measured],
    rows: Vec<Row>,
}

impl Rows<'_> {
    /// Adds a row. Its ratio is the smallest one of any of `theirs` to the first of `ours`, if the case was measured.
    fn add(&mut self, work: &str, case: Case, theirs: Choice, against: &'static str, ours: Choice, target: Target) {
        let least = self.results.iter().find(|measured| measured.case == case).and_then(|measured| {
            let ours = measured.series.iter().find(|series| ours(series))?;
            let ratios =
                measured.series.iter().filter(|series| theirs(series)).map(|series| (series.over(ours), series));
            ratios.min_by(|a, b| a.0.median().total_cmp(&b.0.median()))
        });
        let (measured, peer) = match least {
            Some((ratio, series)) => (Some(ratio), Some(format!("{}, {}", series.name, series.idiom))),
            None => (None, None),
        };
        self.rows.push(Row { work: work.into(), against, target, measured, peer });
    }
}

/// Returns all rows, in the order in which the groups add them.
pub fn rows(plan: &Plan, results: &[Measured]) -> Vec<Row> {
    let mut rows = Rows { results, rows: vec![] };
    reads::add(&mut rows, plan.cores);
    lean::add(&mut rows, plan);
    writes::add(&mut rows, plan);
    cell::add(&mut rows, plan.cores);
    counter::add(&mut rows, plan);
    lists::add(&mut rows);
    rows.rows
}

/// Returns the rows as a table.
pub fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(3, ["what must be reached", "against", "by", "target", "measured", ""]);
    for row in rows {
        let measured = row.measured.as_ref().map_or("not measured".into(), Sorted::to_string);
        let reached = match row.reached() {
            Some(true) => "reached",
            Some(false) => "NOT REACHED",
            None => "",
        };
        let peer = row.peer.clone().unwrap_or_default();
        table.row([row.work.clone(), row.against.into(), peer, row.target.to_string(), measured, reached.into()]);
    }
    table
}
