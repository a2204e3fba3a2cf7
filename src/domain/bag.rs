//! Retired nodes of one shard, up to a number: what goes from the shard to the domain, through a grace period, and back as
//! free slots.
//!
//! A bag is at each moment in one place and has one user: the shard, under its lock, while it is open, or a magazine; the
//! domain's stack of closed bags; a batch, under the domain's lock; or the thread that destroys its nodes. So retiring a node
//! is a store into an array, and neither retiring nor freeing allocates, once a shard has its few bags.

#![allow(unsafe_code)]

use super::backlog::Backlog;
use super::header::ShardHeader;
use crate::node::Header;
use crate::sync::atomic::Ordering;
use crate::sync::{self, AtomicPtr, BAG, Mutex, Presence};
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};

/// Bytes that the nodes of a bag count for, from which on it is closed before it is full.
const HEAVY: u64 = 64 << 10;

/// Up to [`BAG`] nodes of one shard.
///
/// ```text
///  nodes  ┌────────────┬────────────┬─────────────┬─────────┐
///         │ free slots │ (given up) │ not looked  │ (unused)│
///         │            │            │ at yet      │         │
///         └────────────┴────────────┴─────────────┴─────────┘
///         0          free         done          len       BAG
/// ```
///
/// While nodes are retired, `free` and `done` are zero. When all were looked at, those up to `free` are slots of destroyed
/// nodes, and the others of handles that are left.
pub(crate) struct Bag {
    shard: NonNull<ShardHeader>,
    /// The next bag of the list that this one is in. Null while it is in none.
    next: *mut Bag,
    /// Whether its nodes have taken their place in the backlog: all but those that were in a registry when it was dropped.
    pub(crate) is_counted: bool,
    /// What the nodes from `done` on count for.
    bytes: u64,
    free: usize,
    done: usize,
    len: usize,
    nodes: [MaybeUninit<NonNull<Header>>; BAG],
    presence: Presence,
}

// SAFETY: a bag owns the table's reference of its nodes, or their slots, and its users see to it that keys and values may
// be sent.
unsafe impl Send for Bag {}

impl Bag {
    pub(crate) fn new(shard: NonNull<ShardHeader>) -> Box<Bag> {
        let nodes = [MaybeUninit::uninit(); BAG];
        let next = ptr::null_mut();
        let presence = Presence::new();
        Box::new(Bag { shard, next, is_counted: true, bytes: 0, free: 0, done: 0, len: 0, nodes, presence })
    }

    /// Empties it for another use, by another shard perhaps.
    pub(crate) fn reset(&mut self, shard: NonNull<ShardHeader>) {
        (self.shard, self.is_counted, self.bytes) = (shard, true, 0);
        (self.free, self.done, self.len) = (0, 0, 0);
    }

    pub(crate) fn shard(&self) -> NonNull<ShardHeader> {
        self.shard
    }

    /// Adds a retired node. True if the bag should be closed: then there may be no room for another.
    #[inline]
    pub(crate) fn push(&mut self, node: NonNull<Header>, bytes: u64) -> bool {
        self.presence.own();
        self.nodes[self.len] = MaybeUninit::new(node);
        self.len += 1;
        self.bytes += bytes;
        self.len == BAG || self.bytes >= HEAVY
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.done == self.len
    }

    /// What is left to destroy.
    pub(crate) fn amount(&self) -> Backlog {
        Backlog::of((self.len - self.done) as u64, self.bytes)
    }

    /// The node that is the next to be destroyed, `ahead` of the present one: to ask the processor for it.
    #[inline]
    pub(crate) fn peek(&self, ahead: usize) -> Option<NonNull<Header>> {
        let index = self.done + ahead;
        // SAFETY: below `len`, written by `push`.
        (index < self.len).then(|| unsafe { self.nodes[index].assume_init() })
    }

    /// Takes the next node, which counts for so many bytes by what `weigh` says.
    #[inline]
    pub(crate) fn take(&mut self, weigh: impl FnOnce(NonNull<Header>) -> u64) -> Option<NonNull<Header>> {
        self.presence.own();
        let node = self.peek(0)?;
        self.done += 1;
        self.bytes -= weigh(node);
        Some(node)
    }

    /// Adds the slot of a destroyed node: one that was taken before.
    #[inline]
    pub(crate) fn push_free(&mut self, slot: NonNull<Header>) {
        debug_assert!(self.free < self.done);
        self.nodes[self.free] = MaybeUninit::new(slot);
        self.free += 1;
    }

    /// A free slot, of those added last.
    #[inline]
    pub(crate) fn pop_free(&mut self) -> Option<NonNull<Header>> {
        self.presence.own();
        self.free = self.free.checked_sub(1)?;
        // SAFETY: written by `push_free`. (The index is below the length of the array, as `free` never exceeds `done`.)
        Some(unsafe { self.nodes[self.free].assume_init() })
    }

    pub(crate) fn has_free(&self) -> bool {
        self.free > 0
    }

    /// Whether it holds enough free slots to be worth keeping.
    pub(crate) fn is_half_full(&self) -> bool {
        self.free >= BAG / 2
    }
}

/// Bags in order: first in, first out.
pub(crate) struct Bags {
    first: *mut Bag,
    /// Null exactly if `first` is.
    last: *mut Bag,
}

// SAFETY: it owns its bags, which are `Send`.
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
        // SAFETY: the list owns its last bag.
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
        // SAFETY: from `into_raw`, and the list owns it.
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
        // SAFETY: null, or from `into_raw`, and the list owns it.
        let first = unsafe { self.first.as_ref() };
        // SAFETY: as said.
        std::iter::successors(first, |bag| unsafe { bag.next.as_ref() })
    }

    /// Takes out the bags of which `is_wanted` holds.
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

/// Bags that any thread adds, and one takes all at a time. Lock-free.
pub(crate) struct ClosedBags {
    head: AtomicPtr<Bag>,
}

impl ClosedBags {
    pub(crate) fn new() -> Self {
        ClosedBags { head: AtomicPtr::new(ptr::null_mut()) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        // ORDERING: Relaxed, a hint.
        self.head.load(Ordering::Relaxed).is_null()
    }

    pub(crate) fn push(&self, bag: Box<Bag>) {
        let bag = Box::into_raw(bag);
        let mut head = sync::guess(&self.head);
        loop {
            // SAFETY: from `into_raw`, and no other thread has it yet.
            unsafe { (*bag).next = head };
            // ORDERING: Release, pairs with the Acquire in `take`: hands the bag over, and all that was done to its nodes, the
            // unlinking above all.
            match self.head.compare_exchange_weak(head, bag, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Takes all bags, the oldest first.
    pub(crate) fn take(&self) -> Bags {
        let mut bags = Bags::default();
        if self.is_empty() {
            return bags;
        }
        // ORDERING: Acquire, pairs with the Release in `push`.
        let mut newest = self.head.swap(ptr::null_mut(), Ordering::Acquire);
        while !newest.is_null() {
            // SAFETY: from `into_raw`, and the swap made it ours.
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

/// Empty bags that no shard needs at the moment.
pub(crate) struct BagPool(Mutex<Pooled>);

#[derive(Default)]
struct Pooled {
    bags: Bags,
    len: usize,
}

/// Bags that are kept: 64 KiB.
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
    fn bags_come_out_in_the_order_in_which_they_were_closed() {
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
    fn what_was_destroyed_is_free_and_what_is_held_is_not() {
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
