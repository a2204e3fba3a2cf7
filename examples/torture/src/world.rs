//! A domain under torture, with the registries and elements that the threads read and write.

use std::sync::Arc;
use std::time::Duration;

use epoch_registry::{Domain, RcuList, RcuOptionCell, Registry, StallReport, WhenFull};

use crate::broken::Broken;
use crate::figures::{Count, Figures};
use crate::pipeline::{Lease, Pipeline, SLOTS};
use crate::pool::LAST_AGE;
use crate::rng::Rng;
use crate::staller::STALLER;
use crate::value::Value;

/// The keys of elements that a registry publishes: few, like the slots.
pub const LEASES: u64 = 4;
/// The number of cells that publish elements.
pub const CELLS: usize = 2;
/// The most elements that a list publishes, unless updaters come at the same time.
pub const QUEUED: usize = 6;
/// The number of keys that are updated and never removed.
pub const STABLE: u64 = 256;
/// The number of further keys, which come and go.
pub const TRANSIENT: u64 = 20_000;

/// How long a reader may stay in its section before it has to be reported.
pub const STALL_AFTER: Duration = Duration::from_millis(100);

pub struct World {
    /// Its index among the worlds.
    pub number: usize,
    /// The backlog limit of its domain, in objects.
    limit: Option<usize>,
    pub pipeline: Arc<Pipeline>,
    pub leases: Registry<u64, Lease>,
    /// Elements that cells publish.
    pub cells: [RcuOptionCell<Lease>; CELLS],
    /// Elements that lists publish. The second list is a stop on the way from one end of the first to the other.
    pub queue: RcuList<Lease>,
    pub detour: RcuList<Lease>,
    pub values: Registry<u64, Value>,
    /// Values that a barrier must have freed. One shard, so that retiring threads contend.
    tokens: Registry<u64, Arc<()>>,
    /// The number of reports that named the [`STALLER`].
    pub staller_named: Arc<Count>,
}

impl World {
    /// Creates a world. Its domain has a limit and a reclaimer thread, or neither.
    pub fn new(number: usize, limit: Option<usize>, broken: Option<Broken>, figures: &Arc<Figures>) -> Arc<Self> {
        let staller_named = Arc::new(Count::default());
        let (named, seen) = (Arc::clone(&staller_named), Arc::clone(figures));
        let on_stall = move |report: &StallReport| {
            let mut names = report.readers.iter().map(|reader| reader.thread_name.as_deref());
            if broken == Some(Broken::Unreported) {
                return;
            }
            let count = if names.any(|name| name == Some(STALLER)) { &named } else { &seen.other_reports };
            count.up();
        };
        let domain = match limit {
            None => Domain::builder().name("alone"),
            Some(limit) => {
                let limited = Domain::builder().name("threaded").backlog_objects(limit).reclaimer(true);
                limited.when_full(WhenFull::Wait(Duration::from_millis(2)))
            }
        };
        let domain = domain.stall_after(STALL_AFTER).on_stall(on_stall).build();
        let world = World {
            number,
            limit,
            pipeline: Pipeline::new(domain.clone(), broken, Arc::clone(figures)),
            leases: Registry::builder().domain(domain.clone()).shards(2).build(),
            cells: std::array::from_fn(|_| RcuOptionCell::empty_in(&domain)),
            queue: RcuList::new_in(&domain),
            detour: RcuList::new_in(&domain),
            // Few shards and no initial capacity, so that the tables are resized often.
            values: Registry::builder().domain(domain.clone()).shards(4).build(),
            tokens: Registry::builder().domain(domain).shards(1).build(),
            staller_named,
        };
        for key in 0..STABLE {
            world.values.try_insert(key, Value::new(key, 0, figures)).expect("the first of its key");
        }
        Arc::new(world)
    }

    pub fn is(&self, broken: Broken) -> bool {
        self.pipeline.is(broken)
    }

    /// Returns a random key of a value. Stable and transient keys are equally likely.
    pub fn key(rng: &mut Rng) -> u64 {
        if rng.one_in(2) { rng.below(STABLE) } else { STABLE + rng.below(TRANSIENT) }
    }

    /// Waits in a barrier, then checks that everything this thread retired before is gone, whatever other threads do.
    pub fn barrier(&self) {
        let Pipeline { domain, figures, .. } = &*self.pipeline;
        let token = Arc::new(());
        let (key, given) = (Arc::as_ptr(&token).addr() as u64, Arc::clone(&token));
        drop(self.tokens.try_insert(key, Arc::clone(&token)));
        drop(self.tokens.remove(&key));
        domain.call(move || drop(given));
        domain.barrier();
        if Arc::strong_count(&token) > 1 {
            figures.faults.add("an object outlived a barrier that covers it", || format!("in {domain:?}"));
        }
    }

    /// Waits until all deferred work is done, including callbacks that callbacks queue.
    pub fn settle(&self) {
        for _ in 0..=LAST_AGE {
            self.pipeline.domain.barrier();
        }
    }

    /// Returns the number of cells that publish an element.
    fn full_cells(&self) -> usize {
        self.cells.iter().filter(|cell| cell.with(|lease| lease.is_some())).count()
    }

    /// Checks what must hold while all threads rest, after [`settle`](Self::settle).
    pub fn audit(&self) {
        let faults = &self.pipeline.figures.faults;
        let stats = self.values.stats();
        let (waiting, domain) = (stats.domain.backlog, self.pipeline.domain.name());
        if waiting.objects + waiting.bytes > 0 || stats.backlog > 0 {
            faults.add("the backlog is not empty after a barrier without readers", || format!("in {domain}: {stats}"));
        }
        let panics = stats.drop_panics + self.leases.stats().drop_panics + stats.domain.callback_panics;
        if panics > 0 {
            faults.add("a destructor or callback panicked", || format!("in {domain}: {stats}"));
        }
        let listed = self.queue.len() + self.detour.len();
        let (in_use, pool) = (SLOTS + self.leases.len() + self.full_cells() + listed, &self.pipeline.pool);
        if pool.free() + in_use > pool.size() {
            faults.add("an element was given back twice", || format!("in {domain}"));
        }
        self.audit_room();
    }

    /// Checks that all reservations of the backlog have been returned: three quarters of the limit, since shards
    /// keep some.
    fn audit_room(&self) {
        let Some(limit) = self.limit else { return };
        let domain = &self.pipeline.domain;
        // The guard keeps reservations from being returned while we count.
        let guard = domain.pin();
        let taken = (0..limit / 4 * 3).take_while(|_| domain.try_call(|| ()).is_ok()).count();
        drop(guard);
        domain.barrier();
        let faults = &self.pipeline.figures.faults;
        faults.balance("reservations of the backlog are lost", taken as u64, (limit / 4 * 3) as u64);
    }

    /// Empties the registries and lists, and checks that every element has returned to the pool. Called when all threads
    /// have ended.
    pub fn close(&self) {
        self.leases.clear();
        self.cells.iter().for_each(|cell| drop(cell.take()));
        self.queue.clear();
        self.detour.clear();
        self.values.clear();
        self.settle();
        let pool = &self.pipeline.pool;
        let (back, out) = (pool.free() + SLOTS, pool.size());
        self.pipeline.figures.faults.balance("elements are lost to the pool", back as u64, out as u64);
    }
}
