//! Shared parts of the benchmark programs: a clock, random keys, order statistics, tables, and the command line.

pub mod heap;
#[cfg(feature = "liburcu")]
pub mod liburcu;

use core_affinity::CoreId;
use std::fmt;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// The command line of a benchmark: `--NAME N` and `--test`.
#[derive(Debug)]
pub struct CommandLine {
    /// The value of the option `--NAME`.
    pub amount: u64,
    /// Whether to run one quick round of everything, to check that it runs.
    pub test: bool,
}

impl CommandLine {
    /// Reads the command line of this process. If `--name` is absent, its value is `default`. Exits if the command line
    /// has any other argument.
    pub fn read(name: &str, default: u64) -> CommandLine {
        CommandLine::parse(lexopt::Parser::from_env(), name, default).unwrap_or_else(|error| {
            eprintln!("{error}\nusage: [--{name} N] [--test]    (N is {default} by default)");
            std::process::exit(2);
        })
    }

    fn parse(mut parser: lexopt::Parser, name: &str, default: u64) -> Result<CommandLine, lexopt::Error> {
        use lexopt::{Arg::Long, ValueExt};
        let mut line = CommandLine { amount: default, test: false };
        while let Some(argument) = parser.next()? {
            match argument {
                Long("test") => line.test = true,
                Long(option) if option == name => line.amount = parser.value()?.parse()?,
                other => return Err(other.unexpected()),
            }
        }
        if line.amount == 0 { Err(format!("--{name} 0 measures nothing").into()) } else { Ok(line) }
    }
}

/// A clock for single operations of a few nanoseconds.
///
/// On x86-64 it is the time stamp counter, which must count at the same rate on all cores. It does so on all machines
/// of the last decade. Elsewhere the clock is `Instant`.
#[derive(Debug)]
pub struct Clock {
    nanoseconds_per_tick: f64,
}

impl Clock {
    /// Returns a clock whose rate was measured against `Instant`, for 50 ms.
    pub fn calibrate() -> Clock {
        let mut clock = Clock { nanoseconds_per_tick: 1.0 };
        let (ticks, time) = (clock.now(), Instant::now());
        while time.elapsed() < Duration::from_millis(50) {}
        let (ticks, time) = (clock.now() - ticks, time.elapsed());
        clock.nanoseconds_per_tick = time.as_nanos() as f64 / ticks as f64;
        clock
    }

    /// Returns the current time in ticks. Earlier instructions have completed by then, and later ones have not begun.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub fn now(&self) -> u64 {
        use std::arch::x86_64::{_mm_lfence, _rdtsc};
        // SAFETY: every x86-64 processor has SSE2, and so `lfence`.
        unsafe { _mm_lfence() };
        // SAFETY: user code may read the counter unless the kernel forbids it, and Linux does not.
        let ticks = unsafe { _rdtsc() };
        // SAFETY: every x86-64 processor has SSE2, and so `lfence`.
        unsafe { _mm_lfence() };
        ticks
    }

    /// Returns the current time in ticks.
    #[cfg(not(target_arch = "x86_64"))]
    #[inline(always)]
    pub fn now(&self) -> u64 {
        static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
        ORIGIN.elapsed().as_nanos() as u64
    }

    /// Converts ticks to nanoseconds.
    pub fn nanoseconds(&self, ticks: u64) -> f64 {
        ticks as f64 * self.nanoseconds_per_tick
    }

    /// Converts a duration to ticks.
    pub fn ticks(&self, duration: Duration) -> u64 {
        (duration.as_nanos() as f64 / self.nanoseconds_per_tick) as u64
    }
}

/// Pins this thread, and the threads that it spawns, to one core.
///
/// The core is the one at index `place`, modulo their number, among the cores that the process may use. Does nothing on
/// systems without this facility.
pub fn stay_on_core(place: usize) {
    // Queried once, because a thread pinned to one core sees no other core.
    static CORES: LazyLock<Vec<CoreId>> = LazyLock::new(|| core_affinity::get_core_ids().unwrap_or_default());
    let cores = &*CORES;
    if let Some(core) = cores.get(place % cores.len().max(1)) {
        core_affinity::set_for_current(*core);
    }
}

/// A fast generator of random numbers (xorshift64), in an order that no prefetcher can predict.
#[derive(Debug)]
pub struct Xorshift(u64);

impl Xorshift {
    /// Returns a generator whose sequence depends on `seed`.
    pub fn new(seed: u64) -> Xorshift {
        // The state must not be zero: xorshift would stay at zero.
        Xorshift(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Returns the next number, which is below `limit`.
    #[inline]
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// A distribution of ranks, each with a probability proportional to 1 / (1 + rank)^skew.
#[derive(Debug)]
pub struct Zipf {
    /// For each rank, the probability of all ranks up to it.
    below: Vec<f64>,
}

impl Zipf {
    /// Returns the distribution of the ranks below `ranks`, which is at least one.
    pub fn new(ranks: usize, skew: f64) -> Zipf {
        let mut sum = 0.0;
        let mut below: Vec<f64> = (1..=ranks)
            .map(|rank| {
                sum += (rank as f64).powf(-skew);
                sum
            })
            .collect();
        below.iter_mut().for_each(|share| *share /= sum);
        Zipf { below }
    }

    /// Draws a rank.
    pub fn draw(&self, random: &mut Xorshift) -> u64 {
        let point = random.below(1 << 53) as f64 / (1_u64 << 53) as f64;
        self.below.partition_point(|&share| share < point).min(self.below.len() - 1) as u64
    }

    /// Returns the total probability of the first `count` ranks, for a `count` of at least one.
    pub fn share(&self, count: usize) -> f64 {
        self.below[count - 1]
    }
}

/// Sorted values, which give percentiles.
#[derive(Debug)]
pub struct Sorted(Vec<f64>);

impl Sorted {
    /// Sorts the values.
    ///
    /// # Panics
    ///
    /// If there is no value.
    pub fn new(values: impl IntoIterator<Item = f64>) -> Sorted {
        let mut values: Vec<_> = values.into_iter().collect();
        assert!(!values.is_empty(), "order statistics need at least one value");
        values.sort_by(f64::total_cmp);
        Sorted(values)
    }

    /// Returns the number of values.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Returns the smallest value that at least `percent` percent of all values do not exceed. For 0, returns the
    /// smallest value.
    pub fn percentile(&self, percent: f64) -> f64 {
        let rank = (percent / 100.0 * self.0.len() as f64).ceil() as usize;
        self.0[rank.saturating_sub(1)]
    }

    /// Returns the median.
    pub fn median(&self) -> f64 {
        self.percentile(50.0)
    }
}

/// Prints the median and the quartiles: `1.02 [0.99, 1.10]`.
impl fmt::Display for Sorted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [low, middle, high] = [25.0, 50.0, 75.0].map(|percent| figure(self.percentile(percent)));
        write!(f, "{middle} [{low}, {high}]")
    }
}

/// Formats a number with at most two decimals, or with four if it is below 0.01.
pub fn figure(value: f64) -> String {
    let decimals = match value {
        0.0..0.01 => 4,
        0.01..100.0 => 2,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

/// A text table for the terminal. The first columns are left-aligned, the others right-aligned.
#[derive(Debug)]
pub struct Table {
    left: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Returns a table with this header. Its first `left` columns are left-aligned.
    pub fn new<'h>(left: usize, header: impl IntoIterator<Item = &'h str>) -> Table {
        Table { left, rows: vec![header.into_iter().map(str::to_owned).collect()] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells: Vec<_> = cells.into_iter().collect();
        debug_assert_eq!(cells.len(), self.rows[0].len(), "a row has a cell for each column");
        self.rows.push(cells);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut widths = vec![0; self.rows[0].len()];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for row in &self.rows {
            let mut line = String::new();
            for (column, (&width, cell)) in widths.iter().zip(row).enumerate() {
                let padded = if column < self.left { format!("{cell:width$}  ") } else { format!("{cell:>width$}  ") };
                line.push_str(&padded);
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Checks that both sides of the pages about moving from other crates compile and run. They are here because this
/// package depends on these crates already.
#[cfg(doctest)]
mod moving_from {
    #[doc = include_str!("../../docs/moving-from/arc-swap.md")]
    struct ArcSwap;
    #[doc = include_str!("../../docs/moving-from/dashmap.md")]
    struct Dashmap;
    #[doc = include_str!("../../docs/moving-from/moka.md")]
    struct Moka;
    #[doc = include_str!("../../docs/moving-from/papaya.md")]
    struct Papaya;
    #[doc = include_str!("../../docs/moving-from/rwlock-hashmap.md")]
    struct RwLockHashMap;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_given() {
        let sorted = Sorted::new((1..=200).rev().map(f64::from));
        let asked = [0.0, 0.5, 50.0, 99.0, 100.0].map(|percent| sorted.percentile(percent));
        assert_eq!(asked, [1.0, 1.0, 100.0, 198.0, 200.0]);
        assert_eq!(Sorted::new([0.001, 0.7, 700.0]).to_string(), "0.70 [0.0010, 700]");
    }

    #[test]
    fn the_command_line_takes_one_option_and_test() {
        let parse = |arguments: &[&str]| CommandLine::parse(lexopt::Parser::from_args(arguments), "rounds", 30);
        let line = parse(&["--test", "--rounds", "7"]).unwrap();
        assert_eq!((line.amount, line.test), (7, true));
        let line = parse(&[]).unwrap();
        assert_eq!((line.amount, line.test), (30, false));
        for wrong in [&["--rounds"][..], &["--rounds", "many"], &["--rounds", "0"], &["--seconds", "1"], &["7"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    /// The table of features says which versions it is about. The benchmarks and the pages about moving use the same.
    #[test]
    fn the_table_of_features_names_the_versions_of_the_lock_file() {
        let (features, lock) = (include_str!("../../docs/features.md"), include_str!("../../Cargo.lock"));
        let versions = features.split("\n\n").nth(2).unwrap().lines().skip(3);
        let versions: Vec<_> = versions.map(|row| row.split(" | ").collect::<Vec<_>>()).collect();
        assert_eq!(versions.len(), 6);
        for row in versions {
            let (name, version) = (row[0].trim_start_matches("| "), row[1]);
            let locked = format!("name = \"{name}\"\nversion = \"{version}\"\n");
            assert!(lock.contains(&locked), "{name} {version} is not the version of Cargo.lock");
        }
    }
}
