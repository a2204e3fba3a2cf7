//! Loom models of the registry's own source: each model explores one race and has one line of claim.
//!
//! There are two layers:
//!
//! - The first runs over an abstract epoch that gives the guarantees of its contract and no others
//!   (`src/sync/model.rs`). Its command is `RUSTFLAGS="--cfg loom" cargo test -p loom-tests --release`.
//! - The second runs over the real crossbeam-epoch. Its command also has `--features whole`, and its `RUSTFLAGS` also
//!   have `--cfg crossbeam_loom --cfg crossbeam_sanitize`.
//!
//! Arguments:
//!
//! - names of models: runs only these;
//! - `--bound N`: bounds the preemptions of every model by N;
//! - `--more N`: explores N more preemptions in each model that has a bound;
//! - `--record`: records how many executions the models take.

#[cfg(loom)]
mod harness;
#[cfg(loom)]
mod races;
#[cfg(crossbeam_loom)]
mod whole;
#[cfg(loom)]
mod world;

#[cfg(not(loom))]
fn main() {
    panic!("these models need the model checker: set RUSTFLAGS=\"--cfg loom\"");
}

#[cfg(all(loom, not(crossbeam_loom)))]
fn main() {
    harness::main(&races::models());
}

#[cfg(crossbeam_loom)]
fn main() {
    harness::main(&whole::models());
}
