//! The waits for shard locks in `Stats`. Here a thread holds a shard lock for as long as the `Eq` of its key takes.

use crate::common::*;
use epoch_registry::*;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

/// Where an `Eq` stays until a test lets it go on.
#[derive(Default)]
struct Gate {
    is_reached: AtomicBool,
    is_open: AtomicBool,
}

impl Gate {
    fn pass(&self) {
        self.is_reached.store(true, SeqCst);
        wait_until(&self.is_open);
    }

    fn open(&self) {
        self.is_open.store(true, SeqCst);
    }
}

/// Opens a gate when it is dropped, so that a test that fails does not hang.
struct Open<'g>(&'g Gate);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open();
    }
}

fn wait_until(flag: &AtomicBool) {
    while !flag.load(SeqCst) {
        thread::sleep(Duration::from_millis(1));
    }
}

/// A key whose comparisons pass its gate, if it has one.
struct Key(u32, Option<Arc<Gate>>);

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.1.iter().chain(&other.1).for_each(|gate| gate.pass());
        self.0 == other.0
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

/// Returns a registry with one shard, which holds the key 1. Only calls reclaim for it.
fn with_one_shard() -> Registry<Key, u32> {
    let registry = Registry::builder().shards(1).domain(Domain::builder().manual().build()).build();
    registry.set(Key(1, None), 1);
    registry
}

/// Runs `f` while another thread holds the shard lock, which it does until `f` opens the gate.
fn while_locked<R>(registry: &Registry<Key, u32>, f: impl FnOnce(&Gate) -> R) -> R {
    let gate = Arc::new(Gate::default());
    let key = Key(1, Some(gate.clone()));
    thread::scope(|scope| {
        scope.spawn(|| assert!(registry.add(key, 2).is_err()));
        wait_until(&gate.is_reached);
        let _open_at_end = Open(&gate);
        f(&gate)
    })
}

/// Runs `f`, which takes the shard lock, on another thread while the lock is held, until a wait was seen that is not
/// short. Checks what is counted. `prepare` runs before the lock is held.
fn assert_waits(registry: &Registry<Key, u32>, prepare: impl Fn(), f: impl Fn() + Sync) {
    // A thread that is late for the lock finds it free. So the lock is held for longer and longer.
    let (mut hold, mut slowest, mut calls) = (Duration::from_millis(20), Duration::ZERO, 0);
    while registry.stats().lock_wait_longest < Duration::from_millis(10) {
        assert!(hold < Duration::from_secs(60), "no wait is seen");
        prepare();
        while_locked(registry, |gate| {
            let begins = AtomicBool::new(false);
            let took = thread::scope(|scope| {
                let call = scope.spawn(|| {
                    begins.store(true, SeqCst);
                    let begin = Instant::now();
                    f();
                    begin.elapsed()
                });
                wait_until(&begins);
                thread::sleep(hold);
                gate.open();
                call.join().unwrap()
            });
            (slowest, calls) = (slowest.max(took), calls + 1);
        });
        hold *= 2;
    }
    let stats = registry.stats();
    assert!((1..=calls).contains(&stats.lock_waits), "{stats}, in {calls} calls");
    assert!(stats.lock_wait_longest <= slowest, "{stats}, and a call took {slowest:?}");
    assert!(stats.lock_wait_longest <= stats.lock_wait_total, "{stats}");
    assert!(stats.lock_wait_total <= stats.lock_wait_longest * calls as u32, "{stats}, in {calls} calls");
    assert!(stats.to_string().contains(&format!("lock waits {} (in all ", stats.lock_waits)), "{stats}");
}

#[test]
fn a_thread_alone_never_waits() {
    let registry = isolated_builder().shards(1).max_entries(50).build();
    for key in 0..200 {
        registry.insert(key, key);
        registry.update(&key, |_, value| value + 1);
        drop(registry.remove(&(key / 2)));
    }
    registry.retain(|key, _| key % 3 > 0);
    registry.domain().reclaim(10);
    registry.clear();
    registry.domain().barrier();
    let stats = registry.stats();
    assert_eq!((stats.lock_waits, stats.lock_wait_total, stats.lock_wait_longest), (0, Duration::ZERO, Duration::ZERO));
}

#[test]
fn a_write_that_waits_for_an_eq_under_the_shard_lock_is_counted_and_timed() {
    let registry = with_one_shard();
    assert_waits(&registry, || (), || assert!(!registry.delete(&Key(2, None))));
}

#[test]
fn a_barrier_that_waits_for_the_lock_of_a_dirty_shard_is_counted_and_timed() {
    let registry = with_one_shard();
    let retire = || {
        registry.set(Key(2, None), 2);
        registry.delete(&Key(2, None));
    };
    assert_waits(&registry, retire, || registry.domain().barrier());
}

#[test]
fn a_read_does_not_wait() {
    let registry = with_one_shard();
    while_locked(&registry, |_| assert_eq!(registry.with(&Key(1, None), |entry| *entry), Some(1)));
    assert_eq!(registry.stats().lock_waits, 0);
}
