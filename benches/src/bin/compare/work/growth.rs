//! Growth from empty: how long single inserts take while the map grows, the longest first of all.
//!
//! What a thread waits for its core in an insert is not the map's fault, and is taken off where the kernel tells it
//! (Linux, by `schedstat`): else the longest pause would be the scheduler's on any machine with other work to do.

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

/// The points of the histogram that are kept, in nanoseconds, with the name of their case.
const POINTS: [(&str, f64); 5] = [
    (LONGEST, 100.0),
    ("p99.99 of inserts", 99.99),
    ("p99.9 of inserts", 99.9),
    ("p99 of inserts", 99.0),
    ("median of inserts", 50.0),
];

/// How many entries there are in the end.
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

/// How long this thread has waited for a core so far.
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
        assert!(new, "{}: {number} is there twice", M::NAME);
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

/// The most bytes allocated at once while a map grows. It is not timed.
fn weigh<M: Map<u64>>(size: usize) -> f64 {
    heap::start();
    let map = M::with_capacity(0);
    let new = (0..size as u64).filter(|&number| map.insert(number, number)).count();
    let peak = heap::stop().peak;
    assert_eq!(new, size, "{}: a key is there twice", M::NAME);
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
