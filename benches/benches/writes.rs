//! Measures writes to a registry of 1,000 and to one of 1,000,000 entries, and the reclamation of removed entries.

use benches::Xorshift;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_main};
use epoch_registry::{Domain, Registry};

const WRITES: usize = 4096;

fn filled(entries: u64) -> Registry<u64, u64> {
    let registry = Registry::builder().domain(Domain::new()).capacity(entries as usize).build();
    for key in 0..entries {
        assert!(registry.try_insert(key, key).is_ok());
    }
    registry
}

fn writes(criterion: &mut Criterion) {
    for entries in [1_000, 1_000_000] {
        let registry = filled(entries);
        let mut random = Xorshift::new(7);
        let keys: Vec<u64> = (0..WRITES).map(|_| random.below(entries)).collect();
        let mut group = criterion.benchmark_group("writes");
        group.throughput(Throughput::Elements(WRITES as u64));
        let id = |name: &str| BenchmarkId::new(name, entries);

        group.bench_function(id("replace"), |bencher| {
            bencher.iter(|| keys.iter().for_each(|&key| drop(registry.insert(key, key))));
        });
        group.bench_function(id("remove and insert"), |bencher| {
            bencher.iter(|| {
                for &key in &keys {
                    drop(registry.remove(&key));
                    drop(registry.try_insert(key, key));
                }
            });
        });
        group.bench_function(id("update"), |bencher| {
            bencher.iter(|| keys.iter().for_each(|key| drop(registry.update(key, |_, value| value + 1))));
        });
        group.finish();
    }
}

/// Measures the reclamation of a whole registry by its writer, with a barrier.
fn reclamation(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("reclamation");
    group.throughput(Throughput::Elements(WRITES as u64));
    group.bench_function("insert, clear and barrier", |bencher| {
        let registry: Registry<u64, u64> =
            Registry::builder().domain(Domain::builder().manual().build()).capacity(WRITES).build();
        let fill = || (0..WRITES as u64).for_each(|key| drop(registry.try_insert(key, key)));
        bencher.iter_batched(
            fill,
            |()| {
                registry.clear();
                registry.domain().barrier();
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

#[allow(missing_docs)]
mod group {
    use super::{reclamation, writes};
    criterion::criterion_group!(benches, writes, reclamation);
}

criterion_main!(group::benches);
