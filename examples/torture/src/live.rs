//! The status line during a run.

use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::report;
use crate::torture::Torture;

const TICK: Duration = Duration::from_millis(20);
/// The time between two lines. On a terminal, each line replaces the one before; elsewhere every line stays.
const REDRAWN_EVERY: Duration = Duration::from_secs(1);
const PRINTED_EVERY: Duration = Duration::from_secs(5);

/// Prints figures to stderr until the run is over.
pub fn show(torture: &Torture, begun: Instant, is_over: impl Fn() -> bool) {
    // The bar hides itself if there is no terminal.
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{wide_msg}") {
        bar.set_style(style);
    }
    let every = if bar.is_hidden() { PRINTED_EVERY } else { REDRAWN_EVERY };
    let mut next = every;
    while !is_over() {
        if begun.elapsed() >= next {
            next += every;
            let line = report::line(torture, begun.elapsed());
            if bar.is_hidden() {
                let _ = writeln!(io::stderr(), "{line}");
            } else {
                bar.set_message(line);
            }
        }
        thread::sleep(TICK);
    }
    bar.finish_and_clear();
}
