//! A cell that may be empty.

use super::raw::{NotWritten, Raw};
use super::{Changed, NewVersion, Superseded, Version};
use crate::domain::{Cookie, CriticalSection, Domain};
use crate::sync::const_fn;
use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

/// An [`RcuCell`](super::RcuCell) that may be empty.
///
/// ```
/// use epoch_registry::RcuOptionCell;
///
/// static LEADER: RcuOptionCell<String> = RcuOptionCell::empty();
///
/// assert!(LEADER.load().is_none());
/// LEADER.store(Some("ada".to_string()));
/// assert_eq!(LEADER.with(|leader| leader.map(String::len)), Some(3));
/// assert_eq!(*LEADER.take().unwrap(), "ada");
/// assert!(LEADER.load().is_none());
/// ```
///
/// Reads, writes, numbers and waits are as those of an `RcuCell`, with the same costs, progress and panics. A new version
/// is a [`NewVersion`], or what converts to one.
pub struct RcuOptionCell<T: ?Sized + 'static> {
    raw: Raw<T>,
}

/// The error of a conditional write to a cell that may be empty.
pub type SupersededOption<T> = Superseded<Option<Version<T>>, Option<NewVersion<T>>>;

fn rejected<T: ?Sized>(written: NotWritten<T>) -> SupersededOption<T> {
    Superseded { current: written.current, new: written.new }
}

impl<T: ?Sized + Send + Sync + 'static> RcuOptionCell<T> {
    const_fn! {
        /// Returns an empty cell in the [global](Domain::global) domain, also for a `static`.
        pub fn empty() -> Self {
            RcuOptionCell { raw: Raw::empty() }
        }
    }

    /// Returns an empty cell in a domain.
    pub fn empty_in(domain: &Domain) -> Self {
        RcuOptionCell { raw: Raw::new(None, domain) }
    }

    /// Returns the cell's domain.
    pub fn domain(&self) -> &Domain {
        self.raw.domain()
    }

    /// Returns the current version, borrowed for as long as the critical section lasts, or `None` if the cell is empty.
    ///
    /// # Panics
    ///
    /// If the section is of another domain.
    #[inline]
    pub fn read<'a>(&'a self, section: &'a impl CriticalSection) -> Option<&'a T> {
        self.raw.read(section)
    }

    /// Calls `f` with the current version, in a critical section of its own.
    #[inline]
    pub fn with<R>(&self, f: impl FnOnce(Option<&T>) -> R) -> R {
        f(self.read(&self.domain().pin()))
    }

    /// Returns a counted reference to the current version.
    #[inline]
    pub fn load(&self) -> Option<Version<T>> {
        self.load_in(&self.domain().pin())
    }

    /// As [`load`](Self::load), in a critical section that is open already.
    ///
    /// # Panics
    ///
    /// If the section is of another domain.
    #[inline]
    pub fn load_in(&self, section: &impl CriticalSection) -> Option<Version<T>> {
        self.raw.load(section)
    }

    /// Publishes a new version, or empties the cell. Returns a cookie that says when every reader has left the old
    /// version.
    pub fn store<N: Into<NewVersion<T>>>(&self, new: Option<N>) -> Cookie {
        self.raw.write(new.map(Into::into), false).cookie
    }

    /// Publishes a new version, or empties the cell. Returns the old version.
    pub fn replace<N: Into<NewVersion<T>>>(&self, new: Option<N>) -> Option<Version<T>> {
        self.raw.write(new.map(Into::into), true).old
    }

    /// Empties the cell. Returns the old version.
    pub fn take(&self) -> Option<Version<T>> {
        self.raw.write(None, true).old
    }

    /// Publishes a new version, or empties the cell, if the current version is still `expected`.
    ///
    /// # Errors
    ///
    /// Returns [`Superseded`] if the current version is another one.
    pub fn compare_exchange<N: Into<NewVersion<T>>>(
        &self,
        expected: Option<&Version<T>>,
        new: Option<N>,
    ) -> Result<Cookie, SupersededOption<T>> {
        let expected = expected.map(Version::place);
        let written = self.raw.write_if(new.map(Into::into), |place, _| place == expected);
        written.map_err(rejected)
    }

    /// As [`compare_exchange`](Self::compare_exchange), given the [number](Self::version) of the expected version.
    ///
    /// # Errors
    ///
    /// Returns [`Superseded`] if the current version has another number.
    pub fn compare_exchange_version<N: Into<NewVersion<T>>>(
        &self,
        expected: u64,
        new: Option<N>,
    ) -> Result<Cookie, SupersededOption<T>> {
        let written = self.raw.write_if(new.map(Into::into), |_, number| number == expected);
        written.map_err(rejected)
    }

    /// Publishes what `f` makes of the current version. `f` runs once, under no lock, and no other version is published
    /// in between.
    pub fn update<N: Into<NewVersion<T>>>(&self, f: impl FnOnce(Option<&T>) -> Option<N>) -> Cookie {
        let Ok(cookie) = self.try_update(|old| Ok::<Option<N>, Infallible>(f(old)));
        cookie
    }

    /// As [`update`](Self::update), unless `f` fails: then the cell keeps its version.
    ///
    /// # Errors
    ///
    /// Returns the error of `f`.
    pub fn try_update<N: Into<NewVersion<T>>, E>(
        &self,
        f: impl FnOnce(Option<&T>) -> Result<Option<N>, E>,
    ) -> Result<Cookie, E> {
        self.raw.update(|old| f(old).map(|new| new.map(Into::into)))
    }

    /// Returns the number of the current version: zero at first, and one more with each write.
    #[inline]
    pub fn version(&self) -> u64 {
        self.raw.number()
    }

    /// Returns whether the cell was written since its version was `since`.
    #[inline]
    pub fn has_changed(&self, since: u64) -> bool {
        self.version() != since
    }

    /// Waits until the cell has another version than `since`. Returns the number of its version.
    pub fn wait_changed(&self, since: u64) -> u64 {
        self.raw.wait_changed(since)
    }

    /// As [`wait_changed`](Self::wait_changed), but at most for `timeout`. Returns `None` if there is no new version.
    pub fn wait_changed_timeout(&self, since: u64, timeout: Duration) -> Option<u64> {
        self.raw.wait_changed_timeout(since, timeout)
    }

    /// Returns a future that completes, with the number of the current version, when the cell has another version than
    /// `since`.
    pub fn changed(&self, since: u64) -> Changed<'_, T> {
        Changed::new(&self.raw, since)
    }
}

impl<T: ?Sized + Send + Sync + 'static> Default for RcuOptionCell<T> {
    fn default() -> Self {
        RcuOptionCell::empty()
    }
}

/// A panic in a closure leaves the cell as it was.
impl<T: ?Sized + std::panic::RefUnwindSafe> std::panic::RefUnwindSafe for RcuOptionCell<T> {}
impl<T: ?Sized + std::panic::RefUnwindSafe> std::panic::UnwindSafe for RcuOptionCell<T> {}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RcuOptionCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.raw.load(&self.raw.domain().pin());
        f.debug_tuple("RcuOptionCell").field(&value).finish()
    }
}
