//! Insertion, replacement and removal of one entry under the lock of its shard.
//!
//! Each operation has a short path for shards without special features (see [`Special`]), and a path out of line
//! for the others: [`special`](super::special).

#![allow(unsafe_code)]

use crate::domain::{Failure, IfFull};
use crate::handle::Handle;
use crate::node::{Node, UnpublishedNode};
use crate::reap::Cause;
use crate::shard::ShardRef;
use crate::shard::locked::Locked;
use crate::shard::settings::RegistrySettings;
use crate::shard::state::Special;
use crate::table::{Located, Position, Table};
use crate::util::check;
use crate::util::clock::Time;
use std::ptr::NonNull;

/// An unpublished node whose key is taken, and the entry that holds the key.
pub(crate) struct Rejected<K: 'static, V: 'static> {
    pub(crate) unpublished: UnpublishedNode<K, V>,
    pub(crate) holder: Handle<K, V>,
}

/// Why a replacement did not publish its node.
pub(crate) enum NotReplaced<K: 'static, V: 'static, E> {
    /// There is no entry to replace.
    Absent(UnpublishedNode<K, V>),
    /// There is no room in the backlog.
    Full(UnpublishedNode<K, V>, E),
}

impl<K, V, E> NotReplaced<K, V, E> {
    /// Returns the node.
    pub(crate) fn into_unpublished(self) -> UnpublishedNode<K, V> {
        match self {
            NotReplaced::Absent(unpublished) | NotReplaced::Full(unpublished, _) => unpublished,
        }
    }
}

/// The references that a write takes for its caller.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Whether it takes one to the new entry.
    pub(crate) new: bool,
    /// Whether it takes one to the entry that leaves.
    pub(crate) old: bool,
}

impl Wanted {
    pub(crate) const NONE: Wanted = Wanted { new: false, old: false };
    pub(crate) const NEW: Wanted = Wanted { new: true, old: false };
    pub(crate) const OLD: Wanted = Wanted { new: false, old: true };
}

/// The result of a write that has published its node, with the references that the caller wanted.
pub(crate) struct Published<K: 'static, V: 'static> {
    pub(crate) new: Option<Handle<K, V>>,
    pub(crate) old: Departed<K, V>,
}

/// Whether an entry has left the table.
pub(crate) enum Departed<K: 'static, V: 'static> {
    /// No entry has left.
    None,
    /// An entry has left. The caller did not want a reference to it.
    Quietly,
    /// This entry has left.
    With(Handle<K, V>),
}

impl<K, V> Departed<K, V> {
    pub(crate) fn is_some(&self) -> bool {
        !matches!(self, Departed::None)
    }

    pub(crate) fn handle(&self) -> Option<&Handle<K, V>> {
        if let Departed::With(handle) = self { Some(handle) } else { None }
    }

    pub(crate) fn into_handle(self) -> Option<Handle<K, V>> {
        if let Departed::With(handle) = self { Some(handle) } else { None }
    }
}

/// Returns a new handle to a node.
///
/// # Safety
///
/// The node is in a table, and the caller holds the lock of its shard (S1), or the caller owns the table's
/// reference.
pub(crate) unsafe fn handle_on<K, V>(node: NonNull<Node<K, V>>) -> Handle<K, V> {
    // SAFETY: S1 (the node is in the table under the lock), or the caller owns the table's reference.
    unsafe { node.as_ref() }.header.refs.get();
    // SAFETY: the handle takes over the reference that was taken above.
    unsafe { Handle::from_reference(node) }
}

impl<'s, K, V> ShardRef<'s, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Publishes a node unless its key is taken. Returns a handle to the new entry if the caller wants one.
    #[inline(always)]
    pub(crate) fn insert(
        self,
        unpublished: UnpublishedNode<K, V>,
        wanted: Wanted,
        settings: &RegistrySettings<K, V>,
    ) -> Result<Option<Handle<K, V>>, Rejected<K, V>>
    where
        K: Eq,
    {
        let mut locked = self.lock();
        if locked.special != Special::NONE {
            return self.insert_special(locked, unpublished, wanted, settings);
        }
        let table = locked.table;
        if let Some((_, holder)) =
            table.locate(unpublished.particulars.hash, |found| check::eq(|| found.key() == &unpublished.key))
        {
            // SAFETY: S1 (the shard lock is held; the node is in the table).
            let holder = unsafe { handle_on(holder) };
            locked.finish();
            return Err(Rejected { unpublished, holder });
        }
        let hash = unpublished.particulars.hash;
        let node = locked.allocate(unpublished, 1 + u32::from(wanted.new));
        locked.publish(table, hash, node, self);
        locked.finish();
        // SAFETY: `allocate` made the node with a reference for this handle.
        Ok(wanted.new.then(|| unsafe { Handle::from_reference(node) }))
    }

    /// Publishes a node in place of the entry that `locate` finds. If there is none, publishes it as a new entry
    /// if `or_insert` is set.
    ///
    /// # Errors
    ///
    /// If there is no entry to replace and `or_insert` is not set, or if the backlog has no room and `if_full`
    /// lets the operation fail.
    #[inline(always)]
    pub(crate) fn replace<E: Failure>(
        self,
        unpublished: UnpublishedNode<K, V>,
        mut locate: impl FnMut(Table<K, V>, &UnpublishedNode<K, V>) -> Located<K, V>,
        or_insert: bool,
        wanted: Wanted,
        if_full: &mut IfFull<E>,
        settings: &RegistrySettings<K, V>,
    ) -> Result<Published<K, V>, NotReplaced<K, V, E>>
    where
        K: Eq,
    {
        let mut locked = self.lock();
        if locked.special != Special::NONE {
            return self.replace_special(locked, unpublished, locate, or_insert, wanted, if_full, settings);
        }
        let table = locked.table;
        let found = locate(table, &unpublished);
        if found.is_none() && !or_insert {
            return Err(NotReplaced::Absent(unpublished));
        }
        let (hash, weight) = (unpublished.particulars.hash, unpublished.particulars.weight.bytes());
        let node = locked.allocate(unpublished, 1 + u32::from(wanted.new));
        let old = match found {
            // SAFETY: `old` was found under the lock, which is still held. The backlog is not limited, so no room
            // is needed.
            Some((position, old)) => unsafe {
                locked.swap(table, position, old, node, weight, Cause::Replaced, wanted.old, false)
            },
            None => {
                locked.publish(table, hash, node, self);
                Departed::None
            }
        };
        locked.finish();
        // SAFETY: `allocate` made the node with a reference for this handle.
        let new = wanted.new.then(|| unsafe { Handle::from_reference(node) });
        Ok(Published { new, old })
    }

    /// Unlinks the entry of `hash` that `locate` finds. Returns a handle to it if the caller wants one.
    ///
    /// An entry that has expired counts as absent, and is unlinked too. If `cause` is expiry, the entry counts as
    /// present.
    ///
    /// A removal by key waits while the key is reserved: the one for which `is_key` holds.
    ///
    /// # Errors
    ///
    /// If the backlog has no room and `if_full` lets the operation fail.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn remove<E: Failure>(
        self,
        hash: u64,
        is_key: impl FnMut(&K) -> bool,
        mut locate: impl FnMut(Table<K, V>) -> Located<K, V>,
        cause: Cause,
        wants_handle: bool,
        if_full: &mut IfFull<E>,
        now: Time,
        settings: &RegistrySettings<K, V>,
    ) -> Result<Departed<K, V>, E> {
        let locked = self.lock();
        if locked.special != Special::NONE {
            return self.remove_special(
                locked,
                hash,
                is_key,
                locate,
                cause,
                wants_handle,
                None,
                if_full,
                now,
                settings,
            );
        }
        let table = locked.table;
        let Some((position, node)) = locate(table) else { return Ok(Departed::None) };
        // SAFETY: the node was found under the lock, which is still held. The backlog is not limited, so no room
        // is needed.
        Ok(unsafe { self.unlink(locked, table, position, node, cause, wants_handle, false) })
    }

    /// Unlinks a node, and releases the lock. `is_special` says whether the shard uses special features.
    ///
    /// # Safety
    ///
    /// The node was found at `position` of the newest table under the lock, which is still held. If the backlog
    /// is limited, room for it is reserved.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    pub(super) unsafe fn unlink(
        self,
        mut locked: Locked<'s, K, V>,
        table: Table<K, V>,
        position: Position,
        node: NonNull<Node<K, V>>,
        cause: Cause,
        wants_handle: bool,
        is_special: bool,
    ) -> Departed<K, V> {
        table.unlink(position);
        if is_special {
            locked.cut_link(node);
        }
        // SAFETY: R1 (the table's reference is not put before a grace period has passed).
        self.counts.leave(cause, unsafe { node.as_ref() }.header.weight.bytes());
        // SAFETY: S3 (the node was unlinked above, and the caller has reserved room for it if the backlog is
        // limited).
        let left = unsafe { locked.discard_as(node, wants_handle) };
        locked.shrink_if_sparse(self);
        locked.finish();
        left
    }
}

impl<K, V> Locked<'_, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Publishes `new`, of this weight, in place of `old`, which leaves for this cause. Returns a handle to `old`
    /// if the caller wants one. `is_special` says whether the shard uses special features.
    ///
    /// # Safety
    ///
    /// `old` was found at `position` of the newest table under the lock, which is still held. If the backlog is
    /// limited, room for it is reserved.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    pub(super) unsafe fn swap(
        &mut self,
        table: Table<K, V>,
        position: Position,
        old: NonNull<Node<K, V>>,
        new: NonNull<Node<K, V>>,
        weight: u64,
        cause: Cause,
        wants_old: bool,
        is_special: bool,
    ) -> Departed<K, V> {
        let shard = self.shard;
        let counts = shard.counts();
        counts.inserted.add(1);
        counts.left(cause).add(1);
        // Subtracts first: another thread that reads the sum never finds more than the bound allows.
        // SAFETY: S1 (the shard lock is held; `old` is in the table).
        counts.weight.subtract(unsafe { old.as_ref() }.header.weight.bytes());
        counts.weight.add(weight);
        table.swap(position, new);
        if is_special {
            self.cut_link(old);
        }
        // SAFETY: S3 (the swap has unlinked `old`, and the caller has reserved room for it if the backlog is
        // limited).
        unsafe { self.discard_as(old, wants_old) }
    }

    /// Takes over a node that the caller has unlinked. Returns a handle to it if the caller wants one.
    ///
    /// # Safety
    ///
    /// As for [`discard`](Self::discard).
    #[inline(always)]
    pub(super) unsafe fn discard_as(&mut self, node: NonNull<Node<K, V>>, wants_handle: bool) -> Departed<K, V> {
        if wants_handle {
            // SAFETY: S3 (the caller has unlinked the node, and reserved room for it if the backlog is limited).
            return Departed::With(unsafe { self.discard_to_handle(node) });
        }
        // SAFETY: S3 (the caller has unlinked the node, and reserved room for it if the backlog is limited).
        unsafe { self.discard(node) };
        Departed::Quietly
    }
}
