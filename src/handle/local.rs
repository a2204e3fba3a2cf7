//! Handles that one thread counts for itself, so that those on a much wanted entry do not put all cores on one cache line.

use crate::handle::Entry;
use crate::handle::Handle;
use std::fmt;
use std::ops::Deref;
use std::rc::Rc;

/// A handle that its thread counts for itself: from [`LocalHandles`]. Dereferences to the value.
///
/// It keeps what a [`Handle`] keeps. To clone it and to drop it writes nothing that other threads use, but for the last of
/// this thread's on the entry, which gives the one `Handle` back that is behind them. It belongs to its thread:
///
/// ```compile_fail,E0277
/// let registry = epoch_registry::Registry::<u64, u64>::new();
/// registry.insert(1, 1);
/// let local = epoch_registry::LocalHandles::new(16).of(registry.pin().get(&1).unwrap());
/// std::thread::spawn(move || *local);
/// ```
pub struct LocalHandle<K: 'static, V: 'static>(Rc<Handle<K, V>>);

impl<K, V> LocalHandle<K, V> {
    /// The key.
    pub fn key(&self) -> &K {
        self.0.key()
    }

    /// The value.
    pub fn value(&self) -> &V {
        self.0.value()
    }

    /// As [`Handle::is_unlinked`].
    pub fn is_unlinked(&self) -> bool {
        self.0.is_unlinked()
    }

    /// A handle that other threads may have.
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

/// A thread's handles on the entries that it has asked for last: whoever asks for one of them again is given another on
/// the same, counted by the thread alone.
///
/// [`Handle`]s on one entry share a count, and that count a cache line: where all cores take handles on the same few entries,
/// they wait for that line. The first read of an entry by way of this takes such a handle; those that follow take none, as
/// long as the entry keeps its place here. Where a borrow will do, it is cheaper still, and needs none of this.
///
/// What is here is kept, removed from the registry or not, and so is not destroyed: [`shed`](Self::shed) it every now and
/// then where that matters. A thread that is about to do nothing for a while should [`clear`](Self::clear) it.
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
    /// By the hash of the key, as many as a power of two.
    places: Box<[Option<LocalHandle<K, V>>]>,
}

impl<K, V> LocalHandles<K, V> {
    /// Places for so many handles, rounded up to a power of two. Entries whose keys' hashes choose the same place displace
    /// one another.
    ///
    /// # Panics
    ///
    /// If so many do not fit the address space.
    pub fn new(places: usize) -> Self {
        let places = places.max(1).checked_next_power_of_two().expect("capacity overflow");
        LocalHandles { places: (0..places).map(|_| None).collect() }
    }

    /// A handle on an entry.
    ///
    /// # Progress
    ///
    /// Wait-free. If the entry is not here, it counts a reference, and gives that of the displaced one back.
    #[inline]
    pub fn of(&mut self, entry: Entry<'_, K, V>) -> LocalHandle<K, V> {
        let index = entry.header().hash() as usize & (self.places.len() - 1);
        match &self.places[index] {
            // What is here is there still, so that no other entry can be where it is.
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

    /// Lets go of the entries that have left the registry. Returns how many there were.
    pub fn shed(&mut self) -> usize {
        let mut shed = 0;
        for place in &mut self.places {
            shed += usize::from(place.take_if(|handle| handle.is_unlinked()).is_some());
        }
        shed
    }

    /// Lets go of all entries.
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
