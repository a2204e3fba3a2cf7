//! What was measured: cases, their contenders' series, and ratios between these.

use benches::{Sorted, Table, figure};
use std::fmt;
use std::time::Duration;

/// How a contender goes about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Idiom {
    /// A critical section for each read, by a session of the thread's.
    Session,
    /// A critical section (or a lock) for each operation.
    Each,
    /// One for all operations of a turn.
    Held,
    /// Reads of many keys in one call.
    Batch,
}

impl fmt::Display for Idiom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Idiom::Session => "session",
            Idiom::Each => "each its own",
            Idiom::Held => "guard held",
            Idiom::Batch => "batch",
        })
    }
}

/// What a contender is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Ours,
    /// A concurrent map of keys without locks on the way of its readers.
    LockFree,
    /// A concurrent map of keys that locks.
    Locking,
    /// A library in C.
    #[cfg_attr(not(any(feature = "liburcu", feature = "dpdk")), expect(dead_code, reason = "all are behind features"))]
    Foreign,
    /// Shown for comparison: it cannot do what a registry does (be written meanwhile, or be asked by key).
    Limit,
}

impl Kind {
    /// Whether it is a peer of the crates' kind.
    pub fn is_peer(self) -> bool {
        matches!(self, Kind::LockFree | Kind::Locking)
    }
}

/// When the values that a write removes are dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Drops {
    /// By the operation, before it returns: all of it is inside the measured time.
    AtOnce,
    /// After the operation, when no reader can see the value: what later operations of the turn drop is inside the
    /// measured time, and the rest is not.
    Later,
    /// The measured time ends when the last removed value is dropped.
    Awaited,
}

impl fmt::Display for Drops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Drops::AtOnce => "at once",
            Drops::Later => "later",
            Drops::Awaited => "awaited",
        })
    }
}

/// For how long a row with [`Drops::Awaited`] waits for the last value.
pub const DROP_LIMIT: Duration = Duration::from_secs(1);

/// What is measured: a workload with its parameters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Case {
    pub group: &'static str,
    pub work: &'static str,
    /// What keys are (or values, where these make the difference), and how they are drawn.
    pub what: String,
    pub size: usize,
    pub threads: usize,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Case { group, work, what, size, threads } = self;
        write!(f, "{group}: {work}; {what}; {size} entries; {threads} thread")?;
        f.write_str(if *threads == 1 { "" } else { "s" })
    }
}

/// One contender's rounds.
#[derive(Clone, Debug)]
pub struct Series {
    pub name: &'static str,
    pub idiom: Idiom,
    pub kind: Kind,
    /// By round, in the case's unit. What is no sample is not a number.
    pub rounds: Vec<f64>,
    /// When removed values are dropped, of a series of writes.
    pub drops: Option<Drops>,
    /// The most bytes allocated at once in a turn, above what was allocated when the turn began.
    pub peak: Option<f64>,
}

impl Series {
    pub fn new(name: &'static str, idiom: Idiom, kind: Kind, rounds: Vec<f64>) -> Series {
        Series { name, idiom, kind, rounds, drops: None, peak: None }
    }

    /// The peak, if the turn in which it was counted came to its end.
    pub fn peak(&self) -> Option<f64> {
        self.peak.filter(|_| self.never().is_none())
    }

    /// Why there is no sample, if the time limit for drops is the reason.
    pub fn never(&self) -> Option<String> {
        let never = self.drops == Some(Drops::Awaited) && self.rounds.iter().all(|round| round.is_nan());
        never.then(|| format!("never within {} s", DROP_LIMIT.as_secs()))
    }

    /// This over the other, in the rounds in which both have a sample.
    pub fn over(&self, other: &Series) -> Sorted {
        let ratio = |(this, other): (&f64, &f64)| this / if *other == 0.0 { f64::MIN_POSITIVE } else { *other };
        numbers(self.rounds.iter().zip(&other.rounds).map(ratio))
    }

    pub fn sorted(&self) -> Sorted {
        numbers(self.rounds.iter().copied())
    }
}

/// What is a number; if there is none, that.
fn numbers(values: impl Iterator<Item = f64>) -> Sorted {
    let values: Vec<_> = values.filter(|value| !value.is_nan()).collect();
    Sorted::new(if values.is_empty() { vec![f64::NAN] } else { values })
}

/// A case that was measured.
pub struct Measured {
    pub case: Case,
    pub unit: &'static str,
    pub series: Vec<Series>,
}

impl Measured {
    /// Ours of this idiom; else the first of ours.
    pub fn ours(&self, idiom: Idiom) -> &Series {
        let mut ours = self.series.iter().filter(|series| series.kind == Kind::Ours);
        let first = ours.clone().next().expect("every case has a contender of ours");
        ours.find(|series| series.idiom == idiom).unwrap_or(first)
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.case)?;
        let first = self.ours(Idiom::Session);
        let to_first = format!("over ours, {}", first.idiom);
        let writes = self.series.iter().any(|series| series.peak.is_some());
        let mut header = vec!["contender", "idiom", self.unit, &to_first, "over ours, same idiom"];
        if writes {
            header.insert(2, "dropped");
            header.push("peak, KiB");
        }
        let mut table = Table::new(if writes { 3 } else { 2 }, header);
        for series in &self.series {
            let mut row = self.row(series, first);
            if writes {
                row.insert(2, series.drops.map(|drops| drops.to_string()).unwrap_or_default());
                row.push(series.peak().map(|peak| figure(peak / 1024.0)).unwrap_or_default());
            }
            table.row(row);
        }
        writeln!(f, "{table}")
    }
}

impl Measured {
    /// The cells that a series has in every table.
    fn row(&self, series: &Series, first: &Series) -> Vec<String> {
        let same = self.ours(series.idiom);
        let same = if series.kind == Kind::Ours || same.idiom != series.idiom || std::ptr::eq(same, first) {
            String::new()
        } else {
            series.over(same).to_string()
        };
        let name = match series.kind {
            Kind::Limit => format!("({})", series.name),
            _ => series.name.into(),
        };
        let (figure, ratio) = match series.never() {
            Some(never) => (never, String::new()),
            None => (figure(series.sorted().median()), series.over(first).to_string()),
        };
        vec![name, series.idiom.to_string(), figure, ratio, same]
    }
}
