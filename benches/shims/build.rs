//! Tells the programs what compiles them, and compiles the shims over C libraries, if features ask for them.

use std::process::Command;

fn main() {
    let rustc = std::env::var_os("RUSTC").unwrap_or("rustc".into());
    let version = Command::new(rustc).arg("--version").output().map(|output| output.stdout).unwrap_or_default();
    println!("cargo:rustc-env=RUSTC_VERSION={}", String::from_utf8_lossy(&version).trim());
    println!("cargo:rerun-if-changed=shims/build.rs");
    #[cfg(feature = "liburcu")]
    liburcu();
    #[cfg(feature = "dpdk")]
    dpdk();
}

#[cfg(feature = "liburcu")]
fn liburcu() {
    println!("cargo:rerun-if-changed=shims/liburcu");
    let library = pkg_config::Config::new().cargo_metadata(false).probe("liburcu");
    let library =
        library.unwrap_or_else(|error| panic!("the feature `liburcu` needs it (Debian: liburcu-dev): {error}"));
    println!("cargo:rustc-env=LIBURCU_VERSION={}", library.version);
    let mut shim = cc::Build::new();
    // As a C program would have it: the reader's state at a fixed distance from the thread pointer, and no call to find
    // it.
    shim.files(["shims/liburcu/shim.c", "shims/liburcu/lfht_memb.c", "shims/liburcu/lfht_qsbr.c"]);
    shim.opt_level(3).flag("-ftls-model=initial-exec").warnings_into_errors(true);
    if let Err(error) = shim.try_compile("urcu_shim") {
        panic!("the feature `liburcu` needs a C compiler and liburcu's headers (Debian: liburcu-dev): {error}");
    }
    // After the shim, which uses them.
    for library in ["urcu-cds", "urcu-memb", "urcu-qsbr", "urcu-common"] {
        println!("cargo:rustc-link-lib=dylib={library}");
    }
}

#[cfg(feature = "dpdk")]
fn dpdk() {
    println!("cargo:rerun-if-changed=shims/dpdk");
    // Its own libraries are very many; these are those that the shim uses.
    let library = pkg_config::Config::new().cargo_metadata(false).probe("libdpdk");
    let library =
        library.unwrap_or_else(|error| panic!("the feature `dpdk` needs DPDK (Debian: libdpdk-dev): {error}"));
    println!("cargo:rustc-env=DPDK_VERSION={}", library.version);
    let mut shim = cc::Build::new();
    shim.file("shims/dpdk/hash.c").includes(library.include_paths).flag("-include").flag("rte_config.h");
    // As DPDK has its users compile, on x86-64 at the least.
    shim.opt_level(3).flag_if_supported("-march=corei7").warnings(false);
    if let Err(error) = shim.try_compile("dpdk_shim") {
        panic!("the feature `dpdk` needs a C compiler and DPDK's headers (Debian: libdpdk-dev): {error}");
    }
    for library in ["rte_hash", "rte_rcu", "rte_eal"] {
        println!("cargo:rustc-link-lib=dylib={library}");
    }
}
