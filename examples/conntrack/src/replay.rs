//! Replays a capture: one thread reads and distributes the packets, workers track them, a reaper evicts idle flows.
//!
//! ```text
//! capture -> feeder -+-> queue -> worker -+-> registry <- reaper
//!   (parsed once)    +-> queue -> worker -+      |
//!                                                v
//!                              Drop of a flow -> collector -> balance
//! ```
//!
//! All packets of a tuple go to the same worker, as a network card spreads flows over its receive queues. So the
//! packets of a flow stay in order, and states and exports do not depend on how the threads are scheduled.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use epoch_registry::RandomState;
use epoch_registry::{Domain, Registry, Stats};

use crate::accounts::{Collector, Export, Ledger};
use crate::capture::{Capture, CaptureError};
use crate::flow::{Flow, FlowKey};
use crate::packet::{Ignored, Packet, Parser};
use crate::progress::Progress;
use crate::reaper::{Positions, Reaper};
use crate::timeline::{Moment, Oddities, Timeline};
use crate::timeouts::{SECOND, Timeouts};
use crate::tuple::Tuple;

/// The number of packets per worker that are distributed at a time.
const BATCH: usize = 1024;
/// The number of batches that may wait for a worker.
const QUEUE: usize = 8;

pub type Flows = Registry<FlowKey, Flow>;

pub struct Settings {
    pub workers: usize,
    pub rounds: u32,
    pub timeouts: Timeouts,
}

/// The result of a replay.
pub struct Replay {
    pub ledger: Ledger,
    /// Frames of one round that belong to no flow, in the order of [`Ignored::ALL`].
    pub ignored: [u64; Ignored::ALL.len()],
    /// Frames of one round whose timestamp was out of range.
    pub repaired: u64,
    /// Timestamps of one round that the capture's clock did not follow.
    pub oddities: Oddities,
    pub rounds: u64,
    pub merged: HashMap<Tuple, Export, RandomState>,
    /// Why the capture could not be read to its end.
    pub damage: Option<CaptureError>,
    pub elapsed: Duration,
    /// The time of the rounds after the first, which do not parse.
    pub elapsed_replaying: Duration,
    pub stats_at_end: Stats,
    pub stats_after_drain: Stats,
    pub peak_live: u64,
}

impl Replay {
    /// Returns the differences between exports and capture. Empty if every packet was exported exactly once.
    pub fn differences(&self) -> Vec<String> {
        let mut differences = self.ledger.differences(&self.merged, self.rounds);
        let exported: u64 = self.merged.values().map(|export| export.flows).sum();
        let Stats { inserted, freed, live, .. } = self.stats_after_drain;
        if (exported, freed, live) != (inserted, inserted, 0) {
            differences.push(format!("{inserted} flows inserted, {exported} exported, {freed} freed, {live} live"));
        }
        differences
    }
}

/// A packet in the form that a worker gets.
#[derive(Clone, Copy)]
struct Record {
    packet: Packet,
    length: u32,
    moment: Moment,
}

// `--help` states this size.
const _: () = assert!(size_of::<Record>() == 64);

struct Batch {
    records: Vec<Record>,
    /// The capture's clock after this batch. The worker gets no older packet after it.
    until: u64,
}

/// A batch in one round of the replay.
struct Work {
    batch: Arc<Batch>,
    round: u32,
    /// Added to the clock and the timestamp of each packet.
    shift: u64,
}

pub fn replay(capture: &mut Capture<'_>, settings: &Settings, progress: &Progress) -> Replay {
    let domain = Domain::builder().name("conntrack").build();
    let registry: Flows = Registry::builder().domain(domain.clone()).capacity(4096).build();
    let collector = Arc::new(Collector::new());
    let positions = Positions::new(settings.workers);
    let reaper = Reaper::new(&registry, &positions, &settings.timeouts);

    let started = Instant::now();
    let (feeder, damage, replaying) = std::thread::scope(|scope| {
        let evicting = scope.spawn(|| reaper.run());
        let mut queues = Vec::new();
        let mut workers = Vec::new();
        for worker in 0..settings.workers {
            let (queue, work) = sync_channel(QUEUE);
            queues.push(queue);
            let tracker =
                Tracker { registry: &registry, timeouts: &settings.timeouts, collector: Arc::clone(&collector) };
            let positions = &positions;
            workers.push(scope.spawn(move || tracker.run(&work, |until| positions.announce(worker, until))));
        }
        let mut feeder = Feeder::new(queues, &reaper, settings.rounds > 1);
        let damage = feeder.read(capture, progress, &registry);
        let replaying = Instant::now();
        feeder.repeat(settings.rounds, progress, &registry);
        // When its queue is closed, a worker finishes its batches and ends.
        feeder.queues.clear();
        let ended: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        reaper.stop(evicting.thread());
        // Only after the reaper was stopped: the scope waits for the reaper, also when a panic unwinds.
        if let Some(Err(panic)) = ended.into_iter().find(Result::is_err) {
            std::panic::resume_unwind(panic);
        }
        (feeder, damage, replaying)
    });
    let (elapsed, elapsed_replaying) = (started.elapsed(), replaying.elapsed());

    let stats_at_end = registry.stats();
    registry.clear();
    domain.barrier();
    Replay {
        ledger: feeder.ledger,
        ignored: feeder.ignored,
        repaired: feeder.repaired,
        oddities: feeder.oddities,
        rounds: u64::from(settings.rounds),
        merged: collector.merged(),
        damage,
        elapsed,
        elapsed_replaying,
        peak_live: reaper.peak_live().max(stats_at_end.live),
        stats_at_end,
        stats_after_drain: registry.stats(),
    }
}

/// Reads and parses the capture, counts its packets, and distributes them.
struct Feeder<'r> {
    queues: Vec<SyncSender<Work>>,
    reaper: &'r Reaper<'r>,
    ledger: Ledger,
    ignored: [u64; Ignored::ALL.len()],
    repaired: u64,
    oddities: Oddities,
    /// Records not distributed yet, per worker.
    pending: Vec<Vec<Record>>,
    waiting: usize,
    /// The capture's clock: the earliest time of a packet, and the latest so far.
    earliest: u64,
    clock: u64,
    /// The batches of the first round, one per worker and distribution, kept if they are needed again.
    dealt: Vec<Vec<Arc<Batch>>>,
    keeps: bool,
}

impl<'r> Feeder<'r> {
    fn new(queues: Vec<SyncSender<Work>>, reaper: &'r Reaper<'r>, keeps: bool) -> Self {
        Feeder {
            pending: vec![Vec::new(); queues.len()],
            queues,
            reaper,
            ledger: Ledger::default(),
            ignored: Default::default(),
            repaired: 0,
            oddities: Oddities::default(),
            waiting: 0,
            earliest: u64::MAX,
            clock: 0,
            dealt: Vec::new(),
            keeps,
        }
    }

    /// Runs the first round. If the capture turns out to be damaged, the readable part is still distributed.
    fn read(&mut self, capture: &mut Capture<'_>, progress: &Progress, registry: &Flows) -> Option<CaptureError> {
        let mut parser = Parser::default();
        let mut timeline = Timeline::new();
        let damage = loop {
            let frame = match capture.next() {
                Ok(Some(frame)) => frame,
                Ok(None) => break None,
                Err(damage) => break Some(damage),
            };
            self.repaired += u64::from(frame.is_time_repaired);
            match parser.parse_frame(&frame) {
                Ok(packet) => timeline.push(frame.time, (packet, frame.length)),
                Err(reason) => self.ignored[reason as usize] += 1,
            }
            self.take_decided(&mut timeline);
            if self.waiting >= BATCH * self.queues.len() {
                self.deal();
                progress.reading(registry);
            }
        };
        timeline.finish();
        self.take_decided(&mut timeline);
        self.oddities = timeline.oddities();
        self.deal();
        damage
    }

    fn take_decided(&mut self, timeline: &mut Timeline<(Packet, u32)>) {
        while let Some((moment, (packet, length))) = timeline.pop() {
            self.take(Record { packet, length, moment });
        }
    }

    fn take(&mut self, record: Record) {
        let account = self.ledger.count(record.packet.tuple, record.packet.direction, record.length);
        self.clock = self.clock.max(record.moment.clock);
        self.earliest = self.earliest.min(record.moment.clock);
        // Round robin, and not by a hash: flows that are active together are also new together.
        let worker = account % self.queues.len();
        self.pending[worker].push(record);
        self.waiting += 1;
    }

    /// Gives every worker its pending packets. A worker without packets still gets the clock's time.
    fn deal(&mut self) {
        let until = self.clock;
        let batches: Vec<Arc<Batch>> = self
            .pending
            .iter_mut()
            .map(|pending| Arc::new(Batch { records: std::mem::take(pending), until }))
            .collect();
        self.waiting = 0;
        self.send(&batches, 0, 0);
        if self.keeps {
            self.dealt.push(batches);
        }
    }

    /// Runs the other rounds. Each is later than the one before it by the length of the capture and a second.
    fn repeat(&mut self, rounds: u32, progress: &Progress, registry: &Flows) {
        let period = self.clock.saturating_sub(self.earliest) + SECOND;
        for round in 1..rounds {
            for batches in &self.dealt {
                self.send(batches, round, period.saturating_mul(round.into()));
                progress.replaying(round, registry);
            }
        }
    }

    fn send(&self, batches: &[Arc<Batch>], round: u32, shift: u64) {
        self.reaper.catch_up();
        for (queue, batch) in self.queues.iter().zip(batches) {
            // `send` fails only if the worker has panicked. Joining it reports that.
            let _ = queue.send(Work { batch: Arc::clone(batch), round, shift });
        }
    }
}

/// The state of one worker.
struct Tracker<'r> {
    registry: &'r Flows,
    timeouts: &'r Timeouts,
    collector: Arc<Collector>,
}

impl Tracker<'_> {
    fn run(self, queue: &Receiver<Work>, announce: impl Fn(u64)) {
        let mut reader = self.registry.reader();
        loop {
            let work = match queue.try_recv() {
                // If the session stayed online, grace periods would wait while the worker waits.
                Err(TryRecvError::Empty) => match reader.offline(|| queue.recv()) {
                    Ok(work) => work,
                    Err(_) => return,
                },
                Err(TryRecvError::Disconnected) => return,
                Ok(work) => work,
            };
            for Record { packet, length, moment } in &work.batch.records {
                let key = FlowKey { tuple: packet.tuple, round: work.round };
                let moment = moment.shifted(work.shift);
                let stale = match reader.get(&key) {
                    Some(flow) if flow.accepts(packet, moment.clock, self.timeouts) => {
                        flow.count(packet, *length, moment);
                        continue;
                    }
                    Some(flow) => flow.handle(),
                    None => None,
                };
                if let Some(stale) = stale {
                    self.registry.remove_handle(&stale);
                }
                let begin = || Flow::new(packet, moment, Arc::clone(&self.collector));
                self.registry.get_or_insert_with(key, begin).count(packet, *length, moment);
            }
            announce(work.batch.until.saturating_add(work.shift));
        }
    }
}
