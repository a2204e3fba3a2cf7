//! Handles with a count of their own for each thread, so that handles to a popular entry do not make all cores
//! contend for one cache line.

use crate::handle::Entry;
use crate::handle::Handle;
use std::fmt;
use std::ops::Deref;
use std::rc::Rc;

/// A handle that is counted within one thread, from [`LocalHandles`]. Dereferences to the value.
///
/// It keeps the entry valid, as a [`Handle`] does. Cloning and dropping it write nothing that other threads
/// use. The exception is the drop of the thread's last local handle to the entry, which drops the one `Handle`
/// behind them. A local handle cannot leave its thread:
///
/// ```compile_fail,E0277
/// let registry = epoch_registry::Registry::<u64, u64>::new();
/// registry.insert(1, 1);
/// let local = epoch_registry::LocalHandles::new(16).of(registry.pin().get(&1).unwrap());
/// std::thread::spawn(move || *local);
/// ```
pub struct LocalHandle<K: 'static, V: 'static>(Rc<Handle<K, V>>);

impl<K, V> LocalHandle<K, V> {
    /// Returns the key.
    pub fn key(&self) -> &K {
        self.0.key()
    }

    /// Returns the value.
    pub fn value(&self) -> &V {
        self.0.value()
    }

    /// Returns whether the entry has left the registry, as [`Handle::is_unlinked`] does.
    pub fn is_unlinked(&self) -> bool {
        self.0.is_unlinked()
    }

    /// Returns a [`Handle`], which can be sent to other threads.
    pub fn to_handle(&self) -> Handle<K, V> {
        Handle::clone(&self.0)
    }
}

impl<K, V> Clone for LocalHandle<K, V> {
    #[inline]
    fn clone(&self) -> Self {
        LocalHandle(Rc::clone(&self.0))
    }
}

impl<K, V> Deref for LocalHandle<K, V> {
    type Target = V;

    #[inline]
    fn deref(&self) -> &V {
        self.0.value()
    }
}

impl<K, V: fmt::Debug> fmt::Debug for LocalHandle<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value().fmt(f)
    }
}

/// A thread's cache of handles to the entries that it requested last. If the thread requests one of them again,
/// it gets another local handle to the same entry, which only the thread itself counts.
///
/// All [`Handle`]s to one entry share a count on one cache line. If all cores take handles to the same few
/// entries, they contend for that line. With this cache, only the first read of an entry takes such a handle.
/// Later reads take none while the entry keeps its place in the cache. If a borrow is enough, a borrow is
/// cheaper still and needs no cache.
///
/// The cache keeps its entries, even if they are removed from the registry, so they are not destroyed. Where
/// that matters, call [`shed`](Self::shed) from time to time. A thread that is about to be idle for a while
/// should call [`clear`](Self::clear).
///
/// ```
/// use epoch_registry::{LocalHandles, Registry};
///
/// let registry = Registry::new();
/// registry.insert("config", 1);
/// let (mut reader, mut handles) = (registry.reader(), LocalHandles::new(64));
/// for _ in 0..1000 {
///     let config = handles.of(reader.get("config").unwrap());
///     assert_eq!(*config, 1);
/// }
/// registry.remove("config");
/// handles.shed();
/// ```
pub struct LocalHandles<K: 'static, V: 'static> {
    /// Indexed by the hash of the key. The length is a power of two.
    places: Box<[Option<LocalHandle<K, V>>]>,
}

impl<K, V> LocalHandles<K, V> {
    /// Creates a cache with this many places, rounded up to a power of two. Entries whose hashes select the
    /// same place displace each other.
    ///
    /// # Panics
    ///
    /// Panics if the places do not fit the address space.
    pub fn new(places: usize) -> Self {
        let places = places.max(1).checked_next_power_of_two().expect("capacity overflow");
        LocalHandles { places: (0..places).map(|_| None).collect() }
    }

    /// Returns a local handle to the entry.
    ///
    /// # Progress
    ///
    /// Wait-free. If the entry is not in the cache, this takes one reference and drops the handle of the
    /// displaced entry. (If that was the last handle to an entry whose registry has been dropped, the drop may
    /// run the value's `Drop`: see [`Handle`].)
    #[inline]
    pub fn of(&mut self, entry: Entry<'_, K, V>) -> LocalHandle<K, V> {
        let index = entry.header().hash() as usize & (self.places.len() - 1);
        match &self.places[index] {
            // The cached handle keeps its node, so no other entry can have the same address.
            Some(known) if known.0.node() == entry.node_pointer() => known.clone(),
            _ => self.displace(index, entry),
        }
    }

    #[cold]
    fn displace(&mut self, index: usize, entry: Entry<'_, K, V>) -> LocalHandle<K, V> {
        let handle = LocalHandle(Rc::new(entry.into_handle()));
        self.places[index] = Some(handle.clone());
        handle
    }

    /// Drops the handles to entries that have left the registry. Returns how many.
    pub fn shed(&mut self) -> usize {
        let mut shed = 0;
        for place in &mut self.places {
            shed += usize::from(place.take_if(|handle| handle.is_unlinked()).is_some());
        }
        shed
    }

    /// Drops all handles.
    pub fn clear(&mut self) {
        self.places.fill_with(|| None);
    }
}

impl<K, V> fmt::Debug for LocalHandles<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = self.places.iter().flatten().count();
        f.debug_struct("LocalHandles").field("places", &self.places.len()).field("held", &held).finish()
    }
}
