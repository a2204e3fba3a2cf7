//! The backlog's limit, and the wake-up of executors, reclaimer threads and backup threads.

use crate::world::{World, part};
use epoch_registry::{Domain, ReclaimJob, WhenFull};
use loom::thread;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

fn limited() -> Domain {
    Domain::builder().name("model").backlog_objects(1).when_full(WhenFull::Refuse).build()
}

pub fn limit_remove_remove() {
    // Two shards, of two registries: each reserves room under its own shard lock.
    let domain = limited();
    let (one, two) = (World::in_domain(domain.clone(), 0, [1]), World::in_domain(domain.clone(), 0, [2]));
    let removed = Arc::new(AtomicUsize::new(0));
    let guard = domain.pin();
    let (other, count) = (Arc::clone(&one), Arc::clone(&removed));
    let removing = part(&domain, move || {
        count.fetch_add(usize::from(other.registry().fallible().remove(&1).is_ok()), Ordering::SeqCst);
    });
    removed.fetch_add(usize::from(two.registry().fallible().remove(&2).is_ok()), Ordering::SeqCst);
    removing.join().unwrap();
    assert_eq!(removed.load(Ordering::SeqCst), 1, "the backlog has room for exactly one removal");
    drop(guard);
    domain.barrier();
    // The room is free again.
    let left = one.registry().fallible().remove(&1).unwrap().is_some()
        || two.registry().fallible().remove(&2).unwrap().is_some();
    assert!(left);
}

pub fn limit_put() {
    let world = World::in_domain(limited(), 0, 1..3);
    let kept = world.registry().lookup(&1);
    assert!(world.registry().fallible().remove(&1).is_ok());
    world.domain.barrier();
    // The spawned thread drops the handle, which returns its entry to the backlog, while this thread reserves room.
    let other = Arc::clone(&world);
    let putting = part(&world.domain, move || {
        drop(kept);
        other.domain.reclaim(2);
    });
    let removed = world.registry().fallible().remove(&2).is_ok();
    putting.join().unwrap();
    world.domain.barrier();
    assert_eq!(world.drops.load(Ordering::SeqCst), 1 + usize::from(removed));
    world.insert(3);
    assert!(world.registry().fallible().remove(&3).is_ok(), "every reservation must have been released");
}

pub fn executor_remove() {
    // One thread ends a job while another retires an entry. The retiring thread finds the job under way and wakes it,
    // or spawns a new job.
    let jobs: Arc<Mutex<Vec<ReclaimJob>>> = Arc::default();
    let queue = Arc::clone(&jobs);
    let domain = Domain::builder().name("model").executor(move |job| queue.lock().unwrap().push(job)).build();
    let world = World::in_domain(domain, 0, 1..3);
    drop(world.registry().remove(&1));
    let first = jobs.lock().unwrap().pop().expect("the removal must have spawned a job");
    let pool = part(&world.domain, move || first.run());
    drop(world.registry().remove(&2));
    pool.join().unwrap();
    let another = jobs.lock().unwrap().pop();
    if let Some(another) = another {
        another.run();
    }
    assert_eq!(world.drops.load(Ordering::SeqCst), 2, "both entries are destroyed with no further call");
}

pub fn reclaimer_remove() {
    // The reclaimer thread goes to sleep while another thread retires an entry.
    let domain = Domain::builder().name("model").reclaimer(true).build();
    let world = World::in_domain(domain, 0, 1..2);
    drop(world.registry().remove(&1));
    while world.drops.load(Ordering::SeqCst) == 0 {
        thread::yield_now();
    }
    world.domain.stop_reclaimer();
}

pub fn backup_remove() {
    // The backup thread parks while another thread retires an entry. Either the retiring thread sees that the backup
    // thread is parked and wakes it, or the backup thread sees the retired entry.
    let domain = Domain::builder().name("model").backup().build();
    let world = World::in_domain(domain, 0, 1..3);
    for (key, drops) in [(1, 1), (2, 2)] {
        drop(world.registry().remove(&key));
        while world.drops.load(Ordering::SeqCst) < drops {
            thread::yield_now();
        }
    }
    world.domain.stop_reclaimer();
}
