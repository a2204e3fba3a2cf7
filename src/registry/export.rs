//! Exports the statistics as metrics, for the exporter that the program has installed (feature `metrics`).
//!
//! Each metric is described where it is recorded, so that no metric lacks a description. The test of `examples/metrics`
//! compares what the Prometheus exporter prints with a list.

use crate::domain::DomainStats;
use crate::registry::stats::Stats;
use metrics::{Label, SharedString, Unit, counter, describe_counter, describe_gauge, gauge};

/// Records metrics that have one label in common.
struct Recording {
    label: Label,
}

impl Recording {
    fn new(label: &'static str, value: &str) -> Recording {
        Recording { label: Label::new(label, value.to_string()) }
    }

    /// Records a total, which only grows.
    fn count(&self, name: &'static str, value: u64, description: &'static str) {
        describe_counter!(name, Unit::Count, description);
        counter!(name, vec![self.label.clone()]).absolute(value);
    }

    /// Records a value that may fall.
    fn gauge(&self, name: &'static str, unit: Unit, value: f64, description: &'static str) {
        describe_gauge!(name, unit, description);
        gauge!(name, vec![self.label.clone()]).set(value);
    }

    /// Records a bucket of a histogram: how many values are at most `end`.
    fn bucket(&self, name: &'static str, end: String, value: u64, description: &'static str) {
        describe_counter!(name, Unit::Count, description);
        counter!(name, vec![self.label.clone(), Label::new("le", SharedString::from(end))]).absolute(value);
    }
}

impl Stats {
    /// Records the statistics, with their descriptions and units, with the recorder of the `metrics` crate.
    ///
    /// The names begin with `epoch_registry_`, and `registry` is a label. Bounds that are not set, and hits and misses that
    /// are not [counted](crate::Builder::count_hits), are not recorded. The statistics of the domain are recorded as by
    /// [`DomainStats::export`]. Call this before each scrape.
    ///
    /// With `metrics-exporter-prometheus`, `examples/metrics` of the repository prints for a registry named `flows`:
    ///
    /// ```text
    /// # HELP epoch_registry_live Entries in the registry.
    /// # TYPE epoch_registry_live gauge
    /// epoch_registry_live{registry="flows"} 600
    ///
    /// # HELP epoch_registry_removed_total Entries removed by the program.
    /// # TYPE epoch_registry_removed_total counter
    /// epoch_registry_removed_total{registry="flows"} 400
    /// ```
    ///
    /// `examples/metrics/metrics.txt` lists all metrics, and a test compares the list with what the exporter prints.
    ///
    /// # Examples
    ///
    /// ```
    /// use epoch_registry::Registry;
    ///
    /// let flows: Registry<u64, u64> = Registry::new();
    /// // The names are labels: of the registry, and of its domain, which several registries may share.
    /// flows.stats().export("flows", flows.domain().name());
    /// ```
    pub fn export(&self, registry: &str, domain: &str) {
        let to = Recording::new("registry", registry);
        to.gauge("epoch_registry_live", Unit::Count, self.live as f64, "Entries in the registry.");
        to.gauge(
            "epoch_registry_unfreed",
            Unit::Count,
            self.backlog as f64,
            "Entries that have left the registry and are not destroyed yet.",
        );
        to.gauge("epoch_registry_weight_bytes", Unit::Bytes, self.weight as f64, "What the entries weigh.");
        if let Some(bound) = self.max_entries {
            to.gauge("epoch_registry_max_entries", Unit::Count, bound as f64, "The bound on the number of entries.");
        }
        if let Some(bound) = self.max_weight {
            to.gauge("epoch_registry_max_weight_bytes", Unit::Bytes, bound as f64, "The bound on the weight.");
        }
        if let Some(hits) = self.hits {
            to.count("epoch_registry_hits_total", hits, "Lookups that found their key.");
        }
        if let Some(misses) = self.misses {
            to.count("epoch_registry_misses_total", misses, "Lookups that did not find their key.");
        }
        to.count("epoch_registry_inserted_total", self.inserted, "Entries inserted, with those that replaced others.");
        to.count("epoch_registry_removed_total", self.removed, "Entries removed by the program.");
        to.count("epoch_registry_replaced_total", self.replaced, "Entries replaced by others.");
        to.count("epoch_registry_reaped_total", self.reaped, "Entries removed by a reaper.");
        to.count("epoch_registry_expired_total", self.expired, "Entries that were too old, or not used for too long.");
        to.count("epoch_registry_evicted_total", self.evicted, "Entries evicted to keep within a bound.");
        to.count("epoch_registry_refused_total", self.refused, "Insertions refused because the registry was full.");
        to.count("epoch_registry_overruns_total", self.overruns, "Insertions that went beyond a bound.");
        to.count("epoch_registry_freed_total", self.freed, "Entries destroyed.");
        to.count("epoch_registry_drop_panics_total", self.drop_panics, "Drops of keys or values that panicked.");
        to.count("epoch_registry_lifetime_panics_total", self.lifetime_panics, "Calls of the lifetime that panicked.");
        to.count("epoch_registry_listener_panics_total", self.listener_panics, "Calls of the listener that panicked.");
        to.count("epoch_registry_resizes_total", self.resizes, "Resizes of a shard's table that have begun.");
        to.count("epoch_registry_lock_waits_total", self.lock_waits, "Acquisitions of a shard lock that had to wait.");
        to.gauge(
            "epoch_registry_lock_wait_seconds_sum",
            Unit::Seconds,
            self.lock_wait_total.as_secs_f64(),
            "Time spent waiting for shard locks, by all threads.",
        );
        to.gauge(
            "epoch_registry_lock_wait_longest_seconds",
            Unit::Seconds,
            self.lock_wait_longest.as_secs_f64(),
            "The longest wait for a shard lock.",
        );
        self.domain.export(domain);
    }
}

impl DomainStats {
    /// Records the statistics, with their descriptions and units, with the recorder of the `metrics` crate.
    ///
    /// The names begin with `epoch_domain_`, and `domain` is a label.
    ///
    /// The durations of grace periods are recorded as the series of a Prometheus histogram: `_bucket` with the label
    /// `le`, `_count` and `_sum`. So `histogram_quantile` can be applied to them. As they are totals and not samples, an
    /// exporter gives them the types counter and gauge. An exporter that appends `_total` to the names of counters
    /// (`with_recommended_naming` of `metrics-exporter-prometheus`) also does so with `_bucket` and `_count`.
    pub fn export(&self, domain: &str) {
        let to = Recording::new("domain", domain);
        to.gauge(
            "epoch_domain_backlog_objects",
            Unit::Count,
            self.backlog.objects as f64,
            "Objects that wait for a grace period or for their destruction.",
        );
        to.gauge("epoch_domain_backlog_bytes", Unit::Bytes, self.backlog.bytes as f64, "The size of these objects.");
        to.gauge(
            "epoch_domain_backlog_peak_objects",
            Unit::Count,
            self.peak.objects as f64,
            "The largest number of objects that have waited.",
        );
        to.gauge(
            "epoch_domain_backlog_peak_bytes",
            Unit::Bytes,
            self.peak.bytes as f64,
            "The largest size of objects that have waited.",
        );
        to.gauge(
            "epoch_domain_readers",
            Unit::Count,
            self.readers as f64,
            "Threads and sessions that are registered as readers.",
        );
        to.count("epoch_domain_batches_total", self.batches, "Batches of objects collected.");
        to.count("epoch_domain_grace_periods_total", self.grace_periods, "Grace periods that are over.");
        to.count("epoch_domain_grace_periods_expedited_total", self.expedited, "Grace periods that were expedited.");
        to.count("epoch_domain_stalls_total", self.stalls, "Reports of grace periods that took too long.");
        to.count("epoch_domain_overruns_total", self.overruns, "Objects retired beyond the limit of the backlog.");
        to.count(
            "epoch_domain_callback_panics_total",
            self.callback_panics,
            "Callbacks, stall handlers, reapers and destructors of versions that panicked.",
        );
        let mut below = 0;
        for (end, bucket) in self.latency.buckets() {
            below += bucket;
            let end = end.map_or("+Inf".to_string(), |end| end.as_secs_f64().to_string());
            to.bucket(
                "epoch_domain_grace_period_seconds_bucket",
                end,
                below,
                "Grace periods that took at most `le` seconds.",
            );
        }
        to.count("epoch_domain_grace_period_seconds_count", below, "Grace periods whose duration was measured.");
        to.gauge(
            "epoch_domain_grace_period_seconds_sum",
            Unit::Seconds,
            self.latency.total().as_secs_f64(),
            "The duration of these grace periods.",
        );
    }
}
