//! A domain without a stall handler logs a stall as a warning. A process has one logger, so this test has a process of
//! its own.

use epoch_registry::{Domain, ManualClock};
use std::sync::Mutex;
use std::time::Duration;

struct Lines(Mutex<Vec<String>>);

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.0.lock().unwrap().push(format!("{} {}: {}", record.level(), record.target(), record.args()));
    }

    fn flush(&self) {}
}

static LINES: Lines = Lines(Mutex::new(Vec::new()));

#[test]
fn a_stall_is_logged_as_a_warning() {
    log::set_logger(&LINES).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    let clock = ManualClock::new();
    let domain = Domain::builder().name("logged").manual_clock(clock.clone()).build();
    let guard = domain.pin();
    domain.call(|| ());
    domain.reclaim(0);
    for _ in 0..22 {
        clock.advance(Duration::from_secs(1));
        domain.reclaim(0);
    }
    drop(guard);
    let lines = LINES.0.lock().unwrap();
    assert_eq!(lines.len(), 1);
    let start = "WARN epoch_registry: domain `logged`: a grace period has lasted 21.0s, held up by a guard of thread `";
    assert!(lines[0].starts_with(start), "{lines:?}");
}
