//! Backward: the gradient of a window goes to its greatest pixel, or to all of its pixels in equal parts.
//!
//! ```text
//! max      diff_src[argmax of window (oh, ow)] += diff_dst[oh, ow]
//! average  diff_src[each pixel of window (oh, ow)] += diff_dst[oh, ow] / count
//! ```
//!
//! Maxima are computed as a gather (`gather.rs`): a task owns a band of rows of `diff_src` and reads of all windows that reach it. Who won is read from
//! the indices that a forward run kept, or found again from `src` (`winners.rs`). In NCHW
//! pixels of a block of rows are written by phases modulo the stride, and then put in order, once. Windows of 2 x 2 and 3 x 3 that step by
//! two are in `cells.rs` (NHWC) and `planes.rs` (NCHW), other averages in `spread.rs`.

use crate::cells::Band;
use crate::gather::{Runs, Source, Take, Taken, Windows, gather};
use crate::line::Line;
use crate::reach::{Segment, Tap};
use crate::winners::{self, Winners};
use crate::{PoolGeometry, Pooling, Reduction, Ties, cells};
use convolve_core::{BlockMut, Update};
use convolve_simd::Simd;
use core::ops::Range;

/// What is read.
#[derive(Clone, Copy)]
pub(crate) struct Operands<'a> {
    /// For maxima whose winners are not known.
    pub(crate) src: &'a [f32],
    /// Where they are.
    pub(crate) indices: &'a [u8],
    pub(crate) diff_dst: &'a [f32],
    pub(crate) update: Update,
}

/// Numbers of a block of rows that are put in order together: half of L1.
const BLOCK: usize = 6 << 10;

/// Rows of a block: a whole number of strides.
fn block_rows(geometry: &PoolGeometry, line: &Line) -> usize {
    let (height, stride) = (geometry.pool().input[0], geometry.pool().stride[0]);
    (BLOCK / line.len).max(1).next_multiple_of(stride.min(height)).min(height)
}

/// Rows of the image that one window covers, at most all.
pub(crate) fn window_rows(geometry: &PoolGeometry) -> usize {
    let pool = geometry.pool();
    ((pool.kernel[0] - 1) * pool.dilation[0] + 1).min(pool.input[0])
}

/// The parts of the workspace of a task with a band of so many rows: rows of `src` by phases; winners; a block of rows of `diff_src`, or what cells
/// ask for; and a block of rows of `src`.
pub(crate) fn lane_lens(plan: &Pooling, band: usize) -> [usize; 4] {
    let (geometry, line, by_cells) = (&plan.geometry, &plan.line, plan.cells.is_some());
    let (outputs, pool) = (line.outputs(), geometry.pool());
    let lines = if by_cells {
        cells::workspace_len(geometry)
    } else {
        block_rows(geometry, line).saturating_mul(line.len)
    };
    match pool.reduction {
        Reduction::Average { .. } => [0, 0, 0, 0],
        Reduction::Max { ties } => {
            // More than those of as many rows as the image has: windows may reach it from far outside.
            let extent = (pool.kernel[0] - 1).saturating_mul(pool.dilation[0]).saturating_add(1);
            let windows = band.saturating_add(extent) / pool.stride[0] + 1;
            let found = windows.min(geometry.output()[0]).saturating_mul(outputs);
            let own = if ties == Ties::All && !by_cells { lines } else { 0 };
            [winners::workspace_len(plan), found, lines, own]
        }
    }
}

/// The rows of windows that reach a band of rows.
fn windows(geometry: &PoolGeometry, band: &Range<usize>) -> Range<usize> {
    let pool = geometry.pool();
    let (stride, top) = (pool.stride[0], geometry.padding()[0][0]);
    let extent = (pool.kernel[0] - 1) * pool.dilation[0] + 1;
    // oh * stride - top + extent > band.start  and  oh * stride - top < band.end
    let first = (band.start + top + 1).saturating_sub(extent).div_ceil(stride);
    let end = (band.end + top).div_ceil(stride).min(geometry.output()[0]);
    first.min(end)..end
}

/// A band of rows of the images of a piece of `diff_src`.
pub(crate) fn piece<S: Simd, T: Taken>(
    s: S,
    plan: &Pooling,
    operands: Operands<'_>,
    [images, _, numbers]: &[Range<usize>; 3],
    diff_src: &mut BlockMut<'_, f32>,
    lane: &mut [f32],
) {
    let (geometry, line, len) = (&plan.geometry, &plan.line, plan.row_len());
    let outputs = line.outputs();
    let (src_len, dst_len) = (geometry.pool().input[0] * len, geometry.output()[0] * outputs);
    let band = numbers.start / len..numbers.end / len;
    let [sorted, found, block, own] = lane_lens(plan, band.len());
    let (sorted, lane) = lane.split_at_mut(sorted);
    let (found, lane) = lane.split_at_mut(found);
    let (block, lane) = lane.split_at_mut(block);
    let own = &mut lane[..own];
    let reached = windows(geometry, &band);
    for (i, image) in images.clone().enumerate() {
        let diff_dst = &operands.diff_dst[image * dst_len..][..dst_len];
        let (mut src, mut indices): (&[f32], &[u8]) = (&[], &[]);
        match T::TAKE {
            Take::Always => {}
            Take::Byte => indices = &operands.indices[image * dst_len..][..dst_len],
            Take::Number | Take::Equal => {
                src = &operands.src[image * src_len..][..src_len];
                let (max, numbers): (&mut [f32], &mut [f32]) =
                    if T::TAKE == Take::Equal { (found, &mut []) } else { (&mut [], found) };
                winners::rows(
                    s,
                    plan,
                    src,
                    sorted,
                    reached.clone(),
                    Winners { max, bytes: &mut [], numbers },
                );
            }
        }
        let to = diff_src.row(i, 0);
        let first = if let Take::Byte = T::TAKE { 0 } else { reached.start };
        if let Some(kernel) = plan.cells {
            let own = src.get(band.start * len..).unwrap_or(&[]);
            let windows = Windows { gradient: diff_dst, bytes: indices, numbers: found, own };
            let cells = Band { plan, windows, first, rows: band.clone(), update: operands.update };
            cells.write::<S, T>(s, kernel, to, block);
            continue;
        }
        for start in band.clone().step_by(block_rows(geometry, line)) {
            let rows = start..(start + block_rows(geometry, line)).min(band.end);
            let to = &mut to[(start - band.start) * len..][..rows.len() * len];
            let mut block = Block { plan, rows: rows.clone(), to, lines: block, update: operands.update };
            let own = if let Take::Equal = T::TAKE { block.own(s, src, own) } else { &[] };
            let windows = Windows { gradient: diff_dst, bytes: indices, numbers: found, own };
            let down = &plan.down;
            for segment in down.segments.iter().filter_map(|segment| segment.within(&rows, down.stride)) {
                let taps = &down.taps[segment.taps.clone()];
                block.gather::<S, T>(s, windows, &segment, taps, down.stride, first);
            }
            block.finish(s);
        }
    }
}

/// Some rows of `diff_src`.
struct Block<'a> {
    plan: &'a Pooling,
    rows: Range<usize>,
    to: &'a mut [f32],
    /// The same as lines.
    lines: &'a mut [f32],
    update: Update,
}

impl Block<'_> {
    /// Whether rows are written where they belong: if they are in order, and nothing is added to.
    fn direct(&self) -> bool {
        self.plan.line.in_order() && self.update == Update::Overwrite
    }

    /// What pixels of some rows, a step apart, take from windows; row 0 of winners is that of window `first`.
    fn gather<S: Simd, T: Taken>(
        &mut self,
        s: S,
        windows: Windows<'_>,
        down: &Segment,
        rows: &[Tap],
        step: usize,
        first: usize,
    ) {
        let (plan, line) = (self.plan, &self.plan.line);
        let (outputs, channels, row) = (line.outputs(), line.channels, down.pixel - self.rows.start);
        let direct = self.direct();
        let pitch = if direct { plan.row_len() } else { line.len };
        let to = if direct { &mut *self.to } else { &mut *self.lines };
        for across in &plan.across.segments {
            let columns = &plan.across.taps[across.taps.clone()];
            let pixel = if direct { across.pixel * channels } else { line.pixel(across.pixel) };
            let start = row * pitch + pixel;
            let mut some = |i: usize, runs: Runs| {
                let source = |n: usize| {
                    let (y, x) = (rows[n / columns.len()], columns[n % columns.len()]);
                    let (oh, column) = (down.place + i - y.shift, (across.place - x.shift) * channels);
                    let tap = y.k * plan.taps.len() + x.k;
                    Source { gradient: oh * outputs + column, winner: (oh - first) * outputs + column, tap }
                };
                let sources = (0..rows.len() * columns.len()).map(source);
                let start = start + i * step * pitch;
                let windows = Windows { own: windows.own.get(start..).unwrap_or(&[]), ..windows };
                gather::<S, T>(s, windows, sources, runs, &mut to[start..]);
            };
            if line.runs == 1 {
                let (count, len) = (down.len, across.len * channels);
                some(0, Runs { count, len, from_step: outputs, to_step: step * pitch });
            } else {
                let (len, to_step) = (channels, plan.across.stride * channels);
                (0..down.len)
                    .for_each(|i| some(i, Runs { count: across.len, len, from_step: channels, to_step }));
            }
        }
    }

    /// The pixels of `src`, as what is gathered lies.
    fn own<'s, S: Simd>(&self, s: S, src: &'s [f32], lines: &'s mut [f32]) -> &'s [f32] {
        let (line, len) = (&self.plan.line, self.plan.row_len());
        let src = &src[self.rows.start * len..self.rows.end * len];
        if self.direct() {
            return src;
        }
        s.vectorize(
            #[inline(always)]
            |s| {
                for (row, to) in src.chunks_exact(len).zip(lines.chunks_exact_mut(line.len)) {
                    line.fill(
                        s,
                        to,
                        #[inline(always)]
                        |x, n| s.load_first(&row[x..x + n]),
                    );
                }
            },
        );
        lines
    }

    /// Puts rows in order, if they are not.
    fn finish<S: Simd>(self, s: S) {
        if self.direct() {
            return;
        }
        let (line, len) = (&self.plan.line, self.plan.row_len());
        s.vectorize(
            #[inline(always)]
            |s| {
                for (to, from) in self.to.chunks_exact_mut(len).zip(self.lines.chunks_exact(line.len)) {
                    line.read(s, from, to, self.update);
                }
            },
        );
    }
}
