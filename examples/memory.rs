//! Measures the memory of a registry of a million entries, when it is full and after 99% of the entries were removed,
//! for each size of slabs.
//!
//! `cargo run --release --example memory`, or with `-- random large` for one case. Each step shows the allocated bytes
//! and the resident size of the process, which the kernel counts in pages.
//!
//! The program fails if too much of the allocated memory is left after the removals: with small slabs 10% or more after
//! removals in insertion order, and 30% or more after removals at random; with large slabs 25% and 70%. There is no limit for the resident size: how much
//! freed memory the allocator keeps depends on where the remaining entries lie.

#![allow(unsafe_code)]

use epoch_registry::{Domain, ManualClock, Registry, SlabSize};
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
fn run(removal: Removal, slab: SlabSize) -> bool {
    let order = match removal {
        Removal::AtRandom => "at random",
        Removal::InInsertionOrder => "in insertion order",
    };
    let size = match slab {
        SlabSize::Small => "1 KiB",
        SlabSize::Large => "4 KiB",
    };
    println!("slabs of {size}, 99% removed {order}:");
    let meter = Meter::start();
    let (clock, domain) = (ManualClock::new(), Domain::new());
    let registry = Registry::builder().domain(domain.clone()).clock(clock.clone()).slab_size(slab).build();
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
    // A slab of nodes is freed when the last of its entries is: of 30 in a small slab, of 126 in a large one. After
    // removals at random, every fourth small slab still holds an entry, and seven of ten large ones.
    let percent = match (removal, slab) {
        (Removal::AtRandom, SlabSize::Small) => 30,
        (Removal::AtRandom, SlabSize::Large) => 70,
        (Removal::InInsertionOrder, SlabSize::Small) => 10,
        (Removal::InInsertionOrder, SlabSize::Large) => 25,
    };
    left * 100 < full * percent
}

/// Runs each case in a process of its own: memory that the allocator keeps from one case would hide what the next
/// one needs.
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let removal = |name: &str| match name {
        "random" => Some(Removal::AtRandom),
        "order" => Some(Removal::InInsertionOrder),
        _ => None,
    };
    let slab = |name: &str| match name {
        "small" => Some(SlabSize::Small),
        "large" => Some(SlabSize::Large),
        _ => None,
    };
    let fits = match arguments[..] {
        [] => {
            let run = |case: [&str; 2]| {
                let program = std::env::current_exe().expect("the path of the running program is known");
                Command::new(program).args(case).status().expect("the program can start itself").success()
            };
            let cases = [["random", "small"], ["random", "large"], ["order", "small"], ["order", "large"]];
            cases.map(run) == [true; 4]
        }
        [order, size] => match (removal(order), slab(size)) {
            (Some(removal), Some(slab)) => run(removal, slab),
            _ => return usage(),
        },
        _ => return usage(),
    };
    if fits { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn usage() -> ExitCode {
    eprintln!("usage: memory [random|order small|large]");
    ExitCode::from(2)
}
