//! The checked problem: every size, stride and product is computed here, once, with overflow checks; below it nothing can
//! overflow and nothing is checked again.
//!
//! `output = floor((input + begin + end - (dilation * (kernel - 1) + 1)) / stride) + 1` per axis.

use crate::phase::{AxisPhase, Phase, gcd};
use crate::{Conv2d, Error, Layout, Padding, WeightLayout};

/// Distances, in elements, between neighbours of an activation tensor.
///
/// ```
/// use convolve_core::{Conv2d, Layout};
/// let conv = Conv2d::new(3, 8, 1).input([4, 5]);
/// let nhwc = conv.layout(Layout::Nhwc).geometry()?.src();
/// assert_eq!((nhwc.image, nhwc.channel, nhwc.row, nhwc.column), (60, 1, 15, 3));
/// # Ok::<(), convolve_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strides {
    /// From one image to the next.
    pub image: usize,
    /// From one channel to the next.
    pub channel: usize,
    /// From one row to the next.
    pub row: usize,
    /// From one column to the next.
    pub column: usize,
}

/// Distances, in elements, between neighbours of the weights.
///
/// ```
/// use convolve_core::Conv2d;
/// let weights = Conv2d::new(2, 8, 3).input(5).geometry()?.weights();
/// assert_eq!(weights.at(1, 1, [0, 2]), 18 + 9 + 2);
/// # Ok::<(), convolve_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightStrides {
    /// From one output channel to the next (of all groups).
    pub oc: usize,
    /// From one input channel of the group to the next.
    pub ic: usize,
    /// From one tap to the next, per axis.
    pub tap: [usize; 2],
}

impl WeightStrides {
    /// Offset of one weight; `oc` counts through all groups, `ic` within its group.
    #[inline]
    pub fn at(&self, oc: usize, ic: usize, k: [usize; 2]) -> usize {
        oc * self.oc + ic * self.ic + k[0] * self.tap[0] + k[1] * self.tap[1]
    }
}

/// A [`Conv2d`] whose every size has been checked. The only thing that kernels accept.
///
/// ```
/// use convolve_core::Conv2d;
/// let geometry = Conv2d::new(64, 64, 3).input(56).padding(1).geometry()?;
/// assert_eq!(geometry.output(), [56, 56]);
/// assert_eq!(geometry.macs(), 64 * 64 * 9 * 56 * 56);
/// # Ok::<(), convolve_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    conv: Conv2d,
    output: [usize; 2],
    padding: [[usize; 2]; 2],
    lens: [usize; 3],
    macs: u64,
}

const AXES: [&str; 2] = ["height", "width"];

impl Geometry {
    pub(crate) fn new(conv: Conv2d) -> Result<Self, Error> {
        let at_least_one = [
            ("in_channels", conv.in_channels),
            ("out_channels", conv.out_channels),
            ("groups", conv.groups),
            ("input height", conv.input[0]),
            ("input width", conv.input[1]),
            ("kernel height", conv.kernel[0]),
            ("kernel width", conv.kernel[1]),
            ("stride height", conv.stride[0]),
            ("stride width", conv.stride[1]),
            ("dilation height", conv.dilation[0]),
            ("dilation width", conv.dilation[1]),
        ];
        for (parameter, value) in at_least_one {
            if value == 0 {
                let reason = match parameter {
                    "dilation height" | "dilation width" => {
                        "it must be at least 1; 1 is dense (oneDNN counts from 0)"
                    }
                    "input height" | "input width" => {
                        "it must be at least 1; set it with `.input([height, width])`, that of a `Conv1d` with `.length(..)`"
                    }
                    _ => "it must be at least 1",
                };
                return Err(Error::Parameter { parameter, value, reason });
            }
        }
        for (parameter, channels) in [("in_channels", conv.in_channels), ("out_channels", conv.out_channels)]
        {
            if channels % conv.groups != 0 {
                let suggestion = nearest_groups(conv.in_channels, conv.out_channels, conv.groups);
                return Err(Error::Groups { parameter, channels, groups: conv.groups, suggestion });
            }
        }
        let mut output = [0; 2];
        let mut padding = [[0; 2]; 2];
        for axis in 0..2 {
            (output[axis], padding[axis]) = Self::axis(&conv, axis)?;
        }
        // The widest element any pass is computed in is 8 bytes (f64, i64), so lengths are bounded for it.
        let len = |what, factors: [usize; 4]| {
            factors
                .iter()
                .try_fold(1usize, |product, &factor| product.checked_mul(factor))
                .filter(|&len| len <= isize::MAX as usize / 8)
                .ok_or_else(|| too_large(what, &conv))
        };
        // One image must fit even if there is none: its strides and lengths are asked for.
        let images = conv.batch.max(1);
        let mut lens = [
            len("src", [images, conv.in_channels, conv.input[0], conv.input[1]])?,
            len(
                "weights",
                [conv.out_channels, conv.in_channels / conv.groups, conv.kernel[0], conv.kernel[1]],
            )?,
            len("dst", [images, conv.out_channels, output[0], output[1]])?,
        ];
        if conv.batch == 0 {
            (lens[0], lens[2]) = (0, 0);
        }
        let macs = (lens[2] as u128) * (lens[1] / conv.out_channels) as u128;
        let macs = u64::try_from(macs).map_err(|_| too_large("the number of multiplications", &conv))?;
        Ok(Self { conv, output, padding, lens, macs })
    }

    /// Output size and padding (begin, end) of one axis.
    fn axis(conv: &Conv2d, axis: usize) -> Result<(usize, [usize; 2]), Error> {
        let (input, kernel) = (conv.input[axis], conv.kernel[axis]);
        let (stride, dilation) = (conv.stride[axis], conv.dilation[axis]);
        let overflow = || too_large("the padded input", conv);
        let extent =
            (kernel - 1).checked_mul(dilation).and_then(|e| e.checked_add(1)).ok_or_else(overflow)?;
        let same = |lower: bool| {
            let total = ((input.div_ceil(stride) - 1).checked_mul(stride)?.checked_add(extent)?)
                .saturating_sub(input);
            let (small, large) = (total / 2, total - total / 2);
            Some(if lower { [large, small] } else { [small, large] })
        };
        let [begin, end] = match conv.padding {
            Padding::Valid => [0, 0],
            Padding::Same => same(false).ok_or_else(overflow)?,
            Padding::SameLower => same(true).ok_or_else(overflow)?,
            Padding::Explicit { top, bottom, left, right } => [[top, bottom], [left, right]][axis],
        };
        // Half the range, so that signed displacements of taps never overflow either.
        let padded = input.checked_add(begin).and_then(|p| p.checked_add(end)).ok_or_else(overflow)?;
        if padded > isize::MAX as usize / 2
            || extent > isize::MAX as usize / 2
            || stride > isize::MAX as usize / 2
        {
            return Err(overflow());
        }
        if extent > padded {
            let axis = AXES[axis];
            return Err(Error::KernelDoesNotFit {
                axis,
                kernel,
                dilation,
                extent,
                input,
                begin,
                end,
                padded,
            });
        }
        Ok(((padded - extent) / stride + 1, [begin, end]))
    }

    /// The problem as the user said it.
    pub fn conv(&self) -> &Conv2d {
        &self.conv
    }

    /// Height and width of `dst`.
    pub fn output(&self) -> [usize; 2] {
        self.output
    }

    /// Padding as numbers: `[[top, bottom], [left, right]]`.
    pub fn padding(&self) -> [[usize; 2]; 2] {
        self.padding
    }

    /// Elements of `src`.
    pub fn src_len(&self) -> usize {
        self.lens[0]
    }

    /// Elements of `weights`.
    pub fn weights_len(&self) -> usize {
        self.lens[1]
    }

    /// Elements of `dst`.
    pub fn dst_len(&self) -> usize {
        self.lens[2]
    }

    /// Multiplications of one pass when every tap of every output is counted, also those in the padding: the usual
    /// convention, and half the FLOPs.
    pub fn macs(&self) -> u64 {
        self.macs
    }

    /// Input channels of one group.
    pub fn group_in(&self) -> usize {
        self.conv.in_channels / self.conv.groups
    }

    /// Output channels of one group.
    pub fn group_out(&self) -> usize {
        self.conv.out_channels / self.conv.groups
    }

    /// Taps of the kernel, KH * KW.
    pub fn taps(&self) -> usize {
        self.conv.kernel[0] * self.conv.kernel[1]
    }

    /// Strides of `src`.
    pub fn src(&self) -> Strides {
        strides(self.conv.layout, self.conv.in_channels, self.conv.input)
    }

    /// Strides of `dst`.
    pub fn dst(&self) -> Strides {
        strides(self.conv.layout, self.conv.out_channels, self.output)
    }

    /// Strides of `weights`.
    pub fn weights(&self) -> WeightStrides {
        let [kh, kw] = self.conv.kernel;
        let (ic, oc) = (self.group_in(), self.conv.out_channels);
        match self.conv.weight_layout {
            WeightLayout::Oihw => WeightStrides { oc: ic * kh * kw, ic: kh * kw, tap: [kw, 1] },
            WeightLayout::Ohwi => WeightStrides { oc: kh * kw * ic, ic: 1, tap: [kw * ic, ic] },
            WeightLayout::Hwio => WeightStrides { oc: 1, ic: oc, tap: [kw * ic * oc, ic * oc] },
        }
    }

    /// Shape of `src` in its layout.
    pub fn src_shape(&self) -> [usize; 4] {
        shape(self.conv.layout, self.conv.batch, self.conv.in_channels, self.conv.input)
    }

    /// Shape of `dst` in its layout.
    pub fn dst_shape(&self) -> [usize; 4] {
        shape(self.conv.layout, self.conv.batch, self.conv.out_channels, self.output)
    }

    /// Shape of `weights` in their layout.
    pub fn weights_shape(&self) -> [usize; 4] {
        let [kh, kw] = self.conv.kernel;
        let (ic, oc) = (self.group_in(), self.conv.out_channels);
        match self.conv.weight_layout {
            WeightLayout::Oihw => [oc, ic, kh, kw],
            WeightLayout::Ohwi => [oc, kh, kw, ic],
            WeightLayout::Hwio => [kh, kw, ic, oc],
        }
    }

    /// The forward pass as one phase over `src`.
    pub fn forward(&self) -> Phase {
        Phase {
            axes: [0, 1]
                .map(|axis| AxisPhase::forward(&self.conv, axis, self.padding[axis][0], self.output[axis])),
        }
    }

    /// The backward-data pass as `min(stride, input)` phases per axis over `diff_dst`, in row-major order of their start.
    pub fn backward_data(&self) -> impl Iterator<Item = Phase> + use<> {
        let this = *self;
        let [rows, columns] = [0, 1].map(|axis| this.conv.stride[axis].min(this.conv.input[axis]));
        (0..rows).flat_map(move |row| {
            (0..columns).map(move |column| Phase {
                axes: [0, 1].map(|axis| {
                    let start = [row, column][axis];
                    AxisPhase::backward_data(
                        &this.conv,
                        axis,
                        this.padding[axis][0],
                        this.output[axis],
                        start,
                    )
                }),
            })
        })
    }

    /// Those of [`backward_data`](Self::backward_data) that have taps: at most one per tap, however large the stride. Pixels of the others
    /// receive nothing.
    ///
    /// ```
    /// use convolve_core::Conv2d;
    /// let geometry = Conv2d::new(4, 4, 1).input(100).stride(10).geometry()?;
    /// assert_eq!((geometry.backward_data().count(), geometry.backward_data_with_taps().len()), (100, 1));
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn backward_data_with_taps(&self) -> Vec<Phase> {
        // Pixel `start` is reached through tap k when start + pad = k*dilation (mod stride).
        let [rows, columns] = [0, 1].map(|axis| {
            let (conv, stride) = (&self.conv, self.conv.stride[axis]);
            let before = self.padding[axis][0] % stride;
            let taps = 0..conv.kernel[axis].min(stride);
            let mut starts: Vec<usize> = taps
                .map(|k| (k * if conv.kernel[axis] == 1 { 1 } else { conv.dilation[axis] }) % stride)
                .map(|residue| (residue + stride - before) % stride)
                .filter(|&start| start < conv.input[axis])
                .collect();
            starts.sort_unstable();
            starts.dedup();
            starts
        });
        let phase = |starts: [usize; 2]| Phase {
            axes: [0, 1].map(|axis| {
                let (pad, output) = (self.padding[axis][0], self.output[axis]);
                AxisPhase::backward_data(&self.conv, axis, pad, output, starts[axis])
            }),
        };
        rows.iter().flat_map(|&row| columns.iter().map(move |&column| phase([row, column]))).collect()
    }

    /// Checks the length of one operand of this problem.
    ///
    /// # Errors
    /// [`Error::Length`] with both shapes and the likely fix.
    ///
    /// ```
    /// use convolve_core::{Conv2d, Operand};
    /// let geometry = Conv2d::new(64, 128, 3).input(8).geometry()?;
    /// let error = geometry.check(Operand::Weights, "weights", 128 * 32 * 9).unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "weights has 36864 elements, but [128, 64, 3, 3] OIHW needs 73728; did you mean groups = 2?"
    /// );
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn check(&self, operand: Operand, name: &'static str, got: usize) -> Result<(), Error> {
        let expected = match operand {
            Operand::Src => self.lens[0],
            Operand::Weights => self.lens[1],
            Operand::Dst => self.lens[2],
            Operand::Bias => self.conv.out_channels,
        };
        if got == expected {
            return Ok(());
        }
        let shape = match operand {
            Operand::Src => format!("{:?} {}", self.src_shape(), self.conv.layout),
            Operand::Weights => format!("{:?} {}", self.weights_shape(), self.conv.weight_layout),
            Operand::Dst => format!("{:?} {}", self.dst_shape(), self.conv.layout),
            Operand::Bias => format!("[{}], one per output channel,", self.conv.out_channels),
        };
        Err(Error::Length { operand: name, shape, expected, got, hint: self.hint(operand, got) })
    }

    fn hint(&self, operand: Operand, got: usize) -> String {
        let conv = &self.conv;
        match operand {
            Operand::Src | Operand::Dst => {
                // In 128 bits: the output channels times the pixels of the input are no operand's length.
                let as_input =
                    [conv.batch, conv.out_channels, conv.input[0], conv.input[1]].map(|size| size as u128);
                let of_one = if operand == Operand::Src {
                    conv.in_channels * conv.input[0] * conv.input[1]
                } else {
                    conv.out_channels * self.output[0] * self.output[1]
                };
                if got != 0 && got.is_multiple_of(of_one) {
                    format!("; did you mean batch = {}?", got / of_one)
                } else if operand == Operand::Dst && got != 0 && got as u128 == as_input.iter().product() {
                    format!(
                        "; an output as large as the input needs padding, e.g. `.padding(Padding::Same)`, and gives {}x{} here",
                        self.output[0], self.output[1]
                    )
                } else {
                    String::new()
                }
            }
            Operand::Weights => {
                let dense = conv.out_channels as u128 * conv.in_channels as u128 * self.taps() as u128;
                let groups =
                    if got == 0 || !dense.is_multiple_of(got as u128) { 0 } else { dense / got as u128 };
                match usize::try_from(groups) {
                    Ok(groups)
                        if groups > 0
                            && conv.in_channels.is_multiple_of(groups)
                            && conv.out_channels.is_multiple_of(groups) =>
                    {
                        format!("; did you mean groups = {groups}?")
                    }
                    _ => String::new(),
                }
            }
            Operand::Bias => String::new(),
        }
    }
}

/// The tensors of a problem, by their shape.
///
/// ```
/// # use convolve_core::{Conv2d, Operand};
/// let geometry = Conv2d::new(1, 1, 3).input(6).geometry()?;
/// assert!(geometry.check(Operand::Dst, "diff_dst", 16).is_ok());
/// # Ok::<(), convolve_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// `src` and `diff_src`.
    Src,
    /// `weights` and `diff_weights`.
    Weights,
    /// `dst` and `diff_dst`.
    Dst,
    /// `bias` and `diff_bias`.
    Bias,
}

fn strides(layout: Layout, channels: usize, [height, width]: [usize; 2]) -> Strides {
    let image = channels * height * width;
    match layout {
        Layout::Nchw => Strides { image, channel: height * width, row: width, column: 1 },
        Layout::Nhwc => Strides { image, channel: 1, row: width * channels, column: channels },
    }
}

fn shape(layout: Layout, batch: usize, channels: usize, [height, width]: [usize; 2]) -> [usize; 4] {
    match layout {
        Layout::Nchw => [batch, channels, height, width],
        Layout::Nhwc => [batch, height, width, channels],
    }
}

/// The divisor of both channel counts that is nearest to `groups`, the smaller of two. (Beyond 2^32 channels: of those divisors
/// that are below 2^16 or whose quotient is.)
fn nearest_groups(ic: usize, oc: usize, groups: usize) -> usize {
    let common = gcd(ic, oc);
    let divisors = (1..1 << 16).take_while(|d| d * d <= common).filter(|d| common.is_multiple_of(*d));
    divisors.flat_map(|d| [d, common / d]).min_by_key(|&d| (d.abs_diff(groups), d)).unwrap_or(1)
}

fn too_large(what: &'static str, conv: &Conv2d) -> Error {
    Error::TooLarge { what, problem: format!("{conv:?}"), bits: usize::BITS }
}
