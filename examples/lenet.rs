//! A network that learns to read: LeNet-5 on 1,797 real handwritten digits, trained and tested in seconds on one core.
//!
//! ```text
//! cargo run --release -p convolve-examples --example lenet                                          # trains; pictures, curves and weights in out/lenet
//! cargo run --release -p convolve-examples --example lenet -- --seed 7 --threads 4
//! cargo run --release -p convolve-examples --example lenet -- --load out/lenet/lenet.safetensors    # tests without training
//!
//! examples/fetch mnist5k                                                                            # 5,000 digits of MNIST, 28x28
//! cargo run --release -p convolve-examples --example lenet -- --data mnist5k                        # the same in out/lenet-mnist5k
//!
//! 28x28x1 -> CONV 5x5 same, 6 -> POOL -> 14x14x6 -> CONV 5x5 valid, 16 -> POOL -> 5x5x16 -> FC 120 -> FC 84 -> FC 10 -> softmax
//! ```
//!
//! ReLU after every layer that learns but the last; pools take the maximum of 2 x 2 pixels. The digits in the program are of 8 x 8 pixels and are
//! enlarged to that size: in a network of this shape for 8 x 8, whose last pictures are of 2 x 2 pixels, 97.2 to 98.6 % were read right (five seeds, 30 epochs).
//!
//! Every fifth digit is held out. Digits move by up to two pixels from step to step. The same seed gives the same bits, for any number of threads.
//! The file of the weights names the digits they were trained on; they are not tested on others.

#[path = "lenet/digits.rs"]
mod digits;
#[path = "lenet/file.rs"]
mod file;
#[path = "lenet/pictures.rs"]
mod pictures;

use clap::builder::RangedU64ValueParser as Ranged;
use clap::{Parser, ValueEnum};
use convolve::{Adam, Isa, Par, Planner};
use convolve_examples::folder;
use convolve_examples::network::{Network, Parameters, Shape};
use digits::{CLASSES, Digits};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// What went wrong is one sentence for a person.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Where `examples/fetch mnist5k` puts the digits.
const MNIST5K: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/examples/mnist5k/digits.bin");

/// Digits of a step.
const BATCH: usize = 32;

/// Which digits.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Data {
    /// 1,797 of 8 x 8 pixels, enlarged, in the program
    Uci,
    /// 5,000 of MNIST, 28 x 28 pixels, which examples/fetch mnist5k fetches
    Mnist5k,
}

impl Data {
    /// As on the command line.
    fn name(self) -> &'static str {
        match self {
            Self::Uci => "uci",
            Self::Mnist5k => "mnist5k",
        }
    }

    /// Where pictures, curves and weights go if nothing else is said.
    fn out(self) -> &'static Path {
        Path::new(match self {
            Self::Uci => "out/lenet",
            Self::Mnist5k => "out/lenet-mnist5k",
        })
    }
}

#[derive(Parser)]
#[command(about = "Trains LeNet-5 on handwritten digits")]
struct Arguments {
    /// Where pictures, curves and weights go [default: out/lenet, or out/lenet-mnist5k with --data mnist5k]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Of the first weights and of the order of digits.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Digits to learn from and to be tested with.
    #[arg(long, value_enum, default_value = "uci")]
    data: Data,
    /// Passes over the digits, from 1 to 10000.
    #[arg(long, default_value_t = 20, value_parser = Ranged::<usize>::new().range(1..=10_000))]
    epochs: usize,
    /// Threads, from 1 to 256; they change no bit.
    #[arg(long, default_value_t = 1, value_parser = Ranged::<usize>::new().range(1..=256))]
    threads: usize,
    /// Tests these weights instead of training.
    #[arg(long)]
    load: Option<PathBuf>,
}

/// After an epoch.
struct Point {
    loss: f64,
    train: f64,
    test: f64,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lenet: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let begin = Instant::now();
    let out = arguments.out.as_deref().unwrap_or(arguments.data.out());
    let pool = rayon::ThreadPoolBuilder::new().num_threads(arguments.threads).build()?;
    let (train, test) = match arguments.data {
        Data::Uci => Digits::embedded(),
        Data::Mnist5k => Digits::mnist5k(Path::new(MNIST5K))?,
    }
    .split();
    let shape = Shape::lenet5(BATCH);
    let mut network = network(&shape, Par::Pool(&pool), arguments.threads)?;
    let loaded = arguments.load.as_deref().map(|path| file::load(path, &shape, arguments.data.name()));
    let loaded = loaded.transpose()?;
    // Once everything that it depends on is there.
    folder::make(out)?;
    let parameters = match loaded {
        Some(parameters) => parameters,
        None => {
            let (parameters, curve) = learn(&mut network, &shape, [&train, &test], arguments)?;
            pictures::curves(&out.join("curves.svg"), &curve)?;
            file::save(&parameters, arguments.data.name(), &out.join("lenet.safetensors"))?;
            parameters
        }
    };
    let read = answers(&mut network, &parameters, &test)?;
    let misread: Vec<usize> = (0..test.len()).filter(|&i| read[i] != test.labels[i]).collect();
    pictures::misread(&out.join("misread.png"), &test, &misread, &read)?;
    pictures::filters(&out.join("filters.png"), &parameters.tensors[0], 5)?;
    for &i in &misread {
        println!("digit {i} of the test is a {}, read as a {}", test.labels[i], read[i]);
    }
    println!(
        "{:.2} % of {} held-out digits read right, {:.1} s on {} thread(s), weights {:016x}; see {}",
        100.0 * (test.len() - misread.len()) as f64 / test.len() as f64,
        test.len(),
        begin.elapsed().as_secs_f64(),
        arguments.threads,
        file::fingerprint(&parameters),
        out.display(),
    );
    Ok(())
}

/// Plans for a batch.
fn network<'p>(shape: &Shape, par: Par<'p>, threads: usize) -> Result<Network<'p>> {
    Ok(Network::new(shape, &Planner::new().threads(threads), Isa::from_env()?, par)?)
}

/// Adam (Kingma and Ba, 2015) with a step that falls to zero.
fn learn(
    network: &mut Network<'_>,
    shape: &Shape,
    [train, test]: [&Digits; 2],
    arguments: &Arguments,
) -> Result<(Parameters, Vec<Point>)> {
    let mut random = digits::Random::new(arguments.seed);
    let mut parameters = Parameters::random(shape, || random.uniform())?;
    let mut moments = [(); 2].map(|()| Parameters::zeros(parameters.shapes.clone()));
    let mut order: Vec<usize> = (0..train.len()).collect();
    let steps = train.len() / BATCH;
    let bar = ProgressBar::new((arguments.epochs * steps) as u64);
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} steps, {eta} left, {msg}")?);
    let (mut curve, mut time, isa) = (Vec::new(), 0, Isa::from_env()?);
    for epoch in 0..arguments.epochs {
        random.shuffle(&mut order);
        let (mut loss, mut right) = (0.0, 0);
        for batch in order.chunks_exact(BATCH) {
            let (mut pixels, labels) = train.gather(batch);
            digits::shift(&mut pixels, &mut random);
            network.pack(&parameters)?;
            let logits = network.forward(&parameters, &pixels)?;
            right += labels
                .iter()
                .zip(logits.chunks(CLASSES))
                .filter(|(label, row)| greatest(row) == **label)
                .count();
            loss += network.loss(&labels)?;
            let gradients = network.backward(&pixels)?;
            let rate = 2e-3 * (1.0 - time as f64 / (arguments.epochs * steps) as f64);
            let adam = Adam { rate, ..Adam::default() };
            time += 1;
            let [first, second] = moments.each_mut().map(|moments| &mut moments.tensors);
            let moments = first.iter_mut().zip(second).map(|(first, second)| [&mut first[..], second]);
            let tensors = parameters.tensors.iter_mut().zip(&gradients.tensors);
            for ((weights, gradient), moments) in tensors.zip(moments) {
                adam.step(weights, gradient, moments, time, isa)?;
            }
            bar.inc(1);
        }
        let read = answers(network, &parameters, test)?;
        let fraction = |right: usize, all: usize| right as f64 / all as f64;
        let right_test = read.iter().zip(&test.labels).filter(|(read, label)| read == label).count();
        curve.push(Point {
            loss: loss / steps as f64,
            train: fraction(right, steps * BATCH),
            test: fraction(right_test, test.len()),
        });
        bar.set_message(format!("epoch {}: loss {:.4}", epoch + 1, loss / steps as f64));
    }
    bar.finish_and_clear();
    Ok((parameters, curve))
}

/// What the network reads, digit by digit; the last batch is filled up with the first digit.
fn answers(network: &mut Network<'_>, parameters: &Parameters, digits: &Digits) -> Result<Vec<usize>> {
    network.pack(parameters)?;
    let mut answers = Vec::new();
    for first in (0..digits.len()).step_by(BATCH) {
        let batch: Vec<usize> =
            (first..first + BATCH).map(|i| if i < digits.len() { i } else { 0 }).collect();
        let (pixels, _) = digits.gather(&batch);
        answers.extend(network.forward(parameters, &pixels)?.chunks(CLASSES).map(greatest));
    }
    answers.truncate(digits.len());
    Ok(answers)
}

fn greatest(row: &[f32]) -> usize {
    (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap_or(0)
}

#[cfg(test)]
#[path = "lenet/tests.rs"]
mod tests;
