//! Forward: `dst[oh] = across(down(rows of the window))`, one row of outputs at a time, through one line in L1.
//!
//! Joining rows first costs `K_h` loads per pixel of a line and `K_w` per output, and reads `src` in the order of memory, which the
//! hardware prefetches. (Reading the taps of each output by themselves is `K_h * K_w` loads from as many streams.)

use crate::plan::Window;
use crate::vector::vectors;
use crate::{Pooling, columns};
use convolve_core::BlockMut;
use convolve_simd::{Rows, RowsAt, RowsMut, Simd};
use core::ops::Range;

/// How two values become one.
pub(crate) trait Join {
    /// Joined with anything, gives the other.
    const NOTHING: f32;
    /// Whether the count of a window matters.
    const COUNTED: bool;
    fn join<S: Simd>(s: S, a: S::F32, b: S::F32) -> S::F32;
    fn join_one(a: f32, b: f32) -> f32;
    /// Joins `v` with the last `rest` numbers of a row of at least one register.
    fn join_tail<S: Simd>(s: S, v: S::F32, row: &[f32], rest: usize) -> S::F32;
    /// Joins all lanes.
    fn all<S: Simd>(s: S, v: S::F32) -> f32;
    /// What comes of all that was joined, by the count of its window.
    fn finish<S: Simd>(s: S, v: S::F32, count: S::F32) -> S::F32;
}

pub(crate) enum Max {}

impl Join for Max {
    const NOTHING: f32 = f32::NEG_INFINITY;
    const COUNTED: bool = false;

    /// Instruction sets test the first operand for NaN: that is not the one that the next join waits for.
    #[inline(always)]
    fn join<S: Simd>(s: S, a: S::F32, b: S::F32) -> S::F32 {
        s.max_nan(b, a)
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

    #[inline(always)]
    fn finish<S: Simd>(_: S, v: S::F32, _: S::F32) -> S::F32 {
        v
    }
}

/// Divided by the counts, or multiplied if these are reciprocals.
pub(crate) enum Sum<const TIMES: bool> {}

impl<const TIMES: bool> Join for Sum<TIMES> {
    const NOTHING: f32 = 0.0;
    const COUNTED: bool = true;

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

    #[inline(always)]
    fn finish<S: Simd>(s: S, v: S::F32, count: S::F32) -> S::F32 {
        if TIMES { s.mul(v, count) } else { s.div(v, count) }
    }
}

/// What sums are divided by: a number per row times one per column. Quotients are those of a division, also where all counts are powers
/// of two and a multiplication by their reciprocals does it. Maxima have ones.
#[derive(Debug)]
pub(crate) struct Counts {
    /// Per row of outputs.
    pub(crate) rows: Vec<f32>,
    /// Per number of a run of outputs if there is one run, per run if there are several; then as many ones as a register may have.
    pub(crate) columns: Vec<f32>,
    /// Whether they are reciprocals, of powers of two.
    pub(crate) reciprocal: bool,
    /// The reciprocals of rows and of columns: what a gradient is multiplied by.
    pub(crate) parts: [Vec<f32>; 2],
}

/// Some rows of some images; `line` is workspace.
pub(crate) fn piece<S: Simd, J: Join>(
    s: S,
    plan: &Pooling,
    src: &[f32],
    [images, rows]: [Range<usize>; 2],
    dst: &mut BlockMut<'_, f32>,
    line: &mut [f32],
) {
    // Indices, not chunks: their count would be a division for every image.
    let (len, outputs) = (plan.geometry.pool().input[0] * plan.row_len(), plan.line.outputs());
    let image = |i: usize| &src[(images.start + i) * len..][..len];
    if plan.columns.is_some() {
        (0..images.len())
            .for_each(|i| columns::forward::<S, J>(s, plan, image(i), rows.clone(), dst.row(i, 0)));
        return;
    }
    // A region of its own: the larger a function, the sooner LLVM stops inlining into it, and then loads become calls.
    s.vectorize(
        #[inline(always)]
        |s| {
            // Only the margins of a line are never written, and only some rows need one.
            let mut clean = false;
            for i in 0..images.len() {
                let (image, to) = (image(i), dst.row(i, 0));
                for oh in rows.clone() {
                    let to = &mut to[(oh - rows.start) * outputs..][..outputs];
                    let Window { first, taps } = plan.windows[oh];
                    let (count, rows) = (s.splat(plan.counts.rows[oh]), &image[first * plan.row_len()..]);
                    match taps {
                        _ if plan.whole_image => {
                            let count = s.mul(count, s.splat(plan.counts.columns[0]));
                            s.store_first(J::finish(s, s.splat(whole::<S, J>(s, image)), count), to);
                        }
                        _ if plan.whole_pixel => global::<S, J>(s, plan, image, to),
                        2 if plan.pixels == Some(2) => pixels::<S, J, 4, 2>(s, plan, rows, oh, to),
                        2 if plan.pixels == Some(3) => pixels::<S, J, 6, 2>(s, plan, rows, oh, to),
                        3 if plan.pixels == Some(3) => pixels::<S, J, 9, 3>(s, plan, rows, oh, to),
                        _ => {
                            if !clean {
                                line.fill(J::NOTHING);
                                clean = true;
                            }
                            down::<S, J>(s, plan, rows, taps, line);
                            across::<S, J>(s, plan, line, count, to);
                        }
                    }
                }
            }
        },
    );
}

/// One output per image in NHWC, of all of its pixels, in the order of memory: some pixels are joined, and that with those before, in `to`.
#[inline(always)]
fn global<S: Simd, J: Join>(s: S, plan: &Pooling, image: &[f32], to: &mut [f32]) {
    let pixels = image.len() / to.len();
    for first in (0..pixels).step_by(8) {
        let image = &image[first * to.len()..];
        let count = (pixels - first <= 8).then(|| s.splat(plan.counts.rows[0] * plan.counts.columns[0]));
        match pixels - first {
            1 => global_some::<S, J, 1>(s, image, first > 0, count, to),
            2 => global_some::<S, J, 2>(s, image, first > 0, count, to),
            3 => global_some::<S, J, 3>(s, image, first > 0, count, to),
            4 => global_some::<S, J, 4>(s, image, first > 0, count, to),
            5 => global_some::<S, J, 5>(s, image, first > 0, count, to),
            6 => global_some::<S, J, 6>(s, image, first > 0, count, to),
            7 => global_some::<S, J, 7>(s, image, first > 0, count, to),
            _ => global_some::<S, J, 8>(s, image, first > 0, count, to),
        }
    }
}

/// `K` pixels, joined with what is there, if anything is; and the count, if they are the last.
#[inline(always)]
fn global_some<S: Simd, J: Join, const K: usize>(
    s: S,
    image: &[f32],
    more: bool,
    count: Option<S::F32>,
    to: &mut [f32],
) {
    let channels = to.len();
    let pixels = Rows::<K>::starting_at(image, &core::array::from_fn(|k| k * channels));
    for c in (0..channels).step_by(S::LANES) {
        let n = S::LANES.min(channels - c);
        let (mut joined, to) = (join_rows::<S, J, K>(s, &pixels, c, n), &mut to[c..c + n]);
        if more {
            joined = J::join(s, s.load_first(to), joined);
        }
        if let Some(count) = count {
            joined = J::finish(s, joined, count);
        }
        s.store_first(joined, to);
    }
}

/// Calls `f(x, len)` for all of `0 .. len` a register at a time: the last one overlaps the one before, or is the only one and not whole.
#[inline(always)]
pub(crate) fn registers<S: Simd>(len: usize, mut f: impl FnMut(usize, usize)) {
    if len >= S::LANES {
        for i in 0..len.div_ceil(S::LANES) {
            f((i * S::LANES).min(len - S::LANES), S::LANES);
        }
    } else if len > 0 {
        f(0, len);
    }
}

/// Joins the rows of a window to one line. Windows of up to four rows read them side by side.
#[inline(always)]
fn down<S: Simd, J: Join>(s: S, plan: &Pooling, rows: &[f32], taps: usize, to: &mut [f32]) {
    match taps {
        0 => plan.line.fill(
            s,
            to,
            #[inline(always)]
            |_, _| s.splat(J::NOTHING),
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
                |x, n| {
                    let mut joined = s.load_first(&rows[x..x + n]);
                    for tap in 1..taps {
                        joined = J::join(s, joined, s.load_first(&rows[tap * step + x..][..n]));
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
        |x, n| join_rows::<S, J, K>(s, &rows, x, n),
    );
}

/// Joins `n` numbers that rows have at `x`.
#[inline(always)]
fn join_rows<S: Simd, J: Join, const K: usize>(s: S, rows: &Rows<'_, K>, x: usize, n: usize) -> S::F32 {
    join_at::<S, J, K>(s, rows.at(x, n))
}

/// Joins a register of each row.
#[inline(always)]
fn join_at<S: Simd, J: Join, const K: usize>(s: S, at: RowsAt<'_, '_, K>) -> S::F32 {
    let mut joined = s.load_first(at.row(0));
    for k in 1..K {
        joined = J::join(s, joined, s.load_first(at.row(k)));
    }
    joined
}

/// Joins the taps of a line to a row of outputs.
#[inline(always)]
fn across<S: Simd, J: Join>(s: S, plan: &Pooling, from: &[f32], count: S::F32, to: &mut [f32]) {
    let columns = &plan.counts.columns;
    if plan.whole_line {
        let all = s.splat(whole::<S, J>(s, &from[..plan.taps.len()]));
        return s.store_first(J::finish(s, all, s.mul(count, s.splat(columns[0]))), to);
    }
    match plan.taps.len() {
        2 => across_taps::<S, J, 2>(s, plan, from, count, to),
        3 => across_taps::<S, J, 3>(s, plan, from, count, to),
        _ => {
            for (i, to) in to.chunks_exact_mut(plan.line.run).enumerate() {
                let from = &from[plan.line.start(i)..];
                registers::<S>(
                    to.len(),
                    #[inline(always)]
                    |x, n| {
                        let mut joined = s.load(&from[plan.taps[0] + x..]);
                        for &tap in &plan.taps[1..] {
                            joined = J::join(s, joined, s.load(&from[tap + x..]));
                        }
                        let count = counts::<S, J>(s, plan, count, i, x);
                        s.store_first(J::finish(s, joined, count), &mut to[x..x + n]);
                    },
                );
            }
        }
    }
}

/// The counts of the windows at `x` of run `i`, by that of their rows.
#[inline(always)]
pub(crate) fn counts<S: Simd, J: Join>(s: S, plan: &Pooling, rows: S::F32, i: usize, x: usize) -> S::F32 {
    let columns = &plan.counts.columns;
    match plan.line.runs {
        _ if !J::COUNTED => rows,
        1 => s.mul(rows, s.load(&columns[x..])),
        _ => s.mul(rows, s.splat(columns[i])),
    }
}

/// As many taps as that.
#[inline(always)]
fn across_taps<S: Simd, J: Join, const K: usize>(
    s: S,
    plan: &Pooling,
    from: &[f32],
    count: S::F32,
    to: &mut [f32],
) {
    let taps: &[usize; K] = plan.taps.first_chunk().unwrap();
    for (i, to) in to.chunks_exact_mut(plan.line.run).enumerate() {
        let rows = Rows::starting_at(&from[plan.line.start(i)..], taps);
        let (len, mut to) = (to.len(), RowsMut::new([to]));
        vectors::<S>(
            len,
            #[inline(always)]
            |v| {
                let joined = join_at::<S, J, K>(s, v.of::<S, K, _>(&rows));
                let count = counts::<S, J>(s, plan, count, i, v.range::<S>().start);
                s.store_first(J::finish(s, joined, count), v.of_mut::<S, 1>(&mut to, 0));
            },
        );
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
    for ow in inner.clone() {
        let rows = rows.part(ow * stride - line.left * channels, channels);
        let mut to = RowsMut::new([&mut to[ow * channels..][..channels]]);
        let count = s.splat(plan.counts.rows[oh] * plan.counts.columns[ow]);
        for v in 0..channels / S::LANES {
            window::<S, J, N, K>(s, rows.chunk(v, S::LANES), count, to.chunk(0, v, S::LANES));
        }
        if !channels.is_multiple_of(S::LANES) {
            // Again some of the numbers before.
            let x = channels - S::LANES;
            window::<S, J, N, K>(s, rows.at(x, S::LANES), count, to.at(0, x, S::LANES));
        }
    }
    for ow in (0..inner.start).chain(inner.end..plan.geometry.output()[1]) {
        pixel::<S, J>(s, plan, image, [oh, ow], to);
    }
}

/// Joins a register of each tap: those of a column first.
#[inline(always)]
fn window<S: Simd, J: Join, const N: usize, const K: usize>(
    s: S,
    taps: RowsAt<'_, '_, N>,
    count: S::F32,
    to: &mut [f32],
) {
    let mut joined = s.splat(0.0);
    for k in 0..N / K {
        let mut column = s.load(taps.row(k * K));
        for i in 1..K {
            column = J::join(s, column, s.load(taps.row(k * K + i)));
        }
        joined = if k == 0 { column } else { J::join(s, joined, column) };
    }
    s.store(J::finish(s, joined, count), to);
}

/// One pixel in NHWC, whatever its window has in the image.
#[inline(always)]
fn pixel<S: Simd, J: Join>(s: S, plan: &Pooling, image: &[f32], [oh, ow]: [usize; 2], to: &mut [f32]) {
    let (channels, geometry) = (plan.line.channels, &plan.geometry);
    let to = &mut to[ow * channels..][..channels];
    let count = s.splat(plan.counts.rows[oh] * plan.counts.columns[ow]);
    registers::<S>(
        channels,
        #[inline(always)]
        |c, n| {
            let mut joined = s.splat(J::NOTHING);
            for kw in geometry.taps(1, ow) {
                let mut column = s.splat(J::NOTHING);
                for i in 0..plan.windows[oh].taps {
                    let from = i * plan.row_step() + geometry.pixel(1, ow, kw) * channels + c;
                    column = J::join(s, column, s.load_first(&image[from..from + n]));
                }
                joined = J::join(s, joined, column);
            }
            s.store_first(J::finish(s, joined, count), &mut to[c..c + n]);
        },
    );
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
