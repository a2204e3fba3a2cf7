//! Writes the results as JSON for `charts`, with one contender per line.

use crate::cases::{Kind, Measured, Series};
use crate::plan::Plan;
use crate::targets::Row;
use benches::Sorted;
use serde_json::{Value, json};

/// The workspace's lock file, which has the versions of the compiled dependencies.
const LOCK: &str = include_str!("../../../../Cargo.lock");

const PEERS: [&str; 13] = [
    "ahash",
    "arc-swap",
    "dashmap",
    "flurry",
    "hashbrown",
    "idr-ebr",
    "moka",
    "papaya",
    "parking_lot",
    "quick_cache",
    "scc",
    "seqlock",
    "sharded-slab",
];

/// Returns the last version of a package in the lock file. If there are several, the benchmarks depend on that one.
fn version(package: &str) -> Option<&'static str> {
    let name = format!("name = \"{package}\"");
    let stanzas = LOCK.split("\n\n").filter(|stanza| stanza.lines().any(|line| line == name));
    stanzas.last()?.lines().find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"'))
}

fn cpu() -> Option<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(": ")?.1.to_owned())
}

/// Rounds to four significant digits, which is more than the precision of a run.
fn rounded(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(f64::NAN)
}

/// Returns the lower quartile, the median and the upper quartile. NaN becomes null.
fn quartiles(sorted: &Sorted) -> Value {
    [25.0, 50.0, 75.0].map(|percent| rounded(sorted.percentile(percent))).as_slice().into()
}

fn series(measured: &Measured, series: &Series) -> Value {
    json!({
        "contender": series.name,
        "idiom": series.idiom.to_string(),
        "kind": match series.kind {
            Kind::Ours => "ours",
            Kind::LockFree => "lock-free",
            Kind::Locking => "locking",
            Kind::Foreign => "foreign",
            Kind::Limit => "limit",
        },
        "figure": quartiles(&series.sorted()),
        "over ours, same idiom": quartiles(&series.over(measured.ours(series.idiom))),
        // Only writes have these.
        "drops": series.drops.map(|drops| series.never().unwrap_or(drops.to_string())),
        "peak": series.peak().map(rounded),
    })
}

/// Formats a value, in one line if it fits.
fn lines(value: &Value) -> String {
    let line = value.to_string();
    if line.len() <= 240 {
        return line;
    }
    match value {
        Value::Array(items) => format!("[\n{}\n]", items.iter().map(lines).collect::<Vec<_>>().join(",\n")),
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| format!("{}: {}", json!(name), lines(value));
            format!("{{\n{}\n}}", fields.iter().map(field).collect::<Vec<_>>().join(",\n"))
        }
        _ => line,
    }
}

/// Returns the text of the JSON document, with all data for charts and tables.
pub fn document(plan: &Plan, results: &[Measured], rows: &[Row]) -> String {
    let cases = results.iter().map(|measured| {
        let case = &measured.case;
        json!({
            "group": case.group,
            "work": case.work,
            "what": case.what,
            "size": case.size,
            "threads": case.threads,
            "unit": measured.unit,
            "series": measured.series.iter().map(|one| series(measured, one)).collect::<Vec<_>>(),
        })
    });
    let targets = rows.iter().map(|row| {
        json!({
            "work": row.work,
            "against": row.against,
            "target": row.target.to_string(),
            "measured": row.measured.as_ref().map(quartiles),
            "peer": row.peer,
            "reached": row.reached(),
        })
    });
    let peers = PEERS.iter().map(|&peer| (peer.to_owned(), json!(version(peer))));
    let compiler = ("rustc".to_owned(), json!(env!("RUSTC_VERSION").strip_prefix("rustc ")));
    let libraries = [("liburcu", option_env!("LIBURCU_VERSION")), ("DPDK", option_env!("DPDK_VERSION"))];
    let libraries = libraries.into_iter().filter_map(|(name, version)| Some((name.to_owned(), json!(version?))));
    let document = json!({
        "command": std::env::args().collect::<Vec<_>>(),
        "machine": { "cpu": cpu(), "cores": plan.cores, "system": std::env::consts::OS },
        "versions": peers.chain(libraries).chain([compiler]).collect::<serde_json::Map<_, _>>(),
        "cases": cases.collect::<Vec<_>>(),
        "targets": targets.collect::<Vec<_>>(),
    });
    lines(&document) + "\n"
}
