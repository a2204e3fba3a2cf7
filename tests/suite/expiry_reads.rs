//! An entry that has expired is absent for every call, at once, and without a reaper.

use crate::common::*;
use epoch_registry::{Builder, Cause, Cursor, Domain, ManualClock, Registry, WhenFull};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);
const NANO: Duration = Duration::from_nanos(1);

/// The ways in which entries of a registry can come to expire after about ten seconds.
const WAYS: [&str; 6] = ["max_age", "max_idle", "lifetime", "set_max_age", "set_max_idle", "set_max_age before"];

/// The causes and values that a listener was told.
type Told = Arc<Mutex<Vec<(Cause, u64)>>>;

/// Returns a registry with fifty keys, its clock, the time until key 1 has expired, and what its listener was told.
fn expiring(way: &str) -> (Registry<u64, u64>, ManualClock, Duration, Told) {
    let (builder, clock) = clocked::<u64, u64>();
    clock.advance(100 * SECOND);
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&told);
    let builder = builder.listener(move |cause, entry| log.lock().unwrap().push((cause, *entry)));
    let builder = match way {
        "max_age" => builder.max_age(10 * SECOND),
        "max_idle" => builder.max_idle(16 * SECOND),
        "lifetime" => builder.lifetime(|key, _| Some(if *key == 1 { 10 * SECOND } else { 1000 * SECOND })),
        _ => builder,
    };
    let registry = builder.build();
    if way == "set_max_age before" {
        registry.set_max_age(Some(10 * SECOND));
    }
    (0..50).for_each(|key| drop(registry.try_insert(key, key).unwrap()));
    if way == "set_max_age" {
        registry.set_max_age(Some(10 * SECOND));
    } else if way == "set_max_idle" {
        registry.set_max_idle(Some(16 * SECOND));
    }
    // An idle entry expires up to a sixteenth late. The age of an entry from before the limit is known to 34 ms.
    let life = match way {
        "max_idle" | "set_max_idle" => 17 * SECOND + Duration::from_micros(1),
        "set_max_age" => 10 * SECOND + Duration::from_millis(34),
        _ => 10 * SECOND + NANO,
    };
    (registry, clock, life, told)
}

#[test]
fn an_entry_is_found_until_its_last_instant() {
    for way in WAYS {
        let (registry, clock, _, _) = expiring(way);
        clock.advance(if way.contains("idle") { 16 * SECOND } else { 10 * SECOND });
        // A walk does not count as a use.
        assert_eq!(registry.pin().iter().filter(|entry| *entry.key() == 1).count(), 1, "{way}");
        assert_eq!(registry.lookup(&1).as_deref(), Some(&1), "{way}");
        assert!(registry.try_insert(1, 2).is_err(), "{way}");
    }
}

#[test]
fn no_kind_of_read_finds_an_expired_entry() {
    for way in WAYS {
        let (registry, clock, life, _) = expiring(way);
        let (mut reader, domain) = (registry.reader(), registry.domain().clone());
        clock.advance(life);
        assert!(registry.lookup(&1).is_none(), "{way}");
        assert!(!registry.contains_key(&1) && registry.with(&1, |_| ()).is_none(), "{way}");
        let guard = registry.pin();
        assert!(guard.get(&1).is_none() && guard.lookup(&1).is_none() && !guard.contains_key(&1), "{way}");
        assert!(reader.get(&1).is_none() && reader.lookup(&1).is_none() && !reader.contains_key(&1), "{way}");
        assert!(reader.view().get(&1).is_none(), "{way}");
        assert!(guard.get_many([&1])[0].is_none() && guard.lookup_many([&1])[0].is_none(), "{way}");
        guard.get_batch([&1], |_, found| assert!(found.is_none(), "{way}"));
        guard.lookup_batch([&1], |_, found| assert!(found.is_none(), "{way}"));
        let guard = domain.pin();
        assert!(registry.view(&guard).unwrap().get(&1).is_none(), "{way}");
        // Nor does a read find it if the clock of another thread is a little behind.
        assert!(registry.lookup(&1).is_none(), "{way}");
    }
}

#[test]
fn walks_skip_expired_entries() {
    for way in WAYS {
        let (registry, clock, life, told) = expiring(way);
        clock.advance(life);
        let others = if way == "lifetime" { 49 } else { 0 };
        let is_one = |key: &u64| *key == 1;
        assert_eq!(registry.pin().iter().count(), others, "{way}");
        let mut met = 0;
        registry.scan(&mut Cursor::new(), usize::MAX, |_| met += 1);
        assert_eq!(met, others, "{way}");
        registry.retain(|key, _| {
            assert!(!is_one(key), "{way}");
            true
        });
        assert_eq!(registry.fallible().retain(&mut Cursor::new(), |key, _| !is_one(key)).unwrap(), 0, "{way}");
        assert_eq!(registry.reap_if(usize::MAX, |entry| is_one(entry.key())).removed, 0, "{way}");
        assert_eq!(registry.drain().filter(|entry| is_one(entry.key())).count(), 0, "{way}");
        assert!(told.lock().unwrap().iter().all(|(_, value)| *value != 1), "{way}: a walk removed the entry");
        registry.expire(usize::MAX);
        assert!(registry.is_empty(), "{way}");
    }
}

#[test]
fn a_key_whose_entry_has_expired_can_be_inserted() {
    type Insert = fn(&Registry<u64, u64>);
    let ways: [(&str, Insert); 7] = [
        ("try_insert", |registry| assert_eq!(*registry.try_insert(1, 100).unwrap(), 100)),
        ("add", |registry| registry.add(1, 100).unwrap()),
        ("insert", |registry| assert!(registry.insert(1, 100).is_none())),
        ("set", |registry| assert!(!registry.set(1, 100))),
        ("fallible insert", |registry| assert!(registry.fallible().insert(1, 100).unwrap().is_none())),
        ("get_or_insert_with", |registry| assert_eq!(*registry.get_or_insert_with(1, || 100), 100)),
        ("after a read", |registry| {
            assert!(registry.lookup(&1).is_none());
            assert_eq!(*registry.try_insert(1, 100).unwrap(), 100);
        }),
    ];
    for way in WAYS {
        for (name, insert) in ways {
            let (registry, clock, life, told) = expiring(way);
            let old = registry.lookup(&1).unwrap();
            clock.advance(life);
            insert(&registry);
            assert_eq!(registry.lookup(&1).as_deref(), Some(&100), "{way}, {name}");
            assert!(old.is_unlinked());
            let told: Vec<_> = told.lock().unwrap().iter().filter(|(_, value)| *value == 1).copied().collect();
            let cause = if way.contains("idle") { Cause::Idle } else { Cause::Expired };
            assert_eq!(told, [(cause, 1)], "{way}, {name}");
            let stats = registry.stats();
            assert_eq!((stats.replaced, stats.inserted), (0, 51), "{way}, {name}: {stats}");
            assert!(stats.expired >= 1);
            // The new entry expires too.
            clock.advance(2 * life);
            assert!(registry.lookup(&1).is_none(), "{way}, {name}");
            registry.expire(usize::MAX);
            assert_eq!(registry.lookup(&1).as_deref(), None);
        }
    }
}

#[test]
fn expired_entries_are_neither_removed_nor_updated() {
    type Remove = fn(&Registry<u64, u64>);
    let ways: [(&str, Remove); 8] = [
        ("remove", |registry| assert!(registry.remove(&1).is_none())),
        ("fallible remove", |registry| assert!(registry.fallible().remove(&1).unwrap().is_none())),
        ("delete", |registry| assert!(!registry.delete(&1))),
        ("remove_if", |registry| assert!(registry.remove_if(&1, |_, _| panic!("the key is absent")).is_none())),
        ("update", |registry| assert!(registry.update(&1, |_, _| panic!("the key is absent")).is_none())),
        ("fallible update", |registry| {
            assert!(registry.fallible().update(&1, |_, _| panic!("the key is absent")).unwrap().is_none())
        }),
        ("remove twice", |registry| assert!(registry.remove(&1).is_none() && registry.remove(&1).is_none())),
        ("read, then remove", |registry| assert!(registry.lookup(&1).is_none() && registry.remove(&1).is_none())),
    ];
    for way in WAYS {
        for (name, remove) in ways {
            let (registry, clock, life, told) = expiring(way);
            clock.advance(life);
            remove(&registry);
            registry.expire(usize::MAX);
            let told: Vec<_> = told.lock().unwrap().iter().filter(|(_, value)| *value == 1).copied().collect();
            let cause = if way.contains("idle") { Cause::Idle } else { Cause::Expired };
            assert_eq!(told, [(cause, 1)], "{way}, {name}");
            assert_eq!(registry.stats().removed, 0, "{way}, {name}");
        }
        let (registry, clock, life, _) = expiring(way);
        let handle = registry.lookup(&1).unwrap();
        clock.advance(2 * life);
        assert_eq!(registry.replace_handle(&handle, 5).unwrap_err(), 5, "{way}");
        assert!(!registry.remove_handle(&handle), "{way}");
        assert_eq!(
            (*handle, registry.lookup(&1).is_none()),
            (1, true),
            "{way}: the value changed although a handle holds it"
        );
    }
}

#[test]
fn an_ended_entry_does_not_come_back_when_the_limit_is_raised_or_lifted() {
    type Change = fn(&Registry<u64, u64>);
    let by_age: [(&str, Change); 3] = [
        ("raised", |registry| registry.set_max_age(Some(100 * SECOND))),
        ("lifted", |registry| registry.set_max_age(None)),
        ("exchanged for idleness", |registry| {
            registry.set_max_idle(Some(1000 * SECOND));
            registry.set_max_age(None);
        }),
    ];
    let by_idleness: [(&str, Change); 3] = [
        ("raised", |registry| registry.set_max_idle(Some(100 * SECOND))),
        ("lifted", |registry| registry.set_max_idle(None)),
        ("exchanged for an age", |registry| {
            registry.set_max_age(Some(1000 * SECOND));
            registry.set_max_idle(None);
        }),
    ];
    for (limit, changes) in [("age", by_age), ("idleness", by_idleness)] {
        for (what, change) in changes {
            for read in [false, true] {
                let (builder, clock) = clocked::<u64, u64>();
                let builder = if limit == "age" { builder.max_age(10 * SECOND) } else { builder.max_idle(10 * SECOND) };
                let registry = builder.build();
                registry.set(1, 1);
                clock.advance(11 * SECOND);
                if read {
                    assert!(!registry.contains_key(&1));
                }
                change(&registry);
                assert_eq!(registry.lookup(&1).is_none(), read, "{limit} {what}");
                assert_eq!(registry.pin().iter().count(), usize::from(!read), "{limit} {what}");
                registry.expire(100);
                assert_eq!(registry.len(), usize::from(!read), "{limit} {what}");
            }
        }
    }
}

#[test]
fn a_clock_that_goes_back_a_little_does_not_bring_an_entry_back() {
    let now = Arc::new(AtomicU64::new(1000));
    struct Back(Arc<AtomicU64>);
    impl epoch_registry::Clock for Back {
        fn now(&self) -> Duration {
            Duration::from_millis(self.0.load(SeqCst))
        }
    }
    for idle in [false, true] {
        now.store(1000, SeqCst);
        let builder = isolated_builder::<u64, u64>().clock(Back(Arc::clone(&now)));
        let builder = if idle { builder.max_idle(SECOND) } else { builder.max_age(SECOND) };
        let registry = builder.build();
        registry.try_insert(1, 1).unwrap();
        now.store(2100, SeqCst);
        assert!(registry.lookup(&1).is_none());
        now.store(1990, SeqCst);
        assert!(registry.lookup(&1).is_none() && registry.remove(&1).is_none());
        registry.try_insert(1, 2).unwrap();
        now.store(1500, SeqCst);
        assert!(registry.lookup(&1).is_some());
    }
}

#[test]
fn a_read_is_a_use_and_restarts_the_idle_time() {
    let (builder, clock) = clocked::<u64, u64>();
    let registry = builder.max_idle(16 * SECOND).build();
    registry.try_insert(1, 1).unwrap();
    registry.try_insert(2, 2).unwrap();
    // No writer or reaper runs.
    for _ in 0..100 {
        clock.advance(15 * SECOND);
        assert!(registry.lookup(&1).is_some());
        assert_eq!(
            registry.pin().iter().filter(|entry| *entry.key() == 2).count(),
            usize::from(clock_at(&clock) <= 17)
        );
    }
    clock.advance(18 * SECOND);
    assert!(registry.lookup(&1).is_none());
}

fn clock_at(clock: &ManualClock) -> u64 {
    use epoch_registry::Clock;
    clock.now().as_secs()
}

#[test]
fn reads_and_writes_ask_again_for_a_lifetime_that_its_value_prolonged() {
    let (builder, clock) = clocked::<u64, AtomicU64>();
    let registry = builder.lifetime(|_, value: &AtomicU64| Some(Duration::from_secs(value.load(SeqCst)))).build();
    for key in 0..4 {
        registry.try_insert(key, AtomicU64::new(10)).unwrap().store(20, SeqCst);
    }
    clock.advance(11 * SECOND);
    assert!(registry.contains_key(&0));
    assert!(registry.try_insert(1, AtomicU64::new(0)).is_err());
    assert!(registry.remove(&2).is_some());
    assert_eq!(registry.pin().iter().count(), 3);
    clock.advance(10 * SECOND);
    assert!(!registry.contains_key(&0));
    assert!(registry.try_insert(1, AtomicU64::new(10)).is_ok());
    assert_eq!((registry.stats().expired >= 1, registry.remove(&3).is_none()), (true, true));
}

#[test]
fn a_lifetime_that_a_read_calls_may_read_and_write_its_registry() {
    let (builder, clock) = clocked::<u64, u64>();
    let cell = Arc::new(std::sync::OnceLock::<std::sync::Weak<Registry<u64, u64>>>::new());
    let inner = Arc::clone(&cell);
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let builder = builder.lifetime(move |key, _| {
        counted.fetch_add(1, SeqCst);
        if let Some(registry) = inner.get().and_then(std::sync::Weak::upgrade) {
            for key in 0..10 {
                registry.lookup(&key);
            }
            registry.remove(&(key + 100));
            registry.expire(10);
        }
        Some(SECOND)
    });
    let registry = Arc::new(builder.build());
    (0..10).for_each(|key| drop(registry.try_insert(key, key)));
    cell.set(Arc::downgrade(&registry)).unwrap();
    clock.advance(2 * SECOND);
    assert!(registry.lookup(&3).is_none());
    assert!(registry.try_insert(4, 4).is_ok());
    assert!(calls.load(SeqCst) < 100);
}

#[test]
fn a_held_entry_that_is_spared_is_found() {
    let (builder, clock) = clocked::<u64, u64>();
    let registry = builder.max_age(SECOND).spare_held(true).build();
    let held = registry.try_insert(1, 1).unwrap();
    registry.try_insert(2, 2).unwrap();
    clock.advance(2 * SECOND);
    assert!(registry.lookup(&2).is_none());
    assert!(registry.lookup(&1).is_some() && registry.try_insert(1, 5).is_err());
    drop(held);
    assert!(registry.lookup(&1).is_none() && registry.try_insert(1, 5).is_ok());
}

#[test]
fn stale_reads_find_an_entry_until_it_is_reaped() {
    let (builder, clock) = clocked::<u64, u64>();
    let registry = builder.max_age(SECOND).stale_reads(true).build();
    (0..2).for_each(|key| drop(registry.try_insert(key, key)));
    clock.advance(2 * SECOND);
    assert!(registry.contains_key(&0) && registry.contains_key(&1));
    assert_eq!(registry.pin().iter().count(), 2);
    assert!(registry.try_insert(0, 7).is_ok(), "a write found an expired entry");
    registry.expire(100);
    assert!(registry.contains_key(&0) && !registry.contains_key(&1));
}

#[test]
fn with_stale_reads_a_used_entry_is_not_idle() {
    let (builder, clock) = clocked::<u64, u64>();
    let registry = builder.max_idle(16 * SECOND).stale_reads(true).build();
    (0..2).for_each(|key| drop(registry.try_insert(key, key)));
    for second in 0..200 {
        clock.advance(SECOND);
        assert!(registry.contains_key(&0), "{second}");
        registry.expire(100);
        assert_eq!(registry.len(), if second <= 16 { 2 } else { 1 }, "{second}");
    }
    // Twice the limit, and a sixteenth of that.
    for _ in 0..34 {
        clock.advance(SECOND);
        registry.expire(100);
    }
    assert_eq!(registry.len(), 0);
}

#[test]
fn an_expired_entry_is_replaced_although_the_backlog_is_full() {
    let domain = Domain::builder().backlog_objects(4).when_full(WhenFull::Refuse).manual().build();
    let (builder, clock) = clocked::<u64, u64>();
    let registry = builder.domain(domain.clone()).shards(1).max_age(SECOND).build();
    (0..20).for_each(|key| drop(registry.try_insert(key, key)));
    clock.advance(2 * SECOND);
    let guard = domain.pin();
    for key in 0..20 {
        assert!(registry.fallible().remove(&key).unwrap().is_none(), "{key}: the key is not absent");
        assert!(registry.try_insert(key, 100 + key).is_ok(), "{key}");
        assert_eq!(registry.lookup(&key).as_deref(), Some(&(100 + key)));
    }
    drop(guard);
    domain.barrier();
    assert_eq!((registry.len(), registry.stats().freed), (20, 20));
}

/// The value of one key grows, and each entry lives for some milliseconds. Readers find the key absent, or with growing
/// values. Once they have seen an entry end, it stays absent.
#[test]
fn the_entries_of_one_key_end_once_and_in_order_under_readers_and_writers() {
    in_time(|| {
        for way in 0..3 {
            let (builder, clock) = clocked::<u64, u64>();
            let builder = if way == 1 { builder.max_idle(SECOND) } else { builder.max_age(SECOND) };
            let registry = builder.build();
            let (stop, next) = (Stop::default(), AtomicU64::new(1));
            thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        let (mut seen, mut gone) = (0, 0);
                        while !stop.stopped() {
                            match registry.lookup(&1) {
                                Some(entry) => {
                                    assert!(*entry >= seen, "{} after {seen}", *entry);
                                    assert!(*entry > gone, "{} came back", *entry);
                                    seen = *entry;
                                }
                                None => gone = seen,
                            }
                        }
                    });
                }
                scope.spawn(|| {
                    let mut rng = Rng::new(3);
                    while !stop.stopped() {
                        clock.advance(Duration::from_millis(rng.below(400)));
                        let value = next.fetch_add(1, SeqCst);
                        match rng.below(if way == 2 { 5 } else { 3 }) {
                            0 => drop(registry.try_insert(1, value)),
                            1 => drop(registry.insert(1, value)),
                            2 => _ = registry.expire(10),
                            3 => registry.set_max_age(Some(Duration::from_millis(500 + rng.below(1000)))),
                            _ => drop(registry.update(&1, |_, _| value)),
                        }
                    }
                });
                let _end = stop.at_end();
                thread::sleep(a_while());
            });
            let stats = registry.stats();
            println!("{stats}");
            assert!(way == 1 || stats.expired > 10, "{stats}");
        }
    });
}

/// The entry of a key is replaced again and again before it expires. The key is never absent.
#[test]
fn a_key_that_is_replaced_in_time_is_never_absent() {
    in_time(|| {
        for idle in [false, true] {
            let (builder, clock) = clocked::<u64, u64>();
            let builder = if idle { builder.max_idle(SECOND) } else { builder.max_age(SECOND) };
            let registry = builder.build();
            registry.try_insert(1, 0).unwrap();
            let stop = Stop::default();
            thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        while !stop.stopped() {
                            assert!(registry.contains_key(&1));
                        }
                    });
                }
                let _end = stop.at_end();
                let end = Instant::now() + a_while();
                let mut value = 0;
                while Instant::now() < end {
                    value += 1;
                    assert!(registry.insert(1, value).is_some());
                    clock.advance(Duration::from_millis(600));
                }
            });
        }
    });
}

#[test]
fn reap_in_background_reaps_on_time() {
    in_time(|| {
        let domain = Domain::builder().reclaimer(true).build();
        let builder: Builder<u64, Counted> =
            Registry::builder().domain(domain.clone()).max_age(Duration::from_millis(50));
        let registry = builder.reap_in_background(true).build();
        let ledger = Ledger::new();
        let mut best = Duration::MAX;
        for round in 0..20 {
            let start = Instant::now();
            drop(registry.try_insert(round, ledger.value(round)));
            while ledger.live() > 0 {
                assert!(registry.lookup(&round).is_none() || start.elapsed() < Duration::from_secs(5));
                thread::sleep(Duration::from_micros(200));
            }
            assert!(start.elapsed() >= Duration::from_millis(50), "{:?}", start.elapsed());
            best = best.min(start.elapsed());
        }
        println!("an entry with a lifetime of 50 ms ended after {best:?}");
        assert!(best < Duration::from_millis(60), "{best:?}");
        drop(registry);
        domain.stop_reclaimer();
    });
}

#[test]
fn with_the_monotonic_clock_an_entry_is_absent_soon_after_its_deadline() {
    let registry =
        isolated_builder::<u64, u64>().max_age(Duration::from_millis(50)).clock(epoch_registry::MonotonicClock).build();
    let mut best = Duration::MAX;
    for round in 0..10 {
        let start = Instant::now();
        registry.try_insert(round, round).unwrap();
        while registry.contains_key(&round) {
            thread::sleep(Duration::from_micros(100));
        }
        assert!(start.elapsed() >= Duration::from_millis(50));
        best = best.min(start.elapsed());
    }
    assert!(best < Duration::from_millis(60), "{best:?}");
}

#[test]
fn a_registry_may_be_dropped_while_a_background_thread_reaps_it() {
    in_time(|| {
        let domain = Domain::builder().reclaimer(true).reap_every(Duration::from_millis(1)).build();
        let ledger = Ledger::new();
        for round in 0..times(300) as u64 {
            let in_listener = Arc::new(AtomicBool::new(false));
            let flag = Arc::clone(&in_listener);
            let (builder, clock) = clocked::<u64, Counted>();
            let registry = builder
                .domain(domain.clone())
                .max_age(SECOND)
                .reap_in_background(true)
                .listener(move |_, _| flag.store(true, SeqCst))
                .build();
            (0..200).for_each(|key| drop(registry.try_insert(key, ledger.value(key))));
            clock.advance(2 * SECOND);
            if round % 2 == 0 {
                assert!(soon(|| in_listener.load(SeqCst)));
            }
            drop(registry);
        }
        assert!(soon(|| {
            domain.barrier();
            ledger.live() == 0
        }));
        domain.stop_reclaimer();
    });
}

/// The listener, which the background calls, drops the last reference to the registry.
#[test]
fn a_listener_may_drop_the_last_reference_to_its_registry() {
    in_time(|| {
        let domain = Domain::builder().reclaimer(true).reap_every(Duration::from_millis(1)).build();
        let ledger = Ledger::new();
        type Slot = Arc<Mutex<Option<Registry<u64, Counted>>>>;
        let slot: Slot = Arc::default();
        let other = Arc::clone(&slot);
        let (builder, clock) = clocked::<u64, Counted>();
        let registry = builder
            .domain(domain.clone())
            .max_age(SECOND)
            .reap_in_background(true)
            .listener(move |_, _| drop(other.lock().unwrap().take()))
            .build();
        (0..200).for_each(|key| drop(registry.try_insert(key, ledger.value(key))));
        *slot.lock().unwrap() = Some(registry);
        clock.advance(2 * SECOND);
        assert!(soon(|| slot.lock().unwrap().is_none()));
        assert!(soon(|| ledger.live() == 0));
        domain.stop_reclaimer();
    });
}

#[test]
fn reaping_in_the_background_without_a_reclaimer_is_refused() {
    let builder = isolated_builder::<u64, u64>().max_age(SECOND).reap_in_background(true);
    assert!(panic_of(|| builder.build()).contains("neither"));
}

/// The first limit comes late. The registry has old and new entries, tables that grow and shrink, and values of all
/// sizes.
#[test]
fn a_registry_whose_first_limit_comes_late_keeps_exact_counts() {
    fn run<const BYTES: usize>() {
        let (builder, clock) = clocked::<u64, (Counted, [u8; BYTES])>();
        let (registry, ledger) = (builder.build(), Ledger::new());
        (0..3000).for_each(|key| drop(registry.try_insert(key, (ledger.value(key), [7; BYTES]))));
        (0..500).for_each(|key| drop(registry.remove(&key)));
        let held = registry.lookup(&2999).unwrap();
        clock.advance(5 * SECOND);
        registry.set_max_age(Some(10 * SECOND));
        (3000..6000).for_each(|key| drop(registry.try_insert(key, (ledger.value(key), [8; BYTES]))));
        registry.domain().barrier();
        clock.advance(5 * SECOND + Duration::from_millis(34));
        assert_eq!(registry.pin().iter().count(), 3000);
        assert!(registry.lookup(&2999).is_none() && registry.lookup(&3000).is_some());
        registry.expire(usize::MAX);
        assert_eq!(registry.len(), 3000);
        registry.domain().barrier();
        // New entries do not use slots of the old ones.
        (6000..9000).for_each(|key| drop(registry.try_insert(key, (ledger.value(key), [9; BYTES]))));
        clock.advance(20 * SECOND);
        assert_eq!(registry.pin().iter().count(), 0);
        registry.set_max_age(None);
        (0..1000).for_each(|key| drop(registry.try_insert(key, (ledger.value(key), [9; BYTES]))));
        assert_eq!((held.0.get(), held.1.first().is_none_or(|byte| *byte == 7)), (2999, true));
        drop(held);
        registry.expire(usize::MAX);
        assert_eq!(registry.len(), 1000);
        let domain = registry.domain().clone();
        drop(registry);
        domain.barrier();
        assert_eq!(ledger.live(), 0);
    }
    run::<0>();
    run::<100>();
    run::<3000>();
}
