//! Bounds on the entries of a registry, and what goes when there is one too many: second chance.
//!
//! A hand goes round the homes of a shard's table (F. J. Corbató's "clock" algorithm, 1968). An entry that was used since
//! the hand last passed it loses its mark and stays; the first without one goes. A new entry has no mark: one that is
//! never used again goes when the hand comes by.

#![allow(unsafe_code)]

use crate::domain::{Failure, Full, IfFull};
use crate::handle::Handle;
use crate::handle::listener::Listeners;
use crate::node::Node;
use crate::reap::Cause;
use crate::shard::ShardRef;
use crate::shard::locked::{BacklogExhausted, Locked};
use crate::shard::write::handle_on;
use std::ptr::NonNull;

/// What a shard may hold.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) entries: usize,
    /// In bytes. An entry that is heavier is alone.
    pub(crate) weight: u64,
    /// Whether entries with handles are spared, as far as there are others.
    pub(crate) spare_held: bool,
}

impl Bounds {
    /// A shard's part of a bound on entries: one at least.
    pub(crate) fn part_of_entries(bound: Option<usize>, shards: usize) -> usize {
        bound.map_or(usize::MAX, |bound| (bound / shards).max(1))
    }

    /// A shard's part of a bound on weight.
    pub(crate) fn part_of_weight(bound: Option<u64>, shards: usize) -> u64 {
        bound.map_or(u64::MAX, |bound| (bound / shards as u64).max(1))
    }

    /// Whether there are any.
    pub(crate) fn are_set(&self) -> bool {
        self.entries != usize::MAX || self.weight != u64::MAX
    }
}

/// Where the next victim is looked for.
pub(crate) struct Hand<K, V> {
    home: usize,
    /// Nodes of that home that were looked at.
    passed: usize,
    /// Nodes that were looked at since the last victim.
    spared: usize,
    /// The nodes of one home: kept for its memory.
    found: Vec<NonNull<Node<K, V>>>,
}

impl<K, V> Default for Hand<K, V> {
    fn default() -> Self {
        Hand { home: 0, passed: 0, spared: 0, found: Vec::new() }
    }
}

impl<K, V> Hand<K, V> {
    /// Room for the nodes of a few homes, empty, to be left empty.
    pub(crate) fn scratch(&mut self) -> &mut Vec<NonNull<Node<K, V>>> {
        &mut self.found
    }
}

// SAFETY: `found` is empty but while its user has the lock.
unsafe impl<K: Send, V: Send> Send for Hand<K, V> {}

/// Entries that are looked at for one victim: if all of them were used, the last of them goes.
const LOOKED_AT: usize = 16;

/// Homes that are looked through under one lock: a table may be large and nearly empty.
const HOMES: usize = 4096;

/// Entries that are evicted under one lock.
const CHUNK: usize = 16;

/// What has left the table, for a listener: it is told when this is dropped, without a lock.
pub(crate) struct Evicted<'l, K: 'static, V: 'static> {
    listeners: &'l Listeners<K, V>,
    cause: Cause,
    entries: Vec<(Cause, Handle<K, V>)>,
}

impl<'l, K, V> Evicted<'l, K, V> {
    #[inline]
    pub(crate) fn new(listeners: &'l Listeners<K, V>, cause: Cause) -> Self {
        Evicted { listeners, cause, entries: Vec::new() }
    }

    /// (If there is a listener.)
    pub(crate) fn push(&mut self, entry: impl FnOnce() -> Handle<K, V>) {
        if self.listeners.is_some() {
            self.entries.push((self.cause, entry()));
        }
    }

    /// Whether there is a listener.
    pub(crate) fn wants_entries(&self) -> bool {
        self.listeners.is_some()
    }

    /// Of an entry that left for another cause.
    pub(crate) fn add(&mut self, cause: Cause, entry: Option<Handle<K, V>>) {
        self.entries.extend(entry.map(|entry| (cause, entry)));
    }
}

impl<K, V> Drop for Evicted<'_, K, V> {
    #[inline]
    fn drop(&mut self) {
        if !self.entries.is_empty() {
            self.listeners.tell_all(std::mem::take(&mut self.entries));
        }
    }
}

/// What a shard has evicted.
#[derive(Default)]
pub(crate) struct Shed {
    pub(crate) entries: usize,
    /// It stopped for want of room in the backlog.
    pub(crate) full: bool,
}

impl<K, V> Locked<'_, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Whether a node of this weight fits the bounds, in the place of `old` if there is one. (A lone
    /// node always can.)
    #[inline]
    pub(crate) fn fits_bounds(&self, weight: u64, old: Option<NonNull<Node<K, V>>>) -> bool {
        let others = self.live() - usize::from(old.is_some());
        if others < self.bounds.entries && self.bounds.weight == u64::MAX {
            return true;
        }
        // SAFETY: in the table, S1.
        let relieved = old.map_or(0, |old| unsafe { old.as_ref() }.header.weight.bytes());
        others == 0
            || others < self.bounds.entries
                && self.shard.counts().weight.get().saturating_sub(relieved).saturating_add(weight)
                    <= self.bounds.weight
    }

    /// The node whose turn it is to go, of those beside `old`. Under the lock.
    fn victim(&mut self, old: Option<NonNull<Node<K, V>>>) -> Search<K, V> {
        let others = self.live() - usize::from(old.is_some());
        if others == 0 {
            return Search::Empty;
        }
        let state = &mut **self;
        let (table, hand, spare_held) = (state.table, &mut state.hand, state.bounds.spare_held);
        for _ in 0..HOMES {
            let home = hand.home & table.mask();
            if !table.is_vacant(home) {
                table.visit(home, table.mask(), &mut hand.found);
            }
            for node in hand.found.drain(..).skip(hand.passed) {
                // SAFETY: in the table, S1.
                let header = unsafe { &node.as_ref().header };
                if old != Some(node) {
                    hand.spared += 1;
                    let is_spared = header.used.clear() || spare_held && header.refs.is_more_than(1);
                    if !is_spared || hand.spared >= LOOKED_AT.min(others) {
                        // (It leaves a gap, into which the next one moves up.)
                        hand.spared = 0;
                        return Search::Found(node);
                    }
                }
                hand.passed += 1;
            }
            (hand.home, hand.passed) = (hand.home.wrapping_add(1), 0);
        }
        Search::GoOn
    }
}

/// What a look for a victim has come to.
enum Search<K, V> {
    Found(NonNull<Node<K, V>>),
    /// Nothing yet: the lock was held for long enough.
    GoOn,
    /// There is none.
    Empty,
}

/// What an attempt to evict has come to.
enum Attempt {
    Evicted,
    /// As [`Search::GoOn`].
    GoOn,
    Empty,
}

impl<'s, K, V> ShardRef<'s, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Unlinks the node whose turn it is, if there is any beside `spared`, and room for it in the backlog.
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
        // SAFETY: in the table, S1.
        unsafe { locked.reserve_backlog(victim) }?;
        // SAFETY: as before.
        let hash = unsafe { victim.as_ref() }.header.hash();
        let table = locked.table_for(hash.into(), self);
        let (position, _) = table.locate_exact(victim).expect("what was met under the lock is in the table");
        // SAFETY: as before.
        evicted.push(|| unsafe { handle_on(victim) });
        table.unlink(position);
        // SAFETY: the table's reference is still in it.
        self.counts.leave(Cause::Capacity, unsafe { victim.as_ref() }.header.weight.bytes());
        // SAFETY: admitted and unlinked under this lock.
        unsafe { locked.discard(victim) };
        Ok(Attempt::Evicted)
    }

    /// Makes room for a node of this weight, in the place of `old` if there is one, within the bounds. Where it was not
    /// there already, something has changed: what was located before is to be looked for again.
    ///
    /// It may be refused for want of room in the backlog, or wait for that, once.
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
                Ok(Attempt::Evicted) if retired < CHUNK => {}
                Ok(Attempt::Evicted | Attempt::GoOn) => return Ok(self.pass_on(locked)),
                // There is room for a lone node.
                Ok(Attempt::Empty) => break,
                Err(BacklogExhausted(bytes)) => return self.relock_with_reservation(locked, bytes, if_full),
            }
        }
        Ok(locked)
    }

    /// Lets others have the lock for a moment, and the table follow the number of nodes.
    fn pass_on(self, mut locked: Locked<'s, K, V>) -> Locked<'s, K, V> {
        locked.shrink_if_sparse(self);
        locked.finish();
        if self.counts.is_resizing() {
            self.finish_resize(false);
        }
        self.lock()
    }

    /// Evicts up to `most` nodes, as long as `excess` holds.
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
                Ok(Attempt::GoOn) => locked = self.pass_on(locked),
                Ok(Attempt::Empty) => break,
                Err(BacklogExhausted(bytes)) => match self.relock_with_reservation(locked, bytes, if_full) {
                    Ok(again) => locked = again,
                    Err(Full) => return Shed { full: true, ..shed },
                },
            }
            if retired >= CHUNK {
                locked = self.pass_on(locked);
                retired = 0;
            }
        }
        locked.shrink_if_sparse(self);
        locked.finish();
        shed
    }
}
