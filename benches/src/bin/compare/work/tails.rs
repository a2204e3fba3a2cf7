//! Single borrowed reads of one thread, while another thread first grows the map from empty, and then churns it.

use super::Results;
use super::writes::case;
use crate::cases::{Idiom, Kind, Series};
use crate::peers::{Map, of_every_map};
use crate::plan::Plan;
use benches::{Clock, Xorshift, stay_on_core};
use hdrhistogram::Histogram;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub const GROWTH: &str = "p99.9 of a read during growth";
pub const CHURN: &str = "p99.9 of a read during churn";

/// The state that the reader and the writer share.
#[derive(Default)]
struct Stage {
    /// All keys below this number were inserted. Churn may have removed one of them.
    present: AtomicU64,
    churning: AtomicBool,
    over: AtomicBool,
}

/// The read times during growth, and during churn.
type Times = [Histogram<u64>; 2];

struct Contender {
    name: &'static str,
    kind: Kind,
    trial: fn(&Clock, u64) -> Times,
}

fn contender<M: Map<u64>>() -> Contender {
    Contender { name: M::NAME, kind: M::KIND, trial: trial::<M> }
}

fn trial<M: Map<u64>>(clock: &Clock, size: u64) -> Times {
    let (map, stage) = (M::with_capacity(0), Stage::default());
    let times = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            stay_on_core(1);
            read(clock, &stage, map.session::<3>())
        });
        scope.spawn(|| {
            stay_on_core(0);
            write(&map, &stage, size);
        });
        reader.join().expect("no contender panics")
    });
    map.destroy();
    times
}

// ORDERING: here and in `read`, `present` is stored with Release and loaded with Acquire, so that the reader finds
// all keys below it. The flags are Relaxed, because a late load does no harm.
fn write<M: Map<u64>>(map: &M, stage: &Stage, size: u64) {
    for number in 0..size {
        assert!(map.insert(number, number));
        stage.present.store(number + 1, Ordering::Release);
    }
    stage.churning.store(true, Ordering::Relaxed);
    let mut random = Xorshift::new(9);
    for _ in 0..size {
        let number = random.below(size);
        assert!(map.remove(&number) && map.insert(number, number));
    }
    stage.over.store(true, Ordering::Relaxed);
}

fn read(clock: &Clock, stage: &Stage, mut read: impl FnMut(&u64) -> Option<u64>) -> Times {
    let new = || Histogram::new_with_max(clock.ticks(std::time::Duration::from_secs(600)), 2).expect("fits");
    let mut times = [new(), new()];
    let mut random = Xorshift::new(11);
    while !stage.over.load(Ordering::Relaxed) {
        let present = stage.present.load(Ordering::Acquire);
        if present == 0 {
            continue;
        }
        let churning = stage.churning.load(Ordering::Relaxed);
        let key = black_box(random.below(present));
        let begin = clock.now();
        let value = black_box(read(&key));
        let end = clock.now();
        assert!(value == Some(key) || churning && value.is_none(), "the value of {key} is {value:?}");
        times[usize::from(churning)].saturating_record(end - begin);
    }
    times
}

pub fn run(plan: &Plan, results: &mut Results) {
    if plan.cores == 1 {
        println!("tails: left out, as there is one core\n");
        return;
    }
    let (clock, size) = (Clock::calibrate(), plan.amount(1_000_000, 20_000));
    let contenders: Vec<Contender> = of_every_map!(Arc<u64>, contender());
    let mut times: Vec<Vec<Times>> = contenders.iter().map(|_| Vec::new()).collect();
    for _ in 0..plan.rounds(7) {
        for (contender, times) in contenders.iter().zip(&mut times) {
            times.push((contender.trial)(&clock, size as u64));
        }
    }
    for (work, stage, percent) in [
        (GROWTH, 0, 99.9),
        (CHURN, 1, 99.9),
        ("median of a read during growth", 0, 50.0),
        ("median of a read during churn", 1, 50.0),
    ] {
        // There may be no read at all, for a map with a lock in a short run.
        let point = |times: &Times| match &times[stage] {
            times if times.is_empty() => f64::NAN,
            times => clock.nanoseconds(times.value_at_percentile(percent)),
        };
        let series = contenders.iter().zip(&times).map(|(contender, times)| {
            Series::new(contender.name, Idiom::Each, contender.kind, times.iter().map(point).collect())
        });
        let mut case = case::<Arc<u64>>("tails", work, size);
        case.threads = 2;
        results.add(case, "ns", series.collect());
    }
}
