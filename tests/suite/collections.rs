//! What a registry has in common with std's collections. std's `HashMap` is the oracle.

use crate::common::*;
use epoch_registry::*;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::BuildHasher;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

fn pairs() -> impl Iterator<Item = (u64, u64)> {
    (0..1000).map(|n| (n % 700, n))
}

#[test]
fn a_registry_is_collected_and_extended_as_a_hash_map_is() {
    let mut map: HashMap<u64, u64> = pairs().collect();
    let mut registry: Registry<u64, u64> = pairs().collect();
    let same = |registry: &Registry<u64, u64>, map: &HashMap<u64, u64>| {
        let guard = registry.pin();
        let found: HashMap<u64, u64> = guard.iter().map(|entry| (*entry.key(), *entry)).collect();
        assert_eq!((&found, registry.len()), (map, map.len()));
    };
    same(&registry, &map);
    map.extend([(1, 0), (5000, 1)]);
    registry.extend([(1, 0), (5000, 1)]);
    same(&registry, &map);
    map.extend([(5001, 2)]);
    (&registry).extend([(5001, 2)]);
    same(&registry, &map);
    let pairs = [("a", 1), ("b", 2), ("a", 3)];
    let registry = Registry::from(pairs);
    assert_eq!((registry.len(), *registry.lookup("a").unwrap()), (2, 3));
    let hashed: Registry<u64, u64, std::hash::RandomState> = [(1, 2)].into_iter().collect();
    assert!(hashed.contains_key(&1));
}

#[test]
fn keys_values_and_loops_meet_what_iter_meets() {
    let registry: Registry<u64, u64> = isolated();
    registry.set_many((0..1000).map(|key| (key, 2 * key)));
    let guard = registry.pin();
    let keys: HashSet<u64> = guard.keys().copied().collect();
    let mut values = HashSet::new();
    for value in guard.values() {
        assert!(values.insert(*value));
    }
    assert!(keys.len() == 1000 && values.len() == 1000 && keys.iter().all(|key| values.contains(&(2 * key))));
    let (mut of_guard, mut of_view) = (0, 0);
    for entry in &guard {
        of_guard += *entry;
    }
    let mut reader = registry.reader();
    let view = reader.view();
    for entry in view {
        of_view += *entry;
    }
    assert_eq!((of_guard, of_view, view.values().sum::<u64>()), (999_000, 999_000, 999_000));
    assert!(isolated::<u64, u64>().pin().keys().next().is_none());
}

/// A key that counts how often it is made of a text.
#[derive(PartialEq, Eq, Hash)]
struct Name(String);

static MADE: AtomicU64 = AtomicU64::new(0);

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        MADE.fetch_add(1, SeqCst);
        Name(text.to_string())
    }
}

#[test]
fn get_or_insert_by_ref_makes_a_key_only_if_it_is_absent() {
    let names: Registry<Name, u64> = isolated();
    let first = names.get_or_insert_by_ref("ada", || 36);
    let again = names.get_or_insert_by_ref("ada", || panic!("the key is in the registry"));
    assert!(first.ptr_eq(&again) && *first == 36);
    assert_eq!((MADE.load(SeqCst), names.len()), (1, 1));
    let failed = names.get_or_try_insert_by_ref("bob", || Err("no value"));
    // A key that is absent is made before its value, because it is reserved meanwhile.
    assert_eq!((failed.unwrap_err(), MADE.load(SeqCst), names.len()), ("no value", 2, 1));
    assert_eq!(names.get_or_try_insert_by_ref("bob", || Ok::<u64, ()>(7)).map(|entry| *entry), Ok(7));
    assert_eq!(*names.lookup("bob").unwrap(), 7);
}

#[test]
fn of_many_threads_that_get_or_insert_by_ref_one_inserts() {
    for _ in 0..times(200) {
        let names: Registry<String, u64> = isolated();
        let found: Vec<_> = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..3)
                .map(|n| {
                    scope.spawn({
                        let names = &names;
                        move || names.get_or_insert_by_ref("a", || n)
                    })
                })
                .collect();
            tries.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert!(found.iter().all(|entry| entry.ptr_eq(&found[0])) && names.len() == 1);
    }
}

/// `Borrow` asks that a handle compares, orders and hashes as its value does.
#[test]
fn handles_order_and_are_found_by_value() {
    let registry: Registry<u64, String> = isolated();
    let handles: Vec<_> = (0..100).map(|key| registry.insert_and_get(key, (100 - key).to_string())).collect();
    let hasher = RandomState::new();
    for a in &handles {
        assert_eq!(hasher.hash_one(a), hasher.hash_one(a.value()));
        for b in &handles {
            let (x, y) = (a.value(), b.value());
            assert_eq!((a.cmp(b), a.partial_cmp(b), a == b), (x.cmp(y), x.partial_cmp(y), x == y));
        }
    }
    let tree: BTreeMap<_, u64> = handles.iter().map(|handle| (handle.clone(), *handle.key())).collect();
    let seven = "7".to_string();
    assert_eq!(tree.get(&seven), Some(&93));
    let set: HashSet<_> = handles.into_iter().collect();
    assert_eq!(set.get(&seven).map(|handle| *handle.key()), Some(93));
}

#[test]
fn types_name_the_default_hasher_by_themselves() {
    struct Worker<'r> {
        reader: Reader<'r, u64, u64>,
    }
    fn get(guard: &Guard<'_, u64, u64>) -> Option<u64> {
        first(guard)
    }
    fn first(view: &View<'_, u64, u64>) -> Option<u64> {
        view.get(&1).map(|entry| *entry)
    }
    static NUMBERS: LazyLock<Registry<u64, u64>> = LazyLock::new(|| {
        const HASHER: RandomState = RandomState::with_seeds(1, 2, 3, 4);
        isolated_builder().hasher(HASHER).build()
    });
    NUMBERS.set(1, 10);
    let mut worker: Worker<'static> = Worker { reader: NUMBERS.reader() };
    assert_eq!((get(&NUMBERS.pin()), worker.reader.get(&1).map(|entry| *entry)), (Some(10), Some(10)));
}
