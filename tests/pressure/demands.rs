//! How much work a demand asks for, and how the work is divided among the reapers.

use crate::common::isolated_builder;
use crate::scripted::*;
use epoch_registry::ManualClock;
use epoch_registry::pressure::{Demand, Driver, Manual};
use std::sync::Arc;
use std::time::Duration;

#[test]
fn work_is_divided_by_the_rule_of_the_kernel() {
    let fakes = [Fake::new(10_000, 2), Fake::new(10_000, 4), Fake::new(10_000, 0), Fake::new(100, 2), Fake::new(0, 2)];
    let driver = driver_of(&fakes.each_ref());
    // Deltas of 2500, 1250, 5000 and 24, in batches of 128. A rest that is less than a batch is deferred.
    let relieved = driver.relieve(Demand::Round(3));
    assert!(relieved.met && relieved.rounds == 1);
    assert_eq!(table(&driver.stats()), [(19 * 128, 68), (9 * 128, 98), (39 * 128, 8), (0, 24), (0, 0)]);
    // An eighth of the deferred work is added.
    driver.relieve(Demand::Round(3));
    assert_eq!(table(&driver.stats()), [(38 * 128, 136), (18 * 128, 196), (78 * 128, 16), (0, 48), (0, 0)]);
    // Everything, at most twice: 20,000 of 20,136, and 10,196; 5016; and 200 of 248. Of these 200 only one batch is
    // scanned, as the rest is less than a batch and less than the number of entries.
    driver.relieve(Demand::Round(0));
    let expected = [((38 + 156) * 128, 168), ((18 + 79) * 128, 84), ((78 + 39) * 128, 24), (128, 120), (0, 0)];
    assert_eq!(table(&driver.stats()), expected);
    assert!(fakes.iter().all(|fake| fake.scans.lock().unwrap().iter().all(|batch| *batch == 128)));
    assert_eq!(fakes[0].scanned() as u64, driver.stats().reapers[0].scanned);
}

#[test]
fn a_small_reaper_is_scanned_whole_at_the_last_priority() {
    let small = Fake::new(10, 2);
    let driver = driver_of(&[&small]);
    for _ in 0..3 {
        driver.relieve(Demand::Round(4));
    }
    assert_eq!(small.scanned(), 0);
    driver.relieve(Demand::Round(0));
    assert_eq!(*small.scans.lock().unwrap(), [20]);
}

#[test]
fn a_demand_of_bytes_is_met_and_hardly_exceeded_by_equal_shares_of_all_reapers() {
    let half = |asked: usize| removed(asked / 2, 10 * (asked / 2) as u64);
    let (large, small) = (Fake::with(60_000, 2, half), Fake::with(20_000, 2, half));
    let driver = driver_of(&[&large, &small]);
    let relieved = driver.relieve(Demand::Bytes(20_000));
    assert!(relieved.met, "{relieved:?}");
    assert!((20_000..20_000 + 640).contains(&relieved.reaped.bytes), "{relieved:?}");
    let (large, small) = (large.scanned(), small.scanned());
    assert!(large.abs_diff(3 * small) <= 3 * 128 * relieved.rounds as usize, "{large} and {small}");
}

#[test]
fn reapers_that_free_no_bytes_are_asked_down_to_the_last_priority() {
    let fake = Fake::with(100_000, 2, |_| removed(1, 0));
    let driver = driver_of(&[&fake]);
    let relieved = driver.relieve(Demand::Bytes(1));
    assert_eq!((relieved.met, relieved.rounds), (false, 13));
    assert!(fake.scanned() > 300_000);
    assert_eq!((driver.stats().demands, driver.stats().unmet, driver.stats().rounds), (1, 1, 13));
}

#[test]
fn registries_share_by_their_size_and_cost() {
    let registry = |entries: u64, seeks: u32| {
        let registry = Arc::new(isolated_builder::<u64, u64>().seeks(seeks).max_entries(1 << 20).build());
        (0..entries).for_each(|key| drop(registry.try_insert(key, key).unwrap()));
        registry
    };
    let (large, small, dear) = (registry(40_000, 2), registry(20_000, 2), registry(40_000, 4));
    let driver = Driver::builder().build();
    [&large, &small, &dear].into_iter().for_each(|registry| driver.add(registry));
    let relieved = driver.relieve(Demand::Round(4));
    let gone = [40_000 - large.len(), 20_000 - small.len(), 40_000 - dear.len()];
    // 5000, 2500 and 2500 to scan. No entry was used, so all of them are removed. Homes are not split, so a batch may
    // be a few entries larger.
    for (gone, share) in gone.into_iter().zip([5000, 2500, 2500]) {
        assert!(gone > share * 9 / 10 && gone < share * 12 / 10, "{gone} of {share}");
    }
    assert_eq!(relieved.reaped.removed, gone.iter().sum::<usize>());
}

#[test]
fn events_in_a_row_raise_the_priority_and_quiet_resets_it() {
    let (source, pressure) = Manual::new("test");
    let (fake, clock) = (Fake::new(1 << 16, 2), ManualClock::new());
    let driver =
        Driver::builder().source(source).clock(clock.clone()).quiet(Duration::from_secs(10)).event_priority(6).build();
    driver.add(&fake);
    let mut before = 0;
    let mut event = |seconds| {
        clock.advance(Duration::from_secs(seconds));
        pressure.raise();
        assert!(driver.check().unwrap().met);
        let scanned = fake.scanned() - before;
        before += scanned;
        scanned
    };
    assert_eq!([event(0), event(1), event(10)], [2048, 4096, 8192]);
    assert_eq!([event(11), event(1)], [2048, 4096]);
    for _ in 0..10 {
        assert!(event(1) <= 2 << 16);
    }
    assert_eq!(event(1), 2 << 16);
    assert_eq!(driver.check(), None);
    assert_eq!(driver.stats().sources[0].events, 16);
}

#[test]
fn of_several_demands_the_largest_counts_and_not_the_sum() {
    let (one, more) = (Manual::new("one"), Manual::new("more"));
    let fake = Fake::with(1 << 20, 2, |asked| removed(asked, asked as u64));
    let driver = Driver::builder().source(one.0).source(more.0).build();
    driver.add(&fake);
    one.1.demand(50_000);
    more.1.demand(60_000);
    let relieved = driver.check().unwrap();
    assert!((60_000..60_128).contains(&relieved.reaped.bytes), "{relieved:?}");
}
