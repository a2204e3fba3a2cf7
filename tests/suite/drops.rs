//! Which threads run destructors, and when. A reader never does. A reclaimer thread does so promptly.

use crate::common::*;
use epoch_registry::{Cursor, Domain, Handle, Registry};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::Instant;

/// Enough pins for several collections: the collector collects at every 128th pin of a thread.
const MANY_PINS: usize = 1000;

type Log = Arc<Mutex<Vec<ThreadId>>>;

/// Runs every kind of read many times on a thread of its own, while destructions are pending. No value may be dropped
/// on that thread.
fn readers_drop_nothing(read: impl Fn(&Registry<u64, DropsOn>, Vec<Handle<u64, DropsOn>>) + Sync) {
    let registry: Registry<u64, DropsOn> = isolated();
    let log = Log::default();
    let value = || DropsOn(Arc::clone(&log));
    let mut handles = Vec::new();
    for key in 0..2000 {
        let handle = registry.try_insert(key, value()).unwrap();
        if key % 2 == 0 {
            handles.push(handle);
        }
    }
    // Pending work of both kinds: entries that wait for a grace period, and entries that wait for a handle.
    (0..1500).for_each(|key| drop(registry.remove(&key)));
    let reader = thread::scope(|scope| {
        let thread = scope.spawn(|| {
            read(&registry, handles);
            thread::current().id()
        });
        thread.join().unwrap()
    });
    let before = log.lock().unwrap().len();
    assert!(!log.lock().unwrap().contains(&reader), "a reader ran a destructor");
    registry.domain().barrier();
    assert!(log.lock().unwrap().len() > before, "nothing was pending while the reader read");
    assert_eq!(log.lock().unwrap().len(), 1500);
    drop(registry);
    assert_eq!(log.lock().unwrap().len(), 2000);
}

#[test]
fn guards_and_their_reads_run_no_destructor() {
    readers_drop_nothing(|registry, _handles| {
        for key in 0..MANY_PINS as u64 {
            let mut guard = registry.pin();
            let _ = (guard.get(&key).is_some(), guard.contains_key(&key), guard.get_many([&key, &(key + 1)]));
            guard.repin();
            let _ = guard.get(&key);
        }
        for _ in 0..MANY_PINS {
            drop(registry.domain().pin());
        }
    });
}

#[test]
fn lookups_run_no_destructor() {
    readers_drop_nothing(|registry, _handles| {
        for key in 0..MANY_PINS as u64 {
            let _ = (registry.lookup(&key), registry.contains_key(&(key + 1000)));
            let _ = registry.pin().lookup_many([&key, &(key + 1000)]);
        }
    });
}

#[test]
fn iterations_and_scans_run_no_destructor() {
    readers_drop_nothing(|registry, _handles| {
        for _ in 0..MANY_PINS {
            assert!(registry.pin().iter().next().is_some());
            registry.scan(&mut Cursor::new(), 5, |entry| assert!(entry.handle().is_some()));
        }
        assert_eq!(registry.pin().iter().count(), 500);
    });
}

#[test]
fn sessions_and_their_reads_run_no_destructor() {
    readers_drop_nothing(|registry, _handles| {
        let mut reader = registry.reader();
        for key in 0..MANY_PINS as u64 {
            let _ = (reader.get(&key).is_some(), reader.lookup(&(key + 1000)));
            reader.quiescent();
            reader.offline(|| ());
        }
        for _ in 0..MANY_PINS {
            drop(registry.reader());
            let mut session = registry.domain().session();
            let guard = session.pin();
            assert!(registry.view(&guard).unwrap().get(&1999).is_some());
        }
    });
}

#[test]
fn the_drop_of_a_handle_runs_no_destructor_while_the_registry_is_open() {
    readers_drop_nothing(|registry, handles| {
        for handle in handles {
            drop(handle.clone());
            drop(handle);
        }
        (0..MANY_PINS).for_each(|_| drop(registry.pin()));
    });
}

/// A write destroys a bounded share of the backlog. So the backlog of an idle thread is destroyed, and no single write
/// pays for all of it.
#[test]
fn each_write_destroys_a_bounded_share_of_the_backlog() {
    let registry: Registry<u64, Counted> = isolated();
    let (backlog, ledger) = (Ledger::new(), Ledger::new());
    (0..5000).for_each(|key| drop(registry.try_insert(key, backlog.value(key))));
    thread::scope(|scope| {
        scope.spawn(|| registry.clear());
    });
    let mut most = 0;
    let end = Instant::now() + std::time::Duration::from_secs(20);
    while backlog.live() > 0 {
        assert!(Instant::now() < end, "{} left", backlog.live());
        let before = backlog.dropped() + ledger.dropped();
        drop(registry.insert(1, ledger.value(1)));
        most = most.max(backlog.dropped() + ledger.dropped() - before);
    }
    assert!(most < 1000, "{most} destructors in one write");
}

#[test]
fn removals_alone_keep_the_backlog_small() {
    let registry: Registry<u64, Counted> = isolated();
    let ledger = Ledger::new();
    let mut most = 0;
    for key in 0..times(50_000) as u64 {
        drop(registry.try_insert(key, ledger.value(key)));
        drop(registry.remove(&key));
        most = most.max(ledger.live());
    }
    assert!(most < 5_000, "{most} at once");
}

#[test]
fn only_the_reclaimer_thread_destroys_and_it_does_so_promptly() {
    let domain = Domain::builder().name("prompt").reclaimer(true).build();
    let registry: Registry<u64, DropsOn> = Registry::builder().domain(domain).build();
    let log = Log::default();
    for round in 1..=20 {
        for key in 0..20 {
            drop(registry.try_insert(key, DropsOn(Arc::clone(&log))));
            drop(registry.remove(&key));
        }
        assert!(
            soon(|| log.lock().unwrap().len() == 20 * round),
            "the reclaimer thread did not destroy the entries without a further call"
        );
    }
    let handle = registry.try_insert(1, DropsOn(Arc::clone(&log))).unwrap();
    drop(registry.remove(&1));
    registry.domain().call({
        let log = Arc::clone(&log);
        move || log.lock().unwrap().push(thread::current().id())
    });
    assert!(soon(|| log.lock().unwrap().len() == 401));
    drop(handle);
    assert!(soon(|| log.lock().unwrap().len() == 402), "the drop of the last handle did not wake the reclaimer");
    let log = log.lock().unwrap();
    assert!(log.iter().all(|thread| *thread == log[0] && *thread != thread::current().id()));
}

#[test]
fn a_reclaimer_thread_destroys_once_a_long_reader_leaves() {
    let domain = Domain::builder().reclaimer(true).build();
    let registry: Registry<u64, Counted> = Registry::builder().domain(domain).build();
    let ledger = Ledger::new();
    drop(registry.try_insert(1, ledger.value(1)));
    let guard = registry.pin();
    let entry = guard.get(&1).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| drop(registry.remove(&1)));
    });
    thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(entry.get(), 1);
    drop(guard);
    assert!(soon(|| ledger.live() == 0));
}

/// A session that reads all the time lets grace periods end, although it never goes offline.
#[test]
fn an_online_session_that_reads_lets_grace_periods_end() {
    let domain = Domain::builder().reclaimer(true).build();
    let registry: Registry<u64, Counted> = Registry::builder().domain(domain).build();
    let ledger = Ledger::new();
    let stop = Stop::default();
    let reads = AtomicU64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut reader = registry.reader();
            while !stop.stopped() {
                assert!(reader.get(&1).is_none_or(|entry| entry.get() == 1));
                reads.fetch_add(1, SeqCst);
            }
        });
        let _end = stop.at_end();
        assert!(soon(|| reads.load(SeqCst) > 0));
        for _ in 0..50 {
            drop(registry.try_insert(1, ledger.value(1)));
            drop(registry.remove(&1));
            assert!(soon(|| ledger.live() == 0));
        }
    });
}

#[test]
fn keys_and_values_are_dropped_once_in_whatever_way_they_leave() {
    #[derive(Clone)]
    struct Key(u64, Arc<Mutex<Vec<u64>>>);
    impl Drop for Key {
        fn drop(&mut self) {
            self.1.lock().unwrap().push(self.0);
        }
    }
    impl PartialEq for Key {
        fn eq(&self, other: &Self) -> bool {
            self.0 == other.0
        }
    }
    impl Eq for Key {}
    impl std::hash::Hash for Key {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            self.0.hash(state);
        }
    }
    let keys = Arc::new(Mutex::new(Vec::new()));
    let key = |n| Key(n, Arc::clone(&keys));
    let ledger = Ledger::new();
    let registry = isolated();
    drop(registry.try_insert(key(1), ledger.value(1)));
    let occupied = registry.try_insert(key(1), ledger.value(2)).err().expect("the key should be taken");
    drop(occupied);
    assert_eq!((keys.lock().unwrap().len(), ledger.dropped()), (1, 1), "the error did not drop the rejected pair");
    drop(registry.insert(key(1), ledger.value(3)));
    registry.domain().barrier();
    assert_eq!((keys.lock().unwrap().len(), ledger.dropped()), (2, 2));
    drop(registry.get_or_insert_with(key(1), || unreachable!("the key is present")));
    assert_eq!(keys.lock().unwrap().len(), 3);
    assert!(registry.get_or_try_insert_with(key(2), || Err::<Counted, _>("no")).is_err());
    assert_eq!(keys.lock().unwrap().len(), 4);
    // If the entry leaves while an update runs, the update drops the value that it made.
    let updated = registry.update(&key(1), |_, old| {
        registry.retain(|_, _| false);
        ledger.value(old.get() + 1)
    });
    assert!(updated.is_none() && registry.is_empty());
    registry.domain().barrier();
    assert_eq!(ledger.live(), 0);
    drop(registry.get_or_insert_with(key(3), || ledger.value(5)));
    drop(registry);
    assert_eq!((ledger.live(), ledger.created()), (0, 5));
}

/// Large entries have allocations of their own. At the end of the registry they are found by its table. With colliding
/// keys, some of them lie beyond other entries.
#[test]
fn the_drop_of_a_registry_drops_all_large_entries_with_colliding_keys() {
    struct Large(#[allow(dead_code)] [u8; 3000], #[allow(dead_code)] Counted);

    let ledger = Ledger::new();
    for round in 0..3 {
        let registry: Registry<u64, Large, FewBits> =
            Registry::builder().hasher(FewBits { mask: 0xff00_0000_0000_000f }).domain(Domain::new()).build();
        (0..2000).for_each(|key| _ = registry.set(key, Large([1; 3000], ledger.value(key))));
        let held: Vec<_> = (0..10 * round).map(|key| registry.lookup(&key).unwrap()).collect();
        (1000..1500).for_each(|key| assert!(registry.delete(&key)));
        drop(registry);
        assert_eq!(ledger.live(), held.len() as u64);
        drop(held);
        assert!(soon(|| ledger.live() == 0));
    }
}

/// The clearing thread walks the table that it unlinked. Meanwhile another thread destroys the nodes that were handed
/// over.
#[test]
fn a_clear_of_colliding_keys_beside_a_reclaimer_drops_all_of_them() {
    let ledger = Ledger::new();
    let domain = Domain::new();
    let registry: Registry<u64, (Counted, [u8; 3000]), FewBits> =
        Registry::builder().hasher(FewBits { mask: 0xff00_0000_0000_000f }).domain(domain.clone()).build();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(SeqCst) {
                domain.reclaim(1000);
            }
        });
        for _ in 0..5 {
            (0..2000).for_each(|key| _ = registry.set(key, (ledger.value(key), [1; 3000])));
            registry.clear();
            assert!(registry.is_empty());
        }
        is_over.store(true, SeqCst);
    });
    domain.barrier();
    assert_eq!((ledger.live(), ledger.created()), (0, 10_000));
}
