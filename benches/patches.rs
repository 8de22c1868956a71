//! Textbook im2col for the `gemm` crate: what a careful user of a fast GEMM writes in an afternoon.

use convolve::{Geometry, Layout};

/// `dst = W P`, per image and group; `P[(ic, kh, kw), (oh, ow)]` is written out in `patches` first.
pub fn forward(geometry: &Geometry, src: &[f32], weights: &[f32], patches: &mut [f32], dst: &mut [f32]) {
    let (conv, [height, width]) = (geometry.conv(), geometry.output());
    let (depth, outputs) = (geometry.group_in() * geometry.taps(), geometry.group_out());
    let (from, to, w) = (geometry.src(), geometry.dst(), geometry.weights());
    // Rows of W as one matrix: (ic, kh, kw) must be one index with one stride, so its order is that of the weights.
    let last = [w.ic, w.tap[0], w.tap[1]].into_iter().min().unwrap_or(1);
    for image in 0..conv.batch {
        for group in 0..conv.groups {
            let input = &src[image * from.image + group * geometry.group_in() * from.channel..];
            fill(geometry, input, patches, last);
            let a = &weights[group * outputs * w.oc..];
            let c = &mut dst[image * to.image + group * outputs * to.channel..];
            let column = if conv.layout == Layout::Nhwc { to.column } else { 1 };
            // SAFETY: the three matrices lie in their slices: `patches` is depth x pixels, the others are a group of the geometry.
            unsafe {
                gemm::gemm(
                    outputs,
                    height * width,
                    depth,
                    c.as_mut_ptr(),
                    column as isize,
                    to.channel as isize,
                    false,
                    a.as_ptr(),
                    last as isize,
                    w.oc as isize,
                    patches.as_ptr(),
                    1,
                    (height * width) as isize,
                    0.0,
                    1.0,
                    false,
                    false,
                    false,
                    gemm::Parallelism::None,
                );
            }
        }
    }
}

/// Floats of `patches`.
pub fn len(geometry: &Geometry) -> usize {
    geometry.group_in() * geometry.taps() * geometry.output().iter().product::<usize>()
}

/// Row `(offset of the weight) / unit` of the patch matrix, for one image and group.
fn fill(geometry: &Geometry, input: &[f32], patches: &mut [f32], unit: usize) {
    let (conv, [height, width], strides) = (geometry.conv(), geometry.output(), geometry.src());
    let ([vertical, horizontal], w) = (geometry.padding(), geometry.weights());
    for c in 0..geometry.group_in() {
        for (y, x) in (0..conv.kernel[0]).flat_map(|y| (0..conv.kernel[1]).map(move |x| (y, x))) {
            let row = w.at(0, c, [y, x]) / unit;
            let to = &mut patches[row * height * width..][..height * width];
            for (i, to) in to.chunks_exact_mut(width).enumerate() {
                let ih = (i * conv.stride[0] + y * conv.dilation[0]).wrapping_sub(vertical[0]);
                for (j, to) in to.iter_mut().enumerate() {
                    let iw = (j * conv.stride[1] + x * conv.dilation[1]).wrapping_sub(horizontal[0]);
                    let inside = ih < conv.input[0] && iw < conv.input[1];
                    *to = if inside {
                        input[c * strides.channel + ih * strides.row + iw * strides.column]
                    } else {
                        0.0
                    };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use convolve::{Conv2d, WeightLayout, definition};

    #[test]
    fn equals_the_definition() {
        for layout in Layout::ALL {
            for weight_layout in [WeightLayout::Oihw, WeightLayout::Hwio] {
                let conv =
                    Conv2d::new(6, 4, [3, 2]).groups(2).batch(2).input([7, 6]).stride([2, 1]).padding(1);
                let geometry = conv.layout(layout).weight_layout(weight_layout).geometry().unwrap();
                let numbers = |len: usize| (0..len).map(|i| (i * 7 % 11) as f32 - 5.0).collect::<Vec<_>>();
                let (src, weights) = (numbers(geometry.src_len()), numbers(geometry.weights_len()));
                let (mut patches, mut dst) = (vec![0.0; len(&geometry)], vec![0.0; geometry.dst_len()]);
                forward(&geometry, &src, &weights, &mut patches, &mut dst);
                assert_eq!(dst, definition::forward(&geometry, &src, &weights), "{layout} {weight_layout}");
            }
        }
    }
}
