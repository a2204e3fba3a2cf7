//! A progress bar. It is shown on a terminal only.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::replay::Flows;

/// The number of steps of the bar per round.
const STEPS: u64 = 1000;
const REDRAW: Duration = Duration::from_millis(100);

pub struct Progress {
    bar: ProgressBar,
    /// Bytes of the input read so far. `size` is their total, or 0 if it is not known.
    read: Rc<Cell<u64>>,
    size: u64,
    drawn: Cell<Instant>,
}

impl Progress {
    pub fn new(size: u64, rounds: u32) -> Self {
        // The bar goes to stderr, and hides itself if that is not a terminal.
        let bar = ProgressBar::new(STEPS * u64::from(rounds));
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {percent:>3}% {elapsed} {msg}") {
            bar.set_style(style);
        }
        Progress { bar, read: Rc::default(), size, drawn: Cell::new(Instant::now()) }
    }

    /// Wraps `input` to count the bytes read from it.
    pub fn watch<R: Read>(&self, input: R) -> impl Read + use<R> {
        Watched { input, read: Rc::clone(&self.read) }
    }

    pub fn reading(&self, flows: &Flows) {
        self.draw((self.read.get() * STEPS).checked_div(self.size).unwrap_or(0), flows);
    }

    pub fn replaying(&self, round: u32, flows: &Flows) {
        self.draw(u64::from(round) * STEPS, flows);
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn draw(&self, position: u64, flows: &Flows) {
        if !self.bar.is_hidden() && self.drawn.get().elapsed() >= REDRAW {
            self.drawn.set(Instant::now());
            self.bar.set_position(position);
            self.bar.set_message(format!("{} live flows", flows.len()));
        }
    }
}

struct Watched<R> {
    input: R,
    read: Rc<Cell<u64>>,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(buffer)?;
        self.read.set(self.read.get() + length as u64);
        Ok(length)
    }
}
