use epoch_registry::Registry;

fn main() {
    let registry = Registry::<u64, u64>::new();
    let mut reader = registry.reader();
    let one = reader.get(&1);
    reader.quiescent();
    assert!(one.is_none());
}
