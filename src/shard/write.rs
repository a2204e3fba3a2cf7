//! Insertion, replacement and removal of one entry, under the lock of its shard.

#![allow(unsafe_code)]

use crate::domain::{Failure, IfFull};
use crate::handle::Handle;
use crate::node::life::Life;
use crate::node::{Node, UnpublishedNode};
use crate::reap::Cause;
use crate::shard::ShardRef;
use crate::shard::evict::Evicted;
use crate::shard::expiry::{Look, Looker};
use crate::shard::locked::{BacklogExhausted, Locked};
use crate::shard::settings::Settings;
use crate::shard::state::Special;
use crate::table::{Located, Position, Table};
use crate::util::check;
use crate::util::clock::Time;
use std::ptr::NonNull;

/// A unpublished whose key is taken, and the entry that has it.
pub(crate) struct Rejected<K: 'static, V: 'static> {
    pub(crate) unpublished: UnpublishedNode<K, V>,
    pub(crate) holder: Handle<K, V>,
}

/// Why a unpublished was not published.
pub(crate) enum NotReplaced<K: 'static, V: 'static, E> {
    /// There is no entry to replace.
    Absent(UnpublishedNode<K, V>),
    /// There is no room in the backlog.
    Full(UnpublishedNode<K, V>, E),
}

impl<K, V, E> NotReplaced<K, V, E> {
    pub(crate) fn into_unpublished(self) -> UnpublishedNode<K, V> {
        match self {
            NotReplaced::Absent(unpublished) | NotReplaced::Full(unpublished, _) => unpublished,
        }
    }
}

/// Which drafts are published.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Put {
    /// One whose key is not taken.
    New,
    /// One that replaces another.
    Old,
    Any,
}

/// Why a unpublished was not published.
enum NotPut<K: 'static, V: 'static, E> {
    Taken(Rejected<K, V>),
    Not(NotReplaced<K, V, E>),
}

/// Which references a write takes for its caller.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// One to the new entry.
    pub(crate) new: bool,
    /// One to the entry that leaves.
    pub(crate) old: bool,
}

impl Wanted {
    pub(crate) const NONE: Wanted = Wanted { new: false, old: false };
    pub(crate) const NEW: Wanted = Wanted { new: true, old: false };
    pub(crate) const OLD: Wanted = Wanted { new: false, old: true };
}

/// What a write has done, with the references that were wanted.
pub(crate) struct Published<K: 'static, V: 'static> {
    pub(crate) new: Option<Handle<K, V>>,
    pub(crate) old: Departed<K, V>,
}

/// Whether an entry has left the table.
pub(crate) enum Departed<K: 'static, V: 'static> {
    None,
    /// Without a reference to it.
    Quietly,
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

impl<'s, K, V> ShardRef<'s, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Finds out whether an entry in the table has expired, under the lock.
    fn look(self, node: NonNull<Node<K, V>>, now: Time, settings: &Settings<K, V>) -> Look {
        // SAFETY: in the table, S1.
        let Some(life) = (unsafe { self.life_of(node) }) else { return Look::Lives };
        // SAFETY: as before.
        settings.lifetimes.look(unsafe { node.as_ref() }, life, now, Looker::WRITER)
    }

    /// Lets go of the lock, asks the user whether an entry lives on, and takes the lock again: everything may have changed.
    fn ask(
        self,
        locked: Locked<'s, K, V>,
        node: NonNull<Node<K, V>>,
        now: Time,
        settings: &Settings<K, V>,
    ) -> Locked<'s, K, V> {
        // SAFETY: in the table, S1.
        let entry = unsafe { handle_on(node) };
        drop(locked);
        // SAFETY: the handle holds the node.
        if let Some(life) = unsafe { self.life_of(node) } {
            settings.lifetimes.look(entry.get(), life, now, Looker::HOLDER);
        }
        // Not under the lock.
        drop(entry);
        self.lock()
    }

    /// Publishes a unpublished, unless its key is taken. Returns a handle if one is wanted.
    #[inline(always)]
    pub(crate) fn insert(
        self,
        unpublished: UnpublishedNode<K, V>,
        wanted: Wanted,
        settings: &Settings<K, V>,
    ) -> Result<Option<Handle<K, V>>, Rejected<K, V>>
    where
        K: Eq,
    {
        let mut locked = self.lock();
        if locked.special != Special::NONE {
            return self.insert_special(locked, unpublished, wanted, settings);
        }
        let table = locked.table;
        if let Some((_, holder)) = table.locate(unpublished.hash, |found| check::eq(|| found.key() == &unpublished.key))
        {
            // SAFETY: S1.
            let holder = unsafe { handle_on(holder) };
            locked.finish();
            return Err(Rejected { unpublished, holder });
        }
        let hash = unpublished.hash;
        let node = locked.allocate(unpublished, 1 + u32::from(wanted.new));
        locked.publish(table, hash, node, self);
        locked.finish();
        // SAFETY: it was made with a reference for this handle.
        Ok(wanted.new.then(|| unsafe { Handle::from_reference(node) }))
    }

    #[inline(never)]
    fn insert_special(
        self,
        locked: Locked<'s, K, V>,
        unpublished: UnpublishedNode<K, V>,
        wanted: Wanted,
        settings: &Settings<K, V>,
    ) -> Result<Option<Handle<K, V>>, Rejected<K, V>>
    where
        K: Eq,
    {
        let locate = |table: Table<K, V>, unpublished: &UnpublishedNode<K, V>| {
            table.locate(unpublished.hash, |found| check::eq(|| found.key() == &unpublished.key))
        };
        match self.put_special(locked, unpublished, locate, Put::New, wanted, IfFull::go_on(), settings) {
            Ok(published) => Ok(published.new),
            Err(NotPut::Taken(rejected)) => Err(rejected),
            Err(NotPut::Not(_)) => unreachable!("an insertion replaces nothing"),
        }
    }

    /// Publishes a unpublished in the place of the entry that `locate` finds, or, if there is none and `or_insert` is set, as a new one.
    #[inline(always)]
    pub(crate) fn replace<E: Failure>(
        self,
        unpublished: UnpublishedNode<K, V>,
        mut locate: impl FnMut(Table<K, V>, &UnpublishedNode<K, V>) -> Located<K, V>,
        or_insert: bool,
        wanted: Wanted,
        if_full: IfFull<E>,
        settings: &Settings<K, V>,
    ) -> Result<Published<K, V>, NotReplaced<K, V, E>> {
        let mut locked = self.lock();
        if locked.special != Special::NONE {
            return self.replace_special(locked, unpublished, locate, or_insert, wanted, if_full, settings);
        }
        let table = locked.table;
        let found = locate(table, &unpublished);
        if found.is_none() && !or_insert {
            return Err(NotReplaced::Absent(unpublished));
        }
        let (hash, weight) = (unpublished.hash, unpublished.weight.bytes());
        let node = locked.allocate(unpublished, 1 + u32::from(wanted.new));
        let old = match found {
            // SAFETY: found under this lock; nothing is limited.
            Some((position, old)) => unsafe {
                locked.swap(table, position, old, node, weight, Cause::Replaced, wanted.old)
            },
            None => {
                locked.publish(table, hash, node, self);
                Departed::None
            }
        };
        locked.finish();
        // SAFETY: it was made with a reference for this handle.
        let new = wanted.new.then(|| unsafe { Handle::from_reference(node) });
        Ok(Published { new, old })
    }

    #[inline(never)]
    #[allow(clippy::too_many_arguments)]
    fn replace_special<E: Failure>(
        self,
        locked: Locked<'s, K, V>,
        unpublished: UnpublishedNode<K, V>,
        locate: impl FnMut(Table<K, V>, &UnpublishedNode<K, V>) -> Located<K, V>,
        or_insert: bool,
        wanted: Wanted,
        if_full: IfFull<E>,
        settings: &Settings<K, V>,
    ) -> Result<Published<K, V>, NotReplaced<K, V, E>> {
        let put = if or_insert { Put::Any } else { Put::Old };
        match self.put_special(locked, unpublished, locate, put, wanted, if_full, settings) {
            Ok(published) => Ok(published),
            Err(NotPut::Not(reason)) => Err(reason),
            Err(NotPut::Taken(_)) => unreachable!("a replacement takes the place of what has the key"),
        }
    }

    /// Publishes a unpublished where there is something to mind. An entry that has expired is replaced, and counts as absent.
    ///
    /// What was evicted to make room, or had expired, is told to listeners when this returns.
    #[allow(clippy::too_many_arguments)]
    fn put_special<E: Failure>(
        self,
        mut locked: Locked<'s, K, V>,
        unpublished: UnpublishedNode<K, V>,
        mut locate: impl FnMut(Table<K, V>, &UnpublishedNode<K, V>) -> Located<K, V>,
        put: Put,
        wanted: Wanted,
        mut if_full: IfFull<E>,
        settings: &Settings<K, V>,
    ) -> Result<Published<K, V>, NotPut<K, V, E>> {
        let mut evicted = Evicted::new(&settings.listeners, Cause::Capacity);
        let (hash, weight, time) = (unpublished.hash, unpublished.weight.bytes(), unpublished.time);
        loop {
            let table = locked.table_for(hash, self);
            let found = locate(table, &unpublished);
            let old = found.map(|(_, node)| node);
            let mut cause = Cause::Replaced;
            if let Some(old) = old {
                match self.look(old, time, settings) {
                    Look::Ended(why) => cause = why,
                    Look::Unknown => {
                        locked = self.ask(locked, old, time, settings);
                        continue;
                    }
                    Look::Lives | Look::Spared if put == Put::New => {
                        // SAFETY: S1.
                        let holder = unsafe { handle_on(old) };
                        locked.finish();
                        return Err(NotPut::Taken(Rejected { unpublished, holder }));
                    }
                    Look::Lives | Look::Spared => {}
                }
            }
            if put == Put::Old && (old.is_none() || cause != Cause::Replaced) {
                return Err(NotPut::Not(NotReplaced::Absent(unpublished)));
            }
            let retry = if !locked.fits_bounds(weight, old) {
                self.evict_to_fit(locked, weight, old, &mut if_full, &mut evicted)
            } else if let Some((position, old)) = found {
                // SAFETY: S1.
                match unsafe { locked.reserve_backlog(old) } {
                    Ok(()) => {
                        // L2. If it has expired since the look, it is absent after all.
                        // SAFETY: S1.
                        if let Some(why) = unsafe { self.life_of(old) }.and_then(Life::claim) {
                            cause = why;
                        }
                        if put == Put::Old && cause != Cause::Replaced {
                            // SAFETY: found under this lock, and admitted.
                            unsafe { self.unlink_expired(&mut locked, table, position, old, cause, &mut evicted) };
                            locked.finish();
                            return Err(NotPut::Not(NotReplaced::Absent(unpublished)));
                        }
                        let node = locked.allocate_to_live(unpublished, 1 + u32::from(wanted.new), &settings.lifetimes);
                        let wants_old =
                            if cause == Cause::Replaced { wanted.old } else { settings.listeners.is_some() };
                        // SAFETY: found under this lock, and admitted.
                        let mut left = unsafe { locked.swap(table, position, old, node, weight, cause, wants_old) };
                        if cause != Cause::Replaced {
                            evicted.add(cause, std::mem::replace(&mut left, Departed::None).into_handle());
                        }
                        return Ok(self.end_put(locked, node, wanted, left, settings));
                    }
                    Err(BacklogExhausted(bytes)) => self.relock_with_reservation(locked, bytes, &mut if_full),
                }
            } else {
                let node = locked.allocate_to_live(unpublished, 1 + u32::from(wanted.new), &settings.lifetimes);
                locked.publish(table, hash, node, self);
                return Ok(self.end_put(locked, node, wanted, Departed::None, settings));
            };
            match retry {
                Ok(again) => locked = again,
                Err(full) => return Err(NotPut::Not(NotReplaced::Full(unpublished, full))),
            }
        }
    }

    /// After a node was published.
    fn end_put(
        self,
        mut locked: Locked<'s, K, V>,
        node: NonNull<Node<K, V>>,
        wanted: Wanted,
        old: Departed<K, V>,
        settings: &Settings<K, V>,
    ) -> Published<K, V> {
        if locked.special.has(Special::EXPIRING) {
            locked.arm(node, Time::ZERO, &settings.lifetimes, self);
        }
        locked.finish();
        // SAFETY: it was made with a reference for this handle.
        let new = wanted.new.then(|| unsafe { Handle::from_reference(node) });
        Published { new, old }
    }

    /// Unlinks an entry that has expired.
    ///
    /// # Safety
    ///
    /// It was found at `position` of the newest table under this lock, and admitted to the backlog.
    unsafe fn unlink_expired(
        self,
        locked: &mut Locked<'s, K, V>,
        table: Table<K, V>,
        position: Position,
        node: NonNull<Node<K, V>>,
        cause: Cause,
        expired: &mut Evicted<'_, K, V>,
    ) {
        table.unlink(position);
        // SAFETY: the table's reference is still in it.
        self.counts.leave(cause, unsafe { node.as_ref() }.header.weight.bytes());
        // SAFETY: unlinked just now, S1; the caller's promise.
        let left = unsafe { locked.discard_as(node, expired.wants_entries()) };
        expired.add(cause, left.into_handle());
    }

    /// Unlinks the entry of `hash` that `locate` finds. Returns a handle on it if one is wanted. One that has expired counts as
    /// absent, and is unlinked too, unless the caller removes it for that reason.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn remove<E: Failure>(
        self,
        hash: u64,
        mut locate: impl FnMut(Table<K, V>) -> Located<K, V>,
        cause: Cause,
        wants_handle: bool,
        if_full: &mut IfFull<E>,
        now: Time,
        settings: &Settings<K, V>,
    ) -> Result<Departed<K, V>, E> {
        let locked = self.lock();
        if locked.special != Special::NONE {
            return self.remove_special(locked, hash, locate, cause, wants_handle, if_full, now, settings);
        }
        let table = locked.table;
        let Some((position, node)) = locate(table) else { return Ok(Departed::None) };
        // SAFETY: found under this lock; nothing is limited.
        Ok(unsafe { self.unlink(locked, table, position, node, cause, wants_handle) })
    }

    #[inline(never)]
    #[allow(clippy::too_many_arguments)]
    fn remove_special<E: Failure>(
        self,
        mut locked: Locked<'s, K, V>,
        hash: u64,
        mut locate: impl FnMut(Table<K, V>) -> Located<K, V>,
        cause: Cause,
        wants_handle: bool,
        if_full: &mut IfFull<E>,
        now: Time,
        settings: &Settings<K, V>,
    ) -> Result<Departed<K, V>, E> {
        let mut expired = Evicted::new(&settings.listeners, cause);
        let by_time = matches!(cause, Cause::Expired | Cause::Idle);
        loop {
            let table = locked.table_for(hash, self);
            let Some((position, node)) = locate(table) else { return Ok(Departed::None) };
            let look = if by_time { Look::Lives } else { self.look(node, now, settings) };
            if let Look::Unknown = look {
                locked = self.ask(locked, node, now, settings);
                continue;
            }
            // SAFETY: S1.
            let admitted = unsafe { locked.reserve_backlog(node) };
            match (look, admitted) {
                (Look::Ended(cause), Ok(())) => {
                    // SAFETY: found under this lock, and admitted.
                    unsafe { self.unlink_expired(&mut locked, table, position, node, cause, &mut expired) };
                    locked.shrink_if_sparse(self);
                    locked.finish();
                    return Ok(Departed::None);
                }
                // It stays for a reaper: nobody waits for room for what is absent.
                (Look::Ended(_), Err(_)) => return Ok(Departed::None),
                (_, Err(BacklogExhausted(bytes))) => locked = self.relock_with_reservation(locked, bytes, if_full)?,
                // SAFETY: found under this lock, and admitted.
                (_, Ok(())) => return Ok(unsafe { self.unlink(locked, table, position, node, cause, wants_handle) }),
            }
        }
    }

    /// Unlinks a node, and lets go of the lock.
    ///
    /// # Safety
    ///
    /// It was found at `position` of the newest table under this lock, and admitted to the backlog.
    #[inline(always)]
    unsafe fn unlink(
        self,
        mut locked: Locked<'s, K, V>,
        table: Table<K, V>,
        position: Position,
        node: NonNull<Node<K, V>>,
        cause: Cause,
        wants_handle: bool,
    ) -> Departed<K, V> {
        table.unlink(position);
        // SAFETY: the table's reference is still in it.
        self.counts.leave(cause, unsafe { node.as_ref() }.header.weight.bytes());
        // SAFETY: unlinked just now, S1; it was admitted.
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
    /// Publishes `new`, of this weight, in the place of `old`, which leaves for this cause. Returns a handle on that if one is
    /// wanted.
    ///
    /// # Safety
    ///
    /// `old` was found at `position` of the newest table under this lock, and admitted to the backlog.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    unsafe fn swap(
        &mut self,
        table: Table<K, V>,
        position: Position,
        old: NonNull<Node<K, V>>,
        new: NonNull<Node<K, V>>,
        weight: u64,
        cause: Cause,
        wants_old: bool,
    ) -> Departed<K, V> {
        let shard = self.shard;
        let counts = shard.counts();
        counts.inserted.add(1);
        counts.left(cause).add(1);
        // In this order: a look at the sum finds no more than there may be.
        // SAFETY: in the table, S1.
        counts.weight.subtract(unsafe { old.as_ref() }.header.weight.bytes());
        counts.weight.add(weight);
        table.swap(position, new);
        // SAFETY: unlinked by the swap, S1; it was admitted.
        unsafe { self.discard_as(old, wants_old) }
    }

    /// Takes a node that was unlinked, and returns a handle on it if one is wanted.
    ///
    /// # Safety
    ///
    /// As for [`discard`](Self::discard).
    #[inline(always)]
    unsafe fn discard_as(&mut self, node: NonNull<Node<K, V>>, wants_handle: bool) -> Departed<K, V> {
        if wants_handle {
            // SAFETY: the caller's promise.
            return Departed::With(unsafe { self.discard_to_handle(node) });
        }
        // SAFETY: the caller's promise.
        unsafe { self.discard(node) };
        Departed::Quietly
    }
}
