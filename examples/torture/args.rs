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

/// With a bug it takes a moment, or never comes.
const BROKEN_FOR: Duration = Duration::from_secs(5);

impl Args {
    /// # Errors
    ///
    /// If an option is unknown or its value makes no sense.
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
    -s, --seconds N   how long (10)
    -t, --threads N   readers, and as many updaters (the number of cores); a dozen others come on top
        --seed N      what every thread chooses at random is repeated (not how threads interleave)
        --broken KIND breaks something on purpose, for {} seconds at the most: the run must fail
        --broken list what can be broken
    -h, --help        this text

what is checked:
    Elements are published, replaced, and aged by one at every grace period after that, by every flavour of
    grace period there is. A reader that holds an element may see it replaced (age 1), and must never see it
    older. A run in which no reader saw age 1 had no teeth, and fails.
    Values in registries carry checksums, and poison when they are dropped; stable keys are always found, and
    never go back. Whenever all threads rest, created = dropped + live, and callbacks given = run. A reader
    that stays too long is reported by name.

exit status:
    0  nothing went wrong, and the run had teeth
    1  something went wrong: the verdict says what
    2  the command line is wrong
    3  it hung: the verdict says who
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
