use epoch_registry::{Domain, PercpuRef};
use std::rc::Rc;

fn main() {
    let count = Rc::new(1);
    let _references = PercpuRef::with_release(&Domain::new(), move || drop(Rc::clone(&count)));
}
