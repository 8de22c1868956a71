//! The one cell that lets tasks write disjoint parts of one buffer: a box `[i, j, k]` of a row-major array, owned by one task.
//!
//! Every output of a convolution is such an array: NCHW is `[N, C, H*W]`, NHWC is `[N, H*W, C]`, OIHW weights are `[OC, IC, KH*KW]`.
//! [`BlockMut::for_each_piece`] cuts it along a grid, so the pieces are disjoint by construction, and callers write no `unsafe`.
//! A plain `&mut [f32]` with a pitch would not do: it would also cover the neighbours' columns and alias them.

use crate::Par;
use core::marker::PhantomData;
use core::ops::Range;

/// How one axis is cut: the axis is a whole number of `unit`s, and each unit is cut into blocks of at most `block`, so that no
/// piece crosses a unit (an image, a group of channels).
///
/// ```
/// use convolve_core::Cut;
/// let cut = Cut { unit: 10, block: 4 };
/// let pieces: Vec<_> = (0..cut.pieces(20)).map(|i| cut.piece(i, 20)).collect();
/// assert_eq!(pieces, [0..4, 4..8, 8..10, 10..14, 14..18, 18..20]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Positions that belong together; divides the axis.
    pub unit: usize,
    /// Most positions of one piece.
    pub block: usize,
}

impl Cut {
    /// The whole axis as one piece.
    pub fn whole(len: usize) -> Self {
        Self { unit: len.max(1), block: len.max(1) }
    }

    fn per_unit(&self) -> usize {
        self.unit.div_ceil(self.block)
    }

    /// Pieces of an axis of that length.
    pub fn pieces(&self, len: usize) -> usize {
        len.div_ceil(self.unit) * self.per_unit()
    }

    /// Piece `index` of an axis of that length.
    pub fn piece(&self, index: usize, len: usize) -> Range<usize> {
        let (unit, block) = (index / self.per_unit(), index % self.per_unit());
        let start = unit * self.unit + block * self.block;
        start.min(len)..((start + self.block).min((unit + 1) * self.unit)).min(len)
    }
}

/// What is done with a piece: its ranges, the piece, and a lane of workspace. Higher-ranked in the lifetime of the piece, so that no piece
/// outlives the call.
pub type PieceFn<'f, T> = dyn for<'b> Fn([Range<usize>; 3], BlockMut<'b, T>, &mut [f32]) + Sync + 'f;

/// What is done with the same piece of two arrays. See [`BlockMut::for_each_pair`].
pub type PairFn<'f, T, U> =
    dyn for<'b> Fn([Range<usize>; 3], BlockMut<'b, T>, BlockMut<'b, U>, &mut [f32]) + Sync + 'f;

/// A box of a row-major three-dimensional array, with the right to write it.
///
/// ```
/// use convolve_core::BlockMut;
/// let mut data = [0.0; 24];
/// let mut block = BlockMut::new(&mut data, [2, 3, 4]);
/// block.row(1, 2).fill(7.0);
/// block.block([0..1, 0..3, 1..2]).row(0, 1)[0] = 5.0;
/// assert_eq!((data[20..].to_vec(), data[5]), (vec![7.0; 4], 5.0));
/// ```
pub struct BlockMut<'a, T> {
    /// Element `[0, 0, 0]` of this box. The whole buffer stays mutably borrowed for `'a`.
    base: *mut T,
    strides: [usize; 2],
    extent: [usize; 3],
    marker: PhantomData<&'a mut [T]>,
}

/// Some rows of some planes of a box, with the right to write them. See [`BlockMut::rows_of_planes`].
pub struct RowsOfPlanes<'b, T, const D: usize, const R: usize> {
    first: *mut T,
    /// From one plane to the next, and from one row to the next.
    steps: [usize; 2],
    len: usize,
    marker: PhantomData<&'b mut [T]>,
}

impl<'b, T, const D: usize, const R: usize> RowsOfPlanes<'b, T, D, R> {
    /// All of them, by plane and row.
    ///
    /// ```
    /// use convolve_core::BlockMut;
    /// let mut data = [0; 8];
    /// let mut block = BlockMut::new(&mut data, [1, 4, 2]);
    /// let [[first, third]] = block.rows_of_planes([0, 0], 2).all();
    /// (first[1], third[0]) = (1, 3);
    /// assert_eq!(data, [0, 1, 0, 0, 3, 0, 0, 0]);
    /// ```
    #[inline(always)]
    pub fn all(self) -> [[&'b mut [T]; R]; D] {
        core::array::from_fn(|d| {
            core::array::from_fn(|r| {
                // SAFETY: `rows_of_planes` checked that the row is in the box.
                let start = unsafe { self.first.add(d * self.steps[0] + r * self.steps[1]) };
                // SAFETY: the box owns these cells; as the step is not 0 the rows differ, and `self`, which borrows the box for 'b, is gone.
                unsafe { core::slice::from_raw_parts_mut(start, self.len) }
            })
        })
    }

    /// Row `r` of plane `d`.
    ///
    /// # Panics
    /// When there is no such row.
    #[inline(always)]
    pub fn row(&mut self, d: usize, r: usize) -> &mut [T] {
        assert!(d < D && r < R, "there is no such row");
        // SAFETY: `rows_of_planes` checked that the row is in the box.
        let start = unsafe { self.first.add(d * self.steps[0] + r * self.steps[1]) };
        // SAFETY: the box owns these cells, and `&mut self` lends them once.
        unsafe { core::slice::from_raw_parts_mut(start, self.len) }
    }
}

/// Parts of some rows of a box, with the right to write them. See [`BlockMut::rows_at`] and [`BlockMut::rows_apart`].
pub struct TileMut<'b, T, const N: usize> {
    starts: [*mut T; N],
    len: usize,
    marker: PhantomData<&'b mut [T]>,
}

impl<T, const N: usize> TileMut<'_, T, N> {
    /// Row `n`.
    ///
    /// # Panics
    /// When there is no such row.
    #[inline(always)]
    pub fn row(&mut self, n: usize) -> &mut [T] {
        // SAFETY: `rows_at` or `rows_apart` checked that the box has these cells; it owns them, and `&mut self` lends them once.
        unsafe { core::slice::from_raw_parts_mut(self.starts[n], self.len) }
    }
}

// SAFETY: a box owns its cells exclusively (`new` borrows them mutably, `block` borrows from a box, `for_each_piece` hands out
// disjoint boxes), so sending it is sending a `&mut [T]`.
unsafe impl<T: Send> Send for BlockMut<'_, T> {}

/// The base pointer of a box that is being cut, shared by the tasks that cut it.
struct Base<T>(*mut T);

// SAFETY: tasks only offset the pointer to cells of their own piece.
unsafe impl<T: Send> Sync for Base<T> {}

impl<T> Base<T> {
    fn get(&self) -> *mut T {
        self.0
    }
}

impl<'a, T: Send> BlockMut<'a, T> {
    /// The whole of `data` as an array of that extent.
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn new(data: &'a mut [T], extent: [usize; 3]) -> Self {
        assert_eq!(data.len(), extent.iter().product::<usize>(), "extent {extent:?}");
        Self {
            base: data.as_mut_ptr(),
            strides: [extent[1] * extent[2], extent[2]],
            extent,
            marker: PhantomData,
        }
    }

    /// Size along each axis.
    pub fn extent(&self) -> [usize; 3] {
        self.extent
    }

    /// The cells `[i, j, ..]`.
    ///
    /// # Panics
    /// When `i` or `j` is outside.
    #[inline(always)]
    pub fn row(&mut self, i: usize, j: usize) -> &mut [T] {
        assert!(i < self.extent[0] && j < self.extent[1]);
        // SAFETY: `i` and `j` are inside, so the offset stays in the buffer that `new` was given.
        let start = unsafe { self.base.add(i * self.strides[0] + j * self.strides[1]) };
        // SAFETY: the box owns these `extent[2]` consecutive cells, and `&mut self` lends them once.
        unsafe { core::slice::from_raw_parts_mut(start, self.extent[2]) }
    }

    /// The rows `[i, j]`, `[i, j + step]`, and so on of the planes `i`, `i + 1`, and so on: one at a time, for kernels that write so many that their
    /// starts do not fit the registers, or [all at once](RowsOfPlanes::all).
    ///
    /// ```
    /// use convolve_core::BlockMut;
    /// let mut data = [0; 8];
    /// let mut block = BlockMut::new(&mut data, [1, 4, 2]);
    /// let mut rows = block.rows_of_planes::<1, 2>([0, 0], 2);
    /// rows.row(0, 1)[0] = 3;
    /// assert_eq!(data, [0, 0, 0, 0, 3, 0, 0, 0]);
    /// ```
    ///
    /// # Panics
    /// When a row is outside, or `step` is 0.
    #[inline(always)]
    pub fn rows_of_planes<const D: usize, const R: usize>(
        &mut self,
        [i, j]: [usize; 2],
        step: usize,
    ) -> RowsOfPlanes<'_, T, D, R> {
        assert!(step > 0 && D > 0 && R > 0 && i < self.extent[0] && j < self.extent[1]);
        assert!(step.saturating_mul(R - 1) < self.extent[1] - j && D <= self.extent[0] - i);
        // SAFETY: `i` and `j` are inside, so the offset stays in the buffer that `new` was given.
        let first = unsafe { self.base.add(i * self.strides[0] + j * self.strides[1]) };
        // Of a single row the step may be any number.
        let steps = [self.strides[0], step.wrapping_mul(self.strides[1])];
        RowsOfPlanes { first, steps, len: self.extent[2], marker: PhantomData }
    }

    /// The cells `[i, j, columns]` of `N` pairs `[i, j]`, one row at a time: their places are found once, for kernels that come back to them.
    ///
    /// ```
    /// use convolve_core::BlockMut;
    /// let mut data = [0; 12];
    /// let mut block = BlockMut::new(&mut data, [2, 2, 3]);
    /// let mut rows = block.rows_at(&[[1, 0], [0, 1]], 1..3);
    /// rows.row(0).fill(7);
    /// rows.row(1)[1] = 5;
    /// assert_eq!(data, [0, 0, 0, 0, 0, 5, 0, 7, 7, 0, 0, 0]);
    /// ```
    ///
    /// # Panics
    /// When a row or a column is outside.
    #[inline(always)]
    pub fn rows_at<const N: usize>(
        &mut self,
        at: &[[usize; 2]; N],
        columns: Range<usize>,
    ) -> TileMut<'_, T, N> {
        let [planes, rows, width] = self.extent;
        assert!(columns.start <= columns.end && columns.end <= width, "columns outside");
        let base = self.base.wrapping_add(columns.start);
        let mut starts = [base; N];
        for (start, &[i, j]) in starts.iter_mut().zip(at) {
            // Two conditions, not one: each is a comparison and a jump.
            assert!(i < planes, "a row outside");
            assert!(j < rows, "a row outside");
            *start = base.wrapping_add(i * self.strides[0] + j * self.strides[1]);
        }
        TileMut { starts, len: columns.len(), marker: PhantomData }
    }

    /// [`rows_at`](BlockMut::rows_at) `[i, j]`, `[i, j] + step`, and so on.
    ///
    /// ```
    /// use convolve_core::BlockMut;
    /// let mut data = [0; 12];
    /// let mut block = BlockMut::new(&mut data, [2, 2, 3]);
    /// block.rows_apart::<2>([0, 1], [1, 0], 0..1).row(1)[0] = 4;
    /// assert_eq!(data, [0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0]);
    /// ```
    ///
    /// # Panics
    /// When a row or a column is outside.
    #[inline(always)]
    pub fn rows_apart<const N: usize>(
        &mut self,
        [i, j]: [usize; 2],
        step: [usize; 2],
        columns: Range<usize>,
    ) -> TileMut<'_, T, N> {
        const { assert!(N > 0) };
        let [planes, rows, width] = self.extent;
        assert!(columns.start <= columns.end && columns.end <= width, "columns outside");
        // The first row and the last one are inside: then so are those between.
        assert!(i < planes && step[0].saturating_mul(N - 1) < planes - i, "a row outside");
        assert!(j < rows && step[1].saturating_mul(N - 1) < rows - j, "a row outside");
        let first = self.base.wrapping_add(columns.start + i * self.strides[0] + j * self.strides[1]);
        // Of a single row the step may be any number.
        let apart = step[0].wrapping_mul(self.strides[0]).wrapping_add(step[1].wrapping_mul(self.strides[1]));
        let mut starts = [first; N];
        for (n, start) in starts.iter_mut().enumerate() {
            *start = first.wrapping_add(n.wrapping_mul(apart));
        }
        TileMut { starts, len: columns.len(), marker: PhantomData }
    }

    /// Sets every cell of the box.
    pub fn fill(&mut self, value: T)
    where
        T: Copy,
    {
        for i in 0..self.extent[0] {
            (0..self.extent[1]).for_each(|j| self.row(i, j).fill(value));
        }
    }

    /// The part of this box in those ranges.
    ///
    /// # Panics
    /// When a range is outside.
    pub fn block(&mut self, ranges: [Range<usize>; 3]) -> BlockMut<'_, T> {
        Self::part(self.base, self.strides, self.extent, &ranges)
    }

    /// Cuts the box along the grid of `cuts` and calls `f` once for every piece that is not empty, with its ranges, the piece,
    /// and `lane_len` elements of `workspace` whose contents are garbage. See [`Par::for_each`].
    ///
    /// ```
    /// use convolve_core::{BlockMut, Cut, Par};
    /// let mut data = [0; 12];
    /// let cuts = [Cut::whole(1), Cut { unit: 3, block: 2 }, Cut { unit: 4, block: 4 }];
    /// BlockMut::new(&mut data, [1, 3, 4]).for_each_piece(cuts, Par::Seq, &mut [], 0, &|ranges, mut piece, _| {
    ///     for j in 0..piece.extent()[1] {
    ///         piece.row(0, j).fill(ranges[1].start);
    ///     }
    /// });
    /// assert_eq!(data, [0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2]);
    /// ```
    pub fn for_each_piece(
        self,
        cuts: [Cut; 3],
        par: Par<'_>,
        workspace: &mut [f32],
        lane_len: usize,
        f: &PieceFn<'_, T>,
    ) {
        let (base, strides, extent) = (Base(self.base), self.strides, self.extent);
        let pieces = [0, 1, 2].map(|axis| cuts[axis].pieces(extent[axis]));
        par.for_each(pieces.iter().product(), workspace, lane_len, &|task, lane| {
            let index = [task / (pieces[1] * pieces[2]), task / pieces[2] % pieces[1], task % pieces[2]];
            let ranges = [0, 1, 2].map(|axis| cuts[axis].piece(index[axis], extent[axis]));
            if ranges.iter().all(|range| !range.is_empty()) {
                // `Par::for_each` calls every task exactly once and pieces of different tasks differ in some axis, where
                // `Cut::piece` gives disjoint ranges: so this box shares no cell with any other.
                let piece = Self::part(base.get(), strides, extent, &ranges);
                f(ranges, piece, lane);
            }
        });
    }

    /// As [`for_each_piece`](Self::for_each_piece), with the same piece of a second array: for kernels with two results.
    ///
    /// ```
    /// use convolve_core::{BlockMut, Cut, Par};
    /// let (mut numbers, mut bytes) = ([0.0; 4], [0_u8; 4]);
    /// let (numbers_block, bytes_block) = (BlockMut::new(&mut numbers, [1, 2, 2]), BlockMut::new(&mut bytes, [1, 2, 2]));
    /// let cuts = [Cut::whole(1), Cut { unit: 2, block: 1 }, Cut::whole(2)];
    /// numbers_block.for_each_pair(bytes_block, cuts, Par::Seq, &mut [], 0, &|ranges, mut numbers, mut bytes, _| {
    ///     numbers.row(0, 0).fill(0.5);
    ///     bytes.row(0, 0).fill(ranges[1].start as u8);
    /// });
    /// assert_eq!((numbers, bytes), ([0.5; 4], [0, 0, 1, 1]));
    /// ```
    ///
    /// # Panics
    /// When the extents differ.
    pub fn for_each_pair<U: Send>(
        self,
        other: BlockMut<'_, U>,
        cuts: [Cut; 3],
        par: Par<'_>,
        workspace: &mut [f32],
        lane_len: usize,
        f: &PairFn<'_, T, U>,
    ) {
        assert_eq!(self.extent, other.extent, "two arrays are cut alike");
        let (base, strides, extent) = (Base(other.base), other.strides, other.extent);
        self.for_each_piece(cuts, par, workspace, lane_len, &|ranges, piece, lane| {
            // `for_each_piece` calls with disjoint ranges, and both arrays have this extent: so this box as well shares no cell.
            let twin = BlockMut::<U>::part(base.get(), strides, extent, &ranges);
            f(ranges, piece, twin, lane);
        });
    }

    /// The box of those ranges within the box at `base`. The caller must not use overlapping ones at a time.
    fn part<'b>(
        base: *mut T,
        strides: [usize; 2],
        extent: [usize; 3],
        ranges: &[Range<usize>; 3],
    ) -> BlockMut<'b, T> {
        for (range, extent) in ranges.iter().zip(extent) {
            assert!(range.start <= range.end && range.end <= extent);
        }
        let empty = ranges.iter().any(|range| range.is_empty());
        let offset = if empty {
            0
        } else {
            ranges[0].start * strides[0] + ranges[1].start * strides[1] + ranges[2].start
        };
        // SAFETY: the ranges are inside the box, so its first cell is inside the buffer.
        let base = unsafe { base.add(offset) };
        BlockMut { base, strides, extent: [0, 1, 2].map(|axis| ranges[axis].len()), marker: PhantomData }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_disjoint_and_complete() {
        for (units, unit, block) in [(1, 1, 1), (1, 7, 3), (3, 5, 2), (2, 6, 6), (4, 3, 9)] {
            let (len, cut) = (units * unit, Cut { unit, block });
            let covered: Vec<usize> = (0..cut.pieces(len)).flat_map(|i| cut.piece(i, len)).collect();
            assert_eq!(covered, (0..len).collect::<Vec<_>>());
            for piece in (0..cut.pieces(len)).map(|i| cut.piece(i, len)) {
                assert_eq!(piece.start / unit, (piece.end - 1) / unit, "a piece crosses a unit");
            }
        }
    }

    #[test]
    fn rows_outside_of_a_box_are_refused() {
        let mut data = [0; 24];
        let mut whole = BlockMut::new(&mut data, [2, 3, 4]);
        let mut block = whole.block([0..2, 1..3, 1..4]);
        let mut inside = |f: &dyn Fn(&mut BlockMut<'_, i32>)| {
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| f(&mut block))).is_ok()
        };
        assert!(inside(&|block| block.rows_at(&[[1, 1], [0, 0], [1, 1]], 0..3).row(2).fill(1)));
        assert!(inside(&|block| block.rows_apart::<2>([1, 0], [0, 1], 1..3).row(1).fill(2)));
        assert!(inside(&|block| block.rows_apart::<1>([1, 1], [usize::MAX; 2], 0..3).row(0).fill(3)));
        assert!(inside(&|block| assert!(block.rows_apart::<2>([0, 0], [1, 1], 3..3).row(1).is_empty())));
        for at in [[2, 0], [0, 2], [usize::MAX, 0]] {
            assert!(!inside(&|block| _ = block.rows_at(&[[0, 0], at], 0..3)), "{at:?}");
            assert!(!inside(&|block| _ = block.rows_apart::<1>(at, [0, 0], 0..3)), "{at:?}");
        }
        for step in [[2, 0], [0, 2], [1, 2], [usize::MAX, 1], [0, usize::MAX]] {
            assert!(!inside(&|block| _ = block.rows_apart::<2>([0, 0], step, 0..3)), "{step:?}");
        }
        #[expect(clippy::reversed_empty_ranges, reason = "it must be refused")]
        for columns in [0..4, 4..4, 2..1] {
            assert!(!inside(&|block| _ = block.rows_at(&[[0, 0]], columns.clone())), "{columns:?}");
            assert!(
                !inside(&|block| _ = block.rows_apart::<1>([0, 0], [0, 0], columns.clone())),
                "{columns:?}"
            );
        }
        let expected = [[0; 4], [0; 4], [0; 4], [0; 4], [0; 4], [0, 3, 3, 3]].concat();
        assert_eq!(data.to_vec(), expected);
    }

    #[test]
    fn every_cell_is_written_by_exactly_one_piece() {
        let extent = [3, 10, 7];
        let cuts = [Cut { unit: 1, block: 1 }, Cut { unit: 5, block: 3 }, Cut { unit: 7, block: 2 }];
        let mut data = vec![0u32; 210];
        BlockMut::new(&mut data, extent).for_each_piece(
            cuts,
            Par::Current,
            &mut [],
            0,
            &|ranges, mut piece, _| {
                for i in 0..ranges[0].len() {
                    for j in 0..ranges[1].len() {
                        piece.row(i, j).iter_mut().for_each(|cell| *cell += 1);
                    }
                }
            },
        );
        assert_eq!(data, vec![1; 210]);
    }

    #[test]
    fn an_empty_array_has_no_pieces_to_write() {
        BlockMut::<f32>::new(&mut [], [0, 4, 5]).for_each_piece(
            [Cut { unit: 1, block: 1 }, Cut::whole(4), Cut::whole(5)],
            Par::Seq,
            &mut [],
            0,
            &|_, _, _| panic!("nothing to write"),
        );
    }
}
