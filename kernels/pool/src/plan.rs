//! A pooling that is checked and cut into tasks, ready to run.

use crate::backward::Operands;
use crate::cells::Band;
use crate::forward::{Counts, Max, Sum};
use crate::gather::{Always, Byte, Equal, Number, Taken, Windows};
use crate::line::{Line, SLACK};
use crate::reach::Reach;
use crate::spread::Spread;
use crate::winners::{Span, Winners};
use crate::{
    Pool2d, PoolGeometry, Reduction, Ties, backward, cells, columns, forward, spread, squares, winners,
};
use convolve_core::{BlockMut, Cut, Error, Layout, Par, Update, Workspace, lines};
use convolve_simd::{Isa, Simd, dispatch};
use core::ops::Range;

/// A checked pooling with everything decided. `Send + Sync`, holds no buffers.
///
/// ```
/// use convolve_core::Par;
/// use convolve_pool::Pool2d;
/// let plan = Pool2d::max(1, 2).input(4).plan(convolve_simd::Isa::best(), 1)?;
/// let mut dst = [0.0; 4];
/// let src: Vec<f32> = (0..16).map(|i| i as f32).collect();
/// plan.forward(&src, &mut dst, &mut plan.workspace()?, Par::Seq)?;
/// assert_eq!(dst, [5.0, 7.0, 13.0, 15.0]);
/// # Ok::<(), convolve_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Pooling {
    pub(crate) geometry: PoolGeometry,
    pub(crate) line: Line,
    /// Where the first output of a line finds each tap.
    pub(crate) taps: Vec<usize>,
    /// Rows of each row of windows.
    pub(crate) windows: Vec<Window>,
    /// What sums are divided by.
    pub(crate) counts: Counts,
    /// One output per line, of neighbouring numbers.
    pub(crate) whole_line: bool,
    /// One output per image, of all of it.
    pub(crate) whole_image: bool,
    /// The same in NHWC: one pixel.
    pub(crate) whole_pixel: bool,
    /// Columns of a window, if they are taken apart in registers, in NCHW.
    pub(crate) columns: Option<usize>,
    /// Rows and columns as what windows reach.
    pub(crate) down: Reach,
    pub(crate) across: Reach,
    /// The place and the taps of every row of the image.
    pub(crate) rows: Vec<(usize, Range<usize>)>,
    /// Windows along each axis, by their taps.
    pub(crate) spans: [Vec<Span>; 2],
    /// Windows of 2 x 2 pixels side by side.
    pub(crate) squares: bool,
    /// Columns of a window, if its taps are read without a line, in NHWC.
    pub(crate) pixels: Option<usize>,
    /// The edge of windows that step by two.
    pub(crate) cells: Option<usize>,
    /// How sums become pixels, for averages of other windows.
    spread: Option<Spread>,
    /// Outputs of a row whose windows lie in the image.
    pub(crate) inner: Range<usize>,
    isa: Isa,
    threads: usize,
}

/// The rows of the image under a row of windows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// The first one.
    pub(crate) first: usize,
    /// How many, a dilation apart.
    pub(crate) taps: usize,
}

/// Floats of `src` that make a task worth while.
const TASK: usize = 32 << 10;
/// Most taps of a window and most pixels of padding, per axis: counts are exact in f32, and tables stay small.
const MOST: usize = 1 << 24;

impl Pool2d {
    /// Checks the problem and prepares it for an instruction set and so many threads (they size the workspace, never the result).
    ///
    /// # Errors
    /// As [`geometry`](Self::geometry); a window or a padding of more than 2^24 pixels along an axis; no memory.
    ///
    /// ```
    /// use convolve_pool::Pool2d;
    /// assert!(Pool2d::average(8, 2).input(6).plan(convolve_simd::Isa::best(), 1).is_ok());
    /// ```
    pub fn plan(self, isa: Isa, threads: usize) -> Result<Pooling, Error> {
        Pooling::new(self.geometry()?, isa, threads)
    }
}

/// A table of `len` entries.
fn table<T>(len: usize, entry: impl FnMut(usize) -> T) -> Result<Vec<T>, Error> {
    let mut table = Vec::new();
    table.try_reserve_exact(len).map_err(|_| Error::OutOfMemory { floats: len })?;
    table.extend((0..len).map(entry));
    Ok(table)
}

impl Pooling {
    fn new(geometry: PoolGeometry, isa: Isa, threads: usize) -> Result<Self, Error> {
        let (pool, output) = (geometry.pool(), geometry.output());
        let [[top, bottom], [left, right]] = geometry.padding();
        let limited = [
            ("kernel height", pool.kernel[0]),
            ("kernel width", pool.kernel[1]),
            ("padding", top.max(bottom).max(left).max(right)),
        ];
        for (parameter, value) in limited {
            if value > MOST {
                let reason = "it must be at most 2^24, so that f32 counts it exactly";
                return Err(Error::Parameter { parameter, value, reason });
            }
        }
        let channels = if pool.layout == Layout::Nhwc { pool.channels } else { 1 };
        let padded = (pool.input[1] + left + right).checked_mul(channels);
        if padded.is_none_or(|len| len > isize::MAX as usize / 64) {
            let problem = format!("{pool:?}");
            return Err(Error::TooLarge { what: "a row with its padding", problem, bits: usize::BITS });
        }
        let line = Line::new(&geometry, channels);
        let taps = table(pool.kernel[1], |k| line.tap(k))?;
        let max = matches!(pool.reduction, Reduction::Max { .. });
        let count = |axis, o| if max { 1.0 } else { geometry.count(axis, o) };
        let mut rows = table(output[0], |oh| count(0, oh))?;
        let (counted, each) = if line.runs == 1 { (line.run, channels) } else { (line.runs, 1) };
        let column = |j| if j < counted { count(1, j / each) } else { 1.0 };
        let mut columns = table(counted + SLACK, column)?;
        let power = |count: &f32| count.to_bits() & 0x7f_ffff == 0;
        let reciprocal = rows.iter().all(power) && columns.iter().all(power);
        let parts = [&rows, &columns].map(|counts| counts.iter().map(|count| count.recip()).collect());
        if reciprocal {
            rows.iter_mut().chain(&mut columns).for_each(|count| *count = count.recip());
        }
        let counts = Counts { rows, columns, reciprocal, parts };
        let whole_line = line.outputs() == 1 && line.in_order() && pool.dilation[1] == 1;
        let inside =
            |axis: usize| (0..output[axis]).all(|o| geometry.taps(axis, o).len() == pool.kernel[axis]);
        let padded = !(inside(0) && inside(1));
        let windows = table(output[0], |oh| {
            let taps = geometry.taps(0, oh);
            let first = if taps.is_empty() { 0 } else { geometry.pixel(0, oh, taps.start) };
            Window { first, taps: taps.len() }
        })?;
        let whole_image =
            whole_line && pool.dilation[0] == 1 && output[0] == 1 && pool.kernel == pool.input && !padded;
        let whole_pixel = pool.layout == Layout::Nhwc
            && output == [1, 1]
            && pool.dilation == [1, 1]
            && pool.kernel == pool.input
            && !padded;
        let pixels = (pool.layout == Layout::Nhwc
            && channels >= isa.lanes()
            && pool.stride[1] > 1
            && output[1] > 1
            && [[2, 2], [2, 3], [3, 3]].contains(&pool.kernel))
        .then_some(taps.len());
        let whole = |ow: &usize| geometry.taps(1, *ow).len() == pool.kernel[1];
        let start = (0..output[1]).find(whole).unwrap_or(output[1]);
        let inner = start..(start..output[1]).rfind(whole).map_or(start, |last| last + 1);
        let pixels = pixels.filter(|_| !inner.is_empty());
        let squares = pool.kernel == [2, 2] && pool.stride == [2, 2] && pool.dilation == [1, 1] && !padded;
        let [down, across] = [0, 1].map(|axis| Reach::new(&geometry, axis));
        let cells = cells::kernel(&geometry, [&down, &across]);
        Ok(Self {
            rows: down.by_pixel(pool.input[0]),
            spread: (!max && cells.is_none()).then(|| Spread::new(&geometry, &line, [&down, &across])),
            spans: [0, 1].map(|axis| winners::spans(&geometry, axis)),
            squares,
            cells,
            down,
            across,
            pixels,
            inner,
            columns: columns::kernel(&geometry, &line),
            geometry,
            line,
            taps,
            windows,
            counts,
            whole_line,
            whole_image,
            whole_pixel,
            isa,
            threads: threads.max(1),
        })
    }

    /// The checked problem.
    /// ```
    /// # use convolve_pool::Pool2d;
    /// let plan = Pool2d::max(1, 2).input(4).plan(convolve_simd::Isa::best(), 1)?;
    /// assert_eq!(plan.geometry().output(), [2, 2]);
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn geometry(&self) -> &PoolGeometry {
        &self.geometry
    }

    /// The instruction set that it runs on.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Numbers of a row of an image: of one channel in NCHW, of all in NHWC.
    pub(crate) fn row_len(&self) -> usize {
        self.line.width * self.line.channels
    }

    /// From one row of a window to the next. Of a single row the dilation is only a number, and may be huge.
    pub(crate) fn row_step(&self) -> usize {
        let pool = self.geometry.pool();
        self.row_len() * if pool.kernel[0] == 1 { 1 } else { pool.dilation[0] }
    }

    /// Planes in NCHW, images in NHWC.
    fn images(&self) -> usize {
        let pool = self.geometry.pool();
        pool.batch * (pool.channels / self.line.channels)
    }

    fn max(&self) -> bool {
        matches!(self.geometry.pool().reduction, Reduction::Max { .. })
    }

    fn lane_len(&self) -> usize {
        match &self.spread {
            Some(spread) => return spread.workspace_len().saturating_add(lines(self.line.len)),
            None if !self.max() => return lines(self.line.len).max(cells::workspace_len(&self.geometry)),
            None => {}
        }
        let [_, _, Cut { block, .. }] = self.backward_cuts();
        let parts = backward::lane_lens(self, block / self.row_len());
        let backward = parts.into_iter().fold(0, usize::saturating_add);
        lines(self.line.len.max(backward).min(usize::MAX / 2))
    }

    /// Tasks of a backward pass: numbers of whole rows.
    fn backward_cuts(&self) -> [Cut; 3] {
        let (height, len) = (self.geometry.pool().input[0], self.row_len());
        let [images, rows, _] = self.cuts(height, len, 4 * backward::window_rows(&self.geometry));
        [images, Cut::whole(1), Cut { unit: height * len, block: rows.block * len }]
    }

    /// Floats of workspace that a run needs, forward or backward, for all threads planned for.
    /// ```
    /// # use convolve_pool::Pool2d;
    /// let plan = Pool2d::max(1, 2).input(4).plan(convolve_simd::Isa::best(), 1)?;
    /// assert_eq!(plan.workspace_len(), plan.workspace()?.len());
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn workspace_len(&self) -> usize {
        self.lane_len().saturating_mul(self.threads)
    }

    /// A workspace of the right size; reuse it from run to run.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn workspace(&self) -> Result<Workspace, Error> {
        Workspace::new(self.workspace_len())
    }

    fn check(&self, name: &'static str, got: usize, dst: bool) -> Result<(), Error> {
        let (pool, geometry) = (self.geometry.pool(), &self.geometry);
        let [height, width] = if dst { geometry.output() } else { pool.input };
        let expected = if dst { geometry.dst_len() } else { geometry.src_len() };
        if got == expected {
            return Ok(());
        }
        let shape = match pool.layout {
            Layout::Nchw => format!("[{}, {}, {height}, {width}] NCHW", pool.batch, pool.channels),
            Layout::Nhwc => format!("[{}, {height}, {width}, {}] NHWC", pool.batch, pool.channels),
        };
        let one = pool.channels * height * width;
        let hint = if got != 0 && got.is_multiple_of(one) {
            format!("; did you mean batch = {}?", got / one)
        } else {
            String::new()
        };
        Err(Error::Length { operand: name, shape, expected, got, hint })
    }

    fn enough(&self, workspace: &[f32]) -> Result<(), Error> {
        let (expected, got) = (self.workspace_len(), workspace.len());
        if got >= expected {
            return Ok(());
        }
        let (shape, hint) =
            (format!("pooling on {} threads", self.threads), "; make it with `plan.workspace()`".to_string());
        Err(Error::Length { operand: "workspace", shape, expected, got, hint })
    }

    /// Tasks of about [`TASK`] floats: several images, or bands of at least `least` rows of one.
    fn cuts(&self, rows: usize, per_row: usize, least: usize) -> [Cut; 3] {
        let plane = rows * per_row;
        let images = (TASK / plane.max(1)).max(1);
        let band = if images > 1 { rows } else { (TASK / per_row.max(1)).max(least).next_multiple_of(2) };
        [
            Cut { unit: self.images().max(1), block: images },
            Cut { unit: rows, block: band.min(rows) },
            Cut::whole(usize::MAX / 2),
        ]
    }

    /// Tasks of a forward pass, of at least so many rows of outputs.
    fn forward_cuts(&self, least: usize) -> [Cut; 3] {
        let pool = self.geometry.pool();
        self.cuts(self.geometry.output()[0], self.row_len() * pool.stride[0].min(pool.input[0]), least)
    }

    /// `dst` = the pooled `src`. O(elements of `src`); a windowful of rows is read from the cache.
    ///
    /// Shapes: `src` `[N, C, H, W]`, `dst` `[N, C, OH, OW]`, or `[N, H, W, C]` and `[N, OH, OW, C]` by the layout. The workspace holds garbage
    /// before and after.
    ///
    /// # Errors
    /// A slice of the wrong length; `dst` is then not touched.
    ///
    /// ```
    /// use convolve_core::Par;
    /// use convolve_pool::Pool2d;
    /// let plan = Pool2d::average(1, [1, 2]).input([1, 4]).plan(convolve_simd::Isa::best(), 1)?;
    /// let mut dst = [0.0; 2];
    /// plan.forward(&[1.0, 2.0, 3.0, 5.0], &mut dst, &mut plan.workspace()?, Par::Seq)?;
    /// assert_eq!(dst, [1.5, 4.0]);
    /// let error = plan.forward(&[1.0; 8], &mut dst, &mut plan.workspace()?, Par::Seq).unwrap_err();
    /// assert_eq!(error.to_string(), "src has 8 elements, but [1, 1, 1, 4] NCHW needs 4; did you mean batch = 2?");
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn forward(
        &self,
        src: &[f32],
        dst: &mut [f32],
        workspace: &mut [f32],
        par: Par<'_>,
    ) -> Result<(), Error> {
        self.check("src", src.len(), false)?;
        self.check("dst", dst.len(), true)?;
        self.enough(workspace)?;
        let ([height, _], cuts) = (self.geometry.output(), self.forward_cuts(1));
        let (outputs, [images, rows, _]) = (self.line.outputs(), cuts);
        let cuts = [images, Cut::whole(1), Cut { unit: height * outputs, block: rows.block * outputs }];
        let dst = BlockMut::new(dst, [self.images(), 1, height * outputs]);
        dispatch!(self.isa, s => forward_on(s, self, src, dst, cuts, workspace, par));
        Ok(())
    }

    /// `diff_src` = the gradient of `src`, which is read only for maxima (for averages it may be empty). O(elements of `src`) times, for
    /// maxima, the taps per pixel.
    ///
    /// Shapes as [`forward`](Self::forward). Each pixel adds up its windows in a fixed order.
    ///
    /// # Errors
    /// A slice of the wrong length; `diff_src` is then not touched.
    ///
    /// ```
    /// use convolve_core::{Par, Update};
    /// use convolve_pool::Pool2d;
    /// let plan = Pool2d::max(1, [1, 2]).input([1, 3]).stride(1).plan(convolve_simd::Isa::best(), 1)?;
    /// let mut diff_src = [0.0; 3];
    /// plan.backward(&[1.0, 7.0, 2.0], &[10.0, 1.0], &mut diff_src, Update::Overwrite, &mut plan.workspace()?, Par::Seq)?;
    /// assert_eq!(diff_src, [0.0, 11.0, 0.0]);
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn backward(
        &self,
        src: &[f32],
        diff_dst: &[f32],
        diff_src: &mut [f32],
        update: Update,
        workspace: &mut [f32],
        par: Par<'_>,
    ) -> Result<(), Error> {
        if self.max() || !src.is_empty() {
            self.check("src", src.len(), false)?;
        }
        self.check("diff_dst", diff_dst.len(), true)?;
        self.check("diff_src", diff_src.len(), false)?;
        self.enough(workspace)?;
        let operands = Operands { src, indices: &[], diff_dst, update };
        match self.geometry.pool().reduction {
            Reduction::Max { ties } if self.squares => {
                let [height, _] = self.geometry.pool().input;
                dispatch!(self.isa, s => BlockMut::new(diff_src, [self.images(), height, self.row_len()]).for_each_piece(
                    self.cuts(height, self.row_len(), 2),
                    par,
                    &mut [],
                    0,
                    &|ranges, mut diff_src, _| s.vectorize(
                        #[inline(always)]
                        |s| squares::squares(s, self, ties, [src, diff_dst], &ranges, &mut diff_src, update),
                    ),
                ));
            }
            Reduction::Average { .. } => self.spread(operands, diff_src, workspace, par),
            Reduction::Max { ties: Ties::All } => self.gather::<Equal>(operands, diff_src, workspace, par),
            Reduction::Max { ties: Ties::First } => {
                self.at_most(1 << 24, "it must be at most 2^24 taps, so that f32 tells which one")?;
                self.gather::<Number>(operands, diff_src, workspace, par);
            }
        }
        Ok(())
    }

    /// Backward of averages.
    fn spread(&self, operands: Operands<'_>, diff_src: &mut [f32], workspace: &mut [f32], par: Par<'_>) {
        let Operands { diff_dst, update, .. } = operands;
        let (len, dst_len) = (self.row_len(), self.geometry.output()[0] * self.line.outputs());
        let block = BlockMut::new(diff_src, [self.images(), 1, self.geometry.pool().input[0] * len]);
        dispatch!(self.isa, s => block.for_each_piece(
            self.backward_cuts(),
            par,
            workspace,
            self.lane_len(),
            &|[images, _, numbers], mut diff_src, lane| {
                let rows = numbers.start / len..numbers.end / len;
                for (i, image) in images.enumerate() {
                    let diff_dst = &diff_dst[image * dst_len..][..dst_len];
                    let to = diff_src.row(i, 0);
                    match (&self.spread, self.cells) {
                        (Some(spread), _) => spread::rows(s, self, spread, diff_dst, rows.clone(), to, lane, update),
                        (None, kernel) => {
                            let windows = Windows { gradient: diff_dst, bytes: &[], numbers: &[], own: &[] };
                            let band = Band { plan: self, windows, first: 0, rows: rows.clone(), update };
                            band.write::<_, Always>(s, kernel.expect("what is not spread has cells"), to, lane);
                        }
                    }
                }
            },
        ));
    }

    fn gather<T: Taken>(
        &self,
        operands: Operands<'_>,
        diff_src: &mut [f32],
        workspace: &mut [f32],
        par: Par<'_>,
    ) {
        let block =
            BlockMut::new(diff_src, [self.images(), 1, self.geometry.pool().input[0] * self.row_len()]);
        dispatch!(self.isa, s => block.for_each_piece(
            self.backward_cuts(),
            par,
            workspace,
            self.lane_len(),
            &|ranges, mut diff_src, lane| backward::piece::<_, T>(s, self, operands, &ranges, &mut diff_src, lane),
        ));
    }

    /// Whether a window has at most so many taps.
    fn at_most(&self, most: usize, reason: &'static str) -> Result<(), Error> {
        let [height, width] = self.geometry.pool().kernel;
        let value = height.saturating_mul(width);
        if value > most { Err(Error::Parameter { parameter: "kernel", value, reason }) } else { Ok(()) }
    }

    /// As [`forward`](Self::forward), and keeps for [`backward_from_indices`](Self::backward_from_indices) which tap of each window is its (first)
    /// maximum: `indices` lie as `dst`, and tap `[kh, kw]` has the index `kh * KW + kw`.
    ///
    /// A byte for each window instead of all of `src` is what training has to keep, and backward need not look for maxima.
    ///
    /// # Errors
    /// An average; ties that all win; a window of more than 256 taps; a slice of the wrong length. Nothing is then touched.
    ///
    /// ```
    /// use convolve_core::{Par, Update};
    /// use convolve_pool::Pool2d;
    /// let plan = Pool2d::max(1, 2).input([2, 4]).plan(convolve_simd::Isa::best(), 1)?;
    /// let (mut dst, mut indices, mut workspace) = ([0.0; 2], [0; 2], plan.workspace()?);
    /// plan.forward_with_indices(&[1.0, 2.0, 0.0, 0.0, 9.0, 0.0, 0.0, 5.0], &mut dst, &mut indices, &mut workspace, Par::Seq)?;
    /// assert_eq!((dst, indices), ([9.0, 5.0], [2, 3]));
    /// let mut diff_src = [f32::NAN; 8];
    /// plan.backward_from_indices(&indices, &[10.0, 20.0], &mut diff_src, Update::Overwrite, &mut workspace, Par::Seq)?;
    /// assert_eq!(diff_src, [0.0, 0.0, 0.0, 0.0, 10.0, 0.0, 0.0, 20.0]);
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn forward_with_indices(
        &self,
        src: &[f32],
        dst: &mut [f32],
        indices: &mut [u8],
        workspace: &mut [f32],
        par: Par<'_>,
    ) -> Result<(), Error> {
        self.check_indices(indices.len())?;
        self.check("src", src.len(), false)?;
        self.check("dst", dst.len(), true)?;
        self.enough(workspace)?;
        let ([height, _], outputs) = (self.geometry.output(), self.line.outputs());
        let image_len = self.geometry.pool().input[0] * self.row_len();
        let extent = [self.images(), 1, height * outputs];
        let [images, rows, _] = self.forward_cuts(16);
        let cuts = [images, Cut::whole(1), Cut { unit: height * outputs, block: rows.block * outputs }];
        dispatch!(self.isa, s => BlockMut::new(dst, extent).for_each_pair(
            BlockMut::new(indices, extent),
            cuts,
            par,
            workspace,
            self.lane_len(),
            &|[images, _, numbers], mut dst, mut indices, lane| {
                let rows = numbers.start / outputs..numbers.end / outputs;
                for (i, image) in images.enumerate() {
                    let src = &src[image * image_len..][..image_len];
                    let to = Winners { max: dst.row(i, 0), bytes: indices.row(i, 0), numbers: &mut [] };
                    winners::rows(s, self, src, lane, rows.clone(), to);
                }
            },
        ));
        Ok(())
    }

    /// As [`backward`](Self::backward), from the indices of [`forward_with_indices`](Self::forward_with_indices); `src` is not needed. An index that is
    /// not a tap of its window in the image gives its gradient to nobody.
    ///
    /// # Errors
    /// As there.
    ///
    /// ```
    /// use convolve_core::{Par, Update};
    /// use convolve_pool::Pool2d;
    /// let plan = Pool2d::max(1, [1, 2]).input([1, 3]).stride(1).plan(convolve_simd::Isa::best(), 1)?;
    /// let mut diff_src = [1.0; 3];
    /// plan.backward_from_indices(&[1, 0], &[10.0, 1.0], &mut diff_src, Update::Accumulate, &mut plan.workspace()?, Par::Seq)?;
    /// assert_eq!(diff_src, [1.0, 12.0, 1.0]);
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn backward_from_indices(
        &self,
        indices: &[u8],
        diff_dst: &[f32],
        diff_src: &mut [f32],
        update: Update,
        workspace: &mut [f32],
        par: Par<'_>,
    ) -> Result<(), Error> {
        self.check_indices(indices.len())?;
        self.check("diff_dst", diff_dst.len(), true)?;
        self.check("diff_src", diff_src.len(), false)?;
        self.enough(workspace)?;
        self.gather::<Byte>(Operands { src: &[], indices, diff_dst, update }, diff_src, workspace, par);
        Ok(())
    }

    /// Whether there are indices at all, and so many.
    fn check_indices(&self, got: usize) -> Result<(), Error> {
        if self.geometry.pool().reduction != (Reduction::Max { ties: Ties::First }) {
            let reason = "indices tell the first maximum of a window, and no other reduction or ties";
            return Err(Error::Parameter { parameter: "indices", value: got, reason });
        }
        self.at_most(
            256,
            "it must be at most 256 taps, so that a byte tells which one; `backward` needs no indices",
        )?;
        self.check("indices", got, true)
    }
}

fn forward_on<S: Simd>(
    s: S,
    plan: &Pooling,
    src: &[f32],
    dst: BlockMut<'_, f32>,
    cuts: [Cut; 3],
    workspace: &mut [f32],
    par: Par<'_>,
) {
    let outputs = plan.line.outputs();
    dst.for_each_piece(cuts, par, workspace, plan.lane_len(), &|[images, _, numbers], mut dst, lane| {
        let rows = numbers.start / outputs..numbers.end / outputs;
        let line = &mut lane[..plan.line.len];
        match (plan.max(), plan.counts.reciprocal) {
            (true, _) => forward::piece::<S, Max>(s, plan, src, [images, rows], &mut dst, line),
            (false, true) => forward::piece::<S, Sum<true>>(s, plan, src, [images, rows], &mut dst, line),
            (false, false) => forward::piece::<S, Sum<false>>(s, plan, src, [images, rows], &mut dst, line),
        }
    });
}
