//! What a registry consists of, apart from its hasher: what its nodes keep alive after the registry itself is gone.

#![allow(unsafe_code)]

use crate::domain::{Domain, Failure, Full, IfFull, Operations, Reclaimed, RegistryHeader};
use crate::handle::Handle;
use crate::node::life::Life;
use crate::node::usage::ReadDuties;
use crate::node::weight::Weight;
use crate::node::{Node, UnpublishedNode};
use crate::reap::Cause;
use crate::reap::Cursor;
use crate::reap::{Reaped, Reaper, Scan};
use crate::shard::evict::{Bounds, Evicted, Shed};
use crate::shard::expiry::{DueEntries, Look, Looker, retry};
use crate::shard::locked::Locked;
use crate::shard::operations;
use crate::shard::settings::Settings;
use crate::shard::write::{Departed, NotReplaced, Published, Rejected, Wanted};
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
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Roots and shards, in step. The first field is what the domain knows.
#[repr(C)]
pub(crate) struct Core<K: 'static, V: 'static> {
    pub(crate) header: RegistryHeader,
    /// Every read looks at it. Apart from the header, which is written whenever nodes are freed.
    pub(crate) read_duties: CachePadded<ReadDuties>,
    /// As in [`Roots`].
    shift: u32,
    /// Where lookups begin. Close together, as they change only when a shard is resized; apart from the shards, whose
    /// every write dirties a line.
    roots: Box<[Root<K, V>]>,
    shards: Box<[CachePadded<Shard<K, V>>]>,
    /// There until the registry is dropped.
    settings: ManuallyDrop<Settings<K, V>>,
    /// What a node counts for that holds nothing beyond itself.
    node: Weight,
    /// The shard from which the next call evicts first. (Of std's type, as no matter.)
    pub(crate) evicted_to: AtomicUsize,
    /// Where the next call of a reaper goes on.
    pub(crate) reaped_to: Mutex<Cursor>,
    /// The shard where the next call looks first for entries whose time has come. (Of std's type, as no matter.)
    expired_to: AtomicUsize,
    /// When the domain's reclaimer looks for entries whose time has come, if it does: before that, insertions wake it for what
    /// comes earlier. (Of std's type, a hint.)
    background_at: AtomicU64,
}

/// Entries whose time may have come that an insertion looks at.
const WRITERS_SHARE: usize = 4;

/// Tokens that lead to no entry and count for one in a budget.
const TOKENS_FOR_ONE: usize = 8;

/// Entries that are looked at between two locks of a shard.
const CHUNK: usize = 64;

impl<K, V> Core<K, V> {
    /// Where lookups begin.
    #[inline]
    pub(crate) fn roots(&self) -> Roots<'_, K, V> {
        // SAFETY: the shift leaves as many bits as the binary logarithm of the number of roots.
        unsafe { Roots::new(&self.roots, self.shift) }
    }
}

impl<K, V> Core<K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// The shard that `hash` belongs to.
    #[inline]
    fn shard(&self, hash: u64) -> ShardRef<'_, K, V> {
        let index = self.roots().index(hash);
        // SAFETY: there are as many roots as an index has values.
        let root = unsafe { self.roots.get_unchecked(index) };
        // SAFETY: there are as many shards as roots.
        ShardRef::new(unsafe { self.shards.get_unchecked(index) }, root)
    }

    /// The same for a write, whose lines the processor is asked for, before the lock is due: under it, they would be waited
    /// for one after the other, by this writer and by those behind it.
    #[inline(always)]
    fn shard_to_write(&self, hash: u64) -> ShardRef<'_, K, V> {
        let shard = self.shard(hash);
        if prefetch::WORKS {
            shard.root.load().prefetch_to_write(hash);
            shard.prefetch_to_write();
        }
        shard
    }

    /// Asks for the lines of a write that is to come, but for the node's.
    pub(crate) fn prefetch_to_write(&self, hash: u64) {
        self.shard_to_write(hash);
    }

    /// Asks for the nodes that writes of these hashes will most likely look at.
    pub(crate) fn prefetch_nodes(&self, hashes: impl Iterator<Item = u64>) {
        if prefetch::WORKS {
            // Only for as long as the buckets are read: a guard that is held through a flood of removals would keep every one
            // of them waiting.
            let _section = self.header.domain.inner().pin();
            hashes.for_each(|hash| self.roots().table(hash).prefetch_node_to_write(hash));
        }
    }

    pub(crate) fn shards(&self) -> impl ExactSizeIterator<Item = ShardRef<'_, K, V>> {
        self.shards.iter().zip(&self.roots).map(|(shard, root)| ShardRef::new(shard, root))
    }

    /// The time. The user's code, which may panic.
    #[inline]
    pub(crate) fn now(&self) -> Time {
        self.settings.clock.now()
    }

    /// The time by which a write goes that may find an entry that has expired.
    #[inline]
    fn time_to_write(&self) -> Time {
        if self.settings.lifetimes.expires() { self.now() } else { Time::ZERO }
    }

    /// The time by which entries are passed over that have expired, if any may have.
    pub(crate) fn time_to_read(&self) -> Option<Time> {
        if !self.read_duties.get().expiry() {
            return None;
        }
        ReadDuties::acquire();
        Some(self.now())
    }

    /// The same, of a call that has read the clock anyway.
    pub(crate) fn time_to_sweep(&self, now: Time) -> Option<Time> {
        if !self.read_duties.get().expiry() {
            return None;
        }
        ReadDuties::acquire();
        Some(now)
    }

    /// The life of a node of this registry, if it has one.
    ///
    /// # Safety
    ///
    /// The node is not freed before the reference that is returned is gone.
    pub(crate) unsafe fn life_of(&self, node: NonNull<Node<K, V>>) -> Option<&Life> {
        // SAFETY: the caller's promise.
        if let Some(life) = unsafe { Node::life(node) } {
            return Some(life);
        }
        // SAFETY: as said.
        let hash = unsafe { node.as_ref() }.header.hash();
        // SAFETY: as said.
        unsafe { self.shard(hash.into()).shard().life_of(node) }
    }

    /// For a read that has found a node, where there is something to mind: leaves the marks that are wanted, and returns the node
    /// unless it has expired. (It looks again at what is duties, and has the node returned: registers that live across a call
    /// would cost those that mind nothing.)
    ///
    /// # Safety
    ///
    /// The node was found within a critical section that is still open.
    #[inline(always)]
    pub(crate) unsafe fn use_at_read(&self, node: NonNull<Node<K, V>>) -> Option<NonNull<Node<K, V>>> {
        let duties = self.read_duties.get();
        // SAFETY: B2.
        unsafe { node.as_ref() }.header.used.mark(duties);
        // SAFETY: the caller's promise.
        if duties.expiry() { unsafe { self.use_if_in_time(node) } } else { Some(node) }
    }

    /// # Safety
    ///
    /// As for [`use_at_read`](Self::use_at_read).
    #[cold]
    #[inline(never)]
    unsafe fn use_if_in_time(&self, node: NonNull<Node<K, V>>) -> Option<NonNull<Node<K, V>>> {
        ReadDuties::acquire();
        let now = self.now();
        // SAFETY: the caller's promise.
        let Some(life) = (unsafe { self.life_of(node) }) else { return Some(node) };
        // SAFETY: the caller's promise.
        let look = self.settings.lifetimes.look(unsafe { node.as_ref() }, life, now, Looker::READER);
        if let Look::Ended(_) = look {
            return None;
        }
        life.note_use(now, self.settings.lifetimes.idleness());
        Some(node)
    }

    /// Whether an entry that a walk has met is there, by the time of [`time_to_read`](Self::time_to_read). That is no use of it.
    ///
    /// # Safety
    ///
    /// As for [`use_at_read`](Self::use_at_read).
    pub(crate) unsafe fn is_there(&self, node: NonNull<Node<K, V>>, now: Option<Time>) -> bool {
        let Some(now) = now else { return true };
        // SAFETY: the caller's promise.
        let Some(life) = (unsafe { self.life_of(node) }) else { return true };
        // SAFETY: the caller's promise.
        let look = self.settings.lifetimes.look(unsafe { node.as_ref() }, life, now, Looker::READER);
        !matches!(look, Look::Ended(_))
    }

    pub(crate) fn settings(&self) -> &Settings<K, V> {
        &self.settings
    }

    /// For those that leave for this cause.
    #[inline]
    fn evicted(&self, cause: Cause) -> Evicted<'_, K, V> {
        Evicted::new(&self.settings.listeners, cause)
    }

    /// What an entry counts for that holds so many bytes beyond its node.
    fn weight(&self, beyond: usize) -> Weight {
        let bytes = size_of::<Node<K, V>>().saturating_add(beyond);
        Weight::at_least(self.header.domain.inner().budget.weigh(bytes))
    }

    /// An entry to be published here.
    #[inline(always)]
    pub(crate) fn prepare(&self, hash: u64, key: K, value: V) -> UnpublishedNode<K, V> {
        let weight = match &self.settings.weigher {
            None => self.node,
            Some(weigher) => {
                check::user_code();
                self.weight(weigher(&key, &value))
            }
        };
        let lifetimes = &self.settings.lifetimes;
        let is_marked = self.read_duties.begins_marked();
        if !lifetimes.expires() {
            let time = self.now();
            return UnpublishedNode { key, value, hash, time, weight, is_marked, own_end: Time::NEVER };
        }
        let time = self.settings.clock.beginning();
        let own_end = lifetimes.own_end((&key, &value), time);
        UnpublishedNode { key, value, hash, time, weight, is_marked, own_end }
    }

    /// Publishes a unpublished, unless its key is due. Returns a handle if one is wanted.
    #[inline(always)]
    pub(crate) fn insert(
        &self,
        unpublished: UnpublishedNode<K, V>,
        wanted: Wanted,
    ) -> Result<Option<Handle<K, V>>, Rejected<K, V>>
    where
        K: Eq,
    {
        let (shard, time) = (self.shard_to_write(unpublished.hash), unpublished.time);
        let inserted = shard.insert(unpublished, wanted, &self.settings);
        if self.settings.lifetimes.expires() {
            self.assist(shard, time);
        }
        inserted
    }

    /// Publishes a unpublished, in the place of the entry that has its key, if there is one.
    #[inline(always)]
    pub(crate) fn replace<E: Failure>(
        &self,
        unpublished: UnpublishedNode<K, V>,
        wanted: Wanted,
        if_full: IfFull<E>,
    ) -> Result<Published<K, V>, (UnpublishedNode<K, V>, E)>
    where
        K: Eq,
    {
        let locate = |table: Table<K, V>, unpublished: &UnpublishedNode<K, V>| {
            table.locate(unpublished.hash, |found| check::eq(|| found.key() == &unpublished.key))
        };
        match self.replace_located(unpublished, locate, true, wanted, if_full) {
            Ok(published) => Ok(published),
            Err(NotReplaced::Full(unpublished, full)) => Err((unpublished, full)),
            Err(NotReplaced::Absent(_)) => unreachable!("there is a place for every key"),
        }
    }

    /// Publishes a unpublished with the key of `old` in its place, unless that is unlinked.
    pub(crate) fn replace_exact<E: Failure>(
        &self,
        old: &Handle<K, V>,
        unpublished: UnpublishedNode<K, V>,
        if_full: IfFull<E>,
    ) -> Result<Published<K, V>, NotReplaced<K, V, E>> {
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
        if_full: IfFull<E>,
    ) -> Result<Published<K, V>, NotReplaced<K, V, E>> {
        wanted.old |= self.settings.listeners.is_some();
        let (shard, time) = (self.shard_to_write(unpublished.hash), unpublished.time);
        let published = shard.replace(unpublished, locate, or_insert, wanted, if_full, &self.settings)?;
        if let Some(old) = published.old.handle() {
            self.settings.listeners.tell(Cause::Replaced, old);
        }
        if self.settings.lifetimes.expires() {
            self.assist(shard, time);
        }
        Ok(published)
    }

    /// Unlinks the entry of `hash` whose key satisfies `eq`. Returns a handle on it if one is wanted.
    #[inline(always)]
    pub(crate) fn remove<E: Failure>(
        &self,
        hash: u64,
        mut eq: impl FnMut(&K) -> bool,
        wants_handle: bool,
        mut if_full: IfFull<E>,
    ) -> Result<Departed<K, V>, E> {
        let locate = |table: Table<K, V>| table.locate(hash, |found| check::eq(|| eq(found.key())));
        self.remove_located(hash, locate, Cause::Removed, wants_handle, &mut if_full)
    }

    /// Unlinks this entry, if it is in this registry. (That of another registry is in no table of this one.)
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
        Ok(self.remove_located(entry.hash().into(), locate, cause, false, if_full)?.is_some())
    }

    #[inline(always)]
    fn remove_located<E: Failure>(
        &self,
        hash: u64,
        locate: impl FnMut(Table<K, V>) -> Located<K, V>,
        cause: Cause,
        wants_handle: bool,
        if_full: &mut IfFull<E>,
    ) -> Result<Departed<K, V>, E> {
        let wants_handle = wants_handle || self.settings.listeners.is_some();
        let now = self.time_to_write();
        let left = self.shard_to_write(hash).remove(hash, locate, cause, wants_handle, if_full, now, &self.settings)?;
        if let Some(entry) = left.handle() {
            self.settings.listeners.tell(cause, entry);
        }
        Ok(left)
    }

    /// Unlinks everything in a shard, unless there is no room for that in the backlog.
    pub(crate) fn clear(&self, shard: ShardRef<'_, K, V>) -> bool {
        shard.clear(&mut self.evicted(Cause::Removed))
    }

    /// Evicts up to `most` entries from a shard, as long as `excess` holds of it.
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

    /// What an insertion does for the entries of its shard whose time has come. Calls no code of the user's that may panic.
    #[cold]
    fn assist(&self, shard: ShardRef<'_, K, V>, now: Time) {
        let due = shard.counts.due.get();
        if due <= now {
            // (An insertion waits for no room that it does not need.)
            self.expire_in(shard, now, WRITERS_SHARE, IfFull::fail_at_once());
        }
        // ORDERING: Relaxed, all: a hint. The greatest time shows that nothing is done in the background.
        let planned = self.background_at.load(Ordering::Relaxed);
        if due.word() < planned && planned != IN_FOREGROUND {
            let lowered =
                self.background_at.compare_exchange(planned, due.word(), Ordering::Relaxed, Ordering::Relaxed);
            if lowered.is_ok() {
                self.header.domain.inner().reap_within(self.until(due, now));
            }
        }
    }

    /// How long it is until `due`, if times are real; at most what reapers wait anyway.
    fn until(&self, due: Time, now: Time) -> Duration {
        if self.settings.clock.is_real() { due.since(now).max(LEAST_NAP) } else { Duration::MAX }
    }

    /// Removes entries whose time has come, of up to `budget` whose time may have.
    pub(crate) fn expire(&self, budget: usize) -> Reaped {
        let now = self.now();
        let (mut reaped, mut spent) = (Reaped::default(), 0);
        // ORDERING: Relaxed, a hint.
        let first = self.expired_to.load(Ordering::Relaxed);
        for index in first..first + self.shards.len() {
            let Some(shard) = self.shards().nth(index % self.shards.len()) else { break };
            while shard.counts.due.get() <= now && spent < budget {
                let (done, tokens) = self.expire_in(shard, now, CHUNK.min(budget - spent), IfFull::fail());
                reaped += done;
                // Tokens that lead to no entry cost little, but not nothing.
                spent += done.examined.max(tokens / TOKENS_FOR_ONE).max(1);
                if reaped.stopped {
                    return reaped;
                }
            }
            // ORDERING: Relaxed, a hint.
            self.expired_to.store(index % self.shards.len(), Ordering::Relaxed);
            if spent >= budget {
                break;
            }
        }
        reaped
    }

    /// The same, in one shard and under a few locks. Returns how many tokens were looked at, too.
    fn expire_in(&self, shard: ShardRef<'_, K, V>, now: Time, most: usize, if_full: IfFull<Full>) -> (Reaped, usize) {
        let this = ptr::from_ref(&self.settings.lifetimes).cast();
        // A lifetime, or a listener, that would have more expire: this call goes on with that when it returns.
        // SAFETY: wherever it is entered, it is with that type.
        if unsafe { reentrancy::find::<()>(this, |()| ()) } {
            return (Reaped { stopped: true, ..Reaped::default() }, 0);
        }
        let this = ptr::from_ref(&self.expired_to).cast();
        // SAFETY: below, it is with that type.
        if unsafe { reentrancy::find::<()>(this, |()| ()) } {
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
            // SAFETY: the handle holds the node.
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

    /// Prepares all shards for entries that expire, if that is not done yet.
    pub(crate) fn begin_to_expire(&self) {
        if !self.settings.lifetimes.expires() {
            self.shards().for_each(ShardRef::extend);
            self.settings.lifetimes.begin();
        }
    }

    /// After a change of the limits: writers that had a shard's lock before are through, and those to come see it. And reads
    /// mind it.
    pub(crate) fn fence_writers(&self) {
        self.shards().for_each(|shard| drop(shard.lock()));
        self.read_duties.check_expiry(self.settings.lifetimes.limits_idleness());
    }

    /// Gives entries the deadlines and timers that they need by the limits of now. Reads no clock, and does not panic.
    pub(crate) fn renew(&self, entries: &[Handle<K, V>]) {
        for entry in entries {
            // SAFETY: the handle holds the node.
            let Some(life) = (unsafe { self.life_of(entry.node()) }) else { continue };
            let inserted = life.inserted(entry.stamp());
            // If it cannot be asked, it is at its present deadline.
            let known = life.deadline();
            let own = self.settings.lifetimes.own_end_contained((entry.key(), entry.value()), inserted, known);
            let own_end = own.unwrap_or(known);
            let shard = self.shard(entry.hash().into());
            shard.renew(&[(entry.clone(), own_end)], &self.settings.lifetimes);
        }
    }

    /// Lets table memory follow the number of entries at once, and not write by write.
    pub(crate) fn finish_resize(&self) {
        for shard in self.shards() {
            if shard.counts.is_resizing() {
                while shard.finish_resize(false) {}
            }
        }
    }
}

/// That nothing is done in the background, in place of a time.
const IN_FOREGROUND: u64 = u64::MAX;

/// Between two looks in the background for entries whose time has come, at the least.
const LEAST_NAP: Duration = Duration::from_millis(2);

/// After which an entry is looked at again that could not be removed for want of room in the backlog.
const FULL_RETRY: Duration = Duration::from_millis(10);

/// What a registry and its reaper in the background share. The last of the two ends the core.
pub(crate) struct Hold<K: Send + Sync + 'static, V: Send + Sync + 'static>(NonNull<Core<K, V>>);

// SAFETY: a core is shared between threads by design, and closed by the thread that drops the hold.
unsafe impl<K: Send + Sync + 'static, V: Send + Sync + 'static> Send for Hold<K, V> {}
// SAFETY: all of a core's methods take `&self` and are made for any number of threads.
unsafe impl<K: Send + Sync + 'static, V: Send + Sync + 'static> Sync for Hold<K, V> {}

/// The background's side of a registry. The domain has a weak reference to it, and a strong one while it calls: if the registry is
/// dropped meanwhile, the core ends with that call, on the thread of the reclaimer.
impl<K: Send + Sync + 'static, V: Send + Sync + 'static> Reaper for Hold<K, V> {
    fn count(&self) -> usize {
        self.core().shards().map(|shard| shard.live() as usize).sum()
    }

    fn scan(&self, _: &mut Scan) -> Reaped {
        Reaped::default()
    }

    fn expire(&self, budget: usize) -> Reaped {
        let core = self.core();
        // Until it is known when there is more to do: now.
        // ORDERING: Relaxed, a hint, here and below: an insertion wakes this thread, or is seen by it.
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
        // Insertions that come now, and see it, wake; those before are in `due`. (One that is missed is found when reapers are
        // called as usual.)
        let planned = Time::of_word(IN_FOREGROUND - 1);
        // ORDERING: SeqCst, so that the looks at the shards that follow are not made before, on most machines. A hint.
        core.background_at.swap(planned.word(), Ordering::SeqCst);
        let due = due().min(planned);
        // ORDERING: Relaxed, as in `assist`.
        core.background_at.fetch_min(due.word(), Ordering::Relaxed);
        Some(core.until(due, now))
    }
}

impl<K: Send + Sync + 'static, V: Send + Sync + 'static> Hold<K, V> {
    fn core(&self) -> &Core<K, V> {
        // SAFETY: the hold keeps it.
        unsafe { self.0.as_ref() }
    }
}

/// The registry's hold on its core, which ends with it. The nodes may keep the core for longer.
pub(crate) struct CoreOwner<K: Send + Sync + 'static, V: Send + Sync + 'static> {
    /// That of the hold, at hand.
    core: NonNull<Core<K, V>>,
    hold: Arc<Hold<K, V>>,
}

// SAFETY: as for `Hold`.
unsafe impl<K: Send + Sync + 'static, V: Send + Sync + 'static> Send for CoreOwner<K, V> {}
// SAFETY: as for `Hold`.
unsafe impl<K: Send + Sync + 'static, V: Send + Sync + 'static> Sync for CoreOwner<K, V> {}

impl<K: Send + Sync + 'static, V: Send + Sync + 'static> CoreOwner<K, V> {
    /// A core with `shards` (a power of two up to 2^16) for `capacity` nodes in all.
    pub(crate) fn new(
        domain: Domain,
        settings: Settings<K, V>,
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
            expired_to: AtomicUsize::new(0),
            evicted_to: AtomicUsize::new(0),
            background_at: AtomicU64::new(IN_FOREGROUND),
        }));
        core.read_duties.set_unmarked(bounds.are_set());
        core.node = core.weight(0);
        let expires = core.settings.lifetimes.expires();
        if expires {
            core.read_duties.check_expiry(core.settings.lifetimes.limits_idleness());
        }
        let tables: Vec<_> = (0..shards).map(|_| Table::new(buckets)).collect();
        core.roots = tables.iter().map(|&table| Root::new(table)).collect();
        let core = NonNull::from(core);
        let shards =
            tables.iter().map(|&table| CachePadded::new(Shard::new(core.cast(), table, bounds, expires))).collect();
        // SAFETY: nobody else knows of the core yet.
        unsafe { (*core.as_ptr()).shards = shards };
        CoreOwner { core, hold: Arc::new(Hold(core)) }
    }

    /// Has the domain's reclaimer remove what expires.
    pub(crate) fn reap_in_background(&self) {
        // ORDERING: Relaxed, a hint: the reclaimer looks as soon as it is woken.
        self.background_at.store(0, Ordering::Relaxed);
        self.header.domain.add_reaper(&self.hold);
    }
}

impl<K: Send + Sync + 'static, V: Send + Sync + 'static> Deref for CoreOwner<K, V> {
    type Target = Core<K, V>;

    #[inline]
    fn deref(&self) -> &Core<K, V> {
        // SAFETY: the owner's hold keeps it.
        unsafe { self.core.as_ref() }
    }
}

impl<K: Send + Sync + 'static, V: Send + Sync + 'static> Drop for Hold<K, V> {
    fn drop(&mut self) {
        let (header, core) = (self.0.cast::<RegistryHeader>(), self.core());
        let domain = core.header.domain.clone();
        // What was retired needs no grace period any more, and nor do the nodes that are left.
        let mut teardowns: Vec<_> = core.shards().map(|shard| (shard, shard.begin_teardown())).collect();
        domain.inner().budget.remove_shards(teardowns.len());
        core.header.close();
        domain.inner().collect_dropped();
        domain.inner().expedite(header, Default::default());
        let mut inserted = 0;
        for (shard, teardown) in &mut teardowns {
            if teardown.is_by_slab() && !Node::<K, V>::NEEDS_DROP {
                core.header.enter();
                // SAFETY: guards, sessions and views borrow the registry: there are none left, nor are there writers.
                let destroyed = unsafe { shard.destroy_all() };
                // SAFETY: pairs with `enter`, and the owner's hold keeps the core.
                unsafe { RegistryHeader::leave(header, Reclaimed { destroyed, panics: 0 }) };
            } else {
                loop {
                    // SAFETY: as said.
                    let bags = unsafe { shard.unlink_some(teardown) };
                    if bags.is_empty() {
                        break;
                    }
                    domain.inner().expedite(header, bags);
                }
            }
            // SAFETY: as said, and no node is left in the table.
            unsafe { shard.end_teardown() };
            inserted += shard.counts.inserted.get();
        }
        drop(teardowns);
        domain.inner().wait_for_hands(header);
        // Closures of the user's, which may hold handles: they must not wait for those.
        // SAFETY: the owner's are the only users of that field, and there are none any more. (What nodes know of a core is
        // its first field and its shards.)
        let settings = unsafe { &mut (*self.0.as_ptr()).settings };
        // SAFETY: dropped here and nowhere else.
        contain(|| unsafe { ManuallyDrop::drop(settings) });
        // SAFETY: closed, and every node ever inserted is counted; the core is not used below.
        unsafe { RegistryHeader::retire_self(header, inserted) };
    }
}

/// What a domain does with the nodes and shards of a core.
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

/// # Safety
///
/// `header` is the first field of a `Core<K, V>` from [`CoreOwner::new`], and nothing uses it any more.
unsafe fn free<K: 'static, V: 'static>(header: NonNull<RegistryHeader>) {
    let core = header.cast::<Core<K, V>>();
    // SAFETY: the caller's promise; a core is `repr(C)`.
    unsafe { core.drop_in_place() };
    // SAFETY: it came from a box, and is dropped. (By `sync`, as a model keeps the memory until its execution ends.)
    unsafe { sync::dealloc(core.cast(), Layout::new::<Core<K, V>>()) };
}
