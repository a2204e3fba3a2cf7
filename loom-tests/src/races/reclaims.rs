//! The path from a shard's open bag to the destructor: writers, collectors, barriers, and the drop of a registry.
//!
//! A bag holds two nodes here. In a manual domain no write reclaims, so each thread does only what the model says.

use crate::world::{Identity, Watched, World, part};
use epoch_registry::{Domain, ReclaimJob, Registry};
use loom::sync::atomic::AtomicUsize;
use std::hash::{Hash, Hasher};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

fn manual() -> Domain {
    Domain::builder().name("model").manual().build()
}

fn world(keys: impl IntoIterator<Item = u64>) -> Arc<World> {
    World::in_domain(manual(), 0, keys)
}

fn drops(world: &World) -> usize {
    world.drops.load(Ordering::SeqCst)
}

/// A world that can check that its domain was freed. A domain is freed after the last core of its registries.
struct Mortal {
    world: Arc<World>,
    is_alive: Arc<()>,
}

impl Mortal {
    fn new(keys: impl IntoIterator<Item = u64>) -> Mortal {
        let is_alive = Arc::new(());
        let held = Arc::clone(&is_alive);
        // The domain owns this closure, and drops `held` when it is freed.
        let domain = Domain::builder().name("model").manual().on_stall(move |_| _ = &held).build();
        Mortal { world: World::in_domain(domain, 0, keys), is_alive }
    }

    fn drop_registry(&mut self) {
        Arc::get_mut(&mut self.world).expect("no other thread uses the registry").registry = None;
    }

    /// Checks that `created` values are destroyed and no core is left, with no further call on the domain.
    fn account(self, created: usize) {
        assert_eq!(drops(&self.world), created);
        drop(self.world);
        assert_eq!(Arc::strong_count(&self.is_alive), 1, "a core is left, and keeps the domain");
    }
}

pub fn fill_barrier() {
    // The other thread first marks a shard of another registry as dirty. Without that, loom would not run it between
    // the barrier's load of the dirty list and its attempt at the shard lock.
    let world = world(1..3);
    let (other, another) = (Arc::clone(&world), World::in_domain(world.domain.clone(), 0, 1..2));
    let removing = part(&world.domain, move || {
        assert!(another.registry().delete(&1));
        assert!(other.registry().delete(&1));
        another
    });
    assert!(world.registry().delete(&2));
    world.domain.barrier();
    assert!(world.dropped.load(Ordering::SeqCst) & 1 << 2 != 0, "the barrier must cover this thread's own removal");
    let another = removing.join().unwrap();
    another.account(1);
    world.account(2);
}

pub fn collect_barrier() {
    let world = world(1..2);
    let other = Arc::clone(&world);
    let collecting = part(&world.domain, move || other.domain.reclaim(9));
    assert!(world.registry().delete(&1));
    world.domain.barrier();
    assert_eq!(drops(&world), 1);
    collecting.join().unwrap();
}

pub fn round_barrier() {
    // A job's round skips a shard whose lock is taken. Here the holder is an eviction, which marks the shard, closes a
    // bag and opens another, all under one acquisition of the lock.
    let jobs: Arc<Mutex<Vec<ReclaimJob>>> = Arc::default();
    let queue = Arc::clone(&jobs);
    let domain = Domain::builder().name("model").executor(move |job| queue.lock().unwrap().push(job)).build();
    let world = World::in_domain(domain, 0, 1..5);
    assert!(world.registry().delete(&1));
    let mut job = jobs.lock().unwrap().pop().expect("the removal must have spawned a job");
    world.domain.barrier();
    let round = part(&world.domain, move || {
        job.step();
        job
    });
    assert_eq!(world.registry().evict(3), 3);
    world.domain.barrier();
    assert_eq!(drops(&world), 4);
    drop(round.join().unwrap());
}

pub fn busy_job() {
    // The bag of the first two nodes is closed, the shard is still marked dirty, and the job spawned for it begins.
    let jobs: Arc<Mutex<Vec<ReclaimJob>>> = Arc::default();
    let queue = Arc::clone(&jobs);
    let domain = Domain::builder().name("model").executor(move |job| queue.lock().unwrap().push(job)).build();
    let world = World::in_domain(domain, 0, 1..4);
    assert!(world.registry().delete(&1) && world.registry().delete(&2));
    let job = jobs.lock().unwrap().pop().expect("the removal must have spawned a job");
    let running = part(&world.domain, move || job.run());
    assert!(world.registry().delete(&3));
    running.join().unwrap();
    let another = jobs.lock().unwrap().pop();
    if let Some(another) = another {
        another.run();
    }
    assert_eq!(drops(&world), 3, "all three are destroyed with no further call");
}

pub fn collect_collect() {
    let world = world(1..2);
    assert!(world.registry().delete(&1));
    let other = Arc::clone(&world);
    let collecting = part(&world.domain, move || other.domain.reclaim(9));
    world.domain.reclaim(9);
    collecting.join().unwrap();
    world.account(1);
}

pub fn reopen_collect() {
    // The bag of the first two nodes is closed, and the shard is still marked dirty.
    let world = world(1..4);
    assert!(world.registry().delete(&1) && world.registry().delete(&2));
    let other = Arc::clone(&world);
    let removing = part(&world.domain, move || assert!(other.registry().delete(&3)));
    world.domain.reclaim(9);
    removing.join().unwrap();
    world.account(3);
}

pub fn list_collect() {
    // Two shards, of two registries, are in one list. While the first is collected, a writer adds it again.
    let domain = manual();
    let (one, two) = (World::in_domain(domain.clone(), 0, 1..3), World::in_domain(domain.clone(), 0, 1..2));
    assert!(two.registry().delete(&1) && one.registry().delete(&1));
    let other = Arc::clone(&one);
    let removing = part(&domain, move || assert!(other.registry().delete(&2)));
    domain.reclaim(9);
    domain.reclaim(9);
    removing.join().unwrap();
    domain.barrier();
    assert_eq!((drops(&one), drops(&two)), (2, 1));
}

pub fn put_collect() {
    let world = world(1..2);
    let handle = world.registry().remove(&1).unwrap();
    world.domain.barrier();
    assert_eq!(drops(&world), 0, "the handle keeps the entry after its grace period");
    let putting = part(&world.domain, move || {
        assert_eq!(handle.read(), 1);
        drop(handle);
    });
    world.domain.reclaim(9);
    putting.join().unwrap();
    world.account(1);
}

pub fn put_reclaim() {
    let world = world(1..2);
    let handle = world.registry().remove(&1).unwrap();
    let putting = part(&world.domain, move || {
        assert_eq!(handle.read(), 1);
        drop(handle);
    });
    world.domain.reclaim(9);
    putting.join().unwrap();
    world.account(1);
    assert_eq!(drops(&world), 1);
}

pub fn close_orphan() {
    let mut mortal = Mortal::new(1..2);
    let handle = mortal.world.registry().remove(&1).unwrap();
    mortal.world.domain.barrier();
    let putting = part(&mortal.world.domain, move || drop(handle));
    mortal.drop_registry();
    putting.join().unwrap();
    mortal.account(1);
}

pub fn close_collect() {
    let mut mortal = Mortal::new(1..3);
    assert!(mortal.world.registry().delete(&1));
    let domain = mortal.world.domain.clone();
    let collecting = part(&mortal.world.domain, move || domain.reclaim(9));
    mortal.drop_registry();
    collecting.join().unwrap();
    mortal.account(2);
}

pub fn close_part() {
    let mut mortal = Mortal::new(1..3);
    assert!(mortal.world.registry().delete(&1) && mortal.world.registry().delete(&2));
    let domain = mortal.world.domain.clone();
    let reclaiming = part(&mortal.world.domain, move || domain.reclaim(1));
    mortal.drop_registry();
    reclaiming.join().unwrap();
    mortal.account(2);
}

pub fn close_orphan_collect() {
    let mut mortal = Mortal::new(1..3);
    let handle = mortal.world.registry().remove(&1).unwrap();
    mortal.world.domain.barrier();
    assert!(mortal.world.registry().delete(&2));
    let domain = mortal.world.domain.clone();
    let putting = part(&mortal.world.domain, move || drop(handle));
    let collecting = loom::thread::spawn(move || domain.reclaim(9));
    mortal.drop_registry();
    putting.join().unwrap();
    collecting.join().unwrap();
    mortal.account(2);
}

/// A value whose drop loom sees, so loom can switch threads there. The drop adds no ordering.
struct Flagged(Arc<AtomicUsize>);

impl Drop for Flagged {
    fn drop(&mut self) {
        // ORDERING: Relaxed, so that only the crate orders the drop: that order is the subject of the model.
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

pub fn close_barrier() {
    let (domain, gone) = (manual(), Arc::new(AtomicUsize::new(0)));
    let builder = Registry::<u64, Flagged>::builder().domain(domain.clone()).hasher(Identity::default());
    let registry = builder.shards(1).build();
    assert!(registry.add(1, Flagged(Arc::clone(&gone))).is_ok());
    assert!(registry.delete(&1));
    let ending = part(&domain, move || drop(registry));
    domain.barrier();
    assert_eq!(gone.load(Ordering::Relaxed), 1, "the barrier must cover the earlier removal");
    ending.join().unwrap();
}

/// A key whose `Eq` drops a registry, under the shard lock of another registry.
struct Ending(Arc<Mutex<Option<Registry<u64, Watched, Identity>>>>);

impl PartialEq for Ending {
    fn eq(&self, _: &Ending) -> bool {
        drop(self.0.lock().unwrap().take());
        true
    }
}

impl Eq for Ending {}

impl Hash for Ending {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(0);
    }
}

pub fn close_in_eq() {
    let mut mortal = Mortal::new(1..2);
    assert!(mortal.world.registry().delete(&1));
    let domain = mortal.world.domain.clone();
    let keys = Registry::<Ending, ()>::builder().domain(domain.clone()).hasher(Identity::default()).shards(1).build();
    let registry = Arc::new(Mutex::new(Arc::get_mut(&mut mortal.world).unwrap().registry.take()));
    assert!(keys.add(Ending(Arc::clone(&registry)), ()).is_ok());
    let collecting = part(&mortal.world.domain, move || domain.reclaim(9));
    assert!(keys.add(Ending(registry), ()).is_err());
    collecting.join().unwrap();
    mortal.world.domain.barrier();
    drop(keys);
    mortal.account(1);
}

pub fn close_cascade() {
    let mut mortal = Mortal::new(1..3);
    let domain = mortal.world.domain.clone();
    let inner = domain.clone();
    // A callback whose grace period is over. It makes its run look for more ready objects.
    domain.call(move || _ = inner.reclaim(1));
    domain.reclaim(0);
    let cascading = part(&mortal.world.domain, move || domain.reclaim(1));
    {
        let guard = mortal.world.registry().pin();
        let entry = guard.get(&1).expect("no other thread removes it");
        assert!(mortal.world.registry().delete(&1) && mortal.world.registry().delete(&2));
        assert_eq!(entry.read(), 1);
    }
    mortal.drop_registry();
    cascading.join().unwrap();
    assert_eq!(drops(&mortal.world), 2);
    // The callback holds the domain until it is destroyed.
    mortal.world.domain.barrier();
    mortal.account(2);
}
