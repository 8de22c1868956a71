//! Face detection: a pretrained network of 193 KB finds the faces of a photograph and draws a box around each.
//!
//! ```text
//! examples/fetch detect                                                           # once: the weights
//! cargo run --release -p convolve-examples --example detect                       # the embedded photograph, the picture in out/detect
//! cargo run --release -p convolve-examples --example detect -- PHOTO --out DIR    # any PNG or JPEG
//! ```
//!
//! One look at the picture answers for 13 x 13 cells at once, which is the sliding window of the lecture done by convolution.

#[path = "detect/boxes.rs"]
mod boxes;
#[path = "files.rs"]
mod files;
#[path = "detect/network.rs"]
mod network;
#[cfg(test)]
#[path = "detect/tests.rs"]
mod tests;

use boxes::Face;
use clap::Parser;
use convolve_examples::folder;
use image::RgbImage;
use image::imageops::{self, FilterType};
use indicatif::{ProgressBar, ProgressStyle};
use network::{INPUT, Network};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What went wrong is one sentence for a person.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Where `examples/fetch` puts the weights.
const WEIGHTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/examples/detect");

#[derive(Parser)]
#[command(about = "Finds the faces of a photograph")]
struct Arguments {
    /// A PNG or JPEG file [default: an embedded photograph]
    photo: Option<PathBuf>,
    /// Where the picture goes; it is made if it is not there
    #[arg(long, value_name = "DIR", default_value = "out/detect")]
    out: PathBuf,
    /// How sure the network must be of a face, from 0 to 1
    #[arg(long, default_value_t = 0.5, value_parser = probability)]
    least: f32,
    /// The folder of the weights
    #[arg(long, value_name = "DIR", default_value = WEIGHTS)]
    weights: PathBuf,
}

fn probability(text: &str) -> std::result::Result<f32, String> {
    let number = text.parse().ok().filter(|number| (0.0..=1.0).contains(number));
    number.ok_or_else(|| "it must be a number from 0 to 1".into())
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(report) => {
            print!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("detect: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<String> {
    let bar = ProgressBar::new(3);
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}")?);
    let done = |next: &'static str| {
        bar.inc(1);
        bar.set_message(next);
    };
    bar.set_message("network");
    let mut network = Network::load(&arguments.weights)?;
    done("faces");
    let mut photo = photo(arguments.photo.as_deref())?;
    let (faces, time) = detect(&mut network, &photo, arguments.least)?;
    done("picture");
    faces.iter().for_each(|face| boxes::draw(&mut photo, face));
    folder::make(&arguments.out)?;
    let path = arguments.out.join("faces.png");
    files::save(&photo.into(), &path)?;
    bar.finish_and_clear();
    let list: Vec<_> = faces.iter().map(sentence).collect();
    let list = if list.is_empty() { String::new() } else { format!(": {}", list.join("; ")) };
    let (count, ms, path) = (faces.len(), time.as_secs_f64() * 1e3, path.display());
    Ok(format!("{count} face{} found in {ms:.1} ms{list}; see {path}\n", if count == 1 { "" } else { "s" }))
}

fn sentence(face: &Face) -> String {
    let &Face { left, top, right, bottom, score } = face;
    format!("x {left:.0} to {right:.0}, y {top:.0} to {bottom:.0}, {:.0} % sure", score * 100.0)
}

fn photo(path: Option<&Path>) -> Result<RgbImage> {
    Ok(path.map_or_else(files::embedded, files::open)?.into_rgb8())
}

/// The faces, the surest first, and the time that the network took.
fn detect(network: &mut Network, photo: &RgbImage, least: f32) -> Result<(Vec<Face>, Duration)> {
    let side = photo.width().max(photo.height());
    let begin = Instant::now();
    let answer = network.run(&square(photo))?;
    let time = begin.elapsed();
    Ok((boxes::surest(boxes::boxes(&answer, side as f32, least)), time))
}

/// The photograph at the size of the network, black at the bottom or on the right where it is no square.
fn square(photo: &RgbImage) -> Vec<u8> {
    let longest = photo.width().max(photo.height());
    let [width, height] = [photo.width(), photo.height()]
        .map(|size| ((f64::from(size) * INPUT as f64 / f64::from(longest)).round() as u32).max(1));
    let mut square = RgbImage::new(INPUT as u32, INPUT as u32);
    imageops::replace(&mut square, &imageops::resize(photo, width, height, FilterType::Triangle), 0, 0);
    square.into_raw()
}
