//! From the answer of a YOLO to boxes: each cell of the grid says for each of five anchors where a face is, how large, and how sure it is.
//!
//! ```text
//! centre = (cell + sigmoid(t_xy)) / cells      size = anchor * exp(t_wh) / cells      score = sigmoid(t_score)
//! ```
//!
//! (J. Redmon and A. Farhadi, "YOLO9000: better, faster, stronger", 2017, section 2.) Many cells see the same face: of boxes that overlap the
//! surest stays (non-maximum suppression).

use crate::network::CELLS;
use image::{Rgb, RgbImage};

/// Width and height of the five anchors, in cells. The network was trained with these.
const ANCHORS: [[f32; 2]; 5] = [
    [1.603231, 2.094468],
    [6.041143, 7.080126],
    [2.882459, 3.518061],
    [4.266906, 5.178857],
    [9.041765, 10.66308],
];

/// Boxes that have so much in common, of what they cover together, are of the same face.
const SAME: f32 = 0.4;

/// A face, in pixels of the photograph.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Face {
    pub(crate) left: f32,
    pub(crate) top: f32,
    pub(crate) right: f32,
    pub(crate) bottom: f32,
    pub(crate) score: f32,
}

impl Face {
    fn area(&self) -> f32 {
        (self.right - self.left).max(0.0) * (self.bottom - self.top).max(0.0)
    }

    /// Intersection over union.
    pub(crate) fn overlap(&self, other: &Self) -> f32 {
        let both = Self {
            left: self.left.max(other.left),
            top: self.top.max(other.top),
            right: self.right.min(other.right),
            bottom: self.bottom.min(other.bottom),
            score: 0.0,
        };
        both.area() / (self.area() + other.area() - both.area())
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// All boxes of at least that score. The grid covers a square of `side` pixels.
pub(crate) fn boxes(answer: &[f32], side: f32, least: f32) -> Vec<Face> {
    let (cells, mut faces) = (CELLS as f32, Vec::new());
    for (i, cell) in answer.chunks_exact(5 * ANCHORS.len()).enumerate() {
        let [row, column] = [i / CELLS, i % CELLS].map(|i| i as f32);
        for (said, anchor) in cell.as_chunks::<5>().0.iter().zip(ANCHORS) {
            let &[x, y, width, height, score] = said;
            let score = sigmoid(score);
            if score >= least {
                let scale = side / cells;
                let [x, y] = [(column + sigmoid(x)) * scale, (row + sigmoid(y)) * scale];
                let [width, height] = [anchor[0] * width.exp() * scale, anchor[1] * height.exp() * scale];
                let [left, top] = [x - width / 2.0, y - height / 2.0];
                faces.push(Face { left, top, right: left + width, bottom: top + height, score });
            }
        }
    }
    faces
}

/// Of boxes that overlap the surest, the surest first.
pub(crate) fn surest(mut faces: Vec<Face>) -> Vec<Face> {
    faces.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept: Vec<Face> = Vec::new();
    for face in faces {
        if kept.iter().all(|surer| face.overlap(surer) <= SAME) {
            kept.push(face);
        }
    }
    kept
}

/// Draws a box into a photograph, three pixels thick.
pub(crate) fn draw(photo: &mut RgbImage, face: &Face) {
    let (width, height) = photo.dimensions();
    let inside = |x: f32, size: u32| (x.max(0.0) as u32).min(size - 1);
    let [left, right] = [face.left, face.right].map(|x| inside(x, width));
    let [top, bottom] = [face.top, face.bottom].map(|y| inside(y, height));
    for y in top..=bottom {
        for x in left..=right {
            let depth = (x - left).min(right - x).min(y - top).min(bottom - y);
            if depth < 3 {
                photo.put_pixel(x, y, Rgb([255, 220, 0]));
            }
        }
    }
}
