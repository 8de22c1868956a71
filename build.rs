//! A number that changes when a kernel does: what was tuned with other kernels is stale.
//!
//! In a checkout it is a hash of the kernels' sources. In a published package they are not beside this file, and the version alone
//! stands for them.

use std::fs;
use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let kernels = Path::new("kernels");
    let mut hash = String::new();
    if std::env::var_os("CARGO_FEATURE_TUNING").is_some() && kernels.is_dir() {
        println!("cargo::rerun-if-changed=kernels");
        let mut files = Vec::new();
        sources(kernels, &mut files);
        files.sort();
        let number = files.iter().flat_map(|(path, text)| [path.as_bytes(), &[0], text]).flatten();
        hash = format!("-{:016x}", number.fold(0xcbf2_9ce4_8422_2325_u64, fnv1a));
    }
    println!("cargo::rustc-env=CONVOLVE_KERNELS={hash}");
}

/// Fowler, Noll, Vo: small, and good enough to tell two versions of some files apart.
fn fnv1a(hash: u64, byte: &u8) -> u64 {
    (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
}

/// Every `.rs` file in a `src` below that directory. What cannot be read does not count.
fn sources(dir: &Path, files: &mut Vec<(String, Vec<u8>)>) {
    for path in fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()) {
        let is_source = path.extension().is_some_and(|extension| extension == "rs")
            && path.components().any(|part| part.as_os_str() == "src");
        if path.is_dir() {
            sources(&path, files);
        } else if is_source && let Ok(text) = fs::read(&path) {
            files.push((path.to_string_lossy().replace('\\', "/"), text));
        }
    }
}
