//! Namespaces that own ids, like those of System V IPC.
//!
//! - Ids are assigned automatically, and stale ids are refused.
//! - Objects are looked up by id and by key.
//! - Thousands of namespaces are created and torn down while other threads look into them.
//! - Handles outlive the namespaces.
//!
//! `cargo run --release -p ipc-example`; `-- --help` lists the options. The example shows
//!
//! - how to build an id allocator on a registry (`ids`),
//! - registries as values of another registry, and two registries that must agree (`namespace`),
//! - many registries read by one session (`worker`),
//! - how to know that everything has been destroyed ([`Domain::barrier`](epoch_registry::Domain::barrier), `run`).
//!
//! It counts every object (`census`), and exits with an error if an object was not dropped exactly once, or if an
//! id led to another object than its own.

#![forbid(unsafe_code)]

mod census;
mod ids;
mod namespace;
#[path = "../../common/random.rs"]
mod random;
mod worker;

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::{self, Write};
use std::num::NonZero;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::HumanCount;
use lexopt::{Arg, ValueExt};

use worker::{Seen, Shared, Worker};

/// The most problems to list. Further ones are only counted.
const MAX_LISTED: usize = 20;

const HELP: &str = "\
Creates namespaces that own ids, like those of System V IPC, uses them from many threads, and tears them down.

usage: ipc [--namespaces N] [--ids N] [--threads N] [--seconds N]

options:
    -n, --namespaces N  number of namespaces to create and tear down (default: 5000)
    -i, --ids N         most objects that a namespace may have at a time (default: 128)
    -t, --threads N     number of threads (default: the machine's cores, but at least two)
    -s, --seconds N     creates no more namespaces after N seconds (default: 8)
    -h, --help          prints this text

exit status:
    0  every object was dropped exactly once, and no id led to another object than its own
    2  the command line is wrong
    3  otherwise
";

struct Args {
    namespaces: u64,
    ids: u32,
    threads: usize,
    time: Duration,
}

impl Args {
    /// Parses the command line. Returns `None` if it asks for help.
    ///
    /// # Errors
    ///
    /// Fails if an option is unknown or its value is invalid.
    fn parse(args: impl IntoIterator<Item = impl Into<OsString>>) -> Result<Option<Args>, lexopt::Error> {
        let threads = std::thread::available_parallelism().map_or(2, NonZero::get).max(2);
        let mut parsed = Args { namespaces: 5000, ids: 128, threads, time: Duration::from_secs(8) };
        let mut parser = lexopt::Parser::from_iter(args);
        while let Some(arg) = parser.next()? {
            match arg {
                Arg::Long("namespaces") | Arg::Short('n') => parsed.namespaces = number(&mut parser, u32::MAX)?.into(),
                Arg::Long("ids") | Arg::Short('i') => parsed.ids = number(&mut parser, 1 << 20)?,
                Arg::Long("threads") | Arg::Short('t') => parsed.threads = number(&mut parser, 1024)? as usize,
                Arg::Long("seconds") | Arg::Short('s') => {
                    parsed.time = Duration::from_secs(number(&mut parser, 86_400)?.into());
                }
                Arg::Long("help") | Arg::Short('h') => return Ok(None),
                other => return Err(other.unexpected()),
            }
        }
        Ok(Some(parsed))
    }
}

fn number(parser: &mut lexopt::Parser, most: u32) -> Result<u32, lexopt::Error> {
    parser.value()?.parse_with(|text| match text.parse() {
        Ok(number) if (1..=most).contains(&number) => Ok(number),
        _ => Err(format!("not a number from 1 to {most}")),
    })
}

fn main() -> ExitCode {
    let args = match Args::parse(std::env::args_os()) {
        Ok(Some(args)) => args,
        // It is no failure if the reading end of a pipe closes early, as `head` does.
        Ok(None) => return write!(io::stdout(), "{HELP}").map_or(ExitCode::SUCCESS, |()| ExitCode::SUCCESS),
        Err(error) => {
            eprintln!("ipc: {error}; --help explains the options");
            return ExitCode::from(2);
        }
    };
    let wrong = run(&args, &mut io::stdout().lock());
    wrong.iter().take(MAX_LISTED).for_each(|problem| eprintln!("ipc: {problem}"));
    if wrong.len() > MAX_LISTED {
        eprintln!("ipc: and {} more", wrong.len() - MAX_LISTED);
    }
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(3) }
}

/// Runs to the end, and prints the figures. Returns the problems found.
fn run(args: &Args, out: &mut dyn Write) -> Vec<String> {
    let started = Instant::now();
    let shared = Shared::new(args.threads, args.ids, args.namespaces, started + args.time);
    let mut seen: Vec<Seen> = std::thread::scope(|scope| {
        let shared = &shared;
        let working: Vec<_> =
            (0..args.threads).map(|nth| scope.spawn(move || Worker::new(shared, nth as u64).run())).collect();
        working.into_iter().map(|thread| thread.join().expect("a worker panicked")).collect()
    });
    let elapsed = started.elapsed();
    let mut wrong: Vec<String> = seen.iter_mut().flat_map(|seen| std::mem::take(&mut seen.wrong)).collect();

    // All namespaces are gone. Only the objects with handles are left.
    let (fates, domain) = (shared.fates.clone(), shared.domain.clone());
    drop(shared);
    domain.barrier();
    let held: HashSet<u64> = seen.iter().flat_map(|seen| &seen.held).map(|(_, object)| object.serial).collect();
    let alive = fates.objects.made() - fates.objects.dropped();
    if !fates.namespaces.is_balanced() {
        wrong.push(format!("{} namespaces dropped of {}", fates.namespaces.dropped(), fates.namespaces.made()));
    }
    if alive != held.len() as u64 {
        wrong.push(format!("{alive} objects are left, and there are handles of {}", held.len()));
    }
    // Without the handles, nothing is left.
    let handles: usize = seen.iter().map(|seen| seen.held.len()).sum();
    for seen in &mut seen {
        let held = std::mem::take(&mut seen.held);
        wrong.extend(
            held.iter()
                .filter(|(serial, object)| object.serial != *serial)
                .map(|(serial, _)| format!("a handle of object {serial} has become one of another")),
        );
    }
    domain.barrier();
    // ORDERING: Relaxed. The threads that count have been joined, and the barrier has waited for the destructors.
    let total = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let (removed, left, refused) = (total(&fates.removed), total(&fates.left), total(&fates.refused));
    let (made, dropped) = (fates.objects.made(), fates.objects.dropped());
    if !fates.objects.is_balanced() || made != removed + left + refused {
        wrong
            .push(format!("{made} objects made, {dropped} dropped; {removed} removed, {left} left, {refused} refused"));
    }

    let mismatched = total(&fates.mismatched);
    if mismatched > 0 {
        wrong.push(format!("{mismatched} keys without their object, or objects without their key"));
    }

    let sum = |figure: fn(&Seen) -> u64| seen.iter().map(figure).sum::<u64>();
    let rate =
        |count: u64| format!("{} ({}/s)", HumanCount(count), HumanCount((count as f64 / elapsed.as_secs_f64()) as u64));
    let lines = [
        ("namespaces", format!("{} made and torn down by {} threads", rate(fates.namespaces.made()), args.threads)),
        ("objects", rate(made)),
        (
            "",
            format!(
                "{} removed, {} left to their namespace's end, {} without a slot",
                HumanCount(removed),
                HumanCount(left),
                HumanCount(refused)
            ),
        ),
        ("lookups", format!("{} by id, {} by key", rate(sum(|seen| seen.by_id)), rate(sum(|seen| seen.by_key)))),
        (
            "stale ids",
            format!(
                "{} with an empty slot, {} whose slot had another id by then: all refused",
                HumanCount(sum(|seen| seen.empty)),
                HumanCount(sum(|seen| seen.reused))
            ),
        ),
        (
            "handles",
            format!(
                "{} dropped after their object's removal, {} after the end of its namespace",
                HumanCount(sum(|seen| seen.outlived_entry)),
                HumanCount(sum(|seen| seen.outlived_namespace))
            ),
        ),
        ("", format!("{} kept beyond the end of all, of {} objects", HumanCount(handles as u64), HumanCount(alive))),
        ("dropped", format!("{} of {} objects", HumanCount(dropped), HumanCount(made))),
        (
            "",
            format!("{} of {} namespaces", HumanCount(fates.namespaces.dropped()), HumanCount(fates.namespaces.made())),
        ),
        ("elapsed", format!("{elapsed:.2?}")),
    ];
    for (label, figures) in lines {
        // A closed pipe must not change the exit status, which tells whether the run succeeded.
        let _ = writeln!(out, "{label:<12} {figures}");
    }
    let _ = match wrong.len() {
        0 => writeln!(out, "proved: every object was dropped exactly once, and no id led to another than its own"),
        count => writeln!(out, "WRONG: {count} problems"),
    };
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_runs_of_any_size_balance() {
        for (namespaces, ids, threads) in [(1, 1, 1), (1, 2, 3), (100, 16, 2), (20, 300, 4)] {
            let mut out = Vec::new();
            let args = Args { namespaces, ids, threads, time: Duration::from_secs(60) };
            assert_eq!(run(&args, &mut out), [""; 0], "{}", String::from_utf8_lossy(&out));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let parse = |args: &[&str]| Args::parse(["ipc"].iter().chain(args));
        for args in [&["--threads", "0"][..], &["--ids", "x"], &["--seconds"], &["7"], &["--unknown"]] {
            assert!(parse(args).is_err(), "{args:?}");
        }
        assert!(parse(&["-h"]).is_ok_and(|args| args.is_none()));
        assert!(parse(&["-n", "5"]).is_ok_and(|args| args.is_some_and(|args| args.namespaces == 5)));
    }
}
