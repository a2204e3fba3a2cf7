//! The interface of pressure sources, and the readings that they return.

use super::wait::Waker;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Knows whether memory is short.
///
/// The driver looks at a source [at intervals](crate::pressure::Builder::interval), and when it is
/// [signalled](Self::descriptor) or [woken](Waker::wake). One thread at a time uses the source. A panic in it is
/// contained and counted.
///
/// ```
/// use epoch_registry::pressure::{Driver, Level, Marks, Reading, Source, Unavailable};
///
/// /// The bytes of a pool of limited size.
/// struct Pool;
///
/// impl Source for Pool {
///     fn name(&self) -> &str {
///         "pool"
///     }
///
///     fn check(&mut self, _signalled: bool) -> Result<Reading, Unavailable> {
///         Ok(Reading::Level(Level::new(50 << 20, 64 << 20, Marks::default())))
///     }
/// }
///
/// let driver = Driver::builder().source(Pool).build();
/// assert!(driver.check().is_none()); // 50 of 64 MiB: below the mark.
/// ```
pub trait Source: Send + 'static {
    /// Returns its name, for figures and reports.
    fn name(&self) -> &str;

    /// Returns the current reading. `signalled`: whether the [descriptor](Self::descriptor) has become ready
    /// since the last look. The driver calls this often, so it should take microseconds and must not wait.
    ///
    /// # Errors
    ///
    /// Fails if the state is not known. The driver shows the failure in the [figures](crate::pressure::Stats),
    /// logs it when it begins, and asks the source again.
    fn check(&mut self, signalled: bool) -> Result<Reading, Unavailable>;

    /// Returns a descriptor that becomes ready, in the sense of `POLLPRI`, when there is something to report. It
    /// wakes the driver's thread. The driver asks for it when the driver is built, and duplicates it.
    #[cfg(target_os = "linux")]
    fn descriptor(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        None
    }

    /// Returns whether the driver has to look at it at every interval. If no source of a driver needs this, the
    /// driver's thread sleeps until a source wakes it.
    fn is_polled(&self) -> bool {
        true
    }

    /// Receives the waker of the driver, once, when the driver is built.
    fn attach(&mut self, waker: Waker) {
        let _ = waker;
    }
}

impl Source for Box<dyn Source> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn check(&mut self, signalled: bool) -> Result<Reading, Unavailable> {
        (**self).check(signalled)
    }

    #[cfg(target_os = "linux")]
    fn descriptor(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        (**self).descriptor()
    }

    fn is_polled(&self) -> bool {
        (**self).is_polled()
    }

    fn attach(&mut self, waker: Waker) {
        (**self).attach(waker);
    }
}

/// What a look at a [source](Source) returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Reading {
    /// The source knows of no pressure.
    Quiet,
    /// There is pressure, of unknown amount. It demands one round. The round gets harder with each such reading
    /// in a row.
    Event,
    /// This many bytes are wanted now.
    Bytes(u64),
    /// The usage against a limit. The driver decides what this demands: see [`Level`].
    Level(Level),
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reading::Quiet => f.write_str("quiet"),
            Reading::Event => f.write_str("pressure"),
            Reading::Bytes(bytes) => write!(f, "{} wanted", Size(*bytes)),
            Reading::Level(level) => level.fmt(f),
        }
    }
}

/// The fractions of a limit at which shedding begins and ends.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Marks {
    high: f64,
    low: f64,
}

impl Marks {
    /// Shedding begins above `high` and removes what is above `low`. Both are fractions of the limit.
    ///
    /// # Panics
    ///
    /// Panics unless 0 <= `low` <= `high` <= 1.
    pub fn new(high: f64, low: f64) -> Self {
        assert!(
            0.0 <= low && low <= high && high <= 1.0,
            "marks must satisfy 0 <= low <= high <= 1, got high {high}, low {low}"
        );
        Marks { high, low }
    }
}

impl Default for Marks {
    /// Shedding begins above 0.85 and goes down to 0.80.
    fn default() -> Self {
        Marks { high: 0.85, low: 0.80 }
    }
}

/// The usage against a limit, in bytes. A usage above the high mark demands the bytes above the low mark.
///
/// # When it demands again, and how much
///
/// What is shed does not show in the usage at once, and sometimes never: values wait for a grace period, and the
/// allocator keeps their memory for later allocations. If the driver demanded at every look at a usage above the
/// mark, it would empty its reapers. So after a demand, the next one comes only if one of these is true:
///
/// - The usage has been at or below the high mark in between.
/// - The usage has grown by a 256th of the limit since.
/// - New entries have reused half of the memory that was shed, without growth of the usage. (The driver estimates
///   this from the number of entries, and the bytes per entry of those removed last.) The rest will soon be
///   reused too, and then entries take new memory. Without this rule the usage would creep up by a step with each
///   demand, under an allocator that returns no memory.
/// - A reaper had to [stop](crate::Reaped::stopped), and an [interval](crate::pressure::Builder::interval) has
///   passed.
///
/// The next demand is for the bytes above the low mark, less the shed bytes that have been neither
/// returned nor reused: they are still on their way. (Growth of the usage makes this doubtful, so twice the
/// growth is taken from them.)
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Level {
    /// Bytes in use.
    pub used: u64,
    /// The limit.
    pub limit: u64,
    /// The high mark. A usage above it causes a demand.
    pub high: u64,
    /// The low mark. The bytes above it are demanded.
    pub low: u64,
}

impl Level {
    /// Creates a level from the usage and the limit, in bytes.
    pub fn new(used: u64, limit: u64, marks: Marks) -> Self {
        let part = |fraction| ((limit as f64 * fraction) as u64).min(limit);
        Level { used, limit, high: part(marks.high), low: part(marks.low) }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} (mark {})", Size(self.used), Size(self.limit), Size(self.high))
    }
}

/// A number of bytes, written for people.
pub(super) struct Size(pub(super) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes @ 0..=9_999 => write!(f, "{bytes} B"),
            bytes @ 10_000..=10_239_999 => write!(f, "{} KiB", bytes >> 10),
            bytes @ 10_240_000..=10_485_759_999 => write!(f, "{} MiB", bytes >> 20),
            bytes => write!(f, "{} GiB", bytes >> 30),
        }
    }
}

/// The error of a source that is not available on this machine, or that has no reading, with the reason.
#[derive(Debug)]
pub struct Unavailable {
    source: String,
    why: Why,
}

#[derive(Debug)]
enum Why {
    File(PathBuf, io::Error),
    Other(String),
}

impl Unavailable {
    /// Creates an error for the source of that name, with this reason.
    pub fn new(source: impl Into<String>, why: impl Into<String>) -> Self {
        Unavailable { source: source.into(), why: Why::Other(why.into()) }
    }

    /// Creates an error for the source of that name, because a file could not be read or written.
    pub fn file(source: impl Into<String>, path: impl AsRef<Path>, error: io::Error) -> Self {
        Unavailable { source: source.into(), why: Why::File(path.as_ref().to_owned(), error) }
    }

    /// Returns the name of the source.
    pub fn name(&self) -> &str {
        &self.source
    }

    /// Returns the reason, without the name.
    pub fn reason(&self) -> String {
        match &self.why {
            Why::File(path, error) => format!("{}: {error}", path.display()),
            Why::Other(why) => why.clone(),
        }
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not available: {}", self.source, self.reason())
    }
}

impl std::error::Error for Unavailable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.why {
            Why::File(_, error) => Some(error),
            Why::Other(_) => None,
        }
    }
}
