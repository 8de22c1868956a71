//! Edge detection: the first lecture on convolutions, on a real photograph.
//!
//! ```text
//! cargo run --release -p convolve-examples --example edges                       # the embedded photograph, files in out/edges
//! cargo run --release -p convolve-examples --example edges -- PHOTO --out DIR    # any PNG or JPEG
//! ```
//!
//! A filter is a 3x3 matrix. It is laid over every pixel of the picture; the nine products are added up; the sum is the
//! pixel of the answer. Where the picture is flat the sum is 0; where it changes, the way the filter looks, it is large.
//! Several filters at once are one convolution with several output channels.

#[path = "files.rs"]
mod files;
#[path = "edges/sheet.rs"]
mod sheet;

use clap::Parser;
use convolve::filters::{
    Filter, HORIZONTAL, SCHARR_HORIZONTAL, SCHARR_VERTICAL, SOBEL_HORIZONTAL, SOBEL_VERTICAL, VERTICAL,
};
use convolve::{Conv2d, Epilogue, Forward, Layout, Padding, Planner, forward};
use convolve_examples::folder;
use image::GrayImage;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What went wrong is one sentence for a person.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

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

/// Brightness of the edge pictures. `|response| / gain` is the height of a step in grey levels, whatever the filter; it is
/// shown this many times as bright, so pictures can be compared, and a step of 128 grey levels is white.
const BRIGHTNESS: f32 = 2.0;

const HOW_TO_READ: &str = "\
Brightness is 2 x |response| / (sum of the filter's positive weights), that is 2 x the step in grey levels:
the same for all filters, so pictures can be compared. The sign, the direction of the edge, is not shown.
The outermost pixels are not to be trusted: the picture is padded with nothing (`Padding::Same`), which
looks like black, so a bright border seems to be an edge.
";

/// A convolution is run so many times, and the fastest is reported: the first call wakes the threads.
const CALLS: u32 = 5;

/// Finds the edges of a photograph with the filters of the first lecture on convolutions.
#[derive(Parser)]
struct Args {
    /// A PNG or JPEG file [default: an embedded photograph]
    photo: Option<PathBuf>,
    /// Where the pictures go; it is made if it is not there
    #[arg(long, value_name = "DIR", default_value = "out/edges")]
    out: PathBuf,
}

fn main() -> ExitCode {
    let Args { photo, out } = Args::parse();
    // The lesson is not shown before an error.
    let report = find_edges(photo.as_deref(), &out).and_then(|report| Ok(lecture()? + &report));
    match report {
        Ok(report) => {
            show(&report);
            ExitCode::SUCCESS
        }
        Err(sentence) => {
            eprintln!("edges: {sentence}");
            ExitCode::FAILURE
        }
    }
}

/// On the terminal, or through a pipe, whose reader may have seen enough and closed it.
fn show(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

/// One convolution of a picture with several filters.
struct Answer {
    conv: Conv2d,
    /// Of one call: planning, packing the weights, convolving.
    time: Duration,
    responses: Vec<Response>,
}

/// What one filter says about every pixel.
struct Response {
    name: String,
    /// The response to a step of one grey level: the sum of the filter's positive weights.
    gain: f32,
    values: Vec<f32>,
}

/// All filters in one convolution. The pixels lie as in a photograph, the channels of a pixel side by side: NHWC.
fn apply<const CHANNELS: usize>(
    pixels: &[u8],
    [height, width]: [usize; 2],
    padding: Padding,
    filters: &[(&str, [Filter; CHANNELS])],
) -> Result<Answer> {
    let conv =
        Conv2d::new(CHANNELS, filters.len(), 3).input([height, width]).padding(padding).layout(Layout::Nhwc);
    let src: Vec<f32> = pixels.iter().copied().map(f32::from).collect();
    let weights: Vec<f32> =
        filters.iter().flat_map(|(_, filter)| filter).flatten().flatten().copied().collect();
    let mut dst = vec![0.0; conv.geometry()?.dst_len()];

    let mut time = Duration::MAX;
    for _ in 0..CALLS {
        let start = Instant::now();
        forward(conv, &src, &weights, &mut dst, Epilogue::NONE)?;
        time = time.min(start.elapsed());
    }

    // The output is NHWC too: every n-th number belongs to the same filter.
    let respond = |(n, (name, filter)): (usize, &(&str, [Filter; CHANNELS]))| Response {
        name: name.to_string(),
        gain: filter.iter().flatten().flatten().filter(|&&weight| weight > 0.0).sum(),
        values: dst.iter().skip(n).step_by(filters.len()).copied().collect(),
    };
    Ok(Answer { conv, time, responses: filters.iter().enumerate().map(respond).collect() })
}

/// The strength of an edge in any direction: sqrt(vertical^2 + horizontal^2). Not linear, so it is no convolution itself.
fn magnitude(vertical: &Response, horizontal: &Response) -> Response {
    Response {
        name: vertical.name.replace("vertical", "magnitude"),
        gain: vertical.gain,
        values: vertical.values.iter().zip(&horizontal.values).map(|(v, h)| v.hypot(*h)).collect(),
    }
}

impl Response {
    /// The response as a grey picture: without its sign, black where there is no edge.
    fn picture(&self, [height, width]: [usize; 2]) -> GrayImage {
        let bytes = self.values.iter().map(|x| (BRIGHTNESS * x.abs() / self.gain) as u8).collect();
        GrayImage::from_raw(width as u32, height as u32, bytes).expect("one value per pixel")
    }
}

/// The 6x6 picture of the lecture under the vertical filter, and its mirror image.
fn lecture() -> Result<String> {
    let lines = |matrix: &[f32], width: usize| -> Vec<String> {
        matrix.chunks(width).map(|row| row.iter().map(|x| format!("{x:4}")).collect()).collect()
    };
    let mut text = String::from("The lecture's 6x6 picture * its vertical 3x3 filter = 4x4 (no padding)\n");
    for (title, row) in [("light to dark", [10, 10, 10, 0, 0, 0]), ("dark to light", [0, 0, 0, 10, 10, 10])] {
        let picture = [row; 6].concat();
        let answer = apply(&picture, [6, 6], Padding::Valid, &[("vertical", [VERTICAL])])?;
        let picture: Vec<f32> = picture.into_iter().map(f32::from).collect();
        let blocks =
            [lines(&picture, 6), lines(VERTICAL.as_flattened(), 3), lines(&answer.responses[0].values, 4)];
        text += &format!("\n  {title}\n");
        for i in 0..6 {
            let [picture, filter, answer] =
                blocks.each_ref().map(|block| block.get(i).map_or("", String::as_str));
            text += format!("{picture:24}    {filter:12}    {answer}").trim_end();
            text += "\n";
        }
    }
    Ok(text + "\nThe sign is the direction of the edge: light to dark is +30, dark to light is -30.\n\n")
}

/// Everything for one photograph: convolves, writes the files, and reports.
fn find_edges(path: Option<&Path>, out: &Path) -> Result<String> {
    let name = path.map_or("the embedded photograph".into(), |path| path.display().to_string());
    let photo = path.map_or_else(files::embedded, files::open)?;
    let size = [photo.height() as usize, photo.width() as usize];
    if size.iter().any(|&length| length < 3) {
        let [height, width] = size;
        return Err(format!("{name} has {width} x {height} pixels; a 3x3 filter needs at least 3 x 3").into());
    }
    folder::make(out)?;

    // Two convolutions, a picture for each filter and for each two that look both ways, and the sheet.
    let steps = 2 + GREY_FILTERS.len() * 3 / 2 + COLOUR_FILTERS.len() + 1;
    let bar = ProgressBar::new(steps as u64);
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} steps, {eta} left")?);
    let grey = apply(&photo.to_luma8(), size, Padding::Same, &GREY_FILTERS)?;
    bar.inc(1);
    let colour = apply(&photo.to_rgb8(), size, Padding::Same, &COLOUR_FILTERS)?;
    bar.inc(1);
    let (time, filters) = (grey.time + colour.time, grey.responses.len() + colour.responses.len());

    let mut report = format!("{name}\n");
    for (title, Answer { conv, time, .. }) in [("grey", &grey), ("colour", &colour)] {
        let (channels, filters) = (conv.in_channels, conv.out_channels);
        let ms = time.as_secs_f64() * 1e3;
        report += &format!(
            "\n{title}: {channels} -> {filters} channels in {ms:.2} ms, with planning and packing\n"
        );
        report += &Planner::new().explain::<Forward>(*conv)?.to_string();
    }

    // After the photograph, in rows of four: vertical and horizontal edges, both, and something in colour.
    let mut colours = colour.responses.into_iter();
    let mut responses = Vec::new();
    let mut pairs = grey.responses.into_iter();
    while let (Some(vertical), Some(horizontal)) = (pairs.next(), pairs.next()) {
        let both = magnitude(&vertical, &horizontal);
        responses.extend([vertical, horizontal, both]);
        responses.extend(colours.next());
    }

    let mut cells = vec![("photograph".to_string(), sheet::fit(&photo))];
    for response in responses {
        let picture = response.picture(size).into();
        files::save(&picture, &out.join(response.name.replace(',', "").replace(' ', "-") + ".png"))?;
        cells.push((response.name, sheet::fit(&picture)));
        bar.inc(1);
    }
    let file = out.join("contact-sheet.png");
    files::save(&sheet::contact_sheet(&cells, 4).into(), &file)?;

    bar.finish_and_clear();

    let (count, [height, width], ms) = (cells.len() - 1, size, time.as_secs_f64() * 1e3);
    Ok(format!(
        "{report}\n{HOW_TO_READ}\n{filters} filters over {width} x {height} pixels in {ms:.2} ms, {count} pictures; see {}\n",
        file.display()
    ))
}

#[cfg(test)]
#[path = "edges/tests.rs"]
mod tests;
