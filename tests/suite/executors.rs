//! What runs destructors: a user's executor that treats its jobs in any way, nothing at all, or a thread that is
//! stopped.

#![allow(clippy::derived_hash_with_manual_eq, clippy::type_complexity)]

use crate::common::*;
use epoch_registry::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// A slot in which user code finds the registry that calls it.
type Slot = Arc<Mutex<Option<Arc<Registry<u64, u64>>>>>;

fn registry_of(domain: &Domain) -> Registry<u64, Counted> {
    Registry::builder().domain(domain.clone()).shards(2).build()
}

/// Returns a domain that sends its jobs to a channel.
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
fn an_executor_destroys_promptly_and_writers_destroy_nothing() {
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
fn there_is_one_job_at_a_time_and_no_job_when_nothing_waits() {
    let (domain, jobs) = queued();
    let (registry, ledger) = (registry_of(&domain), Ledger::new());
    // (A job that does not run is late after 20 ms, and writers help. With a reader in the way they destroy nothing.)
    let guard = registry.pin();
    come_and_go(&registry, &ledger, 500);
    let mut job = jobs.try_recv().unwrap();
    assert!(jobs.try_recv().is_err() && ledger.live() == 500);
    assert!(
        job.step().is_some_and(|nap| nap > Duration::ZERO),
        "the job does not sleep although a reader holds up the grace period"
    );
    assert!(job.step().is_some() && ledger.live() == 500);
    drop(guard);
    while job.step().is_some() {}
    assert_eq!(ledger.live(), 0);
    assert_eq!(job.step(), None);
    come_and_go(&registry, &ledger, 1);
    let another = jobs.try_recv().unwrap();
    // The drop of an ended job does not affect the next job.
    drop(job);
    come_and_go(&registry, &ledger, 1);
    assert!(jobs.try_recv().is_err());
    another.run();
    assert_eq!(ledger.live(), 0);
}

#[test]
fn a_job_may_be_run_within_spawn_or_dropped_and_spawn_may_panic() {
    in_time(|| {
        let ledger = Ledger::new();
        // Inline: the thread that asks for a job runs it.
        let inline = Domain::builder().executor(ReclaimJob::run).build();
        come_and_go(&registry_of(&inline), &ledger, 1000);
        inline.barrier();
        assert_eq!(ledger.live(), 0);
        // Dropped: the next write makes another job.
        let dropped = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&dropped);
        let refuses = Domain::builder().executor(move |_job| assert!(count.fetch_add(1, SeqCst) < u64::MAX)).build();
        let registry = registry_of(&refuses);
        come_and_go(&registry, &ledger, 1000);
        assert!(dropped.load(SeqCst) > 10, "{}", dropped.load(SeqCst));
        refuses.barrier();
        assert_eq!(ledger.live(), 0);
        // The executor panics.
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
    in_time(|| {
        let domain = Domain::builder().executor(spawn).build();
        let registry: Arc<Registry<u64, u64>> = Arc::new(Registry::builder().domain(domain.clone()).shards(1).build());
        *slot.lock().unwrap() = Some(Arc::clone(&registry));
        // Resizes retire tables. The domain must not call the executor for them under a shard lock.
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
fn in_a_manual_domain_writes_run_no_destructor() {
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
        in_time(|| {
            let (executor, jobs) = queued();
            let domain = if threaded { Domain::builder().reclaimer(true).build() } else { executor };
            let (registry, ledger) = (registry_of(&domain), Ledger::new());
            come_and_go(&registry, &ledger, 10);
            domain.stop_reclaimer();
            domain.stop_reclaimer();
            jobs.try_iter().for_each(ReclaimJob::run);
            // Enough removals make a round due. The next round finds the grace period over.
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

// Executors and other user code that do what they should not.

fn ends_within(limit: Duration, f: impl FnOnce() + Send + 'static) -> bool {
    let (done, wait) = mpsc::channel();
    thread::spawn(move || {
        let _ = catch_unwind(AssertUnwindSafe(f));
        let _ = done.send(());
    });
    wait.recv_timeout(limit).is_ok()
}

/// The executor's `spawn` drops a handle. It is called within a round. The frame of that round takes the handle's node
/// over, but destroys nothing more.
#[test]
fn a_handle_dropped_in_spawn_is_not_lost() {
    let slot: Arc<Mutex<Option<Handle<u64, Counted>>>> = Arc::default();
    let spawn = {
        let slot = Arc::clone(&slot);
        move |job: ReclaimJob| {
            drop(job); // As if the pool were full.
            let handle = slot.lock().unwrap().take();
            drop(handle);
        }
    };
    let domain = Domain::builder().executor(spawn).build();
    let registry: Registry<u64, Counted> = Registry::builder().shards(1).capacity(100).domain(domain.clone()).build();
    let ledger = Ledger::new();
    let kept = registry.try_insert(1, ledger.value(1)).unwrap();
    registry.try_insert(2, ledger.value(2)).unwrap();
    registry.remove(&1);
    domain.barrier();
    assert_eq!(ledger.dropped(), 0, "the entry was destroyed although a handle holds it");

    let guard = domain.pin();
    registry.remove(&2);
    *slot.lock().unwrap() = Some(kept);
    domain.reclaim(100);
    assert!(slot.lock().unwrap().is_none(), "spawn did not drop the handle");
    drop(guard);
    domain.barrier();
    drop(registry);
    domain.barrier();
    assert_eq!((ledger.created(), ledger.dropped()), (2, 2), "guarantee B: created = dropped + live");
}

/// `spawn` drops a handle within a round that destroys nothing. Meanwhile another thread waits in a barrier.
#[test]
fn a_barrier_covers_a_handle_that_another_thread_drops_in_spawn() {
    let slot: Arc<Mutex<Option<Handle<u64, Counted>>>> = Arc::default();
    let (dropped, is_dropped) = mpsc::channel();
    let (go, is_to_go) = mpsc::channel::<()>();
    let is_to_go = Mutex::new(is_to_go);
    let theirs = Arc::clone(&slot);
    let spawn = move |job: ReclaimJob| {
        drop(job);
        let handle = theirs.lock().unwrap().take();
        if let Some(handle) = handle {
            drop(handle);
            dropped.send(()).unwrap();
            let _ = is_to_go.lock().unwrap().recv();
        }
    };
    let domain = Domain::builder().executor(spawn).build();
    let registry: Registry<u64, Counted> = Registry::builder().shards(1).domain(domain.clone()).build();
    let ledger = Ledger::new();
    let kept = registry.try_insert(1, ledger.value(1)).unwrap();
    drop(registry.try_insert(2, ledger.value(2)));
    drop(registry.remove(&1));
    domain.barrier();
    assert_eq!(ledger.dropped(), 0, "the entry was destroyed although a handle holds it");
    with_reader(&domain, || {
        drop(registry.remove(&2));
        *slot.lock().unwrap() = Some(kept);
        let theirs = domain.clone();
        let round = thread::spawn(move || theirs.reclaim(100));
        is_dropped.recv().unwrap();
        IN_ROUND.lock().unwrap().replace(round);
    });
    domain.barrier();
    let dropped = ledger.dropped();
    drop(go);
    IN_ROUND.lock().unwrap().take().unwrap().join().unwrap();
    assert_eq!(dropped, 2, "guarantee B: created = dropped + live");
}

static IN_ROUND: Mutex<Option<thread::JoinHandle<usize>>> = Mutex::new(None);

/// A callback calls `ReclaimJob::run`, which would wait for that callback.
#[test]
fn a_job_run_in_a_callback_of_its_domain_does_not_hang() {
    assert!(ends_within(Duration::from_secs(5), || {
        let jobs: Arc<Mutex<Vec<ReclaimJob>>> = Arc::default();
        let queue = Arc::clone(&jobs);
        let domain = Domain::builder().executor(move |job| queue.lock().unwrap().push(job)).build();
        domain.call(move || {
            let job = jobs.lock().unwrap().pop();
            job.unwrap().run(); // A work-stealing pool does this while it waits.
        });
        domain.barrier();
    }));
}

/// The same with an executor that runs jobs on the calling thread: it calls `run` in `spawn`, within a round.
#[test]
fn a_caller_runs_executor_does_not_hang() {
    assert!(ends_within(Duration::from_secs(5), || {
        let full = Arc::new(AtomicBool::new(false));
        let saturated = Arc::clone(&full);
        // The executor drops jobs at first, as if it were shut down. After that it runs them on the calling thread.
        let domain =
            Domain::builder().executor(move |job| if saturated.load(SeqCst) { job.run() } else { drop(job) }).build();
        let registry: Registry<u64, u64> = Registry::builder().shards(1).capacity(9).domain(domain.clone()).build();
        registry.try_insert(1, 1).unwrap();
        let (out, go) = mpsc::channel::<()>();
        let (ready, is_ready) = mpsc::channel::<()>();
        let reader = {
            let domain = domain.clone();
            thread::spawn(move || {
                let _guard = domain.pin();
                ready.send(()).unwrap();
                let _ = go.recv_timeout(Duration::from_millis(300));
            })
        };
        is_ready.recv().unwrap();
        registry.remove(&1);
        full.store(true, SeqCst);
        domain.reclaim(100); // Must not wait for readers. The reader leaves after 300 ms.
        drop(out);
        reader.join().unwrap();
    }));
}

/// An `Eq` calls `stop_reclaimer` under a shard lock that a destructor waits for.
#[test]
fn stop_reclaimer_in_an_eq_is_refused() {
    static STARTED: AtomicBool = AtomicBool::new(false);
    static IN_EQ: AtomicBool = AtomicBool::new(false);
    static ARMED: AtomicBool = AtomicBool::new(false);
    static DOMAIN: OnceLock<Domain> = OnceLock::new();
    static REGISTRY: OnceLock<Registry<Key, Slow>> = OnceLock::new();

    #[derive(Hash, Clone)]
    struct Key(u64);
    impl PartialEq for Key {
        fn eq(&self, other: &Key) -> bool {
            if ARMED.swap(false, SeqCst) {
                IN_EQ.store(true, SeqCst);
                thread::sleep(Duration::from_millis(100));
                DOMAIN.get().unwrap().stop_reclaimer();
            }
            self.0 == other.0
        }
    }
    impl Eq for Key {}
    struct Slow(bool);
    impl Drop for Slow {
        fn drop(&mut self) {
            if self.0 {
                STARTED.store(true, SeqCst);
                while !IN_EQ.load(SeqCst) {
                    thread::yield_now();
                }
                let _ = REGISTRY.get().unwrap().try_insert(Key(77), Slow(false));
            }
        }
    }

    assert!(ends_within(Duration::from_secs(5), || {
        let domain = DOMAIN.get_or_init(|| Domain::builder().reclaimer(true).build());
        let registry = REGISTRY.get_or_init(|| Registry::builder().shards(1).domain(domain.clone()).build());
        registry.try_insert(Key(1), Slow(true)).ok().unwrap();
        registry.try_insert(Key(2), Slow(false)).ok().unwrap();
        registry.remove(&Key(1));
        while !STARTED.load(SeqCst) {
            thread::yield_now();
        }
        ARMED.store(true, SeqCst);
        registry.remove(&Key(2));
    }));
}

/// The drop of a handle drops the domain, and with it the stall handler, whose drop panics.
#[test]
fn a_handler_whose_drop_panics_is_contained() {
    struct Bad;
    impl Drop for Bad {
        fn drop(&mut self) {
            if !thread::panicking() {
                panic!("the handler's drop");
            }
        }
    }
    let bad = Bad;
    let domain = Domain::builder()
        .on_stall(move |_| {
            let _ = &bad;
        })
        .build();
    let registry: Registry<u64, u64> = Registry::builder().domain(domain).build();
    let handle = registry.try_insert(1, 1).unwrap();
    drop(registry);
    assert!(catch_unwind(AssertUnwindSafe(|| drop(handle))).is_ok(), "the panic escaped from the drop of a handle");
}

/// A second call to stop the reclaimer also waits until it has stopped.
#[test]
fn every_call_of_stop_reclaimer_waits_until_the_thread_has_stopped() {
    let domain = Domain::builder().reclaimer(true).build();
    let (started, go) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (began, ended) = (Arc::clone(&started), Arc::clone(&go));
    domain.call(move || {
        began.store(true, SeqCst);
        thread::sleep(Duration::from_millis(500));
        ended.store(true, SeqCst);
    });
    while !started.load(SeqCst) {
        thread::yield_now();
    }
    thread::scope(|scope| {
        scope.spawn(|| domain.stop_reclaimer());
        thread::sleep(Duration::from_millis(100));
        domain.stop_reclaimer();
        assert!(go.load(SeqCst), "stop_reclaimer returned while the thread still ran a callback");
    });
}

/// One job is leaked, one is kept beyond its domain, and one is stepped after its end.
#[test]
fn jobs_may_be_leaked_or_outlive_their_domain_or_be_stepped_after_their_end() {
    let jobs: Arc<Mutex<Vec<ReclaimJob>>> = Arc::default();
    let queue = Arc::clone(&jobs);
    let ran = Arc::new(AtomicU64::new(0));
    let domain = Domain::builder().executor(move |job| queue.lock().unwrap().push(job)).build();
    let count = Arc::clone(&ran);
    domain.call(move || assert!(count.fetch_add(1, SeqCst) < u64::MAX));
    let mut job = jobs.lock().unwrap().pop().unwrap();
    let end = Instant::now() + Duration::from_secs(5);
    while job.step().is_some() {
        assert!(Instant::now() < end);
    }
    assert_eq!(ran.load(SeqCst), 1);
    assert_eq!(job.step(), None);
    let count = Arc::clone(&ran);
    domain.call(move || assert!(count.fetch_add(1, SeqCst) < u64::MAX));
    let mut second = jobs.lock().unwrap().pop().expect("a second job");
    drop(job); // The first job has ended. Its drop does not affect the second.
    let count = Arc::clone(&ran);
    domain.call(move || assert!(count.fetch_add(1, SeqCst) < u64::MAX));
    assert!(jobs.lock().unwrap().is_empty());
    drop(domain);
    assert_eq!(ran.load(SeqCst), 3);
    assert_eq!(second.step(), None);
    second.run();
}

/// The executor's `spawn` calls every kind of operation.
#[test]
fn spawn_may_call_back() {
    assert!(ends_within(Duration::from_secs(20), || {
        static REGISTRY: OnceLock<Registry<u64, u64>> = OnceLock::new();
        let jobs: Arc<Mutex<Vec<ReclaimJob>>> = Arc::default();
        let queue = Arc::clone(&jobs);
        let depth = AtomicU64::new(0);
        let domain = Domain::builder()
            .backlog_objects(16)
            .when_full(WhenFull::Wait(Duration::from_millis(1)))
            .executor(move |job| {
                queue.lock().unwrap().push(job);
                if let Some(registry) = REGISTRY.get() {
                    let n = depth.fetch_add(1, SeqCst);
                    let domain = registry.domain();
                    domain.stats();
                    domain.reclaim(10);
                    let _ = registry.try_insert(1000 + n % 50, n);
                    registry.remove(&(1000 + n % 50));
                    domain.call(|| ());
                    registry.clear();
                    domain.backlog();
                    let _ = catch_unwind(AssertUnwindSafe(|| domain.barrier()));
                }
            })
            .build();
        let registry = REGISTRY.get_or_init(|| Registry::builder().shards(2).domain(domain.clone()).build());
        for key in 0..2000 {
            let _ = registry.try_insert(key % 100, key);
            registry.remove(&((key * 7) % 100));
            if key % 3 == 0 {
                let job = jobs.lock().unwrap().pop();
                if let Some(mut job) = job {
                    job.step();
                    if key % 2 == 0 {
                        jobs.lock().unwrap().push(job);
                    }
                }
            }
        }
        domain.barrier();
    }));
}

/// The executor is `executor(ReclaimJob::run)`, which the documents allow. A registry is dropped, and the destructor of
/// one of its entries removes an entry from another registry of the domain.
#[test]
fn a_registry_can_be_dropped_if_jobs_run_within_spawn() {
    assert!(ends_within(Duration::from_secs(5), || {
        let domain = Domain::builder().executor(ReclaimJob::run).build();
        let children: Arc<Registry<u64, u64>> = Arc::new(Registry::builder().domain(domain.clone()).build());
        let parents: Registry<u64, OnDrop> = Registry::builder().domain(domain.clone()).build();
        drop(children.try_insert(1, 1));
        let theirs = Arc::clone(&children);
        drop(parents.try_insert(1, OnDrop::new(move || drop(theirs.remove(&1)))));
        drop(parents);
    }));
}

#[test]
fn a_job_run_under_a_guard_of_its_own_thread_does_not_hang() {
    let (done, wait) = mpsc::channel();
    thread::spawn(move || {
        let jobs: Arc<Mutex<Vec<ReclaimJob>>> = Arc::default();
        let queue = Arc::clone(&jobs);
        let domain = Domain::builder().executor(move |job| queue.lock().unwrap().push(job)).build();
        let guard = domain.pin();
        domain.call(|| ());
        let job = jobs.lock().unwrap().pop().unwrap();
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job.run()));
        drop(guard);
        done.send(()).unwrap();
    });
    assert!(wait.recv_timeout(Duration::from_secs(5)).is_ok());
}

/// An executor that takes no job does not reclaim, for example because its pool is shut down. Writers reclaim instead,
/// and bound the backlog.
#[test]
fn writers_reclaim_if_the_executor_takes_no_job() {
    let calls = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&calls);
    let domain = Domain::builder()
        .executor(move |job| {
            count.fetch_add(1, SeqCst);
            drop(job);
        })
        .build();
    let registry: Registry<u64, u64> = Registry::builder().shards(1).capacity(99).domain(domain.clone()).build();
    for key in 0..100_000 {
        drop(registry.try_insert(key, key));
        registry.remove(&key);
    }
    let backlog = domain.backlog().objects;
    assert!(backlog < 10_000, "{backlog} objects wait without a reader, after {} calls of `spawn`", calls.load(SeqCst));
}

/// Jobs run within `spawn`. What a destructor retires is destroyed without a further call.
#[test]
fn a_round_finishes_the_work_that_a_job_inside_it_could_not_do() {
    let ledger = Ledger::new();
    let domain = Domain::builder().executor(ReclaimJob::run).build();
    let children: Arc<Registry<u64, Counted>> = Arc::new(Registry::builder().domain(domain.clone()).build());
    let parents: Registry<u64, OnDrop> = Registry::builder().domain(domain.clone()).build();
    drop(children.try_insert(1, ledger.value(1)));
    let theirs = Arc::clone(&children);
    drop(parents.try_insert(1, OnDrop::new(move || drop(theirs.remove(&1)))));
    drop(parents);
    assert_eq!(ledger.live(), 0);
}
