//! The ages and ends of entries, and the removal of expired entries: by writers, by calls of `expire`, and in the
//! background.

#![allow(unsafe_code)]

use super::{Core, CoreReference};
use crate::domain::{Full, IfFull};
use crate::handle::Handle;
use crate::node::Node;
use crate::node::life::{Deadline, Standing};
use crate::reap::{Reaped, Reaper, Scan};
use crate::shard::ShardRef;
use crate::shard::expiry::{DueEntries, Look, Looker, retry};
use crate::util::clock::Time;
use crate::util::reentrancy;
use std::ptr::{self, NonNull};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The most entries that may have expired and that one insertion examines.
const TOKENS_PER_WRITE: usize = 4;

/// How many tokens without an entry cost as much of a budget as one entry.
const TOKENS_FOR_ONE: usize = 8;

/// The most entries that `expire` takes out of a shard's timers at a time.
pub(super) const EXPIRY_CHUNK: usize = 64;

/// The value of `Core::background_at` while nothing is done in the background.
pub(super) const IN_FOREGROUND: u64 = u64::MAX;

/// The least time between two looks for expired entries in the background.
const LEAST_NAP: Duration = Duration::from_millis(2);

/// The time after which an entry is examined again that could not be removed because the backlog was full.
const FULL_RETRY: Duration = Duration::from_millis(10);

impl<K, V> Core<K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Does an insertion's share of the removal of expired entries, in the shard that it has written. Wakes the
    /// domain's reclaimer if the shard has an entry that is due before the reclaimer's next look. No panic of
    /// user code gets out of it.
    #[cold]
    pub(super) fn assist(&self, shard: ShardRef<'_, K, V>, now: Time) {
        let due = shard.counts.due.get();
        if due <= now {
            // An insertion does not wait for room in the backlog that it does not need itself.
            self.expire_in(shard, now, TOKENS_PER_WRITE, IfFull::fail_at_once());
        }
        self.wake_reaper(due, now);
    }

    /// Wakes the domain's reclaimer if an entry is due before the reclaimer's next look.
    fn wake_reaper(&self, due: Time, now: Time) {
        // ORDERING: Relaxed, here and in the exchange: the time is a hint. `IN_FOREGROUND` says that nothing is
        // done in the background.
        let planned = self.background_at.load(Ordering::Relaxed);
        if due.word() < planned && planned != IN_FOREGROUND {
            let lowered =
                self.background_at.compare_exchange(planned, due.word(), Ordering::Relaxed, Ordering::Relaxed);
            if lowered.is_ok() {
                self.header.domain.inner().reap_within(self.until(due, now));
            }
        }
    }

    /// Returns how long it is until `due`, at least `LEAST_NAP`. Returns `Duration::MAX` if the registry's clock
    /// is not real time: reapers are then called at their usual interval.
    fn until(&self, due: Time, now: Time) -> Duration {
        if self.settings.clock.is_real() { due.since(now).max(LEAST_NAP) } else { Duration::MAX }
    }

    /// Removes expired entries. Examines up to about `budget` entries that may have expired.
    pub(crate) fn expire(&self, budget: usize) -> Reaped {
        let now = self.now();
        let (mut reaped, mut spent) = (Reaped::default(), 0);
        // ORDERING: Relaxed, a hint: two calls may begin with the same shard.
        let first = self.expired_to.load(Ordering::Relaxed);
        for index in first..first + self.shards.len() {
            let Some(shard) = self.shards().nth(index % self.shards.len()) else { break };
            while shard.counts.due.get() <= now && spent < budget {
                let (done, tokens) = self.expire_in(shard, now, EXPIRY_CHUNK.min(budget - spent), IfFull::fail());
                reaped += done;
                // A token without an entry costs little, but not nothing.
                spent += done.examined.max(tokens / TOKENS_FOR_ONE).max(1);
                if reaped.stopped {
                    return reaped;
                }
            }
            // ORDERING: Relaxed, a hint: two calls may begin with the same shard.
            self.expired_to.store(index % self.shards.len(), Ordering::Relaxed);
            if spent >= budget {
                break;
            }
        }
        reaped
    }

    /// Removes expired entries of one shard, of up to `most` that may have expired. Takes the shard lock a few
    /// times. Also returns how many tokens it looked at.
    fn expire_in(&self, shard: ShardRef<'_, K, V>, now: Time, most: usize, if_full: IfFull<Full>) -> (Reaped, usize) {
        let this = ptr::from_ref(&self.settings.lifetimes).cast();
        // If this registry's lifetime calls this, it does nothing. The outer call goes on after the lifetime has
        // returned.
        // SAFETY: every `enter` for this address is given a `()` (`Lifetimes::own_end_contained`).
        if unsafe { reentrancy::find::<()>(this, |()| true) } {
            return (Reaped { stopped: true, ..Reaped::default() }, 0);
        }
        // If a listener or lifetime that this function has called calls it again, it does nothing. The outer call
        // goes on after it.
        let this = ptr::from_ref(&self.expired_to).cast();
        // SAFETY: the `enter` below is the only one for this address, and is given a `()`.
        if unsafe { reentrancy::find::<()>(this, |()| true) } {
            return (Reaped { stopped: true, ..Reaped::default() }, 0);
        }
        reentrancy::enter(this, &(), || self.expire_from(shard, now, most, if_full))
    }

    fn expire_from(
        &self,
        shard: ShardRef<'_, K, V>,
        now: Time,
        most: usize,
        mut if_full: IfFull<Full>,
    ) -> (Reaped, usize) {
        let mut reaped = Reaped::default();
        let mut due = DueEntries::new(shard, &self.settings.lifetimes, now, most);
        reaped.examined = due.len();
        let tokens = due.tokens();
        due.retain(|entry| {
            if reaped.stopped {
                return Some(now.end_of(Time::ceil_from(FULL_RETRY)));
            }
            // SAFETY: the handle keeps the node alive.
            let life = unsafe { self.life_of(entry.node()) }?;
            match self.settings.lifetimes.look(entry.get(), life, now, Looker::HOLDER) {
                Look::Lives | Look::Unknown => Some(Time::ZERO),
                Look::Spared => {
                    reaped.skipped += 1;
                    Some(retry(now))
                }
                Look::Ended(cause) => match self.remove_exact(entry, cause, &mut if_full) {
                    Ok(removed) => {
                        reaped.removed += usize::from(removed);
                        reaped.bytes += if removed { entry.weight() } else { 0 };
                        None
                    }
                    Err(Full) => {
                        reaped.stopped = true;
                        Some(now.end_of(Time::ceil_from(FULL_RETRY)))
                    }
                },
            }
        });
        (reaped, tokens)
    }

    /// Prepares all shards for entries that expire, unless that is done already.
    pub(crate) fn begin_to_expire(&self) {
        if !self.settings.lifetimes.expires() {
            self.shards().for_each(ShardRef::extend);
            self.settings.lifetimes.begin();
        }
    }

    /// Returns whether an entry is of this registry and has not left it. If so, prepares the registry for entries with
    /// ends of their own.
    pub(crate) fn can_expire_by_entry(&self, entry: &Handle<K, V>) -> bool {
        let is_here = self.holds(entry);
        if is_here {
            self.begin_to_expire_by_entry();
        }
        is_here
    }

    /// Prepares all shards for entries that expire, and has reads check whether entries have expired. The caller then
    /// gives an entry a limit of its own.
    pub(crate) fn begin_to_expire_by_entry(&self) {
        self.begin_to_expire();
        // Also if another thread has prepared the shards: it may not have come to this line yet.
        self.read_duties.check_expiry(self.settings.lifetimes.limits_idleness());
    }

    /// Looks whether an entry is in this registry and has not expired. This does not count as a use.
    fn is_present(&self, entry: &Handle<K, V>, now: Time) -> bool {
        // SAFETY: the handle keeps the node alive.
        self.holds(entry) && unsafe { self.is_there(entry.node(), Some(now)) }
    }

    /// Gives an entry another end of its own. Returns false if the entry has left or expired, or is of another
    /// registry. The caller has read the clock at `now`.
    pub(crate) fn set_own_end(&self, entry: &Handle<K, V>, own_end: Deadline, now: Time) -> bool {
        if !self.is_present(entry, now) {
            return false;
        }
        let shard = self.shard(entry.hash().into());
        let is_set = shard.set_own_end(entry, own_end, now, &self.settings.lifetimes);
        if is_set {
            self.wake_reaper(shard.counts.due.get(), now);
        }
        is_set
    }

    /// Asks the lifetime function again about an entry, and gives the entry the end that it answers. Returns false as
    /// [`set_own_end`](Self::set_own_end) does, or if the thread is in the lifetime function, or if that panics.
    pub(crate) fn renew_one(&self, entry: &Handle<K, V>) -> bool {
        let lifetimes = &self.settings.lifetimes;
        let now = self.settings.clock.beginning();
        if !self.is_present(entry, now) {
            return false;
        }
        // SAFETY: the handle keeps the node alive.
        let Some(life) = (unsafe { self.life_of(entry.node()) }) else { return true };
        // Zero is no end that a lifetime can have.
        let panicked = Time::ZERO;
        let inserted = life.inserted(entry.stamp());
        match lifetimes.own_end_contained((entry.key(), entry.value()), inserted, panicked) {
            Some(own_end) if own_end != panicked => self.set_own_end(entry, Deadline::at(own_end), now),
            _ => false,
        }
    }

    /// Returns the age of a node of this registry: never too long, and exact if it has a life that knows it.
    ///
    /// # Safety
    ///
    /// The node is not freed before this returns.
    pub(crate) unsafe fn age_of(&self, node: NonNull<Node<K, V>>) -> Duration {
        // SAFETY: the caller guarantees that the node is not freed.
        if !unsafe { self.owns(node) } {
            return Duration::ZERO;
        }
        // SAFETY: the caller guarantees that the node is not freed.
        let stamp = unsafe { node.as_ref() }.header.stamp();
        // SAFETY: the caller guarantees that the node is not freed.
        let inserted = unsafe { self.life_of(node) }.map_or(stamp.latest(), |life| life.inserted(stamp));
        self.now().since(inserted)
    }

    /// Returns how much longer a node stays, unless it is removed or used, or its limits change. `None` if there is no
    /// limit. Zero if it has left or expired, or is of another registry.
    ///
    /// # Safety
    ///
    /// The node is not freed before this returns.
    pub(crate) unsafe fn remaining_of(&self, node: NonNull<Node<K, V>>) -> Option<Duration> {
        // SAFETY: the caller guarantees that the node is not freed.
        let header = unsafe { &node.as_ref().header };
        // SAFETY: the caller guarantees that the node is not freed.
        if !unsafe { self.owns(node) } || header.refs.is_unlinked() {
            return Some(Duration::ZERO);
        }
        if !self.settings.lifetimes.expires() {
            return None;
        }
        let now = self.now();
        // SAFETY: the caller guarantees that the node is not freed.
        let life = unsafe { self.life_of(node) }?;
        // Ends the entry if it is past its time, or lets the lifetime function prolong it.
        // SAFETY: the caller guarantees that the node is not freed.
        unsafe { self.is_there(node, Some(now)) };
        match life.standing(now, self.settings.lifetimes.idleness()) {
            Standing::Lives(Time::NEVER) => None,
            // The entry lives up to the last time before `end`.
            Standing::Lives(end) => Some(end.since(now.end_of(Time::ZERO))),
            _ => Some(Duration::ZERO),
        }
    }

    /// Gives entries the deadlines and timers that the present limits ask for. Does not read the clock, and does
    /// not panic.
    pub(crate) fn renew(&self, entries: &[Handle<K, V>]) {
        for entry in entries {
            // SAFETY: the handle keeps the node alive.
            let Some(life) = (unsafe { self.life_of(entry.node()) }) else { continue };
            let inserted = life.inserted(entry.stamp());
            // If the lifetime cannot be asked, or panics, the entry keeps its present deadline.
            let known = life.deadline();
            // The lifetime function is not asked about an entry whose end is fixed.
            let lifetimes = &self.settings.lifetimes;
            let ask = || lifetimes.own_end_contained((entry.key(), entry.value()), inserted, known.time());
            let own = if known.is_fixed() { None } else { ask() };
            let own_end = own.unwrap_or(known.time());
            let shard = self.shard(entry.hash().into());
            shard.renew(&[(entry.clone(), own_end)], &self.settings.lifetimes);
        }
    }
}

/// The reaper that removes a registry's expired entries in the background.
///
/// The domain holds a weak reference to it, and a strong one while it calls it. If the registry is dropped during
/// such a call, the core ends when the call returns, on the reclaimer's thread.
impl<K: Send + Sync + 'static, V: Send + Sync + 'static> Reaper for CoreReference<K, V> {
    fn count(&self) -> usize {
        self.core().shards().map(|shard| shard.live() as usize).sum()
    }

    fn scan(&self, _: &mut Scan) -> Reaped {
        Reaped::default()
    }

    fn expire(&self, budget: usize) -> Reaped {
        let core = self.core();
        // Zero until `due_in` knows when there is more to do: the background looks now, so an insertion need not
        // wake it.
        // ORDERING: Relaxed, a hint: an insertion that is missed is found when reapers are next called as usual.
        core.background_at.store(0, Ordering::Relaxed);
        let reaped = core.expire(budget);
        if reaped.removed > 0 {
            core.finish_resize();
        }
        reaped
    }

    fn due_in(&self) -> Option<Duration> {
        let core = self.core();
        let now = core.now();
        let due = || core.shards().map(|shard| shard.counts.due.get()).min().unwrap_or(Time::NEVER);
        // An insertion after this swap sees it, and wakes the reclaimer. An insertion before it is counted in
        // `due`. If one is missed, it is found when reapers are next called as usual.
        let planned = Time::of_word(IN_FOREGROUND - 1);
        // ORDERING: SeqCst, so that most machines do not move the loads of the shards' due times before the swap.
        // Only a hint.
        core.background_at.swap(planned.word(), Ordering::SeqCst);
        let due = due().min(planned);
        // ORDERING: Relaxed, a hint. An insertion may have stored an earlier time since the swap, which stays.
        core.background_at.fetch_min(due.word(), Ordering::Relaxed);
        Some(core.until(due, now))
    }
}
