#![allow(unused_mut)]

use epoch_registry::Registry;

fn main() {
    let registry = Registry::<u64, u64>::new();
    let guard = registry.pin();
    if let Some(mut entry) = guard.get(&1) {
        *entry = 2;
    }
}
