//! Entries whose time has come: how long they may stay, and how those are found that have stayed long enough, without
//! looking at the others.

#![allow(unsafe_code)]

use crate::check;
use crate::clock::Tick;
use crate::counts::Counts;
use crate::handle::Handle;
use crate::listener::Cause;
use crate::node::{Node, contain};
use crate::resize::State;
use crate::shard::{ShardRef, handle_on};
use crate::timers::{Due, HASH_MASK, NEVER, Timer, Token};
use crate::usage::Eras;
use std::ptr::NonNull;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::time::Duration;

/// How long the user lets an entry live.
pub(crate) type Lifetime<K, V> = Box<dyn Fn(&K, &V) -> Option<Duration> + Send + Sync>;

/// How long entries may stay. Ages are in ticks; an entry goes when it is older than that.
pub(crate) struct Lifetimes<K, V> {
    max_age: Limit,
    max_idle: Limit,
    own: Option<Lifetime<K, V>>,
    /// Whether there is any of them.
    any: AtomicBool,
    /// Goes up with each change.
    generation: AtomicU32,
    panics: AtomicU64,
}

/// A number of ticks that may be changed at any time, or none.
struct Limit(AtomicU32);

const NO_LIMIT: u32 = u32::MAX;

/// Eras of use in the time for which an entry may be idle: what is known of its last use is right to a sixteenth of that.
const ERAS_OF_IDLENESS: u32 = 16;

impl Limit {
    fn new(age: Option<Duration>) -> Self {
        Limit(AtomicU32::new(Self::ticks(age)))
    }

    fn ticks(age: Option<Duration>) -> u32 {
        age.and_then(Tick::spanning).unwrap_or(NO_LIMIT)
    }

    fn get(&self) -> Option<u32> {
        // ORDERING: Relaxed, acquired by `Lifetimes::generation`, where it matters which setting is seen.
        Some(self.0.load(Relaxed)).filter(|&limit| limit != NO_LIMIT)
    }

    fn set(&self, age: Option<Duration>) {
        // ORDERING: Relaxed, released by `Lifetimes::changed`.
        self.0.store(Self::ticks(age), Relaxed);
    }
}

impl<K, V> Lifetimes<K, V> {
    pub(crate) fn new(max_age: Option<Duration>, max_idle: Option<Duration>, own: Option<Lifetime<K, V>>) -> Self {
        Lifetimes {
            max_age: Limit::new(max_age),
            max_idle: Limit::new(max_idle),
            any: AtomicBool::new(own.is_some() || max_age.is_some() || max_idle.is_some()),
            own,
            generation: AtomicU32::new(0),
            panics: AtomicU64::new(0),
        }
    }

    fn changed(&self) {
        let any = self.own.is_some() || self.max_age.get().is_some() || self.max_idle.get().is_some();
        // ORDERING: Relaxed, released by what follows.
        self.any.store(any, Relaxed);
        // ORDERING: Release, pairs with the Acquire in `generation`: who sees it sees what has changed.
        self.generation.fetch_add(1, Release);
    }

    /// Which settings these are. Asked for before they are looked at: who finds later that it has changed looks anew.
    #[inline]
    pub(crate) fn generation(&self) -> u32 {
        // ORDERING: Acquire, pairs with the Release in `changed`.
        self.generation.load(Acquire)
    }

    /// Whether entries may expire.
    #[inline]
    pub(crate) fn are_limited(&self) -> bool {
        // ORDERING: Relaxed, a setting: an insertion has asked for the generation before.
        self.any.load(Relaxed)
    }

    pub(crate) fn set_max_age(&self, age: Option<Duration>) {
        self.max_age.set(age);
        self.changed();
    }

    pub(crate) fn set_max_idle(&self, age: Option<Duration>, eras: &Eras, now: Tick) {
        if self.max_idle.get().is_none() {
            eras.forget(now);
        }
        self.max_idle.set(age);
        self.changed();
        self.track_use(eras);
    }

    /// Has the last use of entries known as exactly as is needed.
    pub(crate) fn track_use(&self, eras: &Eras) {
        eras.set_span(self.max_idle.get().map(|limit| limit / ERAS_OF_IDLENESS));
    }

    /// In how many ticks the entry expires, and why: 0 if it is time. `None` if it does not.
    #[cold]
    pub(crate) fn left(&self, entry: (&K, &V), inserted: Tick, used: Tick, now: Tick) -> Option<(u32, Cause)> {
        let left = |since: Tick, limit: Option<u32>| Some((limit? + 1).saturating_sub(now.since(since)));
        check::user_code();
        let own = self.own.as_ref().and_then(|own| own(entry.0, entry.1)).and_then(Tick::spanning);
        let age = own.into_iter().chain(self.max_age.get()).min();
        let expired = left(inserted, age).map(|left| (left, Cause::Expired));
        let idle = left(used, self.max_idle.get()).map(|left| (left, Cause::Idle));
        expired.into_iter().chain(idle).min_by_key(|(left, _)| *left)
    }

    /// The same of an entry in the registry: if the user's code panics, that is counted, and the entry looked at again a while
    /// later.
    pub(crate) fn left_contained(
        &self,
        entry: (&K, &V),
        inserted: Tick,
        used: Tick,
        now: Tick,
    ) -> Option<(u32, Cause)> {
        if self.own.is_none() {
            return self.left(entry, inserted, used, now);
        }
        let mut left = Some((RETRY, Cause::Expired));
        let panics = contain(|| left = self.left(entry, inserted, used, now));
        // ORDERING: Relaxed, a statistic.
        self.panics.fetch_add(panics.into(), Relaxed);
        left
    }

    /// Calls of the user's code that panicked.
    pub(crate) fn panics(&self) -> u64 {
        // ORDERING: Relaxed, a statistic.
        self.panics.load(Relaxed)
    }
}

impl<K, V> State<K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Sees to it that an entry is looked at when it may have expired (W1): at once, if the settings are not those any more by
    /// which it was told when that is. After it is published: a token that finds no entry may be taken for stale.
    #[inline]
    pub(crate) fn arm(&mut self, node: NonNull<Node<K, V>>, timer: Timer, counts: &Counts) {
        if timer.generation != self.generation || timer.due != NEVER {
            let due = if timer.generation == self.generation { timer.due } else { 0 };
            // SAFETY: in the table, S1.
            let header = unsafe { &node.as_ref().header };
            header.armed.set(due);
            self.set_timer(due, header.hash(), counts);
        }
    }

    fn set_timer(&mut self, due: Due, hash: u32, counts: &Counts) {
        self.timers.push(due, hash);
        if self.timers.is_crowded(counts.live.get() as usize) {
            self.timers.doubt_all();
        }
        for _ in 0..DOUBTS {
            if !self.doubt_one() {
                break;
            }
        }
        counts.due.set(self.timers.next_due());
    }

    /// Looks at a token that is in doubt. False if there is none.
    fn doubt_one(&mut self) -> bool {
        let Some(token) = self.timers.doubtful() else { return false };
        let mut valid = false;
        self.armed_by(token, |_| valid = true);
        if valid {
            self.timers.trust(token);
        }
        true
    }

    /// Calls `each` with the nodes that `token` is the timer of.
    fn armed_by(&mut self, token: Token, mut each: impl FnMut(NonNull<Node<K, V>>)) {
        let found = self.hand.scratch();
        self.table.visit(token.hash(), HASH_MASK, found);
        for node in found.drain(..) {
            // SAFETY: in the table, S1.
            if unsafe { node.as_ref() }.header.armed.is_by(token) {
                each(node);
            }
        }
    }
}

/// Tokens that are looked at under one lock, for each entry that is wanted.
const TOKENS: usize = 8;

/// Tokens in doubt that are looked at with each one that is new.
const DOUBTS: usize = 4;

/// Ticks after which an entry is looked at again that could not be removed: a second.
pub(crate) const RETRY: u32 = 60;

impl<K, V> ShardRef<'_, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Adds up to `most` entries to `taken` whose time may have come. They have no timer then.
    /// Returns how many tokens were looked at.
    fn take_due(self, now: Due, most: usize, taken: &mut Vec<(Handle<K, V>, Due)>) -> usize {
        let mut locked = self.lock();
        let mut tokens = 0;
        while taken.len() < most && tokens < most.saturating_mul(TOKENS) {
            tokens += 1;
            if locked.doubt_one() {
                continue;
            }
            let Some(token) = locked.timers.pop(now) else { break };
            locked.armed_by(token, |node| {
                // Other tokens with the same end no longer match.
                // SAFETY: in the table, S1.
                unsafe { node.as_ref() }.header.armed.disarm(token.due());
                // SAFETY: as before.
                taken.push((unsafe { handle_on(node) }, now));
            });
        }
        self.counts.due.set(locked.timers.next_due());
        tokens
    }

    /// Gives entries a timer, if they are still there: as by the settings of `generation`, or to be looked at at once.
    fn rearm(self, entries: &[(Handle<K, V>, Due)], generation: u32) {
        let mut locked = self.lock();
        let outdated = generation != locked.generation;
        for (entry, due) in entries {
            if !entry.is_unlinked() {
                let due = if outdated { 0 } else { *due };
                // SAFETY: the handle holds the node.
                unsafe { entry.node().as_ref() }.header.armed.set(due);
                locked.set_timer(due, entry.hash(), &self.counts);
            }
        }
    }
}

/// Entries that were taken because they are due, all of one shard. Those that are left in it get a timer again, when it is
/// dropped, whatever becomes of the others.
pub(crate) struct Taken<'s, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    shard: ShardRef<'s, K, V>,
    entries: Vec<(Handle<K, V>, Due)>,
    /// The settings by which they are judged.
    generation: u32,
    tokens: usize,
}

impl<'s, K, V> Taken<'s, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    pub(crate) fn new(shard: ShardRef<'s, K, V>, generation: u32, now: Due, most: usize) -> Self {
        let mut taken = Taken { shard, entries: Vec::new(), generation, tokens: 0 };
        taken.tokens = shard.take_due(now, most, &mut taken.entries);
        taken
    }

    /// Entries to be given a timer.
    pub(crate) fn of(shard: ShardRef<'s, K, V>, generation: u32, entries: Vec<(Handle<K, V>, Due)>) -> Self {
        Taken { shard, entries, generation, tokens: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Tokens that were looked at to find them.
    pub(crate) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Asks `judge` about each: it stays, and is due at the given time; or it is taken out.
    pub(crate) fn judge(&mut self, mut judge: impl FnMut(&Handle<K, V>) -> Option<Due>) {
        let mut index = 0;
        while let Some((entry, due)) = self.entries.get_mut(index) {
            match judge(entry) {
                Some(next) => {
                    *due = next;
                    index += 1;
                }
                None => drop(self.entries.swap_remove(index)),
            }
        }
    }
}

impl<K, V> Drop for Taken<'_, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn drop(&mut self) {
        if !self.entries.is_empty() {
            self.shard.rearm(&self.entries, self.generation);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use crate::clock::ManualClock;
    use crate::registry::Registry;
    use std::time::Duration;

    #[test]
    fn there_are_about_twice_as_many_timers_as_entries_at_the_most() {
        let clock = ManualClock::new();
        let builder = Registry::<u64, u64>::builder().shards(1).max_age(Duration::from_secs(3600));
        let registry = builder.clock(clock.clone()).build();
        let timers = || registry.core.shards().map(|shard| shard.lock().timers.len()).sum::<usize>();
        let mut most = 0;
        for round in 0..100_000 {
            registry.replace(round % 1000, round);
            clock.advance(Duration::from_millis(3));
            most = most.max(timers());
        }
        println!("{most} timers for 1000 entries");
        assert!((1500..2200).contains(&most), "{most}");
        // They all go with their entries.
        registry.retain(|key, _| *key < 10);
        clock.advance(Duration::from_secs(3000));
        for round in 0..1000 {
            registry.replace(round % 10, round);
            // (Timers that are set within one tick are not told apart.)
            clock.advance(Duration::from_millis(17));
        }
        println!("{} timers for 10", timers());
        assert!(timers() < 100, "{}", timers());
    }
}
