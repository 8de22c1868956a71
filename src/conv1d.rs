//! 1-D convolution as a view: a signal is an image of one row, `[N, C, L]` is `[N, C, 1, L]`, and nothing is copied.
//!
//! `dst[n, oc, l] = bias[oc] + sum over ic, k of src[n, g*IC/G + ic, l*stride + k*dilation - begin] * weights[oc, ic, k]`

use convolve_core::{Conv2d, Layout, Padding, WeightLayout};

/// One 1-D convolution. [`view`](Self::view) is the same as a [`Conv2d`], whose every pass then serves it.
///
/// ```
/// use convolve::{Conv1d, Epilogue, forward};
/// // A moving difference: [1, -1] over a signal.
/// let conv = Conv1d::new(1, 1, 2).length(5);
/// let mut dst = [0.0; 4];
/// forward(conv.view(), &[1.0, 2.0, 4.0, 7.0, 11.0], &[-1.0, 1.0], &mut dst, Epilogue::NONE)?;
/// assert_eq!(dst, [1.0, 2.0, 3.0, 4.0]);
/// # Ok::<(), convolve::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conv1d {
    /// Signals, N.
    pub batch: usize,
    /// Channels of `src`, IC.
    pub in_channels: usize,
    /// Channels of `dst`, OC.
    pub out_channels: usize,
    /// Groups, G.
    pub groups: usize,
    /// Samples of `src`, L.
    pub length: usize,
    /// Taps.
    pub kernel: usize,
    /// Samples from one output to the next.
    pub stride: usize,
    /// Samples from one tap to the next; 1 is dense.
    pub dilation: usize,
    /// Samples before and after that do not exist.
    pub padding: [usize; 2],
    /// `Nchw` is `[N, C, L]`, `Nhwc` is `[N, L, C]`.
    pub layout: Layout,
    /// `Oihw` is `[OC, IC/G, K]`.
    pub weight_layout: WeightLayout,
}

impl Conv1d {
    /// A convolution of so many channels and taps; batch 1, stride 1, dilation 1, no padding, one group, `[N, C, L]`.
    pub fn new(in_channels: usize, out_channels: usize, kernel: usize) -> Self {
        Self {
            batch: 1,
            in_channels,
            out_channels,
            groups: 1,
            length: 0,
            kernel,
            stride: 1,
            dilation: 1,
            padding: [0, 0],
            layout: Layout::Nchw,
            weight_layout: WeightLayout::Oihw,
        }
    }

    /// Sets the number of signals.
    pub fn batch(self, batch: usize) -> Self {
        Self { batch, ..self }
    }

    /// Sets the number of samples.
    pub fn length(self, length: usize) -> Self {
        Self { length, ..self }
    }

    /// Sets the number of groups.
    pub fn groups(self, groups: usize) -> Self {
        Self { groups, ..self }
    }

    /// Sets the stride.
    pub fn stride(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    /// Sets the dilation; 1 is dense.
    pub fn dilation(self, dilation: usize) -> Self {
        Self { dilation, ..self }
    }

    /// Sets the samples before and after that do not exist: `[left, 0]` is causal.
    ///
    /// ```
    /// use convolve::Conv1d;
    /// let causal = Conv1d::new(8, 8, 3).length(100).dilation(4).padding([8, 0]);
    /// assert_eq!(causal.view().geometry()?.output(), [1, 100]);
    /// # Ok::<(), convolve::Error>(())
    /// ```
    pub fn padding(self, padding: [usize; 2]) -> Self {
        Self { padding, ..self }
    }

    /// Sets the order of `src` and `dst`.
    pub fn layout(self, layout: Layout) -> Self {
        Self { layout, ..self }
    }

    /// Sets the order of the weights.
    pub fn weight_layout(self, weight_layout: WeightLayout) -> Self {
        Self { weight_layout, ..self }
    }

    /// The same as a convolution of images of one row.
    ///
    /// ```
    /// use convolve::{Conv1d, Conv2d};
    /// let view = Conv1d::new(3, 4, 5).length(20).stride(2).padding([2, 2]).view();
    /// assert_eq!(view, Conv2d::new(3, 4, [1, 5]).input([1, 20]).stride([1, 2]).padding([0, 2]));
    /// ```
    pub fn view(self) -> Conv2d {
        let [left, right] = self.padding;
        Conv2d {
            batch: self.batch,
            in_channels: self.in_channels,
            out_channels: self.out_channels,
            groups: self.groups,
            input: [1, self.length],
            kernel: [1, self.kernel],
            stride: [1, self.stride],
            dilation: [1, self.dilation],
            padding: Padding::Explicit { top: 0, bottom: 0, left, right },
            layout: self.layout,
            weight_layout: self.weight_layout,
        }
    }
}

impl From<Conv1d> for Conv2d {
    fn from(conv: Conv1d) -> Self {
        conv.view()
    }
}
