//! Steps of training: forward, loss, all gradients, gradient descent with momentum, weights put into the order of the kernels again:
//! `cargo bench --bench training -- --help`; `benches/peers/training.py` measures the same steps in PyTorch and candle.

use clap::Parser;
use convolve::{Error, Layout, Sgd};
use convolve_benches::args::Args;
use convolve_benches::machine::Machine;
use convolve_benches::sample::{Effort, interleave, median};
use convolve_benches::session::{self, Session, refuse};
use convolve_examples::network::{Network, Parameters, Shape};
use serde::Serialize;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Measures a step of training of whole networks, NCHW and NHWC turn by turn. Plans and memory are made before; a step allocates nothing.
/// (`--suite`, `--problem` and `--algorithm` are for convolutions.)
#[derive(Parser)]
#[command(name = "training", bin_name = "cargo bench --bench training --", version)]
struct Flags {
    #[command(flatten)]
    common: Args,
    /// Only networks whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    network: String,
    /// Also prints what each layer and pass takes
    #[arg(long)]
    parts: bool,
}

/// One network in one layout. Its fields are the keys of the JSON file.
#[derive(Clone, Debug, Serialize)]
struct StepRow {
    network: &'static str,
    batch: usize,
    layout: String,
    threads: usize,
    isa: &'static str,
    median_s: f64,
    min_s: f64,
    gflops: f64,
    peak_fraction: f64,
    samples: usize,
    steady: bool,
    #[serde(flatten)]
    machine: Machine,
}

/// What steps of training work on.
struct Training<'p> {
    network: Network<'p>,
    parameters: Parameters,
    velocity: Parameters,
    pixels: Vec<f32>,
    labels: Vec<usize>,
}

/// Small: the same images come again and again, and the weights must stay finite.
const SGD: Sgd = Sgd { rate: 1e-4, momentum: 0.9 };

impl<'p> Training<'p> {
    fn new(shape: &Shape, session: &Session<'p>) -> Result<Self, Error> {
        // Xorshift (Marsaglia, 2003): uniform in (-1, 1).
        let mut state = 0x2545_f491_u32;
        let mut uniform = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        let parameters = Parameters::random(shape, &mut uniform)?;
        let len = shape.batch * shape.input.iter().product::<usize>();
        Ok(Self {
            network: Network::new(shape, &session.planner(), session.isa, session.par)?,
            velocity: Parameters::zeros(parameters.shapes.clone()),
            parameters,
            pixels: (0..len).map(|_| uniform()).collect(),
            labels: (0..shape.batch).map(|i| i * 7 % 10).collect(),
        })
    }

    /// All of it, part by part: `done` is told after each.
    fn step(&mut self, mut done: impl FnMut(usize)) -> Result<f64, Error> {
        let Self { network, parameters, velocity, pixels, labels } = self;
        let layers = network.layers();
        network.pack(parameters)?;
        done(0);
        for i in 0..layers {
            network.forward_layer(i, parameters, pixels)?;
            done(1 + i);
        }
        let loss = network.loss(labels)?;
        done(1 + layers);
        for i in (0..layers).rev() {
            network.backward_layer(i, pixels)?;
            done(2 + layers + i);
        }
        network.descend(SGD, parameters, velocity)?;
        done(2 + 2 * layers);
        Ok(loss)
    }
}

fn main() -> io::Result<()> {
    let flags = Flags::parse();
    let common = &flags.common;
    if !(common.suite.is_empty() && common.problem.is_empty() && common.algorithm.is_empty()) {
        refuse("--suite, --problem and --algorithm are for convolutions; choose networks with --network");
    }
    let mut shapes = vec![Shape::lenet5(64), Shape::vgg(32)];
    shapes.retain(|shape| shape.name.contains(&flags.network));
    if shapes.is_empty() {
        refuse(&format!("no network has `{}` in its name", flags.network));
    }
    session::run(common, |mut session| {
        session.header()?;
        for shape in &shapes {
            let report = measure(&mut session, shape, flags.parts)
                .unwrap_or_else(|error| refuse(&format!("{}: {error}", shape.name)));
            for row in &report.0 {
                session.write(row)?;
            }
            write!(io::stdout(), "\n{}", report.1)?;
        }
        session.footer(&others())
    })
}

/// Who else takes these steps: nobody here, as the other program takes turns with this one.
fn others() -> String {
    let find = "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is None)";
    let found = Command::new("python3").args(["-c", find]).stderr(Stdio::null()).status();
    let torch = match found {
        Ok(status) if status.success() => "the python3 found here has torch",
        Ok(_) => "the python3 found here has no torch",
        Err(_) => "there is no python3 here",
    };
    format!("PyTorch and candle take these steps in benches/peers/training.py; {torch}.")
}

/// Layouts turn by turn: rows, and what to print.
fn measure(session: &mut Session<'_>, shape: &Shape, parts: bool) -> Result<(Vec<StepRow>, String), Error> {
    let layouts: Vec<Layout> = session.args.layouts().iter().map(|&(layout, _)| layout).collect();
    let mut trainings = Vec::new();
    for &layout in &layouts {
        trainings.push(Training::new(&shape.clone().layout(layout), session)?);
    }
    let run = |training: &'_ mut Training<'_>| {
        let loss = training.step(|_| ());
        assert!(loss.is_ok_and(f64::is_finite), "a step of sizes that were planned, at a small rate");
    };
    let mut runs: Vec<_> = trainings.iter_mut().map(|training| move || run(training)).collect();
    let effort = Effort { budget: 8 * session.effort().budget, ..session.effort() };
    let series = interleave(&mut runs, &mut session.probe, effort);
    drop(runs);
    let (flops, peak) = (shape.flops()?, session.probe.peak() * f64::from(session.args.threads));
    let mut text = format!("{}, batch {}: {:.3} GFLOP a step\n", shape.name, shape.batch, flops / 1e9);
    let mut rows = Vec::new();
    for (layout, series) in layouts.iter().zip(&series) {
        let statistics = series.statistics(session.probe.best()).expect("there is a sample");
        let rate = flops / statistics.median;
        let row = StepRow {
            network: shape.name,
            batch: shape.batch,
            layout: layout.to_string(),
            threads: session.args.threads.into(),
            isa: session.isa.name(),
            median_s: statistics.median,
            min_s: statistics.min,
            gflops: rate / 1e9,
            peak_fraction: rate / peak,
            samples: statistics.taken,
            steady: statistics.steady,
            machine: session.machine().clone(),
        };
        let restless = if row.steady { "" } else { " ~" };
        let (ms, percent) = (1e3 * row.median_s, 100.0 * row.peak_fraction);
        let _ = writeln!(
            text,
            "  {layout}: {ms:.3} ms, {:.1} GFLOP/s, {percent:.0} % of the peak{restless}",
            row.gflops
        );
        rows.push(row);
    }
    for (layout, training) in layouts.iter().zip(&mut trainings).filter(|_| parts) {
        let _ = writeln!(text, "{layout}, microseconds\n{}", parts_of(training)?);
    }
    Ok((rows, text))
}

/// The median time of each part of a step.
fn parts_of(training: &mut Training<'_>) -> Result<String, Error> {
    let names = training.network.names();
    let layers = names.len();
    let mut times = vec![Vec::new(); 3 + 2 * layers];
    let begin = Instant::now();
    while times[0].len() < 5 || begin.elapsed() < Duration::from_secs(1) {
        let mut last = Instant::now();
        training.step(|part| {
            times[part].push(1e6 * last.elapsed().as_secs_f64());
            last = Instant::now();
        })?;
    }
    let medians: Vec<f64> = times.iter_mut().filter_map(|times| median(times)).collect();
    let mut text = format!("{:>10}            weights into order\n", format!("{:.0}", medians[0]));
    for (i, name) in names.iter().enumerate() {
        let _ = writeln!(text, "{:10.0}{:10.0}  {name}", medians[1 + i], medians[2 + layers + i]);
    }
    let _ = writeln!(text, "{:10.0}            loss", medians[1 + layers]);
    let _ = writeln!(text, "{:>10}{:10.0}  descent", "", medians[2 + 2 * layers]);
    Ok(text)
}
