//! Backward of averages: a pixel adds up its part of the gradient of every window that has it.
//!
//! ```text
//! sums[ow]       = part of columns[ow] * sum over the windows (oh, ow) that have row y of  part of rows[oh] * diff_dst[oh, ow]
//! diff_src[y, x] = sum over the columns ow that have x of  sums[ow]
//! ```
//!
//! A block of rows of the image at a time, through rows of sums in L1; rows that are in the same windows share one. (Row by
//! row takes 1.2 to 1.6 times as long in NCHW: what was only just written is read at another alignment.)
//! Pixels are written once, in the order of memory:
//! in NHWC pixel by pixel, in NCHW with a stride of two by two registers whose lanes are interleaved. There the row of sums has zeros at
//! both ends, so that pixels at the edges are like others.

use crate::PoolGeometry;
use crate::forward::registers;
use crate::line::{Line, SLACK, put};
use crate::plan::Pooling;
use crate::reach::{Reach, Segment};
use convolve_core::{Layout, Update, lines};
use convolve_simd::{Rows, Simd};
use core::ops::Range;

/// How a row of sums becomes a row of the image.
#[derive(Debug)]
pub(crate) struct Spread {
    /// Zeros before the sums.
    before: usize,
    /// Numbers of a row of sums with its margins.
    len: usize,
    /// Rows of a block.
    rows: usize,
    /// Which rows of the image are not in the same windows as those before.
    fresh: Vec<bool>,
    /// Neighbouring numbers that add up the same.
    runs: Vec<Run>,
    /// Whether runs are of a line, by phases, and not of the row itself.
    sorted: bool,
}

#[derive(Debug)]
struct Run {
    /// Where it is written.
    to: usize,
    len: usize,
    /// The place of its first pixel, behind the margin.
    place: usize,
    /// Entries of [`Reach::taps`].
    taps: Range<usize>,
}

/// Numbers of the sums of a block.
const BLOCK: usize = 2 << 10;

impl Spread {
    /// Numbers of the sums of a block.
    pub(crate) fn workspace_len(&self) -> usize {
        lines(self.rows.saturating_mul(self.len))
    }

    pub(crate) fn new(geometry: &PoolGeometry, line: &Line, [down, across]: [&Reach; 2]) -> Self {
        let (pool, output, channels) = (geometry.pool(), geometry.output()[1], line.channels);
        let left = geometry.padding()[1][0];
        let stride = across.stride;
        let sorted = line.phases > 1;
        // A single window has no neighbours to be told from, and in NHWC zeros cost as much as numbers.
        let margins = pool.layout == Layout::Nchw && output > 1;
        let shifts = across.taps.iter().map(|tap| tap.shift).max().unwrap_or(0);
        let before = if margins { shifts } else { 0 };
        let places = (left + pool.input[1]).div_ceil(stride);
        let len = (before + output.max(places)).saturating_mul(channels).saturating_add(SLACK);
        let mut runs = Vec::new();
        let mut add = |segment: &Segment, first: usize, count: usize| {
            let pixel = segment.pixel + first * stride;
            let to = if sorted { line.pixel(pixel) } else { pixel * channels };
            let (place, taps) = (before + segment.place + first, segment.taps.clone());
            runs.push(Run { to, len: count * channels, place, taps });
        };
        if margins {
            for phase in 0..stride.min(left + pool.input[1]) {
                let place = left.saturating_sub(phase).div_ceil(stride);
                let pixel = place * stride + phase - left;
                let taps = across.phases[phase].clone();
                if pixel < pool.input[1] {
                    let len = (pool.input[1] - pixel).div_ceil(stride);
                    add(&Segment { pixel, place, len, taps }, 0, len);
                }
            }
        } else {
            for segment in &across.segments {
                match stride {
                    1 => add(segment, 0, segment.len),
                    _ => (0..segment.len).for_each(|i| add(segment, i, 1)),
                }
            }
        }
        runs.sort_by_key(|run| run.to);
        let pixels = down.by_pixel(pool.input[0]);
        let windows = |y: usize| {
            let (place, taps) = &pixels[y];
            down.taps[taps.clone()].iter().map(move |tap| place - tap.shift)
        };
        let fresh = (0..pool.input[0]).map(|y| y == 0 || !windows(y).eq(windows(y - 1))).collect();
        let rows = (BLOCK / len).clamp(1, pool.input[0]);
        Self { before: before * channels, len, rows, fresh, runs, sorted }
    }
}

/// A band of rows of an image; `lane` is workspace.
#[expect(clippy::too_many_arguments, reason = "they are what a band is")]
pub(crate) fn rows<S: Simd>(
    s: S,
    plan: &Pooling,
    spread: &Spread,
    diff_dst: &[f32],
    band: Range<usize>,
    to: &mut [f32],
    lane: &mut [f32],
    update: Update,
) {
    let (sums, line) = lane.split_at_mut(spread.workspace_len());
    if plan.whole_image {
        let part = diff_dst[0] * plan.counts.parts[0][0] * plan.counts.parts[1][0];
        match update {
            Update::Overwrite => to.fill(part),
            Update::Accumulate => to.iter_mut().for_each(|to| *to += part),
        }
        return;
    }
    sums.fill(0.0);
    for (start, to) in band.clone().step_by(spread.rows).zip(to.chunks_mut(spread.rows * plan.row_len())) {
        let rows = start..(start + spread.rows).min(band.end);
        let mut parts = sums.chunks_exact_mut(spread.len);
        for y in rows.clone().filter(|y| *y == start || spread.fresh[*y]) {
            let sums = parts.next().expect("there is one for each row");
            sum_row(s, plan, y, diff_dst, &mut sums[spread.before..][..plan.line.outputs()]);
        }
        s.vectorize(
            #[inline(always)]
            |s| {
                let mut parts = sums.chunks_exact(spread.len);
                let mut sums = &[][..];
                for (y, to) in rows.zip(to.chunks_exact_mut(plan.row_len())) {
                    if y == start || spread.fresh[y] {
                        sums = parts.next().expect("there is one for each row");
                    }
                    spread.write(s, plan, sums, to, line, update);
                }
            },
        );
    }
}

impl Spread {
    /// A row of the image from its row of sums.
    #[inline(always)]
    fn write<S: Simd>(
        &self,
        s: S,
        plan: &Pooling,
        sums: &[f32],
        to: &mut [f32],
        line: &mut [f32],
        update: Update,
    ) {
        if !self.sorted {
            return self.runs.iter().for_each(|run| run.write(s, plan, sums, &mut to[run.to..], update));
        }
        if let ([first, second], 2) = (self.runs.as_slice(), plan.line.phases) {
            // By their pixels: an odd padding has the second phase first.
            let (even, odd) =
                if plan.line.left.is_multiple_of(2) { (first, second) } else { (second, first) };
            match (even.taps.len(), odd.taps.len()) {
                (1, 1) => return interleave::<S, 1, 1>(s, plan, [even, odd], sums, to, update),
                (1, 2) => return interleave::<S, 1, 2>(s, plan, [even, odd], sums, to, update),
                (2, 1) => return interleave::<S, 2, 1>(s, plan, [even, odd], sums, to, update),
                (2, 2) => return interleave::<S, 2, 2>(s, plan, [even, odd], sums, to, update),
                _ => {}
            }
        }
        self.runs.iter().for_each(|run| run.write(s, plan, sums, &mut line[run.to..], Update::Overwrite));
        plan.line.read(s, line, to, update);
    }
}

impl Run {
    #[inline(always)]
    fn offsets<const N: usize>(&self, plan: &Pooling) -> [usize; N] {
        let taps = &plan.across.taps[self.taps.clone()];
        core::array::from_fn(|n| (self.place - taps[n].shift) * plan.line.channels)
    }

    #[inline(always)]
    fn write<S: Simd>(&self, s: S, plan: &Pooling, sums: &[f32], to: &mut [f32], update: Update) {
        let to = &mut to[..self.len];
        match self.taps.len() {
            0 if update == Update::Overwrite => to.fill(0.0),
            0 => {}
            1 => self.write_taps::<S, 1>(s, plan, sums, to, update),
            2 => self.write_taps::<S, 2>(s, plan, sums, to, update),
            3 => self.write_taps::<S, 3>(s, plan, sums, to, update),
            _ => {
                let channels = plan.line.channels;
                let taps = &plan.across.taps[self.taps.clone()];
                for x in (0..to.len()).step_by(S::LANES) {
                    let n = S::LANES.min(to.len() - x);
                    let mut sum = s.splat(0.0);
                    for tap in taps {
                        let from = (self.place - tap.shift) * channels + x;
                        sum = s.add(sum, s.load_first(&sums[from..from + n]));
                    }
                    put(s, sum, &mut to[x..x + n], update);
                }
            }
        }
    }

    #[inline(always)]
    fn write_taps<S: Simd, const N: usize>(
        &self,
        s: S,
        plan: &Pooling,
        sums: &[f32],
        to: &mut [f32],
        update: Update,
    ) {
        let rows = Rows::<N>::starting_at(sums, &self.offsets(plan));
        if update == Update::Overwrite {
            return registers::<S>(
                to.len(),
                #[inline(always)]
                |x, n| s.store_first(add_up(s, &rows, x, n), &mut to[x..x + n]),
            );
        }
        for x in (0..to.len()).step_by(S::LANES) {
            let n = S::LANES.min(to.len() - x);
            put(s, add_up(s, &rows, x, n), &mut to[x..x + n], update);
        }
    }
}

#[inline(always)]
fn add_up<S: Simd, const N: usize>(s: S, rows: &Rows<'_, N>, x: usize, n: usize) -> S::F32 {
    let at = rows.at(x, n);
    let mut sum = s.load_first(at.row(0));
    for i in 1..N {
        sum = s.add(sum, s.load_first(at.row(i)));
    }
    sum
}

/// Pixels at even and at odd places, which have as many taps as that, lane by lane in turn.
#[inline(always)]
fn interleave<S: Simd, const A: usize, const B: usize>(
    s: S,
    plan: &Pooling,
    [even, odd]: [&Run; 2],
    sums: &[f32],
    to: &mut [f32],
    update: Update,
) {
    let even = Rows::<A>::starting_at(sums, &even.offsets(plan));
    let odd = Rows::<B>::starting_at(sums, &odd.offsets(plan));
    let (len, step) = (to.len(), 2 * S::LANES);
    // The last registers overlap those before, where that changes nothing.
    let overlap = update == Update::Overwrite && len >= step && len.is_multiple_of(2);
    let whole = if overlap { len.div_ceil(step) } else { len / step };
    for i in 0..whole {
        let x = (i * step).min(len - step);
        let (a, b) = s.interleave(add_up(s, &even, x / 2, S::LANES), add_up(s, &odd, x / 2, S::LANES));
        put(s, a, &mut to[x..x + S::LANES], update);
        put(s, b, &mut to[x + S::LANES..x + step], update);
    }
    if whole * step < len {
        let x = whole * step;
        let middle = len.min(x + S::LANES);
        let (a, b) = s.interleave(add_up(s, &even, x / 2, S::LANES), add_up(s, &odd, x / 2, S::LANES));
        put(s, a, &mut to[x..middle], update);
        put(s, b, &mut to[middle..], update);
    }
}

/// For one row of the image what its pixels take from each column of windows: the sum of the parts.
fn sum_row<S: Simd>(s: S, plan: &Pooling, y: usize, diff_dst: &[f32], to: &mut [f32]) {
    let (outputs, (place, taps)) = (plan.line.outputs(), &plan.rows[y]);
    let taps = &plan.down.taps[taps.clone()];
    let mut windows = [0; 4];
    windows.iter_mut().zip(taps).for_each(|(to, tap)| *to = place - tap.shift);
    match taps.len() {
        0 => to.fill(0.0),
        1 => sum_rows::<S, 1>(s, plan, diff_dst, &windows, to),
        2 => sum_rows::<S, 2>(s, plan, diff_dst, &windows, to),
        3 => sum_rows::<S, 3>(s, plan, diff_dst, &windows, to),
        4 => sum_rows::<S, 4>(s, plan, diff_dst, &windows, to),
        _ => s.vectorize(
            #[inline(always)]
            |s| {
                parts(
                    s,
                    plan,
                    to,
                    #[inline(always)]
                    |x, n| {
                        let mut sum = s.splat(0.0);
                        for tap in taps {
                            let oh = place - tap.shift;
                            let part = s.load_first(&diff_dst[oh * outputs + x..][..n]);
                            sum = s.mul_add(part, s.splat(plan.counts.parts[0][oh]), sum);
                        }
                        sum
                    },
                );
            },
        ),
    }
}

/// As many rows of windows as that.
#[expect(clippy::needless_range_loop, reason = "registers must be indexed by constants of unrolled loops")]
fn sum_rows<S: Simd, const R: usize>(
    s: S,
    plan: &Pooling,
    diff_dst: &[f32],
    windows: &[usize; 4],
    to: &mut [f32],
) {
    s.vectorize(
        #[inline(always)]
        |s| {
            let offsets: [usize; R] = core::array::from_fn(|r| windows[r] * to.len());
            let rows = Rows::<R>::starting_at(diff_dst, &offsets);
            let mut factors = [s.splat(0.0); R];
            for r in 0..R {
                factors[r] = s.splat(plan.counts.parts[0][windows[r]]);
            }
            parts(
                s,
                plan,
                to,
                #[inline(always)]
                |x, n| {
                    let at = rows.at(x, n);
                    let mut sum = s.mul(s.load_first(at.row(0)), factors[0]);
                    for r in 1..R {
                        sum = s.mul_add(s.load_first(at.row(r)), factors[r], sum);
                    }
                    sum
                },
            );
        },
    );
}

/// Writes what `sum` gives for the numbers of a row of windows, times the part of each column.
#[inline(always)]
fn parts<S: Simd>(s: S, plan: &Pooling, to: &mut [f32], sum: impl Fn(usize, usize) -> S::F32) {
    let (line, columns) = (&plan.line, &plan.counts.parts[1]);
    for (i, to) in to.chunks_exact_mut(line.run).enumerate() {
        registers::<S>(
            line.run,
            #[inline(always)]
            |x, n| {
                let part = if line.runs == 1 { s.load(&columns[x..]) } else { s.splat(columns[i]) };
                s.store_first(s.mul(sum(i * line.run + x, n), part), &mut to[x..x + n]);
            },
        );
    }
}
