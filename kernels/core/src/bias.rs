//! The gradient of the bias: `diff_bias[oc] = sum over n, oh, ow of diff_dst[n, oc, oh, ow]`, the course's db.
//!
//! Sums run in a fixed order that depends on the shape alone: over pixels one by one where channels are neighbours (NHWC), in
//! sixteen interleaved parts that are added pairwise where pixels are (NCHW). Plain loops: the compiler vectorises both.

use crate::{Geometry, Layout, Update, workspace::LINE};

/// Writes or adds the gradient of the bias. O(elements of `diff_dst`).
///
/// ```
/// use convolve_core::{Conv2d, Update, backward_bias};
/// let geometry = Conv2d::new(1, 2, 1).input([1, 2]).geometry()?;
/// let mut diff_bias = [1.0, 1.0];
/// backward_bias(&geometry, &[1.0, 2.0, 30.0, 40.0], &mut diff_bias, Update::Accumulate);
/// assert_eq!(diff_bias, [4.0, 71.0]);
/// # Ok::<(), convolve_core::Error>(())
/// ```
pub fn backward_bias(geometry: &Geometry, diff_dst: &[f32], diff_bias: &mut [f32], update: Update) {
    if update == Update::Overwrite {
        diff_bias.fill(0.0);
    }
    let channels = geometry.conv().out_channels;
    match geometry.conv().layout {
        Layout::Nhwc => {
            for pixel in diff_dst.chunks_exact(channels) {
                diff_bias.iter_mut().zip(pixel).for_each(|(sum, x)| *sum += x);
            }
        }
        Layout::Nchw => {
            let plane = geometry.output()[0] * geometry.output()[1];
            for (index, plane) in diff_dst.chunks_exact(plane).enumerate() {
                diff_bias[index % channels] += interleaved_sum(plane);
            }
        }
    }
}

/// Sum in [`LINE`] interleaved parts, which are then added pairwise.
fn interleaved_sum(values: &[f32]) -> f32 {
    let mut parts = [0.0f32; LINE];
    let (lines, rest) = values.as_chunks::<LINE>();
    for line in lines {
        parts.iter_mut().zip(line).for_each(|(part, x)| *part += x);
    }
    parts.iter_mut().zip(rest).for_each(|(part, x)| *part += x);
    let mut width = LINE / 2;
    while width > 0 {
        for i in 0..width {
            parts[i] += parts[i + width];
        }
        width /= 2;
    }
    parts[0]
}
