//! Isolated domains: a slow reader of one registry holds up no other. One pin of a shared domain serves several registries.

use epoch_registry::{Domain, Registry};
use std::time::Duration;

fn main() {
    let (slow, fast) = (Domain::builder().name("slow").build(), Domain::builder().name("fast").build());
    let reports: Registry<u64, String> = Registry::builder().domain(slow.clone()).build();
    let flows: Registry<u64, String> = Registry::builder().domain(fast.clone()).build();
    reports.set(1, "a long report".to_string());
    flows.set(1, "a flow".to_string());

    // A reader stays in a critical section of the slow domain.
    let guard = reports.pin();
    let report = guard.get(&1).unwrap();

    // Grace periods of the fast domain do not wait for it.
    flows.delete(&1);
    fast.barrier();
    assert!(!slow.poll_timeout(slow.start_poll(), Duration::from_millis(10)), "the reader is still there");
    println!("{}: {} waiting; {}: the reader of {:?} stays", fast.name(), fast.backlog().objects, slow.name(), *report);
    drop(guard);

    // Registries that share a domain share a pin, and an entry of one can lead to the other.
    let users: Registry<u64, u64> = Registry::builder().domain(fast.clone()).build();
    let groups: Registry<u64, &str> = Registry::builder().domain(fast.clone()).build();
    users.set(1, 10);
    groups.set(10, "staff");
    let guard = fast.pin();
    let (users, groups) = (users.view(&guard).unwrap(), groups.view(&guard).unwrap());
    let group = users.get(&1).unwrap();
    println!("user 1 is in the group {:?}", *groups.get(&*group).unwrap());
}
