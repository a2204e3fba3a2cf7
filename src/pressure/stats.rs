//! The figures of a driver, its sources and its reapers.

use super::source::{Reading, Size};
use crate::reap::Reaped;
use std::fmt;

/// What a driver has seen and done. [`Driver::stats`](crate::pressure::Driver::stats) returns it.
/// [`Display`](fmt::Display) writes one line for the totals, one per source and one per reaper.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Stats {
    /// The sources in the order in which they were added, then the sources that `detect` did not find.
    pub sources: Vec<SourceStats>,
    /// The reapers that still exist, in the order in which they were added.
    pub reapers: Vec<ReaperStats>,
    /// How often the driver looked at the sources.
    pub checks: u64,
    /// Demands handled.
    pub demands: u64,
    /// Demands that were handled but not met.
    pub unmet: u64,
    /// Rounds through the reapers.
    pub rounds: u64,
    /// Entries removed.
    pub removed: u64,
    /// Bytes that the removed entries counted for.
    pub bytes: u64,
    /// Contained panics of reapers, sources and the hook.
    pub panics: u64,
}

/// The figures of a source.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct SourceStats {
    /// The name of the source.
    pub name: String,
    /// Whether the source works.
    pub state: SourceState,
    /// How often it demanded something.
    pub events: u64,
    /// Its last reading.
    pub last: Option<Reading>,
}

/// Whether a source works.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum SourceState {
    /// The driver has not looked at it yet.
    #[default]
    New,
    /// The last look at it returned a reading.
    Works,
    /// The last look at it failed, for this reason.
    Fails(String),
    /// Its descriptor has become useless (for example because the control group was removed). The driver does not
    /// wait for it any more.
    Lost,
    /// `detect` looked for it and it is not available here, for this reason.
    Unavailable(String),
}

/// The figures of a reaper.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ReaperStats {
    /// The name of the reaper.
    pub name: String,
    /// Entries that it was asked to scan, in calls that neither stopped nor panicked.
    pub scanned: u64,
    /// Entries that it removed.
    pub removed: u64,
    /// Bytes that the removed entries counted for.
    pub bytes: u64,
    /// Scan work deferred from earlier rounds, in entries.
    pub deferred: u64,
    /// How often it stopped.
    pub stops: u64,
    /// How often it panicked.
    pub panics: u64,
}

impl ReaperStats {
    pub(super) fn add(&mut self, reaped: Reaped, scanned: u64) {
        self.scanned += scanned;
        self.removed += reaped.removed as u64;
        self.bytes += reaped.bytes;
        self.stops += u64::from(reaped.stopped);
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stats { checks, demands, unmet, rounds, removed, bytes, panics, .. } = self;
        write!(
            f,
            "checks {checks}, demands {demands} ({unmet} unmet), rounds {rounds}, removed {removed} ({}), panics {panics}",
            Size(*bytes)
        )?;
        self.sources.iter().try_for_each(|source| write!(f, "\n  source {source}"))?;
        self.reapers.iter().try_for_each(|reaper| write!(f, "\n  reaper {reaper}"))
    }
}

impl fmt::Display for SourceStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.state)?;
        if !matches!(self.state, SourceState::Unavailable(_)) {
            write!(f, ", events {}", self.events)?;
        }
        self.last.map_or(Ok(()), |last| write!(f, ", last {last}"))
    }
}

impl fmt::Display for SourceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceState::New => f.write_str("new"),
            SourceState::Works => f.write_str("works"),
            SourceState::Fails(why) => write!(f, "fails ({why})"),
            SourceState::Lost => f.write_str("lost"),
            SourceState::Unavailable(why) => write!(f, "not available ({why})"),
        }
    }
}

impl fmt::Display for ReaperStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ReaperStats { name, scanned, removed, bytes, deferred, stops, panics } = self;
        let bytes = Size(*bytes);
        write!(
            f,
            "{name}: scanned {scanned}, removed {removed} ({bytes}), deferred {deferred}, stops {stops}, panics {panics}"
        )
    }
}
