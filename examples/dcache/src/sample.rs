//! The paths to resolve, and how often to resolve each.

use std::path::{Path, PathBuf};

use crate::dentry::{Answer, ask};
use crate::random::Random;

/// The kind of a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Class {
    Existing,
    /// A name that does not exist, or a name below something that is not a directory.
    Absent,
    /// With a `..` in it.
    DotDot,
    /// Through a symbolic link.
    ThroughLink,
}

impl Class {
    pub const ALL: [(Class, &str); 4] = [
        (Class::Existing, "existing"),
        (Class::Absent, "absent"),
        (Class::DotDot, "with `..`"),
        (Class::ThroughLink, "through links"),
    ];
}

pub struct Sample {
    pub class: Class,
    pub relative: PathBuf,
    pub absolute: PathBuf,
    /// What the file system said before any path was resolved.
    pub expected: Answer,
}

pub struct Population {
    pub samples: Vec<Sample>,
    /// The indexes of the samples to resolve, one after another.
    pub trace: Vec<u32>,
}

/// One in this many names of the tree gets a path of each further class.
const EVERY: usize = 10;
/// The most paths through links.
const MOST_LINKS: usize = 2000;
const TRACE: usize = 1 << 20;
const SKEW: f64 = 1.0;

impl Population {
    /// Creates a population from the names of a tree, which are relative paths.
    pub fn new(root: &Path, names: Vec<PathBuf>, threads: usize) -> Self {
        let mut random = Random::new(1);
        let mut paths = further(root, &names);
        paths.extend(names.into_iter().map(|path| (Class::Existing, path)));
        // The position in the list determines how popular a path is.
        random.shuffle(&mut paths);
        let samples = asked(root, paths, threads);
        let trace = if samples.is_empty() { Vec::new() } else { zipf(samples.len(), TRACE, &mut random) };
        Population { samples, trace }
    }

    pub fn count(&self, class: Class) -> usize {
        self.samples.iter().filter(|sample| sample.class == class).count()
    }
}

/// Returns paths of the classes that a walk does not meet.
fn further(root: &Path, names: &[PathBuf]) -> Vec<(Class, PathBuf)> {
    let mut paths = Vec::new();
    for (at, path) in names.iter().enumerate() {
        let (Some(name), Some(directory)) = (path.file_name(), path.parent()) else { continue };
        match at % EVERY {
            0 => {
                let mut absent = name.to_owned();
                absent.push(".absent");
                paths.push((Class::Absent, directory.join(absent)));
            }
            1 => paths.push((Class::Absent, path.join("absent"))),
            // If the name in the middle is not a directory, the path does not exist.
            2 => paths.push((Class::DotDot, path.join("..").join(name))),
            3 if !directory.as_os_str().is_empty() => {
                let above = directory.file_name().unwrap_or_default();
                paths.push((Class::DotDot, directory.join("..").join(above).join(name)));
            }
            _ => {}
        }
    }
    let links = names.iter().filter_map(|path| {
        let link = root.join(path);
        let leads_on = std::fs::symlink_metadata(&link).ok()?.is_symlink() && link.is_dir();
        let below = leads_on.then(|| std::fs::read_dir(&link).ok()?.next()?.ok())??;
        Some((Class::ThroughLink, path.join(below.file_name())))
    });
    paths.extend(links.take(MOST_LINKS));
    paths
}

/// Asks the file system about each path.
fn asked(root: &Path, paths: Vec<(Class, PathBuf)>, threads: usize) -> Vec<Sample> {
    let share = paths.len().div_ceil(threads).max(1);
    let ask_all = |share: &[(Class, PathBuf)]| {
        let sample = |(class, relative): &(Class, PathBuf)| {
            let absolute = root.join(relative);
            let expected = ask(&absolute);
            Sample { class: *class, relative: relative.clone(), absolute, expected }
        };
        share.iter().map(sample).collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        let askers: Vec<_> = paths.chunks(share).map(|share| scope.spawn(|| ask_all(share))).collect();
        askers.into_iter().flat_map(|asker| asker.join().expect("an asker panicked")).collect()
    })
}

/// Draws `draws` numbers below `count`. The number k is drawn with a probability proportional to `(k + 1) ^ -SKEW`.
fn zipf(count: usize, draws: usize, random: &mut Random) -> Vec<u32> {
    let mut total = 0.0;
    let until: Vec<f64> = (1..=count)
        .map(|rank| {
            total += (rank as f64).powf(-SKEW);
            total
        })
        .collect();
    let draw = |point: f64| until.partition_point(|&until| until <= point).min(count - 1) as u32;
    (0..draws).map(|_| draw(random.unit() * total)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn popularity_falls_with_the_rank() {
        let draws = zipf(1000, 100_000, &mut Random::new(3));
        let count = |rank| draws.iter().filter(|&&drawn| drawn == rank).count() as f64;
        assert!(draws.iter().all(|&rank| rank < 1000));
        // With a skew of 1, the first rank is drawn twice as often as the second, and ten times as often as the tenth.
        assert!((1.8..2.2).contains(&(count(0) / count(1))));
        assert!((8.0..12.5).contains(&(count(0) / count(9))));
    }
}
