//! The store over this crate's registry.

use super::{Accounts, BATCH, Remaining, Store, When, Write};
use epoch_registry::{Clock, Cursor, Domain, Registry};
use std::sync::Arc;
use std::time::Duration;

type Key = Box<[u8]>;

/// A value, and the time of the clock at which it expires.
#[derive(Clone)]
struct Timed {
    value: Box<[u8]>,
    deadline: Option<Duration>,
}

pub struct RegistryStore {
    registry: Registry<Key, Timed>,
    clock: Arc<dyn Clock>,
}

impl RegistryStore {
    pub fn new(clock: impl Clock) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(clock);
        let by = clock.clone();
        let registry = Registry::builder()
            .domain(Domain::builder().name("kv").build())
            .clock(clock.clone())
            .weigher(|key: &Key, timed: &Timed| key.len() + timed.value.len())
            .lifetime(move |_, timed: &Timed| timed.deadline.map(|deadline| deadline.saturating_sub(by.now())))
            .reap_in_background(true)
            .build();
        RegistryStore { registry, clock }
    }

    fn timed(&self, value: &[u8], ttl: Option<Duration>) -> Timed {
        Timed { value: value.into(), deadline: ttl.map(|ttl| self.clock.now().saturating_add(ttl)) }
    }
}

impl Store for RegistryStore {
    fn get(&self, key: &[u8], found: &mut dyn FnMut(Option<&[u8]>)) {
        found(self.registry.pin().get(key).map(|entry| &*entry.value().value));
    }

    /// The cache misses of a batch overlap, and it has one critical section.
    fn get_batch(&self, keys: &[&[u8]], found: &mut dyn FnMut(Option<&[u8]>)) {
        const { assert!(BATCH <= 64, "a batch is one short critical section") };
        let guard = self.registry.pin();
        guard.get_batch(keys.iter().copied(), |_, entry| found(entry.map(|entry| &*entry.value().value)));
    }

    fn contains(&self, key: &[u8]) -> bool {
        self.registry.contains_key(key)
    }

    fn set(&self, write: Write<'_>) -> bool {
        let new = self.timed(write.value, write.ttl);
        match write.when {
            When::Always => {
                self.registry.set(write.key.into(), new);
                true
            }
            When::Absent => self.registry.add(write.key.into(), new).is_ok(),
            When::Present => self.registry.update(write.key, |_, _| new.clone()).is_some(),
        }
    }

    fn delete(&self, key: &[u8]) -> bool {
        self.registry.delete(key)
    }

    fn set_ttl(&self, key: &[u8], ttl: Option<Duration>) -> bool {
        self.registry.update(key, |_, old| self.timed(&old.value, ttl)).is_some()
    }

    fn remaining(&self, key: &[u8]) -> Remaining {
        match self.registry.with(key, |entry| entry.deadline) {
            None => Remaining::Absent,
            Some(None) => Remaining::Unlimited,
            Some(Some(deadline)) => Remaining::For(deadline.saturating_sub(self.clock.now())),
        }
    }

    fn scan(&self, cursor: u64, count: usize, each: &mut dyn FnMut(&[u8])) -> u64 {
        let mut cursor = Cursor::from(cursor);
        self.registry.scan(&mut cursor, count, |entry| each(entry.key()));
        if cursor.is_done() { 0 } else { cursor.into() }
    }

    fn len(&self) -> usize {
        self.registry.len()
    }

    fn clear(&self) {
        self.registry.clear();
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        let stats = self.registry.stats();
        vec![
            ("expired_keys", stats.expired.to_string()),
            ("registry_backlog", stats.domain.backlog.to_string()),
            ("registry_backlog_peak", stats.domain.peak.to_string()),
            ("registry_grace_periods", stats.domain.grace_periods.to_string()),
            ("registry_lock_waits", stats.lock_waits.to_string()),
        ]
    }

    fn settle(&self) -> Option<Accounts> {
        self.registry.domain().barrier();
        let stats = self.registry.stats();
        Some(Accounts { made: stats.inserted, destroyed: stats.freed, live: stats.live })
    }
}
