//! The gradient of the bias: `diff_bias[oc] = sum over n, oh, ow of diff_dst[n, oc, oh, ow]`, the course's db.
//!
//! Sums run in a fixed order that depends on the shape alone: over pixels one by one where channels are neighbours (NHWC), in
//! sixteen interleaved parts that are added pairwise where pixels are (NCHW). Channels are shared among threads, never a sum.
//! Plain loops: the compiler vectorises both.
//!
//! A pass of its own over `diff_dst`, not a by-product of the gradient of the weights: so its bits do not depend on the algorithm that makes
//! the latter, nor on whether anyone asks for it.

use crate::{BlockMut, Cut, Error, Geometry, Layout, Operand, Par, Update, workspace::LINE};

/// Channels that are summed together in NHWC: two cache lines of each pixel, which eight registers of the smallest vectors hold.
const BLOCK: usize = 2 * LINE;

/// Fewer elements are summed in less time than it takes to wake a thread.
const FEW: usize = 1 << 17;

/// Writes or adds the gradient of the bias. O(elements of `diff_dst`).
///
/// # Errors
/// A slice of the wrong length; nothing is then written.
///
/// ```
/// use convolve_core::{Conv2d, Par, Update, backward_bias};
/// let geometry = Conv2d::new(1, 2, 1).input([1, 2]).geometry()?;
/// let mut diff_bias = [1.0, 1.0];
/// backward_bias(&geometry, &[1.0, 2.0, 30.0, 40.0], &mut diff_bias, Update::Accumulate, Par::Seq)?;
/// assert_eq!(diff_bias, [4.0, 71.0]);
/// let error = backward_bias(&geometry, &[1.0; 3], &mut diff_bias, Update::Overwrite, Par::Seq).unwrap_err();
/// assert_eq!(error.to_string(), "diff_dst has 3 elements, but [1, 2, 1, 2] NCHW needs 4");
/// # Ok::<(), convolve_core::Error>(())
/// ```
pub fn backward_bias(
    geometry: &Geometry,
    diff_dst: &[f32],
    diff_bias: &mut [f32],
    update: Update,
    par: Par<'_>,
) -> Result<(), Error> {
    geometry.check(Operand::Dst, "diff_dst", diff_dst.len())?;
    geometry.check(Operand::Bias, "diff_bias", diff_bias.len())?;
    let (channels, [height, width]) = (geometry.conv().out_channels, geometry.output());
    let extent = [1, 1, diff_bias.len()];
    let cut = Cut { unit: channels.max(1), block: BLOCK };
    let cuts = [Cut::whole(1), Cut::whole(1), cut];
    let par = if diff_dst.len() < FEW { Par::Seq } else { par };
    BlockMut::new(diff_bias, extent).for_each_piece(cuts, par, &mut [], 0, &|[_, _, block], mut piece, _| {
        let sums = piece.row(0, 0);
        if update == Update::Overwrite {
            sums.fill(0.0);
        }
        match geometry.conv().layout {
            Layout::Nhwc => {
                let mut own = [0.0; BLOCK];
                own[..block.len()].copy_from_slice(sums);
                for pixel in diff_dst.chunks_exact(channels) {
                    match pixel[block.clone()].first_chunk::<BLOCK>() {
                        Some(values) => own.iter_mut().zip(values).for_each(|(sum, x)| *sum += x),
                        None => own.iter_mut().zip(&pixel[block.clone()]).for_each(|(sum, x)| *sum += x),
                    }
                }
                sums.copy_from_slice(&own[..block.len()]);
            }
            Layout::Nchw => {
                let plane = height * width;
                for image in diff_dst.chunks_exact(channels * plane) {
                    let planes = image[block.start * plane..block.end * plane].chunks_exact(plane);
                    sums.iter_mut().zip(planes).for_each(|(sum, plane)| *sum += interleaved_sum(plane));
                }
            }
        }
    });
    Ok(())
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
