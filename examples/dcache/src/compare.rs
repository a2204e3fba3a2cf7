//! Compares the cache's answers with the file system's.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::cache::{Dcache, Source};
use crate::dentry::{Answer, ask, changed};
use crate::sample::{Population, Sample};

#[derive(Default)]
pub struct Comparison {
    pub compared: u64,
    /// How many of these the cache answered alone.
    pub cached: u64,
    /// Differences because the tree has changed since the program began. The cache agrees when asked again.
    pub explained: u64,
    /// All other differences.
    pub differences: Vec<String>,
}

/// File systems date files by a coarse clock, which may be late by a tick.
const CLOCK_SLACK: Duration = Duration::from_millis(100);
/// How often to ask again for a path that changes during the comparison.
const ATTEMPTS: usize = 5;

/// Compares all paths of the population. Also examines the `doubtful` samples, for which an earlier answer
/// differed from the file system's.
pub fn compare(
    cache: &Dcache,
    population: &Population,
    doubtful: &BTreeSet<u32>,
    began: SystemTime,
    threads: usize,
) -> Comparison {
    let share = population.samples.len().div_ceil(threads).max(1);
    let compare_share = |first: usize, samples: &[Sample]| {
        let (mut comparison, mut reader) = (Comparison::default(), cache.reader());
        for (at, sample) in samples.iter().enumerate() {
            let (answer, source) = cache.resolve(&mut reader, &sample.relative);
            let truth = reader.offline(|| ask(&sample.absolute));
            comparison.compared += 1;
            comparison.cached += u64::from(source == Source::Cache);
            if answer == truth && !doubtful.contains(&((first + at) as u32)) {
                continue;
            }
            // Some file systems, such as proc, do not date their changes.
            let has_changed = truth != sample.expected || has_changed_since(&sample.absolute, began);
            match has_changed && agrees_when_told(cache, sample) {
                true => comparison.explained += 1,
                false => comparison.differences.push(difference(sample, &answer, &truth)),
            }
        }
        comparison
    };
    std::thread::scope(|scope| {
        let compare_share = &compare_share;
        let shares = population.samples.chunks(share).enumerate();
        let comparers: Vec<_> =
            shares.map(|(nth, samples)| scope.spawn(move || compare_share(nth * share, samples))).collect();
        comparers.into_iter().map(|comparer| comparer.join().expect("a comparer panicked")).fold(
            Comparison::default(),
            |mut all, one| {
                all.compared += one.compared;
                all.cached += one.cached;
                all.explained += one.explained;
                all.differences.extend(one.differences);
                all
            },
        )
    })
}

fn difference(sample: &Sample, answer: &Answer, truth: &Answer) -> String {
    format!("{}: {answer:?}, but the file system has {truth:?}; was {:?}", sample.absolute.display(), sample.expected)
}

/// Returns whether the cache gives the right answer after the path was invalidated.
fn agrees_when_told(cache: &Dcache, sample: &Sample) -> bool {
    let mut reader = cache.reader();
    (0..ATTEMPTS).any(|_| {
        let before = reader.offline(|| {
            let mut downwards: Vec<&Path> = sample.relative.ancestors().collect();
            downwards.reverse();
            downwards.into_iter().for_each(|path| cache.invalidate(path));
            ask(&sample.absolute)
        });
        let answer = cache.resolve(&mut reader, &sample.relative).0;
        let after = reader.offline(|| ask(&sample.absolute));
        // If the file changes at this very moment, the state before, after or in between is right.
        answer == before || answer == after || before != after
    })
}

/// Returns whether the path or a directory above it was changed since. Creating, removing or renaming a name
/// changes its directory.
fn has_changed_since(path: &Path, since: SystemTime) -> bool {
    let since = since.checked_sub(CLOCK_SLACK).unwrap_or(since);
    path.ancestors().any(|path| {
        std::fs::symlink_metadata(path).is_ok_and(|metadata| changed(&metadata).is_some_and(|changed| changed >= since))
    })
}
