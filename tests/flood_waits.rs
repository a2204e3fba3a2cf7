//! While other threads write as fast as they can, every call that waits, destroys or walks all entries returns.

mod common;

use common::flood::*;
use common::*;
use epoch_registry::{Domain, DomainBuilder, Registry, WhenFull};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::time::Duration;

type Values = Registry<u64, Costly>;
type Call = fn(&Domain);

fn registry(domain: &Domain) -> Values {
    Registry::builder().domain(domain.clone()).build()
}

/// `writers` threads that each replace the value of a key. The destructor of each value takes `takes`.
fn replacing<'w>(registry: &'w Values, account: &'w Arc<Account>, writers: u64, takes: Duration) -> Vec<Work<'w>> {
    let writer = |key| -> Work<'w> { Box::new(move |_| drop(registry.insert(key, Costly::new(takes, account)))) };
    (0..writers).map(writer).collect()
}

/// Two threads that replace the value of one key, and two that pass callbacks to the domain.
fn mixed<'w>(registry: &'w Values, account: &'w Arc<Account>) -> Vec<Work<'w>> {
    let caller = || -> Work<'w> {
        Box::new(move |_| {
            let object = Costly::new(Duration::ZERO, account);
            registry.domain().call(move || drop(object));
        })
    };
    let writer = || -> Work<'w> { Box::new(move |_| drop(registry.insert(1, Costly::new(Duration::ZERO, account)))) };
    vec![caller(), caller(), writer(), writer()]
}

/// Checks that `f` returns in a mixed flood, with each of the [`drivers`].
fn returns_in_a_mixed_flood(what: &str, f: impl Fn(&Domain) + Sync) {
    let _alone = alone();
    in_time(|| {
        for (driver, builder) in drivers() {
            let domain = builder.build();
            let (registry, account) = (registry(&domain), Account::open());
            let what = format!("{what}, {driver}");
            let (_, took) = returns_amid(&what, &mixed(&registry, &account), || SOON, || f(&domain));
            println!("{what}: {took:?}");
        }
    });
}

/// The time that a barrier may take if `there` objects were retired before it and each destructor takes `takes`.
fn limit_for(there: u64, takes: Duration) -> Duration {
    SOON + (takes * (4 * there).try_into().unwrap()).min(2 * SOON)
}

/// Checks that a barrier returns among writers. What it destroys is in proportion to what existed when it was called.
fn a_barrier_returns_among(writers: u64, takes: Duration) {
    let _alone = alone();
    in_time(|| {
        for (driver, builder) in drivers() {
            let domain = builder.build();
            let (registry, account) = (registry(&domain), Account::open());
            let flood = replacing(&registry, &account, writers, takes);
            let what = format!("a barrier among {writers} writers, {driver}");
            let there = || account.there();
            let barrier = || {
                let (there, before) = (there(), destroyed_here());
                domain.barrier();
                (there, destroyed_here() - before)
            };
            let ((there, done), took) = returns_amid(&what, &flood, || limit_for(there(), takes), barrier);
            println!("{what}: {took:?}, {done} of {there} destroyed by the barrier");
            assert!(
                done <= 2 * there + 100_000,
                "{what}: the barrier destroyed {done}, but only {there} existed before it"
            );
        }
    });
}

#[test]
fn a_barrier_returns_in_a_flood_of_callbacks_and_replacements() {
    returns_in_a_mixed_flood("barrier", Domain::barrier);
}

#[test]
fn a_barrier_returns_among_two_writers_with_short_destructors() {
    a_barrier_returns_among(2, Duration::from_nanos(500));
}

#[test]
fn a_barrier_returns_among_four_writers_with_long_destructors() {
    a_barrier_returns_among(4, Duration::from_micros(20));
}

#[test]
fn a_barrier_in_a_flood_destroys_in_proportion_to_what_existed_before() {
    let _alone = alone();
    in_time(|| {
        for (driver, builder) in drivers() {
            let domain = builder.build();
            let (registry, account) = (registry(&domain), Account::open());
            let barrier = || {
                let (there, before) = (account.there(), destroyed_here());
                domain.barrier();
                (there, destroyed_here() - before)
            };
            let flood = mixed(&registry, &account);
            let ((there, done), took) = returns_amid(driver, &flood, || SOON, barrier);
            println!("{driver}: {took:?}, {done} of {there} destroyed by the barrier");
            assert!(
                done <= 2 * there + 100_000,
                "{driver}: the barrier destroyed {done}, but only {there} existed before it"
            );
        }
    });
}

/// Objects that were retired before the barrier are destroyed when it returns, in a flood too.
#[test]
fn a_barrier_in_a_flood_covers_what_its_caller_removed() {
    returns_in_a_mixed_flood("insert, remove, barrier", |domain| {
        let (ledger, own) = (Ledger::new(), Registry::builder().domain(domain.clone()).build());
        (0..1000).for_each(|key| drop(own.try_insert(key, ledger.value(key))));
        (0..1000).for_each(|key| drop(own.remove(&key)));
        domain.barrier();
        assert_eq!((ledger.created(), ledger.live()), (1000, 0));
    });
}

#[test]
fn several_barriers_at_once_return_in_a_flood() {
    returns_in_a_mixed_flood("three barriers", |domain| {
        std::thread::scope(|scope| (0..3).for_each(|_| drop(scope.spawn(|| domain.barrier()))));
    });
}

#[test]
fn synchronize_returns_in_a_flood() {
    returns_in_a_mixed_flood("synchronize", Domain::synchronize);
}

#[test]
fn synchronize_expedited_returns_in_a_flood() {
    returns_in_a_mixed_flood("synchronize_expedited", Domain::synchronize_expedited);
}

#[test]
fn a_polled_grace_period_ends_in_a_flood() {
    returns_in_a_mixed_flood("poll_timeout", |domain| {
        assert!(domain.poll_timeout(domain.start_poll(), SOON), "the grace period is not over");
    });
    returns_in_a_mixed_flood("a poll_timeout that has no time", |domain| {
        domain.poll_timeout(domain.start_poll(), Duration::ZERO);
    });
}

#[test]
fn reclaim_returns_in_a_flood_and_keeps_to_its_budget() {
    returns_in_a_mixed_flood("reclaim", |domain| {
        for budget in [0, 1, 1000] {
            let before = destroyed_here();
            let done = domain.reclaim(budget);
            assert!(done <= budget && destroyed_here() - before <= budget as u64, "{done} of {budget}");
        }
    });
}

#[test]
fn figures_can_be_read_in_a_flood() {
    returns_in_a_mixed_flood("backlog", |domain| drop(domain.backlog().to_string()));
    returns_in_a_mixed_flood("stats", |domain| drop(domain.stats().to_string()));
}

/// A call of `Domain::backlog` collects what was retired. The backlog does not grow from one call to the next.
#[test]
fn figures_can_be_read_among_eight_writers() {
    let _alone = alone();
    in_time(|| {
        for (driver, builder) in drivers() {
            let domain = builder.build();
            let (registry, account) = (registry(&domain), Account::open());
            let writer = |_| -> Work<'_> {
                Box::new(|n| {
                    // The flood pauses if the backlog grows without bounds.
                    if account.there() < 4_000_000 {
                        drop(registry.insert(n % 1000, Costly::new(Duration::ZERO, &account)));
                    }
                })
            };
            let flood: Vec<_> = (0..8).map(writer).collect();
            let what = format!("ten calls of backlog, {driver}");
            let look = || {
                let objects = domain.backlog().objects;
                std::thread::sleep(Duration::from_millis(10));
                objects
            };
            let (most, took) = returns_amid(&what, &flood, || SOON, || (0..10).map(|_| look()).max());
            println!("{what}: {took:?}, at most {} objects", most.unwrap());
            assert!(account.there() < 2_000_000, "{what}: {} objects", account.there());
        }
    });
}

#[test]
fn the_drop_of_a_registry_returns_in_a_flood_of_other_registries() {
    returns_in_a_mixed_flood("the drop of a registry", |domain| {
        let (ledger, own) = (Ledger::new(), Registry::builder().domain(domain.clone()).build());
        (0..2000).for_each(|key| drop(own.try_insert(key, ledger.value(key))));
        (0..1000).for_each(|key| drop(own.remove(&key)));
        drop(own);
        // Another thread may be destroying some of them at this moment.
        assert!(
            soon(|| ledger.live() == 0) && ledger.created() == 2000,
            "the entries were not destroyed with their registry"
        );
    });
}

#[test]
fn the_drop_of_the_last_handle_to_a_closed_registry_returns_in_a_flood() {
    returns_in_a_mixed_flood("the drop of a handle", |domain| {
        let (ledger, own) = (Ledger::new(), Registry::builder().domain(domain.clone()).build());
        let handle = own.try_insert(1, ledger.value(1)).ok().unwrap();
        drop(own);
        assert_eq!(ledger.live(), 1);
        drop(handle);
        assert_eq!(ledger.live(), 0, "the drop of the last handle did not destroy the entry");
    });
}

#[test]
fn writes_return_in_a_flood() {
    returns_in_a_mixed_flood("a thousand of each write", |domain| {
        let own: Registry<u64, u64> = Registry::builder().domain(domain.clone()).build();
        for key in 0..1000 {
            own.try_insert(key, key).unwrap();
            own.insert(key, key + 1);
            own.update(&key, |_, value| value + 1);
            domain.call(|| ());
            own.remove(&key);
        }
    });
}

/// The last handle to a domain is dropped after its flood. What is left takes no longer than a barrier would.
#[test]
fn the_drop_of_a_domain_after_a_flood_returns() {
    let _alone = alone();
    in_time(|| {
        for (driver, builder) in drivers() {
            let domain = builder.build();
            let (registry, account) = (registry(&domain), Account::open());
            amid(&mixed(&registry, &account), || std::thread::sleep(4 * WARM_UP));
            let (since, there) = (std::time::Instant::now(), account.there());
            drop((registry, domain));
            // A job on the executor may still hold the domain.
            assert!(soon(|| account.there() == 0), "{driver}: {} left", account.there());
            println!("{driver}: {there} destroyed in {:?}", since.elapsed());
            assert!(since.elapsed() < SOON, "{driver}: {there} destroyed in {:?}", since.elapsed());
        }
    });
}

#[test]
fn stop_reclaimer_returns_in_a_flood() {
    let _alone = alone();
    in_time(|| {
        for (driver, builder) in drivers() {
            let domain = builder.build();
            let (registry, account) = (registry(&domain), Account::open());
            let what = format!("stop_reclaimer, {driver}");
            returns_amid(&what, &mixed(&registry, &account), || SOON, || domain.stop_reclaimer());
            domain.barrier();
            assert_eq!(account.there(), 1, "{driver}");
        }
    });
}

/// A flood keeps a limited backlog full. Other writers still get their place within their patience.
#[test]
fn a_write_that_waits_for_room_gets_it_in_a_flood() {
    let _alone = alone();
    let limited = |builder: DomainBuilder| builder.backlog_objects(10_000).when_full(WhenFull::Wait(SOON * 4)).build();
    in_time(|| {
        for (driver, builder) in drivers() {
            let domain = limited(builder);
            let (registry, account) = (registry(&domain), Account::open());
            let own: Registry<u64, u64> = Registry::builder().shards(1).domain(domain.clone()).build();
            (0..1000).for_each(|key| drop(own.try_insert(key, key)));
            let removals = || (0..1000).filter(|key| own.fallible().remove(key).is_ok()).count();
            let what = format!("a thousand removals, {driver}");
            let (removed, took) = returns_amid(&what, &mixed(&registry, &account), || SOON, removals);
            println!("{what}: {took:?}");
            assert_eq!(
                removed, 1000,
                "{driver}: some removals were refused, although there is room for 10,000 and no reader"
            );
        }
    });
}

/// Passes a callback to the domain that passes itself again until `stop` is set.
fn call_for_ever(domain: &Domain, stop: &Arc<AtomicBool>, ran: &Arc<AtomicU64>) {
    let (own, stop, ran) = (domain.clone(), Arc::clone(stop), Arc::clone(ran));
    domain.call(move || {
        ran.fetch_add(1, SeqCst);
        if !stop.load(SeqCst) {
            call_for_ever(&own, &stop, &ran);
        }
    });
}

#[test]
fn calls_return_although_callbacks_pass_themselves_again() {
    let _alone = alone();
    in_time(|| {
        for (driver, builder) in drivers() {
            let (domain, stop, ran) = (builder.build(), Arc::default(), Arc::default());
            (0..10).for_each(|_| call_for_ever(&domain, &stop, &ran));
            let calls: [(&str, Call); 4] = [
                ("barrier", Domain::barrier),
                ("synchronize", Domain::synchronize),
                ("reclaim", |domain| assert!(domain.reclaim(1000) <= 1000)),
                ("reclaim of all", |domain| assert!(domain.reclaim(usize::MAX) < usize::MAX)),
            ];
            for (call, run) in calls {
                returns_amid(&format!("{call}, {driver}"), &[], || SOON, || run(&domain));
            }
            assert!(ran.load(SeqCst) >= 10, "{driver}: the barrier did not cover the first callbacks");
            stop.store(true, SeqCst);
            domain.barrier();
            domain.barrier();
            assert_eq!(domain.backlog().objects, 0, "{driver}");
        }
    });
}

/// A value whose destructor replaces it by another of its kind, until the flag is set.
struct Again(Weak<Registry<u64, Again>>, Arc<AtomicBool>);

impl Drop for Again {
    fn drop(&mut self) {
        if let Some(registry) = self.0.upgrade().filter(|_| !self.1.load(SeqCst)) {
            drop(registry.insert(1, Again(self.0.clone(), Arc::clone(&self.1))));
        }
    }
}

#[test]
fn calls_return_although_destructors_write_again() {
    let _alone = alone();
    in_time(|| {
        for (driver, builder) in drivers() {
            let registry = Arc::new(Registry::builder().domain(builder.build()).build());
            let (domain, stop) = (registry.domain(), Arc::new(AtomicBool::new(false)));
            (0..10).for_each(|_| drop(registry.insert(1, Again(Arc::downgrade(&registry), Arc::clone(&stop)))));
            let calls: [(&str, Call); 3] = [
                ("barrier", Domain::barrier),
                ("reclaim", |domain| assert!(domain.reclaim(1000) <= 1000)),
                ("reclaim of all", |domain| assert!(domain.reclaim(usize::MAX) < usize::MAX)),
            ];
            for (call, run) in calls {
                returns_amid(&format!("{call}, {driver}"), &[], || SOON, || run(domain));
            }
            let write = || drop(registry.try_insert(2, Again(Weak::new(), Arc::clone(&stop))));
            returns_amid(&format!("a write, {driver}"), &[], || SOON, write);
            stop.store(true, SeqCst);
            domain.barrier();
            domain.barrier();
            assert_eq!(domain.backlog().objects, 0, "{driver}");
        }
    });
}

/// Checks that a call on a registry returns while other threads insert into it and remove from it.
fn returns_among_inserts_and_removes(
    what: &str,
    build: fn(epoch_registry::Builder<u64, u64>) -> Registry<u64, u64>,
    f: fn(&Registry<u64, u64>),
) {
    const KEYS: u64 = 50_000;
    let _alone = alone();
    in_time(|| {
        let registry = build(isolated_builder());
        let insert = |seed: u64| -> Work<'_> {
            let registry = &registry;
            Box::new(move |n| drop(registry.try_insert((n * 7 + seed * 1000) % KEYS, n)))
        };
        let remove = |seed: u64| -> Work<'_> {
            let registry = &registry;
            Box::new(move |n| drop(registry.remove(&((n * 11 + seed * 1000) % KEYS))))
        };
        let flood = [insert(1), insert(2), insert(3), remove(4)];
        let (_, took) = returns_amid(what, &flood, || SOON, || f(&registry));
        println!("{what}: {took:?}");
    });
}

#[test]
fn retain_returns_among_inserts_and_removes() {
    returns_among_inserts_and_removes("retain", |builder| builder.build(), |registry| registry.retain(|_, _| false));
    returns_among_inserts_and_removes(
        "retain of half",
        |builder| builder.build(),
        |registry| {
            registry.retain(|key, _| key % 2 == 0);
        },
    );
}

#[test]
fn drain_returns_among_inserts_and_removes() {
    returns_among_inserts_and_removes(
        "drain",
        |builder| builder.build(),
        |registry| assert!(registry.drain().count() < usize::MAX),
    );
}

#[test]
fn clear_returns_among_inserts_and_removes() {
    returns_among_inserts_and_removes("clear", |builder| builder.build(), |registry| registry.clear());
    // If the backlog has no room for all entries, `clear` removes them one by one.
    let limited = |builder: epoch_registry::Builder<u64, u64>| {
        let domain =
            Domain::builder().backlog_objects(1000).when_full(WhenFull::Wait(Duration::from_millis(100))).build();
        builder.domain(domain).build()
    };
    returns_among_inserts_and_removes("clear within a limit", limited, |registry| registry.clear());
}

#[test]
fn an_eviction_of_everything_returns_among_inserts_and_removes() {
    returns_among_inserts_and_removes(
        "shrink_to",
        |builder| builder.build(),
        |registry| assert!(registry.shrink_to(0) < usize::MAX),
    );
    returns_among_inserts_and_removes(
        "evict",
        |builder| builder.build(),
        |registry| assert!(registry.evict(usize::MAX) < usize::MAX),
    );
}

#[test]
fn reapers_return_among_inserts_and_removes() {
    returns_among_inserts_and_removes(
        "reap_if",
        |builder| builder.build(),
        |registry| {
            registry.reap_if(usize::MAX, |_| true);
        },
    );
    returns_among_inserts_and_removes(
        "reap_older_than",
        |builder| builder.build(),
        |registry| {
            registry.reap_older_than(Duration::ZERO, usize::MAX);
        },
    );
    let mortal = |builder: epoch_registry::Builder<u64, u64>| builder.max_age(Duration::from_millis(20)).build();
    returns_among_inserts_and_removes("expire", mortal, |registry| assert!(!registry.expire(usize::MAX).stopped));
}

#[test]
fn changes_of_bounds_and_sizes_return_among_inserts_and_removes() {
    returns_among_inserts_and_removes(
        "set_max_entries",
        |builder| builder.build(),
        |registry| {
            registry.set_max_entries(Some(100));
            registry.set_max_entries(None);
            registry.set_max_weight(Some(1000));
            registry.set_max_weight(None);
        },
    );
    returns_among_inserts_and_removes(
        "shrink_to_fit and reserve",
        |builder| builder.build(),
        |registry| {
            registry.reserve(1_000_000);
            registry.shrink_to_fit();
        },
    );
    returns_among_inserts_and_removes(
        "set_max_age",
        |builder| builder.build(),
        |registry| {
            registry.set_max_age(Some(Duration::from_secs(3600)));
            registry.set_max_idle(Some(Duration::from_secs(3600)));
        },
    );
}

#[test]
fn walks_return_among_inserts_and_removes() {
    returns_among_inserts_and_removes(
        "iter",
        |builder| builder.build(),
        |registry| assert!(registry.pin().iter().count() < usize::MAX),
    );
    returns_among_inserts_and_removes(
        "scan",
        |builder| builder.build(),
        |registry| {
            let mut cursor = epoch_registry::Cursor::new();
            while !cursor.is_done() {
                registry.scan(&mut cursor, 64, |_| ());
            }
        },
    );
}

/// A thread tells a listener only of its own writes. Other writers do not keep a call in the listener.
#[test]
fn writes_of_a_registry_with_a_listener_return_among_others() {
    let listening =
        |builder: epoch_registry::Builder<u64, u64>| builder.listener(|_, entry| assert_ne!(*entry, u64::MAX)).build();
    returns_among_inserts_and_removes("a replacement", listening, |registry| drop(registry.insert(1, 1)));
    returns_among_inserts_and_removes("a clear", listening, |registry| registry.clear());
    returns_among_inserts_and_removes("a retain", listening, |registry| registry.retain(|_, _| false));
}
