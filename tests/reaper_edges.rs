//! Reapers in the background of domains that end, wait and panic.

use epoch_registry::{Domain, Reaped, Reaper, Registry, Scan};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

struct Calls<F: Fn() + Send + Sync>(F);
impl<F: Fn() + Send + Sync> Reaper for Calls<F> {
    fn count(&self) -> usize {
        0
    }
    fn scan(&self, _: &mut Scan) -> Reaped {
        Reaped::default()
    }
    fn expire(&self, _: usize) -> Reaped {
        (self.0)();
        Reaped::default()
    }
}

fn within(time: Duration, f: impl FnOnce() + Send + 'static) -> bool {
    let (tx, rx) = mpsc::channel();
    thread::spawn(move || {
        f();
        let _ = tx.send(());
    });
    rx.recv_timeout(time).is_ok()
}

fn still_reclaims(domain: &Domain) -> bool {
    let registry = Registry::<u64, u64>::builder().domain(domain.clone()).build();
    registry.try_insert(1, 1).unwrap();
    registry.remove(&1);
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        if registry.stats().freed == 1 {
            return true;
        }
        thread::sleep(Duration::from_millis(1));
    }
    false
}

#[test]
fn an_interval_without_end_does_not_end_the_reclaimer() {
    let domain = Domain::builder().reclaimer(true).reap_every(Duration::MAX).build();
    let calls = Arc::new(AtomicU32::new(0));
    let seen = calls.clone();
    let reaper = Arc::new(Calls(move || {
        seen.fetch_add(1, SeqCst);
    }));
    domain.add_reaper(&reaper);
    thread::sleep(Duration::from_millis(200));
    // (Its drop would panic, and abort: the thread that it joins has panicked.)
    std::mem::forget(domain.clone());
    assert!(still_reclaims(&domain), "the reclaimer thread is gone; {} calls", calls.load(SeqCst));
}

#[test]
fn add_reaper_returns_where_the_executor_runs_jobs_within_spawn() {
    let returned = within(Duration::from_secs(3), || {
        let domain = Domain::builder().executor(|job| job.run()).build();
        let reaper = Arc::new(Calls(|| {}));
        domain.add_reaper(&reaper);
    });
    assert!(returned, "add_reaper hangs");
}

#[test]
fn a_reaper_may_wait_for_a_barrier_and_stop_its_reclaimer() {
    let (tx, rx) = mpsc::channel();
    let done = within(Duration::from_secs(5), move || {
        let domain = Domain::builder().reclaimer(true).reap_every(Duration::from_millis(1)).build();
        let (of_reaper, once) = (domain.clone(), AtomicBool::new(false));
        let reaper = Arc::new(Calls(move || {
            of_reaper.barrier();
            of_reaper.synchronize();
            if !once.swap(true, SeqCst) {
                tx.send(()).unwrap();
                thread::sleep(Duration::from_millis(50));
                of_reaper.stop_reclaimer();
            }
        }));
        domain.add_reaper(&reaper);
        rx.recv().unwrap();
        thread::sleep(Duration::from_millis(200));
        let registry = Registry::<u64, u64>::builder().domain(domain.clone()).build();
        registry.try_insert(1, 1).unwrap();
        registry.remove(&1);
        domain.barrier();
        assert_eq!(registry.stats().freed, 1);
        domain.stop_reclaimer();
    });
    assert!(done);
}

/// Has a reaper of each of two domains do `what` with the other domain, at the same time.
fn crossed(make: impl Fn() -> Domain, what: impl Fn(&Domain) + Send + Sync + Copy + 'static) {
    let domains = [make(), make()];
    let (meeting, done) = (Arc::new(Barrier::new(2)), Arc::new(AtomicU32::new(0)));
    let reapers = [0, 1].map(|index| {
        let (other, meeting, done) = (domains[1 - index].clone(), Arc::clone(&meeting), Arc::clone(&done));
        let once = AtomicBool::new(false);
        Arc::new(Calls(move || {
            if !once.swap(true, SeqCst) {
                meeting.wait();
                what(&other);
                done.fetch_add(1, SeqCst);
            }
        }))
    });
    domains.iter().zip(&reapers).for_each(|(domain, reaper)| domain.add_reaper(reaper));
    let end = Instant::now() + Duration::from_secs(5);
    while done.load(SeqCst) < 2 {
        assert!(Instant::now() < end, "the reapers wait for each other");
        thread::sleep(Duration::from_millis(1));
    }
}

fn each_kind(what: impl Fn(&Domain) + Send + Sync + Copy + 'static) {
    crossed(|| Domain::builder().reclaimer(true).build(), what);
    crossed(Domain::new, what);
    let pooled = || {
        let pool = |job: epoch_registry::ReclaimJob| drop(thread::spawn(move || job.run()));
        Domain::builder().executor(pool).build()
    };
    crossed(pooled, what);
}

#[test]
fn reapers_of_two_domains_may_stop_each_others_reclaimers() {
    each_kind(Domain::stop_reclaimer);
}

#[test]
fn reapers_of_two_domains_may_wait_in_each_others_barriers() {
    each_kind(|domain| {
        domain.call(|| ());
        domain.barrier();
        domain.synchronize();
    });
}

/// A reaper waits for a reader, which stops the reclaimer that runs the reaper.
#[test]
fn a_reclaimer_may_be_stopped_in_a_critical_section_that_its_reaper_waits_for() {
    for kind in [|| Domain::builder().reclaimer(true).build(), Domain::new] {
        let done = within(Duration::from_secs(5), move || {
            let domain = kind();
            let (begun, waits) = mpsc::channel();
            let of_reaper = domain.clone();
            let reaper = Arc::new(Calls(move || {
                let _ = begun.send(());
                of_reaper.synchronize();
            }));
            let guard = domain.pin();
            domain.add_reaper(&reaper);
            waits.recv().unwrap();
            domain.stop_reclaimer();
            drop(guard);
            domain.stop_reclaimer();
        });
        assert!(done, "stop_reclaimer hangs");
    }
}

/// The thread of one domain runs a reaper that waits in a barrier of the other, whose executor's `spawn` stops the thread.
#[test]
fn a_spawn_that_stops_a_reclaimer_does_not_wait_for_itself() {
    let done = within(Duration::from_secs(5), || {
        let threaded = Domain::builder().reclaimer(true).build();
        let (begun, waits) = mpsc::channel();
        let (stopped, once) = (threaded.clone(), AtomicBool::new(false));
        let waits = std::sync::Mutex::new(waits);
        let pooled = Domain::builder().executor(move |job| {
            if !once.swap(true, SeqCst) {
                waits.lock().unwrap().recv().unwrap();
                stopped.stop_reclaimer();
            }
            thread::spawn(move || job.run());
        });
        let pooled = pooled.build();
        let of_reaper = pooled.clone();
        let reaper = Arc::new(Calls(move || {
            let _ = begun.send(());
            thread::sleep(Duration::from_millis(20));
            of_reaper.call(|| ());
            of_reaper.barrier();
        }));
        threaded.add_reaper(&reaper);
        pooled.call(|| ());
        pooled.barrier();
    });
    assert!(done);
}

/// The reaper is the last to hold registry and domain; all ends on the reclaimer's thread.
#[test]
fn everything_may_end_on_the_reclaimers_thread() {
    for _ in 0..200 {
        let domain = Domain::builder().reclaimer(true).reap_every(Duration::ZERO).build();
        let registry = Arc::new(
            Registry::<u64, Arc<()>>::builder().domain(domain.clone()).max_age(Duration::from_millis(1)).build(),
        );
        domain.add_reaper(&registry);
        let token = Arc::new(());
        for key in 0..100 {
            registry.try_insert(key, token.clone()).unwrap();
        }
        drop(domain);
        drop(registry);
        let end = Instant::now() + Duration::from_secs(2);
        while Arc::strong_count(&token) > 1 {
            assert!(Instant::now() < end, "leaked");
            thread::yield_now();
        }
    }
}

/// A reaper that panics in `expire` and again in its end, as the last who holds it.
#[test]
fn a_reaper_that_panics_twice_does_not_abort() {
    if std::env::var_os("ZZ_TWICE").is_none() {
        let exe = std::env::current_exe().unwrap();
        let status = std::process::Command::new(exe)
            .args(["--exact", "a_reaper_that_panics_twice_does_not_abort"])
            .env("ZZ_TWICE", "1")
            .output()
            .unwrap()
            .status;
        assert!(status.success(), "{status:?}");
        return;
    }
    struct Bad(mpsc::SyncSender<()>, std::sync::Mutex<mpsc::Receiver<()>>);
    impl Drop for Bad {
        fn drop(&mut self) {
            panic!("in the end");
        }
    }
    impl Reaper for Bad {
        fn count(&self) -> usize {
            0
        }
        fn scan(&self, _: &mut Scan) -> Reaped {
            Reaped::default()
        }
        fn expire(&self, _: usize) -> Reaped {
            self.0.send(()).unwrap();
            self.1.lock().unwrap().recv().unwrap();
            panic!("in expire");
        }
    }
    let domain = Domain::builder().reclaimer(true).build();
    let ((tx, rx), (go, go_rx)) = (mpsc::sync_channel(0), mpsc::sync_channel(1));
    let reaper = Arc::new(Bad(tx, std::sync::Mutex::new(go_rx)));
    domain.add_reaper(&reaper);
    rx.recv().unwrap();
    drop(reaper);
    go.send(()).unwrap();
    thread::sleep(Duration::from_millis(300));
    assert!(still_reclaims(&domain));
}
