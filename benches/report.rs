//! The performance report: `cargo bench --bench report -- --help`.

use clap::{Parser, Subcommand};
use convolve::{Budget, Error, NamedProblem, Verdict};
use convolve_benches::args::Args;
use convolve_benches::case::{AnyPass, Case, Operands};
use convolve_benches::compare::CompareArgs;
use convolve_benches::page::live::{self, PageArgs};
use convolve_benches::record::Record;
use convolve_benches::row::{self, Row};
use convolve_benches::sample::{Effort, interleave};
use convolve_benches::session::{self, Session, refuse};
use convolve_benches::{summary, table};
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Measures every algorithm on real problems: time, GFLOP/s and % of the FMA peak that the machine shows in the same run.
#[derive(Parser)]
#[command(
    name = "report",
    bin_name = "cargo bench --bench report --",
    version,
    args_conflicts_with_subcommands = true
)]
struct Flags {
    #[command(flatten)]
    common: Args,
    #[command(flatten)]
    page: PageArgs,
    #[command(subcommand)]
    mode: Option<Mode>,
}

#[derive(Subcommand)]
enum Mode {
    Compare(CompareArgs),
}

/// For the heat map; no problem is begun after that.
const SWEEP: Duration = Duration::from_secs(25);

fn main() -> io::Result<ExitCode> {
    let flags = Flags::parse();
    if let Some(Mode::Compare(files)) = &flags.mode {
        let comparison = files.run().unwrap_or_else(|error| refuse(&error));
        io::stdout().write_all(comparison.text().as_bytes())?;
        return Ok(ExitCode::from(u8::from(comparison.fails())));
    }
    let mut rows = flags.page.rows().unwrap_or_else(|error| refuse(&error));
    if flags.page.from.is_empty() {
        measure_all(&flags, &mut rows)?;
    }
    match flags.page.write(&rows) {
        Ok(Some(sentence)) => println!("{sentence}"),
        Ok(None) => (),
        Err(error) => refuse(&error),
    }
    Ok(ExitCode::SUCCESS)
}

/// What the flags ask for, into the terminal, the JSON file and `records`.
fn measure_all(flags: &Flags, records: &mut Vec<Record>) -> io::Result<()> {
    session::run(&flags.common, |mut session| {
        session.header()?;
        let mut all = Vec::new();
        session.for_each(|session, layouts, pass| {
            let mut rows = Vec::new();
            for problem in layouts {
                match measure(session, problem, pass) {
                    Ok(more) => rows.extend(more),
                    // A problem that does not fit the memory ends the program.
                    Err(error) => refuse(&format!("{problem}: {error}")),
                }
            }
            let mut out = io::stdout().lock();
            writeln!(out, "{}", Session::title(&layouts[0], pass))?;
            match rows.is_empty() {
                true => writeln!(out, "no algorithm to measure")?,
                false => writeln!(out, "{}", table::rows(&rows))?,
            }
            out.flush()?;
            for row in &rows {
                session.write(row)?;
            }
            all.extend(rows);
            Ok(())
        })?;
        records.extend(all.iter().map(Record::from));
        if flags.page.html.is_some() {
            sweep(&mut session, records)?;
        }
        session.footer(&summary::summary(&all))
    })
}

/// Forward on a grid of channels and images, by the planner's choice, as long as the time lasts.
fn sweep(session: &mut Session<'_>, records: &mut Vec<Record>) -> io::Result<()> {
    let (begin, pass) = (Instant::now(), AnyPass::Forward);
    for problem in live::sweep() {
        for &(layout, weights) in session.args.layouts() {
            let problem =
                NamedProblem { conv: problem.conv.layout(layout).weight_layout(weights), ..problem.clone() };
            let mut chosen = || -> Result<Option<Row>, Error> {
                let planner = session.planner();
                let plan = pass.verdicts(&planner, problem.conv)?;
                let Some(verdict) = plan.iter().find(|verdict| verdict.chosen) else { return Ok(None) };
                let operands = Operands::new(problem.conv)?;
                let Case { workspace_bytes, run } = pass.prepare(&planner, &operands, session.par)?;
                let series = interleave(&mut [run], &mut session.probe, Effort::QUICK);
                let peak = session.probe.peak();
                let Some(statistics) = series[0].statistics(session.probe.best()) else { return Ok(None) };
                let row = Row { workspace_bytes, ..session.row(&problem, pass, verdict.algorithm, true) };
                Ok(Some(row.measured(problem.conv.geometry()?.macs(), statistics, peak)))
            };
            match chosen() {
                Ok(Some(row)) => {
                    session.write(&row)?;
                    records.push(Record::from(&row));
                }
                Ok(None) => (),
                Err(error) => refuse(&format!("{problem}: {error}")),
            }
        }
        if begin.elapsed() > SWEEP {
            println!(
                "\nSweep:    stopped after {} s; larger problems are missing in the heat map",
                SWEEP.as_secs()
            );
            break;
        }
    }
    Ok(())
}

/// Adds up to `count` ways in which the chosen algorithm cuts the problem, other than those that are there.
fn further_cuts(
    verdicts: &mut Vec<Verdict>,
    count: usize,
    verdicts_of: impl Fn(&'static str, usize) -> Result<Vec<Verdict>, Error>,
) -> Result<(), Error> {
    let Some(name) = verdicts.iter().find(|verdict| verdict.chosen).map(|verdict| verdict.algorithm) else {
        return Ok(());
    };
    for rank in 1..=count {
        for verdict in verdicts_of(name, rank)? {
            let Ok(estimate) = &verdict.answer else { continue };
            let same = |other: &Verdict| {
                other.algorithm == name
                    && other.answer.as_ref().is_ok_and(|known| known.tiling == estimate.tiling)
            };
            if !verdicts.iter().any(same) {
                verdicts.push(Verdict { chosen: false, rank, ..verdict });
            }
        }
    }
    Ok(())
}

/// All algorithms on one problem, pass and layout.
fn measure(session: &mut Session<'_>, problem: &NamedProblem, pass: AnyPass) -> Result<Vec<Row>, Error> {
    let planner = session.planner();
    let mut verdicts = match session.args.tuned {
        true => pass.tune(&planner, problem.conv, Budget::from(session.effort().budget).warm())?.verdicts,
        false => pass.verdicts(&planner, problem.conv)?,
    };
    // Of an algorithm the way in which it cuts the problem by itself, and the one that was measured to be the best.
    verdicts.retain(|verdict| verdict.answer.is_ok() && (verdict.rank == 0 || verdict.chosen));
    further_cuts(&mut verdicts, session.args.cuts, |name, rank| {
        pass.verdicts(&planner.clone().only(name).rank(rank), problem.conv)
    })?;
    let (operands, macs) = (Operands::new(problem.conv)?, problem.conv.geometry()?.macs());
    let (mut rows, mut runs) = (Vec::new(), Vec::new());
    for verdict in &verdicts {
        let Ok(estimate) = verdict.answer else { continue };
        if !session.args.wants(verdict.algorithm) {
            continue;
        }
        let planner = planner.clone().only(verdict.algorithm).rank(verdict.rank);
        let Case { workspace_bytes, run } = pass.prepare(&planner, &operands, session.par)?;
        let error = Some(pass.error(&planner, &operands, session.par)?);
        runs.push(run);
        rows.push(Row {
            workspace_bytes,
            error,
            tuned: session.args.tuned,
            predicted_s: Some(estimate.ns * 1e-9),
            tiling: estimate.tiling.to_string(),
            ..session.row(problem, pass, verdict.algorithm, verdict.chosen)
        });
    }
    let effort = session.effort();
    let series = interleave(&mut runs, &mut session.probe, effort);
    let peak = session.probe.peak();
    let measured = rows.into_iter().zip(series).map(|(row, series)| {
        row.measured(
            macs,
            series.statistics(session.probe.best()).expect("at least one sample is taken"),
            peak,
        )
    });
    let mut rows: Vec<Row> = measured.collect();
    if session.args.algorithm.is_empty() {
        row::regret(&mut rows);
    }
    Ok(rows)
}
