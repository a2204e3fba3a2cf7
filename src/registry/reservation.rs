//! Reserved keys: the exclusive right to write a key, in the hands of the user.

use crate::domain::{Failure, IfFull};
use crate::handle::Handle;
use crate::node::Particulars;
use crate::registry::Registry;
use crate::registry::error::KeyReserved;
use crate::registry::view::hash_of;
use crate::shard::reserve::{Blocker, ReservationId};
use crate::shard::reserved_write::{NotPutReserved, ReservedEntry};
use crate::shard::write::{Published, Wanted};
use crate::util::check;
use crate::util::hasher::RandomState;
use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::hash::{BuildHasher, Hash};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

const UNSHARED: &str = "a key that was not reserved has one owner";

/// The exclusive right to write a key. Returned by [`Registry::reserve_key`], its siblings, and
/// [`Registry::get_or_reserve`].
///
/// While it exists, other writes of the key wait: `insert`, `remove`, `update` and all others that name the key, and
/// [`Registry::replace_handle`]. Reads do not wait: they find the entry that the key has. So a cache can make a value
/// while readers go on with the old one.
///
/// What removes entries without naming their keys does not wait: `remove_handle`, `retain`, `drain`, `clear`, reapers,
/// eviction and expiry.
///
/// The reservation ends with [`insert`](Self::insert) or [`remove`](Self::remove), or when it is dropped. All waiters wake then,
/// and one of them goes on. There is no order among them. (So many waiters for one key cost each other wakeups.)
///
/// A destructor or listener that writes a reserved key blocks the thread that runs it, and with it the reclamation that this
/// thread does. (Within a loader or another closure of the registry it panics instead, and that is counted.) A thread that
/// waits for a key in a critical section holds up the grace period that a loader may wait for. So hold a reservation while a
/// value is made, and no longer, and do not wait for a key in a critical section.
///
/// The drop of a reservation takes the lock of one shard. It panics within the `Eq` of a key, which may run under that lock.
///
/// A reservation may move to another thread, and may be held across an `await`. A write of the key by the code that
/// holds the reservation waits for itself, as a second lock of a mutex does. A forgotten reservation
/// ([`mem::forget`](std::mem::forget)) stays until the registry is dropped.
///
/// # Examples
///
/// ```
/// use epoch_registry::Registry;
///
/// let pages = Registry::new();
/// pages.set("/", "old");
/// let reservation = pages.reserve_key("/");
/// assert_eq!(**reservation.entry().unwrap(), *"old");
/// assert!(pages.try_reserve_key("/").is_err()); // one writer at a time
/// assert_eq!(pages.with("/", |page| *page), Some("old")); // reads go on
/// let page = reservation.insert_and_get("new");
/// assert_eq!((*page, pages.try_reserve_key("/").is_ok()), ("new", true));
/// ```
#[must_use = "the reservation ends when it is dropped"]
pub struct Reservation<'r, K: Send + Sync + 'static, V: Send + Sync + 'static, S = RandomState> {
    registry: &'r Registry<K, V, S>,
    hash: u64,
    /// `None` once the reservation has ended.
    id: Option<ReservationId>,
    /// The shard has the other reference. `None` while the entry is published, and after that.
    key: Option<Arc<K>>,
}

impl<K, V, S> Registry<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Reserves a key, present or absent, for writes by the caller alone. Waits while it is reserved by another.
    ///
    /// # Panics
    ///
    /// Panics within the closure that the registry runs for the same key, such as that of
    /// [`get_or_insert_with`](Self::get_or_insert_with): it would wait for itself.
    ///
    /// # Progress
    ///
    /// Blocks while the key is reserved by another. A task uses [`reserve_key_async`](Self::reserve_key_async). Takes the lock of
    /// one shard.
    #[track_caller]
    pub fn reserve_key(&self, key: K) -> Reservation<'_, K, V, S> {
        let hash = hash_of(&self.hasher, &key);
        self.reserve_hashed(hash, Arc::new(key))
    }

    /// Reserves a key, as [`reserve_key`](Self::reserve_key) does, unless it is reserved.
    ///
    /// # Errors
    ///
    /// Returns [`KeyReserved`], with the key, if the key is reserved.
    ///
    /// # Progress
    ///
    /// Takes the lock of one shard.
    pub fn try_reserve_key(&self, key: K) -> Result<Reservation<'_, K, V, S>, KeyReserved<K>> {
        let hash = hash_of(&self.hasher, &key);
        self.try_reserve_hashed(hash, Arc::new(key))
            .map_err(|(_, key)| KeyReserved(Arc::into_inner(key).expect(UNSHARED)))
    }

    /// Reserves a key, as [`reserve_key`](Self::reserve_key) does. Waits as a task, for any executor. The future may be dropped
    /// at any time.
    ///
    /// # Panics
    ///
    /// As [`reserve_key`](Self::reserve_key), when it is polled.
    ///
    /// # Progress
    ///
    /// A poll takes the lock of one shard. The task is woken by the thread that ends the other reservation.
    pub async fn reserve_key_async(&self, key: K) -> Reservation<'_, K, V, S> {
        let hash = hash_of(&self.hasher, &key);
        self.reserve_hashed_async(hash, Arc::new(key)).await
    }

    /// Reserves a key, as [`reserve_key`](Self::reserve_key) does. Waits for at most `timeout` while it is reserved by
    /// another.
    ///
    /// # Errors
    ///
    /// Returns [`KeyReserved`], with the key, if the key is still reserved after that time.
    ///
    /// # Panics
    ///
    /// As [`reserve_key`](Self::reserve_key).
    ///
    /// # Progress
    ///
    /// Blocks for at most `timeout`, and for the lock of one shard.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let pages = epoch_registry::Registry::<_, &str>::new();
    /// let first = pages.reserve_key("/");
    /// assert!(pages.reserve_key_timeout("/", Duration::from_millis(1)).is_err());
    /// drop(first);
    /// assert!(pages.reserve_key_timeout("/", Duration::from_millis(1)).is_ok());
    /// ```
    #[track_caller]
    pub fn reserve_key_timeout(&self, key: K, timeout: Duration) -> Result<Reservation<'_, K, V, S>, KeyReserved<K>> {
        let since = Instant::now();
        let hash = hash_of(&self.hasher, &key);
        let mut key = Arc::new(key);
        loop {
            match self.try_reserve_hashed(hash, key) {
                Ok(reservation) => return Ok(reservation),
                Err((blocker, again)) => {
                    key = again;
                    if !blocker.wait_for(timeout.saturating_sub(since.elapsed())) {
                        return Err(KeyReserved(Arc::into_inner(key).expect(UNSHARED)));
                    }
                }
            }
        }
    }

    /// Reserves a key, unless it is reserved. Returns the key with what blocks the caller.
    fn try_reserve_hashed(&self, hash: u64, key: Arc<K>) -> Result<Reservation<'_, K, V, S>, (Blocker, Arc<K>)> {
        match self.core.reserve(hash, &key) {
            Ok(id) => Ok(Reservation { registry: self, hash, id: Some(id), key: Some(key) }),
            Err(blocker) => Err((blocker, key)),
        }
    }

    /// Reserves a key. Waits while it is reserved by another.
    #[track_caller]
    pub(super) fn reserve_hashed(&self, hash: u64, key: Arc<K>) -> Reservation<'_, K, V, S> {
        let Ok(reservation) = self.reserve_unless(hash, key, |_| None::<Infallible>);
        reservation
    }

    /// Reserves a key, as a task.
    pub(super) async fn reserve_hashed_async(&self, hash: u64, key: Arc<K>) -> Reservation<'_, K, V, S> {
        let Ok(reservation) = self.reserve_unless_async(hash, key, |_| None::<Infallible>).await;
        reservation
    }

    /// Reserves a key. Waits while it is reserved by another. After each wait, calls `find`: if that finds what the caller
    /// wants, returns that instead.
    #[track_caller]
    pub(super) fn reserve_unless<T>(
        &self,
        hash: u64,
        mut key: Arc<K>,
        find: impl Fn(&K) -> Option<T>,
    ) -> Result<Reservation<'_, K, V, S>, T> {
        loop {
            match self.try_reserve_hashed(hash, key) {
                Ok(reservation) => return Ok(reservation),
                Err((blocker, again)) => {
                    key = again;
                    blocker.wait();
                }
            }
            if let Some(found) = find(&key) {
                return Err(found);
            }
        }
    }

    /// Does the same as [`reserve_unless`](Self::reserve_unless), as a task.
    pub(super) async fn reserve_unless_async<T>(
        &self,
        hash: u64,
        mut key: Arc<K>,
        find: impl Fn(&K) -> Option<T>,
    ) -> Result<Reservation<'_, K, V, S>, T> {
        loop {
            match self.try_reserve_hashed(hash, key) {
                Ok(reservation) => return Ok(reservation),
                Err((mut blocker, again)) => {
                    key = again;
                    poll_fn(|context| blocker.poll(context)).await;
                }
            }
            if let Some(found) = find(&key) {
                return Err(found);
            }
        }
    }
}

impl<K, V, S> Reservation<'_, K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Returns the entry that the key has now, or `None` if it is absent. It may leave at any time: by expiry, for
    /// example. This is no [use](crate::Builder#uses) of the entry.
    ///
    /// # Progress
    ///
    /// As [`Registry::peek`].
    pub fn entry(&self) -> Option<Handle<K, V>> {
        self.run(|| self.registry.peek_handle(self.hash, self.key()))
    }

    /// Inserts an entry, or replaces the one that the key has, and ends the reservation. Returns the replaced entry, or
    /// `None` if the key was absent.
    ///
    /// # Progress
    ///
    /// As [`Registry::insert`].
    pub fn insert(self, value: V) -> Option<Handle<K, V>> {
        let Ok(published) = self.put(value, None, Wanted::OLD, &mut IfFull::go_on()) else {
            unreachable!("an insertion that may exceed the limit of the backlog")
        };
        published.old.into_handle()
    }

    /// Inserts an entry, or replaces the one that the key has, and ends the reservation. Returns the new entry.
    ///
    /// # Progress
    ///
    /// As [`Registry::insert`].
    pub fn insert_and_get(self, value: V) -> Handle<K, V> {
        let Ok(published) = self.put(value, None, Wanted::NEW, &mut IfFull::go_on()) else {
            unreachable!("an insertion that may exceed the limit of the backlog")
        };
        published.new.expect("the handle that was wanted")
    }

    /// Inserts an entry that lives for `ttl`, or replaces the one that the key has, and ends the reservation. Returns the
    /// new entry.
    ///
    /// # Progress
    ///
    /// As [`Registry::insert_with_ttl`].
    ///
    /// # Examples
    ///
    /// The answer to a query says how long it may be kept:
    ///
    /// ```
    /// use epoch_registry::Registry;
    /// use std::time::Duration;
    ///
    /// let names = Registry::new();
    /// let query = names.reserve_key("example.org"); // one query at a time
    /// let (address, ttl) = ("192.0.2.1", Duration::from_secs(300));
    /// let entry = query.insert_with_ttl(address, ttl);
    /// assert!(names.remaining(&entry).is_some_and(|left| left > Duration::from_secs(290)));
    /// ```
    pub fn insert_with_ttl(self, value: V, ttl: Duration) -> Handle<K, V> {
        // Declared in this order, so that a panic ends the reservation before it drops the value (K5).
        let (value, this) = (value, self);
        let core = &this.registry.core;
        let particulars = this.run(|| core.particulars_with_ttl(this.hash, this.key(), &value, ttl));
        let Ok(published) = this.put_as(value, particulars, None, Wanted::NEW, &mut IfFull::go_on()) else {
            unreachable!("an insertion that may exceed the limit of the backlog")
        };
        published.new.expect("the handle that was wanted")
    }

    /// Removes the entry that the key has, and ends the reservation. Returns the entry, or `None` if the key was absent.
    ///
    /// # Progress
    ///
    /// As [`Registry::remove`].
    pub fn remove(mut self) -> Option<Handle<K, V>> {
        let core = &self.registry.core;
        let now = self.run(|| core.time_to_write());
        let id = self.id.take().expect("a reservation that has not ended");
        core.remove_reserved(self.hash, self.key(), id, now)
    }

    /// Publishes an entry, in place of `old` if that is given, and ends the reservation.
    ///
    /// If it fails, it returns the value, and the reason if that is the backlog. It ends the reservation all the same.
    pub(super) fn put<E: Failure>(
        self,
        value: V,
        old: Option<&Handle<K, V>>,
        wanted: Wanted,
        if_full: &mut IfFull<E>,
    ) -> Result<Published<K, V>, (V, Option<E>)> {
        // Declared in this order, so that a panic ends the reservation before it drops the value (K5).
        let (value, this) = (value, self);
        let particulars = this.run(|| this.registry.core.particulars(this.hash, this.key(), &value));
        this.put_as(value, particulars, old, wanted, if_full)
    }

    fn put_as<E: Failure>(
        mut self,
        value: V,
        particulars: Particulars,
        old: Option<&Handle<K, V>>,
        wanted: Wanted,
        if_full: &mut IfFull<E>,
    ) -> Result<Published<K, V>, (V, Option<E>)> {
        // The core ends the reservation, also if it fails or panics.
        let (Some(key), Some(id)) = (self.key.take(), self.id.take()) else { unreachable!("a reservation ends once") };
        let entry = ReservedEntry { key, value, particulars, id };
        let published = self.registry.core.put_reserved(entry, old, wanted, if_full);
        published.map_err(|NotPutReserved { value, full }| (value, full))
    }

    /// Runs the code for which the key is reserved.
    #[track_caller]
    pub(super) fn run<R>(&self, f: impl FnOnce() -> R) -> R {
        check::user_code();
        let id = self.id.expect("a reservation that has not ended");
        self.registry.core.run_reserved(self.hash, id, f)
    }

    /// Runs the code for which the key is reserved, as a part of a task. Calls `end`, which ends the reservation, with its
    /// output.
    ///
    /// The future of that code is dropped after the reservation has ended, also if this future is dropped before it is
    /// ready: the locals of that code may write the key when they are dropped.
    pub(super) async fn run_async<F: Future, R>(
        self,
        f: impl FnOnce() -> F,
        end: impl FnOnce(Self, F::Output) -> R,
    ) -> R {
        let mut future = pin!(self.run(f));
        // Declared after the future, and so dropped before it.
        let reservation = self;
        let output = poll_fn(|context| reservation.run(|| future.as_mut().poll(context))).await;
        end(reservation, output)
    }
}

impl<K: Send + Sync + 'static, V: Send + Sync + 'static, S> Reservation<'_, K, V, S> {
    /// Returns the key.
    pub fn key(&self) -> &K {
        self.key.as_ref().expect("a reservation that has not ended")
    }
}

impl<K: Send + Sync + 'static, V: Send + Sync + 'static, S> Drop for Reservation<'_, K, V, S> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.registry.core.release(self.hash, id);
        }
    }
}

impl<K: Send + Sync, V: Send + Sync, S> fmt::Debug for Reservation<'_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").finish_non_exhaustive()
    }
}
