//! The store over papaya.

use super::deadlines::{Deadlines, Timed};
use super::{Remaining, Store, When, Write};
use ahash::RandomState;
use epoch_registry::Clock;
use papaya::{Compute, HashMap, Operation};
use std::time::Duration;

pub struct PapayaStore {
    map: HashMap<Box<[u8]>, Timed, RandomState>,
    deadlines: Deadlines,
}

impl PapayaStore {
    pub fn new(clock: impl Clock) -> Self {
        PapayaStore { map: HashMap::with_hasher(RandomState::new()), deadlines: Deadlines::new(clock) }
    }
}

impl Store for PapayaStore {
    fn get(&self, key: &[u8], found: &mut dyn FnMut(Option<&[u8]>)) {
        found(self.deadlines.value(self.map.pin().get(key)));
    }

    fn get_batch(&self, keys: &[&[u8]], found: &mut dyn FnMut(Option<&[u8]>)) {
        let map = self.map.pin();
        for &key in keys {
            found(self.deadlines.value(map.get(key)));
        }
    }

    fn contains(&self, key: &[u8]) -> bool {
        self.deadlines.value(self.map.pin().get(key)).is_some()
    }

    fn set(&self, write: Write<'_>) -> bool {
        let map = self.map.pin();
        if write.when == When::Always {
            map.insert(write.key.into(), self.deadlines.timed(write.value, write.ttl));
            return true;
        }
        // The closure may run again, so it makes the value each time.
        let written = map.compute(write.key.into(), |old| {
            let is_there = old.is_some_and(|(_, timed)| self.deadlines.is_live(timed));
            if is_there == (write.when == When::Present) {
                Operation::Insert(self.deadlines.timed(write.value, write.ttl))
            } else {
                Operation::Abort(())
            }
        });
        !matches!(written, Compute::Aborted(()))
    }

    fn delete(&self, key: &[u8]) -> bool {
        self.deadlines.value(self.map.pin().remove(key)).is_some()
    }

    fn set_ttl(&self, key: &[u8], ttl: Option<Duration>) -> bool {
        let map = self.map.pin();
        let Some(timed) = map.get(key).filter(|timed| self.deadlines.is_live(timed)) else { return false };
        self.deadlines.set_ttl(timed, ttl);
        true
    }

    fn remaining(&self, key: &[u8]) -> Remaining {
        self.deadlines.remaining(self.map.pin().get(key))
    }

    /// Returns all keys in one call: an iteration of the map cannot be resumed.
    fn scan(&self, _cursor: u64, _count: usize, each: &mut dyn FnMut(&[u8])) -> u64 {
        for (key, _) in self.map.pin().iter().filter(|(_, timed)| self.deadlines.is_live(timed)) {
            each(key);
        }
        0
    }

    fn len(&self) -> usize {
        self.map.len()
    }

    fn clear(&self) {
        self.map.pin().clear();
    }

    fn sweep(&self) {
        self.deadlines.sweep(|is_live| self.map.pin().retain(|_, timed| is_live(timed)));
    }
}
