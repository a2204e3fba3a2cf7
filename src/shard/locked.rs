//! A held shard lock: the operations under the lock, and what follows its release.

#![allow(unsafe_code)]

use crate::domain::{Backlog, Inner};
use crate::handle::Handle;
use crate::node::life::Life;
use crate::node::{Header, Node, Particulars, UnpublishedNode};
use crate::shard::ShardRef;
use crate::shard::expiry::Lifetimes;
use crate::shard::reserve::Landing;
use crate::shard::resize::retire_table;
use crate::shard::state::{ShardState, Special, Work};
use crate::sync::TimedMutexGuard;
use crate::table::Table;
use crate::util::reentrancy::set_shard_locked;
use std::mem::{self, ManuallyDrop};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// The shard lock, held (S2). Dropping this releases it.
pub(crate) struct Locked<'s, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    state: ManuallyDrop<TimedMutexGuard<'s, ShardState<K, V>>>,
    pub(crate) shard: ShardRef<'s, K, V>,
}

/// What a write leaves to do when it has released the lock.
struct Leftovers<K, V> {
    /// A table to retire.
    old_table: Option<Table<K, V>>,
    /// The bytes of a place in the backlog that was not used.
    room: Option<u64>,
    /// The reservation of a key that has ended.
    landing: Option<Landing<K>>,
}

/// The error of a reservation: the domain's backlog has no room for an object of this many bytes.
pub(crate) struct BacklogExhausted(pub(crate) u64);

impl<'s, K, V> Locked<'s, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Wraps the guard of the lock that this thread has just taken.
    #[inline]
    pub(crate) fn new(shard: ShardRef<'s, K, V>, state: TimedMutexGuard<'s, ShardState<K, V>>) -> Self {
        set_shard_locked(true);
        Locked { state: ManuallyDrop::new(state), shard }
    }

    fn domain(&self) -> &'s Inner {
        self.shard.domain().inner()
    }

    /// Reserves room in the backlog for `node`, which the caller is about to unlink. Does nothing if the backlog
    /// is not limited.
    ///
    /// # Safety
    ///
    /// The node is in the table (S1).
    #[inline]
    pub(crate) unsafe fn reserve_backlog(&mut self, node: NonNull<Node<K, V>>) -> Result<(), BacklogExhausted> {
        if !self.special.has(Special::LIMITED) {
            return Ok(());
        }
        // SAFETY: S1 (the shard lock is held; the node is in the table).
        let bytes = unsafe { node.as_ref() }.header.weight.bytes();
        self.reserve_backlog_bytes(bytes)
    }

    #[cold]
    fn reserve_backlog_bytes(&mut self, bytes: u64) -> Result<(), BacklogExhausted> {
        let budget = &self.domain().budget;
        if let Some(place) = self.state.reservation.take_if(|place| *place >= bytes) {
            budget.give_back(Backlog::of(0, place - bytes));
            return Ok(());
        }
        let credits = &mut self.state.credits;
        if credits.spend(bytes) || budget.refill(credits, bytes) { Ok(()) } else { Err(BacklogExhausted(bytes)) }
    }

    /// Writes the unpublished node into a free slot, with this many references, and does not publish it. Does not
    /// panic.
    #[inline(always)]
    pub(crate) fn allocate(&mut self, unpublished: UnpublishedNode<K, V>, references: u32) -> NonNull<Node<K, V>> {
        let header = NonNull::from(self.shard.header());
        let state = &mut **self.state;
        let slot = state.slabs.alloc(header, &mut state.spare);
        let kind = state.slabs.shape().kind();
        // SAFETY: the slot is free and belongs to this shard, whose slabs have the layout of these nodes.
        unsafe { unpublished.write(slot, kind, references) }
    }

    /// Does the same as [`allocate`](Self::allocate), and gives the node a life if the nodes of this shard have
    /// lives.
    pub(crate) fn allocate_to_live(
        &mut self,
        unpublished: UnpublishedNode<K, V>,
        references: u32,
        lifetimes: &Lifetimes<K, V>,
    ) -> NonNull<Node<K, V>> {
        let Particulars { time, own_end, .. } = unpublished.particulars;
        let node = self.allocate(unpublished, references);
        if self.state.slabs.shape().kind().has_life() {
            let life = Life::new(time, lifetimes.deadline(time, own_end), time);
            // SAFETY: the nodes of these slabs have a life (N4), and the node is not published yet.
            unsafe { Node::write_life(node, life) };
        }
        node
    }

    /// Takes over a node that the caller has unlinked: marks it as unlinked, and retires it.
    ///
    /// # Safety
    ///
    /// The caller has unlinked `node` under the lock that is still held (S3). If the backlog is limited, it has
    /// reserved room for the node before.
    #[inline(always)]
    pub(crate) unsafe fn discard(&mut self, node: NonNull<Node<K, V>>) {
        // SAFETY: R1 (the table's reference is not put before a grace period has passed).
        unsafe { node.as_ref() }.header.refs.set_unlinked();
        // SAFETY: S3 (the caller has reserved room for the node and unlinked it), and the node is marked.
        unsafe { self.retire(node) };
    }

    /// Does the same as [`discard`](Self::discard), and returns a handle to the node.
    ///
    /// # Safety
    ///
    /// As for [`discard`](Self::discard).
    #[inline(always)]
    pub(crate) unsafe fn discard_to_handle(&mut self, node: NonNull<Node<K, V>>) -> Handle<K, V> {
        // SAFETY: R1 (the table's reference is not put before a grace period has passed).
        unsafe { node.as_ref() }.header.refs.get_and_set_unlinked();
        // SAFETY: S3 (the caller has reserved room for the node and unlinked it), and the node is marked.
        unsafe { self.retire(node) };
        // SAFETY: the handle takes over the reference that was taken above.
        unsafe { Handle::from_reference(node) }
    }

    /// Puts an unlinked node into the open bag, and closes the bag if it is full or heavy.
    ///
    /// # Safety
    ///
    /// As for [`discard`](Self::discard), and the node is marked as unlinked.
    #[inline(always)]
    unsafe fn retire(&mut self, node: NonNull<Node<K, V>>) {
        // SAFETY: R1 (the table's reference is not put before a grace period has passed).
        let bytes = unsafe { node.as_ref() }.header.weight.bytes();
        let node = node.cast::<Header>();
        debug_assert!(!self.has_link(node), "an entry is retired before its weak handles are cut (Y1)");
        let is_full = match &mut self.state.open {
            Some(bag) => bag.push(node, bytes),
            None => self.open_bag(node, bytes),
        };
        if is_full {
            self.close_bag();
        }
    }

    /// Opens a bag with `node` in it, and marks the shard as dirty. Returns whether the bag is to be closed.
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

    /// Hands the open bag over to the domain, and notes that for the work after the lock.
    #[cold]
    fn close_bag(&mut self) {
        let domain = self.domain();
        let nodes = self.state.close_bag(domain);
        self.state.work.add_handed_over(nodes);
    }

    /// Releases the lock, and then does this write's share of the domain's reclamation.
    #[inline(always)]
    pub(crate) fn finish(self) {
        let mut this = ManuallyDrop::new(self);
        let usual = this.state.usual_work;
        let work = mem::replace(&mut this.state.work, usual);
        // SAFETY: called once, as `this` is not dropped. The lock is not used afterwards.
        unsafe { this.unlock() };
        if work != Work::NONE {
            this.shard.assist(work);
        }
    }

    /// Releases the lock, and does the work that is left to do without it.
    ///
    /// # Safety
    ///
    /// Called once. The lock is not used afterwards.
    #[inline(always)]
    unsafe fn unlock(&mut self) {
        if self.special != Special::NONE {
            // SAFETY: the caller calls this once and does not use the lock afterwards.
            return unsafe { self.unlock_special() };
        }
        set_shard_locked(false);
        // SAFETY: the caller calls this once and does not use the lock afterwards.
        unsafe { ManuallyDrop::drop(&mut self.state) };
    }

    /// Does the same as [`unlock`](Self::unlock) in a shard that uses special features.
    ///
    /// # Safety
    ///
    /// As for [`unlock`](Self::unlock).
    #[cold]
    #[inline(never)]
    unsafe fn unlock_special(&mut self) {
        let Leftovers { old_table, room, landing } = self.end_special();
        set_shard_locked(false);
        // SAFETY: the caller calls this once and does not use the lock afterwards.
        unsafe { ManuallyDrop::drop(&mut self.state) };
        // Before any other code of the user: the writers that wait for the key go on.
        drop(landing);
        if let Some(bytes) = room {
            // The write did not use its reservation.
            self.domain().budget.give_back(Backlog::one(bytes));
        }
        if let Some(table) = old_table {
            retire_table(self.shard.domain(), table);
        }
    }

    /// Returns the number of nodes in the shard.
    #[inline]
    pub(crate) fn live(&self) -> usize {
        self.shard.counts().live.get() as usize
    }

    /// Ends a write to a shard with special features. Returns what is left to do without the lock.
    fn end_special(&mut self) -> Leftovers<K, V> {
        let state = &mut **self.state;
        state.special.set(Special::RESIZING, state.resize.is_some());
        if state.special.has(Special::REFUSING) {
            self.settle_places();
        }
        let state = &mut **self.state;
        state.special.set(Special::RESERVED, state.reservations.as_ref().is_some_and(|reserved| !reserved.is_empty()));
        Leftovers { old_table: state.old_table.take(), room: state.reservation.take(), landing: state.landing.take() }
    }
}

impl<K, V> Deref for Locked<'_, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    type Target = ShardState<K, V>;

    #[inline]
    fn deref(&self) -> &ShardState<K, V> {
        &self.state
    }
}

impl<K, V> DerefMut for Locked<'_, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    #[inline]
    fn deref_mut(&mut self) -> &mut ShardState<K, V> {
        &mut self.state
    }
}

impl<K, V> Drop for Locked<'_, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn drop(&mut self) {
        let usual = self.state.usual_work;
        let work = mem::replace(&mut self.state.work, usual);
        // SAFETY: `drop` runs once, and the lock is not used afterwards.
        unsafe { self.unlock() };
        // A write that ends early, or by a panic in `Eq`, may have evicted something before.
        if work != usual {
            self.shard.domain().inner().wake();
        }
    }
}
