//! Short-lived things: threads that read and exit at once, registries and domains that are created and dropped.

use std::cell::RefCell;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use epoch_registry::{Domain, Registry, WhenFull};

use crate::conductor::Seat;
use crate::figures::Figures;
use crate::readers::Reader;
use crate::rng::Rng;
use crate::torture::Torture;
use crate::value::Value;
use crate::world::World;

thread_local! {
    static LAST_WORDS: RefCell<Option<LastWords>> = const { RefCell::new(None) };
}

/// Reads and writes when its thread exits, before or after the registry's own thread-locals are destroyed.
struct LastWords {
    world: Arc<World>,
    reader: Reader,
}

impl Drop for LastWords {
    fn drop(&mut self) {
        read_once(&self.world, &mut self.reader);
        self.reader.hand_in();
    }
}

/// Starts threads that read and exit at once.
pub fn pass(torture: &Torture, seat: &Seat<'_>, mut rng: Rng) {
    while seat.go_on() {
        let threads: Vec<_> = (0..=rng.below(3)).map(|_| passer(torture, &mut rng)).collect();
        for passer in threads {
            // `join` returns after the destructors of the thread-locals. The end of a scope does not wait for them.
            if passer.join().is_err() {
                torture.figures.faults.add("a thread that came and went panicked", String::new);
            }
            torture.figures.passers.up();
        }
        thread::sleep(Duration::from_micros(rng.below(3000)));
    }
}

fn passer(torture: &Torture, rng: &mut Rng) -> thread::JoinHandle<()> {
    let (world, mut rng) = (Arc::clone(rng.pick(&torture.worlds)), rng.fork());
    let figures = Arc::clone(&torture.figures);
    let run = move || {
        let has_last_words = rng.one_in(2);
        let reads_first = rng.one_in(2);
        let mut reader = Reader::new(rng.fork(), &figures);
        // The thread-local that is initialized first is destroyed last.
        if reads_first {
            read_once(&world, &mut reader);
        }
        if has_last_words {
            let words = LastWords { world: Arc::clone(&world), reader: Reader::new(rng, &figures) };
            LAST_WORDS.with(|last| *last.borrow_mut() = Some(words));
        }
        read_once(&world, &mut reader);
        reader.hand_in();
    };
    thread::Builder::new().name("passer".to_string()).spawn(run).expect("starting a thread")
}

/// Reads in a section or a session. May also queue a callback, for other threads to run after this one has exited.
fn read_once(world: &World, reader: &mut Reader) {
    match reader.rng.below(4) {
        0 => {
            let session = world.pipeline.domain.session();
            reader.section(world);
            drop(session);
        }
        1 => {
            let key = World::key(&mut reader.rng);
            let found = world.values.reader().lookup(&key);
            reader.section(world);
            drop(found);
        }
        _ => reader.section(world),
    }
    if reader.rng.one_in(2) {
        let figures = Arc::clone(&world.pipeline.figures);
        figures.calls_given.up();
        world.pipeline.domain.call(move || figures.calls_run.up());
    }
}

/// Creates, uses and drops registries. Every other registry is in a domain of its own.
pub fn found(torture: &Torture, seat: &Seat<'_>, mut rng: Rng) {
    let figures = &torture.figures;
    while seat.go_on() {
        if rng.one_in(2) {
            let domain = &rng.pick(&torture.worlds).pipeline.domain;
            registry(domain, |key| Value::new(key, 0, figures), figures, &mut rng);
        } else {
            let domain = some_domain(&mut rng);
            registry(&domain, |key| Value::passing(key, figures), figures, &mut rng);
            if rng.one_in(4) {
                domain.stop_reclaimer();
            }
            // The end of the domain destroys everything that is left in it.
            drop(domain);
            figures.domains.up();
        }
        thread::sleep(Duration::from_micros(rng.below(5000)));
    }
}

fn some_domain(rng: &mut Rng) -> Domain {
    let builder = Domain::builder().name("passing");
    match rng.below(5) {
        0 => builder.reclaimer(true),
        1 => builder.executor(|job| drop(thread::spawn(|| job.run()))),
        2 => builder.manual(),
        3 => builder.backlog_objects(20).when_full(WhenFull::Refuse),
        _ => builder,
    }
    .build()
}

fn registry(domain: &Domain, value: impl Fn(u64) -> Value, figures: &Figures, rng: &mut Rng) {
    let shards = 1 << rng.below(4);
    let builder = Registry::builder().domain(domain.clone()).shards(shards);
    // With a bound, so that most insertions evict, or without.
    let bounded = rng.one_in(4);
    let registry: Registry<u64, Value> = if bounded { builder.max_entries(50) } else { builder }.build();
    let mut kept = Vec::new();
    for key in 0..rng.below(500) {
        let entry = registry.try_insert(key, value(key)).expect("no other thread uses this registry");
        if rng.one_in(16) {
            kept.push(entry);
        }
    }
    // All of the following then runs within a section of this thread.
    let guard = rng.one_in(2).then(|| domain.pin());
    match rng.below(5) {
        0 => registry.clear(),
        1 => kept.extend(registry.drain().take(rng.index(100))),
        2 => assert_eq!(registry.reap_older_than(Duration::from_secs(3600), 100).removed, 0),
        3 => registry.retain(|key, _| key % 2 == 0),
        _ => kept.extend((0..rng.below(100)).filter_map(|key| registry.fallible().remove(&key).ok().flatten())),
    }
    drop(guard);
    if rng.one_in(2) {
        kept.clear();
    }
    drop(registry);
    if kept.iter().any(|entry| !entry.is_sound(*entry.key())) {
        figures.faults.add("a handle's value ended with its registry", String::new);
    }
    figures.registries.up();
}
