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

/// The key is reserved. Returned by [`Registry::try_reserve_key`](crate::Registry::try_reserve_key) and
/// [`Registry::reserve_key_timeout`](crate::Registry::reserve_key_timeout), with the key.
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

/// The registry has no room for the entry within its bounds. Returned by
/// [`Registry::admit_or_replace`](crate::Registry::admit_or_replace), and as a part of [`Refused`].
///
/// Contains the rejected key and value.
pub struct RegistryFull<K, V> {
    /// The key of the insertion.
    pub key: K,
    /// The value of the insertion.
    pub value: V,
}

impl<K, V> fmt::Debug for RegistryFull<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryFull").finish_non_exhaustive()
    }
}

impl<K, V> fmt::Display for RegistryFull<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the registry is full")
    }
}

impl<K, V> Error for RegistryFull<K, V> {}

/// Why [`Registry::admit`](crate::Registry::admit) did not insert the entry.
pub enum Refused<K: 'static, V: 'static> {
    /// The key is already in the registry.
    Occupied(Occupied<K, V>),
    /// There is no room within the bounds.
    Full(RegistryFull<K, V>),
}

impl<K, V> Refused<K, V> {
    /// Returns the rejected key and value.
    pub fn into_parts(self) -> (K, V) {
        match self {
            Refused::Occupied(Occupied { key, value, .. }) => (key, value),
            Refused::Full(RegistryFull { key, value }) => (key, value),
        }
    }
}

impl<K, V> fmt::Debug for Refused<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Occupied(occupied) => f.debug_tuple("Occupied").field(occupied).finish(),
            Refused::Full(full) => f.debug_tuple("Full").field(full).finish(),
        }
    }
}

impl<K, V> fmt::Display for Refused<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Occupied(occupied) => occupied.fmt(f),
            Refused::Full(full) => full.fmt(f),
        }
    }
}

impl<K, V> Error for Refused<K, V> {}

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
