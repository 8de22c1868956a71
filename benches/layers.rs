//! Pooling, fully connected layers and activations against oneDNN and against a copy, turn by turn in one process:
//! `cargo bench --bench layers -- --help`.

use clap::Parser;
use convolve::{Epilogue, Error, Function, Isa, Layout, Linear, Pool2d, Reduction, Update, Workspace};
use convolve_benches::args::Args;
use convolve_benches::case::{AnyPass, numbers};
use convolve_benches::machine::Machine;
use convolve_benches::onednn::{Data, OneDnn, Primitive};
use convolve_benches::sample::interleave;
use convolve_benches::session::{self, Session, progress_bar, refuse};
use convolve_benches::table;
use serde::Serialize;
use std::io::{self, Write};
use std::path::PathBuf;

/// Measures pooling, fully connected layers and activations against oneDNN and against a copy of as many bytes as the layer reads and writes,
/// turn by turn in one process. (`--suite`, `--problem`, `--algorithm` and `--layout` are for convolutions.)
#[derive(Parser)]
#[command(name = "layers", bin_name = "cargo bench --bench layers --", version)]
struct Flags {
    #[command(flatten)]
    common: Args,
    /// Only layers whose name contains this, e.g. "max 3x3"
    #[arg(long, value_name = "TEXT", default_value = "")]
    layer: String,
    /// oneDNN 3's libdnnl.so.3; scripts/onednn fetches it
    #[arg(long, value_name = "FILE", env = "CONVOLVE_ONEDNN")]
    onednn: Option<PathBuf>,
}

/// One layer and pass by one library. Its fields are the keys of the JSON file.
#[derive(Clone, Debug, Serialize)]
struct LayerRow {
    layer: String,
    pass: &'static str,
    threads: usize,
    isa: &'static str,
    /// Who computes, and in which layout.
    who: String,
    /// The kernel, where it tells.
    implementation: Option<String>,
    median_s: f64,
    min_s: f64,
    /// What the layer must read and write.
    bytes: usize,
    /// Its bytes per second over those of the copy.
    of_copy: f64,
    /// Floating-point operations of products per second, over the peak of one core; none where a layer has no products.
    peak_fraction: Option<f64>,
    /// Its median time over that of the fastest row of ours.
    ratio: f64,
    samples: usize,
    steady: bool,
    #[serde(flatten)]
    machine: Machine,
}

const OURS: &str = "convolve";
const COPY: &str = "copy";

/// What is measured.
#[derive(Clone, Copy)]
enum Layer {
    Pool(Pool2d),
    Linear(Linear),
    Function(Function, usize),
}

/// Its name, how it is implemented, and what to time.
type Run<'a> = (String, Option<String>, Box<dyn FnMut() + 'a>);

/// A layer and pass: its work, and everyone who can do it.
struct Contest<'a> {
    bytes: usize,
    flops: usize,
    runs: Vec<Run<'a>>,
}

fn layers() -> Vec<Layer> {
    let mut layers = Vec::new();
    let kinds: [fn(usize) -> Pool2d; 2] = [|size| Pool2d::max(64, size), |size| Pool2d::average(64, size)];
    for size in [112, 56] {
        for kind in kinds {
            layers.push(Layer::Pool(kind(2).input(size)));
            layers.push(Layer::Pool(kind(3).input(size).stride(2).padding(1)));
        }
    }
    layers.push(Layer::Pool(Pool2d::global_average(2048, 7)));
    for (batch, inputs, outputs) in [(1, 4096, 4096), (1, 400, 120), (64, 400, 120), (64, 2048, 1000)] {
        layers.push(Layer::Linear(Linear::new(inputs, outputs).batch(batch)));
    }
    layers.extend(Function::ALL.map(|function| Layer::Function(function, 64 * 56 * 56)));
    layers
}

impl Layer {
    fn name(&self) -> String {
        match self {
            Self::Pool(pool) => {
                let kind = if matches!(pool.reduction, Reduction::Max { .. }) { "max" } else { "average" };
                let ([kh, kw], [h, w]) = (pool.kernel, pool.input);
                let stride = pool.stride[0];
                format!("{kind} {kh}x{kw} s{stride} {}x{h}x{w}", pool.channels)
            }
            Self::Linear(linear) => {
                format!("linear mb{} {} -> {}", linear.batch, linear.in_features, linear.out_features)
            }
            Self::Function(function, len) => format!("{function:?} of {len}"),
        }
    }

    fn passes(&self) -> &'static [AnyPass] {
        match self {
            Self::Linear(_) => &AnyPass::ALL,
            _ => &[AnyPass::Forward, AnyPass::BackwardData],
        }
    }
}

fn main() -> io::Result<()> {
    let flags = Flags::parse();
    let common = &flags.common;
    if !(common.suite.is_empty() && common.problem.is_empty() && common.algorithm.is_empty()) {
        refuse("--suite, --problem and --algorithm are for convolutions; choose layers with --layer");
    }
    // Its OpenMP reads this when the library is loaded, which is before any thread of ours is started.
    // SAFETY: no other thread runs yet.
    unsafe { std::env::set_var("OMP_NUM_THREADS", common.threads.to_string()) };
    let path = flags.onednn.as_ref();
    let chosen: Vec<Layer> =
        layers().into_iter().filter(|layer| layer.name().contains(&flags.layer)).collect();
    if chosen.is_empty() {
        refuse(&format!("no layer has `{}` in its name", flags.layer));
    }
    session::run(common, |mut session| {
        let onednn = path.map(|path| OneDnn::open(path).unwrap_or_else(|error| refuse(&error)));
        session.header()?;
        if onednn.is_none() {
            println!(
                "oneDNN:   not measured; `scripts/onednn` fetches it, `--onednn FILE` or CONVOLVE_ONEDNN names it"
            );
        }
        let (bar, wanted) = (progress_bar(chosen.len()), session.args.passes());
        let mut all = Vec::new();
        for layer in chosen {
            bar.set_message(layer.name());
            for &pass in layer.passes().iter().filter(|pass| wanted.contains(pass)) {
                let rows = bar
                    .suspend(|| measure(&mut session, onednn.as_ref(), layer, pass))
                    .unwrap_or_else(|error| refuse(&format!("{}: {error}", layer.name())));
                writeln!(io::stdout(), "\n{} {}\n{}", pass.name(), layer.name(), show(&rows))?;
                for row in &rows {
                    session.write(row)?;
                }
                all.extend(rows);
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        session.footer(&losing(&all))
    })
}

/// Everyone in turn.
fn measure(
    session: &mut Session<'_>,
    onednn: Option<&OneDnn>,
    layer: Layer,
    pass: AnyPass,
) -> Result<Vec<LayerRow>, Error> {
    let operands = operands(layer)?;
    let tensors = operands.each_ref().map(|operand| &**operand);
    let mut contest = match layer {
        Layer::Pool(pool) => pooling(session, onednn, pool, pass, tensors)?,
        Layer::Linear(linear) => connected(session, onednn, linear, pass, tensors)?,
        Layer::Function(function, _) => elementwise(session, onednn, function, pass, tensors)?,
    };
    // A copy reads as much as it writes.
    let (from, mut to) = (numbers(contest.bytes / 8)?, numbers(contest.bytes / 8)?);
    let copy = move || std::hint::black_box(&mut to).copy_from_slice(std::hint::black_box(&from));
    contest.runs.push((COPY.into(), None, Box::new(copy)));
    let (bytes, flops) = (contest.bytes, contest.flops);
    let (names, mut runs): (Vec<_>, Vec<_>) =
        contest.runs.into_iter().map(|(who, kernel, run)| ((who, kernel), run)).unzip();
    let effort = session.effort();
    let series = interleave(&mut runs, &mut session.probe, effort);
    let peak = session.probe.peak() * f64::from(session.args.threads);
    let statistics: Vec<_> = series
        .iter()
        .map(|series| series.statistics(session.probe.best()).expect("there is a sample"))
        .collect();
    let least = |keep: fn(&str) -> bool| {
        let these = names.iter().zip(&statistics).filter(|((who, _), _)| keep(who));
        these.map(|(_, statistics)| statistics.median).fold(f64::INFINITY, f64::min)
    };
    let (ours, copy) = (least(|who| who.starts_with(OURS)), least(|who| who == COPY));
    let rows = names.into_iter().zip(&statistics).map(|((who, implementation), statistics)| LayerRow {
        layer: layer.name(),
        pass: pass.name(),
        threads: session.args.threads.into(),
        isa: session.isa.name(),
        peak_fraction: (flops > 0 && who != COPY).then(|| flops as f64 / statistics.median / peak),
        who,
        implementation,
        median_s: statistics.median,
        min_s: statistics.min,
        bytes,
        of_copy: copy / statistics.median,
        ratio: statistics.median / ours,
        samples: statistics.taken,
        steady: statistics.steady,
        machine: session.machine().clone(),
    });
    Ok(rows.collect())
}

/// `src`, weights (or nothing) and `dst` or its gradient.
fn operands(layer: Layer) -> Result<[Workspace; 3], Error> {
    let lens = match layer {
        Layer::Pool(pool) => {
            let geometry = pool.geometry()?;
            [geometry.src_len(), 0, geometry.dst_len()]
        }
        Layer::Linear(Linear { batch, in_features: k, out_features: n, .. }) => [batch * k, k * n, batch * n],
        Layer::Function(_, len) => [len, 0, len],
    };
    let [src, weights, dst] = lens.map(numbers);
    Ok([src?, weights?, dst?])
}

/// Adds a run of ours that writes so many numbers, and gives what it computes.
fn add_ours<'a>(
    contest: &mut Contest<'a>,
    who: String,
    len: usize,
    mut run: impl FnMut(&mut [f32]) -> Result<(), Error> + 'a,
) -> Result<Vec<f32>, Error> {
    // On a cache line, as the memory of oneDNN and of most frameworks is: at other places each second register crosses two lines.
    let mut out = Workspace::new(len)?;
    run(&mut out)?;
    let ours = out.to_vec();
    contest.runs.push((who, None, Box::new(move || run(&mut out).expect("it ran before"))));
    Ok(ours)
}

/// Adds a run of oneDNN, if it has one, after comparing what it computes with ours.
fn add<'a>(
    contest: &mut Contest<'a>,
    who: &str,
    prepared: Result<Primitive<'a>, String>,
    ours: &[f32],
    terms: usize,
) {
    let primitive = match prepared {
        Ok(primitive) => primitive,
        Err(reason) => return println!("{who}: {reason}"),
    };
    let theirs = primitive.result().unwrap_or_else(|error| refuse(&error));
    // Operands are at most 1: a sum of K products is within K u K of the exact one (u = 2^-24).
    let bound = 2.0 * (terms as f64).powi(2) * f64::from(f32::EPSILON / 2.0);
    for (i, (a, b)) in ours.iter().zip(&theirs).enumerate() {
        let distance = f64::from(*a) - f64::from(*b);
        if distance.is_nan() || distance.abs() > bound {
            refuse(&format!("{who}: element {i} is {b}, ours {a}: not the same layer"));
        }
    }
    contest.runs.push((
        who.into(),
        Some(primitive.implementation.clone()),
        Box::new(move || primitive.run()),
    ));
}

fn pooling<'a>(
    session: &Session<'a>,
    onednn: Option<&'a OneDnn>,
    pool: Pool2d,
    pass: AnyPass,
    [src, _, diff_dst]: [&'a [f32]; 3],
) -> Result<Contest<'a>, Error> {
    let max = matches!(pool.reduction, Reduction::Max { .. });
    let read = if pass == AnyPass::Forward || !max { 1 } else { 2 };
    let mut contest = Contest { bytes: 4 * (read * src.len() + diff_dst.len()), flops: 0, runs: Vec::new() };
    // A maximum is exact; its gradient is a sum.
    let terms = if max && pass == AnyPass::Forward { 0 } else { pool.kernel[0] * pool.kernel[1] };
    let par = session.par;
    for layout in [Layout::Nchw, Layout::Nhwc] {
        let plan = session.planner().pool(pool.layout(layout))?;
        let geometry = *plan.geometry();
        let mut workspace = plan.workspace()?;
        let len = if pass == AnyPass::Forward { diff_dst.len() } else { src.len() };
        let run = move |out: &mut [f32]| match pass {
            AnyPass::Forward => plan.forward(src, out, &mut workspace, par),
            _ => plan.backward(src, diff_dst, out, Update::Overwrite, &mut workspace, par),
        };
        let ours = add_ours(&mut contest, format!("{OURS} {layout}"), len, run)?;
        if max {
            let plan = session.planner().pool(pool.layout(layout))?;
            let mut workspace = plan.workspace()?;
            let (mut dst, mut indices) = (vec![0.0; diff_dst.len()], vec![0; diff_dst.len()]);
            plan.forward_with_indices(src, &mut dst, &mut indices, &mut workspace, par)?;
            let run = move |out: &mut [f32]| match pass {
                AnyPass::Forward => plan.forward_with_indices(src, out, &mut indices, &mut workspace, par),
                _ => plan.backward_from_indices(
                    &indices,
                    diff_dst,
                    out,
                    Update::Overwrite,
                    &mut workspace,
                    par,
                ),
            };
            add_ours(&mut contest, format!("{OURS} {layout}, indices"), ours.len(), run)?;
        }
        let Some(onednn) = onednn else { continue };
        let mut data = vec![(Data::Plain, layout.to_string())];
        if layout == Layout::Nchw {
            data.push((Data::Best, format!("in blocks of {}", OneDnn::block())));
        }
        for (data, name) in data {
            let prepared = onednn.pool(&geometry, pass, data, [src, diff_dst]);
            add(&mut contest, &format!("oneDNN {name}"), prepared, &ours, terms);
        }
    }
    Ok(contest)
}

fn connected<'a>(
    session: &Session<'a>,
    onednn: Option<&'a OneDnn>,
    linear: Linear,
    pass: AnyPass,
    [src, weights, dst]: [&'a [f32]; 3],
) -> Result<Contest<'a>, Error> {
    let (bytes, flops) = (4 * (src.len() + weights.len() + dst.len()), 2 * linear.batch * weights.len());
    let mut contest = Contest { bytes, flops, runs: Vec::new() };
    let (plan, par, update) = (session.planner().linear(linear)?, session.par, Update::Overwrite);
    let mut workspace = plan.workspace()?;
    let packed = match pass {
        AnyPass::BackwardData => plan.pack_for_data(weights)?,
        _ => plan.pack(weights)?,
    };
    let (len, terms) = match pass {
        AnyPass::Forward => (dst.len(), linear.in_features),
        AnyPass::BackwardData => (src.len(), linear.out_features),
        AnyPass::BackwardWeights => (weights.len(), linear.batch),
    };
    let run = move |out: &mut [f32]| match pass {
        AnyPass::Forward => plan.forward(&packed, src, out, Epilogue::NONE, &mut workspace, par),
        AnyPass::BackwardData => plan.backward_data(&packed, dst, out, update, &mut workspace, par),
        AnyPass::BackwardWeights => plan.backward_weights(src, dst, out, None, update, &mut workspace, par),
    };
    let ours = add_ours(&mut contest, OURS.into(), len, run)?;
    if let Some(onednn) = onednn {
        add(&mut contest, "oneDNN", onednn.linear(&linear, pass, [src, weights, dst]), &ours, terms);
    }
    Ok(contest)
}

fn elementwise<'a>(
    session: &Session<'a>,
    onednn: Option<&'a OneDnn>,
    function: Function,
    pass: AnyPass,
    [src, _, diff_dst]: [&'a [f32]; 3],
) -> Result<Contest<'a>, Error> {
    let read = if pass == AnyPass::Forward { 1 } else { 2 };
    let mut contest = Contest { bytes: 4 * (read + 1) * src.len(), flops: 0, runs: Vec::new() };
    let (isa, par): (Isa, _) = (session.isa, session.par);
    let run = move |out: &mut [f32]| match pass {
        AnyPass::Forward => function.forward(src, out, isa, par),
        _ => function.backward(src, diff_dst, out, Update::Overwrite, isa, par),
    };
    let ours = add_ours(&mut contest, OURS.into(), src.len(), run)?;
    if let Some(onednn) = onednn {
        // A polynomial is as far from the exact value as a sum of some terms.
        add(&mut contest, "oneDNN", onednn.function(function, pass, [src, diff_dst]), &ours, 8);
    }
    Ok(contest)
}

fn show(rows: &[LayerRow]) -> String {
    let header = ["who", "kernel", "median ms", "GB/s", "of copy", "% of peak", "time / ours"];
    let mut table = table::new(&header);
    for row in rows {
        let unsteady = if row.steady { "" } else { "~" };
        table.add_row([
            row.who.clone(),
            row.implementation.clone().unwrap_or_default(),
            format!("{unsteady}{:.4}", 1e3 * row.median_s),
            format!("{:.1}", row.bytes as f64 / row.median_s / 1e9),
            format!("{:.2}", row.of_copy),
            row.peak_fraction.map_or(String::new(), |fraction| format!("{:.0}", 100.0 * fraction)),
            format!("{:.2}", row.ratio),
        ]);
    }
    table.to_string()
}

/// Every row of a peer that is faster than the best of ours.
fn losing(rows: &[LayerRow]) -> String {
    let mut table = table::new(&["losing rows", "peer", "time / ours"]);
    let peers = rows.iter().filter(|row| row.who.starts_with("oneDNN"));
    let (all, mut faster) = (peers.clone().count(), 0);
    for row in peers.filter(|row| row.ratio < 1.0) {
        faster += 1;
        table.add_row([format!("{} {}", row.pass, row.layer), row.who.clone(), format!("{:.2}", row.ratio)]);
    }
    format!("{faster} of {all} rows of peers are faster than ours.\n{table}")
}
