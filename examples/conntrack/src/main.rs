//! Replays a packet capture through a registry of flows, as nf_conntrack would see it.
//!
//! `cargo run --release -p conntrack-example -- --help` explains what it does. The modules, in the order that a
//! packet passes through:
//!
//! - `args`, `timeouts`: the command line
//! - `capture`: reads frames from pcap and pcapng files
//! - `packet`: finds the flow of a frame, its `tuple`
//! - `timeline`: the capture's clock, which wrong timestamps do not move
//! - `replay`: the feeder that distributes packets, and the workers that track them in the registry
//! - `flow`, `tcp`: the value in the registry, which counts packets and exports itself when it is dropped
//! - `reaper`: evicts idle flows
//! - `accounts`: merges the exports, and compares them with the capture
//! - `report`, `json`, `progress`: the output

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
const SHIPPED: &[u8] = include_bytes!("../../data/loopback.pcap.xz");

/// The most differences to list. Further ones are only counted.
const MAX_LISTED: usize = 20;

/// The exit status.
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
        // It is no failure if the reading end of a pipe closes early, as `head` does.
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

/// Runs to the end. Writes the report to `out`, and errors to `problems`.
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
    // A closed pipe must not change the exit status, which tells whether the accounts balance.
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
    // If the report of an error fails, there is nowhere to report that.
    let _ = writeln!(problems, "conntrack: {message}");
    outcome
}

fn name(args: &Args) -> String {
    args.capture.as_ref().map_or("the shipped capture".into(), |path| path.display().to_string())
}

/// Opens the capture. Returns it with its size in bytes, or 0 if that is not known.
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
