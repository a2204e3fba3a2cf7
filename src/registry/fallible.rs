//! Writes that fail where the domain's backlog is full.

use crate::domain::{BacklogFull, Full, IfFull};
use crate::handle::Handle;
use crate::reap::{Cause, Cursor};
use crate::registry::Registry;
use crate::shard::write::Wanted;
use equivalent::Equivalent;
use std::fmt;
use std::hash::{BuildHasher, Hash};

/// The writes of a registry that fail where the domain's backlog is full: from [`Registry::fallible`].
///
/// They matter in a domain with a [limit](crate::DomainBuilder::backlog_objects) on what may wait to be destroyed, whose
/// [policy](crate::WhenFull) is to wait or to refuse. Each does what the method of the same name of [`Registry`] does, or
/// returns [`BacklogFull`] and has done nothing. The methods of [`Registry`] follow the policy as far as they can, but go on
/// beyond the limit in the end.
pub struct Fallible<'r, K: Send + Sync + 'static, V: Send + Sync + 'static, S> {
    registry: &'r Registry<K, V, S>,
}

impl<K, V, S> Registry<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Returns the writes that fail where the domain's backlog is full, for programs that must not exceed its limit whatever
    /// their readers do.
    ///
    /// ```
    /// use epoch_registry::{BacklogFull, Domain, Registry, WhenFull};
    ///
    /// let domain = Domain::builder().backlog_objects(1).when_full(WhenFull::Refuse).build();
    /// let registry = Registry::builder().domain(domain.clone()).build();
    /// let reading = domain.pin(); // while a reader is in a critical section, nothing can be destroyed
    /// registry.set("a", 1);
    /// assert_eq!(registry.fallible().insert("a", 2).map(|old| *old.unwrap()), Ok(1));
    /// assert_eq!(registry.fallible().insert("a", 3).unwrap_err(), BacklogFull(("a", 3)));
    /// assert_eq!(registry.fallible().remove("a").unwrap_err(), BacklogFull(()));
    ///
    /// drop(reading);
    /// assert_eq!(registry.fallible().remove("a").map(|old| *old.unwrap()), Ok(2));
    /// ```
    pub fn fallible(&self) -> Fallible<'_, K, V, S> {
        Fallible { registry: self }
    }
}

fn full<T>(rejected: T) -> BacklogFull<T> {
    BacklogFull(rejected)
}

impl<K, V, S> Fallible<'_, K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// As [`Registry::insert`].
    ///
    /// # Errors
    ///
    /// [`BacklogFull`], with key and value, if there is an entry to replace, or to evict, and no room for it in the backlog.
    #[allow(clippy::type_complexity)]
    pub fn insert(&self, key: K, value: V) -> Result<Option<Handle<K, V>>, BacklogFull<(K, V)>> {
        match self.registry.replace_or(key, value, Wanted::OLD, IfFull::fail()) {
            Ok(published) => Ok(published.old.into_handle()),
            Err((key, value, Full)) => Err(full((key, value))),
        }
    }

    /// As [`Registry::insert_and_get`].
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert).
    pub fn insert_and_get(&self, key: K, value: V) -> Result<Handle<K, V>, BacklogFull<(K, V)>> {
        match self.registry.replace_or(key, value, Wanted::NEW, IfFull::fail()) {
            Ok(published) => Ok(published.new.expect("the handle that was wanted")),
            Err((key, value, Full)) => Err(full((key, value))),
        }
    }

    /// As [`Registry::set`].
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert).
    pub fn set(&self, key: K, value: V) -> Result<bool, BacklogFull<(K, V)>> {
        match self.registry.replace_or(key, value, Wanted::NONE, IfFull::fail()) {
            Ok(published) => Ok(published.old.is_some()),
            Err((key, value, Full)) => Err(full((key, value))),
        }
    }

    /// As [`Registry::update`].
    ///
    /// # Errors
    ///
    /// [`BacklogFull`], with the value that `f` made, if there is no room for the old entry in the backlog.
    pub fn update<Q>(&self, key: &Q, mut f: impl FnMut(&K, &V) -> V) -> Result<Option<Handle<K, V>>, BacklogFull<V>>
    where
        K: Clone,
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.registry.update_or(key, &mut f, IfFull::fail()).map_err(|(value, Full)| full(value))
    }

    /// As [`Registry::remove`].
    ///
    /// # Errors
    ///
    /// [`BacklogFull`] if there is such an entry, and no room for it in the backlog. It stays.
    pub fn remove<Q>(&self, key: &Q) -> Result<Option<Handle<K, V>>, BacklogFull>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let left = self.registry.remove_or(key, true, IfFull::fail()).map_err(|Full| full(()))?;
        Ok(left.into_handle())
    }

    /// As [`Registry::delete`].
    ///
    /// # Errors
    ///
    /// As [`remove`](Self::remove).
    pub fn delete<Q>(&self, key: &Q) -> Result<bool, BacklogFull>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let left = self.registry.remove_or(key, false, IfFull::fail()).map_err(|Full| full(()))?;
        Ok(left.is_some())
    }

    /// As [`Registry::remove_if`].
    ///
    /// # Errors
    ///
    /// As [`remove`](Self::remove).
    pub fn remove_if<Q>(
        &self,
        key: &Q,
        mut condition: impl FnMut(&K, &V) -> bool,
    ) -> Result<Option<Handle<K, V>>, BacklogFull>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.registry.remove_if_or(key, &mut condition, IfFull::fail()).map_err(|Full| full(()))
    }

    /// As [`Registry::remove_handle`].
    ///
    /// # Errors
    ///
    /// As [`remove`](Self::remove).
    pub fn remove_handle(&self, entry: &Handle<K, V>) -> Result<bool, BacklogFull> {
        self.registry.core.remove_exact(entry, Cause::Removed, &mut IfFull::fail()).map_err(|Full| full(()))
    }

    /// As [`Registry::retain`], from `cursor` on, until the cursor is done or a removal fails. Returns how many entries were
    /// removed.
    ///
    /// # Errors
    ///
    /// [`BacklogFull`], with how many entries were removed before. The next call with the cursor resumes there; some entries
    /// may be judged again.
    ///
    /// ```
    /// use epoch_registry::{Cursor, Domain, Registry, WhenFull};
    ///
    /// let domain = Domain::builder().backlog_objects(100).when_full(WhenFull::Refuse).build();
    /// let registry: Registry<u64, u64> = Registry::builder().domain(domain.clone()).build();
    /// registry.set_many((0..1000).map(|key| (key, key)));
    /// let mut cursor = Cursor::new();
    /// let guard = domain.pin(); // while a reader is in a critical section, nothing can be destroyed
    /// assert!(registry.fallible().retain(&mut cursor, |_, _| false).is_err());
    /// assert!(domain.backlog().objects <= 100);
    /// drop(guard);
    /// while registry.fallible().retain(&mut cursor, |_, _| false).is_err() {}
    /// assert!(registry.is_empty());
    /// ```
    pub fn retain(
        &self,
        cursor: &mut Cursor,
        mut keep: impl FnMut(&K, &V) -> bool,
    ) -> Result<usize, BacklogFull<usize>> {
        let reaped = self.registry.retain_from(cursor, &mut keep, IfFull::fail());
        if reaped.stopped { Err(full(reaped.removed)) } else { Ok(reaped.removed) }
    }
}

impl<K: Send + Sync, V: Send + Sync, S> fmt::Debug for Fallible<'_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fallible").finish_non_exhaustive()
    }
}
