//! Misuse that the compiler must reject. Each program in the folder of this package has a file with the expected messages.
//!
//! The wording of diagnostics changes with the compiler. So the `.stderr` files are compared only under the version
//! that made them (`MADE_WITH`). Under other versions the test prints that it is skipped. The `compile_fail` doctests
//! with their error codes hold under every version.
//!
//! To make the files again, run this command and check each difference:
//!
//! ```text
//! TRYBUILD=overwrite cargo test -p compile-fail-tests
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
        println!("skipped: the expected messages are those of rustc {MADE_WITH}, but this is {version}");
        return;
    }
    trybuild::TestCases::new().compile_fail("*.rs");
}
