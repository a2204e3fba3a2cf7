use epoch_registry::{Domain, PercpuRef};

fn main() {
    let domain = Domain::new();
    let references = PercpuRef::new(&domain);
    let guard = domain.pin();
    let section = &guard;
    drop(guard);
    references.get_in(section);
}
