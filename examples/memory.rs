//! Measures the memory of a registry of a million entries, when it is full and after 99% of the entries were removed.
//!
//! `cargo run --release --example memory`. Each step shows the allocated bytes and the resident size of the
//! process, which the kernel counts in pages.
//!
//! The program fails if too much of the allocated memory is left after the removals: 10% or more after removals
//! in insertion order, 30% or more after removals at random. There is no limit for the resident size: how much
//! freed memory the allocator keeps depends on where the remaining entries lie.

#![allow(unsafe_code)]

use epoch_registry::{Domain, ManualClock, Registry};
use std::alloc::{GlobalAlloc, Layout, System};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The system's allocator with a counter of the bytes in use.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is forwarded unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // ORDERING: Relaxed (in all of this file). The counter orders nothing.
        IN_USE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller upholds the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller upholds the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller upholds the contract of `dealloc`, and `memory` comes from `System`.
        unsafe { System.dealloc(memory, layout) };
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ENTRIES: u64 = 1_000_000;

/// How long the process idles after the removals.
const IDLE: Duration = Duration::from_secs(1);

fn in_use() -> usize {
    IN_USE.load(Ordering::Relaxed)
}

/// Returns the resident size of this process in bytes, if the system reports it (Linux).
fn resident() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: usize = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

fn mebibytes(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64)
}

/// Measures the memory in use, relative to the start.
struct Meter {
    allocated: usize,
    resident: Option<usize>,
}

impl Meter {
    fn start() -> Meter {
        Meter { allocated: in_use(), resident: resident() }
    }

    fn allocated(&self) -> usize {
        in_use().saturating_sub(self.allocated)
    }

    fn print(&self, step: &str) {
        let resident = match (resident(), self.resident) {
            (Some(now), Some(before)) => mebibytes(now.saturating_sub(before)),
            _ => "not known".into(),
        };
        println!("  {step:<32} {:>12} allocated, {resident:>12} resident", mebibytes(self.allocated()));
    }
}

/// The order in which 99% of the entries are removed.
#[derive(Clone, Copy, PartialEq)]
enum Removal {
    AtRandom,
    InInsertionOrder,
}

/// Fills a registry and removes 99% of its entries. Returns whether the memory left is below the bound.
fn run(removal: Removal) -> bool {
    match removal {
        Removal::AtRandom => println!("99% removed at random:"),
        Removal::InInsertionOrder => println!("99% removed in insertion order:"),
    }
    let meter = Meter::start();
    let (clock, domain) = (ManualClock::new(), Domain::new());
    let registry = Registry::builder().domain(domain.clone()).clock(clock.clone()).build();
    for key in 0..ENTRIES {
        if key == ENTRIES / 100 * 99 {
            clock.advance(Duration::from_secs(60));
        }
        assert!(registry.try_insert(key, key).is_ok(), "every key is inserted once");
    }
    domain.barrier();
    let full = meter.allocated();
    meter.print(&format!("{ENTRIES} entries of u64 to u64"));
    let reaped = match removal {
        Removal::AtRandom => {
            registry
                .reap_if(usize::MAX, |entry| entry.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 >= (1 << 32) / 100)
                .removed
        }
        Removal::InInsertionOrder => registry.reap_older_than(Duration::from_secs(30), usize::MAX).removed,
    };
    domain.barrier();
    let left = meter.allocated();
    meter.print(&format!("{reaped} removed"));
    // No code asks the allocator to return memory (`malloc_trim`).
    std::thread::sleep(IDLE);
    meter.print(&format!("after {} s without work", IDLE.as_secs()));
    registry.shrink_to_fit();
    domain.barrier();
    meter.print("after shrink_to_fit");
    println!(
        "  {:.1} bytes for each of {ENTRIES} entries; {} left, with {:.1}% of the memory",
        full as f64 / ENTRIES as f64,
        registry.len(),
        100.0 * left as f64 / full as f64
    );
    drop(registry);
    drop(domain);
    meter.print("registry dropped");
    // A slab of nodes is freed when the last of its 30 entries is. After removals at random, every fourth slab
    // still holds an entry.
    let percent = match removal {
        Removal::AtRandom => 30,
        Removal::InInsertionOrder => 10,
    };
    left * 100 < full * percent
}

/// Runs each case in a process of its own: memory that the allocator keeps from one case would hide what the next
/// one needs.
fn main() -> ExitCode {
    let case = match std::env::args().nth(1).as_deref() {
        Some("random") => Removal::AtRandom,
        Some("order") => Removal::InInsertionOrder,
        Some(other) => {
            eprintln!("memory: unknown case `{other}`; the cases are random, order");
            return ExitCode::from(2);
        }
        None => {
            let run = |case| {
                let program = std::env::current_exe().expect("the path of the running program is known");
                Command::new(program).arg(case).status().expect("the program can start itself").success()
            };
            let fit = ["random", "order"].map(run);
            return if fit == [true; 2] { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
    };
    if run(case) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
