//! dashmap's `DashMap`.

use super::{Map, Reads, hasher};
use crate::cases::{Drops, Kind};
use crate::keys::{Key, Value};
use ahash::RandomState;

pub struct Dash<K, V>(dashmap::DashMap<K, V, RandomState>);

impl<K: Key, V: Value> Reads<K> for Dash<K, V> {
    const NAME: &'static str = "dashmap";
    const KIND: Kind = Kind::Locking;

    #[inline]
    fn get(&self, key: &K) -> Option<u64> {
        self.0.get(key).map(|value| value.number())
    }

    #[inline]
    fn get_owned(&self, key: &K) -> Option<u64> {
        // The lock is released before the clone is used.
        let value = self.0.get(key).map(|value| value.clone());
        value.map(|value| value.number())
    }

    fn sum(&self) -> u64 {
        self.0.iter().map(|entry| entry.value().number()).sum()
    }
}

impl<K: Key, V: Value> Map<K> for Dash<K, V> {
    const DROPS: Drops = Drops::AtOnce;

    fn with_capacity(capacity: usize) -> Self {
        Dash(dashmap::DashMap::with_capacity_and_hasher(capacity, hasher()))
    }

    #[inline]
    fn insert(&self, key: K, number: u64) -> bool {
        self.0.insert(key, V::of(number)).is_none()
    }

    #[inline]
    fn remove(&self, key: &K) -> bool {
        self.0.remove(key).is_some()
    }

    #[inline]
    fn replace(&self, key: K, number: u64) {
        self.0.insert(key, V::of(number));
    }
}
