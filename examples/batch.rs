//! Batches: many keys in one call. Their cache misses overlap, which counts in registries larger than the cache.

use epoch_registry::Registry;

fn main() {
    let registry: Registry<u64, u64> = Registry::with_capacity(100_000);
    assert_eq!(registry.set_many((0..100_000).map(|key| (key, key * key))), 0);

    let guard = registry.pin();
    let keys = [3, 5, 1_000_000];

    // A fixed number of keys: an array of results.
    let [three, five, none] = guard.get_many([&keys[0], &keys[1], &keys[2]]);
    assert_eq!((three.map(|entry| *entry), five.map(|entry| *entry), none.is_none()), (Some(9), Some(25), true));

    // Any number: a closure for each key, in order.
    let mut found = 0;
    guard.get_batch(&keys, |_, entry| found += usize::from(entry.is_some()));
    println!("{found} of {} keys found", keys.len());
    assert_eq!(found, 2);

    let removed = registry.delete_many((0..50_000).collect::<Vec<u64>>().iter());
    assert_eq!((removed, registry.len()), (50_000, 50_000));
    println!("{removed} entries removed in one call");
}
