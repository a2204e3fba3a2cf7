//! Registries with large slabs, and entries that lie in slabs, or have allocations of their own, by their size.

use crate::common::*;
use epoch_registry::{ManualClock, Registry, SlabSize};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const SIZES: [SlabSize; 2] = [SlabSize::Small, SlabSize::Large];

/// A value of a size of its own, whose drop is counted.
struct Padded<const N: usize> {
    counted: Counted,
    padding: [u8; N],
}

impl<const N: usize> Padded<N> {
    fn new(ledger: &Ledger, number: u64) -> Self {
        Padded { counted: ledger.value(number), padding: [number as u8; N] }
    }

    fn check(&self, number: u64) {
        assert_eq!((self.counted.get(), self.padding), (number, [number as u8; N]));
    }
}

fn registry<const N: usize>(slab: SlabSize, clock: &ManualClock) -> Registry<u64, Padded<N>> {
    isolated_builder().shards(2).slab_size(slab).clock(clock.clone()).build()
}

/// The entries lie in slabs of both sizes, in large slabs only, or in no slab.
fn for_all(check: [&dyn Fn(SlabSize); 3]) {
    for slab in SIZES {
        check.iter().for_each(|check| check(slab));
    }
}

fn lives_and_ends<const N: usize>(slab: SlabSize) {
    const KEYS: u64 = 2000;
    let (ledger, clock) = (Ledger::new(), ManualClock::new());
    let registry = registry::<N>(slab, &clock);
    let domain = registry.domain().clone();
    for key in 0..KEYS {
        assert!(!registry.set(key, Padded::new(&ledger, key)));
    }
    // Handles of removed and of present entries. The last put of a removed entry finds the shard by the node's address.
    let removed: Vec<_> = (0..KEYS).step_by(3).map(|key| registry.remove(&key).unwrap()).collect();
    let held: Vec<_> = (1..KEYS).step_by(30).map(|key| registry.lookup(&key).unwrap()).collect();
    domain.barrier();
    removed.iter().for_each(|handle| handle.check(*handle.key()));
    drop(removed);
    domain.barrier();
    assert_eq!(ledger.live(), registry.len() as u64);
    // Slots that were given back are used again.
    for key in (0..KEYS).step_by(3) {
        assert!(!registry.set(key, Padded::new(&ledger, key)));
    }
    registry.pin().iter().for_each(|entry| entry.check(*entry.key()));
    assert_eq!(registry.len() as u64, KEYS);
    // The nodes that are there keep their slabs. New nodes have lives, and lie in new slabs.
    registry.set_max_age(Some(10 * SECOND));
    clock.advance(9 * SECOND);
    for key in 0..KEYS / 2 {
        assert!(registry.set(key, Padded::new(&ledger, key)));
    }
    clock.advance(2 * SECOND);
    assert_eq!(registry.expire(usize::MAX).removed as u64, KEYS / 2);
    domain.barrier();
    assert_eq!(registry.len() as u64, KEYS / 2);
    registry.pin().iter().for_each(|entry| entry.check(*entry.key()));
    held.iter().for_each(|handle| handle.check(*handle.key()));
    clock.advance(20 * SECOND);
    assert_eq!(registry.expire(usize::MAX).removed as u64, KEYS / 2);
    registry.shrink_to_fit();
    for key in 0..100 {
        assert!(!registry.set(key, Padded::new(&ledger, key)));
    }
    let kept = registry.lookup(&50).unwrap();
    drop(registry);
    domain.barrier();
    // These handles outlive the registry, whose slabs they keep.
    held.iter().chain([&kept]).for_each(|handle| handle.check(*handle.key()));
    assert_eq!(ledger.live(), held.len() as u64 + 1);
    drop((held, kept));
    domain.barrier();
    assert_eq!(ledger.live(), 0);
}

#[test]
fn every_value_is_dropped_once_whatever_the_size_of_slabs_and_entries() {
    for_all([&lives_and_ends::<1>, &lives_and_ends::<600>, &lives_and_ends::<3000>]);
}

/// Values that need no drop: their nodes are freed slab by slab.
#[test]
fn a_registry_of_plain_values_is_torn_down_whatever_the_size_of_slabs() {
    fn check<V: Copy + Default + Send + Sync + 'static>(slab: SlabSize) {
        let registry: Registry<u64, V> = isolated_builder().slab_size(slab).build();
        let domain = registry.domain().clone();
        registry.set_many((0..5000).map(|key| (key, V::default())));
        (0..5000).step_by(2).for_each(|key| assert!(registry.delete(&key)));
        let held = registry.lookup(&1).unwrap();
        drop(registry);
        domain.barrier();
        assert_eq!(domain.backlog().objects, 0);
        assert_eq!(*held.key(), 1);
        drop(held);
        domain.barrier();
        assert_eq!(domain.backlog().objects, 0);
    }
    for_all([&check::<u64>, &check::<[u64; 32]>, &check::<[[u64; 32]; 16]>]);
}
