//! Readers that share ownership of their registry.

use crate::common::*;
use epoch_registry::{Domain, OwnedReader, Registry};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;

struct Worker {
    reader: OwnedReader<u64, Counted>,
    reads: u64,
}

#[test]
fn an_owned_reader_reads_as_a_reader_does() {
    let registry: Arc<Registry<u64, u64>> = Arc::new(isolated());
    registry.set_many((0..100).map(|key| (key, 2 * key)));
    let (mut owned, mut reader) = (registry.owned_reader(), registry.reader());
    for key in 0..200 {
        let (hash, expected) = (registry.hash_of(&key), reader.get(&key).map(|entry| *entry));
        assert_eq!(owned.get(&key).map(|entry| *entry), expected);
        assert_eq!(owned.get_hashed(hash, &key).map(|entry| *entry), expected);
        assert_eq!(owned.lookup(&key).map(|entry| *entry), expected);
        assert_eq!(owned.lookup_hashed(hash, &key).map(|entry| *entry), expected);
        assert_eq!(owned.contains_key(&key), expected.is_some());
        owned.quiescent();
    }
    assert_eq!(owned.view().iter().count(), 100);
    assert!(Arc::ptr_eq(owned.registry(), &registry) && format!("{owned:?}").contains("online: true"));
    assert!(!registry.domain().in_critical_section() || owned.offline(|| reader.offline(|| true)));
}

#[test]
fn an_owned_reader_keeps_the_registry_and_drops_it_as_its_last_owner() {
    let ledger = Ledger::new();
    let registry = Arc::new(isolated());
    (0..100).for_each(|key| drop(registry.insert(key, ledger.value(key))));
    let mut worker = Worker { reader: registry.owned_reader(), reads: 0 };
    drop(registry);
    // The worker moves, and its reader with it.
    let mut workers = vec![worker];
    worker = workers.pop().unwrap();
    for key in 0..100 {
        worker.reads += worker.reader.get(&key).map_or(0, |entry| entry.get());
    }
    let kept = worker.reader.lookup(&7).unwrap();
    assert_eq!((worker.reads, ledger.live()), (4950, 100));
    drop(worker);
    assert_eq!((ledger.live(), kept.get(), kept.is_unlinked()), (1, 7, true));
    drop(kept);
    assert_eq!(ledger.live(), 0);
}

#[test]
fn an_owned_reader_holds_up_its_domain_only_online() {
    let ledger = Ledger::new();
    let registry = Arc::new(isolated());
    drop(registry.insert(1, ledger.value(1)));
    let mut reader = registry.owned_reader();
    let entry = reader.get(&1).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            registry.delete(&1);
            registry.domain().reclaim(100);
        });
    });
    assert_eq!((entry.get(), ledger.live()), (1, 1));
    reader.offline(|| registry.domain().barrier());
    assert_eq!((ledger.live(), reader.contains_key(&1)), (0, false));
}

#[test]
fn owned_readers_of_many_threads_read_while_writers_replace() {
    let ledger = Ledger::new();
    let registry: Arc<Registry<u64, Counted>> =
        Arc::new(Registry::builder().domain(Domain::builder().reclaimer(true).build()).build());
    let stop = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let (registry, stop) = (registry.clone(), stop.clone());
            thread::spawn(move || {
                let mut reader = registry.owned_reader();
                drop(registry);
                while !stop.load(SeqCst) {
                    for key in 0..16 {
                        if let Some(entry) = reader.get(&key) {
                            assert_eq!(entry.get(), key);
                        }
                    }
                }
            })
        })
        .collect();
    for n in 0..times(20_000) as u64 {
        registry.set(n % 16, ledger.value(n % 16));
    }
    drop(registry);
    stop.store(true, SeqCst);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(ledger.live(), 0, "the last reader did not drop the registry");
}

#[test]
fn an_owned_reader_in_a_thread_local_ends_with_its_thread() {
    thread_local! {
        static READER: std::cell::RefCell<Option<OwnedReader<u64, u64>>> = const { std::cell::RefCell::new(None) };
    }
    let registry: Arc<Registry<u64, u64>> = Arc::new(isolated());
    registry.set(1, 10);
    let other = registry.clone();
    let read = move || {
        READER.with_borrow_mut(|reader| {
            let reader = reader.get_or_insert_with(|| other.owned_reader());
            reader.get(&1).map(|entry| *entry)
        })
    };
    assert_eq!(thread::spawn(read).join().unwrap(), Some(10));
    registry.delete(&1);
    registry.domain().barrier();
    assert_eq!((registry.stats().freed, Arc::strong_count(&registry)), (1, 1));
}
