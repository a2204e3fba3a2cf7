//! Reserved keys: who waits, who does not, and what is left when a reservation ends.

use crate::common::{OnDrop, clocked, in_time, isolated, isolated_builder, panic_of, poll};
use epoch_registry::{Domain, KeyReserved, Registry, WhenFull};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

type Write = (&'static str, fn(&Registry<u64, u64>));

/// The writes that name a key: they wait while it is reserved.
const BY_KEY: &[Write] = &[
    ("insert", |registry| drop(registry.insert(1, 9))),
    ("insert_and_get", |registry| drop(registry.insert_and_get(1, 9))),
    ("try_insert", |registry| drop(registry.try_insert(1, 9))),
    ("set", |registry| _ = registry.set(1, 9)),
    ("add", |registry| drop(registry.add(1, 9))),
    ("set_many", |registry| _ = registry.set_many([(1, 9)])),
    ("update", |registry| drop(registry.update(&1, |_, _| 9))),
    ("update_or_insert", |registry| drop(registry.update_or_insert(1, |_, _| 9, || 9))),
    ("compute", |registry| drop(registry.compute(1, |_, _| epoch_registry::Change::Remove))),
    ("replace_handle", |registry| drop(registry.replace_handle(&registry.lookup(&1).unwrap(), 9))),
    ("remove", |registry| drop(registry.remove(&1))),
    ("delete", |registry| _ = registry.delete(&1)),
    ("remove_if", |registry| drop(registry.remove_if(&1, |_, _| true))),
    ("delete_many", |registry| _ = registry.delete_many(&[1])),
    ("try_insert_hashed", |registry| drop(registry.try_insert_hashed(registry.hash_of(&1), 1, 9))),
    ("fallible insert", |registry| drop(registry.fallible().insert(1, 9))),
    ("fallible remove", |registry| drop(registry.fallible().remove(&1))),
    ("reserve_key", |registry| drop(registry.reserve_key(1))),
    ("reserve_key_timeout", |registry| drop(registry.reserve_key_timeout(1, Duration::MAX).unwrap())),
];

/// What removes entries without naming keys: it does not wait.
const NOT_BY_KEY: &[Write] = &[
    ("remove_handle", |registry| assert!(registry.remove_handle(&registry.lookup(&1).unwrap()))),
    ("retain", |registry| registry.retain(|_, _| false)),
    ("drain", |registry| assert_eq!(registry.drain().count(), 1)),
    ("clear", |registry| registry.clear()),
    ("reap_if", |registry| assert_eq!(registry.reap_if(10, |_| true).removed, 1)),
    ("evict", |registry| assert_eq!(registry.evict(1), 1)),
];

#[test]
fn writes_that_name_a_reserved_key_wait_and_go_on_when_it_is_free() {
    for (name, write) in BY_KEY {
        let registry = isolated();
        registry.set(1, 1);
        let reservation = registry.reserve_key(1);
        let (done, is_done) = mpsc::channel();
        in_time(|| {
            thread::scope(|scope| {
                scope.spawn(|| {
                    write(&registry);
                    done.send(()).unwrap();
                });
                assert!(is_done.recv_timeout(Duration::from_millis(20)).is_err(), "{name} did not wait");
                assert_eq!(registry.with(&1, |value| *value), Some(1), "a reader waits, or {name} has written");
                // Writes of other keys do not wait.
                registry.set(2, 2);
                drop(reservation);
                is_done.recv_timeout(Duration::from_secs(50)).unwrap_or_else(|_| panic!("{name} did not go on"));
            });
        });
    }
}

#[test]
fn removals_that_do_not_name_the_key_do_not_wait() {
    for (name, remove) in NOT_BY_KEY {
        let registry = isolated();
        registry.set(1, 1);
        in_time(|| {
            let reservation = registry.reserve_key(1);
            remove(&registry);
            assert!(reservation.entry().is_none() && registry.is_empty(), "{name}");
            // The reservation outlives the entry.
            assert!(registry.try_reserve_key(1).is_err(), "{name}");
            assert!(reservation.insert(2).is_none(), "{name}");
            assert_eq!(registry.with(&1, |value| *value), Some(2), "{name}");
        });
    }
}

#[test]
fn a_caller_that_wants_a_key_for_so_long_gets_it_or_gets_its_own_key_back() {
    let registry: Registry<String, u64> = isolated();
    let key = |registry: &Registry<String, u64>, timeout| registry.reserve_key_timeout("a".into(), timeout).map(drop);
    assert_eq!(key(&registry, Duration::ZERO), Ok(()));
    let reservation = registry.reserve_key("a".into());
    for timeout in [0, 1, 20].map(Duration::from_millis) {
        let since = Instant::now();
        assert_eq!(key(&registry, timeout), Err(KeyReserved("a".into())));
        assert!(since.elapsed() >= timeout);
    }
    in_time(|| {
        thread::scope(|scope| {
            let waiter = scope.spawn(|| key(&registry, Duration::from_secs(50)));
            thread::sleep(Duration::from_millis(20));
            drop(reservation);
            assert_eq!(waiter.join().unwrap(), Ok(()));
        });
    });
    // Within the closure that the registry runs for the key.
    registry.get_or_insert_with("a".into(), || {
        let message = panic_of(|| drop(key(&registry, Duration::from_secs(50))));
        assert!(message.contains("it would wait for itself"), "{message}");
        1
    });
}

#[test]
fn every_end_of_a_reservation_frees_the_key() {
    let registry = isolated();
    drop(registry.reserve_key(1));
    assert!(registry.reserve_key(1).insert(1).is_none());
    assert_eq!(registry.reserve_key(1).insert(2).as_deref(), Some(&1));
    assert_eq!(*registry.reserve_key(1).insert_and_get(3), 3);
    assert_eq!(registry.reserve_key(1).remove().as_deref(), Some(&3));
    assert!(registry.reserve_key(1).remove().is_none());
    let reservation = registry.try_reserve_key(1).unwrap();
    assert_eq!(registry.try_reserve_key(1).unwrap_err().0, 1);
    drop(reservation);
    assert!(registry.try_reserve_key(1).is_ok() && registry.is_empty());
    let stats = registry.stats();
    assert_eq!((stats.inserted, stats.replaced, stats.removed), (3, 2, 1));
}

#[test]
fn a_reservation_moves_to_another_thread() {
    let registry = isolated();
    let reservation = registry.reserve_key(1);
    thread::scope(|scope| _ = scope.spawn(move || reservation.insert(1)));
    assert!(registry.contains_key(&1));
}

#[test]
fn a_forgotten_reservation_ends_with_the_registry() {
    let drops = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&drops);
    let registry: Registry<String, OnDrop> = isolated();
    std::mem::forget(registry.reserve_key("a".to_string()));
    registry.set("b".to_string(), OnDrop::new(move || _ = counted.fetch_add(1, SeqCst)));
    assert!(registry.try_reserve_key("a".to_string()).is_err());
    drop(registry);
    assert_eq!(drops.load(SeqCst), 1);
}

/// A key whose drop writes to a registry.
#[derive(Clone)]
struct Writes(u64, Arc<Registry<u64, u64>>);

impl PartialEq for Writes {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl Eq for Writes {}
impl std::hash::Hash for Writes {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}
impl Drop for Writes {
    fn drop(&mut self) {
        self.1.set(self.0, 1);
    }
}

#[test]
fn the_drop_of_a_reserved_key_may_write() {
    let drops = Arc::new(isolated());
    let registry = isolated::<Writes, u64>();
    let key = |number| Writes(number, Arc::clone(&drops));
    drop(registry.reserve_key(key(1)));
    assert!(drops.contains_key(&1));
    drops.clear();
    drop(registry.reserve_key(key(2)).remove());
    assert!(drops.contains_key(&2));
    drops.clear();
    // A key that is inserted is not dropped.
    registry.reserve_key(key(3)).insert(3);
    assert!(drops.is_empty());
    drop(registry.try_reserve_key(key(3)).map(|reservation| {
        drop(registry.try_reserve_key(key(3)).unwrap_err());
        assert!(drops.contains_key(&3));
        reservation.insert(4)
    }));
    drop(registry);
}

#[test]
fn a_reserved_insertion_evicts_and_obeys_the_limits() {
    let registry: Registry<u64, u64> = isolated_builder().shards(1).max_entries(2).build();
    for key in 0..10 {
        assert_eq!(*registry.reserve_key(key).insert_and_get(key), key);
        assert!(registry.len() <= 2);
    }
    assert_eq!(registry.stats().evicted, 8);

    let domain = Domain::builder().backlog_objects(1).when_full(WhenFull::Refuse).build();
    let registry: Registry<u64, u64> = Registry::builder().domain(domain.clone()).build();
    registry.set(1, 1);
    let reading = domain.pin();
    assert_eq!(registry.fallible().update(&1, |_, old| old + 1).unwrap().as_deref(), Some(&2));
    assert_eq!(registry.fallible().update(&1, |_, old| old + 1).unwrap_err().0, 3, "the value comes back");
    assert!(registry.try_reserve_key(1).is_ok(), "a refused update keeps its reservation");
    drop(reading);
}

#[test]
fn a_reservation_outlives_the_expiry_of_its_entry() {
    let (builder, clock) = clocked::<u64, u64>();
    let registry = builder.max_age(Duration::from_secs(10)).build();
    registry.set(1, 1);
    let reservation = registry.reserve_key(1);
    clock.advance(Duration::from_secs(11));
    assert!(reservation.entry().is_none());
    assert_eq!(*reservation.insert_and_get(2), 2);
    assert_eq!((registry.stats().expired, registry.len()), (1, 1));
}

#[test]
fn tasks_take_turns_at_a_key() {
    let registry = isolated::<u64, u64>();
    let first = registry.reserve_key(1);
    let mut second = pin!(registry.reserve_key_async(1));
    assert!(poll(second.as_mut()).is_pending());
    first.insert(1);
    let std::task::Poll::Ready(second) = poll(second.as_mut()) else { panic!("the key is free") };
    assert_eq!(second.entry().as_deref(), Some(&1));
}
