//! What the network did, to look at: curves, misread digits, first filters.

use super::digits::{Digits, SIDE, SIZE};
use super::{Point, Result};
use convolve_examples::font;
use image::{GrayImage, Luma};
use plotters::prelude::*;
use std::path::Path;

/// Loss and accuracy, epoch by epoch.
pub(crate) fn curves(path: &Path, curve: &[Point]) -> Result<()> {
    let root = SVGBackend::new(path, (900, 360)).into_drawing_area();
    root.fill(&WHITE)?;
    let (left, right) = root.split_horizontally(450);
    let series = |of: fn(&Point) -> f64| (1..).zip(curve.iter().map(of));
    let dots = |of, colour: RGBColor| series(of).map(move |at| Circle::new(at, 3, colour.filled()));
    // Whole numbers, so there are no ticks between epochs.
    let epochs = 1..curve.len().max(2);
    let most = curve.iter().map(|point| point.loss).fold(0.1, f64::max);
    let mut chart = ChartBuilder::on(&left)
        .caption("loss", ("sans-serif", 18))
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(50)
        .build_cartesian_2d(epochs.clone(), 0.0..most)?;
    chart.configure_mesh().x_desc("epoch").light_line_style(TRANSPARENT).draw()?;
    chart.draw_series(LineSeries::new(series(|point| point.loss), &BLUE))?;
    chart.draw_series(dots(|point| point.loss, BLUE))?;
    let least = curve.iter().map(|point| point.train.min(point.test)).fold(0.9, f64::min);
    let mut chart = ChartBuilder::on(&right)
        .caption("digits read right", ("sans-serif", 18))
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(50)
        .build_cartesian_2d(epochs, (10.0 * least).floor() / 10.0..1.0)?;
    chart.configure_mesh().x_desc("epoch").light_line_style(TRANSPARENT).draw()?;
    type Share = fn(&Point) -> f64;
    let [train, test]: [Share; 2] = [|point| point.train, |point| point.test];
    for (label, colour, of) in [("train", BLUE, train), ("test", RED, test)] {
        chart
            .draw_series(LineSeries::new(series(of), &colour))?
            .label(label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
        chart.draw_series(dots(of, colour))?;
    }
    chart.configure_series_labels().position(SeriesLabelPosition::LowerMiddle).border_style(BLACK).draw()?;
    root.present()?;
    Ok(())
}

/// A sheet of digits that were misread, eight in a row; beneath each what it is and what was read.
pub(crate) fn misread(path: &Path, digits: &Digits, which: &[usize], read: &[usize]) -> Result<()> {
    let tiles: Vec<Vec<f32>> =
        which.iter().map(|&i| digits.pixels[i * SIZE..][..SIZE].iter().map(|x| 1.0 - x).collect()).collect();
    let captions: Vec<String> =
        which.iter().map(|&i| format!("{} as {}", digits.labels[i], read[i])).collect();
    sheet(path, &tiles, SIDE, &captions)
}

/// The first filters, of `side` x `side` weights, each from its least to its greatest weight.
pub(crate) fn filters(path: &Path, weights: &[f32], side: usize) -> Result<()> {
    let tiles: Vec<Vec<f32>> = weights
        .chunks(side * side)
        .map(|filter| {
            let least = filter.iter().copied().fold(f32::INFINITY, f32::min);
            let range = filter.iter().copied().fold(f32::NEG_INFINITY, f32::max) - least;
            filter.iter().map(|x| (x - least) / range.max(f32::MIN_POSITIVE)).collect()
        })
        .collect();
    sheet(path, &tiles, side, &[])
}

/// Square tiles of `side` pixels, each enlarged to 140, a multiple of the sides of digits and of filters; captions, if there are any, are
/// beneath them.
fn sheet(path: &Path, tiles: &[Vec<f32>], side: usize, captions: &[String]) -> Result<()> {
    const TILE: usize = 140;
    const PITCH: usize = TILE + 8;
    /// Pixels for one dot of a letter.
    const DOT: usize = 3;
    let caption = if captions.is_empty() { 0 } else { font::HEIGHT as usize * DOT + 8 };
    let columns = tiles.len().clamp(1, 8);
    let rows = tiles.len().div_ceil(columns).max(1);
    let mut picture =
        GrayImage::from_pixel((columns * PITCH) as u32, (rows * (PITCH + caption)) as u32, Luma([200]));
    for (i, tile) in tiles.iter().enumerate() {
        for (y, x) in (0..TILE * TILE).map(|t| (t / TILE, t % TILE)) {
            let value = tile[y * side / TILE * side + x * side / TILE];
            let place = [i % columns * PITCH + 4 + x, i / columns * (PITCH + caption) + 4 + y];
            picture.put_pixel(place[0] as u32, place[1] as u32, Luma([(255.0 * value) as u8]));
        }
    }
    for (i, text) in captions.iter().enumerate() {
        let width = (text.len() * font::PITCH as usize - 1) * DOT;
        let left = i % columns * PITCH + 4 + TILE.saturating_sub(width) / 2;
        let top = i / columns * (PITCH + caption) + 4 + TILE + 6;
        font::write(text, |x, y| {
            for (dx, dy) in (0..DOT * DOT).map(|d| (d % DOT, d / DOT)) {
                let place = [left + x as usize * DOT + dx, top + y as usize * DOT + dy];
                picture.put_pixel(place[0] as u32, place[1] as u32, Luma([40]));
            }
        });
    }
    picture.save(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(())
}
