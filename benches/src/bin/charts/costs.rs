//! The table of writes, with their times, the time of drops, and peak memory.

use crate::figures::{grouped, number};
use crate::page::plain;
use crate::results::{Case, Results, Series};

/// The groups whose cases are shown.
const GROUPS: [&str; 2] = ["writes", "dropped"];
/// The numbers of entries for which cases are shown.
const SIZES: [u64; 2] = [1_000, 1_000_000];

/// Returns whether a case is shown: its peers hold an `Arc`, and the results tell when values are dropped.
fn is_shown(case: &&Case) -> bool {
    let of_arc = case.what.starts_with("peers hold Arc");
    of_arc
        && GROUPS.contains(&&*case.group)
        && SIZES.contains(&case.size)
        && case.series.iter().any(|series| series.drops.is_some())
}

/// Returns the cells of one contender.
fn cell(series: &Series) -> String {
    let time = series.figure.median().map_or("-".into(), number);
    let peak = series.peak.map_or("-".into(), |peak| number(peak / f64::from(1 << 20)));
    let drops = series.drops.as_deref().unwrap_or("-");
    format!("{} | {time} | {drops} | {peak}", plain(&series.contender))
}

/// Returns the section, or `None` if no such case was run.
pub fn section(results: &Results) -> Option<String> {
    let mut rows = String::new();
    for case in results.cases.iter().filter(is_shown) {
        let name = format!("{}; {}; {}", case.work, case.what, grouped(case.size));
        for (place, series) in case.series.iter().enumerate() {
            let name = if place == 0 { plain(&name) } else { String::new() };
            rows += &format!("| {name} | {} |\n", cell(series));
        }
    }
    let header = "| work, peers' values, entries | contender | ns | removed values are dropped | peak, MiB |\n|---|---|---|---|---|\n";
    (!rows.is_empty()).then(|| {
        format!(
            "## Writes: drops and peak memory\n\n\
             At once: by the operation, and inside the measured time. Later: in part after the measured time. Awaited: the \
             measured time ends when the last value is dropped. The peak is of the bytes allocated in a turn, above what was \
             allocated when the turn began.\n\n{header}{rows}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::example;

    #[test]
    fn a_row_says_when_values_are_dropped_and_the_peak() {
        let section = section(&example()).unwrap();
        assert!(
            section.contains("| remove; peers hold Arc&lt;u64&gt;; 1,000 | ours | 20.0 | later | 3.00 |\n"),
            "{section}"
        );
        assert!(section.contains("|  | scc HashIndex | - | never within 1 s | - |\n"), "{section}");
        assert!(!section.contains("borrowed reads"));
    }
}
