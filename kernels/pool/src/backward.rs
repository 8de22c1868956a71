//! Backward: the gradient of a window goes to its greatest pixel, or to all of its pixels in equal parts.
//!
//! ```text
//! max      diff_src[argmax of window (oh, ow)] += diff_dst[oh, ow]
//! average  diff_src[each pixel of window (oh, ow)] += diff_dst[oh, ow] / count
//! ```
//!
//! A task owns a band of rows of `diff_src`. It walks over all rows of outputs whose windows touch the band; the lines of the rows that a
//! window touches lie in a ring, and a row that no further window touches is written to `diff_src`, once. Each row is added to in the
//! order of outputs, whichever band it is in. The maximum is found again instead of stored: its pixels are read in any case.

use crate::line::Line;
use crate::{PoolGeometry, Pooling, Ties};
use convolve_core::{BlockMut, Update};
use convolve_simd::Simd;
use core::ops::Range;

/// Rows of an image in a ring: row `y` is at slot `y % rows`.
struct Ring<'a> {
    geometry: &'a PoolGeometry,
    line: &'a Line,
    rows: usize,
    /// The values of the rows, if they matter.
    values: &'a mut [f32],
    /// What their gradients are so far.
    grads: &'a mut [f32],
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

    /// Calls `f` with the start of the line of each row that window `oh` touches.
    #[inline(always)]
    fn each_row(&self, oh: usize, mut f: impl FnMut(usize)) {
        let taps = self.geometry.taps(0, oh);
        if taps.is_empty() {
            return;
        }
        let (end, step) = (self.rows * self.line.len, self.geometry.pool().dilation[0] * self.line.len);
        let mut start = self.slot(self.geometry.pixel(0, oh, taps.start)).start;
        for _ in taps {
            f(start);
            start += step;
            if start >= end {
                start -= end;
            }
        }
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
    ring.saturating_mul(1 + usize::from(max)).saturating_add(if max { line.outputs() + 16 } else { line.len })
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
    let first = windows.clone().find(|&oh| !geometry.taps(0, oh).is_empty());
    let first = first.map_or(band.start, |oh| geometry.pixel(0, oh, geometry.taps(0, oh).start));
    let first = first.min(band.start);
    for (i, image) in images.clone().enumerate() {
        let src = if ties.is_some() {
            &src[image * height * plan.row_len()..][..height * plan.row_len()]
        } else {
            &[]
        };
        let diff_dst = &diff_dst[image * geometry.output()[0] * outputs..][..geometry.output()[0] * outputs];
        let to = diff_src.block([i..i + 1, 0..band.len(), 0..plan.row_len()]);
        let (band, values, grads) = (band.clone(), &mut *values, &mut *grads);
        let mut ring = Ring { geometry, line, rows, values, grads, next: first, first, to, band, update };
        for oh in windows.clone() {
            let taps = geometry.taps(0, oh);
            if taps.is_empty() {
                continue;
            }
            ring.enter(s, geometry.pixel(0, oh, taps.end - 1) + 1, src);
            let gradient = &diff_dst[oh * outputs..][..outputs];
            match ties {
                Some(ties) => max_row(s, plan, &mut ring, ties, oh, gradient, rest),
                None => average_row(s, plan, &mut ring, oh, gradient, rest),
            }
        }
        ring.enter(s, ring.band.end, src);
        ring.finish(s);
    }
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

/// Finds the maxima of a row of windows again and gives each its gradient.
#[inline(always)]
fn max_row<S: Simd>(
    s: S,
    plan: &Pooling,
    ring: &mut Ring<'_>,
    ties: Ties,
    oh: usize,
    gradient: &[f32],
    maxima: &mut [f32],
) {
    let line = ring.line;
    for run in 0..line.runs {
        let (from, first) = (line.start(run), run * line.run);
        for x in (0..line.run).step_by(S::LANES) {
            let mut max = s.splat(f32::NEG_INFINITY);
            ring.each_row(
                oh,
                #[inline(always)]
                |start| {
                    for &tap in &plan.taps {
                        max = s.max_nan(max, s.load(&ring.values[start + from + x + tap..]));
                    }
                },
            );
            s.store_first(max, &mut maxima[first + x..first + line.run]);
        }
    }
    if plan.padded && least(s, &maxima[..line.outputs()]) == f32::NEG_INFINITY {
        return max_row_of_any(ring, ties, oh, gradient, maxima);
    }
    let zero = s.splat(0.0);
    for run in 0..line.runs {
        let (from, first) = (line.start(run), run * line.run);
        for x in (0..line.run).step_by(S::LANES) {
            let max = s.load_first(&maxima[first + x..first + line.run]);
            let mut rest = s.load_first(&gradient[first + x..first + line.run]);
            let (values, grads) = (&*ring.values, &mut *ring.grads);
            let taps = ring.geometry.taps(0, oh);
            let (end, step) = (ring.rows * line.len, ring.geometry.pool().dilation[0] * line.len);
            let mut start = ring.geometry.pixel(0, oh, taps.start) % ring.rows * line.len;
            for _ in taps {
                for &tap in &plan.taps {
                    let at = start + from + x + tap;
                    let value = s.load(&values[at..]);
                    let hit = s.or(s.equal(value, max), s.not_equal(value, value));
                    let to = &mut grads[at..at + S::LANES];
                    s.store(s.add(s.load(to), s.select(hit, rest, zero)), to);
                    if ties == Ties::First {
                        rest = s.select(hit, zero, rest);
                    }
                }
                start += step;
                if start >= end {
                    start -= end;
                }
            }
        }
    }
}

/// The least of some values, or -inf where there is a NaN.
#[inline(always)]
fn least<S: Simd>(s: S, values: &[f32]) -> f32 {
    let mut least = s.splat(0.0);
    for values in values.chunks(S::LANES) {
        // The old value last, so that a NaN does not hide it.
        least = s.min(s.load_first(values), least);
    }
    let mut lanes = [0.0; 16];
    s.store(least, &mut lanes);
    lanes.into_iter().fold(0.0, |least, x| if x.is_nan() { f32::NEG_INFINITY } else { x.min(least) })
}

/// As [`max_row`], number by number, where a maximum may be -inf: so is the margin, which must not get the gradient.
#[cold]
fn max_row_of_any(ring: &mut Ring<'_>, ties: Ties, oh: usize, gradient: &[f32], maxima: &[f32]) {
    let (geometry, line) = (ring.geometry, ring.line);
    for (j, (gradient, max)) in gradient.iter().zip(maxima).enumerate() {
        let (ow, channel) = (j / line.channels, j % line.channels);
        'window: for kh in geometry.taps(0, oh) {
            let start = ring.slot(geometry.pixel(0, oh, kh)).start;
            for kw in geometry.taps(1, ow) {
                let at = start + line.pixel(geometry.pixel(1, ow, kw)) + channel;
                let value = ring.values[at];
                if value == *max || value.is_nan() {
                    ring.grads[at] += gradient;
                    if ties == Ties::First {
                        break 'window;
                    }
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
    let taps = ring.geometry.taps(0, oh);
    for kh in taps {
        let slot = ring.slot(ring.geometry.pixel(0, oh, kh));
        for (to, sums) in ring.grads[slot].chunks_exact_mut(S::LANES).zip(sums.chunks_exact(S::LANES)) {
            s.store(s.add(s.load(to), s.load(sums)), to);
        }
    }
}
