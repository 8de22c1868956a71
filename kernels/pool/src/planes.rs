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
use convolve_simd::{Places, Rows, Simd};

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
    let (gradients, winners) = lane.split_at_mut((rows + 1) * pitch);
    // What is beside a row is never written.
    gradients.fill(0.0);
    let [[top, _], [left, _]] = band.plan.geometry.padding();
    let places = (band.rows.start + top) / 2..(band.rows.end + top).div_ceil(2);
    for start in places.clone().step_by(rows) {
        let mut block = Block { band, pitch, top, left, start, gradients, winners };
        let places = start..(start + rows).min(places.end);
        s.vectorize(
            #[inline(always)]
            |s| {
                block.fill::<S, T, K>(s, places.end);
                for place in places {
                    block.row::<S, T, K, 0>(s, place, to);
                    block.row::<S, T, K, 1>(s, place, to);
                }
            },
        );
    }
}

/// Rows of windows from the one before `start` on.
struct Block<'a, 'b> {
    band: &'b Band<'a>,
    pitch: usize,
    top: usize,
    left: usize,
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

    /// Row `I` of the two of a place, if it is in the band.
    #[inline(always)]
    fn row<S: Simd, T: Taken, const K: usize, const I: usize>(&self, s: S, place: usize, to: &mut [f32]) {
        let (band, len) = (&self.band.rows, self.band.plan.row_len());
        let y = (2 * place + I).wrapping_sub(self.top);
        if !band.contains(&y) {
            return;
        }
        let image = (y - band.start) * len..(y - band.start + 1) * len;
        let own = if let Take::Equal = T::TAKE { &self.band.windows.own[image.clone()] } else { &[] };
        let slot = place + 1 - self.start;
        let slots = [slot * self.pitch, (slot - 1) * self.pitch];
        // The windows of the first pixel that is tap 0 of one, and of the first that is tap 1; and those before.
        let [even, odd] = [MARGIN + self.left.div_ceil(2), MARGIN + self.left / 2];
        let places = [even, even - 1, odd, odd - 1];
        let sources = Sources {
            gradients: Rows::starting_at(self.gradients, &slots).places(places, S::LANES),
            winners: Rows::starting_at(self.winners, &slots).places(places, S::LANES),
            odd: self.left % 2 == 1,
            own,
        };
        match self.band.update {
            Update::Overwrite => sources.write::<S, T, K, I, false>(s, &mut to[image]),
            Update::Accumulate => sources.write::<S, T, K, I, true>(s, &mut to[image]),
        }
    }
}

/// What a row of the image takes from: two rows of windows, at four places.
struct Sources<'a> {
    gradients: Places<'a, 2, 4>,
    winners: Places<'a, 2, 4>,
    /// Whether the first pixel is tap 1.
    odd: bool,
    own: &'a [f32],
}

impl Sources<'_> {
    #[inline(always)]
    fn write<S: Simd, T: Taken, const K: usize, const I: usize, const ADD: bool>(
        &self,
        s: S,
        to: &mut [f32],
    ) {
        let (len, step) = (to.len(), 2 * S::LANES);
        for (i, to) in to.chunks_exact_mut(step).enumerate() {
            let (first, second) = to.split_at_mut(S::LANES);
            self.pixels::<S, T, K, I, ADD>(s, i * step, first, second);
        }
        let rest = len % step;
        if rest > 0 {
            // Again some of the pixels before, where that changes nothing.
            let x = if !ADD && len >= step && len.is_multiple_of(2) { len - step } else { len - rest };
            let (first, second) = to[x..].split_at_mut(S::LANES.min(len - x));
            self.pixels::<S, T, K, I, ADD>(s, x, first, second);
        }
    }

    /// Neighbouring pixels from `x` on, which is even: a register, or less, and then another.
    #[inline(always)]
    fn pixels<S: Simd, T: Taken, const K: usize, const I: usize, const ADD: bool>(
        &self,
        s: S,
        x: usize,
        first: &mut [f32],
        second: &mut [f32],
    ) {
        let mut own = (s.splat(0.0), s.splat(0.0));
        if let Take::Equal = T::TAKE {
            let (a, b) = self.own[x..x + first.len() + second.len()].split_at(first.len());
            own = s.deinterleave(s.load_first(a), s.load_first(b));
            if self.odd {
                own = (own.1, own.0);
            }
        }
        let even = self.sum::<S, T, K, I, 0>(s, x / 2, own.0);
        let odd = self.sum::<S, T, K, I, 1>(s, x / 2, own.1);
        let (a, b) = if self.odd { s.interleave(odd, even) } else { s.interleave(even, odd) };
        let update = if ADD { Update::Accumulate } else { Update::Overwrite };
        put(s, a, first, update);
        put(s, b, second, update);
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
