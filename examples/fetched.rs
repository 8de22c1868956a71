//! What `examples/fetch` has fetched, in tests.

use std::io::Write as _;
use std::path::Path;

/// Whether a test can run, because `path` is there. If it is not, says so past the harness, which shows what a test prints only when it fails.
///
/// # Panics
/// If it is not, and `CONVOLVE_DATA` is `required`.
#[track_caller]
pub fn fetched(path: impl AsRef<Path>, command: &str) -> bool {
    let (path, required) =
        (path.as_ref(), std::env::var_os("CONVOLVE_DATA").is_some_and(|is| is == "required"));
    if !path.exists() {
        let sentence = format!("{} is not there: {command} fetches it", path.display());
        assert!(!required, "CONVOLVE_DATA=required, and {sentence}");
        // A closed standard error is no reason to fail.
        let _ = writeln!(std::io::stderr(), "NOT RUN: {sentence}");
    }
    path.exists()
}
