//! Who runs destructors: an executor of the user's, whatever it does with its jobs; nobody; a thread that is stopped.

mod common;

use common::*;
use epoch_registry::{Domain, ReclaimJob, Registry};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Where code of the user's finds the registry that calls it.
type Slot = Arc<Mutex<Option<Arc<Registry<u64, u64>>>>>;

fn registry_of(domain: &Domain) -> Registry<u64, Counted> {
    Registry::builder().domain(domain.clone()).shards(2).build()
}

/// A domain that hands its jobs to a channel.
fn queued() -> (Domain, Receiver<ReclaimJob>) {
    let (send, jobs) = channel();
    let send = Mutex::new(send);
    (Domain::builder().executor(move |job| send.lock().unwrap().send(job).unwrap()).build(), jobs)
}

fn come_and_go(registry: &Registry<u64, Counted>, ledger: &Ledger, count: u64) {
    for key in 0..count {
        drop(registry.try_insert(key, ledger.value(key)));
        drop(registry.remove(&key));
    }
}

#[test]
fn an_executor_destroys_promptly_and_writers_do_not() {
    let (domain, jobs) = queued();
    let pool = thread::spawn(move || jobs.into_iter().map(ReclaimJob::run).count());
    let registry: Registry<u64, DropsOn> = Registry::builder().domain(domain.clone()).build();
    let log = Arc::new(Mutex::new(Vec::new()));
    for round in 1..=50 {
        (0..100).for_each(|key| drop(registry.try_insert(key, DropsOn(Arc::clone(&log)))));
        (0..100).for_each(|key| drop(registry.remove(&key)));
        assert!(soon(|| log.lock().unwrap().len() == 100 * round), "round {round}: {}", domain.stats());
    }
    assert!(log.lock().unwrap().iter().all(|&thread| thread == pool.thread().id()));
    drop((registry, domain));
    let jobs = pool.join().unwrap();
    assert!((1..=5000).contains(&jobs), "{jobs}");
}

#[test]
fn there_is_one_job_at_a_time_and_none_when_nothing_is_left() {
    let (domain, jobs) = queued();
    let (registry, ledger) = (registry_of(&domain), Ledger::new());
    come_and_go(&registry, &ledger, 500);
    let mut job = jobs.try_recv().unwrap();
    assert!(jobs.try_recv().is_err() && ledger.live() == 500);
    let guard = registry.pin();
    assert!(job.step().is_some_and(|nap| nap > Duration::ZERO), "a reader is in the way");
    assert!(job.step().is_some() && ledger.live() == 500);
    drop(guard);
    while job.step().is_some() {}
    assert_eq!(ledger.live(), 0);
    assert_eq!(job.step(), None);
    come_and_go(&registry, &ledger, 1);
    let another = jobs.try_recv().unwrap();
    // One that has ended says nothing about the other.
    drop(job);
    come_and_go(&registry, &ledger, 1);
    assert!(jobs.try_recv().is_err());
    another.run();
    assert_eq!(ledger.live(), 0);
}

#[test]
fn a_job_that_is_run_within_spawn_or_dropped_does_no_harm() {
    within_a_minute(|| {
        let ledger = Ledger::new();
        // Inline: whoever wakes runs it.
        let inline = Domain::builder().executor(ReclaimJob::run).build();
        come_and_go(&registry_of(&inline), &ledger, 1000);
        inline.barrier();
        assert_eq!(ledger.live(), 0);
        // Dropped: the next write brings another.
        let dropped = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&dropped);
        let refuses = Domain::builder().executor(move |_job| assert!(count.fetch_add(1, SeqCst) < u64::MAX)).build();
        let registry = registry_of(&refuses);
        come_and_go(&registry, &ledger, 1000);
        assert!(dropped.load(SeqCst) > 10, "{}", dropped.load(SeqCst));
        refuses.barrier();
        assert_eq!(ledger.live(), 0);
        // Panicking.
        let panics = Domain::builder().executor(|_job| panic!("no executor")).build();
        let registry = registry_of(&panics);
        come_and_go(&registry, &ledger, 100);
        drop((registry, panics));
        assert_eq!(ledger.live(), 0);
    });
}

#[test]
fn a_job_may_outlive_its_domain() {
    let (domain, jobs) = queued();
    let ledger = Ledger::new();
    let registry = registry_of(&domain);
    come_and_go(&registry, &ledger, 10);
    let mut job = jobs.try_recv().unwrap();
    drop((registry, domain));
    assert_eq!((ledger.live(), job.step()), (0, None));
    job.run();
}

#[test]
fn an_executor_may_use_the_registry() {
    let slot: Slot = Arc::default();
    let inside = Arc::clone(&slot);
    let spawn = move |job: ReclaimJob| {
        let registry = inside.lock().unwrap().clone();
        if let Some(registry) = registry {
            drop(registry.try_insert(1000, 1));
            drop(registry.remove(&1000));
            assert!(registry.domain().stats().backlog.objects > 0);
        }
        job.run();
    };
    within_a_minute(|| {
        let domain = Domain::builder().executor(spawn).build();
        let registry: Arc<Registry<u64, u64>> = Arc::new(Registry::builder().domain(domain.clone()).shards(1).build());
        *slot.lock().unwrap() = Some(Arc::clone(&registry));
        // Resizes retire tables: the executor must not be called under a shard lock for that.
        for key in 0..1000 {
            drop(registry.try_insert(key, key));
        }
        (0..1000).for_each(|key| drop(registry.remove(&key)));
        *slot.lock().unwrap() = None;
        domain.barrier();
        assert_eq!(domain.backlog().objects, 0);
    });
}

#[test]
fn where_reclamation_is_manual_writes_run_no_destructor() {
    let domain = Domain::builder().manual().build();
    let (registry, ledger) = (registry_of(&domain), Ledger::new());
    for _ in 0..5 {
        come_and_go(&registry, &ledger, 500);
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(ledger.live(), 2500);
    let mut done = 0;
    while done < 1000 {
        done += domain.reclaim(100);
    }
    assert_eq!((done, ledger.live()), (1000, 1500));
    domain.barrier();
    assert_eq!(ledger.live(), 0);
}

#[test]
fn a_stopped_reclaimer_leaves_its_work_to_writers() {
    for threaded in [true, false] {
        within_a_minute(|| {
            let (executor, jobs) = queued();
            let domain = if threaded { Domain::builder().reclaimer(true).build() } else { executor };
            let (registry, ledger) = (registry_of(&domain), Ledger::new());
            come_and_go(&registry, &ledger, 10);
            domain.stop_reclaimer();
            domain.stop_reclaimer();
            jobs.try_iter().for_each(ReclaimJob::run);
            // Enough removals make a round due, and the next one finds its grace period over.
            assert!(soon(|| {
                come_and_go(&registry, &ledger, 200);
                ledger.live() < 200
            }));
            let message = Arc::new(Mutex::new(String::new()));
            let (inner, out) = (domain.clone(), Arc::clone(&message));
            domain.call(move || *out.lock().unwrap() = panic_of(|| inner.stop_reclaimer()));
            domain.barrier();
            assert!(message.lock().unwrap().contains("stop_reclaimer on domain"), "{message:?}");
        });
    }
}
