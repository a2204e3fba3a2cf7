//! Replays a packet capture through a registry of flows, as nf_conntrack would see it.
//!
//! `cargo run --release --example conntrack -- --help` says what it does; this is how it is laid out, in the order
//! a packet passes:
//!
//! - `args`, `timeouts`: the command line
//! - `capture`: frames out of pcap and pcapng
//! - `packet`: the flow a frame belongs to, its `tuple`
//! - `timeline`: the capture's clock, which wrong timestamps do not move
//! - `replay`: the feeder that deals packets out, and the workers that track them in the registry
//! - `flow`, `tcp`: the value in the registry, which counts packets and exports itself when it is dropped
//! - `reaper`: evicts idle flows
//! - `accounts`: merges the exports, and balances them against what was captured
//! - `report`, `json`, `progress`: what is shown

#![forbid(unsafe_code)]

mod accounts;
mod args;
mod capture;
mod flow;
mod json;
mod packet;
mod progress;
mod reaper;
mod replay;
mod report;
mod tcp;
#[cfg(test)]
mod tests;
mod timeline;
mod timeouts;
mod tuple;

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::process::ExitCode;

use args::{Args, Command};
use capture::Capture;
use progress::Progress;
use replay::Settings;

/// 14,000 packets of a loopback interface: HTTP, Redis, DNS, ping.
const SHIPPED: &[u8] = include_bytes!("../data/loopback.pcap.xz");

/// Differences listed before the rest is only counted.
const MAX_LISTED: usize = 20;

/// What `main` returns to the shell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Outcome {
    Balanced = 0,
    Damaged = 1,
    Usage = 2,
    Unbalanced = 3,
}

fn main() -> ExitCode {
    let args = match Args::parse(std::env::args_os()) {
        Ok(Command::Run(args)) => args,
        // A reader that stops early, such as `head`, is not a failure.
        Ok(Command::Help) => {
            return write!(io::stdout(), "{}", args::help()).map_or(ExitCode::SUCCESS, |()| ExitCode::SUCCESS);
        }
        Err(error) => {
            eprintln!("conntrack: {error}; --help explains the options");
            return ExitCode::from(Outcome::Usage as u8);
        }
    };
    ExitCode::from(run(&args, &mut io::stdout().lock(), &mut io::stderr()) as u8)
}

/// Runs to the end. The report goes to `out`, what went wrong to `problems`.
fn run(args: &Args, out: &mut dyn Write, problems: &mut dyn Write) -> Outcome {
    let (input, size): (Box<dyn Read>, u64) = match open(args) {
        Ok(opened) => opened,
        Err(error) => return fail(problems, Outcome::Damaged, &format!("{}: {error}", name(args))),
    };
    let progress = Progress::new(size, args.rounds);
    let mut capture = match Capture::open(progress.watch(input)) {
        Ok(capture) => capture,
        Err(error) => return fail(problems, Outcome::Damaged, &format!("{}: {error}", name(args))),
    };
    // Opened before the replay, which may take long, so that a wrong file name is reported at once.
    let json = match args.json.as_ref().map(File::create).transpose() {
        Ok(json) => json,
        Err(error) => return fail(problems, Outcome::Usage, &format!("cannot write the JSON file: {error}")),
    };
    let settings = Settings { workers: args.workers, rounds: args.rounds, timeouts: args.timeouts.clone() };
    let replay = replay::replay(&mut capture, &settings, &progress);
    progress.finish();

    let differences = replay.differences();
    // A closed pipe must not keep the exit status from telling whether the accounts balance.
    let _ = report::print(&replay, args.top, out);
    let _ = match differences.len() {
        0 => writeln!(out, "balanced: every packet was exported exactly once"),
        count => writeln!(out, "NOT BALANCED: {count} differences"),
    };
    let mut outcome = Outcome::Balanced;
    let written = json.map_or(Ok(()), |json| json::write(&replay, differences.is_empty(), BufWriter::new(json)));
    if let Err(error) = written {
        outcome = fail(problems, Outcome::Usage, &format!("cannot write the JSON file: {error}"));
    }
    if let Some(damage) = &replay.damage {
        outcome = fail(problems, Outcome::Damaged, &format!("{}: {damage}", name(args)));
    }
    for difference in differences.iter().take(MAX_LISTED) {
        outcome = fail(problems, Outcome::Unbalanced, difference);
    }
    if differences.len() > MAX_LISTED {
        fail(problems, Outcome::Unbalanced, &format!("and {} more", differences.len() - MAX_LISTED));
    }
    outcome
}

fn fail(problems: &mut dyn Write, outcome: Outcome, message: &str) -> Outcome {
    // An error in reporting an error cannot be reported.
    let _ = writeln!(problems, "conntrack: {message}");
    outcome
}

fn name(args: &Args) -> String {
    args.capture.as_ref().map_or("the shipped capture".into(), |path| path.display().to_string())
}

/// The capture, and how many bytes it has, if that is known.
fn open(args: &Args) -> io::Result<(Box<dyn Read>, u64)> {
    match &args.capture {
        None => Ok((Box::new(SHIPPED), SHIPPED.len() as u64)),
        Some(path) if path.as_os_str() == "-" => Ok((Box::new(io::stdin()), 0)),
        Some(path) => {
            let file = File::open(path)?;
            let size = file.metadata()?.len();
            Ok((Box::new(file), size))
        }
    }
}
