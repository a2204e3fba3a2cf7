//! The errors of a registry. Each returns the rejected values to the caller.

use crate::handle::Handle;
use std::error::Error;
use std::fmt;

/// The key is already in the registry. Returned by [`Registry::try_insert`](crate::Registry::try_insert) and
/// [`Registry::add`](crate::Registry::add).
///
/// Contains the rejected key and value, and the entry that has the key.
pub struct Occupied<K: 'static, V: 'static> {
    /// The key of the insertion.
    pub key: K,
    /// The value of the insertion.
    pub value: V,
    /// The entry that has the key.
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

/// The key is reserved. Returned by [`Registry::try_reserve_key`](crate::Registry::try_reserve_key), with the key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyReserved<K>(pub K);

impl<K> fmt::Debug for KeyReserved<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyReserved").finish_non_exhaustive()
    }
}

impl<K> fmt::Display for KeyReserved<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the key is reserved by another writer")
    }
}

impl<K> Error for KeyReserved<K> {}

/// The guard belongs to a domain other than the registry's. Returned by
/// [`Registry::view`](crate::Registry::view).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ForeignGuard;

impl fmt::Display for ForeignGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the guard belongs to another domain than the registry")
    }
}

impl Error for ForeignGuard {}
