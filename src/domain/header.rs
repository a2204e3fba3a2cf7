//! Registries and their shards as their domain sees them: independent of the types of key and value.
//!
//! A node that has left its table goes to the domain at most twice:
//!
//! 1. When it is unlinked. The writer holds the shard lock and puts the node into the shard's open bag. The node
//!    still has the table's reference, which the reclaiming thread puts after a grace period.
//! 2. When its last reference is put after that, by the drop of a handle. The node is then an *orphan*. Its grace
//!    period is over, so no reader can reach it, and it is ready to be destroyed at once.
//!
//! A registry is *closed* when it is dropped. A *visit* keeps its header alive for a thread, or for a shard in the
//! dirty list.
//!
//! # Invariants
//!
//! - **Q1** While a shard's open bag holds nodes, the shard is in its domain's dirty list, or in the hands of the
//!   one collector that took it from there. While it is in either place, it counts as a visitor of its registry.
//! - **Q2** A registry's header, with its shards and its domain, lives until the registry is closed, every node that
//!   was inserted is destroyed, and every visitor has left. One word counts all three: `refcount`.
//! - **Q3** Once a registry is closed, none of its orphans stays behind in the domain. A thread that adds an orphan
//!   reads `closed` afterwards. The thread that closes the registry collects orphans afterwards. Both have a SeqCst
//!   fence between their two steps.

#![allow(unsafe_code)]

use super::Domain;
use super::backlog::Backlog;
use super::bag::Bag;
use super::frame::{Orphan, Running};
use crate::node::Header;
use crate::node::owner::owner;
use crate::sync::atomic::Ordering;
use crate::sync::{self, AtomicBool, AtomicPtr, AtomicU64, Presence, fence};
use std::ptr::{self, NonNull};

/// The operations of a domain on nodes and shards whose types it does not know.
pub(crate) struct Operations {
    /// Closes the open bag of a shard, under the shard lock. Returns false if the lock is taken and `wait` is false.
    ///
    /// # Safety
    ///
    /// The shard belongs to this registry, and is not freed during the call.
    pub(crate) collect: unsafe fn(NonNull<ShardHeader>, wait: bool) -> bool,
    /// Takes up to `budget` nodes from a bag and puts the table's reference of each. Destroys the nodes that have no
    /// other reference; their slots stay in the bag as free slots.
    ///
    /// # Safety
    ///
    /// The bag's shard belongs to this registry, and a visit keeps the registry. The grace period of the bag's nodes
    /// is over.
    pub(crate) reclaim: unsafe fn(&mut Bag, budget: usize) -> Reclaimed,
    /// Gives the free slots of a bag back to its shard. Returns an empty bag, if there is one: this one, or the empty magazine that it
    /// has replaced.
    ///
    /// # Safety
    ///
    /// As for `reclaim`, and `reclaim` has taken all nodes from the bag.
    pub(crate) recycle: unsafe fn(Box<Bag>) -> Option<Box<Bag>>,
    /// Destroys one node, and gives its slot back to its shard. Returns how many drops panicked.
    ///
    /// # Safety
    ///
    /// The node's shard belongs to this registry, which a visit keeps. The caller owns the node (R2).
    pub(crate) destroy: unsafe fn(NonNull<Header>) -> u32,
    /// Frees the registry's core, of which the header is the first field.
    ///
    /// # Safety
    ///
    /// Q2 allows it: the registry is closed, all its nodes are destroyed, and it has no visitor.
    pub(crate) free: unsafe fn(NonNull<RegistryHeader>),
}

/// The result of [`Operations::reclaim`].
#[derive(Default)]
pub(crate) struct Reclaimed {
    pub(crate) destroyed: u64,
    pub(crate) panics: u32,
}

/// A registry, as its domain sees it: the first field of the registry's core.
pub(crate) struct RegistryHeader {
    pub(crate) domain: Domain,
    /// The count of Q2.
    ///
    /// - Until [`retire_self`](Self::retire_self): `OPEN`, minus nodes destroyed, plus visitors.
    /// - After that: nodes ever inserted, minus nodes destroyed, plus visitors.
    refcount: AtomicU64,
    /// The registry is closed (Q3).
    closed: AtomicBool,
    /// The number of nodes destroyed.
    pub(crate) freed: AtomicU64,
    /// The number of destructors of keys and values that panicked.
    pub(crate) panics: AtomicU64,
    pub(crate) operations: Operations,
    /// The presence of the core, for the model checker.
    presence: Presence,
}

/// So far from zero in both directions that the count of an open registry is never zero.
const OPEN: u64 = 1 << 62;

impl RegistryHeader {
    /// Returns the header of a core. `operations` must fit the nodes, the shards and the core that the header is put
    /// in.
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

    /// Begins a visit: keeps the header alive until [`leave`](Self::leave). Something else must keep it alive during
    /// this call.
    pub(crate) fn enter(&self) {
        self.presence.touch();
        // ORDERING: Relaxed. Something else keeps the header alive during this call, and the call happens before the
        // matching `leave`.
        self.refcount.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends a visit, in which `reclaimed` was destroyed. Frees the core if nothing keeps it any more.
    ///
    /// # Safety
    ///
    /// The call pairs with one `enter`, and the caller does not use `header` afterwards.
    pub(crate) unsafe fn leave(header: NonNull<RegistryHeader>, reclaimed: Reclaimed) {
        // SAFETY: Q2 (the visit that ends here keeps the header alive).
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
        // SAFETY: the caller holds one for the visit, and one for each node that it has destroyed.
        unsafe { Self::give_back(header, destroyed + 1) };
    }

    /// Subtracts from `refcount`, and frees the core if nothing is left.
    ///
    /// # Safety
    ///
    /// The caller holds `amount` of the count, and does not use `header` afterwards.
    unsafe fn give_back(header: NonNull<RegistryHeader>, amount: u64) {
        // SAFETY: Q2 (what is given back here keeps the header alive).
        let this = unsafe { header.as_ref() };
        let free = this.operations.free;
        this.presence.touch();
        // ORDERING: AcqRel. Release, pairs with the Acquire of the decrement that reaches zero: every use of the
        // header happens before it is freed. Acquire, for that last decrement.
        if this.refcount.fetch_sub(amount, Ordering::AcqRel) == amount {
            this.presence.own();
            // SAFETY: Q2 (the count reaches zero only when the registry is closed, all its nodes are destroyed, and
            // no visitor is left).
            unsafe { free(header) };
        }
    }

    /// Closes the registry: it is being dropped. The caller must then call
    /// [`Inner::destroy_closed`](super::Inner::destroy_closed), and after that [`retire_self`](Self::retire_self).
    pub(crate) fn close(&self) {
        // ORDERING: Release, pairs with the Acquire in `is_closed`. A thread that sees `closed` destroys nodes of
        // this registry without a grace period. So everything that its readers did must happen before that.
        self.closed.store(true, Ordering::Release);
        // ORDERING: SeqCst, pairs with the fence in `put_last` (Q3). Our store is `closed`, above. Our later load is
        // the caller's collection (`destroy_closed`), which takes the orphans.
        // - If our store comes first, that is if our fence precedes that of `put_last`: the thread in `put_last`
        //   sees `closed` and destroys its orphan itself.
        // - If the fence of `put_last` comes first: the orphan was pushed before that fence, so our collection finds
        //   it, or finds that a third thread has taken it.
        // docs/ordering.md, "An orphan and the end of its registry", has every step.
        fence(Ordering::SeqCst);
    }

    /// Returns whether the registry is closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.presence.touch();
        // ORDERING: Acquire, pairs with the Release in `close`: what readers of the registry did happens before this
        // returns true.
        self.closed.load(Ordering::Acquire)
    }

    /// Gives up the registry's own hold on the header. From here on its nodes and visitors alone keep it.
    ///
    /// # Safety
    ///
    /// To be called once, after `close`. `inserted` is the number of nodes ever inserted. The caller does not use
    /// `header` afterwards.
    pub(crate) unsafe fn retire_self(header: NonNull<RegistryHeader>, inserted: u64) {
        // SAFETY: the registry holds `OPEN`. It leaves one for each node ever inserted, and gives back the rest.
        unsafe { Self::give_back(header, OPEN - inserted) };
    }
}

/// A shard as its domain sees it: the first field of the shard.
pub(crate) struct ShardHeader {
    registry: NonNull<RegistryHeader>,
    /// The next shard of the domain's dirty list. Used only while this shard is in the list or with its collector
    /// (Q1).
    next_dirty: AtomicPtr<ShardHeader>,
}

// SAFETY: `registry` points to a `RegistryHeader`, which is `Sync`, and is used through shared references only.
unsafe impl Send for ShardHeader {}
// SAFETY: as for `Send`. The other field is an atomic.
unsafe impl Sync for ShardHeader {}

impl ShardHeader {
    /// Returns the header of a shard of `registry`, which must not move afterwards.
    pub(crate) fn new(registry: NonNull<RegistryHeader>) -> Self {
        ShardHeader { registry, next_dirty: AtomicPtr::new(ptr::null_mut()) }
    }

    #[inline]
    pub(crate) fn registry(&self) -> &RegistryHeader {
        // SAFETY: the header of a registry and its shards are freed together, and `self` is a shard.
        let registry = unsafe { self.registry.as_ref() };
        registry.presence.touch();
        registry
    }

    pub(crate) fn registry_pointer(&self) -> NonNull<RegistryHeader> {
        self.registry
    }
}

/// The dirty list: the shards of a domain whose open bags hold nodes (Q1).
pub(crate) struct DirtyShards {
    head: AtomicPtr<ShardHeader>,
}

impl DirtyShards {
    pub(crate) fn new() -> Self {
        DirtyShards { head: AtomicPtr::new(ptr::null_mut()) }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        // ORDERING: Relaxed, a hint: a later call sees a shard that is being added now.
        self.head.load(Ordering::Relaxed).is_null()
    }

    /// Adds a shard whose open bag has just received its first node. The caller holds the shard lock. Returns
    /// whether the list was empty.
    pub(crate) fn add(&self, shard: &ShardHeader) -> bool {
        // Q1 (the writer's borrow of the registry keeps the header alive during `enter`).
        shard.registry().enter();
        self.push(shard)
    }

    fn push(&self, shard: &ShardHeader) -> bool {
        let mut head = sync::guess(&self.head);
        loop {
            // ORDERING: Relaxed. The exchange below publishes it.
            shard.next_dirty.store(head, Ordering::Relaxed);
            let new = ptr::from_ref(shard).cast_mut();
            // ORDERING: Release, pairs with the Acquire in `collect`: publishes `next_dirty`.
            match self.head.compare_exchange_weak(head, new, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return head.is_null(),
                Err(now) => head = now,
            }
        }
    }

    /// Takes all shards from the list, and closes their open bags.
    ///
    /// A shard whose lock is taken goes back to the list. But if `wait` is true, or the shard's registry is closed,
    /// the collector waits for the lock. The caller holds the domain's lock for collecting, so there is one
    /// collector at a time.
    pub(crate) fn collect(&self, wait: bool) {
        // ORDERING: Acquire, pairs with the Release in `push`.
        let mut next = self.head.swap(ptr::null_mut(), Ordering::Acquire);
        while let Some(shard) = NonNull::new(next) {
            // SAFETY: Q1 (the shard is a visitor of its registry, so both are alive).
            let this = unsafe { shard.as_ref() };
            // Read before `operations.collect` releases the shard lock: from then on a writer may add the shard
            // again.
            // ORDERING: Relaxed. The Acquire that took the list orders it.
            next = this.next_dirty.load(Ordering::Relaxed);
            let registry = this.registry;
            // Wait for a shard of a closed registry: no later write would bring a collector to it. The wait is
            // short, as only threads that give slots back take that lock.
            let wait = wait || this.registry().is_closed();
            // SAFETY: the shard belongs to that registry, and its visit keeps both alive (Q1).
            if unsafe { (this.registry().operations.collect)(shard, wait) } {
                // SAFETY: Q1 (pairs with the `enter` in `add`; neither the shard nor its registry is used
                // afterwards).
                unsafe { RegistryHeader::leave(registry, Reclaimed::default()) };
            } else {
                self.push(this);
            }
        }
    }
}

/// The orphans of a domain: nodes whose last reference was put after their grace period. A lock-free stack.
pub(crate) struct Orphans {
    head: AtomicPtr<Header>,
}

impl Orphans {
    pub(crate) fn new() -> Self {
        Orphans { head: AtomicPtr::new(ptr::null_mut()) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        // ORDERING: Relaxed, a hint. It misses no orphan that it must see: a push that precedes a barrier happens
        // before this load, and the fences of Q3 order a push with the collection at the end of a registry.
        self.head.load(Ordering::Relaxed).is_null()
    }

    /// Adds an orphan.
    ///
    /// # Safety
    ///
    /// The caller owns the node (R2), and does not use it afterwards.
    unsafe fn push(&self, node: NonNull<Header>) {
        let mut head = sync::guess(&self.head);
        loop {
            // SAFETY: R2 (the caller owns the node until the exchange below succeeds).
            let this = unsafe { node.as_ref() };
            // SAFETY: N2 (the caller owns the node, whose grace period is over).
            unsafe { this.set_link(head) };
            // ORDERING: Release, pairs with the Acquire in `take`: publishes the link, and hands the node over.
            match self.head.compare_exchange_weak(head, node.as_ptr(), Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Takes all orphans.
    pub(crate) fn take(&self) -> Vec<NonNull<Header>> {
        let mut orphans = Vec::new();
        if self.is_empty() {
            return orphans;
        }
        // ORDERING: Acquire, pairs with the Release in `push`.
        let mut next = self.head.swap(ptr::null_mut(), Ordering::Acquire);
        while let Some(node) = NonNull::new(next) {
            orphans.push(node);
            // SAFETY: R2 (the exchange has made this thread the owner of every node in the stack).
            let this = unsafe { node.as_ref() };
            // SAFETY: N2 (this thread owns the node, and `push` has linked it).
            next = unsafe { this.link() };
        }
        orphans
    }
}

/// Returns what an orphan counts for in the backlog.
///
/// # Safety
///
/// The caller owns the node (R2).
pub(crate) unsafe fn amount_of(orphan: NonNull<Header>) -> Backlog {
    // SAFETY: R2 (the caller owns the node, so it is not freed).
    Backlog::one(unsafe { orphan.as_ref() }.weight.bytes())
}

/// Hands over a node whose last reference the caller has put: to the run that this thread is in the middle of, or to
/// the domain as an orphan.
///
/// # Safety
///
/// The count of the node has reached zero, and the caller is the thread that brought it there (R2).
#[cold]
pub(crate) unsafe fn put_last(node: NonNull<Header>) {
    // SAFETY: R2 (the caller owns the node, so it is not freed).
    let shard = unsafe { shard_of(node) };
    // SAFETY: Q2 (the node is not destroyed, so it keeps its shard alive).
    let registry = unsafe { shard.as_ref() }.registry;
    // SAFETY: Q2 (the node is not destroyed, so it keeps the header alive).
    let this = unsafe { registry.as_ref() };
    let domain = this.domain.inner();
    // If this thread is in a destructor or callback of this domain, the run that called it destroys this node too.
    if Running::adopt(domain, Orphan::Node(node)).is_none() {
        return;
    }
    // The visit keeps the registry below: once the node is pushed, another thread may destroy it at any moment.
    this.enter();
    // The drop of a handle cannot be refused, so the amount is charged even beyond the limit.
    // SAFETY: R2 (the caller owns the node, so it is not freed).
    let amount = unsafe { amount_of(node) };
    domain.budget.charge_unchecked(amount);
    domain.waiting.add(amount);
    // SAFETY: R2 (the caller owns the node, and does not use it below).
    unsafe { domain.orphans.push(node) };
    // ORDERING: SeqCst, pairs with the fence in `RegistryHeader::close` (Q3). Our store is the push above. Our later
    // load is `is_closed`, below.
    // - If our store comes first, that is if our fence precedes that of `close`: the collection that follows `close`
    //   finds the orphan. The thread that closes the registry destroys it.
    // - If the fence of `close` comes first: `is_closed` returns true, and this thread collects the orphan and
    //   destroys it.
    // A third thread may take the orphan in between. Then the orphan is in a batch or a part, and the domain's lock
    // decides which of the threads destroys it. docs/ordering.md, "An orphan and the end of its registry", has every
    // step.
    fence(Ordering::SeqCst);
    if this.is_closed() {
        // No write to a closed registry will drive reclamation, so this thread reclaims. The clone keeps the domain
        // alive beyond `leave`, which may free the header with its handle to the domain.
        let domain = this.domain.clone();
        domain.inner().destroy_closed(registry, Default::default());
        // SAFETY: pairs with the `enter` above; the header is not used afterwards.
        unsafe { RegistryHeader::leave(registry, Reclaimed::default()) };
    } else {
        domain.wake();
        // SAFETY: pairs with the `enter` above; the header is not used afterwards.
        unsafe { RegistryHeader::leave(registry, Reclaimed::default()) };
    }
}

/// Returns the shard that owns a node.
///
/// # Safety
///
/// The node is not freed before this returns.
pub(crate) unsafe fn shard_of(node: NonNull<Header>) -> NonNull<ShardHeader> {
    // SAFETY: the caller guarantees that the node is not freed. (Its slab, or the word before it, holds the shard's
    // address.)
    unsafe { owner(node) }.cast()
}
