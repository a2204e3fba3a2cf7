//! What must be reached, and what was.

use crate::cases::{Case, Idiom, Kind, Measured, Series};
use crate::keys::{Pattern, Value};
use crate::peers::ours::LOCAL;
use crate::plan::Plan;
use crate::work::{conntrack, growth, memory, mixes, reads, seed, tails, writes};
use benches::{Sorted, Table};
use std::fmt;
use std::sync::Arc;

/// A bound on a ratio.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    AtLeast(f64),
    AtMost(f64),
    /// Shown beside the others, for whoever takes the comparison otherwise.
    Shown,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::AtLeast(ratio) => write!(f, "at least {ratio:.1}"),
            Target::AtMost(ratio) => write!(f, "at most {ratio:.1}"),
            Target::Shown => f.write_str("-"),
        }
    }
}

/// A line of what must be reached.
pub struct Row {
    pub work: String,
    pub against: &'static str,
    pub target: Target,
    /// The ratio that comes closest to missing the target, and whose it is; nothing, if that was not run.
    pub measured: Option<Sorted>,
    pub peer: Option<String>,
}

impl Row {
    /// Whether the target is reached; nothing, if there is none, or no sample.
    pub fn reached(&self) -> Option<bool> {
        let median = Some(self.measured.as_ref()?.median()).filter(|median| !median.is_nan())?;
        match self.target {
            Target::AtLeast(ratio) => Some(median >= ratio),
            Target::AtMost(ratio) => Some(median <= ratio),
            Target::Shown => None,
        }
    }
}

/// Which of a case's series are compared.
type Choice = fn(&Series) -> bool;

fn peer(series: &Series) -> bool {
    series.kind.is_peer()
}

fn peer_each(series: &Series) -> bool {
    peer(series) && series.idiom == Idiom::Each
}

fn peer_held(series: &Series) -> bool {
    peer(series) && series.idiom == Idiom::Held
}

fn lock_free(series: &Series) -> bool {
    series.kind == Kind::LockFree
}

fn liburcu(series: &Series) -> bool {
    series.name.starts_with("liburcu") && series.idiom == Idiom::Each
}

fn dpdk(series: &Series) -> bool {
    series.name.starts_with("DPDK") && series.idiom == Idiom::Each
}

fn dpdk_bulk(series: &Series) -> bool {
    series.name.starts_with("DPDK") && series.idiom == Idiom::Batch
}

fn ours(series: &Series) -> bool {
    series.kind == Kind::Ours
}

fn session(series: &Series) -> bool {
    ours(series) && series.idiom == Idiom::Session
}

fn each(series: &Series) -> bool {
    ours(series) && series.idiom == Idiom::Each
}

fn held(series: &Series) -> bool {
    ours(series) && series.idiom == Idiom::Held
}

fn batch(series: &Series) -> bool {
    ours(series) && series.idiom == Idiom::Batch
}

struct Rows<'r> {
    results: &'r [Measured],
    rows: Vec<Row>,
}

impl Rows<'_> {
    /// Adds a row for each case that was measured: the least ratio of one of `theirs` to the first of `ours`.
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

/// All rows, in the order in which they were asked for.
pub fn rows(plan: &Plan, results: &[Measured]) -> Vec<Row> {
    let mut rows = Rows { results, rows: vec![] };
    reads(&mut rows, plan.cores);
    writes(&mut rows, plan);
    rows.rows
}

fn reads(rows: &mut Rows<'_>, cores: usize) {
    use Target::{AtLeast, AtMost, Shown};
    let case = |owned, pattern, size, threads| reads::case::<u64>("reads", owned, pattern, size, threads);
    let small = |owned| case(owned, Pattern::Uniform, 1_000, 1);
    rows.add("borrowed, session, 1,000 keys", small(false), peer_each, "best peer, pin each", session, AtLeast(1.7));
    rows.add("borrowed, guard held, 1,000", small(false), peer_held, "best peer, guard held", held, AtLeast(1.3));
    {
        let work = "borrowed, guard held, 1,000: ours over theirs";
        let plain: Choice = |series| series.name.starts_with("hashbrown");
        // The other way round.
        rows.add(work, small(false), held, "hashbrown, unsynchronised", plain, AtMost(1.5));
    }
    rows.add("borrowed, pin per read, 1,000", small(false), peer_each, "best peer, pin each", each, AtLeast(1.0));
    rows.add("owned, session, 1,000", small(true), peer_each, "best Arc clone, pin each", session, AtLeast(1.5));
    rows.add("owned, session, 1,000", small(true), peer_held, "best Arc clone, guard held", session, Shown);
    rows.add("owned, pin per read, 1,000", small(true), peer_each, "best Arc clone, pin each", each, AtLeast(1.0));
    let large = |owned, size| case(owned, Pattern::Uniform, size, 1);
    rows.add("borrowed, batch, 1,000,000", large(false, 1_000_000), peer, "best peer, any idiom", batch, AtLeast(1.5));
    for (size, name) in [(1_000_000, "1,000,000"), (10_000_000, "10,000,000")] {
        let work = format!("borrowed, session, {name}");
        rows.add(&work, large(false, size), peer_each, "best peer, pin each", session, AtLeast(1.0));
        let work = format!("borrowed, guard held, {name}");
        rows.add(&work, large(false, size), peer_held, "best peer, guard held", held, AtLeast(1.0));
        let work = format!("owned, session, {name}");
        rows.add(&work, large(true, size), peer_each, "best Arc clone, pin each", session, AtLeast(1.3));
        let work = format!("owned, guard held, {name}");
        rows.add(&work, large(true, size), peer_held, "best Arc clone, guard held", held, Shown);
    }
    for owned in [false, true] {
        for pattern in [Pattern::Uniform, Pattern::Zipf] {
            let way = if owned { "owned" } else { "borrowed" };
            let work = format!("{way}, session, 1,000, {}, all cores", pattern.name());
            let case = case(owned, pattern, 1_000, cores);
            rows.add(&work, case, peer_each, "best peer, pin each", session, AtLeast(1.5));
        }
    }
    let local: Choice = |series| series.name == LOCAL;
    for (case, what) in [
        (case(true, Pattern::Uniform, 1_000, cores), "owned, local handles, 1,000, uniform, all cores"),
        (reads::case::<u64>("hot", true, Pattern::Hot, 1_000, cores), "owned, local handles, one hot key, all cores"),
    ] {
        rows.add(what, case, peer_each, "best peer, pin each", local, Shown);
    }
    rows.add("borrowed, session, 1,000", small(false), liburcu, "liburcu cds_lfht", session, AtLeast(3.0));
    rows.add("borrowed, session, 1,000", small(false), dpdk, "DPDK rte_hash", session, AtLeast(3.0));
    let million = large(false, 1_000_000);
    rows.add("borrowed, batch, 1,000,000", million, dpdk_bulk, "DPDK rte_hash, bulk of 32", batch, AtLeast(1.4));
    rows.add("seed workload, session", seed::case(), peer, "spinlock, mutex, rwlock", session, Shown);
}

fn writes(rows: &mut Rows<'_>, plan: &Plan) {
    use Target::AtLeast;
    for work in ["insert into a sized map", "remove", "churn: remove and insert"] {
        for (size, name) in [(1_000, "1,000"), (1_000_000, "1,000,000")] {
            let case = writes::case::<Arc<u64>>("writes", work, size);
            let work = format!("{work}, {name}");
            rows.add(&work, case, lock_free, "best lock-free of Arc<V>", ours, AtLeast(1.0));
        }
    }
    for (work, _) in &mixes::MIXES[1..] {
        for (size, name) in [(1_000, "1,000"), (1_000_000, "1,000,000")] {
            for pattern in [Pattern::Uniform, Pattern::Zipf] {
                mix::<Arc<u64>>(rows, work, pattern, size, name, plan.cores, "best peer, of Arc<V>");
                mix::<u64>(rows, work, pattern, size, name, plan.cores, "best peer, of V");
            }
        }
    }
    let grown = writes::case::<Arc<u64>>("growth", growth::LONGEST, growth::size(plan));
    rows.add(growth::LONGEST, grown, peer, "best peer", ours, AtLeast(1.0));
    for work in [tails::GROWTH, tails::CHURN] {
        let mut case = writes::case::<Arc<u64>>("tails", work, plan.amount(1_000_000, 20_000));
        case.threads = 2;
        rows.add(work, case, peer, "best peer", ours, AtLeast(1.0));
    }
    let tracked = conntrack::case(plan.cores);
    rows.add("packets tracked, all cores", tracked, peer, "dashmap, papaya of Arc<Flow>", session, AtLeast(1.2));
    let bytes = || writes::case::<Arc<u64>>("memory", memory::REQUESTED, plan.amount(1_000_000, 2_000));
    let full: Choice = |series| series.name.starts_with("ours, with");
    rows.add("bytes per entry, all features", bytes(), peer, "best peer of Arc<V>", full, AtLeast(1.0));
    rows.add("bytes per entry, as by default", bytes(), peer, "best peer of Arc<V>", ours, Target::Shown);
}

fn mix<V: Value>(
    rows: &mut Rows<'_>,
    work: &'static str,
    pattern: Pattern,
    size: usize,
    name: &str,
    threads: usize,
    against: &'static str,
) {
    let case = mixes::case::<V>(work, pattern, size, threads);
    let work = format!("{work}, {name}, {}", pattern.name());
    rows.add(&work, case, peer, against, session, Target::AtLeast(1.2));
}

/// The rows as a table.
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
