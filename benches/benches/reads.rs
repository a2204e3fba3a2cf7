//! Measures all kinds of reads, in a registry of 1,000 and in one of 1,000,000 entries.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_main};
use epoch_registry::{Domain, Registry};

const READS: usize = 4096;

/// Returns keys in an order that no prefetcher can predict (xorshift64).
fn keys(entries: u64) -> Vec<u64> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % entries
    };
    (0..READS).map(|_| next()).collect()
}

fn reads(criterion: &mut Criterion) {
    for entries in [1_000, 1_000_000] {
        let registry = Registry::builder().domain(Domain::new()).capacity(entries as usize).build();
        for key in 0..entries {
            assert!(registry.try_insert(key, key).is_ok());
        }
        let keys = keys(entries);
        let mut group = criterion.benchmark_group("reads");
        group.throughput(Throughput::Elements(READS as u64));
        let id = |name: &str| BenchmarkId::new(name, entries);

        group.bench_function(id("guard held, borrow"), |bencher| {
            let guard = registry.pin();
            bencher.iter(|| keys.iter().filter_map(|key| guard.get(key)).map(|entry| *entry).sum::<u64>());
        });
        group.bench_function(id("session, borrow"), |bencher| {
            let mut reader = registry.reader();
            bencher.iter(|| keys.iter().map(|key| reader.get(key).map_or(0, |entry| *entry)).sum::<u64>());
        });
        group.bench_function(id("session, batch of 16"), |bencher| {
            let mut reader = registry.reader();
            bencher.iter(|| {
                let (view, mut sum) = (reader.view(), 0);
                view.get_batch(&keys, |_, entry| sum += entry.map_or(0, |entry| *entry));
                sum
            });
        });
        group.bench_function(id("session, handle"), |bencher| {
            let mut reader = registry.reader();
            bencher.iter(|| keys.iter().map(|key| reader.lookup(key).map_or(0, |entry| *entry)).sum::<u64>());
        });
        group.bench_function(id("pin per read, borrow"), |bencher| {
            bencher.iter(|| keys.iter().map(|key| registry.pin().get(key).map_or(0, |entry| *entry)).sum::<u64>());
        });
        group.bench_function(id("pin per read, handle"), |bencher| {
            bencher.iter(|| keys.iter().map(|key| registry.lookup(key).map_or(0, |entry| *entry)).sum::<u64>());
        });
        group.finish();
    }
}

#[allow(missing_docs)]
mod group {
    use super::reads;
    criterion::criterion_group!(benches, reads);
}

criterion_main!(group::benches);
