//! After a barrier from any thread, the values that were created are exactly the dropped and the live ones.
//! With `STRESS=50` the tests check this 100,000 times.

use crate::common::*;
use epoch_registry::{Domain, Reader, Registry};
use std::sync::Barrier;
use std::thread;

const THREADS: usize = 4;
const KEYS: u64 = 64;

type Values = Registry<u64, Counted>;

fn write(registry: &Values, ledger: &Ledger, rng: &mut Rng) {
    let key = rng.below(KEYS);
    match rng.below(6) {
        0 | 1 => drop(registry.try_insert(key, ledger.value(key))),
        2 => drop(registry.insert(key, ledger.value(key))),
        3 => drop(registry.update(&key, |_, old| ledger.value(old.get()))),
        4 => drop(registry.remove(&key)),
        _ => drop(registry.reap_if(8, |entry| entry.get() % 3 == 0).removed),
    }
}

fn read<S: std::hash::BuildHasher>(registry: &Values, reader: &mut Reader<'_, u64, Counted, S>, rng: &mut Rng) {
    let key = rng.below(KEYS);
    assert!(reader.get(&key).is_none_or(|entry| entry.get() == key));
    let (kept, guard) = (reader.lookup(&key), registry.pin());
    assert!(guard.get(&(KEYS - 1 - key)).is_none_or(|entry| entry.get() == KEYS - 1 - key));
    drop((guard, kept));
}

/// Rounds in which all threads read and write. At the end of each round all threads stop, and one of them checks the
/// counts.
fn rounds(domain: Domain) {
    let ledger = Ledger::new();
    let registry: Values = Registry::builder().domain(domain).shards(2).build();
    let meeting = Barrier::new(THREADS);
    thread::scope(|scope| {
        for id in 0..THREADS {
            let (registry, ledger, meeting) = (&registry, &ledger, &meeting);
            scope.spawn(move || {
                let mut rng = Rng::new(id as u64 + 1);
                let mut reader = registry.reader();
                for round in 0..times(2000) {
                    (0..4).for_each(|_| write(registry, ledger, &mut rng));
                    read(registry, &mut reader, &mut rng);
                    reader.offline(|| {
                        if rng.below(16) == 0 {
                            // A short-lived thread writes, and leaves retired nodes behind.
                            let mut rng = Rng::new(rng.below(1000));
                            thread::scope(|inner| {
                                inner.spawn(move || write(registry, ledger, &mut rng)).join().unwrap()
                            });
                        }
                        meeting.wait();
                        if round % THREADS == id {
                            registry.domain().barrier();
                            let (live, stats) = (registry.len() as u64, registry.stats());
                            assert_eq!(ledger.live(), live, "round {round}: {stats}");
                            assert_eq!(stats.inserted, stats.freed + stats.live, "round {round}: {stats}");
                            assert_eq!(stats.domain.backlog.objects, 0, "round {round}: {stats}");
                        }
                        meeting.wait();
                    });
                }
            });
        }
    });
}

#[test]
fn created_is_dropped_plus_live_after_a_barrier_from_any_thread() {
    in_time(|| rounds(Domain::new()));
}

#[test]
fn created_is_dropped_plus_live_with_a_reclaimer_thread_and_a_limit() {
    in_time(|| rounds(Domain::builder().reclaimer(true).backlog_objects(20).build()));
}
