//! Reach: which windows reach a pixel, along one axis. What backward gathers from.
//!
//! ```text
//! pixel q = place * stride + phase of the padded image   is under tap k of window o   where   o * stride + k * dilation = q
//! so, with  k * dilation = shift * stride + phase,       o = place - shift
//! ```
//!
//! The taps of a phase reach all of its pixels, but at the ends, where there is no such window. So pixels of a phase fall into few *segments*
//! that are reached by the same taps.

use crate::PoolGeometry;
use core::ops::Range;

/// A tap of some phase.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tap {
    /// Which one of the window.
    pub(crate) k: usize,
    /// From the window to the place of the pixel.
    pub(crate) shift: usize,
}

/// Neighbouring places of a phase that are reached by the same taps.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    /// The pixel of the image at the first of them; the next one is a stride further.
    pub(crate) pixel: usize,
    /// Its place in the padded image.
    pub(crate) place: usize,
    pub(crate) len: usize,
    /// Entries of [`Reach::taps`].
    pub(crate) taps: Range<usize>,
}

impl Segment {
    /// Those of its pixels that are in a range, if there are any.
    pub(crate) fn within(&self, pixels: &Range<usize>, stride: usize) -> Option<Self> {
        let before = |end: usize| end.saturating_sub(self.pixel).div_ceil(stride).min(self.len);
        let (skipped, end) = (before(pixels.start), before(pixels.end));
        (skipped < end).then(|| Self {
            pixel: self.pixel + skipped * stride,
            place: self.place + skipped,
            len: end - skipped,
            taps: self.taps.clone(),
        })
    }
}

/// One axis of a pooling.
#[derive(Debug)]
pub(crate) struct Reach {
    /// By phase, then from the first tap of the window to the last.
    pub(crate) taps: Vec<Tap>,
    /// Entries of `taps` of each phase that the image has.
    pub(crate) phases: Vec<Range<usize>>,
    /// All pixels of the image, by phase.
    pub(crate) segments: Vec<Segment>,
    pub(crate) stride: usize,
}

impl Reach {
    pub(crate) fn new(geometry: &PoolGeometry, axis: usize) -> Self {
        let (pool, output, begin) = (geometry.pool(), geometry.output()[axis], geometry.padding()[axis][0]);
        // A single output has no stride.
        let stride = if output == 1 { 1 } else { pool.stride[axis] };
        let (end, dilation) = (begin + pool.input[axis], pool.dilation[axis]);
        let tap = |k| Tap { k, shift: k * dilation / stride };
        let phase_of = |tap: &Tap| tap.k * dilation % stride;
        let mut taps: Vec<Tap> = (0..pool.kernel[axis]).map(tap).collect();
        taps.sort_by_key(|tap| (phase_of(tap), tap.k));
        let (mut segments, mut phases, mut first) = (Vec::new(), Vec::new(), 0);
        for phase in 0..stride.min(end) {
            let len = taps[first..].iter().take_while(|tap| phase_of(tap) == phase).count();
            let (these, mut place) =
                (&taps[first..first + len], begin.saturating_sub(phase).div_ceil(stride));
            let last = (end - phase).div_ceil(stride);
            while place < last {
                // Windows `place - shift` from 0 to `output - 1`; shifts grow.
                let entered = these.partition_point(|tap| tap.shift <= place);
                let left = these.partition_point(|tap| tap.shift + output <= place);
                let next_in = these.get(entered).map_or(last, |tap| tap.shift);
                let next_out = these.get(left).map_or(last, |tap| tap.shift + output);
                let to = next_in.min(next_out).min(last);
                segments.push(Segment {
                    pixel: place * stride + phase - begin,
                    place,
                    len: to - place,
                    taps: first + left..first + entered.max(left),
                });
                place = to;
            }
            phases.push(first..first + len);
            first += len;
        }
        Self { taps, phases, segments, stride }
    }

    /// For every pixel of the axis, its place and its taps.
    pub(crate) fn by_pixel(&self, len: usize) -> Vec<(usize, Range<usize>)> {
        let mut pixels = vec![(0, 0..0); len];
        for segment in &self.segments {
            for i in 0..segment.len {
                pixels[segment.pixel + i * self.stride] = (segment.place + i, segment.taps.clone());
            }
        }
        pixels
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pool2d;

    #[test]
    fn every_pixel_is_reached_by_the_windows_that_have_it() {
        for kernel in 1..6 {
            for (stride, dilation, padding) in
                (1..5).flat_map(|s| (1..4).flat_map(move |d| (0..4).map(move |p| (s, d, p))))
            {
                let pool = Pool2d::max(1, [kernel, 1]).input([11, 1]);
                let pool = pool.stride([stride, 1]).dilation([dilation, 1]).padding([padding, 0]);
                let Ok(geometry) = pool.geometry() else { continue };
                let reach = Reach::new(&geometry, 0);
                for (y, (place, taps)) in reach.by_pixel(11).into_iter().enumerate() {
                    let mut got: Vec<_> =
                        reach.taps[taps].iter().map(|tap| (place - tap.shift, tap.k)).collect();
                    got.sort();
                    let windows = (0..geometry.output()[0]).flat_map(|o| (0..kernel).map(move |k| (o, k)));
                    let expected: Vec<_> =
                        windows.filter(|(o, k)| o * stride + k * dilation == y + padding).collect();
                    assert_eq!(got, expected, "pixel {y} of {pool:?}");
                }
            }
        }
    }
}
