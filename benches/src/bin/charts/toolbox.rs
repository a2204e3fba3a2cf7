//! The section of what is not a map: cells, lists, counters and locks. They have a run of their own.

use crate::figures::grouped;
use crate::page::{plain, run, target_rows};
use crate::results::{Case, Results, Series};
use benches::figure;

/// Where `charts` reads the results of that run.
pub const FILE: &str = "benches/toolbox.json";

/// Returns the section.
pub fn section(results: &Results) -> String {
    let measured = results.targets.iter().filter(|target| target.measured.is_some());
    let mut text = format!("## Cells, lists, counters and locks\n\n{}\n", run(results, "###", FILE));
    text += &format!("### Their targets\n\n{}", target_rows(measured));
    text += "\n### Their figures\n\nThe median of the rounds; in brackets its ratio to ours of the same idiom, else to our session.\n";
    text += "\n| work | of | threads | contender | |\n|---|---|---|---|---|\n";
    for case in &results.cases {
        for series in &case.series {
            text += &row(case, series);
        }
    }
    text
}

fn row(case: &Case, series: &Series) -> String {
    let size = if case.size > 1 { format!(", {} entries", grouped(case.size)) } else { String::new() };
    let shown = match series.figure.median() {
        None => "no sample".to_string(),
        Some(median) => {
            let ratio = series.over.median().map(|ratio| format!(" ({})", figure(ratio))).unwrap_or_default();
            format!("{} {}{ratio}", figure(median), plain(&case.unit))
        }
    };
    format!(
        "| {}{size} | {} | {} | {}, {} | {shown} |\n",
        plain(&case.work),
        plain(&case.what),
        case.threads,
        plain(&series.contender),
        plain(&series.idiom),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::example;

    #[test]
    fn the_section_has_a_row_for_each_contender_and_its_own_command() {
        let results = example();
        let section = section(&results);
        let contenders: usize = results.cases.iter().map(|case| case.series.len()).sum();
        let rows =
            section.split_once("### Their figures").unwrap().1.lines().filter(|line| line.starts_with("| ")).count();
        assert_eq!(rows, contenders + 1, "one is the header: {section}");
        assert!(section.contains("--json benches/toolbox.json"), "{section}");
        assert!(!section.contains("not measured"), "a target of another run is shown");
    }
}
