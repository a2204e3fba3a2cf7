//! Open critical sections, as the reads of other modules are given them.

use super::{DomainGuard, Inner, Session};
use std::fmt;

/// An open critical section of a domain: what a read needs in order to borrow.
///
/// | type | from |
/// |---|---|
/// | [`DomainGuard`] | [`Domain::pin`](crate::Domain::pin), [`Session::pin`] |
/// | [`Section`] | [`Session::section`] |
/// | [`Guard`](crate::Guard) | [`Registry::pin`](crate::Registry::pin) |
///
/// One section serves any number of registries, cells and lists of its domain. What is read in it cannot outlive it.
///
/// The trait is sealed: only the types above implement it.
pub trait CriticalSection: Sealed {}

/// The methods of [`CriticalSection`], which only this crate calls.
pub trait Sealed {
    /// Returns the domain of which this is an open critical section.
    #[doc(hidden)]
    #[allow(private_interfaces)]
    fn domain(&self) -> &Inner;
}

/// The critical section of an online [`Session`], from [`Session::section`].
///
/// It costs nothing: the session is in a critical section anyway. The section ends with the next quiescent state of the
/// session, and the borrow of the session excludes that.
///
/// ```compile_fail,E0499
/// let mut session = epoch_registry::Domain::new().session();
/// let first = session.section();
/// let second = session.section(); // a quiescent state: the first section ends here ...
/// drop((first, second)); // ... and must not be used here
/// ```
#[derive(Clone, Copy)]
pub struct Section<'s> {
    session: &'s Session,
}

impl Session {
    /// Announces a quiescent state if one was requested, and returns the critical section that lasts until the next
    /// one. It needs no fence.
    ///
    /// ```
    /// use epoch_registry::{Domain, RcuCell, Registry};
    ///
    /// let domain = Domain::new();
    /// let users = Registry::builder().domain(domain.clone()).build();
    /// let limit = RcuCell::new_in(100, &domain);
    /// users.insert("ada", 7);
    ///
    /// let mut session = domain.session();
    /// let section = session.section();
    /// let users = users.view(&section).unwrap();
    /// assert!(*users.get("ada").unwrap() < *limit.read(&section));
    /// ```
    ///
    /// # Progress
    ///
    /// Wait-free.
    #[inline]
    pub fn section(&mut self) -> Section<'_> {
        self.quiescent();
        Section { session: self }
    }
}

impl CriticalSection for Section<'_> {}

#[allow(private_interfaces)]
impl Sealed for Section<'_> {
    #[inline]
    fn domain(&self) -> &Inner {
        self.session.domain().inner()
    }
}

impl fmt::Debug for Section<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Section").field("session", self.session).finish()
    }
}

impl CriticalSection for DomainGuard<'_> {}

#[allow(private_interfaces)]
impl Sealed for DomainGuard<'_> {
    #[inline]
    fn domain(&self) -> &Inner {
        self.domain
    }
}
