//! From the unlink of a node to the list that waits for a grace period: retire queues, and when their owner may go.
//!
//! A registry has one [`RetireQueue`] a shard, and one [`Registrant`] as a whole. A node is pushed on its shard's
//! queue, without allocation, twice at the most:
//!
//! 1. when it is unlinked, with the table's reference still in it. It waits for a grace period, after which the
//!    reclaim side puts that reference;
//! 2. when its last reference is put by somebody else, later: by the drop of a handle. No reader can reach the node
//!    any more (its grace period is over), so it is ready for destruction at once.
//!
//! # Invariants
//!
//! - **Q1** A queue is in its domain's dirty list, or about to be put there by whoever made it non-empty, exactly
//!   while it holds nodes. Nodes leave a queue only by way of the dirty list. Whoever is about to put it there is in a
//!   critical section: a grace period later it has, and nothing that others pushed meanwhile is overlooked.
//! - **Q2** A registrant, with its queues and its domain, lives until it is closed, every node that was inserted is
//!   freed, and every visitor has left. The three are counted in one word: `balance`.
//! - **Q3** Once a registrant is closed, no node of it stays behind in a queue: whoever pushes looks at `closed`
//!   afterwards, and whoever closes collects afterwards, with a fence between the two steps on both sides.

#![allow(unsafe_code)]

use super::Domain;
use super::budget::Backlog;
use super::thread::Running;
use crate::node::Header;
use crate::sync::atomic::Ordering;
use crate::sync::{AtomicBool, AtomicPtr, AtomicU64, fence};
use std::ptr::{self, NonNull};

/// A registry, as its domain sees it: the first field of the registry's core.
pub(crate) struct Registrant {
    pub(crate) domain: Domain,
    /// Q2: `OPEN` while the registry is there, plus nodes inserted once it is closed, less nodes freed, plus visitors.
    balance: AtomicU64,
    /// Q3.
    closed: AtomicBool,
    /// Nodes destroyed.
    pub(crate) freed: AtomicU64,
    /// Destructors of keys and values that panicked.
    pub(crate) panics: AtomicU64,
    /// `Node::<K, V>::destroy`.
    destroy: unsafe fn(NonNull<Header>) -> u32,
    /// Frees the core whose first field this is.
    free: unsafe fn(NonNull<Registrant>),
}

/// Far from zero in both directions, so that no count of an open registrant is ever zero.
const OPEN: u64 = 1 << 62;

impl Registrant {
    /// `destroy` must be that of the nodes pushed on this registrant's queues, and `free` must fit the allocation this
    /// is put in.
    pub(crate) fn new(
        domain: Domain,
        destroy: unsafe fn(NonNull<Header>) -> u32,
        free: unsafe fn(NonNull<Registrant>),
    ) -> Self {
        Registrant {
            domain,
            balance: AtomicU64::new(OPEN),
            closed: AtomicBool::new(false),
            freed: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            destroy,
            free,
        }
    }

    /// Keeps the registrant alive until [`leave`](Self::leave). For whoever stands on something that does already.
    pub(crate) fn enter(&self) {
        // ORDERING: Relaxed. The caller holds what keeps the registrant alive until now.
        self.balance.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends a visit, in which `freed` nodes were destroyed, and perhaps the registrant with it.
    ///
    /// # Safety
    ///
    /// Pairs with one `enter`; `registrant` is not used by the caller afterwards.
    pub(crate) unsafe fn leave(registrant: NonNull<Registrant>, freed: u64) {
        // SAFETY: Q2, the visit that ends here keeps it alive.
        let this = unsafe { registrant.as_ref() };
        if freed > 0 {
            // ORDERING: Relaxed, a statistic.
            this.freed.fetch_add(freed, Ordering::Relaxed);
        }
        let free = this.free;
        // ORDERING: AcqRel. Release, so that all uses of the registrant happen before it is freed; Acquire, for the
        // one that frees it.
        if this.balance.fetch_sub(freed + 1, Ordering::AcqRel) == freed + 1 {
            // SAFETY: Q2: closed (the balance reaches zero only then), all nodes freed, no visitor left.
            unsafe { free(registrant) };
        }
    }

    /// Declares the registry gone. Nodes retired before are left to [`Domain::expedite`], which the caller is to call
    /// next, and then [`retire_self`](Self::retire_self).
    pub(crate) fn close(&self) {
        // ORDERING: Release, pairs with the Acquire in `is_closed`: whoever destroys a node without a grace period because
        // the registry is gone does so after all that its readers did.
        self.closed.store(true, Ordering::Release);
        // ORDERING: SeqCst, pairs with the fence in `put_last` (Q3): if our store comes first in their order, the one
        // that pushes sees `closed`; if the push comes first, our collection sees the node.
        fence(Ordering::SeqCst);
    }

    pub(crate) fn is_closed(&self) -> bool {
        // ORDERING: Acquire, pairs with the Release in `close`.
        self.closed.load(Ordering::Acquire)
    }

    /// Gives up the registry's own hold on the registrant: from here on its nodes alone keep it.
    ///
    /// # Safety
    ///
    /// Once, after `close`, with the number of nodes that were ever inserted.
    pub(crate) unsafe fn retire_self(registrant: NonNull<Registrant>, inserted: u64) {
        // SAFETY: Q2, the hold that ends here keeps it alive.
        let this = unsafe { registrant.as_ref() };
        let free = this.free;
        let hold = OPEN - inserted;
        // ORDERING: AcqRel, as in `leave`.
        if this.balance.fetch_sub(hold, Ordering::AcqRel) == hold {
            // SAFETY: Q2, as in `leave`.
            unsafe { free(registrant) };
        }
    }
}

/// Nodes of one shard that were unlinked, or lost their last reference, and that no batch holds yet.
pub(crate) struct RetireQueue {
    registrant: NonNull<Registrant>,
    head: AtomicPtr<Header>,
    /// The next queue of the domain's dirty list (Q1).
    next_dirty: AtomicPtr<RetireQueue>,
}

// SAFETY: `registrant` is shared, and used through shared references only.
unsafe impl Send for RetireQueue {}
// SAFETY: as for `Send`; the other two fields are atomics.
unsafe impl Sync for RetireQueue {}

impl RetireQueue {
    /// A queue of `registrant`, whose address must be final.
    pub(crate) fn new(registrant: NonNull<Registrant>) -> Self {
        RetireQueue { registrant, head: AtomicPtr::new(ptr::null_mut()), next_dirty: AtomicPtr::new(ptr::null_mut()) }
    }

    pub(crate) fn registrant(&self) -> &Registrant {
        // SAFETY: the registrant and its queues are freed together.
        unsafe { self.registrant.as_ref() }
    }

    /// Adds a chain of retired nodes. Lock-free.
    ///
    /// # Safety
    ///
    /// The nodes belong to this queue's shard and are in no other list (N2): either unlinked, with the table's
    /// reference in them, or without any reference (R2). The caller keeps the registrant alive.
    pub(crate) unsafe fn push(&self, list: List) {
        let Some(last) = list.last else { return };
        // SAFETY: the list is the caller's, so its nodes are there.
        let last = unsafe { last.as_ref() };
        let domain = self.registrant().domain.inner();
        // ORDERING: Relaxed, `head` is only compared, or pointed to.
        let mut head = self.head.load(Ordering::Relaxed);
        let mut pin = None;
        loop {
            if head.is_null() && pin.is_none() {
                // Q1.
                pin = Some(domain.pin());
            }
            last.set_next(head);
            // ORDERING: Release, pairs with the Acquire of `take`: hands the nodes over, and all that was done to
            // them, the unlink above all.
            match self.head.compare_exchange_weak(head, list.first, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => head = now,
            }
        }
        // Q1: nobody else puts the queue there, and until it is there nobody takes the nodes out.
        let wake = head.is_null() && domain.dirty.push(self);
        drop(pin);
        if wake {
            domain.wake();
        }
    }

    /// Takes all nodes.
    fn take(&self) -> *mut Header {
        // ORDERING: Acquire, pairs with the Release of `push`.
        self.head.swap(ptr::null_mut(), Ordering::Acquire)
    }
}

/// Hands over a node whose last reference its caller has put.
///
/// # Safety
///
/// `header`'s count has reached zero, and the caller is the one who saw that (R2).
#[cold]
pub(crate) unsafe fn put_last(header: NonNull<Header>) {
    // SAFETY: R2, the node is the caller's.
    let queue = unsafe { header.as_ref() }.owner();
    // SAFETY: Q2, this node is not freed yet.
    let queue = unsafe { queue.as_ref() };
    // Within a destructor of this domain, the run that it is part of goes on with this node.
    if Running::adopt(queue.registrant().domain.inner(), header) {
        return;
    }
    let registrant = queue.registrant;
    queue.registrant().enter();
    // SAFETY: R2, as before.
    let weight = unsafe { header.as_ref() }.weight;
    // It waits for nobody but its turn, and cannot be refused.
    queue.registrant().domain.inner().budget.overrun(Backlog::one(weight.bytes()));
    // SAFETY: R2; and the visit keeps the registrant alive.
    unsafe { queue.push(List::one(header)) };
    // ORDERING: SeqCst, pairs with the fence in `Registrant::close` (Q3).
    fence(Ordering::SeqCst);
    // Of a closed registrant nobody else may ever come by: no registry, no writer. The domain's handle outlives the
    // visit, which may be the last.
    let domain = queue.registrant().is_closed().then(|| queue.registrant().domain.clone());
    if let Some(domain) = &domain {
        domain.inner().expedite(registrant, Vec::new());
    }
    // SAFETY: pairs with `enter`.
    unsafe { Registrant::leave(registrant, 0) };
}

/// The queues of a domain that hold nodes (Q1).
pub(crate) struct Dirty {
    head: AtomicPtr<RetireQueue>,
}

impl Dirty {
    pub(crate) fn new() -> Self {
        Dirty { head: AtomicPtr::new(ptr::null_mut()) }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        // ORDERING: Relaxed, a hint: a queue put there now is seen by the next who looks.
        self.head.load(Ordering::Relaxed).is_null()
    }

    /// Adds a queue that has just become non-empty (Q1). True if there was none before.
    pub(crate) fn push(&self, queue: &RetireQueue) -> bool {
        // ORDERING: Relaxed, as in `RetireQueue::push`.
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            // ORDERING: Relaxed, published by the Release below.
            queue.next_dirty.store(head, Ordering::Relaxed);
            let new = ptr::from_ref(queue).cast_mut();
            // ORDERING: Release, pairs with the Acquire of `take`.
            match self.head.compare_exchange_weak(head, new, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return head.is_null(),
                Err(now) => head = now,
            }
        }
    }

    /// Empties every queue that holds nodes, and calls `each` with what was in it: first the nodes that wait for a
    /// grace period, then those that are ready for destruction.
    pub(crate) fn take(&self, mut each: impl FnMut(NonNull<RetireQueue>, List, List)) {
        // ORDERING: Acquire, pairs with the Release of `push`.
        let mut queue = self.head.swap(ptr::null_mut(), Ordering::Acquire);
        while let Some(this) = NonNull::new(queue) {
            // SAFETY: Q1 and Q2: it still holds nodes, so the registrant is alive.
            let held = unsafe { this.as_ref() };
            // Before the queue is emptied: from then on it may be pushed again.
            // ORDERING: Relaxed, acquired with the list.
            queue = held.next_dirty.load(Ordering::Relaxed);
            let (mut limbo, mut ready) = (List::new(), List::new());
            let mut node = held.take();
            while let Some(header) = NonNull::new(node) {
                // SAFETY: `take` made the list ours, and its nodes are there.
                let next = unsafe { header.as_ref() }.next();
                // SAFETY: as before.
                let zero = unsafe { header.as_ref() }.refs.is_zero();
                if zero {
                    ready.push(header)
                } else {
                    limbo.push(header)
                }
                node = next;
            }
            each(this, limbo, ready);
        }
    }
}

/// A chain of retired nodes, linked through their headers (N2). Dropping it leaks them.
pub(crate) struct List {
    first: *mut Header,
    last: Option<NonNull<Header>>,
    amount: Backlog,
}

// SAFETY: a list owns its nodes' links, and its users see to it that keys and values may be sent.
unsafe impl Send for List {}

impl List {
    pub(crate) fn new() -> Self {
        List { first: ptr::null_mut(), last: None, amount: Backlog::default() }
    }

    /// The node is the caller's to link (N2).
    pub(crate) fn one(header: NonNull<Header>) -> Self {
        let mut list = List::new();
        list.push(header);
        list
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.amount.objects == 0
    }

    pub(crate) fn amount(&self) -> Backlog {
        self.amount
    }

    /// Adds a node at the front. The node is the caller's to link (N2).
    pub(crate) fn push(&mut self, header: NonNull<Header>) {
        // SAFETY: the caller holds the node.
        let node = unsafe { header.as_ref() };
        node.set_next(self.first);
        self.first = header.as_ptr();
        self.last.get_or_insert(header);
        self.amount += Backlog::one(node.weight.bytes());
    }

    fn pop(&mut self) -> Option<NonNull<Header>> {
        if self.is_empty() {
            return None;
        }
        let header = NonNull::new(self.first)?;
        // SAFETY: the list holds its nodes.
        let node = unsafe { header.as_ref() };
        self.first = node.next();
        self.amount -= Backlog::one(node.weight.bytes());
        if self.is_empty() {
            self.last = None;
        }
        Some(header)
    }

    /// Puts the table's reference of up to `budget` nodes, and destroys those for which it was the last, or that had
    /// none. Returns what was taken off the list.
    ///
    /// # Safety
    ///
    /// The nodes are of `queue`'s shard, their grace period is over, and they come from a batch, so that no one else
    /// processes them. `queue` may be gone when this returns, if the list is empty then.
    pub(crate) unsafe fn reclaim(&mut self, queue: NonNull<RetireQueue>, budget: usize) -> Backlog {
        let before = self.amount;
        if self.is_empty() {
            return before;
        }
        // SAFETY: Q2, the first node is not freed yet.
        let registrant = unsafe { queue.as_ref() }.registrant;
        // SAFETY: as before.
        let this = unsafe { registrant.as_ref() };
        this.enter();
        let destroy = this.destroy;
        let (mut freed, mut panics) = (0, 0);
        for _ in 0..budget {
            let Some(header) = self.pop() else { break };
            // SAFETY: the list held the node.
            let node = unsafe { header.as_ref() };
            // N2: out of the list; whoever puts the last reference looks its owner up.
            node.set_owner(queue);
            if node.refs.put_tables() {
                // SAFETY: R2, and the destructor is the one of this registrant's nodes.
                panics += u64::from(unsafe { destroy(header) });
                freed += 1;
            }
        }
        if panics > 0 {
            // ORDERING: Relaxed, a statistic.
            this.panics.fetch_add(panics, Ordering::Relaxed);
        }
        // SAFETY: pairs with `enter`.
        unsafe { Registrant::leave(registrant, freed) };
        let mut taken = before;
        taken -= self.amount;
        taken
    }
}
