//! References that threads count apart while their object is live, after the kernel's `percpu_ref`.
//!
//! - `shared`: the count, and how it changes from many counts to one
//! - `live`: the guard of one reference

mod live;
mod shared;

pub use live::LiveRef;

use self::shared::Shared;
use crate::domain::{CriticalSection, Domain};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A count of the references to something that lives long, is used by many threads at once, and ends once: a service, a
/// device, a mount, a connection pool.
///
/// It is the kernel's `percpu_ref` (Linux, `lib/percpu-refcount.c`), with threads in place of processors. While it is
/// live, a reference is taken and put by a plain store to the thread's own cache line. [`kill`](Self::kill) ends that:
///
/// | | `try_get_live` | counted | zero is |
/// |---|---|---|---|
/// | live | succeeds | by each thread for itself | not looked for |
/// | killed, within one grace period | fails | by each thread, or in one atomic | not looked for |
/// | killed, draining | fails | in one atomic | found by the last `put` |
/// | drained | fails | | reached: `is_zero`, `wait_zero`, the release callback |
///
/// ```
/// use epoch_registry::{Domain, PercpuRef};
/// use std::time::Duration;
///
/// let service = PercpuRef::new(&Domain::new());
///
/// // A request: refused once the service is killed.
/// let request = service.try_get_live().expect("the service is live");
///
/// service.kill();
/// assert!(service.try_get_live().is_none());
/// assert!(!service.wait_zero(Duration::from_millis(1))); // one request is in flight
///
/// drop(request);
/// assert!(service.wait_zero(Duration::from_secs(10)));
/// ```
///
/// The example `drain` of the repository drains a service with worker threads.
///
/// # Guards and counts
///
/// [`try_get_live`](Self::try_get_live) returns a [`LiveRef`], which puts its reference when it is dropped. It may be
/// dropped by another thread. [`get`](Self::get) and [`put`](Self::put) are the plain counts of the kernel, for
/// references that outlive every borrow of the `PercpuRef`: forget the guard ([`std::mem::forget`]), and `put` later.
///
/// A `put` without a reference makes the count reach zero too soon. Then the release callback runs while references are
/// left, and the surplus puts are logged as an error when they are noticed. No memory of the crate depends on the count.
///
/// # Cost
///
/// | | live | killed |
/// |---|---|---|
/// | `get_in`, `try_get_live_in`, `put_in` | a load, and a plain load and store | one atomic addition |
/// | `get`, `try_get_live`, `put`, the drop of a `LiveRef` | a pin more | a pin more |
///
/// The forms that end in `_in` are for callers that are in a critical section of the domain anyway. With a
/// [`Section`](crate::Section) of a session they need no fence.
///
/// A `PercpuRef` takes 16 bytes in the block of each thread, as a [`Counter`](crate::Counter). It is for objects of which
/// a program has few.
///
/// # Progress of the domain
///
/// A kill takes effect for good after a grace period of the domain. So a reader that stays in its critical section holds
/// up `kill_and_confirm`, `wait_zero` and the release callback. In a domain that has neither a thread nor an executor, a
/// write, [`Domain::reclaim`] or [`wait_zero`](Self::wait_zero) must move it on. Until then the kill keeps the domain from
/// being torn down. [`Domain::barrier`] covers kills before it, with their confirmations, and the release callback if no
/// reference was left.
pub struct PercpuRef {
    shared: Arc<Shared>,
}

impl PercpuRef {
    /// Returns a live count without references. Its grace periods are those of `domain`.
    pub fn new(domain: &Domain) -> PercpuRef {
        PercpuRef { shared: Arc::new(Shared::new(domain.clone(), None)) }
    }

    /// Returns a live count without references. Its grace periods are those of `domain`.
    ///
    /// `release` runs once for each [`kill`](Self::kill), after the last reference has been put:
    ///
    /// - It runs where destructors of the domain run, under no lock, and never within [`put`](Self::put).
    /// - A panic in it is contained, and counted in `DomainStats::callback_panics`.
    /// - All that was done with a reference, until it was put, happens before it.
    /// - It does not run if the count is resurrected while a reference is left, or dropped without a kill.
    ///
    /// ```
    /// use epoch_registry::{Domain, PercpuRef};
    /// use std::sync::mpsc;
    ///
    /// let (send, ended) = mpsc::channel();
    /// let domain = Domain::new();
    /// let device = PercpuRef::with_release(&domain, move || send.send("the device has no users").unwrap());
    /// let user = device.try_get_live();
    /// device.kill();
    /// drop(user);
    /// assert_eq!(ended.recv().unwrap(), "the device has no users");
    /// ```
    pub fn with_release(domain: &Domain, release: impl Fn() + Send + Sync + 'static) -> PercpuRef {
        PercpuRef { shared: Arc::new(Shared::new(domain.clone(), Some(Box::new(release)))) }
    }

    /// Returns the domain whose grace periods a kill waits for.
    pub fn domain(&self) -> &Domain {
        self.shared.domain()
    }

    /// Takes a reference, unless the count was killed. (The kernel's `percpu_ref_tryget_live`.)
    ///
    /// If it fails, all that the killer did before the kill happens before the return.
    ///
    /// A reference ends before the `PercpuRef` does:
    ///
    /// ```compile_fail,E0505
    /// use epoch_registry::{Domain, PercpuRef};
    ///
    /// let service = PercpuRef::new(&Domain::new());
    /// let request = service.try_get_live();
    /// drop(service);
    /// drop(request); // the service is gone
    /// ```
    ///
    /// # Progress
    ///
    /// Wait-free, except that the thread's first pin in the domain, and its first count, each take a short lock.
    #[inline]
    pub fn try_get_live(&self) -> Option<LiveRef<'_>> {
        self.try_get_live_in(&self.domain().pin())
    }

    /// Takes a reference as [`try_get_live`](Self::try_get_live) does, within a critical section of the caller's, and so
    /// without a pin.
    ///
    /// ```
    /// use epoch_registry::{Domain, PercpuRef};
    ///
    /// let domain = Domain::new();
    /// let service = PercpuRef::new(&domain);
    /// let mut session = domain.session();
    /// let request = service.try_get_live_in(&session.section()).expect("the service is live");
    /// request.put_in(&session.section()); // a drop would pin
    /// ```
    ///
    /// # Panics
    ///
    /// If the section is of another domain.
    ///
    /// # Progress
    ///
    /// As [`get_in`](Self::get_in).
    #[inline]
    pub fn try_get_live_in(&self, section: &impl CriticalSection) -> Option<LiveRef<'_>> {
        self.check(section);
        self.shared.try_get_live().then(|| LiveRef::new(self))
    }

    /// Takes a reference, also after a kill. (The kernel's `percpu_ref_get`.) The caller has a reference already, so that
    /// the count cannot reach zero meanwhile. A [`put`](Self::put) must follow.
    ///
    /// A caller without a reference uses [`try_get_live`](Self::try_get_live). If it calls this after zero was reached,
    /// nothing is undone: the release callback has run or will run.
    ///
    /// # Progress
    ///
    /// As [`try_get_live`](Self::try_get_live).
    #[inline]
    pub fn get(&self) {
        self.get_in(&self.domain().pin());
    }

    /// Takes a reference as [`get`](Self::get) does, within a critical section of the caller's, and so without a pin.
    ///
    /// # Panics
    ///
    /// If the section is of another domain.
    ///
    /// # Progress
    ///
    /// Wait-free, except that the thread's first count takes a short lock.
    #[inline]
    pub fn get_in(&self, section: &impl CriticalSection) {
        self.check(section);
        self.shared.get();
    }

    /// Puts a reference from [`get`](Self::get), or of a guard that was forgotten. (The kernel's `percpu_ref_put`.) Any
    /// thread may put it.
    ///
    /// # Progress
    ///
    /// Wait-free as [`try_get_live`](Self::try_get_live), except for the last one after a kill. That one takes a short
    /// lock, wakes waiters, and queues the release callback, for which it may wake the domain's thread or call its
    /// executor's `spawn`. It never runs the callback itself.
    #[inline]
    pub fn put(&self) {
        self.put_in(&self.domain().pin());
    }

    /// Puts a reference as [`put`](Self::put) does, within a critical section of the caller's, and so without a pin.
    ///
    /// # Panics
    ///
    /// If the section is of another domain.
    ///
    /// # Progress
    ///
    /// As [`put`](Self::put), without a pin.
    #[inline]
    pub fn put_in(&self, section: &impl CriticalSection) {
        self.check(section);
        Shared::put(&self.shared);
    }

    #[inline]
    fn check(&self, section: &impl CriticalSection) {
        let is_ours = std::ptr::eq(section.domain(), self.domain().inner());
        assert!(is_ours, "a critical section of another domain than the reference count's");
    }

    /// Ends the life of the count: [`try_get_live`](Self::try_get_live) fails from now on, in each thread that sees the
    /// kill. After a grace period, which ends the calls that have not seen it, the counts of all threads are added up, and
    /// the last [`put`](Self::put) finds zero. (The kernel's `percpu_ref_kill`.)
    ///
    /// Returns whether the count was live. If it was not, the call does nothing.
    ///
    /// # Progress
    ///
    /// Takes a short lock, and queues a callback in the domain, for which it may wake the domain's thread or call its
    /// executor's `spawn`. Waits for no reader.
    pub fn kill(&self) -> bool {
        Shared::kill(&self.shared, None)
    }

    /// Kills the count as [`kill`](Self::kill) does, and calls `f` when no [`try_get_live`](Self::try_get_live) of any
    /// thread can succeed any more: after a grace period, unless the count was resurrected before. (The kernel's
    /// `percpu_ref_kill_and_confirm`.)
    ///
    /// - `f` runs where destructors of the domain run, under no lock. References may be left.
    /// - A panic in `f` is contained, and counted in `DomainStats::callback_panics`.
    /// - `f` runs before the release callback of the same kill.
    /// - If the count was not live, or is [resurrected](Self::resurrect) first, `f` is dropped without being called.
    ///
    /// Returns whether the count was live.
    ///
    /// ```
    /// use epoch_registry::{Domain, PercpuRef};
    /// use std::sync::mpsc;
    ///
    /// let service = PercpuRef::new(&Domain::new());
    /// let request = service.try_get_live().unwrap();
    /// let (send, confirmed) = mpsc::channel();
    /// service.kill_and_confirm(move || send.send(()).unwrap());
    /// confirmed.recv().unwrap();
    /// // No new request from here on. The old ones may go on.
    /// assert!(!service.is_zero());
    /// drop(request);
    /// assert!(service.is_zero());
    /// ```
    ///
    /// # Progress
    ///
    /// As [`kill`](Self::kill).
    pub fn kill_and_confirm(&self, f: impl FnOnce() + Send + 'static) -> bool {
        Shared::kill(&self.shared, Some(Box::new(f)))
    }

    /// Makes a killed count live again. References that are left stay valid. (The kernel's `percpu_ref_resurrect`. If
    /// none is left, that is also its `percpu_ref_reinit`.)
    ///
    /// If the grace period of the kill is not over, the kill is called off. The kernel waits for it instead.
    ///
    /// Returns whether the count was killed. If it was not, the call does nothing.
    ///
    /// ```
    /// use epoch_registry::{Domain, PercpuRef};
    /// use std::time::Duration;
    ///
    /// let queue = PercpuRef::new(&Domain::new());
    /// queue.kill(); // freeze the queue
    /// assert!(queue.wait_zero(Duration::from_secs(10)));
    /// queue.resurrect(); // its settings are changed: go on
    /// assert!(queue.try_get_live().is_some());
    /// ```
    ///
    /// # Progress
    ///
    /// As [`kill`](Self::kill).
    pub fn resurrect(&self) -> bool {
        Shared::resurrect(&self.shared)
    }

    /// Returns whether the count was killed, and not resurrected since. (The kernel's `percpu_ref_is_dying`.)
    ///
    /// # Progress
    ///
    /// Wait-free.
    pub fn is_dying(&self) -> bool {
        self.shared.is_killed()
    }

    /// Returns whether zero was reached: the count was killed, the grace period is over, and no reference is left. (The
    /// kernel's `percpu_ref_is_zero`.) If so, all that was done with a reference, until it was put, happens before the
    /// return.
    ///
    /// # Progress
    ///
    /// Wait-free.
    pub fn is_zero(&self) -> bool {
        self.shared.is_zero()
    }

    /// Waits until zero is reached after a kill, but at most for `timeout`. Returns whether it was reached. If so, all
    /// that was done with a reference, until it was put, happens before the return. The release callback may run later.
    ///
    /// Returns false at once while the count is live, and when another thread resurrects it. `Duration::MAX` waits without
    /// a limit.
    ///
    /// # Progress
    ///
    /// Blocks for the grace period of the kill, and until the last reference is put. Within the grace period the caller
    /// reclaims in the domain: it runs destructors that are ready.
    ///
    /// # Panics
    ///
    /// As [`Domain::synchronize`]: in a critical section of the domain, in a destructor or callback, in the `Eq` of a key.
    pub fn wait_zero(&self, timeout: Duration) -> bool {
        self.domain().refuse_to_wait("wait_zero");
        self.shared.wait_zero(Instant::now().checked_add(timeout))
    }
}

/// Panics of the release callback are contained, and leave the count in a valid state.
impl std::panic::RefUnwindSafe for PercpuRef {}
impl std::panic::UnwindSafe for PercpuRef {}

impl fmt::Debug for PercpuRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}
