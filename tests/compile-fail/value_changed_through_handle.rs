use epoch_registry::Registry;

fn main() {
    let registry = Registry::new();
    #[allow(unused_mut)]
    let mut handle = registry.insert(1, 1).unwrap();
    *handle += 1;
}
