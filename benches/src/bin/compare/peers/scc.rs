//! scc's `HashIndex`, whose reads take no lock, and its `HashMap`, whose reads take one.

use super::{Map, Reads, hasher};
use crate::cases::{Drops, Kind};
use crate::keys::{Key, Value};
use ahash::RandomState;
use scc::hash_index::Entry;

pub struct Index<K: Key, V: Value>(scc::HashIndex<K, V, RandomState>);

impl<K: Key, V: Value> Reads<K> for Index<K, V> {
    const NAME: &'static str = "scc HashIndex";
    const KIND: Kind = Kind::LockFree;

    #[inline]
    fn get(&self, key: &K) -> Option<u64> {
        self.0.peek_with(key, |_, value| value.number())
    }

    #[inline]
    fn get_owned(&self, key: &K) -> Option<u64> {
        self.0.peek_with(key, |_, value| value.clone()).map(|value| value.number())
    }

    fn held(&self) -> impl FnMut(&K) -> Option<u64> {
        let guard = scc::Guard::new();
        move |key| self.0.peek(key, &guard).map(V::number)
    }

    fn held_owned(&self) -> impl FnMut(&K) -> Option<u64> {
        let guard = scc::Guard::new();
        move |key| self.0.peek(key, &guard).cloned().map(|value| value.number())
    }

    fn sum(&self) -> u64 {
        self.0.iter(&scc::Guard::new()).map(|(_, value)| value.number()).sum()
    }
}

impl<K: Key, V: Value> Map<K> for Index<K, V> {
    const DROPS: Drops = Drops::Later;

    fn with_capacity(capacity: usize) -> Self {
        Index(scc::HashIndex::with_capacity_and_hasher(capacity, hasher()))
    }

    #[inline]
    fn insert(&self, key: K, number: u64) -> bool {
        self.0.insert_sync(key, V::of(number)).is_ok()
    }

    #[inline]
    fn remove(&self, key: &K) -> bool {
        self.0.remove_sync(key)
    }

    #[inline]
    fn replace(&self, key: K, number: u64) {
        match self.0.entry_sync(key) {
            Entry::Occupied(mut entry) => entry.update(V::of(number)),
            Entry::Vacant(entry) => drop(entry.insert_entry(V::of(number))),
        }
    }

    fn reclaim(&self) {
        Self::reclaim_destroyed();
    }

    fn reclaim_destroyed() {
        scc::Guard::new().accelerate();
    }
}

pub struct Scc<K: Key, V: Value>(scc::HashMap<K, V, RandomState>);

impl<K: Key, V: Value> Reads<K> for Scc<K, V> {
    const NAME: &'static str = "scc HashMap";
    const KIND: Kind = Kind::Locking;

    #[inline]
    fn get(&self, key: &K) -> Option<u64> {
        self.0.read_sync(key, |_, value| value.number())
    }

    #[inline]
    fn get_owned(&self, key: &K) -> Option<u64> {
        self.0.read_sync(key, |_, value| value.clone()).map(|value| value.number())
    }

    fn sum(&self) -> u64 {
        let mut sum = 0;
        self.0.iter_sync(|_, value| {
            sum += value.number();
            true
        });
        sum
    }
}

impl<K: Key, V: Value> Map<K> for Scc<K, V> {
    const DROPS: Drops = Drops::AtOnce;

    fn with_capacity(capacity: usize) -> Self {
        Scc(scc::HashMap::with_capacity_and_hasher(capacity, hasher()))
    }

    #[inline]
    fn insert(&self, key: K, number: u64) -> bool {
        self.0.insert_sync(key, V::of(number)).is_ok()
    }

    #[inline]
    fn remove(&self, key: &K) -> bool {
        self.0.remove_sync(key).is_some()
    }

    #[inline]
    fn replace(&self, key: K, number: u64) {
        self.0.upsert_sync(key, V::of(number));
    }
}
