//! Entries that leave because their time has come, beside everything else that is done to them.

use crate::world::{World, part};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub fn lookup_expire() {
    let (world, _) = World::expired(1..2);
    let reader = Arc::clone(&world);
    let reading = part(&world.domain, move || {
        if let Some(handle) = reader.registry().lookup(&1) {
            assert_eq!(handle.read(), 1);
        }
    });
    assert_eq!(world.registry().reap(10).removed, 1);
    world.domain.reclaim(2);
    reading.join().unwrap();
    world.account(1);
}

pub fn put_expire() {
    let (world, _) = World::expired(1..2);
    let handle = world.registry().lookup(&1).unwrap();
    let putting = part(&world.domain, move || {
        assert_eq!(handle.read(), 1);
        drop(handle);
    });
    assert_eq!(world.registry().reap(10).removed, 1);
    world.domain.reclaim(2);
    putting.join().unwrap();
    world.account(1);
    assert_eq!(world.drops.load(Ordering::SeqCst), 1);
}

pub fn replace_expire() {
    let (world, clock) = World::expired(1..2);
    let other = Arc::clone(&world);
    let replacing = part(&world.domain, move || {
        if let Some(old) = other.registry().replace(1, other.value(100)) {
            assert_eq!(old.read(), 1);
        }
    });
    // It may have been replaced before, and the new one is young.
    assert!(world.registry().reap(10).removed <= 1);
    replacing.join().unwrap();
    assert_eq!(world.registry().lookup(&1).expect("a young entry stays").read(), 100);
    world.account(2);
    // It has a timer: its time comes.
    clock.advance(Duration::from_secs(2));
    assert_eq!(world.registry().reap(10).removed, 1);
}

pub fn expire_expire() {
    let (world, _) = World::expired(1..3);
    let other = Arc::clone(&world);
    let reaping = part(&world.domain, move || other.registry().reap(10).removed);
    let mine = world.registry().reap(10).removed;
    let theirs = reaping.join().unwrap();
    assert_eq!((mine + theirs, world.registry().len()), (2, 0), "each by one of them");
    world.account(2);
    assert_eq!(world.drops.load(Ordering::SeqCst), 2);
}

pub fn rearm_expire() {
    // While one looks at an entry whose time has come, and finds that it has not, the other removes it.
    let (world, clock) = World::expired(1..2);
    world.registry().set_max_age(Some(Duration::from_secs(60)));
    let other = Arc::clone(&world);
    let removing = part(&world.domain, move || {
        drop(other.registry().remove(&1));
        assert!(other.insert(1));
    });
    assert_eq!(world.registry().reap(10).removed, 0);
    removing.join().unwrap();
    assert_eq!(world.registry().lookup(&1).expect("inserted again").read(), 1);
    world.account(2);
    clock.advance(Duration::from_secs(61));
    assert_eq!((world.registry().reap(10).removed, world.registry().len()), (1, 0));
}
