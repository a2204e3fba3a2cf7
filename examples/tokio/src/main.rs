//! A cache whose values are destroyed by a task of a tokio runtime.
//!
//! `cargo run --release -p tokio-example` churns a cache of 1 MiB for a few seconds. It prints the peak of the
//! backlog and of the process's memory. `cargo test -p tokio-example` tests the claims.

use epoch_registry::{Domain, DomainBuilder, Registry};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// Builds a domain whose jobs run on this runtime, and sleep by its timer.
///
/// When the runtime shuts down, it drops the job. A thread of the domain then takes over, and a warning is logged.
pub fn on_tokio(builder: DomainBuilder, runtime: Handle) -> Domain {
    builder.executor(move |job| drop(runtime.spawn(job.run_with(tokio::time::sleep)))).build()
}

/// Creates a cache of 1 MiB.
fn cache(domain: &Domain) -> Registry<u64, Vec<u8>> {
    Registry::builder().domain(domain.clone()).max_weight(1 << 20).weigher(|_, value: &Vec<u8>| value.len()).build()
}

/// Inserts new entries from `threads` threads for `time`. Each insertion evicts another entry.
fn churn(cache: &Registry<u64, Vec<u8>>, threads: u64, time: Duration) {
    let end = Instant::now() + time;
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                let mut key = thread;
                while Instant::now() < end {
                    for _ in 0..64 {
                        drop(cache.try_insert(key, vec![1; 1000]));
                        key += threads;
                    }
                }
            });
        }
    });
}

/// Returns the peak of the process's resident memory in KiB, if the system reports it (Linux).
fn peak_resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok())
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let kind = arguments.next().unwrap_or_else(|| "run_with".into());
    let seconds = arguments.next().map_or(3, |seconds| seconds.parse().expect("not a number of seconds"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build();
    let runtime = runtime.expect("a runtime can be built");
    let handle = runtime.handle().clone();
    let domain = match kind.as_str() {
        "run_with" => on_tokio(Domain::builder(), handle),
        // The obvious way, without `run_with`.
        "step" => Domain::builder()
            .executor(move |mut job| {
                drop(handle.spawn(async move {
                    while let Some(wait) = job.step() {
                        tokio::time::sleep(wait).await;
                    }
                }));
            })
            .build(),
        "writers" => Domain::builder().writers_only().build(),
        "default" => Domain::new(),
        other => panic!("unknown kind {other}; the kinds are run_with, step, writers, default"),
    };
    let cache = cache(&domain);
    churn(&cache, 2, Duration::from_secs(seconds));
    let evicted = cache.stats().evicted / seconds.max(1);
    println!("{kind}: {evicted} evictions a second, peak backlog: {}", domain.stats().peak);
    println!("peak of resident memory: {} KiB", peak_resident().unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{RecvTimeoutError, Sender, channel};

    const LIMIT: Duration = Duration::from_secs(10);

    fn disconnects(registry: &Registry<u64, Sender<()>>) -> Duration {
        let (sender, receiver) = channel();
        drop(registry.insert(1, sender));
        drop(registry.remove(&1));
        let begun = Instant::now();
        assert_eq!(receiver.recv_timeout(LIMIT), Err(RecvTimeoutError::Disconnected));
        begun.elapsed()
    }

    #[test]
    fn a_task_destroys_promptly_and_keeps_up() {
        for threads in [1, 2] {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_time().build();
            let runtime = runtime.unwrap();
            let domain = on_tokio(Domain::builder(), runtime.handle().clone());
            let registry = Registry::builder().domain(domain.clone()).build();
            let mut times: Vec<_> = (0..20).map(|_| disconnects(&registry)).collect();
            times.sort();
            assert!(times[10] < Duration::from_millis(50), "{times:?}");
            churn(&cache(&domain), 2, Duration::from_secs(1));
            let peak = domain.stats().peak.bytes;
            assert!(peak < 32 << 20, "{peak} bytes waited");
        }
    }

    #[test]
    fn a_runtime_of_the_current_thread_is_not_starved() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let domain = on_tokio(Domain::builder(), runtime.handle().clone());
        let other = domain.clone();
        let writer = std::thread::spawn(move || churn(&cache(&other), 1, Duration::from_secs(1)));
        let mut longest = Duration::ZERO;
        runtime.block_on(async {
            while !writer.is_finished() {
                let begun = Instant::now();
                tokio::time::sleep(Duration::from_millis(5)).await;
                longest = longest.max(begun.elapsed());
            }
        });
        writer.join().unwrap();
        assert!(longest < Duration::from_millis(500), "another task waited {longest:?} for its turn");
    }

    #[test]
    fn a_runtime_that_shuts_down_leaves_its_work_to_a_thread() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        let domain = on_tokio(Domain::builder(), runtime.handle().clone());
        let registry = Registry::builder().domain(domain.clone()).build();
        disconnects(&registry);
        // The job waits for a reader when the runtime ends.
        let (sender, receiver) = channel();
        drop(registry.insert(1, sender));
        let guard = registry.pin();
        drop(registry.remove(&1));
        std::thread::sleep(Duration::from_millis(20));
        drop(runtime);
        drop(guard);
        assert_eq!(receiver.recv_timeout(LIMIT), Err(RecvTimeoutError::Disconnected));
        (0..5).for_each(|_| assert!(disconnects(&registry) < LIMIT));
    }
}
