//! Table memory and capacities.

mod common;

use common::*;
use epoch_registry::Registry;

#[test]
fn shrink_to_fit_gives_back_what_an_empty_registry_does_not_need() {
    let registry: Registry<u64, u64> = isolated_builder().capacity(1_000_000).build();
    let smallest = isolated::<u64, u64>().table_bytes();
    registry.shrink_to_fit();
    assert!(registry.table_bytes() <= 4 * smallest, "{} left", registry.table_bytes());
}

#[test]
fn a_capacity_beyond_the_address_space_panics() {
    within_a_minute(|| {
        for capacity in [usize::MAX, usize::MAX / 2, usize::MAX / 16] {
            let registry: Registry<u64, u64> = isolated();
            panic_of(|| registry.reserve(capacity));
            panic_of(|| isolated_builder::<u64, u64>().capacity(capacity).build());
            // The refused request leaves the registry as it was.
            registry.insert(1, 1).unwrap();
            registry.clear();
            assert!(registry.is_empty());
        }
    });
}
