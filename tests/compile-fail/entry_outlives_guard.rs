use epoch_registry::Registry;

fn main() {
    let registry = Registry::<u64, u64>::new();
    let entry = registry.pin().get(&1);
    drop(entry.map(|entry| *entry));
}
