//! The registry.

use super::{Map, Reads, hasher};
use crate::cases::{Idiom, Kind};
use crate::harness::{Lane, Sample, reads, timed};
use crate::keys::{Key, Sets};
use epoch_registry::{Domain, Entry, Handle, LocalHandles, Registry};

pub const LOCAL: &str = "ours, local handles";
/// Entries that a thread has local handles on, at the most.
const PLACES: usize = 4096;

/// A registry in a domain of its own.
pub struct Ours<K: Key>(pub Registry<K, u64>);

#[inline]
fn number<K>(entry: Entry<'_, K, u64>) -> u64 {
    *entry
}

#[inline]
fn owned_number<K: Key>(handle: Handle<K, u64>) -> u64 {
    *handle
}

impl<K: Key> Ours<K> {
    /// The ways to read many keys in one call.
    pub fn batch_lanes<'m>(&'m self, owned: bool) -> Vec<Lane<'m, Sets<K>>> {
        type Turn<'m, K> = Box<dyn Fn(&[K]) -> Sample + 'm>;
        let lane = |(place, (name, turn)): (usize, (&'static str, Turn<'m, K>))| {
            let set = Idiom::Batch as usize + place;
            let turn = Box::new(move |sets: &Sets<K>| turn(&sets[set]));
            Lane { name, idiom: Idiom::Batch, kind: Kind::Ours, set, turn }
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

    /// Owned reads by a session, of handles that the thread counts for itself.
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
            assert!(chunks.remainder().is_empty(), "a turn is so many whole batches");
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

impl<K: Key> Reads<K> for Ours<K> {
    const NAME: &'static str = "ours";
    const KIND: Kind = Kind::Ours;

    #[inline]
    fn get(&self, key: &K) -> Option<u64> {
        self.0.with(key, number)
    }

    #[inline]
    fn get_owned(&self, key: &K) -> Option<u64> {
        self.0.lookup(key).map(owned_number)
    }

    fn session(&self) -> impl FnMut(&K) -> Option<u64> {
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

impl<K: Key> Map<K> for Ours<K> {
    fn with_capacity(capacity: usize) -> Self {
        Ours(Registry::builder().domain(Domain::new()).hasher(hasher()).capacity(capacity).build())
    }

    #[inline]
    fn insert(&self, key: K, number: u64) -> bool {
        self.0.insert(key, number).is_ok()
    }

    #[inline]
    fn remove(&self, key: &K) -> bool {
        self.0.remove(key).is_some()
    }

    #[inline]
    fn replace(&self, key: K, number: u64) {
        self.0.replace(key, number);
    }

    fn destroy(self) {
        let domain = self.0.domain().clone();
        drop(self);
        domain.barrier();
    }
}
