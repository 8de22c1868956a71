//! The definition: one visitor of all multiplications, and the three passes in one line each. Slow, exact and independent of every
//! kernel; generic, so that i64 makes it the oracle of the tests.
//!
//! ```text
//! for n, oc, oh, ow, ic, kh, kw:   s = src[n, g*IC/G + ic, oh*stride + kh*dilation - top, ow*stride + kw*dilation - left]
//!     forward            dst[d]  += src[s] * weights[w]
//!     backward-data      diff_src[s] += diff_dst[d] * weights[w]
//!     backward-weights   diff_weights[w] += src[s] * diff_dst[d]
//! ```

use crate::{Geometry, Operand};
use core::ops::{Add, Mul};

/// A number that the definition can be computed in: f32, f64, i64.
///
/// ```
/// fn square<T: convolve_core::definition::Number>(x: T) -> T { x * x }
/// assert_eq!(square(3i64), 9);
/// ```
pub trait Number: Copy + Default + Add<Output = Self> + Mul<Output = Self> + Send + Sync + 'static {}
impl Number for f32 {}
impl Number for f64 {}
impl Number for i64 {}

/// Visits every multiplication as offsets `(src, weights, dst)`; taps outside the image are not visited.
///
/// ```
/// use convolve_core::{Conv2d, definition::for_each_mac};
/// let geometry = Conv2d::new(1, 1, 3).input(3).padding(1).geometry()?;
/// let mut macs = 0;
/// for_each_mac(&geometry, |_, _, _| macs += 1);
/// assert_eq!(macs, 49); // 81 minus the taps in the padding
/// # Ok::<(), convolve_core::Error>(())
/// ```
pub fn for_each_mac(geometry: &Geometry, mut visit: impl FnMut(usize, usize, usize)) {
    let conv = geometry.conv();
    let (src, dst, weights) = (geometry.src(), geometry.dst(), geometry.weights());
    let (group_in, group_out) = (geometry.group_in(), geometry.group_out());
    let ([oh, ow], [kh, kw]) = (geometry.output(), conv.kernel);
    let [[top, _], [left, _]] = geometry.padding();
    let inside = |o: usize, k: usize, axis: usize, before: usize| {
        (o * conv.stride[axis] + k * conv.dilation[axis])
            .checked_sub(before)
            .filter(|&i| i < conv.input[axis])
    };
    for n in 0..conv.batch {
        for oc in 0..conv.out_channels {
            for y in 0..oh {
                for x in 0..ow {
                    let d = n * dst.image + oc * dst.channel + y * dst.row + x * dst.column;
                    for ic in 0..group_in {
                        let channel = oc / group_out * group_in + ic;
                        for ky in 0..kh {
                            let Some(iy) = inside(y, ky, 0, top) else { continue };
                            for kx in 0..kw {
                                let Some(ix) = inside(x, kx, 1, left) else { continue };
                                let s =
                                    n * src.image + channel * src.channel + iy * src.row + ix * src.column;
                                visit(s, weights.at(oc, ic, [ky, kx]), d);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Panics with the sentence that a plan would return.
fn check<T>(geometry: &Geometry, operand: Operand, name: &'static str, slice: &[T]) {
    if let Err(error) = geometry.check(operand, name, slice.len()) {
        panic!("{error}");
    }
}

/// Forward: `dst = src * weights`.
///
/// # Panics
/// When a slice does not have the length of its tensor.
///
/// ```
/// use convolve_core::{Conv2d, definition};
/// let geometry = Conv2d::new(1, 1, [1, 2]).input([1, 3]).geometry()?;
/// assert_eq!(definition::forward(&geometry, &[1i64, 2, 5], &[-1, 1]), [1, 3]);
/// # Ok::<(), convolve_core::Error>(())
/// ```
pub fn forward<T: Number>(geometry: &Geometry, src: &[T], weights: &[T]) -> Vec<T> {
    check(geometry, Operand::Src, "src", src);
    check(geometry, Operand::Weights, "weights", weights);
    let mut dst = vec![T::default(); geometry.dst_len()];
    for_each_mac(geometry, |s, w, d| dst[d] = dst[d] + src[s] * weights[w]);
    dst
}

/// Backward-data: the gradient of the input.
///
/// # Panics
/// When a slice does not have the length of its tensor.
///
/// ```
/// use convolve_core::{Conv2d, definition};
/// let geometry = Conv2d::new(1, 1, [1, 2]).input([1, 3]).geometry()?;
/// assert_eq!(definition::backward_data(&geometry, &[1i64, 10], &[-1, 1]), [-1, -9, 10]);
/// # Ok::<(), convolve_core::Error>(())
/// ```
pub fn backward_data<T: Number>(geometry: &Geometry, diff_dst: &[T], weights: &[T]) -> Vec<T> {
    check(geometry, Operand::Dst, "diff_dst", diff_dst);
    check(geometry, Operand::Weights, "weights", weights);
    let mut diff_src = vec![T::default(); geometry.src_len()];
    for_each_mac(geometry, |s, w, d| diff_src[s] = diff_src[s] + diff_dst[d] * weights[w]);
    diff_src
}

/// Backward-weights: the gradient of the weights.
///
/// # Panics
/// When a slice does not have the length of its tensor.
///
/// ```
/// use convolve_core::{Conv2d, definition};
/// let geometry = Conv2d::new(1, 1, [1, 2]).input([1, 3]).geometry()?;
/// assert_eq!(definition::backward_weights(&geometry, &[1i64, 2, 5], &[1, 10]), [21, 52]);
/// # Ok::<(), convolve_core::Error>(())
/// ```
pub fn backward_weights<T: Number>(geometry: &Geometry, src: &[T], diff_dst: &[T]) -> Vec<T> {
    check(geometry, Operand::Src, "src", src);
    check(geometry, Operand::Dst, "diff_dst", diff_dst);
    let mut diff_weights = vec![T::default(); geometry.weights_len()];
    for_each_mac(geometry, |s, w, d| diff_weights[w] = diff_weights[w] + src[s] * diff_dst[d]);
    diff_weights
}

/// The gradient of the bias: the sum of `diff_dst` over images and pixels, per output channel.
///
/// # Panics
/// When a slice does not have the length of its tensor.
///
/// ```
/// use convolve_core::{Conv2d, definition};
/// let geometry = Conv2d::new(1, 2, 1).input([1, 2]).geometry()?;
/// assert_eq!(definition::backward_bias(&geometry, &[1i64, 2, 30, 40]), [3, 70]);
/// # Ok::<(), convolve_core::Error>(())
/// ```
pub fn backward_bias<T: Number>(geometry: &Geometry, diff_dst: &[T]) -> Vec<T> {
    check(geometry, Operand::Dst, "diff_dst", diff_dst);
    let (conv, strides) = (geometry.conv(), geometry.dst());
    let mut diff_bias = vec![T::default(); conv.out_channels];
    for n in 0..conv.batch {
        for (oc, sum) in diff_bias.iter_mut().enumerate() {
            for y in 0..geometry.output()[0] {
                for x in 0..geometry.output()[1] {
                    let d = n * strides.image + oc * strides.channel + y * strides.row + x * strides.column;
                    *sum = *sum + diff_dst[d];
                }
            }
        }
    }
    diff_bias
}
