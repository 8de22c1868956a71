//! Backward of maxima of 2 x 2 pixels side by side without indices: every pixel is in one window, so winners are found and paid in registers.

use crate::line::put;
use crate::vector::vectors;
use crate::{Pooling, Ties};
use convolve_core::{BlockMut, Layout, Update};
use convolve_simd::{Rows, RowsMut, Simd};
use core::ops::Range;

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
            let [mut to] = diff_src.rows_of_planes::<1, 2>([i, 2 * oh - band.start], 1).all();
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
                    let read = Rows::new(&[rows[0], &rows[0][channels..], rows[1], &rows[1][channels..]]);
                    for (ow, gradient) in gradient.chunks_exact(channels).enumerate() {
                        let (pair, gradient) =
                            (2 * ow * channels..2 * (ow + 1) * channels, Rows::<1>::new(&[gradient]));
                        let values: Rows<'_, 4> = read.part(pair.start, channels);
                        let [above, below] = &mut to;
                        let (a, b) = above[pair.clone()].split_at_mut(channels);
                        let (c, d) = below[pair].split_at_mut(channels);
                        let mut to = RowsMut::new([a, b, c, d]);
                        vectors::<S>(
                            channels,
                            #[inline(always)]
                            |at| {
                                let (pixels, mut lanes) = (at.of::<S, 4, _>(&values), [s.splat(0.0); 4]);
                                for (n, value) in lanes.iter_mut().enumerate() {
                                    *value = s.load_first(pixels.row(n));
                                }
                                let gradient = s.load_first(at.of::<S, 1, _>(&gradient).row(0));
                                let parts = parts(s, ties, lanes, gradient);
                                for (n, part) in parts.into_iter().enumerate() {
                                    put(s, part, at.of_mut::<S, 4>(&mut to, n), update);
                                }
                            },
                        );
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
