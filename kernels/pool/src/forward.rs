//! Forward: `dst[oh] = across(down(rows of the window))`, one row of outputs at a time, through one line in L1.
//!
//! Joining rows first costs `K_h` loads per pixel of a line and `K_w` per output, and reads `src` in the order of memory, which the
//! hardware prefetches. (Reading the taps of each output by themselves is `K_h * K_w` loads from as many streams.)

use crate::line::Line;
use crate::{PoolGeometry, Pooling};
use convolve_core::BlockMut;
use convolve_simd::Simd;
use core::ops::Range;

/// How two values become one.
pub(crate) trait Join {
    /// Joined with anything, gives the other.
    const NOTHING: f32;
    fn join<S: Simd>(s: S, a: S::F32, b: S::F32) -> S::F32;
    fn join_one(a: f32, b: f32) -> f32;
}

pub(crate) enum Max {}

impl Join for Max {
    const NOTHING: f32 = f32::NEG_INFINITY;

    #[inline(always)]
    fn join<S: Simd>(s: S, a: S::F32, b: S::F32) -> S::F32 {
        s.max_nan(a, b)
    }

    #[inline(always)]
    fn join_one(a: f32, b: f32) -> f32 {
        if a.is_nan() || a > b { a } else { b }
    }
}

pub(crate) enum Sum {}

impl Join for Sum {
    const NOTHING: f32 = 0.0;

    #[inline(always)]
    fn join<S: Simd>(s: S, a: S::F32, b: S::F32) -> S::F32 {
        s.add(a, b)
    }

    #[inline(always)]
    fn join_one(a: f32, b: f32) -> f32 {
        a + b
    }
}

/// What sums are divided by: a number per row times one per column. Quotients are those of a division, also where all counts are powers
/// of two and a multiplication by their reciprocals does it.
#[derive(Debug)]
pub(crate) struct Counts {
    /// Per row of outputs.
    pub(crate) rows: Vec<f32>,
    /// Per number of a row of outputs, or one for all.
    pub(crate) columns: Vec<f32>,
    /// Whether they are reciprocals, of powers of two.
    pub(crate) reciprocal: bool,
}

impl Counts {
    /// `v` at number `j` of row `oh`, divided.
    #[inline(always)]
    pub(crate) fn divide<S: Simd>(&self, s: S, v: S::F32, row: S::F32, j: usize) -> S::F32 {
        let columns = match self.columns.as_slice() {
            [one] => s.splat(*one),
            columns => s.load_first(&columns[j..]),
        };
        let count = s.mul(row, columns);
        if self.reciprocal { s.mul(v, count) } else { s.div(v, count) }
    }
}

/// The images of a piece of `dst`, row by row; `line` is workspace.
#[inline(always)]
pub(crate) fn piece<S: Simd, J: Join>(
    s: S,
    plan: &Pooling,
    src: &[f32],
    [images, rows, _]: &[Range<usize>; 3],
    dst: &mut BlockMut<'_, f32>,
    line: &mut [f32],
) {
    let geometry = &plan.geometry;
    let image_len = geometry.pool().input[0] * plan.row_len();
    line.fill(J::NOTHING);
    for (i, image) in images.clone().enumerate() {
        let image = &src[image * image_len..][..image_len];
        for (j, oh) in rows.clone().enumerate() {
            down::<S, J>(s, geometry, &plan.line, image, oh, line);
            across::<S, J>(s, plan, line, oh, dst.row(i, j));
        }
    }
}

/// Joins the rows of window `oh` to one line.
#[inline(always)]
fn down<S: Simd, J: Join>(
    s: S,
    geometry: &PoolGeometry,
    line: &Line,
    image: &[f32],
    oh: usize,
    to: &mut [f32],
) {
    let taps = geometry.taps(0, oh);
    let len = line.width * line.channels;
    if taps.is_empty() {
        return line.fill(
            s,
            to,
            #[inline(always)]
            |_| s.splat(J::NOTHING),
        );
    }
    let step = geometry.pool().dilation[0] * len;
    let first = geometry.pixel(0, oh, taps.start) * len;
    let rows = &image[first..first + (taps.len() - 1) * step + len];
    line.fill(
        s,
        to,
        #[inline(always)]
        |x| {
            let mut joined = load(s, rows, 0, x, len);
            for tap in 1..taps.len() {
                joined = J::join(s, joined, load(s, rows, tap * step, x, len));
            }
            joined
        },
    );
}

/// Numbers of the row that starts at `row` and has `len`, from `x` on.
#[inline(always)]
fn load<S: Simd>(s: S, rows: &[f32], row: usize, x: usize, len: usize) -> S::F32 {
    if x + S::LANES <= len { s.load(&rows[row + x..]) } else { s.load_first(&rows[row + x..row + len]) }
}

/// Joins the taps of a line to a row of outputs.
#[inline(always)]
fn across<S: Simd, J: Join>(s: S, plan: &Pooling, from: &[f32], oh: usize, to: &mut [f32]) {
    let line = &plan.line;
    if plan.whole_line {
        to[0] = whole::<S, J>(s, &from[..plan.taps.len()]);
        if let Some(counts) = &plan.counts {
            let mut lane = [0.0; 1];
            s.store_first(counts.divide(s, s.splat(to[0]), s.splat(counts.rows[oh]), 0), &mut lane);
            to[0] = lane[0];
        }
        return;
    }
    let row = s.splat(plan.counts.as_ref().map_or(1.0, |counts| counts.rows[oh]));
    for run in 0..line.runs {
        let from = &from[line.start(run)..];
        let first = run * line.run;
        let to = &mut to[first..][..line.run];
        for x in (0..line.run).step_by(S::LANES) {
            let mut joined = s.load(&from[plan.taps[0] + x..]);
            for &tap in &plan.taps[1..] {
                joined = J::join(s, joined, s.load(&from[tap + x..]));
            }
            if let Some(counts) = &plan.counts {
                joined = counts.divide(s, joined, row, first + x);
            }
            s.store_first(joined, &mut to[x..]);
        }
    }
}

/// Joins all of a line.
#[inline(always)]
fn whole<S: Simd, J: Join>(s: S, from: &[f32]) -> f32 {
    let mut lanes = [J::NOTHING; 16];
    let (vectors, rest) = from.split_at(from.len() / S::LANES * S::LANES);
    if !vectors.is_empty() {
        let mut joined = s.load(vectors);
        for vector in vectors[S::LANES..].chunks_exact(S::LANES) {
            joined = J::join(s, joined, s.load(vector));
        }
        s.store(joined, &mut lanes);
    }
    rest.iter().chain(&lanes[..S::LANES]).fold(J::NOTHING, |joined, x| J::join_one(joined, *x))
}
