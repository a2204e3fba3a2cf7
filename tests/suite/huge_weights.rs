//! Weighers that return very large numbers, and very large limits. No count overflows, and no entry is lost.

use crate::common::*;
use epoch_registry::WhenFull::{Grow, Refuse, Wait};
use epoch_registry::{Backlog, Domain, DomainBuilder, Registry, WhenFull};
use std::hash::{BuildHasherDefault, Hasher};
use std::mem::ManuallyDrop;
use std::time::Duration;

const WEIGHTS: [usize; 9] = [
    usize::MAX,
    usize::MAX - 1,
    usize::MAX - 100,
    usize::MAX / 2,
    isize::MAX as usize + 1,
    usize::MAX / 4 + 1,
    FOUR_TB,
    FOUR_TB - 1,
    1 << 31,
];

/// The weight at which weights saturate, or on a 32-bit machine the greatest power of two below it.
const FOUR_TB: usize = 1 << if usize::BITS == 64 { 42 } else { 31 };

const POLICIES: [WhenFull; 4] = [Grow, Refuse, Wait(Duration::ZERO), Wait(Duration::from_millis(1))];

/// So many entries of the greatest weight (4 TB) weigh more than 2^64 bytes.
const TOO_MANY: u64 = (1 << 22) + 50_000;

/// Sets limits in a domain builder.
type Limit = fn(DomainBuilder) -> DomainBuilder;

fn limits() -> [(&'static str, Limit); 7] {
    [
        ("no limit", |builder| builder),
        ("all bytes", |builder| builder.backlog_bytes(usize::MAX)),
        ("all objects", |builder| builder.backlog_objects(usize::MAX)),
        ("all of both", |builder| builder.backlog_bytes(usize::MAX).backlog_objects(usize::MAX)),
        ("half of all bytes", |builder| builder.backlog_bytes(usize::MAX / 2 + 1)),
        ("a few bytes", |builder| builder.backlog_bytes(1000)),
        ("no bytes and no objects", |builder| builder.backlog_bytes(0).backlog_objects(0)),
    ]
}

/// Runs every operation on a few entries.
fn use_in_every_way(registry: &Registry<u64, Counted>, ledger: &Ledger) {
    let value = |key| ledger.value(key);
    let mut handles = Vec::new();
    for key in 0..60 {
        handles.extend(registry.try_insert(key, value(key)));
        drop(registry.try_insert(key, value(key)));
        handles.extend(registry.insert(key, value(key)));
        handles.extend(registry.update(&key, |key, _| value(*key)));
        handles.extend(registry.fallible().insert(key, value(key)).ok().flatten());
        handles.extend(registry.fallible().update(&key, |key, _| value(*key)).ok().flatten());
    }
    assert!(registry.weight() >= registry.stats().live);
    let _ = (registry.stats().to_string(), registry.domain().backlog().to_string());
    for key in 0..10 {
        handles.extend(registry.remove(&key));
        handles.extend(registry.fallible().remove(&(key + 10)).ok().flatten());
        handles.extend(registry.remove_if(&(key + 20), |_, _| true));
    }
    let _ = (registry.reap_if(5, |_| true), registry.evict(5));
    registry.retain(|key, _| key % 3 != 0);
    handles.extend(registry.drain().take(3));
    registry.set_max_entries(Some(8));
    registry.set_max_weight(Some(u64::MAX - 1));
    registry.set_max_weight(Some(1 << 42));
    registry.set_max_entries(None);
    for key in 0..20 {
        drop(registry.try_insert(key, value(key)));
    }
    registry.clear();
    assert_eq!((registry.len(), registry.weight()), (0, 0));
    for key in 0..20 {
        drop(registry.try_insert(key, value(key)));
    }
    handles.iter().for_each(|handle| assert_eq!(handle.get(), *handle.key()));
}

#[test]
fn entries_of_any_weight_are_counted_exactly_within_any_limit() {
    in_time(|| {
        for (name, limit) in limits() {
            for policy in POLICIES {
                for weight in WEIGHTS {
                    let (domain, ledger) = (limit(Domain::builder().when_full(policy)).build(), Ledger::new());
                    let builder = isolated_builder().domain(domain.clone());
                    let registry: Registry<u64, Counted> = builder.weigher(move |_, _| weight).build();
                    use_in_every_way(&registry, &ledger);
                    domain.barrier();
                    let what = format!("{weight} within {name}, {policy:?}");
                    assert_eq!(ledger.live(), registry.len() as u64, "{what}");
                    assert_eq!(domain.backlog(), Backlog::default(), "{what}");
                    drop(registry);
                    assert_eq!(ledger.live(), 0, "{what}");
                }
            }
        }
    });
}

/// Each registry is lent a part of the limit in advance.
#[test]
fn many_registries_within_an_enormous_limit_are_lent_no_more_than_the_limit() {
    in_time(|| {
        for (name, limit) in limits() {
            for policy in POLICIES {
                for weight in [usize::MAX, 1] {
                    let (domain, ledger) = (limit(Domain::builder().when_full(policy)).build(), Ledger::new());
                    let registries: Vec<Registry<u64, Counted>> = (0..100)
                        .map(|_| {
                            let builder = Registry::builder().shards(1).domain(domain.clone());
                            let registry = builder.weigher(move |_, _| weight).build();
                            drop(registry.try_insert(1, ledger.value(1)));
                            drop(registry.remove(&1));
                            drop(registry.try_insert(1, ledger.value(1)));
                            registry
                        })
                        .collect();
                    domain.barrier();
                    let what = format!("{weight} within {name}, {policy:?}");
                    assert_eq!((ledger.live(), domain.backlog().objects), (100, 0), "{what}");
                    registries.iter().for_each(|registry| drop(registry.remove(&1)));
                    domain.barrier();
                    assert_eq!((ledger.live(), domain.backlog()), (0, Backlog::default()), "{what}");
                    drop(registries);
                    // The domain has as much room as at the beginning.
                    assert!(domain.try_call(|| ()).is_ok(), "{what}");
                }
            }
        }
    });
}

/// The limit is as large as possible. Places are taken and given back again and again. No operation is refused, and the
/// domain is never pressed.
#[test]
#[cfg_attr(target_pointer_width = "32", ignore = "a weigher returns a usize: no entry weighs 4 TB")]
fn an_enormous_limit_is_never_reached() {
    for policy in POLICIES {
        let domain = Domain::builder().backlog_bytes(usize::MAX).backlog_objects(usize::MAX).when_full(policy).build();
        let registry: Registry<u64, u64> = isolated_builder().domain(domain.clone()).weigher(|_, _| usize::MAX).build();
        let guard = domain.pin();
        for key in 0..times(2000) as u64 {
            registry.try_insert(key, key).unwrap();
            assert!(registry.fallible().remove(&key).is_ok(), "{policy:?}: refused after {key} removals");
            assert!(domain.try_call(|| ()).is_ok(), "{policy:?}: refused after {key} calls");
        }
        drop(guard);
        domain.barrier();
        let stats = domain.stats();
        assert_eq!((stats.backlog, stats.overruns), (Backlog::default(), 0), "{policy:?}: {stats}");
    }
}

/// The weigher returns different weights from call to call, also for the same entry.
#[test]
fn weights_that_change_are_counted_exactly() {
    in_time(|| {
        for (name, limit) in limits() {
            for policy in POLICIES {
                let (domain, ledger) = (limit(Domain::builder().when_full(policy)).build(), Ledger::new());
                let calls = std::sync::atomic::AtomicUsize::new(0);
                let builder = isolated_builder().domain(domain.clone()).max_weight(1 << 43);
                let registry: Registry<u64, Counted> = builder
                    .weigher(move |_, _| {
                        let call = calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        if call % 3 == 0 { call } else { WEIGHTS[call % WEIGHTS.len()] }
                    })
                    .build();
                (0..5).for_each(|_| use_in_every_way(&registry, &ledger));
                domain.barrier();
                let what = format!("within {name}, {policy:?}");
                assert_eq!((ledger.live(), domain.backlog()), (registry.len() as u64, Backlog::default()), "{what}");
                registry.clear();
                domain.barrier();
                assert_eq!((ledger.live(), registry.weight()), (0, 0), "{what}");
            }
        }
    });
}

/// A hasher that is fast even without optimisation.
#[derive(Default)]
struct Quick(u64);

impl Hasher for Quick {
    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are numbers");
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0.rotate_left(32)
    }
}

type Heavy = Registry<u64, (), BuildHasherDefault<Quick>>;

/// Returns a registry whose entries have the greatest weight. A failed test does not drop it, because the drop could
/// panic again.
fn heavy(domain: &Domain, shards: usize, capacity: u64) -> ManuallyDrop<Heavy> {
    let builder = Registry::<u64, ()>::builder().shards(shards).capacity(capacity as usize).domain(domain.clone());
    ManuallyDrop::new(builder.weigher(|_, ()| usize::MAX).hasher(BuildHasherDefault::default()).build())
}

/// Four million entries together weigh more than 2^64 bytes.
fn the_weight_saturates(shards: usize) {
    in_time(|| {
        let registry = heavy(&Domain::new(), shards, TOO_MANY);
        let kept = registry.try_insert(TOO_MANY, ()).unwrap();
        (0..TOO_MANY).for_each(|key| assert!(registry.insert(key, ()).is_none()));
        assert_eq!((registry.weight(), registry.len() as u64), (u64::MAX, TOO_MANY + 1));
        assert_eq!((registry.stats().live, registry.stats().inserted), (TOO_MANY + 1, TOO_MANY + 1));
        registry.clear();
        assert_eq!((registry.len(), registry.weight()), (0, 0));
        registry.domain().barrier();
        let stats = registry.stats();
        assert_eq!((stats.freed, stats.domain.backlog), (TOO_MANY, Backlog::default()), "{stats}");
        assert_eq!((*kept.key(), kept.is_unlinked()), (TOO_MANY, true));
        drop(ManuallyDrop::into_inner(registry));
    });
}

#[test]
#[cfg_attr(target_pointer_width = "32", ignore = "a weigher returns a usize: no entry weighs 4 TB")]
fn the_weight_of_one_shard_saturates() {
    the_weight_saturates(1);
}

/// In debug builds, this test and the next take long. They run fully only with `STRESS=2`.
fn is_quick() -> bool {
    !cfg!(debug_assertions) || times(100) > 100
}

#[test]
fn the_weight_of_all_shards_together_saturates() {
    if is_quick() {
        the_weight_saturates(4);
    }
}

/// As many entries wait for a reader to leave.
#[test]
fn the_bytes_of_a_backlog_saturate() {
    in_time(|| {
        let domain = Domain::builder().manual().build();
        let registry = heavy(&domain, 1, 1);
        registry.try_insert(0, ()).unwrap();
        with_reader(&domain, || {
            for _ in 0..if is_quick() { TOO_MANY } else { 1000 } {
                drop(registry.insert(0, ()));
            }
            let waiting = domain.backlog();
            if is_quick() {
                assert_eq!((waiting.objects, waiting.bytes), (TOO_MANY, u64::MAX), "{waiting}");
                assert_eq!(domain.stats().peak.bytes, u64::MAX);
            }
        });
        domain.barrier();
        assert_eq!((domain.backlog(), registry.len()), (Backlog::default(), 1));
        drop(ManuallyDrop::into_inner(registry));
    });
}
