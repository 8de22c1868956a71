//! What the user says: one convolution as plain data.
//!
//! `dst[n, oc, oh, ow] = bias[oc] + sum over ic, kh, kw of
//!     src[n, g*IC/G + ic, oh*stride_h + kh*dilation_h - top, ow*stride_w + kw*dilation_w - left] * weights[oc, ic, kh, kw]`
//!
//! with `g = oc / (OC/G)`: cross-correlation (the kernel is not flipped), dilation 1 is dense, and a tap that falls outside
//! the image is absent.

use crate::{Error, Geometry};

/// One 2-D convolution: sizes, padding and layouts. Plain data: `Copy`, `Eq`, `Hash`; nothing is checked before
/// [`geometry`](Self::geometry).
///
/// ```
/// use convolve_core::{Conv2d, Layout, Padding};
/// let conv = Conv2d::new(64, 128, 3).input([56, 56]).batch(8).stride(2).padding(1).layout(Layout::Nhwc);
/// assert_eq!(conv.geometry()?.output(), [28, 28]);
/// assert_eq!(conv.padding, Padding::Explicit { top: 1, bottom: 1, left: 1, right: 1 });
/// # Ok::<(), convolve_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conv2d {
    /// Images, N. Zero is allowed: every pass is then empty.
    pub batch: usize,
    /// Channels of `src`, IC.
    pub in_channels: usize,
    /// Channels of `dst`, OC.
    pub out_channels: usize,
    /// Groups, G: each sees IC/G input channels and makes OC/G output channels. G = IC is depthwise.
    pub groups: usize,
    /// Height and width of `src`.
    pub input: [usize; 2],
    /// Height and width of the kernel, in taps.
    pub kernel: [usize; 2],
    /// Pixels of `src` from one output to the next, per axis.
    pub stride: [usize; 2],
    /// Pixels of `src` from one tap to the next, per axis; 1 is dense.
    pub dilation: [usize; 2],
    /// Pixels around the image that do not exist.
    pub padding: Padding,
    /// Order of `src` and `dst` in memory.
    pub layout: Layout,
    /// Order of `weights` in memory.
    pub weight_layout: WeightLayout,
}

/// A value per axis, `[height, width]`; one number stands for both.
///
/// ```
/// use convolve_core::Pair;
/// assert_eq!(Pair::from(3).0, [3, 3]);
/// assert_eq!(Pair::from([1, 7]).0, [1, 7]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pair(pub [usize; 2]);

impl From<usize> for Pair {
    fn from(both: usize) -> Self {
        Self([both, both])
    }
}

impl From<[usize; 2]> for Pair {
    fn from(pair: [usize; 2]) -> Self {
        Self(pair)
    }
}

impl From<(usize, usize)> for Pair {
    fn from((height, width): (usize, usize)) -> Self {
        Self([height, width])
    }
}

/// Pixels around the image. They are absent, not zero times a weight; any number of them is allowed, also more than the
/// kernel is large.
///
/// A course's "same" is `(f-1)/2` on each side at stride 1; with a stride, [`Same`](Self::Same) is TensorFlow's and ONNX's:
/// the output has `ceil(input / stride)` pixels, and an odd pixel of padding goes to the end.
///
/// ```
/// use convolve_core::{Conv2d, Padding};
/// let conv = Conv2d::new(1, 1, 3).input(8).stride(2);
/// assert_eq!(conv.padding(Padding::Valid).geometry()?.output(), [3, 3]);
/// assert_eq!(conv.padding(Padding::Same).geometry()?.output(), [4, 4]);
/// assert_eq!(conv.padding(Padding::Same).geometry()?.padding(), [[0, 1], [0, 1]]);
/// assert_eq!(conv.padding(Padding::SameLower).geometry()?.padding(), [[1, 0], [1, 0]]);
/// # Ok::<(), convolve_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Padding {
    /// None.
    Valid,
    /// Output = ceil(input / stride); an odd pixel goes to the end (bottom, right).
    Same,
    /// Output = ceil(input / stride); an odd pixel goes to the beginning (top, left).
    SameLower,
    /// Each side by itself.
    Explicit {
        /// Rows above the image.
        top: usize,
        /// Rows below it.
        bottom: usize,
        /// Columns before it.
        left: usize,
        /// Columns after it.
        right: usize,
    },
}

impl From<usize> for Padding {
    /// The same number on all four sides.
    fn from(all: usize) -> Self {
        Self::Explicit { top: all, bottom: all, left: all, right: all }
    }
}

impl From<[usize; 2]> for Padding {
    /// `[vertical, horizontal]`, the same before and after.
    fn from([vertical, horizontal]: [usize; 2]) -> Self {
        Self::Explicit { top: vertical, bottom: vertical, left: horizontal, right: horizontal }
    }
}

/// Order of activations in memory. Both are native; neither is ever guessed from sizes.
///
/// ```
/// use convolve_core::{Conv2d, Layout};
/// let conv = Conv2d::new(3, 8, 1).input([2, 2]);
/// assert_eq!(conv.layout, Layout::Nchw);
/// assert_eq!(conv.layout(Layout::Nhwc).layout.to_string(), "NHWC");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// `[batch, channels, height, width]`: PyTorch's and ONNX's.
    Nchw,
    /// `[batch, height, width, channels]`: TensorFlow's, and a photograph's.
    Nhwc,
}

impl Layout {
    /// Both, for loops over everything.
    pub const ALL: [Self; 2] = [Self::Nchw, Self::Nhwc];
}

impl core::fmt::Display for Layout {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(match self {
            Self::Nchw => "NCHW",
            Self::Nhwc => "NHWC",
        })
    }
}

/// Order of weights in memory: O = output channels, I = input channels of one group, H and W = taps.
///
/// ```
/// use convolve_core::{Conv2d, WeightLayout};
/// let conv = Conv2d::new(4, 8, 3).input(5).groups(2).weight_layout(WeightLayout::Hwio);
/// assert_eq!(conv.geometry()?.weights_shape(), [3, 3, 2, 8]);
/// # Ok::<(), convolve_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightLayout {
    /// `[OC, IC/G, KH, KW]`: PyTorch's and ONNX's.
    Oihw,
    /// `[OC, KH, KW, IC/G]`.
    Ohwi,
    /// `[KH, KW, IC/G, OC]`: TensorFlow's and the course's.
    Hwio,
}

impl WeightLayout {
    /// All three, for loops over everything.
    pub const ALL: [Self; 3] = [Self::Oihw, Self::Ohwi, Self::Hwio];
}

impl core::fmt::Display for WeightLayout {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(match self {
            Self::Oihw => "OIHW",
            Self::Ohwi => "OHWI",
            Self::Hwio => "HWIO",
        })
    }
}

impl Conv2d {
    /// A convolution of `in_channels` to `out_channels` with a kernel of that size; batch 1, stride 1, dilation 1, no padding,
    /// one group, NCHW and OIHW. The input size must follow: [`input`](Self::input).
    ///
    /// ```
    /// use convolve_core::Conv2d;
    /// let conv = Conv2d::new(3, 64, [7, 7]).input(224).stride(2).padding(3);
    /// assert_eq!(conv.geometry()?.output(), [112, 112]);
    /// # Ok::<(), convolve_core::Error>(())
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
            padding: Padding::Valid,
            layout: Layout::Nchw,
            weight_layout: WeightLayout::Oihw,
        }
    }

    /// Sets the number of images.
    /// ```
    /// # use convolve_core::Conv2d;
    /// assert_eq!(Conv2d::new(3, 8, 3).batch(16).batch, 16);
    /// ```
    pub fn batch(self, batch: usize) -> Self {
        Self { batch, ..self }
    }

    /// Sets height and width of `src`.
    /// ```
    /// # use convolve_core::Conv2d;
    /// assert_eq!(Conv2d::new(3, 8, 3).input([480, 640]).input, [480, 640]);
    /// ```
    pub fn input(self, input: impl Into<Pair>) -> Self {
        Self { input: input.into().0, ..self }
    }

    /// Sets the number of groups; `groups(in_channels)` is depthwise.
    /// ```
    /// # use convolve_core::Conv2d;
    /// assert!(Conv2d::new(32, 32, 3).input(8).groups(32).geometry().is_ok());
    /// ```
    pub fn groups(self, groups: usize) -> Self {
        Self { groups, ..self }
    }

    /// Sets the stride.
    /// ```
    /// # use convolve_core::Conv2d;
    /// assert_eq!(Conv2d::new(3, 8, 3).stride([2, 1]).stride, [2, 1]);
    /// ```
    pub fn stride(self, stride: impl Into<Pair>) -> Self {
        Self { stride: stride.into().0, ..self }
    }

    /// Sets the dilation; 1 is dense (oneDNN counts from 0).
    /// ```
    /// # use convolve_core::Conv2d;
    /// assert_eq!(Conv2d::new(3, 8, 3).dilation(2).dilation, [2, 2]);
    /// ```
    pub fn dilation(self, dilation: impl Into<Pair>) -> Self {
        Self { dilation: dilation.into().0, ..self }
    }

    /// Sets the padding: a [`Padding`], one number for all sides, or `[vertical, horizontal]`.
    /// ```
    /// # use convolve_core::{Conv2d, Padding};
    /// assert_eq!(Conv2d::new(3, 8, 3).input(9).padding(Padding::Same).geometry()?.output(), [9, 9]);
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn padding(self, padding: impl Into<Padding>) -> Self {
        Self { padding: padding.into(), ..self }
    }

    /// Sets the order of `src` and `dst`.
    /// ```
    /// # use convolve_core::{Conv2d, Layout};
    /// assert_eq!(Conv2d::new(3, 8, 3).layout(Layout::Nhwc).layout, Layout::Nhwc);
    /// ```
    pub fn layout(self, layout: Layout) -> Self {
        Self { layout, ..self }
    }

    /// Sets the order of `weights`.
    /// ```
    /// # use convolve_core::{Conv2d, WeightLayout};
    /// assert_eq!(Conv2d::new(3, 8, 3).weight_layout(WeightLayout::Ohwi).weight_layout, WeightLayout::Ohwi);
    /// ```
    pub fn weight_layout(self, weight_layout: WeightLayout) -> Self {
        Self { weight_layout, ..self }
    }

    /// Checks every size once and derives the rest: output size, lengths, strides, phases.
    ///
    /// # Errors
    /// A zero where none can be, groups that do not divide the channels, a kernel that does not fit, sizes beyond the
    /// address space. An empty batch is fine.
    ///
    /// ```
    /// use convolve_core::Conv2d;
    /// let geometry = Conv2d::new(3, 64, 3).input([32, 48]).padding(1).geometry()?;
    /// assert_eq!((geometry.src_len(), geometry.weights_len(), geometry.dst_len()), (3 * 32 * 48, 64 * 27, 64 * 32 * 48));
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn geometry(self) -> Result<Geometry, Error> {
        Geometry::new(self)
    }
}
