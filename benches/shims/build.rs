//! Passes the compiler's version to the programs, and compiles the shims over C libraries whose features are enabled.

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
    // As in a C program: the reader's state is at a fixed offset from the thread pointer, and is found without a call.
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
    // The flags that DPDK gives its users, at their x86-64 baseline.
    shim.opt_level(3).flag_if_supported("-march=corei7").warnings(false);
    // DPDK has very many libraries. The shim uses only these.
    link(&shim, "dpdk_shim", &["rte_hash", "rte_rcu", "rte_eal"]);
}

/// Finds a library by its pkg-config name, and passes its version to the programs.
#[cfg(any(feature = "liburcu", feature = "dpdk"))]
fn installed(name: &str, version: &str, package: &str) -> pkg_config::Library {
    let library = pkg_config::Config::new().cargo_metadata(false).probe(name);
    let library = library.unwrap_or_else(|error| panic!("{name} is needed (Debian: {package}): {error}"));
    println!("cargo:rustc-env={version}={}", library.version);
    library
}

/// Compiles a shim, and links the libraries that it uses after it.
#[cfg(any(feature = "liburcu", feature = "dpdk"))]
fn link(shim: &cc::Build, name: &str, libraries: &[&str]) {
    if let Err(error) = shim.try_compile(name) {
        panic!("{name} needs a C compiler, and the headers of the library under it: {error}");
    }
    for library in libraries {
        println!("cargo:rustc-link-lib=dylib={library}");
    }
}
