//! Loom models of the registry's own source: one model, one race, one line of claim.
//!
//! Run by `RUSTFLAGS="--cfg loom" cargo test -p loom-tests --release`, over an abstract epoch that keeps its contract
//! and no more (`src/sync/model.rs`). With `--features whole` and `--cfg crossbeam_loom --cfg crossbeam_sanitize` as
//! well, over the real crossbeam-epoch. Arguments: names of models to run; `--bound N` to bound the preemptions of all.

#[cfg(loom)]
mod harness;
#[cfg(loom)]
mod races;
#[cfg(loom)]
mod world;

#[cfg(not(loom))]
fn main() {
    panic!("these models run under the model checker only: set RUSTFLAGS=\"--cfg loom\"");
}

#[cfg(loom)]
fn main() {
    harness::main(&races::models());
}
