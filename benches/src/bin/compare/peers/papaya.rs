//! papaya's `HashMap`.

use super::{Map, Reads, hasher};
use crate::cases::{Drops, Kind};
use crate::keys::{Key, Value};
use ahash::RandomState;
use papaya::Guard;

pub struct Papaya<K, V>(papaya::HashMap<K, V, RandomState>);

impl<K: Key, V: Value> Reads<K> for Papaya<K, V> {
    const NAME: &'static str = "papaya";
    const KIND: Kind = Kind::LockFree;

    #[inline]
    fn get(&self, key: &K) -> Option<u64> {
        self.0.pin().get(key).map(V::number)
    }

    #[inline]
    fn get_owned(&self, key: &K) -> Option<u64> {
        self.0.pin().get(key).cloned().map(|value| value.number())
    }

    fn held(&self) -> impl FnMut(&K) -> Option<u64> {
        let map = self.0.pin();
        move |key| map.get(key).map(V::number)
    }

    fn held_owned(&self) -> impl FnMut(&K) -> Option<u64> {
        let map = self.0.pin();
        move |key| map.get(key).cloned().map(|value| value.number())
    }

    fn sum(&self) -> u64 {
        self.0.pin().values().map(V::number).sum()
    }
}

impl<K: Key, V: Value> Map<K> for Papaya<K, V> {
    const DROPS: Drops = Drops::Later;

    fn with_capacity(capacity: usize) -> Self {
        Papaya(papaya::HashMap::with_capacity_and_hasher(capacity, hasher()))
    }

    #[inline]
    fn insert(&self, key: K, number: u64) -> bool {
        self.0.pin().insert(key, V::of(number)).is_none()
    }

    #[inline]
    fn remove(&self, key: &K) -> bool {
        self.0.pin().remove(key).is_some()
    }

    #[inline]
    fn replace(&self, key: K, number: u64) {
        self.0.pin().insert(key, V::of(number));
    }

    fn reclaim(&self) {
        self.0.guard().flush();
    }
}
