//! Operations that go through a whole registry, a chunk at a time: scan, retain, drain, reap.

#![allow(unsafe_code)]

use crate::domain::{Failure, Full, IfFull};
use crate::handle::Entry;
use crate::handle::Handle;
use crate::reap::Cause;
use crate::reap::Cursor;
use crate::reap::{Reaped, Scan};
use crate::registry::Registry;
use crate::registry::policy::{self, Candidate, Policy, Verdict};
use crate::util::check;
use crate::util::clock::Time;
use crate::util::hasher::RandomState;
use std::convert::Infallible;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::time::Duration;

/// The number of entries that one critical section covers, about.
const SWEEP_CHUNK: usize = 64;

/// The most homes of a table that are visited in one critical section. A table may be large and nearly empty.
const HOMES: usize = 4096;

/// Returns the verdict on an entry.
pub(crate) type Judge<'j, K, V> = dyn FnMut(&Candidate<'_, K, V>) -> Verdict + 'j;

fn keeps(keep: bool) -> Verdict {
    if keep { Verdict::Keep } else { Verdict::Remove }
}

/// How a sweep removes entries, and what it has done.
struct Sweep<E> {
    cause: Cause,
    if_full: IfFull<E>,
    reaped: Reaped,
}

impl<E> Sweep<E> {
    fn new(cause: Cause, if_full: IfFull<E>) -> Self {
        Sweep { cause, if_full, reaped: Reaped::default() }
    }
}

impl<K, V, S> Registry<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Calls `each` with entries from `cursor` on. Returns the number of entries that it has met.
    ///
    /// It stops when it has met about `budget` entries (it does not split those of one home), at the end of the
    /// registry, or after 4,096 homes of a table. So it may meet no entry, in a large table with few entries,
    /// before the cursor is [done](Cursor::is_done).
    ///
    /// Between two calls nothing is held, neither guard nor lock. Use this to go through a large registry without
    /// holding up a grace period. `each` runs in a critical section.
    ///
    /// An entry that is in the registry from the first call to the last is met. It is met once, unless its shard
    /// shrinks between two calls: then entries of that shard may be met again. Other entries may be met or
    /// missed, as by [`View::iter`](crate::View::iter). The cursor may travel as a
    /// [number](Cursor#numbers) between the calls.
    ///
    /// # Examples
    ///
    /// ```
    /// use epoch_registry::{Cursor, Registry};
    ///
    /// let registry = Registry::new();
    /// for key in 0..1000 {
    ///     registry.insert(key, key);
    /// }
    /// let (mut cursor, mut sum) = (Cursor::new(), 0);
    /// while !cursor.is_done() {
    ///     registry.scan(&mut cursor, 100, |entry| sum += *entry);
    /// }
    /// assert_eq!(sum, 999 * 1000 / 2);
    /// ```
    pub fn scan(&self, cursor: &mut Cursor, budget: usize, each: impl FnMut(Entry<'_, K, V>)) -> usize {
        let now = self.core.time_to_read();
        self.scan_to(None, cursor, budget, now, each)
    }

    /// As [`scan`](Self::scan), up to `end` if it is given, and without entries that have expired by `now`.
    pub(crate) fn scan_to(
        &self,
        end: Option<Cursor>,
        cursor: &mut Cursor,
        budget: usize,
        now: Option<Time>,
        mut each: impl FnMut(Entry<'_, K, V>),
    ) -> usize {
        let guard = self.pin();
        let mut found = Vec::new();
        let (mut seen, mut homes) = (0, 0);
        while seen < budget && homes < HOMES && !cursor.is_done() && end.is_none_or(|end| cursor.is_before(end)) {
            homes += 1;
            // The cursor moves on only after `each` has seen all entries of the home. If `each` panics, the next
            // call meets them again and misses none.
            let mut next = *cursor;
            // SAFETY: the guard holds a critical section of the core's domain open.
            unsafe { next.step(guard.core, &mut found) };
            seen += found.len();
            check::user_code();
            for node in found.drain(..) {
                // SAFETY: the node was found within the guard's critical section.
                if unsafe { self.core.is_there(node, now) } {
                    // SAFETY: the node was found within the guard's critical section, which outlasts the entry.
                    each(unsafe { Entry::new(node) });
                }
            }
            *cursor = next;
        }
        seen
    }

    /// Removes all entries for which `keep` returns false.
    ///
    /// `keep` runs in a critical section, under no lock. It sees entries as [`scan`](Self::scan) meets them.
    ///
    /// # Progress
    ///
    /// Works in chunks: critical sections and locks are short, however large the registry is.
    pub fn retain(&self, mut keep: impl FnMut(&K, &V) -> bool) {
        self.retain_from(&mut Cursor::new(), &mut keep, IfFull::go_on());
    }

    /// Removes entries for which `keep` returns false from `cursor` on, until the cursor is done or a removal
    /// fails.
    pub(super) fn retain_from<E: Failure>(
        &self,
        cursor: &mut Cursor,
        keep: &mut dyn FnMut(&K, &V) -> bool,
        if_full: IfFull<E>,
    ) -> Reaped {
        let mut sweep = Sweep::new(Cause::Removed, if_full);
        let judge = &mut |entry: &Candidate<'_, K, V>| keeps(keep(entry.key(), entry.value()));
        self.sweep_to(None, cursor, usize::MAX, &mut sweep, judge);
        if !sweep.reaped.stopped {
            self.finish_resize();
        }
        sweep.reaped
    }

    /// Returns an iterator that removes entries one by one, and returns each.
    ///
    /// It removes every entry that is in the registry from the start, unless another thread removes the entry
    /// first. It may remove entries that are inserted after the start. If the iterator is dropped early, the rest
    /// of the entries stay.
    pub fn drain(&self) -> Drain<'_, K, V, S> {
        Drain { registry: self, cursor: Cursor::new(), victims: Vec::new(), if_full: IfFull::go_on() }
    }

    /// Removes entries for which `condition` returns true, and counts them as reaped. Examines up to about
    /// `budget` entries.
    ///
    /// It starts where the last call of this method, or of [`reap_older_than`](Self::reap_older_than), stopped.
    /// It examines each entry at most once, unless the entry's shard is resized during the call. If the domain's
    /// backlog is full, and its policy is not to grow, it stops before the budget is used up.
    ///
    /// `condition` runs in a critical section, under no lock.
    ///
    /// # Progress
    ///
    /// As [`retain`](Self::retain).
    pub fn reap_if(&self, budget: usize, mut condition: impl FnMut(Entry<'_, K, V>) -> bool) -> Reaped {
        self.reap_around(budget, &mut |candidate| keeps(!condition(candidate.entry())))
    }

    /// Removes entries that were inserted longer than `age` ago, as [`reap_if`](Self::reap_if) does.
    ///
    /// Ages are known to 34 ms (see [`Candidate::age`]). No entry is removed before it is older than `age`, and
    /// every examined entry is removed that is older than that by 34 ms.
    ///
    /// This examines all entries. A registry with a [`max_age`](crate::Builder::max_age) examines only entries
    /// that have reached it.
    ///
    /// # Progress
    ///
    /// As [`retain`](Self::retain).
    ///
    /// # Examples
    ///
    /// ```
    /// use epoch_registry::{ManualClock, Registry};
    /// use std::time::Duration;
    ///
    /// let clock = ManualClock::new();
    /// let registry = Registry::builder().clock(clock.clone()).build();
    /// registry.insert("old", ());
    /// clock.advance(Duration::from_secs(60));
    /// registry.insert("new", ());
    /// assert_eq!(registry.reap_older_than(Duration::from_secs(30), usize::MAX).removed, 1);
    /// assert!(registry.contains_key("new") && !registry.contains_key("old"));
    /// ```
    pub fn reap_older_than(&self, age: Duration, budget: usize) -> Reaped {
        let policy = policy::older_than(age);
        self.reap_around(budget, &mut |candidate| policy.judge(candidate))
    }

    /// Examines up to about [`scan.nr_to_scan`](Scan::nr_to_scan) entries from the cursor of `scan` on, and
    /// treats each as `policy` says. Removed entries count as reaped.
    ///
    /// It stops at the end of the registry. The next call with the same `scan` begins anew.
    ///
    /// # Examples
    ///
    /// ```
    /// use epoch_registry::{Registry, Scan, policy};
    ///
    /// let registry = Registry::new();
    /// let held = registry.insert_and_get(0, "held");
    /// (1..1000).for_each(|key| drop(registry.insert(key, "not held")));
    ///
    /// let policy = policy::unless_held(policy::when::<i32, &str>(|entry| entry.key() % 2 == 0));
    /// let reaped = registry.reap_by(&policy, &mut Scan::new(usize::MAX));
    /// assert_eq!((reaped.examined, reaped.removed, reaped.skipped), (1000, 499, 1));
    /// assert!(!held.is_unlinked());
    /// ```
    ///
    /// # Progress
    ///
    /// As [`retain`](Self::retain).
    pub fn reap_by(&self, policy: &impl Policy<K, V>, scan: &mut Scan) -> Reaped {
        self.reap_from(&mut scan.cursor, scan.nr_to_scan, Cause::Reaped, &mut |candidate| policy.judge(candidate))
    }

    /// Treats up to about `budget` entries as `policy` says. Starts where the last call of this method, or of
    /// [`reap_if`](Self::reap_if), stopped, and goes once around at most.
    pub(crate) fn reap_round(&self, policy: &impl Policy<K, V>, budget: usize) -> Reaped {
        self.reap_around(budget, &mut |candidate| policy.judge(candidate))
    }

    /// Examines up to about `budget` entries from `cursor` on, at most to the end of the registry.
    pub(crate) fn reap_from(
        &self,
        cursor: &mut Cursor,
        budget: usize,
        cause: Cause,
        judge: &mut Judge<'_, K, V>,
    ) -> Reaped {
        if cursor.is_done() {
            *cursor = Cursor::new();
        }
        let mut sweep = Sweep::new(cause, IfFull::fail());
        self.sweep_to(None, cursor, budget, &mut sweep, judge);
        self.end_reaping(sweep)
    }

    fn reap_around(&self, budget: usize, judge: &mut Judge<'_, K, V>) -> Reaped {
        // The cursor is copied, so that no lock is held while `judge` runs. Two reapers at the same time examine
        // the same entries, which wastes work and does no other harm.
        let start = *self.core.reaped_to.lock();
        let mut cursor = start;
        let mut sweep = Sweep::new(Cause::Reaped, IfFull::fail());
        let spent = self.sweep_to(None, &mut cursor, budget, &mut sweep, judge);
        if cursor.is_done() {
            // Once around at most, to where this call started.
            cursor = Cursor::new();
            self.sweep_to(Some(start), &mut cursor, budget.saturating_sub(spent), &mut sweep, judge);
        }
        *self.core.reaped_to.lock() = if cursor.is_done() { Cursor::new() } else { cursor };
        self.end_reaping(sweep)
    }

    fn end_reaping(&self, sweep: Sweep<Full>) -> Reaped {
        if sweep.reaped.removed > 0 {
            self.finish_resize();
        }
        sweep.reaped
    }

    /// Sweeps from `cursor` to `end`, or to the end of the registry, until about `budget` entries are examined or a
    /// removal fails. Returns how much of the budget it has used.
    fn sweep_to<E: Failure>(
        &self,
        end: Option<Cursor>,
        cursor: &mut Cursor,
        budget: usize,
        sweep: &mut Sweep<E>,
        judge: &mut Judge<'_, K, V>,
    ) -> usize {
        let mut spent = 0;
        while spent < budget
            && !sweep.reaped.stopped
            && !cursor.is_done()
            && end.is_none_or(|end| cursor.is_before(end))
        {
            spent += self.sweep(end, cursor, SWEEP_CHUNK.min(budget - spent), sweep, judge);
        }
        spent
    }

    /// Sweeps one chunk: judges entries in a critical section, and removes the condemned ones after it. A guard
    /// that is held during many removals delays the destruction of every removed entry. If a removal is refused,
    /// the cursor stays where it was.
    ///
    /// Returns how much of a budget it has used: the number of entries that it has met, or one if there were
    /// none.
    fn sweep<E: Failure>(
        &self,
        end: Option<Cursor>,
        cursor: &mut Cursor,
        budget: usize,
        sweep: &mut Sweep<E>,
        judge: &mut Judge<'_, K, V>,
    ) -> usize {
        let (mut victims, mut rotated, mut skipped) = (Vec::new(), 0, 0);
        let mut next = *cursor;
        let now = self.core.now();
        let expiry = self.core.time_to_sweep(now);
        let examined = self.scan_to(end, &mut next, budget, expiry, |entry| {
            match judge(&Candidate::new(entry, &self.core, now)) {
                Verdict::Remove => victims.extend(entry.handle()),
                Verdict::Keep => {}
                Verdict::Rotate => {
                    self.core.read_duties.enable_marks();
                    entry.header().used.clear();
                    rotated += 1;
                }
                Verdict::Skip => skipped += 1,
            }
        });
        sweep.reaped.examined += examined;
        sweep.reaped.rotated += rotated;
        sweep.reaped.skipped += skipped;
        for victim in &victims {
            match self.core.remove_exact(victim, sweep.cause, &mut sweep.if_full) {
                Ok(true) => {
                    sweep.reaped.removed += 1;
                    sweep.reaped.bytes += victim.weight();
                }
                Ok(false) => {}
                Err(_) => {
                    sweep.reaped.stopped = true;
                    return examined;
                }
            }
        }
        *cursor = next;
        examined.max(1)
    }

    /// Completes resizes that are under way, as
    /// [`Core::finish_resize`](crate::registry::core::Core::finish_resize) does.
    pub(crate) fn finish_resize(&self) {
        self.core.finish_resize();
    }
}

/// An iterator that removes entries from a registry and returns them. Returned by [`Registry::drain`].
pub struct Drain<'r, K: Send + Sync + 'static, V: Send + Sync + 'static, S = RandomState> {
    registry: &'r Registry<K, V, S>,
    cursor: Cursor,
    /// Entries that the scan has met and that are still to be removed.
    victims: Vec<Handle<K, V>>,
    if_full: IfFull<Infallible>,
}

impl<K, V, S> Iterator for Drain<'_, K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    type Item = Handle<K, V>;

    fn next(&mut self) -> Option<Handle<K, V>> {
        loop {
            while let Some(victim) = self.victims.pop() {
                let Ok(was_there) = self.registry.core.remove_exact(&victim, Cause::Removed, &mut self.if_full);
                if was_there {
                    return Some(victim);
                }
            }
            if self.cursor.is_done() {
                return None;
            }
            let victims = &mut self.victims;
            self.registry.scan(&mut self.cursor, SWEEP_CHUNK, |entry| victims.extend(entry.handle()));
        }
    }
}

impl<K: Send + Sync, V: Send + Sync, S> fmt::Debug for Drain<'_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain").field("cursor", &self.cursor).finish_non_exhaustive()
    }
}
