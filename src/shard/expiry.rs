//! Expiry of entries: how long entries may stay, how a call finds out that an entry has expired, and how a reaper
//! finds the expired entries without looking at the others.
//!
//! - A call that must know whether an entry has expired uses [`Lifetimes::look`], which ends the entry if it has.
//! - Every entry that can expire has a [`Token`] in the shard's timers, which tells when to look at it.
//! - A reaper takes the entries whose tokens are due, as [`DueEntries`], and looks at each one without a lock.
//!   The entries that stay get a timer again.

#![allow(unsafe_code)]

use crate::handle::Handle;
use crate::node::Node;
use crate::node::life::{Deadline, Idleness, Life, Standing};
use crate::reap::Cause;
use crate::shard::ShardRef;
use crate::shard::counts::Counts;
use crate::shard::state::ShardState;
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

/// The user's lifetime function: returns how long an entry may live, or `None` if there is no limit.
pub(crate) type Lifetime<K, V> = Box<dyn Fn(&K, &V) -> Option<Duration> + Send + Sync>;

/// The limits on how long entries may stay.
pub(crate) struct Lifetimes<K, V> {
    max_age: TimeLimit,
    /// The limit of idleness plus a sixteenth, because the last use is known only to a sixteenth of the limit.
    max_idle: TimeLimit,
    /// A sixteenth of the limit of idleness: a read records its use if the recorded use is older than this.
    idle_note: TimeLimit,
    /// All entries count as used at this time, or at their own last use if that is later.
    idle_floor: AtomicU64,
    /// The user's lifetime function, if there is one.
    own: Option<Lifetime<K, V>>,
    /// Whether an entry stays while it has handles.
    spare_held: bool,
    /// Whether entries may expire: there is a limit, or was one at some time, or entries may have limits of their own.
    expires: AtomicBool,
    /// The number of calls of the lifetime function that panicked.
    panics: AtomicU64,
}

/// A length of time, or none, that may change while the registry runs.
struct TimeLimit(AtomicU64);

impl TimeLimit {
    fn new(length: Time) -> Self {
        TimeLimit(AtomicU64::new(length.word()))
    }

    /// Returns the length, or `NEVER` if there is none.
    #[inline]
    fn get(&self) -> Time {
        // ORDERING: Relaxed, a setting. `Core::fence_writers` takes every shard lock after a change, so later
        // holders of the lock see the new value.
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

/// The delay before the next look at an entry that was spared, or whose lifetime function panicked.
const RETRY: Duration = Duration::from_secs(1);

/// What `look` needs to know about its caller.
#[derive(Clone, Copy)]
pub(crate) struct Looker {
    /// The references that are not handles of the user: the table's, and the caller's own if it has one. If the
    /// count is higher, the user holds a handle.
    pub(crate) references: u32,
    /// Whether user code may run. Only a caller that holds no shard lock may set this.
    pub(crate) may_ask: bool,
}

impl Looker {
    /// A caller in a critical section, without a reference of its own.
    pub(crate) const READER: Looker = Looker { references: 1, may_ask: true };
    /// A caller with a handle of its own.
    pub(crate) const HOLDER: Looker = Looker { references: 2, may_ask: true };
    /// A caller that holds the shard lock.
    pub(crate) const WRITER: Looker = Looker { references: 1, may_ask: false };
}

/// The result of a look at an entry. `Ended` is final.
#[derive(Clone, Copy)]
pub(crate) enum Look {
    /// The entry lives.
    Lives,
    /// The entry lives only because the user holds a handle to it.
    Spared,
    /// The entry has ended, for this cause.
    Ended(Cause),
    /// Only the lifetime function can tell. The caller releases the lock before it looks again.
    Unknown,
}

impl<K, V> Lifetimes<K, V> {
    pub(crate) fn new(
        max_age: Option<Duration>,
        max_idle: Option<Duration>,
        own: Option<Lifetime<K, V>>,
        spare_held: bool,
        by_entry: bool,
    ) -> Self {
        Lifetimes {
            max_age: TimeLimit::new(length(max_age)),
            max_idle: TimeLimit::new(length_of_idleness(max_idle)),
            idle_note: TimeLimit::new(note_of_idleness(max_idle)),
            idle_floor: AtomicU64::new(0),
            spare_held,
            expires: AtomicBool::new(by_entry || own.is_some() || max_age.is_some() || max_idle.is_some()),
            own,
            panics: AtomicU64::new(0),
        }
    }

    /// Returns whether entries may expire: whether the shards are prepared for that.
    #[inline]
    pub(crate) fn expires(&self) -> bool {
        // ORDERING: Acquire, pairs with the Release in `begin`: a caller that reads true sees that all shards are
        // prepared.
        self.expires.load(Acquire)
    }

    /// Declares that entries may expire from now on. The caller has prepared all shards for that.
    pub(crate) fn begin(&self) {
        // ORDERING: Release, pairs with the Acquire in `expires`: publishes that the shards are prepared.
        self.expires.store(true, Release);
    }

    /// Returns whether there is a limit of idleness.
    pub(crate) fn limits_idleness(&self) -> bool {
        self.max_idle.get() != Time::NEVER
    }

    /// Sets the limit of age.
    pub(crate) fn set_max_age(&self, age: Option<Duration>) {
        self.max_age.set(length(age));
    }

    /// Sets the limit of idleness. If there was none before, all entries count as used at `now`.
    pub(crate) fn set_max_idle(&self, time: Option<Duration>, now: Time) {
        if !self.limits_idleness() {
            // ORDERING: Release. A look that applies the limit sees the floor: it loads `max_idle` with Acquire
            // in `idleness`, and the store of `max_idle` below comes after this. The floor never decreases.
            self.idle_floor.fetch_max(now.word(), Release);
        }
        self.idle_note.set(note_of_idleness(time));
        // ORDERING: Release, pairs with the Acquire in `idleness`: publishes the floor and the note.
        self.max_idle.0.store(length_of_idleness(time).word(), Release);
    }

    /// Returns the limits of idleness, as a look applies them.
    #[inline]
    pub(crate) fn idleness(&self) -> Idleness {
        // ORDERING: Acquire, pairs with the Release in `set_max_idle`.
        let limit = Time::of_word(self.max_idle.0.load(Acquire));
        if limit == Time::NEVER {
            return Idleness { note: limit, limit, floor: Time::ZERO };
        }
        // ORDERING: Relaxed. The Acquire load above orders it.
        let floor = Time::of_word(self.idle_floor.load(Relaxed));
        Idleness { note: self.idle_note.get(), limit, floor }
    }

    /// Returns when the lifetime function lets an entry expire, or `NEVER`. Runs user code, which may panic.
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

    /// Does the same as [`own_end`](Self::own_end) for an entry in the registry, and contains a panic of the
    /// lifetime function: it counts the panic and returns `again`, the time of the next look.
    ///
    /// Returns `None` if the thread is already in that function for this registry: it does not recurse.
    pub(crate) fn own_end_contained(&self, entry: (&K, &V), inserted: Time, again: Time) -> Option<Time> {
        if self.own.is_none() {
            return Some(Time::NEVER);
        }
        let this = ptr::from_ref(self).cast();
        // SAFETY: the only `enter` for this address is the one below, and it passes a `&()`.
        if unsafe { reentrancy::find::<()>(this, |()| true) } {
            return None;
        }
        let mut end = again;
        let panics = contain(|| end = reentrancy::enter(this, &(), || self.own_end(entry, inserted)));
        // ORDERING: Relaxed, a statistic.
        self.panics.fetch_add(panics.into(), Relaxed);
        Some(end)
    }

    /// Returns when an entry expires by age: the earlier of the end by the limit of age and `own_end`, the end by
    /// the lifetime function, or as the user has fixed it.
    #[inline]
    pub(crate) fn deadline(&self, inserted: Time, own_end: Deadline) -> Deadline {
        own_end.or_at(inserted.end_of(self.max_age.get()))
    }

    /// Finds out whether an entry has expired, and ends it if so. See [`life`](crate::node::life).
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
                    let asks = self.own.is_some() && !past.is_fixed();
                    if asks && !looker.may_ask {
                        return Look::Unknown;
                    }
                    let inserted = life.inserted(node.header.stamp());
                    let asked = || self.own_end_contained((node.key(), node.value()), inserted, retry(now));
                    let end = if asks { asked() } else { None };
                    match end.map(|own| self.deadline(inserted, Deadline::at(own))) {
                        Some(end) if end.time() > now => _ = life.move_deadline(past, end),
                        _ if life.end(past) => return Look::Ended(Cause::Expired),
                        _ => {}
                    }
                }
            }
        }
    }

    /// Returns how many calls of the lifetime function panicked.
    pub(crate) fn panics(&self) -> u64 {
        // ORDERING: Relaxed, a statistic.
        self.panics.load(Relaxed)
    }
}

impl<K, V> ShardState<K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Sets a timer for an entry (W1): for the time at which it may have expired, or for `not_before` if that is
    /// later.
    ///
    /// The caller publishes the entry before. Otherwise a purge finds no entry for the new token, and drops it as
    /// stale.
    #[inline]
    pub(crate) fn arm(
        &mut self,
        node: NonNull<Node<K, V>>,
        not_before: Time,
        lifetimes: &Lifetimes<K, V>,
        shard: ShardRef<'_, K, V>,
    ) {
        // SAFETY: the node is in the table under the lock (S1), or the caller holds a handle to it.
        let Some(life) = (unsafe { shard.life_of(node) }) else { return };
        let due = life.due(lifetimes.idleness()).max(not_before);
        if due != Time::NEVER {
            life.arm(due);
            // SAFETY: the node is in the table under the lock (S1), or the caller holds a handle to it.
            let hash = unsafe { node.as_ref() }.header.hash();
            self.set_timer(due, hash, shard);
        }
    }

    /// Adds a token, and examines a few tokens of a purge that is under way. Begins a purge if there are too many
    /// tokens.
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

    /// Examines one token of the purge, and keeps it unless it is stale. Returns false if there is none left to
    /// examine.
    fn doubt_one(&mut self, shard: ShardRef<'_, K, V>) -> bool {
        let Some(token) = self.timers.next_candidate() else { return false };
        let mut valid = false;
        self.armed_by(token, shard, |_, _| valid = true);
        if valid {
            self.timers.keep(token);
        }
        true
    }

    /// Calls `each` with the nodes whose timer is `token`.
    fn armed_by(&mut self, token: Token, shard: ShardRef<'_, K, V>, mut each: impl FnMut(NonNull<Node<K, V>>, &Life)) {
        let found = self.hand.scratch();
        self.table.visit(token.hash() as usize, u32::MAX as usize, found);
        for node in found.drain(..) {
            // SAFETY: S1 (the shard lock is held; the node is in the table).
            let life = unsafe { shard.life_of(node) };
            if let Some(life) = life.filter(|life| life.is_armed_by(token.due())) {
                each(node, life);
            }
        }
    }
}

/// The most tokens that are examined before the lock is released, for each entry that the caller wants.
const TOKENS: usize = 8;

/// The number of tokens of a purge that are examined with each new token.
const DOUBTS: usize = 4;

impl<K, V> ShardRef<'_, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Takes about `most` entries whose time may have come, adds them to `taken`, and takes their timers away.
    /// (Entries of one token are taken together, even beyond `most`.) Returns how many tokens it examined.
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
                // No other token with the same due time matches from here on.
                life.disarm(token.due());
                // SAFETY: S1 (the shard lock is held; the node is in the table).
                taken.push((unsafe { handle_on(node) }, Time::ZERO));
            });
        }
        self.counts.due.set(locked.timers.next_due());
        tokens
    }

    /// Sets a timer for each entry that is still in the table: for when it may expire, or for its given time if
    /// that is later.
    fn rearm(self, entries: &[(Handle<K, V>, Time)], lifetimes: &Lifetimes<K, V>) {
        let mut locked = self.lock();
        for (entry, not_before) in entries {
            if !entry.is_unlinked() {
                locked.arm(entry.node(), *not_before, lifetimes, self);
            }
        }
    }

    /// Gives each entry that is still in the table a new deadline and a timer. Each entry comes with its end by
    /// the lifetime function. A fixed deadline becomes earlier if the limit of age asks for it, and never later.
    pub(crate) fn renew(self, entries: &[(Handle<K, V>, Time)], lifetimes: &Lifetimes<K, V>) {
        let mut locked = self.lock();
        for (entry, own_end) in entries {
            // SAFETY: the handle keeps the node alive.
            let life = unsafe { self.life_of(entry.node()) };
            if let Some(life) = life.filter(|_| !entry.is_unlinked()) {
                life.set_deadline(|old| {
                    let own_end = if old.is_fixed() { old } else { Deadline::at(*own_end) };
                    lifetimes.deadline(life.inserted(entry.stamp()), own_end)
                });
                locked.arm(entry.node(), Time::ZERO, lifetimes, self);
            }
        }
    }

    /// Gives an entry another end of its own, and a timer if it may now expire sooner. Returns false if the entry is
    /// not in the table or has ended. The caller has looked at the entry at `now`.
    pub(crate) fn set_own_end(
        self,
        entry: &Handle<K, V>,
        own_end: Deadline,
        now: Time,
        lifetimes: &Lifetimes<K, V>,
    ) -> bool {
        let (node, mut locked) = (entry.node(), self.lock());
        if locked.table_for(entry.hash().into(), self).locate_exact(node).is_none() {
            return false;
        }
        // SAFETY: S1 (the shard lock is held; the node is in the table).
        let Some(life) = (unsafe { self.life_of(node) }) else { return false };
        let idleness = lifetimes.idleness();
        let before = life.due(idleness);
        let is_set = life.set_deadline(|_| lifetimes.deadline(life.inserted(entry.stamp()), own_end));
        // W1: the entry's token is due by `before`. If that has passed, a reaper may have put the token off.
        if is_set && (life.due(idleness) < before || before <= now) {
            locked.arm(node, Time::ZERO, lifetimes, self);
        }
        locked.finish();
        is_set
    }
}

/// Entries of one shard that were taken because their tokens were due. When this is dropped, the entries that are
/// still in it get a timer again. So a panic loses no timer.
pub(crate) struct DueEntries<'s, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    shard: ShardRef<'s, K, V>,
    /// The entries, each with the time before which it need not be looked at again.
    entries: Vec<(Handle<K, V>, Time)>,
    lifetimes: &'s Lifetimes<K, V>,
    tokens: usize,
}

impl<'s, K, V> DueEntries<'s, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Takes about `most` entries of the shard whose time may have come by `now`.
    pub(crate) fn new(shard: ShardRef<'s, K, V>, lifetimes: &'s Lifetimes<K, V>, now: Time, most: usize) -> Self {
        let mut taken = DueEntries { shard, entries: Vec::new(), lifetimes, tokens: 0 };
        taken.tokens = shard.take_due(now, most, &mut taken.entries);
        taken
    }

    /// Returns the number of entries.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns how many tokens were examined to find the entries.
    pub(crate) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Calls `judge` with each entry. `Some(time)` keeps the entry, which need not be looked at again before that
    /// time. `None` takes the entry out: it gets no timer.
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

/// Returns the time of the next look at an entry that was spared, or whose lifetime function panicked.
pub(crate) fn retry(now: Time) -> Time {
    now.end_of(Time::ceil_from(RETRY))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use crate::registry::Registry;
    use crate::util::clock::ManualClock;
    use std::time::Duration;

    #[test]
    fn there_are_at_most_about_twice_as_many_timers_as_entries() {
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
        // The timers leave with their entries.
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
