//! Exports the statistics as metrics, for the exporter that the program has installed (feature `metrics`).

use crate::domain::{Backlog, DomainStats};
use crate::registry::stats::Stats;
use metrics::{SharedString, counter, gauge};
use std::time::Duration;

impl Stats {
    /// Records the statistics with the recorder of the `metrics` crate.
    ///
    /// The names begin with `epoch_registry_`, and `registry` is a label. Bounds that are not set, and hits and misses that
    /// are not [counted](crate::Builder::count_hits), are not recorded. The statistics of the domain are
    /// recorded as by [`DomainStats::export`]. Call this as often as the metrics are scraped.
    pub fn export(&self, registry: &str, domain: &str) {
        let label = SharedString::from(registry.to_string());
        let count = |name: &'static str, value| counter!(name, "registry" => label.clone()).absolute(value);
        gauge!("epoch_registry_live", "registry" => label.clone()).set(self.live as f64);
        gauge!("epoch_registry_unfreed", "registry" => label.clone()).set(self.backlog as f64);
        let amount = |name: &'static str, value: u64| gauge!(name, "registry" => label.clone()).set(value as f64);
        amount("epoch_registry_weight_bytes", self.weight);
        self.max_entries.into_iter().for_each(|bound| amount("epoch_registry_max_entries", bound));
        self.max_weight.into_iter().for_each(|bound| amount("epoch_registry_max_weight_bytes", bound));
        self.hits.into_iter().for_each(|hits| count("epoch_registry_hits_total", hits));
        self.misses.into_iter().for_each(|misses| count("epoch_registry_misses_total", misses));
        count("epoch_registry_inserted_total", self.inserted);
        count("epoch_registry_removed_total", self.removed);
        count("epoch_registry_replaced_total", self.replaced);
        count("epoch_registry_reaped_total", self.reaped);
        count("epoch_registry_expired_total", self.expired);
        count("epoch_registry_evicted_total", self.evicted);
        count("epoch_registry_freed_total", self.freed);
        count("epoch_registry_drop_panics_total", self.drop_panics);
        count("epoch_registry_lifetime_panics_total", self.lifetime_panics);
        count("epoch_registry_listener_panics_total", self.listener_panics);
        count("epoch_registry_resizes_total", self.resizes);
        count("epoch_registry_lock_waits_total", self.lock_waits);
        let seconds = |name: &'static str, time: Duration| {
            gauge!(name, "registry" => label.clone()).set(time.as_secs_f64());
        };
        seconds("epoch_registry_lock_wait_seconds_sum", self.lock_wait_total);
        seconds("epoch_registry_lock_wait_longest_seconds", self.lock_wait_longest);
        self.domain.export(domain);
    }
}

impl DomainStats {
    /// Records the statistics with the recorder of the `metrics` crate.
    ///
    /// The names begin with `epoch_domain_`, and `domain` is a label. The latency of grace periods is recorded as
    /// a Prometheus histogram: cumulative counters of its buckets.
    pub fn export(&self, domain: &str) {
        let label = SharedString::from(domain.to_string());
        let count = |name: &'static str, value| counter!(name, "domain" => label.clone()).absolute(value);
        let amount = |objects: &'static str, bytes: &'static str, backlog: Backlog| {
            gauge!(objects, "domain" => label.clone()).set(backlog.objects as f64);
            gauge!(bytes, "domain" => label.clone()).set(backlog.bytes as f64);
        };
        amount("epoch_domain_backlog_objects", "epoch_domain_backlog_bytes", self.backlog);
        amount("epoch_domain_backlog_peak_objects", "epoch_domain_backlog_peak_bytes", self.peak);
        gauge!("epoch_domain_readers", "domain" => label.clone()).set(self.readers as f64);
        count("epoch_domain_batches_total", self.batches);
        count("epoch_domain_grace_periods_total", self.grace_periods);
        count("epoch_domain_grace_periods_expedited_total", self.expedited);
        count("epoch_domain_stalls_total", self.stalls);
        count("epoch_domain_overruns_total", self.overruns);
        count("epoch_domain_callback_panics_total", self.callback_panics);
        let mut below = 0;
        for (end, bucket) in self.latency.buckets() {
            below += bucket;
            let end = end.map_or("+Inf".to_string(), |end| end.as_secs_f64().to_string());
            let labels = [("domain", label.clone()), ("le", SharedString::from(end))];
            counter!("epoch_domain_grace_period_seconds_bucket", &labels).absolute(below);
        }
        count("epoch_domain_grace_period_seconds_count", below);
        let total = self.latency.total().as_secs_f64();
        gauge!("epoch_domain_grace_period_seconds_sum", "domain" => label.clone()).set(total);
    }
}
