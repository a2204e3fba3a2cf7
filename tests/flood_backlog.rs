//! Without a limit, the backlog stays bounded while threads write as fast as they can.

mod common;

use common::flood::*;
use common::*;
use epoch_registry::{Builder, Domain, Handle, Registry};
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

/// Up to so many objects may usually wait.
const USUAL: u64 = 200_000;
/// Up to so many objects may wait if a thread is descheduled at a bad moment.
const MOST: u64 = 1_000_000;
/// With so many objects the flood pauses, and the test stops sampling.
const TOO_MUCH: u64 = 4_000_000;

/// The duration of the flood for each driver: half a second, times `STRESS`.
fn a_flood() -> Duration {
    Duration::from_millis(times(500) as u64)
}

/// Checks that a flood leaves a bounded backlog with each driver, by the domain's own figures and by `account`.
fn stays_bounded(what: &str, flood: impl for<'w> Fn(&'w Registry<u64, Costly>, &'w Arc<Account>) -> Vec<Work<'w>>) {
    let build = |builder: Builder<u64, Costly>| builder.build();
    stays_bounded_in(what, 1, build, flood);
}

/// The same for a registry made by `build`. At the end up to `live` objects are in the registry or held by the flood.
fn stays_bounded_in(
    what: &str,
    live: u64,
    build: impl Fn(Builder<u64, Costly>) -> Registry<u64, Costly>,
    flood: impl for<'w> Fn(&'w Registry<u64, Costly>, &'w Arc<Account>) -> Vec<Work<'w>>,
) {
    let _alone = alone();
    in_time(|| {
        for (driver, builder) in drivers() {
            hurry(false);
            let registry = build(Registry::builder().domain(builder.build()));
            let account = Account::open();
            let domain = registry.domain();
            let samples = amid(&held_back(flood(&registry, &account), &account), || {
                Samples::take(a_flood(), TOO_MUCH, || {
                    domain.backlog().objects.max(account.there().saturating_sub(live))
                })
            });
            let (usual, most) = (samples.usual_most(), samples.most());
            hurry(true);
            println!("{what}, {driver}: at most {usual} waited for nine tenths of the time, and {most} at any time");
            assert!(usual < USUAL && most < MOST, "{what}, {driver}: {usual} and {most} objects waited");
            domain.barrier();
            assert!(account.there() <= live, "{what}, {driver}: {} left", account.there());
        }
    });
}

/// Returns the same works, which pause while too many objects exist. So a flood that outruns reclamation does not fill
/// the memory.
fn held_back<'w>(works: Vec<Work<'w>>, account: &'w Account) -> Vec<Work<'w>> {
    let hold = |work: Work<'w>| -> Work<'w> {
        Box::new(
            move |n| if account.there() < TOO_MUCH { work(n) } else { std::thread::sleep(Duration::from_millis(1)) },
        )
    };
    works.into_iter().map(hold).collect()
}

fn cheap(account: &Arc<Account>) -> Costly {
    Costly::new(Duration::ZERO, account)
}

fn replacing<'w>(registry: &'w Registry<u64, Costly>, account: &'w Arc<Account>, keys: u64) -> Work<'w> {
    Box::new(move |n| drop(registry.insert(n % keys, cheap(account))))
}

fn calling<'w>(registry: &'w Registry<u64, Costly>, account: &'w Arc<Account>) -> Work<'w> {
    Box::new(move |_| {
        let object = cheap(account);
        registry.domain().call(move || drop(object));
    })
}

#[test]
fn callbacks_and_replacements_do_not_outrun_reclamation() {
    stays_bounded("two callers, two writers", |registry, account| {
        vec![
            calling(registry, account),
            calling(registry, account),
            replacing(registry, account, 1),
            replacing(registry, account, 1),
        ]
    });
}

/// A call of `Domain::call` destroys nothing itself, as its caller may hold locks that the callbacks take. If the
/// domain has a thread or an executor, the callers are slowed down instead.
#[test]
fn callers_alone_do_not_outrun_a_thread_that_reclaims() {
    let _alone = alone();
    in_time(|| {
        for (driver, builder) in drivers().into_iter().skip(1) {
            let registry = Registry::builder().domain(builder.build()).build();
            let account = Account::open();
            let works = held_back(vec![calling(&registry, &account), calling(&registry, &account)], &account);
            let samples = amid(&works, || Samples::take(a_flood(), TOO_MUCH, || account.there()));
            let (usual, most) = (samples.usual_most(), samples.most());
            println!(
                "two callers, {driver}: at most {usual} waited for nine tenths of the time, and {most} at any time"
            );
            assert!(usual < USUAL && most < MOST, "{driver}: {usual} and {most} objects waited");
        }
    });
}

#[test]
fn one_caller_and_one_writer_do_not_outrun_reclamation() {
    stays_bounded("a caller, a writer", |registry, account| {
        vec![calling(registry, account), replacing(registry, account, 1)]
    });
}

#[test]
fn two_writers_do_not_outrun_reclamation() {
    stays_bounded("two writers", |registry, account| {
        vec![replacing(registry, account, 1), replacing(registry, account, 1)]
    });
}

#[test]
fn eight_writers_of_many_keys_do_not_outrun_reclamation() {
    let build = |builder: Builder<u64, Costly>| builder.build();
    stays_bounded_in("eight writers", 1000, build, |registry, account| {
        (0..8).map(|_| replacing(registry, account, 1000)).collect()
    });
}

#[test]
fn writers_of_values_with_long_destructors_do_not_outrun_reclamation() {
    // The limit counts objects. Their destructors take a hundred times as long as usual.
    stays_bounded("four writers, 5 us each", |registry, account| {
        let writer = |_| -> Work<'_> {
            Box::new(move |_| drop(registry.insert(1, Costly::new(Duration::from_micros(5), account))))
        };
        (0..4).map(writer).collect()
    });
}

#[test]
fn inserts_and_removes_do_not_outrun_reclamation() {
    const KEYS: u64 = 5000;
    let build = |builder: Builder<u64, Costly>| builder.build();
    stays_bounded_in("two that insert and remove", 2 * KEYS, build, |registry, account| {
        let churner = |from: u64| -> Work<'_> {
            Box::new(move |n| {
                let key = from + n / 2 % KEYS;
                if n % 2 == 0 {
                    drop(registry.try_insert(key, cheap(account)));
                } else {
                    drop(registry.remove(&key));
                }
            })
        };
        vec![churner(0), churner(KEYS)]
    });
}

#[test]
fn updates_do_not_outrun_reclamation() {
    stays_bounded("two that update", |registry, account| {
        registry.insert(1, cheap(account));
        let updater = || -> Work<'_> { Box::new(move |_| drop(registry.update(&1, |_, _| cheap(account)))) };
        vec![updater(), updater()]
    });
}

/// Handles are dropped long after their entries were removed. The drop of the handle makes the entry ready.
#[test]
fn late_drops_of_handles_do_not_outrun_reclamation() {
    const KEPT: usize = 2000;
    thread_local!(static HANDLES: RefCell<Vec<Handle<u64, Costly>>> = const { RefCell::new(Vec::new()) });
    let build = |builder: Builder<u64, Costly>| builder.build();
    stays_bounded_in("two that keep handles", 2 * KEPT as u64 + 2, build, |registry, account| {
        let keeper = || -> Work<'_> {
            Box::new(move |_| {
                HANDLES.with_borrow_mut(|handles| {
                    handles.extend(registry.insert(1, cheap(account)));
                    if handles.len() == KEPT {
                        handles.clear();
                    }
                });
            })
        };
        vec![keeper(), keeper()]
    });
}

/// A reader that is always in some short critical section runs beside the writers.
#[test]
fn writers_beside_readers_do_not_outrun_reclamation() {
    stays_bounded("two writers, a reader", |registry, account| {
        let reader: Work<'_> = Box::new(move |_| assert!(registry.pin().get(&7).is_none()));
        vec![replacing(registry, account, 1), replacing(registry, account, 1), reader]
    });
}

/// Four registries share one domain, and each has a writer.
#[test]
fn writers_of_several_registries_do_not_outrun_reclamation() {
    let _alone = alone();
    in_time(|| {
        let (domain, account) = (Domain::new(), Account::open());
        let registries: Vec<Registry<u64, Costly>> =
            (0..4).map(|_| Registry::builder().domain(domain.clone()).shards(1).build()).collect();
        let flood = registries.iter().map(|registry| replacing(registry, &account, 10)).collect();
        let flood = held_back(flood, &account);
        let samples = amid(&flood, || Samples::take(2 * a_flood(), TOO_MUCH, || domain.backlog().objects));
        let (usual, most) = (samples.usual_most(), samples.most());
        println!("four registries: at most {usual} waited for nine tenths of the time, and {most} at any time");
        assert!(usual < USUAL && most < MOST, "{usual} and {most} objects waited");
    });
}

/// Checks that what a bounded registry evicts is destroyed at the same rate.
fn a_bounded_registry_stays_bounded(
    what: &str,
    writers: u64,
    build: impl Fn(Builder<u64, Costly>) -> Builder<u64, Costly>,
    key: fn(&mut Rng) -> u64,
) {
    thread_local!(static RNG: RefCell<Rng> = RefCell::new(Rng::new(std::process::id().into())));
    stays_bounded_in(
        what,
        1000 + writers,
        |builder| build(builder).build(),
        |registry, account| {
            let writer =
                || -> Work<'_> { Box::new(move |_| drop(registry.insert(RNG.with_borrow_mut(key), cheap(account)))) };
            (0..writers).map(|_| writer()).collect()
        },
    );
}

#[test]
fn a_bounded_registry_under_churn_builds_no_backlog() {
    let bounded = |builder: Builder<u64, Costly>| builder.max_entries(1000);
    a_bounded_registry_stays_bounded("keys that never come again", 2, bounded, |rng| rng.below(1 << 30));
    a_bounded_registry_stays_bounded("keys that come again", 2, bounded, |rng| rng.below(1500));
}

#[test]
fn a_registry_of_one_entry_under_churn_builds_no_backlog() {
    let bounded = |builder: Builder<u64, Costly>| builder.max_entries(1);
    a_bounded_registry_stays_bounded("one entry", 4, bounded, |rng| rng.below(100));
}

#[test]
fn a_registry_bounded_by_weight_under_churn_builds_no_backlog() {
    let bounded = |builder: Builder<u64, Costly>| builder.max_weight(64 << 10).weigher(|_, _| 100).shards(4);
    a_bounded_registry_stays_bounded("a bound on weight", 3, bounded, |rng| rng.below(1 << 30));
}

/// Only one thread writes, so no other thread delays it. The backlog is a small part of what the registry holds.
#[test]
fn one_writer_of_a_bounded_registry_leaves_hardly_anything_waiting() {
    for keys in [1100, 5000, 1 << 30] {
        let registry: Registry<u64, u64> = isolated_builder().max_entries(1000).build();
        let (mut rng, mut most) = (Rng::new(keys), 0);
        for n in 0..times(200_000) as u64 {
            registry.insert(rng.below(keys), n);
            if n % 1000 == 0 {
                most = most.max(registry.domain().backlog().objects);
            }
        }
        println!("{keys} keys: at most {most} objects waited");
        assert!(most <= 4000, "{keys} keys: {most} objects waited, but the registry holds only 1000");
    }
}
