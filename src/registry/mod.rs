//! The registry: its construction, its reads, and the methods that concern the whole of it.

pub(crate) mod admission;
mod batch;
pub(crate) mod builder;
pub(crate) mod compute;
pub(crate) mod core;
pub(crate) mod error;
#[cfg(feature = "metrics")]
mod export;
pub(crate) mod fallible;
mod hashed;
pub(crate) mod iter;
pub(crate) mod keys;
mod limits;
mod listening;
mod load;
mod many;
pub(crate) mod memory_order;
pub(crate) mod owned_reader;
mod parallel;
mod peek;
pub mod policy;
pub(crate) mod policy_reaper;
pub(crate) mod reader;
pub(crate) mod registration;
pub(crate) mod reservation;
pub(crate) mod set;
pub(crate) mod stats;
pub(crate) mod sweep;
mod ttl;
pub(crate) mod view;
pub(crate) mod weak_handle;
mod weights;
mod write;

use crate::domain::{CriticalSection, Domain};
use crate::handle::Entry;
use crate::handle::Handle;
use crate::registry::builder::Builder;
use crate::registry::core::CoreOwner;
use crate::registry::error::ForeignGuard;
use crate::registry::reader::Reader;
use crate::registry::stats::Stats;
use crate::registry::view::{Guard, View, hash_of};
use crate::util::hasher::RandomState;
use equivalent::Equivalent;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::panic::{RefUnwindSafe, UnwindSafe};

/// A concurrent hash map of shared, reference-counted entries, with lock-free reads.
///
/// - **Reads** go through a [guard](Registry::pin), or through a [`Reader`] session where they are frequent. A
///   read borrows an entry for as long as the critical section lasts, or takes a [handle](Handle), which the
///   caller may keep.
/// - **Writes** take the lock of one shard, for a few instructions.
/// - **Removed entries** are destroyed after a grace period: by writers, by a reclaimer thread, or at
///   [`Domain::barrier`]. A reader never destroys one.
///
/// # Keys
///
/// Lookups and removals take any type that is [`Equivalent`] to the key and has the same hash: a type that the
/// key [borrows](std::borrow::Borrow) as, or a type of your own. So a lookup by a key of several parts need not
/// allocate:
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
/// - `Hash`, `Drop`, `Clone` and all closures run outside every lock. They may use the registry. They may panic,
///   which leaves the registry as it was.
/// - `Eq` and `Equivalent` of keys may run under a shard lock. There, reading a registry is allowed, and writing
///   to one panics.
/// - A key must keep its hash, and what it compares equal to, for as long as it is in the registry. If it does
///   not, entries may not be found. Nothing worse happens.
///
/// # Statics
///
/// A registry allocates its tables and joins a domain, so no `const` function makes one. A [`LazyLock`] makes it at
/// the first use. What borrows from a static may be stored anywhere: its [`Reader`] is a `Reader<'static, _, _>`.
///
/// ```
/// use epoch_registry::{RandomState, Registry};
/// use std::sync::LazyLock;
///
/// static NAMES: LazyLock<Registry<String, u64>> = LazyLock::new(Registry::new);
///
/// // With a hasher from a constant expression, hashes are the same in every run of the program.
/// const HASHER: RandomState = RandomState::with_seeds(1, 2, 3, 4);
/// static PORTS: LazyLock<Registry<u16, u64>> = LazyLock::new(|| Registry::builder().hasher(HASHER).build());
///
/// NAMES.set("ada".to_string(), 36);
/// PORTS.set(80, *NAMES.lookup("ada").unwrap());
/// assert_eq!(PORTS.with(&80, |entry| *entry), Some(36));
/// ```
///
/// [`LazyLock`]: std::sync::LazyLock
///
/// # Examples
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
    /// Returns an empty registry in the [global](Domain::global) domain, with the default settings.
    pub fn new() -> Self {
        Builder::new().build()
    }

    /// Returns an empty registry in the [global](Domain::global) domain, with room for `capacity` entries if they
    /// spread evenly over the shards. It does not shrink below that capacity.
    pub fn with_capacity(capacity: usize) -> Self {
        Builder::new().capacity(capacity).build()
    }

    /// Returns a builder, to configure a registry.
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
    /// Opens a critical section of the registry's domain, and returns a guard to read in it.
    ///
    /// Costs one locked instruction, unless it is nested in another critical section of the same thread and
    /// domain.
    ///
    /// # Progress
    ///
    /// Wait-free, except for a thread's first pin in a domain. That pin registers the thread: it takes a lock for
    /// a short time and allocates about 2 KB.
    #[inline]
    pub fn pin(&self) -> Guard<'_, K, V, S> {
        Guard::open(&self.core, &self.hasher)
    }

    /// Registers the calling thread as a long-lived reader, whose reads cost no fence.
    pub fn reader(&self) -> Reader<'_, K, V, S> {
        Reader::new(self)
    }

    /// Returns the registry as seen from an open critical section of its domain. So one pin or session serves
    /// several registries.
    ///
    /// # Errors
    ///
    /// Returns [`ForeignGuard`] if the section belongs to another domain.
    ///
    /// # Examples
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
    pub fn view<'g>(&'g self, section: &'g impl CriticalSection) -> Result<View<'g, K, V, S>, ForeignGuard> {
        View::within(&self.core, &self.hasher, section).ok_or(ForeignGuard)
    }

    /// Calls `f` with the entry of `key`, in a critical section of its own. Returns what `f` returns, or `None`
    /// if the key is not in the registry.
    ///
    /// Of the reads that open a critical section each, this is the fastest: it hashes the key before it opens the
    /// section. Keep `f` short; see [`Guard`].
    ///
    /// # Progress
    ///
    /// As [`pin`](Self::pin).
    ///
    /// # Examples
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
        // Hash the key before the pin: the fence of the pin holds up all instructions after it.
        let hash = hash_of(&self.hasher, key);
        self.pin().find_hashed(hash, key).map(f)
    }

    /// Returns a handle to the entry of `key`, or `None` if the key is not in the registry.
    ///
    /// # Progress
    ///
    /// As [`pin`](Self::pin): the read opens a critical section of its own.
    #[inline]
    pub fn lookup<Q>(&self, key: &Q) -> Option<Handle<K, V>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.with(key, |entry| entry.into_handle())
    }

    /// Returns whether `key` is in the registry.
    ///
    /// # Progress
    ///
    /// As [`pin`](Self::pin): the read opens a critical section of its own.
    #[inline]
    pub fn contains_key<Q>(&self, key: &Q) -> bool
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.with(key, |_| ()).is_some()
    }

    /// Returns the number of entries. Exact while no thread writes.
    ///
    /// Expired entries count until they are reaped.
    pub fn len(&self) -> usize {
        self.core.shards().map(|shard| shard.live() as usize).sum()
    }

    /// Returns whether the registry has no entries. Exact while no thread writes.
    ///
    /// Expired entries count until they are reaped.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of entries that the registry holds before a shard grows, if they spread evenly over the
    /// shards.
    pub fn capacity(&self) -> usize {
        self.core.shards().map(|shard| shard.counts.capacity.get() as usize).sum()
    }

    /// Returns the number of bytes that the tables take now. The entries themselves are not included.
    pub fn table_bytes(&self) -> usize {
        self.core.shards().map(|shard| shard.counts.bytes.get() as usize).sum()
    }

    /// Frees the memory that the entries do not need: of tables, and of slabs without used slots. Also drops the
    /// minimum size that [`reserve`](Self::reserve) or [`Builder::capacity`] has set.
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

    /// Makes room for `capacity` entries in all. From now on the registry does not shrink below that capacity.
    ///
    /// # Panics
    ///
    /// Panics if no table of that size fits the address space.
    ///
    /// # Progress
    ///
    /// Takes the lock of every shard, one after another. Holds it long enough to allocate the shard's new table,
    /// and, if the shard is being resized, to move all its nodes.
    pub fn reserve(&self, capacity: usize) {
        let share = capacity.div_ceil(self.core.shards().len());
        for shard in self.core.shards() {
            shard.set_floor(share);
        }
    }

    /// Returns counts of what the registry has done and holds.
    pub fn stats(&self) -> Stats {
        Stats::of(&self.core)
    }

    /// Returns the domain.
    pub fn domain(&self) -> &Domain {
        &self.core.header.domain
    }

    /// Returns the hasher.
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

/// A panic in user code leaves the registry as it was.
impl<K: Send + Sync, V: Send + Sync, S: RefUnwindSafe> RefUnwindSafe for Registry<K, V, S> {}
impl<K: Send + Sync, V: Send + Sync, S: UnwindSafe> UnwindSafe for Registry<K, V, S> {}

impl<K: Send + Sync, V: Send + Sync, S> fmt::Debug for Registry<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("stats", &Stats::of(&self.core)).finish_non_exhaustive()
    }
}
