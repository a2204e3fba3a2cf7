//! A service whose configuration is reloaded while its threads serve from it.
//!
//! ```sh
//! cargo run --release -p config-example                                # a demonstration of a few seconds
//! cargo run --release -p config-example -- --file my.toml --seconds 60 # your file: edit it, or send SIGHUP
//! ```
//!
//! Each reader thread serves requests from the current version of the configuration, which an
//! [`RcuCell`](epoch_registry::RcuCell) publishes. A read takes no lock, and a reader never runs the destructor of a
//! version. A file that is broken leaves the old version in force, and the line is reported. At the end the program
//! checks that every version was dropped once, and none by a reader.

mod file;
mod ledger;
mod reload;

use epoch_registry::{Domain, RcuCell, Version};
use file::Config;
use ledger::Ledger;
use lexopt::ValueExt;
use reload::{Reason, Reasons};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

struct Options {
    /// The user's file. `None` for the demonstration.
    file: Option<PathBuf>,
    threads: usize,
    seconds: u64,
}

fn options() -> Result<Options, lexopt::Error> {
    let mut options = Options { file: None, threads: 2, seconds: 60 };
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            lexopt::Arg::Long("file") => options.file = Some(arguments.value()?.into()),
            lexopt::Arg::Long("threads") => options.threads = arguments.value()?.parse()?,
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
            eprintln!("config: {error}\nusage: config-example [--file FILE] [--threads N] [--seconds S]");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("config: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let demonstration = Demonstration::new(options.file.is_none())?;
    let file = options.file.as_deref().unwrap_or(&demonstration.file);
    let (domain, ledger) = (Domain::builder().name("config").build(), Ledger::default());
    let first = load(file, &ledger).map_err(|broken| broken.to_string())?;
    println!("version 0: routes: {}, requests a second: {}", first.route.len(), first.requests_per_second);
    let cell = RcuCell::new_in(first, &domain);
    let reasons = Reasons::of(file)?;
    let stopper = reasons.stopper();
    let (stop, served) = (AtomicBool::new(false), AtomicU64::new(0));

    let (reloaded, readers) = thread::scope(|scope| {
        let serving: Vec<_> = (0..options.threads).map(|_| scope.spawn(|| serve(&cell, &stop, &served))).collect();
        let readers: Vec<ThreadId> = serving.iter().map(|reader| reader.thread().id()).collect();
        let reloading = scope.spawn(|| reload(&cell, file, &ledger, reasons));
        let edited = match options.file {
            None => demonstration.edit(&cell),
            Some(_) => {
                thread::sleep(Duration::from_secs(options.seconds));
                Ok(())
            }
        };
        stop.store(true, Ordering::Relaxed);
        // (There is no receiver if the reloading thread has panicked, which the join below reports.)
        let _ = stopper.send(Reason::Stop);
        let reloaded = reloading.join().expect("the reloading thread does not panic");
        edited.map(|()| (reloaded, readers))
    })?;

    println!("{} requests were served from {} versions", served.load(Ordering::Relaxed), reloaded + 1);
    drop(cell);
    domain.barrier();
    let drops = ledger.drops();
    let by_readers = drops.iter().flatten().filter(|thread| readers.contains(thread)).count();
    if drops.len() != reloaded + 1 || drops.iter().any(|drops| drops.len() != 1) || by_readers > 0 {
        return Err(format!("{} versions, {by_readers} drops by readers: {drops:?}", drops.len()).into());
    }
    println!("each of the {} versions was dropped once, and none by a reader", drops.len());
    Ok(())
}

fn load(file: &Path, ledger: &Ledger) -> Result<Config, file::Broken> {
    let mut config = Config::read(file)?;
    config.entry = Some(ledger.enter());
    Ok(config)
}

/// Serves requests until `stop` is set. What a request reads comes from one version.
fn serve(cell: &RcuCell<Config>, stop: &AtomicBool, served: &AtomicU64) {
    const PATHS: [&str; 4] = ["/", "/api/users/7", "/static/logo.png", "/metrics"];
    let mut reader = cell.reader();
    let mut requests = 0;
    while !stop.load(Ordering::Relaxed) {
        for path in PATHS {
            let config = reader.read();
            let upstream = config.upstream(path).unwrap_or(&config.name);
            assert!(!upstream.is_empty(), "a version is complete when a reader sees it");
            requests += 1;
        }
    }
    served.fetch_add(requests, Ordering::Relaxed);
}

/// Publishes a new version for each reason. Returns how many it has published.
fn reload(cell: &RcuCell<Config>, file: &Path, ledger: &Ledger, reasons: Reasons) -> usize {
    let mut published = 0;
    loop {
        let reason = reasons.wait();
        if reason == Reason::Stop {
            return published;
        }
        let config = match load(file, ledger) {
            Ok(config) => config,
            Err(broken) => {
                println!("{broken}; version {} stays in force", cell.version());
                continue;
            }
        };
        let (routes, limit) = (config.route.len(), config.requests_per_second);
        let cookie = cell.store(config);
        published += 1;
        let since = Instant::now();
        cell.domain().wait(cookie);
        let left = since.elapsed();
        let why = if reason == Reason::Hangup { "SIGHUP" } else { "the file has changed" };
        println!(
            "version {}, because {why}: routes: {routes}, requests a second: {limit}; every reader has left the version \
             before after {left:.1?}",
            cell.version()
        );
    }
}

/// What an operator does to the file in the demonstration.
struct Demonstration {
    directory: Option<PathBuf>,
    file: PathBuf,
}

const FIRST: &str = r#"name = "gateway"
requests_per_second = 100

[[route]]
prefix = "/api/"
upstream = "10.0.0.1:8000"
"#;

impl Demonstration {
    /// Writes the first file, if there is a demonstration.
    fn new(is_wanted: bool) -> Result<Self, Box<dyn Error>> {
        let directory = std::env::temp_dir().join(format!("config-example-{}", std::process::id()));
        let file = directory.join("gateway.toml");
        if is_wanted {
            std::fs::create_dir_all(&directory)?;
            std::fs::write(&file, FIRST)?;
        }
        Ok(Demonstration { directory: is_wanted.then_some(directory), file })
    }

    /// Changes the file, breaks it, mends it, and sends SIGHUP. Checks after each step what is in force.
    fn edit(&self, cell: &RcuCell<Config>) -> Result<(), Box<dyn Error>> {
        let second = format!("{FIRST}\n[[route]]\nprefix = \"/static/\"\nupstream = \"10.0.0.2:8000\"\n");
        let before = cell.load();
        std::fs::write(&self.file, &second)?;
        let seen = await_version(cell, 0)?;
        check(cell.load().route.len() == 2 && before.route.len() == 1, "an owned version has changed")?;
        drop(before);

        std::fs::write(&self.file, second.replace("= 100", "= many"))?;
        if let Some(version) = cell.wait_changed_timeout(seen, Duration::from_millis(500)) {
            return Err(format!("a broken file became version {version}").into());
        }
        std::fs::write(&self.file, second.replace("= 100", "= 200"))?;
        let seen = await_version(cell, seen)?;
        check(cell.with(|config| config.requests_per_second) == 200, "the mended file is not in force")?;

        // As editors do it: a new file takes the place of the old one.
        let draft = self.file.with_extension("draft");
        std::fs::write(&draft, second.replace("= 100", "= 300"))?;
        std::fs::rename(&draft, &self.file)?;
        let seen = await_version(cell, seen)?;
        check(cell.with(|config| config.requests_per_second) == 300, "the renamed file is not in force")?;

        #[cfg(unix)]
        {
            signal_hook::low_level::raise(signal_hook::consts::SIGHUP)?;
            await_version(cell, seen)?;
        }
        check(!Version::is_superseded(&cell.load()), "the current version is superseded")
    }
}

impl Drop for Demonstration {
    fn drop(&mut self) {
        if let Some(directory) = &self.directory {
            // (What stays behind is a small file in the directory for temporary files.)
            let _ = std::fs::remove_dir_all(directory);
        }
    }
}

fn check(holds: bool, otherwise: &str) -> Result<(), Box<dyn Error>> {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}

/// Waits for a version after `since`. Returns its number, when no other one follows.
fn await_version(cell: &RcuCell<Config>, since: u64) -> Result<u64, Box<dyn Error>> {
    let mut seen = cell.wait_changed_timeout(since, Duration::from_secs(10)).ok_or("the change was not noticed")?;
    while let Some(next) = cell.wait_changed_timeout(seen, Duration::from_millis(100)) {
        seen = next;
    }
    Ok(seen)
}
