//! What the models share: a value that the checker watches, and a registry small enough to explore.

use epoch_registry::{Builder, Domain, ManualClock, Registry};
use loom::cell::UnsafeCell;
use loom::sync::{Mutex, MutexGuard};
use loom::thread;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A value that the checker watches: reading it must be ordered before its drop, and after its creation.
pub struct Watched {
    pub memory: UnsafeCell<u32>,
    pub drops: Arc<AtomicUsize>,
    /// A bit for each content that was dropped.
    pub dropped: Arc<AtomicUsize>,
    pub bit: usize,
}

// SAFETY: that the accesses are ordered is what the models check.
unsafe impl Send for Watched {}
// SAFETY: as for `Send`.
unsafe impl Sync for Watched {}

impl Watched {
    pub fn read(&self) -> u32 {
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
        unreachable!("keys are u64");
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

type Timed = Builder<u64, Watched, Identity>;

/// One shard in a domain of its own, and the number of values dropped. std's `Arc`, so that sharing orders nothing.
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

    /// A world whose entries are past their time, and its clock.
    pub fn expired(keys: impl IntoIterator<Item = u64>) -> (Arc<World>, ManualClock) {
        let (world, clock) = World::aging(keys);
        clock.advance(Duration::from_secs(2));
        (world, clock)
    }

    /// A world whose entries live for a second, and its clock.
    pub fn aging(keys: impl IntoIterator<Item = u64>) -> (Arc<World>, ManualClock) {
        World::timed(|builder| builder.max_age(Duration::from_secs(1)), keys)
    }

    /// A world whose entries may be idle for a second, and its clock.
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

    /// Everything retired is destroyed, and nothing else: created = dropped + live.
    pub fn account(&self, created: usize) {
        self.domain.barrier();
        let live = self.registry().len();
        assert_eq!(self.drops.load(Ordering::SeqCst) + live, created, "{live} live");
    }
}

/// A thread that takes part in a race. Over the real collector it is a reader of the domain already when the race begins,
/// and stays one until the race is over: how threads come and go is explored by models of its own.
pub struct Part<T> {
    thread: thread::JoinHandle<T>,
    race: Option<MutexGuard<'static, ()>>,
}

loom::lazy_static! {
    /// Held for as long as a race lasts.
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

/// A thread that prepares itself before the race begins, takes part in it, and drops what it prepared when it is over.
pub fn prepared_part<P, T: 'static>(
    prepare: impl FnOnce() -> P + 'static,
    f: impl FnOnce(&mut P) -> T + 'static,
) -> Part<T> {
    let race = RACE.lock().unwrap();
    let main = thread::current();
    let thread = thread::spawn(move || {
        let mut prepared = prepare();
        // Between `spawn` and `park` the main thread waits for nothing else, which an early token would wake it from.
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
