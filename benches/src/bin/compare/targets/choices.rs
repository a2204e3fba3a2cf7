//! Which of a case's contenders are compared.

use crate::cases::{Idiom, Kind, Series};
use crate::peers::ours::{Batches, Handles, IN_MEMORY_ORDER, LOCAL, Way};

/// Which of a case's series are compared.
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

pub fn papaya_each(series: &Series) -> bool {
    series.name == "papaya" && series.idiom == Idiom::Each
}

/// Ours, written by the operations that return handles.
pub fn handles(series: &Series) -> bool {
    series.name == Handles::NAME
}

/// Ours, written many keys in one call.
pub fn batches(series: &Series) -> bool {
    series.name == Batches::NAME
}

/// Ours, with handles that the thread counts for itself.
pub fn local(series: &Series) -> bool {
    series.name == LOCAL
}

/// Ours, walked over in the order of its memory.
pub fn in_memory_order(series: &Series) -> bool {
    series.name == IN_MEMORY_ORDER
}
