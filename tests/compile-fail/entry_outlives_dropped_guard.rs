use epoch_registry::Registry;

fn main() {
    let registry = Registry::<u64, u64>::new();
    let guard = registry.pin();
    let value: Option<&u64> = guard.get(&1).map(|entry| entry.value());
    drop(guard);
    assert!(value.is_some());
}
