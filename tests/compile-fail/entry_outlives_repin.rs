use epoch_registry::Registry;

fn main() {
    let registry = Registry::<u64, u64>::new();
    let mut guard = registry.pin();
    let entry = guard.get(&1);
    guard.repin();
    assert!(entry.is_none());
}
