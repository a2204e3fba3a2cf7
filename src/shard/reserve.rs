//! Reservations of keys: the exclusive right to write a key, while the holder of the right runs code of the user outside
//! every lock.
//!
//! The holder enters the key in the [`Reservations`] of its shard, under the shard lock. It runs the user's code without
//! the lock. Then it ends the reservation: in the same hold of the lock in which it publishes the entry, or by a hold of
//! its own if it publishes nothing.
//!
//! A writer of a reserved key finds the reservation under the lock. It takes the reservation's [`Flight`], releases the
//! lock, and waits for the flight to land. Then it takes the lock again, and looks again: another writer may have been
//! faster. Writers that only remove an entry which they have found before (sweeps, evictions, removals by handle) do not
//! look for reservations.
//!
//! Readers ignore reservations.
//!
//! # Invariants
//!
//! - **K1** Of equal keys at most one is reserved. Only its holder takes a reservation out.
//! - **K2** While a shard has reservations, it has [`Special::RESERVED`], so that every write to it looks for them.
//! - **K3** A flight lands when the hold of the lock is over in which its reservation has ended: not under the lock, since
//!   the wakers of waiting tasks are code of the user, and before any other code of the user.
//! - **K4** Every [`reentrancy::enter`] for a shard's [marker](ShardRef::marker) is given a [`ReservationId`].
//! - **K5** While this crate holds a reservation of its own, it runs code of the user only within
//!   [`run_reserved`](ShardRef::run_reserved). So a write of the key from within that code panics, and does not wait for
//!   itself. (The user may hold a reservation while other code runs, as a lock.)

#![allow(unsafe_code)]

use crate::shard::ShardRef;
use crate::shard::locked::Locked;
use crate::shard::state::Special;
use crate::sync::{self, Condvar, Mutex};
use crate::util::check;
use crate::util::hasher::RandomState;
use crate::util::panics::contain;
use crate::util::reentrancy;
use std::collections::HashMap;
use std::ptr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// The reserved keys of a shard. The shard lock guards them.
pub(crate) struct Reservations<K> {
    /// By the half of the key's hash that a node keeps. Those of one hash are linked.
    by_hash: HashMap<u32, Reserved<K>, RandomState>,
    last: ReservationId,
}

/// The number of a reservation in its shard.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReservationId(u64);

struct Reserved<K> {
    id: ReservationId,
    /// The holder has the other reference.
    key: Arc<K>,
    /// The flight on which waiting writers wait, if there are any.
    flight: Option<Arc<Flight>>,
    /// Another reservation of the same hash.
    next: Option<Box<Reserved<K>>>,
}

impl<K> Reservations<K> {
    /// Returns whether no key is reserved.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_hash.is_empty()
    }

    fn new() -> Self {
        Reservations { by_hash: HashMap::default(), last: ReservationId(0) }
    }

    fn begin(&mut self, hash: u64, key: Arc<K>) -> ReservationId {
        self.last.0 += 1;
        let next = self.by_hash.remove(&(hash as u32)).map(Box::new);
        self.by_hash.insert(hash as u32, Reserved { id: self.last, key, flight: None, next });
        self.last
    }

    /// Finds the reservation of the key for which `is_key` holds. This is the `Eq` of a key.
    fn find(&mut self, hash: u64, mut is_key: impl FnMut(&K) -> bool) -> Option<&mut Reserved<K>> {
        let mut next = self.by_hash.get_mut(&(hash as u32));
        while let Some(reserved) = next {
            if check::eq(|| is_key(&reserved.key)) {
                return Some(reserved);
            }
            next = reserved.next.as_deref_mut();
        }
        None
    }

    /// Takes a reservation out. Does nothing if it has ended before.
    fn end(&mut self, hash: u64, id: ReservationId) -> Landing<K> {
        let mut first = self.by_hash.remove(&(hash as u32)).map(Box::new);
        let mut place = &mut first;
        while place.as_ref().is_some_and(|reserved| reserved.id != id) {
            place = &mut place.as_mut().expect("checked in the condition of the loop").next;
        }
        let mut landing = Landing::default();
        if let Some(reserved) = place.take() {
            let Reserved { key, flight, next, .. } = *reserved;
            landing = Landing { flight, key: Some(key) };
            *place = next;
        }
        if let Some(first) = first {
            self.by_hash.insert(hash as u32, *first);
        }
        landing
    }
}

/// What the writers that wait for a reservation wait for: its end.
pub(crate) struct Flight {
    state: Mutex<Waiting>,
    landed: Condvar,
}

struct Waiting {
    has_landed: bool,
    /// Of the tasks that wait, each with its number.
    wakers: Vec<(u64, Waker)>,
    last: u64,
}

impl Flight {
    fn new() -> Self {
        let state = Waiting { has_landed: false, wakers: Vec::new(), last: 0 };
        Flight { state: Mutex::new(state), landed: Condvar::new() }
    }

    fn wait(&self) {
        let mut state = self.state.lock();
        while !state.has_landed {
            sync::wait(&self.landed, &mut state);
        }
    }

    /// Waits for at most `timeout`. Returns whether the flight has landed.
    fn wait_for(&self, timeout: Duration) -> bool {
        let since = Instant::now();
        let mut state = self.state.lock();
        while !state.has_landed {
            let left = timeout.saturating_sub(since.elapsed());
            if left.is_zero() {
                return false;
            }
            sync::wait_for(&self.landed, &mut state, left);
        }
        true
    }

    /// Wakes all waiters. One of them becomes the next holder, if the key is still to be written.
    fn land(&self) {
        let mut state = self.state.lock();
        state.has_landed = true;
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        self.landed.notify_all();
        // A panic of one executor does not keep the other tasks asleep.
        wakers.into_iter().for_each(|(_, waker)| _ = contain(|| waker.wake()));
    }

    /// Returns whether the flight has landed. If not, has the task of `context` woken when it does. `number` is the task's
    /// own: `None` at first.
    fn poll(&self, number: &mut Option<u64>, context: &Context<'_>) -> Poll<()> {
        // Wakers are cloned and dropped without the lock: they are the executor's code.
        let waker = context.waker().clone();
        let mut state = self.state.lock();
        if state.has_landed {
            drop(state);
            return Poll::Ready(());
        }
        let mine = *number.get_or_insert_with(|| {
            state.last += 1;
            state.last
        });
        let old =
            state.wakers.iter().position(|(other, _)| *other == mine).map(|index| state.wakers.swap_remove(index));
        state.wakers.push((mine, waker));
        drop(state);
        drop(old);
        Poll::Pending
    }

    fn forget(&self, number: u64) {
        let mut state = self.state.lock();
        let old =
            state.wakers.iter().position(|(other, _)| *other == number).map(|index| state.wakers.swap_remove(index));
        drop(state);
        drop(old);
    }
}

/// What is left of a reservation that has ended. When this is dropped, the flight lands (K3).
pub(crate) struct Landing<K> {
    /// The flight on which waiting writers wait, if there are any.
    flight: Option<Arc<Flight>>,
    /// The shard's reference to the key. It may be the last, and drop the key: code of the user.
    pub(crate) key: Option<Arc<K>>,
}

impl<K> Default for Landing<K> {
    fn default() -> Self {
        Landing { flight: None, key: None }
    }
}

impl<K> Drop for Landing<K> {
    fn drop(&mut self) {
        if let Some(flight) = &self.flight {
            flight.land();
        }
    }
}

/// A reservation of another writer, which the caller waits for.
pub(crate) struct Blocker {
    flight: Arc<Flight>,
    id: ReservationId,
    /// The address of the shard's marker.
    marker: usize,
    /// The number of the waiting task, once it has one.
    number: Option<u64>,
}

impl Blocker {
    /// Returns whether the calling thread is within the code for which the key is reserved: it would wait for itself.
    fn is_own(&self) -> bool {
        // SAFETY: K4 (every `enter` for the marker is given a `ReservationId`).
        unsafe { reentrancy::find::<ReservationId>(ptr::without_provenance(self.marker), |id| *id == self.id) }
    }

    /// Checks that the calling thread would not wait for itself.
    #[track_caller]
    fn check(&self) {
        assert!(
            !self.is_own(),
            "a write of a key from within code for which the registry has reserved that key: it would wait for itself"
        );
    }

    /// Waits until the reservation has ended.
    ///
    /// # Panics
    ///
    /// If the calling thread is within the code for which the key is reserved.
    #[track_caller]
    pub(crate) fn wait(self) {
        self.check();
        self.flight.wait();
    }

    /// Waits until the reservation has ended, but for at most `timeout`. Returns whether it has ended. Panics as
    /// [`wait`](Self::wait) does.
    #[track_caller]
    pub(crate) fn wait_for(self, timeout: Duration) -> bool {
        self.check();
        self.flight.wait_for(timeout)
    }

    /// Waits until the reservation has ended, as a task. Panics as [`wait`](Self::wait) does.
    pub(crate) fn poll(&mut self, context: &Context<'_>) -> Poll<()> {
        self.check();
        self.flight.poll(&mut self.number, context)
    }
}

impl Drop for Blocker {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.flight.forget(number);
        }
    }
}

impl<'s, K, V> ShardRef<'s, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Returns what identifies the calls of [`run_reserved`](Self::run_reserved) for this shard.
    fn marker(self) -> *const () {
        ptr::from_ref(&self.shard().waits).cast()
    }

    /// Reserves a key for the caller, unless it is reserved. A caller that gets [`Blocker`] waits, and tries again.
    pub(crate) fn reserve(self, hash: u64, key: &Arc<K>) -> Result<ReservationId, Blocker>
    where
        K: Eq,
    {
        let mut locked = self.lock();
        if let Some(blocker) = locked.blocker(hash, |reserved| *reserved == **key) {
            return Err(blocker);
        }
        let reservations = locked.reservations.get_or_insert_with(|| Box::new(Reservations::new()));
        let id = reservations.begin(hash, Arc::clone(key));
        locked.special.set(Special::RESERVED, true);
        Ok(id)
    }

    /// Ends a reservation without a write, unless it has ended before.
    pub(crate) fn release(self, hash: u64, id: ReservationId) {
        self.lock().end_reservation(hash, id);
    }

    /// Runs the code for which a key is reserved. A request for the same key from within that code panics.
    pub(crate) fn run_reserved<R>(self, id: ReservationId, f: impl FnOnce() -> R) -> R {
        reentrancy::enter(self.marker(), &id, f)
    }
}

/// Ends a reservation when this is dropped, unless it has ended before: also by a panic.
pub(crate) struct Ending<'s, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    pub(crate) shard: ShardRef<'s, K, V>,
    pub(crate) hash: u64,
    pub(crate) id: ReservationId,
}

impl<K, V> Drop for Ending<'_, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn drop(&mut self) {
        self.shard.release(self.hash, self.id);
    }
}

impl<K, V> Locked<'_, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Returns the reservation of the key for which `is_key` holds, to wait for it.
    fn blocker(&mut self, hash: u64, is_key: impl FnMut(&K) -> bool) -> Option<Blocker> {
        let marker = self.shard.marker().addr();
        let reserved = self.reservations.as_mut()?.find(hash, is_key)?;
        let flight = Arc::clone(reserved.flight.get_or_insert_with(|| Arc::new(Flight::new())));
        Some(Blocker { flight, id: reserved.id, marker, number: None })
    }

    /// Returns the reservation for which a write of the key has to wait. The caller releases the lock before it waits.
    ///
    /// A write from within the code for which the key is reserved does not wait if that code has panicked: the drops of
    /// its locals may write. (The reservation ends without a write.)
    #[cold]
    pub(crate) fn must_wait(&mut self, hash: u64, is_key: impl FnMut(&K) -> bool) -> Option<Blocker> {
        self.blocker(hash, is_key).filter(|blocker| !(std::thread::panicking() && blocker.is_own()))
    }

    /// Ends a reservation, unless it has ended before. Its flight lands when the lock is released (K3).
    pub(crate) fn end_reservation(&mut self, hash: u64, id: ReservationId) {
        let Some(reservations) = &mut self.reservations else { return };
        let landing = reservations.end(hash, id);
        if reservations.is_empty() && reservations.by_hash.capacity() > SPARE {
            reservations.by_hash = HashMap::default();
        }
        debug_assert!(self.landing.is_none(), "one hold of the lock ends one reservation");
        self.landing = Some(landing);
        // The release of the lock must look for what has landed, and then clears this.
        self.special.set(Special::RESERVED, true);
    }

    /// Ends a reservation whose entry is about to be published. Returns the key.
    pub(crate) fn end_to_publish(&mut self, hash: u64, id: ReservationId, key: Arc<K>) -> K {
        self.end_reservation(hash, id);
        // This is not the last reference, so it does not drop the key under the lock.
        self.landing.as_mut().expect("the reservation that has just ended").key = None;
        Arc::into_inner(key).expect("the reservation has ended, so the key has one owner")
    }
}

/// A shard without reservations keeps room for this many.
const SPARE: usize = 64;
