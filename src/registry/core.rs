//! The core of a registry: all of it except the hasher.
//!
//! Nodes keep the core alive. It is freed when the registry is gone and the last of its nodes is destroyed (Q2).

#![allow(unsafe_code)]

use crate::domain::{Domain, Failure, Full, IfFull, Operations, Reclaimed, RegistryHeader, shard_of};
use crate::handle::Handle;
use crate::node::life::{Deadline, Life, Standing};
use crate::node::usage::{FirstMarks, ReadDuties};
use crate::node::weight::Weight;
use crate::node::{Node, Particulars, UnpublishedNode};
use crate::reap::Cause;
use crate::reap::Cursor;
use crate::reap::{Reaped, Reaper, Scan};
use crate::shard::admit::NotAdmitted;
use crate::shard::evict::{Bounds, Evicted, Shed};
use crate::shard::expiry::{DueEntries, Look, Looker, retry};
use crate::shard::locked::Locked;
use crate::shard::operations;
use crate::shard::reserve::{Busy, ReservationId};
use crate::shard::settings::RegistrySettings;
use crate::shard::weak::WeakLink;
use crate::shard::write::{Departed, NotPutReserved, NotReplaced, Published, Rejected, ReservedEntry, Wanted};
use crate::shard::{Shard, ShardRef};
use crate::sync::{self, Mutex};
use crate::table::{Located, Root, Roots, Table};
use crate::util::check;
use crate::util::clock::Time;
use crate::util::panics::contain;
use crate::util::prefetch;
use crate::util::reentrancy;
use crossbeam_utils::CachePadded;
use std::alloc::Layout;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

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

/// The most entries that may have expired and that one insertion examines.
const TOKENS_PER_WRITE: usize = 4;

/// How many tokens without an entry cost as much of a budget as one entry.
const TOKENS_FOR_ONE: usize = 8;

/// The most entries that `expire` takes out of a shard's timers at a time.
const EXPIRY_CHUNK: usize = 64;

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

    /// Does what a read owes an entry that it has found: leaves the marks that are wanted, and checks whether the
    /// entry has expired. Returns the node, or `None` if it has expired.
    ///
    /// The caller calls this only if there is something to do. This function loads the duties again, and returns
    /// the node, so that the inlined read keeps no value in a register across the call of the cold part. Such
    /// registers would also cost the reads that have nothing to do.
    ///
    /// # Safety
    ///
    /// The node was found within a critical section that is still open.
    #[inline(always)]
    pub(crate) unsafe fn use_at_read(&self, node: NonNull<Node<K, V>>) -> Option<NonNull<Node<K, V>>> {
        // Load the duties again.
        let duties = self.read_duties.get();
        // If entries may expire, reads are counted, or marks are shared with priorities, go on out of line.
        if duties.beyond_marks() {
            // SAFETY: the caller guarantees that the node was found in a critical section that is still open.
            return unsafe { self.use_beyond_marks(node) };
        }
        // Leave the marks that are wanted, by a plain store, if they are missing.
        // SAFETY: B2 (the critical section in which the node was found is still open).
        unsafe { node.as_ref() }.header.used.mark(duties);
        Some(node)
    }

    /// Returns the node and notes the use, unless the entry has expired. Counts the read if reads are counted.
    ///
    /// # Safety
    ///
    /// As for [`use_at_read`](Self::use_at_read).
    #[cold]
    #[inline(never)]
    unsafe fn use_beyond_marks(&self, node: NonNull<Node<K, V>>) -> Option<NonNull<Node<K, V>>> {
        let duties = self.read_duties.get();
        // SAFETY: B2 (the critical section in which the node was found is still open).
        let used = unsafe { &node.as_ref().header.used };
        if duties.shares_marks() {
            used.mark_shared(duties)
        } else {
            used.mark(duties)
        }
        // SAFETY: the caller guarantees that the node was found in a critical section that is still open.
        let found = if duties.expiry() { unsafe { self.use_if_in_time(node) } } else { Some(node) };
        // An entry that has expired is a miss.
        if let Some(lookups) = self.settings.lookups.as_deref().filter(|_| duties.count()) {
            lookups.count(found.is_some());
        }
        found
    }

    /// Counts a read that has found no entry, if reads are counted.
    #[cold]
    #[inline(never)]
    pub(crate) fn count_miss(&self) {
        if let Some(lookups) = &self.settings.lookups {
            lookups.count(false);
        }
    }

    /// Returns the node and notes the use, unless the entry has expired.
    ///
    /// # Safety
    ///
    /// As for [`use_at_read`](Self::use_at_read).
    #[inline]
    unsafe fn use_if_in_time(&self, node: NonNull<Node<K, V>>) -> Option<NonNull<Node<K, V>>> {
        // Acquire what was written before the registry began to expire entries: the lives of early nodes.
        ReadDuties::acquire();
        // Read the clock.
        let now = self.now();
        // Find the entry's deadline and last use. A node without a life does not expire.
        // SAFETY: the caller guarantees that the node was found in a critical section that is still open.
        let Some(life) = (unsafe { self.life_of(node) }) else { return Some(node) };
        // Compare them with the clock. If the entry is past its time, this call ends it, unless the lifetime
        // prolongs it or its handles spare it.
        // SAFETY: the caller guarantees that the node was found in a critical section that is still open.
        let look = self.settings.lifetimes.look(unsafe { node.as_ref() }, life, now, Looker::READER);
        // An entry that has ended is absent.
        if let Look::Ended(_) = look {
            return None;
        }
        // Note the time of this use, at most once in a sixteenth of the limit on idleness.
        life.note_use(now, self.settings.lifetimes.idleness());
        Some(node)
    }

    /// Returns whether an entry that a walk has met has not expired by `now`, from
    /// [`time_to_read`](Self::time_to_read). This does not count as a use of the entry.
    ///
    /// # Safety
    ///
    /// As for [`use_at_read`](Self::use_at_read).
    pub(crate) unsafe fn is_there(&self, node: NonNull<Node<K, V>>, now: Option<Time>) -> bool {
        let Some(now) = now else { return true };
        // A node without a life does not expire.
        // SAFETY: the caller guarantees that the node was found in a critical section that is still open.
        let Some(life) = (unsafe { self.life_of(node) }) else { return true };
        // SAFETY: the caller guarantees that the node was found in a critical section that is still open.
        let look = self.settings.lifetimes.look(unsafe { node.as_ref() }, life, now, Looker::READER);
        !matches!(look, Look::Ended(_))
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

    /// Returns an entry that is ready to be published here. Calls the weigher, the clock and the lifetime: user
    /// code, which may panic.
    #[inline(always)]
    pub(crate) fn prepare(&self, hash: u64, key: K, value: V) -> UnpublishedNode<K, V> {
        let particulars = self.particulars(hash, &key, &value);
        UnpublishedNode { key, value, particulars }
    }

    /// Returns the particulars of an entry that is to be published here. Calls user code as [`prepare`](Self::prepare)
    /// does.
    #[inline(always)]
    pub(crate) fn particulars(&self, hash: u64, key: &K, value: &V) -> Particulars {
        let (weight, marks) = self.judge(key, value);
        let lifetimes = &self.settings.lifetimes;
        if !lifetimes.expires() {
            let time = self.now();
            return Particulars { hash, time, weight, marks, own_end: Deadline::NEVER };
        }
        let time = self.settings.clock.beginning();
        let own_end = Deadline::at(lifetimes.own_end((key, value), time));
        Particulars { hash, time, weight, marks, own_end }
    }

    /// Does the same as [`prepare`](Self::prepare), for an entry that expires `ttl` from now. Does not ask the
    /// lifetime function.
    pub(crate) fn prepare_with_ttl(&self, hash: u64, key: K, value: V, ttl: Duration) -> UnpublishedNode<K, V> {
        let particulars = self.particulars_with_ttl(hash, &key, &value, ttl);
        UnpublishedNode { key, value, particulars }
    }

    /// Does the same as [`particulars`](Self::particulars), for an entry that expires `ttl` from now.
    pub(crate) fn particulars_with_ttl(&self, hash: u64, key: &K, value: &V, ttl: Duration) -> Particulars {
        self.begin_to_expire_by_entry();
        let (weight, marks) = self.judge(key, value);
        let time = self.settings.clock.beginning();
        let own_end = Deadline::fixed(time.end_of(Time::ceil_from(ttl)));
        Particulars { hash, time, weight, marks, own_end }
    }

    /// Returns the weight of a new entry, and the marks with which it starts. Calls user code, which may panic.
    #[inline(always)]
    fn judge(&self, key: &K, value: &V) -> (Weight, FirstMarks) {
        let marks = FirstMarks::new(self.read_duties.begins_marked());
        match &self.settings.weigher {
            None => (self.node, marks),
            Some(weigher) => {
                check::user_code();
                let marks = self.settings.judge(marks, key, value);
                (self.weight(weigher(key, value)), marks)
            }
        }
    }

    /// Returns the weight of an entry. Calls the weigher: user code, which may panic.
    fn weigh(&self, key: &K, value: &V) -> Weight {
        let Some(weigher) = &self.settings.weigher else { return self.node };
        check::user_code();
        self.weight(weigher(key, value))
    }

    /// Publishes an entry, unless its key is taken. Returns a handle if the caller wants one.
    #[inline(always)]
    pub(crate) fn insert(
        &self,
        unpublished: UnpublishedNode<K, V>,
        wanted: Wanted,
    ) -> Result<Option<Handle<K, V>>, Rejected<K, V>>
    where
        K: Eq,
    {
        let (shard, time) = (self.shard_to_write(unpublished.particulars.hash), unpublished.particulars.time);
        let inserted = shard.insert(unpublished, wanted, &self.settings);
        if self.settings.lifetimes.expires() {
            self.assist(shard, time);
        }
        inserted
    }

    /// Publishes an entry, in place of the entry that has its key, if there is one.
    #[inline(always)]
    pub(crate) fn replace<E: Failure>(
        &self,
        unpublished: UnpublishedNode<K, V>,
        wanted: Wanted,
        mut if_full: IfFull<E>,
    ) -> Result<Published<K, V>, (UnpublishedNode<K, V>, E)>
    where
        K: Eq,
    {
        let locate = |table: Table<K, V>, unpublished: &UnpublishedNode<K, V>| {
            table.locate(unpublished.particulars.hash, |found| check::eq(|| found.key() == &unpublished.key))
        };
        match self.replace_located(unpublished, locate, true, wanted, &mut if_full) {
            Ok(published) => Ok(published),
            Err(NotReplaced::Full(unpublished, full)) => Err((unpublished, full)),
            Err(NotReplaced::Absent(_)) => unreachable!("a replacement by key inserts the entry if the key is absent"),
        }
    }

    /// Publishes an entry if there is room for it within the bounds. If its key is taken, replaces the entry that has
    /// the key if `or_replace` is set. Reaps expired entries before it refuses.
    pub(crate) fn admit(
        &self,
        mut unpublished: UnpublishedNode<K, V>,
        or_replace: bool,
        mut wanted: Wanted,
    ) -> Result<Published<K, V>, NotAdmitted<K, V>>
    where
        K: Eq,
    {
        unpublished.particulars.marks = unpublished.particulars.marks.refusable();
        wanted.old |= self.settings.listeners.is_some();
        let (shard, time) = (self.shard_to_write(unpublished.particulars.hash), unpublished.particulars.time);
        let mut may_reap = self.settings.lifetimes.expires();
        let published = loop {
            match shard.admit(unpublished, or_replace, wanted, &self.settings) {
                Ok(published) => break published,
                Err(NotAdmitted::NoRoom(again)) if may_reap => {
                    // After the last expired entry, one more try: another thread may have made room.
                    may_reap = self.reap_for_room();
                    unpublished = again;
                }
                Err(reason) => {
                    let is_refused = matches!(reason, NotAdmitted::NoRoom(_));
                    // ORDERING: Relaxed, a statistic.
                    self.refused.fetch_add(is_refused.into(), Ordering::Relaxed);
                    return Err(reason);
                }
            }
        };
        self.after_put(shard, time, &published);
        Ok(published)
    }

    /// Removes some expired entries. Returns false if no expired entry is left, or none can be removed now.
    fn reap_for_room(&self) -> bool {
        let now = self.now();
        loop {
            let reaped = self.expire(EXPIRY_CHUNK);
            if reaped.removed > 0 {
                return true;
            }
            if reaped.stopped || self.shards().all(|shard| shard.counts.due.get() > now) {
                return false;
            }
        }
    }

    /// Publishes an entry with the key of `old` in place of `old`, unless `old` is unlinked.
    pub(crate) fn replace_exact<E: Failure>(
        &self,
        old: &Handle<K, V>,
        unpublished: UnpublishedNode<K, V>,
        if_full: &mut IfFull<E>,
    ) -> Result<Published<K, V>, NotReplaced<K, V, E>>
    where
        K: Eq,
    {
        let node = old.node();
        self.replace_located(unpublished, |table, _| table.locate_exact(node), false, Wanted::NEW, if_full)
    }

    #[inline(always)]
    fn replace_located<E: Failure>(
        &self,
        unpublished: UnpublishedNode<K, V>,
        locate: impl FnMut(Table<K, V>, &UnpublishedNode<K, V>) -> Located<K, V>,
        or_insert: bool,
        mut wanted: Wanted,
        if_full: &mut IfFull<E>,
    ) -> Result<Published<K, V>, NotReplaced<K, V, E>>
    where
        K: Eq,
    {
        wanted.old |= self.settings.listeners.is_some();
        let (shard, time) = (self.shard_to_write(unpublished.particulars.hash), unpublished.particulars.time);
        let published = shard.replace(unpublished, locate, or_insert, wanted, if_full, &self.settings)?;
        self.after_put(shard, time, &published);
        Ok(published)
    }

    /// Does what follows a write that has published an entry at `time`: tells the listener of the entry that it replaced,
    /// and does an insertion's share of the removal of expired entries.
    #[inline(always)]
    fn after_put(&self, shard: ShardRef<'_, K, V>, time: Time, published: &Published<K, V>) {
        if let Some(old) = published.old.handle() {
            self.settings.listeners.tell_replaced(old);
        }
        if self.settings.lifetimes.expires() {
            self.assist(shard, time);
        }
    }

    /// Reserves a key, unless it is reserved.
    pub(crate) fn reserve(&self, hash: u64, key: &Arc<K>) -> Result<ReservationId, Busy>
    where
        K: Eq,
    {
        self.shard_to_write(hash).reserve(hash, key)
    }

    /// Ends a reservation without a write.
    pub(crate) fn release(&self, hash: u64, id: ReservationId) {
        self.shard(hash).release(hash, id);
    }

    /// Runs the code for which a key is reserved.
    pub(crate) fn run_reserved<R>(&self, hash: u64, id: ReservationId, f: impl FnOnce() -> R) -> R {
        self.shard(hash).run_reserved(id, f)
    }

    /// Publishes an entry whose key is reserved. Ends the reservation, also if it fails or panics: see
    /// [`ShardRef::put_reserved`].
    pub(crate) fn put_reserved<E: Failure>(
        &self,
        reserved: ReservedEntry<K, V>,
        old: Option<&Handle<K, V>>,
        mut wanted: Wanted,
        if_full: &mut IfFull<E>,
    ) -> Result<Published<K, V>, NotPutReserved<V, E>>
    where
        K: Eq,
    {
        wanted.old |= self.settings.listeners.is_some();
        let (shard, time) = (self.shard_to_write(reserved.particulars.hash), reserved.particulars.time);
        let published = shard.put_reserved(reserved, old.map(Handle::node), wanted, if_full, &self.settings)?;
        self.after_put(shard, time, &published);
        Ok(published)
    }

    /// Unlinks the entry of a key that the caller has reserved, and ends the reservation. `now` is the
    /// [time of the write](Self::time_to_write).
    pub(crate) fn remove_reserved(&self, hash: u64, key: &K, id: ReservationId, now: Time) -> Option<Handle<K, V>>
    where
        K: Eq,
    {
        let left = self.shard_to_write(hash).remove_reserved(hash, key, id, now, &self.settings);
        left.iter().for_each(|entry| self.settings.listeners.tell(Cause::Removed, entry));
        left
    }

    /// Unlinks the entry of `hash` whose key satisfies `eq`. Returns a handle to it if the caller wants one.
    #[inline(always)]
    pub(crate) fn remove<E: Failure>(
        &self,
        hash: u64,
        eq: impl Fn(&K) -> bool,
        wants_handle: bool,
        mut if_full: IfFull<E>,
    ) -> Result<Departed<K, V>, E> {
        let locate = |table: Table<K, V>| table.locate(hash, |found| check::eq(|| eq(found.key())));
        self.remove_located(hash, &eq, locate, Cause::Removed, wants_handle, &mut if_full)
    }

    /// Unlinks this entry, if it is in this registry. Returns whether it was. An entry of another registry is in
    /// no table of this one, so it is not found. Does not wait while the entry's key is reserved.
    pub(crate) fn remove_exact<E: Failure>(
        &self,
        entry: &Handle<K, V>,
        cause: Cause,
        if_full: &mut IfFull<E>,
    ) -> Result<bool, E> {
        if entry.is_unlinked() {
            return Ok(false);
        }
        let locate = |table: Table<K, V>| table.locate_exact(entry.node());
        Ok(self.remove_located(entry.hash().into(), |_| false, locate, cause, false, if_full)?.is_some())
    }

    /// Unlinks this entry, on behalf of a caller that has found it by its key: waits while the key is reserved.
    pub(crate) fn remove_exact_by_key<E: Failure>(
        &self,
        entry: &Handle<K, V>,
        is_key: impl FnMut(&K) -> bool,
        if_full: &mut IfFull<E>,
    ) -> Result<bool, E> {
        let locate = |table: Table<K, V>| table.locate_exact(entry.node());
        Ok(self.remove_located(entry.hash().into(), is_key, locate, Cause::Removed, false, if_full)?.is_some())
    }

    #[inline(always)]
    fn remove_located<E: Failure>(
        &self,
        hash: u64,
        is_key: impl FnMut(&K) -> bool,
        locate: impl FnMut(Table<K, V>) -> Located<K, V>,
        cause: Cause,
        wants_handle: bool,
        if_full: &mut IfFull<E>,
    ) -> Result<Departed<K, V>, E> {
        let wants_handle = wants_handle || self.settings.listeners.is_some();
        let now = self.time_to_write();
        let shard = self.shard_to_write(hash);
        let left = shard.remove(hash, is_key, locate, cause, wants_handle, if_full, now, &self.settings)?;
        if let Some(entry) = left.handle() {
            self.settings.listeners.tell(cause, entry);
        }
        Ok(left)
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

    /// Does an insertion's share of the removal of expired entries, in the shard that it has written. Wakes the
    /// domain's reclaimer if the shard has an entry that is due before the reclaimer's next look. No panic of
    /// user code gets out of it.
    #[cold]
    fn assist(&self, shard: ShardRef<'_, K, V>, now: Time) {
        let due = shard.counts.due.get();
        if due <= now {
            // An insertion does not wait for room in the backlog that it does not need itself.
            self.expire_in(shard, now, TOKENS_PER_WRITE, IfFull::fail_at_once());
        }
        self.wake_reaper(due, now);
    }

    /// Wakes the domain's reclaimer if an entry is due before the reclaimer's next look.
    fn wake_reaper(&self, due: Time, now: Time) {
        // ORDERING: Relaxed, here and in the exchange: the time is a hint. `IN_FOREGROUND` says that nothing is
        // done in the background.
        let planned = self.background_at.load(Ordering::Relaxed);
        if due.word() < planned && planned != IN_FOREGROUND {
            let lowered =
                self.background_at.compare_exchange(planned, due.word(), Ordering::Relaxed, Ordering::Relaxed);
            if lowered.is_ok() {
                self.header.domain.inner().reap_within(self.until(due, now));
            }
        }
    }

    /// Returns how long it is until `due`, at least `LEAST_NAP`. Returns `Duration::MAX` if the registry's clock
    /// is not real time: reapers are then called at their usual interval.
    fn until(&self, due: Time, now: Time) -> Duration {
        if self.settings.clock.is_real() { due.since(now).max(LEAST_NAP) } else { Duration::MAX }
    }

    /// Removes expired entries. Examines up to about `budget` entries that may have expired.
    pub(crate) fn expire(&self, budget: usize) -> Reaped {
        let now = self.now();
        let (mut reaped, mut spent) = (Reaped::default(), 0);
        // ORDERING: Relaxed, a hint: two calls may begin with the same shard.
        let first = self.expired_to.load(Ordering::Relaxed);
        for index in first..first + self.shards.len() {
            let Some(shard) = self.shards().nth(index % self.shards.len()) else { break };
            while shard.counts.due.get() <= now && spent < budget {
                let (done, tokens) = self.expire_in(shard, now, EXPIRY_CHUNK.min(budget - spent), IfFull::fail());
                reaped += done;
                // A token without an entry costs little, but not nothing.
                spent += done.examined.max(tokens / TOKENS_FOR_ONE).max(1);
                if reaped.stopped {
                    return reaped;
                }
            }
            // ORDERING: Relaxed, a hint: two calls may begin with the same shard.
            self.expired_to.store(index % self.shards.len(), Ordering::Relaxed);
            if spent >= budget {
                break;
            }
        }
        reaped
    }

    /// Removes expired entries of one shard, of up to `most` that may have expired. Takes the shard lock a few
    /// times. Also returns how many tokens it looked at.
    fn expire_in(&self, shard: ShardRef<'_, K, V>, now: Time, most: usize, if_full: IfFull<Full>) -> (Reaped, usize) {
        let this = ptr::from_ref(&self.settings.lifetimes).cast();
        // If this registry's lifetime calls this, it does nothing. The outer call goes on after the lifetime has
        // returned.
        // SAFETY: every `enter` for this address is given a `()` (`Lifetimes::own_end_contained`).
        if unsafe { reentrancy::find::<()>(this, |()| true) } {
            return (Reaped { stopped: true, ..Reaped::default() }, 0);
        }
        // If a listener or lifetime that this function has called calls it again, it does nothing. The outer call
        // goes on after it.
        let this = ptr::from_ref(&self.expired_to).cast();
        // SAFETY: the `enter` below is the only one for this address, and is given a `()`.
        if unsafe { reentrancy::find::<()>(this, |()| true) } {
            return (Reaped { stopped: true, ..Reaped::default() }, 0);
        }
        reentrancy::enter(this, &(), || self.expire_from(shard, now, most, if_full))
    }

    fn expire_from(
        &self,
        shard: ShardRef<'_, K, V>,
        now: Time,
        most: usize,
        mut if_full: IfFull<Full>,
    ) -> (Reaped, usize) {
        let mut reaped = Reaped::default();
        let mut due = DueEntries::new(shard, &self.settings.lifetimes, now, most);
        reaped.examined = due.len();
        let tokens = due.tokens();
        due.retain(|entry| {
            if reaped.stopped {
                return Some(now.end_of(Time::ceil_from(FULL_RETRY)));
            }
            // SAFETY: the handle keeps the node alive.
            let life = unsafe { self.life_of(entry.node()) }?;
            match self.settings.lifetimes.look(entry.get(), life, now, Looker::HOLDER) {
                Look::Lives | Look::Unknown => Some(Time::ZERO),
                Look::Spared => {
                    reaped.skipped += 1;
                    Some(retry(now))
                }
                Look::Ended(cause) => match self.remove_exact(entry, cause, &mut if_full) {
                    Ok(removed) => {
                        reaped.removed += usize::from(removed);
                        reaped.bytes += if removed { entry.weight() } else { 0 };
                        None
                    }
                    Err(Full) => {
                        reaped.stopped = true;
                        Some(now.end_of(Time::ceil_from(FULL_RETRY)))
                    }
                },
            }
        });
        (reaped, tokens)
    }

    /// Prepares all shards for entries that expire, unless that is done already.
    pub(crate) fn begin_to_expire(&self) {
        if !self.settings.lifetimes.expires() {
            self.shards().for_each(ShardRef::extend);
            self.settings.lifetimes.begin();
        }
    }

    /// Returns whether an entry is of this registry and has not left it. If so, prepares the registry for entries with
    /// ends of their own.
    pub(crate) fn can_expire_by_entry(&self, entry: &Handle<K, V>) -> bool {
        let is_here = self.holds(entry);
        if is_here {
            self.begin_to_expire_by_entry();
        }
        is_here
    }

    /// Prepares all shards for entries that expire, and has reads check whether entries have expired. The caller then
    /// gives an entry a limit of its own.
    pub(crate) fn begin_to_expire_by_entry(&self) {
        self.begin_to_expire();
        // Also if another thread has prepared the shards: it may not have come to this line yet.
        self.read_duties.check_expiry(self.settings.lifetimes.limits_idleness());
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

    /// Looks whether an entry is in this registry and has not expired. This does not count as a use.
    fn is_present(&self, entry: &Handle<K, V>, now: Time) -> bool {
        // SAFETY: the handle keeps the node alive.
        self.holds(entry) && unsafe { self.is_there(entry.node(), Some(now)) }
    }

    /// Returns whether an entry is of this registry and has not left it. It may have expired.
    fn holds(&self, entry: &Handle<K, V>) -> bool {
        // SAFETY: the handle keeps the node alive.
        !entry.is_unlinked() && unsafe { self.owns(entry.node()) }
    }

    /// Gives an entry another end of its own. Returns false if the entry has left or expired, or is of another
    /// registry. The caller has read the clock at `now`.
    pub(crate) fn set_own_end(&self, entry: &Handle<K, V>, own_end: Deadline, now: Time) -> bool {
        if !self.is_present(entry, now) {
            return false;
        }
        let shard = self.shard(entry.hash().into());
        let is_set = shard.set_own_end(entry, own_end, now, &self.settings.lifetimes);
        if is_set {
            self.wake_reaper(shard.counts.due.get(), now);
        }
        is_set
    }

    /// Asks the lifetime function again about an entry, and gives the entry the end that it answers. Returns false as
    /// [`set_own_end`](Self::set_own_end) does, or if the thread is in the lifetime function, or if that panics.
    pub(crate) fn renew_one(&self, entry: &Handle<K, V>) -> bool {
        let lifetimes = &self.settings.lifetimes;
        let now = self.settings.clock.beginning();
        if !self.is_present(entry, now) {
            return false;
        }
        // SAFETY: the handle keeps the node alive.
        let Some(life) = (unsafe { self.life_of(entry.node()) }) else { return true };
        // Zero is no end that a lifetime can have.
        let panicked = Time::ZERO;
        let inserted = life.inserted(entry.stamp());
        match lifetimes.own_end_contained((entry.key(), entry.value()), inserted, panicked) {
            Some(own_end) if own_end != panicked => self.set_own_end(entry, Deadline::at(own_end), now),
            _ => false,
        }
    }

    /// Returns the age of a node of this registry: never too long, and exact if it has a life that knows it.
    ///
    /// # Safety
    ///
    /// The node is not freed before this returns.
    pub(crate) unsafe fn age_of(&self, node: NonNull<Node<K, V>>) -> Duration {
        // SAFETY: the caller guarantees that the node is not freed.
        if !unsafe { self.owns(node) } {
            return Duration::ZERO;
        }
        // SAFETY: the caller guarantees that the node is not freed.
        let stamp = unsafe { node.as_ref() }.header.stamp();
        // SAFETY: the caller guarantees that the node is not freed.
        let inserted = unsafe { self.life_of(node) }.map_or(stamp.latest(), |life| life.inserted(stamp));
        self.now().since(inserted)
    }

    /// Returns how much longer a node stays, unless it is removed or used, or its limits change. `None` if there is no
    /// limit. Zero if it has left or expired, or is of another registry.
    ///
    /// # Safety
    ///
    /// The node is not freed before this returns.
    pub(crate) unsafe fn remaining_of(&self, node: NonNull<Node<K, V>>) -> Option<Duration> {
        // SAFETY: the caller guarantees that the node is not freed.
        let header = unsafe { &node.as_ref().header };
        // SAFETY: the caller guarantees that the node is not freed.
        if !unsafe { self.owns(node) } || header.refs.is_unlinked() {
            return Some(Duration::ZERO);
        }
        if !self.settings.lifetimes.expires() {
            return None;
        }
        let now = self.now();
        // SAFETY: the caller guarantees that the node is not freed.
        let life = unsafe { self.life_of(node) }?;
        // Ends the entry if it is past its time, or lets the lifetime function prolong it.
        // SAFETY: the caller guarantees that the node is not freed.
        unsafe { self.is_there(node, Some(now)) };
        match life.standing(now, self.settings.lifetimes.idleness()) {
            Standing::Lives(Time::NEVER) => None,
            // The entry lives up to the last time before `end`.
            Standing::Lives(end) => Some(end.since(now.end_of(Time::ZERO))),
            _ => Some(Duration::ZERO),
        }
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

    /// Gives entries the deadlines and timers that the present limits ask for. Does not read the clock, and does
    /// not panic.
    pub(crate) fn renew(&self, entries: &[Handle<K, V>]) {
        for entry in entries {
            // SAFETY: the handle keeps the node alive.
            let Some(life) = (unsafe { self.life_of(entry.node()) }) else { continue };
            let inserted = life.inserted(entry.stamp());
            // If the lifetime cannot be asked, or panics, the entry keeps its present deadline.
            let known = life.deadline();
            // The lifetime function is not asked about an entry whose end is fixed.
            let lifetimes = &self.settings.lifetimes;
            let ask = || lifetimes.own_end_contained((entry.key(), entry.value()), inserted, known.time());
            let own = if known.is_fixed() { None } else { ask() };
            let own_end = own.unwrap_or(known.time());
            let shard = self.shard(entry.hash().into());
            shard.renew(&[(entry.clone(), own_end)], &self.settings.lifetimes);
        }
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

/// The value of `Core::background_at` while nothing is done in the background.
const IN_FOREGROUND: u64 = u64::MAX;

/// The least time between two looks for expired entries in the background.
const LEAST_NAP: Duration = Duration::from_millis(2);

/// The time after which an entry is examined again that could not be removed because the backlog was full.
const FULL_RETRY: Duration = Duration::from_millis(10);

/// The hold on a core that a registry, its background reaper, and weak handles that are being upgraded share. The last
/// of them that drops it closes the core.
pub(crate) struct CoreReference<K: Send + Sync + 'static, V: Send + Sync + 'static>(NonNull<Core<K, V>>);

// SAFETY: a core is shared between threads by design, and any thread may close it by dropping the hold.
unsafe impl<K: Send + Sync + 'static, V: Send + Sync + 'static> Send for CoreReference<K, V> {}
// SAFETY: all methods of a core take `&self`, and any number of threads may call them.
unsafe impl<K: Send + Sync + 'static, V: Send + Sync + 'static> Sync for CoreReference<K, V> {}

/// The reaper that removes a registry's expired entries in the background.
///
/// The domain holds a weak reference to it, and a strong one while it calls it. If the registry is dropped during
/// such a call, the core ends when the call returns, on the reclaimer's thread.
impl<K: Send + Sync + 'static, V: Send + Sync + 'static> Reaper for CoreReference<K, V> {
    fn count(&self) -> usize {
        self.core().shards().map(|shard| shard.live() as usize).sum()
    }

    fn scan(&self, _: &mut Scan) -> Reaped {
        Reaped::default()
    }

    fn expire(&self, budget: usize) -> Reaped {
        let core = self.core();
        // Zero until `due_in` knows when there is more to do: the background looks now, so an insertion need not
        // wake it.
        // ORDERING: Relaxed, a hint: an insertion that is missed is found when reapers are next called as usual.
        core.background_at.store(0, Ordering::Relaxed);
        let reaped = core.expire(budget);
        if reaped.removed > 0 {
            core.finish_resize();
        }
        reaped
    }

    fn due_in(&self) -> Option<Duration> {
        let core = self.core();
        let now = core.now();
        let due = || core.shards().map(|shard| shard.counts.due.get()).min().unwrap_or(Time::NEVER);
        // An insertion after this swap sees it, and wakes the reclaimer. An insertion before it is counted in
        // `due`. If one is missed, it is found when reapers are next called as usual.
        let planned = Time::of_word(IN_FOREGROUND - 1);
        // ORDERING: SeqCst, so that most machines do not move the loads of the shards' due times before the swap.
        // Only a hint.
        core.background_at.swap(planned.word(), Ordering::SeqCst);
        let due = due().min(planned);
        // ORDERING: Relaxed, a hint. An insertion may have stored an earlier time since the swap, which stays.
        core.background_at.fetch_min(due.word(), Ordering::Relaxed);
        Some(core.until(due, now))
    }
}

impl<K: Send + Sync + 'static, V: Send + Sync + 'static> CoreReference<K, V> {
    pub(crate) fn core(&self) -> &Core<K, V> {
        // SAFETY: the hold keeps the core alive.
        unsafe { self.0.as_ref() }
    }
}

/// A registry's hold on its core. When the last hold is dropped, the core is closed. Its nodes may keep the
/// memory longer.
pub(crate) struct CoreOwner<K: Send + Sync + 'static, V: Send + Sync + 'static> {
    /// The pointer of `hold`, copied to save a load.
    core: NonNull<Core<K, V>>,
    hold: Arc<CoreReference<K, V>>,
}

// SAFETY: the pointer is that of `hold`, and a `CoreReference` is `Send` and `Sync`.
unsafe impl<K: Send + Sync + 'static, V: Send + Sync + 'static> Send for CoreOwner<K, V> {}
// SAFETY: the pointer is that of `hold`, and a `CoreReference` is `Send` and `Sync`.
unsafe impl<K: Send + Sync + 'static, V: Send + Sync + 'static> Sync for CoreOwner<K, V> {}

impl<K: Send + Sync + 'static, V: Send + Sync + 'static> CoreOwner<K, V> {
    /// Returns a core with `shards` shards (a power of two, at most 2^16), with tables for `capacity` nodes in
    /// all.
    pub(crate) fn new(
        domain: Domain,
        settings: RegistrySettings<K, V>,
        shards: usize,
        capacity: usize,
        bounds: Bounds,
        stale_reads: bool,
    ) -> Self {
        let buckets = Table::<K, V>::buckets_for(capacity.div_ceil(shards));
        domain.inner().budget.add_shards(shards);
        let core = Box::leak(Box::new(Core {
            header: RegistryHeader::new(domain, operations::<K, V>()),
            shift: 32 - shards.trailing_zeros(),
            roots: Box::default(),
            shards: Box::default(),
            read_duties: CachePadded::new(ReadDuties::new(stale_reads)),
            settings: ManuallyDrop::new(settings),
            node: Weight::at_least(0),
            reaped_to: Mutex::new(Cursor::new()),
            refused: AtomicU64::new(0),
            expired_to: AtomicUsize::new(0),
            evicted_to: AtomicUsize::new(0),
            background_at: AtomicU64::new(IN_FOREGROUND),
        }));
        core.read_duties.set_unmarked(bounds.are_set());
        if core.settings.lookups.is_some() {
            core.read_duties.count_lookups();
        }
        core.node = core.weight(0);
        if bounds.by_priority {
            core.read_duties.share_marks();
        }
        let expires = core.settings.lifetimes.expires();
        if expires {
            core.read_duties.check_expiry(core.settings.lifetimes.limits_idleness());
        }
        let tables: Vec<_> = (0..shards).map(|_| Table::new(buckets)).collect();
        core.roots = tables.iter().map(|&table| Root::new(table)).collect();
        let core = NonNull::from(core);
        // SAFETY: no other thread knows the core yet, and the reference is not used after the shards are made.
        let settings = &unsafe { core.as_ref() }.settings;
        let new = |&table| CachePadded::new(Shard::new(core.cast(), table, bounds, expires, settings));
        let shards = tables.iter().map(new).collect();
        // SAFETY: no other thread knows the core yet, and no reference to it is in use.
        unsafe { (*core.as_ptr()).shards = shards };
        CoreOwner { core, hold: Arc::new(CoreReference(core)) }
    }

    /// Returns a reference that does not keep the registry.
    pub(crate) fn downgrade(&self) -> Weak<CoreReference<K, V>> {
        Arc::downgrade(&self.hold)
    }

    /// Has the domain's reclaimer remove expired entries in the background.
    pub(crate) fn reap_in_background(&self) {
        // ORDERING: Relaxed, a hint: `add_reaper` wakes the reclaimer, which looks at once.
        self.background_at.store(0, Ordering::Relaxed);
        self.header.domain.add_reaper(&self.hold);
    }
}

impl<K: Send + Sync + 'static, V: Send + Sync + 'static> Deref for CoreOwner<K, V> {
    type Target = Core<K, V>;

    #[inline]
    fn deref(&self) -> &Core<K, V> {
        // SAFETY: `hold` keeps the core alive.
        unsafe { self.core.as_ref() }
    }
}

impl<K: Send + Sync + 'static, V: Send + Sync + 'static> Drop for CoreReference<K, V> {
    fn drop(&mut self) {
        let (header, core) = (self.0.cast::<RegistryHeader>(), self.core());
        let domain = core.header.domain.clone();
        // The registry is gone, so no reader is in it. Neither its retired nodes nor the nodes in its tables need
        // a grace period.
        let mut teardowns: Vec<_> = core.shards().map(|shard| (shard, shard.begin_teardown())).collect();
        domain.inner().budget.remove_shards(teardowns.len());
        core.header.close();
        domain.inner().collect_dropped();
        domain.inner().destroy_closed(header, Default::default());
        let (mut inserted, tells) = (0, core.settings.listeners.tells_dropped());
        for (shard, teardown) in &mut teardowns {
            if teardown.is_by_slab() && !Node::<K, V>::NEEDS_DROP && !tells {
                core.header.enter();
                // SAFETY: the registry is being dropped. Guards, sessions and views borrow it, so no reader and
                // no writer is left. The visit that `enter` began keeps the header alive.
                let destroyed = unsafe { shard.destroy_all() };
                // SAFETY: pairs with `enter`. The core's own hold on the header ends only at `retire_self`,
                // below.
                unsafe { RegistryHeader::leave(header, Reclaimed { destroyed, panics: 0 }) };
            } else {
                loop {
                    let mut left = tells.then(|| core.evicted(Cause::Dropped));
                    // SAFETY: the registry is being dropped: no reader and no writer is left.
                    let bags = unsafe { shard.unlink_some(teardown, left.as_mut()) };
                    // Tells the listener, outside every lock. The bags still own a reference to each entry.
                    drop(left);
                    if bags.is_empty() {
                        break;
                    }
                    domain.inner().destroy_closed(header, bags);
                }
            }
            // SAFETY: no reader and no writer is left, no node is in the table, and each shard is ended once.
            unsafe { shard.end_teardown() };
            inserted += shard.counts.inserted.get();
        }
        drop(teardowns);
        domain.inner().wait_for_hands(header);
        // The settings hold the user's closures, which may own handles. A handle may keep the core alive, so the
        // closures are dropped here and not with the core.
        // SAFETY: only the registry and its reaper use this field, and both are gone. Nodes use only the core's
        // first field and its shards.
        let settings = unsafe { &mut (*self.0.as_ptr()).settings };
        // SAFETY: dropped here and nowhere else.
        contain(|| unsafe { ManuallyDrop::drop(settings) });
        // SAFETY: the header is closed, `inserted` counts every node that was ever inserted, and the core is not
        // used below.
        unsafe { RegistryHeader::retire_self(header, inserted) };
    }
}

/// Returns what a domain does with the nodes and shards of a core.
fn operations<K, V>() -> Operations
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    Operations {
        collect: operations::collect::<K, V>,
        reclaim: operations::reclaim::<K, V>,
        recycle: operations::recycle::<K, V>,
        destroy: operations::destroy::<K, V>,
        free: free::<K, V>,
    }
}

/// Frees a core.
///
/// # Safety
///
/// `header` is the first field of a `Core<K, V>` from [`CoreOwner::new`], and nothing uses the core any more.
unsafe fn free<K: 'static, V: 'static>(header: NonNull<RegistryHeader>) {
    let core = header.cast::<Core<K, V>>();
    // SAFETY: the caller guarantees that nothing uses the core. It is `repr(C)`, so its address is that of its
    // header.
    unsafe { core.drop_in_place() };
    // SAFETY: `CoreOwner::new` allocated it in a `Box`, and it is dropped. (`sync::dealloc`, because a loom model
    // keeps the memory until its execution ends.)
    unsafe { sync::dealloc(core.cast(), Layout::new::<Core<K, V>>()) };
}
