//! What a registry consists of, apart from its hasher: what its nodes keep alive after the registry itself is gone.

#![allow(unsafe_code)]

use crate::check;
use crate::clock::{Clock, Tick};
use crate::domain::{Domain, Full, Refusal, Registrant};
use crate::handle::Handle;
use crate::iter::Cursor;
use crate::node::{Draft, Node, Used, contain};
use crate::shard::{Cause, NotReplaced, Rejected, Shard};
use crate::sync::Mutex;
use crate::table::{Root, Table};
use crate::weight::Weight;
use crossbeam_utils::CachePadded;
use std::ops::Deref;
use std::ptr::NonNull;

/// Roots and shards, in step. The first field is what the domain knows.
#[repr(C)]
pub(crate) struct Core<K: 'static, V: 'static> {
    pub(crate) registrant: Registrant,
    /// How far to shift 32 bits of hash so that the number of the shard is left.
    shift: u32,
    /// Where lookups begin. Close together, as they change only when a shard is resized; apart from the shards, whose
    /// every write dirties a line.
    roots: Box<[Root<K, V>]>,
    shards: Box<[CachePadded<Shard<K, V>>]>,
    clock: Box<dyn Clock>,
    weigher: Option<Weigher<K, V>>,
    /// Whether entries begin without the mark that their first use leaves. Where there is no bound they have it from the
    /// beginning, and reads store nothing. (Of std's type, as the mark itself.)
    pub(crate) unmarked: std::sync::atomic::AtomicBool,
    /// Where the next call of a reaper goes on.
    pub(crate) reaped_to: Mutex<Cursor>,
}

/// The bytes that an entry holds beyond its node.
pub(crate) type Weigher<K, V> = Box<dyn Fn(&K, &V) -> usize + Send + Sync>;

impl<K, V> Core<K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// The place of the shard that `hash` belongs to. By the top of its low half, the bottom of which chooses the bucket:
    /// so a node's own half of the hash is enough to find it again.
    #[inline]
    fn index(&self, hash: u64) -> usize {
        (u64::from(hash as u32) >> self.shift) as usize
    }

    /// The root for `hash`. For readers.
    #[inline]
    pub(crate) fn root(&self, hash: u64) -> &Root<K, V> {
        let index = self.index(hash);
        debug_assert!(index < self.roots.len());
        // SAFETY: the shift leaves as many bits as the binary logarithm of the number of roots.
        unsafe { self.roots.get_unchecked(index) }
    }

    fn shard(&self, hash: u64) -> (&Shard<K, V>, &Root<K, V>) {
        let index = self.index(hash);
        (&self.shards[index], &self.roots[index])
    }

    pub(crate) fn shards(&self) -> impl ExactSizeIterator<Item = (&Shard<K, V>, &Root<K, V>)> {
        self.shards.iter().map(|shard| &**shard).zip(&self.roots)
    }

    pub(crate) fn now(&self) -> Tick {
        check::user_code();
        Tick::at(self.clock.now())
    }

    /// A node to be published here.
    pub(crate) fn draft(&self, hash: u64, key: K, value: V) -> Draft<K, V> {
        let (shard, _) = self.shard(hash);
        check::user_code();
        let beyond = self.weigher.as_ref().map_or(0, |weigher| weigher(&key, &value));
        let bytes = size_of::<Node<K, V>>().saturating_add(beyond);
        let weight = Weight::at_least(self.registrant.domain.inner().budget.weigh(bytes));
        // ORDERING: Relaxed, as all that has to do with the mark.
        let used = Used::new(!self.unmarked.load(std::sync::atomic::Ordering::Relaxed));
        Draft::new(shard.queue(), hash, self.now().0, weight, used, key, value)
    }

    /// Publishes a draft, unless its key is taken.
    pub(crate) fn insert(&self, hash: u64, draft: Draft<K, V>) -> Result<Handle<K, V>, Rejected<K, V>>
    where
        K: Eq,
    {
        let (shard, root) = self.shard(hash);
        shard.insert(root, hash, draft)
    }

    /// Publishes a draft, in the place of the entry that has its key, if there is one. Returns the one replaced; or the
    /// draft, if it is refused.
    pub(crate) fn replace(
        &self,
        hash: u64,
        draft: Draft<K, V>,
        refusal: Refusal,
    ) -> Result<Option<Handle<K, V>>, Draft<K, V>>
    where
        K: Eq,
    {
        let (shard, root) = self.shard(hash);
        shard.replace(root, hash, draft, refusal)
    }

    /// Publishes a draft with the key of `old` in its place, unless it is unlinked.
    pub(crate) fn replace_exact(
        &self,
        old: &Handle<K, V>,
        draft: Draft<K, V>,
        refusal: Refusal,
    ) -> Result<Handle<K, V>, NotReplaced<K, V>> {
        let (shard, root) = self.shard(old.hash().into());
        shard.replace_exact(root, old, draft, refusal)
    }

    /// Unlinks the entry of `hash` whose key satisfies `eq`.
    pub(crate) fn remove(
        &self,
        hash: u64,
        eq: impl FnMut(&K) -> bool,
        refusal: Refusal,
    ) -> Result<Option<Handle<K, V>>, Full> {
        let (shard, root) = self.shard(hash);
        shard.remove(root, hash, eq, refusal)
    }

    /// Unlinks this entry, if it is in this registry. (That of another registry is in no table of this one.)
    pub(crate) fn remove_exact(&self, entry: &Handle<K, V>, cause: Cause, refusal: Refusal) -> Result<bool, Full> {
        let (shard, root) = self.shard(entry.hash().into());
        Ok(!entry.is_unlinked() && shard.remove_exact(root, entry, cause, refusal)?)
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
        clock: Box<dyn Clock>,
        weigher: Option<Weigher<K, V>>,
        shards: usize,
        capacity: usize,
        bound: usize,
    ) -> Self {
        let buckets = Table::<K, V>::buckets_for(capacity.div_ceil(shards));
        domain.inner().budget.add_shards(shards);
        let core = Box::leak(Box::new(Core {
            registrant: Registrant::new(domain, Node::<K, V>::destroy, free::<K, V>),
            shift: 32 - shards.trailing_zeros(),
            roots: Box::default(),
            shards: Box::default(),
            clock,
            weigher,
            unmarked: (bound != usize::MAX).into(),
            reaped_to: Mutex::new(Cursor::new()),
        }));
        let tables: Vec<_> = (0..shards).map(|_| Table::new(buckets)).collect();
        core.roots = tables.iter().map(|&table| Root::new(table)).collect();
        let core = NonNull::from(core);
        let shards = tables.iter().map(|&table| CachePadded::new(Shard::new(core.cast(), table, bound))).collect();
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
        let (mut inserted, mut live) = (0, Vec::new());
        for (shard, _) in self.shards() {
            // SAFETY: guards, sessions and views borrow the registry: there are none left, nor are there writers.
            let nodes = unsafe { shard.dismantle() };
            live.push((NonNull::from(shard.queue()), nodes));
            inserted += shard.counts.inserted.get();
        }
        let registrant = self.0.cast();
        let domain = self.registrant.domain.clone();
        domain.inner().budget.remove_shards(live.len());
        self.registrant.close();
        domain.inner().expedite(registrant, live);
        // SAFETY: closed, and every node ever inserted is counted; the core is not used below.
        unsafe { Registrant::retire_self(registrant, inserted) };
    }
}

/// # Safety
///
/// `registrant` is the first field of a `Core<K, V>` from [`CoreOwner::new`], and nobody uses it any more.
unsafe fn free<K: 'static, V: 'static>(registrant: NonNull<Registrant>) {
    // SAFETY: the caller's promise; a core is `repr(C)` and came from a box.
    let core = unsafe { Box::from_raw(registrant.cast::<Core<K, V>>().as_ptr()) };
    // Clock and weigher are the user's, and this may be anybody's thread.
    contain(|| drop(core));
}
