//! How much may wait: limits of the backlog, and what is prefetched of them in advance.
//!
//! Every node that is unlinked takes its place in the backlog before: one object, and its bytes. It gives it back when
//! the reclaim side is done with it. So that not every removal writes the domain's one counter, a shard takes places
//! in advance, an [`Credits`] of up to [`DUE`] at a time, and spends them under its own lock.
//!
//! # Invariants
//!
//! - **L1** A meter shows no less than what waits: retired nodes and callbacks that are not reclaimed, and allowances.
//! - **L2** What is taken is at most the limit, but for what cannot be refused: see [`Budget::charge_unchecked`].
//! - **L3** What is prefetched, that is in credits beyond the place that was needed, is at most a fourth of the limit. (Where the
//!   policy is to grow it may be more.)

use crate::sync::atomic::Ordering;
use crate::sync::{AtomicU64, AtomicUsize};
use crossbeam_utils::CachePadded;
use std::convert::Infallible;
use std::marker::PhantomData;
use std::time::Duration;

pub use super::backlog::Backlog;

/// What becomes of a removal, or of a callback, for which there is no room in the backlog.
///
/// Before any of it, the caller assists: it reclaims what is ready, and pushes the grace period on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum WhenFull {
    /// It goes on. The limit says from where on writers assist, and nothing more.
    #[default]
    Grow,
    /// It waits for so long at the most. Then it is refused, if it may be (by [`Registry::fallible`](crate::Registry::fallible)); else it goes on,
    /// and is counted as an [charge_unchecked](crate::DomainStats::overruns). Within a critical section of the same domain, which
    /// it would wait for, and in destructors and callbacks, it does not wait. A sweep that cannot be refused (`retain`,
    /// `clear`, `drain`) waits once in vain at the most.
    Wait(Duration),
    /// It is refused at once, if it can be; else it goes on, and is counted as an charge_unchecked.
    Refuse,
}

/// There is no room in the backlog, and its policy is to refuse.
pub(crate) struct Full;

/// How an operation may end where the backlog is full: by [`Full`], or, if it is [`Infallible`], not at all.
pub(crate) trait Failure: Sized {
    /// `Ok` if the operation goes on beyond the limit.
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

/// What an operation does where the backlog is full: whether it may fail (`E`), and whether it may wait before.
pub(crate) struct IfFull<E> {
    /// Cleared when it has waited in vain.
    pub(crate) may_wait: bool,
    failure: PhantomData<E>,
}

impl<E> Clone for IfFull<E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for IfFull<E> {}

impl IfFull<Infallible> {
    pub(crate) const fn go_on() -> Self {
        IfFull { may_wait: true, failure: PhantomData }
    }
}

impl IfFull<Full> {
    pub(crate) const fn fail() -> Self {
        IfFull { may_wait: true, failure: PhantomData }
    }

    /// For what can be done later as well.
    pub(crate) const fn fail_at_once() -> Self {
        IfFull { may_wait: false, failure: PhantomData }
    }
}

/// Removals of one shard between two calls on the domain, at the most.
pub(crate) const DUE: u64 = 128;

/// The part of a limit that is prefetched in advance, at the most, to all shards together: a fourth (L3).
const LENT: u64 = 4;

/// The most bytes that one object counts for: as many as a [weight](crate::node::weight::Weight) can tell.
const HEAVIEST: u64 = 2047 << 31;

/// The highest limit there is: what is taken of it, and charge_unchecked by, stays far below what a counter holds.
const HIGHEST: u64 = 1 << 60;

/// The bytes of an credits where they are not limited.
const UNLIMITED: u64 = u64::MAX;

/// Places in the backlog that a shard has taken and not used.
#[derive(Default)]
pub(crate) struct Credits {
    objects: u64,
    bytes: u64,
    /// What of it was prefetched, when it was last filled up.
    prefetched: Backlog,
}

impl Credits {
    /// Takes the place of one object from it. False if it has none.
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
    /// Shards of the domain's registries.
    shards: AtomicUsize,
}

struct Limit {
    limit: u64,
    taken: CachePadded<AtomicU64>,
    /// L3. (Of std's type: it bounds what lies idle, and no model is about that.)
    prefetched: std::sync::atomic::AtomicU64,
}

impl Limit {
    fn new(limit: u64) -> Self {
        Limit { limit, taken: CachePadded::new(AtomicU64::new(0)), prefetched: Default::default() }
    }

    /// Takes `wanted`, or else `needed`. Returns which.
    fn take(&self, wanted: u64, needed: u64) -> Option<u64> {
        // ORDERING: Relaxed, only compared, and by the exchange below again.
        let mut taken = self.taken.load(Ordering::Relaxed);
        loop {
            let room = self.limit.saturating_sub(taken);
            let granted = if wanted <= room { wanted } else { needed };
            if granted > room {
                return None;
            }
            // ORDERING: Relaxed, a count: that it is one step keeps it below the limit, and nothing is handed over with it.
            match self.taken.compare_exchange_weak(taken, taken + granted, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(granted),
                Err(now) => taken = now,
            }
        }
    }

    /// Takes what is `needed`, and lends up to `extra` with it. Returns how much was prefetched.
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
            // ORDERING: Relaxed, as in `take`: one step keeps it below a part of the limit (L3).
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

    /// What was prefetched is used up, or given back.
    fn return_credits(&self, prefetched: u64) {
        // ORDERING: Relaxed, a count: the shard's lock orders what it has been prefetched.
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
        // ORDERING: Relaxed, a count: who takes the place next does not look at what had it.
        let before = self.taken.fetch_sub(amount, Ordering::Relaxed);
        debug_assert!(before >= amount, "L1: {amount} given back of {before}");
    }

    /// Beyond the soft mark, which is at half of the limit.
    fn is_pressed(&self) -> bool {
        // ORDERING: Relaxed, a hint: two counts of different moments, of which the difference is not taken below zero.
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

    /// What an object of so many bytes counts for: half of the limit at the most, so that it can go at all.
    pub(crate) fn weigh(&self, bytes: usize) -> u64 {
        let most = self.bytes.as_ref().map_or(HEAVIEST, |meter| HEAVIEST.min(meter.limit / 2));
        (bytes as u64).min(most)
    }

    pub(crate) fn add_shards(&self, shards: usize) {
        if self.is_limited() {
            // ORDERING: Relaxed. It bounds the loans to come.
            self.shards.fetch_add(shards, Ordering::Relaxed);
        }
    }

    pub(crate) fn remove_shards(&self, shards: usize) {
        if self.is_limited() {
            // ORDERING: Relaxed, as in `add_shards`.
            self.shards.fetch_sub(shards, Ordering::Relaxed);
        }
    }

    /// What a shard has to begin with: nothing of a limit.
    pub(crate) fn first_credits(&self) -> Credits {
        let unlimited = Credits { objects: DUE, bytes: UNLIMITED, prefetched: Backlog::default() };
        if self.is_limited() { Credits::default() } else { unlimited }
    }

    /// Takes the place of one object of so many bytes, and fills the credits up, which has not enough for it. False if
    /// there is no room. Lock-free.
    pub(crate) fn refill(&self, credits: &mut Credits, bytes: u64) -> bool {
        if !self.is_limited() {
            credits.objects = DUE - 1;
            return true;
        }
        // What is left of the old one goes back: heavy entries use up bytes before objects, and light ones the reverse.
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

    /// Takes room for what cannot be refused, whether there is any or not.
    pub(crate) fn charge_unchecked(&self, amount: Backlog) {
        if let Some(meter) = &self.objects {
            meter.charge_unchecked(amount.objects);
        }
        if let Some(meter) = &self.bytes {
            meter.charge_unchecked(amount.bytes);
        }
    }

    /// Takes room for exactly this, if there is, or if the policy is to grow.
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
        // (Where something is not limited, there is no meter to give it to.)
        self.give_back(Backlog { objects: credits.objects, bytes: credits.bytes });
        self.return_credits(credits.prefetched);
    }

    /// Whether the backlog is beyond the soft mark.
    pub(crate) fn is_pressed(&self) -> bool {
        let pressed = |meter: &Option<Limit>| meter.as_ref().is_some_and(Limit::is_pressed);
        pressed(&self.objects) || pressed(&self.bytes)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn loans_never_exceed_the_limit_and_the_last_places_go_one_by_one() {
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
        assert_eq!(spent + idle, 100, "of the objects, which run out first");
        assert!(idle <= 25, "{idle} prefetched and unused");
        assert!(!budget.take(Backlog::one(50)));
        for shard in shards {
            budget.give_back_credits(shard);
        }
        budget.give_back(Backlog { objects: spent, bytes: spent * 50 });
        assert!(budget.take(Backlog { objects: 100, bytes: 10_000 }), "all of it is back");
    }

    #[test]
    fn no_more_than_a_fourth_is_lent_to_shards_that_come_one_by_one() {
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
        assert!(idle <= 250, "{idle} prefetched and unused");
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
    fn what_grows_presses_by_what_waits_and_not_by_what_is_lent() {
        let budget = Budget::new(Some(100), None, WhenFull::Grow);
        let mut shards: [Credits; 8] = Default::default();
        shards.iter_mut().for_each(|shard| assert!(budget.refill(shard, 10)));
        assert!(!budget.is_pressed());
        (0..50).for_each(|_| assert!(budget.take(Backlog::one(10))));
        assert!(budget.is_pressed());
    }

    #[test]
    fn a_loan_that_is_refused_is_not_lent() {
        let budget = Budget::new(Some(100), None, WhenFull::Refuse);
        budget.charge_unchecked(Backlog { objects: 100, bytes: 0 });
        (0..10).for_each(|_| assert!(!budget.refill(&mut Credits::default(), 10)));
        budget.give_back(Backlog { objects: 40, bytes: 0 });
        assert!(budget.is_pressed(), "60 wait, and none is prefetched");
    }

    #[test]
    fn the_heaviest_entry_is_half_the_limit() {
        let budget = Budget::new(None, Some(1000), WhenFull::Refuse);
        assert_eq!((budget.weigh(10), budget.weigh(usize::MAX)), (10, 500));
        assert_eq!(Budget::new(None, None, WhenFull::Grow).weigh(usize::MAX), HEAVIEST);
    }
}
