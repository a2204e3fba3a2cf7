//! Maps with a bound on their number of entries: the registry, moka and quick_cache.

use super::ours::running;
use super::{hasher, our_hasher};
use crate::cases::Drops;
use ahash::RandomState;
use epoch_registry::Registry;

/// A cache that maps numbers to numbers.
pub trait Cache {
    const NAME: &'static str;
    /// When removed values are dropped.
    const DROPS: Drops;

    fn bounded(capacity: usize) -> Self;
    fn get(&self, key: u64) -> Option<u64>;
    fn insert(&self, key: u64);
}

pub struct Ours(Registry<u64, u64>);

impl Cache for Ours {
    const NAME: &'static str = "ours";
    const DROPS: Drops = Drops::Later;

    fn bounded(capacity: usize) -> Self {
        Ours(
            Registry::builder().domain(running()).hasher(our_hasher()).capacity(capacity).max_entries(capacity).build(),
        )
    }

    #[inline]
    fn get(&self, key: u64) -> Option<u64> {
        self.0.with(&key, |entry| *entry)
    }

    #[inline]
    fn insert(&self, key: u64) {
        // Another thread may have inserted the key already.
        let _ = self.0.add(key, key);
    }
}

pub struct Moka(moka::sync::Cache<u64, u64, RandomState>);

impl Cache for Moka {
    const NAME: &'static str = "moka";
    const DROPS: Drops = Drops::Later;

    fn bounded(capacity: usize) -> Self {
        let builder = moka::sync::Cache::builder().max_capacity(capacity as u64).initial_capacity(capacity);
        Moka(builder.build_with_hasher(hasher()))
    }

    #[inline]
    fn get(&self, key: u64) -> Option<u64> {
        self.0.get(&key)
    }

    #[inline]
    fn insert(&self, key: u64) {
        self.0.insert(key, key);
    }
}

type QuickInner = quick_cache::sync::Cache<u64, u64, quick_cache::UnitWeighter, RandomState>;

pub struct Quick(QuickInner);

impl Cache for Quick {
    const NAME: &'static str = "quick_cache";
    const DROPS: Drops = Drops::AtOnce;

    fn bounded(capacity: usize) -> Self {
        let (weighter, lifecycle) = (quick_cache::UnitWeighter, quick_cache::sync::DefaultLifecycle::default());
        Quick(QuickInner::with(capacity, capacity as u64, weighter, hasher(), lifecycle))
    }

    #[inline]
    fn get(&self, key: u64) -> Option<u64> {
        self.0.get(&key)
    }

    #[inline]
    fn insert(&self, key: u64) {
        self.0.insert(key, key);
    }
}
