use epoch_registry::Registry;

fn main() {
    let registry = Registry::<u64, u64>::new();
    let mut reader = registry.reader();
    let one = reader.get(&1);
    let two = reader.get(&2);
    assert!(one.is_none() && two.is_none());
}
