//! A store of login sessions behind HTTP, with axum and tokio.
//!
//! ```sh
//! cargo run --release -p sessions-example                               # a demonstration of some seconds
//! cargo run --release -p sessions-example -- --serve 127.0.0.1:8080     # a service, until SIGINT or SIGTERM
//! curl -i -H 'content-type: application/json' -d '{"user": "ada"}' http://127.0.0.1:8080/login
//! curl -H 'authorization: Bearer ID' http://127.0.0.1:8080/session
//! ```
//!
//! A session ends when it is not used for some time (`--max-idle`), when it is too old (`--max-age`), when its user logs out
//! of it, or of all sessions. Both kinds of expiry are the registry's. A task of the runtime removes what has expired, and
//! destroys what was removed.
//!
//! The demonstration drives the service with clients that check every reply, waits until the sessions that they have left
//! behind expire, and shuts down. Then as many sessions must have been dropped as were created.

mod app;
mod census;
mod client;
mod drive;
mod id;
mod service;
mod store;
#[cfg(test)]
mod tests;
mod user;

use client::{Client, Failure};
use epoch_registry::MonotonicClock;
use lexopt::ValueExt;
use service::Service;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use store::Limits;

struct Options {
    /// The address to serve at. `None` for the demonstration.
    serve: Option<String>,
    max_idle: Option<f64>,
    max_age: f64,
    max_sessions: usize,
    clients: usize,
    seconds: f64,
}

fn options() -> Result<Options, lexopt::Error> {
    let mut options =
        Options { serve: None, max_idle: None, max_age: 86_400.0, max_sessions: 1_000_000, clients: 8, seconds: 2.0 };
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            lexopt::Arg::Long("serve") => options.serve = Some(arguments.value()?.string()?),
            lexopt::Arg::Long("max-idle") => options.max_idle = Some(arguments.value()?.parse()?),
            lexopt::Arg::Long("max-age") => options.max_age = arguments.value()?.parse()?,
            lexopt::Arg::Long("max-sessions") => options.max_sessions = arguments.value()?.parse()?,
            lexopt::Arg::Long("clients") => options.clients = arguments.value()?.parse()?,
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
                "sessions: {error}\nusage: sessions-example [--serve ADDRESS] [--max-idle S] [--max-age S] \
                 [--max-sessions N] [--clients N] [--seconds S]"
            );
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sessions: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    let idle = options.max_idle.unwrap_or(if options.serve.is_some() { 1800.0 } else { 2.0 });
    let limits = Limits {
        max_idle: Duration::try_from_secs_f64(idle)?,
        max_age: Duration::try_from_secs_f64(options.max_age)?,
        max_sessions: options.max_sessions,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match &options.serve {
            Some(address) => serve(address, limits).await,
            None => demonstrate(limits, options).await,
        }
    })
}

/// Serves until a signal comes.
async fn serve(address: &str, limits: Limits) -> Result<(), Failure> {
    let service = Service::start(address, limits, MonotonicClock).await?;
    println!("sessions are served at http://{}", service.address());
    signal().await?;
    tokio::select! {
        done = shut_down(service) => done,
        _ = signal() => Err("a second signal, while requests were under way".into()),
    }
}

/// Waits for SIGINT or SIGTERM.
#[cfg(unix)]
async fn signal() -> Result<(), Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// Waits for Ctrl-C.
#[cfg(not(unix))]
async fn signal() -> Result<(), Failure> {
    Ok(tokio::signal::ctrl_c().await?)
}

/// Shuts the service down, and checks its accounts.
async fn shut_down(service: Service) -> Result<(), Failure> {
    let accounts = service.shut_down().await?;
    println!("sessions created: {}, dropped: {}; users left: {}", accounts.created, accounts.dropped, accounts.users);
    if accounts.created != accounts.dropped || accounts.users != 0 {
        return Err("the accounts do not balance".into());
    }
    Ok(())
}

async fn demonstrate(limits: Limits, options: &Options) -> Result<(), Failure> {
    let service = Service::start("127.0.0.1:0", limits, MonotonicClock).await?;
    let time = Duration::try_from_secs_f64(options.seconds)?;
    let driven = drive::drive(service.address(), options.clients, time).await?;
    println!(
        "{} requests of {} clients, all replies as expected: {} logins, {} logouts, {} sessions left behind",
        driven.requests, options.clients, driven.logins, driven.logouts, driven.abandoned
    );
    // They expire in the background. Nothing but the statistics is asked for meanwhile.
    let (client, since) = (Client::new(service.address()), Instant::now());
    let statistics = loop {
        let statistics = client.get("/statistics").await?.json()?;
        if statistics["sessions"] == 0 {
            break statistics;
        }
        if since.elapsed() > 2 * limits.max_idle.min(limits.max_age) + Duration::from_secs(10) {
            return Err(format!("sessions do not expire: {statistics}").into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    println!("{:.1} s later all have ended: {}", since.elapsed().as_secs_f64(), statistics["ended"]);
    let ended = &statistics["ended"];
    let expired = ended["idle"].as_u64().unwrap_or(0) + ended["too_old"].as_u64().unwrap_or(0);
    if ended["logged_out"] != driven.logouts || expired != driven.abandoned || statistics["users"] != 0 {
        return Err(format!("not what the clients have done: {statistics}").into());
    }
    shut_down(service).await
}
