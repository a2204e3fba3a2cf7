//! The store over this crate's registry.

use super::{Accounts, Remaining, Store, When, Write};
use epoch_registry::{Clock, Cursor, Domain, Registry};
use std::time::Duration;

type Bytes = Box<[u8]>;

pub struct RegistryStore {
    registry: Registry<Bytes, Bytes>,
}

impl RegistryStore {
    pub fn new(clock: impl Clock) -> Self {
        let registry = Registry::builder()
            .domain(Domain::builder().name("kv").build())
            .clock(clock)
            .weigher(|key: &Bytes, value: &Bytes| key.len() + value.len())
            .reap_in_background(true)
            .build();
        RegistryStore { registry }
    }
}

impl Store for RegistryStore {
    fn get(&self, key: &[u8], found: &mut dyn FnMut(Option<&[u8]>)) {
        found(self.registry.pin().get(key).map(|value| &**value.value()));
    }

    /// A batch is one short critical section, and its cache misses overlap.
    fn get_batch(&self, keys: &[&[u8]], found: &mut dyn FnMut(Option<&[u8]>)) {
        let guard = self.registry.pin();
        guard.get_batch(keys.iter().copied(), |_, value| found(value.map(|value| &**value.value())));
    }

    fn contains(&self, key: &[u8]) -> bool {
        self.registry.contains_key(key)
    }

    fn set(&self, write: Write<'_>) -> bool {
        let value = Bytes::from(write.value);
        match (write.when, write.ttl) {
            (When::Always, None) => {
                self.registry.set(write.key.into(), value);
                true
            }
            (When::Always, Some(ttl)) => {
                self.registry.set_with_ttl(write.key.into(), value, ttl);
                true
            }
            (When::Absent, None) => self.registry.add(write.key.into(), value).is_ok(),
            (When::Absent, Some(ttl)) => self.registry.try_insert_with_ttl(write.key.into(), value, ttl).is_ok(),
            (When::Present, ttl) => {
                let Some(new) = self.registry.update(write.key, |_, _| value.clone()) else { return false };
                if let Some(ttl) = ttl {
                    // (It fails if another write has already replaced or removed the entry again.)
                    self.registry.set_ttl(&new, Some(ttl));
                }
                true
            }
        }
    }

    fn delete(&self, key: &[u8]) -> bool {
        self.registry.delete(key)
    }

    fn set_ttl(&self, key: &[u8], ttl: Option<Duration>) -> bool {
        // It fails if another write replaces or removes the entry after the lookup. Then there is another entry, or none.
        while let Some(entry) = self.registry.peek(key) {
            if self.registry.set_ttl(&entry, ttl) {
                return true;
            }
        }
        false
    }

    fn remaining(&self, key: &[u8]) -> Remaining {
        let guard = self.registry.pin();
        let Some(entry) = guard.peek(key) else { return Remaining::Absent };
        match guard.remaining(entry) {
            None => Remaining::Unlimited,
            // It has left or expired since.
            Some(Duration::ZERO) => Remaining::Absent,
            Some(left) => Remaining::For(left),
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
            ("registry_bytes", stats.weight.to_string()),
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
