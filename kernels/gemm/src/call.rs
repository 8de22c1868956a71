//! A call of the micro-kernel, as data: where its operands lie, in which order steps run, what sums start from and where they go.
//!
//! One call computes all rows of a product with one panel; they are [`cut`] into tiles evenly, so that none is much shorter than the others.

/// Two nested loops of runs; a run is `len` consecutive steps. Offsets are in elements.
///
/// ```
/// use convolve_gemm::Walk;
/// // Three kernel rows of 3 x 64 channels each: 576 steps.
/// let walk = Walk { count: [1, 3], lhs: [0, 56 * 64], rhs: [0, 3 * 64 * 16], len: 3 * 64 };
/// assert_eq!(walk.steps(), 576);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    /// Runs of the outer and of the inner loop.
    pub count: [usize; 2],
    /// Offset of the left operand from one run to the next, per loop.
    pub lhs: [usize; 2],
    /// Offset of the right operand from one run to the next, per loop.
    pub rhs: [usize; 2],
    /// Steps of a run.
    pub len: usize,
}

impl Walk {
    /// One run.
    /// ```
    /// assert_eq!(convolve_gemm::Walk::run(7).steps(), 7);
    /// ```
    pub fn run(len: usize) -> Self {
        Self { count: [1, 1], lhs: [0, 0], rhs: [0, 0], len }
    }

    /// The same steps in the same order, with loops joined whose runs follow each other without a gap; `lhs` and `rhs` are the distances
    /// from one step to the next.
    /// ```
    /// use convolve_gemm::Walk;
    /// let rows = Walk { count: [2, 7], lhs: [98, 14], rhs: [98, 14], len: 7 };
    /// assert_eq!(rows.joined(2, 2), Walk { count: [1, 1], lhs: [98, 14], rhs: [98, 14], len: 98 });
    /// ```
    pub fn joined(mut self, lhs: usize, rhs: usize) -> Self {
        for i in [1, 0] {
            let gapless = self.lhs[i] == self.len * lhs && self.rhs[i] == self.len * rhs;
            if gapless && self.count[i] > 1 && (i == 1 || self.count[1] == 1) {
                self.len *= self.count[i];
                self.count[i] = 1;
            }
        }
        self
    }

    /// Steps in all.
    pub fn steps(&self) -> usize {
        self.count[0] * self.count[1] * self.len
    }
}

/// How the numbers of one step of the left operand lie in memory, one for each row of the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lhs<'a> {
    /// Row `m` starts at its own offset and has its steps next to each other: pixels of an NHWC image anywhere.
    Rows(&'a [usize]),
    /// The same with rows that are evenly spaced: rows of a matrix.
    Even {
        /// Offset of the first row.
        start: usize,
        /// Rows.
        rows: usize,
        /// From one row to the next.
        pitch: usize,
    },
    /// The numbers of a step lie next to each other, steps are `pitch` apart: a transposed matrix.
    Columns {
        /// Offset of the first number.
        start: usize,
        /// Rows.
        rows: usize,
        /// From one step to the next.
        pitch: usize,
    },
    /// The same by tile, `[tile][step][row of the tile]` without gaps: rows that were packed for this as [`cut`] cuts them. For walks of one run.
    Packed {
        /// Rows.
        rows: usize,
        /// Most rows of a tile: at least 1 and no more than the micro-kernel has, or the call panics.
        mr: usize,
    },
}

impl Lhs<'_> {
    pub(crate) fn rows(&self) -> usize {
        match *self {
            Self::Rows(offsets) => offsets.len(),
            Self::Even { rows, .. } | Self::Columns { rows, .. } | Self::Packed { rows, .. } => rows,
        }
    }
}

/// Where rows of the product go, as `[i, j]` of a [`BlockMut`](convolve_core::BlockMut).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To<'a> {
    /// Each to its own place.
    Rows(&'a [[usize; 2]]),
    /// Evenly spaced.
    Even {
        /// Where the first one goes.
        at: [usize; 2],
        /// From one to the next.
        step: [usize; 2],
    },
}

/// The tiles of `rows` rows, of which no tile has more than `mr`: how many, rows of each, and how many have one more, which come first. As
/// even as can be, as a narrow tile takes more time than its share.
///
/// ```
/// // 2 tiles of 5 rows, then 1 of 4.
/// assert_eq!(convolve_gemm::cut(14, 6), [3, 4, 2]);
/// ```
pub fn cut(rows: usize, mr: usize) -> [usize; 3] {
    let tiles = rows.div_ceil(mr);
    [tiles, rows / tiles.max(1), rows % tiles.max(1)]
}

/// The first row of a tile of a [`cut`], or the end of the last one.
///
/// ```
/// use convolve_gemm::{cut, first_row};
/// assert_eq!([0, 1, 2, 3].map(|tile| first_row(cut(14, 6), tile)), [0, 5, 10, 14]);
/// ```
pub fn first_row([_, size, longer]: [usize; 3], tile: usize) -> usize {
    tile * size + tile.min(longer)
}

/// What accumulators start from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init<'a> {
    /// Zero.
    Zero,
    /// One number per column, from its first to at least the last valid one.
    Bias(&'a [f32]),
    /// One number per row, from the first on.
    Rows(&'a [f32]),
    /// What the destination holds.
    Dst,
}

/// Everything that one call of the micro-kernel reads.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The left operand, which is broadcast.
    pub lhs: &'a [f32],
    /// Where its rows are.
    pub at: Lhs<'a>,
    /// The right operand, from its first step on: NR floats per step.
    pub rhs: &'a [f32],
    /// From one step of the right operand to the next, at least NR; must be NR unless the left operand is [`Lhs::Columns`] or [`Lhs::Packed`].
    pub pitch: usize,
    /// The runs.
    pub walk: Walk,
    /// What accumulators start from.
    pub init: Init<'a>,
    /// Least and greatest value to store.
    pub clamp: [f32; 2],
    /// Where rows of the product go; as many as the left operand has.
    pub to: To<'a>,
    /// First column of the destination.
    pub column: usize,
    /// Columns to store, at most NR.
    pub columns: usize,
    /// Where rows of the destination are far: they are asked for, or what lies so many floats beyond each, before the sums are made, so that no store
    /// has to wait for memory. (Gradients of 512 -> 2048 channels at 7x7, out of cache: 41 -> 57 % of the peak on a Xeon; short sums into a near
    /// destination lose 3 %. Sums of 27 steps, 3 -> 64 channels at 224x224: 0.96 ms, asking a tile ahead 0.88; Zen 5.)
    pub fetch: Option<usize>,
    /// What is wanted next.
    pub ahead: Ahead<'a>,
}

/// What is wanted next: steps bring a cache line of it near, each one, so that what comes from far is there in time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ahead<'a> {
    /// From the first line on; nothing beyond its end is asked for.
    pub data: &'a [f32],
    /// Steps of a tile that ask, from its first one on.
    pub steps: usize,
    /// Floats from what one step asks for to what the next one does: [`LINE`](convolve_core::LINE) for another line every step, less if others ask for a part as well.
    pub step: usize,
    /// From the first step of one tile to that of the next.
    pub tile: usize,
    /// Tiles that ask, from the first one on.
    pub tiles: usize,
}

impl<'a> Ahead<'a> {
    /// Nothing.
    pub const NONE: Self = Self { data: &[], steps: 0, step: 0, tile: 0, tiles: 0 };

    /// `step` floats further in each of the `steps` steps of a tile, and tiles go on where the last one ended.
    ///
    /// ```
    /// use convolve_gemm::Ahead;
    /// assert_eq!(Ahead::run(&[1.0], 10, 16).tile, 160);
    /// ```
    pub fn run(data: &'a [f32], steps: usize, step: usize) -> Self {
        Self { data, steps, step, tile: step * steps, tiles: usize::MAX }
    }

    /// Where a tile begins to ask, and how many of its steps do. (What lies beyond the end would be fetched, page by page, for nothing: gradients of
    /// 64 -> 64 channels of 56x56 pixels in NCHW took 135 us that way, 123 without; Zen 5.)
    #[inline(always)]
    pub(crate) fn of(&self, tile: usize) -> (usize, usize) {
        let start = tile.saturating_mul(self.tile);
        match self.data.len().checked_sub(start) {
            _ if tile >= self.tiles => (0, 0),
            Some(left) if left >= self.steps.saturating_mul(self.step) => (start, self.steps),
            Some(left) => (start, left.div_ceil(self.step)),
            None => (0, 0),
        }
    }
}

/// No clamp.
pub const UNCLAMPED: [f32; 2] = [f32::NEG_INFINITY, f32::INFINITY];
