//! Tables that are resized while readers and writers use them.

use crate::world::{World, part};
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub fn grow_get() {
    // Four keys are in the only bucket. The fifth key starts the growth, and the sixth moves the bucket.
    let world = World::new(1..5);
    let reader = Arc::clone(&world);
    let reading = part(&world.domain, move || {
        let guard = reader.registry().pin();
        let entry = guard.get(&1).expect("the key is there all the time");
        assert_eq!(entry.read(), 1);
    });
    assert!(world.insert(5));
    assert!(world.insert(6));
    reading.join().unwrap();
    world.account(6);
}

pub fn grow_get_beyond() {
    // There are two buckets. The first is the home of all eight even keys, and the last key is stored in the second.
    let world = World::with_capacity(10, (0..8).map(|key| 2 * key).chain([1]));
    let reader = Arc::clone(&world);
    let reading = part(&world.domain, move || {
        let guard = reader.registry().pin();
        let entry = guard.get(&14).expect("the key is there all the time");
        assert_eq!(entry.read(), 14);
    });
    // The tenth key starts the growth, and the next write moves both homes.
    assert!(world.insert(3));
    assert!(world.registry().remove(&3).is_some());
    assert_eq!(world.registry().stats().resizes, 1);
    reading.join().unwrap();
    world.account(10);
}

pub fn grow_iterate_beyond() {
    let world = World::with_capacity(10, (0..8).map(|key| 2 * key).chain([1]));
    let reader = Arc::clone(&world);
    let reading = part(&world.domain, move || {
        let guard = reader.registry().pin();
        let mut met: Vec<u32> = guard.iter().map(|entry| entry.read()).filter(|&value| value != 3).collect();
        met.sort();
        assert_eq!(met, [0, 1, 2, 4, 6, 8, 10, 12, 14]);
    });
    assert!(world.insert(3));
    assert!(world.registry().remove(&3).is_some());
    reading.join().unwrap();
    world.account(10);
}

pub fn grow_remove() {
    let world = World::new(1..6);
    let writer = Arc::clone(&world);
    let writing = part(&world.domain, move || {
        assert!(writer.registry().remove(&1).is_some());
        assert!(!writer.registry().contains_key(&1));
    });
    assert!(world.insert(6));
    assert!(world.registry().contains_key(&2));
    writing.join().unwrap();
    assert!(!world.registry().contains_key(&1));
    world.account(6);
}

pub fn grow_clear() {
    // The fifth key has started the growth, and no home has moved yet.
    let world = World::new(1..6);
    let reader = Arc::clone(&world);
    let reading = part(&world.domain, move || {
        let guard = reader.registry().pin();
        if let Some(entry) = guard.get(&1) {
            assert_eq!(entry.read(), 1);
        }
    });
    world.registry().clear();
    reading.join().unwrap();
    world.account(5);
}

pub fn grow_end() {
    let mut world = World::new(1..6);
    let handle = world.registry().lookup(&1).unwrap();
    let putting = part(&world.domain, move || {
        assert_eq!(handle.read(), 1);
        drop(handle);
    });
    Arc::get_mut(&mut world).unwrap().registry = None;
    putting.join().unwrap();
    assert_eq!(world.drops.load(Ordering::SeqCst), 5);
}

pub fn beyond_removed_get() {
    // A key stored outside its home bucket is moved, removed and freed, while a reader walks there from the same home.
    let world = World::with_capacity(10, (0..8).map(|key| 2 * key).chain([1]));
    assert!(world.insert(3));
    let reader = Arc::clone(&world);
    let reading = part(&world.domain, move || {
        let guard = reader.registry().pin();
        if let Some(entry) = guard.get(&14) {
            assert_eq!(entry.read(), 14);
        }
        assert!(guard.get(&16).is_none());
        assert_eq!(guard.get(&3).map(|entry| entry.read()), Some(3));
    });
    drop(world.registry().remove(&14));
    world.domain.reclaim(usize::MAX);
    reading.join().unwrap();
    world.account(10);
}
