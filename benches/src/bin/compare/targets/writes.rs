//! Targets of writes, growth, tails, memory and connection tracking, against the best peer.

use super::choices::*;
use super::{Rows, Target};
use crate::keys::{Pattern, Value};
use crate::plan::Plan;
use crate::work::{conntrack, growth, memory, mixes, tails, writes};
use std::sync::Arc;

pub fn add(rows: &mut Rows<'_>, plan: &Plan) {
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
