//! A listener: called after an entry has left the registry, outside every lock.

use epoch_registry::{Cause, Handle, Registry};
use std::sync::mpsc;

fn main() {
    let (send, departures) = mpsc::channel();
    let cache: Registry<u32, &str> = Registry::builder()
        .shards(1)
        .max_entries(2)
        .listener(move |cause, entry: Handle<u32, &str>| send.send((*entry.key(), cause)).unwrap())
        .build();

    cache.set(1, "one");
    cache.set(2, "two");
    cache.set(2, "deux"); // replaces
    cache.set(3, "three"); // evicts
    cache.delete(&3);

    let departures: Vec<(u32, Cause)> = departures.try_iter().collect();
    for (key, cause) in &departures {
        println!("{key}: {cause}");
    }
    assert_eq!(departures[0], (2, Cause::Replaced));
    assert_eq!(departures[1].1, Cause::Capacity);
    assert_eq!(departures[2], (3, Cause::Removed));
}
