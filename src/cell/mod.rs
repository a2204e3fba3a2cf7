//! Cells: one published pointer, which readers follow and writers replace.

mod changed;
mod option;
mod part;
mod raw;
mod reader;
mod version;

pub use changed::Changed;
pub use option::{RcuOptionCell, SupersededOption};
pub use part::{Part, Projection};
pub use reader::CellReader;
#[cfg(not(loom))]
pub use version::StaticVersion;
pub use version::{NewVersion, Version};

use self::raw::{NotWritten, Raw};
#[cfg(not(loom))]
use crate::domain::GLOBAL;
use crate::domain::{Cookie, CriticalSection, Domain};
use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

/// A value that many threads read and that a writer replaces as a whole: a configuration, a routing table, a list of
/// rules.
///
/// A reader borrows the current *version* in a critical section, with one load, or takes a counted reference to it. A
/// writer makes a new version and publishes it. The old version is dropped after a grace period and when its last
/// reference is gone, as a [`Registry`](crate::Registry) drops an entry, and never by a reader.
///
/// ```
/// use epoch_registry::RcuCell;
///
/// let limits = RcuCell::new(vec![10, 20]);
///
/// // Read: the borrow ends with the closure ...
/// assert_eq!(limits.with(|limits| limits.len()), 2);
/// // ... or own the version.
/// let before = limits.load();
///
/// // Write: the whole value, or what follows from the old one.
/// limits.store(vec![1]);
/// limits.update(|old| [old.as_slice(), &[2]].concat());
/// assert_eq!(*limits.load(), [1, 2]);
/// assert_eq!(*before, [10, 20]);
/// ```
///
/// # Which way to read
///
/// | | costs | use it for |
/// |---|---|---|
/// | [`reader`](Self::reader) | two loads and a comparison | threads that read the cell all the time |
/// | [`read`](Self::read) with the [section](crate::Session::section) of a session | a few loads more | threads that read several cells and registries |
/// | [`read`](Self::read) with a [pin](crate::Domain::pin) | the same; the pin has a fence | several reads under one pin |
/// | [`with`](Self::with) | a pin | a single read |
/// | [`load`](Self::load), [`load_in`](Self::load_in) | a locked instruction | what is kept for longer, or across an `await` |
///
/// # Writers
///
/// Writes take a lock, and their cost does not depend on the number of threads. A write makes its share of reclamation, as
/// a registry's writes do: it may run destructors of older versions and other objects of the domain. They run when the
/// new version is published, and under no lock.
///
/// # Unsized types
///
/// A cell may hold a `str`, a slice or a trait object. New values come from a box: see [`NewVersion`].
///
/// ```
/// use epoch_registry::RcuCell;
///
/// let greeting: RcuCell<str> = RcuCell::of("hello");
/// greeting.store("good morning");
/// assert_eq!(greeting.with(str::len), 12);
/// ```
pub struct RcuCell<T: ?Sized + 'static> {
    /// It always has a version.
    raw: Raw<T>,
}

/// Returns the error of a conditional write to a cell that always has a version.
fn superseded<T: ?Sized>(written: NotWritten<T>) -> Superseded<Version<T>, NewVersion<T>> {
    Superseded { current: written.current.expect(ALWAYS), new: written.new.expect("a new version was given") }
}

const ALWAYS: &str = "an `RcuCell` always has a version";

#[cfg(not(loom))]
impl<T: Send + Sync + 'static> RcuCell<T> {
    /// Returns a cell in the global domain, for a `static`. Its first version is a `static` too.
    ///
    /// ```
    /// use epoch_registry::{RcuCell, StaticVersion};
    ///
    /// static DEFAULT: StaticVersion<u32> = StaticVersion::new(80);
    /// static PORT: RcuCell<u32> = RcuCell::from_static(&DEFAULT);
    ///
    /// assert_eq!(PORT.with(|port| *port), 80);
    /// PORT.store(8080);
    /// assert_eq!(PORT.with(|port| *port), 8080);
    /// ```
    ///
    /// Use a `StaticVersion` for one cell.
    pub const fn from_static(version: &'static StaticVersion<T>) -> Self {
        // SAFETY: the place is that of a version that lives forever. No other domain than the global one is named.
        #[allow(unsafe_code)]
        RcuCell { raw: unsafe { Raw::with(version.place(), GLOBAL, None) } }
    }
}

impl<T: Send + Sync + 'static> RcuCell<T> {
    /// Returns a cell in the [global](Domain::global) domain.
    pub fn new(value: T) -> Self {
        RcuCell::of(value)
    }

    /// Returns a cell in a domain.
    pub fn new_in(value: T, domain: &Domain) -> Self {
        RcuCell::of_in(value, domain)
    }
}

impl<T: ?Sized + Send + Sync + 'static> RcuCell<T> {
    /// Returns a cell in the global domain, as [`new`](Self::new) does, also for types without a size.
    pub fn of(value: impl Into<NewVersion<T>>) -> Self {
        RcuCell::of_in(value, Domain::global())
    }

    /// Returns a cell in a domain, as [`new_in`](Self::new_in) does, also for types without a size.
    pub fn of_in(value: impl Into<NewVersion<T>>, domain: &Domain) -> Self {
        RcuCell { raw: Raw::new(Some(value.into()), domain) }
    }

    /// Returns the cell's domain.
    pub fn domain(&self) -> &Domain {
        self.raw.domain()
    }

    /// Returns the current version, borrowed for as long as the critical section lasts.
    ///
    /// On x86-64 this is a plain load, on AArch64 a load-acquire (`ldapr` or `ldar`): Rust's memory model has no order
    /// of dependent loads, on which the kernel's `rcu_dereference` relies.
    ///
    /// ```
    /// use epoch_registry::RcuCell;
    ///
    /// let cell = RcuCell::new(1);
    /// let mut session = cell.domain().session();
    /// assert_eq!(*cell.read(&session.section()), 1);
    /// ```
    ///
    /// What was read cannot outlive the section:
    ///
    /// ```compile_fail,E0505
    /// let cell = epoch_registry::RcuCell::new(1);
    /// let guard = cell.domain().pin();
    /// let one = cell.read(&guard);
    /// drop(guard);
    /// println!("{one}");
    /// ```
    ///
    /// # Progress
    ///
    /// Wait-free. Writes nothing.
    ///
    /// # Panics
    ///
    /// If the section is of another domain.
    #[inline]
    pub fn read<'a>(&'a self, section: &'a impl CriticalSection) -> &'a T {
        self.raw.read(section).expect(ALWAYS)
    }

    /// Registers this thread as a long-lived reader of the cell, whose reads are the fastest. See [`CellReader`].
    pub fn reader(&self) -> CellReader<'_, T> {
        CellReader::new(&self.raw)
    }

    /// Calls `f` with the current version, in a critical section of its own. Keep `f` short: it holds up grace periods.
    ///
    /// # Progress
    ///
    /// As [`Domain::pin`].
    #[inline]
    pub fn with<R>(&self, f: impl FnOnce(&T) -> R) -> R {
        f(self.read(&self.domain().pin()))
    }

    /// Returns a counted reference to the current version.
    ///
    /// # Progress
    ///
    /// As [`Domain::pin`], and one locked instruction.
    #[inline]
    pub fn load(&self) -> Version<T> {
        self.load_in(&self.domain().pin())
    }

    /// As [`load`](Self::load), in a critical section that is open already.
    ///
    /// # Panics
    ///
    /// If the section is of another domain.
    #[inline]
    pub fn load_in(&self, section: &impl CriticalSection) -> Version<T> {
        self.raw.load(section).expect(ALWAYS)
    }

    /// Returns a view of a part of the value, which is read as the cell is.
    ///
    /// ```
    /// use epoch_registry::RcuCell;
    ///
    /// struct Config { ports: Vec<u16>, verbose: bool }
    /// let config = RcuCell::new(Config { ports: vec![80, 443], verbose: false });
    ///
    /// let ports = config.project(|config| config.ports.as_slice());
    /// assert_eq!(ports.with(|ports| ports.len()), 2);
    /// let kept = ports.load();
    /// config.store(Config { ports: vec![], verbose: true });
    /// assert_eq!(*kept, [80, 443]);
    /// ```
    pub fn project<U: ?Sized, F: Fn(&T) -> &U>(&self, f: F) -> Projection<'_, T, F> {
        Projection::new(self, f)
    }

    /// Publishes a new version. Returns a cookie that says when every reader has left the old one.
    ///
    /// ```
    /// use epoch_registry::RcuCell;
    ///
    /// let cell = RcuCell::new("old");
    /// let cookie = cell.store("new");
    /// cell.domain().wait(cookie); // or `poll`, `poll_timeout`, `reached(cookie).await`
    /// // No reader has "old" any more, unless it owns it.
    /// ```
    ///
    /// The old version is dropped after that, by what [reclaims](Domain#who-reclaims) in the domain.
    ///
    /// # Progress
    ///
    /// Takes a lock. Waits for an [`update`](Self::update) that is under way. Waits for readers only if the domain has a
    /// [limit](crate::DomainBuilder::backlog_objects) that it has reached, and whose policy is to wait.
    ///
    /// # Panics
    ///
    /// Within the closure of an update of the same cell, where it would wait for itself.
    pub fn store(&self, new: impl Into<NewVersion<T>>) -> Cookie {
        self.raw.write(Some(new.into()), false).cookie
    }

    /// Publishes a new version. Returns the old one.
    ///
    /// # Progress and panics
    ///
    /// As [`store`](Self::store).
    pub fn replace(&self, new: impl Into<NewVersion<T>>) -> Version<T> {
        self.raw.write(Some(new.into()), true).old.expect(ALWAYS)
    }

    /// Publishes a new version if the current one is still `expected`: that version, and not only an equal value.
    /// Returns a cookie, as [`store`](Self::store) does.
    ///
    /// ```
    /// use epoch_registry::RcuCell;
    ///
    /// let cell = RcuCell::new(1);
    /// let one = cell.load();
    /// assert!(cell.compare_exchange(&one, 2).is_ok());
    /// let superseded = cell.compare_exchange(&one, 3).unwrap_err();
    /// assert_eq!((*superseded.current, *superseded.new), (2, 3));
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`Superseded`], with the current version and the new one, if the current version is another one.
    ///
    /// # Progress and panics
    ///
    /// As [`store`](Self::store).
    pub fn compare_exchange(
        &self,
        expected: &Version<T>,
        new: impl Into<NewVersion<T>>,
    ) -> Result<Cookie, Superseded<Version<T>, NewVersion<T>>> {
        let written = self.raw.write_if(Some(new.into()), |place, _| place == Some(expected.place()));
        written.map_err(superseded)
    }

    /// As [`compare_exchange`](Self::compare_exchange), given the [number](Self::version) of the expected version.
    ///
    /// # Errors
    ///
    /// Returns [`Superseded`] if the current version has another number.
    ///
    /// # Progress and panics
    ///
    /// As [`store`](Self::store).
    pub fn compare_exchange_version(
        &self,
        expected: u64,
        new: impl Into<NewVersion<T>>,
    ) -> Result<Cookie, Superseded<Version<T>, NewVersion<T>>> {
        let written = self.raw.write_if(Some(new.into()), |_, number| number == expected);
        written.map_err(superseded)
    }

    /// Publishes what `f` makes of the current version. `f` runs once, and no other version is published in between:
    /// other writers wait. Returns a cookie, as [`store`](Self::store) does.
    ///
    /// ```
    /// use epoch_registry::RcuCell;
    ///
    /// let counts = RcuCell::new(0_u64);
    /// std::thread::scope(|scope| {
    ///     for _ in 0..4 {
    ///         scope.spawn(|| counts.update(|count| count + 1));
    ///     }
    /// });
    /// assert_eq!(*counts.load(), 4);
    /// ```
    ///
    /// # Progress
    ///
    /// As [`store`](Self::store). `f` runs under no lock. It may read the cell, and use other cells and registries. Other
    /// writers of this cell wait for it. So it must not wait for them: not for a thread that writes the cell, and not for a
    /// barrier where a destructor may do that.
    ///
    /// # Panics
    ///
    /// As [`store`](Self::store). If `f` panics, the cell keeps its version.
    pub fn update<N: Into<NewVersion<T>>>(&self, f: impl FnOnce(&T) -> N) -> Cookie {
        let Ok(cookie) = self.try_update(|old| Ok::<N, Infallible>(f(old)));
        cookie
    }

    /// As [`update`](Self::update), unless `f` fails: then the cell keeps its version.
    ///
    /// # Errors
    ///
    /// Returns the error of `f`.
    pub fn try_update<N: Into<NewVersion<T>>, E>(&self, f: impl FnOnce(&T) -> Result<N, E>) -> Result<Cookie, E> {
        self.raw.update(|old| f(old.expect(ALWAYS)).map(|new| Some(new.into())))
    }

    /// Returns the number of the current version: zero at first, and one more with each new version.
    ///
    /// # Progress
    ///
    /// Wait-free. A read that follows finds this version or a later one.
    #[inline]
    pub fn version(&self) -> u64 {
        self.raw.number()
    }

    /// Returns whether the cell has had a new version since its version was `since`.
    ///
    /// # Progress
    ///
    /// Wait-free.
    #[inline]
    pub fn has_changed(&self, since: u64) -> bool {
        self.version() != since
    }

    /// Waits until the cell has another version than `since`. Returns the number of its version.
    ///
    /// ```
    /// use epoch_registry::RcuCell;
    ///
    /// let cell = RcuCell::new("off");
    /// let since = cell.version();
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| cell.store("on"));
    ///     assert_eq!(cell.wait_changed(since), 1);
    /// });
    /// assert_eq!(*cell.load(), "on");
    /// ```
    ///
    /// # Progress
    ///
    /// Blocks. Do not wait in a critical section: it would hold up its domain.
    ///
    /// # Panics
    ///
    /// Within the closure of an update of the same cell.
    pub fn wait_changed(&self, since: u64) -> u64 {
        self.raw.wait_changed(since)
    }

    /// As [`wait_changed`](Self::wait_changed), but at most for `timeout`. Returns `None` if there is no new version.
    pub fn wait_changed_timeout(&self, since: u64, timeout: Duration) -> Option<u64> {
        self.raw.wait_changed_timeout(since, timeout)
    }

    /// Returns a future that completes, with the number of the current version, when the cell has another version than
    /// `since`. It may be dropped at any time.
    ///
    /// # Progress
    ///
    /// A poll takes a short lock. The writer of the new version wakes the task.
    pub fn changed(&self, since: u64) -> Changed<'_, T> {
        Changed::new(&self.raw, since)
    }
}

/// A panic in a closure leaves the cell as it was.
impl<T: ?Sized + std::panic::RefUnwindSafe> std::panic::RefUnwindSafe for RcuCell<T> {}
impl<T: ?Sized + std::panic::RefUnwindSafe> std::panic::UnwindSafe for RcuCell<T> {}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RcuCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.raw.load(&self.raw.domain().pin());
        f.debug_tuple("RcuCell").field(&value.expect(ALWAYS)).finish()
    }
}

impl<T: Default + Send + Sync + 'static> Default for RcuCell<T> {
    fn default() -> Self {
        RcuCell::new(T::default())
    }
}

impl<T: Send + Sync + 'static> From<T> for RcuCell<T> {
    fn from(value: T) -> Self {
        RcuCell::new(value)
    }
}

/// The error of a conditional write to a cell: its current version is not the expected one.
#[non_exhaustive]
pub struct Superseded<C, N> {
    /// The cell's current version.
    pub current: C,
    /// What was to be published.
    pub new: N,
}

impl<C, N> fmt::Debug for Superseded<C, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Superseded").finish_non_exhaustive()
    }
}

impl<C, N> fmt::Display for Superseded<C, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the cell has another version than the expected one")
    }
}

impl<C, N> std::error::Error for Superseded<C, N> {}
