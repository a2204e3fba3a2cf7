//! Tells the programs what compiles them, and compiles the shims over liburcu, if the feature asks for it.

use std::process::Command;

fn main() {
    let rustc = std::env::var_os("RUSTC").unwrap_or("rustc".into());
    let version = Command::new(rustc).arg("--version").output().map(|output| output.stdout).unwrap_or_default();
    println!("cargo:rustc-env=RUSTC_VERSION={}", String::from_utf8_lossy(&version).trim());
    println!("cargo:rerun-if-changed=liburcu/build.rs");
    shims();
}

#[cfg(feature = "liburcu")]
fn shims() {
    println!("cargo:rerun-if-changed=liburcu");
    let mut shim = cc::Build::new();
    // As a C program would have it: the reader's state at a fixed distance from the thread pointer, and no call to find
    // it.
    shim.files(["liburcu/shim.c", "liburcu/lfht_memb.c", "liburcu/lfht_qsbr.c"]);
    shim.opt_level(3).flag("-ftls-model=initial-exec").warnings_into_errors(true);
    if let Err(error) = shim.try_compile("urcu_shim") {
        panic!("the feature `liburcu` needs a C compiler and liburcu's headers (Debian: liburcu-dev): {error}");
    }
    // After the shim, which uses them.
    for library in ["urcu-cds", "urcu-memb", "urcu-qsbr", "urcu-common"] {
        println!("cargo:rustc-link-lib=dylib={library}");
    }
}

#[cfg(not(feature = "liburcu"))]
fn shims() {}
