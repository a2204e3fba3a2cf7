//! The second layer: models over the real collector, which is also compiled against loom.
//!
//! It runs the models of the first layer that depend on the collector. It adds models of what the abstract collector
//! does not have: participants that register and leave, bags, and grace periods of two epoch advances.

use crate::harness::Model;
use crate::races;
use crate::world::{Watched, World, part, prepared_part};
use epoch_registry::Domain;
use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use std::sync::Arc;

pub fn models() -> Vec<Model> {
    let shared = |name, bound| {
        let model = races::models()
            .into_iter()
            .find(|model| model.name == name)
            .expect("a shared model must be a model of the first layer");
        Model { bound, ..model }
    };
    let model = |name, claim, bound, run| Model { name, claim, bound, run };
    vec![
        shared("get_insert", Some(5)),
        shared("get_remove", Some(3)),
        shared("get_update", Some(3)),
        shared("get_reap", Some(3)),
        shared("get_evict", Some(3)),
        shared("lookup_insert_that_evicts", Some(3)),
        shared("lookup_remove", Some(3)),
        shared("lookup_replace", Some(3)),
        shared("lookup_reap", Some(3)),
        shared("iterate_remove", Some(3)),
        shared("batch_remove", Some(3)),
        shared("borrow_to_handle_remove", Some(3)),
        shared("clear_get", Some(3)),
        shared("lookup_expire", Some(3)),
        shared("put_expire", Some(3)),
        shared("replace_expire", Some(3)),
        shared("expire_expire", Some(3)),
        shared("rearm_expire", Some(3)),
        shared("remove_own_borrow", Some(3)),
        shared("remove_remove", Some(3)),
        shared("insert_insert", Some(3)),
        shared("clone_last_put", Some(3)),
        shared("put_collect", Some(3)),
        shared("grow_get", Some(3)),
        shared("grow_get_beyond", Some(3)),
        shared("grow_remove", Some(3)),
        shared("handle_outlives_registry", Some(5)),
        shared("synchronize_reader", None),
        shared("barrier_call", Some(3)),
        shared("reclaimer_remove", Some(3)),
        model(
            "call_reader",
            "a callback runs only after a section that was open when it was queued has closed",
            Some(3),
            call_reader,
        ),
        model(
            "session_reads_on",
            "a borrow that a session takes after it has repinned is valid until its next read",
            Some(3),
            session_reads_on,
        ),
        model(
            "poll_elsewhere",
            "a grace period that one thread begins is completed by another thread that polls",
            Some(3),
            poll_elsewhere,
        ),
        model(
            "reclaim_remove_own_borrow",
            "a reader may keep using a borrow of an entry that it removed during a collection",
            Some(2),
            reclaim_remove_own_borrow,
        ),
        model(
            "remove_reclaim_get",
            "an entry's grace period begins after its unlink, even if another thread collects at that moment",
            Some(3),
            remove_reclaim_get,
        ),
        model(
            "arrive_synchronize",
            "synchronize waits for a reader that has just registered",
            Some(3),
            arrive_synchronize,
        ),
        model(
            "leave_synchronize",
            "synchronize returns although the reader's thread exits, and only after the reader's section",
            Some(3),
            leave_synchronize,
        ),
        model(
            "two_periods",
            "an entry waits for its own grace period, not for one that began earlier",
            Some(3),
            two_periods,
        ),
    ]
}

/// A value with a flag that tells whether it is published.
struct Published {
    is_there: AtomicBool,
    value: Watched,
}

impl Published {
    fn new() -> Arc<Published> {
        let value = Watched { memory: UnsafeCell::new(1), drops: Arc::default(), dropped: Arc::default(), bit: 1 };
        Arc::new(Published { is_there: AtomicBool::new(true), value })
    }

    /// Reads the value if it is published. Must be called in a critical section.
    fn read(&self) {
        // ORDERING: Acquire, pairs with nothing: only the critical section may keep the writer out.
        if self.is_there.load(Ordering::Acquire) {
            assert_eq!(self.value.read(), 1);
        }
    }

    fn unpublish(&self) {
        self.is_there.store(false, Ordering::Release);
    }

    /// Writes the value. Must be called after a grace period that began after `unpublish`.
    fn write(&self) {
        self.value.memory.with_mut(|memory| {
            // SAFETY: loom checks that every reader that saw the value published has left its section.
            unsafe { *memory = 2 }
        });
    }
}

fn call_reader() {
    let (domain, published) = (domain(), Published::new());
    let (reader, seen) = (domain.clone(), Arc::clone(&published));
    let reading = part(&domain, move || {
        let _guard = reader.pin();
        seen.read();
    });
    published.unpublish();
    let later = Arc::clone(&published);
    domain.call(move || later.write());
    domain.reclaim(1);
    reading.join().unwrap();
    domain.barrier();
}

fn session_reads_on() {
    let world = World::new(1..2);
    drop(world.domain.pin());
    let reader = Arc::clone(&world);
    let domain = world.domain.clone();
    let reading = prepared_part(
        move || {
            let mut session = domain.session();
            // The first pin of a participant advances the epoch, and is then behind it. Going offline and online again
            // pins the session at the current epoch.
            session.offline(|| ());
            session
        },
        move |session| {
            let guard = session.pin();
            if let Some(entry) = reader.registry().view(&guard).unwrap().get(&1) {
                assert_eq!(entry.read(), 1);
            }
        },
    );
    assert!(world.registry().remove(&1).is_some());
    world.domain.reclaim(1);
    reading.join().unwrap();
    world.account(1);
}

fn poll_elsewhere() {
    let domain = domain();
    let poller = domain.clone();
    let cookie = domain.start_poll();
    // A grace period takes two advances of the epoch. No reader delays them, so two polls are enough.
    let polling = part(&domain, move || assert!(poller.poll(cookie) || poller.poll(cookie)));
    polling.join().unwrap();
}

/// `remove_own_borrow` with the roles of the two threads exchanged. In this layer the spawned part runs first. So the
/// model needs two preemptions, not three, to stop in the middle of the collection and to resume it.
fn reclaim_remove_own_borrow() {
    let world = World::in_domain(Domain::builder().name("model").manual().build(), 0, 1..3);
    let other = Arc::clone(&world);
    let collecting = part(&world.domain, move || other.domain.reclaim(2));
    {
        let guard = world.registry().pin();
        let entry = guard.get(&1).expect("no other thread removes it");
        assert!(world.registry().delete(&1) && world.registry().delete(&2));
        assert_eq!(entry.read(), 1);
    }
    collecting.join().unwrap();
    world.account(2);
}

fn remove_reclaim_get() {
    let world = half_a_bag();
    let other = Arc::clone(&world);
    let removing = part(&world.domain, move || {
        assert!(other.registry().delete(&1));
        other.domain.reclaim(2);
    });
    world.domain.reclaim(2);
    if let Some(entry) = world.registry().pin().get(&1) {
        assert_eq!(entry.read(), 1);
    }
    removing.join().unwrap();
    world.account(2);
}

/// Returns a world with key 1, whose removal fills the open bag. The domain is manual, so no write reclaims.
fn half_a_bag() -> Arc<World> {
    let world = World::in_domain(Domain::builder().name("model").manual().build(), 0, 1..3);
    assert!(world.registry().delete(&2));
    world
}

fn arrive_synchronize() {
    let (domain, published) = (domain(), Published::new());
    drop(domain.pin());
    let (reader, seen) = (domain.clone(), Arc::clone(&published));
    let reading = prepared_part(
        || (),
        move |_| {
            let _guard = reader.pin();
            seen.read();
        },
    );
    published.unpublish();
    domain.synchronize();
    published.write();
    reading.join().unwrap();
}

fn leave_synchronize() {
    let (domain, published) = (domain(), Published::new());
    drop(domain.pin());
    let (reader, seen) = (domain.clone(), Arc::clone(&published));
    let main = thread::current();
    let reading = thread::spawn(move || {
        drop(reader.pin());
        main.unpark();
        let _guard = reader.pin();
        seen.read();
    });
    thread::park();
    published.unpublish();
    domain.synchronize();
    published.write();
    reading.join().unwrap();
}

fn two_periods() {
    let world = World::new(1..3);
    let reader = Arc::clone(&world);
    let reading = part(&world.domain, move || {
        if let Some(entry) = reader.registry().pin().get(&2) {
            assert_eq!(entry.read(), 2);
        }
    });
    world.registry().remove(&1);
    world.domain.reclaim(0);
    world.registry().remove(&2);
    world.domain.reclaim(2);
    reading.join().unwrap();
    world.account(2);
}

fn domain() -> Domain {
    Domain::builder().name("model").build()
}
