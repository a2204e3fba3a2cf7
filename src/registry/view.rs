//! The read side: what a critical section sees of a registry.

#![allow(unsafe_code)]

use crate::domain::{DomainGuard, Pin};
use crate::handle::{Entry, Handle};
use crate::registry::core::Core;
use crate::registry::iter::Iter;
use crate::registry::memory_order::MemoryOrder;
use crate::table::{Roots, Table};
use crate::util::check;
use equivalent::Equivalent;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::marker::PhantomData;
use std::ops::Deref;

/// The hash of a key, in one place, and the plain way round: `BuildHasher::hash_one` may be specialised (ahash's is, on a
/// nightly toolchain), and then hashes a `&&u64` or a `Box<u64>` unlike a `u64`, of which it knows no more than that
/// `Hash` and `Equivalent` agree.
#[inline]
#[allow(clippy::manual_hash_one)]
pub(crate) fn hash_of<Q: Hash + ?Sized>(hasher: &impl BuildHasher, key: &Q) -> u64 {
    check::user_code();
    let mut state = hasher.build_hasher();
    key.hash(&mut state);
    state.finish()
}

/// A registry as seen from within a critical section. What it returns borrows from it, and so from the guard or the
/// session behind it.
///
/// # Progress
///
/// All methods are wait-free, but for the time that `Hash` and `Eq` take: no lock, no retry, and no destructor is ever
/// run by them. (Iteration is lock-free: each step is.)
pub struct View<'r, K: 'static, V: 'static, S> {
    pub(crate) core: &'r Core<K, V>,
    /// Those of the core, at hand: a read that had to ask the core for them would wait for two loads more.
    pub(crate) roots: Roots<'r, K, V>,
    pub(crate) hasher: &'r S,
    /// Not `Send`: the critical section is this thread's.
    _section: PhantomData<*const ()>,
}

impl<'r, K, V, S> View<'r, K, V, S> {
    /// # Safety
    ///
    /// The view is used only while this thread is in a critical section of the core's domain, and what it has returned
    /// is not used after the end of that section. (The types that hold a view see to it by their borrows.)
    #[inline]
    pub(crate) unsafe fn new(core: &'r Core<K, V>, hasher: &'r S) -> Self {
        View { core, roots: core.roots(), hasher, _section: PhantomData }
    }

    /// A view within the critical section of `guard`, if that is of the core's domain.
    pub(crate) fn within(core: &'r Core<K, V>, hasher: &'r S, guard: &'r DomainGuard<'_>) -> Option<Self> {
        // SAFETY: the view borrows the guard, and the domain is the right one.
        guard.is_of(&core.header.domain).then(|| unsafe { View::new(core, hasher) })
    }
}

// The reads are inlined always: a view that is lent to a function has to be written to memory, which for a pin of one read is
// as much as a third of its instructions.
impl<K, V, S> View<'_, K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// The entry of `key`, borrowed for as long as the critical section lasts.
    ///
    /// ```
    /// let registry = epoch_registry::Registry::new();
    /// registry.insert("a".to_string(), 1);
    /// let guard = registry.pin();
    /// assert_eq!(guard.get("a").map(|entry| *entry), Some(1));
    /// assert!(guard.get("b").is_none());
    /// ```
    #[inline(always)]
    pub fn get<Q>(&self, key: &Q) -> Option<Entry<'_, K, V>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.get_hashed(hash_of(self.hasher, key), key)
    }

    /// The same, given the hash of the key.
    #[inline(always)]
    pub(crate) fn get_hashed<Q>(&self, hash: u64, key: &Q) -> Option<Entry<'_, K, V>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.find_in(self.roots.table(hash), hash, key)
    }

    /// In debug builds: that there is a critical section indeed, as the types promise.
    #[inline]
    pub(crate) fn check(&self) {
        let domain = &self.core.header.domain;
        debug_assert!(domain.in_critical_section(), "a read outside a critical section of {domain:?}");
    }

    /// The entry of `key` in a table that this critical section has loaded from the root for `hash`, the key's.
    #[inline(always)]
    pub(crate) fn find_in<Q>(&self, table: Table<K, V>, hash: u64, key: &Q) -> Option<Entry<'_, K, V>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.check();
        let mut node = table.find(hash, move |node| key.equivalent(node.key()))?;
        if !self.core.read_duties.get().is_nothing() {
            // SAFETY: found within a critical section, in which the view is used.
            node = unsafe { self.core.use_at_read(node) }?;
        }
        // SAFETY: the view is used within a critical section, and outlasts the entry.
        Some(unsafe { Entry::new(node) })
    }

    /// A handle on the entry of `key`, which outlives the critical section.
    #[inline(always)]
    pub fn lookup<Q>(&self, key: &Q) -> Option<Handle<K, V>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.get(key).map(Entry::into_handle)
    }

    /// Whether `key` is in the registry.
    #[inline(always)]
    pub fn contains_key<Q>(&self, key: &Q) -> bool
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.get(key).is_some()
    }

    /// All entries, in no order.
    ///
    /// Weakly consistent: an entry that is in the registry from the beginning of the iteration to its end is met exactly
    /// once, whatever resizes go on. Entries that come or go meanwhile may be met or not; a key that is replaced, or removed
    /// and inserted again, may be met with the old value, the new one, or both.
    pub fn iter(&self) -> Iter<'_, K, V> {
        self.check();
        // SAFETY: the iterator borrows this view, which is used within a critical section.
        unsafe { Iter::new(self.core, self.roots.all()) }
    }

    /// Returns an iterator over all entries in the order of their memory. In a registry larger than the processor's
    /// caches it is somewhat faster than [`iter`](Self::iter), in a small one slower.
    ///
    /// It takes the lock of each shard for a moment (some nanoseconds for each entry), lists the shard's entries, and returns them
    /// after the lock. The list takes eight bytes for each entry of the shard. So an entry that is in the registry all the while
    /// is met exactly once, and all entries of a shard are those of one moment. (Where entries have allocations of their own,
    /// since they are large, the list is in the order of the table.)
    ///
    /// # Panics
    ///
    /// The iterator panics if it is advanced in the `Eq` of a key, under the lock of a shard.
    ///
    /// # Progress
    ///
    /// May block, on the lock of a shard.
    ///
    /// ```
    /// let registry = epoch_registry::Registry::new();
    /// registry.set_many((0..1000).map(|key| (key, 2 * key)));
    /// let sum: u64 = registry.pin().iter_in_memory_order().map(|entry| *entry).sum();
    /// assert_eq!(sum, 999 * 1000);
    /// ```
    pub fn iter_in_memory_order(&self) -> MemoryOrder<'_, K, V> {
        self.check();
        // SAFETY: the iterator borrows this view, which is used within a critical section.
        unsafe { MemoryOrder::new(self.core) }
    }
}

impl<K, V, S> fmt::Debug for View<'_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").finish_non_exhaustive()
    }
}

/// An open critical section of a registry's domain, bound to the registry: from
/// [`Registry::pin`](crate::Registry::pin). The read methods are those of [`View`].
///
/// Nothing that the guard reaches is destroyed before it is dropped, and nothing that is removed meanwhile, from any
/// registry of the domain, either: keep it short. A guard that is forgotten (`mem::forget`) stops destruction in its
/// domain for good, and does no other harm.
///
/// A guard belongs to its thread, and what it returns cannot outlive it:
///
/// ```compile_fail,E0277
/// let registry = epoch_registry::Registry::<u64, u64>::new();
/// let guard = registry.pin();
/// std::thread::scope(|scope| { scope.spawn(|| guard.get(&1).is_some()); });
/// ```
/// ```compile_fail,E0505
/// let registry = epoch_registry::Registry::<u64, u64>::new();
/// let guard = registry.pin();
/// let entry = guard.get(&1);
/// drop(guard);
/// entry.is_some();
/// ```
#[must_use = "the critical section ends when the guard is dropped"]
pub struct Guard<'r, K: 'static, V: 'static, S> {
    view: View<'r, K, V, S>,
    pin: Pin,
}

impl<'r, K, V, S> Guard<'r, K, V, S> {
    #[inline]
    pub(crate) fn open(core: &'r Core<K, V>, hasher: &'r S) -> Self {
        let pin = core.header.domain.inner().pin();
        // SAFETY: the view is lent out by the guard alone, which keeps the section open.
        Guard { view: unsafe { View::new(core, hasher) }, pin }
    }

    /// Closes the critical section and opens a new one: what was borrowed before is given up, and destruction may go
    /// on. Nested in another critical section of the same thread and domain it does nothing.
    pub fn repin(&mut self) {
        self.pin.repin();
    }
}

impl<'r, K, V, S> Deref for Guard<'r, K, V, S> {
    type Target = View<'r, K, V, S>;

    #[inline]
    fn deref(&self) -> &Self::Target {
        &self.view
    }
}

impl<K, V, S> fmt::Debug for Guard<'_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}
