//! The usage of control groups against their limits, version 2 and version 1.
//!
//! A limit on a group holds for the group and all groups below it together. So the source reads the program's own
//! group and all groups above it, each with its own usage. The fullest one counts.

use super::source::{Level, Marks, Reading, Source, Unavailable};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// Limits from here on count as no limit. Version 1 reports the greatest number of pages if there is no limit.
const UNLIMITED: u64 = 1 << 62;

/// The version of the kernel's interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    /// `memory.limit_in_bytes`, `memory.usage_in_bytes`.
    V1,
    /// `memory.max` and `memory.high`, `memory.current`.
    V2,
}

impl Version {
    fn name(self) -> &'static str {
        match self {
            Version::V1 => "cgroup v1",
            Version::V2 => "cgroup v2",
        }
    }

    fn limits(self) -> &'static [&'static str] {
        match self {
            Version::V1 => &["memory.limit_in_bytes"],
            Version::V2 => &["memory.max", "memory.high"],
        }
    }

    fn usage(self) -> &'static str {
        match self {
            Version::V1 => "memory.usage_in_bytes",
            Version::V2 => "memory.current",
        }
    }

    /// The key in `memory.stat` of the page cache that can be dropped at once, of the group and the groups below it.
    fn inactive_file(self) -> &'static str {
        match self {
            Version::V1 => "total_inactive_file",
            Version::V2 => "inactive_file",
        }
    }
}

/// The memory of the process's control group against its limit. Page cache that was not used lately does not
/// count, as the kernel drops it first.
///
/// Limits are read at each look, so they may change while the program runs. The set of groups is fixed: a group
/// that had no limit at first is not read again, and neither is a group that the process moves to later.
#[derive(Clone, Debug)]
pub struct Cgroup {
    name: String,
    version: Version,
    /// The groups with a limit: the process's own first, then those above it.
    groups: Vec<PathBuf>,
    marks: Marks,
}

impl Cgroup {
    /// Creates a source for the control group of this process, from `/proc/self/cgroup` and `/proc/self/mountinfo`.
    ///
    /// # Errors
    ///
    /// Fails if no such hierarchy with a memory controller is mounted, if no group has a limit, or if these files
    /// cannot be read.
    pub fn new(version: Version) -> Result<Self, Unavailable> {
        Self::under("/", version)
    }

    /// Like [`new`](Self::new), with all paths below the directory `root`: for a copy of another machine's files.
    ///
    /// # Errors
    ///
    /// See [`new`](Self::new).
    pub fn under(root: impl AsRef<Path>, version: Version) -> Result<Self, Unavailable> {
        let missing = |why: &str| Err(Unavailable::new(version.name(), why));
        let place = match locate(root.as_ref(), version) {
            Ok(Some(place)) => place,
            Ok(None) => return missing("no such hierarchy with a controller for memory is mounted"),
            Err((path, error)) => return Err(Unavailable::file(version.name(), path, error)),
        };
        let above = place.own.ancestors().take_while(|group| group.starts_with(&place.top));
        let limited = above.filter(|group| matches!(limit_of(group, version), Ok(Some(_))));
        let groups: Vec<_> = limited.map(Path::to_owned).collect();
        let Some(first) = groups.first() else {
            return missing(&format!("no limit on {} and above", place.own.display()));
        };
        let name = format!("{} {}", version.name(), first.display());
        Ok(Cgroup { name, version, groups, marks: Marks::default() })
    }

    /// Sets where shedding begins and ends, as fractions of the limit.
    pub fn marks(mut self, marks: Marks) -> Self {
        self.marks = marks;
        self
    }

    /// Returns the usage and limit of the fullest group, of the process's own and those above it. `None` if no
    /// group has a limit any more.
    ///
    /// # Errors
    ///
    /// Fails if the files of a group cannot be read.
    pub fn level(&self) -> Result<Option<Level>, Unavailable> {
        let mut fullest = None;
        for group in &self.groups {
            let level = level_of(group, self.version, self.marks);
            let level = level.map_err(|(path, error)| Unavailable::file(&self.name, path, error))?;
            let fullness = |level: &Level| level.used as f64 / level.limit.max(1) as f64;
            fullest = fullest.into_iter().chain(level).max_by(|one, other| fullness(one).total_cmp(&fullness(other)));
        }
        Ok(fullest)
    }
}

impl Source for Cgroup {
    fn name(&self) -> &str {
        &self.name
    }

    fn check(&mut self, _signalled: bool) -> Result<Reading, Unavailable> {
        Ok(self.level()?.map_or(Reading::Quiet, Reading::Level))
    }
}

/// A file, and the error that it caused.
type Failed = (PathBuf, io::Error);

/// The directories of the process's group and of the uppermost visible group.
#[derive(PartialEq, Eq, Debug)]
struct Place {
    own: PathBuf,
    top: PathBuf,
}

/// A mounted hierarchy.
#[derive(PartialEq, Eq, Debug)]
struct Mount {
    /// The group at the root of the mount.
    root: PathBuf,
    /// The mount point.
    point: PathBuf,
}

/// Returns the directory of the process's own group of version 2, with or without a memory controller.
pub(super) fn own_v2(root: &Path) -> Option<PathBuf> {
    locate(root, Version::V2).ok().flatten().map(|place| place.own)
}

fn locate(root: &Path, version: Version) -> Result<Option<Place>, Failed> {
    let groups = read(&root.join("proc/self/cgroup"))?;
    let mounts = read(&root.join("proc/self/mountinfo"))?;
    let place = group_in(&groups, version).and_then(|group| place_in(&mounts_in(&mounts, version), group));
    let within = |path: PathBuf| root.join(path.strip_prefix("/").unwrap_or(&path));
    Ok(place.map(|place| Place { own: within(place.own), top: within(place.top) }))
}

/// Returns the path of the process's group from the text of `/proc/self/cgroup`: lines such as `4:memory:/a/b`
/// and `0::/a/b`.
fn group_in(text: &str, version: Version) -> Option<&Path> {
    text.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let matches = match version {
            Version::V1 => controllers.split(',').any(|controller| controller == "memory"),
            Version::V2 => number == "0" && controllers.is_empty(),
        };
        matches.then_some(Path::new(path))
    })
}

/// Returns the hierarchies with a memory controller from the text of `/proc/self/mountinfo`: lines such as `35 31
/// 0:32 /a /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory`, with optional fields before the dash.
fn mounts_in(text: &str, version: Version) -> Vec<Mount> {
    let mount = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let mut fields = after.split(' ');
        let (kind, options) = (fields.next()?, fields.nth(1)?);
        let matches = match version {
            Version::V1 => kind == "cgroup" && options.split(',').any(|option| option == "memory"),
            Version::V2 => kind == "cgroup2",
        };
        matches.then(|| Mount { root: unescape(root), point: unescape(point) })
    };
    text.lines().filter_map(mount).collect()
}

/// Decodes the octal escapes of blanks and the like, such as `\040`.
fn unescape(text: &str) -> PathBuf {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                plain.push(code.into());
                plain.push_str(&part[3..]);
            }
            None => {
                plain.push('\\');
                plain.push_str(part);
            }
        }
    }
    plain.into()
}

/// Returns the place of the group. If the group is not below a mount, the root of the first mount is the nearest
/// visible group. This is so in a container that sees only its own group, but gets its path from outside.
fn place_in(mounts: &[Mount], group: &Path) -> Option<Place> {
    let outside = group.components().any(|part| part == Component::ParentDir);
    let below = |mount: &&Mount| !outside && group.starts_with(&mount.root);
    if let Some(mount) = mounts.iter().find(below) {
        let rest = group.strip_prefix(&mount.root).unwrap_or(Path::new(""));
        let own = if rest.as_os_str().is_empty() { mount.point.clone() } else { mount.point.join(rest) };
        return Some(Place { own, top: mount.point.clone() });
    }
    mounts.first().map(|mount| Place { own: mount.point.clone(), top: mount.point.clone() })
}

fn read(path: &Path) -> Result<String, Failed> {
    fs::read_to_string(path).map_err(|error| (path.to_owned(), error))
}

/// Parses the text of a file that holds only a number. "max" counts as `u64::MAX`.
fn number(text: &str) -> Option<u64> {
    match text.trim() {
        "max" => Some(u64::MAX),
        digits => digits.parse().ok(),
    }
}

/// Returns the number of a line such as `inactive_file 4096`.
fn number_of(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok())
}

fn malformed(path: PathBuf) -> Failed {
    (path, io::Error::new(io::ErrorKind::InvalidData, "not a number of bytes"))
}

fn read_number(path: PathBuf) -> Result<u64, Failed> {
    number(&read(&path)?).ok_or_else(|| malformed(path))
}

/// Returns the lowest limit on this group alone. (The uppermost group has no such files.)
fn limit_of(group: &Path, version: Version) -> Result<Option<u64>, Failed> {
    let mut least = UNLIMITED;
    for file in version.limits() {
        match read_number(group.join(file)) {
            Ok(limit) => least = least.min(limit),
            Err((_, error)) if error.kind() == io::ErrorKind::NotFound => {}
            Err(failed) => return Err(failed),
        }
    }
    Ok((least < UNLIMITED).then_some(least))
}

fn level_of(group: &Path, version: Version, marks: Marks) -> Result<Option<Level>, Failed> {
    let Some(limit) = limit_of(group, version)? else { return Ok(None) };
    let used = read_number(group.join(version.usage()))?;
    let level = Level::new(used, limit, marks);
    if level.used <= level.high {
        return Ok(Some(level));
    }
    // Read only now: the kernel needs a while to add this up.
    let stat = group.join("memory.stat");
    let cache = number_of(&read(&stat)?, version.inactive_file()).ok_or_else(|| malformed(stat))?;
    Ok(Some(Level { used: used.saturating_sub(cache), ..level }))
}

#[cfg(test)]
mod tests;
