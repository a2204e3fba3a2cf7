//! The endpoint list of the literature: addresses and ports that are read for every packet, and that change with each
//! connection.
//!
//! `cargo run --release -p endpoints-example` replays the capture that ships with the repository. Readers look the sender of
//! each packet up in a list, while a writer links the endpoints of connections that open and unlinks those of connections that
//! close. Every packet is counted exactly once.
//!
//! `cargo run --release -p endpoints-example -- --bench` compares the list with locks around a linked list and a `Vec`. By
//! default it takes seconds. `--endpoints 1000 --threads 8 --lookups 10000000` is the size of the literature.

#![forbid(unsafe_code)]

mod bench;
#[path = "../../conntrack/src/capture/mod.rs"]
#[allow(dead_code)]
mod capture;
#[path = "../../conntrack/src/packet/mod.rs"]
#[allow(dead_code)]
mod packet;
#[path = "../../common/random.rs"]
mod random;
mod replay;
#[path = "../../conntrack/src/tcp.rs"]
#[allow(dead_code)]
mod tcp;
#[path = "../../conntrack/src/tuple.rs"]
#[allow(dead_code)]
mod tuple;

use lexopt::{Arg, Parser, ValueExt};
use std::process::ExitCode;

const USAGE: &str = "usage: endpoints [--bench [--endpoints N] [--threads N] [--lookups N]]";

fn main() -> ExitCode {
    match parse(Parser::from_env()) {
        Ok(None) => replay::run(),
        Ok(Some(size)) => bench::run(&size),
        Err(error) => {
            eprintln!("endpoints: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

/// Returns the size of the benchmark, or `None` to replay the capture.
fn parse(mut parser: Parser) -> Result<Option<bench::Size>, lexopt::Error> {
    let (mut wanted, mut size) = (false, bench::Size { endpoints: 1_000, threads: 8, lookups: 20_000 });
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("bench") => wanted = true,
            Arg::Long("endpoints") => size.endpoints = parser.value()?.parse::<u16>()?.max(1),
            Arg::Long("threads") => size.threads = parser.value()?.parse::<u16>()?.max(1).into(),
            Arg::Long("lookups") => size.lookups = parser.value()?.parse::<u32>()?.max(1).into(),
            other => return Err(other.unexpected()),
        }
    }
    Ok(wanted.then_some(size))
}
