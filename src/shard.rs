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
//! - **S3** A node is unlinked before it is retired, and retired once, by the thread that unlinked it, under the same lock.
//! - **S4** Nothing that can panic stands between the two halves of a change: a node is counted, and then published; unlinked,
//!   and then retired.

#![allow(unsafe_code)]

use crate::check;
use crate::clock::{Time, coarse_ticks};
use crate::core::Settings;
use crate::counts::Counts;
use crate::domain::{Backlog, Bag, Bags, Domain, Full, Reclaimed, Refusal, RegistryHeader, ShardHeader, shard_locked};
use crate::evict::{Bounds, Evicted};
use crate::expiry::{Look, Looker};
use crate::handle::Handle;
use crate::life::{Early, Life};
use crate::listener::Cause;
use crate::locked::{Locked, NoRoom};
use crate::node::{Draft, Header, Node};
use crate::prefetch;
use crate::resize::{Special, State, Work, retire_table};
use crate::slab::{Shape, Slabs, Sweep, shard_of};
use crate::sync::{BAG, Mutex};
use crate::table::{Located, Position, Root, Table};
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// The writers' side of a shard. The first field is what nodes and the domain know of it.
#[repr(C)]
pub(crate) struct Shard<K: 'static, V: 'static> {
    header: ShardHeader,
    state: Mutex<State<K, V>>,
    pub(crate) counts: Counts,
    /// The lives of the nodes that were there when the shard was told to expire, if that was later than when it was built (L3). (Of
    /// std's type: it is set once, before a reader looks for it.)
    early: OnceLock<Early>,
    looks: Looks,
}

/// Where the counts of a shard begin: on a line of their own, whatever the types of key and value.
const COUNTS: usize = std::mem::offset_of!(Shard<u8, u8>, counts);

/// When a write that has retired nothing looks for something to reclaim. (Not modelled by loom: only a hint.)
///
/// Every write does if writes are rare. Of writes in quick succession, only some do: a look reads the clock.
#[derive(Default)]
struct Looks {
    /// The coarse tick of the last look.
    last: AtomicU64,
    /// Writes that are still to pass without a look.
    pass: AtomicU32,
}

impl Looks {
    /// Writes between two looks in one tick.
    const PASS: u32 = 16;

    fn is_due(&self) -> bool {
        // ORDERING: Relaxed, all of them: hints.
        let pass = self.pass.load(Relaxed);
        if pass > 0 && !cfg!(loom) {
            self.pass.store(pass - 1, Relaxed);
            return false;
        }
        let now = coarse_ticks();
        if self.last.load(Relaxed) == now {
            self.pass.store(Self::PASS, Relaxed);
        } else {
            self.last.store(now, Relaxed);
        }
        true
    }
}

/// A shard and its root.
pub(crate) struct ShardRef<'s, K: 'static, V: 'static> {
    shard: &'s Shard<K, V>,
    pub(crate) root: &'s Root<K, V>,
}

impl<K, V> Clone for ShardRef<'_, K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for ShardRef<'_, K, V> {}

impl<K, V> Deref for ShardRef<'_, K, V> {
    type Target = Shard<K, V>;

    #[inline]
    fn deref(&self) -> &Shard<K, V> {
        self.shard
    }
}

/// A draft whose key is taken, and the entry that has it.
pub(crate) struct Rejected<K: 'static, V: 'static> {
    pub(crate) draft: Draft<K, V>,
    pub(crate) holder: Handle<K, V>,
}

/// Why a draft was not published.
pub(crate) enum NotReplaced<K: 'static, V: 'static> {
    /// There is no entry to replace.
    Absent(Draft<K, V>),
    /// There is no room in the backlog.
    Full(Draft<K, V>),
}

impl<K, V> NotReplaced<K, V> {
    pub(crate) fn into_draft(self) -> Draft<K, V> {
        match self {
            NotReplaced::Absent(draft) | NotReplaced::Full(draft) => draft,
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

/// Why a draft was not published.
enum NotPut<K: 'static, V: 'static> {
    Taken(Rejected<K, V>),
    Not(NotReplaced<K, V>),
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
    pub(crate) old: Left<K, V>,
}

/// Whether an entry has left the table.
pub(crate) enum Left<K: 'static, V: 'static> {
    None,
    /// Without a reference to it.
    Quietly,
    With(Handle<K, V>),
}

impl<K, V> Left<K, V> {
    pub(crate) fn is_some(&self) -> bool {
        !matches!(self, Left::None)
    }

    pub(crate) fn handle(&self) -> Option<&Handle<K, V>> {
        if let Left::With(handle) = self { Some(handle) } else { None }
    }

    pub(crate) fn into_handle(self) -> Option<Handle<K, V>> {
        if let Left::With(handle) = self { Some(handle) } else { None }
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

impl<K, V> Shard<K, V> {
    #[inline]
    pub(crate) fn header(&self) -> &ShardHeader {
        &self.header
    }

    #[inline]
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(crate) fn live(&self) -> u64 {
        self.counts.live.get()
    }

    #[inline]
    pub(crate) fn domain(&self) -> &Domain {
        &self.header.registry().domain
    }

    /// The life of a node of this shard, if it has one.
    ///
    /// # Safety
    ///
    /// The node is not freed before the reference that is returned is gone.
    #[inline]
    pub(crate) unsafe fn life_of(&self, node: NonNull<Node<K, V>>) -> Option<&Life> {
        // SAFETY: the caller's promise.
        let life = unsafe { Node::life(node) };
        life.or_else(|| self.early.get()?.get(node.addr().get()))
    }

    /// Asks for the lines that a write changes, by the order of fields in [`State`] and [`Counts`].
    #[inline]
    pub(crate) fn prefetch_to_write(&self) {
        prefetch::to_write::<0, _>(self);
        prefetch::to_write::<64, _>(self);
        prefetch::to_write::<COUNTS, _>(self);
    }
}

impl<K, V> Shard<K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// How the nodes lie in their slabs.
    const SHAPE: Shape = Shape::of(Node::<K, V>::layout(false), false);
    /// The same where they have lives.
    const SHAPE_WITH_LIVES: Shape = Shape::of(Node::<K, V>::layout(true), true);

    pub(crate) fn new(registry: NonNull<RegistryHeader>, table: Table<K, V>, bounds: Bounds, expires: bool) -> Self {
        const { assert!(std::mem::offset_of!(Self, counts) == COUNTS) };
        // SAFETY: the registry is there (it is being built).
        let domain = unsafe { registry.as_ref() }.domain.inner();
        let budget = &domain.budget;
        let mut special = Special::NONE;
        special.set(Special::BOUNDED, bounds.are_set());
        special.set(Special::LIMITED, budget.is_limited());
        special.set(Special::EXPIRING, expires);
        let usual_work = if domain.do_writers_look() { Work::LOOK } else { Work::NONE };
        let state = State {
            table,
            special,
            work: usual_work,
            usual_work,
            place: None,
            open: None,
            slabs: Slabs::new(if expires { Self::SHAPE_WITH_LIVES } else { Self::SHAPE }),
            early_slabs: None,
            resize: None,
            bounds,
            is_dirty: false,
            spare: None,
            allowance: budget.first_allowance(),
            old_table: None,
            floor: table.buckets(),
            hand: Box::default(),
            timers: Box::default(),
        };
        let (header, counts) = (ShardHeader::new(registry), Counts::new(table, bounds));
        Shard { header, state: Mutex::new(state), counts, early: OnceLock::new(), looks: Looks::default() }
    }
}

impl<'s, K, V> ShardRef<'s, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    #[inline]
    pub(crate) fn new(shard: &'s Shard<K, V>, root: &'s Root<K, V>) -> Self {
        ShardRef { shard, root }
    }

    #[inline]
    pub(crate) fn shard(self) -> &'s Shard<K, V> {
        self.shard
    }

    #[inline]
    pub(crate) fn domain(self) -> &'s Domain {
        self.shard.domain()
    }

    #[inline]
    pub(crate) fn header(self) -> &'s ShardHeader {
        self.shard.header()
    }

    #[inline]
    pub(crate) fn lock(self) -> Locked<'s, K, V> {
        assert!(!shard_locked(), "a write to a registry from within the `Eq` of a key, which runs under a shard lock");
        Locked::new(self, self.shard.state.lock())
    }

    /// What a write does for the reclamation of the domain, after the lock.
    #[cold]
    #[inline(never)]
    pub(crate) fn assist(self, work: Work) {
        let domain = self.domain().inner();
        if work != Work::LOOK || self.shard.looks.is_due() && domain.has_work() {
            domain.assist(work.handed_over());
        }
    }

    /// Lets go of the lock, makes room in the backlog for a node of so many bytes, and takes the lock again: everything may
    /// have changed.
    pub(crate) fn lock_with_room(
        self,
        locked: Locked<'_, K, V>,
        bytes: u64,
        refusal: &mut Refusal,
    ) -> Result<Locked<'s, K, V>, Full> {
        drop(locked);
        self.domain().inner().make_room(bytes, refusal)?;
        let mut locked = self.lock();
        locked.place = Some(bytes);
        Ok(locked)
    }

    /// Adds all nodes to `found`: in the order of their memory, if they lie in slabs.
    pub(crate) fn list_in_memory_order(self, found: &mut Vec<NonNull<Node<K, V>>>) {
        assert!(
            !shard_locked(),
            "an iteration in memory order from within the `Eq` of a key, which runs under a shard lock"
        );
        let state = self.shard.state.lock();
        if state.slabs.can_sweep() && state.early_slabs.is_none() {
            found.reserve(self.shard.live() as usize);
            state.slabs.for_each_in_table(|node| found.push(node.cast()));
        } else {
            found.append(&mut state.table.nodes());
        }
    }

    /// Prepares for entries that expire (L3), if that is not done yet.
    pub(crate) fn extend(self) {
        let mut locked = self.lock();
        if let Some(early) = locked.extend(Shard::<K, V>::SHAPE_WITH_LIVES) {
            let _ = self.shard.early.set(early);
        }
    }

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

    /// Publishes a draft, unless its key is taken. Returns a handle if one is wanted.
    #[inline(always)]
    pub(crate) fn insert(
        self,
        draft: Draft<K, V>,
        wanted: Wanted,
        settings: &Settings<K, V>,
    ) -> Result<Option<Handle<K, V>>, Rejected<K, V>>
    where
        K: Eq,
    {
        let mut locked = self.lock();
        if locked.special != Special::NONE {
            return self.insert_special(locked, draft, wanted, settings);
        }
        let table = locked.table;
        if let Some((_, holder)) = table.locate(draft.hash, |found| check::eq(|| found.key() == &draft.key)) {
            // SAFETY: S1.
            let holder = unsafe { handle_on(holder) };
            locked.finish();
            return Err(Rejected { draft, holder });
        }
        let hash = draft.hash;
        let node = locked.allocate(draft, 1 + u32::from(wanted.new));
        locked.publish(table, hash, node, self);
        locked.finish();
        // SAFETY: it was made with a reference for this handle.
        Ok(wanted.new.then(|| unsafe { Handle::from_reference(node) }))
    }

    #[inline(never)]
    fn insert_special(
        self,
        locked: Locked<'s, K, V>,
        draft: Draft<K, V>,
        wanted: Wanted,
        settings: &Settings<K, V>,
    ) -> Result<Option<Handle<K, V>>, Rejected<K, V>>
    where
        K: Eq,
    {
        let locate = |table: Table<K, V>, draft: &Draft<K, V>| {
            table.locate(draft.hash, |found| check::eq(|| found.key() == &draft.key))
        };
        match self.put_special(locked, draft, locate, Put::New, wanted, Refusal::Impossible, settings) {
            Ok(published) => Ok(published.new),
            Err(NotPut::Taken(rejected)) => Err(rejected),
            Err(NotPut::Not(_)) => unreachable!("an insertion replaces nothing, and waits or goes on"),
        }
    }

    /// Publishes a draft in the place of the entry that `locate` finds, or, if there is none and `or_insert` is set, as a new one.
    #[inline(always)]
    pub(crate) fn replace(
        self,
        draft: Draft<K, V>,
        mut locate: impl FnMut(Table<K, V>, &Draft<K, V>) -> Located<K, V>,
        or_insert: bool,
        wanted: Wanted,
        refusal: Refusal,
        settings: &Settings<K, V>,
    ) -> Result<Published<K, V>, NotReplaced<K, V>> {
        let mut locked = self.lock();
        if locked.special != Special::NONE {
            return self.replace_special(locked, draft, locate, or_insert, wanted, refusal, settings);
        }
        let table = locked.table;
        let found = locate(table, &draft);
        if found.is_none() && !or_insert {
            return Err(NotReplaced::Absent(draft));
        }
        let (hash, weight) = (draft.hash, draft.weight.bytes());
        let node = locked.allocate(draft, 1 + u32::from(wanted.new));
        let old = match found {
            // SAFETY: found under this lock; nothing is limited.
            Some((position, old)) => unsafe {
                locked.swap(table, position, old, node, weight, Cause::Replaced, wanted.old)
            },
            None => {
                locked.publish(table, hash, node, self);
                Left::None
            }
        };
        locked.finish();
        // SAFETY: it was made with a reference for this handle.
        let new = wanted.new.then(|| unsafe { Handle::from_reference(node) });
        Ok(Published { new, old })
    }

    #[inline(never)]
    #[allow(clippy::too_many_arguments)]
    fn replace_special(
        self,
        locked: Locked<'s, K, V>,
        draft: Draft<K, V>,
        locate: impl FnMut(Table<K, V>, &Draft<K, V>) -> Located<K, V>,
        or_insert: bool,
        wanted: Wanted,
        refusal: Refusal,
        settings: &Settings<K, V>,
    ) -> Result<Published<K, V>, NotReplaced<K, V>> {
        let put = if or_insert { Put::Any } else { Put::Old };
        match self.put_special(locked, draft, locate, put, wanted, refusal, settings) {
            Ok(published) => Ok(published),
            Err(NotPut::Not(reason)) => Err(reason),
            Err(NotPut::Taken(_)) => unreachable!("a replacement takes the place of what has the key"),
        }
    }

    /// Publishes a draft where there is something to mind. An entry that has expired is replaced, and counts as absent.
    ///
    /// What was evicted to make room, or had expired, is told to listeners when this returns.
    #[allow(clippy::too_many_arguments)]
    fn put_special(
        self,
        mut locked: Locked<'s, K, V>,
        draft: Draft<K, V>,
        mut locate: impl FnMut(Table<K, V>, &Draft<K, V>) -> Located<K, V>,
        put: Put,
        wanted: Wanted,
        mut refusal: Refusal,
        settings: &Settings<K, V>,
    ) -> Result<Published<K, V>, NotPut<K, V>> {
        let mut evicted = Evicted::new(&settings.listeners, Cause::Capacity);
        let (hash, weight, time) = (draft.hash, draft.weight.bytes(), draft.time);
        loop {
            let table = locked.table_for(hash, self);
            let found = locate(table, &draft);
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
                        return Err(NotPut::Taken(Rejected { draft, holder }));
                    }
                    Look::Lives | Look::Spared => {}
                }
            }
            if put == Put::Old && (old.is_none() || cause != Cause::Replaced) {
                return Err(NotPut::Not(NotReplaced::Absent(draft)));
            }
            let retry = if !locked.fits_bounds(weight, old) {
                self.evict_to_fit(locked, weight, old, &mut refusal, &mut evicted)
            } else if let Some((position, old)) = found {
                // SAFETY: S1.
                match unsafe { locked.admit(old) } {
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
                            return Err(NotPut::Not(NotReplaced::Absent(draft)));
                        }
                        let node = locked.allocate_to_live(draft, 1 + u32::from(wanted.new), &settings.lifetimes);
                        let wants_old =
                            if cause == Cause::Replaced { wanted.old } else { settings.listeners.is_some() };
                        // SAFETY: found under this lock, and admitted.
                        let mut left = unsafe { locked.swap(table, position, old, node, weight, cause, wants_old) };
                        if cause != Cause::Replaced {
                            evicted.add(cause, std::mem::replace(&mut left, Left::None).into_handle());
                        }
                        return Ok(self.end_put(locked, node, wanted, left, settings));
                    }
                    Err(NoRoom(bytes)) => self.lock_with_room(locked, bytes, &mut refusal),
                }
            } else {
                let node = locked.allocate_to_live(draft, 1 + u32::from(wanted.new), &settings.lifetimes);
                locked.publish(table, hash, node, self);
                return Ok(self.end_put(locked, node, wanted, Left::None, settings));
            };
            match retry {
                Ok(again) => locked = again,
                Err(Full) => return Err(NotPut::Not(NotReplaced::Full(draft))),
            }
        }
    }

    /// After a node was published.
    fn end_put(
        self,
        mut locked: Locked<'s, K, V>,
        node: NonNull<Node<K, V>>,
        wanted: Wanted,
        old: Left<K, V>,
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
    pub(crate) fn remove(
        self,
        hash: u64,
        mut locate: impl FnMut(Table<K, V>) -> Located<K, V>,
        cause: Cause,
        wants_handle: bool,
        refusal: &mut Refusal,
        now: Time,
        settings: &Settings<K, V>,
    ) -> Result<Left<K, V>, Full> {
        let locked = self.lock();
        if locked.special != Special::NONE {
            return self.remove_special(locked, hash, locate, cause, wants_handle, refusal, now, settings);
        }
        let table = locked.table;
        let Some((position, node)) = locate(table) else { return Ok(Left::None) };
        // SAFETY: found under this lock; nothing is limited.
        Ok(unsafe { self.unlink(locked, table, position, node, cause, wants_handle) })
    }

    #[inline(never)]
    #[allow(clippy::too_many_arguments)]
    fn remove_special(
        self,
        mut locked: Locked<'s, K, V>,
        hash: u64,
        mut locate: impl FnMut(Table<K, V>) -> Located<K, V>,
        cause: Cause,
        wants_handle: bool,
        refusal: &mut Refusal,
        now: Time,
        settings: &Settings<K, V>,
    ) -> Result<Left<K, V>, Full> {
        let mut expired = Evicted::new(&settings.listeners, cause);
        let by_time = matches!(cause, Cause::Expired | Cause::Idle);
        loop {
            let table = locked.table_for(hash, self);
            let Some((position, node)) = locate(table) else { return Ok(Left::None) };
            let look = if by_time { Look::Lives } else { self.look(node, now, settings) };
            if let Look::Unknown = look {
                locked = self.ask(locked, node, now, settings);
                continue;
            }
            // SAFETY: S1.
            let admitted = unsafe { locked.admit(node) };
            match (look, admitted) {
                (Look::Ended(cause), Ok(())) => {
                    // SAFETY: found under this lock, and admitted.
                    unsafe { self.unlink_expired(&mut locked, table, position, node, cause, &mut expired) };
                    locked.shrink_if_sparse(self);
                    locked.finish();
                    return Ok(Left::None);
                }
                // It stays for a reaper: nobody waits for room for what is absent.
                (Look::Ended(_), Err(_)) => return Ok(Left::None),
                (_, Err(NoRoom(bytes))) => locked = self.lock_with_room(locked, bytes, refusal)?,
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
    ) -> Left<K, V> {
        table.unlink(position);
        // SAFETY: the table's reference is still in it.
        self.counts.leave(cause, unsafe { node.as_ref() }.header.weight.bytes());
        // SAFETY: unlinked just now, S1; it was admitted.
        let left = unsafe { locked.discard_as(node, wants_handle) };
        locked.shrink_if_sparse(self);
        locked.finish();
        left
    }

    /// Unlinks everything, by putting an empty table at the root. False if there is no room for all of it in the backlog:
    /// then nothing is done.
    pub(crate) fn clear(self, cleared: &mut Evicted<'_, K, V>) -> bool {
        let mut locked = self.lock();
        let state = &mut *locked;
        let amount = Backlog::of(self.counts.live.get(), self.counts.weight.get());
        if amount.objects == 0 {
            return true;
        }
        let domain = self.domain().inner();
        if state.special.has(Special::LIMITED) && !domain.budget.take(amount) {
            return false;
        }
        let empty = Table::new(state.floor);
        let old = std::mem::replace(&mut state.table, empty);
        let next = state.resize.take().map(|resize| resize.to);
        self.root.store(empty);
        self.counts.removed.add(amount.objects);
        self.counts.live.set(0);
        self.counts.weight.clear();
        let timers = std::mem::take(&mut state.timers);
        state.measure(self);
        drop(locked);
        drop(timers);
        // The old table is ours now: readers may still be in it, but no writer.
        let (header, mut open) = (NonNull::from(self.header()), None::<Box<Bag>>);
        for node in old.nodes() {
            // SAFETY: the table's reference is still in it.
            let this = unsafe { &node.as_ref().header };
            this.refs.set_unlinked();
            // SAFETY: as said.
            cleared.push(|| unsafe { handle_on(node) });
            let bag = open.get_or_insert_with(|| domain.new_bag(header));
            if bag.push(node.cast(), this.weight.bytes()) {
                open.take().into_iter().for_each(|bag| domain.hand_over(bag));
            }
        }
        open.into_iter().for_each(|bag| domain.hand_over(bag));
        for table in next.into_iter().chain([old]) {
            retire_table(self.domain(), table);
        }
        domain.assist(amount.objects as usize);
        true
    }

    /// Lets the table follow the number of nodes, a bounded number of homes at a time: ends a resize that is under way,
    /// and then shrinks a sparse table, or a `tight` one as far as it goes. False when there is nothing more to do.
    pub(crate) fn settle(self, tight: bool) -> bool {
        let mut locked = self.lock();
        let state = &mut *locked;
        state.step(self, 1024);
        if tight {
            state.slabs.trim(0);
        }
        if tight && state.resize.is_none() {
            let least = Table::<K, V>::buckets_for(self.counts.live.get() as usize + 1).max(state.floor);
            if least < state.table.buckets() {
                state.begin_resize(least, self);
            }
        }
        state.shrink_if_sparse(self);
        state.resize.is_some()
    }

    /// Sets the size below which the table does not shrink to what `nodes` need, and grows it to that if it is smaller.
    pub(crate) fn set_floor(self, nodes: usize) {
        let floor = Table::<K, V>::buckets_for(nodes);
        let mut locked = self.lock();
        let state = &mut *locked;
        if state.newest().buckets() < floor {
            state.step(self, usize::MAX);
            state.begin_resize(floor, self);
        }
        state.floor = floor;
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
    ) -> Left<K, V> {
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
    unsafe fn discard_as(&mut self, node: NonNull<Node<K, V>>, wants_handle: bool) -> Left<K, V> {
        if wants_handle {
            // SAFETY: the caller's promise.
            return Left::With(unsafe { self.discard_to_handle(node) });
        }
        // SAFETY: the caller's promise.
        unsafe { self.discard(node) };
        Left::Quietly
    }
}

// The end of a registry.
impl<K, V> Shard<K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Hands over what was retired, and begins to go through the nodes, of a shard that nobody reads or writes any more.
    ///
    /// (Not by `lock`: a registry may be dropped in an `Eq`, under the lock of another.)
    pub(crate) fn begin_teardown(&self) -> Teardown {
        let mut state = self.state.lock();
        state.close_bag(self.domain().inner());
        let by_slab = state.slabs.can_sweep() && state.early_slabs.is_none();
        if by_slab {
            return Teardown::BySlab(state.slabs.begin_sweep());
        }
        Teardown::ByTable(state.table.nodes().into_iter().map(NonNull::cast).collect())
    }

    /// Destroys all nodes in the table whose destruction runs no code of the user's. Returns how many.
    ///
    /// # Safety
    ///
    /// The registry is being dropped. A visit keeps it.
    pub(crate) unsafe fn destroy_all(&self) -> u64 {
        debug_assert!(!Node::<K, V>::NEEDS_DROP);
        self.state.lock().slabs.sweep_all(|refs| refs.put_of_dropped_registry())
    }

    /// Unlinks some of the nodes that are still in the table, and returns them; none when there are no more.
    ///
    /// # Safety
    ///
    /// The registry is being dropped.
    pub(crate) unsafe fn unlink_some(&self, teardown: &mut Teardown) -> Bags {
        let (mut bags, mut open) = (Bags::default(), None::<Box<Bag>>);
        let header = NonNull::from(&self.header);
        let mut unlink = |node: NonNull<Header>| {
            // SAFETY: the table's reference is still in it.
            let this = unsafe { node.as_ref() };
            this.refs.set_unlinked();
            let bag = open.get_or_insert_with(|| {
                let mut bag = self.domain().inner().new_bag(header);
                bag.is_counted = false;
                bag
            });
            let is_full = bag.push(node, this.weight.bytes());
            if is_full {
                open.take().into_iter().for_each(|bag| bags.push(bag));
            }
            is_full
        };
        match teardown {
            Teardown::BySlab(sweep) => {
                let state = self.state.lock();
                let mut full = 0;
                while full < TEARDOWN {
                    let Some(node) = state.slabs.next_in_table(sweep) else { break };
                    full += usize::from(unlink(node));
                }
            }
            Teardown::ByTable(nodes) => {
                let rest = nodes.len().saturating_sub(TEARDOWN * BAG);
                for node in nodes.drain(rest..) {
                    unlink(node);
                }
            }
        }
        open.into_iter().for_each(|bag| bags.push(bag));
        bags
    }

    /// Frees the tables, and the slabs that are empty.
    ///
    /// # Safety
    ///
    /// The registry is being dropped, no node is in its tables, and this is called once.
    pub(crate) unsafe fn end_teardown(&self) {
        let mut state = self.state.lock();
        state.slabs.retire();
        for table in state.resize.iter().map(|resize| resize.to).chain([state.table]) {
            // SAFETY: the caller's promise: no reader, no writer.
            unsafe { table.free() };
        }
        self.domain().inner().budget.give_back_allowance(std::mem::take(&mut state.allowance));
        (state.timers, state.hand, state.spare) = (Box::default(), Box::default(), None);
    }
}

/// Bags that are filled at a time, at the end of a registry.
const TEARDOWN: usize = 16;

/// How far the end of a shard has come.
pub(crate) enum Teardown {
    /// Through the slabs.
    BySlab(Sweep),
    /// The nodes that are left, where they have allocations of their own.
    ByTable(Vec<NonNull<Header>>),
}

impl Teardown {
    /// Whether nodes can be gone through slab by slab.
    pub(crate) fn is_by_slab(&self) -> bool {
        matches!(self, Teardown::BySlab(_))
    }
}

// What the domain does with shards whose types it does not know: see `Operations`.

/// Nodes that the processor is asked for in advance.
const AHEAD: usize = 16;

/// # Safety
///
/// As for [`Operations::collect`](crate::domain::Operations), of nodes of `K` and `V`.
pub(crate) unsafe fn collect<K, V>(shard: NonNull<ShardHeader>, wait: bool) -> bool
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    // SAFETY: the caller's promise.
    let shard = unsafe { shard.cast::<Shard<K, V>>().as_ref() };
    let state = if wait { Some(shard.state.lock()) } else { shard.state.try_lock() };
    let Some(mut state) = state else { return false };
    state.is_dirty = false;
    state.close_bag(shard.domain().inner());
    true
}

/// # Safety
///
/// As for [`Operations::reclaim`](crate::domain::Operations), of nodes of `K` and `V`.
pub(crate) unsafe fn reclaim<K, V>(bag: &mut Bag, budget: usize) -> Reclaimed {
    let mut done = Reclaimed::default();
    for ahead in 0..AHEAD {
        bag.peek(ahead).into_iter().for_each(|node| prefetch::to_write::<0, _>(node.as_ptr()));
    }
    for _ in 0..budget {
        bag.peek(AHEAD).into_iter().for_each(|node| prefetch::to_write::<0, _>(node.as_ptr()));
        // SAFETY: the bag's nodes are there.
        let Some(node) = bag.take(|node| unsafe { node.as_ref() }.weight.bytes()) else { break };
        // SAFETY: as said.
        let refs = unsafe { &raw const (*node.as_ptr()).refs };
        // SAFETY: as said. (The node may be gone afterwards, if handles are left.)
        if unsafe { &*refs }.put_tables() {
            // SAFETY: R2, and it is a node of these types.
            done.panics += unsafe { Node::<K, V>::destroy(node) };
            // SAFETY: R2, its slot is ours.
            unsafe { &*refs }.set_free();
            bag.push_free(node);
            done.destroyed += 1;
        }
    }
    done
}

/// # Safety
///
/// As for [`Operations::recycle`](crate::domain::Operations), of nodes of `K` and `V`.
pub(crate) unsafe fn recycle<K, V>(bag: Box<Bag>) -> Option<Box<Bag>>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    // SAFETY: the caller's promise.
    let shard = unsafe { bag.shard().cast::<Shard<K, V>>().as_ref() };
    // SAFETY: the caller's promise.
    unsafe { shard.state.lock().recycle(bag) }
}

/// # Safety
///
/// As for [`Operations::destroy`](crate::domain::Operations), of nodes of `K` and `V`.
pub(crate) unsafe fn destroy<K, V>(node: NonNull<Header>) -> u32
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    // SAFETY: the caller's promise.
    let shard = unsafe { shard_of(node) };
    // SAFETY: the caller's promise, and it is a shard of these types.
    let shard = unsafe { shard.cast::<Shard<K, V>>().as_ref() };
    // SAFETY: the caller's promise.
    let panics = unsafe { Node::<K, V>::destroy(node) };
    // SAFETY: the node is destroyed.
    unsafe { shard.state.lock().free(node) };
    panics
}
