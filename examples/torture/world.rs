//! A domain under torture, with what is read and written in it.

use std::sync::Arc;
use std::time::Duration;

use epoch_registry::{Domain, Registry, StallReport, WhenFull};

use crate::broken::Broken;
use crate::figures::{Count, Figures};
use crate::pipeline::{Lease, Pipeline, SLOTS};
use crate::pool::LAST_AGE;
use crate::rng::Rng;
use crate::staller::STALLER;
use crate::value::Value;

/// Keys of elements that are published by a registry: few, as slots are.
pub const LEASES: u64 = 4;
/// Keys that are updated, and never removed.
pub const STABLE: u64 = 256;
/// Keys beyond those, which come and go.
pub const TRANSIENT: u64 = 20_000;

/// How long a reader may stay before it is to be reported.
pub const STALL_AFTER: Duration = Duration::from_millis(100);

pub struct World {
    /// Its place among the worlds.
    pub number: usize,
    /// What may wait in its domain.
    limit: Option<usize>,
    pub pipeline: Arc<Pipeline>,
    pub leases: Registry<u64, Lease>,
    pub values: Registry<u64, Value>,
    /// What a barrier must see the end of. One shard, so that those who retire get in each other's way.
    tokens: Registry<u64, Arc<()>>,
    /// Reports that named the [`STALLER`].
    pub staller_named: Arc<Count>,
}

impl World {
    /// In a domain with a limit and a reclaimer thread, or with neither.
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
            // Few shards, and no capacity to begin with: the tables are to be resized often.
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

    /// A value's key, as likely a stable one as not.
    pub fn key(rng: &mut Rng) -> u64 {
        if rng.one_in(2) { rng.below(STABLE) } else { STABLE + rng.below(TRANSIENT) }
    }

    /// Waits in a barrier, and looks whether what this thread has retired before is gone, whatever others are at.
    pub fn barrier(&self) {
        let Pipeline { domain, figures, .. } = &*self.pipeline;
        let token = Arc::new(());
        let (key, given) = (Arc::as_ptr(&token).addr() as u64, Arc::clone(&token));
        drop(self.tokens.try_insert(key, Arc::clone(&token)));
        drop(self.tokens.remove(&key));
        domain.call(move || drop(given));
        domain.barrier();
        if Arc::strong_count(&token) > 1 {
            figures.faults.add("something outlived a barrier that covers it", || format!("in {domain:?}"));
        }
    }

    /// Waits until whatever is on its way has come to its end, callbacks that callbacks give included.
    pub fn settle(&self) {
        for _ in 0..=LAST_AGE {
            self.pipeline.domain.barrier();
        }
    }

    /// What must hold while everybody rests, after [`settle`](Self::settle).
    pub fn audit(&self) {
        let faults = &self.pipeline.figures.faults;
        let stats = self.values.stats();
        let (waiting, domain) = (stats.domain.backlog, self.pipeline.domain.name());
        if waiting.objects + waiting.bytes > 0 || stats.backlog > 0 {
            faults.add("something waits after a barrier, and nobody reads", || format!("in {domain}: {stats}"));
        }
        let panics = stats.drop_panics + self.leases.stats().drop_panics + stats.domain.callback_panics;
        if panics > 0 {
            faults.add("a destructor or callback panicked", || format!("in {domain}: {stats}"));
        }
        let (in_use, pool) = (SLOTS + self.leases.len(), &self.pipeline.pool);
        if pool.free() + in_use > pool.size() {
            faults.add("an element was given back twice", || format!("in {domain}"));
        }
        self.audit_room();
    }

    /// Whether all places in the backlog have been given back: three fourths, since shards keep some.
    fn audit_room(&self) {
        let Some(limit) = self.limit else { return };
        let domain = &self.pipeline.domain;
        // So that none is given back meanwhile.
        let guard = domain.pin();
        let taken = (0..limit / 4 * 3).take_while(|_| domain.try_call(|| ()).is_ok()).count();
        drop(guard);
        domain.barrier();
        let faults = &self.pipeline.figures.faults;
        faults.balance("places in the backlog are lost", taken as u64, (limit / 4 * 3) as u64);
    }

    /// Empties the registries, and looks whether every element has come back. When all threads have gone.
    pub fn close(&self) {
        self.leases.clear();
        self.values.clear();
        self.settle();
        let pool = &self.pipeline.pool;
        let (back, out) = (pool.free() + SLOTS, pool.size());
        self.pipeline.figures.faults.balance("elements are lost to the pool", back as u64, out as u64);
    }
}
