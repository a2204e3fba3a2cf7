//! Two limits: hashbrown without synchronisation, which cannot be written while it is read, and a whole map behind
//! arc-swap, which can only be written by copying the whole map.

use super::{Reads, hasher};
use crate::cases::Kind;
use crate::keys::{Key, Value};
use ahash::RandomState;
use arc_swap::{ArcSwap, Cache};
use hashbrown::HashMap;
use std::sync::Arc;

fn filled<K: Key, V: Value>(size: usize) -> HashMap<K, V, RandomState> {
    let mut map = HashMap::with_capacity_and_hasher(size, hasher());
    map.extend((0..size as u64).map(|number| (K::of(number), V::of(number))));
    map
}

pub struct Plain<K, V>(HashMap<K, V, RandomState>);

impl<K: Key, V: Value> Plain<K, V> {
    pub fn filled(size: usize) -> Self {
        Plain(filled(size))
    }
}

impl<K: Key, V: Value> Reads<K> for Plain<K, V> {
    const NAME: &'static str = "hashbrown, unsynchronised";
    const KIND: Kind = Kind::Limit;

    #[inline]
    fn get(&self, key: &K) -> Option<u64> {
        self.0.get(key).map(V::number)
    }

    #[inline]
    fn get_owned(&self, key: &K) -> Option<u64> {
        self.0.get(key).cloned().map(|value| value.number())
    }

    fn sum(&self) -> u64 {
        self.0.values().map(V::number).sum()
    }
}

pub struct Swapped<K, V>(ArcSwap<HashMap<K, V, RandomState>>);

impl<K: Key, V: Value> Swapped<K, V> {
    pub fn filled(size: usize) -> Self {
        Swapped(ArcSwap::from_pointee(filled(size)))
    }
}

impl<K: Key, V: Value> Reads<K> for Swapped<K, V> {
    const NAME: &'static str = "arc-swap of a HashMap";
    const KIND: Kind = Kind::Limit;

    #[inline]
    fn get(&self, key: &K) -> Option<u64> {
        self.0.load().get(key).map(V::number)
    }

    #[inline]
    fn get_owned(&self, key: &K) -> Option<u64> {
        self.0.load().get(key).cloned().map(|value| value.number())
    }

    fn session<const SITE: u8>(&self) -> impl FnMut(&K) -> Option<u64> {
        let mut cache = Cache::<_, Arc<HashMap<K, V, RandomState>>>::new(&self.0);
        move |key| cache.load().get(key).map(V::number)
    }

    fn session_owned(&self) -> impl FnMut(&K) -> Option<u64> {
        let mut cache = Cache::<_, Arc<HashMap<K, V, RandomState>>>::new(&self.0);
        move |key| cache.load().get(key).cloned().map(|value| value.number())
    }

    fn sum(&self) -> u64 {
        self.0.load().values().map(V::number).sum()
    }
}
