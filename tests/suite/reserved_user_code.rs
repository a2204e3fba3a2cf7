//! Code of the user that runs while a write holds a reservation of its own, or when it ends it: such code may write the key,
//! or panics, and never waits for itself.

use crate::common::{OnDrop, clocked, isolated, isolated_builder, panic_of, poll};
use epoch_registry::{Builder, Cause, Change, Domain, Handle, Registry, WhenFull};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, Weak, mpsc};
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

/// Fails if `f` does not return in time. Its thread is left behind then.
fn returns<R: Send + 'static>(what: &str, f: impl FnOnce() -> R + Send + 'static) -> R {
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || done.send(f()));
    is_done.recv_timeout(Duration::from_secs(50)).unwrap_or_else(|_| panic!("{what} hangs, or its thread panicked"))
}

/// Returns a registry whose listener writes key 1 when an entry leaves for `cause`.
fn rewriting(cause: Cause, build: impl FnOnce(Builder<u64, u64>) -> Builder<u64, u64>) -> Arc<Registry<u64, u64>> {
    Arc::new_cyclic(|me: &Weak<Registry<u64, u64>>| {
        let me = me.clone();
        let listener = move |left, entry: Handle<u64, u64>| {
            if left == cause && *entry < 100 {
                me.upgrade().unwrap().set(1, 100);
            }
        };
        build(isolated_builder()).listener(listener).build()
    })
}

#[test]
fn the_listener_of_a_reserved_removal_may_write_the_key() {
    for way in ["reservation", "compute"] {
        let registry = rewriting(Cause::Removed, |builder| builder);
        registry.set(1, 1);
        returns(way, move || {
            match way {
                "compute" => drop(registry.compute(1, |_, _| Change::Remove)),
                _ => drop(registry.reserve_key(1).remove()),
            }
            assert_eq!(registry.lookup(&1).as_deref(), Some(&100), "{way}");
        });
    }
}

#[test]
fn the_listener_of_a_refused_update_may_write_the_key() {
    let domain = Domain::builder().backlog_objects(3).when_full(WhenFull::Refuse).build();
    let builder = |builder: Builder<u64, u64>| {
        builder.domain(domain.clone()).shards(1).max_weight(2000).weigher(|_, value| *value as usize)
    };
    let registry = rewriting(Cause::Capacity, builder);
    (1..20).for_each(|key| _ = registry.set(key, 90));
    let _section = domain.pin();
    returns("a refused update", move || {
        assert!(registry.fallible().update(&1, |_, _| 1900).is_err());
    });
}

#[test]
fn the_destructors_of_what_a_reserved_insertion_evicts_may_write_the_key() {
    let builder: Builder<u64, (OnDrop, usize)> = isolated_builder();
    let registry = Arc::new(builder.shards(1).max_weight(1 << 20).weigher(|_, value| value.1).build());
    for key in 10..4000 {
        let own = Arc::downgrade(&registry);
        registry.set(key, (OnDrop::new(move || _ = own.upgrade().map(|own| own.delete(&1))), 100));
    }
    returns("get_or_insert_with", move || {
        drop(registry.get_or_insert_with(1, || (OnDrop::new(|| ()), 900_000)));
        registry.domain().barrier();
        assert_eq!(registry.stats().drop_panics, 0);
    });
}

#[test]
fn the_locals_of_a_loader_that_is_dropped_may_write_the_key() {
    let registry = Arc::new(isolated::<u64, u64>());
    returns("the drop of a loader", move || {
        let own = Arc::clone(&registry);
        let mut load = Box::pin(registry.get_or_insert_async(1, move || async move {
            let _cleanup = OnDrop::new(move || _ = own.set(1, 7));
            std::future::pending::<u64>().await
        }));
        assert!(poll(load.as_mut()).is_pending());
        drop(load);
        assert_eq!(registry.lookup(&1).as_deref(), Some(&7));
    });
}

/// A future with a field that is dropped after the future is ready.
struct Ready(Option<u64>, #[allow(dead_code)] OnDrop);

impl Future for Ready {
    type Output = Result<u64, ()>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<u64, ()>> {
        Poll::Ready(self.0.take().ok_or(()))
    }
}

#[test]
fn the_fields_of_a_loader_that_is_ready_may_write_the_key() {
    for made in [Some(1), None] {
        let registry = Arc::new(isolated::<u64, u64>());
        returns("get_or_try_insert_async", move || {
            let own = Arc::clone(&registry);
            let load = move || Ready(made, OnDrop::new(move || _ = own.set(1, 7)));
            let Poll::Ready(entry) = poll(pin!(registry.get_or_try_insert_async(1, load))) else { panic!() };
            assert_eq!(entry.ok().as_deref(), made.as_ref());
            assert_eq!(registry.lookup(&1).as_deref(), Some(&7));
        });
    }
}

#[test]
fn the_value_of_a_write_whose_weigher_panics_may_write_the_key() {
    let registry = Arc::new_cyclic(|me: &Weak<Registry<u64, OnDrop>>| {
        let me = me.clone();
        let builder: Builder<u64, OnDrop> = isolated_builder();
        let weigher = move |key: &u64, _: &OnDrop| {
            assert!(*key != 1 || me.upgrade().unwrap().contains_key(&2), "on purpose");
            1
        };
        builder.max_weight(1000).weigher(weigher).build()
    });
    returns("get_or_insert_with", move || {
        let own = Arc::clone(&registry);
        let value = move || OnDrop::new(move || _ = own.set(2, OnDrop::new(|| ())));
        assert_eq!(panic_of(|| registry.get_or_insert_with(1, value)), "on purpose");
        assert!(registry.contains_key(&2) && registry.try_reserve_key(1).is_ok());
    });
}

#[test]
fn a_weigher_that_writes_the_key_of_its_entry_panics() {
    let registry = Arc::new_cyclic(|me: &Weak<Registry<u64, u64>>| {
        let me = me.clone();
        let builder: Builder<u64, u64> = isolated_builder();
        let weigher = move |key: &u64, value: &u64| {
            if *key == 1 && *value == 1 {
                me.upgrade().map(|own| own.delete(&1));
            }
            1
        };
        builder.max_weight(1000).weigher(weigher).build()
    });
    returns("get_or_insert_with", move || {
        let panic = panic_of(|| registry.get_or_insert_with(1, || 1));
        assert!(panic.contains("it would wait for itself"), "{panic}");
        assert!(registry.try_reserve_key(1).is_ok());
    });
}

#[test]
fn the_locals_of_a_loader_that_panics_may_write_the_key() {
    let registry = Arc::new(isolated::<u64, u64>());
    returns("a loader that panics", move || {
        let load = || {
            let own = Arc::clone(&registry);
            let _cleanup = OnDrop::new(move || _ = own.set(1, 7));
            panic!("on purpose")
        };
        assert_eq!(panic_of(|| registry.get_or_insert_with(1, load)), "on purpose");
        assert_eq!(registry.lookup(&1).as_deref(), Some(&7));
    });
}

/// Returns what `write` returns, if it waits for a reservation for longer than entries live.
fn late<R: Send>(write: impl FnOnce(&Registry<u64, u64>) -> R + Send) -> R {
    let (builder, clock) = clocked::<u64, u64>();
    let registry = builder.max_age(Duration::from_secs(10)).build();
    registry.set(1, 1);
    let reservation = registry.reserve_key(1);
    thread::scope(|scope| {
        let writer = scope.spawn(|| write(&registry));
        thread::sleep(Duration::from_millis(50));
        clock.advance(Duration::from_secs(20));
        drop(reservation);
        writer.join().unwrap()
    })
}

#[test]
fn a_write_that_has_waited_goes_by_the_time_after_the_wait() {
    let found = |registry: &Registry<u64, u64>| registry.lookup(&1).map(|entry| *entry);
    assert_eq!(late(|registry| (registry.insert(1, 2).is_none(), found(registry))), (true, Some(2)));
    let ttl = Duration::from_secs(5);
    assert_eq!(late(|registry| (registry.set_with_ttl(1, 2, ttl), found(registry))), (false, Some(2)));
    assert!(late(|registry| registry.try_insert(1, 2).is_ok()), "an expired entry keeps its key");
    assert!(late(|registry| registry.remove(&1).is_none()), "an expired entry is removed");
}

#[test]
fn what_is_evicted_is_told_before_a_write_waits() {
    let told = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&told);
    let builder: Builder<u64, u64> = isolated_builder();
    let listener = move |cause, _| {
        if cause == Cause::Capacity {
            count.fetch_add(1, SeqCst);
        }
    };
    let registry = builder.shards(1).max_weight(4000).weigher(|_, value| *value as usize).listener(listener).build();
    thread::scope(|scope| {
        for round in 0..100 {
            registry.set_many((10..60).map(|key| (key, 1)));
            let reserved = Mutex::new(Some(registry.reserve_key(1)));
            let before = (told.load(SeqCst), registry.stats().evicted as usize);
            assert_eq!(before.0, before.1, "round {round}");
            let writer = scope.spawn(|| registry.set(1, 3000));
            thread::sleep(Duration::from_micros(100));
            let (told, evicted) = (told.load(SeqCst), registry.stats().evicted as usize);
            assert!(evicted - told <= 16, "{evicted} evicted, {told} told");
            drop(reserved.lock().unwrap().take());
            writer.join().unwrap();
            registry.clear();
        }
    });
}

#[test]
fn waiters_are_woken_before_the_writer_reclaims() {
    for count in [1, 60, 128, 200, 256_u64] {
        let builder: Builder<u64, OnDrop> = isolated_builder();
        let registry = builder.shards(1).build();
        let (woken, phase) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        for key in 10..1010 + count {
            let (woken, phase) = (Arc::clone(&woken), Arc::clone(&phase));
            let value = OnDrop::new(move || {
                if phase.compare_exchange(1, 2, SeqCst, SeqCst).is_ok() {
                    let end = Instant::now() + Duration::from_secs(20);
                    while !woken.load(SeqCst) && Instant::now() < end {
                        thread::yield_now();
                    }
                    phase.store(if woken.load(SeqCst) { 3 } else { 4 }, SeqCst);
                }
            });
            registry.set(key, value);
        }
        registry.set(1, OnDrop::new(|| ()));
        thread::scope(|scope| {
            let (entered, has_entered) = mpsc::channel();
            let (registry, woken, phase) = (&registry, &woken, &phase);
            scope.spawn(move || {
                registry.update(&1, |_, _| {
                    (10..1010 + count).for_each(|key| _ = registry.delete(&key));
                    entered.send(()).unwrap();
                    thread::sleep(Duration::from_millis(3));
                    phase.store(1, SeqCst);
                    OnDrop::new(|| ())
                });
                let _ = phase.compare_exchange(1, 5, SeqCst, SeqCst);
            });
            has_entered.recv().unwrap();
            scope.spawn(move || {
                let reservation = registry.reserve_key(1);
                woken.store(true, SeqCst);
                drop(reservation);
            });
        });
        assert_ne!(phase.load(SeqCst), 4, "{count}: the waiter sleeps while the writer runs destructors");
    }
}

#[test]
fn a_loader_may_panic_in_a_task_that_is_dropped_while_it_unwinds() {
    let registry = Arc::new(isolated::<u64, u64>());
    returns("a task", move || {
        let own = Arc::clone(&registry);
        let task = catch_unwind(AssertUnwindSafe(|| {
            poll(pin!(registry.get_or_insert_async(1, move || async move {
                let _cleanup = OnDrop::new(move || _ = own.set(1, 7));
                panic!("on purpose")
            })))
        }));
        assert!(task.is_err());
        assert_eq!(registry.lookup(&1).as_deref(), Some(&7));
    });
}

#[test]
fn a_lifetime_that_writes_the_key_of_its_entry_panics() {
    let (builder, clock) = clocked::<u64, u64>();
    let registry = Arc::new_cyclic(|me: &Weak<Registry<u64, u64>>| {
        let (me, asked) = (me.clone(), AtomicUsize::new(0));
        let lifetime = move |key: &u64, _: &u64| {
            // Asked again, when the entry may have expired.
            if *key == 1 && asked.fetch_add(1, SeqCst) == 1 {
                me.upgrade().map(|own| own.set(1, 3));
            }
            Some(Duration::from_secs(10))
        };
        builder.lifetime(lifetime).build()
    });
    registry.set(1, 1);
    clock.advance(Duration::from_secs(20));
    returns("compute", move || {
        let computed = registry.compute(1, |_, _| Change::Keep);
        // The panic of a lifetime is contained and counted, and the entry stays.
        assert_eq!((computed.as_deref(), registry.stats().lifetime_panics), (Some(&1), 1));
        assert!(registry.try_reserve_key(1).is_ok());
    });
}
