//! Settings of a registry.

use crate::domain::Domain;
use crate::handle::Handle;
use crate::handle::listener::{Listener, Listeners};
use crate::reap::Cause;
use crate::registry::Registry;
use crate::registry::core::CoreOwner;
use crate::shard::evict::Bounds;
use crate::shard::expiry::{Lifetime, Lifetimes};
use crate::shard::settings::{Settings, Weigher};
use crate::util::clock::{Clock, Timekeeper, boxed};
use ahash::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::time::Duration;

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
pub struct Builder<K: 'static, V: 'static, S = RandomState> {
    limits: Limits,
    domain: Option<Domain>,
    clock: Option<Box<dyn Clock>>,
    weigher: Option<Weigher<K, V>>,
    lifetime: Option<Lifetime<K, V>>,
    listener: Option<Listener<K, V>>,
    hasher: S,
}

/// What a registry may hold.
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

/// Entries for which a shard is worth its while, where their number is bounded.
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
    /// The number of shards, each of which has its own writers' lock: rounded up to a power of two, 65,536 at most. By
    /// default eight for each core of the machine.
    pub fn shards(mut self, shards: usize) -> Self {
        self.limits.shards = Some(shards);
        self
    }

    /// Entries that the registry takes before it grows, and below which its tables do not shrink. 0 by default.
    pub fn capacity(mut self, capacity: usize) -> Self {
        self.limits.capacity = capacity;
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
    /// removal does. It takes memory until it is destroyed: who must bound that as well
    /// [limits](crate::DomainBuilder::backlog_objects) the backlog, and has writers wait.
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

    /// The most bytes that the entries count for: their own, and what the [weigher](Self::weigher) says. No bound by default. An
    /// insertion that would go beyond it evicts others of its shard first, as with [`max_entries`](Self::max_entries): as many
    /// as it takes.
    ///
    /// The bound is divided among the shards. An entry that is heavier than a shard's part of it is alone in its shard:
    /// choose fewer [shards](Self::shards) where entries are large. (In a domain with a limit on the bytes of its backlog,
    /// an entry never counts for more than half of that.)
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

    /// How old an entry may become. No limit by default. An entry's time has come when it is older than `age`, to the nanosecond
    /// of the [clock](Self::clock); the default clock is read to a few milliseconds, on the side of keeping the entry.
    ///
    /// From then on the entry is absent: no read, iteration or removal finds it, and its key can be inserted. So a read that finds
    /// an entry reads the clock; [`stale_reads`](Self::stale_reads) spares that. Once a call has found that an entry's time has come,
    /// no later call finds the entry, whatever becomes of limits and clocks.
    ///
    /// The entry is destroyed after it is reaped: by [`Registry::expire`]; in the background, if that is
    /// [asked for](Self::reap_in_background); and by insertions, each of which reaps a few of its own shard, and whatever has the key.
    /// That costs in proportion to what expires: others are not looked at. An entry takes some 36 bytes more, and up to 48.
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

    /// How long an entry may be without use: without being found by a read, or inserted. No limit by default. Its time has come, as
    /// with [`max_age`](Self::max_age), when it was not used for `time`, and at the latest a sixteenth of that later. Iterations are no
    /// use.
    ///
    /// A read that finds an entry reads the clock, and stores the time of the use in the entry, once in such a sixteenth.
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

    /// How long each entry may live after its insertion: `None` for as long as it likes. It is reaped as with
    /// [`max_age`](Self::max_age), of which the shorter counts if there are both.
    ///
    /// It is asked before an entry is inserted and again when its time may have come, outside every lock, by a reaper, a read or a
    /// write: it may depend on what the value knows by then. So a value may have its life prolonged, by storing something in it. (If it
    /// becomes shorter, that is noticed when the time comes that was told before; and `None` is final. What it reads of its own
    /// registry goes by the times that were told before.)
    ///
    /// A panic in it goes to whoever inserts. Later it is contained and [counted](crate::Stats::lifetime_panics), and the entry
    /// looked at again a second later.
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

    /// Whether entries of which there are handles are spared: not evicted, as long as a few others can be found; not reaped
    /// under pressure; and not removed when their time has come, until their handles are gone: until then they are found. By
    /// default they are not: an entry that is evicted leaves the registry, and lives on for as long as its handles do.
    ///
    /// (A handle may be taken at the very moment that its entry is found to have none. Who must know whether an entry is
    /// still in the registry asks [`Handle::is_unlinked`].)
    pub fn spare_held(mut self, spare: bool) -> Self {
        self.limits.spare_held = spare;
        self
    }

    /// What it costs to make an entry again, when memory pressure is divided among several: see
    /// [`Reaper::seeks`](crate::Reaper::seeks). 2 by default.
    pub fn seeks(mut self, seeks: u32) -> Self {
        self.limits.seeks = seeks;
        self
    }

    /// Who is told of each entry that leaves, and why: with a handle of it, after it has left, by the thread that had it
    /// leave. (Not when the registry is dropped.)
    ///
    /// It is called outside every lock, and may use the registry. Entries that leave by what it does are told of when it
    /// has returned, so there is no recursion. A panic in it is contained, and [counted](crate::Stats::listener_panics). Two
    /// threads may be in it at a time, so it may be told in another order than things happened.
    ///
    /// A listener that owns the registry would keep it forever: have it own a [`Weak`](std::sync::Weak).
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

    /// The domain. By default the [global](Domain::global) one.
    pub fn domain(mut self, domain: Domain) -> Self {
        self.domain = Some(domain);
        self
    }

    /// The clock used to measure entry ages. By default the [`MonotonicClock`](crate::MonotonicClock), which takes no dynamic call.
    ///
    /// It is read outside every lock. A panic in it goes to the caller, and no entry is lost by it.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = boxed(clock);
        self
    }

    /// Has reads find an entry until it is reaped, although its time has come. False by default: a read that finds an entry reads
    /// the clock, in a registry whose entries expire, and does not return what has expired.
    ///
    /// It is for readers to whom reading the clock (some 5 ns) matters more than what they get. Writes treat what has expired as
    /// absent all the same. [`max_idle`](Self::max_idle) is known less exactly then: an entry goes after twice that time at the
    /// latest.
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

    /// Has the domain's reclaimer thread, or a job on its executor, remove entries whose time has come, for as long as the registry is
    /// there: soon after that time by the [`MonotonicClock`](crate::MonotonicClock), and by other clocks whenever
    /// [reapers are called](crate::DomainBuilder::reap_every). False by default.
    ///
    /// If the registry is dropped while it is called, its entries are dropped by that thread, at the end of that call.
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

    /// How many bytes an entry holds beyond its own size: in strings, vectors and the like. By default none. It is asked
    /// once, before an entry is inserted, and decides what the entry counts for in the domain's
    /// [backlog](crate::Backlog) and within [`max_weight`](Self::max_weight): up to 4 TB, rounded up by a thousandth.
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
        let Builder { limits, domain, clock, weigher, lifetime, listener, .. } = self;
        Builder { limits, domain, clock, weigher, lifetime, listener, hasher }
    }

    /// Builds the registry.
    ///
    /// # Panics
    ///
    /// If tables for the capacity asked for do not fit the address space; if the clock panics; and if what expires is to be
    /// [reaped in the background](Self::reap_in_background), and the domain has neither a reclaimer thread nor an executor.
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
        let settings = Settings {
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
