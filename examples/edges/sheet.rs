//! The contact sheet of the example `edges`: pictures in a grid, each under its name.

use image::imageops::{self, FilterType};
use image::{DynamicImage, Rgb, RgbImage};

const CELL: u32 = 320;
const GAP: u32 = 16;
const BACKGROUND: Rgb<u8> = Rgb([28, 28, 32]);
const INK: Rgb<u8> = Rgb([232, 232, 232]);

/// Pixels of the sheet for one dot of a letter.
const DOT: u32 = 2;
const CAPTION: u32 = 7 * DOT + 8;

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

/// Writes capitals; a character that the font has not is a space.
fn write(sheet: &mut RgbImage, text: &str, [left, top]: [u32; 2]) {
    for (i, letter) in (0..).zip(text.chars()) {
        let Some((_, rows)) = FONT.iter().find(|(known, _)| *known == letter.to_ascii_uppercase()) else {
            continue;
        };
        for (row, y) in rows.iter().zip((top..).step_by(DOT as usize)) {
            for column in (0..5).filter(|column| row >> (4 - column) & 1 == 1) {
                let x = left + (6 * i + column) * DOT;
                for (dx, dy) in (0..DOT).flat_map(|dy| (0..DOT).map(move |dx| (dx, dy))) {
                    sheet.put_pixel(x + dx, y + dy, INK);
                }
            }
        }
    }
}

/// Letters of 5 x 7 dots.
#[rustfmt::skip]
const FONT: [(char, [u8; 7]); 27] = [
    ('A', [0b01110, 0b10001, 0b10001, 0b11111, 0b10001, 0b10001, 0b10001]),
    ('B', [0b11110, 0b10001, 0b10001, 0b11110, 0b10001, 0b10001, 0b11110]),
    ('C', [0b01110, 0b10001, 0b10000, 0b10000, 0b10000, 0b10001, 0b01110]),
    ('D', [0b11110, 0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b11110]),
    ('E', [0b11111, 0b10000, 0b10000, 0b11110, 0b10000, 0b10000, 0b11111]),
    ('F', [0b11111, 0b10000, 0b10000, 0b11110, 0b10000, 0b10000, 0b10000]),
    ('G', [0b01110, 0b10001, 0b10000, 0b10111, 0b10001, 0b10001, 0b01111]),
    ('H', [0b10001, 0b10001, 0b10001, 0b11111, 0b10001, 0b10001, 0b10001]),
    ('I', [0b01110, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100, 0b01110]),
    ('J', [0b00111, 0b00010, 0b00010, 0b00010, 0b00010, 0b10010, 0b01100]),
    ('K', [0b10001, 0b10010, 0b10100, 0b11000, 0b10100, 0b10010, 0b10001]),
    ('L', [0b10000, 0b10000, 0b10000, 0b10000, 0b10000, 0b10000, 0b11111]),
    ('M', [0b10001, 0b11011, 0b10101, 0b10101, 0b10001, 0b10001, 0b10001]),
    ('N', [0b10001, 0b10001, 0b11001, 0b10101, 0b10011, 0b10001, 0b10001]),
    ('O', [0b01110, 0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b01110]),
    ('P', [0b11110, 0b10001, 0b10001, 0b11110, 0b10000, 0b10000, 0b10000]),
    ('Q', [0b01110, 0b10001, 0b10001, 0b10001, 0b10101, 0b10010, 0b01101]),
    ('R', [0b11110, 0b10001, 0b10001, 0b11110, 0b10100, 0b10010, 0b10001]),
    ('S', [0b01111, 0b10000, 0b10000, 0b01110, 0b00001, 0b00001, 0b11110]),
    ('T', [0b11111, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100]),
    ('U', [0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b01110]),
    ('V', [0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b01010, 0b00100]),
    ('W', [0b10001, 0b10001, 0b10001, 0b10101, 0b10101, 0b10101, 0b01010]),
    ('X', [0b10001, 0b10001, 0b01010, 0b00100, 0b01010, 0b10001, 0b10001]),
    ('Y', [0b10001, 0b10001, 0b10001, 0b01010, 0b00100, 0b00100, 0b00100]),
    ('Z', [0b11111, 0b00001, 0b00010, 0b00100, 0b01000, 0b10000, 0b11111]),
    (',', [0b00000, 0b00000, 0b00000, 0b00000, 0b00110, 0b00100, 0b01000]),
];
