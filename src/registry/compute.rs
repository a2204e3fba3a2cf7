//! Writes whose outcome depends on the present value of a key: they read, run a closure once, and write, while the key
//! is reserved.

use crate::domain::{Failure, IfFull};
use crate::handle::Handle;
use crate::registry::Registry;
use crate::registry::reservation::Reservation;
use crate::registry::view::hash_of;
use crate::shard::write::Wanted;
use equivalent::Equivalent;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

/// What becomes of the entry of a key. The closure of [`Registry::compute`] returns it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Change<V> {
    /// The entry stays as it is. An absent key stays absent.
    Keep,
    /// An entry with this value is inserted, or replaces the one that the key has.
    Set(V),
    /// The entry is removed. An absent key stays absent.
    Remove,
}

impl<K, V, S> Registry<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Replaces the entry of `key` by one with the value that `f` makes of the old value. Returns the new entry,
    /// or `None` if the key is not in the registry.
    ///
    /// `f` runs once, outside every lock and critical section. While it runs, the key is [reserved](Self::reserve_key): other
    /// writes of the key wait, and reads find the old entry. If the entry leaves all the same (by `remove_handle`, a sweep,
    /// eviction or expiry), nothing is inserted, and the result is `None`.
    ///
    /// # Panics
    ///
    /// Panics within the `f` of a call for the same key, and so does every other write of that key there: it would wait
    /// for itself.
    ///
    /// # Progress
    ///
    /// Takes the lock of one shard twice. Blocks while another caller has reserved the key. Otherwise as
    /// [`insert`](Self::insert).
    ///
    /// # Examples
    ///
    /// ```
    /// let registry = epoch_registry::Registry::new();
    /// registry.set("hits", 1);
    /// assert_eq!(*registry.update("hits", |_, hits| hits + 1).unwrap(), 2);
    /// ```
    #[track_caller]
    pub fn update<Q>(&self, key: &Q, f: impl FnOnce(&K, &V) -> V) -> Option<Handle<K, V>>
    where
        K: Clone,
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let Ok(new) = self.update_or(key, f, IfFull::go_on());
        new
    }

    /// Replaces the entry of `key` by one with the value that the future of `f` makes of the old entry. Returns the new
    /// entry, or `None` if the key is not in the registry: [`update`](Self::update) for tasks, of any executor.
    ///
    /// The future may be dropped at any time. Then the old entry stays.
    ///
    /// # Panics
    ///
    /// As [`update`](Self::update), while the future of `f` is polled.
    ///
    /// # Progress
    ///
    /// As [`get_or_insert_async`](Self::get_or_insert_async).
    pub async fn update_async<Q, F: Future<Output = V>>(
        &self,
        key: &Q,
        f: impl FnOnce(Handle<K, V>) -> F,
    ) -> Option<Handle<K, V>>
    where
        K: Clone,
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let hash = hash_of(&self.hasher, key);
        let found = self.lookup_same(key)?;
        let reservation = self.reserve_hashed_async(hash, Arc::new(found.key().clone())).await;
        drop(found);
        let old = reservation.entry()?;
        let replace = |reservation: Reservation<'_, K, V, S>, value| {
            let replaced = reservation.put(value, Some(&old), Wanted::NEW, &mut IfFull::go_on());
            replaced.ok().and_then(|published| published.new)
        };
        reservation.run_async(|| f(old.clone()), replace).await
    }

    /// Replaces the entry of `key` by one with the value that `update` makes of the old value. If the key is absent,
    /// inserts an entry with the value that `insert` returns. Returns the new entry.
    ///
    /// Either closure runs once, as that of [`update`](Self::update) does. If the old entry leaves while `update` runs, the
    /// new one is inserted all the same.
    ///
    /// # Panics
    ///
    /// As [`update`](Self::update).
    ///
    /// # Progress
    ///
    /// As [`update`](Self::update).
    ///
    /// # Examples
    ///
    /// ```
    /// let hits = epoch_registry::Registry::new();
    /// for page in ["/", "/about", "/"] {
    ///     hits.update_or_insert(page, |_, hits| hits + 1, || 1);
    /// }
    /// assert_eq!((*hits.lookup("/").unwrap(), *hits.lookup("/about").unwrap()), (2, 1));
    /// ```
    #[track_caller]
    pub fn update_or_insert(
        &self,
        key: K,
        update: impl FnOnce(&K, &V) -> V,
        insert: impl FnOnce() -> V,
    ) -> Handle<K, V> {
        let new = self.compute(key, |key, old| {
            Change::Set(match old {
                Some(old) => update(key, old),
                None => insert(),
            })
        });
        new.expect("an entry that was set")
    }

    /// Replaces the entry of `key` by one with the value that the future of `update` makes of the old entry. If the key is
    /// absent, inserts an entry with the value that the future of `insert` makes. Returns the new entry:
    /// [`update_or_insert`](Self::update_or_insert) for tasks, of any executor.
    ///
    /// The future may be dropped at any time. Then nothing changes.
    ///
    /// # Panics
    ///
    /// As [`update_async`](Self::update_async).
    ///
    /// # Progress
    ///
    /// As [`get_or_insert_async`](Self::get_or_insert_async).
    pub async fn update_or_insert_async<U: Future<Output = V>, I: Future<Output = V>>(
        &self,
        key: K,
        update: impl FnOnce(Handle<K, V>) -> U,
        insert: impl FnOnce() -> I,
    ) -> Handle<K, V> {
        let new = self.compute_async(key, async move |old| {
            Change::Set(match old {
                Some(old) => update(old).await,
                None => insert().await,
            })
        });
        new.await.expect("an entry that was set")
    }

    /// Calls `f` with the key and the value that it has, if any, and does what `f` returns: keeps, sets or removes the
    /// entry. Returns the entry that the key has then, or `None` if it has none.
    ///
    /// `f` runs once, outside every lock and critical section. While it runs, the key is [reserved](Self::reserve_key): other
    /// writes of the key wait, and reads find the old entry. So the call is atomic among the writes that name a key. What
    /// removes entries without naming keys (`remove_handle`, sweeps, eviction, expiry) does not wait: it may come between
    /// the reading and the writing.
    ///
    /// # Panics
    ///
    /// As [`update`](Self::update).
    ///
    /// # Progress
    ///
    /// As [`update`](Self::update).
    ///
    /// # Examples
    ///
    /// ```
    /// use epoch_registry::{Change, Registry};
    ///
    /// let stock = Registry::from([("apples", 2)]);
    /// let sell = |_: &&str, left: Option<&i32>| match left {
    ///     None => Change::Keep,
    ///     Some(1) => Change::Remove,
    ///     Some(left) => Change::Set(left - 1),
    /// };
    /// assert_eq!(stock.compute("apples", sell).as_deref(), Some(&1));
    /// assert_eq!(stock.compute("apples", sell), None); // the last one
    /// assert_eq!(stock.compute("pears", sell), None);
    /// assert!(stock.is_empty());
    /// ```
    #[track_caller]
    pub fn compute(&self, key: K, f: impl FnOnce(&K, Option<&V>) -> Change<V>) -> Option<Handle<K, V>> {
        let hash = hash_of(&self.hasher, &key);
        let reservation = self.reserve_hashed(hash, Arc::new(key));
        let old = reservation.run(|| self.find_handle(hash, reservation.key()));
        let change = reservation.run(|| f(reservation.key(), old.as_deref()));
        reservation.change(old, change)
    }

    /// Calls `f` with the entry of the key, if there is one, and does what its future makes: keeps, sets or removes the
    /// entry. Returns the entry that the key has then, or `None` if it has none: [`compute`](Self::compute) for tasks, of
    /// any executor.
    ///
    /// The future may be dropped at any time. Then nothing changes.
    ///
    /// # Panics
    ///
    /// As [`update_async`](Self::update_async).
    ///
    /// # Progress
    ///
    /// As [`get_or_insert_async`](Self::get_or_insert_async).
    pub async fn compute_async<F: Future<Output = Change<V>>>(
        &self,
        key: K,
        f: impl FnOnce(Option<Handle<K, V>>) -> F,
    ) -> Option<Handle<K, V>> {
        let hash = hash_of(&self.hasher, &key);
        let reservation = self.reserve_hashed_async(hash, Arc::new(key)).await;
        let old = reservation.run(|| self.find_handle(hash, reservation.key()));
        let first = old.clone();
        reservation.run_async(|| f(first), |reservation, change| reservation.change(old, change)).await
    }

    /// Updates an entry. Returns the value that `f` made if the backlog has no room for the old entry.
    #[track_caller]
    pub(super) fn update_or<Q, E: Failure>(
        &self,
        key: &Q,
        f: impl FnOnce(&K, &V) -> V,
        mut if_full: IfFull<E>,
    ) -> Result<Option<Handle<K, V>>, (V, E)>
    where
        K: Clone,
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let hash = hash_of(&self.hasher, key);
        let Some(found) = self.lookup_same(key) else { return Ok(None) };
        let reservation = self.reserve_hashed(hash, Arc::new(found.key().clone()));
        drop(found);
        let Some(old) = reservation.entry() else { return Ok(None) };
        let value = reservation.run(|| f(old.key(), old.value()));
        match reservation.put(value, Some(&old), Wanted::NEW, &mut if_full) {
            Ok(published) => Ok(published.new),
            Err((value, Some(full))) => Err((value, full)),
            Err((_, None)) => Ok(None),
        }
    }
}

impl<K, V, S> Reservation<'_, K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Does what the closure of `compute` has returned.
    fn change(self, old: Option<Handle<K, V>>, change: Change<V>) -> Option<Handle<K, V>> {
        match change {
            Change::Keep => old,
            Change::Set(value) => Some(self.insert_and_get(value)),
            Change::Remove => {
                self.remove();
                None
            }
        }
    }
}
