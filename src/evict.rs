//! Bounds on the entries of a registry, and what goes when there is one too many: second chance.
//!
//! A hand goes round the homes of a shard's table (F. J. Corbató's "clock" algorithm, 1968). An entry that was used since
//! the hand last passed it loses its mark and stays; the first without one goes. A new entry has no mark: one that is
//! never used again goes when the hand comes by.

#![allow(unsafe_code)]

use crate::domain::{Full, Refusal, granted};
use crate::handle::Handle;
use crate::listener::{Cause, Listeners};
use crate::locked::{Locked, NoRoom};
use crate::node::Node;
use crate::resize::State;
use crate::shard::{Shard, handle_on};
use crate::table::Root;
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
    /// The nodes of one home: kept for its memory.
    found: Vec<NonNull<Node<K, V>>>,
}

impl<K, V> Default for Hand<K, V> {
    fn default() -> Self {
        Hand { home: 0, passed: 0, found: Vec::new() }
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

/// Entries that are looked at for one victim, about: if all of them were used, the first of them goes.
const LOOKED_AT: usize = 16;

/// Entries that are evicted under one lock.
const CHUNK: u64 = 16;

/// What has left the table, for a listener: it is told when this is dropped, without a lock.
pub(crate) struct Evicted<'l, K: 'static, V: 'static> {
    listeners: &'l Listeners<K, V>,
    cause: Cause,
    entries: Vec<Handle<K, V>>,
}

impl<'l, K, V> Evicted<'l, K, V> {
    #[inline]
    pub(crate) fn new(listeners: &'l Listeners<K, V>, cause: Cause) -> Self {
        Evicted { listeners, cause, entries: Vec::new() }
    }

    /// (If there is a listener.)
    pub(crate) fn push(&mut self, entry: impl FnOnce() -> Handle<K, V>) {
        if self.listeners.is_some() {
            self.entries.push(entry());
        }
    }
}

impl<K, V> Drop for Evicted<'_, K, V> {
    #[inline]
    fn drop(&mut self) {
        if !self.entries.is_empty() {
            let cause = self.cause;
            self.listeners.tell_all(std::mem::take(&mut self.entries).into_iter().map(|entry| (cause, entry)));
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

impl<K, V> State<K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Whether a node of this weight can be published within the bounds, in the place of `old` if there is one. (A lone
    /// node always can.)
    #[inline]
    pub(crate) fn has_room(&self, weight: u64, old: Option<NonNull<Node<K, V>>>) -> bool {
        let others = self.live - usize::from(old.is_some());
        if others < self.bounds.entries && self.bounds.weight == u64::MAX {
            return true;
        }
        // SAFETY: in the table, S1.
        let relieved = old.map_or(0, |old| unsafe { old.as_ref() }.header.weight.bytes());
        others == 0 || others < self.bounds.entries && self.weight - relieved + weight <= self.bounds.weight
    }

    /// The node whose turn it is to go, if there is one beside `spared`. Under the lock.
    fn victim(&mut self, spared: Option<NonNull<Node<K, V>>>) -> Option<NonNull<Node<K, V>>> {
        if self.live == usize::from(spared.is_some()) {
            return None;
        }
        let (table, hand, spare_held) = (self.table, &mut self.hand, self.bounds.spare_held);
        let (mut first, mut looked_at) = (None, 0);
        loop {
            table.visit(hand.home & table.mask(), table.mask(), &mut hand.found);
            for node in hand.found.drain(..).skip(hand.passed) {
                // SAFETY: in the table, S1.
                let header = unsafe { &node.as_ref().header };
                if spared != Some(node) {
                    if !(header.used.clear() || spare_held && header.refs.is_more_than(1)) {
                        // (It leaves a gap, into which the next one moves up.)
                        return Some(node);
                    }
                    looked_at += 1;
                    first.get_or_insert(node);
                }
                hand.passed += 1;
            }
            (hand.home, hand.passed) = (hand.home.wrapping_add(1), 0);
            if looked_at >= LOOKED_AT {
                return first;
            }
        }
    }
}

impl<K, V> Shard<K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Unlinks the node whose turn it is, if there is any beside `spared`, and room for it in the backlog.
    fn unlink_victim(
        &self,
        locked: &mut Locked<'_, K, V>,
        root: &Root<K, V>,
        spared: Option<NonNull<Node<K, V>>>,
        evicted: &mut Evicted<'_, K, V>,
    ) -> Result<bool, NoRoom> {
        let Some(victim) = locked.victim(spared) else { return Ok(false) };
        // SAFETY: in the table, S1.
        unsafe { locked.admit(victim) }?;
        // SAFETY: as before.
        let hash = unsafe { victim.as_ref() }.header.hash;
        let table = locked.table_for(hash.into(), self.site(root));
        let position = table.locate_exact(victim).expect("what was met under the lock is in the table");
        // SAFETY: as before.
        evicted.push(|| unsafe { handle_on(victim) });
        table.unlink(position);
        locked.live -= 1;
        self.counts.evicted.add(1);
        // SAFETY: admitted and unlinked under this lock.
        unsafe { locked.discard(victim) };
        Ok(true)
    }

    /// Makes room for a node of this weight, in the place of `old` if there is one, within the bounds. Where it was not
    /// there already, something has changed: what was located before is to be looked for again.
    #[cold]
    pub(crate) fn make_room<'s>(
        &'s self,
        mut locked: Locked<'s, K, V>,
        root: &Root<K, V>,
        weight: u64,
        old: Option<NonNull<Node<K, V>>>,
        evicted: &mut Evicted<'_, K, V>,
    ) -> Locked<'s, K, V> {
        while !locked.has_room(weight, old) && locked.discarded() < CHUNK {
            if let Err(NoRoom(bytes)) = self.unlink_victim(&mut locked, root, old, evicted) {
                return granted(self.lock_with_room(locked, bytes, Refusal::Impossible));
            }
        }
        if locked.discarded() < CHUNK {
            return locked;
        }
        // Let others have the lock.
        locked.finish();
        self.lock()
    }

    /// Evicts up to `most` nodes, as long as `excess` holds.
    pub(crate) fn evict(
        &self,
        root: &Root<K, V>,
        most: usize,
        evicted: &mut Evicted<'_, K, V>,
        excess: impl Fn(&State<K, V>) -> bool,
    ) -> Shed {
        let mut shed = Shed::default();
        let mut locked = self.lock();
        while shed.entries < most && excess(&locked) {
            match self.unlink_victim(&mut locked, root, None, evicted) {
                Ok(true) => shed.entries += 1,
                Ok(false) => break,
                Err(NoRoom(bytes)) => match self.lock_with_room(locked, bytes, Refusal::Possible) {
                    Ok(again) => locked = again,
                    Err(Full) => return Shed { full: true, ..shed },
                },
            }
            if locked.discarded() >= CHUNK {
                locked.finish();
                locked = self.lock();
            }
        }
        locked.shrink_if_sparse(&self.counts);
        locked.finish();
        shed
    }
}
