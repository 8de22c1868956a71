//! Forward: `dst[oh] = across(down(rows of the window))`, one row of outputs at a time, through one line in L1.
//!
//! Joining rows first costs `K_h` loads per pixel of a line and `K_w` per output, and reads `src` in the order of memory, which the
//! hardware prefetches. (Reading the taps of each output by themselves is `K_h * K_w` loads from as many streams.)

use crate::Pooling;
use crate::plan::Window;
use convolve_core::BlockMut;
use convolve_simd::{Rows, Simd};
use core::ops::Range;

/// How two values become one.
pub(crate) trait Join {
    /// Joined with anything, gives the other.
    const NOTHING: f32;
    fn join<S: Simd>(s: S, a: S::F32, b: S::F32) -> S::F32;
    fn join_one(a: f32, b: f32) -> f32;
    /// Joins `v` with the last `rest` numbers of a row of at least one register.
    fn join_tail<S: Simd>(s: S, v: S::F32, row: &[f32], rest: usize) -> S::F32;
    /// Joins all lanes.
    fn all<S: Simd>(s: S, v: S::F32) -> f32;
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

    /// That some numbers are joined twice changes nothing.
    #[inline(always)]
    fn join_tail<S: Simd>(s: S, v: S::F32, row: &[f32], _: usize) -> S::F32 {
        s.max_nan(v, s.load(&row[row.len() - S::LANES..]))
    }

    #[inline(always)]
    fn all<S: Simd>(s: S, v: S::F32) -> f32 {
        let mut lanes = [Self::NOTHING; 16];
        s.store(v, &mut lanes);
        for width in [8, 4, 2, 1] {
            for i in 0..width {
                lanes[i] = Self::join_one(lanes[i], lanes[i + width]);
            }
        }
        lanes[0]
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

    #[inline(always)]
    fn join_tail<S: Simd>(s: S, v: S::F32, row: &[f32], rest: usize) -> S::F32 {
        s.add(v, s.load_first(&row[row.len() - rest..]))
    }

    #[inline(always)]
    fn all<S: Simd>(s: S, v: S::F32) -> f32 {
        s.sum(v)
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
    /// The reciprocals of rows and of columns: what a gradient is multiplied by.
    pub(crate) parts: [Vec<f32>; 2],
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

    /// The part of `v` that each pixel of the columns from number `j` on gets.
    #[inline(always)]
    pub(crate) fn share<S: Simd>(&self, s: S, v: S::F32, j: usize) -> S::F32 {
        match self.parts[1].as_slice() {
            [one] => s.mul(v, s.splat(*one)),
            columns => s.mul(v, s.load_first(&columns[j..])),
        }
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
    let image_len = plan.geometry.pool().input[0] * plan.row_len();
    line.fill(J::NOTHING);
    for (i, image) in images.clone().enumerate() {
        let image = &src[image * image_len..][..image_len];
        for (j, oh) in rows.clone().enumerate() {
            let to = dst.row(i, j);
            let Window { first, taps } = plan.windows[oh];
            let rows = &image[first * plan.row_len()..];
            match taps {
                _ if plan.whole_image => {
                    to[0] = whole::<S, J>(s, image);
                    divide_one(s, plan, oh, to);
                }
                1 if plan.pairs => pairs::<S, J, 1>(s, plan, rows, oh, to),
                2 if plan.pairs => pairs::<S, J, 2>(s, plan, rows, oh, to),
                2 if plan.pixels == Some(2) => pixels::<S, J, 4, 2>(s, plan, rows, oh, to),
                2 if plan.pixels == Some(3) => pixels::<S, J, 6, 2>(s, plan, rows, oh, to),
                3 if plan.pixels == Some(3) => pixels::<S, J, 9, 3>(s, plan, rows, oh, to),
                _ => {
                    down::<S, J>(s, plan, image, oh, line);
                    across::<S, J>(s, plan, line, oh, to);
                }
            }
        }
    }
}

/// Joins the rows of window `oh` to one line. Windows of up to four rows read them side by side.
#[inline(always)]
fn down<S: Simd, J: Join>(s: S, plan: &Pooling, image: &[f32], oh: usize, to: &mut [f32]) {
    let Window { first, taps } = plan.windows[oh];
    let rows = &image[first * plan.row_len()..];
    match taps {
        0 => plan.line.fill(
            s,
            to,
            #[inline(always)]
            |_| s.splat(J::NOTHING),
        ),
        1 => down_rows::<S, J, 1>(s, plan, rows, to),
        2 => down_rows::<S, J, 2>(s, plan, rows, to),
        3 => down_rows::<S, J, 3>(s, plan, rows, to),
        _ => {
            let (len, step) = (plan.row_len(), plan.row_step());
            let rows = &rows[..(taps - 1) * step + len];
            plan.line.fill(
                s,
                to,
                #[inline(always)]
                |x| {
                    let mut joined = load(s, rows, 0, x, len);
                    for tap in 1..taps {
                        joined = J::join(s, joined, load(s, rows, tap * step, x, len));
                    }
                    joined
                },
            );
        }
    }
}

/// As many rows as that.
#[inline(always)]
fn down_rows<S: Simd, J: Join, const K: usize>(s: S, plan: &Pooling, image: &[f32], to: &mut [f32]) {
    let rows: [&[f32]; K] = core::array::from_fn(|k| &image[k * plan.row_step()..][..plan.row_len()]);
    let rows = Rows::<K>::new(&rows);
    plan.line.fill(
        s,
        to,
        #[inline(always)]
        |x| join_rows::<S, J, K>(s, &rows, x),
    );
}

/// Joins what rows have at `x`.
#[inline(always)]
fn join_rows<S: Simd, J: Join, const K: usize>(s: S, rows: &Rows<'_, K>, x: usize) -> S::F32 {
    if x + S::LANES <= rows.len() {
        let at = rows.at(x, S::LANES);
        let mut joined = s.load(at.row(0));
        for k in 1..K {
            joined = J::join(s, joined, s.load(at.row(k)));
        }
        joined
    } else {
        let at = rows.up_to(x, S::LANES);
        let mut joined = s.load_first(at.row(0));
        for k in 1..K {
            joined = J::join(s, joined, s.load_first(at.row(k)));
        }
        joined
    }
}

/// Numbers of the row that starts at `row` and has `len`, from `x` on.
#[inline(always)]
fn load<S: Simd>(s: S, rows: &[f32], row: usize, x: usize, len: usize) -> S::F32 {
    if x + S::LANES <= len { s.load(&rows[row + x..]) } else { s.load_first(&rows[row + x..row + len]) }
}

/// Joins the taps of a line to a row of outputs.
#[inline(always)]
fn across<S: Simd, J: Join>(s: S, plan: &Pooling, from: &[f32], oh: usize, to: &mut [f32]) {
    if plan.whole_line {
        to[0] = whole::<S, J>(s, &from[..plan.taps.len()]);
        return divide_one(s, plan, oh, to);
    }
    match plan.taps.len() {
        2 => across_taps::<S, J, 2>(s, plan, from, oh, to),
        3 => across_taps::<S, J, 3>(s, plan, from, oh, to),
        _ => {
            for run in 0..plan.line.runs {
                let from = &from[plan.line.start(run)..];
                let first = run * plan.line.run;
                let to = &mut to[first..][..plan.line.run];
                for x in (0..plan.line.run).step_by(S::LANES) {
                    let mut joined = s.load(&from[plan.taps[0] + x..]);
                    for &tap in &plan.taps[1..] {
                        joined = J::join(s, joined, s.load(&from[tap + x..]));
                    }
                    s.store_first(divide(s, plan, joined, oh, first + x), &mut to[x..]);
                }
            }
        }
    }
}

/// As many taps as that.
#[inline(always)]
fn across_taps<S: Simd, J: Join, const K: usize>(
    s: S,
    plan: &Pooling,
    from: &[f32],
    oh: usize,
    to: &mut [f32],
) {
    let taps: &[usize; K] = plan.taps.first_chunk().unwrap();
    let run = plan.line.run;
    let whole = run / S::LANES * S::LANES;
    for (i, to) in to.chunks_exact_mut(run).enumerate() {
        let rows = Rows::starting_at(&from[plan.line.start(i)..], taps);
        for x in (0..whole).step_by(S::LANES) {
            let joined = join_rows::<S, J, K>(s, &rows, x);
            s.store(divide(s, plan, joined, oh, i * run + x), &mut to[x..]);
        }
        if whole < run {
            let joined = join_rows::<S, J, K>(s, &rows, whole);
            s.store_first(divide(s, plan, joined, oh, i * run + whole), &mut to[whole..]);
        }
    }
}

/// Windows of two columns side by side in NCHW, without a line: the pairs of joined rows are joined where they are.
#[inline(always)]
fn pairs<S: Simd, J: Join, const K: usize>(s: S, plan: &Pooling, image: &[f32], oh: usize, to: &mut [f32]) {
    let rows: [&[f32]; K] = core::array::from_fn(|k| &image[k * plan.row_step()..][..plan.row_len()]);
    let rows = Rows::<K>::new(&rows);
    let whole = to.len() / S::LANES * S::LANES;
    for x in (0..whole).step_by(S::LANES) {
        let first = join_rows::<S, J, K>(s, &rows, 2 * x);
        let (even, odd) = s.deinterleave(first, join_rows::<S, J, K>(s, &rows, 2 * x + S::LANES));
        s.store(divide(s, plan, J::join(s, even, odd), oh, x), &mut to[x..]);
    }
    if whole < to.len() {
        let first = join_rows::<S, J, K>(s, &rows, 2 * whole);
        let second = (2 * whole + S::LANES).min(rows.len());
        let (even, odd) = s.deinterleave(first, join_rows::<S, J, K>(s, &rows, second));
        s.store_first(divide(s, plan, J::join(s, even, odd), oh, whole), &mut to[whole..]);
    }
}

/// Windows of `N` taps in `K` rows in NHWC, without a line: down and across in registers. Neighbouring pixels share few taps, so there is
/// nothing to keep. Pixels whose windows hang over an edge go tap by tap.
#[inline(always)]
fn pixels<S: Simd, J: Join, const N: usize, const K: usize>(
    s: S,
    plan: &Pooling,
    image: &[f32],
    oh: usize,
    to: &mut [f32],
) {
    let (line, step) = (&plan.line, plan.row_step());
    let offsets: [usize; N] = core::array::from_fn(|n| n % K * step + plan.taps[n / K]);
    let (channels, stride) = (line.channels, line.start(1));
    let inner = plan.inner.clone();
    let rows = Rows::starting_at(image, &offsets);
    let whole = channels / S::LANES * S::LANES;
    for ow in inner.clone() {
        let (to, from) = (&mut to[ow * channels..][..channels], ow * stride - line.left * channels);
        for c in (0..whole).step_by(S::LANES) {
            let at = rows.at(from + c, S::LANES);
            let mut joined = s.splat(0.0);
            for k in 0..N / K {
                let mut column = s.load(at.row(k * K));
                for i in 1..K {
                    column = J::join(s, column, s.load(at.row(k * K + i)));
                }
                joined = if k == 0 { column } else { J::join(s, joined, column) };
            }
            s.store(divide(s, plan, joined, oh, ow * channels + c), &mut to[c..]);
        }
        if whole < channels {
            let at = rows.at(from + whole, channels - whole);
            let mut joined = s.splat(0.0);
            for k in 0..N / K {
                let mut column = s.load_first(at.row(k * K));
                for i in 1..K {
                    column = J::join(s, column, s.load_first(at.row(k * K + i)));
                }
                joined = if k == 0 { column } else { J::join(s, joined, column) };
            }
            s.store_first(divide(s, plan, joined, oh, ow * channels + whole), &mut to[whole..]);
        }
    }
    for ow in (0..inner.start).chain(inner.end..plan.geometry.output()[1]) {
        for c in (0..channels).step_by(S::LANES) {
            let mut joined = s.splat(J::NOTHING);
            for kw in plan.geometry.taps(1, ow) {
                let x = plan.geometry.pixel(1, ow, kw) * channels;
                let mut column = s.splat(J::NOTHING);
                for i in 0..K {
                    column = J::join(
                        s,
                        column,
                        s.load_first(&image[i * step + x + c..][..S::LANES.min(channels - c)]),
                    );
                }
                joined = J::join(s, joined, column);
            }
            let to = &mut to[ow * channels + c..][..S::LANES.min(channels - c)];
            s.store_first(divide(s, plan, joined, oh, ow * channels + c), to);
        }
    }
}

/// `v` at number `j` of row `oh` over its count, if sums are divided.
#[inline(always)]
fn divide<S: Simd>(s: S, plan: &Pooling, v: S::F32, oh: usize, j: usize) -> S::F32 {
    match &plan.counts {
        Some(counts) => counts.divide(s, v, s.splat(counts.rows[oh]), j),
        None => v,
    }
}

#[inline(always)]
fn divide_one<S: Simd>(s: S, plan: &Pooling, oh: usize, to: &mut [f32]) {
    s.store_first(divide(s, plan, s.splat(to[0]), oh, 0), &mut to[..1]);
}

/// Joins all of a row.
#[inline(always)]
fn whole<S: Simd, J: Join>(s: S, from: &[f32]) -> f32 {
    if from.len() < S::LANES {
        return from.iter().fold(J::NOTHING, |joined, x| J::join_one(joined, *x));
    }
    let mut joined = s.load(from);
    let (vectors, rest) = from[S::LANES..].split_at((from.len() - S::LANES) / S::LANES * S::LANES);
    for vector in vectors.chunks_exact(S::LANES) {
        joined = J::join(s, joined, s.load(vector));
    }
    J::all(s, J::join_tail(s, joined, from, rest.len()))
}
