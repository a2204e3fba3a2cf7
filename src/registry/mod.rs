//! The registry itself: the ways in for reads, and what concerns all of it.

mod batch;
pub(crate) mod builder;
pub(crate) mod core;
pub(crate) mod error;
#[cfg(feature = "metrics")]
mod export;
pub(crate) mod fallible;
pub(crate) mod iter;
mod limits;
mod many;
pub(crate) mod memory_order;
mod parallel;
pub mod policy;
pub(crate) mod policy_reaper;
pub(crate) mod reader;
pub(crate) mod stats;
pub(crate) mod sweep;
pub(crate) mod view;
mod write;

use crate::domain::{Domain, DomainGuard};
use crate::handle::Entry;
use crate::handle::Handle;
use crate::registry::builder::Builder;
use crate::registry::core::CoreOwner;
use crate::registry::error::ForeignGuard;
use crate::registry::reader::Reader;
use crate::registry::stats::Stats;
use crate::registry::view::{Guard, View, hash_of};
use ahash::RandomState;
use equivalent::Equivalent;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::panic::{RefUnwindSafe, UnwindSafe};

/// A concurrent hash map of shared, reference-counted entries, with lock-free reads.
///
/// Reads go through a [guard](Registry::pin), or a [`Reader`] session where they are frequent. They borrow entries for
/// as long as the critical section lasts, or take [handles](Handle), which last as long as the caller likes. Writes take
/// the lock of one shard, for a few instructions. What is removed is destroyed after a grace period, by writers, by a
/// reclaimer thread or at [`Domain::barrier`]; never by a reader.
///
/// # Keys
///
/// Lookups and removals take whatever is [`Equivalent`] to the key and has the same hash: what the key
/// [borrows](std::borrow::Borrow) as, or a type of your own. So nothing need be allocated to ask for a key of several parts:
///
/// ```
/// use epoch_registry::{Equivalent, Registry};
///
/// #[derive(PartialEq, Eq, Hash)]
/// struct Name {
///     directory: u64,
///     text: String,
/// }
///
/// /// The same parts in the same order, so that it hashes as a `Name` does.
/// #[derive(Hash)]
/// struct Parts<'t>(u64, &'t str);
///
/// impl Equivalent<Name> for Parts<'_> {
///     fn equivalent(&self, name: &Name) -> bool {
///         self.0 == name.directory && self.1 == name.text
///     }
/// }
///
/// let names = Registry::new();
/// names.insert(Name { directory: 1, text: "etc".to_string() }, "a directory");
/// assert_eq!(names.lookup(&Parts(1, "etc")).as_deref(), Some(&"a directory"));
/// assert!(names.lookup(&Parts(2, "etc")).is_none());
/// ```
///
/// # User code
///
/// `Hash`, `Drop`, `Clone` and all closures run outside every lock; they may use the registry, and they may panic, which
/// leaves the registry as it was. `Eq` and `Equivalent` of keys may run under a shard lock: there, reading a registry is
/// fine, and writing to one panics. Keys must hash and compare the same for as long as they are in the registry; if they
/// do not, entries may not be found, and nothing worse.
///
/// ```
/// use epoch_registry::Registry;
///
/// let sessions = Registry::new();
/// let ada = sessions.insert_and_get("ada", 36);
/// assert!(sessions.try_insert("ada", 37).is_err());
/// assert_eq!(*sessions.lookup("ada").unwrap(), 36);
/// sessions.remove("ada");
/// assert_eq!(*ada, 36); // the handle keeps it
/// ```
pub struct Registry<K: Send + Sync + 'static, V: Send + Sync + 'static, S = RandomState> {
    pub(crate) core: CoreOwner<K, V>,
    pub(crate) hasher: S,
}

impl<K, V> Registry<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// An empty registry in the [global](Domain::global) domain, with the default settings.
    pub fn new() -> Self {
        Builder::new().build()
    }

    /// An empty registry that takes `capacity` entries before it grows, and does not shrink below that.
    pub fn with_capacity(capacity: usize) -> Self {
        Builder::new().capacity(capacity).build()
    }

    /// Configures a registry.
    pub fn builder() -> Builder<K, V> {
        Builder::new()
    }
}

impl<K, V, S> Registry<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Opens a critical section in the registry's domain, to read in.
    ///
    /// # Progress
    ///
    /// Wait-free, but for the first pin of a thread in a domain, which registers it (under a short lock; allocates about
    /// 2 KB).
    /// Costs one locked instruction, unless it is nested in another critical section of the same thread and domain.
    #[inline]
    pub fn pin(&self) -> Guard<'_, K, V, S> {
        Guard::open(&self.core, &self.hasher)
    }

    /// Registers this thread as a long-lived reader, whose reads cost no fence.
    pub fn reader(&self) -> Reader<'_, K, V, S> {
        Reader::new(self)
    }

    /// The registry as seen from a critical section of its domain, so that one pin serves several registries.
    ///
    /// # Errors
    ///
    /// [`ForeignGuard`] if the guard is of another domain.
    ///
    /// ```
    /// use epoch_registry::{Domain, Registry};
    ///
    /// let domain = Domain::new();
    /// let users = Registry::builder().domain(domain.clone()).build();
    /// let groups = Registry::builder().domain(domain.clone()).build();
    /// users.insert(1, 10);
    /// groups.insert(10, "staff");
    ///
    /// let guard = domain.pin();
    /// let (users, groups) = (users.view(&guard).unwrap(), groups.view(&guard).unwrap());
    /// let group = users.get(&1).unwrap();
    /// assert_eq!(*groups.get(&*group).unwrap(), "staff");
    /// ```
    pub fn view<'g>(&'g self, guard: &'g DomainGuard<'_>) -> Result<View<'g, K, V, S>, ForeignGuard> {
        View::within(&self.core, &self.hasher, guard).ok_or(ForeignGuard)
    }

    /// Calls `f` with the entry of `key`, within a critical section for this one read. Returns what `f` does, or `None` if
    /// there is no such key.
    ///
    /// Of the reads that open a section each, the fastest: the key is hashed before the section opens. Keep `f` short; see
    /// [`Guard`].
    ///
    /// # Progress
    ///
    /// As [`pin`](Self::pin).
    ///
    /// ```
    /// let registry = epoch_registry::Registry::new();
    /// registry.insert("a", "alpha".to_string());
    /// assert_eq!(registry.with("a", |entry| entry.len()), Some(5));
    /// assert_eq!(registry.with("b", |entry| entry.len()), None);
    /// ```
    #[inline]
    pub fn with<Q, R>(&self, key: &Q, f: impl FnOnce(Entry<'_, K, V>) -> R) -> Option<R>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        // First, as the fence of the pin holds up all that follows it.
        let hash = hash_of(&self.hasher, key);
        self.pin().get_hashed(hash, key).map(f)
    }

    /// A handle on the entry of `key`. Opens a critical section for this one read; see [`pin`](Self::pin).
    #[inline]
    pub fn lookup<Q>(&self, key: &Q) -> Option<Handle<K, V>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.with(key, |entry| entry.into_handle())
    }

    /// Whether `key` is in the registry. Opens a critical section for this one read.
    #[inline]
    pub fn contains_key<Q>(&self, key: &Q) -> bool
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.with(key, |_| ()).is_some()
    }

    /// The number of entries. Exact while no thread writes. Entries whose time has come count until they are reaped.
    pub fn len(&self) -> usize {
        self.core.shards().map(|shard| shard.live() as usize).sum()
    }

    /// Whether there are no entries. Exact while no thread writes. Entries whose time has come count until they are reaped.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Entries that the registry holds before some shard grows, if they spread evenly.
    pub fn capacity(&self) -> usize {
        self.core.shards().map(|shard| shard.counts.capacity.get() as usize).sum()
    }

    /// Bytes that the tables take at this moment, without the entries themselves.
    pub fn table_bytes(&self) -> usize {
        self.core.shards().map(|shard| shard.counts.bytes.get() as usize).sum()
    }

    /// Gives back what table memory the entries do not need, and no longer keeps room for the capacity asked for.
    ///
    /// # Progress
    ///
    /// Works through the tables in steps, and holds the lock of one shard for one step at a time.
    pub fn shrink_to_fit(&self) {
        for shard in self.core.shards() {
            shard.set_floor(0);
            while shard.finish_resize(true) {}
        }
    }

    /// Makes room for `capacity` entries in all, below which the registry does not shrink from now on.
    ///
    /// # Panics
    ///
    /// If no table of that size fits the address space.
    ///
    /// # Progress
    ///
    /// Takes the lock of every shard, one after another, long enough to allocate its new table (and to move what it
    /// holds, if it is being resized already).
    pub fn reserve(&self, capacity: usize) {
        let share = capacity.div_ceil(self.core.shards().len());
        for shard in self.core.shards() {
            shard.set_floor(share);
        }
    }

    /// Figures on what the registry has done and holds.
    pub fn stats(&self) -> Stats {
        Stats::of(&self.core)
    }

    /// The domain.
    pub fn domain(&self) -> &Domain {
        &self.core.header.domain
    }

    /// The hasher.
    pub fn hasher(&self) -> &S {
        &self.hasher
    }
}

impl<K, V, S> Default for Registry<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher + Default,
{
    fn default() -> Self {
        Builder::new().hasher(S::default()).build()
    }
}

/// A panic in the user's code leaves the registry as it was.
impl<K: Send + Sync, V: Send + Sync, S: RefUnwindSafe> RefUnwindSafe for Registry<K, V, S> {}
impl<K: Send + Sync, V: Send + Sync, S: UnwindSafe> UnwindSafe for Registry<K, V, S> {}

impl<K: Send + Sync, V: Send + Sync, S> fmt::Debug for Registry<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("stats", &Stats::of(&self.core)).finish_non_exhaustive()
    }
}
