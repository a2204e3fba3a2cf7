//! Bounds on the number of entries, and what goes when there is one too many: second chance.
//!
//! A hand goes round the homes of a shard's table (F. J. Corbató's "clock" algorithm, 1968). An entry that was used since
//! the hand last passed it loses its mark and stays; the first without one goes. A new entry has no mark: one that is
//! never used again goes when the hand comes by.

#![allow(unsafe_code)]

use crate::domain::{Full, Refusal};
use crate::node::Node;
use crate::registry::Registry;
use crate::resize::State;
use crate::shard::{Locked, NoRoom, Shard};
use crate::table::Root;
use std::hash::{BuildHasher, Hash};
use std::ptr::NonNull;

/// Where the next victim is looked for.
pub(crate) struct Hand<K, V> {
    home: usize,
    /// Nodes of that home that were looked at.
    passed: usize,
    /// The nodes of one home: kept for its memory.
    found: Vec<NonNull<Node<K, V>>>,
}

impl<K, V> Default for Hand<K, V> {
    fn default() -> Self {
        Hand { home: 0, passed: 0, found: Vec::new() }
    }
}

// SAFETY: `found` is empty but in a call of `victim`.
unsafe impl<K: Send, V: Send> Send for Hand<K, V> {}

/// Entries that are looked at for one victim, about: if all of them were used, the first of them goes.
const LOOKED_AT: usize = 16;

/// Entries that are evicted under one lock.
const CHUNK: usize = 16;

impl<K, V> State<K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// The node whose turn it is to go. Under the lock.
    fn victim(&mut self) -> Option<NonNull<Node<K, V>>> {
        if self.live == 0 {
            return None;
        }
        let (table, hand) = (self.table, &mut self.hand);
        let (mut first, mut looked_at) = (None, 0);
        loop {
            table.visit(hand.home & table.mask(), table.mask(), &mut hand.found);
            for node in hand.found.drain(..).skip(hand.passed) {
                // SAFETY: in the table, S1.
                if !unsafe { node.as_ref() }.header.used.clear() {
                    // (It leaves a gap, into which the next one moves up.)
                    return Some(node);
                }
                hand.passed += 1;
                looked_at += 1;
                first.get_or_insert(node);
            }
            (hand.home, hand.passed) = (hand.home.wrapping_add(1), 0);
            if looked_at >= LOOKED_AT {
                return first;
            }
        }
    }
}

impl<K, V> Shard<K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Unlinks the node whose turn it is, if there is any room for it in the backlog. It is to be retired by the caller.
    #[cold]
    fn unlink_victim(
        &self,
        locked: &mut Locked<'_, K, V>,
        root: &Root<K, V>,
    ) -> Result<Option<NonNull<Node<K, V>>>, NoRoom> {
        let Some(victim) = locked.victim() else { return Ok(None) };
        // SAFETY: in the table, S1.
        unsafe { locked.admit(victim) }?;
        // SAFETY: as before.
        let hash = unsafe { victim.as_ref() }.header.hash;
        let table = locked.table_for(hash.into(), self.site(root));
        let position = table.locate_exact(victim).expect("what was met under the lock is in the table");
        table.unlink(position);
        locked.live -= 1;
        self.counts.evicted.add(1);
        Ok(Some(victim))
    }

    /// Makes room for one more node, within the shard's bound, by a victim that the caller is to retire.
    #[inline]
    pub(crate) fn room_for_one(
        &self,
        locked: &mut Locked<'_, K, V>,
        root: &Root<K, V>,
    ) -> Result<Option<NonNull<Node<K, V>>>, NoRoom> {
        if locked.live < locked.bound { Ok(None) } else { self.unlink_victim(locked, root) }
    }

    /// Evicts up to `most` nodes, as long as there are more than `keep`. Returns how many, and whether it stopped for want
    /// of room in the backlog.
    fn evict(&self, root: &Root<K, V>, most: usize, keep: usize) -> (usize, bool) {
        let mut evicted = 0;
        while evicted < most {
            let mut locked = self.lock();
            if locked.live <= keep {
                break;
            }
            match self.unlink_victim(&mut locked, root) {
                // SAFETY: admitted and unlinked under this lock.
                Ok(Some(victim)) => unsafe { self.retire(locked, victim) },
                Ok(None) => break,
                Err(NoRoom(bytes)) => match self.lock_with_room(locked, bytes, Refusal::Possible) {
                    Ok(again) => {
                        drop(again);
                        continue;
                    }
                    Err(Full) => return (evicted, true),
                },
            }
            evicted += 1;
        }
        (evicted, false)
    }
}

impl<K, V, S> Registry<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// The most entries that the registry holds: what was [asked for](crate::Builder::max_entries), rounded down to a
    /// multiple of the number of shards. `None` if there is no bound.
    pub fn max_entries(&self) -> Option<usize> {
        let mut shares = self.core.shards().map(|(shard, _)| shard.lock().bound);
        shares.try_fold(0, |sum, share| (share != usize::MAX).then(|| sum + share))
    }

    /// Changes the bound on the number of entries, and evicts those above it. From when this returns the bound holds at
    /// every instant, if there is room in the domain's backlog for what must go.
    ///
    /// The bound is divided among the shards, of which each holds one entry at least.
    ///
    /// # Progress
    ///
    /// Takes the lock of every shard, one after another, and once for each entry that is evicted.
    pub fn set_max_entries(&self, bound: Option<usize>) {
        let shards = self.core.shards().len();
        let share = bound.map_or(usize::MAX, |bound| (bound / shards).max(1));
        // ORDERING: Relaxed, as all that has to do with the mark.
        self.core.unmarked.store(bound.is_some(), std::sync::atomic::Ordering::Relaxed);
        for (shard, root) in self.core.shards() {
            shard.lock().bound = share;
            shard.evict(root, usize::MAX, share);
        }
        self.settle();
    }

    /// Evicts up to `count` entries, by second chance: those first that were not used lately. Returns how many went; fewer
    /// if there were not so many, or if there is no room for them in the domain's backlog. Table memory follows.
    ///
    /// ```
    /// let registry = epoch_registry::Registry::new();
    /// (0..1000).for_each(|key| drop(registry.insert(key, key).unwrap()));
    /// assert_eq!((registry.evict(100), registry.len()), (100, 900));
    /// registry.shrink_to(10);
    /// assert_eq!((registry.len(), registry.stats().evicted), (10, 990));
    /// ```
    ///
    /// # Progress
    ///
    /// Takes the lock of one shard for one entry at a time.
    pub fn evict(&self, count: usize) -> usize {
        let mut evicted = 0;
        loop {
            let before = evicted;
            for (shard, root) in self.core.shards() {
                let (more, full) = shard.evict(root, CHUNK.min(count - evicted), 0);
                evicted += more;
                if evicted == count || full {
                    self.settle();
                    return evicted;
                }
            }
            if evicted == before {
                self.settle();
                return evicted;
            }
        }
    }

    /// Evicts entries until no more than `count` are left, as [`evict`](Self::evict) does. Returns how many went.
    pub fn shrink_to(&self, count: usize) -> usize {
        let excess = self.len().saturating_sub(count);
        if excess == 0 { 0 } else { self.evict(excess) }
    }
}
