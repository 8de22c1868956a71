//! The contact sheet of the example `edges`: pictures in a grid, each under its name.

use convolve_examples::font;
use image::imageops::{self, FilterType};
use image::{DynamicImage, Rgb, RgbImage};

const CELL: u32 = 320;
const GAP: u32 = 16;
const BACKGROUND: Rgb<u8> = Rgb([28, 28, 32]);
const INK: Rgb<u8> = Rgb([232, 232, 232]);

/// Pixels of the sheet for one dot of a letter.
const DOT: u32 = 2;
const CAPTION: u32 = font::HEIGHT * DOT + 8;

/// The picture in the size of its place on a sheet: at most `CELL` wide and high; a smaller one stays as it is.
pub(crate) fn fit(picture: &DynamicImage) -> RgbImage {
    let scale = (f64::from(CELL) / f64::from(picture.width().max(picture.height()))).min(1.0);
    let shrink = |length: u32| ((f64::from(length) * scale).round() as u32).max(1);
    if scale < 1.0 {
        picture
            .resize_exact(shrink(picture.width()), shrink(picture.height()), FilterType::Triangle)
            .to_rgb8()
    } else {
        picture.to_rgb8()
    }
}

/// Pictures of one size, row by row.
pub(crate) fn contact_sheet(cells: &[(String, RgbImage)], columns: u32) -> RgbImage {
    let height = cells.iter().map(|(_, picture)| picture.height()).max().unwrap_or(0);
    let (step_x, step_y) = (CELL + GAP, CAPTION + height + GAP);
    let rows = (cells.len() as u32).div_ceil(columns);
    let mut sheet = RgbImage::from_pixel(GAP + columns * step_x, GAP + rows * step_y, BACKGROUND);
    for (i, (name, picture)) in (0..).zip(cells) {
        let (x, y) = (GAP + i % columns * step_x, GAP + i / columns * step_y);
        write(&mut sheet, name, [x, y]);
        imageops::replace(&mut sheet, picture, x.into(), (y + CAPTION).into());
    }
    sheet
}

fn write(sheet: &mut RgbImage, text: &str, [left, top]: [u32; 2]) {
    font::write(text, |x, y| {
        for (dx, dy) in (0..DOT).flat_map(|dy| (0..DOT).map(move |dx| (dx, dy))) {
            sheet.put_pixel(left + x * DOT + dx, top + y * DOT + dy, INK);
        }
    });
}
