//! The store over dashmap.

use super::deadlines::{Deadlines, Timed};
use super::{Remaining, Store, When, Write};
use ahash::RandomState;
use dashmap::{DashMap, Entry};
use epoch_registry::Clock;
use std::time::Duration;

pub struct DashMapStore {
    map: DashMap<Box<[u8]>, Timed, RandomState>,
    deadlines: Deadlines,
}

impl DashMapStore {
    pub fn new(clock: impl Clock) -> Self {
        DashMapStore { map: DashMap::with_hasher(RandomState::new()), deadlines: Deadlines::new(clock) }
    }
}

impl Store for DashMapStore {
    fn get(&self, key: &[u8], found: &mut dyn FnMut(Option<&[u8]>)) {
        found(self.deadlines.value(self.map.get(key).as_deref()));
    }

    fn contains(&self, key: &[u8]) -> bool {
        self.deadlines.value(self.map.get(key).as_deref()).is_some()
    }

    fn set(&self, write: Write<'_>) -> bool {
        let new = self.deadlines.timed(write.value, write.ttl);
        if write.when == When::Always {
            self.map.insert(write.key.into(), new);
            return true;
        }
        match self.map.entry(write.key.into()) {
            Entry::Occupied(mut entry) => {
                if self.deadlines.is_live(entry.get()) != (write.when == When::Present) {
                    return false;
                }
                entry.insert(new);
            }
            Entry::Vacant(_) if write.when == When::Present => return false,
            Entry::Vacant(entry) => drop(entry.insert(new)),
        }
        true
    }

    fn delete(&self, key: &[u8]) -> bool {
        let removed = self.map.remove(key);
        self.deadlines.value(removed.as_ref().map(|(_, timed)| timed)).is_some()
    }

    fn set_ttl(&self, key: &[u8], ttl: Option<Duration>) -> bool {
        let Some(timed) = self.map.get(key).filter(|timed| self.deadlines.is_live(timed)) else { return false };
        self.deadlines.set_ttl(&timed, ttl);
        true
    }

    fn remaining(&self, key: &[u8]) -> Remaining {
        self.deadlines.remaining(self.map.get(key).as_deref())
    }

    /// Returns all keys in one call: an iteration of the map cannot be resumed.
    fn scan(&self, _cursor: u64, _count: usize, each: &mut dyn FnMut(&[u8])) -> u64 {
        for entry in self.map.iter().filter(|entry| self.deadlines.is_live(entry.value())) {
            each(entry.key());
        }
        0
    }

    fn len(&self) -> usize {
        self.map.len()
    }

    fn clear(&self) {
        self.map.clear();
    }

    fn sweep(&self) {
        self.deadlines.sweep(|is_live| self.map.retain(|_, timed| is_live(timed)));
    }
}
