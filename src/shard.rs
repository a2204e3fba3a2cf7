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

use crate::bucket::Tag;
use crate::domain::{Domain, List, Registrant, RetireQueue, set_shard_locked, shard_locked};
use crate::node::Node;
use crate::sync::atomic::Ordering;
use crate::sync::{AtomicU64, Mutex, MutexGuard};
use crate::table::{Root, Table};
use std::ptr::NonNull;

/// The writers' side of a shard. The first field is what nodes know as their owner.
#[repr(C)]
pub(crate) struct Shard<K: 'static, V: 'static> {
    queue: RetireQueue,
    state: Mutex<State<K, V>>,
    pub(crate) counts: Counts,
}

/// What the lock guards.
pub(crate) struct State<K, V> {
    /// The table at the root.
    table: Table<K, V>,
    resize: Option<Resize<K, V>>,
    /// Nodes in the shard.
    live: usize,
    /// The size below which the table does not shrink, in buckets.
    floor: usize,
    /// Removals since this shard last saw to it that something is reclaimed.
    retired: u32,
}

/// A move of all nodes to another table, under way.
struct Resize<K, V> {
    to: Table<K, V>,
    /// The first home that may not have moved.
    next_home: usize,
}

/// Statistics, written under the lock and read without it.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) inserted: Count,
    pub(crate) removed: Count,
    pub(crate) replaced: Count,
    pub(crate) reaped: Count,
    pub(crate) resizes: Count,
    /// Nodes that the shard takes before it grows.
    pub(crate) capacity: Count,
    /// Bytes that its tables take.
    pub(crate) bytes: Count,
}

pub(crate) struct Count(AtomicU64);

impl Default for Count {
    fn default() -> Self {
        Count(AtomicU64::new(0))
    }
}

impl Count {
    /// Under the shard lock.
    fn add(&self, by: u64) {
        // ORDERING: Relaxed, a statistic. No addition is lost: the lock keeps writers apart.
        self.0.store(self.0.load(Ordering::Relaxed) + by, Ordering::Relaxed);
    }

    fn set(&self, to: u64) {
        // ORDERING: Relaxed, a statistic.
        self.0.store(to, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        // ORDERING: Relaxed, a statistic.
        self.0.load(Ordering::Relaxed)
    }
}

/// Why a node leaves the registry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    Removed,
    Reaped,
}

/// Homes that a write moves while a resize is under way, beside the one that it uses.
const STEP: usize = 2;
/// Removals in a shard after which it drives reclamation whatever the time.
const DUE: u32 = 64;

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

    fn lock(&self) -> Locked<'_, K, V> {
        assert!(!shard_locked(), "a write to a registry from within the `Eq` of a key, which runs under a shard lock");
        let state = self.state.lock();
        set_shard_locked(true);
        Locked(state)
    }

    /// Publishes `node` unless its key is taken: then the node that holds it is returned, with a reference for the
    /// caller.
    pub(crate) fn insert(
        &self,
        root: &Root<K, V>,
        hash: u64,
        node: NonNull<Node<K, V>>,
        eq: impl FnMut(&Node<K, V>) -> bool,
    ) -> Result<(), NonNull<Node<K, V>>> {
        let mut locked = self.lock();
        let state = &mut *locked.0;
        let table = state.table_for(hash, root, self);
        if let Some((_, holder)) = table.locate(hash, eq) {
            // SAFETY: S1.
            unsafe { holder.as_ref() }.header.refs.get();
            drop(locked);
            self.domain().inner().assist(false);
            return Err(holder);
        }
        state.publish(table, hash, node, root, self);
        drop(locked);
        self.domain().inner().assist(false);
        Ok(())
    }

    /// Publishes `node`, in the place of the one that has its key if there is one: that is returned, with a reference
    /// for the caller.
    pub(crate) fn replace(
        &self,
        root: &Root<K, V>,
        hash: u64,
        node: NonNull<Node<K, V>>,
        eq: impl FnMut(&Node<K, V>) -> bool,
    ) -> Option<NonNull<Node<K, V>>> {
        let mut locked = self.lock();
        let state = &mut *locked.0;
        let table = state.table_for(hash, root, self);
        let Some((position, old)) = table.locate(hash, eq) else {
            state.publish(table, hash, node, root, self);
            drop(locked);
            self.domain().inner().assist(false);
            return None;
        };
        table.swap(position, node);
        self.counts.inserted.add(1);
        self.counts.replaced.add(1);
        // SAFETY: unlinked by the swap, S1.
        unsafe { self.retire(locked, old, true) };
        Some(old)
    }

    /// Puts `node` in the place of `old`, if that is still in the table. They have the same key.
    pub(crate) fn replace_exact(&self, root: &Root<K, V>, old: NonNull<Node<K, V>>, node: NonNull<Node<K, V>>) -> bool {
        let mut locked = self.lock();
        // SAFETY: the caller holds a reference.
        let hash = unsafe { old.as_ref() }.header.hash.into();
        let table = locked.0.table_for(hash, root, self);
        let Some(position) = table.locate_exact(old) else {
            return false;
        };
        table.swap(position, node);
        self.counts.inserted.add(1);
        self.counts.replaced.add(1);
        // SAFETY: unlinked by the swap, S1.
        unsafe { self.retire(locked, old, false) };
        true
    }

    /// Unlinks the node of `hash` that satisfies `eq`, which comes with a reference for the caller.
    pub(crate) fn remove(
        &self,
        root: &Root<K, V>,
        hash: u64,
        eq: impl FnMut(&Node<K, V>) -> bool,
    ) -> Option<NonNull<Node<K, V>>> {
        let mut locked = self.lock();
        let table = locked.0.table_for(hash, root, self);
        let (position, node) = table.locate(hash, eq)?;
        table.unlink(position);
        // SAFETY: unlinked just now, S1.
        unsafe { self.removed(locked, node, Cause::Removed, true) };
        Some(node)
    }

    /// Unlinks `node`, if it is still in the table. The caller holds a reference to it.
    pub(crate) fn remove_exact(&self, root: &Root<K, V>, node: NonNull<Node<K, V>>, cause: Cause) -> bool {
        let mut locked = self.lock();
        // SAFETY: the caller holds a reference.
        let hash = unsafe { node.as_ref() }.header.hash.into();
        let table = locked.0.table_for(hash, root, self);
        let Some(position) = table.locate_exact(node) else {
            return false;
        };
        table.unlink(position);
        // SAFETY: unlinked just now, S1.
        unsafe { self.removed(locked, node, cause, false) };
        true
    }

    /// # Safety
    ///
    /// As for [`retire`](Self::retire).
    unsafe fn removed(&self, mut locked: Locked<'_, K, V>, node: NonNull<Node<K, V>>, cause: Cause, keep: bool) {
        locked.0.live -= 1;
        match cause {
            Cause::Removed => self.counts.removed.add(1),
            Cause::Reaped => self.counts.reaped.add(1),
        }
        locked.0.shrink_if_sparse(self);
        // SAFETY: the caller's promise.
        unsafe { self.retire(locked, node, keep) };
    }

    /// Lets go of the lock and retires a node that was unlinked under it. With `keep`, takes a reference for the caller.
    ///
    /// # Safety
    ///
    /// `node` was unlinked by the caller, under `locked` (S3).
    unsafe fn retire(&self, mut locked: Locked<'_, K, V>, node: NonNull<Node<K, V>>, keep: bool) {
        // SAFETY: the table's reference is still in it.
        let refs = &unsafe { node.as_ref() }.header.refs;
        refs.set_unlinked();
        if keep {
            refs.get();
        }
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
        state.step(root, self, 1024);
        if tight && state.resize.is_none() {
            let least = Table::<K, V>::buckets_for(state.live + 1).max(state.floor);
            if least < state.table.buckets() {
                state.begin_resize(least, self);
            }
        }
        state.shrink_if_sparse(self);
        state.resize.is_some()
    }

    /// Sets the size below which the table does not shrink to what `nodes` need, and grows it to that if it is smaller.
    pub(crate) fn set_floor(&self, root: &Root<K, V>, nodes: usize) {
        let floor = Table::<K, V>::buckets_for(nodes);
        let mut locked = self.lock();
        let state = &mut *locked.0;
        if state.newest().buckets() < floor {
            state.step(root, self, usize::MAX);
            state.begin_resize(floor, self);
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
        let locked = self.lock();
        let state = &*locked.0;
        state.table.visit_all(&mut |node| {
            // SAFETY: the table's reference is still in it.
            unsafe { node.as_ref() }.header.refs.set_unlinked();
            list.push(node.cast());
        });
        for table in state.resize.iter().map(|resize| resize.to).chain([state.table]) {
            // SAFETY: the caller's promise: no reader, no writer.
            unsafe { table.free() };
        }
        drop(locked);
        // SAFETY: S3; the registry still keeps the registrant.
        unsafe { self.queue.push(list) };
    }
}

fn retire_table<K, V>(domain: &Domain, table: Table<K, V>)
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    // SAFETY: T1: the root has left it, and this runs after a grace period.
    domain.inner().call(Box::new(move || unsafe { table.free() }));
}

impl<K, V> State<K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// The table that writes go to.
    fn newest(&self) -> Table<K, V> {
        self.resize.as_ref().map_or(self.table, |resize| resize.to)
    }

    /// The table to write `hash` to, after a step of the resize if one is under way.
    fn table_for(&mut self, hash: u64, root: &Root<K, V>, shard: &Shard<K, V>) -> Table<K, V> {
        if self.resize.is_some() {
            self.step(root, shard, STEP);
        }
        if let Some(resize) = &self.resize {
            // T4.
            self.table.move_home(hash as usize & self.table.mask(), resize.to);
        }
        self.newest()
    }

    fn publish(
        &mut self,
        table: Table<K, V>,
        hash: u64,
        node: NonNull<Node<K, V>>,
        root: &Root<K, V>,
        shard: &Shard<K, V>,
    ) {
        table.place(hash as u32 as usize, Tag::of(hash), node);
        self.live += 1;
        shard.counts.inserted.add(1);
        if self.live >= Table::<K, V>::limit(table.buckets()) {
            // The resize before this one is over long since, but for a hash that puts everything in one home.
            self.step(root, shard, usize::MAX);
            self.begin_resize(table.buckets() * 2, shard);
        }
    }

    /// At an eighth of what the table holds, goes to a quarter of it.
    fn shrink_if_sparse(&mut self, shard: &Shard<K, V>) {
        let buckets = self.newest().buckets();
        if self.resize.is_none() && buckets > self.floor && self.live < Table::<K, V>::limit(buckets) / 6 {
            self.begin_resize((buckets / 4).max(self.floor), shard);
        }
    }

    fn begin_resize(&mut self, buckets: usize, shard: &Shard<K, V>) {
        debug_assert!(self.resize.is_none());
        let to = Table::new(buckets);
        self.table.set_next(to);
        self.resize = Some(Resize { to, next_home: 0 });
        shard.counts.resizes.add(1);
        self.measure(&shard.counts);
    }

    fn measure(&self, counts: &Counts) {
        let next = self.resize.as_ref().map_or(0, |resize| resize.to.bytes());
        counts.capacity.set(Table::<K, V>::limit(self.newest().buckets()) as u64);
        counts.bytes.set((self.table.bytes() + next) as u64);
    }

    /// Moves up to `homes` homes of a resize that is under way. After the last one the new table becomes the root.
    fn step(&mut self, root: &Root<K, V>, shard: &Shard<K, V>, homes: usize) {
        let Some(resize) = &mut self.resize else { return };
        let end = resize.next_home.saturating_add(homes).min(self.table.buckets());
        for home in resize.next_home..end {
            self.table.move_home(home, resize.to);
        }
        resize.next_home = end;
        if end == self.table.buckets() {
            let old = std::mem::replace(&mut self.table, resize.to);
            self.resize = None;
            root.store(self.table);
            self.measure(&shard.counts);
            retire_table(shard.domain(), old);
        }
    }
}
