//! What a registry consists of, apart from its hasher: what its nodes keep alive after the registry itself is gone.

#![allow(unsafe_code)]

use crate::check;
use crate::clock::{Clock, Tick, ticks, ticks_of_monotonic};
use crate::cursor::Cursor;
use crate::domain::{Domain, Full, Operations, Reclaimed, Refusal, RegistryHeader};
use crate::evict::{Bounds, Evicted, Shed};
use crate::expiry::{Lifetimes, RETRY, Taken};
use crate::handle::Handle;
use crate::listener::{Cause, Listeners};
use crate::locked::Locked;
use crate::node::{Draft, Node, contain};
use crate::prefetch;
use crate::reaper::Reaped;
use crate::resize::Special;
use crate::shard::{self, Left, NotReplaced, Published, Rejected, Shard, ShardRef, Wanted};
use crate::sync::Mutex;
use crate::table::{Located, Root, Roots, Table};
use crate::timers::{Due, NEVER, Timer};
use crate::usage::Eras;
use crate::weight::Weight;
use crate::within::{is_within, within};
use crossbeam_utils::CachePadded;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Roots and shards, in step. The first field is what the domain knows.
#[repr(C)]
pub(crate) struct Core<K: 'static, V: 'static> {
    pub(crate) header: RegistryHeader,
    /// Every read looks at it. Apart from the header, which is written whenever nodes are freed.
    pub(crate) eras: CachePadded<Eras>,
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
}

/// What a registry is told when it is built.
pub(crate) struct Settings<K: 'static, V: 'static> {
    /// `None` for the monotonic clock.
    pub(crate) clock: Option<Box<dyn Clock>>,
    pub(crate) weigher: Option<Weigher<K, V>>,
    pub(crate) lifetimes: Lifetimes<K, V>,
    pub(crate) listeners: Listeners<K, V>,
    pub(crate) spare_held: bool,
    pub(crate) seeks: u32,
}

/// Entries whose time may have come that an insertion looks at.
const WRITERS_SHARE: usize = 4;

/// Tokens that lead to no entry and count for one in a budget.
const TOKENS_FOR_ONE: usize = 8;

/// Entries that are looked at between two locks of a shard.
const CHUNK: usize = 64;

/// The bytes that an entry holds beyond its node.
pub(crate) type Weigher<K, V> = Box<dyn Fn(&K, &V) -> usize + Send + Sync>;

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

    /// The same for a write, whose lines the processor is asked for, before the lock is taken: under it, they would be waited
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

    /// The time, in ticks that do not wrap.
    #[inline]
    pub(crate) fn now(&self) -> Due {
        let Some(clock) = &self.settings.clock else { return ticks_of_monotonic() };
        check::user_code();
        ticks(clock.now())
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
    pub(crate) fn draft(&self, hash: u64, key: K, value: V) -> Draft<K, V> {
        let weight = match &self.settings.weigher {
            None => self.node,
            Some(weigher) => {
                check::user_code();
                self.weight(weigher(&key, &value))
            }
        };
        let now = self.now();
        let tick = Tick::of(now);
        self.eras.advance(tick);
        let timer = self.timer((&key, &value), now);
        Draft { key, value, hash, stamp: tick.0, weight, used: self.eras.fresh(), timer }
    }

    /// When an entry that is inserted now is to be looked at.
    #[inline]
    fn timer(&self, entry: (&K, &V), now: Due) -> Timer {
        let lifetimes = &self.settings.lifetimes;
        let generation = lifetimes.generation();
        if !lifetimes.are_limited() {
            return Timer { due: NEVER, generation };
        }
        let tick = Tick::of(now);
        let left = lifetimes.left(entry, tick, tick, tick);
        Timer { due: left.map_or(NEVER, |(left, _)| now + Due::from(left)), generation }
    }

    /// Publishes a draft, unless its key is taken. Returns a handle if one is wanted.
    #[inline(always)]
    pub(crate) fn insert(&self, draft: Draft<K, V>, wanted: Wanted) -> Result<Option<Handle<K, V>>, Rejected<K, V>>
    where
        K: Eq,
    {
        let shard = self.shard_to_write(draft.hash);
        let expires = draft.timer.due != NEVER;
        let inserted = shard.insert(draft, wanted, &self.settings.listeners);
        if expires {
            self.assist(shard);
        }
        inserted
    }

    /// Publishes a draft, in the place of the entry that has its key, if there is one.
    #[inline(always)]
    pub(crate) fn replace(
        &self,
        draft: Draft<K, V>,
        wanted: Wanted,
        refusal: Refusal,
    ) -> Result<Published<K, V>, NotReplaced<K, V>>
    where
        K: Eq,
    {
        let locate = |table: Table<K, V>, draft: &Draft<K, V>| {
            table.locate(draft.hash, |found| check::eq(|| found.key() == &draft.key))
        };
        self.replace_located(draft, locate, true, wanted, refusal)
    }

    /// Publishes a draft with the key of `old` in its place, unless that is unlinked.
    pub(crate) fn replace_exact(
        &self,
        old: &Handle<K, V>,
        draft: Draft<K, V>,
        refusal: Refusal,
    ) -> Result<Published<K, V>, NotReplaced<K, V>> {
        let node = old.node();
        self.replace_located(draft, |table, _| table.locate_exact(node), false, Wanted::NEW, refusal)
    }

    #[inline(always)]
    fn replace_located(
        &self,
        draft: Draft<K, V>,
        locate: impl FnMut(Table<K, V>, &Draft<K, V>) -> Located<K, V>,
        or_insert: bool,
        mut wanted: Wanted,
        refusal: Refusal,
    ) -> Result<Published<K, V>, NotReplaced<K, V>> {
        wanted.old |= self.settings.listeners.is_some();
        let shard = self.shard_to_write(draft.hash);
        let expires = draft.timer.due != NEVER;
        let published = shard.replace(draft, locate, or_insert, wanted, refusal, &self.settings.listeners)?;
        if let Some(old) = published.old.handle() {
            self.settings.listeners.tell(Cause::Replaced, old);
        }
        if expires {
            self.assist(shard);
        }
        Ok(published)
    }

    /// Unlinks the entry of `hash` whose key satisfies `eq`. Returns a handle on it if one is wanted.
    #[inline(always)]
    pub(crate) fn remove(
        &self,
        hash: u64,
        mut eq: impl FnMut(&K) -> bool,
        wants_handle: bool,
        mut refusal: Refusal,
    ) -> Result<Left<K, V>, Full> {
        let locate = |table: Table<K, V>| table.locate(hash, |found| check::eq(|| eq(found.key())));
        self.remove_located(hash, locate, Cause::Removed, wants_handle, &mut refusal)
    }

    /// Unlinks this entry, if it is in this registry. (That of another registry is in no table of this one.)
    pub(crate) fn remove_exact(&self, entry: &Handle<K, V>, cause: Cause, refusal: &mut Refusal) -> Result<bool, Full> {
        if entry.is_unlinked() {
            return Ok(false);
        }
        let locate = |table: Table<K, V>| table.locate_exact(entry.node());
        Ok(self.remove_located(entry.hash().into(), locate, cause, false, refusal)?.is_some())
    }

    #[inline(always)]
    fn remove_located(
        &self,
        hash: u64,
        locate: impl FnMut(Table<K, V>) -> Located<K, V>,
        cause: Cause,
        wants_handle: bool,
        refusal: &mut Refusal,
    ) -> Result<Left<K, V>, Full> {
        let wants_handle = wants_handle || self.settings.listeners.is_some();
        let left = self.shard_to_write(hash).remove(hash, locate, cause, wants_handle, refusal)?;
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
        refusal: &mut Refusal,
        excess: impl Fn(&Locked<'_, K, V>) -> bool,
    ) -> Shed {
        self.eras.watch();
        shard.evict(most, refusal, &mut self.evicted(Cause::Capacity), excess)
    }

    /// What the insertion of an entry that can expire does for those that have been there for long enough.
    #[cold]
    fn assist(&self, shard: ShardRef<'_, K, V>) {
        let now = self.now();
        if shard.counts.due.get() <= now {
            // (An insertion waits for no room that it does not need.)
            self.expire_in(shard, now, WRITERS_SHARE, Refusal::AtOnce);
        }
    }

    /// Removes entries whose time has come, of up to `budget` whose time may have.
    pub(crate) fn expire(&self, budget: usize) -> Reaped {
        let now = self.now();
        self.eras.advance(Tick::of(now));
        let (mut reaped, mut spent) = (Reaped::default(), 0);
        // ORDERING: Relaxed, a hint.
        let first = self.expired_to.load(Ordering::Relaxed);
        for index in first..first + self.shards.len() {
            let Some(shard) = self.shards().nth(index % self.shards.len()) else { break };
            while shard.counts.due.get() <= now && spent < budget {
                let (done, tokens) = self.expire_in(shard, now, CHUNK.min(budget - spent), Refusal::Possible);
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
    fn expire_in(&self, shard: ShardRef<'_, K, V>, now: Due, most: usize, refusal: Refusal) -> (Reaped, usize) {
        let this = ptr::from_ref(&self.settings.lifetimes).cast();
        // A lifetime, or a listener, that would have more expire: this call goes on with that when it returns.
        // SAFETY: below, it is with that type.
        if unsafe { is_within::<()>(this, |()| ()) } {
            return (Reaped { stopped: true, ..Reaped::default() }, 0);
        }
        within(this, &(), || self.expire_from(shard, now, most, refusal))
    }

    fn expire_from(&self, shard: ShardRef<'_, K, V>, now: Due, most: usize, mut refusal: Refusal) -> (Reaped, usize) {
        let mut reaped = Reaped::default();
        let mut taken = Taken::new(shard, self.settings.lifetimes.generation(), now, most);
        reaped.examined = taken.len();
        let tokens = taken.tokens();
        taken.judge(|entry| {
            let (left, cause) = self.time_left(entry, Tick::of(now))?;
            if reaped.stopped || left > 0 {
                return Some(now + Due::from(left));
            }
            if self.settings.spare_held && entry.is_held() {
                reaped.skipped += 1;
                return Some(now + Due::from(RETRY));
            }
            match self.remove_exact(entry, cause, &mut refusal) {
                Ok(removed) => {
                    reaped.removed += usize::from(removed);
                    reaped.bytes += if removed { entry.weight() } else { 0 };
                    None
                }
                Err(Full) => {
                    reaped.stopped = true;
                    Some(now + 1)
                }
            }
        });
        (reaped, tokens)
    }

    /// In how many ticks an entry expires, and why.
    fn time_left(&self, entry: &Handle<K, V>, now: Tick) -> Option<(u32, Cause)> {
        // SAFETY: the handle holds the node.
        let header = unsafe { &entry.node().as_ref().header };
        let used = self.eras.last_use(&header.used, now);
        self.settings.lifetimes.left_contained((entry.key(), entry.value()), Tick(header.stamp()), used, now)
    }

    /// Gives entries the timers that they need by the settings as of now.
    pub(crate) fn rearm(&self, entries: &[Handle<K, V>]) {
        let (now, generation) = (self.now(), self.settings.lifetimes.generation());
        for entry in entries {
            if let Some((left, _)) = self.time_left(entry, Tick::of(now)) {
                let shard = self.shard(entry.hash().into());
                drop(Taken::of(shard, generation, vec![(entry.clone(), now + Due::from(left))]));
            }
        }
    }

    /// Tells the shards that the settings have changed, by which entries expire: what was worked out by the old ones and
    /// comes to a shard after this is looked at again.
    pub(crate) fn renew_lifetimes(&self) {
        for shard in self.shards() {
            let mut locked = shard.lock();
            locked.generation = self.settings.lifetimes.generation();
            locked.special.set(Special::EXPIRING, true);
        }
    }
}

/// The registry's hold on its core, which ends with it. The nodes may keep the core for longer.
pub(crate) struct CoreOwner<K: Send + Sync + 'static, V: Send + Sync + 'static>(NonNull<Core<K, V>>);

// SAFETY: a core is shared between threads by design, and closed by whoever drops the owner.
unsafe impl<K: Send + Sync + 'static, V: Send + Sync + 'static> Send for CoreOwner<K, V> {}
// SAFETY: all of a core's methods take `&self` and are made for any number of threads.
unsafe impl<K: Send + Sync + 'static, V: Send + Sync + 'static> Sync for CoreOwner<K, V> {}

impl<K: Send + Sync + 'static, V: Send + Sync + 'static> CoreOwner<K, V> {
    /// A core with `shards` (a power of two up to 2^16) for `capacity` nodes in all.
    pub(crate) fn new(
        domain: Domain,
        settings: Settings<K, V>,
        shards: usize,
        capacity: usize,
        bounds: Bounds,
    ) -> Self {
        let buckets = Table::<K, V>::buckets_for(capacity.div_ceil(shards));
        domain.inner().budget.add_shards(shards);
        let core = Box::leak(Box::new(Core {
            header: RegistryHeader::new(domain, operations::<K, V>()),
            shift: 32 - shards.trailing_zeros(),
            roots: Box::default(),
            shards: Box::default(),
            eras: CachePadded::new(Eras::new()),
            settings: ManuallyDrop::new(settings),
            node: Weight::at_least(0),
            reaped_to: Mutex::new(Cursor::new()),
            expired_to: AtomicUsize::new(0),
            evicted_to: AtomicUsize::new(0),
        }));
        core.settings.lifetimes.track_use(&core.eras);
        core.eras.set_unmarked(bounds.are_set());
        core.node = core.weight(0);
        let expires = core.settings.lifetimes.are_limited();
        let tables: Vec<_> = (0..shards).map(|_| Table::new(buckets)).collect();
        core.roots = tables.iter().map(|&table| Root::new(table)).collect();
        let core = NonNull::from(core);
        let shards =
            tables.iter().map(|&table| CachePadded::new(Shard::new(core.cast(), table, bounds, expires))).collect();
        // SAFETY: nobody else knows of the core yet.
        unsafe { (*core.as_ptr()).shards = shards };
        CoreOwner(core)
    }
}

impl<K: Send + Sync + 'static, V: Send + Sync + 'static> Deref for CoreOwner<K, V> {
    type Target = Core<K, V>;

    #[inline]
    fn deref(&self) -> &Core<K, V> {
        // SAFETY: the owner's hold keeps it.
        unsafe { self.0.as_ref() }
    }
}

impl<K: Send + Sync + 'static, V: Send + Sync + 'static> Drop for CoreOwner<K, V> {
    fn drop(&mut self) {
        let header = self.0.cast::<RegistryHeader>();
        let domain = self.header.domain.clone();
        // What was retired needs no grace period any more, and nor do the nodes that are left.
        let mut teardowns: Vec<_> = self.shards().map(|shard| (shard, shard.begin_teardown())).collect();
        domain.inner().budget.remove_shards(teardowns.len());
        self.header.close();
        domain.inner().collect_dropped();
        domain.inner().expedite(header, Default::default());
        let mut inserted = 0;
        for (shard, teardown) in &mut teardowns {
            if teardown.is_by_slab() && !Node::<K, V>::NEEDS_DROP {
                self.header.enter();
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
        collect: shard::collect::<K, V>,
        reclaim: shard::reclaim::<K, V>,
        recycle: shard::recycle::<K, V>,
        destroy: shard::destroy::<K, V>,
        free: free::<K, V>,
    }
}

/// # Safety
///
/// `header` is the first field of a `Core<K, V>` from [`CoreOwner::new`], and nothing uses it any more.
unsafe fn free<K: 'static, V: 'static>(header: NonNull<RegistryHeader>) {
    // SAFETY: the caller's promise; a core is `repr(C)` and came from a box.
    let core = unsafe { Box::from_raw(header.cast::<Core<K, V>>().as_ptr()) };
    drop(core);
}
