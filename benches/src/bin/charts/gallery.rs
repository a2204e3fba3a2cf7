//! The list of bar charts, and the contents of each.

use crate::figures::grouped;
use crate::results::{Case, Kind, Results, Series};
use crate::svg::{Bar, Chart, Panel};

/// The series of a case to show.
#[derive(Clone, Copy, PartialEq)]
enum Shown {
    /// Our reads of single keys, and all other contenders.
    Single,
    /// Our batch and session reads, and the peers, without the limits.
    Batch,
}

/// The cases among which panels look theirs up.
struct Cases<'r> {
    all: &'r [Case],
    cores: usize,
}

impl Cases<'_> {
    /// Returns the panel of the case with these parameters, or an empty panel if the case was not run. For a group
    /// with a single size, `size` is `None`.
    fn panel(
        &self,
        (group, work): (&str, &str),
        what: &str,
        size: Option<u64>,
        threads: usize,
        heading: impl Into<String>,
        shown: Shown,
    ) -> Panel {
        let case = self.all.iter().find(|case| {
            (&*case.group, &*case.work, &*case.what, case.threads) == (group, work, what, threads)
                && size.is_none_or(|size| size == case.size)
        });
        let (unit, bars) = case.map_or((String::new(), vec![]), |case| (case.unit.clone(), bars(case, shown)));
        Panel { heading: heading.into(), unit, bars }
    }

    /// Returns the panel of a case of the group `reads` with `u64` keys.
    fn reads(&self, work: &str, pattern: &str, size: u64, threads: usize, heading: String, shown: Shown) -> Panel {
        self.panel(("reads", work), &format!("u64 keys, {pattern}"), Some(size), threads, heading, shown)
    }

    fn cores(&self) -> String {
        match self.cores {
            1 => "the one core".into(),
            cores => format!("all cores ({cores})"),
        }
    }
}

/// Returns the bars of a case, sorted by length, with the limits last. Ours have one bar per idiom. Each other
/// contender has one bar, for its best idiom.
fn bars(case: &Case, shown: Shown) -> Vec<Bar> {
    let median = |series: &Series| series.figure.median().unwrap_or(f64::INFINITY);
    let beaten = |series: &Series| {
        let rivals = case.series.iter().filter(|one| (&one.contender, one.kind) == (&series.contender, series.kind));
        rivals.min_by(|a, b| median(a).total_cmp(&median(b))).is_none_or(|best| !std::ptr::eq(best, series))
    };
    let mut chosen: Vec<_> = case
        .series
        .iter()
        .filter(|series| match (series.kind, shown) {
            (Kind::Ours, Shown::Single) => series.idiom != "batch",
            (Kind::Ours, Shown::Batch) => series.idiom == "batch" || series.idiom == "session",
            (Kind::Limit, Shown::Batch) => false,
            _ => !beaten(series),
        })
        .collect();
    chosen.sort_by(|a, b| (a.kind == Kind::Limit).cmp(&(b.kind == Kind::Limit)).then(median(a).total_cmp(&median(b))));
    // An idiom that all series share is not shown.
    let idioms = case.series.iter().any(|series| series.idiom != case.series[0].idiom);
    let bar = |series: &&Series| Bar {
        name: series.contender.clone(),
        idiom: if idioms { series.idiom.clone() } else { String::new() },
        kind: series.kind,
        quartiles: series.figure.get(),
    };
    chosen.iter().map(bar).collect()
}

fn entries(size: u64) -> String {
    format!("{} entries", grouped(size))
}

fn threads(threads: usize) -> &'static str {
    if threads == 1 { "1 thread" } else { "all cores" }
}

/// Returns all bar charts, in the order of the document.
pub fn charts(results: &Results) -> Vec<Chart> {
    let cases = Cases { all: &results.cases, cores: results.machine.cores };
    [reads(&cases), writes(&cases), mixes(&cases), others(&cases)].into_iter().flatten().collect()
}

fn reads(cases: &Cases<'_>) -> Vec<Chart> {
    let (cores, ways) = (cases.cores, ["borrowed reads", "owned reads"]);
    let by_size = |work| {
        let panel = |size| cases.reads(work, "uniform", size, 1, entries(size), Shown::Single);
        [1_000, 100_000, 1_000_000, 10_000_000].map(panel).into()
    };
    let on_all_cores = |work| {
        let panel = |size, pattern| {
            cases.reads(work, pattern, size, cores, format!("{}, {pattern}", entries(size)), Shown::Single)
        };
        [1_000, 1_000_000]
            .iter()
            .flat_map(|&size| ["uniform", "Zipf 0.99"].map(|pattern| panel(size, pattern)))
            .collect()
    };
    let in_batches = [1_000, 1_000_000, 10_000_000].iter().flat_map(|&size| {
        ways.map(|work| cases.reads(work, "uniform", size, 1, format!("{work}, {}", entries(size)), Shown::Batch))
    });
    let hot = [1, cores].into_iter().flat_map(|count| {
        ways.map(|work| {
            let heading = format!("{work}, {}", threads(count));
            cases.panel(("hot", work), "u64 keys, one hot key", None, count, heading, Shown::Single)
        })
    });
    vec![
        Chart::new("reads-borrowed", "Borrowed reads by one thread, uniform", by_size(ways[0])),
        Chart::new("reads-owned", "Owned reads by one thread, uniform", by_size(ways[1])),
        Chart::new("reads-batch", "Reads in batches, by one thread, uniform", in_batches.collect()),
        Chart::new("reads-borrowed-cores", format!("Borrowed reads on {}", cases.cores()), on_all_cores(ways[0])),
        Chart::new("reads-owned-cores", format!("Owned reads on {}", cases.cores()), on_all_cores(ways[1])),
        Chart::new("reads-hot", "Reads of one hot key", hot.collect()),
    ]
}

/// The types of values that peers hold. Their writes and their memory depend on it.
const HELD: [&str; 2] = ["peers hold Arc<u64>", "peers hold u64"];

fn writes(cases: &Cases<'_>) -> Vec<Chart> {
    let chart = |size: u64, name: &'static str| {
        let works = ["insert into a sized map", "remove", "churn: remove and insert", "replace"];
        let panel =
            |work, what| cases.panel(("writes", work), what, Some(size), 1, format!("{work}; {what}"), Shown::Single);
        let panels = works.iter().flat_map(|work| HELD.map(|what| panel(work, what)));
        Chart::new(name, format!("Writes by one thread, {}", entries(size)), panels.collect())
    };
    let dropped = |size| {
        [
            "remove, until everything is dropped",
            "remove and destroy the map, until everything is dropped",
            "destroy the whole map, until everything is dropped",
        ]
        .map(|work| {
            let (what, heading) = ("peers hold Arc<u64 with a counted drop>", format!("{work}; {}", grouped(size)));
            cases.panel(("dropped", work), what, Some(size), 1, heading, Shown::Single)
        })
    };
    vec![
        chart(1_000, "writes-1000"),
        chart(1_000_000, "writes-1000000"),
        Chart::new(
            "dropped",
            "Removal until everything is dropped",
            [1_000, 1_000_000].into_iter().flat_map(dropped).collect(),
        ),
    ]
}

fn mixes(cases: &Cases<'_>) -> Vec<Chart> {
    let chart = |work: &str, name: &'static str| {
        let panel = |size, pattern, held| {
            let heading = format!("{}, {pattern}; {held}", grouped(size));
            cases.panel(("mixes", work), &format!("{held}, {pattern}"), Some(size), cases.cores, heading, Shown::Single)
        };
        let sizes = [1_000, 1_000_000].iter().flat_map(|&size| ["uniform", "Zipf 0.99"].map(|pattern| (size, pattern)));
        let panels = sizes.flat_map(|(size, pattern)| HELD.map(|held| panel(size, pattern, held)));
        Chart::new(name, format!("{work}, on {}", cases.cores()), panels.collect())
    };
    vec![chart("95 reads, 5 writes", "mixes-95"), chart("50 reads, 50 writes", "mixes-50")]
}

fn others(cases: &Cases<'_>) -> Vec<Chart> {
    let (cores, arc) = (cases.cores, HELD[0]);
    let one = |group, threads, work, what, heading: &str| {
        cases.panel((group, work), what, None, threads, heading, Shown::Single)
    };
    let growth = |work| one("growth", 1, work, arc, work);
    let growth =
        ["longest pause of an insert", "p99.99 of inserts", "p99.9 of inserts", "median of inserts"].map(growth);
    let tails = |work| one("tails", 2, work, arc, work);
    let tails = [
        "p99.9 of a read during growth",
        "p99.9 of a read during churn",
        "median of a read during growth",
        "median of a read during churn",
    ]
    .map(tails);
    let memory = ["bytes requested", "bytes with malloc's own (glibc)"]
        .iter()
        .flat_map(|work| HELD.map(|held| one("memory", 1, work, held, &format!("{work}; {held}"))));
    let walk = |size| {
        let heading = format!("walk over all of {}", entries(size));
        cases.panel(("iteration", "walk over all entries"), HELD[1], Some(size), 1, heading, Shown::Single)
    };
    let whole = [
        walk(1_000),
        walk(100_000),
        walk(1_000_000),
        one("teardown", 1, "destroy the whole map", arc, "destroy the whole map"),
    ];
    let bounded = [1, cores].into_iter().flat_map(|count| {
        ["hits", "cache of a tenth of the keys, Zipf"]
            .map(|work| one("bounded", count, work, "u64 keys", &format!("{work}; {}", threads(count))))
    });
    let tracked = one("conntrack", cores, "packets tracked", "20 packets a flow", "20 packets a flow");
    let seed = one("seed", 8, "lookups of endpoints", "u64 keys, uniform", "1,000 endpoints, 8 threads");
    vec![
        Chart::new("growth", "Growth from empty: single inserts", growth.into()),
        Chart::new("tails", "Single reads while another thread writes", tails.into()),
        Chart::new("memory", "Memory for an entry", memory.collect()),
        Chart::new("whole", "The whole map: iteration and teardown", whole.into()),
        Chart::new("bounded", "Bounded maps", bounded.collect()),
        Chart::new("conntrack", format!("Connections tracked on {}", cases.cores()), vec![tracked]),
        Chart::new("seed", "The seed workload: lookups of endpoints", vec![seed]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::example;

    fn shown(shown: Shown) -> Vec<(String, String, Kind)> {
        let bars = bars(&example().cases[0], shown);
        bars.into_iter().map(|bar| (bar.name, bar.idiom, bar.kind)).collect()
    }

    #[test]
    fn the_best_idiom_of_each_peer_is_shown_and_limits_come_last() {
        let bar = |name: &str, idiom: &str, kind| (name.to_owned(), idiom.to_owned(), kind);
        let ours = [bar("ours", "guard held", Kind::Ours), bar("ours", "session", Kind::Ours)];
        let peers =
            [bar("papaya", "guard held", Kind::LockFree), bar("RwLock<HashMap>", "each its own", Kind::Locking)];
        let limit = [bar("RwLock<HashMap>", "guard held", Kind::Limit)];
        assert_eq!(shown(Shown::Single), [&ours[..], &peers, &limit].concat());
        let batch = [ours[1].clone(), bar("ours, get_batch of 32", "batch", Kind::Ours)];
        assert_eq!(shown(Shown::Batch), [&batch[..], &peers].concat());
    }

    #[test]
    fn a_case_that_was_not_run_has_a_panel_without_bars() {
        let charts = charts(&example());
        assert!(charts.iter().all(|chart| !chart.panels.is_empty()));
        let filled = charts.iter().flat_map(|chart| &chart.panels).filter(|panel| !panel.bars.is_empty());
        assert_eq!(filled.count(), 3, "one panel of single reads, one of batches, and one of writes");
        let mut names: Vec<_> = charts.iter().map(|chart| chart.name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), charts.len(), "two charts have the same file");
    }
}
