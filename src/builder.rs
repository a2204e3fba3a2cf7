//! Settings of a registry.

use crate::clock::{Clock, MonotonicClock};
use crate::core::{CoreOwner, Weigher};
use crate::domain::Domain;
use crate::registry::Registry;
use ahash::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::marker::PhantomData;

/// Settings of a new [`Registry`], from [`Registry::builder`].
///
/// ```
/// use epoch_registry::{Domain, ManualClock, Registry};
///
/// let clock = ManualClock::new();
/// let registry: Registry<u64, String> = Registry::builder()
///     .capacity(10_000)
///     .shards(8)
///     .domain(Domain::builder().name("sessions").reclaimer(true).build())
///     .clock(clock.clone())
///     .build();
/// assert!(registry.capacity() >= 10_000);
/// ```
pub struct Builder<K, V, S = RandomState> {
    shards: Option<usize>,
    capacity: usize,
    max_entries: Option<usize>,
    domain: Option<Domain>,
    clock: Box<dyn Clock>,
    weigher: Option<Weigher<K, V>>,
    hasher: S,
    _entries: PhantomData<fn(K, V)>,
}

const MOST_SHARDS: usize = 1 << 16;

/// Entries for which a shard is worth its while, where their number is bounded.
const LEAST_SHARE: usize = 64;

impl<K, V> Builder<K, V> {
    pub(crate) fn new() -> Self {
        Builder {
            shards: None,
            capacity: 0,
            max_entries: None,
            domain: None,
            clock: Box::new(MonotonicClock),
            weigher: None,
            hasher: RandomState::new(),
            _entries: PhantomData,
        }
    }
}

impl<K, V, S> Builder<K, V, S> {
    /// The number of shards, each of which has its own writers' lock: rounded up to a power of two, 65,536 at most. By
    /// default eight for each core of the machine.
    pub fn shards(mut self, shards: usize) -> Self {
        self.shards = Some(shards);
        self
    }

    /// Entries that the registry takes before it grows, and below which its tables do not shrink. 0 by default.
    pub fn capacity(mut self, capacity: usize) -> Self {
        self.capacity = capacity;
        self
    }

    /// The most entries that the registry holds, at every instant. No bound by default; at least 1. An insertion that would
    /// go beyond it evicts another entry of its shard first, by second chance: one that was not used since the last look
    /// at it.
    ///
    /// The bound is divided among the shards, of which there are no more by default than have 64 entries each. As keys
    /// spread unevenly, some shards are full, and evict, before others.
    ///
    /// What is evicted goes through the domain's backlog, whose [policy](crate::WhenFull) an insertion follows as a
    /// removal does.
    ///
    /// ```
    /// use epoch_registry::Registry;
    ///
    /// let cache = Registry::builder().max_entries(1000).build();
    /// for key in 0..10_000 {
    ///     cache.insert(key, key).unwrap();
    ///     assert!(cache.len() <= 1000);
    /// }
    /// assert!(cache.stats().evicted >= 9000);
    /// ```
    pub fn max_entries(mut self, bound: usize) -> Self {
        self.max_entries = Some(bound);
        self
    }

    /// The domain. By default the [global](Domain::global) one.
    pub fn domain(mut self, domain: Domain) -> Self {
        self.domain = Some(domain);
        self
    }

    /// Where ages are measured by. By default the [`MonotonicClock`].
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Box::new(clock);
        self
    }

    /// How many bytes an entry holds beyond its own size: in strings, vectors and the like. By default none. It is asked
    /// once, before an entry is inserted, and decides what the entry counts for in the domain's
    /// [backlog](crate::Backlog): up to 4 TB, rounded up by a thousandth.
    ///
    /// ```
    /// use epoch_registry::Registry;
    ///
    /// let pages: Registry<u64, Vec<u8>> = Registry::builder().weigher(|_, page: &Vec<u8>| page.capacity()).build();
    /// ```
    pub fn weigher(mut self, weigher: impl Fn(&K, &V) -> usize + Send + Sync + 'static) -> Self {
        self.weigher = Some(Box::new(weigher));
        self
    }

    /// The hasher. By default ahash, randomly seeded.
    ///
    /// All 64 bits of the hash should be good: 32 of them choose shard and bucket, and seven others tell neighbours
    /// apart.
    pub fn hasher<T>(self, hasher: T) -> Builder<K, V, T> {
        let Builder { shards, capacity, max_entries, domain, clock, weigher, .. } = self;
        Builder { shards, capacity, max_entries, domain, clock, weigher, hasher, _entries: PhantomData }
    }

    /// Builds the registry.
    ///
    /// # Panics
    ///
    /// If tables for the capacity asked for do not fit the address space.
    pub fn build(self) -> Registry<K, V, S>
    where
        K: Hash + Eq + Send + Sync + 'static,
        V: Send + Sync + 'static,
        S: BuildHasher,
    {
        let most = self.max_entries.unwrap_or(usize::MAX).max(1);
        let wanted = self.shards.unwrap_or_else(|| default_shards().min(most / LEAST_SHARE));
        let shards = wanted.clamp(1, MOST_SHARDS).next_power_of_two().min(1 << most.ilog2().min(16));
        let bound = self.max_entries.map_or(usize::MAX, |most| (most / shards).max(1));
        let domain = self.domain.unwrap_or_default();
        Registry {
            core: CoreOwner::new(domain, self.clock, self.weigher, shards, self.capacity, bound),
            hasher: self.hasher,
        }
    }
}

fn default_shards() -> usize {
    std::thread::available_parallelism().map_or(16, |cores| cores.get() * 8)
}

impl<K, V, S> fmt::Debug for Builder<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("shards", &self.shards)
            .field("capacity", &self.capacity)
            .field("domain", &self.domain)
            .finish_non_exhaustive()
    }
}
