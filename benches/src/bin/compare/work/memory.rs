//! The bytes per entry, measured by a counting allocator.

use super::Results;
use super::writes::case;
use crate::cases::{Idiom, Kind, Series};
use crate::keys::Value;
use crate::peers::{Map, of_every_map, our_hasher};
use crate::plan::Plan;
use benches::heap;
use epoch_registry::{Domain, Registry};
use std::sync::Arc;
use std::time::Duration;

pub const REQUESTED: &str = "bytes requested";

/// Returns the bytes per entry of the map that `fill` makes: requested bytes, and bytes with malloc's overhead.
fn weigh<T>(size: usize, fill: impl FnOnce() -> T) -> [f64; 2] {
    heap::start();
    let filled = fill();
    let bytes = heap::stop();
    drop(filled);
    [bytes.in_use, bytes.taken].map(|bytes| bytes as f64 / size as f64)
}

struct Weighed {
    name: &'static str,
    kind: Kind,
    bytes: [f64; 2],
}

fn weighed<M: Map<u64>>(size: usize) -> Weighed {
    Weighed { name: M::NAME, kind: M::KIND, bytes: weigh(size, || M::filled(size)) }
}

/// Returns a registry with a bound on its entries, a maximum age, a maximum idle time and a listener.
fn full(size: usize) -> Registry<u64, u64> {
    let day = Duration::from_secs(86_400);
    let builder = Registry::builder().domain(Domain::new()).hasher(our_hasher()).capacity(size);
    let registry = builder.max_entries(2 * size).max_age(day).max_idle(day).listener(|_, _| ()).build();
    (0..size as u64).for_each(|number| drop(registry.try_insert(number, number)));
    assert_eq!(registry.len(), size);
    registry
}

pub fn run(plan: &Plan, results: &mut Results) {
    let size = plan.amount(1_000_000, 2_000);
    of_values::<Arc<u64>>(size, results);
    of_values::<u64>(size, results);
}

fn of_values<V: Value>(size: usize, results: &mut Results) {
    let mut all: Vec<Weighed> = of_every_map!(V, weighed(size));
    all.insert(
        1,
        Weighed { name: "ours, with bounds, ages and listener", kind: Kind::Ours, bytes: weigh(size, || full(size)) },
    );
    for (point, work) in [REQUESTED, "bytes with malloc's own (glibc)"].into_iter().enumerate() {
        let series = all.iter().map(|one| Series::new(one.name, Idiom::Each, one.kind, vec![one.bytes[point]]));
        results.add(case::<V>("memory", work, size), "bytes/entry", series.collect());
    }
}
