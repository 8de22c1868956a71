//! Neural style: a network of 0.75 MB repaints a photograph in 26 styles.
//!
//! ```text
//! examples/fetch style                                        # once: the network
//! cargo run --release -p convolve-examples --example style    # the embedded photograph in every style, in out/style
//! cargo run --release -p convolve-examples --example style -- PHOTO --style 7 --out DIR
//! ```
//!
//! A style is a scale and a shift for each channel after each convolution; the convolutions are the same for all.
//! `examples/style/compare.py` compares with ONNX Runtime.

#[path = "files.rs"]
mod files;
#[path = "style/network.rs"]
mod network;
#[path = "onnx/proto.rs"]
mod proto;
#[cfg(test)]
#[path = "style/tests.rs"]
mod tests;

use clap::Parser;
use convolve_examples::folder;
use image::RgbImage;
use indicatif::{ProgressBar, ProgressStyle};
use network::{Network, STYLES, Tensor};
use safetensors::tensor::{Dtype, TensorView};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What went wrong is one sentence for a person.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Where `examples/fetch` puts the network.
const NETWORK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/examples/style/multistyle26.onnx");

#[derive(Parser)]
#[command(about = "Repaints a photograph")]
struct Arguments {
    /// A PNG or JPEG file [default: an embedded photograph]
    photo: Option<PathBuf>,
    /// Where the pictures go; it is made if it is not there
    #[arg(long, value_name = "DIR", default_value = "out/style")]
    out: PathBuf,
    /// From 0 to 25 [default: all of them]
    #[arg(long, value_parser = clap::value_parser!(u8).range(..STYLES as i64))]
    style: Option<u8>,
    /// Also write what goes into the network and what comes out, as numbers
    #[arg(long)]
    tensors: bool,
    /// The file of the network
    #[arg(long, value_name = "FILE", default_value = NETWORK)]
    network: PathBuf,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(report) => {
            print!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("style: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<String> {
    let network = Network::load(&arguments.network)?;
    let picture = picture(&photo(arguments.photo.as_deref())?)?;
    folder::make(&arguments.out)?;
    let styles = match arguments.style {
        Some(style) => vec![usize::from(style)],
        None => (0..STYLES).collect(),
    };
    let bar = ProgressBar::new(styles.len() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} styles, {eta} left")?);
    let mut time = Duration::MAX;
    for &style in &styles {
        let begin = Instant::now();
        let repainted = network.run(&picture, style)?;
        time = time.min(begin.elapsed());
        let path = arguments.out.join(format!("style-{style:02}.png"));
        files::save(&photograph(&repainted).into(), &path)?;
        if arguments.tensors {
            save(&arguments.out.join(format!("style-{style:02}.safetensors")), &picture, &repainted)?;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let ([height, width], count, ms) = (picture.size, styles.len(), time.as_secs_f64() * 1e3);
    let plural = if count == 1 { "" } else { "s" };
    let out = arguments.out.display();
    Ok(format!("{width} x {height} pixels in {count} style{plural}, {ms:.0} ms for the fastest; see {out}\n"))
}

fn photo(path: Option<&Path>) -> Result<RgbImage> {
    Ok(path.map_or_else(files::embedded, files::open)?.into_rgb8())
}

/// What the network sees: values from 0 to 1, and sides that can be halved twice; up to three rows and columns at the end are left out.
fn picture(photo: &RgbImage) -> Result<Tensor> {
    let [height, width] = [photo.height(), photo.width()].map(|size| size as usize / 4 * 4);
    if height.min(width) < 16 {
        let (width, height) = photo.dimensions();
        return Err(format!("the photograph has {width} x {height} pixels; it needs at least 16 x 16").into());
    }
    let at =
        |i: usize| photo.get_pixel((i % width) as u32, (i / width % height) as u32).0[i / (height * width)];
    let values = (0..3 * height * width).map(|i| f32::from(at(i)) / 255.0);
    Ok(Tensor { size: [height, width], channels: 3, values: values.collect() })
}

fn photograph(tensor: &Tensor) -> RgbImage {
    let [height, width] = tensor.size;
    RgbImage::from_fn(width as u32, height as u32, |x, y| {
        let pixel = y as usize * width + x as usize;
        image::Rgb(
            [0, 1, 2].map(|channel| (tensor.values[channel * height * width + pixel] * 255.0).round() as u8),
        )
    })
}

fn save(path: &Path, input: &Tensor, output: &Tensor) -> Result<()> {
    let bytes = [input, output].map(|x| x.values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
    let mut views = Vec::new();
    for (name, tensor, bytes) in [("input", input, &bytes[0]), ("output", output, &bytes[1])] {
        let shape = vec![tensor.channels, tensor.size[0], tensor.size[1]];
        views.push((name, TensorView::new(Dtype::F32, shape, bytes)?));
    }
    let bytes = safetensors::serialize(views, None)?;
    Ok(std::fs::write(path, bytes).map_err(|error| format!("cannot write {}: {error}", path.display()))?)
}
