use epoch_registry::Registry;

fn main() {
    let registry = Registry::<u64, u64>::new();
    let guard = registry.pin();
    let iter = guard.iter();
    drop(guard);
    assert_eq!(iter.count(), 0);
}
