//! A torture test of grace periods, modelled on the Linux kernel's rcutorture.
//!
//! `cargo run --release -p torture-example -- --help` explains what it does and checks. The modules:
//!
//! - `args`, `broken`: the command line, and the deliberate bugs
//! - `pool`: elements that age, in memory that is never freed
//! - `pipeline`: publishes elements, and ages replaced ones by every flavour of grace period
//! - `value`: values that check themselves
//! - `world`: a domain with its pipeline and registries; there are two
//! - `readers`, `updaters`, `storms`, `passers`, `staller`: the work of the threads
//! - `conductor`, `torture`: start, pause and end all threads together, and audit
//! - `figures`, `report`, `live`: the counters, and their display
//! - `rng`: random choices that a seed repeats

#![forbid(unsafe_code)]

mod args;
mod broken;
mod conductor;
mod figures;
mod live;
mod passers;
mod pipeline;
mod pool;
#[path = "../../common/random.rs"]
mod random;
mod readers;
mod report;
mod rng;
mod staller;
mod storms;
mod torture;
mod updaters;
mod value;
mod world;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use args::{Args, Command};
use broken::Broken;
use torture::Torture;

/// The exit status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Outcome {
    Passed = 0,
    Failed = 1,
    Usage = 2,
    Hung = 3,
}

/// How long the counters may stand still before the run counts as hung: normally (the machine may be busy), and
/// with a deliberate bug.
const HUNG_AFTER: Duration = Duration::from_secs(60);
const HUNG_SOON: Duration = Duration::from_secs(4);
const TICK: Duration = Duration::from_millis(20);

fn main() -> ExitCode {
    let outcome = match Args::parse(std::env::args_os()) {
        Ok(Command::Run(args)) => run(args),
        Ok(Command::Help) => show(&args::help()),
        Ok(Command::ListBroken) => show(&Broken::list()),
        Err(error) => {
            eprintln!("torture: {error}; --help explains the options");
            Outcome::Usage
        }
    };
    ExitCode::from(outcome as u8)
}

/// Prints `text`. It is no failure if the reading end of a pipe closes early, as `head` does.
fn show(text: &str) -> Outcome {
    let _ = write!(io::stdout(), "{text}");
    Outcome::Passed
}

fn run(args: Args) -> Outcome {
    let torture = Torture::new(args);
    let (begun, over) = (Instant::now(), AtomicBool::new(false));
    let patience = if torture.args.broken.is_some() { HUNG_SOON } else { HUNG_AFTER };
    thread::scope(|scope| {
        let run = scope.spawn(|| torture.run());
        // On a thread of its own, since reading the figures may hang too.
        scope.spawn(|| live::show(&torture, begun, || over.load(Relaxed)));
        if let Err(hung) = watch(&torture, patience, || run.is_finished()) {
            let _ = writeln!(io::stdout(), "FAILED: {hung}");
            // Exits without waiting for the threads that hang.
            std::process::exit(Outcome::Hung as i32);
        }
        over.store(true, Relaxed);
    });
    let _ = report::table(&torture, begun.elapsed(), &mut io::stdout());
    let (outcome, verdict) = match report::verdict(&torture.figures) {
        Ok(good) => (Outcome::Passed, format!("PASSED: {good}")),
        Err(bad) => (Outcome::Failed, format!("FAILED: {bad}")),
    };
    let _ = writeln!(io::stdout(), "{verdict}");
    outcome
}

/// Watches a run to its end. If nothing changes for as long as `patience`, returns the names of the threads that
/// hang.
fn watch(torture: &Torture, patience: Duration, is_over: impl Fn() -> bool) -> Result<(), String> {
    let figures = &torture.figures;
    let progress = || figures.reads() + figures.aged() + figures.audits.get();
    let (mut last, mut changed) = (progress(), Instant::now());
    while !is_over() {
        thread::sleep(TICK);
        if progress() != last {
            (last, changed) = (progress(), Instant::now());
        } else if changed.elapsed() >= patience {
            let (seed, players) = (torture.args.seed, torture.conductor.players().join(", "));
            let who = if players.is_empty() { "the audit".to_string() } else { players };
            let before: String =
                report::problems(figures).iter().map(|problem| format!("; before that {problem}")).collect();
            return Err(format!("hung for {patience:?}, seed {seed}, still at it: {who}{before}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn run_for(time: Duration, broken: Option<Broken>) -> Result<String, String> {
        let torture = Torture::new(Args { time, seed: 1, threads: 2, broken });
        torture.run();
        report::verdict(&torture.figures)
    }

    #[test]
    fn a_short_run_passes_and_has_teeth() {
        let verdict = run_for(Duration::from_secs(2), None);
        assert!(verdict.is_ok(), "{verdict:?}");
    }

    #[test]
    fn every_broken_variant_is_detected() {
        for (broken, name, _) in Broken::ALL {
            let seconds = match broken {
                // Another test covers it.
                Broken::Endless => continue,
                // Nothing is ever replaced, so one second is enough.
                Broken::Idle => 1,
                _ => 5,
            };
            let verdict = run_for(Duration::from_secs(seconds), Some(broken));
            println!("{name}: {verdict:?}");
            assert!(verdict.is_err(), "{name}");
        }
    }

    #[test]
    fn a_run_that_hangs_is_given_up() {
        let args = Args { time: Duration::from_secs(1), seed: 1, threads: 1, broken: Some(Broken::Endless) };
        let torture = Arc::new(Torture::new(args));
        let run = thread::spawn({
            let torture = Arc::clone(&torture);
            move || torture.run()
        });
        let hung = watch(&torture, Duration::from_secs(2), || run.is_finished()).unwrap_err();
        assert!(hung.contains("still at it: updater 1"), "{hung}");
    }
}
