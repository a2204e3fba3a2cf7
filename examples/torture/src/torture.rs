//! The whole run, from the first thread to the last audit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::args::Args;
use crate::conductor::{Conductor, Seat};
use crate::figures::{Figures, thread_name};
use crate::rng::Rng;
use crate::staller::STALLER;
use crate::world::World;
use crate::{passers, readers, staller, storms, updaters};

pub const WORLDS: usize = 2;

/// The backlog limit of the second domain.
const LIMIT: usize = 20_000;

pub struct Torture {
    pub args: Args,
    pub conductor: Conductor,
    pub figures: Arc<Figures>,
    pub worlds: [Arc<World>; WORLDS],
}

/// The work of a thread, with its own random number generator.
type Part = fn(&Torture, &Seat<'_>, Rng);

/// As many threads of each of these as the command line says ...
const MANY: [(&str, Part); 2] = [("reader", readers::read), ("updater", updaters::update)];
/// ... and one thread of each of these.
const SOLE: [(&str, Part); 8] = [
    ("fake", updaters::fake),
    ("other fake", updaters::fake),
    ("resizer", storms::resize),
    ("reaper", storms::reap),
    ("flooder", storms::flood),
    ("usher", passers::pass),
    ("founder", passers::found),
    (STALLER, staller::stall),
];

impl Torture {
    pub fn new(args: Args) -> Self {
        let figures = Arc::default();
        let worlds = [World::new(0, None, args.broken, &figures), World::new(1, Some(LIMIT), args.broken, &figures)];
        Torture { args, conductor: Conductor::default(), figures, worlds }
    }

    /// Runs for as long as the command line says, or until something goes wrong.
    pub fn run(&self) {
        let many = |index| MANY.map(|(name, part)| (format!("{name} {index}"), part));
        let cast = (1..=self.args.threads).flat_map(many);
        let cast = cast.chain(SOLE.map(|(name, part)| (name.to_string(), part)));
        thread::scope(|scope| {
            let mut streams = 0..;
            for ((name, part), stream) in cast.zip(streams.by_ref()) {
                let (seat, rng) = (self.conductor.seat(&name), Rng::new(self.args.seed, stream));
                let play = move || self.play(part, &seat, rng);
                thread::Builder::new().name(name).spawn_scoped(scope, play).expect("starting a thread");
            }
            self.conduct(Rng::new(self.args.seed, streams.start));
        });
        self.audit();
        self.close();
    }

    fn play(&self, part: Part, seat: &Seat<'_>, rng: Rng) {
        if catch_unwind(AssertUnwindSafe(|| part(self, seat, rng))).is_err() {
            self.figures.faults.add("a thread panicked", thread_name);
        }
    }

    /// Makes all threads rest again and again, audits while they rest, and ends them when the time is over.
    fn conduct(&self, mut rng: Rng) {
        let faults = &self.figures.faults;
        let end = Instant::now() + self.args.time;
        while Instant::now() < end && !faults.any() {
            let rest = end.min(Instant::now() + Duration::from_millis(200 + rng.below(1500)));
            while Instant::now() < rest && !faults.any() {
                thread::sleep(Duration::from_millis(10));
            }
            if Instant::now() < end && !faults.any() {
                self.conductor.rest(|| self.audit());
            }
        }
        if faults.any() {
            // Lets further faults show up in the verdict.
            thread::sleep(Duration::from_millis(100));
        }
        self.conductor.end();
    }

    /// Checks what must hold while all threads rest: created = dropped + live, and callbacks given = callbacks run.
    fn audit(&self) {
        let Figures { values, calls_given, calls_run, faults, .. } = &*self.figures;
        // One barrier per domain is enough for these counts: it also covers what other threads were about to destroy.
        self.worlds.iter().for_each(|world| world.pipeline.domain.barrier());
        let live: usize = self.worlds.iter().map(|world| world.values.len()).sum();
        faults.balance("created is not dropped + live", values.created.get(), values.dropped.get() + live as u64);
        faults.balance("callbacks given are not those run", calls_given.get(), calls_run.get());
        for world in &self.worlds {
            world.settle();
            world.audit();
        }
        self.figures.audits.up();
    }

    fn close(&self) {
        self.worlds.iter().for_each(|world| world.close());
        let Figures { values, passing_values, faults, .. } = &*self.figures;
        faults.balance("values are left at the end", values.created.get(), values.dropped.get());
        // The reclaimer thread may end a domain later.
        let (created, soon) = (passing_values.created.get(), Instant::now() + Duration::from_secs(5));
        while passing_values.dropped.get() < created && Instant::now() < soon {
            thread::sleep(Duration::from_millis(1));
        }
        faults.balance("values of dropped domains are left", created, passing_values.dropped.get());
    }
}
