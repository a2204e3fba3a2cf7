//! Races between writers, and between holders of handles.

use crate::world::{World, part};
use loom::sync::atomic::AtomicUsize;
use loom::sync::atomic::Ordering::SeqCst;
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub fn remove_remove() {
    let world = World::new(1..2);
    let other = Arc::clone(&world);
    let removing = part(&world.domain, move || other.registry().remove(&1).is_some());
    let mine = world.registry().remove(&1).is_some();
    let theirs = removing.join().unwrap();
    assert!(mine ^ theirs);
    world.account(1);
}

pub fn insert_insert() {
    let world = World::new(0..0);
    let other = Arc::clone(&world);
    let inserting = part(&world.domain, move || other.insert(1));
    let mine = world.insert(1);
    let theirs = inserting.join().unwrap();
    assert!(mine ^ theirs);
    world.account(2);
}

pub fn clone_last_put() {
    let world = World::new(1..2);
    let handle = world.registry().remove(&1).unwrap();
    world.domain.barrier();
    let other = handle.clone();
    let putting = part(&world.domain, move || {
        let again = other.clone();
        drop(other);
        assert_eq!(again.read(), 1);
    });
    assert_eq!(handle.read(), 1);
    drop(handle);
    putting.join().unwrap();
    world.account(1);
    assert_eq!(world.drops.load(Ordering::SeqCst), 1);
}

pub fn handle_outlives_registry() {
    let mut world = World::new(1..2);
    let handle = world.registry().lookup(&1).unwrap();
    let putting = part(&world.domain, move || {
        assert_eq!(handle.read(), 1);
        drop(handle);
    });
    let owned = Arc::get_mut(&mut world).unwrap();
    owned.registry = None;
    putting.join().unwrap();
    assert_eq!(world.drops.load(Ordering::SeqCst), 1, "the value is dropped with no further call");
}

pub fn upgrade_remove() {
    let world = World::new(1..2);
    let weak = world.registry().downgrade(&world.registry().lookup(&1).unwrap());
    let other = weak.clone();
    let upgrading = part(&world.domain, move || {
        if let Some(entry) = other.upgrade() {
            assert_eq!(entry.read(), 1);
        }
    });
    assert!(world.registry().delete(&1));
    assert!(weak.upgrade().is_none());
    world.domain.reclaim(usize::MAX);
    upgrading.join().unwrap();
    drop(weak);
    world.account(1);
}

pub fn upgrade_outlives_registry() {
    let mut world = World::new(1..2);
    let weak = world.registry().downgrade(&world.registry().lookup(&1).unwrap());
    // The checker does not see the count by which an upgrade keeps the registry. It sees these accesses, and so explores
    // the orders of the two threads.
    let turns = Arc::new(AtomicUsize::new(0));
    let other = Arc::clone(&turns);
    let upgrading = part(&world.domain, move || {
        other.fetch_add(1, SeqCst);
        let entry = weak.upgrade();
        other.fetch_add(1, SeqCst);
        if let Some(entry) = entry {
            assert_eq!(entry.read(), 1);
        }
    });
    turns.fetch_add(1, SeqCst);
    Arc::get_mut(&mut world).unwrap().registry = None;
    turns.fetch_add(1, SeqCst);
    upgrading.join().unwrap();
    assert_eq!(world.drops.load(Ordering::SeqCst), 1, "the value is dropped with no further call");
}
