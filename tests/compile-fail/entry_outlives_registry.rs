use epoch_registry::{Domain, Registry};

fn main() {
    let domain = Domain::new();
    let registry = Registry::<u64, u64>::builder().domain(domain.clone()).build();
    let guard = domain.pin();
    let view = registry.view(&guard).unwrap();
    let entry = view.get(&1);
    drop(registry);
    assert!(entry.is_none());
}
