//! Loom models of the registry's own source: one model, one race, one line of claim.
//!
//! Run by `RUSTFLAGS="--cfg loom" cargo test -p loom-tests --release`, over an abstract epoch that keeps its contract
//! and no more (`src/sync/model.rs`). With `--features whole` and `--cfg crossbeam_loom --cfg crossbeam_sanitize` as
//! well, over the real crossbeam-epoch. Arguments: names of models to run; `--bound N` to bound the preemptions of all;
//! `--more N` to explore so many preemptions more, where there is a bound; `--record` to record how many executions they take.

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
    panic!("these models run under the model checker only: set RUSTFLAGS=\"--cfg loom\"");
}

#[cfg(all(loom, not(crossbeam_loom)))]
fn main() {
    harness::main(&races::models());
}

#[cfg(crossbeam_loom)]
fn main() {
    harness::main(&whole::models());
}
