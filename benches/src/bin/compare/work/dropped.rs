//! Removal until everything is dropped. The measured time ends when the last removed value is dropped, which a
//! counter in its destructor shows. So a contender that drops values later cannot exclude that cost from the measured
//! time.
//!
//! - With the map alive: after all keys are removed, the map's collector is called until all values are dropped, for at
//!   most one second. A map that needs longer has no sample: "never within 1 s".
//! - With the map destroyed after the removals, in the measured time: here every map finishes.
//!
//! Values count their drops in all contenders, at the cost of one locked instruction per drop.

use super::Results;
use super::reads::seed;
use super::writes::shuffled;
use crate::cases::{Case, DROP_LIMIT, Drops, Idiom};
use crate::harness::{Lane, Sample, interleave_weighed};
use crate::keys::Counted;
use crate::peers::{Map, of_every_writer};
use crate::plan::Plan;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub const ALIVE: &str = "remove, until everything is dropped";
pub const DESTROYED: &str = "remove and destroy the map, until everything is dropped";
pub const TEARDOWN: &str = "destroy the whole map, until everything is dropped";

/// The type of values that the peers hold. Ours holds `Counted`.
type Held = Arc<Counted>;

/// Returns a case of this group.
pub fn case(work: &'static str, size: usize) -> Case {
    super::writes::case::<Held>("dropped", work, size)
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    /// Keys are removed, and the map stays.
    Alive,
    /// Keys are removed, and the map is destroyed.
    Destroyed,
    /// The map is destroyed with its entries.
    Teardown,
}

/// Calls `reclaim` until `dropped` values were dropped since the start of the program. Returns whether that took no
/// longer than [`DROP_LIMIT`].
fn await_drops(dropped: u64, reclaim: impl Fn()) -> bool {
    let begin = Instant::now();
    while Counted::dropped() < dropped {
        if begin.elapsed() > DROP_LIMIT {
            return false;
        }
        reclaim();
    }
    true
}

/// Returns the time until all values of one map are dropped, or `None` if it exceeds the limit.
fn measure<M: Map<u64>>(keys: &[u64], end: End) -> Option<Duration> {
    let map = M::filled(keys.len());
    let all = Counted::dropped() + keys.len() as u64;
    let begin = Instant::now();
    if end != End::Teardown {
        let removed = map.remove_all(keys.iter());
        assert_eq!(removed, keys.len(), "{}: a key is missing", M::NAME);
    }
    let alive = end == End::Alive && await_drops(all, || map.reclaim());
    let time = begin.elapsed();
    map.destroy();
    // Needed in all cases: values that are left would be counted as those of the next contender.
    let destroyed = await_drops(all, M::reclaim_destroyed);
    match end {
        End::Alive => alive.then_some(time),
        End::Destroyed | End::Teardown => destroyed.then(|| begin.elapsed()),
    }
}

fn lane<M: Map<u64>>(end: End) -> Lane<'static, Vec<u64>> {
    // A contender that exceeded the limit once is not run again.
    let mut never = false;
    let turn = move |keys: &Vec<u64>| {
        let (maps, mut time) = ((16_384 / keys.len()).max(1), Duration::ZERO);
        for _ in 0..maps {
            match (!never).then(|| measure::<M>(keys, end)).flatten() {
                Some(took) => time += took,
                None => {
                    never = true;
                    return Sample::none(0);
                }
            }
        }
        Sample::new(time, maps * keys.len(), 0)
    };
    Lane { drops: Some(Drops::Awaited), ..Lane::new(M::NAME, Idiom::Each, M::KIND, turn) }
}

pub fn run(plan: &Plan, results: &mut Results) {
    for &size in plan.sizes.iter().filter(|&&size| size <= 1_000_000) {
        let rounds = plan.rounds(if size <= 100_000 { 15 } else { 5 });
        let keys = |round, thread| shuffled(size, seed(round, thread));
        for (work, end) in [(ALIVE, End::Alive), (DESTROYED, End::Destroyed), (TEARDOWN, End::Teardown)] {
            let series = interleave_weighed(1, rounds, keys, || of_every_writer!(Held, lane(end)));
            results.add(case(work, size), "ns/entry", series);
        }
    }
}
