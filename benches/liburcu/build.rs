//! Compiles the shim over liburcu, if the feature asks for it.

#[cfg(feature = "liburcu")]
fn main() {
    const SHIM: &str = "liburcu/shim.c";
    println!("cargo:rerun-if-changed={SHIM}");
    let mut shim = cc::Build::new();
    // As a C program would have it: the reader's state at a fixed distance from the thread pointer, and no call to find
    // it.
    shim.file(SHIM).opt_level(3).flag("-ftls-model=initial-exec").warnings_into_errors(true);
    if let Err(error) = shim.try_compile("urcu_memb_shim") {
        panic!("the feature `liburcu` needs a C compiler and liburcu's headers (Debian: liburcu-dev): {error}");
    }
    // After the shim, which uses them.
    println!("cargo:rustc-link-lib=dylib=urcu-memb");
    println!("cargo:rustc-link-lib=dylib=urcu-common");
}

#[cfg(not(feature = "liburcu"))]
fn main() {}
