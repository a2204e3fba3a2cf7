//! Growth from empty: the time of single inserts while the map grows, above all the longest.
//!
//! The time for which a thread waits for its core is subtracted, if the kernel reports it (Linux, by `schedstat`).
//! Otherwise the longest pause would be a pause of the scheduler on any machine with other load.

use super::Results;
use super::writes::case;
use crate::cases::{Idiom, Kind, Series};
use crate::peers::{Map, of_every_map};
use crate::plan::Plan;
use benches::{Clock, heap};
use hdrhistogram::Histogram;
use std::sync::Arc;
use std::time::Duration;

pub const LONGEST: &str = "longest pause of an insert";

/// The percentiles that are kept, each with the name of its case. Their unit is nanoseconds.
const POINTS: [(&str, f64); 5] = [
    (LONGEST, 100.0),
    ("p99.99 of inserts", 99.99),
    ("p99.9 of inserts", 99.9),
    ("p99 of inserts", 99.0),
    ("median of inserts", 50.0),
];

/// Returns the final number of entries.
pub fn size(plan: &Plan) -> usize {
    plan.amount(10_000_000, 20_000)
}

struct Contender {
    name: &'static str,
    kind: Kind,
    grow: fn(&Clock, usize) -> Histogram<u64>,
    weigh: fn(usize) -> f64,
}

fn contender<M: Map<u64>>() -> Contender {
    Contender { name: M::NAME, kind: M::KIND, grow: grow::<M>, weigh: weigh::<M> }
}

/// Returns how long this thread has waited for a core so far, or zero if the kernel does not tell.
fn waited() -> Duration {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let waited = schedstat.split_whitespace().nth(1).and_then(|waited| waited.parse().ok());
    Duration::from_nanos(waited.unwrap_or(0))
}

fn grow<M: Map<u64>>(clock: &Clock, size: usize) -> Histogram<u64> {
    let mut times = Histogram::new_with_max(clock.ticks(Duration::from_secs(600)), 2).expect("fits");
    let map = M::with_capacity(0);
    let (long, mut before) = (clock.ticks(Duration::from_micros(20)), waited());
    for number in 0..size as u64 {
        let begin = clock.now();
        let new = map.insert(number, number);
        let end = clock.now();
        assert!(new, "{}: {number} is present twice", M::NAME);
        let mut time = end - begin;
        if time > long {
            let now = waited();
            time = time.saturating_sub(clock.ticks(now.saturating_sub(before)));
            before = now;
        }
        times.saturating_record(time);
    }
    map.destroy();
    times
}

/// Returns the peak of allocated bytes while a map grows. This run is not timed.
fn weigh<M: Map<u64>>(size: usize) -> f64 {
    heap::start();
    let map = M::with_capacity(0);
    let new = (0..size as u64).filter(|&number| map.insert(number, number)).count();
    let peak = heap::stop().peak;
    assert_eq!(new, size, "{}: a key is present twice", M::NAME);
    map.destroy();
    peak as f64
}

pub fn run(plan: &Plan, results: &mut Results) {
    let clock = Clock::calibrate();
    let contenders: Vec<Contender> = of_every_map!(Arc<u64>, contender());
    let mut times: Vec<Vec<Histogram<u64>>> = contenders.iter().map(|_| Vec::new()).collect();
    for _ in 0..plan.rounds(3) {
        for (contender, times) in contenders.iter().zip(&mut times) {
            times.push((contender.grow)(&clock, size(plan)));
        }
    }
    let peaks: Vec<_> = contenders.iter().map(|contender| (contender.weigh)(size(plan))).collect();
    for (work, percent) in POINTS {
        let point = |times: &Histogram<u64>| clock.nanoseconds(times.value_at_percentile(percent));
        let series = contenders.iter().zip(&times).zip(&peaks).map(|((contender, times), &peak)| {
            let rounds = times.iter().map(point).collect();
            Series { peak: Some(peak), ..Series::new(contender.name, Idiom::Each, contender.kind, rounds) }
        });
        results.add(case::<Arc<u64>>("growth", work, size(plan)), "ns", series.collect());
    }
}
