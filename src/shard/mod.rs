//! A shard: the writers' side of one part of the table.
//!
//! A lookup begins at the shard's root, which lies on other cache lines than the data that writers change. It
//! uses the shard itself only to find the [`Life`] of an early node.
//!
//! # Invariants
//!
//! - **S1** A thread changes a table only while it holds the shard lock. A node in the table is not freed while
//!   the lock is held.
//! - **S2** The only user code that runs under the lock is `Eq` and `Equivalent`. If that code writes to a
//!   registry, the call panics instead of blocking on the lock.
//! - **S3** A node is retired once, after it is unlinked, by the thread that unlinked it. A write to one entry
//!   does both without releasing the lock in between. Where a thread takes a whole table away
//!   ([`clear`](ShardRef::clear), the end of a registry), it may retire the nodes after it has released the lock.
//! - **S4** Nothing that can panic runs between the two halves of a change: between the count of a node and its
//!   publication, and between the unlinking of a node and its retirement.

#![allow(unsafe_code)]

pub(crate) mod admit;
pub(crate) mod counts;
pub(crate) mod early;
pub(crate) mod evict;
pub(crate) mod expiry;
pub(crate) mod locked;
pub(crate) mod operations;
pub(crate) mod places;
pub(crate) mod reserve;
pub(crate) mod reserved_write;
pub(crate) mod resize;
pub(crate) mod settings;
pub(crate) mod slab;
pub(crate) mod special;
pub(crate) mod state;
pub(crate) mod teardown;
pub(crate) mod timers;
pub(crate) mod waits;
pub(crate) mod weak;
pub(crate) mod weights;
pub(crate) mod write;

use crate::domain::{Backlog, Bag, Domain, Failure, IfFull, RegistryHeader, ShardHeader};
use crate::node::Node;
use crate::node::life::Life;
use crate::node::owner::SlabSize;
use crate::shard::counts::Counts;
use crate::shard::early::Early;
use crate::shard::evict::{Bounds, Evicted};
use crate::shard::locked::Locked;
use crate::shard::places::{Holding, Places};
use crate::shard::resize::retire_table;
use crate::shard::settings::RegistrySettings;
use crate::shard::slab::{Shape, Slabs};
use crate::shard::state::{ShardState, Special, Work};
use crate::shard::waits::LockWaits;
use crate::shard::write::handle_on;
use crate::sync::{TimedMutex, TimedMutexGuard, lock_or};
use crate::table::{Root, Table};
use crate::util::clock::{coarse_ticks, exact_nanos};
use crate::util::prefetch;
use crate::util::reentrancy::shard_locked;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::{self, Relaxed};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};

/// The writers' side of a shard. The header comes first: nodes and the domain find the shard by its address.
#[repr(C)]
pub(crate) struct Shard<K: 'static, V: 'static> {
    header: ShardHeader,
    state: TimedMutex<ShardState<K, V>>,
    pub(crate) counts: Counts,
    /// The lives of the nodes that were in the shard when it was prepared for expiry, if that was after it was
    /// built (L3). Not modelled by loom: it is set once, before any reader looks for it.
    early: OnceLock<Early>,
    looks: Looks,
    /// The calls of `clear` that have emptied the table and have not marked all of its nodes as unlinked. Counted up under
    /// the lock. Not modelled by loom: no model lists nodes by slabs.
    clearing: AtomicUsize,
    /// Written only by an acquisition of the lock that had to wait.
    pub(crate) waits: LockWaits,
    /// The places of the registry, if it refuses.
    pub(crate) places: Option<Arc<Places>>,
}

/// A call of `clear`, from the moment at which the table is empty until all nodes are marked.
struct Clearing<'s>(&'s AtomicUsize);

impl<'s> Clearing<'s> {
    fn begin(clearing: &'s AtomicUsize) -> Self {
        // ORDERING: Relaxed: under the shard lock, as the load.
        clearing.fetch_add(1, Relaxed);
        Clearing(clearing)
    }
}

impl Drop for Clearing<'_> {
    fn drop(&mut self) {
        // ORDERING: Release, pairs with the Acquire in `list_in_memory_order`: the marks come before.
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// The offset of the counts. They begin on a cache line of their own, whatever the types of key and value are.
const COUNTS: usize = std::mem::offset_of!(Shard<u8, u8>, counts);

/// Decides whether a write that has retired nothing looks for something to reclaim. Not modelled by loom: only a
/// hint.
///
/// If writes are rare, every write looks. Of writes in quick succession only some look, because a look reads the
/// clock.
#[derive(Default)]
struct Looks {
    /// The coarse tick of the last look.
    last: AtomicU64,
    /// The number of further writes that do not look.
    pass: AtomicU32,
}

impl Looks {
    /// The number of writes between two looks in one tick.
    const PASS: u32 = 16;

    /// Returns whether this write looks.
    fn is_due(&self) -> bool {
        // ORDERING: Relaxed for all of these accesses: hints that only decide how often writers look.
        let pass = self.pass.load(Relaxed);
        if pass > 0 && !cfg!(loom) {
            self.pass.store(pass - 1, Relaxed);
            return false;
        }
        let now = coarse_ticks();
        // ORDERING: Relaxed, hints as above.
        if self.last.load(Relaxed) == now {
            self.pass.store(Self::PASS, Relaxed);
        } else {
            self.last.store(now, Relaxed);
        }
        true
    }
}

/// A reference to a shard and to its root.
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

    /// Returns the life of a node of this shard, if it has one.
    ///
    /// # Safety
    ///
    /// The node is not freed while the returned reference is in use.
    #[inline]
    pub(crate) unsafe fn life_of(&self, node: NonNull<Node<K, V>>) -> Option<&Life> {
        // SAFETY: the caller guarantees that the node is not freed while the life is in use.
        let life = unsafe { Node::life(node) };
        life.or_else(|| self.early.get()?.get(node.addr().get()))
    }

    /// Takes the lock. Only an acquisition whose first try fails is timed and counted.
    #[inline]
    pub(crate) fn lock_state(&self) -> TimedMutexGuard<'_, ShardState<K, V>> {
        lock_or(&self.state, |state| self.wait_for(state))
    }

    #[cold]
    #[inline(never)]
    fn wait_for<'m>(&self, state: &'m TimedMutex<ShardState<K, V>>) -> TimedMutexGuard<'m, ShardState<K, V>> {
        let begin = exact_nanos();
        let state = state.lock();
        self.waits.add(exact_nanos().saturating_sub(begin));
        state
    }

    /// Prefetches the cache lines that a write changes. They follow from the order of the fields in [`ShardState`] and
    /// [`Counts`].
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
    /// How nodes lie in their slabs, by the size of the slabs: without lives, and with lives.
    const SHAPES: [[Shape; 2]; 2] = [Self::shapes(SlabSize::Small), Self::shapes(SlabSize::Large)];

    const fn shapes(slab: SlabSize) -> [Shape; 2] {
        [Shape::of(Node::<K, V>::layout(false), false, slab), Shape::of(Node::<K, V>::layout(true), true, slab)]
    }

    /// Returns how nodes lie in slabs of this size. `have_lives` says whether the nodes have lives.
    fn shape(slab: SlabSize, have_lives: bool) -> Shape {
        Self::SHAPES[slab as usize][usize::from(have_lives)]
    }

    /// Creates a shard of the registry that the caller is building. `expires` says whether entries may expire.
    pub(crate) fn new(
        registry: NonNull<RegistryHeader>,
        table: Table<K, V>,
        bounds: Bounds,
        expires: bool,
        settings: &RegistrySettings<K, V>,
    ) -> Self {
        const { assert!(std::mem::offset_of!(Self, counts) == COUNTS) };
        // SAFETY: the caller is building the registry, and its header is initialised.
        let domain = unsafe { registry.as_ref() }.domain.inner();
        let budget = &domain.budget;
        let mut special = Special::NONE;
        special.set(Special::BOUNDED, bounds.need_care());
        special.set(Special::LIMITED, budget.is_limited());
        special.set(Special::EXPIRING, expires);
        special.set(Special::TOLD, settings.listeners.tells_insertions());
        special.set(Special::REFUSING, settings.places.is_some());
        let usual_work = if domain.do_writers_look() { Work::LOOK } else { Work::NONE };
        let state = ShardState {
            table,
            special,
            work: usual_work,
            usual_work,
            reservation: None,
            open: None,
            slabs: Slabs::new(Self::shape(settings.slab, expires)),
            early_slabs: None,
            resize: None,
            bounds,
            is_dirty: false,
            spare: None,
            credits: budget.first_credits(),
            old_table: None,
            floor: table.buckets(),
            hand: Box::default(),
            taken: Holding::default(),
            timers: Box::default(),
            reservations: None,
            landing: None,
            weak: None,
        };
        let (header, counts) = (ShardHeader::new(registry), Counts::new(table, bounds));
        Shard {
            header,
            state: TimedMutex::new(state),
            counts,
            early: OnceLock::new(),
            looks: Looks::default(),
            clearing: AtomicUsize::new(0),
            waits: LockWaits::default(),
            places: settings.places.clone(),
        }
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

    /// Takes the lock.
    ///
    /// # Panics
    ///
    /// If the thread holds a shard lock already (S2).
    #[inline]
    pub(crate) fn lock(self) -> Locked<'s, K, V> {
        assert!(!shard_locked(), "a write to a registry from within the `Eq` of a key, which runs under a shard lock");
        Locked::new(self, self.shard.lock_state())
    }

    /// Does a write's share of the domain's reclamation. The caller has released the lock.
    #[cold]
    #[inline(never)]
    pub(crate) fn assist(self, work: Work) {
        let domain = self.domain().inner();
        if work != Work::LOOK || self.shard.looks.is_due() && domain.has_work() {
            domain.assist(work.handed_over());
        }
    }

    /// Releases the lock, reserves room in the backlog for a node of this many bytes, and takes the lock again.
    /// The shard may have changed in between.
    ///
    /// # Errors
    ///
    /// If the backlog has no room and `if_full` lets the operation fail. Then the lock is not held.
    pub(crate) fn relock_with_reservation<E: Failure>(
        self,
        locked: Locked<'_, K, V>,
        bytes: u64,
        if_full: &mut IfFull<E>,
    ) -> Result<Locked<'s, K, V>, E> {
        drop(locked);
        self.domain().inner().make_room(bytes, if_full)?;
        let mut locked = self.lock();
        locked.reservation = Some(bytes);
        Ok(locked)
    }

    /// Adds all nodes of the shard to `found`. If all of them lie in slabs of one kind, they are in the order of
    /// their memory.
    pub(crate) fn list_in_memory_order(self, found: &mut Vec<NonNull<Node<K, V>>>) {
        assert!(
            !shard_locked(),
            "an iteration in memory order from within the `Eq` of a key, which runs under a shard lock"
        );
        let state = self.shard.lock_state();
        // ORDERING: Acquire, pairs with the Release in the drop of `Clearing`: the nodes that were cleared are marked.
        let is_cleared = self.shard.clearing.load(Ordering::Acquire) == 0;
        if is_cleared && state.lies_in_slabs() {
            found.reserve(self.shard.live() as usize);
            let mut sweep = state.slabs.first();
            while let Some(node) = state.slabs.next_in_table(&mut sweep) {
                found.push(node.cast());
            }
        } else {
            found.append(&mut state.table.nodes());
        }
    }

    /// Prepares the shard for entries that expire (L3), unless it is prepared already.
    pub(crate) fn extend(self) {
        let mut locked = self.lock();
        let shape = Shard::<K, V>::shape(locked.slabs.shape().slab(), true);
        if let Some(early) = locked.extend(shape) {
            let _ = self.shard.early.set(early);
        }
    }

    /// Unlinks all entries by storing an empty table in the root. Returns false, and changes nothing, if the
    /// backlog has no room for all of them.
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
        locked.cut_links();
        let state = &mut *locked;
        self.counts.removed.add(amount.objects);
        self.counts.live.set(0);
        self.counts.weight.clear();
        let timers = std::mem::take(&mut state.timers);
        state.measure(self);
        let clearing = Clearing::begin(&self.shard.clearing);
        drop(locked);
        drop(timers);
        // The old table belongs to this thread now. Readers may still use it, but no writer does.
        let (header, mut open) = (NonNull::from(self.header()), None::<Box<Bag>>);
        for node in old.nodes() {
            // SAFETY: R1 (the table's reference is not put before a grace period has passed).
            let this = unsafe { &node.as_ref().header };
            this.refs.set_unlinked();
            // SAFETY: the table's reference belongs to this thread, which has unlinked the node.
            cleared.push(|| unsafe { handle_on(node) });
            let full = Bag::fill(&mut open, || domain.new_bag(header), node.cast(), this.weight.bytes());
            full.into_iter().for_each(|bag| domain.hand_over(bag));
        }
        drop(clearing);
        open.into_iter().for_each(|bag| domain.hand_over(bag));
        for table in next.into_iter().chain([old]) {
            retire_table(self.domain(), table);
        }
        domain.assist(amount.objects as usize);
        true
    }

    /// Does a bounded part of the work that adapts the table to the number of nodes. Returns false when nothing
    /// is left to do.
    ///
    /// It continues a resize that is under way. If none is left, it begins to shrink a sparse table. If `tight`
    /// is set, it begins to shrink any table that is larger than the nodes need, and frees the empty slabs that
    /// are kept.
    pub(crate) fn finish_resize(self, tight: bool) -> bool {
        let mut locked = self.lock();
        let state = &mut *locked;
        state.step(self, 1024);
        if tight {
            state.slabs.shrink();
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

    /// Sets the size below which the table does not shrink to the size that `nodes` need. Grows a smaller table
    /// to that size.
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
