use epoch_registry::Registry;

fn main() {
    let registry = Registry::<u64, u64>::new();
    let guard = registry.pin();
    std::thread::scope(|scope| {
        scope.spawn(|| guard.contains_key(&1));
    });
}
