//! Transposed convolution: the gradient of a convolution's input, used as a layer that enlarges its image.
//!
//! ```text
//! dst[n, g*OC/G + oc, y*stride - begin + k*dilation] += src[n, g*IC/G + ic, y] * weights[g*IC/G + ic, oc, k]      (per axis)
//! output = (input - 1) * stride - begin - end + dilation * (kernel - 1) + 1 + output_padding
//! ```
//!
//! Nothing is computed by the formula above: a layer is the backward-data pass of the convolution [`Transposed2d::conv`] from `dst` to `src`,
//! which gathers and skips the zeros of a stride. Its own gradients are the forward and backward-weights pass of the same convolution:
//!
//! ```
//! use convolve::{Conv2d, Epilogue, Transposed2d, backward_weights, forward, transposed};
//! let layer = Transposed2d::new(1, 1, 2).input(2).stride(2);
//! let (src, weights) = ([1.0, 2.0, 3.0, 4.0], [1.0, 10.0, 100.0, 1000.0]);
//! let mut dst = [0.0; 16];
//! transposed(layer, &src, &weights, &mut dst, None)?;
//! assert_eq!(dst[..8], [1.0, 10.0, 2.0, 20.0, 100.0, 1000.0, 200.0, 2000.0]);
//!
//! let (diff_dst, conv) = ([1.0; 16], layer.conv()?);
//! let (mut diff_src, mut diff_weights) = ([0.0; 4], [0.0; 4]);
//! forward(conv, &diff_dst, &weights, &mut diff_src, Epilogue::NONE)?; // dsrc = conv(ddst)
//! backward_weights(conv, &diff_dst, &src, &mut diff_weights)?; // the parts of src and dst are exchanged
//! assert_eq!((diff_src, diff_weights), ([1111.0; 4], [10.0; 4]));
//! # Ok::<(), convolve::Error>(())
//! ```

use crate::backward_data;
use convolve_core::{Conv2d, Error, Layout, Padding, Pair, WeightLayout};

/// One transposed convolution, in the words of the layer: `input` is the small image, channels are those that go in and come out.
///
/// ```
/// use convolve::Transposed2d;
/// let layer = Transposed2d::new(64, 32, 3).input([14, 14]).stride(2).padding(1).output_padding(1);
/// assert_eq!(layer.output()?, [28, 28]);
/// # Ok::<(), convolve::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Transposed2d {
    /// Images, N.
    pub batch: usize,
    /// Channels of `src`, IC.
    pub in_channels: usize,
    /// Channels of `dst`, OC.
    pub out_channels: usize,
    /// Groups.
    pub groups: usize,
    /// Height and width of `src`.
    pub input: [usize; 2],
    /// Height and width of the kernel, in taps.
    pub kernel: [usize; 2],
    /// Pixels of `dst` from one pixel of `src` to the next.
    pub stride: [usize; 2],
    /// Pixels of `dst` from one tap to the next; 1 is dense.
    pub dilation: [usize; 2],
    /// Pixels that are cut off `dst`: `[[top, bottom], [left, right]]`.
    pub padding: [[usize; 2]; 2],
    /// Pixels that are added to `dst` at the bottom and on the right, less than the stride.
    pub output_padding: [usize; 2],
    /// Order of `src` and `dst`.
    pub layout: Layout,
    /// Order of the weights, of which O is IC and I is OC/G: `Oihw` is PyTorch's `[in, out / groups, kh, kw]`.
    pub weight_layout: WeightLayout,
}

impl Transposed2d {
    /// A layer of so many channels with a kernel of that size; batch 1, stride 1, dilation 1, no padding, one group, NCHW.
    /// ```
    /// # use convolve::Transposed2d;
    /// assert_eq!(Transposed2d::new(8, 4, 3).input(5).output()?, [7, 7]);
    /// # Ok::<(), convolve::Error>(())
    /// ```
    pub fn new(in_channels: usize, out_channels: usize, kernel: impl Into<Pair>) -> Self {
        Self {
            batch: 1,
            in_channels,
            out_channels,
            groups: 1,
            input: [0, 0],
            kernel: kernel.into().0,
            stride: [1, 1],
            dilation: [1, 1],
            padding: [[0, 0], [0, 0]],
            output_padding: [0, 0],
            layout: Layout::Nchw,
            weight_layout: WeightLayout::Oihw,
        }
    }

    /// Sets the number of images.
    pub fn batch(self, batch: usize) -> Self {
        Self { batch, ..self }
    }

    /// Sets height and width of `src`.
    pub fn input(self, input: impl Into<Pair>) -> Self {
        Self { input: input.into().0, ..self }
    }

    /// Sets the number of groups.
    pub fn groups(self, groups: usize) -> Self {
        Self { groups, ..self }
    }

    /// Sets the stride: how much larger the image becomes.
    pub fn stride(self, stride: impl Into<Pair>) -> Self {
        Self { stride: stride.into().0, ..self }
    }

    /// Sets the dilation; 1 is dense.
    pub fn dilation(self, dilation: impl Into<Pair>) -> Self {
        Self { dilation: dilation.into().0, ..self }
    }

    /// Cuts so many pixels off every side, or `[vertical, horizontal]`.
    pub fn padding(self, padding: impl Into<Pair>) -> Self {
        Self { padding: padding.into().0.map(|both| [both, both]), ..self }
    }

    /// Adds so many pixels at the bottom and on the right: which of the sizes that the convolution maps to `input` is meant.
    pub fn output_padding(self, output_padding: impl Into<Pair>) -> Self {
        Self { output_padding: output_padding.into().0, ..self }
    }

    /// Sets the order of `src` and `dst`.
    pub fn layout(self, layout: Layout) -> Self {
        Self { layout, ..self }
    }

    /// Sets the order of the weights.
    pub fn weight_layout(self, weight_layout: WeightLayout) -> Self {
        Self { weight_layout, ..self }
    }

    /// Height and width of `dst`.
    ///
    /// # Errors
    /// As [`conv`](Self::conv).
    pub fn output(&self) -> Result<[usize; 2], Error> {
        Ok(self.conv()?.input)
    }

    /// The convolution from `dst` to `src` whose backward-data pass this layer is: what a [`Plan`](crate::Plan) is made for.
    ///
    /// # Errors
    /// An output padding that is not less than the stride, a padding that leaves nothing, a zero where none can be, sizes beyond the
    /// address space.
    ///
    /// ```
    /// use convolve::{BackwardData, Planner, Transposed2d};
    /// let conv = Transposed2d::new(64, 32, 4).input(7).stride(2).padding(1).conv()?;
    /// assert_eq!((conv.in_channels, conv.out_channels, conv.input), (32, 64, [14, 14]));
    /// assert_eq!(conv.geometry()?.output(), [7, 7]);
    /// let plan = Planner::new().plan::<BackwardData>(conv)?;
    /// let error = Transposed2d::new(64, 32, 4).input(7).output_padding(1).conv().unwrap_err();
    /// assert_eq!(error.to_string(), "output_padding = 1: it must be less than the stride");
    /// # Ok::<(), convolve::Error>(())
    /// ```
    pub fn conv(&self) -> Result<Conv2d, Error> {
        let too_large = || Error::TooLarge { what: "dst", problem: format!("{self:?}"), bits: usize::BITS };
        let mut output = [0; 2];
        for (axis, output) in output.iter_mut().enumerate() {
            let [input, kernel, stride, dilation] =
                [self.input[axis], self.kernel[axis], self.stride[axis], self.dilation[axis]];
            for (parameter, value) in
                [("input", input), ("kernel", kernel), ("stride", stride), ("dilation", dilation)]
            {
                if value == 0 {
                    return Err(Error::Parameter { parameter, value, reason: "it must be at least 1" });
                }
            }
            let value = self.output_padding[axis];
            if value >= stride {
                let reason = "it must be less than the stride";
                return Err(Error::Parameter { parameter: "output_padding", value, reason });
            }
            let extent = (kernel - 1).checked_mul(dilation).and_then(|extent| extent.checked_add(1 + value));
            let size = (input - 1).checked_mul(stride).and_then(|size| size.checked_add(extent?));
            let [begin, end] = self.padding[axis];
            let cut = begin.checked_add(end).ok_or_else(too_large)?;
            *output = size.ok_or_else(too_large)?.checked_sub(cut).filter(|&size| size > 0).ok_or(
                Error::Parameter { parameter: "padding", value: cut, reason: "it must leave a pixel of dst" },
            )?;
        }
        let [[top, bottom], [left, right]] = self.padding;
        let conv = Conv2d {
            batch: self.batch,
            in_channels: self.out_channels,
            out_channels: self.in_channels,
            groups: self.groups,
            input: output,
            kernel: self.kernel,
            stride: self.stride,
            dilation: self.dilation,
            padding: Padding::Explicit { top, bottom, left, right },
            layout: self.layout,
            weight_layout: self.weight_layout,
        };
        conv.geometry()?;
        Ok(conv)
    }
}

/// `dst = transposed convolution of src + bias`, on the current rayon pool; `dst` is overwritten. See [`Transposed2d`].
///
/// # Errors
/// As [`Transposed2d::conv`], or slices of the wrong length.
///
/// ```
/// use convolve::{Transposed2d, transposed};
/// // One pixel becomes the kernel.
/// let mut dst = [0.0; 4];
/// transposed(Transposed2d::new(1, 1, 2).input(1), &[2.0], &[1.0, 2.0, 3.0, 4.0], &mut dst, Some(&[0.5]))?;
/// assert_eq!(dst, [2.5, 4.5, 6.5, 8.5]);
/// # Ok::<(), convolve::Error>(())
/// ```
pub fn transposed(
    layer: Transposed2d,
    src: &[f32],
    weights: &[f32],
    dst: &mut [f32],
    bias: Option<&[f32]>,
) -> Result<(), Error> {
    let conv = layer.conv()?;
    if let Some(bias) = bias
        && bias.len() != layer.out_channels
    {
        let shape = format!("[{}], one per output channel,", layer.out_channels);
        let (expected, got) = (layer.out_channels, bias.len());
        return Err(Error::Length { operand: "bias", shape, expected, got, hint: String::new() });
    }
    backward_data(conv, src, weights, dst)?;
    let Some(bias) = bias else { return Ok(()) };
    match layer.layout {
        Layout::Nchw => {
            let planes = dst.chunks_exact_mut(conv.input[0] * conv.input[1]).zip(bias.iter().cycle());
            planes.for_each(|(plane, b)| plane.iter_mut().for_each(|x| *x += b));
        }
        Layout::Nhwc => {
            let pixels = dst.chunks_exact_mut(layer.out_channels);
            pixels.for_each(|pixel| pixel.iter_mut().zip(bias).for_each(|(x, b)| *x += b));
        }
    }
    Ok(())
}
