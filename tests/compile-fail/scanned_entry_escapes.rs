use epoch_registry::{Cursor, Registry};

fn main() {
    let registry = Registry::<u64, u64>::new();
    let mut kept = None;
    registry.scan(&mut Cursor::new(), 1, |entry| kept = Some(entry));
    assert!(kept.is_none());
}
