//! What the features `metrics`, `rayon` and `serde` add: `cargo test -p feature-tests`.

#[path = "../../common/mod.rs"]
mod common;

use common::isolated;
use metrics::{Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A recorder that keeps the last value of each metric, by name and labels.
#[derive(Clone, Default)]
struct Book(Arc<Mutex<BTreeMap<String, f64>>>);

struct Entry(Book, String);

impl Book {
    fn entry(&self, key: &Key) -> Arc<Entry> {
        let labels: Vec<_> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        Arc::new(Entry(self.clone(), format!("{}{{{}}}", key.name(), labels.join(","))))
    }
}

impl Entry {
    fn note(&self, value: f64) {
        self.0.0.lock().unwrap().insert(self.1.clone(), value);
    }
}

impl CounterFn for Entry {
    fn increment(&self, _by: u64) {
        unreachable!("the figures are totals");
    }

    fn absolute(&self, value: u64) {
        self.note(value as f64);
    }
}

impl GaugeFn for Entry {
    fn increment(&self, _by: f64) {
        unreachable!("the figures are totals");
    }

    fn decrement(&self, _by: f64) {
        unreachable!("the figures are totals");
    }

    fn set(&self, value: f64) {
        self.note(value);
    }
}

impl Recorder for Book {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.entry(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.entry(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        unreachable!("{key}: the histogram is exported as buckets");
    }
}

#[test]
fn all_statistics_are_exported() {
    let registry = isolated();
    (0..10).for_each(|key| drop(registry.try_insert(key, key)));
    (0..4).for_each(|key| drop(registry.remove(&key)));
    registry.domain().barrier();
    let mut stats = registry.stats();
    (stats.lock_waits, stats.lock_wait_total, stats.lock_wait_longest) =
        (3, Duration::from_millis(250), Duration::from_millis(125));
    (stats.weight, stats.max_entries, stats.hits, stats.misses) = (640, Some(50), Some(7), Some(2));
    let book = Book::default();
    metrics::with_local_recorder(&book, || stats.export("flows", "net"));
    let book = book.0.lock().unwrap();
    let get = |name: &str| *book.get(name).unwrap_or_else(|| panic!("{name} is missing in {book:#?}"));
    assert_eq!(get("epoch_registry_live{registry=flows}"), 6.0);
    assert_eq!(get("epoch_registry_freed_total{registry=flows}"), 4.0);
    assert_eq!(get("epoch_registry_lock_waits_total{registry=flows}"), 3.0);
    assert_eq!(get("epoch_registry_lock_wait_seconds_sum{registry=flows}"), 0.25);
    assert_eq!(get("epoch_registry_lock_wait_longest_seconds{registry=flows}"), 0.125);
    assert_eq!(get("epoch_registry_weight_bytes{registry=flows}"), 640.0);
    assert_eq!(get("epoch_registry_max_entries{registry=flows}"), 50.0);
    assert_eq!(get("epoch_registry_hits_total{registry=flows}"), 7.0);
    assert_eq!(get("epoch_registry_misses_total{registry=flows}"), 2.0);
    assert!(
        !book.contains_key("epoch_registry_max_weight_bytes{registry=flows}"),
        "a bound that is not set is exported"
    );
    assert_eq!(get("epoch_domain_backlog_objects{domain=net}"), 0.0);
    let over = stats.domain.latency.count() as f64;
    assert!(over > 0.0);
    assert_eq!(get("epoch_domain_grace_period_seconds_bucket{domain=net,le=+Inf}"), over);
    assert_eq!(get("epoch_domain_grace_period_seconds_count{domain=net}"), over);
}

#[test]
fn the_statistics_survive_a_round_trip_through_json() {
    let registry = isolated();
    registry.try_insert(1, 1).unwrap();
    registry.remove(&1);
    registry.domain().barrier();
    let mut stats = registry.stats();
    stats.lock_wait_total = Duration::new(1, 5);
    let json = serde_json::to_string(&stats).unwrap();
    assert!(json.contains("\"peak\":{\"objects\":1,"), "{json}");
    assert!(json.contains("\"lock_wait_total\":{\"secs\":1,\"nanos\":5}"), "{json}");
    assert_eq!(serde_json::from_str::<epoch_registry::Stats>(&json).unwrap(), stats);
}

#[test]
fn a_scan_by_rayon_finds_every_entry_once() {
    let registry = epoch_registry::Registry::new();
    registry.set_many((0..10_000_u64).map(|key| (key, key)));
    let met = std::sync::Mutex::new(Vec::new());
    registry.par_scan(|entry| met.lock().unwrap().push(*entry));
    let mut met = met.into_inner().unwrap();
    met.sort_unstable();
    assert!(met.into_iter().eq(0..10_000));
}
