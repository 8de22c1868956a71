//! Edge detection: the first lecture on convolutions, on a real photograph.
//!
//! ```text
//! cargo run --release --example edges                          # the embedded photograph, files in out/edges
//! cargo run --release --example edges -- PHOTO --out DIR       # any PNG or JPEG
//! ```
//!
//! A filter is a 3x3 matrix. It is laid over every pixel of the picture; the nine products are added up; the sum is the
//! pixel of the answer. Where the picture is flat the sum is 0; where it changes, the way the filter looks, it is large.
//! Several filters at once are one convolution with several output channels.

mod sheet;

use clap::Parser;
use convolve::{Conv2d, Epilogue, Error, Forward, Layout, Padding, Planner, forward};
use image::{DynamicImage, GrayImage, ImageDecoder, ImageError, ImageReader};
use std::fmt::Write as _;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Nine weights, row by row.
type Filter = [[f32; 3]; 3];

/// Bright on the left, dark on the right: such a vertical edge gives a large positive number, its mirror image a negative one.
#[rustfmt::skip]
const VERTICAL: Filter = [
    [1.0, 0.0, -1.0],
    [1.0, 0.0, -1.0],
    [1.0, 0.0, -1.0],
];

/// The same, turned by 90 degrees: bright above, dark below.
#[rustfmt::skip]
const HORIZONTAL: Filter = [
    [ 1.0,  1.0,  1.0],
    [ 0.0,  0.0,  0.0],
    [-1.0, -1.0, -1.0],
];

/// Sobel: more weight on the middle row, hence more robust.
#[rustfmt::skip]
const SOBEL_VERTICAL: Filter = [
    [1.0, 0.0, -1.0],
    [2.0, 0.0, -2.0],
    [1.0, 0.0, -1.0],
];

#[rustfmt::skip]
const SOBEL_HORIZONTAL: Filter = [
    [ 1.0,  2.0,  1.0],
    [ 0.0,  0.0,  0.0],
    [-1.0, -2.0, -1.0],
];

/// Scharr: other nine numbers, nearly the same answer for an edge in any direction.
#[rustfmt::skip]
const SCHARR_VERTICAL: Filter = [
    [ 3.0, 0.0,  -3.0],
    [10.0, 0.0, -10.0],
    [ 3.0, 0.0,  -3.0],
];

#[rustfmt::skip]
const SCHARR_HORIZONTAL: Filter = [
    [ 3.0,  10.0,  3.0],
    [ 0.0,   0.0,  0.0],
    [-3.0, -10.0, -3.0],
];

/// Sees nothing: for the channels that a volume filter leaves out.
const BLIND: Filter = [[0.0; 3]; 3];

/// On the grey picture: one channel in, six channels out.
const GREY_FILTERS: [(&str, [Filter; 1]); 6] = [
    ("vertical", [VERTICAL]),
    ("horizontal", [HORIZONTAL]),
    ("sobel vertical", [SOBEL_VERTICAL]),
    ("sobel horizontal", [SOBEL_HORIZONTAL]),
    ("scharr vertical", [SCHARR_VERTICAL]),
    ("scharr horizontal", [SCHARR_HORIZONTAL]),
];

/// On the colour picture, a convolution over a volume: a filter is 3x3x3, one 3x3 slice each for red, green and blue, and all 27
/// products are added up into one number.
const COLOUR_FILTERS: [(&str, [Filter; 3]); 2] =
    [("vertical, red only", [VERTICAL, BLIND, BLIND]), ("vertical, rgb", [VERTICAL, VERTICAL, VERTICAL])];

/// A filter's answer for every pixel, and its gain: the answer to a step of one grey level.
struct Response {
    name: String,
    gain: f32,
    values: Vec<f32>,
}

/// Brightness of the edge pictures. `|response| / gain` is the height of the step in grey levels, whatever the filter; it is shown
/// this many times as bright, so that a step of 85 grey levels is white.
const BRIGHTNESS: f32 = 3.0;

/// Beyond this many pixels a picture is refused: its responses would take several GiB.
const MOST_PIXELS: u64 = 40_000_000;

const EMBEDDED: &[u8] = include_bytes!("data/astronaut.jpg");

/// Finds the edges of a photograph with the filters of the lecture.
#[derive(Parser)]
struct Args {
    /// A PNG or JPEG file [default: an embedded photograph]
    photo: Option<PathBuf>,
    /// Where the pictures go; made if it is not there
    #[arg(long, value_name = "DIR", default_value = "out/edges")]
    out: PathBuf,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match lecture().map_err(|error| error.to_string()).and_then(|toy| {
        print!("{toy}");
        find_edges(args.photo.as_deref(), &args.out)
    }) {
        Ok(report) => {
            print!("{report}");
            ExitCode::SUCCESS
        }
        Err(sentence) => {
            eprintln!("edges: {sentence}");
            ExitCode::FAILURE
        }
    }
}

/// The 6x6 picture of the lecture, and its mirror image, under the vertical filter.
fn lecture() -> Result<String, Error> {
    let mut text = String::from("The 6x6 picture of the lecture * the vertical filter 1 0 -1, without padding: 4x4\n\n");
    for (title, row) in [
        ("light to dark", [10, 10, 10, 0, 0, 0]), //
        ("dark to light", [0, 0, 0, 10, 10, 10]),
    ] {
        let conv = Conv2d::new(1, 1, 3).input([6, 6]).padding(Padding::Valid);
        let (_, responses) = apply(conv, &[row; 6].concat(), &[("", [VERTICAL])])?;
        let answer = responses[0].values.chunks(4);
        let filter = ["", "", " *   1  0 -1", " *   1  0 -1", " *   1  0 -1"];
        writeln!(text, "  {title}").expect("a String takes all");
        for line in 0..6 {
            write!(text, "  {}", row.map(|x| format!("{x:>4}")).concat()).expect("a String takes all");
            let _ = (line, &filter, &answer);
            text.push('\n');
        }
    }
    Ok(text)
}
