//! Waits as futures: for the end of a grace period, and for a barrier.

use super::backlog::Backlog;
use super::polls::Awaited;
use super::state::Callback;
use super::{Cookie, Domain, Inner};
use crate::sync::{Arc, Mutex};
use crate::util::reentrancy::shard_locked;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Completes when a grace period is over: see [`Domain::reached`].
#[must_use = "futures do nothing unless they are polled"]
pub struct Reached {
    domain: Domain,
    awaited: Awaited,
    /// What the callback of this future wakes. `None` until the first poll that finds the grace period open.
    waiter: Option<Arc<Waiter>>,
}

/// Completes when everything that was retired before is destroyed: see [`Domain::barrier_async`].
#[must_use = "futures do nothing unless they are polled"]
pub struct BarrierFuture {
    domain: Domain,
    /// The ticket up to which everything must be destroyed.
    target: u64,
    waiter: Option<Arc<Waiter>>,
}

/// The waker of a future, which the thread that ends the wait takes.
pub(super) struct Waiter(Mutex<State>);

enum State {
    Waiting(Waker),
    /// The wait is over.
    Over,
}

impl Domain {
    /// Returns a future that completes when the grace period of `cookie` is over. It may be dropped at any time.
    ///
    /// ```
    /// use epoch_registry::{Domain, RcuCell};
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
    /// let cell = RcuCell::new("old");
    /// let cookie = cell.store("new");
    /// block_on(async {
    ///     cell.domain().reached(cookie).await;
    ///     // No reader has "old" any more.
    /// });
    /// ```
    ///
    /// # Progress
    ///
    /// A poll takes short locks. The task is woken by a callback, on the thread that runs the domain's callbacks: see
    /// [who reclaims](Self#who-reclaims). In a domain with neither a thread nor an executor, a write or a call of
    /// [`reclaim`](Self::reclaim) must run it.
    ///
    /// A task that is in a critical section of the domain while it waits would wait for itself, without end.
    ///
    /// # Panics
    ///
    /// If the cookie is of another domain.
    pub fn reached(&self, cookie: Cookie) -> Reached {
        Reached { domain: self.clone(), awaited: self.awaited(cookie), waiter: None }
    }
}

impl Domain {
    /// Returns a future that completes when every critical section that is open now has closed:
    /// [`synchronize`](Self::synchronize) as a future. It may be dropped at any time.
    ///
    /// # Progress
    ///
    /// As [`reached`](Self::reached).
    pub fn synchronize_async(&self) -> Reached {
        self.reached(self.start_poll())
    }

    /// Returns a future that completes when everything that any thread retired, or gave to [`call`](Self::call), before
    /// this call has been destroyed or run: [`barrier`](Self::barrier) as a future. It may be dropped at any time.
    ///
    /// ```
    /// use epoch_registry::{Domain, Registry};
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
    /// let registry = Registry::new();
    /// registry.insert(1, "one");
    /// registry.remove(&1);
    /// block_on(registry.domain().barrier_async());
    /// assert_eq!(registry.stats().freed, 1);
    /// ```
    ///
    /// # Progress
    ///
    /// This call takes the locks of shards for a moment, as [`reclaim`](Self::reclaim). A poll takes short locks, and
    /// destroys nothing. The task is woken by the thread that destroys the last of the objects: see
    /// [who reclaims](Self#who-reclaims). In a domain with neither a thread nor an executor, writes or calls of
    /// [`reclaim`](Self::reclaim) must destroy them.
    ///
    /// A task that is in a critical section of the domain while it waits would wait for itself, without end.
    ///
    /// # Panics
    ///
    /// In the `Eq` of a key, which runs under a shard lock.
    pub fn barrier_async(&self) -> BarrierFuture {
        let name = self.name();
        assert!(
            !shard_locked(),
            "barrier_async on domain `{name}` within the `Eq` of a key, which runs under a shard lock"
        );
        BarrierFuture { domain: self.clone(), target: self.inner().barrier_target(), waiter: None }
    }
}

impl Future for BarrierFuture {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        // Wakers are cloned and dropped without a lock: they are the executor's code.
        let waker = context.waker().clone();
        let waiter = this.waiter.get_or_insert_with(|| Arc::new(Waiter(Mutex::new(State::Over))));
        let old = std::mem::replace(&mut *waiter.0.lock(), State::Waiting(waker));
        drop(old);
        match this.domain.inner().poll_barrier(this.target, waiter) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl Drop for BarrierFuture {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter.take() {
            self.domain.inner().forget_waiter(&waiter);
        }
    }
}

impl fmt::Debug for BarrierFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BarrierFuture").field("domain", &self.domain.name()).finish_non_exhaustive()
    }
}

impl Future for Reached {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let domain: &Inner = this.domain.inner();
        if domain.poll_awaited(this.awaited) {
            return Poll::Ready(());
        }
        let waker = context.waker().clone();
        let Some(waiter) = &this.waiter else {
            let waiter = Arc::new(Waiter(Mutex::new(State::Waiting(waker))));
            this.waiter = Some(Arc::clone(&waiter));
            // The grace period of the callback begins later than the awaited one, so it ends later.
            let amount = Backlog::one(0);
            domain.budget.charge_unchecked(amount);
            domain.push_call(Callback::new(move || waiter.wake(), amount));
            return Poll::Pending;
        };
        let mut state = waiter.0.lock();
        if matches!(*state, State::Over) {
            drop(state);
            return Poll::Ready(());
        }
        let old = std::mem::replace(&mut *state, State::Waiting(waker));
        // Wakers are the executor's code: they are dropped and called without the lock.
        drop(state);
        drop(old);
        Poll::Pending
    }
}

impl Waiter {
    pub(super) fn wake(&self) {
        let before = std::mem::replace(&mut *self.0.lock(), State::Over);
        if let State::Waiting(waker) = before {
            waker.wake();
        }
    }
}

impl fmt::Debug for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reached").field("domain", &self.domain.name()).finish_non_exhaustive()
    }
}
