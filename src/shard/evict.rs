//! Bounds on the entries of a registry, and eviction by second chance.
//!
//! A hand goes round the homes of a shard's table (F. J. Corbató's "clock" algorithm, 1968). If the entry at the
//! hand was used since the hand last passed it, the hand clears its mark of use and the entry stays. The first
//! entry without a mark is evicted. In a bounded registry, a new entry has no mark: if it is never used again, it
//! is evicted when the hand reaches it.

#![allow(unsafe_code)]

use crate::domain::{Failure, Full, IfFull};
use crate::handle::Handle;
use crate::handle::listener::{Event, Listeners};
use crate::node::Node;
use crate::reap::{Cause, Priority};
use crate::shard::ShardRef;
use crate::shard::locked::{BacklogExhausted, Locked};
use crate::shard::write::handle_on;
use std::ptr::NonNull;

/// The bounds of one shard.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    /// The most entries. `usize::MAX` means that there is no bound.
    pub(crate) entries: usize,
    /// The most bytes that the entries weigh. `u64::MAX` means that there is no bound. A heavier entry may be in
    /// the shard alone.
    pub(crate) weight: u64,
    /// Whether eviction prefers entries without handles.
    pub(crate) spare_held: bool,
    /// Whether entries have [priorities](Priority).
    pub(crate) by_priority: bool,
}

impl Bounds {
    /// Returns one shard's part of a bound on entries, which is at least one. Without a bound, returns
    /// `usize::MAX`.
    pub(crate) fn part_of_entries(bound: Option<usize>, shards: usize) -> usize {
        bound.map_or(usize::MAX, |bound| (bound / shards).max(1))
    }

    /// Returns one shard's part of a bound on weight, which is at least one. Without a bound, returns `u64::MAX`.
    pub(crate) fn part_of_weight(bound: Option<u64>, shards: usize) -> u64 {
        bound.map_or(u64::MAX, |bound| (bound / shards as u64).max(1))
    }

    /// Returns whether there is any bound.
    pub(crate) fn are_set(&self) -> bool {
        self.entries != usize::MAX || self.weight != u64::MAX
    }

    /// Returns whether a write must look after bounds or priorities.
    pub(crate) fn need_care(&self) -> bool {
        self.are_set() || self.by_priority
    }
}

/// The hand of the clock: the point at which the search for the next victim resumes.
pub(crate) struct Hand<K, V> {
    /// The home at the hand. The table's mask is applied when it is used.
    home: usize,
    /// The number of nodes of that home that the hand has passed.
    passed: usize,
    /// The number of nodes that were examined since the last victim.
    spared: usize,
    /// The number of homes that the hand has passed in this lap. A lap begins with a victim, or after the lap before.
    /// More than the table has homes: the last lap met no node that may be evicted, and none has come since.
    lap: usize,
    /// The number of homes of the table at which this lap began.
    homes: usize,
    /// Whether this lap has met a node that may be evicted.
    has_met: bool,
    /// Whether this lap has passed a node that the search had to leave out.
    has_left_out: bool,
    /// The nodes of one home. Empty between uses, and kept for its allocation.
    found: Vec<NonNull<Node<K, V>>>,
}

impl<K, V> Default for Hand<K, V> {
    fn default() -> Self {
        Hand { home: 0, passed: 0, spared: 0, lap: 0, homes: 0, has_met: false, has_left_out: false, found: Vec::new() }
    }
}

impl<K, V> Hand<K, V> {
    /// Begins a new lap: the shard has another node that may be evicted, or the last lap has ended.
    pub(crate) fn forget_lap(&mut self) {
        (self.lap, self.has_met, self.has_left_out) = (0, false, false);
    }

    /// Notes that the hand comes to the next home of a table with so many. Returns false if the hand has been round and
    /// has met no node that may be evicted. A lap that has met some ends the search at the next one.
    fn begin_home(&mut self, homes: usize) -> bool {
        if self.homes != homes {
            self.homes = homes;
            self.forget_lap();
        }
        self.lap += 1;
        // The first home of a lap is visited again at its end, because the lap may have begun in the middle of it.
        if self.lap <= homes + 1 {
            return true;
        }
        if self.has_met {
            self.forget_lap();
            self.spared = LOOKED_AT;
            return true;
        }
        if self.has_left_out {
            self.forget_lap();
        } else {
            // No overflow, however often this is asked.
            self.lap = homes + 1;
        }
        false
    }

    /// Returns an empty vector for a few nodes. The caller leaves it empty.
    pub(crate) fn scratch(&mut self) -> &mut Vec<NonNull<Node<K, V>>> {
        &mut self.found
    }
}

// SAFETY: `found` holds pointers only while its user holds the shard lock. Between uses it is empty.
unsafe impl<K: Send, V: Send> Send for Hand<K, V> {}

/// The most entries that are examined for one victim. If all of them are spared, the last one is evicted.
const LOOKED_AT: usize = 16;

/// The most homes that are searched for one victim before the lock is released. A table may be large and nearly
/// empty.
const HOMES: usize = 4096;

/// The most entries that are evicted before the lock is released.
const UNLINK_CHUNK: usize = 16;

/// Entries that have left the table, or were inserted, collected for the listeners in their order. Dropping this calls
/// the listeners, so the owner must hold no shard lock then.
pub(crate) struct Evicted<'l, K: 'static, V: 'static> {
    listeners: &'l Listeners<K, V>,
    cause: Cause,
    events: Vec<Event<K, V>>,
    /// Whether the search found no victim, and there is no room: all other entries of the shard are never evicted.
    pub(crate) found_none: bool,
    /// Whether the write goes beyond the bounds.
    pub(crate) goes_beyond: bool,
    /// Whether the write leaves reclamation to later: it holds a reservation of a key, and destructors may write that key.
    pub(crate) defers_reclamation: bool,
}

impl<'l, K, V> Evicted<'l, K, V> {
    #[inline]
    pub(crate) fn new(listeners: &'l Listeners<K, V>, cause: Cause) -> Self {
        Evicted {
            listeners,
            cause,
            events: Vec::new(),
            found_none: false,
            goes_beyond: false,
            defers_reclamation: false,
        }
    }

    /// Calls the listener with what was collected so far. The caller holds no lock.
    #[inline]
    pub(crate) fn tell(&mut self) {
        if !self.events.is_empty() {
            self.listeners.tell_all(std::mem::take(&mut self.events));
        }
    }

    /// Adds an entry if there is a listener, and calls `entry` only then.
    pub(crate) fn push(&mut self, entry: impl FnOnce() -> Handle<K, V>) {
        if self.listeners.is_some() {
            self.events.push(Event::Left(self.cause, entry()));
        }
    }

    /// Returns whether there is a listener.
    pub(crate) fn wants_entries(&self) -> bool {
        self.listeners.is_some()
    }

    /// Adds an entry that left for another cause.
    pub(crate) fn add(&mut self, cause: Cause, entry: Option<Handle<K, V>>) {
        self.events.extend(entry.map(|entry| Event::Left(cause, entry)));
    }

    /// Adds an entry that was inserted. The entry that it has replaced, if there is one, comes before it.
    #[cold]
    pub(crate) fn add_insertion(&mut self, replaced: Option<&Handle<K, V>>, new: Handle<K, V>) {
        if self.listeners.is_some() {
            self.add(Cause::Replaced, replaced.cloned());
        }
        self.events.push(Event::Inserted(new));
    }
}

impl<K, V> Drop for Evicted<'_, K, V> {
    #[inline]
    fn drop(&mut self) {
        self.tell();
    }
}

/// The result of an eviction from one shard.
#[derive(Default)]
pub(crate) struct Shed {
    /// The number of entries that were evicted.
    pub(crate) entries: usize,
    /// Whether the eviction stopped because the backlog had no room.
    pub(crate) full: bool,
}

impl<K, V> Locked<'_, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Returns whether a node of this weight fits the bounds, in place of `old` if there is one. A node that
    /// would be alone in the shard always fits.
    #[inline]
    pub(crate) fn fits_bounds(&self, weight: u64, old: Option<NonNull<Node<K, V>>>) -> bool {
        let others = self.live() - usize::from(old.is_some());
        if others < self.bounds.entries && self.bounds.weight == u64::MAX {
            return true;
        }
        // SAFETY: S1 (the shard lock is held; `old` is in the table).
        let relieved = old.map_or(0, |old| unsafe { old.as_ref() }.header.weight.bytes());
        others == 0
            || others < self.bounds.entries
                && self.shard.counts().weight.get().saturating_sub(relieved).saturating_add(weight)
                    <= self.bounds.weight
    }

    /// Finds the next victim among the nodes other than `old`.
    fn victim(&mut self, old: Option<NonNull<Node<K, V>>>) -> Search<K, V> {
        let others = self.live() - usize::from(old.is_some());
        if others == 0 {
            return Search::Empty;
        }
        let state = &mut **self;
        let (table, hand, spare_held) = (state.table, &mut state.hand, state.bounds.spare_held);
        let by_priority = state.bounds.by_priority;
        // The last node that was spared and may be evicted before a node of the priority `Last`.
        let mut better = None;
        for _ in 0..HOMES {
            if by_priority && !hand.begin_home(table.mask() + 1) {
                return Search::Empty;
            }
            let home = hand.home & table.mask();
            if !table.is_vacant(home) {
                table.visit(home, table.mask(), &mut hand.found);
            }
            for node in hand.found.drain(..).skip(hand.passed) {
                // SAFETY: S1 (the shard lock is held; the node is in the table).
                let header = unsafe { &node.as_ref().header };
                let priority = if by_priority { header.used.priority() } else { Priority::Normal };
                if old == Some(node) {
                    hand.has_left_out = true;
                } else if priority != Priority::Never {
                    hand.has_met = true;
                    hand.spared += 1;
                    let is_held = || spare_held && header.refs.is_more_than(1);
                    let is_spared = match priority {
                        Priority::First => is_held(),
                        Priority::Last => true,
                        _ => header.used.clear() || is_held(),
                    };
                    if !is_spared || hand.spared >= LOOKED_AT.min(others) {
                        // `passed` does not count the victim: once it is unlinked, the next node of the home
                        // takes its turn.
                        hand.spared = 0;
                        (hand.lap, hand.has_met, hand.has_left_out) = (0, false, false);
                        let victim = if is_spared && priority == Priority::Last { better } else { None };
                        return Search::Found(victim.unwrap_or(node));
                    }
                    if priority != Priority::Last {
                        better = Some(node);
                    }
                }
                hand.passed += 1;
            }
            (hand.home, hand.passed) = (hand.home.wrapping_add(1), 0);
        }
        Search::GoOn
    }
}

/// The result of a search for a victim.
enum Search<K, V> {
    Found(NonNull<Node<K, V>>),
    /// The search has held the lock for long enough. The caller releases the lock and searches again.
    GoOn,
    /// There is no node that could be a victim.
    Empty,
}

/// The result of an attempt to evict a node.
enum Attempt {
    Evicted,
    /// As [`Search::GoOn`].
    GoOn,
    /// As [`Search::Empty`].
    Empty,
}

impl<'s, K, V> ShardRef<'s, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Unlinks the next victim, which is never `spared`, if there is one.
    ///
    /// # Errors
    ///
    /// If the backlog has no room for the victim. Then nothing is unlinked.
    fn unlink_victim(
        self,
        locked: &mut Locked<'_, K, V>,
        spared: Option<NonNull<Node<K, V>>>,
        evicted: &mut Evicted<'_, K, V>,
    ) -> Result<Attempt, BacklogExhausted> {
        let victim = match locked.victim(spared) {
            Search::Found(victim) => victim,
            Search::GoOn => return Ok(Attempt::GoOn),
            Search::Empty => return Ok(Attempt::Empty),
        };
        // SAFETY: S1 (the shard lock is held; the victim is in the table).
        unsafe { locked.reserve_backlog(victim) }?;
        // SAFETY: S1 (the shard lock is held; the victim is in the table).
        let hash = unsafe { victim.as_ref() }.header.hash();
        let table = locked.table_for(hash.into(), self);
        let (position, _) = table.locate_exact(victim).expect("a victim that was found under the lock is in the table");
        // SAFETY: S1 (the shard lock is held; the victim is in the table).
        evicted.push(|| unsafe { handle_on(victim) });
        table.unlink(position);
        locked.cut_link(victim);
        // SAFETY: R1 (the table's reference is not put before a grace period has passed).
        self.counts.leave(Cause::Capacity, unsafe { victim.as_ref() }.header.weight.bytes());
        // SAFETY: S3 (this thread has reserved room for the victim and unlinked it, under the lock that is still
        // held).
        unsafe { locked.discard(victim) };
        Ok(Attempt::Evicted)
    }

    /// Evicts nodes to make room within the bounds for a node of this weight, in place of `old` if there is one.
    ///
    /// Evictions change the table, and this may release the lock for a while before there is enough room. So the
    /// caller locates its entry again and checks the bounds again.
    ///
    /// # Errors
    ///
    /// If the backlog has no room and `if_full` lets the operation fail. The operation may wait for room first,
    /// but it waits in vain at most once.
    #[cold]
    pub(crate) fn evict_to_fit<E: Failure>(
        self,
        mut locked: Locked<'s, K, V>,
        weight: u64,
        old: Option<NonNull<Node<K, V>>>,
        if_full: &mut IfFull<E>,
        evicted: &mut Evicted<'_, K, V>,
    ) -> Result<Locked<'s, K, V>, E> {
        let mut retired = 0;
        while !locked.fits_bounds(weight, old) {
            retired += 1;
            match self.unlink_victim(&mut locked, old, evicted) {
                Ok(Attempt::Evicted) if retired < UNLINK_CHUNK => {}
                Ok(Attempt::Evicted | Attempt::GoOn) => return Ok(self.pass_on(locked, evicted)),
                // A node that is alone always fits. So there are others, which are never evicted.
                Ok(Attempt::Empty) => {
                    evicted.found_none = true;
                    break;
                }
                Err(BacklogExhausted(bytes)) => return self.relock_with_reservation(locked, bytes, if_full),
            }
        }
        Ok(locked)
    }

    /// Releases the lock so that other writers can take it, advances a resize that is under way or due, and takes
    /// the lock again.
    fn pass_on(self, mut locked: Locked<'s, K, V>, evicted: &Evicted<'_, K, V>) -> Locked<'s, K, V> {
        locked.shrink_if_sparse(self);
        if evicted.defers_reclamation {
            drop(locked);
            return self.lock();
        }
        locked.finish();
        if self.counts.is_resizing() {
            self.finish_resize(false);
        }
        self.lock()
    }

    /// Evicts up to `most` nodes, as long as `excess` returns true.
    pub(crate) fn evict(
        self,
        most: usize,
        if_full: &mut IfFull<Full>,
        evicted: &mut Evicted<'_, K, V>,
        excess: impl Fn(&Locked<'_, K, V>) -> bool,
    ) -> Shed {
        let mut shed = Shed::default();
        let mut locked = self.lock();
        let mut retired = 0;
        while shed.entries < most && excess(&locked) {
            match self.unlink_victim(&mut locked, None, evicted) {
                Ok(Attempt::Evicted) => (shed.entries, retired) = (shed.entries + 1, retired + 1),
                Ok(Attempt::GoOn) => locked = self.pass_on(locked, evicted),
                Ok(Attempt::Empty) => break,
                Err(BacklogExhausted(bytes)) => match self.relock_with_reservation(locked, bytes, if_full) {
                    Ok(again) => locked = again,
                    Err(Full) => return Shed { full: true, ..shed },
                },
            }
            if retired >= UNLINK_CHUNK {
                locked = self.pass_on(locked, evicted);
                retired = 0;
            }
        }
        locked.shrink_if_sparse(self);
        locked.finish();
        shed
    }
}
