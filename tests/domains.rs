//! Domains: they are isolated from each other, and a domain is torn down with everything in it.

mod common;

use common::*;
use epoch_registry::{Domain, ForeignGuard, Handle, RcuCell, RcuOptionCell, Registry};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn a_guard_in_one_domain_does_not_delay_another_domain() {
    let ledger = Ledger::new();
    let (held, free): (Registry<u64, Counted>, Registry<u64, Counted>) = (isolated(), isolated());
    drop(held.try_insert(1, ledger.value(1)));
    drop(free.try_insert(1, ledger.value(2)));
    let guard = held.pin();
    let session = held.domain().session();
    let entry = guard.get(&1).unwrap();
    drop((held.remove(&1), free.remove(&1)));
    free.domain().synchronize();
    free.domain().barrier();
    assert_eq!((ledger.live(), entry.get()), (1, 1));
    drop((guard, session));
    held.domain().barrier();
    assert_eq!(ledger.live(), 0);
}

#[test]
fn registries_of_one_domain_share_its_critical_sections() {
    let ledger = Ledger::new();
    let domain = Domain::new();
    let [one, two]: [Registry<u64, Counted>; 2] =
        std::array::from_fn(|_| Registry::builder().domain(domain.clone()).build());
    drop((one.try_insert(1, ledger.value(1)), two.try_insert(1, ledger.value(2))));
    let guard = domain.pin();
    let (first, second) = (one.view(&guard).unwrap(), two.view(&guard).unwrap());
    let entries = (first.get(&1).unwrap(), second.get(&1).unwrap());
    thread::scope(|scope| {
        scope.spawn(|| drop((one.remove(&1), two.remove(&1))));
    });
    (0..1000).for_each(|_| assert_eq!(domain.reclaim(100), 0));
    assert_eq!((entries.0.get(), entries.1.get(), ledger.live()), (1, 2, 2));
    drop(guard);
    domain.barrier();
    assert_eq!(ledger.live(), 0);
}

#[test]
fn a_view_under_a_guard_of_another_domain_is_refused() {
    let registry: Registry<u64, u64> = isolated();
    let other = Domain::new();
    assert_eq!(registry.view(&other.pin()).err(), Some(ForeignGuard));
    assert!(registry.view(&registry.domain().pin()).is_ok());
    assert!(registry.view(&registry.domain().session().pin()).is_ok());
    assert!(registry.view(&other.session().pin()).is_err());
}

#[test]
fn a_cell_refuses_a_section_of_another_domain() {
    let (domain, other) = (Domain::new(), Domain::new());
    let (cell, option) = (RcuCell::new_in(1, &domain), RcuOptionCell::<u64>::empty_in(&domain));
    let mut foreign = other.session();
    for message in [
        panic_of(|| *cell.read(&other.pin())),
        panic_of(|| *cell.read(&foreign.section())),
        panic_of(|| cell.load_in(&other.pin())),
        panic_of(|| option.read(&other.pin()).is_none()),
    ] {
        assert!(message.contains("another domain"), "{message}");
    }
    assert_eq!((*cell.read(&domain.session().section()), option.read(&domain.pin())), (1, None));
}

/// A domain, a registry, handles and a session are dropped in every order. Each time the last drop destroys everything.
#[test]
fn a_domain_is_torn_down_with_everything_in_every_order_of_drops() {
    in_time(|| {
        for reclaimer in [false, true] {
            for order in 0..24usize {
                let ledger = Ledger::new();
                let domain = Domain::builder().reclaimer(reclaimer).build();
                let registry: Registry<u64, Counted> = Registry::builder().domain(domain.clone()).build();
                (0..10).for_each(|key| drop(registry.try_insert(key, ledger.value(key))));
                drop(registry.remove(&1));
                let (held, removed) = (registry.lookup(&2).unwrap(), registry.remove(&3).unwrap());
                let callback = ledger.value(100);
                domain.call(move || drop(callback));
                let session = domain.session();
                let mut parts: Vec<Box<dyn FnOnce()>> = vec![
                    Box::new(|| drop(domain)),
                    Box::new(|| drop(registry)),
                    Box::new(|| drop((held, removed))),
                    Box::new(|| drop(session)),
                ];
                let mut rest = order;
                while !parts.is_empty() {
                    let next = parts.remove(rest % parts.len());
                    rest /= parts.len() + 1;
                    next();
                }
                assert!(soon(|| ledger.live() == 0), "order {order}, {} left", ledger.live());
                assert!(reclaimer || ledger.live() == 0);
                assert_eq!(ledger.created(), 11);
            }
        }
    });
}

#[test]
fn all_callbacks_run_at_the_teardown_even_those_given_by_callbacks() {
    let ran = Arc::new(AtomicU64::new(0));
    let domain = Domain::new();
    // The callbacks hold no handle to the domain, because that would keep it alive.
    for n in 0..100u64 {
        let ran = Arc::clone(&ran);
        domain.call(move || {
            ran.fetch_add(n, SeqCst);
        });
    }
    let other = Domain::new();
    let (inner, seen) = (other.clone(), Arc::clone(&ran));
    domain.call(move || {
        inner.call(move || {
            seen.fetch_add(1 << 32, SeqCst);
        });
    });
    drop(domain);
    assert_eq!(ran.load(SeqCst), 99 * 50);
    drop(other);
    assert_eq!(ran.load(SeqCst), (1 << 32) + 99 * 50);
}

/// Counts the threads of this process whose names begin with `prefix`.
#[cfg(target_os = "linux")]
fn threads_named(prefix: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    // A thread may end between the listing and the read.
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.filter(|name| name.starts_with(prefix)).count()
}

#[cfg(target_os = "linux")]
#[test]
fn the_reclaimer_thread_has_the_domains_name_and_is_joined_at_the_teardown() {
    for round in 0..20 {
        let domain = Domain::builder().name("joined").reclaimer(true).build();
        assert!(soon(|| threads_named("joined-reclaim") == 1));
        if round % 2 == 0 {
            let registry: Registry<u64, u64> = Registry::builder().domain(domain.clone()).build();
            drop(registry.try_insert(1, 1));
            drop(registry.remove(&1));
        }
        drop(domain);
        // The thread itself may be the one that ends the domain. It then ends soon after.
        assert!(soon(|| threads_named("joined-reclaim") == 0), "the thread did not end with its domain");
    }
}

#[test]
fn an_idle_reclaimer_does_not_keep_its_domain() {
    let ledger = Ledger::new();
    for _ in 0..50 {
        let domain = Domain::builder().reclaimer(true).build();
        let value = ledger.value(1);
        let guard = domain.pin();
        domain.call(move || drop(value));
        drop(guard);
        drop(domain);
    }
    assert!(soon(|| ledger.live() == 0));
}

#[test]
fn dozens_of_domains_work_side_by_side_and_one_after_another() {
    let ledger = Ledger::new();
    for _ in 0..times(3) {
        let registries: Vec<Registry<u64, Counted>> = (0..60)
            .map(|n| Registry::builder().domain(Domain::builder().reclaimer(n % 6 == 0).build()).build())
            .collect();
        let guards: Vec<_> = registries.iter().step_by(2).map(|registry| registry.pin()).collect();
        thread::scope(|scope| {
            for id in 0..3 {
                let (registries, ledger) = (&registries, &ledger);
                scope.spawn(move || {
                    for (n, registry) in registries.iter().enumerate() {
                        drop(registry.try_insert(id, ledger.value(id)));
                        assert_eq!(registry.pin().get(&id).unwrap().get(), id);
                        drop(registry.remove(&id));
                        if n % 2 == 1 {
                            registry.domain().barrier();
                        }
                    }
                });
            }
        });
        drop(guards);
        registries.iter().for_each(|registry| registry.domain().barrier());
        assert_eq!(ledger.live(), 0);
    }
}

/// One thread drops the last handle of a closed registry while another thread drops the registry itself.
#[test]
fn several_threads_may_drop_a_registry_and_its_last_handles_at_the_same_time() {
    in_time(|| {
        let ledger = Ledger::new();
        for round in 0..times(500) as u64 {
            let registry: Registry<u64, Counted> = Registry::builder().shards(1).domain(Domain::new()).build();
            let handles: Vec<Handle<u64, Counted>> =
                (0..4).map(|key| registry.try_insert(key, ledger.value(round)).ok().unwrap()).collect();
            if round % 2 == 0 {
                registry.clear();
            }
            thread::scope(|scope| {
                let mut handles = handles.into_iter();
                for _ in 0..2 {
                    let mine = (handles.next(), handles.next());
                    scope.spawn(move || drop(mine));
                }
                drop(registry);
            });
            assert_eq!(ledger.live(), 0, "round {round}");
        }
    });
}

#[test]
fn reclaim_destroys_no_more_than_its_budget() {
    let ledger = Ledger::new();
    let registry: Registry<u64, Counted> = isolated();
    (0..1000).for_each(|key| drop(registry.try_insert(key, ledger.value(key))));
    registry.clear();
    let before = ledger.dropped();
    assert_eq!(registry.domain().reclaim(0), 0);
    assert_eq!(ledger.dropped(), before);
    while ledger.live() > 0 {
        let before = ledger.dropped();
        let done = registry.domain().reclaim(7);
        // The tables that `clear` retired count too.
        assert!(done <= 7 && ledger.dropped() - before <= 7);
    }
    let backlog = registry.domain().backlog().objects;
    assert!(backlog <= 4, "{backlog} objects still wait, but there are only four tables");
}

#[test]
fn a_domain_equals_only_its_clones_and_the_global_one_is_the_default() {
    let (one, two) = (Domain::new(), Domain::builder().name("two").build());
    assert!(one == one.clone() && one != two && two.name() == "two");
    assert_eq!(&Domain::default(), Domain::global());
    assert_eq!(Registry::<u64, u64>::new().domain(), Domain::global());
    let before = one.stats().grace_periods;
    one.synchronize();
    assert!(one.stats().grace_periods > before);
}

/// Returns the shortest time of five tries, because the machine may be busy with something else.
fn shortest(mut f: impl FnMut()) -> Duration {
    let time = |_| {
        let since = Instant::now();
        f();
        since.elapsed()
    };
    (0..5).map(time).min().unwrap()
}

fn manual() -> Domain {
    Domain::builder().manual().build()
}

#[test]
fn a_pin_takes_no_longer_if_its_thread_reads_in_many_domains() {
    let time = |count| {
        let domains: Vec<_> = (0..count).map(|_| manual()).collect();
        let mut random = Rng::new(1);
        let order: Vec<_> = (0..4096).map(|_| &domains[random.below(count) as usize]).collect();
        domains.iter().for_each(|domain| drop(domain.pin()));
        let pins = shortest(|| order.iter().for_each(|domain| drop(domain.pin())));
        (pins, shortest(|| assert!(order.iter().all(|domain| !domain.in_critical_section()))))
    };
    let (few, many) = (time(16), time(4096));
    // A walk through all records would take 256 times as long. Thousands of records do not fit into the nearest cache.
    assert!(many.0 < 40 * few.0, "4096 pins take {:?} in 16 domains, but {:?} in 4096", few.0, many.0);
    assert!(many.1 < 40 * few.1, "4096 checks take {:?} in 16 domains, but {:?} in 4096", few.1, many.1);
}

/// The thread pins each domain once. A domain leaves no record that later pins would have to walk past.
#[test]
fn a_thread_that_pins_a_hundred_thousand_short_lived_domains_does_not_get_slower() {
    let batch = times(100_000) / 20;
    let time = || shortest(|| (0..batch).for_each(|_| drop(manual().pin())));
    let (first, _, _, last) = (time(), time(), time(), time());
    assert!(last < 5 * first, "{batch} domains took {first:?} at first, but {last:?} at the end");
    // Domains that stay do not change this.
    let kept: Vec<_> = (0..4096).map(|_| manual()).collect();
    kept.iter().for_each(|domain| drop(domain.pin()));
    let batch = batch / 10;
    let beside = shortest(|| (0..batch).for_each(|_| drop(manual().pin())));
    assert!(
        beside < first,
        "{batch} domains took {beside:?} beside 4096 others, but ten times as many took {first:?} without them"
    );
}
