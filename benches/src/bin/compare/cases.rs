//! The results: cases, the series of their contenders, and the ratios between series.

use benches::{Sorted, Table, figure};
use std::fmt;
use std::time::Duration;

/// The way in which a contender runs its operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Idiom {
    /// One critical section per read, by a session of the thread.
    Session,
    /// One critical section (or one lock) per operation.
    Each,
    /// One critical section (or one lock) for all operations of a turn.
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

/// The kind of a contender.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Ours,
    /// A concurrent map whose readers take no locks.
    LockFree,
    /// A concurrent map that takes locks for its operations.
    Locking,
    /// A library in C.
    #[cfg_attr(not(any(feature = "liburcu", feature = "dpdk")), expect(dead_code, reason = "all are behind features"))]
    Foreign,
    /// Shown for comparison only. It lacks part of a registry: writes during reads, or reads by key.
    Limit,
}

impl Kind {
    /// Returns whether this is a peer: another concurrent map in Rust.
    pub fn is_peer(self) -> bool {
        matches!(self, Kind::LockFree | Kind::Locking)
    }
}

/// When the values that a write removes are dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Drops {
    /// By the operation, before it returns. The measured time includes all drops.
    AtOnce,
    /// After the operation, when no reader can see the value. The measured time includes the drops by later
    /// operations of the turn, and excludes the others.
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

/// The longest time that a case with [`Drops::Awaited`] waits for the last drop.
pub const DROP_LIMIT: Duration = Duration::from_secs(1);

/// A workload with its parameters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Case {
    pub group: &'static str,
    pub work: &'static str,
    /// The type of the keys (or of the values, where they make the difference), and the distribution of keys.
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

/// The samples of one contender.
#[derive(Clone, Debug)]
pub struct Series {
    pub name: &'static str,
    pub idiom: Idiom,
    pub kind: Kind,
    /// One sample per round, in the unit of the case. NaN stands for a missing sample.
    pub rounds: Vec<f64>,
    /// When removed values are dropped, for a series of writes.
    pub drops: Option<Drops>,
    /// The peak of allocated bytes in a turn, above those allocated at its start.
    pub peak: Option<f64>,
}

impl Series {
    pub fn new(name: &'static str, idiom: Idiom, kind: Kind, rounds: Vec<f64>) -> Series {
        Series { name, idiom, kind, rounds, drops: None, peak: None }
    }

    /// Returns the peak, unless the series has no sample because drops exceeded the time limit.
    pub fn peak(&self) -> Option<f64> {
        self.peak.filter(|_| self.never().is_none())
    }

    /// Returns the text to show if there is no sample because drops exceeded the time limit.
    pub fn never(&self) -> Option<String> {
        let never = self.drops == Some(Drops::Awaited) && self.rounds.iter().all(|round| round.is_nan());
        never.then(|| format!("never within {} s", DROP_LIMIT.as_secs()))
    }

    /// Returns the ratios of this series to the other, for the rounds in which both have a sample.
    pub fn over(&self, other: &Series) -> Sorted {
        let ratio = |(this, other): (&f64, &f64)| this / if *other == 0.0 { f64::MIN_POSITIVE } else { *other };
        numbers(self.rounds.iter().zip(&other.rounds).map(ratio))
    }

    pub fn sorted(&self) -> Sorted {
        numbers(self.rounds.iter().copied())
    }
}

/// Returns the values that are not NaN, or a single NaN if there is none.
fn numbers(values: impl Iterator<Item = f64>) -> Sorted {
    let values: Vec<_> = values.filter(|value| !value.is_nan()).collect();
    Sorted::new(if values.is_empty() { vec![f64::NAN] } else { values })
}

/// A measured case.
pub struct Measured {
    pub case: Case,
    pub unit: &'static str,
    pub series: Vec<Series>,
}

impl Measured {
    /// Returns our series with this idiom, or our first series if there is none.
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
    /// Returns the cells of a series that every table has.
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
