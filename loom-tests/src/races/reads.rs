//! Readers against writers that change or remove the entries being read.

use crate::world::{World, part};
use epoch_registry::Domain;
use std::sync::Arc;

pub fn get_remove() {
    let world = World::new(1..2);
    let reader = Arc::clone(&world);
    let reading = part(&world.domain, move || {
        if let Some(entry) = reader.registry().pin().get(&1) {
            assert_eq!(entry.read(), 1);
        }
    });
    assert!(world.registry().remove(&1).is_some());
    world.domain.reclaim(usize::MAX);
    reading.join().unwrap();
    world.account(1);
}

pub fn get_insert() {
    let world = World::new(0..0);
    let reader = Arc::clone(&world);
    let reading = part(&world.domain, move || {
        if let Some(entry) = reader.registry().pin().get(&1) {
            assert_eq!(entry.read(), 1);
        }
    });
    assert!(world.insert(1));
    reading.join().unwrap();
    world.account(1);
}

pub fn get_update() {
    let world = World::new(1..2);
    let reader = Arc::clone(&world);
    let reading = part(&world.domain, move || {
        let guard = reader.registry().pin();
        let entry = guard.get(&1).expect("the key is there all the time");
        assert!(matches!(entry.read(), 1 | 2));
    });
    let new = world.registry().update(&1, |_, old| world.value(old.read() + 1)).expect("the key is there");
    assert_eq!(new.read(), 2);
    drop(new);
    world.domain.reclaim(usize::MAX);
    reading.join().unwrap();
    world.account(2);
}

pub fn get_reap() {
    let world = World::new(1..2);
    let reader = Arc::clone(&world);
    let reading = part(&world.domain, move || {
        if let Some(entry) = reader.registry().pin().get(&1) {
            assert_eq!(entry.read(), 1);
        }
    });
    assert_eq!(world.registry().reap_if(usize::MAX, |_| true).removed, 1);
    reading.join().unwrap();
    world.account(1);
}

pub fn lookup_remove() {
    let world = World::new(1..2);
    let reader = Arc::clone(&world);
    let reading = part(&world.domain, move || {
        if let Some(handle) = reader.registry().lookup(&1) {
            assert_eq!(handle.read(), 1);
        }
    });
    assert!(world.registry().remove(&1).is_some());
    world.domain.reclaim(usize::MAX);
    reading.join().unwrap();
    world.account(1);
}

pub fn lookup_replace() {
    let world = World::new(1..2);
    let reader = Arc::clone(&world);
    let reading = part(&world.domain, move || {
        let handle = reader.registry().lookup(&1).expect("the key is there all the time");
        assert!(matches!(handle.read(), 1 | 100));
    });
    let old = world.registry().insert(1, world.value(100)).expect("the key is present");
    assert_eq!(old.read(), 1);
    drop(old);
    reading.join().unwrap();
    world.account(2);
}

pub fn get_evict() {
    let world = World::new(1..2);
    let reader = Arc::clone(&world);
    let reading = part(&world.domain, move || {
        let guard = reader.registry().pin();
        if let Some(entry) = guard.get(&1) {
            assert_eq!(entry.read(), 1);
        }
    });
    assert_eq!(world.registry().evict(2), 1);
    world.domain.reclaim(2);
    reading.join().unwrap();
    world.account(1);
}

pub fn lookup_insert_that_evicts() {
    let world = World::new(1..2);
    world.registry().set_max_entries(Some(1));
    let reader = Arc::clone(&world);
    let reading = part(&world.domain, move || {
        if let Some(entry) = reader.registry().lookup(&1) {
            assert_eq!(entry.read(), 1);
        }
        assert!(reader.registry().len() <= 1);
    });
    assert!(world.insert(2));
    reading.join().unwrap();
    assert!(world.registry().contains_key(&2));
    world.account(2);
}

pub fn lookup_reap() {
    let world = World::new(1..2);
    let reader = Arc::clone(&world);
    let reading = part(&world.domain, move || {
        if let Some(handle) = reader.registry().lookup(&1) {
            assert_eq!(handle.read(), 1);
        }
    });
    assert_eq!(world.registry().reap_if(usize::MAX, |_| true).removed, 1);
    reading.join().unwrap();
    world.account(1);
}

pub fn iterate_remove() {
    let world = World::new(1..3);
    let reader = Arc::clone(&world);
    let reading = part(&world.domain, move || {
        let guard = reader.registry().pin();
        let met: Vec<u32> = guard.iter().map(|entry| entry.read()).collect();
        assert_eq!(met.iter().filter(|&&value| value == 2).count(), 1);
        assert!(met.iter().filter(|&&value| value == 1).count() <= 1);
    });
    assert!(world.registry().remove(&1).is_some());
    world.domain.reclaim(usize::MAX);
    reading.join().unwrap();
    world.account(2);
}

pub fn batch_remove() {
    let world = World::new(1..3);
    let reader = Arc::clone(&world);
    let reading = part(&world.domain, move || {
        let guard = reader.registry().pin();
        let [one, two] = guard.get_many([&1, &2]).map(|entry| entry.map(|entry| entry.read()));
        assert!(matches!(one, None | Some(1)));
        assert_eq!(two, Some(2));
    });
    assert!(world.registry().remove(&1).is_some());
    world.domain.reclaim(usize::MAX);
    reading.join().unwrap();
    world.account(2);
}

pub fn borrow_to_handle_remove() {
    let world = World::new(1..2);
    let reader = Arc::clone(&world);
    let reading = part(&world.domain, move || {
        let handle = {
            let guard = reader.registry().pin();
            let Some(entry) = guard.get(&1) else { return };
            entry.handle()
        };
        if let Some(handle) = handle {
            assert_eq!(handle.read(), 1);
        }
    });
    assert!(world.registry().remove(&1).is_some());
    reading.join().unwrap();
    world.account(1);
}

pub fn clear_get() {
    let world = World::new(1..3);
    let reader = Arc::clone(&world);
    let reading = part(&world.domain, move || {
        let guard = reader.registry().pin();
        for key in [1, 2] {
            if let Some(entry) = guard.get(&key) {
                assert_eq!(entry.read(), key as u32);
            }
        }
    });
    world.registry().clear();
    reading.join().unwrap();
    world.account(2);
}

pub fn remove_own_borrow() {
    let world = World::in_domain(Domain::builder().name("model").manual().build(), 0, 1..3);
    let cookie = world.domain.start_poll();
    let reader = Arc::clone(&world);
    let reading = part(&world.domain, move || {
        let guard = reader.registry().pin();
        let entry = guard.get(&1).expect("no other thread removes it");
        // The second removal fills the bag, which goes to the domain at once, possibly in the middle of a collection.
        assert!(reader.registry().delete(&1) && reader.registry().delete(&2));
        // The poll takes a lock that the collector takes too. So loom also runs the collector here, before the read.
        reader.domain.poll(cookie);
        assert_eq!(entry.read(), 1);
    });
    world.domain.reclaim(2);
    reading.join().unwrap();
    world.account(2);
}

pub fn session_remove() {
    let world = World::new(1..2);
    let reader = Arc::clone(&world);
    let reading = part(&world.domain, move || {
        let mut session = reader.registry().reader();
        for _ in 0..2 {
            if let Some(entry) = session.get(&1) {
                assert_eq!(entry.read(), 1);
            }
        }
    });
    assert!(world.registry().remove(&1).is_some());
    world.domain.reclaim(usize::MAX);
    reading.join().unwrap();
    world.account(1);
}
