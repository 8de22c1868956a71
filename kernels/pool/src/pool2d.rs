//! What the user says, one pooling as plain data, and the same with every size checked.
//!
//! `output = floor((input + begin + end - (dilation * (kernel - 1) + 1)) / stride) + 1` per axis; with `ceil_mode` rounded up, and one less if the last
//! window would then start in the padding at the end: PyTorch's and ONNX's rule.

use convolve_core::{Error, Layout, Padding, Pair};

/// What becomes of a window.
///
/// ```
/// use convolve_pool::{Pool2d, Reduction, Ties};
/// assert_eq!(Pool2d::max(8, 2).reduction, Reduction::Max { ties: Ties::First });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reduction {
    /// Its greatest value; NaN if there is one.
    Max {
        /// Who gets the gradient when several pixels are the greatest.
        ties: Ties,
    },
    /// The sum over a divisor.
    Average {
        /// Whether taps in the padding count, as zeros. (What `ceil_mode` adds beyond the padding never counts.)
        count_include_pad: bool,
        /// Divide by this instead of by a count.
        divisor: Option<usize>,
    },
}

/// Who gets the gradient of a maximum that occurs more than once in its window.
///
/// ```
/// use convolve_core::Par;
/// use convolve_pool::{Pool2d, Ties};
/// let pool = Pool2d::max(1, [1, 2]).input([1, 2]);
/// for (ties, expected) in [(Ties::First, [5.0, 0.0]), (Ties::All, [5.0, 5.0])] {
///     let plan = pool.ties(ties).plan(convolve_simd::Isa::best(), 1)?;
///     let mut diff_src = [f32::NAN; 2];
///     plan.backward(&[7.0, 7.0], &[5.0], &mut diff_src, Default::default(), &mut plan.workspace()?, Par::Seq)?;
///     assert_eq!(diff_src, expected);
/// }
/// # Ok::<(), convolve_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Ties {
    /// The first of them, row by row.
    #[default]
    First,
    /// Each of them, as the course's mask `x == max(x)` does; the sum of the gradient is then not preserved.
    All,
}

/// One 2-D pooling: plain data, nothing is checked before [`geometry`](Self::geometry).
///
/// ```
/// use convolve_pool::Pool2d;
/// let pool = Pool2d::max(64, 3).input([112, 112]).stride(2).padding(1);
/// assert_eq!(pool.geometry()?.output(), [56, 56]);
/// # Ok::<(), convolve_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pool2d {
    /// Images, N. Zero is allowed.
    pub batch: usize,
    /// Channels, C.
    pub channels: usize,
    /// Height and width of `src`.
    pub input: [usize; 2],
    /// Height and width of the window, in taps.
    pub kernel: [usize; 2],
    /// Pixels from one window to the next, per axis.
    pub stride: [usize; 2],
    /// Pixels from one tap to the next, per axis; 1 is dense.
    pub dilation: [usize; 2],
    /// Pixels around the image that do not exist.
    pub padding: Padding,
    /// Whether a window may hang over the end, so that no pixel is left out.
    pub ceil_mode: bool,
    /// Order of `src` and `dst` in memory.
    pub layout: Layout,
    /// Max or average.
    pub reduction: Reduction,
}

impl Pool2d {
    fn new(channels: usize, kernel: [usize; 2], reduction: Reduction) -> Self {
        Self {
            batch: 1,
            channels,
            input: [0, 0],
            kernel,
            stride: kernel,
            dilation: [1, 1],
            padding: Padding::Valid,
            ceil_mode: false,
            layout: Layout::Nchw,
            reduction,
        }
    }

    /// Max-pooling with windows of that size side by side (the stride is the size); batch 1, no padding, NCHW, first of ties.
    /// ```
    /// # use convolve_pool::Pool2d;
    /// assert_eq!(Pool2d::max(8, 2).input(28).geometry()?.output(), [14, 14]);
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn max(channels: usize, kernel: impl Into<Pair>) -> Self {
        Self::new(channels, kernel.into().0, Reduction::Max { ties: Ties::First })
    }

    /// Average-pooling with windows of that size side by side; padding does not count.
    /// ```
    /// # use convolve_pool::Pool2d;
    /// assert_eq!(Pool2d::average(8, [2, 1]).stride, [2, 1]);
    /// ```
    pub fn average(channels: usize, kernel: impl Into<Pair>) -> Self {
        Self::new(channels, kernel.into().0, Reduction::Average { count_include_pad: false, divisor: None })
    }

    /// The greatest value of each whole image.
    /// ```
    /// # use convolve_pool::Pool2d;
    /// assert_eq!(Pool2d::global_max(512, 7).geometry()?.output(), [1, 1]);
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn global_max(channels: usize, input: impl Into<Pair>) -> Self {
        let input = input.into().0;
        Self::max(channels, input).input(input)
    }

    /// The mean of each whole image.
    /// ```
    /// # use convolve_pool::Pool2d;
    /// assert_eq!(Pool2d::global_average(512, [7, 9]).kernel, [7, 9]);
    /// ```
    pub fn global_average(channels: usize, input: impl Into<Pair>) -> Self {
        let input = input.into().0;
        Self::average(channels, input).input(input)
    }

    /// Sets the number of images.
    /// ```
    /// # use convolve_pool::Pool2d;
    /// assert_eq!(Pool2d::max(8, 2).batch(16).batch, 16);
    /// ```
    pub fn batch(self, batch: usize) -> Self {
        Self { batch, ..self }
    }

    /// Sets height and width of `src`.
    /// ```
    /// # use convolve_pool::Pool2d;
    /// assert_eq!(Pool2d::max(8, 2).input([20, 30]).input, [20, 30]);
    /// ```
    pub fn input(self, input: impl Into<Pair>) -> Self {
        Self { input: input.into().0, ..self }
    }

    /// Sets the stride.
    /// ```
    /// # use convolve_pool::Pool2d;
    /// assert_eq!(Pool2d::max(8, 3).input(9).stride(1).geometry()?.output(), [7, 7]);
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn stride(self, stride: impl Into<Pair>) -> Self {
        Self { stride: stride.into().0, ..self }
    }

    /// Sets the dilation; 1 is dense.
    /// ```
    /// # use convolve_pool::Pool2d;
    /// assert_eq!(Pool2d::max(8, 3).dilation(2).dilation, [2, 2]);
    /// ```
    pub fn dilation(self, dilation: impl Into<Pair>) -> Self {
        Self { dilation: dilation.into().0, ..self }
    }

    /// Sets the padding: a [`Padding`], one number for all sides, or `[vertical, horizontal]`.
    /// ```
    /// # use convolve_pool::Pool2d;
    /// assert_eq!(Pool2d::max(8, 3).input(9).stride(2).padding(1).geometry()?.output(), [5, 5]);
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn padding(self, padding: impl Into<Padding>) -> Self {
        Self { padding: padding.into(), ..self }
    }

    /// Lets windows hang over the end, so that no pixel is left out.
    /// ```
    /// # use convolve_pool::Pool2d;
    /// assert_eq!(Pool2d::max(8, 2).input(5).geometry()?.output(), [2, 2]);
    /// assert_eq!(Pool2d::max(8, 2).input(5).ceil_mode(true).geometry()?.output(), [3, 3]);
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn ceil_mode(self, ceil_mode: bool) -> Self {
        Self { ceil_mode, ..self }
    }

    /// Sets the order of `src` and `dst`.
    /// ```
    /// # use convolve_core::Layout;
    /// # use convolve_pool::Pool2d;
    /// assert_eq!(Pool2d::max(8, 2).layout(Layout::Nhwc).layout, Layout::Nhwc);
    /// ```
    pub fn layout(self, layout: Layout) -> Self {
        Self { layout, ..self }
    }

    /// Sets who gets the gradient of a maximum that occurs more than once. Nothing for averages.
    /// ```
    /// # use convolve_pool::{Pool2d, Reduction, Ties};
    /// assert_eq!(Pool2d::max(8, 2).ties(Ties::All).reduction, Reduction::Max { ties: Ties::All });
    /// ```
    pub fn ties(self, ties: Ties) -> Self {
        match self.reduction {
            Reduction::Max { .. } => Self { reduction: Reduction::Max { ties }, ..self },
            Reduction::Average { .. } => self,
        }
    }

    /// Sets whether padding counts as zeros in an average. Nothing for maxima.
    /// ```
    /// # use convolve_core::Par;
    /// # use convolve_pool::Pool2d;
    /// let pool = Pool2d::average(1, 3).input(3).padding(1).stride(3).count_include_pad(true);
    /// let plan = pool.plan(convolve_simd::Isa::best(), 1)?;
    /// let mut dst = [0.0];
    /// plan.forward(&[9.0; 9], &mut dst, &mut plan.workspace()?, Par::Seq)?;
    /// assert_eq!(dst, [4.0]);
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn count_include_pad(self, count_include_pad: bool) -> Self {
        match self.reduction {
            Reduction::Average { divisor, .. } => {
                Self { reduction: Reduction::Average { count_include_pad, divisor }, ..self }
            }
            Reduction::Max { .. } => self,
        }
    }

    /// Divides sums by that number instead of by a count. Nothing for maxima.
    /// ```
    /// # use convolve_core::Par;
    /// # use convolve_pool::Pool2d;
    /// let plan = Pool2d::average(1, 2).input(2).divisor(1).plan(convolve_simd::Isa::best(), 1)?;
    /// let mut dst = [0.0];
    /// plan.forward(&[1.0, 2.0, 3.0, 4.0], &mut dst, &mut plan.workspace()?, Par::Seq)?;
    /// assert_eq!(dst, [10.0]);
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn divisor(self, divisor: usize) -> Self {
        match self.reduction {
            Reduction::Average { count_include_pad, .. } => {
                Self { reduction: Reduction::Average { count_include_pad, divisor: Some(divisor) }, ..self }
            }
            Reduction::Max { .. } => self,
        }
    }

    /// Checks every size once.
    ///
    /// # Errors
    /// A zero where none can be, a window that does not fit, sizes beyond the address space. An empty batch is fine.
    ///
    /// ```
    /// use convolve_pool::Pool2d;
    /// let error = Pool2d::max(3, 4).input([8, 3]).geometry().unwrap_err();
    /// assert!(error.to_string().starts_with("kernel width 4 (dilation 1, so it covers 4) does not fit the padded input width 3"));
    /// ```
    pub fn geometry(self) -> Result<PoolGeometry, Error> {
        PoolGeometry::new(self)
    }
}

/// A [`Pool2d`] whose every size has been checked.
///
/// ```
/// use convolve_pool::Pool2d;
/// let geometry = Pool2d::max(3, 2).input([4, 6]).batch(5).geometry()?;
/// assert_eq!((geometry.output(), geometry.src_len(), geometry.dst_len()), ([2, 3], 5 * 3 * 24, 5 * 3 * 6));
/// # Ok::<(), convolve_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PoolGeometry {
    pool: Pool2d,
    output: [usize; 2],
    padding: [[usize; 2]; 2],
}

/// Sizes stay below a quarter of the address range, so that sums of two and signed differences cannot overflow.
const MOST: usize = isize::MAX as usize / 4;

impl PoolGeometry {
    fn new(pool: Pool2d) -> Result<Self, Error> {
        let at_least_one = [
            ("channels", pool.channels),
            ("input height", pool.input[0]),
            ("input width", pool.input[1]),
            ("kernel height", pool.kernel[0]),
            ("kernel width", pool.kernel[1]),
            ("stride height", pool.stride[0]),
            ("stride width", pool.stride[1]),
            ("dilation height", pool.dilation[0]),
            ("dilation width", pool.dilation[1]),
        ];
        for (parameter, value) in at_least_one {
            if value == 0 {
                let reason = match parameter {
                    "dilation height" | "dilation width" => "it must be at least 1; 1 is dense",
                    "input height" | "input width" => {
                        "it must be at least 1; set it with `.input([height, width])`"
                    }
                    _ => "it must be at least 1",
                };
                return Err(Error::Parameter { parameter, value, reason });
            }
        }
        if let Reduction::Average { divisor: Some(value), .. } = pool.reduction
            && !(1..=1 << 24).contains(&value)
        {
            let reason = "it must be from 1 to 2^24, so that f32 holds it";
            return Err(Error::Parameter { parameter: "divisor", value, reason });
        }
        let too_large = |what| Error::TooLarge { what, problem: format!("{pool:?}"), bits: usize::BITS };
        let (mut output, mut padding) = ([0; 2], [[0; 2]; 2]);
        for axis in 0..2 {
            (output[axis], padding[axis]) = Self::axis(&pool, axis)?;
        }
        for size in [pool.input, output] {
            let sizes = [pool.batch.max(1), pool.channels, size[0], size[1]];
            let len = sizes.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
            len.filter(|&len| len <= MOST / 4).ok_or_else(|| too_large("a tensor"))?;
        }
        Ok(Self { pool, output, padding })
    }

    /// Output size and padding (begin, end) of one axis.
    fn axis(pool: &Pool2d, axis: usize) -> Result<(usize, [usize; 2]), Error> {
        let [input, kernel, stride, dilation] =
            [pool.input[axis], pool.kernel[axis], pool.stride[axis], pool.dilation[axis]];
        let fits = |size: Option<usize>| {
            size.filter(|&size| size <= MOST).ok_or_else(|| Error::TooLarge {
                what: "the padded input",
                problem: format!("{pool:?}"),
                bits: usize::BITS,
            })
        };
        let stride = fits(Some(stride))?;
        let extent = fits((kernel - 1).checked_mul(dilation).and_then(|e| e.checked_add(1)))?;
        let same = || {
            let total = (input.div_ceil(stride) - 1).checked_mul(stride).and_then(|x| x.checked_add(extent));
            fits(total).map(|total| total.saturating_sub(input))
        };
        let [begin, end] = match pool.padding {
            Padding::Valid => [0, 0],
            Padding::Same => same().map(|total| [total / 2, total - total / 2])?,
            Padding::SameLower => same().map(|total| [total - total / 2, total / 2])?,
            Padding::Explicit { top, bottom, left, right } => [[top, bottom], [left, right]][axis],
        };
        let padded = fits(input.checked_add(begin).and_then(|x| x.checked_add(end)))?;
        if extent > padded {
            let axis = ["height", "width"][axis];
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
        let room = padded - extent;
        let mut output = if pool.ceil_mode { room.div_ceil(stride) } else { room / stride } + 1;
        if pool.ceil_mode && (output - 1) * stride >= input + begin {
            output -= 1;
        }
        Ok((output, [begin, end]))
    }

    /// The problem.
    /// ```
    /// # use convolve_pool::Pool2d;
    /// let pool = Pool2d::max(3, 2).input(4);
    /// assert_eq!(pool.geometry()?.pool(), &pool);
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn pool(&self) -> &Pool2d {
        &self.pool
    }

    /// Height and width of `dst`.
    /// ```
    /// # use convolve_pool::Pool2d;
    /// assert_eq!(Pool2d::max(3, 2).input([4, 7]).geometry()?.output(), [2, 3]);
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn output(&self) -> [usize; 2] {
        self.output
    }

    /// Padding `[[top, bottom], [left, right]]`, also where it was given by a rule.
    /// ```
    /// # use convolve_pool::Pool2d;
    /// assert_eq!(Pool2d::max(3, 3).input(4).padding([1, 0]).geometry()?.padding(), [[1, 1], [0, 0]]);
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn padding(&self) -> [[usize; 2]; 2] {
        self.padding
    }

    /// Elements of `src` and `diff_src`.
    pub fn src_len(&self) -> usize {
        self.pool.batch * self.pool.channels * self.pool.input[0] * self.pool.input[1]
    }

    /// Elements of `dst` and `diff_dst`.
    pub fn dst_len(&self) -> usize {
        self.pool.batch * self.pool.channels * self.output[0] * self.output[1]
    }

    /// The taps of window `o` along an axis that lie in the image: the first and one past the last.
    /// ```
    /// # use convolve_pool::Pool2d;
    /// let geometry = Pool2d::max(1, 3).input(4).padding(1).stride(2).geometry()?;
    /// assert_eq!((geometry.taps(0, 0), geometry.taps(0, 1)), (1..3, 0..3));
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn taps(&self, axis: usize, o: usize) -> core::ops::Range<usize> {
        let begin = self.padding[axis][0];
        self.taps_between(axis, o, begin, begin + self.pool.input[axis])
    }

    /// The taps of window `o` that lie in those pixels of the padded image.
    fn taps_between(&self, axis: usize, o: usize, from: usize, to: usize) -> core::ops::Range<usize> {
        let (kernel, dilation) = (self.pool.kernel[axis], self.pool.dilation[axis]);
        let start = o * self.pool.stride[axis];
        let below = |end: usize| end.saturating_sub(start).div_ceil(dilation).min(kernel);
        below(from)..below(to).max(below(from))
    }

    /// The pixel under tap `k` of window `o`, which must lie in the image.
    pub(crate) fn pixel(&self, axis: usize, o: usize, k: usize) -> usize {
        o * self.pool.stride[axis] + k * self.pool.dilation[axis] - self.padding[axis][0]
    }

    /// What the sums of window `o` are divided by is the product over both axes.
    pub(crate) fn count(&self, axis: usize, o: usize) -> f32 {
        let Reduction::Average { count_include_pad, divisor } = self.pool.reduction else { return 1.0 };
        let [begin, end] = self.padding[axis];
        let taps = match (divisor, count_include_pad) {
            (Some(divisor), _) => return if axis == 0 { divisor as f32 } else { 1.0 },
            (None, true) => self.taps_between(axis, o, 0, begin + self.pool.input[axis] + end),
            (None, false) => self.taps(axis, o),
        };
        taps.len().max(1) as f32
    }
}
