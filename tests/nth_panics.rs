//! In every operation, the user's code panics at its first call, then at its second, and so on. After each panic all
//! counts are exact.

mod common;

use common::*;
use epoch_registry::*;
use std::cell::Cell;
use std::hash::{BuildHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// A kind of user code that an operation calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Hasher,
    Hash,
    Eq,
    Clone,
    Weigher,
    Lifetime,
    Clock,
    Listener,
    /// A closure that the caller passes to an operation: a condition, a function that makes a value, or a visitor of
    /// entries.
    Closure,
    Policy,
}

const PLACES: [Place; 10] = [
    Place::Hasher,
    Place::Hash,
    Place::Eq,
    Place::Clone,
    Place::Weigher,
    Place::Lifetime,
    Place::Clock,
    Place::Listener,
    Place::Closure,
    Place::Policy,
];

thread_local! {
    /// The planned panic: in which user code, and after how many calls.
    static PLANNED: Cell<Option<(Place, u32)>> = const { Cell::new(None) };
}

/// Runs at each call of the user's code. Panics if the planned panic is due.
fn called(place: Place) {
    match PLANNED.get() {
        Some((planned, 0)) if planned == place => {
            PLANNED.set(None);
            panic!("planned");
        }
        Some((planned, calls)) if planned == place => PLANNED.set(Some((place, calls - 1))),
        _ => {}
    }
}

/// Runs `f` with a panic planned. Returns whether the panic happened.
fn with_panic(place: Place, calls: u32, f: impl FnOnce()) -> bool {
    PLANNED.set(Some((place, calls)));
    // Some panics are contained and counted by the registry. They do not reach the caller.
    let result = catch_unwind(AssertUnwindSafe(f));
    if let Err(payload) = result {
        let message = payload.downcast_ref::<&str>().copied();
        assert_eq!(message, Some("planned"), "the panic is not the planned one");
    }
    PLANNED.take().is_none()
}

/// A key that counts its copies and their drops.
struct Key(u64, Counted, Ledger);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        called(Place::Hash);
        self.0.hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        called(Place::Eq);
        assert_eq!((self.1.get(), other.1.get()), (self.0, other.0));
        self.0 == other.0
    }
}

impl Eq for Key {}

impl Clone for Key {
    fn clone(&self) -> Self {
        called(Place::Clone);
        Key(self.0, self.2.value(self.0), self.2.clone())
    }
}

/// A hasher with so many collisions that lookups often compare keys.
struct Colliding;

impl BuildHasher for Colliding {
    type Hasher = FewBitsHasher;

    fn build_hasher(&self) -> FewBitsHasher {
        called(Place::Hasher);
        FewBits { mask: 3 << 40 | 0xffff_000f }.build_hasher()
    }
}

struct Manual(ManualClock);

impl Clock for Manual {
    fn now(&self) -> Duration {
        called(Place::Clock);
        self.0.now()
    }
}

struct Evens;

impl Policy<Key, Counted> for Evens {
    fn judge(&self, candidate: &Candidate<'_, Key, Counted>) -> Verdict {
        called(Place::Policy);
        if candidate.entry().key().0 % 2 == 0 { Verdict::Remove } else { Verdict::Rotate }
    }
}

type Table = Registry<Key, Counted, Colliding>;

/// A registry whose user code may panic everywhere, and ledgers of its keys and values.
struct Stage {
    registry: Table,
    clock: ManualClock,
    keys: Ledger,
    values: Ledger,
    /// The weight of one entry.
    weight: u64,
}

/// The number of entries at the beginning.
const ENTRIES: u64 = 12;

impl Stage {
    fn new(domain: Domain) -> Self {
        let clock = ManualClock::new();
        let registry = Registry::builder()
            .shards(1)
            .domain(domain)
            .max_entries(ENTRIES as usize + 1)
            .max_age(Duration::from_secs(60))
            .clock(Manual(clock.clone()))
            .weigher(|_, _| {
                called(Place::Weigher);
                100
            })
            .lifetime(|key: &Key, _| {
                called(Place::Lifetime);
                Some(Duration::from_secs(10 + key.0))
            })
            .listener(|_, entry: Handle<Key, Counted>| {
                called(Place::Listener);
                assert_eq!(entry.get(), entry.key().0);
            })
            .hasher(Colliding)
            .build();
        let mut stage = Stage { registry, clock, keys: Ledger::new(), values: Ledger::new(), weight: 0 };
        (0..ENTRIES).for_each(|n| drop(stage.registry.try_insert(stage.key(n), stage.values.value(n))));
        stage.weight = stage.registry.weight() / ENTRIES;
        stage
    }

    fn key(&self, n: u64) -> Key {
        Key(n, self.keys.value(n), self.keys.clone())
    }

    fn value(&self, n: u64) -> Counted {
        self.values.value(n)
    }

    /// Checks that the counts are exact: all entries in the registry are counted, and all others are destroyed.
    fn is_exact(&self, what: &str) {
        let registry = &self.registry;
        registry.domain().barrier();
        let (len, stats) = (registry.len() as u64, registry.stats());
        assert_eq!((self.keys.live(), self.values.live()), (len, len), "{what}: {stats}");
        assert_eq!((stats.live, stats.backlog, stats.inserted - stats.freed), (len, 0, len), "{what}: {stats}");
        assert_eq!(registry.weight(), len * self.weight, "{what}");
        assert_eq!(stats.domain.backlog.objects, 0, "{what}: {stats}");
        // Expired entries stay in the registry until they are reaped, but reads do not find them.
        let met = registry.pin().iter().count() as u64;
        assert!(met <= len, "{what}");
        assert!(!registry.domain().in_critical_section(), "{what}");
        let found = (0..100).filter(|&n| registry.with(&self.key(n), |entry| entry.get() == n) == Some(true)).count();
        assert_eq!(found as u64, met, "{what}");
    }

    /// Checks that the registry still works normally, and that its drop destroys all entries.
    fn ends(self, what: &str) {
        let Stage { registry, clock, .. } = &self;
        for n in 0..30 {
            drop(registry.insert(self.key(n), self.value(n)));
            assert!(registry.update(&self.key(n), |_, value| self.value(value.get())).is_some(), "{what}");
        }
        self.is_exact(what);
        assert_eq!(registry.len() as u64, ENTRIES + 1, "{what}");
        // Each entry still has a timer.
        clock.advance(Duration::from_secs(3600));
        registry.expire(usize::MAX);
        assert_eq!(registry.len(), 0, "{what}: expired entries were not reaped");
        (0..ENTRIES).for_each(|n| drop(registry.try_insert(self.key(n), self.value(n))));
        let Stage { registry, keys, values, .. } = self;
        drop(registry);
        assert_eq!((keys.live(), values.live()), (0, 0), "{what}");
    }
}

type Operation = (&'static str, fn(&Stage));

/// Runs in the closure of an operation. Returns `result`, unless the planned panic is due.
fn closure<T>(result: T) -> T {
    called(Place::Closure);
    result
}

const WRITES: [Operation; 16] = [
    ("try_insert", |stage| drop(stage.registry.try_insert(stage.key(50), stage.value(50)))),
    ("insert of a key that is taken", |stage| drop(stage.registry.try_insert(stage.key(5), stage.value(5)))),
    ("inserts that evict", |stage| {
        (50..53).for_each(|n| drop(stage.registry.try_insert(stage.key(n), stage.value(n))));
    }),
    ("insert", |stage| drop(stage.registry.insert(stage.key(5), stage.value(5)))),
    ("replace of nothing", |stage| drop(stage.registry.insert(stage.key(50), stage.value(50)))),
    ("fallible insert", |stage| drop(stage.registry.fallible().insert(stage.key(5), stage.value(5)))),
    ("update", |stage| drop(stage.registry.update(&stage.key(5), |_, _| closure(stage.value(5))))),
    ("fallible update", |stage| drop(stage.registry.fallible().update(&stage.key(5), |_, _| closure(stage.value(5))))),
    ("get_or_insert_with", |stage| {
        drop(stage.registry.get_or_insert_with(stage.key(50), || closure(stage.value(50))));
    }),
    ("get_or_insert_with of a key that is taken", |stage| {
        drop(stage.registry.get_or_insert_with(stage.key(5), || closure(stage.value(5))));
    }),
    ("replace_handle", |stage| {
        let entry = stage.registry.lookup(&stage.key(5)).unwrap();
        drop(stage.registry.replace_handle(&entry, stage.value(5)));
    }),
    ("remove", |stage| drop(stage.registry.remove(&stage.key(5)))),
    ("fallible remove", |stage| drop(stage.registry.fallible().remove(&stage.key(5)))),
    ("remove_if", |stage| drop(stage.registry.remove_if(&stage.key(5), |_, _| closure(true)))),
    ("fallible remove_if", |stage| drop(stage.registry.fallible().remove_if(&stage.key(5), |_, _| closure(true)))),
    ("remove_handle", |stage| {
        let entry = stage.registry.lookup(&stage.key(5)).unwrap();
        stage.registry.remove_handle(&entry);
    }),
];

const SWEEPS: [Operation; 18] = [
    ("retain", |stage| stage.registry.retain(|key, _| closure(key.0 % 2 == 0))),
    ("fallible retain", |stage| {
        let _ = stage.registry.fallible().retain(&mut Cursor::new(), |key, _| closure(key.0 % 2 == 0));
    }),
    ("drain", |stage| stage.registry.drain().for_each(|entry| assert_eq!(closure(entry.get()), entry.key().0))),
    ("reap_if", |stage| {
        stage.registry.reap_if(usize::MAX, |entry| closure(entry.key().0 % 2 == 0));
    }),
    ("reap_by", |stage| {
        stage.registry.reap_by(&Evens, &mut Scan::new(usize::MAX));
    }),
    ("reap_older_than", |stage| {
        stage.clock.advance(Duration::from_secs(5));
        stage.registry.reap_older_than(Duration::from_secs(1), usize::MAX);
    }),
    ("reap", |stage| {
        stage.clock.advance(Duration::from_secs(15));
        stage.registry.expire(usize::MAX);
    }),
    ("reap of everything", |stage| {
        stage.clock.advance(Duration::from_secs(3600));
        stage.registry.expire(usize::MAX);
    }),
    ("an insertion where others have expired", |stage| {
        stage.clock.advance(Duration::from_secs(15));
        drop(stage.registry.try_insert(stage.key(50), stage.value(50)));
    }),
    ("a scan under pressure", |stage| {
        (0..2).for_each(|_| assert!(!Reaper::scan(&stage.registry, &mut Scan::new(usize::MAX)).stopped));
    }),
    ("clear", |stage| stage.registry.clear()),
    ("evict", |stage| {
        stage.registry.evict(5);
    }),
    ("set_max_entries", |stage| {
        stage.registry.set_max_entries(Some(3));
        stage.registry.set_max_entries(Some(ENTRIES as usize + 1));
    }),
    ("set_max_age", |stage| stage.registry.set_max_age(Some(Duration::from_secs(5)))),
    ("set_max_idle", |stage| stage.registry.set_max_idle(Some(Duration::from_secs(5)))),
    ("reserve and shrink_to_fit", |stage| {
        stage.registry.reserve(1000);
        (0..ENTRIES).for_each(|n| drop(stage.registry.insert(stage.key(n), stage.value(n))));
        stage.registry.shrink_to_fit();
    }),
    ("scan", |stage| {
        stage.registry.scan(&mut Cursor::new(), usize::MAX, |entry| assert!(closure(entry.get()) < 100));
    }),
    ("reads", |stage| {
        let (key, guard) = (stage.key(5), stage.registry.pin());
        assert!(guard.get(&key).is_some() && guard.lookup_many([&key, &key])[1].is_some());
        guard.get_batch([&key, &key], |_, entry| assert!(closure(entry).is_some()));
        guard.lookup_batch([&key, &key], |_, entry| assert!(closure(entry).is_some()));
        assert_eq!(stage.registry.with(&key, |entry| closure(entry.get())), Some(5));
        assert_eq!(stage.registry.reader().lookup(&key).map(|entry| entry.get()), Some(5));
    }),
];

/// Makes each kind of user code panic at every call, in every operation.
fn nth_panics_are_contained(operations: &[Operation], domain: impl Fn() -> Domain) {
    in_time(|| {
        std::panic::set_hook(Box::new(quiet(std::panic::take_hook())));
        let mut panics = 0;
        for (name, operation) in operations {
            for place in PLACES {
                for calls in 0.. {
                    let what = format!("{name}, {place:?}, after {calls} calls");
                    let stage = Stage::new(domain());
                    let panicked = with_panic(place, calls, || operation(&stage));
                    stage.is_exact(&what);
                    stage.ends(&what);
                    if !panicked {
                        break;
                    }
                    assert!(calls < 500, "{what}: the calls do not end");
                    panics += 1;
                }
            }
        }
        println!("{panics} panics");
        assert!(panics as usize > 3 * operations.len());
    });
}

/// A panic hook that hides the planned panics.
fn quiet(hook: Box<dyn Fn(&std::panic::PanicHookInfo<'_>) + Send + Sync>) -> impl Fn(&std::panic::PanicHookInfo<'_>) {
    move |info| {
        if info.payload().downcast_ref::<&str>() != Some(&"planned") {
            hook(info);
        }
    }
}

#[test]
fn a_panic_at_any_call_in_a_write_leaves_the_accounts_exact() {
    nth_panics_are_contained(&WRITES, Domain::new);
}

#[test]
fn a_panic_at_any_call_in_a_sweep_leaves_the_accounts_exact() {
    nth_panics_are_contained(&SWEEPS, Domain::new);
}

/// The domain has a limit, so each place counts. A panic loses none.
#[test]
fn a_panic_at_any_call_loses_no_place_in_the_backlog() {
    let limited = || Domain::builder().backlog_objects(64).backlog_bytes(1 << 20).build();
    nth_panics_are_contained(&WRITES, limited);
    nth_panics_are_contained(&SWEEPS, limited);
}
