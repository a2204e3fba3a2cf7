//! The builder of a registry, with its settings.

use crate::domain::Domain;
use crate::handle::Handle;
use crate::handle::listener::{Listener, Listeners};
use crate::reap::Cause;
use crate::registry::Registry;
use crate::registry::core::CoreOwner;
use crate::shard::evict::Bounds;
use crate::shard::expiry::{Lifetime, Lifetimes};
use crate::shard::settings::{RegistrySettings, Weigher};
use crate::util::clock::{Clock, Timekeeper, boxed};
use crate::util::hasher::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::time::Duration;

/// A builder of a [`Registry`], from [`Registry::builder`].
///
/// # Examples
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
pub struct Builder<K: 'static, V: 'static, S = RandomState> {
    limits: Limits,
    domain: Option<Domain>,
    clock: Option<Box<dyn Clock>>,
    weigher: Option<Weigher<K, V>>,
    lifetime: Option<Lifetime<K, V>>,
    listener: Option<Listener<K, V>>,
    hasher: S,
}

/// The settings that depend on neither the key's nor the value's type.
#[derive(Debug)]
struct Limits {
    shards: Option<usize>,
    capacity: usize,
    max_entries: Option<usize>,
    max_weight: Option<u64>,
    max_age: Option<Duration>,
    max_idle: Option<Duration>,
    spare_held: bool,
    seeks: u32,
    stale_reads: bool,
    reap_in_background: bool,
}

const MOST_SHARDS: usize = 1 << 16;

/// The number of entries that make a shard worthwhile, if the number of entries is bounded.
const LEAST_SHARE: usize = 64;

impl<K, V> Builder<K, V> {
    pub(crate) fn new() -> Self {
        let limits = Limits {
            shards: None,
            capacity: 0,
            max_entries: None,
            max_weight: None,
            max_age: None,
            max_idle: None,
            spare_held: false,
            seeks: 2,
            stale_reads: false,
            reap_in_background: false,
        };
        Builder {
            limits,
            domain: None,
            clock: None,
            weigher: None,
            lifetime: None,
            listener: None,
            hasher: RandomState::new(),
        }
    }
}

impl<K, V, S> Builder<K, V, S> {
    /// Sets the number of shards. Each shard has its own lock for writers.
    ///
    /// The number is rounded up to a power of two, and is at most 65,536. It does not exceed
    /// [`max_entries`](Self::max_entries). By default there are eight shards for each core of the machine.
    pub fn shards(mut self, shards: usize) -> Self {
        self.limits.shards = Some(shards);
        self
    }

    /// Sets the number of entries that the registry holds before it grows, and below which its tables do not
    /// shrink. 0 by default.
    pub fn capacity(mut self, capacity: usize) -> Self {
        self.limits.capacity = capacity;
        self
    }

    /// Sets the maximum number of entries that the registry holds at any instant. At least 1. No bound by
    /// default.
    ///
    /// An insertion that would exceed the bound first evicts another entry of its shard by second chance: one
    /// that was not used since the eviction last looked at it.
    ///
    /// The bound is divided among the shards. By default there is about one shard for each 64 entries of the
    /// bound, if that is fewer than the usual number. As keys spread unevenly, some shards are full, and evict,
    /// before others.
    ///
    /// An evicted entry goes through the domain's backlog. The insertion follows the backlog's
    /// [policy](crate::WhenFull), as a removal does. An evicted entry takes memory until it is destroyed. To
    /// bound that memory too, [limit](crate::DomainBuilder::backlog_objects) the backlog and have writers wait.
    ///
    /// # Examples
    ///
    /// ```
    /// use epoch_registry::Registry;
    ///
    /// let cache = Registry::builder().max_entries(1000).build();
    /// for key in 0..10_000 {
    ///     cache.insert(key, key);
    ///     assert!(cache.len() <= 1000);
    /// }
    /// assert!(cache.stats().evicted >= 9000);
    /// ```
    pub fn max_entries(mut self, bound: usize) -> Self {
        self.limits.max_entries = Some(bound);
        self
    }

    /// Sets the maximum weight of all entries in bytes: their own size, and what the [weigher](Self::weigher)
    /// returns. No bound by default.
    ///
    /// An insertion that would exceed the bound first evicts as many other entries of its shard as necessary, as
    /// with [`max_entries`](Self::max_entries).
    ///
    /// The bound is divided among the shards. An entry that is heavier than a shard's part of the bound is alone
    /// in its shard: choose fewer [shards](Self::shards) if entries are large. (In a domain with a limit on the
    /// bytes of its backlog, an entry never weighs more than half of that limit.)
    ///
    /// # Examples
    ///
    /// ```
    /// use epoch_registry::Registry;
    ///
    /// let pages: Registry<u64, Vec<u8>> =
    ///     Registry::builder().shards(4).max_weight(1 << 20).weigher(|_, page: &Vec<u8>| page.capacity()).build();
    /// for key in 0..1000 {
    ///     pages.insert(key, vec![0; 10_000]);
    ///     assert!(pages.weight() <= 1 << 20);
    /// }
    /// assert!(pages.len() > 50);
    /// ```
    pub fn max_weight(mut self, bytes: u64) -> Self {
        self.limits.max_weight = Some(bytes);
        self
    }

    /// Sets the maximum age of an entry. No limit by default.
    ///
    /// An entry expires when it is older than `age`, to the nanosecond of the [clock](Self::clock). The default
    /// clock is some milliseconds coarse, and an entry never expires early by it.
    ///
    /// An expired entry is absent: no read, iteration or removal finds it, and its key can be inserted. So a read
    /// that finds an entry also reads the clock; [`stale_reads`](Self::stale_reads) avoids that. Once a call has
    /// found that an entry has expired, no later call finds the entry, even if limits or clocks change.
    ///
    /// An expired entry is destroyed after it is reaped:
    ///
    /// - by [`Registry::expire`];
    /// - in the background, if [`reap_in_background`](Self::reap_in_background) is set;
    /// - by writes: an insertion reaps a few expired entries of its shard, and a write of a key reaps the expired
    ///   entry that has the key.
    ///
    /// The cost is in proportion to the number of entries that expire: other entries are not examined. An entry
    /// takes about 36 bytes more, at most 48.
    ///
    /// # Examples
    ///
    /// ```
    /// use epoch_registry::{ManualClock, Registry};
    /// use std::time::Duration;
    ///
    /// let clock = ManualClock::new();
    /// let registry = Registry::builder().max_age(Duration::from_secs(60)).clock(clock.clone()).build();
    /// registry.insert("old", ());
    /// clock.advance(Duration::from_secs(40));
    /// registry.insert("new", ());
    /// clock.advance(Duration::from_secs(40));
    /// assert!(registry.contains_key("new") && !registry.contains_key("old"));
    /// let reaped = registry.expire(1000);
    /// assert_eq!((reaped.examined, reaped.removed), (1, 1));
    /// ```
    pub fn max_age(mut self, age: Duration) -> Self {
        self.limits.max_age = Some(age);
        self
    }

    /// Sets the maximum time for which an entry may go unused. A use is an insertion, or a read that finds the
    /// entry; an iteration is not. No limit by default.
    ///
    /// An entry expires, as with [`max_age`](Self::max_age), when it was not used for `time`, or up to a
    /// sixteenth of `time` later.
    ///
    /// A read that finds an entry reads the clock. It stores the time of the use in the entry at most once in a
    /// sixteenth of `time`.
    ///
    /// # Examples
    ///
    /// ```
    /// use epoch_registry::{ManualClock, Registry};
    /// use std::time::Duration;
    ///
    /// let clock = ManualClock::new();
    /// let registry = Registry::builder().max_idle(Duration::from_secs(60)).clock(clock.clone()).build();
    /// (0..10).for_each(|key| drop(registry.insert(key, key)));
    /// for _ in 0..100 {
    ///     clock.advance(Duration::from_secs(1));
    ///     registry.lookup(&7).unwrap();
    ///     registry.expire(1000);
    /// }
    /// assert_eq!(registry.len(), 1);
    /// ```
    pub fn max_idle(mut self, time: Duration) -> Self {
        self.limits.max_idle = Some(time);
        self
    }

    /// Sets a function that returns how long an entry may live after its insertion. `None` means without limit.
    ///
    /// The entry expires as with [`max_age`](Self::max_age). If there is also a maximum age, the shorter of the
    /// two counts.
    ///
    /// The function is called before an entry is inserted, when the entry may have expired, and when a limit of
    /// the registry changes. A reaper, a read or a write calls it, outside every lock. Its answer may depend on
    /// the state of the value: a value can prolong its life by storing something in itself.
    ///
    /// - A shorter answer takes effect only when the time of the previous answer comes. After `None`, no later
    ///   answer takes effect unless a limit of the registry changes.
    /// - Within the function, calls of the same registry go by the previous answers.
    ///
    /// A panic in the function goes to the caller of an insertion. At any other time it is contained and
    /// [counted](crate::Stats::lifetime_panics), and the entry is examined again a second later.
    ///
    /// # Examples
    ///
    /// ```
    /// use epoch_registry::{ManualClock, Registry};
    /// use std::time::Duration;
    ///
    /// struct Lease {
    ///     seconds: u64,
    /// }
    ///
    /// let clock = ManualClock::new();
    /// let leases = Registry::builder()
    ///     .lifetime(|_: &&str, lease: &Lease| Some(Duration::from_secs(lease.seconds)))
    ///     .clock(clock.clone())
    ///     .build();
    /// leases.insert("short", Lease { seconds: 10 });
    /// leases.insert("long", Lease { seconds: 3600 });
    /// clock.advance(Duration::from_secs(60));
    /// assert_eq!((leases.expire(1000).removed, leases.contains_key("long")), (1, true));
    /// ```
    pub fn lifetime(mut self, lifetime: impl Fn(&K, &V) -> Option<Duration> + Send + Sync + 'static) -> Self {
        self.lifetime = Some(Box::new(lifetime));
        self
    }

    /// Sets whether entries that have handles are spared. False by default: an evicted entry leaves the registry,
    /// and lives on for as long as its handles do.
    ///
    /// An entry that is spared
    ///
    /// - is evicted only if the search finds no other victim among up to 16 entries;
    /// - is not reaped under memory pressure;
    /// - does not expire while it has handles, and is found until then.
    ///
    /// A handle may be taken at the moment at which its entry is found to have none. To find out whether an entry
    /// is still in the registry, call [`Handle::is_unlinked`].
    pub fn spare_held(mut self, spare: bool) -> Self {
        self.limits.spare_held = spare;
        self
    }

    /// Sets the cost of making an entry again, by which memory pressure is divided among reapers: see
    /// [`Reaper::seeks`](crate::Reaper::seeks). 2 by default.
    pub fn seeks(mut self, seeks: u32) -> Self {
        self.limits.seeks = seeks;
        self
    }

    /// Sets a callback that runs after an entry leaves the registry, with the cause and a handle to the entry. It
    /// does not run when the registry is dropped.
    ///
    /// The thread that removed the entry runs the callback, outside every lock. The callback may use the
    /// registry. If it removes entries, it is called for these after it has returned, so there is no recursion. A
    /// panic in it is contained and [counted](crate::Stats::listener_panics). Two threads may run it at the same
    /// time, so the order of calls may differ from the order of removals.
    ///
    /// A callback that owns the registry keeps it alive forever. Let it own a [`Weak`](std::sync::Weak) instead.
    ///
    /// # Examples
    ///
    /// ```
    /// use epoch_registry::{Cause, Registry};
    /// use std::sync::{Arc, Mutex};
    ///
    /// let told = Arc::new(Mutex::new(Vec::new()));
    /// let log = told.clone();
    /// let registry = Registry::<&str, i32>::builder()
    ///     .max_entries(1)
    ///     .listener(move |cause, entry| log.lock().unwrap().push((cause, *entry.key(), *entry)))
    ///     .build();
    /// registry.insert("a", 1);
    /// registry.insert("a", 2);
    /// registry.insert("b", 3);
    /// registry.remove("b");
    /// let expected = [(Cause::Replaced, "a", 1), (Cause::Capacity, "a", 2), (Cause::Removed, "b", 3)];
    /// assert_eq!(*told.lock().unwrap(), expected);
    /// ```
    pub fn listener(mut self, listener: impl Fn(Cause, Handle<K, V>) + Send + Sync + 'static) -> Self {
        self.listener = Some(Box::new(listener));
        self
    }

    /// Sets the domain. The [global](Domain::global) domain by default.
    pub fn domain(mut self, domain: Domain) -> Self {
        self.domain = Some(domain);
        self
    }

    /// Sets the clock used to measure entry ages. By default the [`MonotonicClock`](crate::MonotonicClock), which
    /// needs no dynamic call.
    ///
    /// The clock is read outside every lock. A panic in it goes to the caller, and no entry is lost.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = boxed(clock);
        self
    }

    /// Sets whether reads find an expired entry until it is reaped. False by default: in a registry whose entries
    /// expire, a read that finds an entry reads the clock, and does not return an expired entry.
    ///
    /// Use this if the time to read the clock (about 5 ns) matters more than an expired entry among the results.
    /// Writes treat an expired entry as absent all the same. With stale reads [`max_idle`](Self::max_idle) is
    /// less exact: an entry expires after twice that time at the latest.
    ///
    /// # Examples
    ///
    /// ```
    /// use epoch_registry::{ManualClock, Registry};
    /// use std::time::Duration;
    ///
    /// let clock = ManualClock::new();
    /// let builder = Registry::builder().max_age(Duration::from_secs(60)).clock(clock.clone());
    /// let registry = builder.stale_reads(true).build();
    /// registry.insert("old", ());
    /// clock.advance(Duration::from_secs(61));
    /// assert!(registry.contains_key("old"));
    /// registry.expire(1000);
    /// assert!(!registry.contains_key("old"));
    /// ```
    pub fn stale_reads(mut self, stale: bool) -> Self {
        self.limits.stale_reads = stale;
        self
    }

    /// Sets whether the domain removes expired entries in the background, for as long as the registry exists.
    /// False by default.
    ///
    /// The domain's reclaimer thread, or a job on its executor, removes them. By the
    /// [`MonotonicClock`](crate::MonotonicClock) it does so soon after they expire; by other clocks, whenever
    /// [reapers are called](crate::DomainBuilder::reap_every).
    ///
    /// If the registry is dropped during such a call, that thread drops its entries at the end of the call.
    ///
    /// # Examples
    ///
    /// ```
    /// use epoch_registry::{Domain, Registry};
    /// use std::time::Duration;
    ///
    /// let domain = Domain::builder().reclaimer(true).build();
    /// let builder = Registry::builder().domain(domain).max_age(Duration::from_millis(50));
    /// let registry = builder.reap_in_background(true).build();
    /// registry.insert(1, "one");
    /// while registry.stats().freed == 0 {
    ///     std::thread::yield_now();
    /// }
    /// ```
    pub fn reap_in_background(mut self, reap: bool) -> Self {
        self.limits.reap_in_background = reap;
        self
    }

    /// Sets a function that returns how many bytes an entry holds beyond its own size, in strings, vectors and
    /// the like. None by default.
    ///
    /// It is called once, before an entry is inserted. The result counts in the domain's
    /// [backlog](crate::Backlog) and within [`max_weight`](Self::max_weight). The weight of an entry is at most 4
    /// TB, and is rounded up by at most a thousandth.
    ///
    /// # Examples
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

    /// Sets the hasher. By default ahash, randomly seeded.
    ///
    /// All 64 bits of a hash should be of good quality: the low 32 bits select the shard and the bucket, and the
    /// top seven tell the entries of a bucket apart.
    pub fn hasher<T>(self, hasher: T) -> Builder<K, V, T> {
        let Builder { limits, domain, clock, weigher, lifetime, listener, .. } = self;
        Builder { limits, domain, clock, weigher, lifetime, listener, hasher }
    }

    /// Builds the registry.
    ///
    /// # Panics
    ///
    /// Panics if
    ///
    /// - tables for the requested capacity do not fit the address space;
    /// - the clock panics;
    /// - [`reap_in_background`](Self::reap_in_background) is set, and the domain has neither a reclaimer thread
    ///   nor an executor.
    pub fn build(self) -> Registry<K, V, S>
    where
        K: Hash + Eq + Send + Sync + 'static,
        V: Send + Sync + 'static,
        S: BuildHasher,
    {
        let limits = self.limits;
        let most = limits.max_entries.unwrap_or(usize::MAX).max(1);
        let wanted = limits.shards.unwrap_or_else(|| default_shards().min(most / LEAST_SHARE));
        let shards = wanted.clamp(1, MOST_SHARDS).next_power_of_two().min(1 << most.ilog2().min(16));
        let bounds = Bounds {
            entries: Bounds::part_of_entries(limits.max_entries, shards),
            weight: Bounds::part_of_weight(limits.max_weight, shards),
            spare_held: limits.spare_held,
        };
        let settings = RegistrySettings {
            clock: Timekeeper::new(self.clock),
            weigher: self.weigher,
            lifetimes: Lifetimes::new(limits.max_age, limits.max_idle, self.lifetime, limits.spare_held),
            listeners: Listeners::new(self.listener),
            spare_held: limits.spare_held,
            seeks: limits.seeks,
        };
        let domain = self.domain.unwrap_or_default();
        let core = CoreOwner::new(domain, settings, shards, limits.capacity, bounds, limits.stale_reads);
        if limits.reap_in_background {
            core.reap_in_background();
        }
        Registry { core, hasher: self.hasher }
    }
}

fn default_shards() -> usize {
    std::thread::available_parallelism().map_or(16, |cores| cores.get() * 8)
}

impl<K, V, S> fmt::Debug for Builder<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("limits", &self.limits).field("domain", &self.domain).finish_non_exhaustive()
    }
}
