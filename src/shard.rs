//! A shard: the writers' side of one part of the table.
//!
//! Lookups never come here: they begin at the shard's root, which lies apart from what writers write.
//!
//! # Invariants
//!
//! - **S1** Every change of a table is made with the shard's lock held, and a node in the table is there for as long as
//!   the lock is held.
//! - **S2** No code of the user's but `Eq` (and `Borrow`) runs under the lock. A thread that is in such code is told
//!   by a panic, and not by a deadlock, if it comes back for a lock.
//! - **S3** A node is unlinked before it is retired, and retired once: by whoever unlinked it, after the lock.

#![allow(unsafe_code)]

use crate::counts::Counts;
use crate::domain::{Domain, List, Registrant, RetireQueue, set_shard_locked, shard_locked};
use crate::handle::Handle;
use crate::node::{Draft, Node};
use crate::resize::{Site, State, retire_table};
use crate::sync::{Mutex, MutexGuard};
use crate::table::{Root, Table};
use std::ptr::NonNull;

/// The writers' side of a shard. The first field is what nodes know as their owner.
#[repr(C)]
pub(crate) struct Shard<K: 'static, V: 'static> {
    queue: RetireQueue,
    state: Mutex<State<K, V>>,
    pub(crate) counts: Counts,
}

/// Why a node leaves the registry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    Removed,
    Reaped,
}

/// Removals in a shard after which it drives reclamation whatever the time.
const DUE: u32 = 64;

/// A draft whose key is taken, and by whom.
pub(crate) struct Rejected<K: 'static, V: 'static> {
    pub(crate) draft: Draft<K, V>,
    pub(crate) holder: Handle<K, V>,
}

/// A handle on a node.
///
/// # Safety
///
/// The node is in a table, whose shard's lock the caller holds (S1).
unsafe fn handle_on<K, V>(node: NonNull<Node<K, V>>) -> Handle<K, V> {
    // SAFETY: S1.
    unsafe { node.as_ref() }.header.refs.get();
    // SAFETY: the reference just taken is the handle's.
    unsafe { Handle::from_reference(node) }
}

/// The shard lock, held (S2).
struct Locked<'s, K, V>(MutexGuard<'s, State<K, V>>);

impl<K, V> Drop for Locked<'_, K, V> {
    fn drop(&mut self) {
        set_shard_locked(false);
    }
}

impl<K, V> Shard<K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    pub(crate) fn new(registrant: NonNull<Registrant>, table: Table<K, V>) -> Self {
        let floor = table.buckets();
        let state = State { table, resize: None, live: 0, floor, retired: 0 };
        let counts = Counts::default();
        state.measure(&counts);
        Shard { queue: RetireQueue::new(registrant), state: Mutex::new(state), counts }
    }

    pub(crate) fn queue(&self) -> &RetireQueue {
        &self.queue
    }

    pub(crate) fn live(&self) -> u64 {
        // Removals first: so a node that comes and goes meanwhile is not counted as less than none.
        let gone = self.counts.removed.get() + self.counts.reaped.get() + self.counts.replaced.get();
        self.counts.inserted.get().saturating_sub(gone)
    }

    fn domain(&self) -> &Domain {
        &self.queue.registrant().domain
    }

    fn site<'s>(&'s self, root: &'s Root<K, V>) -> Site<'s, K, V> {
        Site { root, counts: &self.counts, domain: self.domain() }
    }

    fn lock(&self) -> Locked<'_, K, V> {
        assert!(!shard_locked(), "a write to a registry from within the `Eq` of a key, which runs under a shard lock");
        let state = self.state.lock();
        set_shard_locked(true);
        Locked(state)
    }

    /// Publishes a draft, unless its key is taken.
    pub(crate) fn insert(
        &self,
        root: &Root<K, V>,
        hash: u64,
        draft: Draft<K, V>,
    ) -> Result<Handle<K, V>, Rejected<K, V>>
    where
        K: Eq,
    {
        let mut locked = self.lock();
        let state = &mut *locked.0;
        let table = state.table_for(hash, self.site(root));
        let holder = table.locate(hash, |found| found.key() == draft.key());
        let result = if let Some((_, holder)) = holder {
            // SAFETY: S1.
            Err(Rejected { draft, holder: unsafe { handle_on(holder) } })
        } else {
            let node = draft.published();
            state.publish(table, hash, node, self.site(root));
            // SAFETY: a draft is made with a reference for this handle.
            Ok(unsafe { Handle::from_reference(node) })
        };
        drop(locked);
        self.domain().inner().assist(false);
        result
    }

    /// Publishes a draft, in the place of the entry that has its key, if there is one. Returns the new entry and the old.
    pub(crate) fn replace(
        &self,
        root: &Root<K, V>,
        hash: u64,
        draft: Draft<K, V>,
    ) -> (Handle<K, V>, Option<Handle<K, V>>)
    where
        K: Eq,
    {
        let mut locked = self.lock();
        let state = &mut *locked.0;
        let table = state.table_for(hash, self.site(root));
        let holder = table.locate(hash, |found| found.key() == draft.key());
        let node = draft.published();
        // SAFETY: a draft is made with a reference for this handle.
        let new = unsafe { Handle::from_reference(node) };
        let Some((position, old)) = holder else {
            state.publish(table, hash, node, self.site(root));
            drop(locked);
            self.domain().inner().assist(false);
            return (new, None);
        };
        // SAFETY: S1.
        let handle = unsafe { handle_on(old) };
        table.swap(position, node);
        self.counts.inserted.add(1);
        self.counts.replaced.add(1);
        // SAFETY: unlinked by the swap, S1.
        unsafe { self.retire(locked, old) };
        (new, Some(handle))
    }

    /// Publishes a draft in the place of `old`, which has the same key, if that is still in the table.
    pub(crate) fn replace_exact(
        &self,
        root: &Root<K, V>,
        old: &Handle<K, V>,
        draft: Draft<K, V>,
    ) -> Result<Handle<K, V>, Draft<K, V>> {
        let mut locked = self.lock();
        let table = locked.0.table_for(old.hash().into(), self.site(root));
        let Some(position) = table.locate_exact(old.node()) else {
            return Err(draft);
        };
        let node = draft.published();
        // SAFETY: a draft is made with a reference for this handle.
        let new = unsafe { Handle::from_reference(node) };
        table.swap(position, node);
        self.counts.inserted.add(1);
        self.counts.replaced.add(1);
        // SAFETY: unlinked by the swap, S1.
        unsafe { self.retire(locked, old.node()) };
        Ok(new)
    }

    /// Unlinks the entry of `hash` whose key satisfies `eq`.
    pub(crate) fn remove(&self, root: &Root<K, V>, hash: u64, mut eq: impl FnMut(&K) -> bool) -> Option<Handle<K, V>> {
        let mut locked = self.lock();
        let table = locked.0.table_for(hash, self.site(root));
        let (position, node) = table.locate(hash, |found| eq(found.key()))?;
        // SAFETY: S1.
        let handle = unsafe { handle_on(node) };
        table.unlink(position);
        // SAFETY: unlinked just now, S1.
        unsafe { self.removed(locked, node, Cause::Removed) };
        Some(handle)
    }

    /// Unlinks `entry`, if it is still in the table.
    pub(crate) fn remove_exact(&self, root: &Root<K, V>, entry: &Handle<K, V>, cause: Cause) -> bool {
        let mut locked = self.lock();
        let table = locked.0.table_for(entry.hash().into(), self.site(root));
        let Some(position) = table.locate_exact(entry.node()) else {
            return false;
        };
        table.unlink(position);
        // SAFETY: unlinked just now, S1.
        unsafe { self.removed(locked, entry.node(), cause) };
        true
    }

    /// # Safety
    ///
    /// As for [`retire`](Self::retire).
    unsafe fn removed(&self, mut locked: Locked<'_, K, V>, node: NonNull<Node<K, V>>, cause: Cause) {
        locked.0.live -= 1;
        match cause {
            Cause::Removed => self.counts.removed.add(1),
            Cause::Reaped => self.counts.reaped.add(1),
        }
        locked.0.shrink_if_sparse(&self.counts);
        // SAFETY: the caller's promise.
        unsafe { self.retire(locked, node) }
    }

    /// Lets go of the lock and retires a node that was unlinked under it.
    ///
    /// # Safety
    ///
    /// `node` was unlinked by the caller, under `locked` (S3).
    unsafe fn retire(&self, mut locked: Locked<'_, K, V>, node: NonNull<Node<K, V>>) {
        // SAFETY: the table's reference is still in it.
        unsafe { node.as_ref() }.header.refs.set_unlinked();
        locked.0.retired += 1;
        let due = locked.0.retired >= DUE;
        if due {
            locked.0.retired = 0;
        }
        drop(locked);
        // SAFETY: S3. The caller borrows the registry, which keeps the registrant.
        unsafe { self.queue.push(List::one(node.cast())) };
        self.domain().inner().assist(due);
    }

    /// Unlinks everything, by putting an empty table at the root. Returns how many nodes that were.
    pub(crate) fn clear(&self, root: &Root<K, V>) -> usize {
        let mut locked = self.lock();
        let state = &mut *locked.0;
        let count = state.live;
        if count == 0 {
            return 0;
        }
        let empty = Table::new(state.floor);
        let old = std::mem::replace(&mut state.table, empty);
        let next = state.resize.take().map(|resize| resize.to);
        root.store(empty);
        state.live = 0;
        state.measure(&self.counts);
        self.counts.removed.add(count as u64);
        drop(locked);
        let mut list = List::new();
        // The old table is ours now: readers may still be in it, but no writer.
        old.visit_all(&mut |node| {
            // SAFETY: the table's reference is still in it.
            unsafe { node.as_ref() }.header.refs.set_unlinked();
            list.push(node.cast());
        });
        // SAFETY: S3; the registry is borrowed.
        unsafe { self.queue.push(list) };
        for table in next.into_iter().chain([old]) {
            retire_table(self.domain(), table);
        }
        self.domain().inner().assist(true);
        count
    }

    /// Lets the table follow the number of nodes, a bounded number of homes at a time: ends a resize that is under way,
    /// and then shrinks a sparse table, or a `tight` one as far as it goes. False when there is nothing more to do.
    pub(crate) fn settle(&self, root: &Root<K, V>, tight: bool) -> bool {
        let mut locked = self.lock();
        let state = &mut *locked.0;
        state.step(self.site(root), 1024);
        if tight && state.resize.is_none() {
            let least = Table::<K, V>::buckets_for(state.live + 1).max(state.floor);
            if least < state.table.buckets() {
                state.begin_resize(least, &self.counts);
            }
        }
        state.shrink_if_sparse(&self.counts);
        state.resize.is_some()
    }

    /// Sets the size below which the table does not shrink to what `nodes` need, and grows it to that if it is smaller.
    pub(crate) fn set_floor(&self, root: &Root<K, V>, nodes: usize) {
        let floor = Table::<K, V>::buckets_for(nodes);
        let mut locked = self.lock();
        let state = &mut *locked.0;
        if state.newest().buckets() < floor {
            state.step(self.site(root), usize::MAX);
            state.begin_resize(floor, &self.counts);
        }
        state.floor = floor;
    }

    /// Unlinks everything and frees the tables, of a shard that nobody reads or writes any more. The nodes are retired.
    ///
    /// # Safety
    ///
    /// The registry is being dropped, and this is called once.
    pub(crate) unsafe fn dismantle(&self) {
        let mut list = List::new();
        // Not by `lock`: a registry may be dropped in an `Eq`, under the lock of another.
        let state = self.state.lock();
        state.table.visit_all(&mut |node| {
            // SAFETY: the table's reference is still in it.
            unsafe { node.as_ref() }.header.refs.set_unlinked();
            list.push(node.cast());
        });
        for table in state.resize.iter().map(|resize| resize.to).chain([state.table]) {
            // SAFETY: the caller's promise: no reader, no writer.
            unsafe { table.free() };
        }
        drop(state);
        // SAFETY: S3; the registry still keeps the registrant.
        unsafe { self.queue.push(list) };
    }
}
