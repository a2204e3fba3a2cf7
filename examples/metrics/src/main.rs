//! What a registry reports to Prometheus.
//!
//! `cargo run --release -p metrics-example` prints the statistics of a registry as the exporter prints them for a
//! scrape. `cargo test -p metrics-example` compares the names, types and descriptions with `metrics.txt`.

use epoch_registry::{Domain, Registry};
use metrics_exporter_prometheus::PrometheusBuilder;

fn main() {
    // A program installs the exporter once, and serves what `render` returns. Here it is printed.
    let exporter = PrometheusBuilder::new().install_recorder().expect("no other recorder is installed");
    let flows = flows();
    flows.stats().export("flows", flows.domain().name());
    print!("{}", exporter.render());
}

/// Returns a registry of which 400 of 1000 entries were removed.
fn flows() -> Registry<u32, u32> {
    let builder = Registry::builder().domain(Domain::builder().name("net").build());
    let flows = builder.max_entries(100_000).max_weight(1 << 20).count_hits(true).build();
    flows.set_many((0..1000).map(|key| (key, key)));
    flows.retain(|key, _| key % 5 < 3);
    flows.domain().barrier();
    flows
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// Returns what the exporter prints for the registry.
    fn exposition(builder: PrometheusBuilder) -> String {
        let (recorder, flows) = (builder.build_recorder(), flows());
        // Twice, as for two scrapes: totals are set, not added.
        for _ in 0..2 {
            metrics::with_local_recorder(&recorder, || flows.stats().export("flows", flows.domain().name()));
        }
        recorder.handle().render()
    }

    /// Returns the samples of an exposition: each series with its value.
    fn samples(text: &str) -> BTreeMap<&str, f64> {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines
            .map(|line| line.rsplit_once(' ').unwrap())
            .map(|(series, value)| (series, value.parse().unwrap()))
            .collect()
    }

    fn name(series: &str) -> &str {
        series.split('{').next().unwrap()
    }

    #[test]
    fn the_exporter_prints_the_metrics_of_the_list() {
        let text = exposition(PrometheusBuilder::new());
        let mut headers: Vec<_> = text.lines().filter(|line| line.starts_with('#')).collect();
        // The description of a metric comes before its type, and metrics in the order of their names.
        headers.sort_by_key(|line| (line.split(' ').nth(2), line.split(' ').nth(1)));
        let headers = headers.join("\n") + "\n";
        assert!(headers == include_str!("../metrics.txt"), "metrics.txt is out of date. It should be:\n{headers}");
    }

    #[test]
    fn every_metric_has_a_description_and_a_type() {
        let text = exposition(PrometheusBuilder::new());
        for kind in ["HELP", "TYPE"] {
            let prefix = format!("# {kind} ");
            let described = text.lines().filter_map(|line| line.strip_prefix(&prefix)?.split(' ').next());
            let named: BTreeSet<_> = samples(&text).keys().map(|series| name(series)).collect();
            assert_eq!(described.collect::<BTreeSet<_>>(), named);
        }
    }

    #[test]
    fn the_values_are_those_of_the_statistics() {
        let text = exposition(PrometheusBuilder::new());
        let samples = samples(&text);
        assert_eq!(samples["epoch_registry_live{registry=\"flows\"}"], 600.0);
        assert_eq!(samples["epoch_registry_removed_total{registry=\"flows\"}"], 400.0);
        assert_eq!(samples["epoch_registry_freed_total{registry=\"flows\"}"], 400.0);
        assert_eq!(samples["epoch_domain_backlog_objects{domain=\"net\"}"], 0.0);
    }

    /// The buckets are cumulative, and the last one is the count, as `histogram_quantile` requires.
    #[test]
    fn the_durations_of_grace_periods_are_a_histogram() {
        let text = exposition(PrometheusBuilder::new());
        let samples = samples(&text);
        let mut buckets = Vec::new();
        for (series, value) in &samples {
            if name(series) == "epoch_domain_grace_period_seconds_bucket" {
                let end = series.split("le=\"").nth(1).unwrap().split('"').next().unwrap();
                buckets.push((end.parse::<f64>().unwrap(), *value));
            }
        }
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(buckets.len() > 1 && buckets.is_sorted_by_key(|bucket| bucket.1), "{buckets:?}");
        let count = samples["epoch_domain_grace_period_seconds_count{domain=\"net\"}"];
        assert_eq!(*buckets.last().unwrap(), (f64::INFINITY, count));
        assert!(count >= 1.0, "the barrier has waited for a grace period");
        assert!(samples["epoch_domain_grace_period_seconds_sum{domain=\"net\"}"] > 0.0);
    }

    /// With the names that Prometheus recommends, the exporter appends units and `_total`. The names have both, except
    /// for the parts of the histogram.
    #[test]
    fn the_names_are_those_that_prometheus_recommends() {
        let plain = exposition(PrometheusBuilder::new());
        let recommended = exposition(PrometheusBuilder::new().with_recommended_naming(true));
        let names = |text| samples(text).keys().map(|series| name(series).to_string()).collect::<BTreeSet<_>>();
        let added: Vec<_> = names(&recommended).difference(&names(&plain)).cloned().collect();
        let histogram = ["bucket_total", "count_total"].map(|end| format!("epoch_domain_grace_period_seconds_{end}"));
        assert_eq!(added, histogram);
    }
}
