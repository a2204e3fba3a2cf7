//! Writes in shards that use special features: all that [`Special`] lists, such as a resize under way, bounds, a limited
//! backlog, expiry, listeners of insertions, reserved keys, and weak handles.

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
use crate::shard::reserve::{Blocker, ReservationId};
use crate::shard::settings::RegistrySettings;
use crate::shard::state::Special;
use crate::shard::write::{Departed, NotReplaced, Published, Rejected, Wanted, handle_on};
use crate::table::{Located, Position, Table};
use crate::util::check;
use crate::util::clock::Time;
use std::ptr::NonNull;

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

/// Where a node is to be published, found under the lock, which is still held.
pub(super) struct Site<'s, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    pub(super) locked: Locked<'s, K, V>,
    table: Table<K, V>,
    /// The entry to replace. Room in the backlog is reserved for it.
    found: Located<K, V>,
    /// Why that entry leaves.
    cause: Cause,
}

/// Why there is no site for a node.
pub(super) enum NoSite<K: 'static, V: 'static, E> {
    /// The key is taken, by this entry.
    Taken(Handle<K, V>),
    /// There is no entry to replace.
    Absent,
    /// There is no room in the backlog.
    Full(E),
    /// There is no room within the bounds, and the node may be refused.
    NoRoom,
    /// The key is reserved by another writer, for which the caller waits.
    Reserved(Blocker),
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

    #[inline(never)]
    pub(super) fn insert_special(
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

    #[inline(never)]
    #[allow(clippy::too_many_arguments)]
    pub(super) fn replace_special<E: Failure>(
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
            match self.find_site(locked, particulars, is_key, locate, put, if_full, &mut evicted, settings) {
                Ok(site) => return Ok(self.fill(site, unpublished, wanted, &mut evicted, settings)),
                Err(NoSite::Taken(holder)) => return Err(NotPut::Taken(Rejected { unpublished, holder })),
                Err(NoSite::Absent) => return Err(NotPut::Not(NotReplaced::Absent(unpublished))),
                Err(NoSite::Full(full)) => return Err(NotPut::Not(NotReplaced::Full(unpublished, full))),
                Err(NoSite::NoRoom) => return Err(NotPut::NoRoom(unpublished)),
                Err(NoSite::Reserved(blocker)) => {
                    // What was evicted before does not wait with this write.
                    evicted.tell();
                    blocker.wait();
                    evicted.found_none = false;
                    settings.retime(&mut unpublished);
                    locked = self.lock();
                }
            }
        }
    }

    /// Finds the site for a node in a shard that uses special features: evicts other entries if the bounds
    /// require that, and reserves room in the backlog for the entry that the node replaces.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn find_site<E: Failure>(
        self,
        mut locked: Locked<'s, K, V>,
        particulars: &Particulars,
        mut is_key: impl FnMut(&K) -> bool,
        mut locate: impl FnMut(Table<K, V>) -> Located<K, V>,
        put: Put,
        if_full: &mut IfFull<E>,
        evicted: &mut Evicted<'_, K, V>,
        settings: &RegistrySettings<K, V>,
    ) -> Result<Site<'s, K, V>, NoSite<K, V, E>> {
        let Particulars { hash, time, weight, .. } = *particulars;
        loop {
            if locked.special.has(Special::RESERVED) {
                if let Some(blocker) = locked.must_wait(hash, &mut is_key) {
                    return Err(NoSite::Reserved(blocker));
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
                        return Err(NoSite::Taken(holder));
                    }
                    Look::Lives | Look::Spared => {}
                }
            }
            if put == Put::Old && (old.is_none() || cause != Cause::Replaced) {
                return Err(NoSite::Absent);
            }
            let retry = if !evicted.found_none && !locked.fits_bounds(weight.bytes(), old) {
                self.evict_to_fit(locked, weight.bytes(), old, if_full, evicted)
            } else if !locked.admits(particulars, old, evicted) {
                return Err(NoSite::NoRoom);
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
                            return Err(NoSite::Absent);
                        }
                        return Ok(Site { locked, table, found, cause });
                    }
                    Err(BacklogExhausted(bytes)) => self.relock_with_reservation(locked, bytes, if_full),
                }
            } else {
                return Ok(Site { locked, table, found, cause });
            };
            match retry {
                Ok(again) => locked = again,
                Err(full) => return Err(NoSite::Full(full)),
            }
        }
    }

    /// Publishes a node at its site, and releases the lock.
    pub(super) fn fill(
        self,
        site: Site<'s, K, V>,
        unpublished: UnpublishedNode<K, V>,
        wanted: Wanted,
        evicted: &mut Evicted<'_, K, V>,
        settings: &RegistrySettings<K, V>,
    ) -> Published<K, V> {
        let Site { mut locked, table, found, cause } = site;
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

    /// Does the same as [`remove`](Self::remove), in a shard that uses special features. If the caller has reserved the key, ends the reservation in the
    /// hold of the lock that decides.
    #[inline(never)]
    #[allow(clippy::too_many_arguments)]
    pub(super) fn remove_special<E: Failure>(
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
                if let Some(blocker) = locked.must_wait(hash, &mut is_key) {
                    drop(locked);
                    blocker.wait();
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
}
