//! The random operations of a worker, and the effect that each result proves.

use super::checker::Effect;
use super::worker::{FILLERS, Key, Worker, pause};
use epoch_registry::Handle;

fn value_of(handle: Option<Handle<Key, u64>>) -> Option<u64> {
    handle.map(|handle| *handle)
}

fn removed(old: Option<u64>) -> Effect {
    if old.is_some() { Effect::Changed(old, None) } else { Effect::Saw(None) }
}

impl<'r> Worker<'r> {
    /// The operations that a history may consist of. Each history leaves some of them out. The others then meet more
    /// often than if every history had all operations (swarm testing).
    pub const OPERATIONS: [fn(&mut Self, usize); 21] = [
        Self::insert,
        Self::replace,
        Self::get_or_insert,
        Self::replace,
        Self::update,
        Self::remove,
        Self::remove_if,
        Self::remove_handle,
        Self::reap,
        Self::clear,
        Self::evict,
        Self::disturb,
        Self::drain,
        Self::disturb,
        Self::disturb,
        Self::get_by_guard,
        Self::get_by_session,
        Self::watch,
        Self::lookup,
        Self::contains,
        Self::batch,
    ];

    pub fn insert(&mut self, key: usize) {
        let value = self.value();
        self.call(key, "insert", |_, map, key| match map.try_insert(key, value) {
            Ok(_) => Effect::Changed(None, Some(value)),
            Err(occupied) => Effect::Saw(Some(*occupied.entry)),
        });
    }

    fn replace(&mut self, key: usize) {
        let value = self.value();
        if self.rng.below(2) == 0 {
            return self.call(key, "try_replace", |worker, map, key| match map.fallible().insert(key, value) {
                Ok(old) => Effect::Changed(value_of(old), Some(value)),
                // The write may fail because the evicted entry finds no room. Then it says nothing about the key.
                Err(_) if worker.round.bounded => Effect::MayHaveCleared,
                Err(_) => Effect::SawSome,
            });
        }
        self.call(key, "replace", |_, map, key| Effect::Changed(value_of(map.insert(key, value)), Some(value)));
    }

    fn get_or_insert(&mut self, key: usize) {
        let value = self.value();
        let make = || {
            pause();
            value
        };
        self.call(key, "get_or_insert_with", |_, map, key| match *map.get_or_insert_with(key, make) {
            found if found == value => Effect::Changed(None, Some(value)),
            found => Effect::Saw(Some(found)),
        });
    }

    fn update(&mut self, key: usize) {
        let fallible = self.rng.below(2) == 0;
        self.call(key, if fallible { "try_update" } else { "update" }, |worker, map, key| {
            let (mut old, mut new) = (None, None);
            let make = |_: &Key, found: &u64| {
                pause();
                (old, new) = (Some(*found), Some(worker.value()));
                worker.values
            };
            let updated = if fallible { map.fallible().update(&key, make) } else { Ok(map.update(&key, make)) };
            let Ok(updated) = updated else { return Effect::SawSome };
            match value_of(updated) {
                None => Effect::Saw(None),
                updated => {
                    assert_eq!(updated, new, "the returned entry does not have the value that was made last");
                    Effect::Changed(old, new)
                }
            }
        });
    }

    fn remove(&mut self, key: usize) {
        if self.rng.below(2) == 0 {
            return self.call(key, "try_remove", |_, map, key| match map.fallible().remove(&key) {
                Ok(old) => removed(value_of(old)),
                Err(_) => Effect::SawSome,
            });
        }
        self.call(key, "remove", |_, map, key| removed(value_of(map.remove(&key))));
    }

    fn remove_if(&mut self, key: usize) {
        self.call(key, "remove_if", |_, map, key| {
            let mut last = None;
            let old = map.remove_if(&key, |_, found| {
                pause();
                last = Some(*found);
                found % 2 == 0
            });
            match value_of(old) {
                // The call kept the odd value that it saw, or it saw even values until the key was absent.
                None => Effect::Saw(last.filter(|value| value % 2 == 1)),
                old => {
                    assert_eq!(old, last, "the removed entry is not the one that the condition held for");
                    removed(old)
                }
            }
        });
    }

    fn remove_handle(&mut self, key: usize) {
        let Some((key, handle)) = self.held.pop() else { return self.lookup(key) };
        self.call(key, "remove_handle", |_, map, _| match map.remove_handle(&handle) {
            true => Effect::Changed(Some(*handle), None),
            false => Effect::SawNot(*handle),
        });
    }

    /// Condemns the first entry of the key that the sweep meets. So the count says what became of this entry. The call
    /// says nothing about entries that it does not condemn, because the iteration is weakly consistent.
    fn reap(&mut self, key: usize) {
        let (which, mut condemned) = (self.key(key), None);
        let begun = self.round.watch.now();
        let reaped = self.round.map.reap_if(usize::MAX, |entry| {
            let first = condemned.is_none() && entry.key().0 == which.0;
            if first {
                condemned = Some(*entry);
            }
            first
        });
        let (ended, reaped) = (self.round.watch.now(), reaped.removed);
        match condemned {
            None => assert_eq!(reaped, 0, "an entry that was not condemned was reaped"),
            Some(_) if reaped == 1 => self.record(key, "reap_if", begun, ended, Effect::Changed(condemned, None)),
            Some(_) if self.round.refusing => {}
            Some(value) => self.record(key, "reap_if", begun, ended, Effect::SawNot(value)),
        }
    }

    /// If removals may be refused, a `clear` is not one atomic step. It removes entry by entry, and says nothing about
    /// them.
    fn clear(&mut self, key: usize) {
        if self.round.refusing {
            return self.disturb(key);
        }
        let begun = self.round.watch.now();
        self.round.map.clear();
        let ended = self.round.watch.now();
        (0..self.keys).for_each(|key| self.record(key, "clear", begun, ended, Effect::Cleared));
    }

    fn drain(&mut self, _key: usize) {
        let mut drain = self.round.map.drain();
        for _ in 0..=self.rng.below(4) {
            let begun = self.round.watch.now();
            let Some(handle) = drain.next() else { break };
            let ended = self.round.watch.now();
            if let Some(key) = (0..self.keys).find(|&key| self.key(key) == *handle.key()) {
                self.record(key, "drain", begun, ended, Effect::Changed(Some(*handle), None));
            }
        }
    }

    fn evict(&mut self, _key: usize) {
        for _ in 0..=self.rng.below(3) {
            let begun = self.round.watch.now();
            let evicted = self.round.map.evict(1);
            let ended = self.round.watch.now();
            if evicted > 0 {
                self.record_eviction(None, "evict", begun, ended);
            } else if !self.round.refusing {
                // The map has one shard, so there was an instant at which the map was empty.
                (0..self.keys).for_each(|key| self.record(key, "evict", begun, ended, Effect::Saw(None)));
            }
        }
    }

    /// Makes the table grow or shrink, or moves a resize on.
    fn disturb(&mut self, _key: usize) {
        let (map, thread) = (self.round.map, self.thread as u64);
        let filler = |number: u64| Key(FILLERS * (1 + thread) + number);
        match self.rng.below(8) {
            0 => map.shrink_to_fit(),
            1 => map.reserve(self.rng.below(60) as usize),
            2..5 if self.fillers < 24 => {
                for _ in 0..2 + self.rng.below(14) {
                    let begun = self.round.watch.now();
                    drop(map.try_insert(filler(self.fillers), 0));
                    let ended = self.round.watch.now();
                    if self.round.bounded {
                        self.record_eviction(None, "insert of another key", begun, ended);
                    }
                    self.fillers += 1;
                }
            }
            _ => {
                let most = self.fillers.min(2 + self.rng.below(14));
                for _ in 0..most {
                    self.fillers -= 1;
                    drop(map.remove(&filler(self.fillers)));
                }
            }
        }
    }

    fn get_by_guard(&mut self, key: usize) {
        self.call(key, "get by guard", |_, map, key| Effect::Saw(map.pin().get(&key).map(|entry| *entry)));
    }

    fn get_by_session(&mut self, key: usize) {
        self.call(key, "get by session", |worker, _, key| Effect::Saw(worker.reader.get(&key).map(|entry| *entry)));
    }

    /// Reads the key many times, and records the reads next to which something changed. Leaving out the other reads may
    /// hide an error, but cannot make one.
    pub fn watch(&mut self, key: usize) {
        let (which, watch) = (self.key(key), self.round.watch);
        let mut read = |_| (watch.now(), self.reader.get(&which).map(|entry| *entry), watch.now());
        let reads: [_; 24] = std::array::from_fn(&mut read);
        let found = |index: usize| reads.get(index).map(|read| read.1);
        let notable =
            |&index: &usize| index == 0 || found(index) != found(index - 1) || found(index) != found(index + 1);
        for index in (0..reads.len()).filter(notable) {
            let (begun, found, ended) = reads[index];
            self.record(key, "one of many gets", begun, ended, Effect::Saw(found));
        }
    }

    fn lookup(&mut self, index: usize) {
        self.call(index, "lookup", |worker, map, key| {
            let found = map.lookup(&key);
            let effect = Effect::Saw(found.as_deref().copied());
            worker.held.extend(found.map(|handle| (index, handle)));
            effect
        });
    }

    fn contains(&mut self, key: usize) {
        self.call(key, "contains_key", |worker, _, key| match worker.reader.contains_key(&key) {
            true => Effect::SawSome,
            false => Effect::Saw(None),
        });
    }

    /// Reads all keys in one call. The reads have no order among themselves.
    fn batch(&mut self, _key: usize) {
        let keys: Vec<Key> = (0..self.keys).map(|key| self.key(key)).collect();
        let mut found = Vec::with_capacity(keys.len());
        let owned = self.rng.below(2) == 0;
        let begun = self.round.watch.now();
        if owned {
            self.round.map.pin().lookup_batch(&keys, |_, handle| found.push(value_of(handle)));
        } else {
            self.round.map.pin().get_batch(&keys, |_, entry| found.push(entry.map(|entry| *entry)));
        }
        let ended = self.round.watch.now();
        let name = if owned { "lookup_batch" } else { "get_batch" };
        for (key, found) in found.into_iter().enumerate() {
            self.record(key, name, begun, ended, Effect::Saw(found));
        }
    }
}
