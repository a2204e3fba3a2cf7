//! Waits as futures: for grace periods and for barriers.

use crate::common::{Ledger, OnDrop, Unpark, block_on, in_time, isolated, panic_of, poll, times, with_reader};
use epoch_registry::{Domain, Registry};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::task::{Context, Wake, Waker};
use std::thread;

#[test]
fn a_barrier_future_completes_when_all_that_was_retired_before_is_dropped() {
    for domain in [Domain::new(), Domain::builder().reclaimer(true).build()] {
        let (registry, ledger) = (Registry::builder().domain(domain.clone()).build(), Ledger::new());
        for round in 0..times(50) as u64 {
            for key in 0..100 {
                registry.set(key, ledger.value(round));
            }
            let before = ledger.created();
            in_time(|| block_on(domain.barrier_async()));
            assert!(ledger.dropped() >= before - 100, "{} of {before} are dropped", ledger.dropped());
        }
    }
}

#[test]
fn a_barrier_future_waits_for_readers_and_destroys_nothing_itself() {
    let (registry, ledger) = (isolated(), Ledger::new());
    let domain = registry.domain().clone();
    registry.insert(1, ledger.value(1));
    with_reader(&domain, || {
        registry.remove(&1);
        let mut barrier = pin!(domain.barrier_async());
        for _ in 0..100 {
            assert!(poll(barrier.as_mut()).is_pending());
        }
    });
    let mut barrier = pin!(domain.barrier_async());
    for _ in 0..100 {
        assert!(poll(barrier.as_mut()).is_pending(), "writers reclaim in this domain, and there is none");
    }
    assert_eq!(ledger.dropped(), 0);
    while domain.reclaim(1) > 0 || ledger.dropped() == 0 {}
    assert!(poll(barrier.as_mut()).is_ready() && ledger.dropped() == 1);
}

#[test]
fn a_barrier_future_that_finds_nothing_to_wait_for_completes() {
    let domain = Domain::new();
    in_time(|| block_on(domain.barrier_async()));
    in_time(|| block_on(domain.synchronize_async()));
}

#[test]
fn a_barrier_future_covers_chains_of_destructors() {
    let registry = Arc::new(Registry::<u64, Option<epoch_registry::Handle<u64, OnDrop>>>::new());
    let inner = Arc::new(Registry::new());
    let (dropped, seen) = (Arc::new(AtomicBool::new(false)), inner.domain().clone());
    let flag = Arc::clone(&dropped);
    let handle = inner.insert_and_get(1, OnDrop::new(move || flag.store(true, SeqCst)));
    inner.remove(&1);
    seen.barrier();
    registry.insert(1, Some(handle));
    registry.remove(&1);
    in_time(|| block_on(seen.barrier_async()));
    assert!(dropped.load(SeqCst), "the handle was the last one, and was dropped by a destructor");
}

#[test]
fn a_barrier_future_waits_for_a_destructor_that_another_thread_runs() {
    let domain = Domain::builder().reclaimer(true).build();
    let registry = Registry::builder().domain(domain.clone()).build();
    let (begin, has_begun) = mpsc::channel();
    let (end, may_end) = mpsc::channel::<()>();
    let may_end = std::sync::Mutex::new(may_end);
    registry.insert(
        1,
        OnDrop::new(move || {
            begin.send(()).unwrap();
            may_end.lock().unwrap().recv().unwrap();
        }),
    );
    registry.remove(&1);
    has_begun.recv().unwrap();
    let mut barrier = pin!(domain.barrier_async());
    for _ in 0..100 {
        assert!(poll(barrier.as_mut()).is_pending(), "the destructor has not returned");
    }
    end.send(()).unwrap();
    in_time(|| block_on(barrier));
}

#[test]
fn futures_may_be_dropped_at_any_time() {
    let registry = isolated();
    let domain = registry.domain().clone();
    let (count, waker) = {
        let unpark = Arc::new(Unpark(thread::current(), AtomicUsize::new(0)));
        (Arc::clone(&unpark), Waker::from(unpark))
    };
    let mut context = Context::from_waker(&waker);
    for key in 0..20 {
        registry.insert(key, key);
        registry.remove(&key);
        drop(domain.barrier_async());
        drop(domain.synchronize_async());
        let mut barrier = Box::pin(domain.barrier_async());
        assert!(barrier.as_mut().poll(&mut context).is_pending());
        assert!(barrier.as_mut().poll(&mut context).is_pending());
        drop(barrier);
    }
    domain.barrier();
    assert_eq!(count.1.load(SeqCst), 0, "a future that was dropped is woken");
    drop((registry, domain));
    drop(waker);
    assert_eq!(Arc::strong_count(&count), 1, "the domain has kept a waker");
}

#[test]
fn a_panicking_waker_is_contained() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("in a waker");
        }
    }
    let registry = isolated();
    let domain = registry.domain().clone();
    registry.insert(1, 1);
    registry.remove(&1);
    let waker = Waker::from(Arc::new(Panics));
    let mut barrier = pin!(domain.barrier_async());
    assert!(barrier.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    domain.barrier();
    assert!(poll(barrier).is_ready());
}

#[test]
fn a_barrier_future_in_an_eq_is_refused() {
    struct Key(Option<Domain>);
    impl std::hash::Hash for Key {
        fn hash<H: std::hash::Hasher>(&self, _: &mut H) {}
    }
    impl PartialEq for Key {
        fn eq(&self, other: &Self) -> bool {
            if let Some(domain) = self.0.as_ref().or(other.0.as_ref()) {
                drop(domain.barrier_async());
            }
            true
        }
    }
    impl Eq for Key {}
    let registry = isolated();
    registry.insert(Key(None), 1);
    let domain = registry.domain().clone();
    let refused = panic_of(|| registry.insert(Key(Some(domain)), 2));
    assert!(refused.contains("within the `Eq` of a key"), "{refused}");
}

#[test]
fn many_tasks_wait_while_writers_write() {
    let domain = Domain::new();
    let registry = Registry::builder().domain(domain.clone()).build();
    in_time(|| {
        thread::scope(|scope| {
            for id in 0..3 {
                let (registry, domain) = (&registry, &domain);
                scope.spawn(move || {
                    for n in 0..times(100) as u64 {
                        let dropped = Arc::new(AtomicBool::new(false));
                        let flag = Arc::clone(&dropped);
                        registry.insert(id, OnDrop::new(move || flag.store(true, SeqCst)));
                        registry.remove(&id);
                        if n % 2 == 0 {
                            block_on(domain.barrier_async())
                        } else {
                            domain.barrier()
                        }
                        assert!(dropped.load(SeqCst), "a barrier has missed what its own thread has retired");
                    }
                });
            }
        });
    });
}
