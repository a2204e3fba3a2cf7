//! Statistics of a registry.

use crate::domain::DomainStats;
use crate::registry::core::Core;
use crate::sync::atomic::Ordering;
use std::fmt;
use std::time::Duration;

/// Statistics of a registry: what it has done and holds. Returned by [`Registry::stats`](crate::Registry::stats).
///
/// The shards are counted one after another, without stopping writers. The counts are exact while no thread
/// writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Stats {
    /// Entries in the registry.
    pub live: u64,
    /// Entries ever inserted, including entries that replaced others.
    pub inserted: u64,
    /// Entries removed by [`remove`](crate::Registry::remove) and its like, `retain`, `drain` or `clear`.
    pub removed: u64,
    /// Entries replaced by others.
    pub replaced: u64,
    /// Entries removed by a reaper.
    pub reaped: u64,
    /// Entries that have expired: too old, or not used for too long.
    pub expired: u64,
    /// Entries evicted to make room for others, or by [`evict`](crate::Registry::evict) and its like.
    pub evicted: u64,
    /// Entries destroyed.
    pub freed: u64,
    /// Entries that have left the registry and are not destroyed yet. They wait for a grace period, for their
    /// turn, or for a handle to be dropped.
    pub backlog: u64,
    /// Drops of keys or values that panicked.
    pub drop_panics: u64,
    /// Calls of a [lifetime](crate::Builder::lifetime) that panicked after the entry was inserted.
    pub lifetime_panics: u64,
    /// Calls of the [listener](crate::Builder::listener) that panicked.
    pub listener_panics: u64,
    /// Resizes of a shard's table that have begun.
    pub resizes: u64,
    /// Acquisitions of a shard lock that had to wait: their first try failed, because another thread held the lock.
    ///
    /// This is the kernel's lock_stat, for the locks that the writes of this registry take. Counted are the waits of
    /// writes, of reapers and other walks that take the locks, and of the domain's threads when they collect what was
    /// retired or give memory back. Not counted are:
    ///
    /// - acquisitions that do not wait: their first try succeeds, or they give up after it;
    /// - waits for locks of the domain, and the pauses of writes [at the limit](crate::WhenFull) of its backlog;
    /// - waits while the registry is being dropped.
    ///
    /// An acquisition whose first try succeeds pays nothing for this. Each other one reads the clock twice, and updates
    /// the three figures under the lock.
    pub lock_waits: u64,
    /// How long these acquisitions took in all, until they had the lock: while they spun, slept, or waited for a core.
    pub lock_wait_total: Duration,
    /// How long the longest of these acquisitions took.
    pub lock_wait_longest: Duration,
    /// The [weight](crate::Registry::weight) of all entries, in bytes.
    pub weight: u64,
    /// The [bound](crate::Registry::max_entries) on the number of entries, if there is one.
    pub max_entries: Option<u64>,
    /// The [bound](crate::Registry::max_weight) on the weight of all entries, in bytes, if there is one.
    pub max_weight: Option<u64>,
    /// Reads that have found an entry, if they are [counted](crate::Builder::count_hits).
    pub hits: Option<u64>,
    /// Reads that have found no entry, or an expired one, if they are [counted](crate::Builder::count_hits).
    pub misses: Option<u64>,
    /// The statistics of the domain, which registries of one domain share.
    pub domain: DomainStats,
}

impl Stats {
    pub(crate) fn of<K, V>(core: &Core<K, V>) -> Stats
    where
        K: Send + Sync + 'static,
        V: Send + Sync + 'static,
    {
        let registrant = &core.header;
        // ORDERING: Relaxed: statistics. `freed` comes first, then the removals, then the insertions, so that a
        // node that moves on during the call is usually counted where it was before.
        let freed = registrant.freed.load(Ordering::Relaxed);
        let drop_panics = registrant.panics.load(Ordering::Relaxed);
        let listener_panics = core.settings().listeners.panics();
        let lifetime_panics = core.settings().lifetimes.panics();
        let mut stats = Stats { freed, drop_panics, lifetime_panics, listener_panics, ..Stats::default() };
        (stats.max_entries, stats.max_weight) = (Some(0), Some(0));
        if let Some(lookups) = &core.settings().lookups {
            (stats.hits, stats.misses) = (Some(lookups.hits.sum() as u64), Some(lookups.misses.sum() as u64));
        }
        for shard in core.shards() {
            let waits = shard.waits.get();
            stats.lock_waits += waits.count;
            stats.lock_wait_total = stats.lock_wait_total.saturating_add(waits.total);
            stats.lock_wait_longest = stats.lock_wait_longest.max(waits.longest);
            let counts = &shard.counts;
            stats.live += counts.live.get();
            stats.removed += counts.removed.get();
            stats.replaced += counts.replaced.get();
            stats.reaped += counts.reaped.get();
            stats.evicted += counts.evicted.get();
            stats.expired += counts.expired.get();
            stats.inserted += counts.inserted.get();
            stats.resizes += counts.resizes.get();
            stats.weight = stats.weight.saturating_add(counts.weight.get());
            let entries = counts.entry_bound();
            stats.max_entries = stats.max_entries.zip(entries).map(|(sum, part)| sum + part as u64);
            let weight = counts.weight_bound();
            stats.max_weight = stats.max_weight.zip(weight).map(|(sum, part)| sum + part);
        }
        let left = stats.removed + stats.replaced + stats.reaped + stats.expired + stats.evicted;
        stats.backlog = left.saturating_sub(freed);
        stats.domain = registrant.domain.stats();
        stats
    }
}

/// Shows a count, or that it is not counted.
struct Counted(Option<u64>);

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(count) => count.fmt(f),
            None => f.write_str("uncounted"),
        }
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stats { live, inserted, removed, replaced, reaped, expired, evicted, freed, backlog, .. } = self;
        write!(
            f,
            "live {live}, inserted {inserted}, removed {removed}, replaced {replaced}, reaped {reaped}, \
             expired {expired}, evicted {evicted}, freed {freed}, backlog {backlog}, drop panics {}, lifetime panics {}, listener panics {}, resizes {}, \
             lock waits {} (in all {:?}, longest {:?}), weight {}, hits {}, misses {}; domain: {}",
            self.drop_panics,
            self.lifetime_panics,
            self.listener_panics,
            self.resizes,
            self.lock_waits,
            self.lock_wait_total,
            self.lock_wait_longest,
            self.weight,
            Counted(self.hits),
            Counted(self.misses),
            self.domain
        )
    }
}
