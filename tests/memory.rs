//! Memory of tables that is freed, and capacities that are too large.

mod common;

use common::*;
use epoch_registry::Registry;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

#[test]
fn shrink_to_fit_frees_what_an_empty_registry_does_not_need() {
    let registry: Registry<u64, u64> = isolated_builder().capacity(1_000_000).build();
    let smallest = isolated::<u64, u64>().table_bytes();
    registry.shrink_to_fit();
    assert!(registry.table_bytes() <= 4 * smallest, "{} left", registry.table_bytes());
}

#[test]
fn a_sweep_that_empties_a_registry_frees_its_tables() {
    let registry: Registry<u64, u64> = isolated();
    let smallest = registry.table_bytes();
    let sweeps: [&dyn Fn(); 3] =
        [&|| registry.retain(|_, _| false), &|| assert_eq!(registry.drain().count(), 50_000), &|| {
            assert_eq!(registry.reap_if(usize::MAX, |_| true).removed, 50_000)
        }];
    for sweep in sweeps {
        (0..50_000).for_each(|key| drop(registry.try_insert(key, key)));
        sweep();
        assert!(registry.is_empty());
        assert!(registry.table_bytes() <= 16 * smallest, "{} left, of {smallest}", registry.table_bytes());
    }
}

/// The least capacity of the tests that is beyond the address space, for any number of bytes an entry.
const BEYOND: usize = usize::MAX / if usize::BITS == 64 { 8 } else { 2 };

/// std's collections do the same.
#[test]
fn a_capacity_beyond_the_address_space_panics() {
    for capacity in [usize::MAX, usize::MAX / 2, BEYOND] {
        for build in [true, false] {
            let (done, result) = channel();
            thread::spawn(move || {
                let message = panic_of(|| match build {
                    true => drop(isolated_builder::<u64, u64>().capacity(capacity).build()),
                    false => isolated::<u64, u64>().reserve(capacity),
                });
                done.send(message).unwrap();
            });
            assert!(
                result.recv_timeout(Duration::from_secs(5)).is_ok(),
                "the call with capacity {capacity:x} did not return"
            );
        }
    }
}

#[test]
fn a_reserve_that_panics_leaves_the_registry_unchanged() {
    let registry: Registry<u64, u64> = isolated();
    (0..100).for_each(|key| drop(registry.try_insert(key, key)));
    panic_of(|| registry.reserve(BEYOND));
    assert!((0..100).all(|key| registry.contains_key(&key)));
    registry.clear();
    assert!(registry.is_empty());
    assert!((0..1000).all(|key| registry.try_insert(key, key).is_ok()));
}
