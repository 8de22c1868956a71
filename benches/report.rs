//! The performance report: `cargo bench --bench report -- --help`.

use clap::Parser;
use convolve::{Budget, Error, NamedProblem};
use convolve_benches::args::Args;
use convolve_benches::case::{AnyPass, Case, Operands};
use convolve_benches::row::{self, Row};
use convolve_benches::sample::interleave;
use convolve_benches::session::{self, Session, refuse};
use convolve_benches::{summary, table};
use std::io::{self, Write};

fn main() -> io::Result<()> {
    session::run(&Args::parse(), |mut session| {
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
        session.footer(&summary::summary(&all))
    })
}

/// All algorithms on one problem, pass and layout.
fn measure(session: &mut Session<'_>, problem: &NamedProblem, pass: AnyPass) -> Result<Vec<Row>, Error> {
    let planner = session.planner();
    let verdicts = match session.args.tuned {
        true => pass.tune(&planner, problem.conv, Budget::from(session.effort().budget).warm())?,
        false => pass.verdicts(&planner, problem.conv)?,
    };
    let (operands, macs) = (Operands::new(problem.conv)?, problem.conv.geometry()?.macs());
    let (mut rows, mut runs) = (Vec::new(), Vec::new());
    for verdict in &verdicts {
        let Ok(estimate) = verdict.answer else { continue };
        if !session.args.wants(verdict.algorithm) {
            continue;
        }
        let planner = planner.clone().only(verdict.algorithm);
        let Case { workspace_bytes, run } = pass.prepare(&planner, &operands, session.par)?;
        let error = Some(pass.error(&planner, &operands, session.par)?);
        runs.push(run);
        rows.push(Row {
            workspace_bytes,
            error,
            predicted_s: Some(estimate.ns * 1e-9),
            ..session.row(problem, pass, verdict.algorithm, verdict.chosen)
        });
    }
    let effort = session.effort();
    let series = interleave(&mut runs, &mut session.probe, effort);
    let peak = session.probe.peak();
    let measured = rows.into_iter().zip(series).map(|(row, series)| {
        row.measured(macs, series.statistics(peak).expect("at least one sample is taken"), peak)
    });
    let mut rows: Vec<Row> = measured.collect();
    if session.args.algorithm.is_empty() {
        row::regret(&mut rows);
    }
    Ok(rows)
}
