//! Backward: the gradient of a window goes to its greatest pixel, or to all of its pixels in equal parts.
//!
//! ```text
//! max      diff_src[argmax of window (oh, ow)] += diff_dst[oh, ow]
//! average  diff_src[each pixel of window (oh, ow)] += diff_dst[oh, ow] / count
//! ```
//!
//! A task owns a band of rows of `diff_src`. It walks over all rows of outputs whose windows touch the band; the lines of the rows that a
//! window touches lie in a ring, and a row that no further window touches is written to `diff_src`, once. Each row is added to in the
//! same order, whichever band it is in. The maximum is found again instead of stored: its pixels are read in any case.

use crate::forward::{Join as _, Max};
use crate::line::{Line, put};
use crate::plan::Window;
use crate::{PoolGeometry, Pooling, Ties};
use convolve_core::{BlockMut, Layout, Update};
use convolve_simd::{Rows, Simd};
use core::ops::Range;

/// Rows of an image in a ring: row `y` is at slot `y % rows`.
struct Ring<'a> {
    line: &'a Line,
    rows: usize,
    /// The values of the rows, if they matter.
    values: &'a mut [f32],
    /// What their gradients are so far.
    grads: &'a mut [f32],
    /// Whether they hold what a margin may hold, or NaN.
    special: bool,
    /// The next row to enter.
    next: usize,
    /// The first row that entered.
    first: usize,
    /// Where rows go that leave, if they belong to the band.
    to: BlockMut<'a, f32>,
    band: Range<usize>,
    update: Update,
}

impl Ring<'_> {
    fn slot(&self, y: usize) -> Range<usize> {
        let start = y % self.rows * self.line.len;
        start..start + self.line.len
    }

    /// Lets rows up to `end` enter, each in the place of one that leaves.
    #[inline(always)]
    fn enter<S: Simd>(&mut self, s: S, end: usize, image: &[f32]) {
        while self.next < end {
            let (y, slot) = (self.next, self.slot(self.next));
            if y >= self.first + self.rows {
                self.leave(s, y - self.rows);
            }
            self.grads[slot.clone()].fill(0.0);
            if !self.values.is_empty() {
                let len = self.line.width * self.line.channels;
                let row = &image[y * len..][..len];
                self.line.fill(
                    s,
                    &mut self.values[slot],
                    #[inline(always)]
                    |x| s.load_first(&row[x..]),
                );
                self.special = self.special || special(s, row);
            }
            self.next += 1;
        }
    }

    /// Lets all rows leave.
    #[inline(always)]
    fn finish<S: Simd>(&mut self, s: S) {
        for y in self.next.saturating_sub(self.rows).max(self.first)..self.next {
            self.leave(s, y);
        }
    }

    #[inline(always)]
    fn leave<S: Simd>(&mut self, s: S, y: usize) {
        if self.band.contains(&y) {
            let to = self.to.row(0, y - self.band.start);
            let start = y % self.rows * self.line.len;
            self.line.read(s, &self.grads[start..][..self.line.len], to, self.update);
        }
    }

    /// Where the line of a row of window `oh` starts.
    #[inline(always)]
    fn row(&self, plan: &Pooling, oh: usize, row: usize) -> usize {
        (plan.windows[oh].first + row * plan.geometry.pool().dilation[0]) % self.rows * self.line.len
    }
}

/// Rows of the image that one window covers, at most all.
pub(crate) fn ring_rows(geometry: &PoolGeometry) -> usize {
    let pool = geometry.pool();
    ((pool.kernel[0] - 1) * pool.dilation[0] + 1).min(pool.input[0])
}

/// Floats of workspace of a task.
pub(crate) fn lane_len(geometry: &PoolGeometry, line: &Line, max: bool) -> usize {
    let ring = ring_rows(geometry).saturating_mul(line.len);
    ring.saturating_mul(1 + usize::from(max)).saturating_add(if max { 0 } else { line.len })
}

/// A band of rows of the images of a piece of `diff_src`; `ties` for maxima, none for averages.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "a pass has two inputs, an output, its place and workspace")]
pub(crate) fn piece<S: Simd>(
    s: S,
    plan: &Pooling,
    ties: Option<Ties>,
    src: &[f32],
    diff_dst: &[f32],
    [images, band, _]: &[Range<usize>; 3],
    diff_src: &mut BlockMut<'_, f32>,
    lane: &mut [f32],
    update: Update,
) {
    let (geometry, line) = (&plan.geometry, &plan.line);
    let ([height, _], outputs) = (geometry.pool().input, line.outputs());
    let rows = ring_rows(geometry);
    let (values, lane) = lane.split_at_mut(if ties.is_some() { rows * line.len } else { 0 });
    let (grads, rest) = lane.split_at_mut(rows * line.len);
    // Margins hold what no maximum is, and are not written again.
    values.fill(f32::NEG_INFINITY);
    let windows = windows(geometry, band);
    let first = plan.windows[windows.clone()].iter().find(|window| window.taps > 0);
    let first = first.map_or(band.start, |window| window.first.min(band.start));
    for (i, image) in images.clone().enumerate() {
        let src = if ties.is_some() {
            &src[image * height * plan.row_len()..][..height * plan.row_len()]
        } else {
            &[]
        };
        let diff_dst = &diff_dst[image * geometry.output()[0] * outputs..][..geometry.output()[0] * outputs];
        let to = diff_src.block([i..i + 1, 0..band.len(), 0..plan.row_len()]);
        let (band, values, grads) = (band.clone(), &mut *values, &mut *grads);
        let special = false;
        let mut ring = Ring { special, line, rows, values, grads, next: first, first, to, band, update };
        for oh in windows.clone() {
            let Window { first, taps } = plan.windows[oh];
            if taps == 0 {
                continue;
            }
            ring.enter(s, first + (taps - 1) * geometry.pool().dilation[0] + 1, src);
            let gradient = &diff_dst[oh * outputs..][..outputs];
            match ties {
                Some(ties) => max_row(s, plan, &mut ring, ties, oh, gradient),
                None => average_row(s, plan, &mut ring, oh, gradient, rest),
            }
        }
        ring.enter(s, ring.band.end, src);
        ring.finish(s);
    }
}

/// Maxima of 2 x 2 pixels side by side: every pixel is in one window, so nothing is added up, and no line is needed.
#[inline(always)]
pub(crate) fn squares<S: Simd>(
    s: S,
    plan: &Pooling,
    ties: Ties,
    [src, diff_dst]: [&[f32]; 2],
    [images, band, _]: &[Range<usize>; 3],
    diff_src: &mut BlockMut<'_, f32>,
    update: Update,
) {
    let ([height, _], [output, _]) = (plan.geometry.pool().input, plan.geometry.output());
    let (len, outputs, channels) = (plan.row_len(), plan.line.outputs(), plan.line.channels);
    for (i, image) in images.clone().enumerate() {
        let (src, diff_dst) = (&src[image * height * len..], &diff_dst[image * output * outputs..]);
        for oh in band.start / 2..(band.end / 2).min(output) {
            let rows = [0, 1].map(|row| &src[(2 * oh + row) * len..][..len]);
            let gradient = &diff_dst[oh * outputs..][..outputs];
            let [to] = diff_src.rows_of_planes::<1, 2>([i, 2 * oh - band.start], 1).all();
            match plan.geometry.pool().layout {
                Layout::Nchw => {
                    for x in (0..outputs).step_by(S::LANES) {
                        let end = (2 * (x + S::LANES)).min(2 * outputs);
                        let middle = (2 * x + S::LANES).min(end);
                        // Not a `map`: its closure would be a function of its own, without the instruction set.
                        let [above, below] = [&rows[0][..end], &rows[1][..end]];
                        let (a, b) =
                            s.deinterleave(s.load_first(&above[2 * x..]), s.load_first(&above[middle..]));
                        let (c, d) =
                            s.deinterleave(s.load_first(&below[2 * x..]), s.load_first(&below[middle..]));
                        let parts = parts(s, ties, [a, b, c, d], s.load_first(&gradient[x..]));
                        for row in 0..2 {
                            let (first, second) = s.interleave(parts[2 * row], parts[2 * row + 1]);
                            put(s, first, &mut to[row][2 * x..middle], update);
                            put(s, second, &mut to[row][middle..end], update);
                        }
                    }
                }
                Layout::Nhwc => {
                    for (ow, gradient) in gradient.chunks_exact(channels).enumerate() {
                        for c in (0..channels).step_by(S::LANES) {
                            let [left, right] = [0, 1].map(|column| {
                                let pixel = (2 * ow + column) * channels;
                                pixel + c..pixel + (c + S::LANES).min(channels)
                            });
                            let values = [
                                s.load_first(&rows[0][left.clone()]),
                                s.load_first(&rows[0][right.clone()]),
                                s.load_first(&rows[1][left.clone()]),
                                s.load_first(&rows[1][right.clone()]),
                            ];
                            let parts = parts(s, ties, values, s.load_first(&gradient[c..]));
                            for row in 0..2 {
                                put(s, parts[2 * row], &mut to[row][left.clone()], update);
                                put(s, parts[2 * row + 1], &mut to[row][right.clone()], update);
                            }
                        }
                    }
                }
            }
            if update == Update::Overwrite {
                to.into_iter().for_each(|row| row[2 * outputs..].fill(0.0));
            }
        }
        for y in (2 * output).max(band.start)..band.end {
            if update == Update::Overwrite {
                diff_src.row(i, y - band.start).fill(0.0);
            }
        }
    }
}

/// The parts of a gradient that the four pixels of a window get.
#[inline(always)]
fn parts<S: Simd>(s: S, ties: Ties, values: [S::F32; 4], gradient: S::F32) -> [S::F32; 4] {
    let max = s.max_nan(s.max_nan(values[0], values[1]), s.max_nan(values[2], values[3]));
    let (mut rest, mut parts) = (gradient, values);
    for i in 0..4 {
        let hit = s.or(s.equal(values[i], max), s.not_equal(values[i], values[i]));
        parts[i] = s.select(hit, rest, s.splat(0.0));
        if ties == Ties::First {
            rest = s.select(hit, s.splat(0.0), rest);
        }
    }
    parts
}

/// The rows of outputs whose windows touch a band of rows.
fn windows(geometry: &PoolGeometry, band: &Range<usize>) -> Range<usize> {
    let pool = geometry.pool();
    let (stride, top) = (pool.stride[0], geometry.padding()[0][0]);
    let extent = (pool.kernel[0] - 1) * pool.dilation[0] + 1;
    // oh * stride - top + extent > band.start  and  oh * stride - top < band.end
    let first = (band.start + top + 1).saturating_sub(extent).div_ceil(stride);
    let end = (band.end + top).div_ceil(stride).min(geometry.output()[0]);
    first.min(end)..end
}

/// Finds the maxima of a row of windows again and gives each its gradient. Windows of few taps read them side by side.
#[inline(always)]
fn max_row<S: Simd>(s: S, plan: &Pooling, ring: &mut Ring<'_>, ties: Ties, oh: usize, gradient: &[f32]) {
    if plan.padded && ring.special {
        return max_row_of_any(plan, ring, ties, oh, gradient);
    }
    match plan.windows[oh].taps * plan.taps.len() {
        2 => max_taps::<S, 2>(s, plan, ring, ties, oh, gradient),
        3 => max_taps::<S, 3>(s, plan, ring, ties, oh, gradient),
        4 => max_taps::<S, 4>(s, plan, ring, ties, oh, gradient),
        6 => max_taps::<S, 6>(s, plan, ring, ties, oh, gradient),
        9 => max_taps::<S, 9>(s, plan, ring, ties, oh, gradient),
        _ => max_any_taps(s, plan, ring, ties, oh, gradient),
    }
}

/// As many taps as that.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "registers must be indexed by constants of unrolled loops")]
fn max_taps<S: Simd, const N: usize>(
    s: S,
    plan: &Pooling,
    ring: &mut Ring<'_>,
    ties: Ties,
    oh: usize,
    gradient: &[f32],
) {
    let line = ring.line;
    let mut offsets = [0; N];
    for (i, offset) in offsets.iter_mut().enumerate() {
        *offset = ring.row(plan, oh, i / plan.taps.len()) + plan.taps[i % plan.taps.len()];
    }
    let rows = Rows::<N>::starting_at(ring.values, &offsets);
    let (grads, zero) = (&mut *ring.grads, s.splat(0.0));
    for run in 0..line.runs {
        let (from, gradient) = (line.start(run), &gradient[run * line.run..][..line.run]);
        for x in (0..line.run).step_by(S::LANES) {
            let at = rows.at(from + x, S::LANES);
            let mut values = [zero; N];
            for n in 0..N {
                values[n] = s.load(at.row(n));
            }
            let mut max = values[0];
            for n in 1..N {
                max = s.max_nan(max, values[n]);
            }
            let mut rest = s.load_first(&gradient[x..]);
            for n in 0..N {
                let hit = s.or(s.equal(values[n], max), s.not_equal(values[n], values[n]));
                let to = &mut grads[offsets[n] + from + x..][..S::LANES];
                s.store(s.add(s.load(to), s.select(hit, rest, zero)), to);
                if ties == Ties::First {
                    rest = s.select(hit, zero, rest);
                }
            }
        }
    }
}

/// Any number of taps: they are read twice.
#[inline(always)]
fn max_any_taps<S: Simd>(s: S, plan: &Pooling, ring: &mut Ring<'_>, ties: Ties, oh: usize, gradient: &[f32]) {
    let (line, zero) = (ring.line, s.splat(0.0));
    for run in 0..line.runs {
        let (from, gradient) = (line.start(run), &gradient[run * line.run..][..line.run]);
        for x in (0..line.run).step_by(S::LANES) {
            let mut max = s.splat(f32::NEG_INFINITY);
            for row in 0..plan.windows[oh].taps {
                let start = ring.row(plan, oh, row) + from + x;
                for &tap in &plan.taps {
                    max = s.max_nan(max, s.load(&ring.values[start + tap..]));
                }
            }
            let mut rest = s.load_first(&gradient[x..]);
            for row in 0..plan.windows[oh].taps {
                let start = ring.row(plan, oh, row) + from + x;
                for &tap in &plan.taps {
                    let value = s.load(&ring.values[start + tap..]);
                    let hit = s.or(s.equal(value, max), s.not_equal(value, value));
                    let to = &mut ring.grads[start + tap..][..S::LANES];
                    s.store(s.add(s.load(to), s.select(hit, rest, zero)), to);
                    if ties == Ties::First {
                        rest = s.select(hit, zero, rest);
                    }
                }
            }
        }
    }
}

/// Whether a row holds -inf or NaN.
#[inline(always)]
fn special<S: Simd>(s: S, row: &[f32]) -> bool {
    // x - x is NaN where x is not finite; any NaN stays in the sum.
    let mut sum = s.splat(0.0);
    for values in row.chunks(S::LANES) {
        let values = s.load_first(values);
        sum = s.add(sum, s.sub(values, values));
    }
    s.sum(sum).is_nan()
}

/// As [`max_row`], number by number, where a maximum may be -inf: so is the margin, which must not get the gradient.
#[cold]
fn max_row_of_any(plan: &Pooling, ring: &mut Ring<'_>, ties: Ties, oh: usize, gradient: &[f32]) {
    let (geometry, line) = (&plan.geometry, ring.line);
    for (j, gradient) in gradient.iter().enumerate() {
        let (ow, channel) = (j / line.channels, j % line.channels);
        let taps = || {
            let rows = 0..plan.windows[oh].taps;
            rows.flat_map(|row| geometry.taps(1, ow).map(move |kw| (row, kw)))
        };
        let place = |ring: &Ring<'_>, (row, kw): (usize, usize)| {
            ring.row(plan, oh, row) + line.pixel(geometry.pixel(1, ow, kw)) + channel
        };
        let max =
            taps().fold(f32::NEG_INFINITY, |max, tap| Max::join_one(max, ring.values[place(ring, tap)]));
        for tap in taps() {
            let at = place(ring, tap);
            if ring.values[at] == max || ring.values[at].is_nan() {
                ring.grads[at] += gradient;
                if ties == Ties::First {
                    break;
                }
            }
        }
    }
}

/// Gives every pixel of a row of windows its part.
#[inline(always)]
fn average_row<S: Simd>(
    s: S,
    plan: &Pooling,
    ring: &mut Ring<'_>,
    oh: usize,
    gradient: &[f32],
    sums: &mut [f32],
) {
    let (line, counts) = (ring.line, plan.counts.as_ref().expect("an average has counts"));
    let row = s.splat(counts.rows[oh]);
    sums.fill(0.0);
    // Tap by tap, not output by output: neighbouring taps overlap, and what was just stored cannot be loaded at another place.
    for &tap in &plan.taps {
        for run in 0..line.runs {
            let (from, first) = (line.start(run) + tap, run * line.run);
            for x in (0..line.run).step_by(S::LANES) {
                let part = s.load_first(&gradient[first + x..first + line.run]);
                let part = counts.divide(s, part, row, first + x);
                let to = &mut sums[from + x..from + line.run];
                s.store_first(s.add(s.load_first(to), part), to);
            }
        }
    }
    for kh in 0..plan.windows[oh].taps {
        let slot = ring.row(plan, oh, kh);
        for (to, sums) in
            ring.grads[slot..][..line.len].chunks_exact_mut(S::LANES).zip(sums.chunks_exact(S::LANES))
        {
            s.store(s.add(s.load(to), s.load(sums)), to);
        }
    }
}
