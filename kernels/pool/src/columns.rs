//! Windows of two or three columns that step by two, in NCHW: lanes are windows side by side, and rows are read where they lie.
//!
//! ```text
//! last two taps of windows o, o + 1, ..     pixels first + 2 o, first + 2 (o + 1), ..  and the ones beside them        first = C - 2 - left
//! tap 0 of three                            the last tap of the window before: lanes moved up by one
//! ```
//!
//! So a register of pixels is taken apart once, and nothing is kept but one register from one step to the next. (Asking for the next rows, which
//! depthwise layers gain by, gains nothing here, and costs a seventh in a cache.) A pixel beyond an edge is what
//! joins to nothing. Where winners are asked for that is not enough: of a window of nothing but -inf the first pixel that exists wins. On the right a
//! tap that exists beats an equal one after it; on the left, the tap that does not exist goes by the name of the one after it.

use crate::forward::{Join, counts};
use crate::line::Line;
use crate::winners::{Span, Winners, better};
use crate::{PoolGeometry, Pooling};
use convolve_core::Layout;
use convolve_simd::{Rows, RowsMut, Simd};
use core::ops::Range;

/// Columns of a window, if they are read like this.
pub(crate) fn kernel(geometry: &PoolGeometry, line: &Line) -> Option<usize> {
    let pool = geometry.pool();
    let [rows, columns] = pool.kernel;
    // Each row of a window has a pixel of the image.
    let pixels = (0..geometry.output()[1]).all(|ow| !geometry.taps(1, ow).is_empty());
    let side_by_side = pool.layout == Layout::Nchw && line.phases == 2 && pool.dilation[1] == 1;
    (side_by_side && rows <= 3 && (2..=3).contains(&columns) && line.left <= columns - 2 && pixels)
        .then_some(columns)
}

/// How the windows of a row are cut into registers.
struct Row<S: Simd> {
    /// The last tap but one of the first window.
    first: usize,
    /// Pixels of a row.
    len: usize,
    outputs: usize,
    /// Pairs of registers that are all there, and what the pair after them has.
    whole: usize,
    rest: [usize; 2],
    inside: [S::Mask; 2],
}

/// The windows of a pair of registers.
#[derive(Clone, Copy)]
enum Pair {
    Whole(usize),
    /// From this window on; with some pixels, or none.
    Rest(usize),
    Nothing(usize),
}

impl<S: Simd> Row<S> {
    #[inline(always)]
    fn new<const C: usize>(s: S, plan: &Pooling) -> Self {
        let (first, len, outputs) = (C - 2 - plan.line.left, plan.row_len(), plan.line.outputs());
        let pixels = len.saturating_sub(first).min(2 * outputs);
        let (whole, rest) = (pixels / (2 * S::LANES), pixels % (2 * S::LANES));
        let rest = [rest.min(S::LANES), rest.saturating_sub(S::LANES)];
        let inside = [s.between(0, rest[0]), s.between(0, rest[1])];
        Self { first, len, outputs, whole, rest, inside }
    }

    /// Calls `f` for all windows, from left to right.
    #[inline(always)]
    fn pairs(&self, mut f: impl FnMut(Pair)) {
        for i in 0..self.whole {
            f(Pair::Whole(i));
        }
        let mut x = self.whole * S::LANES;
        if x < self.outputs {
            f(Pair::Rest(x));
            x += S::LANES;
        }
        while x < self.outputs {
            f(Pair::Nothing(x));
            x += S::LANES;
        }
    }

    /// The windows of a pair.
    #[inline(always)]
    fn windows(&self, pair: Pair) -> Range<usize> {
        match pair {
            Pair::Whole(i) => i * S::LANES..(i + 1) * S::LANES,
            Pair::Rest(x) | Pair::Nothing(x) => x..(x + S::LANES).min(self.outputs),
        }
    }

    /// Both registers of each row, from `first` on; `nothing` where there are no pixels.
    #[inline(always)]
    fn read<const R: usize>(&self, s: S, rows: &Rows<'_, R>, pair: Pair, nothing: f32) -> [[S::F32; 2]; R] {
        let mut read = [[s.splat(nothing); 2]; R];
        // Loops, not `from_fn`: its closure would be a function of its own, without the instruction set.
        for k in 0..2 {
            match pair {
                Pair::Whole(i) => {
                    let at = rows.chunk(2 * i + k, S::LANES);
                    for (r, to) in read.iter_mut().enumerate() {
                        to[k] = s.load(at.row(r));
                    }
                }
                Pair::Rest(x) => {
                    let at = rows.at((2 * x + k * S::LANES).min(rows.len()), self.rest[k]);
                    for (r, to) in read.iter_mut().enumerate() {
                        let v = s.load_first(at.row(r));
                        to[k] = if nothing == 0.0 { v } else { s.select(self.inside[k], v, to[k]) };
                    }
                }
                Pair::Nothing(_) => {}
            }
        }
        read
    }
}

/// The taps of windows, and the last register, which the next step begins with.
#[inline(always)]
fn taps<S: Simd, const C: usize>(s: S, [first, second]: [S::F32; 2], before: &mut S::F32) -> [S::F32; C] {
    let (a, b) = s.deinterleave(first, second);
    let mut taps = [s.shift_in(*before, b); C];
    (taps[C - 2], taps[C - 1]) = (a, b);
    *before = b;
    taps
}

/// Pooled rows `rows` of an image.
pub(crate) fn forward<S: Simd, J: Join>(
    s: S,
    plan: &Pooling,
    image: &[f32],
    rows: Range<usize>,
    to: &mut [f32],
) {
    let outputs = plan.line.outputs();
    for span in &plan.spans[0] {
        let windows = span.windows.start.max(rows.start)..span.windows.end.min(rows.end);
        if windows.is_empty() {
            continue;
        }
        let image = &image[plan.windows[windows.start].first * plan.row_len()..];
        let to = &mut to[(windows.start - rows.start) * outputs..][..windows.len() * outputs];
        let counts = &plan.counts.rows[windows];
        match plan.columns {
            Some(2) => some_rows::<S, J, 2>(s, plan, image, span.taps.len(), counts, to),
            _ => some_rows::<S, J, 3>(s, plan, image, span.taps.len(), counts, to),
        }
    }
}

/// Rows of windows of so many rows and `C` columns, of which the first begins with the image that is given.
fn some_rows<S: Simd, J: Join, const C: usize>(
    s: S,
    plan: &Pooling,
    image: &[f32],
    rows: usize,
    counts: &[f32],
    to: &mut [f32],
) {
    match rows {
        0 => windows::<S, J, 0, C>(s, plan, image, counts, to),
        1 => windows::<S, J, 1, C>(s, plan, image, counts, to),
        2 => windows::<S, J, 2, C>(s, plan, image, counts, to),
        _ => windows::<S, J, 3, C>(s, plan, image, counts, to),
    }
}

/// The same for `R` rows.
fn windows<S: Simd, J: Join, const R: usize, const C: usize>(
    s: S,
    plan: &Pooling,
    image: &[f32],
    row_counts: &[f32],
    to: &mut [f32],
) {
    s.vectorize(
        #[inline(always)]
        |s| {
            let row = Row::new::<C>(s, plan);
            let step = plan.geometry.pool().stride[0] * row.len;
            let rows = Rows::<R>::starting_at(image, &core::array::from_fn(|r| r * plan.row_step()));
            for (i, (to, count)) in to.chunks_exact_mut(row.outputs).zip(row_counts).enumerate() {
                let (mut to, count) = (RowsMut::new([to]), s.splat(*count));
                let (mut rows, mut before) = (rows, s.splat(J::NOTHING));
                if R > 0 {
                    rows = rows.part(i * step, row.len);
                    if C == 3 && row.first == 1 {
                        before = s.splat(one::<J, R>(&rows));
                    }
                    rows = rows.part(row.first, row.len - row.first);
                }
                row.pairs(
                    #[inline(always)]
                    |pair| {
                        let windows = row.windows(pair);
                        let mut joined = [s.splat(J::NOTHING); 2];
                        for (r, read) in row.read(s, &rows, pair, J::NOTHING).into_iter().enumerate() {
                            for k in 0..2 {
                                joined[k] = if r == 0 { read[k] } else { J::join(s, joined[k], read[k]) };
                            }
                        }
                        let taps = taps::<S, C>(s, joined, &mut before);
                        let mut all = taps[0];
                        for tap in &taps[1..] {
                            all = J::join(s, all, *tap);
                        }
                        let count = counts::<S, J>(s, plan, count, 0, windows.start);
                        let to = match pair {
                            Pair::Whole(i) => to.chunk(0, i, S::LANES),
                            _ => to.at(0, windows.start, windows.len()),
                        };
                        s.store_first(J::finish(s, all, count), to);
                    },
                );
            }
        },
    );
}

/// The first pixels of all rows.
#[inline(always)]
fn one<J: Join, const R: usize>(rows: &Rows<'_, R>) -> f32 {
    let at = rows.at(0, 1);
    let mut joined = J::NOTHING;
    for r in 0..R {
        let pixel = at.row(r)[0];
        joined = if r == 0 { pixel } else { J::join_one(joined, pixel) };
    }
    joined
}

/// The winners of rows of windows that have the same taps; the first of them goes to `place`.
pub(crate) fn winners<S: Simd>(
    s: S,
    plan: &Pooling,
    image: &[f32],
    down: &Span,
    place: usize,
    to: &mut Winners<'_>,
) {
    let image = &image[plan.windows[down.windows.start].first * plan.row_len()..];
    match plan.columns {
        Some(2) => by_rows::<S, 2>(s, plan, image, down, place, to),
        _ => by_rows::<S, 3>(s, plan, image, down, place, to),
    }
}

/// The same of windows of `C` columns.
fn by_rows<S: Simd, const C: usize>(
    s: S,
    plan: &Pooling,
    image: &[f32],
    down: &Span,
    place: usize,
    to: &mut Winners<'_>,
) {
    match down.taps.len() {
        0 => some_winners::<S, 0, C>(s, plan, image, down, place, to),
        1 => some_winners::<S, 1, C>(s, plan, image, down, place, to),
        2 => some_winners::<S, 2, C>(s, plan, image, down, place, to),
        _ => some_winners::<S, 3, C>(s, plan, image, down, place, to),
    }
}

/// The same of windows of `R` rows and `C` columns.
fn some_winners<S: Simd, const R: usize, const C: usize>(
    s: S,
    plan: &Pooling,
    image: &[f32],
    down: &Span,
    place: usize,
    to: &mut Winners<'_>,
) {
    s.vectorize(
        #[inline(always)]
        |s| {
            let row = Row::new::<C>(s, plan);
            let step = plan.geometry.pool().stride[0] * row.len;
            let rows = Rows::<R>::starting_at(image, &core::array::from_fn(|r| r * plan.row_step()));
            for i in 0..down.windows.len() {
                let mut to = to.run(place + i * row.outputs, row.outputs);
                let (mut rows, mut before) = (rows, [s.splat(f32::NEG_INFINITY); R]);
                // The name of tap 0, of the first window and of all others.
                let mut zero = s.splat(0.0);
                if R > 0 {
                    rows = rows.part(i * step, row.len);
                    if C == 3 && row.first == 1 {
                        for (r, before) in before.iter_mut().enumerate() {
                            *before = s.splat(rows.at(0, 1).row(r)[0]);
                        }
                    } else if C == 3 {
                        zero = s.shift_in(s.splat(1.0), zero);
                    }
                    rows = rows.part(row.first, row.len - row.first);
                }
                row.pairs(
                    #[inline(always)]
                    |pair| {
                        let read = row.read(s, &rows, pair, f32::NEG_INFINITY);
                        let mut best = (s.splat(f32::NEG_INFINITY), s.splat(0.0));
                        for r in (0..R).rev() {
                            let taps = taps::<S, C>(s, read[r], &mut before[r]);
                            let name = ((down.taps.start + r) * C) as f32;
                            let mut found = (taps[C - 1], s.splat(name + (C - 1) as f32));
                            for c in (0..C - 1).rev() {
                                let name = match c {
                                    0 => s.add(zero, s.splat(name)),
                                    _ => s.splat(name + c as f32),
                                };
                                found = better(s, found, (taps[c], name));
                            }
                            best = if r + 1 == R { found } else { better(s, best, found) };
                        }
                        zero = s.splat(0.0);
                        to.put(s, row.windows(pair), best);
                    },
                );
            }
        },
    );
}
