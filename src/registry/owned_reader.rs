//! A session that is bound to one registry and owns a share of it.
//!
//! It holds a [`Reader`] that borrows the registry, and the `Arc` that keeps the registry in place. So its reads are
//! those of a `Reader`.
//!
//! # Invariants
//!
//! - **OR1** The reader borrows the registry behind `registry`. That `Arc` is not replaced while the reader exists,
//!   and is dropped after it.
//! - **OR2** The reader leaves the module only as a borrow of the `OwnedReader`, with its lifetime shortened to that
//!   of the borrow.

#![allow(unsafe_code)]

use crate::handle::{Entry, Handle};
use crate::registry::Registry;
use crate::registry::reader::Reader;
use crate::registry::view::View;
use crate::util::hasher::RandomState;
use equivalent::Equivalent;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::mem::MaybeUninit;
use std::sync::Arc;

/// A thread's long-lived read session on a registry that it shares by an [`Arc`]. From
/// [`Registry::owned_reader`].
///
/// It reads as a [`Reader`] does, at the same cost. It borrows nothing, so it can be a field of a struct, or be stored
/// in a thread-local variable. It keeps the registry alive. As every session, it belongs to the thread that made it.
/// Take it [`offline`](Self::offline) for work that blocks, or drop it.
///
/// The drop of an owned reader may be that of the last `Arc` of the registry. Then it drops the registry, after the
/// end of the session.
///
/// # Examples
///
/// ```
/// use epoch_registry::{OwnedReader, Registry};
/// use std::sync::Arc;
///
/// struct Worker {
///     names: OwnedReader<u64, String>,
/// }
///
/// impl Worker {
///     fn length(&mut self, id: u64) -> Option<usize> {
///         self.names.get(&id).map(|name| name.len())
///     }
/// }
///
/// let names = Arc::new(Registry::from([(1, "ada".to_string())]));
/// let worker = {
///     let names = names.clone();
///     std::thread::spawn(move || Worker { names: names.owned_reader() }.length(1))
/// };
/// drop(names); // the worker keeps the registry
/// assert_eq!(worker.join().unwrap(), Some(3));
/// ```
///
/// # Borrows
///
/// Each read ends the borrows of the one before, and no borrow outlives the reader:
///
/// ```compile_fail,E0499
/// let registry = std::sync::Arc::new(epoch_registry::Registry::<u64, u64>::new());
/// let mut reader = registry.owned_reader();
/// let (one, two) = (reader.get(&1), reader.get(&2));
/// assert!(one.is_none() && two.is_none());
/// ```
/// ```compile_fail,E0505
/// let registry = std::sync::Arc::new(epoch_registry::Registry::<u64, u64>::new());
/// let mut reader = registry.owned_reader();
/// let view = reader.view();
/// drop(reader);
/// view.get(&1).is_some();
/// ```
///
/// # Threads
///
/// ```compile_fail,E0277
/// let registry = std::sync::Arc::new(epoch_registry::Registry::<u64, u64>::new());
/// let mut reader = registry.owned_reader();
/// std::thread::spawn(move || reader.get(&1).is_some());
/// ```
pub struct OwnedReader<K: Send + Sync + 'static, V: Send + Sync + 'static, S: 'static = RandomState> {
    /// Initialised until the drop. In a `MaybeUninit`, because the references in a plain field would have to be valid
    /// for the whole of each call that is passed the `OwnedReader`. The call that drops it may free the registry.
    reader: MaybeUninit<Reader<'static, K, V, S>>,
    registry: Arc<Registry<K, V, S>>,
}

impl<K, V, S> Registry<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher + 'static,
{
    /// Registers the calling thread as a long-lived reader that shares ownership of the registry.
    ///
    /// # Progress
    ///
    /// Takes a lock for a short time and allocates, as [`reader`](Self::reader) does.
    ///
    /// # Examples
    ///
    /// ```
    /// let registry = std::sync::Arc::new(epoch_registry::Registry::from([("a", 1)]));
    /// let mut reader = registry.owned_reader();
    /// assert_eq!(reader.get("a").map(|entry| *entry), Some(1));
    /// ```
    pub fn owned_reader(self: &Arc<Self>) -> OwnedReader<K, V, S> {
        let registry = Arc::clone(self);
        // SAFETY: OR1 (`registry` keeps the registry in place until after the drop of the reader).
        let borrowed: &'static Self = unsafe { &*Arc::as_ptr(&registry) };
        OwnedReader { reader: MaybeUninit::new(Reader::new(borrowed)), registry }
    }
}

// All reads are `inline(always)`, as those of a reader.
impl<K, V, S> OwnedReader<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Returns the reader. It does not leave this module (OR2).
    #[inline(always)]
    fn reader(&mut self) -> &mut Reader<'static, K, V, S> {
        // SAFETY: the reader is initialised until the drop.
        unsafe { self.reader.assume_init_mut() }
    }

    /// Returns the registry.
    pub fn registry(&self) -> &Arc<Registry<K, V, S>> {
        &self.registry
    }

    /// Announces a quiescent state if one has been requested, and returns the registry as seen until the next
    /// quiescent state, as [`Reader::view`] does.
    ///
    /// # Progress
    ///
    /// As [`Reader::view`].
    #[inline(always)]
    pub fn view(&mut self) -> &View<'_, K, V, S> {
        self.reader().view()
    }

    /// Returns the entry of `key`, borrowed until the next read, or `None` if the key is not in the registry.
    ///
    /// # Progress
    ///
    /// As [`Reader::get`].
    #[inline(always)]
    pub fn get<Q>(&mut self, key: &Q) -> Option<Entry<'_, K, V>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.reader().get(key)
    }

    /// Returns the entry of `key`, given the [hash](Registry::hash_of) of the key.
    ///
    /// # Panics
    ///
    /// In debug builds, panics if the hash is [wrong](Registry::hash_of).
    ///
    /// # Progress
    ///
    /// As [`Reader::get`].
    #[inline(always)]
    pub fn get_hashed<Q>(&mut self, hash: u64, key: &Q) -> Option<Entry<'_, K, V>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.reader().get_hashed(hash, key)
    }

    /// Returns a handle to the entry of `key`, or `None` if the key is not in the registry.
    ///
    /// # Progress
    ///
    /// As [`Reader::lookup`].
    #[inline(always)]
    pub fn lookup<Q>(&mut self, key: &Q) -> Option<Handle<K, V>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.reader().lookup(key)
    }

    /// Returns a handle to the entry of `key`, given the [hash](Registry::hash_of) of the key.
    ///
    /// # Panics
    ///
    /// In debug builds, panics if the hash is [wrong](Registry::hash_of).
    ///
    /// # Progress
    ///
    /// As [`Reader::lookup`].
    #[inline(always)]
    pub fn lookup_hashed<Q>(&mut self, hash: u64, key: &Q) -> Option<Handle<K, V>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.reader().lookup_hashed(hash, key)
    }

    /// Returns whether `key` is in the registry.
    ///
    /// # Progress
    ///
    /// As [`Reader::contains_key`].
    #[inline(always)]
    pub fn contains_key<Q>(&mut self, key: &Q) -> bool
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.reader().contains_key(key)
    }

    /// Announces a quiescent state if one has been requested. Call this in a loop that has nothing to read for a
    /// while.
    ///
    /// # Progress
    ///
    /// Wait-free.
    #[inline(always)]
    pub fn quiescent(&mut self) {
        self.reader().quiescent();
    }

    /// Calls `f` with the session offline, so that it holds up no grace period. Use this for work that blocks.
    pub fn offline<R>(&mut self, f: impl FnOnce() -> R) -> R {
        self.reader().offline(f)
    }
}

impl<K: Send + Sync + 'static, V: Send + Sync + 'static, S: 'static> Drop for OwnedReader<K, V, S> {
    fn drop(&mut self) {
        // Ends the session. The `Arc`, which is dropped after this, may drop the registry.
        // SAFETY: the reader is initialised until here, and is not used below. OR1 (the registry still exists).
        unsafe { self.reader.assume_init_drop() };
    }
}

impl<K: Send + Sync, V: Send + Sync, S> fmt::Debug for OwnedReader<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: the reader is initialised until the drop.
        let reader = unsafe { self.reader.assume_init_ref() };
        f.debug_struct("OwnedReader").field("reader", reader).finish_non_exhaustive()
    }
}
