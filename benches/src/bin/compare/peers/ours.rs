//! The registry, with three ways to write it: without handles, with handles, and in batches.

use super::{Map, Reads, our_hasher};
use crate::cases::{Drops, Idiom, Kind};
use crate::harness::{Lane, Sample, reads, timed};
use crate::keys::{Key, Sets, Value};
use epoch_registry::{Domain, Entry, Handle, LocalHandles, Registry};
use std::marker::PhantomData;

/// The name of owned reads with local handles.
pub const LOCAL: &str = "ours, local handles";
/// The largest number of entries on which a thread has local handles.
const PLACES: usize = 4096;

/// A way to write a registry.
pub trait Way: Sync {
    const NAME: &'static str;
    fn insert<K: Key, V: Value>(registry: &Registry<K, V>, key: K, value: V) -> bool;
    fn remove<K: Key, V: Value>(registry: &Registry<K, V>, key: &K) -> bool;
    fn replace<K: Key, V: Value>(registry: &Registry<K, V>, key: K, value: V);

    /// Inserts entries. Returns the number of new keys.
    #[inline]
    fn insert_all<K: Key, V: Value>(registry: &Registry<K, V>, entries: impl Iterator<Item = (K, V)>) -> usize {
        entries.filter_map(|(key, value)| Self::insert(registry, key, value).then_some(())).count()
    }

    /// Removes keys. Returns the number that were present.
    #[inline]
    fn remove_all<'k, K: Key, V: Value>(registry: &Registry<K, V>, keys: impl Iterator<Item = &'k K>) -> usize {
        keys.filter(|key| Self::remove(registry, key)).count()
    }

    /// Replaces the values of keys.
    #[inline]
    fn replace_all<K: Key, V: Value>(registry: &Registry<K, V>, entries: impl Iterator<Item = (K, V)>) {
        entries.for_each(|(key, value)| Self::replace(registry, key, value));
    }
}

/// Writes with the operations that return no handle.
pub struct Quiet;

impl Way for Quiet {
    const NAME: &'static str = "ours";

    #[inline]
    fn insert<K: Key, V: Value>(registry: &Registry<K, V>, key: K, value: V) -> bool {
        registry.add(key, value).is_ok()
    }

    #[inline]
    fn remove<K: Key, V: Value>(registry: &Registry<K, V>, key: &K) -> bool {
        registry.delete(key)
    }

    #[inline]
    fn replace<K: Key, V: Value>(registry: &Registry<K, V>, key: K, value: V) {
        registry.set(key, value);
    }
}

/// Writes with the operations that return a handle, and drops it at once.
pub struct Handles;

impl Way for Handles {
    const NAME: &'static str = "ours, with handles";

    #[inline]
    fn insert<K: Key, V: Value>(registry: &Registry<K, V>, key: K, value: V) -> bool {
        registry.try_insert(key, value).is_ok()
    }

    #[inline]
    fn remove<K: Key, V: Value>(registry: &Registry<K, V>, key: &K) -> bool {
        registry.remove(key).is_some()
    }

    #[inline]
    fn replace<K: Key, V: Value>(registry: &Registry<K, V>, key: K, value: V) {
        registry.insert(key, value);
    }
}

/// Writes many keys in one call, without handles. The registry processes 32 keys at a time.
pub struct Batches;

impl Way for Batches {
    const NAME: &'static str = "ours, in batches";

    #[inline]
    fn insert<K: Key, V: Value>(registry: &Registry<K, V>, key: K, value: V) -> bool {
        Quiet::insert(registry, key, value)
    }

    #[inline]
    fn remove<K: Key, V: Value>(registry: &Registry<K, V>, key: &K) -> bool {
        Quiet::remove(registry, key)
    }

    #[inline]
    fn replace<K: Key, V: Value>(registry: &Registry<K, V>, key: K, value: V) {
        Quiet::replace(registry, key, value);
    }

    fn insert_all<K: Key, V: Value>(registry: &Registry<K, V>, entries: impl Iterator<Item = (K, V)>) -> usize {
        let mut count = 0;
        let replaced = registry.set_many(entries.inspect(|_| count += 1));
        count - replaced
    }

    fn remove_all<'k, K: Key, V: Value>(registry: &Registry<K, V>, keys: impl Iterator<Item = &'k K>) -> usize {
        registry.delete_many(keys)
    }

    fn replace_all<K: Key, V: Value>(registry: &Registry<K, V>, entries: impl Iterator<Item = (K, V)>) {
        registry.set_many(entries);
    }
}

/// A registry in its own domain.
pub struct Ours<K: Key, V: Value = u64, W = Quiet>(pub Registry<K, V>, PhantomData<W>);

#[inline]
fn number<K, V: Value>(entry: Entry<'_, K, V>) -> u64 {
    V::number(&entry)
}

#[inline]
fn owned_number<K: Key, V: Value>(handle: Handle<K, V>) -> u64 {
    V::number(&handle)
}

impl<K: Key> Ours<K> {
    /// Returns a contender for each way to read many keys in one call.
    pub fn batch_lanes<'m>(&'m self, owned: bool) -> Vec<Lane<'m, Sets<K>>> {
        type Turn<'m, K> = Box<dyn Fn(&[K]) -> Sample + 'm>;
        let lane = |(place, (name, turn)): (usize, (&'static str, Turn<'m, K>))| {
            let set = Idiom::Batch as usize + place;
            let turn = Box::new(move |sets: &Sets<K>| turn(&sets[set]));
            Lane { name, idiom: Idiom::Batch, kind: Kind::Ours, set, drops: None, turn }
        };
        let turns: Vec<(&'static str, Turn<'m, K>)> = if owned {
            vec![("ours, lookup_batch of 32", Box::new(|keys| self.lookup_batches(keys, 32)))]
        } else {
            vec![
                ("ours, get_batch of 32", Box::new(|keys| self.batches(keys, 32))),
                ("ours, get_batch of 16", Box::new(|keys| self.batches(keys, 16))),
                ("ours, get_many of 32", Box::new(|keys| self.many::<32>(keys))),
                ("ours, get_many of 16", Box::new(|keys| self.many::<16>(keys))),
            ]
        };
        turns.into_iter().enumerate().map(lane).collect()
    }

    /// Returns a contender for owned reads by a session, with local handles.
    pub fn local_lane(&self) -> Lane<'_, Sets<K>> {
        Lane::new(LOCAL, Idiom::Session, Kind::Ours, move |sets: &Sets<K>| {
            let (mut reader, mut handles) = (self.0.reader(), LocalHandles::new(PLACES));
            reads(&sets[Idiom::Session as usize], |key| reader.get(key).map(|entry| *handles.of(entry)))
        })
    }

    fn batches(&self, keys: &[K], width: usize) -> Sample {
        let mut reader = self.0.reader();
        timed(keys, |keys| {
            let mut sum = 0_u64;
            for keys in keys.chunks(width) {
                reader.view().get_batch(keys, |_, entry| sum = sum.wrapping_add(entry.map_or(1, number)));
            }
            sum
        })
    }

    fn lookup_batches(&self, keys: &[K], width: usize) -> Sample {
        let mut reader = self.0.reader();
        timed(keys, |keys| {
            let mut sum = 0_u64;
            for keys in keys.chunks(width) {
                reader.view().lookup_batch(keys, |_, entry| sum = sum.wrapping_add(entry.map_or(1, owned_number)));
            }
            sum
        })
    }

    fn many<const N: usize>(&self, keys: &[K]) -> Sample {
        let mut reader = self.0.reader();
        timed(keys, |keys| {
            let chunks = keys.chunks_exact(N);
            assert!(chunks.remainder().is_empty(), "a turn must consist of whole batches");
            let mut sum = 0_u64;
            for keys in chunks {
                let keys: &[K; N] = keys.try_into().expect("a chunk has that length");
                for entry in reader.view().get_many(keys.each_ref()) {
                    sum = sum.wrapping_add(entry.map_or(1, number));
                }
            }
            sum
        })
    }
}

impl<K: Key, V: Value, W: Way> Reads<K> for Ours<K, V, W> {
    const NAME: &'static str = W::NAME;
    const KIND: Kind = Kind::Ours;

    #[inline]
    fn get(&self, key: &K) -> Option<u64> {
        self.0.with(key, number::<K, V>)
    }

    #[inline]
    fn get_owned(&self, key: &K) -> Option<u64> {
        self.0.lookup(key).map(owned_number)
    }

    fn session<const SITE: u8>(&self) -> impl FnMut(&K) -> Option<u64> {
        let mut reader = self.0.reader();
        move |key| reader.get(key).map(number)
    }

    fn session_owned(&self) -> impl FnMut(&K) -> Option<u64> {
        let mut reader = self.0.reader();
        move |key| reader.lookup(key).map(owned_number)
    }

    fn held(&self) -> impl FnMut(&K) -> Option<u64> {
        let guard = self.0.pin();
        move |key| guard.get(key).map(number)
    }

    fn held_owned(&self) -> impl FnMut(&K) -> Option<u64> {
        let guard = self.0.pin();
        move |key| guard.lookup(key).map(owned_number)
    }

    fn sum(&self) -> u64 {
        self.0.pin().iter().map(number).sum()
    }
}

/// Returns a new domain whose backup thread runs already, as in a program that has used its domain before. The first
/// retirement in a domain starts the thread. That takes about ten microseconds, as long as a hundred removals.
pub fn running() -> Domain {
    let domain = Domain::new();
    domain.call(|| ());
    domain.barrier();
    domain
}

/// The name of iteration in memory order.
pub const IN_MEMORY_ORDER: &str = "ours, in memory order";

impl<V: Value> Ours<u64, V> {
    pub fn sum_in_memory_order(&self) -> u64 {
        self.0.pin().iter_in_memory_order().map(number).sum()
    }
}

impl<K: Key, V: Value, W: Way> Map<K> for Ours<K, V, W> {
    const DROPS: Drops = Drops::Later;

    fn with_capacity(capacity: usize) -> Self {
        Ours(Registry::builder().domain(running()).hasher(our_hasher()).capacity(capacity).build(), PhantomData)
    }

    #[inline]
    fn insert(&self, key: K, number: u64) -> bool {
        W::insert(&self.0, key, V::of(number))
    }

    #[inline]
    fn remove(&self, key: &K) -> bool {
        W::remove(&self.0, key)
    }

    #[inline]
    fn replace(&self, key: K, number: u64) {
        W::replace(&self.0, key, V::of(number));
    }

    fn insert_all(&self, entries: impl Iterator<Item = (K, u64)>) -> usize {
        W::insert_all(&self.0, entries.map(|(key, number)| (key, V::of(number))))
    }

    fn remove_all<'k>(&self, keys: impl Iterator<Item = &'k K>) -> usize {
        W::remove_all(&self.0, keys)
    }

    fn replace_all(&self, entries: impl Iterator<Item = (K, u64)>) {
        W::replace_all(&self.0, entries.map(|(key, number)| (key, V::of(number))));
    }

    fn reclaim(&self) {
        self.0.domain().barrier();
    }

    fn destroy(self) {
        let domain = self.0.domain().clone();
        drop(self);
        domain.barrier();
    }
}
