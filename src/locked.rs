//! A shard's lock, held: what happens under it, and what is done when it is let go of.

#![allow(unsafe_code)]

use crate::domain::{Backlog, List, set_shard_locked};
use crate::handle::Handle;
use crate::node::Node;
use crate::resize::{State, retire_table};
use crate::shard::Shard;
use crate::sync::MutexGuard;
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
    shard: &'s Shard<K, V>,
    /// A place in the backlog that this thread has made room for, of so many bytes.
    place: Option<u64>,
    /// The allowance was used up, and filled again: it is time to reclaim something.
    due: bool,
}

/// There is no room in the domain's backlog for an object of so many bytes, unless somebody makes it.
pub(crate) struct NoRoom(pub(crate) u64);

impl<'s, K, V> Locked<'s, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// With a place in the backlog that was taken before, if any.
    pub(crate) fn new(shard: &'s Shard<K, V>, state: MutexGuard<'s, State<K, V>>, place: Option<u64>) -> Self {
        set_shard_locked(true);
        Locked { state: ManuallyDrop::new(state), shard, place, due: false }
    }

    /// Takes a place in the backlog for `node`, which is about to be unlinked.
    ///
    /// # Safety
    ///
    /// The node is in the table (S1).
    pub(crate) unsafe fn admit(&mut self, node: NonNull<Node<K, V>>) -> Result<(), NoRoom> {
        // SAFETY: S1.
        let bytes = unsafe { node.as_ref() }.header.weight.bytes();
        if let Some(place) = self.place.take_if(|place| *place >= bytes) {
            self.shard.domain().inner().budget.give_back(Backlog::of(0, place - bytes));
            return Ok(());
        }
        if self.state.allowance.spend(bytes) {
            return Ok(());
        }
        self.due = true;
        let budget = &self.shard.domain().inner().budget;
        if budget.refill(&mut self.state.allowance, bytes) { Ok(()) } else { Err(NoRoom(bytes)) }
    }

    /// Takes a node that was unlinked, to be retired when the lock is let go of.
    ///
    /// # Safety
    ///
    /// `node` was admitted to the backlog and unlinked by the caller, under this lock (S3).
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
    /// As for [`discard`](Self::discard).
    unsafe fn retire(&mut self, node: NonNull<Node<K, V>>) {
        // SAFETY: the table's reference is still in it.
        self.weight -= unsafe { node.as_ref() }.header.weight.bytes();
        // SAFETY: as before.
        self.state.unlinked.push(unsafe { Node::header_of(node) });
    }

    /// Nodes that were unlinked under this lock.
    pub(crate) fn discarded(&self) -> u64 {
        self.state.unlinked.amount().objects
    }

    /// Lets go of the lock, and does this write's share of the domain's reclamation.
    pub(crate) fn finish(self) {
        let (shard, due) = (self.shard, self.due);
        drop(self);
        shard.domain().inner().assist(due);
    }
}

impl<K, V> Deref for Locked<'_, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    type Target = State<K, V>;

    fn deref(&self) -> &State<K, V> {
        &self.state
    }
}

impl<K, V> DerefMut for Locked<'_, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
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
        if let Some(bytes) = self.place.take() {
            // The node for which it was has gone another way.
            self.shard.domain().inner().budget.give_back(Backlog::one(bytes));
        }
        let outgoing = self.state.outgoing.take();
        let unlinked = (!self.state.unlinked.is_empty()).then(|| mem::replace(&mut self.state.unlinked, List::new()));
        self.shard.counts.live.set(self.state.live as u64);
        set_shard_locked(false);
        // SAFETY: not used below, and dropped once.
        unsafe { ManuallyDrop::drop(&mut self.state) };
        if let Some(unlinked) = unlinked {
            // SAFETY: S3. Whoever locks the shard borrows the registry, which keeps the registrant.
            unsafe { self.shard.queue().push(unlinked) };
        }
        if let Some(table) = outgoing {
            retire_table(self.shard.domain(), table);
        }
    }
}
