//! The pressure driver: `cargo test --features pressure --test pressure`.

#![cfg(feature = "pressure")]

#[path = "../common/mod.rs"]
mod common;
mod demands;
mod levels;
mod real;
mod reapers;
mod reentry;
mod scripted;
mod thread;
