//! Policies, and registries as reapers.

use crate::common::*;
use epoch_registry::{
    Candidate, Domain, ManualClock, Policy, PolicyReaper, Reaped, Reaper, Registry, Scan, Verdict, policy,
};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

fn filled(entries: u64) -> Registry<u64, u64> {
    let registry = isolated();
    (0..entries).for_each(|key| drop(registry.try_insert(key, key)));
    registry
}

fn is(multiple: u64) -> impl Policy<u64, u64> {
    policy::when(move |candidate: &Candidate<'_, u64, u64>| candidate.key() % multiple == 0)
}

/// Reaps all entries in one scan.
fn reap(registry: &Registry<u64, u64>, policy: impl Policy<u64, u64>) -> Reaped {
    registry.reap_by(&policy, &mut Scan::new(usize::MAX))
}

#[test]
fn policies_combine() {
    let keep = |_: &Candidate<'_, u64, u64>| Verdict::Keep;
    let rotate = |_: &Candidate<'_, u64, u64>| Verdict::Rotate;
    let skip = |_: &Candidate<'_, u64, u64>| Verdict::Skip;
    assert_eq!(reap(&filled(60), policy::either(is(4), is(6))).removed, 20);
    assert_eq!(reap(&filled(60), policy::both(is(4), is(6))).removed, 5);
    assert_eq!(reap(&filled(60), policy::either(keep, rotate)).rotated, 60);
    assert_eq!(reap(&filled(60), policy::either(rotate, keep)).rotated, 60);
    assert_eq!(reap(&filled(60), policy::either(skip, is(2))).removed, 30);
    assert_eq!(reap(&filled(60), policy::both(is(2), skip)).skipped, 30);
    assert_eq!(reap(&filled(60), policy::both(is(2), rotate)).rotated, 30);
    let boxed: Box<dyn Policy<u64, u64>> = Box::new(is(3));
    let reaped = reap(&filled(60), boxed);
    assert_eq!((reaped.examined, reaped.removed, reaped.rotated, reaped.skipped), (60, 20, 0, 0));
    assert_eq!(reaped.bytes % 20, 0);
    assert!(reaped.bytes >= 20 * 16, "{reaped:?}");
}

#[test]
fn second_chance_removes_entries_that_were_not_used_since_the_last_scan() {
    // The test avoids resizes, after which a scan may find an entry again.
    let registry: Registry<u64, u64> = isolated_builder().capacity(4000).build();
    registry.set_many((0..1000).map(|key| (key, key)));
    let mut scan = Scan::new(usize::MAX);
    let reaped = registry.reap_by(&policy::second_chance(), &mut scan);
    assert_eq!((reaped.removed, reaped.rotated), (0, 1000), "without bounds, all entries begin with the use mark");
    (0..100).for_each(|key| assert!(registry.contains_key(&key)));
    let reaped = registry.reap_by(&policy::second_chance(), &mut scan);
    assert_eq!((reaped.removed, reaped.rotated, registry.len()), (900, 100, 100));
    assert!((0..100).all(|key| registry.contains_key(&key)));
}

#[test]
fn a_policy_sees_age_idleness_handles_and_weight() {
    let clock = ManualClock::new();
    let builder = isolated_builder().clock(clock.clone()).max_idle(Duration::from_secs(160));
    let registry = builder.weigher(|_, value| *value as usize).build();
    let held = registry.try_insert(1, 5000).unwrap();
    clock.advance(Duration::from_secs(100));
    registry.try_insert(2, 7).unwrap();
    registry.lookup(&1).unwrap();
    clock.advance(Duration::from_secs(11));
    registry.try_insert(3, 0).unwrap();
    clock.advance(Duration::from_secs(20));
    let near = |time: Duration, seconds: u64| {
        let exact = Duration::from_secs(seconds);
        time <= exact && time + Duration::from_millis(34) >= exact
    };
    // Idle times are known to a sixteenth of 160 seconds, and are never too long.
    let idle_for = |time: Duration, seconds: u64| near(time, seconds - 10);
    let looked = AtomicUsize::new(0);
    let look = |candidate: &Candidate<'_, u64, u64>| {
        looked.fetch_add(1, SeqCst);
        let (age, idle, weight) = (candidate.age(), candidate.idle(), candidate.weight());
        match *candidate.key() {
            1 => assert!(near(age, 131) && idle_for(idle, 31) && candidate.is_held() && (5000..5100).contains(&weight)),
            2 => assert!(near(age, 31) && idle_for(idle, 31) && !candidate.is_held() && weight < 100),
            _ => assert!(near(age, 20) && idle_for(idle, 20), "{age:?} {idle:?}"),
        }
        Verdict::Keep
    };
    assert_eq!((reap_kept(&registry, look), looked.load(SeqCst)), (3, 3));
    drop(held);
    let reaped = registry.reap_by(&policy::older_than(Duration::from_secs(100)), &mut Scan::new(10));
    assert_eq!((reaped.removed, registry.contains_key(&1)), (1, false));
    clock.advance(Duration::from_secs(100));
    assert_eq!(registry.reap_by(&policy::idle_for(Duration::from_secs(99)), &mut Scan::new(10)).removed, 2);
}

fn reap_kept(registry: &Registry<u64, u64>, policy: impl Policy<u64, u64>) -> usize {
    let reaped = registry.reap_by(&policy, &mut Scan::new(usize::MAX));
    reaped.examined - reaped.removed - reaped.rotated - reaped.skipped
}

#[test]
fn a_scan_examines_its_budget_and_goes_on_where_it_stopped() {
    let (registry, seen) = (filled(10_000), AtomicUsize::new(0));
    let look = |_: &Candidate<'_, u64, u64>| {
        seen.fetch_add(1, SeqCst);
        Verdict::Keep
    };
    let mut scan = Scan::new(100);
    let mut scans = 0;
    loop {
        let reaped = registry.reap_by(&look, &mut scan);
        scans += 1;
        assert!(reaped.examined <= 120, "a scan splits only between homes: {reaped:?}");
        if scan.cursor.is_done() {
            break;
        }
        assert!(reaped.examined >= 100);
    }
    assert_eq!(seen.load(SeqCst), 10_000, "the entries were not examined once each in {scans} scans");
    registry.reap_by(&look, &mut scan);
    assert!(!scan.cursor.is_done() && seen.load(SeqCst) > 10_000, "the scan did not begin again");
}

#[test]
fn under_pressure_a_registry_removes_expired_entries_first_and_spares_used_and_held_ones() {
    let clock = ManualClock::new();
    let builder = isolated_builder()
        .clock(clock.clone())
        .lifetime(|key: &u64, _: &u64| (*key < 100).then_some(Duration::from_secs(1)));
    let registry = builder.spare_held(true).seeks(7).build();
    (0..1000).for_each(|key| drop(registry.try_insert(key, key)));
    let held: Vec<_> = (500..510).map(|key| registry.lookup(&key).unwrap()).collect();
    clock.advance(Duration::from_secs(2));
    let reaper: &dyn Reaper = &registry;
    assert_eq!((reaper.count(), reaper.seeks(), reaper.batch()), (1000, 7, 128));
    let mut scan = Scan::new(100);
    assert_eq!((reaper.scan(&mut scan).removed, scan.nr_to_scan, registry.len()), (100, 100, 900));
    assert!((100..1000).all(|key| registry.contains_key(&key)), "the scan removed entries that have not expired");
    scan.nr_to_scan = usize::MAX;
    let all = reaper.scan(&mut scan);
    assert_eq!((all.removed, all.rotated, all.skipped), (0, 890, 10));
    (200..300).for_each(|key| assert!(registry.contains_key(&key)));
    let all = reaper.scan(&mut scan);
    assert_eq!((all.removed, all.rotated, all.skipped, registry.len()), (790, 100, 10, 110));
    assert!(held.iter().all(|entry| !entry.is_unlinked()));
    assert_eq!((registry.stats().reaped, registry.stats().expired), (790, 100));
}

#[test]
fn a_policy_reaper_ends_with_its_registry_and_may_work_in_the_background() {
    let registry = Arc::new(filled(1000));
    let idle = PolicyReaper::new(&registry, is(2));
    let reaper = PolicyReaper::new(&registry, is(2)).in_background();
    assert_eq!((idle.expire(usize::MAX), idle.count()), (Reaped::default(), 1000));
    let mut examined = 0;
    while examined < 1000 {
        examined += reaper.expire(100).examined;
    }
    assert_eq!((registry.len(), reaper.count(), reaper.expire(usize::MAX).removed), (500, 500, 0));
    drop(registry);
    assert_eq!(
        (reaper.count(), reaper.scan(&mut Scan::new(10)), reaper.expire(10)),
        (0, Reaped::default(), Reaped::default())
    );
}

#[test]
fn many_reapers_at_once_remove_each_entry_once() {
    in_time(|| {
        let (registry, ledger) = (isolated(), Ledger::new());
        for _ in 0..times(20) {
            (0..2000).for_each(|key| drop(registry.try_insert(key, ledger.value(key))));
            let removed = AtomicUsize::new(0);
            thread::scope(|scope| {
                let (registry, removed) = (&registry, &removed);
                let even = |candidate: &Candidate<'_, u64, Counted>| candidate.key() % 2 == 0;
                for _ in 0..2 {
                    scope.spawn(move || {
                        let policy = policy::when(even);
                        let mut scan = Scan::new(50);
                        while !scan.cursor.is_done() {
                            removed.fetch_add(registry.reap_by(&policy, &mut scan).removed, SeqCst);
                        }
                    });
                    scope.spawn(move || {
                        let mut scan = Scan::new(usize::MAX);
                        // The first scan takes the use marks, and the second removes.
                        for _ in 0..2 {
                            removed.fetch_add(Reaper::scan(registry, &mut scan).removed, SeqCst);
                        }
                    });
                }
                for key in 0..2000 {
                    assert!(registry.lookup(&key).is_none_or(|entry| entry.get() == key));
                }
            });
            assert_eq!(removed.load(SeqCst) + registry.len(), 2000);
            registry.clear();
        }
        registry.domain().barrier();
        assert_eq!(ledger.live(), 0);
    });
}

// Reapers in the background of domains that end, wait or panic.

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
fn an_endless_reap_interval_does_not_end_the_reclaimer() {
    let domain = Domain::builder().reclaimer(true).reap_every(Duration::MAX).build();
    let calls = Arc::new(AtomicU32::new(0));
    let seen = calls.clone();
    let reaper = Arc::new(Calls(move || {
        seen.fetch_add(1, SeqCst);
    }));
    domain.add_reaper(&reaper);
    thread::sleep(Duration::from_millis(200));
    // If the thread panicked, the drop of the domain would join it, panic and abort.
    std::mem::forget(domain.clone());
    assert!(still_reclaims(&domain), "the reclaimer thread ended after {} calls", calls.load(SeqCst));
}

#[test]
fn add_reaper_returns_if_the_executor_runs_jobs_within_spawn() {
    let returned = within(Duration::from_secs(3), || {
        let domain = Domain::builder().executor(|job| job.run()).build();
        let reaper = Arc::new(Calls(|| {}));
        domain.add_reaper(&reaper);
    });
    assert!(returned, "add_reaper did not return");
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

/// Two domains have a reaper each. Both reapers call `what` with the other domain at the same time.
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

/// A reaper waits for a reader. That reader stops the reclaimer that runs the reaper.
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
        assert!(done, "stop_reclaimer did not return");
    }
}

/// The thread of one domain runs a reaper that waits in a barrier of the other domain. The `spawn` of the other
/// domain's executor stops that thread.
#[test]
fn a_spawn_that_stops_a_reclaimer_does_not_deadlock() {
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

/// The reaper holds the last references to the registry and the domain. Everything ends on the reclaimer's thread.
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
            assert!(Instant::now() < end, "the values leaked");
            thread::yield_now();
        }
    }
}

/// The reclaimer holds the last reference to a reaper. The reaper panics in `expire`, and again in its destructor.
#[test]
fn a_reaper_that_panics_twice_does_not_abort() {
    if std::env::var_os("ZZ_TWICE").is_none() {
        let exe = std::env::current_exe().unwrap();
        let output = std::process::Command::new(exe)
            .args(["--exact", "reapers::a_reaper_that_panics_twice_does_not_abort"])
            .env("ZZ_TWICE", "1")
            .output()
            .unwrap();
        assert!(output.status.success(), "{:?}", output.status);
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "the child has run no test");
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
