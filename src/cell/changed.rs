//! The future of a cell's next version.

use super::raw::Raw;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Completes when a cell has a new version: see [`RcuCell::changed`](super::RcuCell::changed).
///
/// ```
/// use epoch_registry::RcuCell;
/// use std::pin::pin;
/// use std::task::{Context, Poll, Waker};
///
/// let cell = RcuCell::new(1);
/// let mut changed = pin!(cell.changed(cell.version()));
/// let mut context = Context::from_waker(Waker::noop());
/// assert!(changed.as_mut().poll(&mut context).is_pending());
/// cell.store(2);
/// assert_eq!(changed.poll(&mut context), Poll::Ready(1));
/// ```
#[must_use = "futures do nothing unless they are polled"]
pub struct Changed<'c, T: ?Sized + 'static> {
    raw: &'c Raw<T>,
    since: u64,
    /// The key of the waker that the cell has of this future.
    key: Option<u64>,
}

impl<'c, T: ?Sized> Changed<'c, T> {
    pub(super) fn new(raw: &'c Raw<T>, since: u64) -> Self {
        Changed { raw, since, key: None }
    }
}

impl<T: ?Sized> Future for Changed<'_, T> {
    type Output = u64;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<u64> {
        let this = &mut *self;
        match this.raw.poll_changed(this.since, &mut this.key, context.waker()) {
            Some(number) => Poll::Ready(number),
            None => Poll::Pending,
        }
    }
}

impl<T: ?Sized> Drop for Changed<'_, T> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.raw.forget_waker(key);
        }
    }
}

impl<T: ?Sized> fmt::Debug for Changed<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changed").field("since", &self.since).finish_non_exhaustive()
    }
}
