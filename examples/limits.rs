//! Limits on what waits to be destroyed: they hold whatever readers do.

use epoch_registry::{BacklogFull, Domain, Registry, WhenFull};

fn main() {
    let domain = Domain::builder().backlog_objects(100).when_full(WhenFull::Refuse).build();
    let registry: Registry<u64, [u8; 1024]> = Registry::builder().domain(domain.clone()).build();
    registry.set_many((0..1000).map(|key| (key, [0; 1024])));

    // A reader that stays in its critical section keeps everything that is removed from now on from being destroyed.
    let reading = domain.pin();
    let refused = (0..1000).find(|key| registry.fallible().remove(key) == Err(BacklogFull(())));
    println!("removal {} was refused; waiting: {}", refused.unwrap(), domain.backlog());
    assert!(domain.backlog().objects <= 100);

    // When the reader leaves, there is room again.
    drop(reading);
    domain.barrier();
    assert!(registry.fallible().remove(&999).is_ok());
    println!("waiting after the reader has left: {}", domain.backlog());
}
