//! Listeners that write, on threads that end, and that keep what they are told of.

use epoch_registry::{Cause, Domain, Handle, Registry};
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::thread;
use std::time::Duration;

/// "by the thread that had it leave"; "Entries that leave by what it does are told of when it has returned"
#[test]
fn what_leaves_by_a_listener_is_told_by_its_thread_when_it_has_returned() {
    static REGISTRY: OnceLock<Weak<Registry<u64, u64>>> = OnceLock::new();
    static IN: AtomicBool = AtomicBool::new(false);
    static OUT: AtomicBool = AtomicBool::new(false);
    let told: Arc<Mutex<Vec<(u64, thread::ThreadId, bool)>>> = Arc::default();
    let log = told.clone();
    let registry = Registry::<u64, u64>::builder()
        .domain(Domain::new())
        .listener(move |_, entry| {
            log.lock().unwrap().push((*entry.key(), thread::current().id(), IN.load(SeqCst) && !OUT.load(SeqCst)));
            if *entry.key() == 1 {
                REGISTRY.get().unwrap().upgrade().unwrap().remove(&2);
                IN.store(true, SeqCst);
                thread::sleep(Duration::from_millis(300));
                OUT.store(true, SeqCst);
            }
        })
        .build();
    let registry = Arc::new(registry);
    REGISTRY.set(Arc::downgrade(&registry)).unwrap();
    for key in 1..4 {
        registry.try_insert(key, key).unwrap();
    }
    let first = thread::scope(|s| {
        let first = s.spawn(|| {
            registry.remove(&1);
            thread::current().id()
        });
        while !IN.load(SeqCst) {
            thread::yield_now();
        }
        registry.remove(&3);
        first.join().unwrap()
    });
    let told = told.lock().unwrap();
    println!("{told:?}");
    let two = told.iter().find(|(key, ..)| *key == 2).unwrap();
    assert_eq!(two.1, first, "told by another thread");
    assert!(!two.2, "told before the listener that did it returned");
}

/// On a thread whose thread locals are gone the listener does not recurse either.
#[test]
fn there_is_no_recursion_where_thread_locals_are_gone() {
    static REGISTRY: OnceLock<Weak<Registry<u64, u64>>> = OnceLock::new();
    static DEEPEST: AtomicU32 = AtomicU32::new(0);
    thread_local!(static DEPTH: Cell<u32> = const { Cell::new(0) });
    let registry = Registry::<u64, u64>::builder()
        .domain(Domain::new())
        .shards(1)
        .max_entries(10)
        .listener(move |cause, entry| {
            let depth = DEPTH.get() + 1;
            DEPTH.set(depth);
            DEEPEST.fetch_max(depth, SeqCst);
            // Counts down, in a full registry.
            if cause == Cause::Capacity && *entry.value() > 0 {
                let registry = REGISTRY.get().unwrap().upgrade().unwrap();
                let _ = registry.try_insert(entry.key() + 1000, entry.value() - 1);
            }
            DEPTH.set(depth - 1);
        })
        .build();
    let registry = Arc::new(registry);
    REGISTRY.set(Arc::downgrade(&registry)).unwrap();
    struct AtExit;
    impl Drop for AtExit {
        fn drop(&mut self) {
            let registry = REGISTRY.get().unwrap().upgrade().unwrap();
            for key in 0..30 {
                let _ = registry.try_insert(key, 50);
            }
        }
    }
    thread_local!(static LOCAL: RefCell<Option<AtExit>> = const { RefCell::new(None) });
    thread::spawn(|| {
        // Registered before the crate's own: it goes after those.
        LOCAL.with(|local| *local.borrow_mut() = Some(AtExit));
        let registry = REGISTRY.get().unwrap().upgrade().unwrap();
        for key in 0..11 {
            let _ = registry.try_insert(key + 500_000, 0);
        }
    })
    .join()
    .unwrap();
    println!("deepest {}", DEEPEST.load(SeqCst));
    assert!(DEEPEST.load(SeqCst) <= 1, "{}", DEEPEST.load(SeqCst));
}

/// A listener that keeps handles (and not the registry).
#[test]
fn a_listener_that_keeps_handles_does_not_leak_them_with_the_registry() {
    static LIVE: AtomicU32 = AtomicU32::new(0);
    struct Value;
    impl Value {
        fn new() -> Self {
            LIVE.fetch_add(1, SeqCst);
            Value
        }
    }
    impl Drop for Value {
        fn drop(&mut self) {
            LIVE.fetch_sub(1, SeqCst);
        }
    }
    let domain = Domain::new();
    let told: Arc<Mutex<Vec<Handle<u64, Value>>>> = Arc::default();
    let log = told.clone();
    let registry = Registry::<u64, Value>::builder()
        .domain(domain.clone())
        .listener(move |_, entry| log.lock().unwrap().push(entry))
        .build();
    for key in 0..10 {
        registry.try_insert(key, Value::new()).unwrap();
        registry.remove(&key);
    }
    drop(registry);
    drop(told);
    domain.barrier();
    assert_eq!(LIVE.load(SeqCst), 0, "leaked");
}
