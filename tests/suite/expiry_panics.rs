//! The user's clock or lifetime panics at one of its calls. Every entry still expires.

use epoch_registry::{Clock, Domain, Registry, Scan, policy};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Counts down at each call, and panics at zero.
#[derive(Clone)]
struct Fuse(Arc<AtomicUsize>);

impl Fuse {
    fn call(&self) {
        if self.0.load(SeqCst) != usize::MAX && self.0.fetch_sub(1, SeqCst) == 0 {
            self.0.store(usize::MAX, SeqCst);
            std::panic::resume_unwind(Box::new("planned"));
        }
    }
}

#[derive(Clone)]
struct Fused(Fuse, Arc<AtomicU64>);

impl Clock for Fused {
    fn now(&self) -> Duration {
        self.0.call();
        Duration::from_millis(self.1.load(SeqCst))
    }
}

type Act = fn(&Registry<u64, u64>);

/// For n = 0, 1, ...: lets the n-th call of the user's code within `act` panic. However `act` ended, all entries in the
/// registry then expire in time.
fn ends_in_the_end(name: &str, own: bool, act: Act) {
    let mut n = 0;
    loop {
        let (fuse, time) = (Fuse(Arc::new(AtomicUsize::new(usize::MAX))), Arc::new(AtomicU64::new(1000)));
        let builder = Registry::builder().shards(2).domain(Domain::new()).clock(Fused(fuse.clone(), Arc::clone(&time)));
        let in_lifetime = fuse.clone();
        let builder = if own {
            builder.lifetime(move |_, _| {
                in_lifetime.call();
                Some(3600 * SECOND)
            })
        } else {
            builder
        };
        let registry = builder.build();
        (0..300).for_each(|key| drop(registry.try_insert(key, key)));
        // After this, some entries have reached the end of their lifetimes, or of limits that `act` sets.
        time.fetch_add(1_800_000, SeqCst);
        (300..600).for_each(|key| drop(registry.try_insert(key, key)));
        time.fetch_add(1_800_001, SeqCst);
        fuse.0.store(n, SeqCst);
        let _ = catch_unwind(AssertUnwindSafe(|| act(&registry)));
        let burnt = fuse.0.swap(usize::MAX, SeqCst) == usize::MAX;
        time.fetch_add(7_200_000, SeqCst);
        // More rounds for entries that are examined again later, and for lifetimes that are asked again.
        for _ in 0..3 {
            registry.expire(usize::MAX);
            time.fetch_add(3_600_000, SeqCst);
        }
        assert_eq!(registry.len(), 0, "{name}, own lifetimes {own}: entries are left if call {n} panics");
        assert_eq!(registry.pin().iter().count(), 0);
        if !burnt {
            println!("{name}, own lifetimes {own}: {n} calls");
            return;
        }
        // Each of the first calls, and after that only some.
        n = if n < 40 { n + 1 } else { n + n / 3 };
    }
}

#[test]
fn every_entry_expires_whichever_call_of_the_users_code_panics() {
    let acts: [(&str, Act); 10] = [
        ("set_max_age", |registry| registry.set_max_age(Some(1800 * SECOND))),
        ("set_max_idle", |registry| registry.set_max_idle(Some(1800 * SECOND))),
        ("set both", |registry| {
            registry.set_max_idle(Some(1800 * SECOND));
            registry.set_max_age(Some(1800 * SECOND));
            registry.set_max_age(Some(3600 * SECOND));
        }),
        ("insert", |registry| {
            registry.set_max_age(Some(1800 * SECOND));
            (600..700).for_each(|key| drop(registry.try_insert(key, key)));
        }),
        ("replace", |registry| {
            registry.set_max_age(Some(1800 * SECOND));
            (0..700).step_by(7).for_each(|key| drop(registry.insert(key, key)));
        }),
        ("update", |registry| {
            registry.set_max_age(Some(1800 * SECOND));
            (0..700).step_by(7).for_each(|key| drop(registry.update(&key, |_, value| *value)));
        }),
        ("reap", |registry| {
            registry.set_max_age(Some(1800 * SECOND));
            (0..100).for_each(|_| _ = registry.expire(10));
        }),
        ("sweeps", |registry| {
            registry.set_max_age(Some(1800 * SECOND));
            registry.reap_older_than(1000 * SECOND, 100);
            registry.reap_by(&policy::older_than(1000 * SECOND), &mut Scan::new(100));
            registry.retain(|key, _| key % 2 == 0);
            registry.drain().take(10).for_each(drop);
        }),
        ("reads", |registry| {
            registry.set_max_age(Some(1800 * SECOND));
            (0..600).step_by(11).for_each(|key| drop(registry.lookup(&key)));
            registry.pin().iter().for_each(drop);
            (0..600).step_by(11).for_each(|key| drop(registry.remove(&key)));
        }),
        ("lift and set", |registry| {
            registry.set_max_age(Some(1800 * SECOND));
            registry.set_max_idle(Some(SECOND));
            registry.set_max_age(None);
            registry.set_max_age(Some(3600 * SECOND));
            registry.set_max_idle(None);
        }),
    ];
    for (name, act) in acts {
        ends_in_the_end(name, false, act);
        ends_in_the_end(name, true, act);
    }
}

#[test]
fn set_max_age_takes_effect_although_the_clock_panics() {
    for first in [None, Some(100 * SECOND)] {
        let (fuse, time) = (Fuse(Arc::new(AtomicUsize::new(usize::MAX))), Arc::new(AtomicU64::new(0)));
        let builder = Registry::<u64, u64>::builder().shards(1).domain(Domain::new());
        let builder = builder.clock(Fused(fuse.clone(), Arc::clone(&time)));
        let registry = if let Some(age) = first { builder.max_age(age).build() } else { builder.build() };
        (0..1000).for_each(|key| drop(registry.try_insert(key, key)));
        for n in 0..20 {
            fuse.0.store(n, SeqCst);
            let _ = catch_unwind(AssertUnwindSafe(|| registry.set_max_age(Some(SECOND))));
        }
        fuse.0.store(usize::MAX, SeqCst);
        time.store(1034, SeqCst);
        assert_eq!((registry.contains_key(&1), registry.expire(usize::MAX).removed, registry.len()), (false, 1000, 0));
    }
}

#[test]
fn set_max_idle_takes_effect_if_its_clock_panics_once_but_not_twice() {
    struct Broken(Arc<AtomicUsize>, Arc<AtomicU64>);
    impl Clock for Broken {
        fn now(&self) -> Duration {
            let left = self.0.load(SeqCst);
            if left > 0 {
                self.0.store(left - 1, SeqCst);
                std::panic::resume_unwind(Box::new("planned"));
            }
            Duration::from_millis(self.1.load(SeqCst))
        }
    }
    for panics in [1, 2] {
        let (left, time) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
        let builder = Registry::<u64, u64>::builder().shards(1).domain(Domain::new());
        let registry = builder.clock(Broken(Arc::clone(&left), Arc::clone(&time))).build();
        (0..1000).for_each(|key| drop(registry.try_insert(key, key)));
        left.store(panics, SeqCst);
        assert!(catch_unwind(AssertUnwindSafe(|| registry.set_max_idle(Some(SECOND)))).is_err());
        assert_eq!(left.load(SeqCst), 0);
        time.store(2000, SeqCst);
        assert_eq!(registry.expire(usize::MAX).removed, if panics == 1 { 1000 } else { 0 });
    }
}

/// After a panic of the clock, an iterator continues with the shard that it was about to enter.
#[test]
fn an_iterator_finds_no_expired_entry_after_its_clock_has_panicked() {
    #[derive(Clone, Default)]
    struct Unreliable(Arc<AtomicU64>, Arc<AtomicBool>);

    impl Clock for Unreliable {
        fn now(&self) -> Duration {
            assert!(!self.1.swap(false, SeqCst), "planned");
            Duration::from_secs(self.0.load(SeqCst))
        }
    }

    for in_memory_order in [false, true] {
        let clock = Unreliable::default();
        let registry: Registry<u64, u64> = Registry::builder()
            .domain(Domain::new())
            .shards(1)
            .max_age(Duration::from_secs(10))
            .clock(clock.clone())
            .build();
        registry.set(1, 1);
        clock.0.store(11, SeqCst);
        let guard = registry.pin();
        let mut entries: Box<dyn Iterator<Item = u64>> = if in_memory_order {
            Box::new(guard.iter_in_memory_order().map(|entry| *entry))
        } else {
            Box::new(guard.iter().map(|entry| *entry))
        };
        clock.1.store(true, SeqCst);
        assert!(catch_unwind(AssertUnwindSafe(|| entries.next())).is_err());
        assert!(entries.eq([]), "in memory order: {in_memory_order}");
    }
}
