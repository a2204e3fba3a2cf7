//! Compares reads with those of an earlier run: the ratio of a peer to ours must not be below the recorded ratio.

use crate::cases::{Case, Measured, Series};
use benches::{Table, figure};
use serde::Deserialize;
use std::fmt::Write;
use std::path::Path;

/// The groups whose cases are compared.
const GROUPS: [&str; 2] = ["reads", "hot"];

#[derive(Deserialize)]
struct Recorded {
    cases: Vec<RecordedCase>,
}

#[derive(Deserialize)]
struct RecordedCase {
    group: String,
    work: String,
    what: String,
    size: usize,
    threads: usize,
    series: Vec<RecordedSeries>,
}

#[derive(Deserialize)]
struct RecordedSeries {
    contender: String,
    idiom: String,
    /// The lower quartile, the median and the upper quartile.
    #[serde(rename = "over ours, same idiom")]
    over: [Option<f64>; 3],
}

impl RecordedCase {
    fn is(&self, case: &Case) -> bool {
        (&*self.group, &*self.work, &*self.what) == (case.group, case.work, &*case.what)
            && (self.size, self.threads) == (case.size, case.threads)
    }

    /// Returns the recorded quartiles of this contender's ratio to ours.
    fn over(&self, series: &Series) -> Option<[f64; 3]> {
        let idiom = series.idiom.to_string();
        let recorded = self.series.iter().find(|one| one.contender == series.name && one.idiom == idiom)?;
        let [low, median, high] = recorded.over;
        Some([low?, median?, high?])
    }
}

/// Returns a report with the number of compared ratios, and with the ratios whose upper quartile is below the
/// recorded lower quartile.
pub fn compared(path: &Path, results: &[Measured]) -> Result<String, Box<dyn std::error::Error>> {
    let recorded: Recorded = serde_json::from_str(&std::fs::read_to_string(path)?)?;
    let mut compared = 0;
    let mut table = Table::new(3, ["case", "contender", "idiom", "recorded", "now"]);
    let mut below = 0;
    for measured in results.iter().filter(|measured| GROUPS.contains(&measured.case.group)) {
        let Some(before) = recorded.cases.iter().find(|recorded| recorded.is(&measured.case)) else { continue };
        for series in measured.series.iter().filter(|series| series.kind.is_peer()) {
            let now = series.over(measured.ours(series.idiom));
            let Some([low, median, high]) = before.over(series) else { continue };
            compared += 1;
            if now.percentile(75.0) < low {
                below += 1;
                let [low, median, high] = [low, median, high].map(figure);
                let was = format!("{median} [{low}, {high}]");
                let (name, idiom) = (series.name.to_owned(), series.idiom.to_string());
                table.row([measured.case.to_string(), name, idiom, was, now.to_string()]);
            }
        }
    }
    let mut report = format!("{compared} ratios of reads compared with {}, {below} below.\n", path.display());
    if below > 0 {
        write!(report, "\n{table}")?;
    }
    Ok(report)
}
