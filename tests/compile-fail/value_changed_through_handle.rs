use epoch_registry::Registry;

fn main() {
    let registry = Registry::new();
    #[allow(unused_mut)]
    let mut handle = registry.insert_and_get(1, 1);
    *handle += 1;
}
