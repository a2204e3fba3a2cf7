//! Values that are made when their keys are first asked for, once for each key.
//!
//! A call that finds its key absent reserves the key, and looks again: another call may have been faster. Then it runs the
//! closure, under no lock, and publishes the value. The others that ask for the key wait for the end of the reservation.
//! They find the entry then; or, if the closure has failed or panicked, one of them reserves the key in turn.
//!
//! This is known as single flight. (golang.org/x/sync/singleflight)

use crate::handle::Handle;
use crate::registry::Registry;
use crate::registry::reservation::Reservation;
use crate::registry::view::hash_of;
use equivalent::Equivalent;
use std::convert::Infallible;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

impl<K, V, S> Registry<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Returns the entry of `key`. If the key is absent, inserts an entry with the value that `f` returns, and
    /// returns that.
    ///
    /// However many threads ask for an absent key at the same time, one of them runs its `f`, and the others wait for the
    /// entry. If that `f` panics, the panic goes to its caller, and one of the others runs its own.
    ///
    /// `f` runs outside every lock and critical section. While it runs, the key is [reserved](Self::reserve_key): other
    /// writes of the key wait.
    ///
    /// [`get_or_insert_by_ref`](Self::get_or_insert_by_ref) takes a borrowed key.
    /// [`get_or_insert_async`](Self::get_or_insert_async) takes a future.
    ///
    /// # Panics
    ///
    /// Panics within an `f` of the same key, and so does every other write of that key there: it would wait for itself.
    /// (Threads that ask for the keys of each other in their closures wait for each other without end, as with locks.)
    ///
    /// # Progress
    ///
    /// As [`lookup`](Self::lookup) if the key is in the registry. Otherwise takes the lock of one shard twice, and blocks
    /// while another caller makes the value.
    ///
    /// # Examples
    ///
    /// ```
    /// use epoch_registry::Registry;
    /// use std::sync::atomic::{AtomicU32, Ordering};
    ///
    /// let (pages, fetches) = (Registry::new(), AtomicU32::new(0));
    /// let fetch = || {
    ///     fetches.fetch_add(1, Ordering::Relaxed);
    ///     std::thread::sleep(std::time::Duration::from_millis(20));
    ///     "a page"
    /// };
    /// std::thread::scope(|scope| {
    ///     for _ in 0..8 {
    ///         scope.spawn(|| assert_eq!(*pages.get_or_insert_with("/", fetch), "a page"));
    ///     }
    /// });
    /// assert_eq!(fetches.into_inner(), 1);
    /// ```
    #[track_caller]
    pub fn get_or_insert_with(&self, key: K, f: impl FnOnce() -> V) -> Handle<K, V> {
        let Ok(entry) = self.get_or_try_insert_with(key, || Ok::<V, Infallible>(f()));
        entry
    }

    /// Returns the entry of `key`. If the key is absent, inserts an entry with the value that `f` returns, and
    /// returns that.
    ///
    /// Works as [`get_or_insert_with`](Self::get_or_insert_with), with an `f` that may fail. Of the callers that wait then,
    /// one runs its own `f`.
    ///
    /// # Errors
    ///
    /// Returns the error of `f`. Then nothing is inserted.
    ///
    /// # Panics
    ///
    /// As [`get_or_insert_with`](Self::get_or_insert_with).
    ///
    /// # Progress
    ///
    /// As [`get_or_insert_with`](Self::get_or_insert_with).
    ///
    /// # Examples
    ///
    /// ```
    /// let ports = epoch_registry::Registry::new();
    /// assert!(ports.get_or_try_insert_with("http", || "eighty".parse::<u16>()).is_err());
    /// assert_eq!(ports.get_or_try_insert_with("http", || "80".parse::<u16>()).as_deref(), Ok(&80));
    /// ```
    #[track_caller]
    pub fn get_or_try_insert_with<E>(&self, key: K, f: impl FnOnce() -> Result<V, E>) -> Result<Handle<K, V>, E> {
        let hash = hash_of(&self.hasher, &key);
        match self.find_handle(hash, &key) {
            Some(entry) => Ok(entry),
            None => self.load(hash, key, f),
        }
    }

    /// Returns the entry of `key`. If the key is absent, makes an owned key of it, inserts an entry with the value
    /// that `f` returns, and returns that.
    ///
    /// Works as [`get_or_insert_with`](Self::get_or_insert_with), but makes (and so allocates) a key only if there is
    /// none. The owned key must be equivalent to the borrowed one and have the same hash. A type of your own becomes a
    /// key by an `impl From<&Parts> for Key`.
    ///
    /// # Panics
    ///
    /// As [`get_or_insert_with`](Self::get_or_insert_with).
    ///
    /// # Progress
    ///
    /// As [`get_or_insert_with`](Self::get_or_insert_with). Hashes the key once.
    ///
    /// # Examples
    ///
    /// ```
    /// use epoch_registry::Registry;
    /// use std::sync::atomic::{AtomicU64, Ordering};
    ///
    /// let words: Registry<String, AtomicU64> = Registry::new();
    /// for word in "to be or not to be".split(' ') {
    ///     words.get_or_insert_by_ref(word, AtomicU64::default).fetch_add(1, Ordering::Relaxed);
    /// }
    /// assert_eq!(words.lookup("be").unwrap().load(Ordering::Relaxed), 2);
    /// ```
    #[track_caller]
    pub fn get_or_insert_by_ref<'q, Q>(&self, key: &'q Q, f: impl FnOnce() -> V) -> Handle<K, V>
    where
        K: From<&'q Q>,
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let Ok(entry) = self.get_or_try_insert_by_ref(key, || Ok::<V, Infallible>(f()));
        entry
    }

    /// Returns the entry of `key`. If the key is absent, makes an owned key of it, inserts an entry with the value
    /// that `f` returns, and returns that.
    ///
    /// Works as [`get_or_insert_by_ref`](Self::get_or_insert_by_ref), with an `f` that may fail.
    ///
    /// # Errors
    ///
    /// Returns the error of `f`. Then nothing is inserted.
    ///
    /// # Panics
    ///
    /// As [`get_or_insert_with`](Self::get_or_insert_with).
    ///
    /// # Progress
    ///
    /// As [`get_or_insert_by_ref`](Self::get_or_insert_by_ref).
    #[track_caller]
    pub fn get_or_try_insert_by_ref<'q, Q, E>(
        &self,
        key: &'q Q,
        f: impl FnOnce() -> Result<V, E>,
    ) -> Result<Handle<K, V>, E>
    where
        K: From<&'q Q>,
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let hash = hash_of(&self.hasher, key);
        match self.find_handle(hash, key) {
            Some(entry) => Ok(entry),
            None => self.load(hash, K::from(key), f),
        }
    }

    /// Returns the entry of `key`. If the key is absent, inserts an entry with the value that the future of `f` makes, and
    /// returns that: [`get_or_insert_with`](Self::get_or_insert_with) for tasks, of any executor.
    ///
    /// However many tasks and threads ask for an absent key at the same time, one of them runs its `f`, and the others
    /// wait for the entry. If the future of that one is dropped, or panics, one of the others runs its own `f`.
    ///
    /// # Panics
    ///
    /// As [`get_or_insert_with`](Self::get_or_insert_with), while the future of `f` is polled.
    ///
    /// # Progress
    ///
    /// A poll does not wait for another loader: the task is woken by the thread that ends the reservation. A poll that
    /// inserts is a write as [`insert`](Self::insert) is, with its share of reclamation, and waits where the limit of the
    /// backlog makes writes wait. A write of the key by a method that is not `async` blocks its thread until the value is made: do
    /// not call one from a task of the same executor.
    ///
    /// # Examples
    ///
    /// ```
    /// use epoch_registry::Registry;
    /// # fn block_on<F: Future>(future: F) -> F::Output {
    /// #     let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    /// #     let mut future = std::pin::pin!(future);
    /// #     loop {
    /// #         if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut context) {
    /// #             return output;
    /// #         }
    /// #     }
    /// # }
    ///
    /// let pages = Registry::new();
    /// block_on(async {
    ///     let page = pages.get_or_insert_async("/", async || "a page").await;
    ///     assert_eq!(*page, "a page");
    /// });
    /// ```
    pub async fn get_or_insert_async<F: Future<Output = V>>(&self, key: K, f: impl FnOnce() -> F) -> Handle<K, V> {
        let Ok(entry) = self.get_or_try_insert_async(key, async move || Ok::<V, Infallible>(f().await)).await;
        entry
    }

    /// Returns the entry of `key`. If the key is absent, inserts an entry with the value that the future of `f` makes, and
    /// returns that.
    ///
    /// Works as [`get_or_insert_async`](Self::get_or_insert_async), with a future that may fail.
    ///
    /// # Errors
    ///
    /// Returns the error of the future. Then nothing is inserted, and one of the callers that wait runs its own `f`.
    ///
    /// # Panics
    ///
    /// As [`get_or_insert_async`](Self::get_or_insert_async).
    ///
    /// # Progress
    ///
    /// As [`get_or_insert_async`](Self::get_or_insert_async).
    pub async fn get_or_try_insert_async<F: Future<Output = Result<V, E>>, E>(
        &self,
        key: K,
        f: impl FnOnce() -> F,
    ) -> Result<Handle<K, V>, E> {
        match self.get_or_reserve_async(key).await {
            Ok(entry) => Ok(entry),
            Err(reservation) => {
                let insert = |reservation: Reservation<'_, K, V, S>, value: Result<V, E>| match value {
                    Ok(value) => Ok(reservation.insert_and_get(value)),
                    Err(error) => Err(error),
                };
                reservation.run_async(f, insert).await
            }
        }
    }

    /// Returns the entry of `key`. If the key is absent, reserves it for the caller, who makes the value.
    ///
    /// For values that no closure can make: a query for many keys returns them, for example, or another thread makes them.
    /// Other callers that ask for the key wait for the end of the reservation, as for a loader of
    /// [`get_or_insert_with`](Self::get_or_insert_with).
    ///
    /// A caller that asks again for a key that it has reserved waits for itself, without end. So do callers that have reserved
    /// keys which they ask each other for. Remove duplicates first, and reserve several keys in one order, as with locks.
    ///
    /// # Errors
    ///
    /// Returns the [`Reservation`] if the key is absent.
    ///
    /// # Panics
    ///
    /// Panics within the closure that the registry runs for the same key, such as that of
    /// [`get_or_insert_with`](Self::get_or_insert_with): it would wait for itself.
    ///
    /// # Progress
    ///
    /// As [`lookup`](Self::lookup) if the key is in the registry. Otherwise takes the lock of one shard, and blocks while
    /// the key is reserved.
    ///
    /// # Examples
    ///
    /// One query for all keys that are missing:
    ///
    /// ```
    /// use epoch_registry::Registry;
    ///
    /// let squares: Registry<u64, u64> = Registry::from_iter([(2, 4)]);
    /// let missing: Vec<_> = (1..=3).filter_map(|key| squares.get_or_reserve(key).err()).collect();
    /// let query: Vec<_> = missing.iter().map(|reservation| reservation.key()).collect();
    /// assert_eq!(query, [&1, &3]);
    /// let answers = query.into_iter().map(|key| key * key).collect::<Vec<_>>();
    /// for (reservation, answer) in missing.into_iter().zip(answers) {
    ///     reservation.insert(answer);
    /// }
    /// assert_eq!(squares.with(&3, |square| *square), Some(9));
    /// ```
    #[track_caller]
    pub fn get_or_reserve(&self, key: K) -> Result<Handle<K, V>, Reservation<'_, K, V, S>> {
        let hash = hash_of(&self.hasher, &key);
        match self.find_handle(hash, &key) {
            Some(entry) => Ok(entry),
            None => self.reserve_absent(hash, key),
        }
    }

    /// Returns the entry of `key`. If the key is absent, reserves it for the caller: [`get_or_reserve`](Self::get_or_reserve)
    /// for tasks, of any executor. The future may be dropped at any time.
    ///
    /// # Errors
    ///
    /// Returns the [`Reservation`] if the key is absent.
    ///
    /// # Panics
    ///
    /// As [`get_or_reserve`](Self::get_or_reserve), when it is polled.
    ///
    /// # Progress
    ///
    /// A poll takes the lock of one shard. The task is woken by the thread that ends the other reservation. While the caller
    /// holds the reservation, a write of the key by a method that is not `async` blocks its thread.
    pub async fn get_or_reserve_async(&self, key: K) -> Result<Handle<K, V>, Reservation<'_, K, V, S>> {
        let hash = hash_of(&self.hasher, &key);
        match self.find_handle(hash, &key) {
            Some(entry) => Ok(entry),
            None => self.reserve_absent_async(hash, key).await,
        }
    }

    /// Inserts an entry with the value that `f` returns, unless the key turns out to be present.
    #[track_caller]
    fn load<E>(&self, hash: u64, key: K, f: impl FnOnce() -> Result<V, E>) -> Result<Handle<K, V>, E> {
        match self.reserve_absent(hash, key) {
            Ok(entry) => Ok(entry),
            Err(reservation) => {
                let value = reservation.run(f)?;
                Ok(reservation.insert_and_get(value))
            }
        }
    }

    /// Reserves a key that the caller has not found. Returns the entry instead, if another caller has inserted it since.
    #[track_caller]
    fn reserve_absent(&self, hash: u64, key: K) -> Result<Handle<K, V>, Reservation<'_, K, V, S>> {
        match self.reserve_unless(hash, Arc::new(key), |key| self.peek_handle(hash, key)) {
            Ok(reservation) => reservation.unless_present(),
            Err(entry) => Ok(entry),
        }
    }

    /// Does the same as [`reserve_absent`](Self::reserve_absent), as a task.
    async fn reserve_absent_async(&self, hash: u64, key: K) -> Result<Handle<K, V>, Reservation<'_, K, V, S>> {
        match self.reserve_unless_async(hash, Arc::new(key), |key| self.peek_handle(hash, key)).await {
            Ok(reservation) => reservation.unless_present(),
            Err(entry) => Ok(entry),
        }
    }
}

impl<K, V, S> Reservation<'_, K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Returns the entry of the key, and ends the reservation. If the key is absent, returns the reservation.
    fn unless_present(self) -> Result<Handle<K, V>, Self> {
        self.entry().ok_or(self)
    }
}
