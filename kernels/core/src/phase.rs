//! One index relation for every pass: `out[start + i*step] = sum over taps t of w[k(t)] * in[i*advance + d(t)]`, per axis.
//!
//! Forward is one such phase over `src`: `i` is the output pixel, `advance` the stride, `d(t) = t*dilation - pad`.
//!
//! Backward-data is `stride` of them over `diff_dst`. Input pixel `x` receives from output `o` through tap `k` when
//! `x + pad = o*stride + k*dilation`. Fix `x mod stride`: then only the taps with `k*dilation = (x + pad) mod stride` (modulo
//! the stride) take part, and with `x` running in steps of `stride` the output runs in steps of 1. So a gradient with respect to
//! the input is a gather, like a forward pass: no scattering, no zero-filling, no multiplication by inserted zeros. A phase
//! without taps writes zeros.
//!
//! Taps that fall outside the input are absent. Positions with the same valid taps are consecutive ([`AxisPhase::segments`]), so
//! a kernel handles borders without a test in its loop and without multiplying by zero.

use crate::Conv2d;
use core::ops::Range;

/// Taps of one axis, in increasing displacement: tap `t` is kernel index `k(t)`, displacement `d(t)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taps {
    /// How many.
    pub count: usize,
    /// Kernel index of the first.
    pub first_k: usize,
    /// From one kernel index to the next (negative in backward-data).
    pub step_k: isize,
    /// Displacement of the first, in input pixels.
    pub first_d: isize,
    /// From one displacement to the next; positive.
    pub step_d: usize,
}

impl Taps {
    /// Kernel index of tap `t`.
    ///
    /// ```
    /// # use convolve_core::Conv2d;
    /// let taps = Conv2d::new(1, 1, 3).input(8).dilation(2).padding(1).geometry()?.forward().axes[0].taps;
    /// assert_eq!([0, 1, 2].map(|t| (taps.k(t), taps.d(t))), [(0, -1), (1, 1), (2, 3)]);
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    #[inline]
    pub fn k(&self, t: usize) -> usize {
        debug_assert!(t < self.count);
        self.first_k.wrapping_add_signed(self.step_k.wrapping_mul(t as isize))
    }

    /// Displacement of tap `t`.
    #[inline]
    pub fn d(&self, t: usize) -> isize {
        self.first_d + (self.step_d * t) as isize
    }
}

/// One axis of a [`Phase`].
///
/// ```
/// use convolve_core::Conv2d;
/// // Backward-data of a 3-tap kernel with stride 2: even pixels receive from taps {0, 2} or {1}, odd ones from the rest.
/// let geometry = Conv2d::new(1, 1, 3).input(8).stride(2).padding(1).geometry()?;
/// let taps: Vec<usize> = geometry.backward_data().map(|phase| phase.axes[1].taps.count).collect();
/// assert_eq!(taps, [1, 2, 1, 2]);
/// # Ok::<(), convolve_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AxisPhase {
    /// First output position.
    pub start: usize,
    /// From one output position of this phase to the next.
    pub step: usize,
    /// Output positions of this phase.
    pub count: usize,
    /// Input pixels from one output position to the next.
    pub advance: usize,
    /// Pixels of the input.
    pub size: usize,
    /// The taps, in increasing displacement.
    pub taps: Taps,
}

/// Consecutive positions that share their valid taps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Positions `i` of the phase.
    pub positions: Range<usize>,
    /// Taps that lie inside the input at each of them; may be empty.
    pub taps: Range<usize>,
}

impl AxisPhase {
    pub(crate) fn forward(conv: &Conv2d, axis: usize, pad: usize, output: usize) -> Self {
        Self {
            start: 0,
            step: 1,
            count: output,
            advance: conv.stride[axis],
            size: conv.input[axis],
            taps: Taps {
                count: conv.kernel[axis],
                first_k: 0,
                step_k: 1,
                first_d: -(pad as isize),
                step_d: if conv.kernel[axis] == 1 { 1 } else { conv.dilation[axis] },
            },
        }
    }

    pub(crate) fn backward_data(conv: &Conv2d, axis: usize, pad: usize, output: usize, start: usize) -> Self {
        let (stride, kernel) = (conv.stride[axis], conv.kernel[axis]);
        // One tap has no neighbour, so its dilation means nothing and may be any number.
        let dilation = if kernel == 1 { 1 } else { conv.dilation[axis] };
        let (quotient, residue) = ((start + pad) / stride, (start + pad) % stride);
        // k*dilation = residue (mod stride) has its solutions `period` apart, if any.
        let divisor = gcd(dilation, stride);
        let period = stride / divisor;
        let first = residue.is_multiple_of(divisor).then(|| {
            let inverse = inverse(dilation / divisor, period);
            ((residue / divisor) as u128 * inverse as u128 % period as u128) as usize
        });
        let first = first.filter(|first| *first < kernel);
        let taps = match first {
            None => Taps { count: 0, first_k: 0, step_k: 0, first_d: 0, step_d: 1 },
            Some(first) => {
                let count = (kernel - 1 - first) / period + 1;
                let last = first + (count - 1) * period;
                Taps {
                    count,
                    first_k: last,
                    step_k: -(period as isize),
                    first_d: quotient as isize - ((last * dilation - residue) / stride) as isize,
                    step_d: dilation / divisor,
                }
            }
        };
        let count = (conv.input[axis] - start).div_ceil(stride);
        Self { start, step: stride, count, advance: 1, size: output, taps }
    }

    /// Taps that are inside the input at position `i`.
    pub fn valid_taps(&self, i: usize) -> Range<usize> {
        let Taps { count, first_d, step_d, .. } = self.taps;
        let first = (i * self.advance) as isize + first_d;
        // t >= ceil(-first / step) and t < ceil((size - first) / step)
        let at_or_after = |pixel: isize| {
            let distance = pixel - first;
            if distance <= 0 { 0 } else { (distance as usize).div_ceil(step_d).min(count) }
        };
        let end = at_or_after(self.size as isize);
        at_or_after(0).min(end)..end
    }

    /// Positions at which tap `t` is inside the input.
    ///
    /// ```
    /// use convolve_core::Conv2d;
    /// let phase = Conv2d::new(1, 1, 3).input(6).padding(1).geometry()?.forward();
    /// assert_eq!([0, 1, 2].map(|t| phase.axes[0].positions_of(t)), [1..6, 0..6, 0..5]);
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn positions_of(&self, t: usize) -> Range<usize> {
        let d = self.taps.d(t);
        let at_or_after = |pixel: isize| {
            if pixel <= d { 0 } else { ((pixel - d) as usize).div_ceil(self.advance).min(self.count) }
        };
        let end = at_or_after(self.size as isize);
        at_or_after(0).min(end)..end
    }

    /// Cuts `positions` into runs that share their valid taps; in order, without gaps.
    ///
    /// ```
    /// use convolve_core::Conv2d;
    /// let phase = Conv2d::new(1, 1, 3).input(6).padding(1).geometry()?.forward();
    /// let segments: Vec<_> = phase.axes[0].segments(0..6).map(|s| (s.positions, s.taps)).collect();
    /// assert_eq!(segments, [(0..1, 1..3), (1..5, 0..3), (5..6, 0..2)]);
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn segments(&self, positions: Range<usize>) -> impl Iterator<Item = Segment> + use<> {
        let axis = *self;
        let Range { mut start, end } = positions;
        core::iter::from_fn(move || {
            if start >= end {
                return None;
            }
            let taps = axis.valid_taps(start);
            // Both ends of `valid_taps` fall as i grows, so equal taps are consecutive: bisect for the last such position.
            let (mut same, mut other) = (start, end);
            while other - same > 1 {
                let middle = same + (other - same) / 2;
                if axis.valid_taps(middle) == taps { same = middle } else { other = middle }
            }
            let positions = start..other;
            start = other;
            Some(Segment { positions, taps })
        })
    }

    /// Positions `i` whose output `start + i*step` lies in `outputs`.
    pub fn positions(&self, outputs: Range<usize>) -> Range<usize> {
        let at_or_after =
            |output: usize| output.saturating_sub(self.start).div_ceil(self.step).min(self.count);
        let end = at_or_after(outputs.end);
        at_or_after(outputs.start).min(end)..end
    }
}

/// Part of a pass: the output positions whose taps follow one pattern. See the [module](self).
///
/// ```
/// use convolve_core::Conv2d;
/// let geometry = Conv2d::new(1, 1, 1).input(4).stride(2).geometry()?;
/// // A 1x1 kernel with stride 2: three of the four phases have no taps and just write zeros.
/// assert_eq!(geometry.backward_data().filter(|phase| phase.taps() == 0).count(), 3);
/// # Ok::<(), convolve_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phase {
    /// Height and width.
    pub axes: [AxisPhase; 2],
}

impl Phase {
    /// Taps of this phase, of both axes.
    pub fn taps(&self) -> usize {
        self.axes[0].taps.count * self.axes[1].taps.count
    }
}

/// The greatest common divisor; that of 0 and a number is the number.
///
/// ```
/// assert_eq!(convolve_core::phase::gcd(12, 18), 6);
/// ```
pub fn gcd(mut a: usize, mut b: usize) -> usize {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// The number whose product with `a` is 1 modulo `modulus`, which has no factor in common with `a`. Euclid's algorithm: each
/// remainder is `a` times its coefficient (modulo `modulus`).
fn inverse(a: usize, modulus: usize) -> usize {
    let (mut previous, mut remainder) = (modulus as i128, (a % modulus) as i128);
    let (mut previous_coefficient, mut coefficient) = (0, 1);
    while remainder != 0 {
        let quotient = previous / remainder;
        (previous, remainder) = (remainder, previous - quotient * remainder);
        (previous_coefficient, coefficient) = (coefficient, previous_coefficient - quotient * coefficient);
    }
    previous_coefficient.rem_euclid(modulus as i128) as usize
}
