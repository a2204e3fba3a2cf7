//! The store over a `HashMap` behind a mutex.

use super::deadlines::{Deadlines, Timed};
use super::{Remaining, Store, When, Write};
use ahash::RandomState;
use epoch_registry::Clock;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::Duration;

pub struct MutexStore {
    map: Mutex<HashMap<Box<[u8]>, Timed, RandomState>>,
    deadlines: Deadlines,
}

impl MutexStore {
    pub fn new(clock: impl Clock) -> Self {
        MutexStore { map: Mutex::new(HashMap::with_hasher(RandomState::new())), deadlines: Deadlines::new(clock) }
    }
}

impl Store for MutexStore {
    fn get(&self, key: &[u8], found: &mut dyn FnMut(Option<&[u8]>)) {
        found(self.deadlines.value(self.map.lock().get(key)));
    }

    fn get_batch(&self, keys: &[&[u8]], found: &mut dyn FnMut(Option<&[u8]>)) {
        let map = self.map.lock();
        for &key in keys {
            found(self.deadlines.value(map.get(key)));
        }
    }

    fn contains(&self, key: &[u8]) -> bool {
        self.deadlines.value(self.map.lock().get(key)).is_some()
    }

    fn set(&self, write: Write<'_>) -> bool {
        let (key, new) = (Box::from(write.key), self.deadlines.timed(write.value, write.ttl));
        let old;
        {
            let mut map = self.map.lock();
            let is_there = || map.get(write.key).is_some_and(|timed| self.deadlines.is_live(timed));
            let holds = match write.when {
                When::Always => true,
                When::Absent => !is_there(),
                When::Present => is_there(),
            };
            if !holds {
                return false;
            }
            old = map.insert(key, new);
        }
        // After the lock.
        drop(old);
        true
    }

    fn delete(&self, key: &[u8]) -> bool {
        let removed = self.map.lock().remove(key);
        self.deadlines.value(removed.as_ref()).is_some()
    }

    fn set_ttl(&self, key: &[u8], ttl: Option<Duration>) -> bool {
        let map = self.map.lock();
        let Some(timed) = map.get(key).filter(|timed| self.deadlines.is_live(timed)) else { return false };
        self.deadlines.set_ttl(timed, ttl);
        true
    }

    fn remaining(&self, key: &[u8]) -> Remaining {
        self.deadlines.remaining(self.map.lock().get(key))
    }

    /// Returns all keys in one call: an iteration of the map cannot be resumed after a change.
    fn scan(&self, _cursor: u64, _count: usize, each: &mut dyn FnMut(&[u8])) -> u64 {
        let map = self.map.lock();
        for (key, _) in map.iter().filter(|(_, timed)| self.deadlines.is_live(timed)) {
            each(key);
        }
        0
    }

    fn len(&self) -> usize {
        self.map.lock().len()
    }

    fn clear(&self) {
        let old = std::mem::take(&mut *self.map.lock());
        drop(old);
    }

    fn sweep(&self) {
        self.deadlines.sweep(|is_live| self.map.lock().retain(|_, timed| is_live(timed)));
    }
}
