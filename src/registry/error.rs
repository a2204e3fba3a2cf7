//! What can go wrong, with what the caller gets back.

use crate::handle::Handle;
use std::error::Error;
use std::fmt;

/// The key is taken: from [`Registry::insert`](crate::Registry::insert), with the rejected key and value, and the entry
/// that holds the key.
pub struct Occupied<K: 'static, V: 'static> {
    /// The key that was to be inserted.
    pub key: K,
    /// The value that was to be inserted.
    pub value: V,
    /// The entry in its place.
    pub entry: Handle<K, V>,
}

impl<K, V> fmt::Debug for Occupied<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Occupied").finish_non_exhaustive()
    }
}

impl<K, V> fmt::Display for Occupied<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the key is already in the registry")
    }
}

impl<K, V> Error for Occupied<K, V> {}

/// A guard was used with a registry of another domain: from [`Registry::view`](crate::Registry::view).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ForeignGuard;

impl fmt::Display for ForeignGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the guard belongs to another domain than the registry")
    }
}

impl Error for ForeignGuard {}
