use epoch_registry::Registry;

fn main() {
    let registry = Registry::<u64, u64>::new();
    let entry = registry.with(&1, |entry| entry);
    assert!(entry.is_none());
}
