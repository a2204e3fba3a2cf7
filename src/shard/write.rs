//! Insertion, replacement and removal of one entry under the lock of its shard.
//!
//! Each operation has a short path for shards without special features (see [`Special`]), and a path out of line
//! for the others. The latter handles resizes, bounds, a limited backlog, and expiry.

#![allow(unsafe_code)]

use crate::domain::{Failure, IfFull};
use crate::handle::Handle;
use crate::node::life::Life;
use crate::node::{Node, Particulars, UnpublishedNode};
use crate::reap::Cause;
use crate::shard::ShardRef;
use crate::shard::evict::Evicted;
use crate::shard::expiry::{Look, Looker};
use crate::shard::locked::{BacklogExhausted, Locked};
use crate::shard::reserve::{Busy, Ending, ReservationId};
use crate::shard::settings::RegistrySettings;
use crate::shard::state::Special;
use crate::table::{Located, Position, Table};
use crate::util::check;
use crate::util::clock::Time;
use std::convert::Infallible;
use std::ptr::NonNull;
use std::sync::Arc;

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

/// When a write publishes its node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    /// If the key is not taken.
    New,
    /// If there is an entry to replace.
    Old,
    /// In either case.
    Any,
}

/// Why a write did not publish its node.
pub(super) enum NotPut<K: 'static, V: 'static, E> {
    /// The key is taken.
    Taken(Rejected<K, V>),
    /// A replacement was not possible.
    Not(NotReplaced<K, V, E>),
    /// There is no room within the bounds, and the node may be refused.
    NoRoom(UnpublishedNode<K, V>),
}

/// Where a node is published, found under the lock, which is still held.
struct Place<'s, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    locked: Locked<'s, K, V>,
    table: Table<K, V>,
    /// The entry to replace. Room in the backlog is reserved for it.
    found: Located<K, V>,
    /// Why that entry leaves.
    cause: Cause,
}

/// Why there is no place for a node.
enum NoPlace<K: 'static, V: 'static, E> {
    /// The key is taken, by this entry.
    Taken(Handle<K, V>),
    /// There is no entry to replace.
    Absent,
    /// There is no room in the backlog.
    Full(E),
    /// There is no room within the bounds, and the node may be refused.
    NoRoom,
    /// The key is reserved by another writer, for which the caller waits.
    Reserved(Busy),
}

/// An entry whose key its caller has reserved.
pub(crate) struct ReservedEntry<K, V> {
    pub(crate) key: Arc<K>,
    pub(crate) value: V,
    pub(crate) particulars: Particulars,
    pub(crate) id: ReservationId,
}

/// An entry that was not published, although its key was reserved. The reservation has ended.
pub(crate) struct NotPutReserved<V, E> {
    pub(crate) value: V,
    /// Why the backlog is full. `None` if there was no entry to replace.
    pub(crate) full: Option<E>,
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
    /// Finds out whether an entry in the table has expired. The caller holds the lock.
    fn look(self, node: NonNull<Node<K, V>>, now: Time, settings: &RegistrySettings<K, V>) -> Look {
        // SAFETY: S1 (the shard lock is held; the node is in the table).
        let Some(life) = (unsafe { self.life_of(node) }) else { return Look::Lives };
        // SAFETY: S1 (the shard lock is held; the node is in the table).
        settings.lifetimes.look(unsafe { node.as_ref() }, life, now, Looker::WRITER)
    }

    /// Releases the lock, lets the lifetime function say whether an entry lives on, and takes the lock again. The
    /// shard may have changed in between.
    fn ask(
        self,
        locked: Locked<'s, K, V>,
        node: NonNull<Node<K, V>>,
        now: Time,
        settings: &RegistrySettings<K, V>,
    ) -> Locked<'s, K, V> {
        // SAFETY: S1 (the shard lock is held; the node is in the table).
        let entry = unsafe { handle_on(node) };
        drop(locked);
        // SAFETY: the handle keeps the node alive.
        if let Some(life) = unsafe { self.life_of(node) } {
            settings.lifetimes.look(entry.get(), life, now, Looker::HOLDER);
        }
        // Not under the lock: if this is the last handle, its drop may wake an executor, which is user code.
        drop(entry);
        self.lock()
    }

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

    #[inline(never)]
    fn insert_special(
        self,
        locked: Locked<'s, K, V>,
        unpublished: UnpublishedNode<K, V>,
        wanted: Wanted,
        settings: &RegistrySettings<K, V>,
    ) -> Result<Option<Handle<K, V>>, Rejected<K, V>>
    where
        K: Eq,
    {
        let locate = |table: Table<K, V>, unpublished: &UnpublishedNode<K, V>| {
            table.locate(unpublished.particulars.hash, |found| check::eq(|| found.key() == &unpublished.key))
        };
        match self.put_special(locked, unpublished, locate, Put::New, wanted, &mut IfFull::go_on(), settings) {
            Ok(published) => Ok(published.new),
            Err(NotPut::Taken(rejected)) => Err(rejected),
            Err(NotPut::Not(_) | NotPut::NoRoom(_)) => unreachable!("an insertion fails only if its key is taken"),
        }
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

    #[inline(never)]
    #[allow(clippy::too_many_arguments)]
    fn replace_special<E: Failure>(
        self,
        locked: Locked<'s, K, V>,
        unpublished: UnpublishedNode<K, V>,
        locate: impl FnMut(Table<K, V>, &UnpublishedNode<K, V>) -> Located<K, V>,
        or_insert: bool,
        wanted: Wanted,
        if_full: &mut IfFull<E>,
        settings: &RegistrySettings<K, V>,
    ) -> Result<Published<K, V>, NotReplaced<K, V, E>>
    where
        K: Eq,
    {
        let put = if or_insert { Put::Any } else { Put::Old };
        match self.put_special(locked, unpublished, locate, put, wanted, if_full, settings) {
            Ok(published) => Ok(published),
            Err(NotPut::Not(reason)) => Err(reason),
            Err(NotPut::Taken(_)) => unreachable!("a replacement does not fail because its key is taken"),
            Err(NotPut::NoRoom(_)) => unreachable!("only an admission is refused"),
        }
    }

    /// Publishes a node in a shard that uses special features. An entry that has expired counts as absent, and is
    /// replaced. Waits while the key is reserved.
    ///
    /// When this returns, the listener is told of the entries that were evicted to make room, or had expired.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn put_special<E: Failure>(
        self,
        mut locked: Locked<'s, K, V>,
        mut unpublished: UnpublishedNode<K, V>,
        mut locate: impl FnMut(Table<K, V>, &UnpublishedNode<K, V>) -> Located<K, V>,
        put: Put,
        mut wanted: Wanted,
        if_full: &mut IfFull<E>,
        settings: &RegistrySettings<K, V>,
    ) -> Result<Published<K, V>, NotPut<K, V, E>>
    where
        K: Eq,
    {
        wanted.new |= settings.listeners.tells_insertions();
        let mut evicted = Evicted::new(&settings.listeners, Cause::Capacity);
        loop {
            let is_key = |key: &K| *key == unpublished.key;
            let locate = |table: Table<K, V>| locate(table, &unpublished);
            let particulars = &unpublished.particulars;
            match self.make_place(locked, particulars, is_key, locate, put, if_full, &mut evicted, settings) {
                Ok(place) => return Ok(self.fill(place, unpublished, wanted, &mut evicted, settings)),
                Err(NoPlace::Taken(holder)) => return Err(NotPut::Taken(Rejected { unpublished, holder })),
                Err(NoPlace::Absent) => return Err(NotPut::Not(NotReplaced::Absent(unpublished))),
                Err(NoPlace::Full(full)) => return Err(NotPut::Not(NotReplaced::Full(unpublished, full))),
                Err(NoPlace::NoRoom) => return Err(NotPut::NoRoom(unpublished)),
                Err(NoPlace::Reserved(busy)) => {
                    // What was evicted before does not wait with this write.
                    evicted.tell();
                    busy.wait();
                    evicted.found_none = false;
                    settings.retime(&mut unpublished);
                    locked = self.lock();
                }
            }
        }
    }

    /// Publishes an entry of a key that the caller has reserved. Replaces the entry `old`, or, if `old` is not given, the
    /// entry of the key, if there is one.
    ///
    /// Ends the reservation: in the hold of the lock in which it publishes the entry, or otherwise before it drops
    /// anything, calls the listener, or returns. Code of the user that runs before is within
    /// [`run_reserved`](ShardRef::run_reserved) (K5).
    ///
    /// # Errors
    ///
    /// If `old` has left the table, or if the backlog has no room and `if_full` lets the operation fail.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn put_reserved<E: Failure>(
        self,
        reserved: ReservedEntry<K, V>,
        old: Option<NonNull<Node<K, V>>>,
        mut wanted: Wanted,
        if_full: &mut IfFull<E>,
        settings: &RegistrySettings<K, V>,
    ) -> Result<Published<K, V>, NotPutReserved<V, E>>
    where
        K: Eq,
    {
        wanted.new |= settings.listeners.tells_insertions();
        let ReservedEntry { key, value, particulars, id } = reserved;
        let mut evicted = Evicted::new(&settings.listeners, Cause::Capacity);
        evicted.defers_reclamation = true;
        // After the value and `evicted`, and so dropped before them.
        let ending = Ending { shard: self, hash: particulars.hash, id };
        let locate = |table: Table<K, V>| match old {
            Some(old) => table.locate_exact(old),
            None => table.locate(particulars.hash, |found| check::eq(|| *found.key() == *key)),
        };
        let put = if old.is_some() { Put::Old } else { Put::Any };
        // No other reservation has this key (K1).
        let is_key = |_: &K| false;
        let place = self.run_reserved(id, || {
            self.make_place(self.lock(), &particulars, is_key, locate, put, if_full, &mut evicted, settings)
        });
        let full = match place {
            Ok(mut place) => {
                let key = place.locked.end_to_publish(particulars.hash, id, key);
                let published =
                    self.fill(place, UnpublishedNode { key, value, particulars }, wanted, &mut evicted, settings);
                std::mem::forget(ending);
                return Ok(published);
            }
            Err(NoPlace::Full(full)) => Some(full),
            Err(NoPlace::Absent | NoPlace::Taken(_) | NoPlace::NoRoom | NoPlace::Reserved(_)) => None,
        };
        drop(ending);
        Err(NotPutReserved { value, full })
    }

    /// Unlinks the entry of a key that the caller has reserved, and ends the reservation in the same hold of the lock.
    /// Returns a handle to the entry, if there is one.
    pub(crate) fn remove_reserved(
        self,
        hash: u64,
        key: &K,
        id: ReservationId,
        now: Time,
        settings: &RegistrySettings<K, V>,
    ) -> Option<Handle<K, V>>
    where
        K: Eq,
    {
        let ending = Ending { shard: self, hash, id };
        let locate = |table: Table<K, V>| table.locate(hash, |found| check::eq(|| found.key() == key));
        let if_full = &mut IfFull::<Infallible>::go_on();
        let locked = self.lock();
        let Ok(left) = self.remove_special(
            locked,
            hash,
            |_| false,
            locate,
            Cause::Removed,
            true,
            Some(id),
            if_full,
            now,
            settings,
        );
        // The removal has ended the reservation. `ending` is for a panic.
        std::mem::forget(ending);
        left.into_handle()
    }

    /// Finds or makes the place for a node in a shard that uses special features: evicts other entries if the bounds
    /// require that, and reserves room in the backlog for the entry that the node replaces.
    #[allow(clippy::too_many_arguments)]
    fn make_place<E: Failure>(
        self,
        mut locked: Locked<'s, K, V>,
        particulars: &Particulars,
        mut is_key: impl FnMut(&K) -> bool,
        mut locate: impl FnMut(Table<K, V>) -> Located<K, V>,
        put: Put,
        if_full: &mut IfFull<E>,
        evicted: &mut Evicted<'_, K, V>,
        settings: &RegistrySettings<K, V>,
    ) -> Result<Place<'s, K, V>, NoPlace<K, V, E>> {
        let Particulars { hash, time, weight, .. } = *particulars;
        loop {
            if locked.special.has(Special::RESERVED) {
                if let Some(busy) = locked.must_wait(hash, &mut is_key) {
                    return Err(NoPlace::Reserved(busy));
                }
            }
            let table = locked.table_for(hash, self);
            let found = locate(table);
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
                        // SAFETY: S1 (the shard lock is held; the node is in the table).
                        let holder = unsafe { handle_on(old) };
                        locked.finish();
                        return Err(NoPlace::Taken(holder));
                    }
                    Look::Lives | Look::Spared => {}
                }
            }
            if put == Put::Old && (old.is_none() || cause != Cause::Replaced) {
                return Err(NoPlace::Absent);
            }
            let retry = if !evicted.found_none && !locked.fits_bounds(weight.bytes(), old) {
                self.evict_to_fit(locked, weight.bytes(), old, if_full, evicted)
            } else if !locked.admits(particulars, old, evicted) {
                return Err(NoPlace::NoRoom);
            } else if let Some((position, old)) = found {
                // SAFETY: S1 (the shard lock is held; `old` is in the table).
                match unsafe { locked.reserve_backlog(old) } {
                    Ok(()) => {
                        // L2: claims the entry before it is replaced. If the entry has ended since the look, it
                        // is absent.
                        // SAFETY: S1 (the shard lock is held; `old` is in the table).
                        if let Some(why) = unsafe { self.life_of(old) }.and_then(Life::claim) {
                            cause = why;
                        }
                        if put == Put::Old && cause != Cause::Replaced {
                            // SAFETY: `old` was found under the lock, which is still held, and room for it is
                            // reserved.
                            unsafe { self.unlink_expired(&mut locked, table, position, old, cause, evicted) };
                            locked.finish();
                            return Err(NoPlace::Absent);
                        }
                        return Ok(Place { locked, table, found, cause });
                    }
                    Err(BacklogExhausted(bytes)) => self.relock_with_reservation(locked, bytes, if_full),
                }
            } else {
                return Ok(Place { locked, table, found, cause });
            };
            match retry {
                Ok(again) => locked = again,
                Err(full) => return Err(NoPlace::Full(full)),
            }
        }
    }

    /// Publishes a node in its place, and releases the lock.
    fn fill(
        self,
        place: Place<'s, K, V>,
        unpublished: UnpublishedNode<K, V>,
        wanted: Wanted,
        evicted: &mut Evicted<'_, K, V>,
        settings: &RegistrySettings<K, V>,
    ) -> Published<K, V> {
        let Place { mut locked, table, found, cause } = place;
        let Particulars { hash, weight, .. } = unpublished.particulars;
        let node = locked.allocate_to_live(unpublished, 1 + u32::from(wanted.new), &settings.lifetimes);
        let mut left = Departed::None;
        if let Some((position, old)) = found {
            let wants_old = if cause == Cause::Replaced { wanted.old } else { settings.listeners.is_some() };
            // SAFETY: `old` was found under the lock, which is still held, and room for it is reserved.
            left = unsafe { locked.swap(table, position, old, node, weight.bytes(), cause, wants_old, true) };
            if cause != Cause::Replaced {
                evicted.add(cause, std::mem::replace(&mut left, Departed::None).into_handle());
            }
        } else {
            locked.publish(table, hash, node, self);
        }
        self.end_put(locked, node, wanted, left, evicted, settings)
    }

    /// Finishes a write that has published its node: sets the timer of the entry, and releases the lock.
    fn end_put(
        self,
        mut locked: Locked<'s, K, V>,
        node: NonNull<Node<K, V>>,
        wanted: Wanted,
        old: Departed<K, V>,
        told: &mut Evicted<'_, K, V>,
        settings: &RegistrySettings<K, V>,
    ) -> Published<K, V> {
        if locked.special.has(Special::EXPIRING) {
            locked.arm(node, Time::ZERO, &settings.lifetimes, self);
        }
        if told.goes_beyond {
            self.counts.overruns.add(1);
        }
        locked.finish();
        // SAFETY: `allocate_to_live` made the node with a reference for this handle.
        let new = wanted.new.then(|| unsafe { Handle::from_reference(node) });
        if settings.listeners.tells_insertions() {
            new.iter().for_each(|new| told.add_insertion(old.handle(), new.clone()));
        }
        Published { new, old }
    }

    /// Unlinks an entry that has expired.
    ///
    /// # Safety
    ///
    /// The entry was found at `position` of the newest table under the lock, which is still held. If the backlog
    /// is limited, room for it is reserved.
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
        locked.cut_link(node);
        // SAFETY: R1 (the table's reference is not put before a grace period has passed).
        self.counts.leave(cause, unsafe { node.as_ref() }.header.weight.bytes());
        // SAFETY: S3 (the node was unlinked above, and the caller has reserved room for it).
        let left = unsafe { locked.discard_as(node, expired.wants_entries()) };
        expired.add(cause, left.into_handle());
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

    /// Does the same in a shard that uses special features. If the caller has reserved the key, ends the reservation in the
    /// hold of the lock that decides.
    #[inline(never)]
    #[allow(clippy::too_many_arguments)]
    fn remove_special<E: Failure>(
        self,
        mut locked: Locked<'s, K, V>,
        hash: u64,
        mut is_key: impl FnMut(&K) -> bool,
        mut locate: impl FnMut(Table<K, V>) -> Located<K, V>,
        cause: Cause,
        wants_handle: bool,
        reserved: Option<ReservationId>,
        if_full: &mut IfFull<E>,
        mut now: Time,
        settings: &RegistrySettings<K, V>,
    ) -> Result<Departed<K, V>, E> {
        let by_time = matches!(cause, Cause::Expired | Cause::Idle);
        loop {
            if locked.special.has(Special::RESERVED) {
                if let Some(busy) = locked.must_wait(hash, &mut is_key) {
                    drop(locked);
                    busy.wait();
                    now = if settings.lifetimes.expires() { settings.clock.now() } else { Time::ZERO };
                    locked = self.lock();
                    continue;
                }
            }
            let table = locked.table_for(hash, self);
            let Some((position, node)) = locate(table) else {
                reserved.into_iter().for_each(|id| locked.end_reservation(hash, id));
                return Ok(Departed::None);
            };
            let look = if by_time { Look::Lives } else { self.look(node, now, settings) };
            if let Look::Unknown = look {
                locked = match reserved {
                    Some(id) => self.run_reserved(id, || self.ask(locked, node, now, settings)),
                    None => self.ask(locked, node, now, settings),
                };
                continue;
            }
            // SAFETY: S1 (the shard lock is held; the node is in the table).
            let admitted = unsafe { locked.reserve_backlog(node) };
            if let (Look::Lives | Look::Spared, Err(BacklogExhausted(bytes))) = (look, &admitted) {
                locked = match reserved {
                    Some(id) => self.run_reserved(id, || self.relock_with_reservation(locked, *bytes, if_full))?,
                    None => self.relock_with_reservation(locked, *bytes, if_full)?,
                };
                continue;
            }
            reserved.into_iter().for_each(|id| locked.end_reservation(hash, id));
            match (look, admitted) {
                (Look::Ended(cause), Ok(())) => {
                    let mut expired = Evicted::new(&settings.listeners, cause);
                    // After `expired`, and so dropped before it, also by a panic: listeners are not called under the
                    // lock (S2).
                    let mut locked = locked;
                    // SAFETY: the node was found under the lock, which is still held, and room for it is
                    // reserved.
                    unsafe { self.unlink_expired(&mut locked, table, position, node, cause, &mut expired) };
                    locked.shrink_if_sparse(self);
                    locked.finish();
                    return Ok(Departed::None);
                }
                (_, Ok(())) => {
                    // SAFETY: the node was found under the lock, which is still held, and room for it is reserved.
                    return Ok(unsafe { self.unlink(locked, table, position, node, cause, wants_handle, true) });
                }
                // The entry stays for a reaper. It counts as absent, so the removal does not wait for room.
                (_, Err(_)) => return Ok(Departed::None),
            }
        }
    }

    /// Unlinks a node, and releases the lock. `is_special` says whether the shard uses special features.
    ///
    /// # Safety
    ///
    /// The node was found at `position` of the newest table under the lock, which is still held. If the backlog
    /// is limited, room for it is reserved.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    unsafe fn unlink(
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
    unsafe fn swap(
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
    unsafe fn discard_as(&mut self, node: NonNull<Node<K, V>>, wants_handle: bool) -> Departed<K, V> {
        if wants_handle {
            // SAFETY: S3 (the caller has unlinked the node, and reserved room for it if the backlog is limited).
            return Departed::With(unsafe { self.discard_to_handle(node) });
        }
        // SAFETY: S3 (the caller has unlinked the node, and reserved room for it if the backlog is limited).
        unsafe { self.discard(node) };
        Departed::Quietly
    }
}
