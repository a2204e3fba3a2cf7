//! Writes that can be refused for want of room in the domain's backlog, and what they share with those that cannot.

use crate::domain::BacklogFull;
use crate::domain::{Full, Refusal};
use crate::handle::Entry;
use crate::handle::Handle;
use crate::reap::Cause;
use crate::registry::Registry;
use crate::registry::view::hash_of;
use crate::shard::write::{NotReplaced, Wanted};
use crate::util::check;
use equivalent::Equivalent;
use std::hash::{BuildHasher, Hash};

/// Writes that can be refused: in a domain with a [limit](crate::DomainBuilder::backlog_objects) on what may wait to be
/// destroyed, whose [policy](crate::WhenFull) is to wait or to refuse. Nothing is done if they are.
///
/// They are for programs that must not exceed the limit whatever their readers do. The others (`remove`, `replace`, ...)
/// follow the policy as far as they can, but go on in the end.
impl<K, V, S> Registry<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// As [`replace`](Self::replace), unless it is refused.
    ///
    /// # Errors
    ///
    /// [`BacklogFull`], with key and value, if there is an entry to replace, or to evict, and no room for it in the backlog.
    ///
    /// ```
    /// use epoch_registry::{BacklogFull, Domain, Registry, WhenFull};
    ///
    /// let domain = Domain::builder().backlog_objects(1).when_full(WhenFull::Refuse).build();
    /// let registry = Registry::builder().domain(domain.clone()).build();
    /// let reading = domain.pin(); // as long as somebody reads, nothing can be destroyed
    /// registry.insert("a", 1).unwrap();
    /// assert_eq!(registry.try_replace("a", 2).map(|old| *old.unwrap()), Ok(1));
    /// assert_eq!(registry.try_replace("a", 3).unwrap_err(), BacklogFull(("a", 3)));
    /// assert_eq!(registry.try_remove("a").unwrap_err(), BacklogFull(()));
    ///
    /// drop(reading);
    /// assert_eq!(registry.try_remove("a").map(|old| *old.unwrap()), Ok(2));
    /// ```
    #[allow(clippy::type_complexity)]
    pub fn try_replace(&self, key: K, value: V) -> Result<Option<Handle<K, V>>, BacklogFull<(K, V)>> {
        let hash = hash_of(&self.hasher, &key);
        let draft = self.core.draft(hash, key, value);
        match self.core.replace(draft, Wanted::OLD, Refusal::Possible) {
            Ok(published) => Ok(published.old.into_handle()),
            Err(refused) => {
                let draft = refused.into_draft();
                Err(BacklogFull((draft.key, draft.value)))
            }
        }
    }

    /// As [`update`](Self::update), unless it is refused.
    ///
    /// # Errors
    ///
    /// [`BacklogFull`], with the value that `f` made, if there is no room for the old entry in the backlog.
    pub fn try_update<Q>(&self, key: &Q, mut f: impl FnMut(&K, &V) -> V) -> Result<Option<Handle<K, V>>, BacklogFull<V>>
    where
        K: Clone,
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.update_or(key, &mut f, Refusal::Possible)
    }

    /// As [`remove`](Self::remove), unless it is refused.
    ///
    /// # Errors
    ///
    /// [`BacklogFull`] if there is such an entry, and no room for it in the backlog. It stays.
    pub fn try_remove<Q>(&self, key: &Q) -> Result<Option<Handle<K, V>>, BacklogFull>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.remove_or(key, Refusal::Possible).map_err(|Full| BacklogFull(()))
    }

    /// As [`remove_if`](Self::remove_if), unless it is refused.
    ///
    /// # Errors
    ///
    /// As [`try_remove`](Self::try_remove).
    pub fn try_remove_if<Q>(
        &self,
        key: &Q,
        mut condition: impl FnMut(&K, &V) -> bool,
    ) -> Result<Option<Handle<K, V>>, BacklogFull>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.remove_if_or(key, &mut condition, Refusal::Possible).map_err(|Full| BacklogFull(()))
    }

    /// As [`remove_handle`](Self::remove_handle), unless it is refused.
    ///
    /// # Errors
    ///
    /// As [`try_remove`](Self::try_remove).
    pub fn try_remove_handle(&self, entry: &Handle<K, V>) -> Result<bool, BacklogFull> {
        self.core.remove_exact(entry, Cause::Removed, &mut Refusal::Possible).map_err(|Full| BacklogFull(()))
    }

    pub(crate) fn update_or<Q>(
        &self,
        key: &Q,
        f: &mut dyn FnMut(&K, &V) -> V,
        refusal: Refusal,
    ) -> Result<Option<Handle<K, V>>, BacklogFull<V>>
    where
        K: Clone,
        Q: Hash + Equivalent<K> + ?Sized,
    {
        loop {
            let Some(old) = self.lookup_same(key) else { return Ok(None) };
            check::user_code();
            let value = f(old.key(), old.value());
            let draft = self.core.draft(old.hash().into(), old.key().clone(), value);
            match self.core.replace_exact(&old, draft, refusal) {
                Ok(published) => return Ok(published.new),
                Err(NotReplaced::Absent(_)) => {}
                Err(NotReplaced::Full(draft)) => return Err(BacklogFull(draft.value)),
            }
        }
    }

    /// A handle on the entry of `key`, for a write to that entry: as writes by key do, it compares the hash before the key, which
    /// may claim to equal one that has another.
    fn lookup_same<Q>(&self, key: &Q) -> Option<Handle<K, V>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let hash = hash_of(&self.hasher, key);
        let found = self.pin().get_hashed(hash, key).map(Entry::into_handle)?;
        (found.hash() == hash as u32).then_some(found)
    }

    pub(crate) fn remove_or<Q>(&self, key: &Q, refusal: Refusal) -> Result<Option<Handle<K, V>>, Full>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let hash = hash_of(&self.hasher, key);
        Ok(self.core.remove(hash, |found| key.equivalent(found), true, refusal)?.into_handle())
    }

    pub(crate) fn remove_if_or<Q>(
        &self,
        key: &Q,
        condition: &mut dyn FnMut(&K, &V) -> bool,
        mut refusal: Refusal,
    ) -> Result<Option<Handle<K, V>>, Full>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        loop {
            let Some(entry) = self.lookup_same(key) else { return Ok(None) };
            check::user_code();
            if !condition(entry.key(), entry.value()) {
                return Ok(None);
            }
            if self.core.remove_exact(&entry, Cause::Removed, &mut refusal)? {
                return Ok(Some(entry));
            }
        }
    }
}
