//! hashbrown behind one lock: a reader-writer lock, or a mutex.

use super::{Map, Reads, hasher};
use crate::cases::{Drops, Kind};
use crate::keys::{Key, Value};
use ahash::RandomState;
use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};

type Inner<K, V> = HashMap<K, V, RandomState>;

pub struct Shared<K, V>(RwLock<Inner<K, V>>);

impl<K: Key, V: Value> Reads<K> for Shared<K, V> {
    const NAME: &'static str = "RwLock<HashMap>";
    const KIND: Kind = Kind::Locking;

    #[inline]
    fn get(&self, key: &K) -> Option<u64> {
        self.0.read().get(key).map(V::number)
    }

    #[inline]
    fn get_owned(&self, key: &K) -> Option<u64> {
        let value = self.0.read().get(key).cloned();
        value.map(|value| value.number())
    }

    fn held(&self) -> impl FnMut(&K) -> Option<u64> {
        let map = self.0.read();
        move |key| map.get(key).map(V::number)
    }

    fn held_owned(&self) -> impl FnMut(&K) -> Option<u64> {
        let map = self.0.read();
        move |key| map.get(key).cloned().map(|value| value.number())
    }

    fn sum(&self) -> u64 {
        self.0.read().values().map(V::number).sum()
    }
}

impl<K: Key, V: Value> Map<K> for Shared<K, V> {
    const DROPS: Drops = Drops::AtOnce;

    fn with_capacity(capacity: usize) -> Self {
        Shared(RwLock::new(HashMap::with_capacity_and_hasher(capacity, hasher())))
    }

    #[inline]
    fn insert(&self, key: K, number: u64) -> bool {
        // The new value is made, and the old one dropped, without the lock.
        let value = V::of(number);
        let old = self.0.write().insert(key, value);
        old.is_none()
    }

    #[inline]
    fn remove(&self, key: &K) -> bool {
        let old = self.0.write().remove(key);
        old.is_some()
    }

    #[inline]
    fn replace(&self, key: K, number: u64) {
        self.insert(key, number);
    }
}

pub struct Exclusive<K, V>(Mutex<Inner<K, V>>);

impl<K: Key, V: Value> Reads<K> for Exclusive<K, V> {
    const NAME: &'static str = "Mutex<HashMap>";
    const KIND: Kind = Kind::Locking;

    #[inline]
    fn get(&self, key: &K) -> Option<u64> {
        self.0.lock().get(key).map(V::number)
    }

    #[inline]
    fn get_owned(&self, key: &K) -> Option<u64> {
        let value = self.0.lock().get(key).cloned();
        value.map(|value| value.number())
    }

    fn sum(&self) -> u64 {
        self.0.lock().values().map(V::number).sum()
    }
}

impl<K: Key, V: Value> Map<K> for Exclusive<K, V> {
    const DROPS: Drops = Drops::AtOnce;

    fn with_capacity(capacity: usize) -> Self {
        Exclusive(Mutex::new(HashMap::with_capacity_and_hasher(capacity, hasher())))
    }

    #[inline]
    fn insert(&self, key: K, number: u64) -> bool {
        let value = V::of(number);
        let old = self.0.lock().insert(key, value);
        old.is_none()
    }

    #[inline]
    fn remove(&self, key: &K) -> bool {
        let old = self.0.lock().remove(key);
        old.is_some()
    }

    #[inline]
    fn replace(&self, key: K, number: u64) {
        self.insert(key, number);
    }
}
