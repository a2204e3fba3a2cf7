//! Sessions: the fastest reads, for a thread that reads all the time.

use epoch_registry::Registry;
use std::time::Instant;

fn main() {
    let registry: Registry<u64, u64> = Registry::new();
    registry.set_many((0..1000).map(|key| (key, 2 * key)));

    // A session's reads take no lock, no fence and no atomic write. It stays on its thread.
    let mut reader = registry.reader();
    let begin = Instant::now();
    let mut sum = 0;
    for key in 0..1_000_000 {
        // Borrowed until the next read.
        sum += *reader.get(&(key % 1000)).unwrap();
    }
    println!("a million reads in {:?}", begin.elapsed());
    assert_eq!(sum, 999 * 1000 * 1000);

    // Several entries at a time: a view of the registry, for as long as the borrow lasts.
    let view = reader.view();
    assert_eq!(*view.get(&1).unwrap() + *view.get(&2).unwrap(), 6);

    // Before the thread blocks, it takes the session offline, so that reclamation does not wait for it.
    reader.offline(|| std::thread::sleep(std::time::Duration::from_millis(1)));
    assert!(reader.lookup(&7).is_some());
}
