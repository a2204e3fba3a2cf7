//! Entries whose weight changes while they are in the registry.

use crate::common::*;
use epoch_registry::{Builder, Cause, Domain, Registry};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;

type Sizes = Registry<u64, AtomicUsize>;

fn weighed() -> Builder<u64, AtomicUsize> {
    isolated_builder::<u64, AtomicUsize>().shards(1).weigher(|_, size: &AtomicUsize| size.load(SeqCst))
}

/// Returns the bytes of an entry that holds nothing beyond itself.
fn own_size() -> u64 {
    let registry = weighed().build();
    registry.set(1, AtomicUsize::new(0));
    registry.weight()
}

#[test]
fn a_reweighed_entry_counts_for_what_it_holds_now() {
    let (registry, own) = (weighed().build(), own_size());
    let entry = registry.insert_and_get(1, AtomicUsize::new(100));
    registry.set(2, AtomicUsize::new(50));
    assert_eq!(registry.weight(), 2 * own + 150);
    for size in [1000, 0, 500, 500] {
        entry.store(size, SeqCst);
        assert_eq!(registry.reweigh(&entry), own + size as u64);
        assert_eq!((registry.weight(), registry.stats().weight), (2 * own + size as u64 + 50, registry.weight()));
    }
    registry.remove(&1);
    assert_eq!(registry.weight(), own + 50, "the entry left with another weight than it had");
}

#[test]
fn an_entry_that_is_gone_or_of_another_registry_keeps_its_weight() {
    let (registry, other, own) = (weighed().build(), weighed().build(), own_size());
    let removed = registry.insert_and_get(1, AtomicUsize::new(10));
    registry.remove(&1);
    let foreign = other.insert_and_get(1, AtomicUsize::new(10));
    registry.set(1, AtomicUsize::new(10));
    for entry in [&removed, &foreign] {
        entry.store(1000, SeqCst);
        assert_eq!(registry.reweigh(entry), own + 10);
    }
    assert_eq!((registry.weight(), other.weight()), (own + 10, own + 10));
}

#[test]
fn an_entry_that_grows_beyond_the_bound_displaces_others() {
    let (told, own) = (Arc::new(Mutex::new(Vec::new())), own_size());
    let log = Arc::clone(&told);
    let builder = weighed().max_weight(10 * (own + 100));
    let registry = builder.listener(move |cause, entry| log.lock().unwrap().push((cause, *entry.key()))).build();
    let entries: Vec<_> = (0..10).map(|key| registry.insert_and_get(key, AtomicUsize::new(100))).collect();
    assert_eq!((registry.len(), registry.stats().max_weight), (10, Some(10 * (own + 100))));
    // The entry that grows was used, so others go first.
    registry.lookup(&3);
    entries[3].store(100 + 3 * (own as usize + 100), SeqCst);
    registry.reweigh(&entries[3]);
    assert!(registry.weight() <= 10 * (own + 100), "{}", registry.weight());
    assert_eq!((registry.len(), registry.contains_key(&3)), (7, true));
    assert!(told.lock().unwrap().iter().all(|(cause, key)| *cause == Cause::Capacity && *key != 3));
    // An entry heavier than the bound stays alone, or leaves.
    entries[3].store(100 * (own as usize + 100), SeqCst);
    registry.reweigh(&entries[3]);
    assert_eq!(registry.len(), 1);
    assert_eq!(told.lock().unwrap().len(), 9);
}

#[test]
fn without_a_weigher_a_weight_stays_what_it_is() {
    let registry = isolated::<u64, u64>();
    let entry = registry.insert_and_get(1, 1);
    assert_eq!(registry.reweigh(&entry), registry.weight());
}

#[test]
fn a_weigher_that_panics_changes_nothing() {
    let registry: Sizes = isolated_builder()
        .weigher(|_, size: &AtomicUsize| {
            assert_ne!(size.load(SeqCst), 13, "the weigher panics");
            size.load(SeqCst)
        })
        .build();
    let entry = registry.insert_and_get(1, AtomicUsize::new(10));
    let before = registry.weight();
    entry.store(13, SeqCst);
    assert!(panic_of(|| registry.reweigh(&entry)).contains("the weigher panics"));
    assert_eq!(registry.weight(), before);
    entry.store(14, SeqCst);
    assert_eq!((registry.reweigh(&entry), registry.weight()), (before + 4, before + 4));
}

#[test]
fn the_books_balance_while_entries_are_reweighed_removed_and_cleared() {
    let domain = Domain::builder().backlog_bytes(1 << 20).build();
    let builder = Registry::<u64, AtomicUsize>::builder().domain(domain.clone()).shards(2);
    let registry = builder.weigher(|_, size: &AtomicUsize| size.load(SeqCst)).max_weight(100_000).build();
    thread::scope(|scope| {
        for seed in 0..4 {
            let registry = &registry;
            scope.spawn(move || {
                let mut rng = Rng::new(seed + 1);
                for _ in 0..times(5000) {
                    let key = rng.below(64);
                    match rng.below(16) {
                        0..8 => {
                            if let Some(entry) = registry.lookup(&key) {
                                entry.store(rng.below(5000) as usize, SeqCst);
                                registry.reweigh(&entry);
                            }
                        }
                        8..12 => drop(registry.insert(key, AtomicUsize::new(rng.below(1000) as usize))),
                        12..15 => drop(registry.remove(&key)),
                        _ if rng.below(50) == 0 => registry.clear(),
                        _ => {}
                    }
                }
            });
        }
    });
    assert!(registry.weight() <= 100_000, "{}", registry.weight());
    registry.clear();
    domain.barrier();
    assert_eq!(registry.weight(), 0);
    let backlog = domain.stats().backlog;
    assert_eq!((backlog.objects, backlog.bytes), (0, 0), "entries left the backlog with another weight");
}
