//! Everything together, from the first thread to the last audit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::args::Args;
use crate::conductor::{Conductor, Seat};
use crate::figures::{Figures, whoever};
use crate::rng::Rng;
use crate::staller::STALLER;
use crate::world::World;
use crate::{passers, readers, staller, storms, updaters};

pub const WORLDS: usize = 2;

/// What may wait in the domain that has a limit.
const LIMIT: usize = 20_000;

pub struct Torture {
    pub args: Args,
    pub conductor: Conductor,
    pub figures: Arc<Figures>,
    pub worlds: [Arc<World>; WORLDS],
}

/// What a thread does, by a source of choices of its own.
type Part = fn(&Torture, &Seat<'_>, Rng);

/// There are as many of these as the command line says ...
const MANY: [(&str, Part); 2] = [("reader", readers::read), ("updater", updaters::update)];
/// ... and one of each of these.
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
            self.figures.faults.add("a thread panicked", whoever);
        }
    }

    /// Has all rest and go on together, time and again, and looks at the accounts meanwhile.
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
            // For the verdict to say more than the first thing seen.
            thread::sleep(Duration::from_millis(100));
        }
        self.conductor.end();
    }

    /// What must hold while everybody rests: created = dropped + live, and callbacks given = run.
    fn audit(&self) {
        let Figures { values, calls_given, calls_run, faults, .. } = &*self.figures;
        // One barrier each is enough for these accounts: whatever others were about to destroy is included.
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
        faults.balance("values are left when all is over", values.created.get(), values.dropped.get());
        // The end of a domain may be left to its reclaimer thread.
        let (created, soon) = (passing_values.created.get(), Instant::now() + Duration::from_secs(5));
        while passing_values.dropped.get() < created && Instant::now() < soon {
            thread::sleep(Duration::from_millis(1));
        }
        faults.balance("values are left of domains that are gone", created, passing_values.dropped.get());
    }
}
