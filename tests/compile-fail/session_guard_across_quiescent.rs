use epoch_registry::{Domain, Registry};

fn main() {
    let domain = Domain::new();
    let registry = Registry::<u64, u64>::builder().domain(domain.clone()).build();
    let mut session = domain.session();
    let guard = session.pin();
    session.quiescent();
    assert!(registry.view(&guard).is_ok());
}
