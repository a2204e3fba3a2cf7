//! A reader that stays in its section until it is reported by name.

use std::thread;
use std::time::{Duration, Instant};

use crate::conductor::Seat;
use crate::figures::nap;
use crate::rng::Rng;
use crate::torture::Torture;
use crate::world::{STALL_AFTER, World};

/// The name of its thread.
pub const STALLER: &str = "staller";

/// How long it waits for its report: forty times as long as a report should take, or ten times with a deliberate bug.
const PATIENCE: Duration = STALL_AFTER.saturating_mul(40);
const LITTLE_PATIENCE: Duration = STALL_AFTER.saturating_mul(10);

pub fn stall(torture: &Torture, seat: &Seat<'_>, mut rng: Rng) {
    let patience = if torture.args.broken.is_some() { LITTLE_PATIENCE } else { PATIENCE };
    while seat.go_on() {
        let next = Instant::now() + Duration::from_millis(300 + rng.below(1000));
        while Instant::now() < next && torture.conductor.is_playing() {
            thread::sleep(Duration::from_millis(10));
        }
        if torture.conductor.is_playing() {
            // The other threads must play on, so that one of them notices the stall.
            let (world, how) = (rng.pick(&torture.worlds), rng.below(3));
            torture.conductor.undisturbed(|| stay(world, how, patience));
        }
    }
}

fn stay(world: &World, how: u64, patience: Duration) {
    let figures = &world.pipeline.figures;
    let (named, begun) = (world.staller_named.get(), Instant::now());
    let wait = || {
        while world.staller_named.get() == named && begun.elapsed() < patience {
            nap(1000);
        }
    };
    match how {
        0 => {
            let _guard = world.pipeline.domain.pin();
            wait();
        }
        1 => {
            let _guard = world.values.pin();
            wait();
        }
        _ => {
            let _session = world.pipeline.domain.session();
            wait();
        }
    }
    let took = begun.elapsed();
    let took_ms = took.as_millis() as u64;
    figures.stalls_provoked.up();
    if world.staller_named.get() > named {
        figures.stalls_reported.up();
        figures.slowest_report_ms.at_least(took_ms);
        figures.stalls_late.add(u64::from(took > STALL_AFTER * 3 / 2));
    } else {
        figures.faults.add("a stall was not reported", || format!("for {took:.1?}, in {:?}", world.pipeline.domain));
    }
}
