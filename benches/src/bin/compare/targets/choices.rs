//! Predicates that select the series of a case that a target compares.

use crate::cases::{Idiom, Kind, Series};
use crate::peers::ours::{Batches, Handles, IN_MEMORY_ORDER, LOCAL, Way};
use crate::work::counter::{ATOMIC, SHARDED};

/// A predicate that selects series of a case.
pub type Choice = fn(&Series) -> bool;

pub fn peer(series: &Series) -> bool {
    series.kind.is_peer()
}

pub fn peer_each(series: &Series) -> bool {
    peer(series) && series.idiom == Idiom::Each
}

pub fn peer_held(series: &Series) -> bool {
    peer(series) && series.idiom == Idiom::Held
}

pub fn lock_free(series: &Series) -> bool {
    series.kind == Kind::LockFree
}

pub fn liburcu(series: &Series) -> bool {
    series.name.starts_with("liburcu") && series.idiom == Idiom::Each
}

pub fn dpdk(series: &Series) -> bool {
    series.name.starts_with("DPDK") && series.idiom == Idiom::Each
}

pub fn dpdk_bulk(series: &Series) -> bool {
    series.name.starts_with("DPDK") && series.idiom == Idiom::Batch
}

pub fn ours(series: &Series) -> bool {
    series.kind == Kind::Ours
}

pub fn session(series: &Series) -> bool {
    ours(series) && series.idiom == Idiom::Session
}

pub fn each(series: &Series) -> bool {
    ours(series) && series.idiom == Idiom::Each
}

pub fn held(series: &Series) -> bool {
    ours(series) && series.idiom == Idiom::Held
}

pub fn batch(series: &Series) -> bool {
    ours(series) && series.idiom == Idiom::Batch
}

pub fn index(series: &Series) -> bool {
    series.name == "scc HashIndex"
}

pub fn mutex(series: &Series) -> bool {
    series.name == "Mutex<HashMap>"
}

pub fn one_atomic(series: &Series) -> bool {
    series.name == ATOMIC
}

pub fn sharded(series: &Series) -> bool {
    series.name == SHARDED
}

pub fn papaya_each(series: &Series) -> bool {
    series.name == "papaya" && series.idiom == Idiom::Each
}

/// Returns whether this is ours, with the write operations that return handles.
pub fn handles(series: &Series) -> bool {
    series.name == Handles::NAME
}

/// Returns whether this is ours, with writes of many keys in one call.
pub fn batches(series: &Series) -> bool {
    series.name == Batches::NAME
}

/// Returns whether this is ours, with local handles, which the thread itself counts.
pub fn local(series: &Series) -> bool {
    series.name == LOCAL
}

/// Returns whether this is ours, iterated in memory order.
pub fn in_memory_order(series: &Series) -> bool {
    series.name == IN_MEMORY_ORDER
}
