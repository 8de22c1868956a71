//! Runs every algorithm that accepts a problem, in every pass, layout and instruction set, and compares each result with the
//! definition, on integers, exactly. The same as the command's `verify`.
//!
//! ```text
//! cargo run --release -p convolve-examples --example verify -- testkit/problems/smoke.txt
//! cargo run --release -p convolve-examples --example verify -- --algorithm direct --isa avx2 mb1ic64ih56oc64kh3ph1
//! ```
//!
//! Exit code: 1 when any result is wrong, otherwise 2 when a line was bad or nothing was run, otherwise 0.

use clap::Parser;
use convolve_benches::verify::VerifyArgs;
use std::process::ExitCode;

/// Compares every algorithm with the definition, on integers, exactly.
#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    what: VerifyArgs,
}

fn main() -> ExitCode {
    match Flags::parse().what.run() {
        Ok(verification) => {
            print!("{}", verification.text());
            verification.code().into()
        }
        Err(sentence) => {
            eprintln!("error: {sentence}");
            ExitCode::from(2)
        }
    }
}
