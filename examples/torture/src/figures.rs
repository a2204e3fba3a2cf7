//! The counters, and the faults found.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use indicatif::HumanCount;
use parking_lot::Mutex;

use crate::pipeline::Flavour;
use crate::pool::{AGES, TOO_OLD};

/// A shared counter of rare things. (Readers count on their own, in a [`Tally`].)
#[derive(Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn up(&self) {
        self.add(1);
    }

    pub fn add(&self, many: u64) {
        // ORDERING: Relaxed, here and below. Where two counts are compared, a lock or a barrier has ordered them.
        self.0.fetch_add(many, Relaxed);
    }

    pub fn take_back(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    pub fn at_least(&self, least: u64) {
        self.0.fetch_max(least, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        HumanCount(self.get()).fmt(f)
    }
}

/// The counters of all threads together.
#[derive(Default)]
pub struct Figures {
    pub sections: Count,
    /// Elements that readers held, by the age at which the readers released them.
    pub ages: [Count; AGES],
    /// Reads of checked values, including those of handles.
    pub value_reads: Count,
    /// Grace periods that readers started in a section, and polled before its end.
    pub polls_in_sections: Count,
    pub updates: Count,
    /// How often each flavour aged elements: grace periods waited for, callbacks, and destructors.
    pub aged: [Count; Flavour::ALL.len()],
    /// The longest wait for a grace period.
    pub slowest_us: Count,
    pub calls_given: Count,
    pub calls_run: Count,
    pub calls_refused: Count,
    pub values: Ledger,
    /// Values in domains that come and go. Another thread may end such a domain.
    pub passing_values: Ledger,
    pub stalls_provoked: Count,
    pub stalls_reported: Count,
    /// Reported stalls that took half as long again as they should.
    pub stalls_late: Count,
    /// The longest time from the beginning of a stall to its report.
    pub slowest_report_ms: Count,
    /// Reports that do not name the staller: a preempted reader, for example.
    pub other_reports: Count,
    /// Threads that read and exited.
    pub passers: Count,
    /// Registries and domains that were created and dropped.
    pub registries: Count,
    pub domains: Count,
    pub reaped: Count,
    pub evicted: Count,
    pub audits: Count,
    pub faults: Faults,
}

impl Figures {
    pub fn reads(&self) -> u64 {
        self.ages.iter().map(Count::get).sum::<u64>() + self.value_reads.get()
    }

    /// Returns how often elements aged.
    pub fn aged(&self) -> u64 {
        self.aged.iter().map(Count::get).sum()
    }

    /// Returns the greatest age that a reader has seen.
    pub fn oldest(&self) -> usize {
        self.ages.iter().rposition(|count| count.get() > 0).unwrap_or(0)
    }
}

/// How many values were created and dropped.
#[derive(Default)]
pub struct Ledger {
    pub created: Count,
    pub dropped: Count,
}

/// The counters of one reader, until it adds them to the [`Figures`].
#[derive(Default)]
pub struct Tally {
    pub sections: u64,
    pub ages: [u64; AGES],
    pub value_reads: u64,
}

impl Tally {
    pub fn hand_in(&mut self, figures: &Figures) {
        let Tally { sections, ages, value_reads } = std::mem::take(self);
        figures.sections.add(sections);
        figures.value_reads.add(value_reads);
        ages.iter().zip(&figures.ages).for_each(|(&seen, count)| count.add(seen));
    }

    /// Counts an element that a reader releases.
    pub fn element(&mut self, age: usize, faults: &Faults) {
        self.ages[age] += 1;
        if age >= TOO_OLD {
            faults.add(TOO_SHORT, || format!("age {age}, seen by {}", thread_name()));
        }
    }
}

pub const TOO_SHORT: &str = "an element aged by a grace period within a reader's section";

/// Returns the name of the current thread.
pub fn thread_name() -> String {
    thread::current().name().unwrap_or("a thread without a name").to_string()
}

/// The faults found, by kind.
#[derive(Default)]
pub struct Faults {
    any: AtomicBool,
    kinds: Mutex<BTreeMap<&'static str, Fault>>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    pub count: u64,
    /// Details of the first fault of this kind.
    pub first: String,
}

impl Faults {
    pub fn add(&self, kind: &'static str, more: impl FnOnce() -> String) {
        self.any.store(true, Relaxed);
        self.kinds.lock().entry(kind).or_insert_with(|| Fault { count: 0, first: more() }).count += 1;
    }

    pub fn any(&self) -> bool {
        self.any.load(Relaxed)
    }

    pub fn kinds(&self) -> Vec<(&'static str, Fault)> {
        self.kinds.lock().iter().map(|(kind, fault)| (*kind, fault.clone())).collect()
    }

    /// Adds a fault if the two numbers differ.
    pub fn balance(&self, kind: &'static str, left: u64, right: u64) {
        if left != right {
            self.add(kind, || format!("{left} against {right}"));
        }
    }
}

/// Sleeps for this many microseconds.
pub fn nap(micros: u64) {
    thread::sleep(Duration::from_micros(micros));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_three() {
        let shown = |number| {
            let count = Count::default();
            count.add(number);
            count.to_string()
        };
        assert_eq!([0, 999, 1000, 1_234_567].map(shown), ["0", "999", "1,000", "1,234,567"]);
    }
}
