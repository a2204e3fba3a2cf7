//! flurry's `HashMap`.

use super::{Map, Reads, hasher};
use crate::cases::{Drops, Kind};
use crate::keys::{Key, Value};
use ahash::RandomState;

pub struct Flurry<K, V>(flurry::HashMap<K, V, RandomState>);

impl<K: Key, V: Value> Reads<K> for Flurry<K, V> {
    const NAME: &'static str = "flurry";
    const KIND: Kind = Kind::LockFree;

    #[inline]
    fn get(&self, key: &K) -> Option<u64> {
        self.0.get(key, &self.0.guard()).map(V::number)
    }

    #[inline]
    fn get_owned(&self, key: &K) -> Option<u64> {
        self.0.get(key, &self.0.guard()).cloned().map(|value| value.number())
    }

    fn held(&self) -> impl FnMut(&K) -> Option<u64> {
        let guard = self.0.guard();
        move |key| self.0.get(key, &guard).map(V::number)
    }

    fn held_owned(&self) -> impl FnMut(&K) -> Option<u64> {
        let guard = self.0.guard();
        move |key| self.0.get(key, &guard).cloned().map(|value| value.number())
    }

    fn sum(&self) -> u64 {
        self.0.values(&self.0.guard()).map(V::number).sum()
    }
}

impl<K: Key, V: Value> Map<K> for Flurry<K, V> {
    const DROPS: Drops = Drops::Later;

    fn with_capacity(capacity: usize) -> Self {
        Flurry(flurry::HashMap::with_capacity_and_hasher(capacity, hasher()))
    }

    #[inline]
    fn insert(&self, key: K, number: u64) -> bool {
        self.0.insert(key, V::of(number), &self.0.guard()).is_none()
    }

    #[inline]
    fn remove(&self, key: &K) -> bool {
        self.0.remove(key, &self.0.guard()).is_some()
    }

    #[inline]
    fn replace(&self, key: K, number: u64) {
        self.0.insert(key, V::of(number), &self.0.guard());
    }

    fn reclaim(&self) {
        self.0.guard().flush();
    }
}
