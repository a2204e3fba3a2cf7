//! Nodes that live beyond their home when a resize moves them. No thread may follow their old slots after the nodes are
//! freed.
//!
//! The tests use one shard of 64 buckets. Each key is its own hash. So the home of each key is known, and all tags are
//! equal.

use crate::common::*;
use epoch_registry::{Domain, Registry};
use std::hash::{BuildHasher, Hash, Hasher};

/// A key whose comparison fails if one of the two keys was dropped.
struct Key(Counted);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.get());
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

impl Eq for Key {}

#[derive(Clone, Copy, Default)]
struct Identity(u64);

impl BuildHasher for Identity {
    type Hasher = Identity;

    fn build_hasher(&self) -> Identity {
        *self
    }
}

impl Hasher for Identity {
    fn write(&mut self, _: &[u8]) {
        unreachable!("keys write one number");
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

const BUCKETS: u64 = 64;
/// The number of entries at which such a table grows.
const LIMIT: u64 = BUCKETS * 7 * 3 / 4;
/// A home with two more keys than its bucket has slots. These two keys live in the next bucket.
const FULL: u64 = 60;

fn key(ledger: &Ledger, home: u64, n: u64) -> Key {
    Key(ledger.value(home + n * BUCKETS))
}

/// Returns a registry in the middle of a resize. Of the last homes, the resize has moved only `FULL`. A key of `FULL`
/// that lived in the next bucket was then removed and freed.
fn after_the_removal_of_a_moved_key(ledger: &Ledger) -> Registry<Key, u64, Identity> {
    let builder = Registry::builder().shards(1).capacity(LIMIT as usize).domain(Domain::new());
    let registry = builder.hasher(Identity::default()).build();
    let insert = |home, n| assert!(registry.try_insert(key(ledger, home, n), n).is_ok());
    (0..9).for_each(|n| insert(FULL, n));
    (0..3).for_each(|n| insert(FULL + 1, n));
    let mut rest = (0..).flat_map(|n| (0..FULL - 4).map(move |home| (home, n)));
    while (registry.len() as u64) < LIMIT {
        let (home, n) = rest.next().unwrap();
        insert(home, n);
    }
    assert_eq!(registry.stats().resizes, 1, "no resize has begun");
    assert!(registry.remove(&key(ledger, FULL, 8)).is_some());
    registry.domain().barrier();
    assert_eq!((registry.stats().freed, ledger.live()), (1, LIMIT - 1));
    registry
}

// Suppose that a move left a node that lives beyond its home in the old table. A removal would then unlink it only from
// the next table. A reader that walks the chain of a home that has not moved yet would follow the old slot after the
// node is freed.

#[test]
fn a_lookup_does_not_follow_the_old_slot_of_a_freed_node() {
    let ledger = Ledger::new();
    let registry = after_the_removal_of_a_moved_key(&ledger);
    assert!(registry.lookup(&key(&ledger, FULL + 1, 50)).is_none());
    assert!((0..3).all(|n| registry.lookup(&key(&ledger, FULL + 1, n)).is_some_and(|found| *found == n)));
}

/// The memory of the freed node now belongs to a node of another registry, if the allocator reuses it.
#[test]
fn an_iteration_finds_neither_a_freed_node_nor_a_node_in_its_memory() {
    let ledger = Ledger::new();
    let registry = after_the_removal_of_a_moved_key(&ledger);
    let other = Registry::builder().shards(1).domain(Domain::new()).hasher(Identity::default()).build();
    (1000..1100).for_each(|n| drop(other.try_insert(key(&ledger, FULL + 1, n), n)));
    assert!(
        registry.pin().iter().all(|entry| entry.key().0.get() < 1000 * BUCKETS),
        "the iteration found a node of another registry"
    );
    assert_eq!(registry.pin().iter().count() as u64, LIMIT - 1);
}

#[test]
fn a_resize_moves_neither_a_freed_node_nor_a_node_in_its_memory() {
    let ledger = Ledger::new();
    let registry = after_the_removal_of_a_moved_key(&ledger);
    let other = Registry::builder().shards(1).domain(Domain::new()).hasher(Identity::default()).build();
    (1000..1100).for_each(|n| drop(other.try_insert(key(&ledger, FULL + 1, n), n)));
    // This removal moves its home.
    assert!(registry.lookup(&key(&ledger, FULL + 1, 0)).is_some_and(|entry| registry.remove_handle(&entry)));
    let foreign = (1000..1100).filter(|&n| registry.lookup(&key(&ledger, FULL + 1, n)).is_some()).count();
    assert_eq!(foreign, 0, "the resize moved nodes of another registry into the table");
    assert_eq!(registry.pin().iter().count() as u64, LIMIT - 2);
}

/// The same with a replacement instead of the removal.
#[test]
fn a_lookup_does_not_follow_the_old_slot_of_a_node_that_was_replaced() {
    let ledger = Ledger::new();
    let registry = after_the_removal_of_a_moved_key(&ledger);
    assert!(registry.insert(key(&ledger, FULL, 7), 70).is_some());
    registry.domain().barrier();
    assert!(registry.lookup(&key(&ledger, FULL + 1, 50)).is_none());
    assert!(registry.lookup(&key(&ledger, FULL, 7)).is_some_and(|found| *found == 70));
}
