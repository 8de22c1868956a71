//! Ours against oneDNN and against explicit im2col, turn by turn in one process: `cargo bench --bench peers -- --help`.

use clap::Parser;
use convolve::{Error, NamedProblem, Workspace};
use convolve_benches::args::Args;
use convolve_benches::case::{AnyPass, Case, Operands};
use convolve_benches::onednn::{Data, OneDnn};
use convolve_benches::row::Row;
use convolve_benches::sample::interleave;
use convolve_benches::session::{self, Session, refuse};
use convolve_benches::{patches, summary, table};
use serde::Serialize;
use std::io::{self, Write};
use std::path::PathBuf;

/// Measures ours against oneDNN (in its own layout and in plain ones) and against explicit im2col with the crates `matrixmultiply` and `gemm`,
/// turn by turn in one process.
#[derive(Parser)]
#[command(name = "peers", bin_name = "cargo bench --bench peers --", version)]
struct Flags {
    #[command(flatten)]
    common: Args,
    /// oneDNN 3's libdnnl.so.3; scripts/onednn fetches it
    #[arg(long, value_name = "FILE", env = "CONVOLVE_ONEDNN")]
    onednn: Option<PathBuf>,
}

/// A row of the report, and how it compares with ours.
#[derive(Clone, Debug, Serialize)]
struct PeerRow {
    #[serde(flatten)]
    row: Row,
    /// The library.
    peer: &'static str,
    /// Its kernel, where it tells.
    implementation: Option<String>,
    /// Its median time over that of ours.
    ratio: f64,
}

/// The planner's choice.
const OURS: &str = "convolve";
/// oneDNN in the layout that it prefers; in the problem's own.
const BEST: &str = "oneDNN best layout";
const PLAIN: &str = "oneDNN plain layout";
const MATRIXMULTIPLY: &str = "im2col-matrixmultiply";
const GEMM: &str = "im2col-gemm";

fn main() -> io::Result<()> {
    let flags = Flags::parse();
    // Its OpenMP reads this when the library is loaded, which is before any thread of ours is started.
    // SAFETY: no other thread runs yet.
    unsafe { std::env::set_var("OMP_NUM_THREADS", flags.common.threads.to_string()) };
    let path = flags.onednn.as_ref();
    session::run(&flags.common, |mut session| {
        let onednn = path.map(|path| OneDnn::open(path).unwrap_or_else(|error| refuse(&error)));
        session.header()?;
        if onednn.is_none() {
            println!(
                "oneDNN:   not measured; `scripts/onednn` fetches it, `--onednn FILE` or CONVOLVE_ONEDNN names it"
            );
        }
        let mut all: Vec<PeerRow> = Vec::new();
        session.for_each(|session, layouts, pass| {
            writeln!(io::stdout(), "{}", Session::title(&layouts[0], pass))?;
            let mut rows = Vec::new();
            for problem in layouts {
                match measure(session, onednn.as_ref(), problem, pass) {
                    Ok(more) => rows.extend(more),
                    Err(error) => refuse(&format!("{problem}: {error}")),
                }
            }
            writeln!(io::stdout(), "{}", show(&rows))?;
            for row in &rows {
                session.write(row)?;
            }
            all.extend(rows);
            Ok(())
        })?;
        session.footer(&comparison(&all))
    })
}

type Runner<'a> = (&'static str, Option<String>, usize, Box<dyn FnMut() + 'a>);

/// Ours and every peer that serves the problem.
fn measure(
    session: &mut Session<'_>,
    onednn: Option<&OneDnn>,
    problem: &NamedProblem,
    pass: AnyPass,
) -> Result<Vec<PeerRow>, Error> {
    let planner = session.planner();
    let (operands, geometry) = (Operands::new(problem.conv)?, problem.conv.geometry()?);
    let [src, weights, _] = operands.tensors();
    let Case { workspace_bytes, run } = pass.prepare(&planner, &operands, session.par)?;
    let mut runs: Vec<Runner<'_>> = vec![(OURS, chosen(session, pass, problem)?, workspace_bytes, run)];
    for (name, data) in [(BEST, Data::Best), (PLAIN, Data::Plain)] {
        let Some(onednn) = onednn else { break };
        match onednn.prepare(&geometry, pass, data, &operands) {
            Ok(convolution) => {
                let result = convolution.result().unwrap_or_else(|error| refuse(&error));
                agree(problem, pass, &operands, name, &result);
                let implementation = Some(convolution.implementation.clone());
                runs.push((name, implementation, 0, Box::new(move || convolution.run())));
            }
            Err(reason) => println!("{} {name}: {reason}", problem.conv.layout),
        }
    }
    if session.args.threads == 1 {
        let Case { workspace_bytes, run } =
            pass.prepare(&planner.clone().only(MATRIXMULTIPLY), &operands, session.par)?;
        runs.push((MATRIXMULTIPLY, None, workspace_bytes, run));
        if pass == AnyPass::Forward {
            let (mut matrix, mut dst) =
                (Workspace::new(patches::len(&geometry))?, Workspace::new(geometry.dst_len())?);
            let bytes = matrix.len() * size_of::<f32>();
            let run = move || patches::forward(&geometry, src, weights, &mut matrix, &mut dst);
            runs.push((GEMM, None, bytes, Box::new(run)));
        }
    }
    let effort = session.effort();
    let (names, mut runs): (Vec<_>, Vec<_>) =
        runs.into_iter().map(|(name, kernel, bytes, run)| ((name, kernel, bytes), run)).unzip();
    let series = interleave(&mut runs, &mut session.probe, effort);
    let peak = session.probe.peak();
    let rows = names.into_iter().zip(series).map(|((name, implementation, workspace_bytes), series)| {
        let row = Row { workspace_bytes, ..session.row(problem, pass, name, name == OURS) };
        let row = row.measured(
            geometry.macs(),
            series.statistics(session.probe.best()).expect("there is a sample"),
            peak,
        );
        PeerRow { row, peer: name.split(' ').next().unwrap_or(name), implementation, ratio: f64::NAN }
    });
    let mut rows: Vec<PeerRow> = rows.collect();
    let ours = rows[0].row.median_s;
    rows.iter_mut().for_each(|row| row.ratio = row.row.median_s / ours);
    Ok(rows)
}

/// Which algorithm the planner takes.
fn chosen(session: &Session<'_>, pass: AnyPass, problem: &NamedProblem) -> Result<Option<String>, Error> {
    let verdicts = pass.verdicts(&session.planner(), problem.conv)?;
    Ok(verdicts.iter().find(|verdict| verdict.chosen).map(|verdict| verdict.algorithm.to_owned()))
}

/// Both must compute the same thing. Operands are at most 1, so a sum of K products is within K u K of the exact one (u = 2^-24), and two
/// such sums within twice that of each other.
fn agree(problem: &NamedProblem, pass: AnyPass, operands: &Operands, peer: &str, theirs: &[f32]) {
    let geometry = operands.geometry();
    let [src, weights, dst] = operands.tensors();
    let mut ours = vec![0.0; theirs.len()];
    let conv = problem.conv;
    let terms = match pass {
        AnyPass::Forward => geometry.group_in() * geometry.taps(),
        AnyPass::BackwardData => geometry.group_out() * geometry.taps(),
        AnyPass::BackwardWeights => conv.batch * geometry.output().iter().product::<usize>(),
    };
    let computed = match pass {
        AnyPass::Forward => convolve::forward(conv, src, weights, &mut ours, convolve::Epilogue::NONE),
        AnyPass::BackwardData => convolve::backward_data(conv, dst, weights, &mut ours),
        AnyPass::BackwardWeights => convolve::backward_weights(conv, src, dst, &mut ours),
    };
    computed.unwrap_or_else(|error| refuse(&error.to_string()));
    let bound = 2.0 * (terms as f64).powi(2) * f64::from(f32::EPSILON / 2.0);
    for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
        let distance = f64::from(*a) - f64::from(*b);
        if distance.is_nan() || distance.abs() > bound {
            refuse(&format!(
                "{} {problem}, {peer}: element {i} is {b}, ours {a}: not the same convolution",
                pass.name()
            ));
        }
    }
}

fn show(rows: &[PeerRow]) -> String {
    let header = ["layout, who", "kernel", "median ms", "GFLOP/s", "% of peak", "time / ours"];
    let mut table = table::new(&header);
    for PeerRow { row, implementation, ratio, .. } in rows {
        let unsteady = if row.steady { "" } else { "~" };
        table.add_row([
            format!("{} {}", row.layout, row.algorithm),
            implementation.clone().unwrap_or_default(),
            format!("{unsteady}{:.4}", 1e3 * row.median_s),
            format!("{:.1}", row.gflops),
            format!("{:.1}", 100.0 * row.peak_fraction),
            format!("{ratio:.2}"),
        ]);
    }
    table.to_string()
}

/// Ratios per pass, layout and peer; then every row in which a peer is faster.
fn comparison(rows: &[PeerRow]) -> String {
    let mut groups: std::collections::BTreeMap<(&str, &str, &str), Vec<f64>> = Default::default();
    for row in rows.iter().filter(|row| row.row.algorithm != OURS) {
        groups.entry((&row.row.layout, row.row.pass, row.row.algorithm)).or_default().push(row.ratio);
    }
    let mut ratios =
        table::new(&["against", "problems", "time / ours, geometric mean", "least", "faster than ours"]);
    for ((layout, pass, peer), ratio) in &groups {
        let least = ratio.iter().copied().fold(f64::INFINITY, f64::min);
        let faster = ratio.iter().filter(|ratio| **ratio < 1.0).count();
        ratios.add_row([
            format!("{layout} {pass} {peer}"),
            ratio.len().to_string(),
            format!("{:.2}", summary::geometric_mean(ratio)),
            format!("{least:.2}"),
            faster.to_string(),
        ]);
    }
    let mut losing = table::new(&["losing rows", "peer", "time / ours", "ours, % of peak"]);
    let mut ours: Option<&PeerRow> = None;
    for row in rows {
        if row.row.algorithm == OURS {
            ours = Some(row);
        } else if let Some(ours) = ours.filter(|_| row.ratio < 1.0) {
            let name = row.row.name.as_ref().unwrap_or(&row.row.problem);
            losing.add_row([
                format!("{} {} {name}", row.row.layout, row.row.pass),
                row.row.algorithm.into(),
                format!("{:.2}", row.ratio),
                format!("{:.0}", 100.0 * ours.row.peak_fraction),
            ]);
        }
    }
    format!("{ratios}\n\n{losing}")
}
