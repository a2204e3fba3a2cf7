use epoch_registry::Registry;

async fn read(registry: &Registry<u64, u64>) -> bool {
    let guard = registry.pin();
    std::future::ready(()).await;
    guard.contains_key(&1)
}

fn spawn(_: impl Future + Send) {}

fn main() {
    let registry = Registry::<u64, u64>::new();
    spawn(read(&registry));
}
