//! `convolve-cli`: asks the planner, tunes it, calibrates its machine, verifies what it runs, and reads reports. `cargo run --release -p convolve-cli -- --help`.

mod calibrate;
mod plan;
mod tune;

use clap::{Parser, Subcommand};
use convolve_benches::compare::CompareArgs;
use convolve_benches::page::live::PageArgs;
use convolve_benches::verify::VerifyArgs;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

/// Asks convolve's planner, tunes it, calibrates its machine, verifies what it runs, and reads reports.
#[derive(Parser)]
#[command(name = "convolve-cli", version)]
struct Flags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// What every algorithm says to a problem, which one is chosen, and why; the exit code is 1 if nothing can be chosen
    Plan(plan::PlanArgs),
    /// Times the best candidates of problems on this machine and keeps the winners in a file, at once; the exit code is 1 if one could not be tuned
    Tune(tune::TuneArgs),
    /// Measures the constants of this machine, in about a second, and prints them beside the shipped ones
    Calibrate(calibrate::CalibrateArgs),
    /// Compares every algorithm with the definition, on integers, exactly; the exit code is 1 if a result is wrong
    Verify {
        #[command(flatten)]
        what: VerifyArgs,
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Reads rows that `cargo bench --bench report -- --json FILE` wrote
    Report {
        #[command(subcommand)]
        what: Report,
    },
}

#[derive(Subcommand)]
enum Report {
    /// Ratios of new over old times with their noise; the exit code is 1 if something became slower
    Compare {
        #[command(flatten)]
        files: CompareArgs,
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Makes the page of rows: `report page --html DIR --from ROWS.json --peers PEERS.json`
    Page(PageArgs),
}

/// What a command prints, and its exit code; or a sentence for people.
type Answer = Result<(String, u8), String>;

fn main() -> ExitCode {
    let answer = match Flags::parse().command {
        Command::Plan(args) => args.run(),
        Command::Tune(args) => args.run(),
        Command::Calibrate(args) => args.run(),
        Command::Verify { what, json } => verify(&what, json),
        Command::Report { what: Report::Compare { files, json } } => compare(&files, json),
        Command::Report { what: Report::Page(args) } => page(&args),
    };
    let (text, code) = match answer {
        Ok(answer) => answer,
        Err(sentence) => {
            eprintln!("error: {sentence}");
            return ExitCode::from(2);
        }
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        // Whoever reads, `head` say, may have read enough.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("error: cannot write: {error}");
            ExitCode::from(2)
        }
        _ => ExitCode::from(code),
    }
}

fn compare(files: &CompareArgs, json: bool) -> Answer {
    let comparison = files.run()?;
    let text = if json { format!("{}\n", comparison.json()) } else { comparison.text() };
    Ok((text, comparison.fails().into()))
}

fn verify(what: &VerifyArgs, json: bool) -> Answer {
    let verification = what.run()?;
    let text = if json { format!("{}\n", verification.json()) } else { verification.text() };
    Ok((text, verification.code()))
}

fn page(args: &PageArgs) -> Answer {
    let rows = args.rows()?;
    match args.write(&rows)? {
        Some(sentence) => Ok((sentence + "\n", 0)),
        None => Err("say where the page is to be written: --html DIR".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn flags_do_not_contradict_each_other() {
        Flags::command().debug_assert();
        // As README calls it.
        assert!(Flags::command().render_usage().to_string().contains("convolve-cli"));
    }

    #[test]
    fn a_right_library_is_verified() {
        let words = [
            "convolve-cli",
            "verify",
            "mb1ic4ih5oc4kh3ph1",
            "--pass",
            "bwd_d",
            "--isa",
            "portable",
            "--json",
        ];
        let Command::Verify { what, json } = Flags::parse_from(words).command else {
            panic!("another command")
        };
        let (text, code) = verify(&what, json).unwrap();
        let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((code, &answer["problems"]), (0, &1.into()), "{text}");
        assert!(
            answer["executions"].as_u64().unwrap() > 4 && answer["refused"][0]["pass"] == "bwd_d",
            "{text}"
        );
    }
}
