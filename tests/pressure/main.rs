//! The pressure driver: `cargo test --features pressure --test pressure`.

#![cfg(feature = "pressure")]

#[path = "../common/mod.rs"]
mod common;
mod demands;
mod edges;
mod levels;
mod real;
mod reapers;
mod scripted;
mod thread;
