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
    /// A bit for each content that was dropped.
    dropped: Arc<AtomicUsize>,
    bit: usize,
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
        self.dropped.fetch_or(self.bit, Ordering::SeqCst);
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
    dropped: Arc<AtomicUsize>,
}

impl World {
    fn new(keys: impl IntoIterator<Item = u64>) -> Arc<World> {
        World::with_capacity(0, keys)
    }

    fn with_capacity(capacity: usize, keys: impl IntoIterator<Item = u64>) -> Arc<World> {
        let domain = Domain::builder().name("model").build();
        let builder = Registry::<u64, Watched>::builder().domain(domain.clone()).hasher(Identity(0));
        let registry = builder.shards(1).capacity(capacity).build();
        let world = World { registry: Some(registry), domain, drops: Arc::default(), dropped: Arc::default() };
        for key in keys {
            world.insert(key);
        }
        Arc::new(world)
    }

    fn registry(&self) -> &Registry<u64, Watched, Identity> {
        self.registry.as_ref().unwrap()
    }

    fn value(&self, content: u32) -> Watched {
        let (drops, dropped) = (Arc::clone(&self.drops), Arc::clone(&self.dropped));
        Watched { memory: UnsafeCell::new(content), drops, dropped, bit: 1 << (content % 32) }
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
    let model = |name, claim, bound, expected, run| Model { name, claim, bound, expected, run };
    // Expected: what it took when it was recorded, give or take a half.
    vec![
        model(
            "get_remove",
            "a borrow is valid until its guard is dropped, whoever removes the entry",
            None,
            8093..=24_280,
            get_remove,
        ),
        model("get_insert", "an entry that is found is complete", None, 18..=55, get_insert),
        model(
            "get_update",
            "a reader sees the value before or after an update, and either is whole",
            None,
            14_097..=42_292,
            get_update,
        ),
        model("get_reap", "a borrow is valid though a reaper takes the entry", None, 93..=280, get_reap),
        model(
            "lookup_remove",
            "a handle taken while the entry is removed keeps it",
            None,
            261_993..=785_980,
            lookup_remove,
        ),
        model(
            "lookup_replace",
            "a replaced key is never absent, and both values are whole",
            None,
            1442..=4327,
            lookup_replace,
        ),
        model("lookup_reap", "a handle taken while a reaper takes the entry keeps it", None, 1554..=4663, lookup_reap),
        model(
            "iterate_remove",
            "iteration meets the entry that stays, once, and whole",
            None,
            9704..=29_113,
            iterate_remove,
        ),
        model("batch_remove", "a batch finds the key that stays", None, 30_876..=92_630, batch_remove),
        model(
            "borrow_to_handle_remove",
            "a borrow turns into a handle, or the entry has left the registry",
            None,
            609..=1828,
            borrow_to_handle_remove,
        ),
        model("remove_remove", "of two removals of one key one succeeds", None, 7..=23, remove_remove),
        model(
            "insert_insert",
            "of two insertions of one key one succeeds; the other gets its value back",
            None,
            11..=34,
            insert_insert,
        ),
        model(
            "clone_last_put",
            "an unlinked entry is destroyed once, after its last handle",
            None,
            11..=34,
            clone_last_put,
        ),
        model(
            "put_collect",
            "a last handle dropped while others collect leaves nothing behind",
            None,
            30..=91,
            put_collect,
        ),
        model("grow_get", "a key is found all through a resize", None, 199..=599, grow_get),
        model(
            "grow_get_beyond",
            "a key that lives beyond its home is found all through a resize",
            None,
            2439..=7319,
            grow_get_beyond,
        ),
        model(
            "grow_iterate_beyond",
            "an iteration during a resize meets each entry that stays once",
            None,
            80_920..=242_761,
            grow_iterate_beyond,
        ),
        model(
            "grow_remove",
            "a key removed during a resize is gone when the removal returns",
            None,
            101..=305,
            grow_remove,
        ),
        model(
            "handle_outlives_registry",
            "registry and last handle go at the same time: the value is dropped, once, by then",
            None,
            4137..=12_412,
            handle_outlives_registry,
        ),
        model(
            "session_remove",
            "what a session borrows is valid until its next read",
            None,
            175_894..=527_683,
            session_remove,
        ),
        model(
            "offline_synchronize",
            "an offline session holds nothing up, and reads safely when it is back",
            Some(3),
            785..=2357,
            offline_synchronize,
        ),
        model(
            "synchronize_reader",
            "synchronize returns after the section that was open has closed",
            None,
            4105..=12_316,
            synchronize_reader,
        ),
        model(
            "barrier_call",
            "a barrier returns after every callback given before it, on any thread",
            None,
            29..=89,
            barrier_call,
        ),
        model(
            "clear_get",
            "what a reader finds while the registry is cleared is whole",
            None,
            13_316..=39_950,
            clear_get,
        ),
        model(
            "beyond_removed_get",
            "a key beyond its home may be moved and removed under a reader's eyes",
            Some(3),
            10_370..=31_112,
            beyond_removed_get,
        ),
        model(
            "push_push_barrier",
            "a barrier covers its caller's own removal, though another is about to enqueue it",
            Some(2),
            11_409..=34_229,
            push_push_barrier,
        ),
        model(
            "barrier_barrier",
            "two barriers at once both return, with everything destroyed",
            Some(2),
            530..=1591,
            barrier_barrier,
        ),
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
    let watched =
        Arc::new(Watched { memory: UnsafeCell::new(1), drops: Arc::default(), dropped: Arc::default(), bit: 1 });
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

fn get_update() {
    let world = World::new(1..2);
    let reader = Arc::clone(&world);
    let reading = thread::spawn(move || {
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

fn get_reap() {
    let world = World::new(1..2);
    let reader = Arc::clone(&world);
    let reading = thread::spawn(move || {
        if let Some(entry) = reader.registry().pin().get(&1) {
            assert_eq!(entry.read(), 1);
        }
    });
    assert_eq!(world.registry().reap_if(usize::MAX, |_| true), 1);
    reading.join().unwrap();
    world.account(1);
}

fn lookup_reap() {
    let world = World::new(1..2);
    let reader = Arc::clone(&world);
    let reading = thread::spawn(move || {
        if let Some(handle) = reader.registry().lookup(&1) {
            assert_eq!(handle.read(), 1);
        }
    });
    assert_eq!(world.registry().reap_if(usize::MAX, |_| true), 1);
    reading.join().unwrap();
    world.account(1);
}

fn iterate_remove() {
    let world = World::new(1..3);
    let reader = Arc::clone(&world);
    let reading = thread::spawn(move || {
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

fn batch_remove() {
    let world = World::new(1..3);
    let reader = Arc::clone(&world);
    let reading = thread::spawn(move || {
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

fn put_collect() {
    let world = World::new(1..2);
    let handle = world.registry().remove(&1).unwrap();
    world.domain.barrier();
    let putting = thread::spawn(move || drop(handle));
    world.domain.reclaim(usize::MAX);
    putting.join().unwrap();
    world.account(1);
    assert_eq!(world.drops.load(Ordering::SeqCst), 1);
}

fn grow_get_beyond() {
    // Two buckets. Of eight even keys, whose home is the first, the last lives in the second.
    let world = World::with_capacity(10, (0..8).map(|key| 2 * key).chain([1]));
    let reader = Arc::clone(&world);
    let reading = thread::spawn(move || {
        let guard = reader.registry().pin();
        let entry = guard.get(&14).expect("the key is there all the time");
        assert_eq!(entry.read(), 14);
    });
    // The tenth key makes it grow, and the next write moves both homes.
    assert!(world.insert(3));
    assert!(world.registry().remove(&3).is_some());
    assert_eq!(world.registry().stats().resizes, 1);
    reading.join().unwrap();
    world.account(10);
}

fn grow_iterate_beyond() {
    let world = World::with_capacity(10, (0..8).map(|key| 2 * key).chain([1]));
    let reader = Arc::clone(&world);
    let reading = thread::spawn(move || {
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

fn grow_remove() {
    let world = World::new(1..6);
    let writer = Arc::clone(&world);
    let writing = thread::spawn(move || {
        assert!(writer.registry().remove(&1).is_some());
        assert!(!writer.registry().contains_key(&1));
    });
    assert!(world.insert(6));
    assert!(world.registry().contains_key(&2));
    writing.join().unwrap();
    assert!(!world.registry().contains_key(&1));
    world.account(6);
}

fn offline_synchronize() {
    let world = World::new(1..2);
    let reader = Arc::clone(&world);
    let reading = thread::spawn(move || {
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

fn barrier_call() {
    let domain = Domain::builder().name("model").build();
    let ran = Arc::new(AtomicUsize::new(0));
    let (other, counter) = (domain.clone(), Arc::clone(&ran));
    let calling = thread::spawn(move || {
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

fn push_push_barrier() {
    // Both removals push on the one queue of the one shard: whoever comes second relies on the first to enqueue it.
    let world = World::new(1..3);
    let other = Arc::clone(&world);
    let removing = thread::spawn(move || drop(other.registry().remove(&1)));
    drop(world.registry().remove(&2));
    world.domain.barrier();
    assert!(world.dropped.load(Ordering::SeqCst) & 1 << 2 != 0, "what this thread removed before its barrier");
    removing.join().unwrap();
    world.account(2);
}

fn clear_get() {
    let world = World::new(1..3);
    let reader = Arc::clone(&world);
    let reading = thread::spawn(move || {
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

fn beyond_removed_get() {
    // A key that lives beyond its home is moved, removed and freed, while a reader walks there from the same home.
    let world = World::with_capacity(10, (0..8).map(|key| 2 * key).chain([1]));
    assert!(world.insert(3));
    let reader = Arc::clone(&world);
    let reading = thread::spawn(move || {
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

fn barrier_barrier() {
    let world = World::new(1..3);
    assert!(world.registry().remove(&1).is_some());
    let other = Arc::clone(&world);
    let waiting = thread::spawn(move || {
        other.domain.barrier();
        assert!(other.drops.load(Ordering::SeqCst) >= 1);
    });
    assert!(world.registry().remove(&2).is_some());
    world.domain.barrier();
    assert_eq!(world.drops.load(Ordering::SeqCst), 2);
    waiting.join().unwrap();
}
