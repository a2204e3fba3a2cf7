//! The ages of single entries: times to live of their own, and how old they are.
//!
//! An entry has one end of its own: the answer of the [lifetime](crate::Builder::lifetime) function, or what the user
//! has set here, which takes the place of that answer. The entry expires at that end, or when it is older than
//! [`max_age`](crate::Builder::max_age), or when it was not used for [`max_idle`](crate::Builder::max_idle), whichever
//! comes first.

#![allow(unsafe_code)]

use crate::domain::IfFull;
use crate::handle::{Entry, Handle};
use crate::node::life::Deadline;
use crate::registry::Registry;
use crate::registry::error::Occupied;
use crate::registry::view::{View, hash_of};
use crate::shard::write::{Published, Wanted};
use crate::util::clock::Time;
use std::hash::{BuildHasher, Hash};
use std::time::Duration;

impl<K, V, S> Registry<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Inserts an entry that expires when it is older than `ttl`, or replaces the one that has the key. Returns the
    /// replaced entry, or `None` if the key was absent.
    ///
    /// This is [`insert`](Self::insert) with a time to live of the entry's own. It takes the place of the
    /// [lifetime](crate::Builder::lifetime) function, which is not called. If there are other limits, the earliest end
    /// counts: the entry also expires by [`max_age`](crate::Builder::max_age) and
    /// [`max_idle`](crate::Builder::max_idle). [`set_ttl`](Self::set_ttl) changes the time to live.
    ///
    /// The time to live belongs to the entry, and not to the key: an entry that [`insert`](Self::insert) or
    /// [`update`](Self::update) puts in its place has none.
    ///
    /// If no entry of the registry could expire before, this call prepares the registry for that:
    /// [`per_entry_ttl`](crate::Builder::per_entry_ttl) says what this costs, and how to avoid it.
    ///
    /// # Progress
    ///
    /// As [`insert`](Self::insert). The call that prepares the registry takes the lock of every shard, one after
    /// another, for a look at all entries.
    ///
    /// # Examples
    ///
    /// ```
    /// use epoch_registry::{ManualClock, Registry};
    /// use std::time::Duration;
    ///
    /// let clock = ManualClock::new();
    /// let registry = Registry::builder().clock(clock.clone()).build();
    /// registry.insert_with_ttl("token", 7, Duration::from_secs(60));
    /// clock.advance(Duration::from_secs(60));
    /// assert!(registry.contains_key("token"));
    /// clock.advance(Duration::from_nanos(1));
    /// assert!(!registry.contains_key("token"));
    /// ```
    pub fn insert_with_ttl(&self, key: K, value: V, ttl: Duration) -> Option<Handle<K, V>> {
        self.put_with_ttl(key, value, ttl, Wanted::OLD).old.into_handle()
    }

    /// Inserts an entry that expires when it is older than `ttl`, or replaces the one that has the key. Returns whether
    /// it replaced one.
    ///
    /// This is [`insert_with_ttl`](Self::insert_with_ttl) without a handle to the replaced entry, which saves one
    /// locked instruction.
    ///
    /// # Progress
    ///
    /// As [`insert_with_ttl`](Self::insert_with_ttl).
    pub fn set_with_ttl(&self, key: K, value: V, ttl: Duration) -> bool {
        self.put_with_ttl(key, value, ttl, Wanted::NONE).old.is_some()
    }

    /// Inserts an entry that expires when it is older than `ttl`, unless the key is already in the registry. Returns
    /// the new entry.
    ///
    /// This is [`try_insert`](Self::try_insert) with a time to live, as [`insert_with_ttl`](Self::insert_with_ttl) has
    /// it.
    ///
    /// # Errors
    ///
    /// As [`try_insert`](Self::try_insert).
    ///
    /// # Progress
    ///
    /// As [`insert_with_ttl`](Self::insert_with_ttl).
    pub fn try_insert_with_ttl(&self, key: K, value: V, ttl: Duration) -> Result<Handle<K, V>, Occupied<K, V>> {
        let hash = hash_of(&self.hasher, &key);
        let unpublished = self.core.prepare_with_ttl(hash, key, value, ttl);
        Ok(self.core.insert(unpublished, Wanted::NEW)?.expect("the handle that was wanted"))
    }

    /// Sets how long exactly this entry lives from now. `None` means without a limit of its own. Returns whether it was
    /// set: false if the entry has left the registry or has expired, or belongs to another registry.
    ///
    /// The time to live takes the place of the answer of the [lifetime](crate::Builder::lifetime) function, which is
    /// not called for this entry until [`renew`](Self::renew). If there are other limits, the earliest end counts: the
    /// entry also expires by [`max_age`](crate::Builder::max_age), as that is at the time of this call, and by
    /// [`max_idle`](crate::Builder::max_idle). A later [`set_max_age`](Self::set_max_age) may shorten the entry's life,
    /// and does not prolong it.
    ///
    /// This does not count as a use. An entry that has expired does not come back: once a call has found that the entry
    /// has expired, this returns false.
    ///
    /// # Progress
    ///
    /// Takes the lock of one shard. Otherwise as [`insert_with_ttl`](Self::insert_with_ttl).
    ///
    /// # Examples
    ///
    /// A session that each request prolongs by a minute, for at most an hour in all:
    ///
    /// ```
    /// use epoch_registry::{ManualClock, Registry};
    /// use std::time::Duration;
    ///
    /// const MINUTE: Duration = Duration::from_secs(60);
    ///
    /// let clock = ManualClock::new();
    /// let sessions = Registry::builder().max_age(60 * MINUTE).clock(clock.clone()).build();
    /// sessions.insert_with_ttl("ada", 36, MINUTE);
    /// for _ in 0..90 {
    ///     clock.advance(MINUTE * 2 / 3);
    ///     let session = sessions.lookup("ada").expect("prolonged in time");
    ///     assert!(sessions.set_ttl(&session, Some(MINUTE)));
    /// }
    /// clock.advance(MINUTE * 2 / 3);
    /// assert!(sessions.lookup("ada").is_none());
    /// ```
    pub fn set_ttl(&self, entry: &Handle<K, V>, ttl: Option<Duration>) -> bool {
        if !self.core.can_expire_by_entry(entry) {
            return false;
        }
        let now = self.core.settings().clock.beginning();
        let end = ttl.map_or(Time::NEVER, |ttl| now.end_of(Time::ceil_from(ttl)));
        self.core.set_own_end(entry, Deadline::fixed(end), now)
    }

    /// Sets that exactly this entry expires when the [clock](Self::now) shows more than `at`. Returns whether it was
    /// set: false as for [`set_ttl`](Self::set_ttl).
    ///
    /// Otherwise works as [`set_ttl`](Self::set_ttl). If the clock shows more than `at` already, the entry expires at
    /// once.
    ///
    /// # Progress
    ///
    /// As [`set_ttl`](Self::set_ttl).
    ///
    /// # Examples
    ///
    /// Two entries that expire at the same time:
    ///
    /// ```
    /// use epoch_registry::{ManualClock, Registry};
    /// use std::time::Duration;
    ///
    /// let clock = ManualClock::new();
    /// let registry = Registry::builder().clock(clock.clone()).build();
    /// let one = registry.insert_and_get(1, "one");
    /// let at = registry.now() + Duration::from_secs(10);
    /// clock.advance(Duration::from_secs(3));
    /// let two = registry.insert_and_get(2, "two");
    /// assert!(registry.expire_at(&one, at) && registry.expire_at(&two, at));
    /// assert_eq!(registry.remaining(&two), Some(Duration::from_secs(7)));
    /// ```
    pub fn expire_at(&self, entry: &Handle<K, V>, at: Duration) -> bool {
        if !self.core.can_expire_by_entry(entry) {
            return false;
        }
        let clock = &self.core.settings().clock;
        let now = clock.beginning();
        self.core.set_own_end(entry, Deadline::fixed(clock.time_of(at).end_of(Time::ZERO)), now)
    }

    /// Asks the [lifetime](crate::Builder::lifetime) function again about exactly this entry, and has the entry live
    /// for as long after its insertion as the function now says. Returns whether it did: false if the entry has left
    /// the registry or has expired, or belongs to another registry, or if the function panics or is what calls this.
    ///
    /// The function is called by itself only when the time of its previous answer has come. Call this when it would
    /// now answer something else: a shorter time, or a time after it has answered `None`.
    ///
    /// The answer takes the place of a time to live that was [set](Self::set_ttl). Without a lifetime function, the
    /// entry has no limit of its own after this.
    ///
    /// # Progress
    ///
    /// As [`set_ttl`](Self::set_ttl). The function runs outside every lock.
    ///
    /// # Examples
    ///
    /// ```
    /// use epoch_registry::{ManualClock, Registry};
    /// use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    /// use std::time::Duration;
    ///
    /// let clock = ManualClock::new();
    /// // An order is kept for a day after it was paid.
    /// let orders = Registry::builder()
    ///     .lifetime(|_: &u64, paid: &AtomicBool| paid.load(Relaxed).then_some(Duration::from_secs(24 * 3600)))
    ///     .clock(clock.clone())
    ///     .build();
    /// let order = orders.insert_and_get(1, AtomicBool::new(false));
    /// assert_eq!(orders.remaining(&order), None);
    /// order.store(true, Relaxed);
    /// assert!(orders.renew(&order));
    /// assert_eq!(orders.remaining(&order), Some(Duration::from_secs(24 * 3600)));
    /// ```
    pub fn renew(&self, entry: &Handle<K, V>) -> bool {
        self.core.renew_one(entry)
    }

    /// Returns the reading of the registry's [clock](crate::Builder::clock), for [`expire_at`](Self::expire_at).
    ///
    /// The origin of the default clock is arbitrary, and the reading is some milliseconds coarse. To expire an entry at
    /// a [`std::time::Instant`], use [`set_ttl`](Self::set_ttl) with the time until then.
    ///
    /// # Panics
    ///
    /// Panics if the clock panics.
    pub fn now(&self) -> Duration {
        self.core.settings().clock.reading()
    }

    /// Returns the age of an entry: the time since its insertion. Never too long, and at most 34 ms too short. Zero if
    /// the entry belongs to another registry.
    ///
    /// It is exact, to the resolution of the [clock](crate::Builder::clock), if entries could expire when this one was
    /// inserted. An entry that has left the registry ages on.
    ///
    /// (The registry is asked, and not the handle, because the clock is the registry's and ends with it.)
    ///
    /// # Panics
    ///
    /// Panics if the clock panics.
    ///
    /// # Progress
    ///
    /// Wait-free.
    ///
    /// # Examples
    ///
    /// ```
    /// use epoch_registry::{ManualClock, Registry};
    /// use std::time::Duration;
    ///
    /// let clock = ManualClock::new();
    /// let registry = Registry::builder().per_entry_ttl(true).clock(clock.clone()).build();
    /// let entry = registry.insert_and_get("a", 1);
    /// clock.advance(Duration::from_secs(5));
    /// assert_eq!(registry.age(&entry), Duration::from_secs(5));
    /// ```
    pub fn age(&self, entry: &Handle<K, V>) -> Duration {
        // SAFETY: the handle keeps the node alive.
        unsafe { self.core.age_of(entry.node()) }
    }

    /// Returns how much longer an entry lives, by all limits, if it is not used or removed meanwhile. `None` if there is
    /// no limit. Zero if the entry has left the registry or has expired, or belongs to another registry.
    ///
    /// By the default clock, which is some milliseconds coarse, a new entry may have that much more left than its time to
    /// live, as it never expires early.
    ///
    /// This does not count as a use. The time until an entry expires as idle is known to a sixteenth of
    /// [`max_idle`](crate::Builder::max_idle), and never too short. If the entry is past its time, and a
    /// [lifetime](crate::Builder::lifetime) function says so, this asks the function whether it lives on.
    ///
    /// (The registry is asked, and not the handle, because the clock is the registry's and ends with it.)
    ///
    /// # Panics
    ///
    /// Panics if the clock panics.
    ///
    /// # Progress
    ///
    /// Lock-free, as a read of the entry.
    ///
    /// # Examples
    ///
    /// ```
    /// use epoch_registry::{ManualClock, Registry};
    /// use std::time::Duration;
    ///
    /// let clock = ManualClock::new();
    /// let registry = Registry::builder().clock(clock.clone()).build();
    /// let entry = registry.insert_and_get("a", 1);
    /// assert_eq!(registry.remaining(&entry), None);
    /// registry.set_ttl(&entry, Some(Duration::from_secs(60)));
    /// clock.advance(Duration::from_secs(20));
    /// assert_eq!(registry.remaining(&entry), Some(Duration::from_secs(40)));
    /// ```
    pub fn remaining(&self, entry: &Handle<K, V>) -> Option<Duration> {
        // SAFETY: the handle keeps the node alive.
        unsafe { self.core.remaining_of(entry.node()) }
    }

    fn put_with_ttl(&self, key: K, value: V, ttl: Duration, wanted: Wanted) -> Published<K, V> {
        let hash = hash_of(&self.hasher, &key);
        let unpublished = self.core.prepare_with_ttl(hash, key, value, ttl);
        let Ok(published) = self.core.replace(unpublished, wanted, IfFull::go_on());
        published
    }
}

impl<K, V, S> View<'_, K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Returns the age of an entry, as [`Registry::age`] does.
    ///
    /// # Panics
    ///
    /// Panics if the clock panics.
    pub fn age(&self, entry: Entry<'_, K, V>) -> Duration {
        self.check();
        // SAFETY: B2 (the entry was found within a critical section that is still open).
        unsafe { self.core.age_of(entry.node_pointer()) }
    }

    /// Returns how much longer an entry lives, as [`Registry::remaining`] does.
    ///
    /// # Panics
    ///
    /// Panics if the clock panics.
    ///
    /// # Examples
    ///
    /// ```
    /// use epoch_registry::{ManualClock, Registry};
    /// use std::time::Duration;
    ///
    /// let registry = Registry::builder().clock(ManualClock::new()).build();
    /// registry.insert_with_ttl("a", 1, Duration::from_secs(60));
    /// let guard = registry.pin();
    /// let entry = guard.peek("a").unwrap();
    /// assert_eq!(guard.remaining(entry), Some(Duration::from_secs(60)));
    /// ```
    pub fn remaining(&self, entry: Entry<'_, K, V>) -> Option<Duration> {
        self.check();
        // SAFETY: B2 (the entry was found within a critical section that is still open).
        unsafe { self.core.remaining_of(entry.node_pointer()) }
    }
}
