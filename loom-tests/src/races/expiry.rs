//! Expiring entries against readers, writers, handles and other reapers.

use crate::world::{World, part};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub fn lookup_expire() {
    let (world, clock) = World::aging(1..2);
    let reader = Arc::clone(&world);
    let reading = part(&world.domain, move || {
        if let Some(handle) = reader.registry().lookup(&1) {
            assert_eq!(handle.read(), 1);
        }
    });
    clock.advance(Duration::from_secs(2));
    assert_eq!(world.registry().expire(10).removed, 1);
    world.domain.reclaim(2);
    reading.join().unwrap();
    world.account(1);
}

pub fn lookup_expired_insert() {
    let (world, _) = World::expired(1..2);
    let reader = Arc::clone(&world);
    let reading = part(&world.domain, move || {
        let first = reader.registry().lookup(&1).map(|handle| handle.read());
        let second = reader.registry().lookup(&1).map(|handle| handle.read());
        assert!(first.is_none_or(|value| value == 100) && (first.is_none() || second == Some(100)));
    });
    assert!(world.registry().add(1, world.value(100)).is_ok(), "an expired entry must count as absent");
    reading.join().unwrap();
    assert_eq!(world.registry().lookup(&1).expect("inserted").read(), 100);
    world.account(2);
}

pub fn lookup_prolong() {
    let (world, _) = World::expired(1..2);
    let reader = Arc::clone(&world);
    let reading = part(&world.domain, move || reader.registry().contains_key(&1));
    world.registry().set_max_age(Some(Duration::from_secs(60)));
    let there = world.registry().contains_key(&1);
    let was_there = reading.join().unwrap();
    assert_eq!(world.registry().contains_key(&1), there, "the entry neither ends nor comes back");
    assert!(was_there || !there, "the entry came back");
    world.account(1);
}

pub fn lookup_replace_in_time() {
    let (world, clock) = World::aging(1..2);
    let reader = Arc::clone(&world);
    let reading =
        part(&world.domain, move || assert!(reader.registry().contains_key(&1), "the key is present all the time"));
    clock.advance(Duration::from_millis(600));
    assert!(world.registry().insert(1, world.value(100)).is_some());
    clock.advance(Duration::from_millis(600));
    reading.join().unwrap();
    world.account(2);
}

pub fn put_expire() {
    let (world, clock) = World::aging(1..2);
    let handle = world.registry().lookup(&1).unwrap();
    clock.advance(Duration::from_secs(2));
    let putting = part(&world.domain, move || {
        assert_eq!(handle.read(), 1);
        drop(handle);
    });
    assert_eq!(world.registry().expire(10).removed, 1);
    world.domain.reclaim(2);
    putting.join().unwrap();
    world.account(1);
    assert_eq!(world.drops.load(Ordering::SeqCst), 1);
}

pub fn replace_expire() {
    let (world, clock) = World::expired(1..2);
    let other = Arc::clone(&world);
    let replacing = part(&world.domain, move || {
        assert!(other.registry().insert(1, other.value(100)).is_none(), "an expired entry must count as absent");
    });
    // The other thread may have replaced the entry already. The new entry has not expired.
    assert!(world.registry().expire(10).removed <= 1);
    replacing.join().unwrap();
    assert_eq!(world.registry().lookup(&1).expect("the new entry stays").read(), 100);
    world.account(2);
    // The new entry has a timer, so it expires later.
    clock.advance(Duration::from_secs(2));
    assert_eq!(world.registry().expire(10).removed, 1);
}

pub fn expire_expire() {
    let (world, _) = World::expired(1..3);
    let other = Arc::clone(&world);
    let reaping = part(&world.domain, move || other.registry().expire(10).removed);
    let mine = world.registry().expire(10).removed;
    let theirs = reaping.join().unwrap();
    assert_eq!((mine + theirs, world.registry().len()), (2, 0), "each entry is removed by exactly one reaper");
    world.account(2);
    assert_eq!(world.drops.load(Ordering::SeqCst), 2);
}

pub fn rearm_expire() {
    // The entry's timer is due, but the entry was used since. The other thread removes it while the reaper examines it.
    let (world, clock) = World::idling(1..2);
    clock.advance(Duration::from_millis(900));
    assert!(world.registry().contains_key(&1));
    clock.advance(Duration::from_millis(900));
    let other = Arc::clone(&world);
    let removing = part(&world.domain, move || {
        drop(other.registry().remove(&1));
        assert!(other.insert(1));
    });
    assert_eq!(world.registry().expire(10).removed, 0);
    removing.join().unwrap();
    assert_eq!(world.registry().lookup(&1).expect("inserted again").read(), 1);
    world.account(2);
    clock.advance(Duration::from_secs(2));
    assert_eq!((world.registry().expire(10).removed, world.registry().len()), (1, 0));
}

pub fn lookup_set_ttl() {
    let (world, clock) = World::living(1..2);
    clock.advance(Duration::from_millis(900));
    let entry = world.registry().peek(&1).unwrap();
    let other = Arc::clone(&world);
    // Both threads insert first. So loom also lets the other thread go first and read the clock before the time passes.
    let setting = part(&world.domain, move || {
        assert!(other.insert(2));
        other.registry().set_ttl(&entry, Some(Duration::from_secs(60)))
    });
    assert!(world.insert(3));
    clock.advance(Duration::from_millis(600));
    let is_there = world.registry().contains_key(&1);
    assert_eq!(setting.join().unwrap(), is_there, "the entry was prolonged and is absent, or is there and was not");
    assert_eq!(world.registry().contains_key(&1), is_there, "the entry neither ends nor comes back");
    world.account(3);
}

pub fn replace_set_ttl() {
    let (world, clock) = World::living(1..2);
    let entry = world.registry().peek(&1).unwrap();
    let other = Arc::clone(&world);
    let replacing = part(&world.domain, move || {
        assert!(other.registry().insert(1, other.value(100)).is_some(), "the key is present all the time");
    });
    let was_set = world.registry().set_ttl(&entry, Some(Duration::ZERO));
    assert!(was_set || entry.is_unlinked(), "an entry in its registry gets a time to live");
    drop(entry);
    replacing.join().unwrap();
    clock.advance(Duration::from_secs(10));
    world.registry().expire(10);
    assert_eq!(world.registry().lookup(&1).expect("the new entry has no time to live").read(), 100);
    world.account(2);
}

pub fn expire_set_ttl() {
    // The entry's timer is due, but the entry lives for longer now.
    let (world, clock) = World::living(1..2);
    let entry = world.registry().peek(&1).unwrap();
    assert!(world.registry().set_ttl(&entry, Some(Duration::from_secs(60))));
    clock.advance(Duration::from_secs(2));
    let other = Arc::clone(&world);
    let reaping = part(&world.domain, move || assert_eq!(other.registry().expire(10).removed, 0));
    assert!(world.registry().set_ttl(&entry, Some(Duration::from_secs(1))));
    drop(entry);
    reaping.join().unwrap();
    clock.advance(Duration::from_secs(2));
    assert_eq!((world.registry().expire(10).removed, world.registry().len()), (1, 0), "the entry has no timer");
    world.account(1);
}
