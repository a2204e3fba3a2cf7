//! What a registry may hold, and for how long: set when it is built, changed while it runs.

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

/// Entries that are evicted from one shard before the next has its turn.
const CHUNK: usize = 16;

/// Entries that are given new deadlines at a time.
const RENEWED: usize = 64;

impl<K, V, S> Registry<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// The most entries that the registry holds: what was [asked for](crate::Builder::max_entries), rounded down to a
    /// multiple of the number of shards. `None` if there is no bound.
    pub fn max_entries(&self) -> Option<usize> {
        self.sum_of(|counts| Some(counts.max_entries.get() as usize).filter(|&bound| bound != usize::MAX))
    }

    /// The most bytes that its entries count for: what was [asked for](crate::Builder::max_weight), rounded down to a
    /// multiple of the number of shards. `None` if there is no bound.
    pub fn max_weight(&self) -> Option<u64> {
        self.sum_of(|counts| Some(counts.max_weight.get()).filter(|&bound| bound != u64::MAX))
    }

    fn sum_of<T: std::iter::Sum>(&self, share: impl Fn(&Counts) -> Option<T>) -> Option<T> {
        self.core.shards().map(|shard| share(shard.counts())).sum()
    }

    /// Changes the bound on the number of entries, and evicts those above it. From when this returns the bound holds at
    /// every instant, if there is room in the domain's backlog for what must go.
    ///
    /// The bound is divided among the shards, of which each holds one entry at least.
    ///
    /// # Progress
    ///
    /// Takes the lock of every shard, one after another, and again for every few entries that are evicted.
    pub fn set_max_entries(&self, bound: Option<usize>) {
        let part = Bounds::part_of_entries(bound, self.core.shards().len());
        self.change_bounds(|bounds| bounds.entries = part);
    }

    /// Changes the bound on the bytes that entries count for, and evicts those above it, as
    /// [`set_max_entries`](Self::set_max_entries) does.
    ///
    /// The bound is divided among the shards, of which each holds one entry at least, however heavy.
    ///
    /// # Progress
    ///
    /// As [`set_max_entries`](Self::set_max_entries).
    pub fn set_max_weight(&self, bound: Option<u64>) {
        let part = Bounds::part_of_weight(bound, self.core.shards().len());
        self.change_bounds(|bounds| bounds.weight = part);
    }

    fn change_bounds(&self, change: impl Fn(&mut Bounds)) {
        let mut unmarked = false;
        for shard in self.core.shards() {
            let mut locked = shard.lock();
            change(&mut locked.bounds);
            shard.counts().set_bounds(locked.bounds);
            let is_bounded = locked.bounds.are_set();
            locked.special.set(Special::BOUNDED, is_bounded);
            unmarked |= locked.bounds.are_set();
        }
        self.core.read_duties.set_unmarked(unmarked);
        let mut if_full = IfFull::fail();
        for shard in self.core.shards() {
            self.core.evict(shard, usize::MAX, &mut if_full, |state| {
                let weight = state.shard.counts().weight.get();
                state.live() > state.bounds.entries || weight > state.bounds.weight && state.live() > 1
            });
        }
        self.finish_resize();
    }

    /// The bytes that the entries count for: their own, and what the [weigher](crate::Builder::weigher) says.
    /// Exact while nobody writes.
    pub fn weight(&self) -> u64 {
        self.core.shards().fold(0, |sum, shard| shard.counts().weight.get().saturating_add(sum))
    }

    /// Evicts up to `count` entries, by second chance: those first that were not used lately. Returns how many went; fewer
    /// if there were not so many when it was called, or if there is no room for them in the domain's backlog. Table memory
    /// follows.
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
        // What others insert meanwhile is not waited for.
        let count = count.min(self.len());
        let (mut evicted, mut empty) = (0, 0);
        let shards = self.core.shards().len();
        while evicted < count && empty < shards {
            // ORDERING: Relaxed: two calls may begin with one shard, which does no harm.
            let turn = self.core.evicted_to.fetch_add(1, Relaxed) % shards;
            let Some(shard) = self.core.shards().nth(turn) else { break };
            let most = CHUNK.min(count - evicted);
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

    /// Evicts entries until no more than `count` are left, as [`evict`](Self::evict) does. Returns how many went.
    pub fn shrink_to(&self, count: usize) -> usize {
        let excess = self.len().saturating_sub(count);
        if excess == 0 { 0 } else { self.evict(excess) }
    }

    /// Removes entries whose time has come: those older than [`max_age`](crate::Builder::max_age) or their own
    /// [`lifetime`](crate::Builder::lifetime) allows, and those not used for [`max_idle`](crate::Builder::max_idle). Looks at
    /// up to about `budget` of those whose time may have come (those of one hash are not split), and at no others. What of it a call has not done, the next does.
    ///
    /// The domain's reclaimer does it in the background, if that is [asked for](crate::Builder::reap_in_background), and each
    /// insertion does a little of it in its own shard. Until an entry is reaped, it takes its memory, and is found by no call.
    ///
    /// It stops for want of room in the domain's backlog. Called from a [`lifetime`](crate::Builder::lifetime) or a listener
    /// that a reap has called, it does nothing.
    ///
    /// # Progress
    ///
    /// Takes the lock of a shard where there is something to do, for a few entries at a time.
    pub fn expire(&self, budget: usize) -> Reaped {
        let reaped = self.core.expire(budget);
        if reaped.removed > 0 {
            self.finish_resize();
        }
        reaped
    }

    /// Changes how old entries may become. `None`: as old as they like.
    ///
    /// When it returns, the new limit holds for all entries. While it runs, each goes by the old limit or by the new one. An entry
    /// that some call has found to have expired, by the old limit, stays absent; one that is past the old limit, and was not looked
    /// at since, lives on if the new one allows that.
    ///
    /// The first limit of a registry that was built without one takes a look at all entries of a shard under its lock. Of the entries
    /// that are there then, the age is known to 17 ms (on the side of keeping them), and they take 32 bytes more each, until
    /// the registry is dropped. From then on every read reads the clock. This does not.
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
        self.renew();
    }

    /// Changes how long entries may be without use, as [`set_max_age`](Self::set_max_age) does. If there was no such limit
    /// before, those there are count as used now.
    ///
    /// # Panics
    ///
    /// If the clock does, which is read unless `time` is `None`. It is read again then: if that works, the limit has changed before the panic goes on, and if not, nothing
    /// has.
    ///
    /// # Progress
    ///
    /// As [`set_max_age`](Self::set_max_age).
    pub fn set_max_idle(&self, time: Option<Duration>) {
        let lifetimes = &self.core.settings().lifetimes;
        if time.is_none() && !lifetimes.expires() {
            return;
        }
        // First: nothing that follows panics.
        let read = || if time.is_some() { self.core.now() } else { Time::ZERO };
        let (now, panic) = match catch_unwind(AssertUnwindSafe(read)) {
            Ok(now) => (now, None),
            Err(payload) => (read(), Some(payload)),
        };
        self.core.begin_to_expire();
        lifetimes.set_max_idle(time, now);
        self.renew();
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }

    fn renew(&self) {
        self.core.fence_writers();
        let (mut cursor, mut entries) = (Cursor::new(), Vec::new());
        while !cursor.is_done() {
            // With those that have expired, as they need a timer too.
            self.scan_to(None, &mut cursor, RENEWED, None, |entry| entries.extend(entry.handle()));
            self.core.renew(&entries);
            entries.clear();
        }
    }
}
