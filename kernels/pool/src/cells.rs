//! Backward of windows of 2 x 2 and 3 x 3 that step by two, in NHWC: the four pixels of a step, a *cell*, at a time.
//!
//! ```text
//! rows     pixel 2 p + i  of the padded image  is tap  k = 2 r + i  of window  p - r       i, r = 0, 1;  k < K;  columns alike
//! max      diff_src[pixel] = sum of  diff_dst[window]  where its winner is the tap that the pixel is, else 0
//! average  diff_src[pixel] = sum of  diff_dst[window] * part of its row * part of its column
//! ```
//!
//! With kernels of two or three rows and columns, up to four windows reach a cell: they are read once, and four pixels are written, in two streams in the
//! order of memory. Pixel by pixel, one phase after the other (`gather.rs`), windows are read up to four times and every second pixel is written:
//! on memory alone that takes 1.5 times as long (Zen 3).

use crate::gather::{Reached, Source, Take, Taken, Windows, share};
use crate::reach::Reach;
use crate::vector::{Vector, plus, vectors};
use crate::{PoolGeometry, Pooling, planes};
use convolve_core::{Layout, Update, lines};
use convolve_simd::{Rows, RowsMut, Simd};
use core::mem;
use core::ops::Range;

/// The edge of windows that step by two, if the problem is of that kind.
pub(crate) fn kernel(geometry: &PoolGeometry, [down, across]: [&Reach; 2]) -> Option<usize> {
    let pool = geometry.pool();
    let steps = [down.stride, across.stride] == [2, 2] && pool.dilation == [1, 1];
    let [height, width] = pool.kernel;
    (steps && height == width && (2..=3).contains(&height)).then_some(height)
}

/// Numbers of workspace: in NHWC two pixels of zeros, and a cell for what is made aside, or not wanted.
pub(crate) fn workspace_len(geometry: &PoolGeometry) -> usize {
    match geometry.pool().layout {
        Layout::Nhwc => lines(geometry.pool().channels.saturating_mul(6)),
        Layout::Nchw => planes::workspace_len(geometry),
    }
}

/// What a cell has along an axis: of its two pixels those in the image, of the two windows that may reach it those that exist.
#[derive(Clone, Copy)]
struct Axis {
    place: usize,
    pixels: [bool; 2],
    windows: [bool; 2],
}

impl Axis {
    /// Pixels of the padded image are those of `pixels`; there are so many windows of `K` taps.
    #[inline(always)]
    fn new<const K: usize>(place: usize, pixels: &Range<usize>, windows: usize) -> Self {
        Self {
            place,
            pixels: [pixels.contains(&(2 * place)), pixels.contains(&(2 * place + 1))],
            windows: [place < windows, K > 2 && place >= 1 && place - 1 < windows],
        }
    }

    /// Two windows that exist: for one that does not, another.
    #[inline(always)]
    fn read(&self) -> [usize; 2] {
        match self.windows {
            [true, true] => [self.place, self.place - 1],
            [false, true] => [self.place - 1; 2],
            [true, false] => [self.place; 2],
            [false, false] => [0; 2],
        }
    }
}

/// A band of rows of an image; row 0 of winners that are numbers is that of window `first`.
pub(crate) struct Band<'a> {
    pub(crate) plan: &'a Pooling,
    pub(crate) windows: Windows<'a>,
    pub(crate) first: usize,
    pub(crate) rows: Range<usize>,
    pub(crate) update: Update,
}

impl Band<'_> {
    /// Writes it; `lane` is workspace.
    pub(crate) fn write<S: Simd, T: Taken>(self, s: S, kernel: usize, to: &mut [f32], lane: &mut [f32]) {
        match (self.plan.geometry.pool().layout, kernel, self.update) {
            (Layout::Nchw, 2, _) => planes::band::<S, T, 2>(s, &self, to, lane),
            (Layout::Nchw, _, _) => planes::band::<S, T, 3>(s, &self, to, lane),
            (Layout::Nhwc, 2, Update::Overwrite) => self.cells::<S, T, 2, false>(s, to, lane),
            (Layout::Nhwc, 2, Update::Accumulate) => self.cells::<S, T, 2, true>(s, to, lane),
            (Layout::Nhwc, _, Update::Overwrite) => self.cells::<S, T, 3, false>(s, to, lane),
            (Layout::Nhwc, _, Update::Accumulate) => self.cells::<S, T, 3, true>(s, to, lane),
        }
    }

    fn cells<S: Simd, T: Taken, const K: usize, const ADD: bool>(
        mut self,
        s: S,
        mut to: &mut [f32],
        lane: &mut [f32],
    ) {
        let (len, channels, top) =
            (self.plan.row_len(), self.plan.line.channels, self.plan.geometry.padding()[0][0]);
        let (zeros, spare) = lane[..6 * channels].split_at_mut(2 * channels);
        zeros.fill(0.0);
        let pixels = self.rows.start + top..self.rows.end + top;
        for place in pixels.start / 2..pixels.end.div_ceil(2) {
            let down = Axis::new::<K>(place, &pixels, self.plan.geometry.output()[0]);
            let (above, rest) = mem::take(&mut to).split_at_mut(if down.pixels[0] { len } else { 0 });
            let (below, rest) = rest.split_at_mut(if down.pixels[1] { len } else { 0 });
            to = rest;
            let row = Row { band: &self, down, zeros };
            s.vectorize(
                #[inline(always)]
                |s| row.write::<S, T, K, ADD>(s, [above, below], spare),
            );
            let own = usize::from(down.pixels[0]) + usize::from(down.pixels[1]);
            self.windows.own = self.windows.own.get(own * len..).unwrap_or(&[]);
        }
    }
}

/// A row of cells: one or two rows of the image.
struct Row<'r> {
    band: &'r Band<'r>,
    down: Axis,
    /// Two pixels of zeros.
    zeros: &'r [f32],
}

impl<'r> Row<'r> {
    /// Writes the rows (of one that is absent nothing); `spare` has room for a cell.
    #[inline(always)]
    fn write<S: Simd, T: Taken, const K: usize, const ADD: bool>(
        &self,
        s: S,
        mut to: [&mut [f32]; 2],
        spare: &mut [f32],
    ) {
        let (plan, second, left) = (self.band.plan, usize::from(K > 2), self.left());
        let (pixels, width) = (left..left + plan.line.width, plan.geometry.output()[1]);
        // Whole cells that all their windows reach; at the edge of a band one of their rows may be absent.
        let start = left.div_ceil(2).max(second);
        let inner = start..if self.down.windows == [true, K > 2] { (pixels.end / 2).min(width) } else { 0 };
        let (mut q, cells) = (left / 2, pixels.end.div_ceil(2));
        while q < cells {
            if q == start && !inner.is_empty() {
                self.inner::<S, T, K, ADD>(s, inner.clone(), &mut to, spare);
                q = inner.end;
            } else {
                self.edge::<S, T, K, ADD>(s, Axis::new::<K>(q, &pixels, width), &mut to, spare);
                q += 1;
            }
        }
    }

    /// Pixels of padding before a row.
    #[inline(always)]
    fn left(&self) -> usize {
        self.band.plan.geometry.padding()[1][0]
    }

    /// Row `i` of the image itself, if it is read and present.
    #[inline(always)]
    fn own<T: Taken>(&self, i: usize) -> Option<&'r [f32]> {
        let Take::Equal = T::TAKE else { return None };
        let len = self.band.plan.row_len();
        // Without the first row, the second is first.
        let start = if self.down.pixels[0] { i * len } else { 0 };
        if self.down.pixels[i] { Some(&self.band.windows.own[start..start + len]) } else { None }
    }

    /// The reciprocal counts of windows of two columns.
    #[inline(always)]
    fn parts(&self, ow: [usize; 2]) -> [[f32; 2]; 2] {
        let ([rows, columns], oh) = (&self.band.plan.counts.parts, self.down.read());
        let part = |r: usize, t: usize| rows[oh[r]] * columns[ow[t]];
        [[part(0, 0), part(0, 1)], [part(1, 0), part(1, 1)]]
    }

    /// The windows of two columns.
    #[inline(always)]
    fn reached<T: Taken>(&self, ow: [usize; 2]) -> Reached<'r, 4> {
        let (outputs, channels) = (self.band.plan.line.outputs(), self.band.plan.line.channels);
        let (oh, mut sources) = (self.down.read(), [Source::default(); 4]);
        for (n, source) in sources.iter_mut().enumerate() {
            let (oh, column) = (oh[n / 2], ow[n % 2] * channels);
            // Where no window reaches, any that was found will do.
            let found = oh.saturating_sub(self.band.first);
            *source = Source { gradient: oh * outputs + column, winner: found * outputs + column, tap: 0 };
        }
        Reached::new::<T>(self.band.windows, &sources)
    }

    /// Cells in the middle of a row: windows and pixels of one follow those of the one before.
    #[inline(always)]
    fn inner<S: Simd, T: Taken, const K: usize, const ADD: bool>(
        &self,
        s: S,
        cells: Range<usize>,
        [above, below]: &mut [&mut [f32]; 2],
        spare: &mut [f32],
    ) {
        let (channels, second, present) =
            (self.band.plan.line.channels, usize::from(K > 2), self.down.pixels);
        let (pair, first) = (2 * channels, (2 * cells.start - self.left()) * channels);
        let reached = self.reached::<T>([cells.start, cells.start - second]);
        // Of an absent row there is one cell, which nobody reads.
        let (first_spare, second_spare) = spare.split_at_mut(pair);
        let (above, step_above) = if present[0] { (&mut above[first..], pair) } else { (first_spare, 0) };
        let (below, step_below) = if present[1] { (&mut below[first..], pair) } else { (second_spare, 0) };
        let own = [0, 1].map(|i| self.own::<T>(i).map_or(self.zeros, |row| &row[first..]));
        for (i, q) in cells.enumerate() {
            let parts = self.parts([q, q - second]);
            let reached = reached.part::<T>(i * channels, channels);
            let (a, b) = above[i * step_above..][..pair].split_at_mut(channels);
            let (c, d) = below[i * step_below..][..pair].split_at_mut(channels);
            let mut to = RowsMut::new([a, b, c, d]);
            let mut pixels = Rows::new(&[self.zeros; 4]);
            if let Take::Equal = T::TAKE {
                let (a, b) = own[0][i * step_above..][..pair].split_at(channels);
                let (c, d) = own[1][i * step_below..][..pair].split_at(channels);
                pixels = Rows::new(&[a, b, c, d]);
            }
            let cell = Cell { reached, parts, own: pixels };
            vectors::<S>(
                channels,
                #[inline(always)]
                |at| cell.vector::<S, T, K, ADD>(s, at, &mut to),
            );
        }
    }

    /// A cell that lacks windows, whose gradients are zeros then, or pixels: it is made aside.
    #[inline(always)]
    fn edge<S: Simd, T: Taken, const K: usize, const ADD: bool>(
        &self,
        s: S,
        across: Axis,
        to: &mut [&mut [f32]; 2],
        spare: &mut [f32],
    ) {
        let (channels, pixel) = (self.band.plan.line.channels, |j: usize| 2 * across.place + j - self.left());
        let mut reached = self.reached::<T>(across.read()).part::<T>(0, channels);
        let mut gradients = [&self.zeros[..channels]; 4];
        for (n, gradient) in gradients.iter_mut().enumerate() {
            if self.down.windows[n / 2] && across.windows[n % 2] {
                *gradient = reached.gradients.at(0, channels).row(n);
            }
        }
        reached.gradients = Rows::new(&gradients);
        let mut own = [&self.zeros[..channels]; 4];
        for (n, own) in own.iter_mut().enumerate() {
            if let (Some(row), true) = (self.own::<T>(n / 2), across.pixels[n % 2]) {
                *own = &row[pixel(n % 2) * channels..][..channels];
            }
        }
        let cell = Cell { reached, parts: self.parts(across.read()), own: Rows::new(&own) };
        let (above, below) = spare[..4 * channels].split_at_mut(2 * channels);
        let ((a, b), (c, d)) = (above.split_at_mut(channels), below.split_at_mut(channels));
        let mut made = RowsMut::new([a, b, c, d]);
        for c in (0..channels).step_by(S::LANES) {
            let at = Vector::Rest(c, S::LANES.min(channels - c));
            cell.vector::<S, T, K, false>(s, at, &mut made);
        }
        for n in 0..4 {
            let (i, j) = (n / 2, n % 2);
            if self.down.pixels[i] && across.pixels[j] {
                let to = &mut to[i][pixel(j) * channels..][..channels];
                for (to, made) in to.iter_mut().zip(made.at(n, 0, channels)) {
                    *to = if ADD { *to + *made } else { *made };
                }
            }
        }
    }
}

/// What reaches a cell: two windows of each of two rows, and their parts of averages; and for ties the pixels themselves.
struct Cell<'a> {
    reached: Reached<'a, 4>,
    parts: [[f32; 2]; 2],
    own: Rows<'a, 4>,
}

impl Cell<'_> {
    /// Some channels of its four pixels.
    #[inline(always)]
    fn vector<S: Simd, T: Taken, const K: usize, const ADD: bool>(
        &self,
        s: S,
        at: Vector,
        to: &mut RowsMut<'_, 4>,
    ) {
        let (mut gradients, mut winners) = ([[s.splat(0.0); 2]; 2], [[s.splat(0.0); 2]; 2]);
        for r in 0..K.div_ceil(2) {
            for t in 0..K.div_ceil(2) {
                (gradients[r][t], winners[r][t]) = self.reached.load::<S, T>(s, 2 * r + t, at);
                if let Take::Always = T::TAKE {
                    gradients[r][t] = s.mul(gradients[r][t], s.splat(self.parts[r][t]));
                }
            }
        }
        for i in 0..2 {
            for j in 0..2 {
                let to = at.of_mut::<S, 4>(to, 2 * i + j);
                let mut own = s.splat(0.0);
                if let Take::Equal = T::TAKE {
                    own = s.load_first(at.of::<S, 4, _>(&self.own).row(2 * i + j));
                }
                let mut sum = None;
                for r in 0..2 {
                    for t in 0..2 {
                        let [y, x] = [2 * r + i, 2 * t + j];
                        if y < K && x < K {
                            let share = share::<S, T>(s, gradients[r][t], winners[r][t], own, y * K + x);
                            sum = plus(s, sum, share);
                        }
                    }
                }
                if let Some(sum) = sum {
                    s.store_first(if ADD { s.add(s.load_first(to), sum) } else { sum }, to);
                }
            }
        }
    }
}
