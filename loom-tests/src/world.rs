//! Shared parts of the models: a value that loom watches, and a registry that is small enough to explore.

use epoch_registry::{Builder, Domain, ManualClock, Registry};
use loom::cell::UnsafeCell;
use loom::sync::{Mutex, MutexGuard};
use loom::thread;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A value whose memory loom watches. Its creation must happen before each read, and each read before its drop.
pub struct Watched {
    pub memory: UnsafeCell<u32>,
    pub drops: Arc<AtomicUsize>,
    /// One bit for each content that was dropped.
    pub dropped: Arc<AtomicUsize>,
    pub bit: usize,
}

// SAFETY: the models check that all accesses are ordered.
unsafe impl Send for Watched {}
// SAFETY: the models check that all accesses are ordered.
unsafe impl Sync for Watched {}

impl Watched {
    pub fn read(&self) -> u32 {
        self.memory.with(|memory| {
            // SAFETY: loom checks that no write is concurrent with this read.
            unsafe { *memory }
        })
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.memory.with_mut(|memory| {
            // SAFETY: loom checks that no other access is concurrent with this write.
            unsafe { *memory = u32::MAX }
        });
        self.drops.fetch_add(1, Ordering::SeqCst);
        self.dropped.fetch_or(self.bit, Ordering::SeqCst);
    }
}

/// A hasher that hashes an integer to itself. So models are deterministic, and choose the buckets of their keys.
#[derive(Clone, Copy, Default)]
pub struct Identity(u64);

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
        unreachable!("keys must be u64");
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

type Timed = Builder<u64, Watched, Identity>;

/// A registry with one shard, its domain, and a count of dropped values. The models share it by std's `Arc`, which loom
/// does not model, so sharing adds no ordering.
pub struct World {
    pub registry: Option<Registry<u64, Watched, Identity>>,
    pub domain: Domain,
    pub drops: Arc<AtomicUsize>,
    pub dropped: Arc<AtomicUsize>,
}

impl World {
    pub fn new(keys: impl IntoIterator<Item = u64>) -> Arc<World> {
        World::with_capacity(0, keys)
    }

    pub fn with_capacity(capacity: usize, keys: impl IntoIterator<Item = u64>) -> Arc<World> {
        World::in_domain(Domain::builder().name("model").build(), capacity, keys)
    }

    pub fn in_domain(domain: Domain, capacity: usize, keys: impl IntoIterator<Item = u64>) -> Arc<World> {
        let builder = Registry::<u64, Watched>::builder().domain(domain.clone()).hasher(Identity(0));
        let registry = builder.shards(1).capacity(capacity).build();
        let world = World { registry: Some(registry), domain, drops: Arc::default(), dropped: Arc::default() };
        for key in keys {
            world.insert(key);
        }
        Arc::new(world)
    }

    /// Returns a world whose entries have expired, and its clock.
    pub fn expired(keys: impl IntoIterator<Item = u64>) -> (Arc<World>, ManualClock) {
        let (world, clock) = World::aging(keys);
        clock.advance(Duration::from_secs(2));
        (world, clock)
    }

    /// Returns a world whose entries live for one second, and its clock.
    pub fn aging(keys: impl IntoIterator<Item = u64>) -> (Arc<World>, ManualClock) {
        World::timed(|builder| builder.max_age(Duration::from_secs(1)), keys)
    }

    /// Returns a world whose entries have a time to live of one second, and its clock.
    pub fn living(keys: impl IntoIterator<Item = u64>) -> (Arc<World>, ManualClock) {
        let (world, clock) = World::timed(|builder| builder.per_entry_ttl(true), keys);
        for entry in world.registry().pin().iter() {
            assert!(world.registry().set_ttl(&entry.handle().unwrap(), Some(Duration::from_secs(1))));
        }
        (world, clock)
    }

    /// Returns a world whose entries may be idle for one second, and its clock.
    pub fn idling(keys: impl IntoIterator<Item = u64>) -> (Arc<World>, ManualClock) {
        World::timed(|builder| builder.max_idle(Duration::from_secs(1)), keys)
    }

    fn timed(limit: fn(Timed) -> Timed, keys: impl IntoIterator<Item = u64>) -> (Arc<World>, ManualClock) {
        let (domain, clock) = (Domain::builder().name("model").build(), ManualClock::new());
        let builder = Registry::<u64, Watched>::builder().domain(domain.clone()).hasher(Identity(0));
        let registry = limit(builder.shards(1).clock(clock.clone())).build();
        let world = World { registry: Some(registry), domain, drops: Arc::default(), dropped: Arc::default() };
        for key in keys {
            world.insert(key);
        }
        (Arc::new(world), clock)
    }

    pub fn registry(&self) -> &Registry<u64, Watched, Identity> {
        self.registry.as_ref().unwrap()
    }

    pub fn value(&self, content: u32) -> Watched {
        let (drops, dropped) = (Arc::clone(&self.drops), Arc::clone(&self.dropped));
        Watched { memory: UnsafeCell::new(content), drops, dropped, bit: 1 << (content % 32) }
    }

    pub fn insert(&self, key: u64) -> bool {
        self.registry().try_insert(key, self.value(key as u32)).is_ok()
    }

    /// Runs a barrier, and checks that exactly the retired values are destroyed: created = dropped + live.
    pub fn account(&self, created: usize) {
        self.domain.barrier();
        let live = self.registry().len();
        assert_eq!(self.drops.load(Ordering::SeqCst) + live, created, "{live} live");
    }
}

/// A thread that takes part in a race. Over the real collector it registers as a reader of the domain before the race
/// begins, and stays registered until the race is over. Separate models explore registration and exit of threads.
pub struct Part<T> {
    thread: thread::JoinHandle<T>,
    race: Option<MutexGuard<'static, ()>>,
}

loom::lazy_static! {
    /// Held by the main thread for the duration of a race.
    static ref RACE: Mutex<()> = Mutex::new(());
}

pub fn part<T: 'static>(domain: &Domain, f: impl FnOnce() -> T + 'static) -> Part<T> {
    if !cfg!(crossbeam_loom) {
        return Part { thread: thread::spawn(f), race: None };
    }
    let of = domain.clone();
    drop(domain.pin());
    prepared_part(move || drop(of.pin()), |_| f())
}

/// Spawns a thread that runs `prepare` before the race begins, runs `f` in the race, and drops the prepared value after
/// the race.
pub fn prepared_part<P, T: 'static>(
    prepare: impl FnOnce() -> P + 'static,
    f: impl FnOnce(&mut P) -> T + 'static,
) -> Part<T> {
    let race = RACE.lock().unwrap();
    let main = thread::current();
    let thread = thread::spawn(move || {
        let mut prepared = prepare();
        // Between `spawn` and `park` the main thread blocks on nothing else, so an early token cannot end another wait.
        main.unpark();
        let result = f(&mut prepared);
        drop(RACE.lock().unwrap());
        result
    });
    thread::park();
    Part { thread, race: Some(race) }
}

impl<T> Part<T> {
    pub fn join(self) -> std::thread::Result<T> {
        drop(self.race);
        self.thread.join()
    }
}
