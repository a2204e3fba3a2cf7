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

pub(crate) mod counts;
pub(crate) mod early;
pub(crate) mod evict;
pub(crate) mod expiry;
pub(crate) mod locked;
pub(crate) mod operations;
pub(crate) mod resize;
pub(crate) mod settings;
pub(crate) mod slab;
pub(crate) mod state;
pub(crate) mod teardown;
pub(crate) mod timers;
pub(crate) mod write;

use crate::domain::{Backlog, Bag, Domain, Failure, IfFull, RegistryHeader, ShardHeader};
use crate::node::Node;
use crate::node::life::Life;
use crate::shard::counts::Counts;
use crate::shard::early::Early;
use crate::shard::evict::{Bounds, Evicted};
use crate::shard::locked::Locked;
use crate::shard::resize::retire_table;
use crate::shard::slab::{Shape, Slabs};
use crate::shard::state::{Special, State, Work};
use crate::shard::write::handle_on;
use crate::sync::Mutex;
use crate::table::{Root, Table};
use crate::util::clock::coarse_ticks;
use crate::util::prefetch;
use crate::util::reentrancy::shard_locked;
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
            credits: budget.first_credits(),
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
    pub(crate) fn relock_with_reservation<E: Failure>(
        self,
        locked: Locked<'_, K, V>,
        bytes: u64,
        if_full: &mut IfFull<E>,
    ) -> Result<Locked<'s, K, V>, E> {
        drop(locked);
        self.domain().inner().make_room(bytes, if_full)?;
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
    pub(crate) fn finish_resize(self, tight: bool) -> bool {
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
