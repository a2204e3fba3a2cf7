//! Writes that fail if the domain's backlog is full.

use crate::domain::{BacklogFull, Full, IfFull};
use crate::handle::Handle;
use crate::reap::{Cause, Cursor};
use crate::registry::Registry;
use crate::shard::write::{Published, Wanted};
use crate::util::hasher::RandomState;
use equivalent::Equivalent;
use std::fmt;
use std::hash::{BuildHasher, Hash};

/// The writes of a registry that fail if the domain's backlog is full. Returned by [`Registry::fallible`].
///
/// They differ from the methods of [`Registry`] in a domain that [limits](crate::DomainBuilder::backlog_objects)
/// its backlog, and whose [policy](crate::WhenFull) is to wait or to refuse. There, a method of [`Registry`]
/// follows the policy, and in the end exceeds the limit. A method of this type returns [`BacklogFull`] instead,
/// and leaves the entry that it was called for as it was. (An insertion that fails may have evicted other entries
/// before.)
pub struct Fallible<'r, K: Send + Sync + 'static, V: Send + Sync + 'static, S = RandomState> {
    registry: &'r Registry<K, V, S>,
}

impl<K, V, S> Registry<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Returns the writes that fail if the domain's backlog is full. They are for programs that must not exceed
    /// the limit of the backlog, whatever their readers do.
    ///
    /// # Examples
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

impl<K, V, S> Fallible<'_, K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Inserts an entry, or replaces the one that has the key, as [`Registry::insert`] does.
    ///
    /// # Errors
    ///
    /// Returns [`BacklogFull`], with key and value, if an entry must be replaced or evicted and the backlog has
    /// no room for it.
    #[allow(clippy::type_complexity)]
    pub fn insert(&self, key: K, value: V) -> Result<Option<Handle<K, V>>, BacklogFull<(K, V)>> {
        let published = self.replace(key, value, Wanted::OLD)?;
        Ok(published.old.into_handle())
    }

    /// Inserts an entry, or replaces the one that has the key, as [`Registry::insert_and_get`] does.
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert).
    pub fn insert_and_get(&self, key: K, value: V) -> Result<Handle<K, V>, BacklogFull<(K, V)>> {
        let published = self.replace(key, value, Wanted::NEW)?;
        Ok(published.new.expect("the handle that was wanted"))
    }

    /// Inserts an entry, or replaces the one that has the key, as [`Registry::set`] does.
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert).
    pub fn set(&self, key: K, value: V) -> Result<bool, BacklogFull<(K, V)>> {
        let published = self.replace(key, value, Wanted::NONE)?;
        Ok(published.old.is_some())
    }

    /// Replaces the entry of `key` by one with the value that `f` returns, as [`Registry::update`] does.
    ///
    /// # Errors
    ///
    /// Returns [`BacklogFull`], with the value that `f` returned, if the backlog has no room for the old entry,
    /// or for one that must be evicted.
    pub fn update<Q>(&self, key: &Q, f: impl FnOnce(&K, &V) -> V) -> Result<Option<Handle<K, V>>, BacklogFull<V>>
    where
        K: Clone,
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.registry.update_or(key, f, IfFull::fail()).map_err(|(value, Full)| BacklogFull(value))
    }

    /// Removes the entry of `key`, as [`Registry::remove`] does.
    ///
    /// # Errors
    ///
    /// Returns [`BacklogFull`] if the key is in the registry and the backlog has no room for its entry. The entry
    /// stays.
    pub fn remove<Q>(&self, key: &Q) -> Result<Option<Handle<K, V>>, BacklogFull>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let left = self.registry.remove_or(key, true, IfFull::fail()).map_err(|Full| BacklogFull(()))?;
        Ok(left.into_handle())
    }

    /// Removes the entry of `key`, as [`Registry::delete`] does.
    ///
    /// # Errors
    ///
    /// As [`remove`](Self::remove).
    pub fn delete<Q>(&self, key: &Q) -> Result<bool, BacklogFull>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let left = self.registry.remove_or(key, false, IfFull::fail()).map_err(|Full| BacklogFull(()))?;
        Ok(left.is_some())
    }

    /// Removes the entry of `key` if `condition` holds for it, as [`Registry::remove_if`] does.
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
        self.registry.remove_if_or(key, &mut condition, IfFull::fail()).map_err(|Full| BacklogFull(()))
    }

    /// Removes exactly this entry, as [`Registry::remove_handle`] does.
    ///
    /// # Errors
    ///
    /// As [`remove`](Self::remove).
    pub fn remove_handle(&self, entry: &Handle<K, V>) -> Result<bool, BacklogFull> {
        self.registry.core.remove_exact(entry, Cause::Removed, &mut IfFull::fail()).map_err(|Full| BacklogFull(()))
    }

    /// Removes all entries for which `keep` returns false, as [`Registry::retain`] does, from `cursor` on. Stops
    /// when the cursor is done or a removal fails. Returns the number of removed entries.
    ///
    /// # Errors
    ///
    /// Returns [`BacklogFull`], with the number of entries that this call has removed, if the backlog has no room
    /// for the next. A call with the same cursor resumes there; `keep` may see some entries again.
    ///
    /// # Examples
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
        if reaped.stopped { Err(BacklogFull(reaped.removed)) } else { Ok(reaped.removed) }
    }

    fn replace(&self, key: K, value: V, wanted: Wanted) -> Result<Published<K, V>, BacklogFull<(K, V)>> {
        let published = self.registry.replace_or(key, value, wanted, IfFull::fail());
        published.map_err(|(key, value, Full)| BacklogFull((key, value)))
    }
}

impl<K: Send + Sync, V: Send + Sync, S> fmt::Debug for Fallible<'_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fallible").finish_non_exhaustive()
    }
}
