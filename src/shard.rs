//! A shard: the writers' side of one part of the table.
//!
//! Lookups never come here: they begin at the shard's root, which lies apart from what writers write.
//!
//! # Invariants
//!
//! - **S1** Every change of a table is made with the shard's lock held, and a node in the table is there for as long as
//!   the lock is held.
//! - **S2** No code of the user's but `Eq` and `Equivalent` runs under the lock. A thread that is in such code is told
//!   by a panic, and not by a deadlock, if it comes back for a lock.
//! - **S3** A node is unlinked before it is retired, and retired once: by whoever unlinked it, after the lock.

#![allow(unsafe_code)]

use crate::check;
use crate::counts::Counts;
use crate::domain::{Backlog, Domain, Full, List, Refusal, Registrant, RetireQueue, granted, shard_locked};
use crate::evict::{Bounds, Evicted};
use crate::handle::Handle;
use crate::listener::Cause;
use crate::locked::{Locked, NoRoom};
use crate::node::{Draft, Node};
use crate::prefetch;
use crate::resize::{Site, State, retire_table};
use crate::sync::Mutex;
use crate::table::{Position, Root, Table};
use std::ptr::NonNull;

/// The writers' side of a shard. The first field is what nodes know as their owner.
#[repr(C)]
pub(crate) struct Shard<K: 'static, V: 'static> {
    queue: RetireQueue,
    state: Mutex<State<K, V>>,
    pub(crate) counts: Counts,
}

/// What most writes change is within the lines that `prefetch_to_write` asks for.
#[cfg(all(target_arch = "x86_64", not(loom)))]
const _: () = assert!(std::mem::offset_of!(Shard<u8, u8>, counts) + std::mem::offset_of!(Counts, resizes) <= 256);

/// Why an entry was not replaced by a draft.
pub(crate) enum NotReplaced<K: 'static, V: 'static> {
    /// It has left the table.
    Gone(Draft<K, V>),
    /// There is no room in the backlog.
    Full(Draft<K, V>),
}

impl<K, V> NotReplaced<K, V> {
    pub(crate) fn into_draft(self) -> Draft<K, V> {
        match self {
            NotReplaced::Gone(draft) | NotReplaced::Full(draft) => draft,
        }
    }
}

/// A draft whose key is taken, and by whom.
pub(crate) struct Rejected<K: 'static, V: 'static> {
    pub(crate) draft: Draft<K, V>,
    pub(crate) holder: Handle<K, V>,
}

/// A handle on a node.
///
/// # Safety
///
/// The node is in a table, whose shard's lock the caller holds (S1); or the caller holds the table's reference.
pub(crate) unsafe fn handle_on<K, V>(node: NonNull<Node<K, V>>) -> Handle<K, V> {
    // SAFETY: S1.
    unsafe { node.as_ref() }.header.refs.get();
    // SAFETY: the reference just taken is the handle's.
    unsafe { Handle::from_reference(node) }
}

impl<K, V> Shard<K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    pub(crate) fn new(registrant: NonNull<Registrant>, table: Table<K, V>, bounds: Bounds) -> Self {
        let floor = table.buckets();
        // SAFETY: the registrant is there (it is being built).
        let allowance = unsafe { registrant.as_ref() }.domain.inner().budget.first_allowance();
        let state = State {
            table,
            resize: None,
            live: 0,
            floor,
            weight: 0,
            bounds,
            hand: Box::default(),
            timers: Box::default(),
            generation: 0,
            allowance,
            unlinked: List::new(),
            outgoing: None,
        };
        let counts = Counts::default();
        state.measure(&counts);
        Shard { queue: RetireQueue::new(registrant), state: Mutex::new(state), counts }
    }

    pub(crate) fn queue(&self) -> &RetireQueue {
        &self.queue
    }

    pub(crate) fn live(&self) -> u64 {
        self.counts.live.get()
    }

    pub(crate) fn domain(&self) -> &Domain {
        &self.queue.registrant().domain
    }

    /// Asks for the lines that a write changes: four of them, by the order of fields in [`State`] and [`Counts`].
    #[inline]
    pub(crate) fn prefetch_to_write(&self) {
        prefetch::to_write::<0, _>(self);
        prefetch::to_write::<64, _>(self);
        prefetch::to_write::<128, _>(self);
        prefetch::to_write::<192, _>(self);
    }

    pub(crate) fn site<'s>(&'s self, root: &'s Root<K, V>) -> Site<'s, K, V> {
        Site { root, counts: &self.counts }
    }

    pub(crate) fn lock(&self) -> Locked<'_, K, V> {
        self.lock_with_place(None)
    }

    fn lock_with_place(&self, place: Option<u64>) -> Locked<'_, K, V> {
        assert!(!shard_locked(), "a write to a registry from within the `Eq` of a key, which runs under a shard lock");
        Locked::new(self, self.state.lock(), place)
    }

    /// Lets go of the lock, makes room in the backlog for a node of so many bytes, and takes the lock again: everything may
    /// have changed.
    pub(crate) fn lock_with_room(
        &self,
        locked: Locked<'_, K, V>,
        bytes: u64,
        refusal: &mut Refusal,
    ) -> Result<Locked<'_, K, V>, Full> {
        drop(locked);
        self.domain().inner().make_room(bytes, refusal)?;
        Ok(self.lock_with_place(Some(bytes)))
    }

    /// Publishes a draft, unless its key is taken.
    pub(crate) fn insert(
        &self,
        root: &Root<K, V>,
        hash: u64,
        draft: Draft<K, V>,
        evicted: &mut Evicted<'_, K, V>,
    ) -> Result<Handle<K, V>, Rejected<K, V>>
    where
        K: Eq,
    {
        let (mut locked, mut refusal) = (self.lock(), Refusal::Impossible);
        loop {
            let table = locked.table_for(hash, self.site(root));
            let holder = table.locate(hash, |found| check::eq(|| found.key() == draft.key()));
            if let Some((_, holder)) = holder {
                // SAFETY: S1.
                let holder = unsafe { handle_on(holder) };
                locked.finish();
                return Err(Rejected { draft, holder });
            }
            let weight = draft.header().weight.bytes();
            if locked.has_room(weight, None) {
                let node = self.publish(&mut locked, root, table, hash, draft);
                // SAFETY: a draft is made with a reference for this handle.
                let handle = unsafe { Handle::from_reference(node) };
                locked.finish();
                return Ok(handle);
            }
            locked = granted(self.make_room(locked, root, weight, None, &mut refusal, evicted));
        }
    }

    /// Publishes a draft in the newest table.
    fn publish(
        &self,
        locked: &mut Locked<'_, K, V>,
        root: &Root<K, V>,
        table: Table<K, V>,
        hash: u64,
        draft: Draft<K, V>,
    ) -> NonNull<Node<K, V>> {
        let timer = draft.timer();
        let node = draft.published();
        locked.publish(table, hash, node, self.site(root));
        locked.arm(node, timer, &self.counts);
        node
    }

    /// Publishes a draft, in the place of the entry that has its key, if there is one. Returns the old entry; or the
    /// draft, if it is refused.
    pub(crate) fn replace(
        &self,
        root: &Root<K, V>,
        hash: u64,
        mut draft: Draft<K, V>,
        mut refusal: Refusal,
        evicted: &mut Evicted<'_, K, V>,
    ) -> Result<Option<Handle<K, V>>, Draft<K, V>>
    where
        K: Eq,
    {
        draft.forgo_handle();
        let mut locked = self.lock();
        loop {
            let table = locked.table_for(hash, self.site(root));
            let found = table.locate(hash, |found| check::eq(|| found.key() == draft.key()));
            let (weight, old) = (draft.header().weight.bytes(), found.map(|(_, old)| old));
            if !locked.has_room(weight, old) {
                match self.make_room(locked, root, weight, old, &mut refusal, evicted) {
                    Ok(again) => locked = again,
                    Err(Full) => return Err(draft),
                }
                continue;
            }
            let Some((position, old)) = found else {
                self.publish(&mut locked, root, table, hash, draft);
                locked.finish();
                return Ok(None);
            };
            // SAFETY: S1.
            if let Err(NoRoom(bytes)) = unsafe { locked.admit(old) } {
                match self.lock_with_room(locked, bytes, &mut refusal) {
                    Ok(again) => locked = again,
                    Err(Full) => return Err(draft),
                }
                continue;
            }
            self.swap(&mut locked, table, position, draft);
            // SAFETY: unlinked by the swap, S1; there is room for it.
            let old = unsafe { locked.discard_to_handle(old) };
            locked.finish();
            return Ok(Some(old));
        }
    }

    /// Publishes a draft in the place of `old`, which has the same key, if that is still in the table.
    pub(crate) fn replace_exact(
        &self,
        root: &Root<K, V>,
        old: &Handle<K, V>,
        draft: Draft<K, V>,
        mut refusal: Refusal,
        evicted: &mut Evicted<'_, K, V>,
    ) -> Result<Handle<K, V>, NotReplaced<K, V>> {
        let mut locked = self.lock();
        loop {
            let table = locked.table_for(old.hash().into(), self.site(root));
            let Some(position) = table.locate_exact(old.node()) else {
                return Err(NotReplaced::Gone(draft));
            };
            let (weight, node) = (draft.header().weight.bytes(), old.node());
            if !locked.has_room(weight, Some(node)) {
                match self.make_room(locked, root, weight, Some(node), &mut refusal, evicted) {
                    Ok(again) => locked = again,
                    Err(Full) => return Err(NotReplaced::Full(draft)),
                }
                continue;
            }
            // SAFETY: S1.
            if let Err(NoRoom(bytes)) = unsafe { locked.admit(node) } {
                match self.lock_with_room(locked, bytes, &mut refusal) {
                    Ok(again) => locked = again,
                    Err(Full) => return Err(NotReplaced::Full(draft)),
                }
                continue;
            }
            let new = self.swap(&mut locked, table, position, draft);
            // SAFETY: unlinked by the swap, S1; there is room for it.
            unsafe { locked.discard(node) };
            // SAFETY: a draft is made with a reference for this handle.
            let new = unsafe { Handle::from_reference(new) };
            locked.finish();
            return Ok(new);
        }
    }

    /// Publishes a draft at a position of the newest table, in the place of a node with the same key, which is unlinked
    /// by that.
    fn swap(
        &self,
        locked: &mut Locked<'_, K, V>,
        table: Table<K, V>,
        position: Position,
        draft: Draft<K, V>,
    ) -> NonNull<Node<K, V>> {
        locked.weight += draft.header().weight.bytes();
        let timer = draft.timer();
        let node = draft.published();
        table.swap(position, node);
        locked.arm(node, timer, &self.counts);
        self.counts.inserted.add(1);
        self.counts.replaced.add(1);
        node
    }

    /// Unlinks the entry of `hash` whose key satisfies `eq`.
    pub(crate) fn remove(
        &self,
        root: &Root<K, V>,
        hash: u64,
        mut eq: impl FnMut(&K) -> bool,
        mut refusal: Refusal,
    ) -> Result<Option<Handle<K, V>>, Full> {
        let mut locked = self.lock();
        loop {
            let table = locked.table_for(hash, self.site(root));
            let Some((position, node)) = table.locate(hash, |found| check::eq(|| eq(found.key()))) else {
                return Ok(None);
            };
            // SAFETY: S1.
            if let Err(NoRoom(bytes)) = unsafe { locked.admit(node) } {
                locked = self.lock_with_room(locked, bytes, &mut refusal)?;
                continue;
            }
            table.unlink(position);
            // SAFETY: unlinked just now, S1.
            let handle = unsafe { locked.discard_to_handle(node) };
            self.removed(locked, Cause::Removed);
            return Ok(Some(handle));
        }
    }

    /// Unlinks `entry`, if it is still in the table.
    pub(crate) fn remove_exact(
        &self,
        root: &Root<K, V>,
        entry: &Handle<K, V>,
        cause: Cause,
        refusal: &mut Refusal,
    ) -> Result<bool, Full> {
        let mut locked = self.lock();
        loop {
            let table = locked.table_for(entry.hash().into(), self.site(root));
            let Some(position) = table.locate_exact(entry.node()) else {
                return Ok(false);
            };
            // SAFETY: S1.
            if let Err(NoRoom(bytes)) = unsafe { locked.admit(entry.node()) } {
                locked = self.lock_with_room(locked, bytes, refusal)?;
                continue;
            }
            table.unlink(position);
            // SAFETY: unlinked just now, S1.
            unsafe { locked.discard(entry.node()) };
            self.removed(locked, cause);
            return Ok(true);
        }
    }

    /// Counts a node that was discarded, and lets go of the lock.
    fn removed(&self, mut locked: Locked<'_, K, V>, cause: Cause) {
        locked.live -= 1;
        self.counts.left(cause).add(1);
        locked.shrink_if_sparse(&self.counts);
        locked.finish();
    }

    /// Unlinks everything, by putting an empty table at the root. False if there is no room for all of it in the backlog:
    /// then nothing is done.
    pub(crate) fn clear(&self, root: &Root<K, V>, cleared: &mut Evicted<'_, K, V>) -> bool {
        let mut locked = self.lock();
        let state = &mut *locked;
        if state.live == 0 {
            return true;
        }
        let amount = Backlog::of(state.live as u64, state.weight);
        if !self.domain().inner().budget.take(amount) {
            return false;
        }
        let empty = Table::new(state.floor);
        let old = std::mem::replace(&mut state.table, empty);
        let next = state.resize.take().map(|resize| resize.to);
        root.store(empty);
        self.counts.removed.add(amount.objects);
        (state.live, state.weight) = (0, 0);
        let timers = std::mem::take(&mut state.timers);
        state.measure(&self.counts);
        drop(locked);
        drop(timers);
        let mut list = List::new();
        // The old table is ours now: readers may still be in it, but no writer.
        old.visit_all(&mut |node| {
            // SAFETY: the table's reference is still in it.
            unsafe { node.as_ref() }.header.refs.set_unlinked();
            // SAFETY: as before.
            cleared.push(|| unsafe { handle_on(node) });
            // SAFETY: as before.
            list.push(unsafe { Node::header_of(node) });
        });
        // SAFETY: S3; the registry is borrowed.
        unsafe { self.queue.push(list) };
        for table in next.into_iter().chain([old]) {
            retire_table(self.domain(), table);
        }
        self.domain().inner().assist(true);
        true
    }

    /// Lets the table follow the number of nodes, a bounded number of homes at a time: ends a resize that is under way,
    /// and then shrinks a sparse table, or a `tight` one as far as it goes. False when there is nothing more to do.
    pub(crate) fn settle(&self, root: &Root<K, V>, tight: bool) -> bool {
        let mut locked = self.lock();
        let state = &mut *locked;
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
        let state = &mut *locked;
        if state.newest().buckets() < floor {
            state.step(self.site(root), usize::MAX);
            state.begin_resize(floor, &self.counts);
        }
        state.floor = floor;
    }

    /// Unlinks everything and frees the tables, of a shard that nobody reads or writes any more. Returns the nodes.
    ///
    /// # Safety
    ///
    /// The registry is being dropped, and this is called once.
    pub(crate) unsafe fn dismantle(&self) -> List {
        let mut list = List::new();
        // Not by `lock`: a registry may be dropped in an `Eq`, under the lock of another.
        let mut state = self.state.lock();
        state.table.visit_all(&mut |node| {
            // SAFETY: the table's reference is still in it.
            unsafe { node.as_ref() }.header.refs.set_unlinked();
            // SAFETY: as before.
            list.push(unsafe { Node::header_of(node) });
        });
        for table in state.resize.iter().map(|resize| resize.to).chain([state.table]) {
            // SAFETY: the caller's promise: no reader, no writer.
            unsafe { table.free() };
        }
        self.domain().inner().budget.give_back_allowance(std::mem::take(&mut state.allowance));
        (state.timers, state.hand) = (Box::default(), Box::default());
        list
    }
}
