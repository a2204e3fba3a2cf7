//! What the driver keeps for each source: the source, what it demands, and its figures.

use super::builder::DriverSettings;
use super::hold::Hold;
use super::source::{Level, Reading, Source};
use super::stats::{SourceState, SourceStats};
use super::wait::Ready;
use crate::reap::Reaped;
use crate::util::panics::contain;
use parking_lot::Mutex;
use std::time::Duration;

pub(super) struct Watch {
    is_polled: bool,
    /// Locked only behind the driver's gate, so without contention. The source's code runs under this lock.
    state: Mutex<WatchState>,
    /// Never held while the user's code runs.
    figures: Mutex<SourceStats>,
}

struct WatchState {
    source: Box<dyn Source>,
    hold: Hold,
    streak: Streak,
    /// Whether its descriptor has become useless.
    is_lost: bool,
}

/// Counts events in a row, without quiet in between.
#[derive(Default)]
struct Streak {
    events: u32,
    last: Duration,
}

impl Streak {
    /// Records an event at time `now`. Returns the priority of the round that it demands.
    fn event(&mut self, now: Duration, settings: &DriverSettings) -> u32 {
        if now.saturating_sub(self.last) > settings.quiet {
            self.events = 0;
        }
        let priority = settings.event_priority.saturating_sub(self.events);
        (self.events, self.last) = (self.events.saturating_add(1), now);
        priority
    }
}

/// The result of a look.
pub(super) struct Observed {
    pub(super) finding: Finding,
    /// The bytes left to the limit, if the source reported a level.
    pub(super) headroom: Option<u64>,
    pub(super) panics: u64,
    /// A line to log when no lock is held.
    pub(super) line: Option<String>,
}

pub(super) enum Finding {
    Nothing,
    Bytes(u64),
    Round(u32),
}

impl Watch {
    pub(super) fn new(source: Box<dyn Source>) -> Self {
        let figures = SourceStats { name: source.name().to_owned(), ..SourceStats::default() };
        let is_polled = source.is_polled();
        let state = WatchState { source, hold: Hold::default(), streak: Streak::default(), is_lost: false };
        Watch { is_polled, state: Mutex::new(state), figures: Mutex::new(figures) }
    }

    pub(super) fn is_polled(&self) -> bool {
        self.is_polled
    }

    pub(super) fn stats(&self) -> SourceStats {
        self.figures.lock().clone()
    }

    /// Looks at the source. `ready`: the state of its descriptor, if it became ready.
    pub(super) fn look(
        &self,
        ready: Option<&Ready>,
        settings: &DriverSettings,
        now: Duration,
        count: impl Fn() -> usize,
    ) -> Observed {
        let mut state = self.state.lock();
        let state = &mut *state;
        state.is_lost |= ready.is_some_and(|ready| ready.lost);
        let signalled = ready.is_some_and(|ready| !ready.lost);
        let mut read = None;
        let panics = contain(|| read = Some(state.source.check(signalled))).into();
        let (works, reading) = match read {
            Some(Ok(reading)) if state.is_lost => (SourceState::Lost, Some(reading)),
            Some(Ok(reading)) => (SourceState::Works, Some(reading)),
            Some(Err(why)) => (SourceState::Fails(why.reason()), None),
            None => (SourceState::Fails("it panicked".into()), None),
        };
        let line = self.note(works, reading);
        let reading = reading.unwrap_or(Reading::Quiet);
        let headroom = match reading {
            Reading::Level(Level { used, limit, .. }) => Some(limit.saturating_sub(used)),
            _ => None,
        };
        let finding = match reading {
            Reading::Quiet => Finding::Nothing,
            Reading::Event => Finding::Round(state.streak.event(now, settings)),
            Reading::Bytes(0) => Finding::Nothing,
            Reading::Bytes(bytes) => Finding::Bytes(bytes),
            Reading::Level(level) => state.hold.demand(level, now, count).map_or(Finding::Nothing, Finding::Bytes),
        };
        if !matches!(finding, Finding::Nothing) {
            self.figures.lock().events += 1;
        }
        Observed { finding, headroom, panics, line }
    }

    /// Enters the result of a look into the figures. Returns a line to log if the source has begun to fail or is
    /// lost.
    fn note(&self, new: SourceState, reading: Option<Reading>) -> Option<String> {
        let mut figures = self.figures.lock();
        let changed = std::mem::discriminant(&figures.state) != std::mem::discriminant(&new);
        let is_news = changed && matches!(new, SourceState::Fails(_) | SourceState::Lost);
        let line = is_news.then(|| format!("pressure source {}: {new}", figures.name));
        figures.state = new;
        figures.last = reading.or(figures.last);
        line
    }

    /// Records what was shed. `again`: when to try again, if a reaper stopped.
    pub(super) fn settle(&self, reaped: Reaped, again: Option<Duration>) {
        self.state.lock().hold.settle(reaped, again);
    }
}
