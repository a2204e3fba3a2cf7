//! Ages of every size, with clocks that have run for any time. No time overflows.

use epoch_registry::{Candidate, Clock, Domain, Registry, Scan, Verdict, policy};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const NANO: Duration = Duration::from_nanos(1);
const DAY: Duration = Duration::from_secs(24 * 3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// A clock that can show any time.
#[derive(Clone, Default)]
struct Any(Arc<Mutex<Duration>>);

impl Clock for Any {
    fn now(&self) -> Duration {
        *self.0.lock().unwrap()
    }
}

impl Any {
    fn at(now: Duration) -> Any {
        Any(Arc::new(Mutex::new(now)))
    }

    fn set(&self, now: Duration) {
        *self.0.lock().unwrap() = now;
    }
}

fn nanos(nanos: u128) -> Duration {
    Duration::new((nanos / 1_000_000_000) as u64, (nanos % 1_000_000_000) as u32)
}

/// Times at which something could overflow: 2^24 ns, 2^32 and 2^40 times that, 2^64 ns, and others.
fn uptimes() -> Vec<Duration> {
    let mut all = vec![Duration::ZERO, Duration::MAX - 2 * YEAR, DAY, 600 * YEAR];
    for bit in [24, 31, 32, 55, 56, 57, 58, 62, 63, 64, 65, 80, 93] {
        for before in [Duration::ZERO, NANO, Duration::from_secs(30), 20 * Duration::from_secs(60), 500 * DAY] {
            all.push(nanos(1 << bit).saturating_sub(before));
        }
    }
    all
}

fn ages() -> Vec<Duration> {
    let secs = Duration::from_secs;
    vec![
        Duration::ZERO,
        NANO,
        Duration::from_millis(50),
        secs(50),
        417 * DAY,
        418 * DAY,
        835 * DAY,
        5 * YEAR,
        300 * YEAR,
        600 * YEAR,
        1_000_000 * YEAR,
        Duration::MAX,
    ]
}

/// How late an entry of this age may expire. In the first 4.5 years it does not expire late. After that it may be late
/// by 2^-54 of its age.
fn late(run: Duration) -> Duration {
    NANO + nanos(run.as_nanos() >> 54)
}

fn builder(clock: &Any) -> epoch_registry::Builder<u64, u64> {
    Registry::builder().shards(1).domain(Domain::new()).clock(clock.clone())
}

#[test]
fn any_age_ends_in_time_at_any_uptime() {
    for way in ["max_age", "lifetime", "set_max_age"] {
        for start in uptimes() {
            for age in ages() {
                let clock = Any::at(start);
                let registry = match way {
                    "max_age" => builder(&clock).max_age(age).build(),
                    "lifetime" => builder(&clock).lifetime(move |_, _| Some(age)).build(),
                    _ => {
                        let registry = builder(&clock).max_age(Duration::MAX).build();
                        registry.set_max_age(Some(age));
                        registry
                    }
                };
                let case = format!("{way}: {age:?} from {start:?}");
                registry.try_insert(1, 1).unwrap();
                let Some(end) = start.checked_add(age) else {
                    clock.set(Duration::MAX);
                    assert!(registry.contains_key(&1), "{case}: the entry expired, although its time never comes");
                    assert_eq!(
                        registry.expire(10).removed,
                        0,
                        "{case}: the entry was reaped, although its time never comes"
                    );
                    continue;
                };
                clock.set(end);
                assert!(registry.contains_key(&1), "{case}: too early");
                assert_eq!(registry.expire(10).removed, 0, "{case}: too early");
                let Some(end) = end.checked_add(late(age)) else { continue };
                clock.set(end);
                assert!(!registry.contains_key(&1), "{case}: too late");
                assert_eq!(registry.expire(10).removed, 1, "{case}: too late");
            }
        }
    }
}

#[test]
fn any_idleness_ends_in_time_at_any_uptime() {
    for start in uptimes() {
        for time in ages() {
            let clock = Any::at(start);
            let registry = builder(&clock).max_idle(time).build();
            let case = format!("{time:?} from {start:?}");
            registry.try_insert(1, 1).unwrap();
            registry.try_insert(2, 2).unwrap();
            let Some(end) = start.checked_add(time) else {
                clock.set(Duration::MAX);
                assert!(registry.contains_key(&1), "{case}: the entry expired, although its time never comes");
                continue;
            };
            // A use just before the end.
            clock.set(end);
            assert!(registry.contains_key(&1), "{case}: too early");
            let Some(second) = end.checked_add(time) else { continue };
            clock.set(second);
            assert!(registry.contains_key(&1), "{case}: the use did not count");
            let Some(end) = second.checked_add(time / 16 + time).and_then(|end| end.checked_add(late(4 * time) * 2))
            else {
                continue;
            };
            clock.set(end);
            assert!(!registry.contains_key(&1) && !registry.contains_key(&2), "{case}: too late");
            assert_eq!((registry.expire(10).removed, registry.len()), (2, 0), "{case}: too late");
        }
    }
}

/// In registries without limits, ages are exact to 34 ms in the first 4.5 years. In others they are exact.
#[test]
fn policies_and_reap_older_than_know_any_age_at_any_uptime() {
    const TICK: Duration = Duration::from_nanos(1 << 25);
    for limited in [false, true] {
        for start in uptimes() {
            for age in ages() {
                let clock = Any::at(start);
                let registry = builder(&clock);
                let registry = if limited {
                    registry.max_age(Duration::MAX).max_idle(age.saturating_mul(4)).build()
                } else {
                    registry.build()
                };
                let case = format!("{age:?} from {start:?}, {limited}");
                registry.try_insert(1, 1).unwrap();
                let is_idle = policy::idle_for::<u64, u64>(age);
                let none = |registry: &Registry<u64, u64>| {
                    registry.reap_older_than(age, 100).removed == 0
                        && registry.reap_by(&policy::older_than(age), &mut Scan::new(100)).removed == 0
                        && registry.reap_by(&is_idle, &mut Scan::new(100)).removed == 0
                };
                assert!(none(&registry), "{case}: at once");
                clock.set(start.saturating_add(age));
                assert!(none(&registry), "{case}: too early");
                let see = |lowest: Duration, highest: Duration| {
                    let policy = |candidate: &Candidate<'_, u64, u64>| {
                        let told = candidate.age();
                        assert!(told >= lowest && told <= highest, "{case}: {told:?} of {lowest:?} to {highest:?}");
                        assert!(candidate.idle() <= highest, "{case}: idle for {:?}", candidate.idle());
                        assert!(limited || candidate.idle() == Duration::ZERO);
                        Verdict::Keep
                    };
                    registry.reap_by(&policy, &mut Scan::new(100));
                };
                let passed = start.saturating_add(age) - start;
                let coarse = if limited { 2 * late(passed) } else { TICK + nanos(passed.as_nanos() >> 30) };
                see(passed.saturating_sub(coarse), passed);
                let Some(end) = start.checked_add(age).and_then(|end| end.checked_add(coarse + NANO)) else { continue };
                clock.set(end);
                if limited && age.is_zero() {
                    // The entry has expired.
                    continue;
                }
                assert_eq!(registry.reap_older_than(age, 100).removed, 1, "{case}: too late");
            }
        }
    }
}

#[test]
fn a_policy_of_idleness_works_at_any_uptime() {
    for start in uptimes().into_iter().filter(|start| start.checked_add(700 * YEAR).is_some()) {
        for time in [Duration::from_secs(50), 417 * DAY, 600 * YEAR] {
            let clock = Any::at(start);
            let registry = builder(&clock).max_idle(4 * time).build();
            registry.try_insert(1, 1).unwrap();
            let is_idle = policy::idle_for::<u64, u64>(time);
            clock.set(start + time);
            assert_eq!(registry.reap_by(&is_idle, &mut Scan::new(100)).removed, 0, "{time:?} from {start:?}");
            // The idle time is exact to a sixteenth of the limit.
            clock.set(start + time + time / 4 + late(2 * time) * 2);
            assert_eq!(registry.reap_by(&is_idle, &mut Scan::new(100)).removed, 1, "{time:?} from {start:?}");
        }
    }
}

#[test]
fn a_clock_that_jumps_by_years_expires_exactly_what_is_past_its_time() {
    for jump in [YEAR, 3 * YEAR, 50 * YEAR, 584 * YEAR, 585 * YEAR, 2000 * YEAR] {
        let clock = Any::at(DAY);
        let registry = builder(&clock).lifetime(|key, _| Some(*key as u32 * YEAR)).max_idle(1500 * YEAR).build();
        let years = [1, 2, 4, 49, 51, 583, 585, 1000, 3000];
        years.iter().for_each(|&key| drop(registry.try_insert(key, key).unwrap()));
        let now = DAY + jump + Duration::from_secs(1);
        clock.set(now);
        for key in years {
            let there = key as u32 * YEAR > jump && jump < 1500 * YEAR;
            assert_eq!(registry.contains_key(&key), there, "{key} years, {jump:?}");
        }
        // After the jump, the registry works as before.
        registry.try_insert(0, 0).unwrap();
        registry.try_insert(10_000, 0).unwrap();
        clock.set(now + Duration::from_micros(10));
        assert!(!registry.contains_key(&0) && registry.contains_key(&10_000));
        registry.set_max_age(Some(Duration::from_secs(50)));
        clock.set(now + Duration::from_secs(50));
        assert!(registry.contains_key(&10_000));
        clock.set(now + Duration::from_secs(51));
        assert!(!registry.contains_key(&10_000));
        registry.expire(100);
        assert!(registry.is_empty());
    }
}

#[test]
fn a_clock_that_is_behind_for_another_thread_expires_nothing_early() {
    for start in uptimes() {
        let clock = Any::at(start);
        let registry = builder(&clock).max_age(Duration::from_secs(50)).max_idle(Duration::from_secs(50)).build();
        registry.try_insert(1, 1).unwrap();
        clock.set(start.saturating_sub(Duration::from_secs(1)));
        assert!(registry.contains_key(&1), "{start:?}");
        registry.try_insert(2, 2).unwrap();
        registry.reap_older_than(Duration::from_secs(1), 100);
        registry.expire(100);
        assert_eq!(registry.len(), 2, "{start:?}");
    }
}
