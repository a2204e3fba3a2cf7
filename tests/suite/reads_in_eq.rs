//! An `Eq` may call everything on a registry and its domain that changes nothing, wherever it runs.

use crate::common::*;
use epoch_registry::{Domain, Equivalent, Registry};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

type Asked = Registry<u64, u64>;
type Read = fn(&Asked) -> String;

/// Reads of a registry, by name. They return a text that depends on what they read.
const READS: [(&str, Read); 18] = [
    ("weight", |asked| asked.weight().to_string()),
    ("max_entries", |asked| format!("{:?}", asked.max_entries())),
    ("max_weight", |asked| format!("{:?}", asked.max_weight())),
    ("len", |asked| asked.len().to_string()),
    ("is_empty", |asked| asked.is_empty().to_string()),
    ("stats", |asked| asked.stats().live.to_string()),
    ("capacity", |asked| (asked.capacity() > 0).to_string()),
    ("table_bytes", |asked| (asked.table_bytes() > 0).to_string()),
    ("Debug", |asked| format!("{asked:?}").contains("live: 10").to_string()),
    ("lookup", |asked| format!("{:?}", asked.lookup(&1).map(|entry| *entry))),
    ("contains_key", |asked| asked.contains_key(&1).to_string()),
    ("with", |asked| format!("{:?}", asked.with(&1, |entry| *entry))),
    ("pin and iter", |asked| asked.pin().iter().map(|entry| *entry).sum::<u64>().to_string()),
    ("a session", |asked| format!("{:?}", asked.reader().get(&1).map(|entry| *entry))),
    // Other writes of the domain count too.
    ("the domain's backlog", |asked| (asked.domain().backlog().objects < 1000).to_string()),
    ("the domain's stats", |asked| asked.domain().stats().callback_panics.to_string()),
    ("the domain's name", |asked| asked.domain().name().to_string()),
    ("poll", |asked| {
        let cookie = asked.domain().start_poll();
        asked.domain().poll(cookie);
        String::new()
    }),
];

/// A registry to read from, and a count of the reads.
struct Question {
    asked: Asked,
    read: Read,
    answers: std::sync::Mutex<Vec<String>>,
    asks: AtomicU64,
}

impl Question {
    fn new(domain: Domain, read: Read) -> Arc<Self> {
        let asked: Asked = Registry::builder()
            .shards(4)
            .max_entries(100)
            .max_weight(100_000)
            .weigher(|_, _| 10)
            .domain(domain)
            .build();
        (0..10).for_each(|key| drop(asked.try_insert(key, key)));
        Arc::new(Question { asked, read, answers: Default::default(), asks: AtomicU64::new(0) })
    }

    fn ask(&self) {
        let answer = (self.read)(&self.asked);
        self.answers.lock().unwrap().push(answer);
        self.asks.fetch_add(1, SeqCst);
    }
}

/// A key whose `Eq` reads.
#[derive(Clone)]
struct Asks(u64, Arc<Question>);

impl Hash for Asks {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl PartialEq for Asks {
    fn eq(&self, other: &Self) -> bool {
        self.1.ask();
        self.0 == other.0
    }
}

impl Eq for Asks {}

/// A key of another type, whose `equivalent` reads.
struct Finder(u64, Arc<Question>);

impl Hash for Finder {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl Equivalent<Asks> for Finder {
    fn equivalent(&self, key: &Asks) -> bool {
        self.1.ask();
        self.0 == key.0
    }
}

type Writes = Registry<Asks, u64>;
type Operation = fn(&Writes, &Asks);

/// Operations that compare keys, with or without a lock.
const OPERATIONS: [(&str, Operation); 11] = [
    ("try_insert", |registry, key| drop(registry.try_insert(key.clone(), 2))),
    ("insert", |registry, key| drop(registry.insert(key.clone(), 2))),
    ("fallible insert", |registry, key| drop(registry.fallible().insert(key.clone(), 2))),
    ("get_or_insert_with", |registry, key| drop(registry.get_or_insert_with(key.clone(), || 2))),
    ("update", |registry, key| drop(registry.update(key, |_, value| value + 1))),
    ("lookup", |registry, key| drop(registry.lookup(key))),
    ("lookup by another type", |registry, key| drop(registry.lookup(&Finder(key.0, Arc::clone(&key.1))))),
    ("remove_if", |registry, key| drop(registry.remove_if(key, |_, _| false))),
    ("remove", |registry, key| drop(registry.remove(key))),
    ("fallible remove", |registry, key| drop(registry.fallible().remove(key))),
    ("remove by another type", |registry, key| drop(registry.remove(&Finder(key.0, Arc::clone(&key.1))))),
];

fn reads_work_in_an_eq(same_domain: bool) {
    in_time(|| {
        for (name, read) in READS {
            let domain = Domain::new();
            let question = Question::new(if same_domain { domain.clone() } else { Domain::new() }, read);
            let registry: Writes = isolated_builder().domain(domain).build();
            let key = Asks(1, Arc::clone(&question));
            for (operation, run) in OPERATIONS {
                drop(registry.try_insert(key.clone(), 1));
                let before = question.asks.load(SeqCst);
                let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&registry, &key))).err();
                let message = panic.and_then(|payload| payload.downcast_ref::<&str>().map(ToString::to_string));
                assert_eq!(message, None, "{name} in the `Eq` of {operation}");
                assert!(question.asks.load(SeqCst) > before, "{operation} compares no keys");
            }
            let answers = question.answers.lock().unwrap();
            assert!(answers.iter().all(|answer| *answer == answers[0]), "{name}: {answers:?}");
        }
    });
}

#[test]
fn an_eq_may_read_another_registry_of_its_domain() {
    reads_work_in_an_eq(true);
}

#[test]
fn an_eq_may_read_a_registry_of_another_domain() {
    reads_work_in_an_eq(false);
}

/// A key whose `Eq` reads its own registry, while the operation may hold the registry's lock.
struct AsksItself(u64, std::sync::Weak<Own>, Figure);

type Own = Registry<AsksItself, u64>;
type Figure = fn(&Own) -> u64;

impl Hash for AsksItself {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl PartialEq for AsksItself {
    fn eq(&self, other: &Self) -> bool {
        if let Some(registry) = self.1.upgrade() {
            assert!((self.2)(&registry) > 0);
        }
        self.0 == other.0
    }
}

impl Eq for AsksItself {}

/// An `Eq` may also read from the registry whose shard is locked. A figure may be outdated, and the read does not wait
/// for its own lock.
#[test]
fn an_eq_may_read_the_figures_of_its_own_registry() {
    let reads: [(&str, Figure); 9] = [
        ("weight", |registry| registry.weight() + 1),
        ("max_entries", |registry| registry.max_entries().unwrap() as u64),
        ("max_weight", |registry| registry.max_weight().unwrap()),
        ("len", |registry| registry.len() as u64 + 1),
        ("stats", |registry| registry.stats().inserted + 1),
        ("capacity", |registry| registry.capacity() as u64),
        ("table_bytes", |registry| registry.table_bytes() as u64),
        ("the domain's backlog", |registry| registry.domain().backlog().objects + 1),
        ("the domain's stats", |registry| registry.domain().stats().grace_periods + 1),
    ];
    for (name, read) in reads {
        in_time(|| {
            let builder = isolated_builder().shards(1).max_entries(100).max_weight(100_000);
            let registry: Arc<Own> = Arc::new(builder.build());
            let key = || AsksItself(1, Arc::downgrade(&registry), read);
            assert!(registry.try_insert(key(), 1).is_ok());
            assert!(registry.try_insert(key(), 2).is_err(), "{name}");
            assert_eq!(registry.insert(key(), 3).map(|old| *old), Some(1), "{name}");
            assert_eq!(registry.lookup(&key()).map(|entry| *entry), Some(3), "{name}");
            assert_eq!(registry.remove(&key()).map(|old| *old), Some(3), "{name}");
            registry.domain().barrier();
            assert_eq!(registry.stats().freed, 2, "{name}");
        });
    }
}

/// While no thread writes, the figures are exact, and the bounds are as they were set.
#[test]
fn figures_and_bounds_are_exact_while_no_thread_writes() {
    let registry: Asked = isolated_builder().max_entries(101).max_weight(100_003).weigher(|_, _| 10).build();
    assert_eq!((registry.max_entries(), registry.max_weight(), registry.weight()), (Some(100), Some(100_000), 0));
    registry.try_insert(1, 1).unwrap();
    let one = registry.weight();
    assert!(one >= 10);
    (2..6).for_each(|key| drop(registry.try_insert(key, key)));
    assert_eq!(registry.weight(), 5 * one);
    registry.set_max_entries(None);
    registry.set_max_weight(None);
    assert_eq!((registry.max_entries(), registry.max_weight()), (None, None));
    registry.set_max_entries(Some(8));
    registry.set_max_weight(Some(one * 4));
    assert_eq!((registry.max_entries(), registry.max_weight()), (Some(8), Some(one * 4)));
    assert!(registry.weight() <= one * 4);
    registry.set_max_age(Some(Duration::from_secs(1)));
    registry.clear();
    assert_eq!((registry.weight(), registry.len()), (0, 0));
}

/// Bounds can be read without a lock while other threads write.
#[test]
fn bounds_and_weight_can_be_read_while_other_threads_change_them() {
    let (registry, stop): (Asked, _) = (isolated_builder().max_entries(100).build(), Stop::default());
    std::thread::scope(|scope| {
        let _end = stop.at_end();
        let (registry, stop) = (&registry, &stop);
        scope.spawn(move || (0..).take_while(|_| !stop.stopped()).for_each(|n| drop(registry.insert(n % 500, n))));
        scope.spawn(move || {
            for n in (0..).take_while(|_| !stop.stopped()) {
                registry.set_max_entries(Some(if n % 2 == 0 { 100 } else { 200 }));
            }
        });
        for _ in 0..times(20_000) {
            let bound = registry.max_entries().expect("a bound is set at any time");
            // The bound is set shard by shard, so it may be between the two.
            assert!((100..=200).contains(&bound), "{bound}");
            assert!(registry.weight() <= 200 * 1000 && registry.max_weight().is_none());
        }
    });
}
