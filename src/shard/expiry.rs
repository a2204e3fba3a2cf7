//! Entries whose time has come: how long they may stay, how a call finds out that one has expired, and how those are found
//! that have, without looking at the others.

#![allow(unsafe_code)]

use crate::handle::Handle;
use crate::node::Node;
use crate::node::life::{Idleness, Life, Standing};
use crate::reap::Cause;
use crate::shard::ShardRef;
use crate::shard::counts::Counts;
use crate::shard::state::State;
use crate::shard::timers::Token;
use crate::shard::write::handle_on;
use crate::util::check;
use crate::util::clock::Time;
use crate::util::panics::contain;
use crate::util::reentrancy;
use std::ptr::{self, NonNull};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

/// How long the user lets an entry live.
pub(crate) type Lifetime<K, V> = Box<dyn Fn(&K, &V) -> Option<Duration> + Send + Sync>;

/// How long entries may stay.
pub(crate) struct Lifetimes<K, V> {
    max_age: Limit,
    /// With a sixteenth more: that is how exactly the last use is known.
    max_idle: Limit,
    /// That sixteenth.
    idle_note: Limit,
    /// All entries count as used at this time, if not later.
    idle_floor: AtomicU64,
    own: Option<Lifetime<K, V>>,
    /// Whether entries that are spared while they have handles.
    spare_held: bool,
    /// Whether there is any limit, or was.
    expires: AtomicBool,
    panics: AtomicU64,
}

/// A length of time that may be changed at any time, or none.
struct Limit(AtomicU64);

impl Limit {
    fn new(length: Time) -> Self {
        Limit(AtomicU64::new(length.word()))
    }

    /// `NEVER` if there is none.
    #[inline]
    fn get(&self) -> Time {
        // ORDERING: Relaxed, a setting: a writer under a shard lock sees what was set before `Core::fence_writers` had that lock.
        Time::of_word(self.0.load(Relaxed))
    }

    fn set(&self, length: Time) {
        // ORDERING: Relaxed, as in `get`.
        self.0.store(length.word(), Relaxed);
    }
}

fn length(limit: Option<Duration>) -> Time {
    limit.map_or(Time::NEVER, Time::ceil_from)
}

fn length_of_idleness(limit: Option<Duration>) -> Time {
    limit.map_or(Time::NEVER, |limit| Time::ceil_from(limit).and_a_sixteenth())
}

fn note_of_idleness(limit: Option<Duration>) -> Time {
    limit.map_or(Time::NEVER, |limit| Time::ceil_from(limit / 16))
}

/// After which an entry is looked at again whose lifetime panicked, or that was spared: a second.
const RETRY: Duration = Duration::from_secs(1);

/// Who looks at an entry.
#[derive(Clone, Copy)]
pub(crate) struct Looker {
    /// References beside which another is a handle of the user's.
    pub(crate) references: u32,
    /// Whether the user's code may be called: no shard lock is held.
    pub(crate) may_ask: bool,
}

impl Looker {
    /// Within a critical section, without a reference of its own.
    pub(crate) const READER: Looker = Looker { references: 1, may_ask: true };
    /// With a handle of its own.
    pub(crate) const HOLDER: Looker = Looker { references: 2, may_ask: true };
    /// Under the shard lock.
    pub(crate) const WRITER: Looker = Looker { references: 1, may_ask: false };
}

/// What a look at an entry has come to, for good if it has ended.
#[derive(Clone, Copy)]
pub(crate) enum Look {
    Lives,
    /// It would have ended, but for its handles. It lives.
    Spared,
    Ended(Cause),
    /// The user is to be asked, without a lock.
    Unknown,
}

impl<K, V> Lifetimes<K, V> {
    pub(crate) fn new(
        max_age: Option<Duration>,
        max_idle: Option<Duration>,
        own: Option<Lifetime<K, V>>,
        spare_held: bool,
    ) -> Self {
        Lifetimes {
            max_age: Limit::new(length(max_age)),
            max_idle: Limit::new(length_of_idleness(max_idle)),
            idle_note: Limit::new(note_of_idleness(max_idle)),
            idle_floor: AtomicU64::new(0),
            spare_held,
            expires: AtomicBool::new(own.is_some() || max_age.is_some() || max_idle.is_some()),
            own,
            panics: AtomicU64::new(0),
        }
    }

    /// Whether entries may expire, or did at some time.
    #[inline]
    pub(crate) fn expires(&self) -> bool {
        // ORDERING: Acquire, pairs with the Release in `begin`: the shards are prepared.
        self.expires.load(Acquire)
    }

    /// From now on entries may expire. After all shards are prepared for that.
    pub(crate) fn begin(&self) {
        // ORDERING: Release, pairs with the Acquire in `expires`.
        self.expires.store(true, Release);
    }

    pub(crate) fn limits_idleness(&self) -> bool {
        self.max_idle.get() != Time::NEVER
    }

    pub(crate) fn set_max_age(&self, age: Option<Duration>) {
        self.max_age.set(length(age));
    }

    /// If there was no such limit, all entries count as used now.
    pub(crate) fn set_max_idle(&self, time: Option<Duration>, now: Time) {
        if !self.limits_idleness() {
            // ORDERING: Release, pairs with the Acquire in `idleness`: a look that goes by the limit sees the floor. (It never
            // gets lower.)
            self.idle_floor.fetch_max(now.word(), Release);
        }
        self.idle_note.set(note_of_idleness(time));
        // ORDERING: Release, as said.
        self.max_idle.0.store(length_of_idleness(time).word(), Release);
    }

    #[inline]
    pub(crate) fn idleness(&self) -> Idleness {
        // ORDERING: Acquire, pairs with the Release in `set_max_idle`.
        let limit = Time::of_word(self.max_idle.0.load(Acquire));
        if limit == Time::NEVER {
            return Idleness { note: limit, limit, floor: Time::ZERO };
        }
        // ORDERING: Relaxed, acquired by the load before.
        let floor = Time::of_word(self.idle_floor.load(Relaxed));
        Idleness { note: self.idle_note.get(), limit, floor }
    }

    /// When an entry expires by a life of its own. The user's code, which may panic.
    #[inline]
    pub(crate) fn own_end(&self, entry: (&K, &V), inserted: Time) -> Time {
        match &self.own {
            None => Time::NEVER,
            Some(own) => {
                check::user_code();
                inserted.end_of(length(own(entry.0, entry.1)))
            }
        }
    }

    /// The same of an entry in the registry: if the user's code panics, that is counted, and the entry is to be looked at again at
    /// the time `again`. `None` within that code: it does not recurse.
    pub(crate) fn own_end_contained(&self, entry: (&K, &V), inserted: Time, again: Time) -> Option<Time> {
        if self.own.is_none() {
            return Some(Time::NEVER);
        }
        let this = ptr::from_ref(self).cast();
        // SAFETY: below, it is with that type.
        if unsafe { reentrancy::find::<()>(this, |()| ()) } {
            return None;
        }
        let mut end = again;
        let panics = contain(|| end = reentrancy::enter(this, &(), || self.own_end(entry, inserted)));
        // ORDERING: Relaxed, a statistic.
        self.panics.fetch_add(panics.into(), Relaxed);
        Some(end)
    }

    /// When an entry expires by age, given its own end.
    #[inline]
    pub(crate) fn deadline(&self, inserted: Time, own_end: Time) -> Time {
        own_end.min(inserted.end_of(self.max_age.get()))
    }

    /// Finds out whether an entry has expired, and ends it if so. (See [`life`](crate::node::life).)
    pub(crate) fn look(&self, node: &Node<K, V>, life: &Life, now: Time, looker: Looker) -> Look {
        let idleness = self.idleness();
        let is_spared = || self.spare_held && node.header.refs.is_more_than(looker.references);
        loop {
            match life.standing(now, idleness) {
                Standing::Lives(_) => return Look::Lives,
                Standing::Ended(cause) => return Look::Ended(cause),
                Standing::Past(_) | Standing::Idle(_) if is_spared() => return Look::Spared,
                Standing::Idle(last_use) => {
                    if node.header.used.take_busy() {
                        life.move_use(last_use, now);
                    } else if life.end_idle(last_use) {
                        return Look::Ended(Cause::Idle);
                    }
                }
                Standing::Past(past) => {
                    if self.own.is_some() && !looker.may_ask {
                        return Look::Unknown;
                    }
                    let inserted = life.inserted(node.header.stamp());
                    let asked = || self.own_end_contained((node.key(), node.value()), inserted, retry(now));
                    let end = if self.own.is_some() { asked().map(|own| self.deadline(inserted, own)) } else { None };
                    match end {
                        Some(end) if end > now => _ = life.move_deadline(past, end),
                        _ if life.end(past) => return Look::Ended(Cause::Expired),
                        _ => {}
                    }
                }
            }
        }
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
    /// Sees to it that an entry is looked at when it may have expired (W1), or not before a given time. After it is published: a
    /// token that finds no entry may be taken for stale.
    #[inline]
    pub(crate) fn arm(
        &mut self,
        node: NonNull<Node<K, V>>,
        not_before: Time,
        lifetimes: &Lifetimes<K, V>,
        shard: ShardRef<'_, K, V>,
    ) {
        // SAFETY: in the table, S1.
        let Some(life) = (unsafe { shard.life_of(node) }) else { return };
        let due = life.due(lifetimes.idleness()).max(not_before);
        if due != Time::NEVER {
            life.arm(due);
            // SAFETY: as before.
            let hash = unsafe { node.as_ref() }.header.hash();
            self.set_timer(due, hash, shard);
        }
    }

    fn set_timer(&mut self, due: Time, hash: u32, shard: ShardRef<'_, K, V>) {
        let counts: &Counts = shard.counts();
        self.timers.push(due, hash);
        if self.timers.is_crowded(counts.live.get() as usize) {
            self.timers.begin_purge();
        }
        for _ in 0..DOUBTS {
            if !self.doubt_one(shard) {
                break;
            }
        }
        counts.due.set(self.timers.next_due());
    }

    /// Looks at a token that is in doubt. False if there is none.
    fn doubt_one(&mut self, shard: ShardRef<'_, K, V>) -> bool {
        let Some(token) = self.timers.next_candidate() else { return false };
        let mut valid = false;
        self.armed_by(token, shard, |_, _| valid = true);
        if valid {
            self.timers.keep(token);
        }
        true
    }

    /// Calls `each` with the nodes that `token` is the timer of.
    fn armed_by(&mut self, token: Token, shard: ShardRef<'_, K, V>, mut each: impl FnMut(NonNull<Node<K, V>>, &Life)) {
        let found = self.hand.scratch();
        self.table.visit(token.hash() as usize, u32::MAX as usize, found);
        for node in found.drain(..) {
            // SAFETY: in the table, S1.
            let life = unsafe { shard.life_of(node) };
            if let Some(life) = life.filter(|life| life.is_armed_by(token.due())) {
                each(node, life);
            }
        }
    }
}

/// Tokens that are looked at under one lock, for each entry that is wanted.
const TOKENS: usize = 8;

/// Tokens in doubt that are looked at with each one that is new.
const DOUBTS: usize = 4;

impl<K, V> ShardRef<'_, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Adds up to `most` entries to `taken` whose time may have come. They have no timer then.
    /// Returns how many tokens were looked at.
    fn take_due(self, now: Time, most: usize, taken: &mut Vec<(Handle<K, V>, Time)>) -> usize {
        let mut locked = self.lock();
        let mut tokens = 0;
        while taken.len() < most && tokens < most.saturating_mul(TOKENS) {
            tokens += 1;
            if locked.doubt_one(self) {
                continue;
            }
            let Some(token) = locked.timers.pop(now) else { break };
            locked.armed_by(token, self, |node, life| {
                // Other tokens with the same end no longer match.
                life.disarm(token.due());
                // SAFETY: in the table, S1.
                taken.push((unsafe { handle_on(node) }, Time::ZERO));
            });
        }
        self.counts.due.set(locked.timers.next_due());
        tokens
    }

    /// Gives entries a timer, if they are still there: for when they may expire, or not before a given time.
    fn rearm(self, entries: &[(Handle<K, V>, Time)], lifetimes: &Lifetimes<K, V>) {
        let mut locked = self.lock();
        for (entry, not_before) in entries {
            if !entry.is_unlinked() {
                locked.arm(entry.node(), *not_before, lifetimes, self);
            }
        }
    }

    /// Gives entries another deadline, and a timer, if they are still there. Each comes with the end of its own life.
    pub(crate) fn renew(self, entries: &[(Handle<K, V>, Time)], lifetimes: &Lifetimes<K, V>) {
        let mut locked = self.lock();
        for (entry, own_end) in entries {
            // SAFETY: the handle holds the node.
            let life = unsafe { self.life_of(entry.node()) };
            if let Some(life) = life.filter(|_| !entry.is_unlinked()) {
                life.set_deadline(lifetimes.deadline(life.inserted(entry.stamp()), *own_end));
                locked.arm(entry.node(), Time::ZERO, lifetimes, self);
            }
        }
    }
}

/// Entries that were taken because they are due, all of one shard. Those that are left in it get a timer again, when it is
/// dropped, whatever becomes of the others.
pub(crate) struct DueEntries<'s, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    shard: ShardRef<'s, K, V>,
    /// And before when they are not to be looked at again.
    entries: Vec<(Handle<K, V>, Time)>,
    lifetimes: &'s Lifetimes<K, V>,
    tokens: usize,
}

impl<'s, K, V> DueEntries<'s, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    pub(crate) fn new(shard: ShardRef<'s, K, V>, lifetimes: &'s Lifetimes<K, V>, now: Time, most: usize) -> Self {
        let mut taken = DueEntries { shard, entries: Vec::new(), lifetimes, tokens: 0 };
        taken.tokens = shard.take_due(now, most, &mut taken.entries);
        taken
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Tokens that were looked at to find them.
    pub(crate) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Asks `judge` about each: it stays, and is not to be looked at before the given time; or it is taken out.
    pub(crate) fn retain(&mut self, mut judge: impl FnMut(&Handle<K, V>) -> Option<Time>) {
        let mut index = 0;
        while let Some((entry, not_before)) = self.entries.get_mut(index) {
            match judge(entry) {
                Some(next) => {
                    *not_before = next;
                    index += 1;
                }
                None => drop(self.entries.swap_remove(index)),
            }
        }
    }
}

impl<K, V> Drop for DueEntries<'_, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn drop(&mut self) {
        if !self.entries.is_empty() {
            self.shard.rearm(&self.entries, self.lifetimes);
        }
    }
}

/// When an entry is to be looked at again that was spared.
pub(crate) fn retry(now: Time) -> Time {
    now.end_of(Time::ceil_from(RETRY))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use crate::registry::Registry;
    use crate::util::clock::ManualClock;
    use std::time::Duration;

    #[test]
    fn there_are_about_twice_as_many_timers_as_entries_at_the_most() {
        let clock = ManualClock::new();
        let builder = Registry::<u64, u64>::builder().shards(1).max_age(Duration::from_secs(3600));
        let registry = builder.clock(clock.clone()).build();
        let timers = || registry.core.shards().map(|shard| shard.lock().timers.len()).sum::<usize>();
        let mut most = 0;
        for round in 0..100_000 {
            registry.insert(round % 1000, round);
            clock.advance(Duration::from_millis(3));
            most = most.max(timers());
        }
        println!("{most} timers for 1000 entries");
        assert!((1500..2200).contains(&most), "{most}");
        // They all go with their entries.
        registry.retain(|key, _| *key < 10);
        clock.advance(Duration::from_secs(3000));
        for round in 0..1000 {
            registry.insert(round % 10, round);
            clock.advance(Duration::from_millis(17));
        }
        println!("{} timers for 10", timers());
        assert!(timers() < 100, "{}", timers());
    }
}
