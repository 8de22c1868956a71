//! A line: one row of an image with its margins, laid out so that taps are offsets and neighbouring outputs read neighbouring numbers.
//!
//! ```text
//! NHWC   pixel q (with margin) at q * C; a run of C numbers per output, outputs stride * C apart
//! NCHW   pixel q at phase q % stride, place q / stride; one run of all outputs
//! ```

use crate::PoolGeometry;
use convolve_core::{Layout, Update, lines};
use convolve_simd::{RowsMut, Simd};

/// How lines of a problem lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    /// Pixels of a row of the image.
    pub(crate) width: usize,
    /// Pixels of margin before it.
    pub(crate) left: usize,
    /// Numbers per pixel: the channels of a task in NHWC, 1 in NCHW.
    pub(crate) channels: usize,
    /// Phases that pixels are sorted into: 1 in NHWC.
    pub(crate) phases: usize,
    /// From one phase to the next.
    pub(crate) pitch: usize,
    /// Where the first and the second pixel of a row lie.
    starts: [usize; 2],
    /// Numbers of a line.
    pub(crate) len: usize,
    /// Runs of outputs.
    pub(crate) runs: usize,
    /// Outputs of a run.
    pub(crate) run: usize,
    /// From one run to the next.
    step: usize,
    dilation: usize,
}

/// More lanes than any register has: what a tail may read beyond its end.
pub(crate) const SLACK: usize = 16;

impl Line {
    /// For tasks of so many channels (1 in NCHW).
    pub(crate) fn new(geometry: &PoolGeometry, channels: usize) -> Self {
        let pool = geometry.pool();
        let (output, dilation) = (geometry.output()[1], pool.dilation[1]);
        let [left, right] = geometry.padding()[1];
        // A single output has no stride.
        let stride = if output == 1 { 1 } else { pool.stride[1] };
        // As far as windows go, which `ceil_mode` lets hang over; a stride may leave the end of the image unread.
        let reach = (output - 1).saturating_mul(stride).saturating_add((pool.kernel[1] - 1) * dilation + 1);
        let padded = (pool.input[1] + left + right).max(reach);
        let (phases, pitch) = match pool.layout {
            Layout::Nchw => (stride, lines(padded.div_ceil(stride).saturating_add(SLACK))),
            Layout::Nhwc => (1, padded.saturating_mul(channels).saturating_add(SLACK)),
        };
        let (runs, run) = match pool.layout {
            Layout::Nchw => (1, output),
            Layout::Nhwc if stride == 1 => (1, output * channels),
            Layout::Nhwc => (output, channels),
        };
        let len = pitch.saturating_mul(phases).saturating_add(SLACK).min(usize::MAX / 2);
        let step = stride.saturating_mul(channels);
        let starts = [left, left + 1].map(|q| (q % phases) * pitch + q / phases * channels);
        Self {
            width: pool.input[1],
            left,
            starts,
            channels,
            phases,
            pitch,
            len: lines(len),
            runs,
            run,
            step,
            dilation,
        }
    }

    /// Where pixel `x` of the image lies.
    pub(crate) fn pixel(&self, x: usize) -> usize {
        let q = x + self.left;
        (q % self.phases) * self.pitch + q / self.phases * self.channels
    }

    /// Where the first output finds tap `k`.
    #[inline(always)]
    pub(crate) fn tap(&self, k: usize) -> usize {
        let q = k * self.dilation;
        (q % self.phases) * self.pitch + q / self.phases * self.channels
    }

    /// How far the first output of run `i` is from the first of all.
    #[inline(always)]
    pub(crate) fn start(&self, i: usize) -> usize {
        i * self.step
    }

    /// Numbers of a row of outputs.
    pub(crate) fn outputs(&self) -> usize {
        self.runs * self.run
    }

    /// Whether the row of an image lies in the line as it does in memory.
    pub(crate) fn in_order(&self) -> bool {
        self.phases == 1
    }

    /// Puts what `at(x, n)` gives for the `n` numbers of a row from `x` on (as many as a register has, or all of a shorter row) into the line.
    ///
    /// With two phases registers are taken apart by shuffles; with more, numbers one by one. The last registers overlap those before.
    #[inline(always)]
    pub(crate) fn fill<S: Simd>(&self, s: S, line: &mut [f32], at: impl Fn(usize, usize) -> S::F32) {
        let len = self.width * self.channels;
        match self.phases {
            1 => {
                let to = &mut line[self.left * self.channels..][..len];
                if len >= S::LANES {
                    for i in 0..len.div_ceil(S::LANES) {
                        let x = (i * S::LANES).min(len - S::LANES);
                        s.store(at(x, S::LANES), &mut to[x..]);
                    }
                } else if len > 0 {
                    s.store_first(at(0, len), to);
                }
            }
            2 if len >= 2 * S::LANES => {
                let ((low, high), half) = (line.split_at_mut(self.pitch), self.left / 2);
                // Pixels at even places, and at odd ones.
                let mut to = match self.left % 2 {
                    0 => RowsMut::new([&mut low[half..], &mut high[half..]]),
                    _ => RowsMut::new([&mut high[half..], &mut low[half + 1..]]),
                };
                for i in 0..len / (2 * S::LANES) {
                    let x = 2 * i * S::LANES;
                    let (a, b) = s.deinterleave(at(x, S::LANES), at(x + S::LANES, S::LANES));
                    s.store(a, to.chunk(0, i, S::LANES));
                    s.store(b, to.chunk(1, i, S::LANES));
                }
                if !len.is_multiple_of(2 * S::LANES) {
                    let x = len - 2 * S::LANES;
                    let (a, b) = s.deinterleave(at(x, S::LANES), at(x + S::LANES, S::LANES));
                    // An odd row has its last registers the other way round.
                    s.store(a, to.at(x % 2, x / 2, S::LANES));
                    s.store(b, to.at(1 - x % 2, x.div_ceil(2), S::LANES));
                }
            }
            2 => {
                let middle = len.min(S::LANES);
                let second = if middle < len { at(middle, len - middle) } else { s.splat(0.0) };
                let (a, b) = s.deinterleave(at(0, middle), second);
                let [even, odd] = [len.div_ceil(2), len / 2];
                s.store_first(a, &mut line[self.starts[0]..][..even]);
                s.store_first(b, &mut line[self.starts[1]..][..odd]);
            }
            _ => {
                let mut lanes = [0.0; SLACK];
                for x in (0..len).step_by(S::LANES) {
                    s.store(at(x, S::LANES.min(len - x)), &mut lanes);
                    for (x, value) in (x..len).zip(&lanes[..S::LANES]) {
                        line[self.pixel(x)] = *value;
                    }
                }
            }
        }
    }

    /// The inverse of [`fill`](Self::fill): a row of an image, written or added to.
    #[inline(always)]
    pub(crate) fn read<S: Simd>(&self, s: S, line: &[f32], to: &mut [f32], update: Update) {
        match self.phases {
            1 => {
                let from = &line[self.left * self.channels..][..to.len()];
                for (from, to) in from.chunks(S::LANES).zip(to.chunks_mut(S::LANES)) {
                    put(s, s.load_first(from), to, update);
                }
            }
            2 => {
                let (even, odd) = (&line[self.starts[0]..], &line[self.starts[1]..]);
                for (i, to) in to.chunks_mut(2 * S::LANES).enumerate() {
                    let x = i * S::LANES;
                    let (a, b) = s.interleave(s.load(&even[x..]), s.load(&odd[x..]));
                    let (first, second) = to.split_at_mut(S::LANES.min(to.len()));
                    put(s, a, first, update);
                    put(s, b, second, update);
                }
            }
            _ => {
                for (x, to) in to.iter_mut().enumerate() {
                    let value = line[self.pixel(x)];
                    *to = if update == Update::Accumulate { *to + value } else { value };
                }
            }
        }
    }
}

/// Writes the first lanes, or adds them to what is there.
#[inline(always)]
pub(crate) fn put<S: Simd>(s: S, v: S::F32, to: &mut [f32], update: Update) {
    match update {
        Update::Overwrite => s.store_first(v, to),
        Update::Accumulate => s.store_first(s.add(s.load_first(to), v), to),
    }
}
