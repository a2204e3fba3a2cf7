//! Misuse that the compiler rejects: one program each, in `tests/compile-fail/`, with what it says to it.
//!
//! The wording of diagnostics changes with the compiler, so the `.stderr` files are compared under the version that they
//! were made with alone (`MADE_WITH`), and skipped aloud under others, where the `compile_fail` doctests with their error
//! codes still hold. To make them anew, after a look at each difference:
//!
//! ```text
//! TRYBUILD=overwrite cargo test --test compile_fail
//! ```

use std::process::Command;

/// The minor version of the compiler that made the `.stderr` files.
const MADE_WITH: &str = "1.95";

#[test]
fn misuse_is_rejected_by_the_compiler() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output().expect("asking rustc for its version").stdout;
    let version = String::from_utf8_lossy(&version).into_owned();
    if !version.starts_with(&format!("rustc {MADE_WITH}.")) {
        println!("skipped: the expected messages are those of rustc {MADE_WITH}, and this is {version}");
        return;
    }
    if !std::path::Path::new("tests/compile-fail").exists() {
        println!("skipped: the published package comes without the programs");
        return;
    }
    trybuild::TestCases::new().compile_fail("tests/compile-fail/*.rs");
}
