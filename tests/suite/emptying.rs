//! A registry is filled and emptied many times, in every possible way. The backlog does not grow from round to round.

use crate::common::*;
use epoch_registry::{Builder, Cursor, Domain, DomainBuilder, ManualClock, Reaper, Registry, Scan, policy};
use std::time::Duration;

type Numbers = Registry<u64, u64>;

/// The entries of one round.
const ROUND: u64 = 10_000;

/// How many rounds may wait to be destroyed.
const WAITING: u64 = 4;

/// Checks that the backlog stays within a few rounds of `entries`. There is one thread, no reader, and no other thread
/// that destroys.
fn rounds_do_not_pile_up(what: &str, rounds: usize, entries: u64, registry: &Numbers, empty: impl Fn(&Numbers)) {
    let mut most = 0;
    for round in 0..rounds {
        for key in 0..entries {
            registry.try_insert(key, key).unwrap();
        }
        empty(registry);
        assert!(registry.len() <= 1000, "{what} left {} entries", registry.len());
        most = most.max(registry.domain().backlog().objects);
        assert!(most <= WAITING * entries, "{what}: {most} objects wait after {round} rounds of {entries}");
        // Removes the few entries that are left.
        registry.retain(|_, _| false);
    }
    println!("{what}: at most {most} objects waited, in {rounds} rounds of {entries}");
}

/// The same with the usual sizes.
fn empties(what: &str, empty: impl Fn(&Numbers)) {
    in_time(|| rounds_do_not_pile_up(what, times(30), ROUND, &isolated(), empty));
}

/// With `STRESS=10` there are three hundred rounds.
#[test]
fn clearing_does_not_pile_up() {
    empties("clear", Registry::clear);
}

/// With `STRESS=10` there are a hundred rounds.
#[test]
fn clearing_large_registries_does_not_pile_up() {
    in_time(|| rounds_do_not_pile_up("clear", times(10), 10 * ROUND, &isolated(), Registry::clear));
}

#[test]
fn clearing_a_registry_of_one_shard_does_not_pile_up() {
    let registry = isolated_builder().shards(1).build();
    in_time(|| rounds_do_not_pile_up("clear, one shard", times(30), ROUND, &registry, Registry::clear));
}

#[test]
fn clearing_a_registry_of_many_shards_does_not_pile_up() {
    let registry = isolated_builder().shards(1024).build();
    in_time(|| rounds_do_not_pile_up("clear, 1024 shards", times(30), ROUND, &registry, Registry::clear));
}

#[test]
fn clearing_small_registries_often_does_not_pile_up() {
    in_time(|| {
        let registry: Numbers = isolated();
        // The limit allows for what a write may leave waiting in each shard.
        let mut most = 0;
        for round in 0..times(20_000) {
            for key in 0..10 {
                registry.try_insert(key, key).unwrap();
            }
            registry.clear();
            most = most.max(registry.domain().backlog().objects);
            assert!(most <= 4000, "{most} objects wait after {round} rounds of 10");
        }
    });
}

#[test]
fn clearing_the_global_domain_does_not_pile_up() {
    in_time(|| rounds_do_not_pile_up("clear, global", times(30), ROUND, &Registry::new(), Registry::clear));
}

/// The domain's own peak sees every moment.
#[test]
fn the_peak_of_many_rounds_of_clearing_is_that_of_a_few_rounds() {
    in_time(|| {
        let registry: Numbers = isolated();
        for _ in 0..times(30) {
            (0..ROUND).for_each(|key| drop(registry.try_insert(key, key)));
            registry.clear();
        }
        let peak = registry.domain().stats().peak;
        assert!(peak.objects <= WAITING * ROUND, "{peak}");
    });
}

#[test]
fn retaining_nothing_does_not_pile_up() {
    empties("retain", |registry| registry.retain(|_, _| false));
    empties("fallible retain", |registry| {
        assert!(registry.fallible().retain(&mut Cursor::new(), |_, _| false).is_ok())
    });
}

#[test]
fn draining_does_not_pile_up() {
    empties("drain", |registry| registry.drain().for_each(drop));
    empties("drain, handles to the end", |registry| drop(registry.drain().collect::<Vec<_>>()));
}

#[test]
fn evicting_everything_does_not_pile_up() {
    empties("evict", |registry| assert_eq!(registry.evict(usize::MAX), ROUND as usize));
    empties("shrink_to", |registry| assert_eq!(registry.shrink_to(0), ROUND as usize));
}

#[test]
fn reaping_everything_does_not_pile_up() {
    empties("reap_if", |registry| assert_eq!(registry.reap_if(usize::MAX, |_| true).removed, ROUND as usize));
    empties("reap_by", |registry| {
        let everything = policy::when::<u64, u64>(|_| true);
        assert_eq!(registry.reap_by(&everything, &mut Scan::new(usize::MAX)).removed, ROUND as usize);
    });
    // By second chance, new entries are removed in the second scan.
    empties("the registry's own reaper", |registry| {
        (0..2).for_each(|_| assert!(!Reaper::scan(registry, &mut Scan::new(usize::MAX)).stopped));
    });
}

#[test]
fn expiring_everything_does_not_pile_up() {
    in_time(|| {
        let (builder, clock): (Builder<u64, u64>, ManualClock) = clocked();
        let registry = builder.max_age(Duration::from_secs(1)).build();
        rounds_do_not_pile_up("reap", times(30), ROUND, &registry, |registry| {
            clock.advance(Duration::from_secs(2));
            assert_eq!(registry.expire(usize::MAX).removed, ROUND as usize);
        });
        let registry: Numbers = isolated_builder().clock(clock.clone()).build();
        rounds_do_not_pile_up("reap_older_than", times(30), ROUND, &registry, |registry| {
            clock.advance(Duration::from_secs(2));
            assert_eq!(registry.reap_older_than(Duration::ZERO, usize::MAX).removed, ROUND as usize);
        });
    });
}

#[test]
fn removing_one_by_one_does_not_pile_up() {
    empties("remove", |registry| (0..ROUND).for_each(|key| drop(registry.remove(&key))));
    empties("fallible remove", |registry| (0..ROUND).for_each(|key| drop(registry.fallible().remove(&key))));
    empties("remove_if", |registry| (0..ROUND).for_each(|key| drop(registry.remove_if(&key, |_, _| true))));
    empties("remove_handle", |registry| {
        let handles: Vec<_> = registry.pin().iter().filter_map(|entry| entry.handle()).collect();
        handles.iter().for_each(|handle| assert!(registry.remove_handle(handle)));
    });
}

#[test]
fn lowering_bounds_does_not_pile_up() {
    empties("set_max_entries", |registry| {
        registry.set_max_entries(Some(1));
        registry.set_max_entries(None);
    });
    empties("set_max_weight", |registry| {
        registry.set_max_weight(Some(1));
        registry.set_max_weight(None);
    });
}

#[test]
fn replacing_everything_does_not_pile_up() {
    in_time(|| {
        let registry: Numbers = isolated();
        for round in 0..times(60) {
            (0..ROUND).for_each(|key| drop(registry.insert(key, key)));
            let waiting = registry.domain().backlog().objects;
            assert!(waiting <= WAITING * ROUND, "{waiting} objects wait after {round} rounds of {ROUND}");
        }
    });
}

#[test]
fn dropping_a_registry_and_making_another_does_not_pile_up() {
    in_time(|| {
        let (domain, ledger) = (Domain::new(), Ledger::new());
        for round in 0..times(30) {
            let registry: Registry<u64, Counted> = Registry::builder().domain(domain.clone()).build();
            (0..ROUND).for_each(|key| drop(registry.try_insert(key, ledger.value(key))));
            (0..ROUND / 2).for_each(|key| drop(registry.remove(&key)));
            drop(registry);
            let waiting = domain.backlog();
            assert!(waiting.objects <= WAITING * ROUND, "{waiting} waits after {round} rounds");
            // Tables count by their bytes.
            assert!(waiting.bytes <= WAITING * ROUND * 100, "{waiting} waits after {round} rounds");
            assert_eq!(ledger.live(), 0);
        }
    });
}

/// Tables that a resize replaced wait for a grace period too.
#[test]
fn the_tables_of_rounds_do_not_pile_up() {
    in_time(|| {
        let registry: Numbers = isolated();
        (0..ROUND).for_each(|key| drop(registry.try_insert(key, key)));
        let one = registry.table_bytes() as u64 + registry.weight();
        registry.clear();
        for round in 0..times(30) {
            (0..ROUND).for_each(|key| drop(registry.try_insert(key, key)));
            registry.clear();
            let waiting = registry.domain().backlog();
            assert!(waiting.bytes <= 2 * WAITING * one, "{waiting} waits after {round} rounds of {one} bytes");
        }
    });
}

/// The same while another thread destroys. That thread gets its share of the processor.
fn clearing_does_not_pile_up_beside(what: &str, builder: DomainBuilder) {
    in_time(|| {
        let registry: Numbers = Registry::builder().domain(builder.build()).shards(4).build();
        // The other thread may be descheduled for a while.
        let (rounds, mut waiting) = (times(100), Vec::new());
        for _ in 0..rounds {
            (0..ROUND).for_each(|key| drop(registry.try_insert(key, key)));
            registry.clear();
            waiting.push(registry.domain().backlog().objects);
        }
        waiting.sort_unstable();
        let (usual, most) = (waiting[rounds * 9 / 10], waiting[rounds - 1]);
        println!("{what}: at most {usual} waited for nine tenths of the time, and {most} at any time");
        assert!(usual <= 2 * WAITING * ROUND && most <= 5 * WAITING * ROUND, "{what}: {usual} and {most} objects wait");
    });
}

#[test]
fn clearing_does_not_pile_up_beside_a_reclaimer_thread_or_an_executor() {
    clearing_does_not_pile_up_beside("a reclaimer thread", Domain::builder().reclaimer(true));
    clearing_does_not_pile_up_beside("an executor", Domain::builder().executor(flood::pool()));
}

/// Within a limit, `clear` does not fail, and the rounds do not pile up either.
#[test]
fn clearing_within_a_limit_does_not_pile_up() {
    use epoch_registry::WhenFull::{Grow, Refuse, Wait};
    in_time(|| {
        for policy in [Grow, Refuse, Wait(Duration::from_millis(10))] {
            let domain = Domain::builder().backlog_objects(5000).when_full(policy).build();
            let registry: Numbers = isolated_builder().domain(domain).build();
            rounds_do_not_pile_up(&format!("clear, {policy:?}"), times(10), ROUND, &registry, Registry::clear);
        }
    });
}
