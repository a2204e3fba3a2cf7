//! Iterators over the keys and over the values of a registry, and `for` loops over a guard or a view.

use crate::handle::Entry;
use crate::registry::iter::Iter;
use crate::registry::view::{Guard, View};
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::iter::FusedIterator;

/// Defines an iterator that returns a part of each entry.
macro_rules! parts {
    ($(#[$doc:meta])* $name:ident, $part:ident, $item:ident) => {
        $(#[$doc])*
        pub struct $name<'g, K: 'static, V: 'static>(Iter<'g, K, V>);

        impl<'g, K, V> Iterator for $name<'g, K, V>
        where
            K: Send + Sync + 'static,
            V: Send + Sync + 'static,
        {
            type Item = &'g $item;

            #[inline]
            fn next(&mut self) -> Option<Self::Item> {
                self.0.next().map(Entry::$part)
            }

            fn fold<B, F: FnMut(B, Self::Item) -> B>(self, init: B, mut each: F) -> B {
                self.0.fold(init, |result, entry| each(result, entry.$part()))
            }
        }

        impl<K, V> FusedIterator for $name<'_, K, V>
        where
            K: Send + Sync + 'static,
            V: Send + Sync + 'static,
        {
        }

        impl<K, V> fmt::Debug for $name<'_, K, V> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    };
}

parts! {
    /// An iterator over the keys of a registry. Returned by [`View::keys`].
    Keys, key, K
}

parts! {
    /// An iterator over the values of a registry. Returned by [`View::values`].
    Values, value, V
}

impl<K, V, S> View<'_, K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Returns an iterator over all keys, in no particular order. As consistent as [`iter`](Self::iter).
    ///
    /// # Progress
    ///
    /// Each step is lock-free.
    ///
    /// # Examples
    ///
    /// ```
    /// let registry = epoch_registry::Registry::from([("a", 1), ("b", 2)]);
    /// let guard = registry.pin();
    /// let mut keys: Vec<_> = guard.keys().copied().collect();
    /// keys.sort();
    /// assert_eq!(keys, ["a", "b"]);
    /// ```
    pub fn keys(&self) -> Keys<'_, K, V> {
        Keys(self.iter())
    }

    /// Returns an iterator over all values, in no particular order. As consistent as [`iter`](Self::iter).
    ///
    /// # Progress
    ///
    /// Each step is lock-free.
    ///
    /// # Examples
    ///
    /// ```
    /// let registry = epoch_registry::Registry::from([("a", 1), ("b", 2)]);
    /// assert_eq!(registry.pin().values().sum::<i32>(), 3);
    /// ```
    pub fn values(&self) -> Values<'_, K, V> {
        Values(self.iter())
    }
}

/// Iterates as [`View::iter`] does.
impl<'g, K, V, S> IntoIterator for &'g View<'_, K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    type Item = Entry<'g, K, V>;
    type IntoIter = Iter<'g, K, V>;

    fn into_iter(self) -> Iter<'g, K, V> {
        self.iter()
    }
}

/// Iterates as [`View::iter`] does.
///
/// # Examples
///
/// ```
/// let registry = epoch_registry::Registry::from([(1, 10), (2, 20)]);
/// let mut sum = 0;
/// for entry in &registry.pin() {
///     sum += entry.key() + *entry;
/// }
/// assert_eq!(sum, 33);
/// ```
impl<'g, K, V, S> IntoIterator for &'g Guard<'_, K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    type Item = Entry<'g, K, V>;
    type IntoIter = Iter<'g, K, V>;

    fn into_iter(self) -> Iter<'g, K, V> {
        self.iter()
    }
}
