//! A histogram of durations, in powers of two.

use std::fmt;
use std::time::Duration;

/// Counts of durations by length, in buckets. The first bucket ends at one microsecond, and each bucket ends at
/// twice the length of the one before.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Histogram {
    counts: [u64; BUCKETS],
    total: Duration,
    max: Duration,
}

/// The number of buckets. The last one holds all durations of about 18 minutes or more.
const BUCKETS: usize = 32;

impl Histogram {
    /// Returns the number of durations recorded.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns the sum of the durations.
    pub fn total(&self) -> Duration {
        self.total
    }

    /// Returns the longest duration.
    pub fn max(&self) -> Duration {
        self.max
    }

    /// Returns a duration that a share of `q` (0 to 1) of the recorded ones does not exceed. It is at most twice
    /// the least such duration, and at most [`max`](Self::max). Zero if nothing was recorded.
    pub fn quantile(&self, q: f64) -> Duration {
        let rank = (q.clamp(0.0, 1.0) * self.count() as f64).ceil().max(1.0) as u64;
        let mut below = 0;
        let bucket = self.counts.iter().position(|&count| {
            below += count;
            below >= rank
        });
        match bucket {
            Some(bucket) if bucket + 1 < BUCKETS => Histogram::end(bucket).min(self.max),
            Some(_) => self.max,
            None => Duration::ZERO,
        }
    }

    /// Returns the buckets: the end of each, and the number of durations in it. The last bucket has no end: it
    /// holds all longer durations.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u64)> + '_ {
        let end = |bucket| (bucket + 1 < BUCKETS).then(|| Histogram::end(bucket));
        self.counts.iter().enumerate().map(move |(bucket, &count)| (end(bucket), count))
    }

    pub(crate) fn record(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        // Bucket 0 is for less than a microsecond. Else the bucket is one more than the binary logarithm.
        let bucket = (u64::BITS - micros.leading_zeros()) as usize;
        self.counts[bucket.min(BUCKETS - 1)] += 1;
        self.total = self.total.saturating_add(duration);
        self.max = self.max.max(duration);
    }

    fn end(bucket: usize) -> Duration {
        Duration::from_micros(1 << bucket)
    }
}

/// Prints the median, the 99th percentile and the maximum.
impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p50 {:.1?}, p99 {:.1?}, max {:.1?}", self.quantile(0.5), self.quantile(0.99), self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_within_a_factor_of_two() {
        let mut histogram = Histogram::default();
        assert_eq!((histogram.quantile(0.5), histogram.count()), (Duration::ZERO, 0));
        (1..=1000).for_each(|n| histogram.record(Duration::from_micros(n)));
        for q in [0.001, 0.5, 0.9, 0.99, 1.0] {
            let (true_one, told) = (1000.0 * q, histogram.quantile(q).as_micros() as f64);
            assert!((true_one..=true_one * 2.0).contains(&told), "{q}: {told} µs");
        }
        assert_eq!(histogram.max(), Duration::from_micros(1000));
        assert_eq!(histogram.total(), Duration::from_micros(1000 * 1001 / 2));
    }

    #[test]
    fn no_duration_is_too_short_or_too_long() {
        let mut histogram = Histogram::default();
        histogram.record(Duration::ZERO);
        histogram.record(Duration::MAX);
        histogram.record(Duration::from_nanos(1500));
        let buckets: Vec<_> = histogram.buckets().filter(|&(_, count)| count > 0).collect();
        let micros = |n| Some(Duration::from_micros(n));
        assert_eq!(buckets, [(micros(1), 1), (micros(2), 1), (None, 1)]);
        assert_eq!(histogram.quantile(1.0), Duration::MAX);
    }
}
