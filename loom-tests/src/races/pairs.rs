//! The pairs of one kind of read and one kind of write that have no stronger model elsewhere.
//!
//! The writer changes key 1. Key 2 stays unchanged.

use crate::world::{World, part};
use std::sync::Arc;

/// What a reader may find under key 1: the value before the write, or the value after it. `None` stands for absence.
#[derive(Clone, Copy)]
struct May {
    before: Option<u32>,
    after: Option<u32>,
}

impl May {
    fn be(self, found: Option<u32>) {
        assert!(found == self.before || found == self.after, "{found:?}");
    }
}

const INSERTED: May = May { before: None, after: Some(1) };
const CHANGED: May = May { before: Some(1), after: Some(100) };
const REAPED: May = May { before: Some(1), after: None };

fn get(world: &World, may: May) {
    let guard = world.registry().pin();
    may.be(guard.get(&1).map(|entry| entry.read()));
}

fn lookup(world: &World, may: May) {
    let found = world.registry().lookup(&1);
    may.be(found.map(|handle| handle.read()));
}

fn iterate(world: &World, may: May) {
    let guard = world.registry().pin();
    let met: Vec<(u64, u32)> = guard.iter().map(|entry| (*entry.key(), entry.read())).collect();
    assert_eq!(met.iter().filter(|&&met| met == (2, 2)).count(), 1, "the entry that stays is met exactly once");
    // A key that is being replaced may be met with both values.
    met.iter().filter(|met| met.0 == 1).for_each(|met| may.be(Some(met.1)));
    assert!(
        may.before.is_none() || may.after.is_none() || met.iter().any(|met| met.0 == 1),
        "the key is present all the time"
    );
}

fn batch(world: &World, may: May) {
    let guard = world.registry().pin();
    let [one, two] = guard.get_many([&1, &2]).map(|entry| entry.map(|entry| entry.read()));
    may.be(one);
    assert_eq!(two, Some(2));
}

fn race(keys: &[u64], created: usize, read: impl Fn(&World) + Send + 'static, write: impl Fn(&World)) {
    let world = World::new(keys.iter().copied());
    let reader = Arc::clone(&world);
    let reading = part(&world.domain, move || read(&reader));
    write(&world);
    world.domain.reclaim(2);
    reading.join().unwrap();
    world.account(created);
}

fn beside_insert(read: fn(&World, May)) {
    race(&[2], 2, move |world| read(world, INSERTED), |world| assert!(world.insert(1)));
}

fn beside_replace(keys: &[u64], read: fn(&World, May)) {
    let replace = |world: &World| drop(world.registry().insert(1, world.value(100)).expect("the key is present"));
    race(keys, keys.len() + 1, move |world| read(world, CHANGED), replace);
}

fn beside_update(keys: &[u64], read: fn(&World, May)) {
    let update = |world: &World| {
        drop(world.registry().update(&1, |_, old| world.value(old.read() + 99)).expect("the key is present"));
    };
    race(keys, keys.len() + 1, move |world| read(world, CHANGED), update);
}

fn beside_reap(read: fn(&World, May)) {
    let reap = |world: &World| assert_eq!(world.registry().reap_if(9, |entry| *entry.key() == 1).removed, 1);
    race(&[1, 2], 2, move |world| read(world, REAPED), reap);
}

pub fn get_replace() {
    beside_replace(&[1], get);
}

pub fn lookup_insert() {
    beside_insert(lookup);
}

pub fn lookup_update() {
    // No reclamation by the writer: with it the model takes 653,842 executions, and `lookup_remove` covers that case.
    let world = World::new([1]);
    let reader = Arc::clone(&world);
    let reading = part(&world.domain, move || lookup(&reader, CHANGED));
    drop(world.registry().update(&1, |_, old| world.value(old.read() + 99)).expect("the key is present"));
    reading.join().unwrap();
    world.account(2);
}

pub fn iterate_insert() {
    beside_insert(iterate);
}

pub fn iterate_replace() {
    beside_replace(&[1, 2], iterate);
}

pub fn iterate_update() {
    beside_update(&[1, 2], iterate);
}

pub fn iterate_reap() {
    beside_reap(iterate);
}

pub fn batch_insert() {
    beside_insert(batch);
}

pub fn batch_replace() {
    beside_replace(&[1, 2], batch);
}

pub fn batch_update() {
    beside_update(&[1, 2], batch);
}

pub fn batch_reap() {
    beside_reap(batch);
}
