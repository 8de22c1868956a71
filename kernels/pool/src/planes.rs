//! Backward of windows of 2 x 2 and 3 x 3 that step by two, in NCHW: lanes are windows side by side, of which pixels at even and at odd places take.
//!
//! ```text
//! columns    pixel x  is tap  2 t + j  of window  q - t,  where  x + left = 2 q + j        t = 0, 1;  rows alike: see `cells.rs`
//! ```
//!
//! Some rows of windows at a time (of more than some 1200 pixels one, and for larger kernels the one before again) are laid out with zeros at
//! both ends, gradients of averages times their parts; then rows of the image are
//! written once, in the order of memory, from two registers of which one has the even and one the odd pixels. (Row by row, what was only just
//! written would be read at another alignment: in NCHW that took 1.2 to 1.6 times as long.)

use crate::PoolGeometry;
use crate::cells::Band;
use crate::forward::registers;
use crate::gather::{Take, Taken, share};
use crate::line::put;
use crate::vector::plus;
use convolve_core::{Update, lines};
use convolve_simd::{Places, Rows, Simd, each};

/// Zeros before a row of windows; behind it there are at least as many as the pixels of a row and two registers ask for.
const MARGIN: usize = 16;
/// Numbers of gradients that are laid out together: with as many winners, half of L1.
const BLOCK: usize = 2 << 10;

/// From one row of windows to the next, and how many there are besides the one before the block: not more than a plane has places.
fn layout(geometry: &PoolGeometry) -> [usize; 2] {
    let ([height, width], left) = (geometry.pool().input, geometry.padding()[1][0]);
    let pitch = lines(MARGIN + geometry.output()[1].max((width + left) / 2 + 2) + 2 * MARGIN);
    [pitch, ((BLOCK / pitch).max(2) - 1).min(height / 2 + 1)]
}

/// Numbers of workspace: gradients and winners.
pub(crate) fn workspace_len(geometry: &PoolGeometry) -> usize {
    let [pitch, rows] = layout(geometry);
    2 * (rows + 1) * pitch
}

/// A band of rows of a plane.
pub(crate) fn band<S: Simd, T: Taken, const K: usize>(
    s: S,
    band: &Band<'_>,
    to: &mut [f32],
    lane: &mut [f32],
) {
    let [pitch, rows] = layout(&band.plan.geometry);
    let ((gradients, winners), row_len) = (lane.split_at_mut((rows + 1) * pitch), band.plan.row_len());
    let [top, _] = band.plan.geometry.padding()[0];
    let places = (band.rows.start + top) / 2..(band.rows.end + top).div_ceil(2);
    s.vectorize(
        #[inline(always)]
        |s| {
            // What is beside a row is never written.
            gradients.fill(0.0);
            for start in places.clone().step_by(rows) {
                let mut block = Block { band, pitch, start, gradients, winners };
                let places = start..(start + rows).min(places.end);
                block.fill::<S, T, K>(s, places.end);
                let sources = block.sources::<S>();
                for place in places {
                    let y = [2 * place, 2 * place + 1].map(|y| y.wrapping_sub(top));
                    let [first, second] = [band.rows.contains(&y[0]), band.rows.contains(&y[1])];
                    let start = if first { y[0] } else { y[1] } - band.rows.start;
                    let to = &mut to
                        [start * row_len..(start + usize::from(first) + usize::from(second)) * row_len];
                    let own = if let Take::Equal = T::TAKE {
                        &band.windows.own[start * row_len..][..to.len()]
                    } else {
                        &[]
                    };
                    let place = (place - block.start) * pitch;
                    match (first, second) {
                        (true, true) => sources.write::<S, T, K, 0b11>(s, place, own, to, band.update),
                        (true, false) => sources.write::<S, T, K, 0b01>(s, place, own, to, band.update),
                        _ => sources.write::<S, T, K, 0b10>(s, place, own, to, band.update),
                    }
                }
            }
        },
    );
}

/// Rows of windows from the one before `start` on.
struct Block<'a, 'b> {
    band: &'b Band<'a>,
    pitch: usize,
    start: usize,
    gradients: &'b mut [f32],
    winners: &'b mut [f32],
}

impl Block<'_, '_> {
    /// Lays out the rows of windows to `end`; of those that do not exist gradients are zeros.
    #[inline(always)]
    fn fill<S: Simd, T: Taken, const K: usize>(&mut self, s: S, end: usize) {
        let (plan, windows, outputs) = (self.band.plan, self.band.windows, self.band.plan.line.outputs());
        let [row_parts, column_parts] = &plan.counts.parts;
        // Only windows of more than two rows reach the rows of the next cells.
        for slot in usize::from(K == 2)..end + 1 - self.start {
            let row = slot * self.pitch + MARGIN..slot * self.pitch + MARGIN + outputs;
            let (gradients, winners) = (&mut self.gradients[row.clone()], &mut self.winners[row]);
            let oh = (self.start + slot).wrapping_sub(1);
            // Nor does the first one reach a band that begins with the second row of a place.
            if oh >= plan.geometry.output()[0] || oh < self.band.first {
                gradients.fill(0.0);
                continue;
            }
            let gradient = &windows.gradient[oh * outputs..][..outputs];
            match T::TAKE {
                Take::Always => {
                    let row = s.splat(row_parts[oh]);
                    registers::<S>(
                        outputs,
                        #[inline(always)]
                        |x, n| {
                            let part = s.mul(row, s.load(&column_parts[x..]));
                            let gradient = s.mul(s.load_first(&gradient[x..x + n]), part);
                            s.store_first(gradient, &mut gradients[x..x + n]);
                        },
                    );
                }
                Take::Byte => {
                    gradients.copy_from_slice(gradient);
                    let bytes = &windows.bytes[oh * outputs..][..outputs];
                    registers::<S>(
                        outputs,
                        #[inline(always)]
                        |x, n| s.store_first(s.load_bytes(&bytes[x..x + n]), &mut winners[x..x + n]),
                    );
                }
                Take::Number | Take::Equal => {
                    gradients.copy_from_slice(gradient);
                    winners.copy_from_slice(&windows.numbers[(oh - self.band.first) * outputs..][..outputs]);
                }
            }
        }
    }

    /// What rows of the image take from.
    #[inline(always)]
    fn sources<S: Simd>(&self) -> Sources<'_> {
        let [left, _] = self.band.plan.geometry.padding()[1];
        // The windows of the first pixel that is tap 0 of one, and of the first that is tap 1; and those before.
        let [even, odd] = [MARGIN + left.div_ceil(2), MARGIN + left / 2];
        let (places, slots) = ([even, even - 1, odd, odd - 1], [self.pitch, 0]);
        Sources {
            gradients: Rows::starting_at(self.gradients, &slots).places(places, S::LANES),
            winners: Rows::starting_at(self.winners, &slots).places(places, S::LANES),
            odd: left % 2 == 1,
        }
    }
}

/// What a row of the image takes from: two rows of windows, at four places.
struct Sources<'a> {
    gradients: Places<'a, 2, 4>,
    winners: Places<'a, 2, 4>,
    /// Whether the first pixel is tap 1.
    odd: bool,
}

impl Sources<'_> {
    /// The two rows of a place, or the one of them that `ROWS` has; `own` is what the image has there.
    #[inline(always)]
    fn write<S: Simd, T: Taken, const K: usize, const ROWS: usize>(
        &self,
        s: S,
        place: usize,
        own: &[f32],
        to: &mut [f32],
        update: Update,
    ) {
        match update {
            Update::Overwrite => self.write_on::<S, T, K, ROWS, false>(s, place, own, to),
            Update::Accumulate => self.write_on::<S, T, K, ROWS, true>(s, place, own, to),
        }
    }

    #[inline(always)]
    fn write_on<S: Simd, T: Taken, const K: usize, const ROWS: usize, const ADD: bool>(
        &self,
        s: S,
        place: usize,
        own: &[f32],
        to: &mut [f32],
    ) {
        let (step, len) = (2 * S::LANES, if ROWS == 0b11 { to.len() / 2 } else { to.len() });
        let (first, second) = to.split_at_mut(if ROWS == 0b10 { 0 } else { len });
        let own = own.split_at(if ROWS == 0b10 || own.is_empty() { 0 } else { len });
        let (own, mut to) = ([own.0, own.1], [first, second]);
        for i in 0..len / step {
            self.pixels::<S, T, K, ROWS, ADD>(s, place, own, [i * step, step], &mut to);
        }
        let rest = len % step;
        if rest > 0 {
            // Again some of the pixels before, where that changes nothing.
            let again = !ADD && len >= step && len.is_multiple_of(2);
            let at = if again { [len - step, step] } else { [len - rest, rest] };
            self.pixels::<S, T, K, ROWS, ADD>(s, place, own, at, &mut to);
        }
    }

    /// `len` neighbouring pixels from `x` on, which is even: two registers, or less.
    #[inline(always)]
    fn pixels<S: Simd, T: Taken, const K: usize, const ROWS: usize, const ADD: bool>(
        &self,
        s: S,
        place: usize,
        own: [&[f32]; 2],
        [x, len]: [usize; 2],
        to: &mut [&mut [f32]; 2],
    ) {
        let (at, middle) = (place + x / 2, S::LANES.min(len));
        let mut pairs = [(s.splat(0.0), s.splat(0.0)); 2];
        each!(I in 0 1 {
            if const { ROWS >> I & 1 == 1 } {
                let mut own_pixels = (s.splat(0.0), s.splat(0.0));
                if let Take::Equal = T::TAKE {
                    let (a, b) = own[I][x..x + len].split_at(middle);
                    own_pixels = s.deinterleave(s.load_first(a), s.load_first(b));
                    if self.odd {
                        own_pixels = (own_pixels.1, own_pixels.0);
                    }
                }
                let even = self.sum::<S, T, K, I, 0>(s, at, own_pixels.0);
                let odd = self.sum::<S, T, K, I, 1>(s, at, own_pixels.1);
                pairs[I] = if self.odd { s.interleave(odd, even) } else { s.interleave(even, odd) };
            }
        });
        let update = if ADD { Update::Accumulate } else { Update::Overwrite };
        for (i, (a, b)) in pairs.into_iter().enumerate() {
            if ROWS >> i & 1 == 1 {
                let (first, second) = to[i][x..x + len].split_at_mut(middle);
                put(s, a, first, update);
                put(s, b, second, update);
            }
        }
    }

    /// What pixels that are taps `J`, `J + 2`, .. of a row of windows take, half as far as they are from the first.
    #[inline(always)]
    fn sum<S: Simd, T: Taken, const K: usize, const I: usize, const J: usize>(
        &self,
        s: S,
        at: usize,
        own: S::F32,
    ) -> S::F32 {
        let (gradients, mut sum) = (self.gradients.at(at), None);
        for r in 0..2 {
            for t in 0..2 {
                let [y, x] = [2 * r + I, 2 * t + J];
                if y < K && x < K {
                    let gradient = s.load(gradients.row(r, 2 * J + t));
                    let winner = match T::TAKE {
                        Take::Always => gradient,
                        _ => s.load(self.winners.at(at).row(r, 2 * J + t)),
                    };
                    let share = share::<S, T>(s, gradient, winner, own, y * K + x);
                    sum = plus(s, sum, share);
                }
            }
        }
        match sum {
            Some(sum) => sum,
            None => s.splat(0.0),
        }
    }
}
