//! A shard's lock, held: what happens under it, and what is done when it is let go of.

#![allow(unsafe_code)]

use crate::domain::{Backlog, Inner};
use crate::handle::Handle;
use crate::node::life::Life;
use crate::node::{Header, Node, UnpublishedNode};
use crate::shard::ShardRef;
use crate::shard::expiry::Lifetimes;
use crate::shard::resize::retire_table;
use crate::shard::state::{Special, State, Work};
use crate::sync::MutexGuard;
use crate::table::Table;
use crate::util::reentrancy::set_shard_locked;
use std::mem::{self, ManuallyDrop};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// The shard lock, held (S2).
pub(crate) struct Locked<'s, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    state: ManuallyDrop<MutexGuard<'s, State<K, V>>>,
    pub(crate) shard: ShardRef<'s, K, V>,
}

/// There is no room in the domain's backlog for an object of so many bytes.
pub(crate) struct BacklogExhausted(pub(crate) u64);

impl<'s, K, V> Locked<'s, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    #[inline]
    pub(crate) fn new(shard: ShardRef<'s, K, V>, state: MutexGuard<'s, State<K, V>>) -> Self {
        set_shard_locked(true);
        Locked { state: ManuallyDrop::new(state), shard }
    }

    fn domain(&self) -> &'s Inner {
        self.shard.domain().inner()
    }

    /// Takes a place in the backlog for `node`, which is about to be unlinked.
    ///
    /// # Safety
    ///
    /// The node is in the table (S1).
    #[inline]
    pub(crate) unsafe fn reserve_backlog(&mut self, node: NonNull<Node<K, V>>) -> Result<(), BacklogExhausted> {
        if !self.special.has(Special::LIMITED) {
            return Ok(());
        }
        // SAFETY: S1.
        let bytes = unsafe { node.as_ref() }.header.weight.bytes();
        self.reserve_backlog_bytes(bytes)
    }

    #[cold]
    fn reserve_backlog_bytes(&mut self, bytes: u64) -> Result<(), BacklogExhausted> {
        let budget = &self.domain().budget;
        if let Some(place) = self.state.place.take_if(|place| *place >= bytes) {
            budget.give_back(Backlog::of(0, place - bytes));
            return Ok(());
        }
        let credits = &mut self.state.credits;
        if credits.spend(bytes) || budget.refill(credits, bytes) { Ok(()) } else { Err(BacklogExhausted(bytes)) }
    }

    /// Makes a node of a unpublished, with so many references. Not published yet. Does not panic.
    #[inline(always)]
    pub(crate) fn allocate(&mut self, unpublished: UnpublishedNode<K, V>, references: u32) -> NonNull<Node<K, V>> {
        let header = NonNull::from(self.shard.header());
        let state = &mut **self.state;
        let slot = state.slabs.alloc(header, &mut state.spare);
        let kind = state.slabs.shape().kind();
        // SAFETY: the slot is free, and the slabs are of the shape of these nodes.
        unsafe { unpublished.write(slot, kind, references) }
    }

    /// The same, with a life if nodes have one here.
    pub(crate) fn allocate_to_live(
        &mut self,
        unpublished: UnpublishedNode<K, V>,
        references: u32,
        lifetimes: &Lifetimes<K, V>,
    ) -> NonNull<Node<K, V>> {
        let (time, own_end) = (unpublished.time, unpublished.own_end);
        let node = self.allocate(unpublished, references);
        if self.state.slabs.shape().kind().has_life() {
            let life = Life::new(time, lifetimes.deadline(time, own_end), time);
            // SAFETY: it is of that kind, and not published yet.
            unsafe { Node::write_life(node, life) };
        }
        node
    }

    /// Takes a node that was unlinked.
    ///
    /// # Safety
    ///
    /// `node` was admitted to the backlog and unlinked by the caller, under this lock (S3).
    #[inline(always)]
    pub(crate) unsafe fn discard(&mut self, node: NonNull<Node<K, V>>) {
        // SAFETY: the table's reference is still in it.
        unsafe { node.as_ref() }.header.refs.set_unlinked();
        // SAFETY: the caller's promise.
        unsafe { self.retire(node) };
    }

    /// The same, and returns a handle on the node.
    ///
    /// # Safety
    ///
    /// As for [`discard`](Self::discard).
    #[inline(always)]
    pub(crate) unsafe fn discard_to_handle(&mut self, node: NonNull<Node<K, V>>) -> Handle<K, V> {
        // SAFETY: the table's reference is still in it.
        unsafe { node.as_ref() }.header.refs.get_and_set_unlinked();
        // SAFETY: the caller's promise.
        unsafe { self.retire(node) };
        // SAFETY: the reference just taken is the handle's.
        unsafe { Handle::from_reference(node) }
    }

    /// # Safety
    ///
    /// As for [`discard`](Self::discard), and the node is marked as unlinked.
    #[inline(always)]
    unsafe fn retire(&mut self, node: NonNull<Node<K, V>>) {
        // SAFETY: the table's reference is still in it.
        let bytes = unsafe { node.as_ref() }.header.weight.bytes();
        let node = node.cast::<Header>();
        let is_full = match &mut self.state.open {
            Some(bag) => bag.push(node, bytes),
            None => self.open_bag(node, bytes),
        };
        if is_full {
            self.close_bag();
        }
    }

    #[cold]
    fn open_bag(&mut self, node: NonNull<Header>, bytes: u64) -> bool {
        let header = self.shard.header();
        let bag = match self.state.spare.take() {
            Some(mut bag) => {
                bag.reset(NonNull::from(header));
                bag
            }
            None => self.domain().new_bag(NonNull::from(header)),
        };
        let is_full = self.state.open.insert(bag).push(node, bytes);
        if !self.state.is_dirty {
            self.state.is_dirty = true;
            self.state.work.add_dirty();
            self.domain().mark_dirty(header);
        }
        is_full
    }

    #[cold]
    fn close_bag(&mut self) {
        let domain = self.domain();
        let nodes = self.state.close_bag(domain);
        self.state.work.add_handed_over(nodes);
    }

    /// Lets go of the lock, and does this write's share of the domain's reclamation.
    #[inline(always)]
    pub(crate) fn finish(self) {
        let mut this = ManuallyDrop::new(self);
        let usual = this.state.usual_work;
        let work = mem::replace(&mut this.state.work, usual);
        // SAFETY: it is not used any more, and not dropped.
        unsafe { this.unlock() };
        if work != Work::NONE {
            this.shard.assist(work);
        }
    }

    /// # Safety
    ///
    /// Once, and the lock is not used any more.
    #[inline(always)]
    unsafe fn unlock(&mut self) {
        let (old_table, place) = if self.special == Special::NONE { (None, None) } else { self.end_special() };
        set_shard_locked(false);
        // SAFETY: the caller's promise.
        unsafe { ManuallyDrop::drop(&mut self.state) };
        if let Some(bytes) = place {
            // The reservation was not used.
            self.domain().budget.give_back(Backlog::one(bytes));
        }
        if let Some(table) = old_table {
            retire_table(self.shard.domain(), table);
        }
    }

    /// Nodes in the shard.
    #[inline]
    pub(crate) fn live(&self) -> usize {
        self.shard.counts().live.get() as usize
    }

    /// What is rarely to be done at the end of a write. Returns what to do without the lock.
    #[cold]
    fn end_special(&mut self) -> (Option<Table<K, V>>, Option<u64>) {
        let state = &mut **self.state;
        state.special.set(Special::RESIZING, state.resize.is_some());
        (state.old_table.take(), state.place.take())
    }
}

impl<K, V> Deref for Locked<'_, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    type Target = State<K, V>;

    #[inline]
    fn deref(&self) -> &State<K, V> {
        &self.state
    }
}

impl<K, V> DerefMut for Locked<'_, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    #[inline]
    fn deref_mut(&mut self) -> &mut State<K, V> {
        &mut self.state
    }
}

impl<K, V> Drop for Locked<'_, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn drop(&mut self) {
        // SAFETY: dropped once.
        unsafe { self.unlock() };
    }
}
