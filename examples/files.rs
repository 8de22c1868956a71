//! Reading and writing of photographs, for the examples `edges`, `detect` and `style`: every error is a sentence that names the file.

use crate::Result;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{DynamicImage, ImageDecoder, ImageError, ImageReader};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Cursor, Seek};
use std::path::Path;

/// See data/README.md.
pub(crate) const EMBEDDED: &[u8] = include_bytes!("data/astronaut.jpg");

/// A picture with more pixels is refused: what the examples make of it would take several GiB.
const MOST_PIXELS: u64 = 40_000_000;

pub(crate) fn embedded() -> Result<DynamicImage> {
    decode(Cursor::new(EMBEDDED), "the embedded photograph")
}

pub(crate) fn open(path: &Path) -> Result<DynamicImage> {
    let file = File::open(path).map_err(|error| format!("cannot open {}: {error}", path.display()))?;
    decode(BufReader::new(file), &path.display().to_string())
}

/// Reads a PNG or JPEG, and turns it upright as the camera noted.
fn decode(source: impl BufRead + Seek, name: &str) -> Result<DynamicImage> {
    let not_a_picture = |error: ImageError| {
        let reason = error.to_string().split_whitespace().collect::<Vec<_>>().join(" "); // some have line breaks
        format!("{name} cannot be read as a PNG or JPEG picture: {reason}")
    };
    let reader =
        ImageReader::new(source).with_guessed_format().map_err(|error| not_a_picture(error.into()))?;
    let mut decoder = reader.into_decoder().map_err(not_a_picture)?;
    let (width, height) = decoder.dimensions();
    check_size(name, width, height)?;
    let orientation = decoder.orientation().map_err(not_a_picture)?;
    let mut photo = DynamicImage::from_decoder(decoder).map_err(not_a_picture)?;
    photo.apply_orientation(orientation);
    Ok(photo)
}

/// Before the pixels are read.
pub(crate) fn check_size(name: &str, width: u32, height: u32) -> Result<()> {
    if u64::from(width) * u64::from(height) > MOST_PIXELS {
        let most = MOST_PIXELS / 1_000_000;
        return Err(format!("{name} has {width} x {height} pixels; at most {most} million are taken").into());
    }
    Ok(())
}

/// Writes a PNG.
pub(crate) fn save(picture: &DynamicImage, path: &Path) -> Result<()> {
    let cannot_write = |error| format!("cannot write {}: {error}", path.display());
    let file = BufWriter::new(File::create(path).map_err(|error| cannot_write(error.into()))?);
    let encoder = PngEncoder::new_with_quality(file, CompressionType::Default, FilterType::Adaptive);
    Ok(picture.write_with_encoder(encoder).map_err(cannot_write)?)
}
