//! The limits of a domain's backlog, and the credits that shards prefetch of them.
//!
//! A writer takes a place in the backlog before it unlinks a node: one object, and its bytes. The reclaim side
//! gives the place back when it has finished with the node. Most removals do not write the domain's counter: a
//! shard takes places in advance, as [`Credits`] of up to [`DUE`] objects at a time, and spends them under its own
//! lock.
//!
//! # Invariants
//!
//! - **C1** The count of what is taken of a limit is at least the backlog (retired nodes and callbacks that are not
//!   reclaimed) plus the unused credits.
//! - **C2** What is taken is at most the limit, except with the policy [`WhenFull::Grow`], and for what cannot be
//!   refused: see [`Budget::charge_unchecked`].
//! - **C3** What is prefetched (credits beyond the place that was needed) is at most a fourth of the limit. With
//!   the policy [`WhenFull::Grow`] it may be more.

use crate::sync::atomic::Ordering;
use crate::sync::{AtomicU64, AtomicUsize};
use crossbeam_utils::CachePadded;
use std::convert::Infallible;
use std::marker::PhantomData;
use std::time::Duration;

pub use super::backlog::Backlog;

/// What happens to a removal, or to a callback, for which there is no room in the backlog.
///
/// With [`Wait`](Self::Wait) and [`Refuse`](Self::Refuse), the caller assists first: it reclaims what is ready, and
/// advances the grace period.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum WhenFull {
    /// The operation proceeds. The limit only decides when writers start to assist in reclamation.
    #[default]
    Grow,
    /// The operation waits for room, for at most this time. If there is still no room, a fallible operation (of
    /// [`Registry::fallible`](crate::Registry::fallible), or [`Domain::try_call`](crate::Domain::try_call)) is
    /// refused. An infallible operation proceeds, and is counted as an [overrun](crate::DomainStats::overruns).
    ///
    /// The operation does not wait in a critical section of the same domain, where it would wait for itself, nor in
    /// a destructor or callback. An infallible sweep (`retain`, `clear`, `drain`) does not wait again after one
    /// wait that ended without room.
    Wait(Duration),
    /// A fallible operation is refused at once. An infallible operation proceeds, and is counted as an
    /// [overrun](crate::DomainStats::overruns).
    Refuse,
}

/// The error of a fallible operation: the backlog has no room, and the policy does not let the operation exceed the
/// limit.
pub(crate) struct Full;

/// How an operation may fail when the backlog is full: with [`Full`], or, if it is [`Infallible`], not at all.
pub(crate) trait Failure: Sized {
    /// Returns `Ok` if the operation proceeds beyond the limit.
    fn full() -> Result<(), Self>;
}

impl Failure for Full {
    fn full() -> Result<(), Full> {
        Err(Full)
    }
}

impl Failure for Infallible {
    fn full() -> Result<(), Infallible> {
        Ok(())
    }
}

/// What an operation does when the backlog is full: whether it may fail (`E`), and whether it may wait first.
pub(crate) struct IfFull<E> {
    /// Cleared when the operation has waited and there is still no room.
    pub(crate) may_wait: bool,
    failure: PhantomData<E>,
}

impl IfFull<Infallible> {
    pub(crate) const fn go_on() -> Self {
        IfFull { may_wait: true, failure: PhantomData }
    }
}

impl IfFull<Full> {
    pub(crate) const fn fail() -> Self {
        IfFull { may_wait: true, failure: PhantomData }
    }

    /// For an operation that can be done later as well: it fails without waiting.
    pub(crate) const fn fail_at_once() -> Self {
        IfFull { may_wait: false, failure: PhantomData }
    }
}

/// The most removals that a shard makes between two refills of its credits.
pub(crate) const DUE: u64 = 128;

/// The divisor for the part of a limit that all shards together may prefetch: a fourth (C3).
const LENT: u64 = 4;

/// The most bytes that one object counts for: the largest [weight](crate::node::weight::Weight).
const HEAVIEST: u64 = 2047 << 31;

/// The highest limit. What is taken of it, with overruns, stays far below the largest value of a counter.
const HIGHEST: u64 = 1 << 60;

/// The bytes of [`Credits`] in a domain without a limit on bytes.
const UNLIMITED: u64 = u64::MAX;

/// Places in the backlog that a shard has taken and not used.
#[derive(Default)]
pub(crate) struct Credits {
    objects: u64,
    bytes: u64,
    /// The part that was prefetched at the last refill.
    prefetched: Backlog,
}

impl Credits {
    /// Takes the place of one object of `bytes` bytes from the credits. Returns false if they do not cover it.
    #[inline]
    pub(crate) fn spend(&mut self, bytes: u64) -> bool {
        let enough = self.objects > 0 && self.bytes >= bytes;
        if enough {
            self.objects -= 1;
            self.bytes -= bytes;
        }
        enough
    }
}

/// The limits of a domain, and what is taken of them.
pub(crate) struct Budget {
    objects: Option<Limit>,
    bytes: Option<Limit>,
    pub(crate) when_full: WhenFull,
    /// The number of shards of the domain's registries.
    shards: AtomicUsize,
}

struct Limit {
    limit: u64,
    taken: CachePadded<AtomicU64>,
    /// C3. Not modelled by loom: it only bounds unused credits.
    prefetched: std::sync::atomic::AtomicU64,
}

impl Limit {
    fn new(limit: u64) -> Self {
        Limit { limit, taken: CachePadded::new(AtomicU64::new(0)), prefetched: Default::default() }
    }

    /// Takes `wanted` if there is room for it, else `needed`. Returns what it took, or `None` if there is no room
    /// for either.
    fn take(&self, wanted: u64, needed: u64) -> Option<u64> {
        // ORDERING: Relaxed, only a first guess: the exchange below compares it again.
        let mut taken = self.taken.load(Ordering::Relaxed);
        loop {
            let room = self.limit.saturating_sub(taken);
            let granted = if wanted <= room { wanted } else { needed };
            if granted > room {
                return None;
            }
            // ORDERING: Relaxed, a count. The exchange checks the limit and adds in one step (C2). It publishes no
            // other data.
            match self.taken.compare_exchange_weak(taken, taken + granted, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(granted),
                Err(now) => taken = now,
            }
        }
    }

    /// Takes `needed`, and prefetches up to `extra` with it. Returns how much it prefetched, or `None` if there is
    /// no room for `needed`.
    fn lend(&self, needed: u64, extra: u64, when_full: WhenFull) -> Option<u64> {
        if when_full == WhenFull::Grow {
            self.charge_unchecked(needed + extra);
            // ORDERING: Relaxed, a count.
            self.prefetched.fetch_add(extra, Ordering::Relaxed);
            return Some(extra);
        }
        // ORDERING: Relaxed, as in `take`.
        let mut prefetched = self.prefetched.load(Ordering::Relaxed);
        let extra = loop {
            let extra = extra.min((self.limit / LENT).saturating_sub(prefetched));
            // ORDERING: Relaxed, as in `take`: the exchange checks the bound and adds in one step (C3).
            match self.prefetched.compare_exchange_weak(
                prefetched,
                prefetched + extra,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => break extra,
                Err(now) => prefetched = now,
            }
        };
        let granted = self.take(needed + extra, needed);
        let used = granted.map(|granted| granted - needed);
        // ORDERING: Relaxed, a count.
        self.prefetched.fetch_sub(extra - used.unwrap_or(0), Ordering::Relaxed);
        used
    }

    /// Records that prefetched credits are used up or given back.
    fn return_credits(&self, prefetched: u64) {
        // ORDERING: Relaxed, a count. The shard lock orders the accesses to the credits themselves.
        self.prefetched.fetch_sub(prefetched, Ordering::Relaxed);
    }

    fn charge_unchecked(&self, by: u64) {
        // ORDERING: Relaxed, a count.
        self.taken.fetch_add(by, Ordering::Relaxed);
    }

    fn give_back(&self, amount: u64) {
        if amount == 0 {
            return;
        }
        // ORDERING: Relaxed, a count: the thread that takes the place next does not access the object that had it.
        let before = self.taken.fetch_sub(amount, Ordering::Relaxed);
        debug_assert!(before >= amount, "C1: {amount} given back of {before}");
    }

    /// Returns whether the backlog is beyond the soft mark, which is half of the limit.
    fn is_pressed(&self) -> bool {
        // ORDERING: Relaxed, a hint: the two counts may be of different moments, so the difference saturates at 0.
        let taken = self.taken.load(Ordering::Relaxed);
        taken.saturating_sub(self.prefetched.load(Ordering::Relaxed)) > self.limit / 2
    }
}

impl Budget {
    pub(crate) fn new(objects: Option<u64>, bytes: Option<u64>, when_full: WhenFull) -> Self {
        let meter = |limit: Option<u64>| limit.map(|limit| Limit::new(limit.min(HIGHEST)));
        Budget { objects: meter(objects), bytes: meter(bytes), when_full, shards: AtomicUsize::new(0) }
    }

    pub(crate) fn is_limited(&self) -> bool {
        self.objects.is_some() || self.bytes.is_some()
    }

    /// Returns what an object of `bytes` bytes counts for: at most half of the limit, so that it can be admitted at
    /// all.
    pub(crate) fn weigh(&self, bytes: usize) -> u64 {
        let most = self.bytes.as_ref().map_or(HEAVIEST, |meter| HEAVIEST.min(meter.limit / 2));
        (bytes as u64).min(most)
    }

    pub(crate) fn add_shards(&self, shards: usize) {
        if self.is_limited() {
            // ORDERING: Relaxed: the count only sizes later refills.
            self.shards.fetch_add(shards, Ordering::Relaxed);
        }
    }

    pub(crate) fn remove_shards(&self, shards: usize) {
        if self.is_limited() {
            // ORDERING: Relaxed, as in `add_shards`.
            self.shards.fetch_sub(shards, Ordering::Relaxed);
        }
    }

    /// Returns the credits of a new shard: none if the domain has a limit.
    pub(crate) fn first_credits(&self) -> Credits {
        let unlimited = Credits { objects: DUE, bytes: UNLIMITED, prefetched: Backlog::default() };
        if self.is_limited() { Credits::default() } else { unlimited }
    }

    /// Takes the place of one object of `bytes` bytes, and refills `credits`, which do not cover it. Returns false
    /// if there is no room. Lock-free.
    pub(crate) fn refill(&self, credits: &mut Credits, bytes: u64) -> bool {
        if !self.is_limited() {
            credits.objects = DUE - 1;
            return true;
        }
        // The rest of the old credits goes back: heavy entries use up bytes before objects, and light ones objects
        // before bytes.
        self.give_back_credits(std::mem::take(credits));
        // ORDERING: Relaxed, as in `add_shards`.
        let shards = LENT * self.shards.load(Ordering::Relaxed).max(1) as u64;
        let lend = |meter: &Option<Limit>, needed, most: u64| match meter {
            Some(meter) => meter.lend(needed, (meter.limit / shards).min(most), self.when_full),
            None => Some(0),
        };
        let Some(objects) = lend(&self.objects, 1, DUE - 1) else { return false };
        let Some(prefetched) = lend(&self.bytes, bytes, u64::MAX) else {
            self.give_back(Backlog { objects: 1 + objects, bytes: 0 });
            self.return_credits(Backlog { objects, bytes: 0 });
            return false;
        };
        credits.objects = if self.objects.is_some() { objects } else { DUE - 1 };
        credits.bytes = if self.bytes.is_some() { prefetched } else { UNLIMITED };
        credits.prefetched = Backlog { objects, bytes: prefetched };
        true
    }

    fn return_credits(&self, prefetched: Backlog) {
        if let Some(meter) = &self.objects {
            meter.return_credits(prefetched.objects);
        }
        if let Some(meter) = &self.bytes {
            meter.return_credits(prefetched.bytes);
        }
    }

    /// Takes `amount` for what cannot be refused, even if there is no room.
    pub(crate) fn charge_unchecked(&self, amount: Backlog) {
        if let Some(meter) = &self.objects {
            meter.charge_unchecked(amount.objects);
        }
        if let Some(meter) = &self.bytes {
            meter.charge_unchecked(amount.bytes);
        }
    }

    /// Takes exactly `amount` if there is room, or if the policy is [`WhenFull::Grow`]. Returns whether it took it.
    pub(crate) fn take(&self, amount: Backlog) -> bool {
        let fits =
            |meter: &Option<Limit>, wanted| meter.as_ref().is_none_or(|meter| meter.take(wanted, wanted).is_some());
        let objects = fits(&self.objects, amount.objects);
        if objects && fits(&self.bytes, amount.bytes) {
            return true;
        }
        if objects {
            self.give_back(Backlog { objects: amount.objects, bytes: 0 });
        }
        if self.when_full == WhenFull::Grow {
            self.charge_unchecked(amount);
        }
        self.when_full == WhenFull::Grow
    }

    pub(crate) fn give_back(&self, amount: Backlog) {
        if let Some(meter) = &self.objects {
            meter.give_back(amount.objects);
        }
        if let Some(meter) = &self.bytes {
            meter.give_back(amount.bytes);
        }
    }

    pub(crate) fn give_back_credits(&self, credits: Credits) {
        // (A count that is not limited has no `Limit`, and nothing is given back.)
        self.give_back(Backlog { objects: credits.objects, bytes: credits.bytes });
        self.return_credits(credits.prefetched);
    }

    /// Returns whether the backlog is beyond the soft mark of either limit.
    pub(crate) fn is_pressed(&self) -> bool {
        let pressed = |meter: &Option<Limit>| meter.as_ref().is_some_and(Limit::is_pressed);
        pressed(&self.objects) || pressed(&self.bytes)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn loans_never_exceed_the_limit_and_the_last_places_are_lent_one_by_one() {
        let budget = Budget::new(Some(100), Some(10_000), WhenFull::Refuse);
        budget.add_shards(4);
        let mut shards: [Credits; 4] = Default::default();
        let mut spent = 0;
        for turn in 0.. {
            let shard = &mut shards[turn % 4];
            if !shard.spend(50) && !budget.refill(shard, 50) {
                break;
            }
            spent += 1;
        }
        let idle: u64 = shards.iter().map(|shard| shard.objects).sum();
        assert_eq!(spent + idle, 100, "the objects run out first");
        assert!(idle <= 25, "{idle} places are prefetched and unused");
        assert!(!budget.take(Backlog::one(50)));
        for shard in shards {
            budget.give_back_credits(shard);
        }
        budget.give_back(Backlog { objects: spent, bytes: spent * 50 });
        assert!(budget.take(Backlog { objects: 100, bytes: 10_000 }), "some places were not given back");
    }

    #[test]
    fn at_most_a_fourth_is_lent_to_shards_that_are_made_one_by_one() {
        let budget = Budget::new(Some(1000), None, WhenFull::Refuse);
        let mut shards: Vec<Credits> = Vec::new();
        for _ in 0..200 {
            budget.add_shards(1);
            let mut shard = Credits::default();
            assert!(budget.refill(&mut shard, 10));
            budget.give_back(Backlog::one(10));
            shards.push(shard);
        }
        let idle: u64 = shards.iter().map(|shard| shard.objects).sum();
        assert!(idle <= 250, "{idle} places are prefetched and unused");
        assert!(budget.take(Backlog { objects: 750, bytes: 0 }));
    }

    #[test]
    fn an_amount_is_taken_whole_or_not_at_all() {
        let budget = Budget::new(Some(10), Some(1000), WhenFull::Refuse);
        budget.charge_unchecked(Backlog { objects: 0, bytes: 990 });
        assert!(!budget.take(Backlog { objects: 10, bytes: 11 }) && !budget.refill(&mut Credits::default(), 11));
        assert!(budget.take(Backlog { objects: 10, bytes: 10 }));
    }

    #[test]
    fn with_the_policy_grow_only_waiting_objects_make_the_domain_pressed() {
        let budget = Budget::new(Some(100), None, WhenFull::Grow);
        let mut shards: [Credits; 8] = Default::default();
        shards.iter_mut().for_each(|shard| assert!(budget.refill(shard, 10)));
        assert!(!budget.is_pressed());
        (0..50).for_each(|_| assert!(budget.take(Backlog::one(10))));
        assert!(budget.is_pressed());
    }

    #[test]
    fn a_refused_loan_does_not_count_as_lent() {
        let budget = Budget::new(Some(100), None, WhenFull::Refuse);
        budget.charge_unchecked(Backlog { objects: 100, bytes: 0 });
        (0..10).for_each(|_| assert!(!budget.refill(&mut Credits::default(), 10)));
        budget.give_back(Backlog { objects: 40, bytes: 0 });
        assert!(budget.is_pressed(), "the budget is not pressed although 60 objects wait");
    }

    #[test]
    fn the_heaviest_entry_is_half_the_limit() {
        let budget = Budget::new(None, Some(1000), WhenFull::Refuse);
        assert_eq!((budget.weigh(10), budget.weigh(usize::MAX)), (10, 500));
        assert_eq!(Budget::new(None, None, WhenFull::Grow).weigh(usize::MAX), HEAVIEST.min(usize::MAX as u64));
    }
}
