//! ONNX's own cases for convolution, transposed convolution, pooling and unpooling: each is run, compared with its expected output, and counted.
//!
//! ```text
//! scripts/onnx-conformance                                                # fetches the cases, then does the same as
//! cargo run --release -p convolve-examples --example onnx_conformance -- target/onnx-1.17.0/node
//! ```
//!
//! Cases that the library does not cover are listed with the reason. Exit code: 1 when a covered one fails, 2 when there are no cases.

#[path = "onnx_conformance/case.rs"]
mod case;
#[path = "onnx_conformance/operators.rs"]
mod operators;
#[path = "onnx/proto.rs"]
mod proto;
#[cfg(test)]
#[path = "onnx_conformance/tests.rs"]
mod tests;

use case::Case;
use clap::Parser;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What went wrong is one sentence for a person.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Where the script puts the cases.
const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/onnx-1.17.0/node");

#[derive(Parser)]
#[command(about = "Runs ONNX's own cases for convolution and pooling")]
struct Arguments {
    /// The folder with a folder for each case.
    #[arg(default_value = CASES)]
    cases: PathBuf,
}

/// What became of a case.
#[derive(Debug)]
enum Verdict {
    /// By all of these.
    Passed(String),
    /// What the library lacks.
    NotCovered(String),
    Failed(String),
}

/// Runs every case, by name.
fn conformance(cases: &Path) -> Result<Vec<(String, Verdict)>> {
    let entries = std::fs::read_dir(cases).map_err(|error| {
        format!("{}: {error}; scripts/onnx-conformance fetches the cases", cases.display())
    })?;
    let mut folders: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    folders.retain(|folder| folder.join("model.onnx").exists());
    folders.sort();
    if folders.is_empty() {
        return Err(
            format!("{}: there is no case; scripts/onnx-conformance fetches them", cases.display()).into()
        );
    }
    let verdict = |folder: &Path| {
        let result = Case::read(folder).and_then(|case| operators::run(&case));
        result.unwrap_or_else(|error| Verdict::Failed(error.to_string()))
    };
    let name = |folder: &Path| folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(folders.iter().map(|folder| (name(folder), verdict(folder))).collect())
}

/// Prints a line for each case and the sum; whether none failed.
fn report(verdicts: &[(String, Verdict)]) -> bool {
    let widest = verdicts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let [mut passed, mut failed, mut not_covered] = [0; 3];
    for (name, verdict) in verdicts {
        let (word, why, count) = match verdict {
            Verdict::Passed(by) => ("pass", by, &mut passed),
            Verdict::NotCovered(reason) => ("not covered", reason, &mut not_covered),
            Verdict::Failed(error) => ("FAIL", error, &mut failed),
        };
        *count += 1;
        println!("{word:11}  {name:widest$}  {why}");
    }
    println!("{passed} of {} cases pass, {failed} fail, {not_covered} are not covered", verdicts.len());
    failed == 0
}

fn main() -> ExitCode {
    match conformance(&Arguments::parse().cases) {
        Ok(verdicts) if report(&verdicts) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(error) => {
            eprintln!("onnx_conformance: {error}");
            ExitCode::from(2)
        }
    }
}
