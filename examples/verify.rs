//! Runs every algorithm that accepts a problem, in every pass, layout and instruction set, and compares each result with the
//! definition, on integers, exactly.
//!
//! ```text
//! cargo run --release --example verify -- testkit/problems/smoke.txt
//! cargo run --release --example verify -- --algorithm direct --isa avx2 mb1ic64ih56oc64kh3ph1
//! ```
//!
//! Files are those of oneDNN's `tests/benchdnn/inputs/conv`; without a file or problem it reads all of `testkit/problems`.
//! Exit code: 1 when any result is wrong, otherwise 2 when a line was bad or nothing was run, otherwise 0.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use clap::Parser;
use convolve::{Conv2d, Isa, Layout, NamedProblem, WeightLayout, problems};
use convolve_testkit::{Algorithms, Direction, Scope, TINY, Tally, isas};
use indicatif::{ProgressBar, ProgressStyle};

/// Compares every algorithm with the definition, on integers, exactly.
#[derive(Parser)]
struct Args {
    /// Problem strings, or files of them; all of testkit/problems if there are none.
    #[arg(value_name = "FILE|PROBLEM")]
    from: Vec<String>,
    /// Skip problems with more multiplications than that.
    #[arg(long)]
    max_macs: Option<u64>,
    /// Only this algorithm.
    #[arg(long)]
    algorithm: Option<String>,
    /// Only this pass: fwd, bwd_d, bwd_w.
    #[arg(long = "pass")]
    direction: Option<Direction>,
    /// Only this instruction set.
    #[arg(long)]
    isa: Option<Isa>,
    /// Only this layout: NCHW or NHWC.
    #[arg(long, value_parser = layout)]
    layout: Option<Layout>,
    /// Only this layout of weights: OIHW, OHWI or HWIO. Without it problems take turns.
    #[arg(long, value_parser = weight_layout)]
    weight_layout: Option<WeightLayout>,
    /// Every layout of weights for every problem.
    #[arg(long, conflicts_with = "weight_layout")]
    all_weight_layouts: bool,
    /// Threads of each run, 1 to 8.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    threads: u8,
    /// Plan for tiny caches, so that small problems take the loops of large ones.
    #[arg(long)]
    tiny_caches: bool,
    /// Decides data, poison and alignment.
    #[arg(long)]
    seed: Option<u64>,
}

fn layout(name: &str) -> Result<Layout, String> {
    Layout::ALL.into_iter().find(|x| x.to_string().eq_ignore_ascii_case(name)).ok_or("NCHW or NHWC".into())
}

fn weight_layout(name: &str) -> Result<WeightLayout, String> {
    WeightLayout::ALL
        .into_iter()
        .find(|x| x.to_string().eq_ignore_ascii_case(name))
        .ok_or("OIHW, OHWI or HWIO".into())
}

/// The problems, and how many things could not be read; each is reported.
fn read(from: &[String]) -> (Vec<Conv2d>, usize) {
    let mut files: Vec<PathBuf> = Vec::new();
    let (mut convs, mut bad) = (Vec::new(), 0);
    let mut complain = |what: String| {
        eprintln!("{what}");
        bad += 1;
    };
    if from.is_empty() {
        match std::fs::read_dir(convolve_testkit::problems::directory()) {
            Ok(entries) => files.extend(entries.flatten().map(|entry| entry.path())),
            Err(error) => complain(format!("testkit/problems: {error}")),
        }
        files.sort();
    }
    for argument in from {
        let path = Path::new(argument);
        if path.exists() {
            files.push(path.to_owned());
            continue;
        }
        match argument.parse::<NamedProblem>() {
            Ok(problem) => convs.push((argument.clone(), problem.conv)),
            Err(error) => complain(format!("`{argument}` is no file, and as a problem: {error}")),
        }
    }
    for file in files {
        let name = file.display();
        match std::fs::read_to_string(&file) {
            Err(error) => complain(format!("{name}: {error}")),
            Ok(text) => {
                for (line, problem) in problems(&text) {
                    match problem {
                        Ok(problem) => convs.push((format!("{name}:{line}"), problem.conv)),
                        Err(error) => complain(format!("{name}:{line}: {error}")),
                    }
                }
            }
        }
    }
    // A string may parse and still be no convolution.
    convs.retain(|(at, conv)| match conv.geometry() {
        Ok(_) => true,
        Err(error) => {
            complain(format!("{at}: {error}"));
            false
        }
    });
    (convs.into_iter().map(|(_, conv)| conv).collect(), bad)
}

fn scope(args: &Args) -> Result<Scope, String> {
    let algorithms = Algorithms::registered();
    let mut known: Vec<_> = Direction::ALL.iter().flat_map(|&d| algorithms.names(d)).collect();
    known.sort_unstable();
    known.dedup();
    if let Some(name) = &args.algorithm
        && !known.contains(&name.as_str())
    {
        return Err(format!("no algorithm is called `{name}`; there are: {}", known.join(", ")));
    }
    let everything = Scope::of(algorithms);
    Ok(Scope {
        only: args.algorithm.clone(),
        directions: args.direction.map_or(everything.directions.clone(), |direction| vec![direction]),
        layouts: args.layout.map_or(everything.layouts.clone(), |layout| vec![layout]),
        isas: args.isa.map_or_else(isas, |isa| vec![isa]),
        threads: vec![args.threads.into()],
        caches: if args.tiny_caches { vec![TINY] } else { everything.caches.clone() },
        ..everything
    })
}

/// Checks all problems, on as many threads as the machine has. Each thread takes the next one, so a giant holds up nobody.
fn check(args: &Args, scope: &Scope, convs: &[Conv2d]) -> Tally {
    let bar = if std::io::stderr().is_terminal() {
        ProgressBar::new(convs.len() as u64)
    } else {
        ProgressBar::hidden()
    };
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} problems, {eta} left");
    bar.set_style(style.expect("a template that is right once is right"));
    let (next, total) = (AtomicUsize::new(0), Mutex::new(Tally::default()));
    let work = |_: rayon::BroadcastContext<'_>| loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        let Some(&conv) = convs.get(index) else { return };
        let seed = args.seed.unwrap_or(index as u64);
        let weight_layouts = match args.weight_layout {
            Some(layout) => vec![layout],
            None if args.all_weight_layouts => WeightLayout::ALL.to_vec(),
            None => vec![WeightLayout::ALL[index / 3 % 3]],
        };
        let tally = Scope { weight_layouts, ..scope.clone() }.check(conv, seed);
        bar.suspend(|| tally.mismatches.iter().for_each(|mismatch| eprintln!("WRONG: {mismatch}")));
        total.lock().expect("no thread panics with the lock").add(tally);
        bar.inc(1);
    };
    rayon::broadcast(work);
    bar.finish_and_clear();
    total.into_inner().expect("no thread panics with the lock")
}

fn main() -> ExitCode {
    let args = Args::parse();
    let scope = match scope(&args) {
        Ok(scope) => scope,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let start = Instant::now();
    let (mut convs, bad) = read(&args.from);
    let found = convs.len();
    convs.retain(|conv| args.max_macs.is_none_or(|max| conv.geometry().is_ok_and(|g| g.macs() <= max)));
    let tally = check(&args, &scope, &convs);
    let refused: u64 = tally.refused.values().sum();
    println!(
        "problems    {:>9}  ({} skipped by --max-macs, {bad} bad lines)",
        tally.problems,
        found - convs.len()
    );
    println!("executions  {:>9}  ({:.1} s)", tally.executions, start.elapsed().as_secs_f64());
    println!("refused     {refused:>9}");
    for ((direction, algorithm, reason), count) in &tally.refused {
        println!("            {count:>9}  {direction} {algorithm}: {reason}");
    }
    println!("mismatches  {:>9}", tally.mismatches.len());
    if tally.executions == 0 {
        eprintln!("nothing was run");
    }
    match (tally.mismatches.len(), bad, tally.executions) {
        (0, 0, 1..) => ExitCode::SUCCESS,
        (0, ..) => ExitCode::from(2),
        _ => ExitCode::from(1),
    }
}
