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
    installed("liburcu", "LIBURCU_VERSION", "liburcu-dev");
    let mut shim = cc::Build::new();
    // As a C program would have it: the reader's state at a fixed distance from the thread pointer, and no call to find
    // it.
    shim.files(["shims/liburcu/shim.c", "shims/liburcu/lfht_memb.c", "shims/liburcu/lfht_qsbr.c"]);
    shim.opt_level(3).flag("-ftls-model=initial-exec").warnings_into_errors(true);
    link(&shim, "urcu_shim", &["urcu-cds", "urcu-memb", "urcu-qsbr", "urcu-common"]);
}

#[cfg(feature = "dpdk")]
fn dpdk() {
    println!("cargo:rerun-if-changed=shims/dpdk");
    let library = installed("libdpdk", "DPDK_VERSION", "libdpdk-dev");
    let mut shim = cc::Build::new();
    shim.file("shims/dpdk/hash.c").includes(library.include_paths).flag("-include").flag("rte_config.h");
    // As DPDK has its users compile, on x86-64 at the least.
    shim.opt_level(3).flag_if_supported("-march=corei7").warnings(false);
    // Its own libraries are very many; these are those that the shim uses.
    link(&shim, "dpdk_shim", &["rte_hash", "rte_rcu", "rte_eal"]);
}

/// A library, by its pkg-config name. Tells the programs its version.
#[cfg(any(feature = "liburcu", feature = "dpdk"))]
fn installed(name: &str, version: &str, package: &str) -> pkg_config::Library {
    let library = pkg_config::Config::new().cargo_metadata(false).probe(name);
    let library = library.unwrap_or_else(|error| panic!("{name} is needed (Debian: {package}): {error}"));
    println!("cargo:rustc-env={version}={}", library.version);
    library
}

/// Compiles a shim, and links the libraries after it, as it uses them.
#[cfg(any(feature = "liburcu", feature = "dpdk"))]
fn link(shim: &cc::Build, name: &str, libraries: &[&str]) {
    if let Err(error) = shim.try_compile(name) {
        panic!("{name} needs a C compiler, and the headers of what it is over: {error}");
    }
    for library in libraries {
        println!("cargo:rustc-link-lib=dylib={library}");
    }
}
