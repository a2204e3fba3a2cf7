//! The read side: a registry as seen from within a critical section.

#![allow(unsafe_code)]

use crate::domain::{CriticalSection, Inner, Pin, Sealed};
use crate::handle::{Entry, Handle};
use crate::registry::core::Core;
use crate::registry::iter::Iter;
use crate::registry::memory_order::MemoryOrder;
use crate::table::{Roots, Table};
use crate::util::check;
use crate::util::hasher::RandomState;
use equivalent::Equivalent;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr;

/// Returns the hash of a key. All hashing goes through this function.
///
/// It does not call `BuildHasher::hash_one`, which may be specialised by type (that of ahash is, on a nightly
/// toolchain). A `&u64` or a `Box<u64>` could then hash differently from the `u64` that it is equivalent to: a
/// specialisation sees only the type, and not that `Hash` and `Equivalent` agree.
#[inline]
#[allow(clippy::manual_hash_one)]
pub(crate) fn hash_of<Q: Hash + ?Sized>(hasher: &impl BuildHasher, key: &Q) -> u64 {
    check::user_code();
    let mut state = hasher.build_hasher();
    key.hash(&mut state);
    state.finish()
}

/// A registry as seen from within a critical section.
///
/// What its methods return borrows from the view, and so from the guard or the session behind it.
///
/// # Progress
///
/// - Lookups are wait-free, apart from the time that `Hash` and `Eq` take: they take no lock and do not retry. In
///   a registry whose entries expire they are lock-free: a lookup looks again at an entry whose deadline or last
///   use another thread changes at the same time.
/// - Each step of an iteration is lock-free. Only [`iter_in_memory_order`](Self::iter_in_memory_order) takes
///   locks.
/// - No method runs a destructor.
pub struct View<'r, K: 'static, V: 'static, S = RandomState> {
    pub(crate) core: &'r Core<K, V>,
    /// The roots of the core, copied: a read that took them from the core would wait for two more loads.
    pub(crate) roots: Roots<'r, K, V>,
    pub(crate) hasher: &'r S,
    /// Not `Send`: the critical section belongs to this thread.
    _section: PhantomData<*const ()>,
}

impl<'r, K, V, S> View<'r, K, V, S> {
    /// Returns a view of a registry.
    ///
    /// # Safety
    ///
    /// The view is used only while this thread is in a critical section of the core's domain. What its methods
    /// return is not used after the end of that section. (The types that hold a view ensure both by their
    /// borrows.)
    #[inline]
    pub(crate) unsafe fn new(core: &'r Core<K, V>, hasher: &'r S) -> Self {
        View { core, roots: core.roots(), hasher, _section: PhantomData }
    }

    /// Returns a view within a critical section, or `None` if the section belongs to another domain.
    pub(crate) fn within(core: &'r Core<K, V>, hasher: &'r S, section: &'r impl CriticalSection) -> Option<Self> {
        let is_of_core = ptr::eq(section.domain(), core.header.domain.inner());
        // SAFETY: the view borrows the critical section, which is one of the core's domain.
        is_of_core.then(|| unsafe { View::new(core, hasher) })
    }
}

// All reads are `inline(always)`. A view that is passed to a function by reference must be written to memory,
// which takes up to a third of the instructions of a read with a pin of its own.
impl<K, V, S> View<'_, K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Returns the entry of `key`, borrowed for as long as the critical section lasts, or `None` if the key is
    /// not in the registry.
    ///
    /// # Examples
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
        // Hash the key.
        self.find_hashed(hash_of(self.hasher, key), key)
    }

    /// As [`get`](Self::get), given the hash of the key. Any hash is harmless.
    #[inline(always)]
    pub(crate) fn find_hashed<Q>(&self, hash: u64, key: &Q) -> Option<Entry<'_, K, V>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        // Select the shard by the hash, and load its table from the root.
        self.find_in(self.roots.table(hash), hash, key)
    }

    /// Checks, in debug builds, that this thread is in a critical section of the domain.
    #[inline]
    pub(crate) fn check(&self) {
        let domain = &self.core.header.domain;
        debug_assert!(domain.in_critical_section(), "a read outside a critical section of {domain:?}");
    }

    /// Returns the entry of `key`, whose hash is `hash`. The caller has loaded `table` from the root for `hash`
    /// in this critical section.
    #[inline(always)]
    pub(crate) fn find_in<Q>(&self, table: Table<K, V>, hash: u64, key: &Q) -> Option<Entry<'_, K, V>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        // Debug builds check that this thread is in a critical section.
        self.check();
        // Compare the tag with those of the home bucket, then the key with those of the nodes whose tags match.
        let Some(mut node) = table.find(hash, move |node| key.equivalent(node.key())) else {
            // Count the miss, if hits and misses are counted.
            if !self.core.read_duties.get().is_nothing() {
                self.core.count_miss();
            }
            return None;
        };
        // Load the duties of reads. There are none unless the use of entries matters or entries may expire.
        if !self.core.read_duties.get().is_nothing() {
            // Leave the marks of use. If the entry has expired, return `None`.
            // SAFETY: the node was found in the critical section in which the view is used, and which is still
            // open.
            node = unsafe { self.core.use_at_read(node) }?;
        }
        // Return the node as an entry.
        // SAFETY: the node was found in the critical section in which the view is used. The entry borrows the
        // view.
        Some(unsafe { Entry::new(node) })
    }

    /// Returns a handle to the entry of `key`, or `None` if the key is not in the registry. The handle may
    /// outlive the critical section.
    #[inline(always)]
    pub fn lookup<Q>(&self, key: &Q) -> Option<Handle<K, V>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.get(key).map(Entry::into_handle)
    }

    /// Returns whether `key` is in the registry.
    #[inline(always)]
    pub fn contains_key<Q>(&self, key: &Q) -> bool
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.get(key).is_some()
    }

    /// Returns an iterator over all entries, in no particular order.
    ///
    /// The iteration is weakly consistent:
    ///
    /// - It meets an entry exactly once if the entry is in the registry from the start of the iteration to its
    ///   end, also during resizes.
    /// - It may meet or miss an entry that is inserted or removed during the iteration.
    /// - If a key is replaced, or removed and inserted again, it may meet the old entry, the new one, or both.
    pub fn iter(&self) -> Iter<'_, K, V> {
        self.check();
        // SAFETY: the iterator borrows this view, which is used within a critical section.
        unsafe { Iter::new(self.core, self.roots.all()) }
    }

    /// Returns an iterator over all entries, in the order of their memory.
    ///
    /// In a registry larger than the processor's caches it is somewhat faster than [`iter`](Self::iter); in a
    /// small registry it is slower.
    ///
    /// For each shard, the iterator takes the lock, lists the shard's entries (some nanoseconds for each), and
    /// returns them after the lock. So the entries of a shard are those of one moment, and an entry that is in
    /// the registry during the whole iteration is met exactly once. The list takes eight bytes for each entry of
    /// the shard. Entries so large that they have allocations of their own are listed in the order of the table.
    ///
    /// # Panics
    ///
    /// The iterator panics if it is advanced within the `Eq` of a key, which may run under a shard lock.
    ///
    /// # Progress
    ///
    /// May block, on the lock of a shard.
    ///
    /// # Examples
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

/// An open critical section of a registry's domain, bound to the registry. Returned by
/// [`Registry::pin`](crate::Registry::pin).
///
/// The guard dereferences to a [`View`], whose methods read the registry.
///
/// While the guard is open, nothing that it can reach is destroyed. Nor is anything that is removed in the
/// meantime, from any registry of the domain: drop the guard soon. A guard that is forgotten
/// ([`mem::forget`](std::mem::forget)) stops destruction in its domain for good. It does no other harm.
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
pub struct Guard<'r, K: 'static, V: 'static, S = RandomState> {
    view: View<'r, K, V, S>,
    pin: Pin,
}

impl<'r, K, V, S> Guard<'r, K, V, S> {
    #[inline]
    pub(crate) fn open(core: &'r Core<K, V>, hasher: &'r S) -> Self {
        let pin = core.header.domain.inner().pin();
        // SAFETY: only the guard lends the view out, and `pin` keeps the section open as long as the guard
        // exists.
        Guard { view: unsafe { View::new(core, hasher) }, pin }
    }

    /// Closes the critical section and opens a new one, so that destruction may proceed. No borrow from before
    /// may be in use.
    ///
    /// If the guard is nested in another critical section of the same thread and domain, this does nothing.
    pub fn repin(&mut self) {
        self.pin.repin();
    }
}

impl<K, V, S> CriticalSection for Guard<'_, K, V, S> {}

#[allow(private_interfaces)]
impl<K, V, S> Sealed for Guard<'_, K, V, S> {
    #[inline]
    fn domain(&self) -> &Inner {
        self.view.core.header.domain.inner()
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
