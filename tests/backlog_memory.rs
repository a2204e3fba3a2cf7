//! The limit of the backlog, checked against real memory. The test reads the resident size of its process, so it has a
//! process of its own. Linux only.

#![cfg(target_os = "linux")]

mod common;

use common::{Stop, in_time, times};
use epoch_registry::{Domain, Registry, WhenFull};
use std::thread;
use std::time::Duration;

const MIB: usize = 1 << 20;
const LIMIT: usize = 32 * MIB;
const VALUE: usize = 64 << 10;
const KEYS: usize = 16;

/// Returns the bytes of this process that are resident.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = pages.split_whitespace().nth(1).unwrap().parse().unwrap();
    // The kernel counts pages. On machines with pages larger than 4 KiB this figure is too small, and the test checks
    // less.
    pages * 4096
}

/// A reader stays in a critical section for 20 ms at a time. The flood is half a gigabyte (25 GB with `STRESS=50`).
#[test]
fn resident_memory_stays_within_twice_the_limit_under_a_flood() {
    in_time(|| {
        let domain =
            Domain::builder().backlog_bytes(LIMIT).when_full(WhenFull::Wait(Duration::from_secs(3600))).build();
        let builder = Registry::builder().domain(domain.clone()).shards(4);
        let registry: Registry<usize, Vec<u8>> = builder.weigher(|_, value: &Vec<u8>| value.capacity()).build();
        let (stop, before) = (Stop::default(), resident());
        let (mut most, mut flood) = (0, 0);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.stopped() {
                    let guard = registry.pin();
                    thread::sleep(Duration::from_millis(20));
                    drop(guard);
                }
            });
            let _end = stop.at_end();
            while flood < times(512) * MIB {
                let replaced = registry.fallible().insert(flood / VALUE % KEYS, vec![1; VALUE]);
                assert!(replaced.is_ok(), "the write was refused before its patience ended");
                drop(replaced);
                flood += VALUE;
                most = most.max(resident() - before);
            }
        });
        let stats = domain.stats();
        println!(
            "{} MiB retired, backlog limited to {} MiB: peak {:.1} MiB, resident {:.1} MiB more than before; {} overruns",
            flood / MIB,
            LIMIT / MIB,
            stats.peak.bytes as f64 / MIB as f64,
            most as f64 / MIB as f64,
            stats.overruns
        );
        assert!(stats.peak.bytes <= LIMIT as u64 && stats.overruns == 0, "{stats}");
        assert!(stats.peak.bytes > LIMIT as u64 / 2, "the flood did not fill half of the limit: {stats}");
        assert!(most <= 2 * LIMIT, "{most} bytes");
    });
}
