//! Bags: arrays of retired nodes of one shard. A bag goes from the shard to the domain, through a grace period, and
//! back to the shard with free slots.
//!
//! At each moment a bag is in one place and has one user:
//!
//! - a shard, under its lock: as its open bag, as a magazine of free slots, or as a spare;
//! - the domain's stack of closed bags;
//! - a batch, under the domain's lock;
//! - the thread that destroys the bag's nodes;
//! - the domain's pool of empty bags.
//!
//! So to retire a node is one store into an array. Once a shard has its few bags, neither retiring nor freeing a
//! node allocates memory.

#![allow(unsafe_code)]

use super::backlog::Backlog;
use super::header::ShardHeader;
use crate::node::Header;
use crate::sync::atomic::Ordering;
use crate::sync::{self, AtomicPtr, BAG, Mutex, Presence};
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};

/// A bag is closed before it is full once its nodes count for this many bytes.
const HEAVY: u64 = 64 << 10;

/// An array of up to [`BAG`] nodes of one shard.
///
/// ```text
///  nodes  ┌────────────┬────────────┬─────────────┬─────────┐
///         │ free slots │ (kept by   │ not visited │ (unused)│
///         │            │  handles)  │ yet         │         │
///         └────────────┴────────────┴─────────────┴─────────┘
///         0          free         done          len       BAG
/// ```
///
/// While nodes are retired, `free` and `done` are zero. While nodes are destroyed, `done` moves from zero to `len`,
/// and `free` counts the nodes that were destroyed. When `done` has reached `len`, the entries up to `free` are the
/// slots of destroyed nodes. The other nodes still have handles, and the bag has given them up: `take` has returned
/// them.
pub(crate) struct Bag {
    shard: NonNull<ShardHeader>,
    /// The next bag of the queue or stack that this bag is in. Null while it is in none.
    next: *mut Bag,
    /// Whether its nodes are counted in the backlog. Only nodes that were still in a registry when it was dropped
    /// are not.
    pub(crate) is_counted: bool,
    /// The bytes that the nodes from `done` on count for.
    bytes: u64,
    free: usize,
    done: usize,
    len: usize,
    nodes: [MaybeUninit<NonNull<Header>>; BAG],
    presence: Presence,
}

// SAFETY: a bag owns the table's reference of its nodes, or their slots. Every registry requires that its keys and
// values are `Send` and `Sync`.
unsafe impl Send for Bag {}

impl Bag {
    pub(crate) fn new(shard: NonNull<ShardHeader>) -> Box<Bag> {
        let nodes = [MaybeUninit::uninit(); BAG];
        let next = ptr::null_mut();
        let presence = Presence::new();
        Box::new(Bag { shard, next, is_counted: true, bytes: 0, free: 0, done: 0, len: 0, nodes, presence })
    }

    /// Empties the bag for another use, perhaps by another shard.
    pub(crate) fn reset(&mut self, shard: NonNull<ShardHeader>) {
        (self.shard, self.is_counted, self.bytes) = (shard, true, 0);
        (self.free, self.done, self.len) = (0, 0, 0);
    }

    pub(crate) fn shard(&self) -> NonNull<ShardHeader> {
        self.shard
    }

    /// Adds a retired node, which counts for `bytes`. Returns whether the bag must be closed now: it is full or
    /// heavy.
    #[inline]
    pub(crate) fn push(&mut self, node: NonNull<Header>, bytes: u64) -> bool {
        self.presence.own();
        self.nodes[self.len] = MaybeUninit::new(node);
        self.len += 1;
        self.bytes += bytes;
        self.len == BAG || self.bytes >= HEAVY
    }

    /// Adds a retired node, which counts for `bytes`, to the open bag, or to a new one if there is none. Returns the bag if
    /// it must be closed now.
    pub(crate) fn fill(
        open: &mut Option<Box<Bag>>,
        new: impl FnOnce() -> Box<Bag>,
        node: NonNull<Header>,
        bytes: u64,
    ) -> Option<Box<Bag>> {
        if open.get_or_insert_with(new).push(node, bytes) { open.take() } else { None }
    }

    /// Returns whether no node is left to destroy.
    pub(crate) fn is_empty(&self) -> bool {
        self.done == self.len
    }

    /// Returns the amount that is left to destroy.
    pub(crate) fn amount(&self) -> Backlog {
        Backlog::of((self.len - self.done) as u64, self.bytes)
    }

    /// Returns the node that is `ahead` positions after the next node to destroy. For prefetching.
    #[inline]
    pub(crate) fn peek(&self, ahead: usize) -> Option<NonNull<Header>> {
        let index = self.done + ahead;
        // SAFETY: the index is below `len`, so `push` has written the element.
        (index < self.len).then(|| unsafe { self.nodes[index].assume_init() })
    }

    /// Takes the next node to destroy. `weigh` returns the bytes that the node counts for, as they were given to
    /// `push`.
    #[inline]
    pub(crate) fn take(&mut self, weigh: impl FnOnce(NonNull<Header>) -> u64) -> Option<NonNull<Header>> {
        self.presence.own();
        let node = self.peek(0)?;
        self.done += 1;
        self.bytes -= weigh(node);
        Some(node)
    }

    /// Adds the slot of a destroyed node, which [`take`](Self::take) has returned.
    #[inline]
    pub(crate) fn push_free(&mut self, slot: NonNull<Header>) {
        debug_assert!(self.free < self.done);
        self.nodes[self.free] = MaybeUninit::new(slot);
        self.free += 1;
    }

    /// Takes the free slot that was added last.
    #[inline]
    pub(crate) fn pop_free(&mut self) -> Option<NonNull<Header>> {
        self.presence.own();
        self.free = self.free.checked_sub(1)?;
        // SAFETY: `push_free` has written the element. (The index is in bounds: `free` never exceeds `done`.)
        Some(unsafe { self.nodes[self.free].assume_init() })
    }

    pub(crate) fn has_free(&self) -> bool {
        self.free > 0
    }

    /// Returns whether the bag holds enough free slots to be kept as a magazine.
    pub(crate) fn is_half_full(&self) -> bool {
        self.free >= BAG / 2
    }
}

/// A queue of bags: first in, first out.
pub(crate) struct Bags {
    first: *mut Bag,
    /// Null exactly if `first` is.
    last: *mut Bag,
}

// SAFETY: the queue owns its bags, which are `Send`.
unsafe impl Send for Bags {}

impl Default for Bags {
    fn default() -> Self {
        Bags { first: ptr::null_mut(), last: ptr::null_mut() }
    }
}

impl Bags {
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_null()
    }

    pub(crate) fn push(&mut self, bag: Box<Bag>) {
        let bag = Box::into_raw(bag);
        // SAFETY: null, or the queue owns its last bag.
        match unsafe { self.last.as_mut() } {
            Some(last) => last.next = bag,
            None => self.first = bag,
        }
        self.last = bag;
    }

    pub(crate) fn push_front(&mut self, mut bag: Box<Bag>) {
        bag.next = self.first;
        self.first = Box::into_raw(bag);
        if self.last.is_null() {
            self.last = self.first;
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Box<Bag>> {
        if self.first.is_null() {
            return None;
        }
        // SAFETY: the pointer comes from `into_raw`, and the queue owns the bag.
        let mut bag = unsafe { Box::from_raw(self.first) };
        self.first = std::mem::replace(&mut bag.next, ptr::null_mut());
        if self.first.is_null() {
            self.last = ptr::null_mut();
        }
        Some(bag)
    }

    pub(crate) fn append(&mut self, mut other: Bags) {
        while let Some(bag) = other.pop() {
            self.push(bag);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Bag> {
        // SAFETY: null, or from `into_raw`; the queue owns the bag and is borrowed.
        let first = unsafe { self.first.as_ref() };
        // SAFETY: null, or from `into_raw`; the queue owns the bag and is borrowed.
        std::iter::successors(first, |bag| unsafe { bag.next.as_ref() })
    }

    /// Takes out the bags for which `is_wanted` returns true.
    pub(crate) fn extract(&mut self, is_wanted: impl Fn(&Bag) -> bool) -> Bags {
        let (mut wanted, mut others) = (Bags::default(), Bags::default());
        while let Some(bag) = self.pop() {
            if is_wanted(&bag) { wanted.push(bag) } else { others.push(bag) }
        }
        *self = others;
        wanted
    }
}

impl Drop for Bags {
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}

/// The closed bags of a domain: a lock-free stack. Any thread pushes a bag; one thread at a time takes all of them.
pub(crate) struct ClosedBags {
    head: AtomicPtr<Bag>,
}

impl ClosedBags {
    pub(crate) fn new() -> Self {
        ClosedBags { head: AtomicPtr::new(ptr::null_mut()) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        // ORDERING: Relaxed, a hint. A barrier misses no bag by it: the pushes that it must see happen before its
        // call.
        self.head.load(Ordering::Relaxed).is_null()
    }

    pub(crate) fn push(&self, bag: Box<Bag>) {
        let bag = Box::into_raw(bag);
        let mut head = sync::guess(&self.head);
        loop {
            // SAFETY: from `into_raw`; no other thread knows the bag before the exchange below succeeds.
            unsafe { (*bag).next = head };
            // ORDERING: Release, pairs with the Acquire in `take`. It hands over the bag and everything done to its
            // nodes before, above all their unlinking.
            match self.head.compare_exchange_weak(head, bag, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Takes all bags, and returns them with the oldest first.
    pub(crate) fn take(&self) -> Bags {
        let mut bags = Bags::default();
        if self.is_empty() {
            return bags;
        }
        // ORDERING: Acquire, pairs with the Release in `push`.
        let mut newest = self.head.swap(ptr::null_mut(), Ordering::Acquire);
        while !newest.is_null() {
            // SAFETY: from `into_raw`; the exchange above has made this thread the owner of the whole stack.
            let bag = unsafe { Box::from_raw(newest) };
            newest = bag.next;
            bags.push_front(bag);
        }
        bags
    }
}

impl Drop for ClosedBags {
    fn drop(&mut self) {
        drop(self.take());
    }
}

/// A domain's pool of empty bags that no shard needs at the moment.
pub(crate) struct BagPool(Mutex<Pooled>);

#[derive(Default)]
struct Pooled {
    bags: Bags,
    len: usize,
}

/// The most bags that the pool keeps: 64 KiB in all.
const POOLED: usize = 64;

impl BagPool {
    pub(crate) fn new() -> Self {
        BagPool(Mutex::new(Pooled::default()))
    }

    pub(crate) fn take(&self, shard: NonNull<ShardHeader>) -> Box<Bag> {
        let mut pooled = self.0.lock();
        let Some(mut bag) = pooled.bags.pop() else { return Bag::new(shard) };
        pooled.len -= 1;
        bag.reset(shard);
        bag
    }

    pub(crate) fn put(&self, bag: Option<Box<Bag>>) {
        let Some(bag) = bag else { return };
        let mut pooled = self.0.lock();
        if pooled.len < POOLED {
            pooled.len += 1;
            pooled.bags.push(bag);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn bag(nodes: usize) -> Box<Bag> {
        let mut bag = Bag::new(NonNull::dangling());
        (0..nodes).for_each(|_| assert!(!bag.push(NonNull::dangling(), 10)));
        bag
    }

    fn lengths(mut bags: Bags) -> Vec<usize> {
        std::iter::from_fn(|| bags.pop()).map(|bag| bag.len).collect()
    }

    #[test]
    fn bags_are_taken_in_the_order_in_which_they_were_closed() {
        let closed = ClosedBags::new();
        assert!(closed.is_empty());
        (1..=5).for_each(|nodes| closed.push(bag(nodes)));
        assert_eq!(lengths(closed.take()), [1, 2, 3, 4, 5]);
        assert!(closed.is_empty());
    }

    #[test]
    fn bags_are_extracted_in_order() {
        let mut bags = Bags::default();
        (1..=6).for_each(|nodes| bags.push(bag(nodes)));
        let odd = bags.extract(|bag| bag.len % 2 == 1);
        bags.push_front(bag(9));
        bags.append(odd);
        assert_eq!(lengths(bags), [9, 2, 4, 6, 1, 3, 5]);
    }

    #[test]
    fn a_bag_is_closed_when_it_is_full_or_heavy() {
        let mut full = Bag::new(NonNull::dangling());
        let mut pushed = 1;
        while !full.push(NonNull::dangling(), 1) {
            pushed += 1;
        }
        assert_eq!((pushed, full.amount()), (BAG, Backlog::of(BAG as u64, BAG as u64)));
        assert!(Bag::new(NonNull::dangling()).push(NonNull::dangling(), HEAVY));
    }

    #[test]
    fn destroyed_nodes_of_a_bag_are_free_and_held_ones_are_not() {
        let mut bag = bag(10);
        let mut taken = 0;
        while let Some(node) = bag.take(|_| 10) {
            if taken % 3 == 0 {
                bag.push_free(node);
            }
            taken += 1;
        }
        assert_eq!((taken, bag.amount(), bag.is_empty()), (10, Backlog::default(), true));
        assert_eq!(std::iter::from_fn(|| bag.pop_free()).count(), 4);
    }
}
