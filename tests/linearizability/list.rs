//! Histories of the entries of a list. An entry has a key, which only one entry of the list has at a time, and is an object
//! apart: a walk that looks for a key takes effect at one instant for that key, though not for all keys together.
//!
//! Insertions must not give a key to two entries. So only the thread that has removed an entry inserts its key again.

use super::checker::Effect;
use super::common::Rng;
use super::history::{Record, Watch};
use super::worker::{Meeting, pause};
use epoch_registry::{ListHandle, RcuBidirList, Session};
use std::sync::Mutex;

pub const KEYS: usize = 3;

/// A key and a value. Values are never written twice.
pub type Entry = (usize, u64);
pub type Handle = ListHandle<Entry, epoch_registry::BothWays>;

/// What the threads of a round share.
pub struct Round<'r> {
    pub seed: u64,
    pub histories: usize,
    pub calls: u64,
    pub list: &'r RcuBidirList<Entry>,
    /// The newest handle that a thread has heard of, by key. It may be that of an entry that has left.
    pub known: &'r [Mutex<Option<Handle>>; KEYS],
    pub watch: Watch,
    pub meeting: &'r Meeting,
}

/// Makes a walk long enough to meet others.
fn stretch() {
    (0..8).for_each(|_| pause());
}

pub struct Worker<'r> {
    round: &'r Round<'r>,
    thread: usize,
    rng: Rng,
    session: Session,
    /// The keys that this thread has removed and not inserted again.
    free: Vec<usize>,
    values: u64,
    records: Vec<Record>,
}

impl<'r> Worker<'r> {
    pub fn new(round: &'r Round<'r>, thread: usize) -> Self {
        let (rng, session) = (Rng::new(round.seed << 8 | thread as u64), round.list.domain().session());
        Worker { round, thread, rng, session, free: Vec::new(), values: thread as u64 * 1_000_000, records: Vec::new() }
    }

    pub fn run(mut self) -> Vec<Vec<Record>> {
        (0..self.round.histories).map(|_| self.history()).collect()
    }

    /// In each history the list is empty at first. The first thread has all keys then.
    fn history(&mut self) -> Vec<Record> {
        self.session.offline(|| self.round.meeting.wait());
        self.free.clear();
        if self.thread == 0 {
            self.round.list.clear();
            self.free = (0..KEYS).collect();
        }
        self.session.offline(|| self.round.meeting.wait());
        // One that only reads, in every other history: the gaps that a write leaves are short.
        let reads = self.thread == 1 && self.rng.below(2) == 0;
        for _ in 0..self.round.calls {
            pause();
            let key = self.rng.below(KEYS as u64) as usize;
            match self.rng.below(if reads { 4 } else { 12 }) {
                0..2 => self.find(key),
                2 => self.find_back(key),
                3 => self.find_both(),
                4..7 => self.insert(),
                7..9 => self.replace(key),
                9 => self.remove(key),
                10 => self.remove_first(key),
                _ => self.pop(),
            }
        }
        std::mem::take(&mut self.records)
    }

    fn value(&mut self) -> u64 {
        self.values += 1;
        self.values
    }

    fn call<R>(&mut self, f: impl FnOnce(&mut Self) -> R) -> (u64, R, u64) {
        let begun = self.round.watch.now();
        let result = f(self);
        (begun, result, self.round.watch.now())
    }

    fn record(&mut self, key: usize, name: &'static str, begun: u64, ended: u64, effect: Effect) {
        let call = super::checker::Call { begun, ended, effect };
        self.records.push(Record { thread: self.thread, key, name, call });
    }

    /// Notes the handle of an entry that this thread has linked.
    fn tell(&self, handle: Handle) {
        let key = handle.0;
        *self.round.known[key].lock().unwrap() = Some(handle);
    }

    fn find(&mut self, key: usize) {
        let (begun, found, ended) = self.call(|this| {
            let section = this.session.section();
            let mut walk = this.round.list.iter(&section).inspect(|_| stretch());
            walk.find(|entry| entry.0 == key).map(|entry| entry.1)
        });
        self.record(key, "walk", begun, ended, Effect::Saw(found));
    }

    fn find_back(&mut self, key: usize) {
        // Backward and forward walks see a write at two instants, between its call and its return.
        let (begun, found, ended) = self.call(|this| {
            let section = this.round.list.domain().pin();
            let mut walk = this.round.list.iter_back(&section).inspect(|_| stretch());
            walk.find(|entry| entry.0 == key).map(|entry| entry.1)
        });
        self.record(KEYS + key, "walk back", begun, ended, Effect::Saw(found));
    }

    /// One walk that looks for all keys, which is as many reads, in no order among themselves.
    fn find_both(&mut self) {
        let (begun, found, ended) = self.call(|this| {
            let section = this.session.section();
            let mut found = [None; KEYS];
            for entry in this.round.list.iter(&section) {
                stretch();
                found[entry.0].get_or_insert(entry.1);
            }
            found
        });
        for (key, found) in found.into_iter().enumerate() {
            self.record(key, "walk of all", begun, ended, Effect::Saw(found));
        }
    }

    /// Records a write for forward walks and for backward walks.
    fn wrote(&mut self, key: usize, name: &'static str, begun: u64, ended: u64, effect: Effect) {
        self.record(key, name, begun, ended, effect);
        self.record(KEYS + key, name, begun, ended, effect);
    }

    fn insert(&mut self) {
        let Some(key) = self.free.pop() else { return self.find(0) };
        let (entry, at) = ((key, self.value()), self.rng.below(3));
        let near = self.round.known[self.rng.below(KEYS as u64) as usize].lock().unwrap().clone();
        let (begun, handle, ended) = self.call(|this| {
            let list = this.round.list;
            match (at, near) {
                (0, Some(near)) => list.insert_after(&near, entry).or_else(|entry| list.insert_before(&near, entry.0)),
                (1, _) => Ok(list.push_front(entry)),
                _ => Ok(list.push_back(entry)),
            }
        });
        match handle {
            Ok(handle) => {
                self.wrote(key, "insert", begun, ended, Effect::Changed(None, Some(entry.1)));
                self.tell(handle);
            }
            Err(_) => self.free.push(key),
        }
    }

    fn replace(&mut self, key: usize) {
        let Some(handle) = self.round.known[key].lock().unwrap().clone() else { return self.find(key) };
        let entry = (key, self.value());
        let (begun, new, ended) = self.call(|this| this.round.list.replace(&handle, entry));
        match new {
            Ok(new) => {
                self.wrote(key, "replace", begun, ended, Effect::Changed(Some(handle.1), Some(entry.1)));
                self.tell(new);
            }
            Err(_) => self.wrote(key, "replace", begun, ended, Effect::SawNot(handle.1)),
        }
    }

    fn remove(&mut self, key: usize) {
        let Some(handle) = self.round.known[key].lock().unwrap().clone() else { return self.find(key) };
        let (begun, removed, ended) = self.call(|this| this.round.list.remove(&handle).is_some());
        if removed {
            self.wrote(key, "remove", begun, ended, Effect::Changed(Some(handle.1), None));
            self.free.push(key);
        } else {
            self.wrote(key, "remove", begun, ended, Effect::SawNot(handle.1));
        }
    }

    fn remove_first(&mut self, key: usize) {
        let (begun, removed, ended) = self.call(|this| {
            this.round.list.remove_first(|entry| {
                stretch();
                entry.0 == key
            })
        });
        match removed {
            Some(handle) => {
                self.wrote(key, "remove_first", begun, ended, Effect::Changed(Some(handle.1), None));
                self.free.push(key);
            }
            None => self.record(key, "remove_first", begun, ended, Effect::Saw(None)),
        }
    }

    fn pop(&mut self) {
        let back = self.rng.below(2) == 0;
        let (begun, popped, ended) =
            self.call(|this| if back { this.round.list.pop_back() } else { this.round.list.pop_front() });
        match popped {
            Some(handle) => {
                self.wrote(handle.0, "pop", begun, ended, Effect::Changed(Some(handle.1), None));
                self.free.push(handle.0);
            }
            // The list was empty at an instant.
            None => (0..KEYS).for_each(|key| self.record(key, "pop", begun, ended, Effect::Saw(None))),
        }
    }
}
