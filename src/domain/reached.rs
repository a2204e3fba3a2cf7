//! The end of a grace period as a future.

use super::backlog::Backlog;
use super::reclaim::Awaited;
use super::state::Callback;
use super::{Cookie, Domain, Inner};
use crate::sync::{Arc, Mutex};
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

/// The waker of a future, which a callback takes after a grace period.
struct Waiter(Mutex<State>);

enum State {
    Waiting(Waker),
    /// The callback has run.
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
    fn wake(&self) {
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
