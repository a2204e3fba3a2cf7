use epoch_registry::{Domain, PercpuRef};

fn main() {
    let references = PercpuRef::new(&Domain::new());
    let reference = references.try_get_live();
    drop(references);
    drop(reference);
}
