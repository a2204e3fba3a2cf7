//! Reclamation when the program wants it: grace periods, callbacks, and a barrier after which everything is dropped.

use epoch_registry::{Domain, Registry};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts its drops.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        // ORDERING: Relaxed, a count; the barrier orders it.
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn main() {
    let domain = Domain::new();
    let registry = Registry::builder().domain(domain.clone()).build();
    let drops = Arc::new(AtomicUsize::new(0));
    for key in 0..1000 {
        registry.set(key, Counted(Arc::clone(&drops)));
    }
    registry.clear();

    // Waits until everything that was removed before is destroyed, and helps.
    domain.barrier();
    assert_eq!(drops.load(Ordering::Relaxed), 1000);
    println!("all 1000 values are dropped");

    // A callback runs after a grace period: when every reader that is in a critical section now has left it.
    let (send, called) = std::sync::mpsc::channel();
    domain.call(move || send.send("no reader can be here any more").unwrap());
    domain.barrier();
    println!("{}", called.recv().unwrap());

    // A grace period can be polled, instead of waited for.
    let cookie = domain.start_poll();
    while !domain.poll(cookie) {
        std::thread::yield_now();
    }
    domain.synchronize();
}
