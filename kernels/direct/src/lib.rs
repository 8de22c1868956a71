//! Direct convolution: the image is read where it lies. The algorithm that refuses nothing: every stride, dilation, padding, group
//! count and layout, in all three passes.
//!
//! | pass | file | right operand | left operand |
//! |---|---|---|---|
//! | forward | `phase` | weights, packed by tap | pixels of `src` |
//! | backward-data | the same, per phase | weights, transposed | pixels of `diff_dst` |
//! | backward-weights | `backward_weights` | pixels of `src`, packed by chunk | pixels of `diff_dst` |
#![forbid(unsafe_code)]

mod backward_data;
mod backward_weights;
mod forward;
mod phase;

/// Direct convolution.
///
/// ```
/// use convolve_core::{Algorithm, Forward};
/// assert_eq!(Algorithm::<Forward>::name(&convolve_direct::Direct), "direct");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Direct;

impl Direct {
    const NAME: &'static str = "direct";
}
