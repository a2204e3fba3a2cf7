//! The builder of a registry, with its settings.

use crate::domain::Domain;
use crate::handle::Handle;
use crate::handle::listener::{InsertListener, Listener, Listeners};
use crate::node::owner::SlabSize;
use crate::reap::Cause;
use crate::registry::Registry;
use crate::registry::admission::AtCapacity;
use crate::registry::core::CoreOwner;
use crate::shard::evict::Bounds;
use crate::shard::expiry::{Lifetime, Lifetimes};
use crate::shard::places::Places;
use crate::shard::settings::{Exempts, Prioritizer, RegistrySettings, Weigher};
use crate::util::clock::{Clock, Timekeeper, boxed};
use crate::util::hasher::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;
use std::time::Duration;

/// A builder of a [`Registry`], from [`Registry::builder`].
///
/// # Uses
///
/// Eviction ([`max_entries`](Self::max_entries), [`max_weight`](Self::max_weight)), idleness
/// ([`max_idle`](Self::max_idle)) and the counts of hits and misses ([`count_hits`](Self::count_hits)) all go by the same
/// uses of an entry: the lookups of its key.
///
/// | operation | a use of the entry that it finds |
/// |---|---|
/// | `get`, `lookup`, `with`, `contains_key`; in batches; given a hash; by any guard, view or reader | yes |
/// | `get_or_insert_with` and its like, if the key is there | yes |
/// | `update`, `compute`, `remove_if`: their first step is a lookup | yes |
/// | `peek`, `WeakHandle::upgrade` | no |
/// | `insert`, `set`, `remove`, `delete`: they look for the key to write it | no |
/// | `try_insert`, `add`, if the key is there | no |
/// | `iter`, `keys`, `values`, `scan`, `retain`, `drain`, reaping by policies | no |
/// | `set_ttl`, `expire_at`, `renew`, `age`, `remaining`, `reweigh` | no |
/// | any use of a handle or a borrowed entry, once the lookup has returned it | no |
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
    pub(super) on_insert: Option<InsertListener<K, V>>,
    pub(super) tell_dropped: bool,
    pub(super) at_capacity: AtCapacity,
    pub(super) prioritizer: Option<Prioritizer<K, V>>,
    pub(super) exempts: Option<Exempts<K, V>>,
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
    per_entry_ttl: bool,
    spare_held: bool,
    seeks: u32,
    slab_size: SlabSize,
    stale_reads: bool,
    reap_in_background: bool,
    count_hits: bool,
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
            per_entry_ttl: false,
            spare_held: false,
            seeks: 2,
            slab_size: SlabSize::default(),
            stale_reads: false,
            reap_in_background: false,
            count_hits: false,
        };
        Builder {
            limits,
            domain: None,
            clock: None,
            weigher: None,
            lifetime: None,
            listener: None,
            on_insert: None,
            tell_dropped: false,
            at_capacity: AtCapacity::Evict,
            prioritizer: None,
            exempts: None,
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
    /// What follows is about a registry that evicts. One that refuses instead is built with
    /// [`at_capacity`](Self::at_capacity). Which entries are evicted first, and which never, can be said by
    /// [`priority`](Self::priority).
    ///
    /// An insertion that would exceed the bound first evicts another entry of its shard by second chance: one
    /// that was not [used](Self#uses) since the eviction last looked at it.
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
    /// # What the bound covers
    ///
    /// | | covered |
    /// |---|---|
    /// | key, value, and the header of the entry | yes |
    /// | what the weigher returned for the entry when it was inserted | yes, rounded up by at most a thousandth |
    /// | what the value has allocated since then | no |
    /// | the tables | no: see [`Registry::table_bytes`] |
    /// | slots of slabs that no entry uses, and what the allocator adds | no |
    /// | what is kept for the expiry of an entry: about 36 bytes, at most 48 | no |
    /// | entries that have left and are not destroyed yet, for which readers or handles are in the way | no: see below |
    ///
    /// So the memory of small entries is above the bound. An entry of `u64` to `u64` weighs 32 bytes, and takes about 50
    /// with its share of tables and slabs (`docs/benchmarks.md`).
    ///
    /// An evicted entry takes memory until it is destroyed. That waits for readers, for its turn, and for the last
    /// handle. [`Stats::backlog`](crate::Stats::backlog) counts such entries. To bound the memory of those without
    /// handles, [limit](crate::DomainBuilder::backlog_bytes) the bytes of the backlog and have writers
    /// [wait](crate::WhenFull).
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

    /// Sets the maximum time for which an entry may go unused: the time since its insertion, or since its last
    /// [use](Self#uses). No limit by default.
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
    /// - A shorter answer takes effect only when the time of the previous answer comes. After `None`, the function is
    ///   not called again by itself. In both cases, [`Registry::renew`] asks at once: call it when the value has
    ///   changed its mind.
    /// - A [time to live](Registry::set_ttl) that is set for an entry takes the place of the function's answer.
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

    /// Sets whether the registry is prepared from the start for entries that have a [time to
    /// live](Registry::insert_with_ttl) of their own. False by default: the first such entry prepares it, unless there
    /// is a limit of another kind.
    ///
    /// In a prepared registry an entry takes 24 bytes more, and 12 to 24 once it can expire. A read that finds an entry
    /// reads the clock, unless [reads are stale](Self::stale_reads), and so does a write.
    ///
    /// If the registry is prepared by the first such entry instead, that call takes the lock of each shard for a look
    /// at all entries of the shard. The entries that are there take 8 bytes more than later ones, until the registry
    /// is dropped, and their [age](Registry::age) is known to 34 ms.
    ///
    /// # Examples
    ///
    /// ```
    /// use epoch_registry::{ManualClock, Registry};
    /// use std::time::Duration;
    ///
    /// let clock = ManualClock::new();
    /// let registry = Registry::builder().per_entry_ttl(true).clock(clock.clone()).build();
    /// registry.set("a", 1);
    /// registry.set_with_ttl("b", 2, Duration::from_secs(10));
    /// clock.advance(Duration::from_secs(11));
    /// assert!(registry.contains_key("a") && !registry.contains_key("b"));
    /// ```
    pub fn per_entry_ttl(mut self, prepared: bool) -> Self {
        self.limits.per_entry_ttl = prepared;
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

    /// Sets the size of the slabs that hold the entries. [`SlabSize::Small`] by default.
    ///
    /// A slab is what the kernel's `kmem_cache` calls a slab: it has slots for entries of one size, and it goes back to the
    /// allocator when its last entry is destroyed. So the size decides what is left allocated when most entries have gone.
    ///
    /// | | `Small`, 1 KiB | `Large`, 4 KiB |
    /// |---|---|---|
    /// | allocations of a full registry | one for each KiB | a quarter of these |
    /// | bytes before the slots | 48 of 1,024 | 48 of 4,096 |
    /// | slots of 32 bytes | 30 | 126 |
    /// | the largest slot; larger entries have allocations of their own | 320 bytes | 1,344 bytes |
    /// | empty slabs that each shard keeps for its next entries | 2 KiB, and a sixteenth | 8 KiB, and a sixteenth |
    ///
    /// Choose `Large` if entries take 300 to 1,300 bytes, or if the registry stays full, or if its entries leave in the order
    /// in which they came. Choose `Small` if entries leave at random and their memory must be given back. `docs/design.md` has
    /// measurements.
    ///
    /// The slots of a slab hold entries of one registry for as long as the slab exists. In the kernel's terms the memory is
    /// type-stable, as with `SLAB_TYPESAFE_BY_RCU`. Readers do not rely on that, with either size: a slot is used again
    /// only after a grace period. A slab has no constructor (`ctor`): each entry is written whole before it is published.
    ///
    /// # Examples
    ///
    /// ```
    /// use epoch_registry::{Registry, SlabSize};
    ///
    /// let pages: Registry<u64, [u8; 1000]> = Registry::builder().slab_size(SlabSize::Large).build();
    /// pages.insert(1, [0; 1000]);
    /// assert_eq!(pages.lookup(&1).unwrap().len(), 1000);
    /// ```
    pub fn slab_size(mut self, size: SlabSize) -> Self {
        self.limits.slab_size = size;
        self
    }

    /// Sets a callback that runs after an entry leaves the registry, with the cause and a handle to the entry. It
    /// does not run when the registry is dropped, unless [`tell_dropped`](Self::tell_dropped) is set. Insertions are
    /// told by [`on_insert`](Self::on_insert).
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

    /// Sets whether reads are counted as hits and misses, for [`Stats::hits`](crate::Stats::hits). False by default: then
    /// this costs a read nothing.
    ///
    /// The reads that [count as a use](Self#uses) are counted: each thread counts for itself, in a
    /// [`Counter`](crate::Counter). An expired entry is a miss.
    ///
    /// # Examples
    ///
    /// ```
    /// let registry = epoch_registry::Registry::builder().count_hits(true).build();
    /// registry.set("a", 1);
    /// let mut reader = registry.reader();
    /// for key in ["a", "b", "a", "a"] {
    ///     reader.get(key);
    /// }
    /// let stats = registry.stats();
    /// assert_eq!((stats.hits, stats.misses), (Some(3), Some(1)));
    /// ```
    pub fn count_hits(mut self, count: bool) -> Self {
        self.limits.count_hits = count;
        self
    }

    /// Sets a function that returns how many bytes an entry holds beyond its own size, in strings, vectors and
    /// the like. None by default.
    ///
    /// It is called once, before an entry is inserted, and again by [`Registry::reweigh`]. The result counts in the domain's
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
        Builder {
            limits: self.limits,
            domain: self.domain,
            clock: self.clock,
            weigher: self.weigher,
            lifetime: self.lifetime,
            listener: self.listener,
            on_insert: self.on_insert,
            tell_dropped: self.tell_dropped,
            at_capacity: self.at_capacity,
            prioritizer: self.prioritizer,
            exempts: self.exempts,
            hasher,
        }
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
        let refuses = self.at_capacity == AtCapacity::Refuse;
        let places = refuses.then(|| Arc::new(Places::new(limits.max_entries, limits.max_weight)));
        // A bound that is not divided does not limit the number of shards.
        let (max_entries, max_weight) = if refuses { (None, None) } else { (limits.max_entries, limits.max_weight) };
        let most = max_entries.unwrap_or(usize::MAX).max(1);
        let wanted = limits.shards.unwrap_or_else(|| default_shards().min(most / LEAST_SHARE));
        let shards = wanted.clamp(1, MOST_SHARDS).next_power_of_two().min(1 << most.ilog2().min(16));
        let bounds = Bounds {
            entries: Bounds::part_of_entries(max_entries, shards),
            weight: Bounds::part_of_weight(max_weight, shards),
            spare_held: limits.spare_held,
            by_priority: self.prioritizer.is_some(),
        };
        // The three functions are asked together, so that an insertion without any has one test.
        let asks = self.prioritizer.is_some() || self.exempts.is_some();
        let weigher = self.weigher.or_else(|| asks.then(|| -> Weigher<K, V> { Box::new(|_, _| 0) }));
        let settings = RegistrySettings {
            clock: Timekeeper::new(self.clock),
            weigher,
            prioritizer: self.prioritizer,
            exempts: self.exempts,
            lifetimes: Lifetimes::new(
                limits.max_age,
                limits.max_idle,
                self.lifetime,
                limits.spare_held,
                limits.per_entry_ttl,
            ),
            listeners: Listeners::new(self.listener, self.on_insert, self.tell_dropped),
            spare_held: limits.spare_held,
            lookups: limits.count_hits.then(Box::default),
            seeks: limits.seeks,
            places,
            slab: limits.slab_size,
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
