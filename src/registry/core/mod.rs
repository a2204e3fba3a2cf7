//! The core of a registry: all of it except the hasher.
//!
//! Nodes keep the core alive. It is freed when the registry is gone and the last of its nodes is destroyed (Q2).
//!
//! - [`reads`]: what a read owes an entry that it has found.
//! - [`writes`]: insertion, replacement and removal of one entry.
//! - [`expiry`]: ages and ends of entries, and the removal of expired ones.
//! - [`owner`]: the holds on a core, its beginning and its end.

#![allow(unsafe_code)]

mod expiry;
mod owner;
mod reads;
mod writes;

pub(crate) use owner::{CoreOwner, CoreReference};

use crate::domain::{Full, IfFull, RegistryHeader, shard_of};
use crate::handle::Handle;
use crate::node::Node;
use crate::node::life::Life;
use crate::node::usage::ReadDuties;
use crate::node::weight::Weight;
use crate::reap::{Cause, Cursor};
use crate::shard::evict::{Evicted, Shed};
use crate::shard::locked::Locked;
use crate::shard::settings::RegistrySettings;
use crate::shard::weak::WeakLink;
use crate::shard::{Shard, ShardRef};
use crate::sync::Mutex;
use crate::table::{Root, Roots};
use crate::util::check;
use crate::util::clock::Time;
use crate::util::prefetch;
use crossbeam_utils::CachePadded;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};

/// The roots and the shards of a registry, at the same indices. The domain knows only the first field.
#[repr(C)]
pub(crate) struct Core<K: 'static, V: 'static> {
    pub(crate) header: RegistryHeader,
    /// The duties of reads besides finding an entry. Every read loads this word. It has a cache line of its own,
    /// because the header is written whenever nodes are freed.
    pub(crate) read_duties: CachePadded<ReadDuties>,
    /// The shift of [`Roots`]: it leaves those bits of a hash that select the shard.
    shift: u32,
    /// The root of each shard, where lookups begin. The roots lie close together, because a root changes only
    /// when its shard gets another table. They lie apart from the shards, because every write dirties a cache
    /// line of its shard.
    roots: Box<[Root<K, V>]>,
    shards: Box<[CachePadded<Shard<K, V>>]>,
    /// The settings. Dropped with the registry, whereas the core may live longer.
    settings: ManuallyDrop<RegistrySettings<K, V>>,
    /// The weight of a node that holds no memory beyond itself.
    node: Weight,
    /// A counter that selects the shard from which the next call evicts first. Not modelled by loom: only a hint.
    pub(crate) evicted_to: AtomicUsize,
    /// The cursor from which the next call of `reap_if` and its like resumes.
    pub(crate) reaped_to: Mutex<Cursor>,
    /// The number of admissions that were refused. Not modelled by loom: only a statistic.
    pub(crate) refused: AtomicU64,
    /// The shard that the next call of `expire` examines first. Not modelled by loom: only a hint.
    expired_to: AtomicUsize,
    /// The time at which the domain's reclaimer next looks for expired entries, or `IN_FOREGROUND` if it does not
    /// look. An insertion lowers it, and wakes the reclaimer, if an entry of its shard is due earlier. Not
    /// modelled by loom: only a hint.
    background_at: AtomicU64,
}

impl<K, V> Core<K, V> {
    /// Returns the roots, where lookups begin.
    #[inline]
    pub(crate) fn roots(&self) -> Roots<'_, K, V> {
        // SAFETY: `CoreOwner::new` makes 2^(32 - `shift`) roots.
        unsafe { Roots::new(&self.roots, self.shift) }
    }
}

impl<K, V> Core<K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Returns the shard that `hash` belongs to.
    #[inline]
    fn shard(&self, hash: u64) -> ShardRef<'_, K, V> {
        let index = self.roots().index(hash);
        // SAFETY: the index is below the number of roots.
        let root = unsafe { self.roots.get_unchecked(index) };
        // SAFETY: the index is below the number of roots, and there are as many shards.
        ShardRef::new(unsafe { self.shards.get_unchecked(index) }, root)
    }

    /// Returns the shard that `hash` belongs to, and prefetches the cache lines that a write of `hash` needs.
    ///
    /// The prefetch comes before the lock. Under the lock, the writer would wait for one line after the other,
    /// and so would the writers that wait for the lock.
    #[inline(always)]
    fn shard_to_write(&self, hash: u64) -> ShardRef<'_, K, V> {
        let shard = self.shard(hash);
        if prefetch::WORKS {
            shard.root.load().prefetch_to_write(hash);
            shard.prefetch_to_write();
        }
        shard
    }

    /// Prefetches the cache lines that a coming write of `hash` needs, except that of the node.
    pub(crate) fn prefetch_to_write(&self, hash: u64) {
        self.shard_to_write(hash);
    }

    /// Prefetches the nodes that writes of these hashes will most likely look at.
    pub(crate) fn prefetch_nodes(&self, hashes: impl Iterator<Item = u64>) {
        if prefetch::WORKS {
            // The section is open only while the buckets are read. A guard that is held during many removals
            // delays the destruction of every removed entry.
            let _section = self.header.domain.inner().pin();
            hashes.for_each(|hash| self.roots().table(hash).prefetch_node_to_write(hash));
        }
    }

    pub(crate) fn shards(&self) -> impl ExactSizeIterator<Item = ShardRef<'_, K, V>> {
        self.shards.iter().zip(&self.roots).map(|(shard, root)| ShardRef::new(shard, root))
    }

    /// Reads the clock. This is user code, which may panic.
    #[inline]
    pub(crate) fn now(&self) -> Time {
        self.settings.clock.now()
    }

    /// Returns the time by which a write decides whether an entry has expired. Zero if entries do not expire.
    #[inline]
    pub(crate) fn time_to_write(&self) -> Time {
        if self.settings.lifetimes.expires() { self.now() } else { Time::ZERO }
    }

    /// Returns the time by which a walk skips expired entries. `None` if the walk skips none: no entry can have
    /// expired, or reads are stale.
    pub(crate) fn time_to_read(&self) -> Option<Time> {
        if !self.read_duties.get().expiry() {
            return None;
        }
        ReadDuties::acquire();
        Some(self.now())
    }

    /// As [`time_to_read`](Self::time_to_read), for a caller that has already read the clock.
    pub(crate) fn time_to_sweep(&self, now: Time) -> Option<Time> {
        if !self.read_duties.get().expiry() {
            return None;
        }
        ReadDuties::acquire();
        Some(now)
    }

    /// Returns the life of a node of this registry, if it has one.
    ///
    /// # Safety
    ///
    /// The node is not freed while the returned reference is in use.
    pub(crate) unsafe fn life_of(&self, node: NonNull<Node<K, V>>) -> Option<&Life> {
        // SAFETY: the caller guarantees that the node is not freed.
        if let Some(life) = unsafe { Node::life(node) } {
            return Some(life);
        }
        // SAFETY: the caller guarantees that the node is not freed.
        let hash = unsafe { node.as_ref() }.header.hash();
        // SAFETY: the caller guarantees that the node is not freed while the returned reference is in use.
        unsafe { self.shard(hash.into()).shard().life_of(node) }
    }

    pub(crate) fn settings(&self) -> &RegistrySettings<K, V> {
        &self.settings
    }

    /// Returns a list for the entries that leave for this cause, of which the listener is told.
    #[inline]
    fn evicted(&self, cause: Cause) -> Evicted<'_, K, V> {
        Evicted::new(&self.settings.listeners, cause)
    }

    /// Returns the weight of an entry that holds `beyond` bytes in addition to its node.
    fn weight(&self, beyond: usize) -> Weight {
        let bytes = size_of::<Node<K, V>>().saturating_add(beyond);
        Weight::at_least(self.header.domain.inner().budget.weigh(bytes))
    }

    /// Returns the link of an entry, for weak handles.
    pub(crate) fn link(&self, entry: &Handle<K, V>) -> Arc<WeakLink> {
        self.shard(entry.hash().into()).downgrade(entry)
    }

    /// Unlinks all entries of a shard. Returns false, and unlinks none, if the backlog has no room for all of
    /// them.
    pub(crate) fn clear(&self, shard: ShardRef<'_, K, V>) -> bool {
        shard.clear(&mut self.evicted(Cause::Removed))
    }

    /// Evicts up to `most` entries from a shard, for as long as `excess` holds for the shard.
    pub(crate) fn evict(
        &self,
        shard: ShardRef<'_, K, V>,
        most: usize,
        if_full: &mut IfFull<Full>,
        excess: impl Fn(&Locked<'_, K, V>) -> bool,
    ) -> Shed {
        self.read_duties.enable_marks();
        shard.evict(most, if_full, &mut self.evicted(Cause::Capacity), excess)
    }

    /// Returns whether a node is of this registry, in the table or not.
    ///
    /// # Safety
    ///
    /// The node is not freed before this returns.
    unsafe fn owns(&self, node: NonNull<Node<K, V>>) -> bool {
        // SAFETY: the caller guarantees that the node is not freed.
        let shard = unsafe { shard_of(node.cast()) };
        // SAFETY: Q2 (the node keeps the core of its registry, and so its shards).
        unsafe { shard.as_ref() }.registry_pointer() == NonNull::from(&self.header)
    }

    /// Returns whether an entry is of this registry and has not left it. It may have expired.
    fn holds(&self, entry: &Handle<K, V>) -> bool {
        // SAFETY: the handle keeps the node alive.
        !entry.is_unlinked() && unsafe { self.owns(entry.node()) }
    }

    /// Completes a change of the limits. When this returns, writers that held a shard lock before the change have
    /// given it back, and later writers see the new limits. Reads check whether entries have expired from now on.
    pub(crate) fn fence_writers(&self) {
        self.shards().for_each(|shard| drop(shard.lock()));
        self.read_duties.check_expiry(self.settings.lifetimes.limits_idleness());
    }

    /// Gives an entry the priority that the user's function returns now. Returns false if there is no function, or the
    /// entry is not in this registry.
    pub(crate) fn reprioritize(&self, entry: &Handle<K, V>) -> bool {
        let Some(prioritizer) = &self.settings.prioritizer else { return false };
        check::user_code();
        let priority = prioritizer(entry.key(), entry.value());
        let hash = u64::from(entry.hash());
        self.shard(hash).reprioritize(entry.node(), hash, priority)
    }

    /// Asks the weigher again about an entry, and changes the entry's weight. Returns the weight, in bytes. Evicts if the
    /// bound on weight is then exceeded. Does nothing if the entry has left, or is of another registry.
    pub(crate) fn reweigh(&self, entry: &Handle<K, V>) -> u64 {
        if !self.holds(entry) {
            return entry.weight();
        }
        let weight = self.weigh(entry.key(), entry.value());
        let shard = self.shard(entry.hash().into());
        if shard.set_weight(entry, weight) {
            self.evict_excess(shard, &mut IfFull::fail());
        }
        entry.weight()
    }

    /// Evicts entries of a shard until it keeps its bounds, or the backlog has no room.
    pub(crate) fn evict_excess(&self, shard: ShardRef<'_, K, V>, if_full: &mut IfFull<Full>) {
        self.evict(shard, usize::MAX, if_full, |locked| locked.exceeds_bounds());
    }

    /// Completes the resizes that are under way at once, instead of a step with each write.
    pub(crate) fn finish_resize(&self) {
        for shard in self.shards() {
            if shard.counts.is_resizing() {
                while shard.finish_resize(false) {}
            }
        }
    }
}
