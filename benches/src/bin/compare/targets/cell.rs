//! Targets of cells.

use super::Rows;
use super::Target::AtLeast;
use super::choices::*;
use crate::work::cell::{LOAD, QUIET, READ, STORE, WRITTEN, case, with_registered};

fn arc_swap_load(series: &crate::cases::Series) -> bool {
    series.name == "arc-swap load"
}

fn arc_swap_cache(series: &crate::cases::Series) -> bool {
    series.name == "arc-swap Cache"
}

fn arc_swap_full(series: &crate::cases::Series) -> bool {
    series.name == "arc-swap load_full"
}

pub fn add(rows: &mut Rows<'_>, cores: usize) {
    for (what, threads) in [("one core", 1), ("all cores", cores)] {
        for written in [QUIET, WRITTEN] {
            let read = || case(READ, written, threads);
            let work = format!("cell read, session, {written}, {what}");
            rows.add(&work, read(), arc_swap_load, "arc-swap load", session, AtLeast(1.5));
            rows.add(&work, read(), arc_swap_cache, "arc-swap Cache", session, AtLeast(1.0));
            let work = format!("cell load, session, {written}, {what}");
            rows.add(&work, case(LOAD, written, threads), arc_swap_full, "arc-swap load_full", session, AtLeast(1.0));
        }
    }
    let store = |registered| case(STORE, with_registered(registered), 1);
    rows.add("cell store, 1 thread", store(1), arc_swap_load, "arc-swap store", ours, AtLeast(1.0));
    rows.add("cell store, 16 registered threads", store(16), arc_swap_load, "arc-swap store", ours, AtLeast(2.0));
}
