//! User code that calls the registry that called it.

use crate::common::*;
use epoch_registry::{Cursor, Domain, Equivalent, Registry};
use std::cell::Cell;
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Weak};

/// Calls nearly every method, with keys of its own (1,000 to 1,003).
fn use_everything<V: Send + Sync + Default + 'static>(registry: &Registry<u64, V>) {
    drop(registry.try_insert(1000, V::default()));
    drop(registry.insert(1001, V::default()));
    drop(registry.update(&1001, |_, _| V::default()));
    drop(registry.get_or_insert_with(1002, V::default));
    assert!(registry.lookup(&1000).is_some());
    assert_eq!(registry.with(&1000, |entry| *entry.key()), Some(1000));
    assert!(registry.pin().iter().any(|entry| *entry.key() == 1001));
    assert!(registry.reader().get(&1002).is_some());
    registry.scan(&mut Cursor::new(), 10, |_| ());
    drop(registry.remove(&1000));
    drop(registry.remove_if(&1001, |_, _| true));
    registry.retain(|&key, _| key != 1002);
    registry.reap_if(10, |entry| *entry.key() == 1003);
    registry.shrink_to_fit();
    registry.reserve(10);
    let _ = (registry.stats(), registry.len(), registry.capacity(), registry.table_bytes());
    registry.domain().reclaim(10);
}

/// A value whose `Drop` uses the registry.
#[derive(Default)]
struct Reenters(Option<Arc<Shared>>);

struct Shared {
    registry: std::sync::OnceLock<Weak<Registry<u64, Reenters>>>,
    drops: AtomicU64,
}

impl Drop for Reenters {
    fn drop(&mut self) {
        let Some(shared) = self.0.take() else { return };
        shared.drops.fetch_add(1, SeqCst);
        if let Some(registry) = shared.registry.get().and_then(Weak::upgrade) {
            use_everything(&registry);
        }
    }
}

fn reentering() -> (Arc<Registry<u64, Reenters>>, Arc<Shared>) {
    let registry = Arc::new(isolated());
    let shared = Arc::new(Shared { registry: Default::default(), drops: AtomicU64::new(0) });
    shared.registry.set(Arc::downgrade(&registry)).unwrap();
    (registry, shared)
}

#[test]
fn the_drop_of_a_value_may_use_its_registry() {
    in_time(|| {
        let (registry, shared) = reentering();
        let value = || Reenters(Some(Arc::clone(&shared)));
        (0..300).for_each(|key| drop(registry.try_insert(key, value())));
        drop(registry.try_insert(0, value()));
        (0..100).for_each(|key| drop(registry.remove(&key)));
        (100..150).for_each(|key| drop(registry.insert(key, value())));
        registry.retain(|key, _| key % 2 == 0);
        registry.drain().take(20).for_each(drop);
        registry.reap_if(20, |_| true);
        registry.clear();
        for _ in 0..3 {
            registry.domain().barrier();
        }
        assert_eq!(shared.drops.load(SeqCst), 351);
        assert_eq!(registry.stats().drop_panics, 0);
    });
}

#[test]
fn the_drop_of_a_value_may_clear_and_drain_its_registry() {
    in_time(|| {
        let registry: Arc<Registry<u64, OnDrop>> = Arc::new(isolated());
        let drops = Arc::new(AtomicU64::new(0));
        for round in 0..200u64 {
            let (inner, drops) = (Arc::downgrade(&registry), Arc::clone(&drops));
            drop(registry.insert(
                round % 50,
                OnDrop::new(move || {
                    drops.fetch_add(1, SeqCst);
                    if let Some(registry) = inner.upgrade() {
                        if round % 2 == 0 { registry.clear() } else { registry.drain().for_each(drop) }
                    }
                }),
            ));
            if round % 7 == 0 {
                registry.domain().barrier();
            }
        }
        registry.clear();
        for _ in 0..3 {
            registry.domain().barrier();
        }
        assert_eq!((drops.load(SeqCst), registry.stats().drop_panics), (200, 0));
    });
}

/// A key whose `Hash` and `Drop` use another registry.
struct Key {
    number: u64,
    other: Arc<Registry<u64, u64>>,
}

impl Key {
    fn visit(&self) {
        thread_local!(static INSIDE: Cell<bool> = const { Cell::new(false) });
        if !INSIDE.replace(true) {
            use_everything(&self.other);
            INSIDE.set(false);
        }
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.visit();
        self.number.hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        // An `Eq` may read under the lock.
        assert!(self.other.lookup(&5).is_some() && self.other.pin().get(&5).is_some());
        assert!(self.other.pin().iter().next().is_some() && self.other.reader().contains_key(&5));
        let _ = (self.other.len(), self.other.stats());
        self.number == other.number
    }
}

impl Eq for Key {}

impl Drop for Key {
    fn drop(&mut self) {
        self.visit();
    }
}

#[test]
fn hash_and_drop_of_a_key_may_write_and_its_eq_may_read() {
    in_time(|| {
        let other = Arc::new(isolated());
        other.try_insert(5, 5).unwrap();
        let key = |number| Key { number, other: Arc::clone(&other) };
        let registry: Registry<Key, u64> = isolated();
        for number in 0..50 {
            registry.try_insert(key(number), number).unwrap();
            assert!(registry.try_insert(key(number), 0).is_err());
            assert_eq!(registry.insert(key(number), number + 1).map(|old| *old), Some(number));
            assert_eq!(*registry.lookup(&key(number)).unwrap(), number + 1);
        }
        (0..50).for_each(|number| assert!(registry.remove(&key(number)).is_some()));
        registry.domain().barrier();
        assert_eq!(registry.stats().drop_panics, 0);
    });
}

#[test]
fn closures_may_use_their_registry() {
    in_time(|| {
        let registry: Registry<u64, u64> = isolated();
        let all = || use_everything(&registry);
        (0..100).for_each(|key| drop(registry.try_insert(key, key)));
        assert_eq!(registry.update(&1, |_, n| (all(), n + 1).1).map(|new| *new), Some(2));
        assert_eq!(*registry.get_or_insert_with(500, || (all(), 7).1), 7);
        assert!(registry.remove_if(&2, |_, _| (all(), true).1).is_some());
        registry.retain(|&key, _| (all(), key != 3).1);
        assert_eq!(registry.reap_if(usize::MAX, |entry| (all(), *entry.key() == 4).1).removed, 1);
        let mut cursor = Cursor::new();
        while !cursor.is_done() {
            registry.scan(&mut cursor, 10, |_| all());
        }
        registry.pin().get_batch(&[1, 2, 3], |_, _| all());
        registry.reader().offline(all);
        // The closure removes the entry that it borrows, and uses it until its end.
        assert_eq!(registry.with(&5, |entry| (drop(registry.remove(&5)), all(), *entry).2), Some(5));
        for removed in [2, 3, 4, 5] {
            assert!(!registry.contains_key(&removed));
        }
        assert_eq!(registry.len(), 97);
    });
}

/// Each closure clears the registry that called it.
#[test]
fn closures_may_clear_their_registry() {
    in_time(|| {
        let registry: Registry<u64, u64> = isolated();
        let fill = || (0..200).for_each(|key| drop(registry.try_insert(key, key)));
        fill();
        assert!(
            registry.update(&1, |_, n| (registry.clear(), n + 1).1).is_none(),
            "the update found an entry that was cleared"
        );
        fill();
        assert!(registry.remove_if(&1, |_, _| (registry.clear(), true).1).is_none());
        fill();
        registry.retain(|_, _| (registry.clear(), false).1);
        fill();
        registry.reap_if(usize::MAX, |_| (registry.clear(), true).1);
        fill();
        for entry in registry.pin().iter() {
            registry.clear();
            assert_eq!(*entry.key(), *entry);
        }
        fill();
        registry.scan(&mut Cursor::new(), 100, |entry| {
            registry.clear();
            assert_eq!(*entry.key(), *entry);
        });
        registry.domain().barrier();
        assert_eq!((registry.len(), registry.stats().backlog), (0, 0));
    });
}

#[test]
fn registries_domains_and_handles_may_be_dropped_in_destructors() {
    in_time(|| {
        let ledger = Ledger::new();
        for same_domain in [true, false] {
            let outer: Registry<u64, OnDrop> = isolated();
            for key in 0..10 {
                let domain = if same_domain { outer.domain().clone() } else { Domain::new() };
                let inner = Registry::builder().domain(domain.clone()).build();
                (0..20).for_each(|key| drop(inner.try_insert(key, ledger.value(key))));
                let handle = inner.remove(&3).unwrap();
                drop(inner.remove(&4));
                drop(outer.try_insert(key, OnDrop::new(move || drop((inner, domain, handle)))));
            }
            outer.clear();
            outer.domain().barrier();
            assert_eq!(ledger.live(), 0, "one barrier does not cover everything, in one domain: {same_domain}");
            assert_eq!(outer.stats().drop_panics, 0);
        }
        assert_eq!(ledger.created(), 400);
    });
}

#[test]
fn a_callback_may_drop_a_registry_that_holds_the_last_handle_to_the_domain() {
    in_time(|| {
        let ledger = Ledger::new();
        let domain = Domain::builder().reclaimer(true).build();
        let registry = Registry::builder().domain(domain.clone()).build();
        (0..100).for_each(|key| drop(registry.try_insert(key, ledger.value(key))));
        domain.call(move || drop(registry));
        drop(domain);
        assert!(soon(|| ledger.live() == 0));
    });
}

/// A key whose `Eq` writes.
struct Writes(u64, Arc<Registry<u64, u64>>, Arc<AtomicU64>);

impl Hash for Writes {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl PartialEq for Writes {
    fn eq(&self, other: &Self) -> bool {
        if self.2.load(SeqCst) > 0 {
            drop(self.1.try_insert(9, 9));
        }
        self.0 == other.0
    }
}

impl Eq for Writes {}

#[test]
fn an_eq_that_writes_panics_and_leaves_both_registries_usable() {
    const MESSAGE: &str = "a write to a registry from within the `Eq` of a key, which runs under a shard lock";
    let (target, writes) = (Arc::new(isolated()), Arc::new(AtomicU64::new(0)));
    let key = || Writes(1, Arc::clone(&target), Arc::clone(&writes));
    let registry: Registry<Writes, u64> = isolated();
    registry.try_insert(key(), 1).unwrap();
    writes.store(1, SeqCst);
    for write in [&(|| drop(registry.try_insert(key(), 2))) as &dyn Fn(), &|| drop(registry.insert(key(), 2)), &|| {
        drop(registry.remove(&key()))
    }] {
        assert_eq!(panic_of(write), MESSAGE);
        assert!(target.is_empty());
    }
    // A lookup holds no lock, so its `Eq` may write.
    assert!(catch_unwind(AssertUnwindSafe(|| registry.lookup(&key()))).unwrap().is_some());
    assert_eq!(target.remove(&9).map(|nine| *nine), Some(9));
    writes.store(0, SeqCst);
    assert_eq!(registry.insert(key(), 2).map(|old| *old), Some(1));
    assert_eq!(registry.remove(&key()).map(|old| *old), Some(2));
    assert!(target.try_insert(1, 1).is_ok());
}

/// A key of another type, whose `equivalent` writes.
struct Finder<'r>(u64, &'r Registry<u64, u64>);

impl Hash for Finder<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl Equivalent<u64> for Finder<'_> {
    fn equivalent(&self, key: &u64) -> bool {
        drop(self.1.try_insert(*key, 0));
        self.0 == *key
    }
}

#[test]
fn an_equivalent_may_write_in_a_lookup_and_not_in_a_removal() {
    let (registry, other): (Registry<u64, u64>, Registry<u64, u64>) = (isolated(), isolated());
    registry.try_insert(1, 1).unwrap();
    let finder = Finder(1, &other);
    assert!(panic_of(|| drop(registry.remove(&finder))).starts_with("a write to a registry from within the `Eq`"));
    assert!(registry.contains_key(&1) && other.is_empty());
    assert_eq!(registry.with(&finder, |entry| *entry), Some(1));
    assert!(other.contains_key(&1));
}

/// A key whose `Eq` reads every size of a registry.
struct Reads(u64, Arc<Registry<u64, u64>>);

impl Hash for Reads {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl PartialEq for Reads {
    fn eq(&self, other: &Self) -> bool {
        let _ = (self.1.capacity(), self.1.table_bytes(), format!("{:?}", self.1));
        self.0 == other.0
    }
}

impl Eq for Reads {}

#[test]
fn an_eq_may_read_the_size_of_a_registry() {
    let other = Arc::new(isolated());
    let registry: Registry<Reads, u64> = isolated();
    registry.try_insert(Reads(1, Arc::clone(&other)), 1).unwrap();
    assert!(registry.try_insert(Reads(1, Arc::clone(&other)), 2).is_err());
}
