//! The results of `compare`, in the form in which it writes them.

use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
pub struct Results {
    /// The program and its arguments.
    pub command: Vec<String>,
    pub machine: Machine,
    pub versions: BTreeMap<String, Option<String>>,
    pub cases: Vec<Case>,
    pub targets: Vec<Target>,
}

#[derive(Deserialize)]
pub struct Machine {
    pub cpu: Option<String>,
    pub cores: usize,
    pub system: String,
}

#[derive(Deserialize)]
pub struct Case {
    pub group: String,
    pub work: String,
    pub what: String,
    pub size: u64,
    pub threads: usize,
    pub unit: String,
    pub series: Vec<Series>,
}

#[derive(Deserialize)]
pub struct Series {
    pub contender: String,
    pub idiom: String,
    pub kind: Kind,
    pub figure: Quartiles,
    /// The ratio, within a round, to ours of the same idiom, or to our session if there is none.
    #[serde(rename = "over ours, same idiom")]
    pub over: Quartiles,
    /// When removed values are dropped, for a series of writes.
    #[serde(default)]
    pub drops: Option<String>,
    /// The peak of allocated bytes in a turn, for a series of writes.
    #[serde(default)]
    pub peak: Option<f64>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Ours,
    LockFree,
    Locking,
    Foreign,
    Limit,
}

/// The quartiles of the rounds. All are `None` if no round had a sample.
#[derive(Deserialize, Clone, Copy)]
pub struct Quartiles {
    low: Option<f64>,
    median: Option<f64>,
    high: Option<f64>,
}

impl Quartiles {
    /// Returns the lower quartile, the median and the upper quartile.
    pub fn get(self) -> Option<[f64; 3]> {
        Some([self.low?, self.median?, self.high?])
    }

    pub fn median(self) -> Option<f64> {
        self.get().map(|[_, median, _]| median)
    }
}

#[derive(Deserialize)]
pub struct Target {
    pub work: String,
    pub against: String,
    pub target: String,
    pub measured: Option<Quartiles>,
    pub peer: Option<String>,
    pub reached: Option<bool>,
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use serde_json::json;

    /// Returns results with four cases. The first case has ours in three idioms, a peer in two, a peer without a
    /// sample, and a limit.
    pub fn example() -> Results {
        let series = |contender, idiom, kind, figure: [Option<f64>; 3], over: [Option<f64>; 3]| {
            json!({
                "contender": contender, "idiom": idiom, "kind": kind,
                "figure": figure, "over ours, same idiom": over,
            })
        };
        let write = |contender, kind, figure: [Option<f64>; 3], over: [Option<f64>; 3], drops, peak: Option<u32>| {
            let mut series = series(contender, "each its own", kind, figure, over);
            series["drops"] = json!(drops);
            series["peak"] = json!(peak);
            series
        };
        let (one, none) = ([Some(1.0); 3], [None; 3]);
        let around = |median: f64| [0.98 * median, median, 1.02 * median].map(Some);
        let scaled = |threads, ours, theirs| {
            json!({
                "group": "scaling", "work": "reads", "what": "peers hold Arc<u64>, uniform", "size": 1000,
                "threads": threads, "unit": "ns/operation",
                "series": [
                    series("ours", "session", "ours", around(ours), one),
                    series("dashmap", "each its own", "locking", around(theirs), around(theirs / ours)),
                    series("RwLock<HashMap>", "each its own", "locking", none, none),
                ],
            })
        };
        let document = json!({
            "command": ["target/release/compare", "reads", "--json", "benches/results.json"],
            "machine": { "cpu": "A | B", "cores": 2, "system": "linux" },
            "versions": { "papaya": "0.2.5", "scc": null },
            "cases": [{
                "group": "reads", "work": "borrowed reads", "what": "u64 keys, uniform", "size": 1000, "threads": 1,
                "unit": "ns/read",
                "series": [
                    series("ours", "session", "ours", around(7.07), one),
                    series("ours", "guard held", "ours", around(6.48), one),
                    series("ours, get_batch of 32", "batch", "ours", around(9.1), one),
                    series("papaya", "each its own", "lock-free", around(14.8), around(0.97)),
                    series("papaya", "guard held", "lock-free", around(9.2), around(1.4)),
                    series("RwLock<HashMap>", "each its own", "locking", none, none),
                    series("RwLock<HashMap>", "guard held", "limit", around(2.92), around(0.46)),
                ],
            }, {
                "group": "writes", "work": "remove", "what": "peers hold Arc<u64>", "size": 1000, "threads": 1,
                "unit": "ns/remove",
                "series": [
                    write("ours", "ours", around(20.0), one, "later", Some(3 << 20)),
                    write("scc HashIndex", "lock-free", none, none, "never within 1 s", None),
                ],
            }, scaled(1, 10.0, 30.0), scaled(2, 10.0, 120.0)],
            "targets": [
                {
                    "work": "reads of 1,000", "against": "best peer", "target": "at least 1.5",
                    "measured": [2.0, 2.1, 2.2], "peer": "papaya, each its own", "reached": true,
                },
                {
                    "work": "reads of 10", "against": "RwLock<HashMap>", "target": "at least 1.5",
                    "measured": none, "peer": "papaya, each its own", "reached": false,
                },
                {
                    "work": "writes", "against": "best peer", "target": "-",
                    "measured": null, "peer": null, "reached": null,
                },
            ],
        });
        serde_json::from_value(document).expect("reads as results")
    }

    #[test]
    fn a_value_that_is_no_number_is_no_figure() {
        let series = &example().cases[0].series;
        assert_eq!(series[0].figure.median(), Some(7.07));
        assert_eq!(series[5].figure.get(), None);
        assert_eq!((series[3].kind, series[5].kind), (Kind::LockFree, Kind::Locking));
    }
}
