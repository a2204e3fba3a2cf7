//! The command line.

use std::ffi::OsString;
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::{Arg, ValueExt};

pub struct Args {
    pub root: PathBuf,
    pub threads: usize,
    pub entries: usize,
    pub time: Duration,
}

pub enum Command {
    Run(Args),
    Help,
}

impl Args {
    /// # Errors
    ///
    /// Fails if an option is unknown or its value is invalid.
    pub fn parse(args: impl IntoIterator<Item = impl Into<OsString>>) -> Result<Command, lexopt::Error> {
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        let mut parsed = Args { root: "/usr".into(), threads, entries: 1 << 17, time: Duration::from_secs(2) };
        let mut parser = lexopt::Parser::from_iter(args);
        while let Some(arg) = parser.next()? {
            match arg {
                Arg::Long("root") | Arg::Short('r') => parsed.root = parser.value()?.into(),
                Arg::Long("threads") | Arg::Short('t') => {
                    parsed.threads = parser.value()?.parse_with(|text| in_range(text, 1024))?;
                }
                Arg::Long("entries") | Arg::Short('e') => {
                    parsed.entries = parser.value()?.parse_with(|text| in_range(text, 1 << 30))?;
                }
                Arg::Long("seconds") | Arg::Short('s') => parsed.time = parser.value()?.parse_with(seconds)?,
                Arg::Long("help") | Arg::Short('h') => return Ok(Command::Help),
                other => return Err(other.unexpected()),
            }
        }
        Ok(Command::Run(parsed))
    }
}

fn in_range(text: &str, most: usize) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (1..=most).contains(&number) => Ok(number),
        _ => Err(format!("not a number from 1 to {most}")),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if (0.01..=86_400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("not a number of seconds from 0.01 to 86400".to_string()),
    }
}

pub const HELP: &str = "\
Caches the names of a directory tree as the Linux kernel's dcache does, and compares the answers with the tree.

usage: dcache [--root DIRECTORY] [--threads N] [--entries N] [--seconds N]

options:
    -r, --root DIRECTORY  the tree (default: /usr). It is only read. Other file systems mounted in it are left
                          out.
    -t, --threads N       number of threads that walk it and resolve paths (default: the machine's cores)
    -e, --entries N       most entries that the cache may hold (default: 131072)
    -s, --seconds N       how long to resolve paths by the cache, and again by the file system, in turns
                          (default: 2). The walk and the comparison take additional time.
    -h, --help            prints this text

what it does:
    Walks the tree with all threads, and resolves every name. Then resolves random paths, some far more often
    than others (Zipf, skew 1): names of the tree, names that do not exist, names below files, paths with `..`,
    and paths through symbolic links, which are not cached but passed to the file system. Asks
    std::fs::symlink_metadata for the same paths in the same order. Compares every answer of the cache (whether
    the path exists, kind, inode, size) with the file system's, and all paths once more at the end.
    Then changes a tree of its own, in the directory for temporary files, while all threads resolve paths in it.
    It tells the cache what to forget, and the answers must follow the changes.

exit status:
    0  all answers were those of the file system, and the bound held. (Differences are excused if the tree
       changed and the file system dates its changes, which proc does not.)
    1  the tree cannot be read, or the temporary tree cannot be made
    2  the command line is wrong
    3  an answer was wrong, the bound was exceeded, or an entry was not dropped
";
