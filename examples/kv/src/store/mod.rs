//! The stores that the server can serve from, behind one trait.
//!
//! All of them own the bytes of keys and values, and lend a value out for as long as it is copied into the reply. So no
//! store pays for more than the protocol needs: none clones an `Arc`, or counts a reference.

mod dashmap;
mod deadlines;
mod mutex;
mod papaya;
mod registry;

use epoch_registry::Clock;
use std::sync::Arc;
use std::time::Duration;

/// The number of keys that [`Store::get_batch`] gets at most.
pub const BATCH: usize = 64;

/// A map from keys to values, whose entries may expire. An expired entry is absent.
pub trait Store: Send + Sync {
    /// Calls `found` with the value of `key`, or with `None`.
    fn get(&self, key: &[u8], found: &mut dyn FnMut(Option<&[u8]>));

    /// Calls `found` with the value of each key or with `None`, in order.
    fn get_batch(&self, keys: &[&[u8]], found: &mut dyn FnMut(Option<&[u8]>)) {
        for key in keys {
            self.get(key, found);
        }
    }

    fn contains(&self, key: &[u8]) -> bool;

    /// Writes an entry, whose time to live is that of `write`. Returns whether its condition held.
    fn set(&self, write: Write<'_>) -> bool;

    /// Removes an entry. Returns whether it was there.
    fn delete(&self, key: &[u8]) -> bool;

    /// Sets the time to live of an entry, or removes it. Returns whether the entry is there.
    fn set_ttl(&self, key: &[u8], ttl: Option<Duration>) -> bool;

    fn remaining(&self, key: &[u8]) -> Remaining;

    /// Calls `each` with about `count` keys from a cursor on. Returns the next cursor, 0 at the end. The first is 0.
    fn scan(&self, cursor: u64, count: usize, each: &mut dyn FnMut(&[u8])) -> u64;

    /// Returns the number of entries. Expired ones may count until they are removed.
    fn len(&self) -> usize;

    fn clear(&self);

    /// Removes expired entries. Called once a second, for stores that do not do so by themselves.
    fn sweep(&self) {}

    /// Returns what else the store says about itself, as lines `name:value` for INFO.
    fn details(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Waits until all values that were removed are destroyed. Returns how many entries were made and destroyed, if the
    /// store counts that.
    fn settle(&self) -> Option<Accounts> {
        None
    }
}

/// The entries that a store has made and destroyed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Accounts {
    pub made: u64,
    pub destroyed: u64,
    pub live: u64,
}

/// What SET writes.
#[derive(Clone, Copy)]
pub struct Write<'w> {
    pub key: &'w [u8],
    pub value: &'w [u8],
    pub ttl: Option<Duration>,
    pub when: When,
}

/// The condition of a SET.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum When {
    Always,
    Absent,
    Present,
}

/// How long an entry has to live.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Remaining {
    /// There is no such entry.
    Absent,
    /// It does not expire.
    Unlimited,
    For(Duration),
}

/// The kinds of stores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Registry,
    DashMap,
    Papaya,
    Mutex,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Registry, Kind::DashMap, Kind::Papaya, Kind::Mutex];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Registry => "registry",
            Kind::DashMap => "dashmap",
            Kind::Papaya => "papaya",
            Kind::Mutex => "mutex",
        }
    }

    /// Makes an empty store.
    pub fn open(self, clock: impl Clock) -> Arc<dyn Store> {
        match self {
            Kind::Registry => Arc::new(registry::RegistryStore::new(clock)),
            Kind::DashMap => Arc::new(dashmap::DashMapStore::new(clock)),
            Kind::Papaya => Arc::new(papaya::PapayaStore::new(clock)),
            Kind::Mutex => Arc::new(mutex::MutexStore::new(clock)),
        }
    }
}

impl std::str::FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Kind, String> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| format!("there is no store {name}"))
    }
}
