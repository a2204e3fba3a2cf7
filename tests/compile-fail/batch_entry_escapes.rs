use epoch_registry::Registry;

fn main() {
    let registry = Registry::<u64, u64>::new();
    let mut kept = None;
    registry.pin().get_batch(&[1], |_, entry| kept = entry);
    assert!(kept.is_none());
}
