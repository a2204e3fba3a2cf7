//! One key, one loader: `get_or_insert_with` and its kin run one closure for a key, however many callers ask for it.

use crate::common::{FewBits, Ledger, a_while, block_on, clocked, in_time, isolated, panic_of, poll, soon, times};
use epoch_registry::{Handle, Registry};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn one_loader_runs_for_a_key_however_many_threads_ask() {
    let registry = isolated();
    let runs: Vec<AtomicU64> = (0..100).map(|_| AtomicU64::new(0)).collect();
    in_time(|| {
        for round in 0..times(10) as u64 {
            thread::scope(|scope| {
                for thread in 0..5_u64 {
                    let (registry, runs) = (&registry, &runs);
                    scope.spawn(move || {
                        for key in 0..100_u64 {
                            let load = || {
                                runs[key as usize].fetch_add(1, SeqCst);
                                thread::yield_now();
                                (round, thread)
                            };
                            let entry = match thread {
                                0 => registry.get_or_insert_with(key, load),
                                1 => registry.get_or_try_insert_with(key, || Ok::<_, ()>(load())).unwrap(),
                                2 => block_on(registry.get_or_insert_async(key, async || load())),
                                3 => registry.get_or_reserve(key).unwrap_or_else(|mine| mine.insert_and_get(load())),
                                _ => block_on(registry.get_or_reserve_async(key))
                                    .unwrap_or_else(|mine| mine.insert_and_get(load())),
                            };
                            assert_eq!(entry.0, round);
                        }
                    });
                }
            });
            assert!(runs.iter().all(|runs| runs.swap(0, SeqCst) == 1), "a loader ran twice, or not at all");
            registry.clear();
        }
    });
}

/// Runs a first loader that ends as `end` does, while others ask for the same key. Returns how many loaders have run.
fn takeover(end: impl FnOnce() -> Result<u64, ()> + Send) -> usize {
    let (registry, runs) = (isolated::<u64, u64>(), AtomicUsize::new(0));
    let (entered, has_entered) = mpsc::channel();
    let waiting = AtomicUsize::new(0);
    in_time(|| {
        thread::scope(|scope| {
            let (registry, runs, waiting) = (&registry, &runs, &waiting);
            let first = scope.spawn(move || {
                registry.get_or_try_insert_with(7, || {
                    runs.fetch_add(1, SeqCst);
                    entered.send(()).unwrap();
                    // The others are about to wait, or do so already.
                    assert!(soon(|| waiting.load(SeqCst) == 4));
                    thread::sleep(Duration::from_millis(20));
                    end()
                })
            });
            has_entered.recv().unwrap();
            for thread in 0..4 {
                scope.spawn(move || {
                    waiting.fetch_add(1, SeqCst);
                    let load = || {
                        runs.fetch_add(1, SeqCst);
                        70
                    };
                    let entry = if thread % 2 == 0 {
                        registry.get_or_insert_with(7, load)
                    } else {
                        block_on(registry.get_or_insert_async(7, async || load()))
                    };
                    assert_eq!(*entry, 70);
                });
            }
            let _ = first.join();
        });
    });
    assert_eq!(registry.stats().inserted, 1);
    runs.into_inner()
}

#[test]
fn after_a_failure_one_of_those_who_wait_takes_over() {
    assert_eq!(takeover(|| Err(())), 2);
}

#[test]
fn after_a_panic_one_of_those_who_wait_takes_over() {
    assert_eq!(takeover(|| panic!("a loader panics on purpose")), 2);
}

#[test]
fn a_panic_or_a_failure_goes_to_its_caller_and_leaves_the_key_free() {
    let registry = isolated();
    assert_eq!(panic_of(|| registry.get_or_insert_with(1, || panic!("on purpose"))), "on purpose");
    assert_eq!(registry.get_or_try_insert_with(1, || Err("failed")).unwrap_err(), "failed");
    assert_eq!(panic_of(|| block_on(registry.get_or_insert_async(1, async || panic!("in a task")))), "in a task");
    assert_eq!(block_on(registry.get_or_try_insert_async(1, async || Err("failed"))).unwrap_err(), "failed");
    assert!(registry.is_empty() && registry.try_reserve_key(1).is_ok());
    assert_eq!(*registry.get_or_insert_with(1, || 10), 10);
}

#[test]
fn a_request_for_the_same_key_from_within_its_loader_panics() {
    let registry = isolated::<u64, u64>();
    let own = "it would wait for itself";
    let within = |f: &dyn Fn()| {
        panic_of(|| {
            registry.get_or_insert_with(1, || {
                f();
                1
            })
        })
    };
    assert!(within(&|| drop(registry.get_or_insert_with(1, || 2))).contains(own));
    assert!(within(&|| drop(registry.insert(1, 2))).contains(own));
    assert!(within(&|| drop(registry.try_insert(1, 2))).contains(own));
    assert!(within(&|| drop(registry.remove(&1))).contains(own));
    assert!(within(&|| drop(registry.compute(1, |_, _| epoch_registry::Change::Set(2)))).contains(own));
    assert!(within(&|| drop(registry.reserve_key(1))).contains(own));
    assert!(within(&|| drop(registry.get_or_reserve(1))).contains(own));
    assert!(within(&|| drop(block_on(registry.get_or_reserve_async(1)))).contains(own));
    assert!(within(&|| drop(block_on(registry.get_or_insert_async(1, async || 2)))).contains(own));
    let task = || registry.get_or_insert_async(1, async || *registry.get_or_insert_async(1, async || 2).await);
    assert!(panic_of(|| block_on(task())).contains(own));
    // What does not write the key is allowed, and so are other keys.
    let entry = registry.get_or_insert_with(1, || {
        assert!(registry.lookup(&1).is_none() && registry.try_reserve_key(1).is_err());
        *registry.get_or_insert_with(2, || 20) + 1
    });
    assert_eq!((*entry, registry.len()), (21, 2));
}

#[test]
fn the_loader_of_one_key_does_not_hold_up_another_key_of_the_same_hash() {
    let registry: Registry<u64, u64, _> = Registry::builder().shards(1).hasher(FewBits { mask: 0 }).build();
    in_time(|| {
        let sum = registry.get_or_insert_with(1, || {
            let two = registry.get_or_insert_with(2, || *registry.get_or_insert_with(3, || 3) + 2);
            registry.insert(4, 4);
            assert!(registry.remove(&4).is_some());
            *two + 1
        });
        assert_eq!((*sum, registry.len()), (6, 3));
    });
}

#[test]
fn an_expired_entry_is_loaded_anew() {
    let (builder, clock) = clocked::<u64, u64>();
    let registry = builder.max_age(Duration::from_secs(10)).build();
    assert_eq!(*registry.get_or_insert_with(1, || 1), 1);
    clock.advance(Duration::from_secs(9));
    assert_eq!(*registry.get_or_insert_with(1, || 2), 1);
    clock.advance(Duration::from_secs(2));
    assert_eq!(*registry.get_or_insert_with(1, || 3), 3);
}

#[test]
fn a_task_that_waits_is_woken_and_may_be_dropped_at_any_time() {
    let registry = isolated::<u64, u64>();
    let reservation = registry.reserve_key(1);
    {
        let mut dropped = pin!(registry.get_or_insert_async(1, async || 10));
        assert!(poll(dropped.as_mut()).is_pending());
        assert!(poll(dropped.as_mut()).is_pending());
    }
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        let mut dropped = Box::pin(registry.get_or_insert_async(1, async || 10));
        assert!(poll(dropped.as_mut()).is_pending());
        scope.spawn(|| sender.send(*block_on(registry.get_or_insert_async(1, async || 20))));
        assert!(receiver.recv_timeout(a_while() / 10).is_err(), "a task did not wait for the loader");
        // It takes no other task's waker with it.
        drop(dropped);
        drop(reservation);
        assert_eq!(receiver.recv_timeout(Duration::from_secs(60)), Ok(20));
    });
}

#[test]
fn a_loader_that_is_dropped_half_way_leaves_the_key_to_another() {
    let registry = isolated::<u64, u64>();
    let polls = AtomicUsize::new(0);
    let mut stuck = Box::pin(registry.get_or_insert_async(1, || {
        std::future::poll_fn(|_: &mut Context<'_>| {
            polls.fetch_add(1, SeqCst);
            Poll::<u64>::Pending
        })
    }));
    assert!(poll(stuck.as_mut()).is_pending());
    let mut next = pin!(registry.get_or_insert_async(1, async || 2));
    assert!(poll(next.as_mut()).is_pending());
    drop(stuck);
    assert_eq!(polls.into_inner(), 1);
    let Poll::Ready(entry) = poll(next.as_mut()) else { panic!("the key is still reserved") };
    assert_eq!(*entry, 2);
}

#[test]
fn a_waker_that_panics_does_not_keep_other_tasks_asleep() {
    struct Angry(AtomicBool);
    impl std::task::Wake for Angry {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.store(true, SeqCst);
            panic!("a waker panics on purpose");
        }
    }
    let registry = isolated::<u64, u64>();
    let reservation = registry.reserve_key(1);
    let angry = std::sync::Arc::new(Angry(AtomicBool::new(false)));
    let waker = Waker::from(angry.clone());
    let mut first = pin!(registry.reserve_key_async(1));
    assert!(first.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    thread::scope(|scope| {
        let second = scope.spawn(|| drop(block_on(registry.reserve_key_async(1))));
        thread::sleep(Duration::from_millis(20));
        drop(reservation);
        second.join().unwrap();
    });
    assert!(angry.0.load(SeqCst));
}

#[test]
fn a_hit_makes_no_key_and_takes_no_reservation() {
    let registry: Registry<String, u64> = isolated();
    registry.set("a".to_string(), 1);
    let reservation = registry.reserve_key("a".to_string());
    // The key is reserved, and yet a hit does not wait.
    assert_eq!(*registry.get_or_insert_by_ref("a", || unreachable!()), 1);
    assert_eq!(*registry.get_or_insert_with("a".to_string(), || unreachable!()), 1);
    let mut hit = pin!(registry.get_or_insert_async("a".to_string(), async || unreachable!()));
    assert!(poll(hit.as_mut()).is_ready());
    assert!(registry.get_or_reserve("a".to_string()).is_ok());
    let mut hit = pin!(registry.get_or_reserve_async("a".to_string()));
    assert!(poll(hit.as_mut()).is_ready());
    drop(reservation);
}

#[test]
fn futures_may_be_sent_to_other_threads() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    let registry = isolated::<u64, u64>();
    let load = is_send(registry.get_or_insert_async(1, async || 1));
    let fail = is_send(registry.get_or_try_insert_async(2, async || Err::<u64, ()>(())));
    let update = is_send(registry.update_async(&1, async |old: Handle<u64, u64>| *old + 1));
    let upsert = is_send(registry.update_or_insert_async(1, async |old: Handle<u64, u64>| *old + 1, async || 5));
    let change = is_send(registry.compute_async(1, async |_| epoch_registry::Change::Remove));
    let reserve = is_send(registry.reserve_key_async(1));
    let missing = is_send(registry.get_or_reserve_async(3));
    thread::scope(|scope| {
        scope.spawn(move || {
            assert_eq!(*block_on(load), 1);
            assert!(block_on(fail).is_err());
            assert_eq!(block_on(update).as_deref(), Some(&2));
            assert_eq!(*block_on(upsert), 3);
            assert!(block_on(change).is_none());
            drop(is_send(block_on(reserve)));
            drop(is_send(block_on(missing)).unwrap_err());
        });
    });
    assert!(registry.is_empty());
}

#[test]
fn loaders_removals_and_failures_at_once_keep_the_accounts() {
    let (registry, ledger) = (isolated(), Ledger::new());
    let loading: Vec<AtomicBool> = (0..8).map(|_| AtomicBool::new(false)).collect();
    let end = Instant::now() + a_while();
    in_time(|| {
        thread::scope(|scope| {
            for thread in 0..4_u64 {
                let (registry, ledger, loading) = (&registry, &ledger, &loading);
                scope.spawn(move || {
                    let mut turn = thread;
                    while Instant::now() < end {
                        turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        let key = (turn >> 40) % 8;
                        let load = || {
                            let was = loading[key as usize].swap(true, SeqCst);
                            assert!(!was, "two loaders of one key at once");
                            let value = if (turn >> 50).is_multiple_of(4) { Err(()) } else { Ok(ledger.value(key)) };
                            loading[key as usize].store(false, SeqCst);
                            value
                        };
                        match (turn >> 33) % 6 {
                            0 => drop(registry.remove(&key)),
                            1 => drop(registry.update(&key, |_, _| ledger.value(key))),
                            2 => drop(block_on(registry.get_or_try_insert_async(key, async || load()))),
                            3 if turn.is_multiple_of(64) => registry.clear(),
                            _ => drop(registry.get_or_try_insert_with(key, load)),
                        }
                    }
                });
            }
        });
    });
    drop(registry);
    assert!(ledger.created() > 0);
    assert_eq!(ledger.live(), 0);
}
