//! The command line.

use std::ffi::OsString;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lexopt::{Arg, ValueExt};

use crate::broken::Broken;

#[derive(Clone, Debug)]
pub struct Args {
    pub time: Duration,
    pub seed: u64,
    pub threads: usize,
    pub broken: Option<Broken>,
}

#[derive(Debug)]
pub enum Command {
    Run(Args),
    Help,
    ListBroken,
}

/// The longest run with a deliberate bug: the run fails within a moment, or not at all.
const BROKEN_FOR: Duration = Duration::from_secs(5);

impl Args {
    /// # Errors
    ///
    /// Fails if an option is unknown or its value is invalid.
    pub fn parse(args: impl IntoIterator<Item = impl Into<OsString>>) -> Result<Command, lexopt::Error> {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let seed = since_1970.as_micros() as u64 % 1_000_000_007;
        let threads = std::thread::available_parallelism().map_or(2, |cores| cores.get());
        let mut parsed = Args { time: Duration::from_secs(10), seed, threads, broken: None };
        let mut parser = lexopt::Parser::from_iter(args);
        while let Some(arg) = parser.next()? {
            match arg {
                Arg::Long("seconds") | Arg::Short('s') => {
                    parsed.time = Duration::from_secs(parser.value()?.parse_with(|text| in_range(text, 1_000_000))?);
                }
                Arg::Long("seed") => parsed.seed = parser.value()?.parse()?,
                Arg::Long("threads") | Arg::Short('t') => {
                    parsed.threads = parser.value()?.parse_with(|text| in_range(text, 1000))? as usize;
                }
                Arg::Long("broken") => {
                    let kind = parser.value()?.string()?;
                    if kind == "list" {
                        return Ok(Command::ListBroken);
                    }
                    parsed.broken = Some(Broken::of(&kind)?);
                }
                Arg::Long("help") | Arg::Short('h') => return Ok(Command::Help),
                other => return Err(other.unexpected()),
            }
        }
        if parsed.broken.is_some() {
            parsed.time = parsed.time.min(BROKEN_FOR);
        }
        Ok(Command::Run(parsed))
    }
}

fn in_range(text: &str, most: u64) -> Result<u64, String> {
    match text.parse() {
        Ok(number) if (1..=most).contains(&number) => Ok(number),
        _ => Err(format!("not a number from 1 to {most}")),
    }
}

pub fn help() -> String {
    format!(
        "\
Tortures the grace periods of epoch-registry, after the Linux kernel's rcutorture.

usage: torture [OPTIONS]

options:
    -s, --seconds N   how long to run (10)
    -t, --threads N   number of readers, and of updaters (the number of cores); 8 other threads run besides
        --seed N      repeats the random choices of every thread (but not how the threads interleave)
        --broken KIND adds a deliberate bug, for at most {} seconds: the run must fail
        --broken list lists the kinds of bugs
    -h, --help        prints this text

what is checked:
    Elements are published and replaced. After that, each grace period ages them by one; all flavours of grace
    periods are used. A reader that holds an element may see it replaced (age 1), and must never see it older.
    A run in which no reader saw age 1 tested nothing (it had no teeth), and fails.
    Values in registries carry checksums, and are poisoned when they are dropped. Stable keys are always found,
    and their versions never go back. Whenever all threads rest, created = dropped + live, and callbacks
    given = callbacks run. A reader that stays too long in its section is reported by name.

exit status:
    0  nothing went wrong, and every check was exercised
    1  something went wrong; the verdict says what
    2  the command line is wrong
    3  the run hung; the verdict names the threads
",
        BROKEN_FOR.as_secs()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str]) -> Option<Args> {
        match Args::parse(["torture"].iter().chain(args)) {
            Ok(Command::Run(args)) => Some(args),
            _ => None,
        }
    }

    #[test]
    fn options_and_defaults() {
        let args = run(&[]).expect("no arguments are fine");
        assert_eq!((args.time, args.broken), (Duration::from_secs(10), None));
        let args = run(&["--seconds", "60", "--seed=7", "-t3", "--broken", "early"]).expect("fine");
        assert_eq!((args.time, args.seed, args.threads), (BROKEN_FOR, 7, 3));
        assert_eq!(args.broken, Some(Broken::Early));
        for (broken, name, _) in Broken::ALL {
            assert_eq!(run(&["--broken", name]).and_then(|args| args.broken), Some(broken));
        }
        assert!(matches!(Args::parse(["torture", "--broken", "list"]), Ok(Command::ListBroken)));
    }

    #[test]
    fn wrong_command_lines_are_refused() {
        for args in [&["--seconds", "0"][..], &["--threads", "x"], &["--broken", "what"], &["--broken"], &["file"]] {
            assert!(run(args).is_none(), "{args:?}");
        }
    }
}
