//! A key-value server that speaks version 2 of the protocol of Redis, over a registry or one of its peers.
//!
//! ```sh
//! cargo run --release -p kv-example                                     # a demonstration of some seconds
//! cargo run --release -p kv-example -- --listen 127.0.0.1:6390          # a server, until SIGINT or SIGTERM
//! cargo run --release -p kv-example -- --listen 127.0.0.1:6390 --store dashmap
//! redis-cli -p 6390 set greeting hello EX 60
//! ```
//!
//! The demonstration starts a server over each store and drives it with clients that check every reply. At the end of the
//! registry's it checks that as many entries were destroyed as were made.
//!
//! The commands are GET, SET (EX, PX, NX, XX), MGET, DEL, EXISTS, EXPIRE, PEXPIRE, TTL, PTTL, PERSIST, SCAN (MATCH, COUNT),
//! DBSIZE, FLUSHALL, INFO, PING, ECHO, QUIT, and as much of COMMAND and CONFIG as redis-cli and redis-benchmark ask for.
//! `docs/kv.md` compares the stores by redis-benchmark.

mod client;
mod command;
mod drive;
mod glob;
mod info;
#[path = "../../common/random.rs"]
mod random;
mod reply;
mod request;
mod server;
mod store;
#[cfg(test)]
mod tests;

use client::{Client, Reply};
use epoch_registry::MonotonicClock;
use lexopt::ValueExt;
use server::Server;
use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;
use store::Kind;

struct Options {
    /// The address to serve at. `None` for the demonstration.
    listen: Option<String>,
    store: Option<Kind>,
    most_clients: usize,
    seconds: f64,
}

fn options() -> Result<Options, lexopt::Error> {
    let mut options = Options { listen: None, store: None, most_clients: 10_000, seconds: 1.0 };
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            lexopt::Arg::Long("listen") => options.listen = Some(arguments.value()?.string()?),
            lexopt::Arg::Long("store") => options.store = Some(arguments.value()?.parse()?),
            lexopt::Arg::Long("max-clients") => options.most_clients = arguments.value()?.parse()?,
            lexopt::Arg::Long("seconds") => options.seconds = arguments.value()?.parse()?,
            other => return Err(other.unexpected()),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(error) => {
            eprintln!(
                "kv: {error}\nusage: kv-example [--store registry|dashmap|papaya|mutex] [--listen ADDRESS] \
                 [--max-clients N] [--seconds S]"
            );
            return ExitCode::from(2);
        }
    };
    let done = match &options.listen {
        Some(address) => serve(address, &options),
        None => demonstrate(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kv: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until a signal ends the program.
#[cfg(unix)]
fn serve(address: &str, options: &Options) -> Result<(), Box<dyn Error>> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    let kind = options.store.unwrap_or(Kind::Registry);
    let server = Server::start(address, kind, MonotonicClock, options.most_clients)?;
    println!("{} serves at {}", kind.name(), server.address());
    signals.forever().next();
    stop(server)
}

/// Serves until the program is ended.
#[cfg(not(unix))]
fn serve(address: &str, options: &Options) -> Result<(), Box<dyn Error>> {
    let kind = options.store.unwrap_or(Kind::Registry);
    let server = Server::start(address, kind, MonotonicClock, options.most_clients)?;
    println!("{} serves at {}", kind.name(), server.address());
    loop {
        std::thread::park();
    }
}

/// Stops a server, and checks its accounts.
fn stop(server: Server) -> Result<(), Box<dyn Error>> {
    if let Some(accounts) = server.stop() {
        println!("{} entries were made, {} destroyed, {} are left", accounts.made, accounts.destroyed, accounts.live);
        if accounts.made != accounts.destroyed || accounts.live != 0 {
            return Err("the accounts do not balance".into());
        }
    }
    Ok(())
}

/// The clients of the demonstration.
const CLIENTS: u64 = 8;

/// Drives a server over each store, or over the one that was asked for.
fn demonstrate(options: &Options) -> Result<(), Box<dyn Error>> {
    let time = Duration::try_from_secs_f64(options.seconds)?;
    for kind in Kind::ALL.into_iter().filter(|&kind| options.store.is_none_or(|store| store == kind)) {
        let server = Server::start("127.0.0.1:0", kind, MonotonicClock, options.most_clients)?;
        let driven = drive::drive(server.address(), CLIENTS, time)?;
        let mut client = Client::connect(server.address())?;
        let (size, keys) = (client.words("DBSIZE")?, client.scan("client:*", 100)?.len());
        println!(
            "{}: {} requests of {CLIENTS} clients, all replies as expected; {keys} entries at the end",
            kind.name(),
            driven.requests
        );
        if size != Reply::Integer(driven.entries as i64) || keys != driven.entries {
            return Err(format!("{size:?} entries, {keys} in the scan, and not {}", driven.entries).into());
        }
        stop(server)?;
    }
    Ok(())
}
