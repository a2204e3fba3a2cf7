//! Measures pins by one thread, as a function of the number of domains. The thread pins them in random order.

use benches::Xorshift;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_main};
use epoch_registry::Domain;

const PINS: usize = 4096;

fn pins(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pins");
    for count in [1, 16, 128, 4096] {
        let domains: Vec<_> = (0..count).map(|_| Domain::builder().manual().build()).collect();
        let mut random = Xorshift::new(1);
        let order: Vec<_> = (0..PINS).map(|_| &domains[random.below(count) as usize]).collect();
        // The first pin in each domain registers this thread there.
        domains.iter().for_each(|domain| drop(domain.pin()));

        group.throughput(Throughput::Elements(PINS as u64));
        group.bench_function(BenchmarkId::new("pin", count), |bencher| {
            bencher.iter(|| order.iter().for_each(|domain| drop(domain.pin())));
        });
        group.bench_function(BenchmarkId::new("in_critical_section", count), |bencher| {
            bencher.iter(|| order.iter().filter(|domain| domain.in_critical_section()).count());
        });
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("first pin", count), |bencher| {
            let domain = || Domain::builder().manual().build();
            bencher.iter_batched_ref(domain, |domain| drop(domain.pin()), BatchSize::NumIterations(16));
        });
    }
    group.finish();
}

#[allow(missing_docs)]
mod group {
    use super::pins;
    criterion::criterion_group!(benches, pins);
}

criterion_main!(group::benches);
