//! Policies, and registries as reapers.

mod common;

use common::*;
use epoch_registry::{Candidate, ManualClock, Policy, PolicyReaper, Reaped, Reaper, Registry, Scan, Verdict, policy};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

fn filled(entries: u64) -> Registry<u64, u64> {
    let registry = isolated();
    (0..entries).for_each(|key| drop(registry.try_insert(key, key)));
    registry
}

fn is(multiple: u64) -> impl Policy<u64, u64> {
    policy::when(move |candidate: &Candidate<'_, u64, u64>| candidate.key() % multiple == 0)
}

/// All of it, by one scan.
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
fn second_chance_takes_those_that_were_not_used_since_the_last_look() {
    let registry = filled(1000);
    let mut scan = Scan::new(usize::MAX);
    let reaped = registry.reap_by(&policy::second_chance(), &mut scan);
    assert_eq!((reaped.removed, reaped.rotated), (0, 1000), "without bounds, all begin with the mark");
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
    // Known to a sixteenth of 160 seconds, and never too long.
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
fn a_scan_examines_what_it_is_told_and_goes_on_where_it_stopped() {
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
        assert!(reaped.examined <= 120, "those of one home are not split: {reaped:?}");
        if scan.cursor.is_done() {
            break;
        }
        assert!(reaped.examined >= 100);
    }
    assert_eq!(seen.load(SeqCst), 10_000, "each once, in {scans} scans");
    registry.reap_by(&look, &mut scan);
    assert!(!scan.cursor.is_done() && seen.load(SeqCst) > 10_000, "and anew");
}

#[test]
fn under_pressure_a_registry_sheds_the_expired_first_and_spares_the_used_and_the_held() {
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
    assert!((100..1000).all(|key| registry.contains_key(&key)), "and no others");
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
fn a_policy_reaper_ends_with_its_registry_and_works_in_the_background_if_told_to() {
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
    within_a_minute(|| {
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
                        // Twice: the first takes the marks away.
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
