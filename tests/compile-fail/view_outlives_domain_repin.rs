use epoch_registry::{Domain, Registry};

fn main() {
    let domain = Domain::new();
    let registry = Registry::<u64, u64>::builder().domain(domain.clone()).build();
    let mut guard = domain.pin();
    let view = registry.view(&guard).unwrap();
    guard.repin();
    assert!(view.get(&1).is_none());
}
