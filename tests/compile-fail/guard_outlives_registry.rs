use epoch_registry::Registry;

fn main() {
    let registry = Registry::<u64, u64>::new();
    let guard = registry.pin();
    drop(registry);
    assert!(guard.get(&1).is_none());
}
