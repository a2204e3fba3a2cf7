//! Targets of writes, iteration and teardown, against scc's `HashIndex` and hashbrown behind a mutex, both of `Arc<V>`.

use super::Rows;
use super::Target::AtLeast;
use super::choices::*;
use crate::cases::Case;
use crate::keys::Pattern;
use crate::plan::Plan;
use crate::work::dropped::{self, ALIVE, DESTROYED};
use crate::work::{mixes, whole, writes};
use std::sync::Arc;

/// Adds a row for each of the two peers, with the ratio of the peer's time to that of `ours`.
fn both(rows: &mut Rows<'_>, what: &str, case: Case, ours: Choice, [to_index, to_mutex]: [f64; 2]) {
    rows.add(what, case.clone(), index, "scc HashIndex of Arc<V>", ours, AtLeast(to_index));
    rows.add(what, case, mutex, "Mutex<HashMap> of Arc<V>", ours, AtLeast(to_mutex));
}

fn case(group: &'static str, work: &'static str, size: usize) -> Case {
    writes::case::<Arc<u64>>(group, work, size)
}

pub fn add(rows: &mut Rows<'_>, plan: &Plan) {
    let churn = |size| case("writes", "churn: remove and insert", size);
    both(rows, "remove and insert, 1,000", churn(1_000), ours, [1.8, 1.0]);
    both(rows, "remove and insert, with handles, 1,000", churn(1_000), handles, [1.3, 0.75]);
    both(rows, "remove and insert, 100,000", churn(100_000), ours, [1.3, 1.0]);
    both(rows, "remove and insert, 1,000,000", churn(1_000_000), ours, [1.3, 1.0]);

    let insert = |size| case("writes", "insert into a sized map", size);
    both(rows, "insert, 1,000", insert(1_000), ours, [2.0, 1.5]);
    both(rows, "insert, with a handle, 1,000", insert(1_000), handles, [1.5, 1.1]);
    both(rows, "insert, 1,000,000", insert(1_000_000), ours, [2.2, 1.6]);

    let remove = case("writes", "remove", 1_000);
    both(rows, "remove, 1,000", remove.clone(), ours, [1.4, 1.6]);
    both(rows, "remove, with a handle, 1,000", remove, handles, [0.87, 1.0]);
    for work in [ALIVE, DESTROYED] {
        both(rows, &format!("{work}, 1,000,000"), dropped::case(work, 1_000_000), ours, [1.5, 1.3]);
        both(rows, &format!("{work}, in batches, 1,000,000"), dropped::case(work, 1_000_000), batches, [1.5, 3.0]);
    }

    let replace = |size| case("writes", "replace", size);
    both(rows, "replace, 1,000", replace(1_000), ours, [2.8, 1.2]);
    both(rows, "replace, 1,000,000", replace(1_000_000), ours, [1.8, 1.4]);

    let mix = |work, size| mixes::case::<Arc<u64>>(work, Pattern::Uniform, size, plan.cores);
    both(rows, "50/50, all cores, 1,000", mix("50 reads, 50 writes", 1_000), session, [1.1, 1.1]);
    both(rows, "50/50, all cores, 1,000,000", mix("50 reads, 50 writes", 1_000_000), session, [1.2, 1.9]);
    both(rows, "95/5, all cores, 1,000", mix("95 reads, 5 writes", 1_000), session, [1.0, 2.0]);
    both(rows, "95/5, all cores, 1,000,000", mix("95 reads, 5 writes", 1_000_000), session, [1.1, 1.2]);

    let walk = |size| case("iteration", whole::WALK, size);
    both(rows, "iteration, 1,000,000", walk(1_000_000), ours, [2.0, 1.4]);
    both(rows, "iteration in memory order, 1,000,000", walk(1_000_000), in_memory_order, [2.0, 1.4]);
    both(rows, "iteration, 1,000", walk(1_000), ours, [1.1, 0.4]);
    let teardown = case("teardown", whole::DESTROY, plan.amount(1_000_000, 2_000));
    both(rows, "teardown of 1,000,000 u64", teardown, ours, [15.0, 6.0]);
}
