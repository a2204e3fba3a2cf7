//! Runs sequences of operations against std's `HashMap`, as `tests/oracle.rs` does. The fuzzer chooses them by the code
//! that they reach.
#![no_main]

#[path = "../../oracle/case.rs"]
mod case;
#[path = "../../common/mod.rs"]
mod common;
#[path = "../../oracle/decode.rs"]
mod decode;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

static OPERATIONS: AtomicU64 = AtomicU64::new(0);
static INPUTS: AtomicU64 = AtomicU64::new(0);

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // ORDERING: Relaxed, because the count is only printed.
    let operations = OPERATIONS.fetch_add(decode::run(bytes), Relaxed);
    if INPUTS.fetch_add(1, Relaxed) % 10_000 == 9_999 {
        println!("{operations} operations");
    }
});
