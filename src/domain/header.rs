//! Registries and their shards, as their domain sees them: whatever the types of key and value.
//!
//! A node that has left its table goes to the domain twice at the most:
//!
//! 1. when it is unlinked, with the table's reference still in it: in the open bag of its shard, under the shard lock. After a
//!    grace period the reclaim side puts that reference;
//! 2. when its last reference is put later, by the drop of a handle: as an orphan. No reader can reach the node any more, as
//!    its grace period is over, so it is ready for destruction at once.
//!
//! # Invariants
//!
//! - **Q1** A shard is in its domain's dirty list, or in the hands of the one collector that took it out of there, while its
//!   open bag holds nodes. It counts as a visitor of its registry while it is.
//! - **Q2** A registry's header, with its shards and its domain, lives until the registry is closed, every node that was
//!   inserted is destroyed, and every visitor has left. The three are counted in one word: `refcount`.
//! - **Q3** Once a registry is closed, no orphan of it stays behind in the domain: whoever adds an orphan looks at `closed`
//!   afterwards, and the one that closes collects afterwards, with a fence between the two steps on both sides.

#![allow(unsafe_code)]

use super::Domain;
use super::backlog::Backlog;
use super::bag::Bag;
use super::thread::Running;
use crate::node::Header;
use crate::node::owner::owner;
use crate::sync::atomic::Ordering;
use crate::sync::{self, AtomicBool, AtomicPtr, AtomicU64, Presence, fence};
use std::ptr::{self, NonNull};

/// What a domain does with nodes and shards whose types it does not know.
pub(crate) struct Operations {
    /// Closes the open bag of a shard, under the shard lock. False if the lock is taken, and `wait` is not set.
    ///
    /// # Safety
    ///
    /// The shard is one of this registry's, and there.
    pub(crate) collect: unsafe fn(NonNull<ShardHeader>, wait: bool) -> bool,
    /// Destroys up to so many nodes of a bag, of those without a handle, and takes their slots back when it is through
    /// with the bag.
    ///
    /// # Safety
    ///
    /// The bag is of a shard of this registry, which a visit keeps. The grace period of its nodes is over.
    pub(crate) reclaim: unsafe fn(&mut Bag, budget: usize) -> Reclaimed,
    /// Takes the slots of destroyed nodes back, and returns the bag if it is not kept.
    ///
    /// # Safety
    ///
    /// As for `reclaim`, which is through with it.
    pub(crate) recycle: unsafe fn(Box<Bag>) -> Option<Box<Bag>>,
    /// Destroys one node, and takes its slot back. Returns how many drops panicked.
    ///
    /// # Safety
    ///
    /// The node is of a shard of this registry, which a visit keeps. The caller owns it (R2).
    pub(crate) destroy: unsafe fn(NonNull<Header>) -> u32,
    /// Frees the core whose first field the header is.
    ///
    /// # Safety
    ///
    /// Q2.
    pub(crate) free: unsafe fn(NonNull<RegistryHeader>),
}

/// What [`Operations::reclaim`] has done.
#[derive(Default)]
pub(crate) struct Reclaimed {
    pub(crate) destroyed: u64,
    pub(crate) panics: u32,
}

/// A registry, as its domain sees it: the first field of the registry's core.
pub(crate) struct RegistryHeader {
    pub(crate) domain: Domain,
    /// Q2: `OPEN` while the registry is there, plus nodes inserted once it is closed, less nodes destroyed, plus visitors.
    refcount: AtomicU64,
    /// Q3.
    closed: AtomicBool,
    /// Nodes destroyed.
    pub(crate) freed: AtomicU64,
    /// Destructors of keys and values that panicked.
    pub(crate) panics: AtomicU64,
    pub(crate) operations: Operations,
    /// That of the core.
    presence: Presence,
}

/// Far from zero in both directions, so that no count of an open registry is ever zero.
const OPEN: u64 = 1 << 62;

impl RegistryHeader {
    /// `operations` must fit the nodes, the shards and the core that this is put in.
    pub(crate) fn new(domain: Domain, operations: Operations) -> Self {
        RegistryHeader {
            domain,
            refcount: AtomicU64::new(OPEN),
            closed: AtomicBool::new(false),
            freed: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            operations,
            presence: Presence::new(),
        }
    }

    /// Keeps the registry's header alive until [`leave`](Self::leave). For callers that rely on something that does already.
    pub(crate) fn enter(&self) {
        self.presence.touch();
        // ORDERING: Relaxed. The caller relies on what keeps the header alive until now.
        self.refcount.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends a visit, in which so many nodes were destroyed, and perhaps the header with it.
    ///
    /// # Safety
    ///
    /// Pairs with one `enter`; `header` is not used by the caller afterwards.
    pub(crate) unsafe fn leave(header: NonNull<RegistryHeader>, reclaimed: Reclaimed) {
        // SAFETY: Q2, the visit that ends here keeps it alive.
        let this = unsafe { header.as_ref() };
        let Reclaimed { destroyed, panics } = reclaimed;
        if panics > 0 {
            // ORDERING: Relaxed, a statistic.
            this.panics.fetch_add(panics.into(), Ordering::Relaxed);
        }
        if destroyed > 0 {
            // ORDERING: Relaxed, a statistic.
            this.freed.fetch_add(destroyed, Ordering::Relaxed);
        }
        // SAFETY: the nodes destroyed are counted once, and so is the visit.
        unsafe { Self::give_back(header, destroyed + 1) };
    }

    /// # Safety
    ///
    /// `amount` is what the caller holds of the count; `header` is not used by the caller afterwards.
    unsafe fn give_back(header: NonNull<RegistryHeader>, amount: u64) {
        // SAFETY: Q2, what is given back here keeps it alive.
        let this = unsafe { header.as_ref() };
        let free = this.operations.free;
        this.presence.touch();
        // ORDERING: AcqRel. Release, so that all uses of the header happen before it is freed; Acquire, for the thread that
        // frees it.
        if this.refcount.fetch_sub(amount, Ordering::AcqRel) == amount {
            this.presence.own();
            // SAFETY: Q2: closed (the count reaches zero only then), all nodes destroyed, no visitor left.
            unsafe { free(header) };
        }
    }

    /// Declares the registry gone. The caller then calls [`Inner::expedite`](super::Inner::expedite), and then
    /// [`retire_self`](Self::retire_self).
    pub(crate) fn close(&self) {
        // ORDERING: Release, pairs with the Acquire in `is_closed`: a node that is destroyed without a grace period because the
        // registry is gone is destroyed after all that its readers did.
        self.closed.store(true, Ordering::Release);
        // ORDERING: SeqCst, pairs with the fence in `put_last` (Q3): if this fence comes first in their order, the thread that adds
        // an orphan sees `closed`; if the other comes first, our collection sees the orphan.
        fence(Ordering::SeqCst);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.presence.touch();
        // ORDERING: Acquire, pairs with the Release in `close`.
        self.closed.load(Ordering::Acquire)
    }

    /// Gives up the registry's own hold on the header: from here on its nodes alone keep it.
    ///
    /// # Safety
    ///
    /// Once, after `close`, with the number of nodes that were ever inserted.
    pub(crate) unsafe fn retire_self(header: NonNull<RegistryHeader>, inserted: u64) {
        // SAFETY: the hold, less what the nodes hold from now on.
        unsafe { Self::give_back(header, OPEN - inserted) };
    }
}

/// A shard, as its domain sees it: the first field of the shard.
pub(crate) struct ShardHeader {
    registry: NonNull<RegistryHeader>,
    /// The next shard of the domain's dirty list (Q1).
    next_dirty: AtomicPtr<ShardHeader>,
}

// SAFETY: `registry` is shared, and used through shared references only.
unsafe impl Send for ShardHeader {}
// SAFETY: as for `Send`; the other field is an atomic.
unsafe impl Sync for ShardHeader {}

impl ShardHeader {
    /// A shard of `registry`, whose address must be final.
    pub(crate) fn new(registry: NonNull<RegistryHeader>) -> Self {
        ShardHeader { registry, next_dirty: AtomicPtr::new(ptr::null_mut()) }
    }

    #[inline]
    pub(crate) fn registry(&self) -> &RegistryHeader {
        // SAFETY: the header of a registry and its shards are freed together.
        let registry = unsafe { self.registry.as_ref() };
        registry.presence.touch();
        registry
    }

    pub(crate) fn registry_pointer(&self) -> NonNull<RegistryHeader> {
        self.registry
    }
}

/// The shards of a domain whose open bags hold nodes (Q1).
pub(crate) struct DirtyShards {
    head: AtomicPtr<ShardHeader>,
}

impl DirtyShards {
    pub(crate) fn new() -> Self {
        DirtyShards { head: AtomicPtr::new(ptr::null_mut()) }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        // ORDERING: Relaxed, a hint: a shard put there now is seen by the next look.
        self.head.load(Ordering::Relaxed).is_null()
    }

    /// Adds a shard whose open bag has just received its first node. Under the shard lock. True if there was none before.
    pub(crate) fn add(&self, shard: &ShardHeader) -> bool {
        // Q1.
        shard.registry().enter();
        self.push(shard)
    }

    fn push(&self, shard: &ShardHeader) -> bool {
        let mut head = sync::guess(&self.head);
        loop {
            // ORDERING: Relaxed, published by the Release below.
            shard.next_dirty.store(head, Ordering::Relaxed);
            let new = ptr::from_ref(shard).cast_mut();
            // ORDERING: Release, pairs with the Acquire of `collect`.
            match self.head.compare_exchange_weak(head, new, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return head.is_null(),
                Err(now) => head = now,
            }
        }
    }

    /// Has the open bag of every shard in the list closed. One whose lock is taken stays in the list, unless `wait` says that
    /// it is waited for, or its registry is closed. One collector at a time: the caller holds the lock for that.
    pub(crate) fn collect(&self, wait: bool) {
        // ORDERING: Acquire, pairs with the Release of `push`.
        let mut next = self.head.swap(ptr::null_mut(), Ordering::Acquire);
        while let Some(shard) = NonNull::new(next) {
            // SAFETY: Q1, it is a visitor of its registry.
            let this = unsafe { shard.as_ref() };
            // Before the lock is let go of: from then on the shard may be added again.
            // ORDERING: Relaxed, acquired with the list.
            next = this.next_dirty.load(Ordering::Relaxed);
            let registry = this.registry;
            // The lock of a shard of a closed registry is held by a thread that gives slots back, and not for long. No other
            // collector may come by for the shard.
            let wait = wait || this.registry().is_closed();
            // SAFETY: it is a shard of that registry.
            if unsafe { (this.registry().operations.collect)(shard, wait) } {
                // SAFETY: Q1, pairs with the `enter` of `add`.
                unsafe { RegistryHeader::leave(registry, Reclaimed::default()) };
            } else {
                self.push(this);
            }
        }
    }
}

/// Nodes that lost their last reference after their grace period. Lock-free.
pub(crate) struct Orphans {
    head: AtomicPtr<Header>,
}

impl Orphans {
    pub(crate) fn new() -> Self {
        Orphans { head: AtomicPtr::new(ptr::null_mut()) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        // ORDERING: Relaxed, a hint.
        self.head.load(Ordering::Relaxed).is_null()
    }

    /// # Safety
    ///
    /// The caller owns the node (R2), and gives it up.
    unsafe fn push(&self, node: NonNull<Header>) {
        let mut head = sync::guess(&self.head);
        loop {
            // SAFETY: R2, the node is the caller's.
            let this = unsafe { node.as_ref() };
            // SAFETY: N2.
            unsafe { this.set_link(head) };
            // ORDERING: Release, pairs with the Acquire of `take`.
            match self.head.compare_exchange_weak(head, node.as_ptr(), Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Takes all of them.
    pub(crate) fn take(&self) -> Vec<NonNull<Header>> {
        let mut orphans = Vec::new();
        if self.is_empty() {
            return orphans;
        }
        // ORDERING: Acquire, pairs with the Release of `push`.
        let mut next = self.head.swap(ptr::null_mut(), Ordering::Acquire);
        while let Some(node) = NonNull::new(next) {
            orphans.push(node);
            // SAFETY: the swap made it ours.
            let this = unsafe { node.as_ref() };
            // SAFETY: N2, as said.
            next = unsafe { this.link() };
        }
        orphans
    }
}

/// What an orphan counts for.
///
/// # Safety
///
/// The node is the caller's.
pub(crate) unsafe fn amount_of(orphan: NonNull<Header>) -> Backlog {
    // SAFETY: the caller's promise.
    Backlog::one(unsafe { orphan.as_ref() }.weight.bytes())
}

/// Hands over a node whose last reference its caller has put.
///
/// # Safety
///
/// The count of the node has reached zero, and the caller is the one who saw that (R2).
#[cold]
pub(crate) unsafe fn put_last(node: NonNull<Header>) {
    // SAFETY: R2, the node is the caller's.
    let shard = unsafe { shard_of(node) };
    // SAFETY: Q2, this node is not destroyed yet.
    let registry = unsafe { shard.as_ref() }.registry;
    // SAFETY: Q2, as said.
    let this = unsafe { registry.as_ref() };
    let domain = this.domain.inner();
    // Within a destructor of this domain, the run that it is part of goes on with this node.
    if Running::adopt(domain, node) {
        return;
    }
    this.enter();
    // It waits for nothing but its turn, and cannot be refused.
    // SAFETY: R2.
    let amount = unsafe { amount_of(node) };
    domain.budget.charge_unchecked(amount);
    domain.waiting.add(amount);
    // SAFETY: R2; and the visit keeps the registry.
    unsafe { domain.orphans.push(node) };
    // ORDERING: SeqCst, pairs with the fence in `RegistryHeader::close` (Q3).
    fence(Ordering::SeqCst);
    if this.is_closed() {
        // Of a closed registry nobody else may ever come by: no registry, no writer. The domain's handle outlives the
        // visit, which may be the last.
        let domain = this.domain.clone();
        domain.inner().expedite(registry, Default::default());
        // SAFETY: pairs with `enter`.
        unsafe { RegistryHeader::leave(registry, Reclaimed::default()) };
    } else {
        domain.wake();
        // SAFETY: pairs with `enter`.
        unsafe { RegistryHeader::leave(registry, Reclaimed::default()) };
    }
}

/// Returns the shard that owns a node.
///
/// # Safety
///
/// The node is not freed before this returns.
pub(crate) unsafe fn shard_of(node: NonNull<Header>) -> NonNull<ShardHeader> {
    // SAFETY: the caller's promise. (The slabs of a shard put its address there.)
    unsafe { owner(node) }.cast()
}
