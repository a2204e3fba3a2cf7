//! The models.

use crate::harness::Model;
use epoch_registry::{Domain, Registry};
use loom::cell::UnsafeCell;
use loom::thread;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A value that the checker watches: reading it must be ordered before its drop, and after its creation.
struct Watched {
    memory: UnsafeCell<u32>,
    drops: Arc<AtomicUsize>,
}

// SAFETY: that the accesses are ordered is what the models check.
unsafe impl Send for Watched {}
// SAFETY: as for `Send`.
unsafe impl Sync for Watched {}

impl Watched {
    fn read(&self) -> u32 {
        self.memory.with(|memory| {
            // SAFETY: checked by loom, which knows of the access.
            unsafe { *memory }
        })
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.memory.with_mut(|memory| {
            // SAFETY: checked by loom.
            unsafe { *memory = u32::MAX }
        });
        self.drops.fetch_add(1, Ordering::SeqCst);
    }
}

/// Hashes an integer to itself: models are deterministic, and choose where their keys live.
#[derive(Clone, Copy, Default)]
struct Identity(u64);

impl BuildHasher for Identity {
    type Hasher = Identity;

    fn build_hasher(&self) -> Identity {
        Identity(0)
    }
}

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("keys are u64");
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

/// One shard in a domain of its own, and the number of values dropped. std's `Arc`, so that sharing orders nothing.
struct World {
    registry: Option<Registry<u64, Watched, Identity>>,
    domain: Domain,
    drops: Arc<AtomicUsize>,
}

impl World {
    fn new(keys: std::ops::Range<u64>) -> Arc<World> {
        let domain = Domain::builder().name("model").build();
        let registry = Registry::<u64, Watched>::builder().domain(domain.clone()).hasher(Identity(0)).shards(1).build();
        let world = World { registry: Some(registry), domain, drops: Arc::default() };
        for key in keys {
            world.insert(key);
        }
        Arc::new(world)
    }

    fn registry(&self) -> &Registry<u64, Watched, Identity> {
        self.registry.as_ref().unwrap()
    }

    fn value(&self, content: u32) -> Watched {
        Watched { memory: UnsafeCell::new(content), drops: Arc::clone(&self.drops) }
    }

    fn insert(&self, key: u64) -> bool {
        self.registry().insert(key, self.value(key as u32)).is_ok()
    }

    /// Everything retired is destroyed, and nothing else: created = dropped + live.
    fn account(&self, created: usize) {
        self.domain.barrier();
        let live = self.registry().len();
        assert_eq!(self.drops.load(Ordering::SeqCst) + live, created, "{live} live");
    }
}

pub fn models() -> Vec<Model> {
    vec![
        Model {
            name: "get_remove",
            claim: "a borrowed entry is valid until its guard is dropped, whoever removes it meanwhile",
            bound: None,
            expected: 1..=u64::MAX,
            run: get_remove,
        },
        Model {
            name: "lookup_remove",
            claim: "a handle taken while the entry is removed keeps it",
            bound: None,
            expected: 1..=u64::MAX,
            run: lookup_remove,
        },
        Model {
            name: "get_insert",
            claim: "an entry that is found is complete",
            bound: None,
            expected: 1..=u64::MAX,
            run: get_insert,
        },
        Model {
            name: "lookup_replace",
            claim: "a replaced key is never absent, and both values are whole",
            bound: None,
            expected: 1..=u64::MAX,
            run: lookup_replace,
        },
        Model {
            name: "borrow_to_handle_remove",
            claim: "a borrow turns into a handle, or the entry has left the registry",
            bound: None,
            expected: 1..=u64::MAX,
            run: borrow_to_handle_remove,
        },
        Model {
            name: "remove_remove",
            claim: "of two removals of one key one succeeds",
            bound: None,
            expected: 1..=u64::MAX,
            run: remove_remove,
        },
        Model {
            name: "insert_insert",
            claim: "of two insertions of one key one succeeds, and the other gets its value back",
            bound: None,
            expected: 1..=u64::MAX,
            run: insert_insert,
        },
        Model {
            name: "clone_last_put",
            claim: "an unlinked entry is destroyed once, after its last handle",
            bound: None,
            expected: 1..=u64::MAX,
            run: clone_last_put,
        },
        Model {
            name: "grow_get",
            claim: "a key is found all through a resize",
            bound: None,
            expected: 1..=u64::MAX,
            run: grow_get,
        },
        Model {
            name: "handle_outlives_registry",
            claim: "a registry and the last handle on its entry go at the same time: the value is dropped once, by then",
            bound: None,
            expected: 1..=u64::MAX,
            run: handle_outlives_registry,
        },
        Model {
            name: "session_remove",
            claim: "what a session borrows is valid until its next read",
            bound: None,
            expected: 1..=u64::MAX,
            run: session_remove,
        },
        Model {
            name: "synchronize_reader",
            claim: "synchronize returns after the section that was open has closed",
            bound: None,
            expected: 1..=u64::MAX,
            run: synchronize_reader,
        },
    ]
}

fn get_remove() {
    let world = World::new(1..2);
    let reader = Arc::clone(&world);
    let reading = thread::spawn(move || {
        if let Some(entry) = reader.registry().pin().get(&1) {
            assert_eq!(entry.read(), 1);
        }
    });
    assert!(world.registry().remove(&1).is_some());
    world.domain.reclaim(usize::MAX);
    reading.join().unwrap();
    world.account(1);
}

fn lookup_remove() {
    let world = World::new(1..2);
    let reader = Arc::clone(&world);
    let reading = thread::spawn(move || {
        if let Some(handle) = reader.registry().lookup(&1) {
            assert_eq!(handle.read(), 1);
        }
    });
    assert!(world.registry().remove(&1).is_some());
    world.domain.reclaim(usize::MAX);
    reading.join().unwrap();
    world.account(1);
}

fn get_insert() {
    let world = World::new(0..0);
    let reader = Arc::clone(&world);
    let reading = thread::spawn(move || {
        if let Some(entry) = reader.registry().pin().get(&1) {
            assert_eq!(entry.read(), 1);
        }
    });
    assert!(world.insert(1));
    reading.join().unwrap();
    world.account(1);
}

fn lookup_replace() {
    let world = World::new(1..2);
    let reader = Arc::clone(&world);
    let reading = thread::spawn(move || {
        let handle = reader.registry().lookup(&1).expect("the key is there all the time");
        assert!(matches!(handle.read(), 1 | 100));
    });
    let old = world.registry().replace(1, world.value(100)).expect("it was there");
    assert_eq!(old.read(), 1);
    drop(old);
    reading.join().unwrap();
    world.account(2);
}

fn borrow_to_handle_remove() {
    let world = World::new(1..2);
    let reader = Arc::clone(&world);
    let reading = thread::spawn(move || {
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

fn remove_remove() {
    let world = World::new(1..2);
    let other = Arc::clone(&world);
    let removing = thread::spawn(move || other.registry().remove(&1).is_some());
    let mine = world.registry().remove(&1).is_some();
    let theirs = removing.join().unwrap();
    assert!(mine ^ theirs);
    world.account(1);
}

fn insert_insert() {
    let world = World::new(0..0);
    let other = Arc::clone(&world);
    let inserting = thread::spawn(move || other.insert(1));
    let mine = world.insert(1);
    let theirs = inserting.join().unwrap();
    assert!(mine ^ theirs);
    world.account(2);
}

fn clone_last_put() {
    let world = World::new(1..2);
    let handle = world.registry().remove(&1).unwrap();
    world.domain.barrier();
    let other = handle.clone();
    let putting = thread::spawn(move || {
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

fn grow_get() {
    // Four keys in the only bucket; the fifth makes it grow, and the sixth moves it.
    let world = World::new(1..5);
    let reader = Arc::clone(&world);
    let reading = thread::spawn(move || {
        let guard = reader.registry().pin();
        let entry = guard.get(&1).expect("the key is there all the time");
        assert_eq!(entry.read(), 1);
    });
    assert!(world.insert(5));
    assert!(world.insert(6));
    reading.join().unwrap();
    world.account(6);
}

fn handle_outlives_registry() {
    let mut world = World::new(1..2);
    let handle = world.registry().lookup(&1).unwrap();
    let putting = thread::spawn(move || {
        assert_eq!(handle.read(), 1);
        drop(handle);
    });
    let owned = Arc::get_mut(&mut world).unwrap();
    owned.registry = None;
    putting.join().unwrap();
    assert_eq!(world.drops.load(Ordering::SeqCst), 1, "with no further call from anybody");
}

fn session_remove() {
    let world = World::new(1..2);
    let reader = Arc::clone(&world);
    let reading = thread::spawn(move || {
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

fn synchronize_reader() {
    let domain = Domain::builder().name("model").build();
    let watched = Arc::new(Watched { memory: UnsafeCell::new(1), drops: Arc::default() });
    let (reader, seen) = (domain.clone(), Arc::clone(&watched));
    // What RCU users do: unpublish, synchronize, write in place.
    let published = Arc::new(loom::sync::atomic::AtomicBool::new(true));
    let flag = Arc::clone(&published);
    let reading = thread::spawn(move || {
        let _guard = reader.pin();
        // ORDERING: Acquire, pairs with nothing: the section alone must keep the writer away.
        if flag.load(Ordering::Acquire) {
            assert_eq!(seen.read(), 1);
        }
    });
    published.store(false, Ordering::Release);
    domain.synchronize();
    watched.memory.with_mut(|memory| {
        // SAFETY: checked by loom: every reader that saw the flag has left.
        unsafe { *memory = 2 }
    });
    reading.join().unwrap();
}
