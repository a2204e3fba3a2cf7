//! Limits on what a registry holds, and for how long. They are set when it is built, and may be changed while it
//! runs.

use crate::domain::IfFull;
use crate::reap::Cursor;
use crate::reap::Reaped;
use crate::registry::Registry;
use crate::shard::counts::Counts;
use crate::shard::evict::Bounds;
use crate::shard::state::Special;
use crate::util::clock::Time;
use std::hash::{BuildHasher, Hash};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// How many entries are evicted from one shard before the next shard has its turn.
const EVICTION_CHUNK: usize = 16;

/// How many entries are given new deadlines at a time.
const RENEWED: usize = 64;

impl<K, V, S> Registry<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Returns the maximum number of entries that the registry holds, or `None` if there is no bound.
    ///
    /// This is the bound that was [set](crate::Builder::max_entries), rounded down to a multiple of the number of
    /// shards, and at least one for each shard. In a registry that [refuses](crate::AtCapacity::Refuse), the bound is
    /// not divided, and so not rounded.
    pub fn max_entries(&self) -> Option<usize> {
        if let Some(places) = &self.core.settings().places {
            return places.max_entries();
        }
        self.sum_of(Counts::entry_bound)
    }

    /// Returns the maximum weight of all entries in bytes, or `None` if there is no bound.
    ///
    /// This is the bound that was [set](crate::Builder::max_weight), rounded down to a multiple of the number of
    /// shards.
    pub fn max_weight(&self) -> Option<u64> {
        if let Some(places) = &self.core.settings().places {
            return places.max_weight();
        }
        self.sum_of(Counts::weight_bound)
    }

    fn sum_of<T: std::iter::Sum>(&self, share: impl Fn(&Counts) -> Option<T>) -> Option<T> {
        self.core.shards().map(|shard| share(shard.counts())).sum()
    }

    /// Changes the bound on the number of entries, and evicts the entries above it. `None` removes the bound.
    ///
    /// After this returns, the bound holds at every instant, if the domain's backlog has room for the entries
    /// that must go. The bound is divided among the shards. Each shard holds at least one entry. Entries of the
    /// priority [`Never`](crate::Priority::Never) stay. A registry that [refuses](crate::AtCapacity::Refuse) evicts
    /// none: it admits no entry until enough have left.
    ///
    /// # Progress
    ///
    /// Takes the lock of every shard, one after another, and takes it again for every few entries that it evicts.
    pub fn set_max_entries(&self, bound: Option<usize>) {
        if let Some(places) = &self.core.settings().places {
            return places.set_max_entries(bound);
        }
        let part = Bounds::part_of_entries(bound, self.core.shards().len());
        self.change_bounds(|bounds| bounds.entries = part);
    }

    /// Changes the bound on the weight of all entries in bytes, and evicts the entries above it. `None` removes
    /// the bound.
    ///
    /// Works as [`set_max_entries`](Self::set_max_entries). The bound is divided among the shards. Each shard
    /// holds at least one entry, however heavy.
    ///
    /// # Progress
    ///
    /// As [`set_max_entries`](Self::set_max_entries).
    pub fn set_max_weight(&self, bound: Option<u64>) {
        if let Some(places) = &self.core.settings().places {
            return places.set_max_weight(bound);
        }
        let part = Bounds::part_of_weight(bound, self.core.shards().len());
        self.change_bounds(|bounds| bounds.weight = part);
    }

    fn change_bounds(&self, change: impl Fn(&mut Bounds)) {
        let mut unmarked = false;
        for shard in self.core.shards() {
            let mut locked = shard.lock();
            change(&mut locked.bounds);
            shard.counts().set_bounds(locked.bounds);
            let needs_care = locked.bounds.need_care();
            locked.special.set(Special::BOUNDED, needs_care);
            unmarked |= locked.bounds.are_set();
        }
        self.core.read_duties.set_unmarked(unmarked);
        let mut if_full = IfFull::fail();
        for shard in self.core.shards() {
            self.core.evict_excess(shard, &mut if_full);
        }
        self.finish_resize();
    }

    /// Returns the weight of all entries in bytes: their own size, and what the
    /// [weigher](crate::Builder::weigher) has returned. Exact while no thread writes.
    pub fn weight(&self) -> u64 {
        self.core.shards().fold(0, |sum, shard| shard.counts().weight.get().saturating_add(sum))
    }

    /// Evicts up to `count` entries by second chance: entries not used lately go first. Returns how many it
    /// evicted.
    ///
    /// It evicts fewer if the registry held fewer when it was called, or if the domain's backlog has no room for
    /// more. Then it lets the tables shrink to the number of entries that are left.
    ///
    /// # Examples
    ///
    /// ```
    /// let registry = epoch_registry::Registry::new();
    /// (0..1000).for_each(|key| drop(registry.insert(key, key)));
    /// assert_eq!((registry.evict(100), registry.len()), (100, 900));
    /// registry.shrink_to(10);
    /// assert_eq!((registry.len(), registry.stats().evicted), (10, 990));
    /// ```
    ///
    /// # Progress
    ///
    /// Takes the lock of one shard for a few entries at a time.
    pub fn evict(&self, count: usize) -> usize {
        // Entries that other threads insert during the call do not prolong it.
        let count = count.min(self.len());
        let (mut evicted, mut empty) = (0, 0);
        let shards = self.core.shards().len();
        while evicted < count && empty < shards {
            // ORDERING: Relaxed: two calls may begin with the same shard, which does no harm.
            let turn = self.core.evicted_to.fetch_add(1, Relaxed) % shards;
            let Some(shard) = self.core.shards().nth(turn) else { break };
            let most = EVICTION_CHUNK.min(count - evicted);
            let shed = self.core.evict(shard, most, &mut IfFull::fail(), |state| state.live() > 0);
            evicted += shed.entries;
            empty = if shed.entries == 0 { empty + 1 } else { 0 };
            if shed.full {
                break;
            }
        }
        self.finish_resize();
        evicted
    }

    /// Evicts entries until at most `count` are left, as [`evict`](Self::evict) does. Returns how many it
    /// evicted.
    ///
    /// # Progress
    ///
    /// As [`evict`](Self::evict).
    pub fn shrink_to(&self, count: usize) -> usize {
        let excess = self.len().saturating_sub(count);
        if excess == 0 { 0 } else { self.evict(excess) }
    }

    /// Removes expired entries: those older than [`max_age`](crate::Builder::max_age), their own
    /// [`lifetime`](crate::Builder::lifetime) or their [time to live](Self::set_ttl) allows, and those not used for
    /// [`max_idle`](crate::Builder::max_idle).
    ///
    /// Examines up to about `budget` of the entries that may have expired (it does not split those of one hash),
    /// and no others. The next call resumes where this one stopped.
    ///
    /// The domain's reclaimer does this in the background, if
    /// [`reap_in_background`](crate::Builder::reap_in_background) is set. Each insertion does a small share of it
    /// in its own shard. Until an expired entry is reaped, it takes its memory, but no call finds it.
    ///
    /// It stops early if the domain's backlog has no room. It does nothing within a
    /// [`lifetime`](crate::Builder::lifetime), or within a [`listener`](crate::Builder::listener) that it has
    /// itself called.
    ///
    /// # Progress
    ///
    /// Takes the lock of each shard in which an entry may have expired, for a few entries at a time.
    pub fn expire(&self, budget: usize) -> Reaped {
        let reaped = self.core.expire(budget);
        if reaped.removed > 0 {
            self.finish_resize();
        }
        reaped
    }

    /// Changes the maximum age of entries. `None` removes the limit.
    ///
    /// After this returns, the new limit holds for all entries. While it runs, each entry goes by the old limit
    /// or by the new one. An entry that a call has found to have expired by the old limit stays absent. An entry
    /// that is past the old limit, and that no call has looked at since, lives on if the new limit allows it.
    ///
    /// If the registry was built without a limit, the first limit costs more:
    ///
    /// - It takes the lock of each shard for a look at all entries of the shard.
    /// - The age of the entries that are in the registry then is known to 34 ms, and they never expire early.
    ///   Each takes 32 bytes more, until the registry is dropped.
    /// - From then on every read that finds an entry reads the clock, unless [reads are
    ///   stale](crate::Builder::stale_reads).
    ///
    /// An entry whose [time to live](Self::set_ttl) was set by itself keeps the earlier of its present end and the new
    /// limit: the new limit may shorten its life, and does not prolong it.
    ///
    /// This method does not read the clock.
    ///
    /// # Progress
    ///
    /// Goes through all entries, with a short critical section and a few short locks for every 64.
    pub fn set_max_age(&self, age: Option<Duration>) {
        let lifetimes = &self.core.settings().lifetimes;
        if age.is_none() && !lifetimes.expires() {
            return;
        }
        self.core.begin_to_expire();
        lifetimes.set_max_age(age);
        self.renew_all();
    }

    /// Changes the maximum time for which an entry may go unused, as [`set_max_age`](Self::set_max_age) changes
    /// the maximum age. `None` removes the limit.
    ///
    /// If there was no such limit before, the entries in the registry count as used now.
    ///
    /// # Panics
    ///
    /// Panics if the clock panics. The clock is read unless `time` is `None`. After a first panic the clock is
    /// read again. If that succeeds, the limit is changed, and then the panic continues. If it fails too, nothing
    /// is changed.
    ///
    /// # Progress
    ///
    /// As [`set_max_age`](Self::set_max_age).
    pub fn set_max_idle(&self, time: Option<Duration>) {
        let lifetimes = &self.core.settings().lifetimes;
        if time.is_none() && !lifetimes.expires() {
            return;
        }
        // Read the clock first, because nothing after it panics.
        let read = || if time.is_some() { self.core.now() } else { Time::ZERO };
        let (now, panic) = match catch_unwind(AssertUnwindSafe(read)) {
            Ok(now) => (now, None),
            Err(payload) => (read(), Some(payload)),
        };
        self.core.begin_to_expire();
        lifetimes.set_max_idle(time, now);
        self.renew_all();
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }

    /// Gives all entries the deadlines and timers that the present limits ask for.
    fn renew_all(&self) {
        self.core.fence_writers();
        let (mut cursor, mut entries) = (Cursor::new(), Vec::new());
        while !cursor.is_done() {
            // Expired entries are included, because they need a timer too.
            self.scan_to(None, &mut cursor, RENEWED, None, |entry| entries.extend(entry.handle()));
            self.core.renew(&entries);
            entries.clear();
        }
    }
}
