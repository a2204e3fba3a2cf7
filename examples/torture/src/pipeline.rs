//! Publishes elements, replaces them, and ages replaced ones by every flavour of grace period.

use std::array;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Release};
use std::time::Duration;

use epoch_registry::{Cookie, Domain};
use parking_lot::Mutex;

use crate::broken::Broken;
use crate::figures::{Figures, nap};
use crate::pool::{Fresh, Name, Pool, Retired};
use crate::rng::Rng;

/// The number of slots: few, so that an element that a reader holds is replaced often.
pub const SLOTS: usize = 4;
/// The most elements that are in use at a time, at all ages together.
const ELEMENTS: u16 = 512;

/// The ways in which a thread learns that a grace period is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flavour {
    Synchronize,
    Expedited,
    Barrier,
    Poll,
    PollTimeout,
    /// A callback. The thread that queued it calls `reclaim` until it has run.
    Reclaim,
    /// A callback that no thread waits for.
    Call,
    /// The destructor of a value that was removed from a registry.
    Removal,
}

impl Flavour {
    /// All flavours, in the order of their numbers.
    pub const ALL: [Flavour; 8] = [
        Flavour::Synchronize,
        Flavour::Expedited,
        Flavour::Barrier,
        Flavour::Poll,
        Flavour::PollTimeout,
        Flavour::Reclaim,
        Flavour::Call,
        Flavour::Removal,
    ];
    /// The flavours for which the caller waits.
    pub const WAITING: &[Flavour] = Flavour::ALL.split_at(6).0;
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Flavour::Synchronize => "synchronize",
            Flavour::Expedited => "expedited",
            Flavour::Barrier => "barrier",
            Flavour::Poll => "poll",
            Flavour::PollTimeout => "poll_timeout",
            Flavour::Reclaim => "reclaim",
            Flavour::Call => "call",
            Flavour::Removal => "removal",
        })
    }
}

/// The elements that age by the grace periods of one domain.
pub struct Pipeline {
    pub domain: Domain,
    pub pool: Pool,
    pub figures: Arc<Figures>,
    broken: Option<Broken>,
    /// The names of the published elements.
    slots: [AtomicU64; SLOTS],
    /// The grace period that [`Broken::Stale`] waits for.
    stale: Mutex<Cookie>,
}

impl Pipeline {
    pub fn new(domain: Domain, broken: Option<Broken>, figures: Arc<Figures>) -> Arc<Self> {
        let pool = Pool::new(ELEMENTS);
        let slots = array::from_fn(|_| AtomicU64::new(pool.take().expect("more elements than slots").0.0));
        let stale = Mutex::new(domain.start_poll());
        Arc::new(Pipeline { domain, pool, figures, broken, slots, stale })
    }

    pub fn is(&self, broken: Broken) -> bool {
        self.broken == Some(broken)
    }

    /// Takes an element to publish. Returns `None` if none is left.
    pub fn fresh(&self) -> Option<Fresh> {
        if self.is(Broken::Idle) { None } else { self.pool.take() }
    }

    /// Returns the element that is published in `slot`. For readers, in a critical section.
    pub fn read(&self, slot: usize) -> Name {
        // ORDERING: Acquire, pairs with the swap in `replace`.
        Name(self.slots[slot].load(Acquire))
    }

    /// Publishes an element in place of another, which it retires.
    pub fn replace(&self, slot: usize, Fresh(new): Fresh) -> Option<Retired> {
        // ORDERING: Release publishes the element's content. Acquire makes the content of the old element
        // visible, as its publisher stored it.
        let old = Name(self.slots[slot].swap(new.0, AcqRel));
        self.unlinked(old)
    }

    /// Retires an element that no reader finds any more.
    pub fn unlinked(&self, name: Name) -> Option<Retired> {
        let mut retired = self.pool.retire(name);
        if self.is(Broken::Free) {
            while let Some(young) = retired {
                retired = self.pool.age(young);
            }
        }
        retired
    }

    /// Waits for a grace period.
    pub fn wait(&self, flavour: Flavour, rng: &mut Rng) {
        let domain = &self.domain;
        match (self.broken, flavour) {
            (Some(Broken::None), _) => {}
            (Some(Broken::Endless), _) => loop {
                nap(1000);
            },
            (Some(Broken::Early), _) => {
                domain.poll(domain.start_poll());
            }
            (Some(Broken::Stale), _) => {
                let stale = std::mem::replace(&mut *self.stale.lock(), domain.start_poll());
                while !domain.poll(stale) {
                    nap(50);
                }
            }
            (_, Flavour::Synchronize) => domain.synchronize(),
            (_, Flavour::Expedited) => domain.synchronize_expedited(),
            (_, Flavour::Barrier) => domain.barrier(),
            (_, Flavour::Poll) => {
                let cookie = domain.start_poll();
                while !domain.poll(cookie) {
                    nap(rng.below(200));
                }
            }
            (_, Flavour::PollTimeout) => {
                let cookie = domain.start_poll();
                while !domain.poll_timeout(cookie, Duration::from_micros(rng.below(2000))) {}
            }
            (_, Flavour::Reclaim) => {
                let over = Arc::new(AtomicBool::new(false));
                let tell = Arc::clone(&over);
                // ORDERING: Release, pairs with the Acquire load below: what follows the wait comes after the
                // grace period.
                domain.call(move || tell.store(true, Release));
                while !over.load(Acquire) {
                    domain.reclaim(rng.index(2000));
                    nap(rng.below(200));
                }
            }
            (_, Flavour::Call | Flavour::Removal) => unreachable!("no thread waits for {flavour}"),
        }
        self.over(flavour);
    }

    /// Ages an element by one callback after another until its life ends.
    pub fn age_by_calls(self: &Arc<Self>, retired: Retired) {
        let this = Arc::clone(self);
        let aged = move || {
            this.over(Flavour::Call);
            if let Some(retired) = this.pool.age(retired) {
                this.age_by_calls(retired);
            }
        };
        if self.is(Broken::Callback) { aged() } else { self.domain.call(aged) }
    }

    fn over(&self, flavour: Flavour) {
        self.figures.aged[flavour as usize].up();
    }
}

/// An element that is published as a value of a registry. The value's destructor ages it.
pub struct Lease {
    pub name: Name,
    pipeline: Arc<Pipeline>,
}

impl Lease {
    pub fn new(Fresh(name): Fresh, pipeline: &Arc<Pipeline>) -> Self {
        Lease { name, pipeline: Arc::clone(pipeline) }
    }

    /// Marks it as removed from its registry. The right to age it stays with the destructor.
    pub fn unlinked(&self) {
        let _ = self.pipeline.unlinked(self.name);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let pipeline = &self.pipeline;
        let Some(retired) = pipeline.pool.retire(self.name) else { return };
        pipeline.over(Flavour::Removal);
        if let Some(retired) = pipeline.pool.age(retired) {
            pipeline.age_by_calls(retired);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::{LAST_AGE, TOO_OLD};
    use epoch_registry::Registry;
    use std::thread;

    fn pipeline(broken: Option<Broken>) -> Arc<Pipeline> {
        Pipeline::new(Domain::new(), broken, Arc::default())
    }

    /// Runs `replace` on another thread while a reader holds the element. Returns two ages that the reader sees: the
    /// last one within its section, and one long after the section has ended.
    fn ages_seen(pipeline: &Arc<Pipeline>, name: Name, replace: impl FnOnce() + Send) -> (usize, usize) {
        let guard = pipeline.domain.pin();
        thread::scope(|scope| {
            scope.spawn(replace);
            for _ in 0..100 {
                pipeline.domain.reclaim(100);
                if pipeline.pool.look(name).unwrap() >= TOO_OLD {
                    break;
                }
                nap(1000);
            }
            let within = pipeline.pool.look(name).unwrap();
            drop(guard);
            for _ in 0..1000 {
                pipeline.domain.reclaim(100);
                if pipeline.pool.look(name).unwrap() >= TOO_OLD {
                    break;
                }
                nap(1000);
            }
            (within, pipeline.pool.look(name).unwrap())
        })
    }

    fn ages_by_waiting(broken: Option<Broken>, flavour: Flavour) -> (usize, usize) {
        let pipeline = pipeline(broken);
        let name = pipeline.read(0);
        ages_seen(&pipeline, name, || {
            let retired = pipeline.replace(0, pipeline.fresh().unwrap());
            pipeline.wait(flavour, &mut Rng::new(1, 1));
            retired.and_then(|retired| pipeline.pool.age(retired));
        })
    }

    fn ages_by_call(broken: Option<Broken>) -> (usize, usize) {
        let pipeline = pipeline(broken);
        let name = pipeline.read(0);
        ages_seen(&pipeline, name, || {
            if let Some(retired) = pipeline.replace(0, pipeline.fresh().unwrap()) {
                pipeline.age_by_calls(retired);
            }
        })
    }

    fn ages_by_removal(broken: Option<Broken>) -> (usize, usize) {
        let pipeline = pipeline(broken);
        let leases = Registry::builder().domain(pipeline.domain.clone()).build();
        let lease = leases.try_insert(1, Lease::new(pipeline.pool.take().unwrap(), &pipeline)).unwrap();
        let name = lease.name;
        drop(lease);
        ages_seen(&pipeline, name, || leases.remove(&1).unwrap().unlinked())
    }

    #[test]
    fn a_reader_sees_an_element_that_is_replaced_at_age_one_but_not_older() {
        for &flavour in Flavour::WAITING {
            assert_eq!(ages_by_waiting(None, flavour), (1, 2), "{flavour}");
        }
        for (within, after) in [ages_by_call(None), ages_by_removal(None)] {
            assert!(within == 1 && after >= 2, "{within}, {after}");
        }
    }

    #[test]
    fn broken_grace_periods_show_as_ages() {
        for broken in [Broken::None, Broken::Early, Broken::Free] {
            let (within, _) = ages_by_waiting(Some(broken), Flavour::Synchronize);
            assert!(within >= TOO_OLD, "{broken:?}: {within}");
        }
        assert_eq!(ages_by_call(Some(Broken::Callback)).0, LAST_AGE);
        assert_eq!(ages_by_removal(Some(Broken::Free)).0, LAST_AGE);
    }

    #[test]
    fn a_grace_period_that_began_before_the_reader_is_too_short() {
        let pipeline = pipeline(Some(Broken::Stale));
        // The stale grace period began with the pipeline. It is over before the reader begins.
        pipeline.domain.synchronize();
        let name = pipeline.read(0);
        let (within, _) = ages_seen(&pipeline, name, || {
            let retired = pipeline.replace(0, pipeline.fresh().unwrap()).unwrap();
            pipeline.wait(Flavour::Synchronize, &mut Rng::new(1, 1));
            pipeline.pool.age(retired);
        });
        assert_eq!(within, TOO_OLD);
    }
}
