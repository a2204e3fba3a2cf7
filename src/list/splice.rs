//! Moving the entries of one list to the end of another.

use super::links::{Chain, Links};
use super::walk::{Forward, Walk};
use crate::domain::Cookie;
use std::fmt;

/// Entries that have left one list and are to join another, from [`RcuList::splice_back`](super::RcuList::splice_back).
///
/// In between they are in neither list: operations with their handles say so. Readers that were among the entries when the
/// splice began still are. They reach the end of the entries as they would have in the first list. [Finish](Self::finish)
/// the splice when they are gone. If it is dropped before, the entries are put back, at the front of the list that they
/// came from.
///
/// If it is [forgotten](std::mem::forget), the entries leak.
#[must_use = "the entries are put back where they came from if the splice is dropped"]
pub struct Splice<'l, T: Send + Sync + 'static, D: Walk = Forward> {
    from: &'l Links<T, D>,
    into: &'l Links<T, D>,
    /// `None` if the list was empty, or the splice is finished.
    chain: Option<Chain<T>>,
    /// The grace period that began when the entries had left.
    cookie: Cookie,
}

impl<'l, T: Send + Sync + 'static, D: Walk> Splice<'l, T, D> {
    /// Begins a splice: takes all entries out of `from`.
    ///
    /// # Panics
    ///
    /// If the lists are in different domains.
    pub(super) fn begin(from: &'l Links<T, D>, into: &'l Links<T, D>) -> Self {
        assert!(from.has_domain_of(into), "a splice between lists of different domains");
        let chain = from.detach();
        let domain = from.domain();
        let cookie = if chain.is_some() { domain.start_poll() } else { Cookie::over(domain.inner()) };
        Splice { from, into, chain, cookie }
    }

    /// Returns the grace period that ends when no reader of the first list is among the entries any more. Wait for it with
    /// [`Domain::wait`](crate::Domain::wait), or in a task with [`Domain::reached`](crate::Domain::reached).
    ///
    /// ```
    /// use epoch_registry::RcuList;
    /// # use std::pin::pin;
    /// # use std::task::{Context, Waker};
    ///
    /// # let task = async {
    /// let (list, other) = (RcuList::from([1, 2]), RcuList::from([3, 4]));
    /// let splice = list.splice_back(&other);
    /// list.domain().reached(splice.cookie()).await;
    /// assert_eq!(splice.finish(), 2); // at once
    /// # };
    /// # let mut task = pin!(task);
    /// # while task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {}
    /// ```
    pub fn cookie(&self) -> Cookie {
        self.cookie
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.chain.as_ref().map_or(0, Chain::len)
    }

    /// Returns whether there are no entries to move: the list was empty.
    pub fn is_empty(&self) -> bool {
        self.chain.is_none()
    }

    /// Links the entries to the end of the second list if no reader is in the way any more. Returns the number of entries,
    /// or the splice.
    ///
    /// # Errors
    ///
    /// Returns the splice if the grace period is not over.
    ///
    /// # Progress
    ///
    /// Does not wait for readers. Takes the lock of the second list for a few stores, and one for each entry.
    pub fn try_finish(self) -> Result<usize, Self> {
        match self.from.domain().poll(self.cookie) {
            true => Ok(self.link()),
            false => Err(self),
        }
    }

    /// Waits until no reader is in the way any more, and links the entries to the end of the second list. Returns the number
    /// of entries.
    ///
    /// # Progress
    ///
    /// Blocks for as long as the slowest reader stays in its critical section.
    ///
    /// # Panics
    ///
    /// Where [`Domain::wait`](crate::Domain::wait) does. Then the entries are put back.
    pub fn finish(self) -> usize {
        if !self.is_empty() {
            self.from.domain().wait(self.cookie);
        }
        self.link()
    }

    /// Links the entries. The grace period is over.
    fn link(mut self) -> usize {
        let Some(chain) = self.chain.take() else { return 0 };
        // SAFETY: the lists are in one domain, as `begin` has checked, and the callers have seen the end of a grace period
        // that has begun after the chain left.
        #[allow(unsafe_code)]
        unsafe {
            self.into.attach_back(chain)
        }
    }
}

impl<T: Send + Sync + 'static, D: Walk> Drop for Splice<'_, T, D> {
    fn drop(&mut self) {
        if let Some(chain) = self.chain.take() {
            self.from.put_back(chain);
        }
    }
}

impl<T: Send + Sync + 'static, D: Walk> fmt::Debug for Splice<'_, T, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Splice").field("len", &self.len()).field("cookie", &self.cookie).finish()
    }
}
