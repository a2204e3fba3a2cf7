//! Grace periods, and the callers that wait for them.

use crate::world::{Watched, World, part};
use epoch_registry::Domain;
use loom::cell::UnsafeCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub fn offline_synchronize() {
    let world = World::new(1..2);
    let reader = Arc::clone(&world);
    let reading = part(&world.domain, move || {
        let mut session = reader.registry().reader();
        session.offline(|| ());
        if let Some(entry) = session.get(&1) {
            assert_eq!(entry.read(), 1);
        }
    });
    assert!(world.registry().remove(&1).is_some());
    world.domain.synchronize();
    reading.join().unwrap();
    world.account(1);
}

pub fn synchronize_reader() {
    let domain = Domain::builder().name("model").build();
    let watched =
        Arc::new(Watched { memory: UnsafeCell::new(1), drops: Arc::default(), dropped: Arc::default(), bit: 1 });
    let (reader, seen) = (domain.clone(), Arc::clone(&watched));
    // The usual RCU pattern: unpublish, synchronize, write in place.
    let published = Arc::new(loom::sync::atomic::AtomicBool::new(true));
    let flag = Arc::clone(&published);
    let reading = part(&domain, move || {
        let _guard = reader.pin();
        // ORDERING: Acquire, pairs with nothing: only the critical section may keep the writer out.
        if flag.load(Ordering::Acquire) {
            assert_eq!(seen.read(), 1);
        }
    });
    published.store(false, Ordering::Release);
    domain.synchronize();
    watched.memory.with_mut(|memory| {
        // SAFETY: loom checks that every reader that saw the flag has left its section.
        unsafe { *memory = 2 }
    });
    reading.join().unwrap();
}

pub fn barrier_call() {
    let domain = Domain::builder().name("model").build();
    let ran = Arc::new(AtomicUsize::new(0));
    let (other, counter) = (domain.clone(), Arc::clone(&ran));
    let calling = part(&domain, move || {
        let ours = Arc::clone(&counter);
        other.call(move || {
            ours.fetch_add(1, Ordering::SeqCst);
        });
        other.barrier();
        assert!(counter.load(Ordering::SeqCst) >= 1);
    });
    let counter = Arc::clone(&ran);
    domain.call(move || {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    calling.join().unwrap();
    domain.barrier();
    assert_eq!(ran.load(Ordering::SeqCst), 2);
}

pub fn barrier_barrier() {
    let world = World::new(1..3);
    assert!(world.registry().remove(&1).is_some());
    let other = Arc::clone(&world);
    let waiting = part(&world.domain, move || {
        other.domain.barrier();
        assert!(other.drops.load(Ordering::SeqCst) >= 1);
    });
    assert!(world.registry().remove(&2).is_some());
    world.domain.barrier();
    assert_eq!(world.drops.load(Ordering::SeqCst), 2);
    waiting.join().unwrap();
}
