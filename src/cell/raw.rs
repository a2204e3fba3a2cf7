//! A published pointer that may be null: what [`RcuCell`](super::RcuCell) and [`RcuOptionCell`](super::RcuOptionCell)
//! share.
//!
//! # The reader
//!
//! It is in a critical section. It loads `current`, and uses the version that it has found until the section ends. It
//! takes a reference if it is to keep the version for longer.
//!
//! # The writer
//!
//! 1. It takes the lock `writers`. If another writer has the turn, it waits until that writer gives the turn up.
//! 2. If it must run a closure with the current version (`update`), it takes the turn and releases the lock. It runs the
//!    closure, and takes the lock again.
//! 3. It numbers the new version, stores its address in `current`, and stores its number in `number`.
//! 4. It gives the turn up, takes the wakers of the tasks that wait for a new version, and releases the lock. It wakes
//!    these tasks, and the threads that wait for the turn or for a new version.
//! 5. It retires the old version, in whose place in the backlog the version was put before step 3.
//!
//! So the closure of `update` runs once and under no lock, and no other version is published between the one that it
//! was given and the one that it has returned.
//!
//! # Invariants
//!
//! - **V1** `current` is null, or the place of a version that is published and not unlinked. Only the holder of the lock
//!   `writers` changes it, and only if no other thread has the turn.
//! - **V2** A version is published in one cell, once.

#![allow(unsafe_code)]

use super::version::{NewVersion, Place, Version};
use crate::domain::{Cookie, CriticalSection, Domain, GLOBAL, IfFull};
use crate::object::{self, Reserved};
use crate::sync::atomic::Ordering;
use crate::sync::{self, AtomicPtr, AtomicU64, Condvar, Mutex, MutexGuard, const_fn};
use crate::util::check;
use crate::util::panics::contain;
use crate::util::reentrancy::thread_tag;
use std::marker::PhantomData;
use std::mem;
use std::task::Waker;
use std::time::{Duration, Instant};

pub(super) struct Raw<T: ?Sized + 'static> {
    /// The place of the current version, or null (V1).
    current: AtomicPtr<()>,
    /// The number of the cell's domain.
    domain_id: u64,
    /// The number of the current version. It is stored after `current`.
    number: AtomicU64,
    /// `None` stands for the global domain.
    domain: Option<Domain>,
    writers: Mutex<Writers>,
    /// Notified when the turn is given up, and when there is a new version.
    changed: Condvar,
    _owns: PhantomData<Box<T>>,
}

// SAFETY: the cell owns versions, and lends them to several threads (`Sync`). Any thread may drop them (`Send`).
unsafe impl<T: ?Sized + Send + Sync> Send for Raw<T> {}
// SAFETY: as for `Send`. Writes take a lock.
unsafe impl<T: ?Sized + Send + Sync> Sync for Raw<T> {}

struct Writers {
    /// The [tag](thread_tag) of the thread that has the turn, or zero.
    turn: usize,
    /// The number of threads that wait on `changed`.
    waiting: usize,
    /// The tasks that wait for a new version, with the keys of their futures.
    wakers: Vec<(u64, Waker)>,
    next_key: u64,
}

/// What a writer has done.
pub(super) struct Replaced<T: ?Sized + 'static> {
    /// The version that the cell had before, if there was one, with a reference if one was wanted.
    pub(super) old: Option<Version<T>>,
    pub(super) cookie: Cookie,
}

/// What a conditional write returns that was not made.
pub(super) struct NotWritten<T: ?Sized + 'static> {
    pub(super) new: Option<NewVersion<T>>,
    pub(super) current: Option<Version<T>>,
}

/// A writer's turn. It is given up when this is dropped.
struct Turn<'c, T: ?Sized + 'static>(&'c Raw<T>);

impl<T: ?Sized> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        let mut writers = self.0.writers.lock();
        writers.turn = 0;
        let is_waited_for = writers.waiting > 0;
        drop(writers);
        if is_waited_for {
            self.0.changed.notify_all();
        }
    }
}

impl<T: ?Sized> Raw<T> {
    const_fn! {
        /// Returns a cell with the version at `place`, or with none if that is null.
        ///
        /// # Safety
        ///
        /// The version is given up to the cell. `domain_id` is the number of `domain`, which stands for the global one
        /// if it is `None`.
        pub(super) unsafe fn with(place: *mut (), domain_id: u64, domain: Option<Domain>) -> Self {
            Raw {
                current: AtomicPtr::new(place),
                domain_id,
                number: AtomicU64::new(0),
                domain,
                writers: Mutex::new(Writers { turn: 0, waiting: 0, wakers: Vec::new(), next_key: 0 }),
                changed: Condvar::new(),
                _owns: PhantomData,
            }
        }
    }

    const_fn! {
        /// Returns a cell without a version, in the global domain.
        pub(super) fn empty() -> Self {
            // SAFETY: there is no version.
            unsafe { Raw::with(std::ptr::null_mut(), GLOBAL, None) }
        }
    }

    pub(super) fn new(version: Option<NewVersion<T>>, domain: &Domain) -> Self {
        let id = domain.inner().id;
        let domain = (id != GLOBAL).then(|| domain.clone());
        let place = version.map_or(std::ptr::null_mut(), |version| version.into_place().as_ptr());
        // SAFETY: the version is given up, and `id` is that of the domain.
        unsafe { Raw::with(place, id, domain) }
    }

    pub(super) fn domain(&self) -> &Domain {
        self.domain.as_ref().unwrap_or_else(|| Domain::global())
    }

    /// Returns the place of the current version.
    ///
    /// # Safety
    ///
    /// `section` is a critical section that lasts for as long as the caller uses the version without a reference.
    ///
    /// # Panics
    ///
    /// If the section is of another domain.
    #[inline]
    unsafe fn find(&self, section: &impl CriticalSection) -> Option<Place<T>> {
        assert_eq!(section.domain().id, self.domain_id, "a critical section of another domain than the cell's");
        // SAFETY: the section is of the cell's domain.
        unsafe { self.find_unchecked() }
    }

    /// Returns the place of the current version.
    ///
    /// # Safety
    ///
    /// The thread is in a critical section of the cell's domain, which lasts for as long as the caller uses the version
    /// without a reference.
    #[inline]
    pub(super) unsafe fn find_unchecked(&self) -> Option<Place<T>> {
        // ORDERING: Acquire, pairs with the Release in `publish`: the version is complete. (The kernel's
        // `rcu_dereference` relies on the order of dependent loads. Rust's memory model has no such order.)
        Place::new(self.current.load(Ordering::Acquire))
    }

    #[inline]
    pub(super) fn read<'a>(&'a self, section: &'a impl CriticalSection) -> Option<&'a T> {
        // SAFETY: the reference borrows the section, and so does not outlive it.
        let place = unsafe { self.find(section) }?;
        // SAFETY: O1 (the version was found in this section, which the reference borrows).
        Some(unsafe { place.value() })
    }

    #[inline]
    pub(super) fn load(&self, section: &impl CriticalSection) -> Option<Version<T>> {
        // SAFETY: the section is borrowed until this returns. From then on the caller has a reference.
        let place = unsafe { self.find(section) }?;
        // SAFETY: O1 (the version was found in this section).
        Some(unsafe { Version::take(place) })
    }

    /// Returns the number of the current version.
    #[inline]
    pub(super) fn number(&self) -> u64 {
        // ORDERING: Acquire, pairs with the Release in `publish`: a read that follows finds this version or a later one.
        self.number.load(Ordering::Acquire)
    }

    /// Waits until no thread has the turn, and returns the lock.
    ///
    /// # Panics
    ///
    /// If this thread has the turn: it is in the closure of an update.
    fn lock(&self) -> MutexGuard<'_, Writers> {
        let mut writers = self.writers.lock();
        while writers.turn != 0 {
            self.refuse_within_update(&writers);
            self.wait(&mut writers, None);
        }
        writers
    }

    fn refuse_within_update(&self, writers: &Writers) {
        let is_mine = writers.turn == thread_tag();
        assert!(
            !is_mine,
            "a write to a cell, or a wait for one, within an update of the same cell would wait for itself"
        );
    }

    fn wait(&self, writers: &mut MutexGuard<'_, Writers>, timeout: Option<Duration>) {
        writers.waiting += 1;
        match timeout {
            None => sync::wait(&self.changed, writers),
            Some(timeout) => sync::wait_for(&self.changed, writers, timeout),
        }
        writers.waiting -= 1;
    }

    /// Returns the place of the current version, for a writer.
    fn current(&self) -> Option<Place<T>> {
        // ORDERING: Relaxed. The caller has the lock or the turn, so no other thread stores it (V1); the lock orders the
        // last store with this load.
        Place::new(self.current.load(Ordering::Relaxed))
    }

    /// Returns the bytes that the current version counts for, for a writer.
    fn current_bytes(&self) -> Option<u64> {
        // SAFETY: V1 (the caller has the lock or the turn, so the version is not unlinked).
        self.current().map(|place| unsafe { place.object().as_ref() }.bytes())
    }

    /// Takes the lock, with a place in the backlog for the current version.
    fn lock_with_place(&self) -> (MutexGuard<'_, Writers>, Option<Reserved<'_>>) {
        let domain = self.domain().inner();
        let mut writers = self.lock();
        loop {
            let Some(bytes) = self.current_bytes() else { return (writers, None) };
            if let Some(reserved) = Reserved::try_new(domain, bytes) {
                return (writers, Some(reserved));
            }
            // Make room without the lock. If the current version is another one then, try again.
            drop(writers);
            let reserved = Reserved::new(domain, bytes, &mut IfFull::go_on());
            writers = self.lock();
            if self.current_bytes() == Some(bytes) {
                return (writers, Some(reserved));
            }
        }
    }

    /// Publishes `new` if `may` returns true for the current version and its number, and returns the cookie.
    /// Else returns `new`, and the current version.
    ///
    /// # Panics
    ///
    /// Within an update of the same cell.
    pub(super) fn write_if(
        &self,
        new: Option<NewVersion<T>>,
        may: impl FnOnce(Option<Place<T>>, u64) -> bool,
    ) -> Result<Cookie, NotWritten<T>> {
        let (writers, reserved) = self.lock_with_place();
        let current = self.current();
        // ORDERING: Relaxed, as in `current`.
        if may(current, self.number.load(Ordering::Relaxed)) {
            return Ok(self.publish(writers, new, reserved, false).cookie);
        }
        // SAFETY: V1 (the lock is held, so the version is not unlinked, and has the cell's reference).
        let current = current.map(|place| unsafe { Version::take(place) });
        drop(writers);
        Err(NotWritten { new, current })
    }

    /// Publishes `new`. Returns the old version if `wants_old`.
    pub(super) fn write(&self, new: Option<NewVersion<T>>, wants_old: bool) -> Replaced<T> {
        let (writers, reserved) = self.lock_with_place();
        self.publish(writers, new, reserved, wants_old)
    }

    /// Publishes what `f` makes of the current version. No other version is published in the meantime.
    pub(super) fn update<E>(
        &self,
        f: impl FnOnce(Option<&T>) -> Result<Option<NewVersion<T>>, E>,
    ) -> Result<Cookie, E> {
        let (mut writers, reserved) = self.lock_with_place();
        writers.turn = thread_tag();
        drop(writers);
        let turn = Turn(self);
        check::user_code();
        // SAFETY: V1 (this thread has the turn, so the version is not unlinked until `publish`).
        let new = f(self.current().map(|place| unsafe { place.value() }))?;
        let writers = self.writers.lock();
        // `publish` gives the turn up.
        mem::forget(turn);
        Ok(self.publish(writers, new, reserved, false).cookie)
    }

    /// Publishes a version, gives the turn up, wakes what waits, and retires the old version.
    fn publish(
        &self,
        mut writers: MutexGuard<'_, Writers>,
        mut new: Option<NewVersion<T>>,
        reserved: Option<Reserved<'_>>,
        wants_old: bool,
    ) -> Replaced<T> {
        // ORDERING: Relaxed, as in `current`.
        let number = self.number.load(Ordering::Relaxed) + 1;
        if let Some(new) = &mut new {
            new.head_mut().number = number;
        }
        let old = self.current();
        let place = new.map_or(std::ptr::null_mut(), |new| new.into_place().as_ptr());
        // ORDERING: Release, pairs with the Acquire in `find`: publishes the version.
        self.current.store(place, Ordering::Release);
        // ORDERING: Release, pairs with the Acquire in `number`.
        self.number.store(number, Ordering::Release);
        writers.turn = 0;
        let (wakers, is_waited_for) = (mem::take(&mut writers.wakers), writers.waiting > 0);
        drop(writers);
        if is_waited_for {
            self.changed.notify_all();
        }
        for (_, waker) in wakers {
            // A waker is the executor's code.
            contain(|| waker.wake());
        }
        let domain = self.domain().inner();
        let (Some(old), Some(reserved)) = (old, reserved) else {
            return Replaced { old: None, cookie: Cookie::over(domain) };
        };
        // SAFETY: V1 (only this thread has unlinked the version, and it still has the cell's reference).
        unsafe { old.head().as_ref() }.set_superseded();
        // SAFETY: the version still has the cell's reference (O1).
        let kept = wants_old.then(|| unsafe { Version::take(old) });
        // SAFETY: `current` does not lead to the version any more. The type of the value is `Send` and `Sync`, as the
        // bounds of the cells require. The place in the backlog is taken, and the lock is released.
        let number = unsafe { object::retire(old.object(), domain, reserved.use_up()) };
        Replaced { old: kept, cookie: Cookie::of_retired(domain, number) }
    }

    /// Waits until the number of the current version is not `since`. Returns the number.
    pub(super) fn wait_changed(&self, since: u64) -> u64 {
        self.wait_changed_until(since, None).expect("a wait without a deadline ends with a change")
    }

    /// As [`wait_changed`](Self::wait_changed), but at most for `timeout`.
    pub(super) fn wait_changed_timeout(&self, since: u64, timeout: Duration) -> Option<u64> {
        // (A time that the clock does not reach is no deadline.)
        self.wait_changed_until(since, Instant::now().checked_add(timeout))
    }

    fn wait_changed_until(&self, since: u64, deadline: Option<Instant>) -> Option<u64> {
        let mut writers = self.writers.lock();
        loop {
            let number = self.number();
            if number != since {
                return Some(number);
            }
            self.refuse_within_update(&writers);
            let timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if timeout.is_some_and(|timeout| timeout.is_zero()) {
                return None;
            }
            self.wait(&mut writers, timeout);
        }
    }

    /// As [`wait_changed`](Self::wait_changed), for a task, which does not block. `key` is that of the task's future, which has none before
    /// the first call.
    pub(super) fn poll_changed(&self, since: u64, key: &mut Option<u64>, waker: &Waker) -> Option<u64> {
        let number = self.number();
        if number != since {
            return Some(number);
        }
        // Wakers are cloned and dropped without the lock: they are the executor's code.
        let waker = waker.clone();
        let mut writers = self.writers.lock();
        let number = self.number();
        if number != since {
            drop(writers);
            return Some(number);
        }
        let key = *key.get_or_insert_with(|| {
            writers.next_key += 1;
            writers.next_key
        });
        let known = writers.wakers.iter_mut().find(|(known, _)| *known == key);
        let old = match known {
            Some((_, place)) => Some(mem::replace(place, waker)),
            None => {
                writers.wakers.push((key, waker));
                None
            }
        };
        drop(writers);
        drop(old);
        None
    }

    /// Forgets the waker of a future that is dropped.
    pub(super) fn forget_waker(&self, key: u64) {
        let mut writers = self.writers.lock();
        let found = writers.wakers.iter().position(|(known, _)| *known == key);
        let waker = found.map(|found| writers.wakers.swap_remove(found));
        drop(writers);
        drop(waker);
    }
}

impl<T: ?Sized> Drop for Raw<T> {
    fn drop(&mut self) {
        if let Some(place) = self.current() {
            // SAFETY: V1 (the version is not unlinked).
            unsafe { place.head().as_ref() }.set_superseded();
            // SAFETY: readers borrow the cell, so there are none. The version is not used again.
            unsafe { object::put_containers(place.object(), self.domain().inner()) };
        }
    }
}
