//! What tells of pressure: the interface, and what a look at a source may say.

use super::wait::Waker;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Something that knows whether memory is short.
///
/// The driver looks at it [every now and then](crate::pressure::Builder::interval), and when it is
/// [signalled](Self::descriptor) or [woken](Waker::wake). It is used by one thread at a time. A panic in it is
/// contained and counted.
///
/// ```
/// use epoch_registry::pressure::{Driver, Level, Marks, Reading, Source, Unavailable};
///
/// /// The bytes of a pool, of which there may be so many.
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
    /// What it is called, in figures and reports.
    fn name(&self) -> &str;

    /// How things are now. `signalled`: the [descriptor](Self::descriptor) has become ready since the last look. Called
    /// often, so it should take microseconds, and not wait.
    ///
    /// # Errors
    ///
    /// If it cannot be told. That is shown in the [figures](crate::pressure::Stats), and logged when it begins; the
    /// source is asked again.
    fn check(&mut self, signalled: bool) -> Result<Reading, Unavailable>;

    /// A descriptor that is ready, in the sense of `POLLPRI`, when there is something to tell: the driver's thread is
    /// woken by it. It is asked for when the driver is built, and duplicated.
    #[cfg(target_os = "linux")]
    fn descriptor(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        None
    }

    /// Whether it has to be looked at every interval. A driver of which no source has to sleeps until one wakes it.
    fn is_polled(&self) -> bool {
        true
    }

    /// Hands over what wakes the driver: once, when that is built.
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

/// What a look at a [source](Source) has shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Reading {
    /// No pressure that it knows of.
    Quiet,
    /// Pressure, of no known amount: one round is due, of a priority that rises with each such reading in a row.
    Event,
    /// So many bytes are wanted, now.
    Bytes(u64),
    /// How much is used of what there is. What it demands is for the driver to say: see [`Level`].
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

/// Where in a limit shedding begins, and where to.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Marks {
    high: f64,
    low: f64,
}

impl Marks {
    /// Shedding begins above `high`, and frees what is above `low`: fractions of the limit.
    ///
    /// # Panics
    ///
    /// Unless 0 <= `low` <= `high` <= 1.
    pub fn new(high: f64, low: f64) -> Self {
        assert!(
            0.0 <= low && low <= high && high <= 1.0,
            "marks are 0 <= low <= high <= 1, not high {high}, low {low}"
        );
        Marks { high, low }
    }
}

impl Default for Marks {
    /// Above 0.85, down to 0.80.
    fn default() -> Self {
        Marks { high: 0.85, low: 0.80 }
    }
}

/// How much is used of what there is, in bytes. Above the high mark it demands what there is above the low one.
///
/// # When it demands again, and how much
///
/// What is shed does not show in the usage at once, and maybe never: values wait for a grace period, and the allocator
/// keeps their memory for the next ones. A driver that demanded at every look at a usage above the mark would empty all
/// that it has. So after a demand the next one comes only when
///
/// - the usage has been at or below the high mark in between; or
/// - it has grown since, by a 256th of the limit; or
/// - half as much was put into the reapers since as had been shed, and the usage has not grown by it (judged by their
///   counts, and by what an entry counted for lately): what was shed is used up soon, and then entries take new memory.
///   Without this one usage would creep up by a step with each demand, under an allocator that returns nothing; or
/// - a reaper had to [stop](crate::Reaped::stopped), and an [interval](crate::pressure::Builder::interval) has passed.
///
/// It is for what is above the low mark then, less what was shed before and has been neither returned nor used again:
/// that is on its way. (Growth makes that doubtful, and takes twice itself from it.)
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Level {
    /// Bytes in use.
    pub used: u64,
    /// The most that there may be.
    pub limit: u64,
    /// Above it, there is a demand.
    pub high: u64,
    /// What is above it is demanded.
    pub low: u64,
}

impl Level {
    /// So much is used of so much, in bytes.
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

/// A number of bytes, for people.
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

/// A source that is not to be had on this machine, or has nothing to tell, and why.
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
    /// The source of that name is not available, for this reason.
    pub fn new(source: impl Into<String>, why: impl Into<String>) -> Self {
        Unavailable { source: source.into(), why: Why::Other(why.into()) }
    }

    /// The source of that name is not available, since this file is not.
    pub fn file(source: impl Into<String>, path: impl AsRef<Path>, error: io::Error) -> Self {
        Unavailable { source: source.into(), why: Why::File(path.as_ref().to_owned(), error) }
    }

    /// The name of the source.
    pub fn name(&self) -> &str {
        &self.source
    }

    /// Why, without the name.
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
