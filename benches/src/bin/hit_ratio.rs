//! Measures the hit ratio of a bounded registry, and of moka and quick_cache at equal capacity.
//!
//! All contenders run the same traces: they look a key up, and insert it if it is absent. The hit ratio covers the
//! whole trace, which includes the filling of an empty cache. `optimum` is the hit ratio of a cache that keeps the
//! most frequent keys of a Zipf trace, which no policy knows in advance.

use benches::{CommandLine, Table, Xorshift, Zipf};
use epoch_registry::{Domain, Registry};

const KEYS: u64 = 100_000;
const CAPACITIES: [usize; 3] = [1_000, 10_000, 50_000];

/// A sequence of keys to look up.
struct Trace {
    name: String,
    keys: Vec<u64>,
    zipf: Option<Zipf>,
}

fn traces(length: usize) -> Vec<Trace> {
    let zipf = |skew| {
        let (zipf, mut random) = (Zipf::new(KEYS as usize, skew), Xorshift::new(7));
        let keys = (0..length).map(|_| zipf.draw(&mut random)).collect();
        Trace { name: format!("Zipf {skew}"), keys, zipf: Some(zipf) }
    };
    let mut traces: Vec<_> = [0.7, 0.8, 0.9, 0.99, 1.1, 1.2].map(zipf).into();
    // In every tenth stretch of 5,000 lookups, each key occurs only once in the whole trace.
    let polluted = {
        let (zipf, mut random, mut new) = (Zipf::new(KEYS as usize, 0.99), Xorshift::new(7), KEYS);
        let mut key = |index: usize| {
            if index / 5_000 % 10 == 9 {
                new += 1;
                new
            } else {
                zipf.draw(&mut random)
            }
        };
        (0..length).map(&mut key).collect()
    };
    traces.push(Trace { name: "Zipf 0.99, scans".into(), keys: polluted, zipf: None });
    // A loop over all keys, which are twice the largest capacity.
    let length = length as u64;
    traces.push(Trace { name: "a loop".into(), keys: (0..length).map(|index| index % KEYS).collect(), zipf: None });
    traces
}

fn share(keys: &[u64], mut asked: impl FnMut(u64) -> bool) -> f64 {
    keys.iter().filter(|&&key| asked(key)).count() as f64 / keys.len() as f64
}

fn ours(capacity: usize, keys: &[u64]) -> f64 {
    let registry: Registry<u64, u64> = Registry::builder().domain(Domain::new()).max_entries(capacity).build();
    share(keys, |key| {
        let hit = registry.pin().get(&key).is_some();
        if !hit {
            drop(registry.try_insert(key, key));
        }
        hit
    })
}

fn moka(capacity: usize, keys: &[u64]) -> f64 {
    let cache = moka::sync::Cache::new(capacity as u64);
    share(keys, |key| {
        let hit = cache.get(&key).is_some();
        if !hit {
            cache.insert(key, key);
        }
        hit
    })
}

fn quick_cache(capacity: usize, keys: &[u64]) -> f64 {
    let cache = quick_cache::sync::Cache::new(capacity);
    share(keys, |key| {
        let hit = cache.get(&key).is_some();
        if !hit {
            cache.insert(key, key);
        }
        hit
    })
}

fn main() {
    let CommandLine { amount, test } = CommandLine::read("millions", 3);
    let length = if test { 20_000 } else { amount as usize * 1_000_000 };
    let mut table = Table::new(1, ["trace", "capacity", "ours", "moka", "quick_cache", "optimum"]);
    for Trace { name, keys, zipf } in traces(length) {
        for capacity in CAPACITIES {
            let shares = [ours, moka, quick_cache].map(|cache| format!("{:.1}", 100.0 * cache(capacity, &keys)));
            let optimum = zipf.as_ref().map_or(String::new(), |zipf| format!("{:.1}", 100.0 * zipf.share(capacity)));
            let [ours, moka, quick_cache] = shares;
            table.row([name.clone(), capacity.to_string(), ours, moka, quick_cache, optimum]);
        }
    }
    println!("Hits in 100 of {length} lookups, of {KEYS} keys.\n\n{table}");
}
