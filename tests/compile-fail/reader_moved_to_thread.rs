use epoch_registry::Registry;

fn main() {
    let registry = Registry::<u64, u64>::new();
    let mut reader = registry.reader();
    std::thread::scope(|scope| {
        scope.spawn(move || reader.contains_key(&1));
    });
}
