use epoch_registry::Domain;

fn main() {
    let domain = Domain::new();
    let guard = domain.pin();
    drop(domain);
    drop(guard);
}
