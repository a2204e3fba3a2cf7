//! Figures on a driver, its sources and its reapers.

use super::source::{Reading, Size};
use crate::reap::Reaped;
use std::fmt;

/// What a driver has seen and done: from [`Driver::stats`](crate::pressure::Driver::stats). Its
/// [`Display`](fmt::Display) is a line each.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Stats {
    /// The sources, in the order of their addition, and those that were looked for and are not available.
    pub sources: Vec<SourceStats>,
    /// The reapers that are still there, in the order of their addition.
    pub reapers: Vec<ReaperStats>,
    /// Looks at the sources.
    pub checks: u64,
    /// Demands dealt with.
    pub demands: u64,
    /// Of those, the ones that were not met.
    pub unmet: u64,
    /// Rounds through the reapers.
    pub rounds: u64,
    /// Entries removed.
    pub removed: u64,
    /// The bytes that those counted for.
    pub bytes: u64,
    /// Panics, contained: of reapers, sources and the hook.
    pub panics: u64,
}

/// Figures on a source.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct SourceStats {
    /// What it is called.
    pub name: String,
    /// Whether it is of use.
    pub state: SourceState,
    /// How often it demanded something.
    pub events: u64,
    /// What it showed last.
    pub last: Option<Reading>,
}

/// Whether a source is of use.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum SourceState {
    /// It was not looked at yet.
    #[default]
    New,
    /// It tells how things are.
    Works,
    /// The last look at it has failed, for this reason.
    Fails(String),
    /// Its descriptor is of no use any more (as when a control group is removed), and is not waited for.
    Lost,
    /// It was looked for and is not to be had here, for this reason.
    Unavailable(String),
}

/// Figures on a reaper.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ReaperStats {
    /// What it is called.
    pub name: String,
    /// Entries that it was asked to scan, in calls that neither stopped nor panicked.
    pub scanned: u64,
    /// Entries that it has removed.
    pub removed: u64,
    /// The bytes that those counted for.
    pub bytes: u64,
    /// Entries that it is still to scan, from earlier rounds.
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
