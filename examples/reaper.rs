//! Reaping: removing what can be missed, a bounded number of entries at a time.

use epoch_registry::{Reaper, Registry, Scan, policy};
use std::time::Duration;

fn main() {
    let objects: Registry<u64, u64> = Registry::new();
    objects.set_many((0..1000).map(|key| (key, key)));

    // By a condition, of at most so many entries; the next call resumes where this one stopped.
    let reaped = objects.reap_if(200, |entry| *entry % 2 == 0);
    println!("examined {}, removed {}", reaped.examined, reaped.removed);
    assert!(reaped.examined >= 200 && reaped.removed > 0);

    // By age: nothing is an hour old.
    assert_eq!(objects.reap_older_than(Duration::from_secs(3600), usize::MAX).removed, 0);

    // By a policy: policies combine. Entries with handles are spared here.
    let held = objects.lookup(&1).unwrap();
    let policy =
        policy::unless_held(policy::when(|candidate: &policy::Candidate<'_, u64, u64>| *candidate.entry() < 100));
    let reaped = objects.reap_by(&policy, &mut Scan::new(usize::MAX));
    assert!(reaped.skipped <= 1 && objects.contains_key(held.key()));
    println!("removed {} below 100, but not the one with a handle", reaped.removed);

    // The same interface that memory pressure uses (feature `pressure`): the kernel's shrinker. Second chance: the first scan
    // of an entry takes its mark of use away, and the second removes it.
    let before = Reaper::count(&objects);
    let removed: usize = (0..20).map(|_| Reaper::scan(&objects, &mut Scan::new(100)).removed).sum();
    println!("{before} entries before 20 scans of 100, {} after", objects.len());
    assert!(removed > 0 && objects.len() == before - removed);
}
