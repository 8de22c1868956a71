//! Several rows that are read side by side: one check for all of them.

use core::marker::PhantomData;
use core::ops::Range;

/// `N` slices that are read at the same place.
///
/// A kernel that reads twenty rows at column `x` would compare `x` with twenty lengths, or the compiler would keep twenty lengths to
/// find out that they are the same. Here the length is one, that of the shortest row.
///
/// ```
/// use convolve_simd::Rows;
/// let (a, b) = ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0]);
/// let rows: Rows<2> = Rows::new(&[&a, &b]);
/// assert_eq!(rows.len(), 3);
/// let pair = rows.at(1, 2);
/// assert_eq!((pair.row(0), pair.row(1)), (&[2.0, 3.0][..], &[5.0, 6.0][..]));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a, const N: usize, T = f32> {
    starts: [*const T; N],
    len: usize,
    marker: PhantomData<&'a [T]>,
}

/// `len` elements of every row. See [`Rows::at`].
#[derive(Clone, Copy, Debug)]
pub struct RowsAt<'r, 'a, const N: usize, T = f32> {
    rows: &'r Rows<'a, N, T>,
    x: usize,
    len: usize,
}

impl<'a, const N: usize, T> Rows<'a, N, T> {
    /// The first `N` of some slices, as far as the shortest goes.
    ///
    /// # Panics
    /// When there are fewer.
    #[inline(always)]
    pub fn new(rows: &[&'a [T]]) -> Self {
        let rows: &[&[T]; N] = rows.first_chunk().expect("there are N rows");
        let len = rows.iter().fold(usize::MAX, |len, row| len.min(row.len()));
        Self { starts: core::array::from_fn(|i| rows[i].as_ptr()), len, marker: PhantomData }
    }

    /// Rows that start at `offsets` of one slice and end with it.
    ///
    /// ```
    /// use convolve_simd::Rows;
    /// let rows = Rows::starting_at(&[1.0, 2.0, 3.0, 4.0], &[2, 0]);
    /// assert_eq!((rows.len(), rows.at(1, 1).row(0), rows.at(1, 1).row(1)), (2, &[4.0][..], &[2.0][..]));
    /// ```
    ///
    /// # Panics
    /// When one starts beyond the end.
    #[inline(always)]
    pub fn starting_at(data: &'a [T], offsets: &[usize; N]) -> Self {
        let last = offsets.iter().fold(0, |last, offset| last.max(*offset));
        assert!(last <= data.len(), "a row starts beyond the end");
        let starts = core::array::from_fn(|i| data.as_ptr().wrapping_add(offsets[i]));
        Self { starts, len: data.len() - last, marker: PhantomData }
    }

    /// Rows that start at `start`, `start + pitch`, and so on, and end with the slice.
    ///
    /// ```
    /// use convolve_simd::Rows;
    /// let rows = Rows::<2>::apart(&[1.0, 2.0, 3.0, 4.0], 1, 2);
    /// assert_eq!((rows.len(), rows.at(0, 1).row(0), rows.at(0, 1).row(1)), (1, &[2.0][..], &[4.0][..]));
    /// ```
    ///
    /// # Panics
    /// When one starts beyond the end.
    #[inline(always)]
    pub fn apart(data: &'a [T], start: usize, pitch: usize) -> Self {
        const { assert!(N > 0) };
        let len =
            data.len().checked_sub(start).and_then(|rest| rest.checked_sub(pitch.saturating_mul(N - 1)));
        let first = data.as_ptr().wrapping_add(start);
        let mut starts = [first; N];
        for (i, to) in starts.iter_mut().enumerate() {
            *to = first.wrapping_add(i.wrapping_mul(pitch));
        }
        Self { starts, len: len.expect("a row starts beyond the end"), marker: PhantomData }
    }

    /// Rows of `absent.len()` elements, of which the first starts at `start` and each next one `pitch` elements further on; instead of those that
    /// are not `present`, which are never read, there is `absent`.
    ///
    /// ```
    /// use convolve_simd::Rows;
    /// // A window whose first row lies above the image.
    /// let rows = Rows::<3>::spaced(&[1.0, 2.0, 3.0, 4.0], -2, 2, 1..3, &[0.0; 2]);
    /// assert_eq!([0, 1, 2].map(|i| rows.at(0, 2).row(i)), [&[0.0, 0.0], &[1.0, 2.0], &[3.0, 4.0]]);
    /// ```
    ///
    /// # Panics
    /// When a row that is present does not lie in the slice.
    #[inline(always)]
    pub fn spaced(data: &'a [T], start: isize, pitch: usize, present: Range<usize>, absent: &'a [T]) -> Self {
        let len = absent.len();
        if !present.is_empty() {
            let place = |i: usize| i.checked_mul(pitch).and_then(|step| start.checked_add_unsigned(step));
            let inside = |i: usize| {
                place(i).is_some_and(|at| {
                    at >= 0 && data.len().checked_sub(len).is_some_and(|last| at as usize <= last)
                })
            };
            assert!(
                present.end <= N && inside(present.start) && inside(present.end - 1),
                "a row lies outside of the slice"
            );
        }
        let first = data.as_ptr().wrapping_offset(start);
        // A loop, not `from_fn`: of a long array that is a call.
        let mut starts = [absent.as_ptr(); N];
        for (i, to) in starts.iter_mut().enumerate() {
            if present.contains(&i) {
                *to = first.wrapping_add(i * pitch);
            }
        }
        Self { starts, len, marker: PhantomData }
    }

    /// Elements of the shortest row.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether some row has no element.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements `x .. x + len` of every row.
    ///
    /// # Panics
    /// When they are not all inside.
    #[inline(always)]
    pub fn at(&self, x: usize, len: usize) -> RowsAt<'_, 'a, N, T> {
        assert!(len <= self.len && x <= self.len - len, "beyond the end of a row");
        RowsAt { rows: self, x, len }
    }

    /// The elements `x .. x + len` of every row, as rows of their own: one check for all that is read of them.
    ///
    /// ```
    /// use convolve_simd::Rows;
    /// let rows = Rows::starting_at(&[1.0, 2.0, 3.0, 4.0], &[1, 0]).part(1, 2);
    /// assert_eq!((rows.len(), rows.at(0, 2).row(0), rows.at(1, 1).row(1)), (2, &[3.0, 4.0][..], &[3.0][..]));
    /// ```
    ///
    /// # Panics
    /// When they are not all inside.
    #[inline(always)]
    pub fn part(&self, x: usize, len: usize) -> Self {
        assert!(len <= self.len && x <= self.len - len, "beyond the end of a row");
        Self { starts: core::array::from_fn(|i| self.starts[i].wrapping_add(x)), len, marker: PhantomData }
    }

    /// Chunk `i` of `lanes` elements of every row: in a loop over all whole chunks the check is that of the loop.
    ///
    /// ```
    /// use convolve_simd::Rows;
    /// let rows: Rows<2> = Rows::starting_at(&[1.0, 2.0, 3.0, 4.0, 5.0], &[1, 0]);
    /// assert_eq!((rows.len() / 2, rows.chunk(1, 2).row(0), rows.chunk(1, 2).row(1)), (2, &[4.0, 5.0][..], &[3.0, 4.0][..]));
    /// ```
    ///
    /// # Panics
    /// When it is not inside.
    #[inline(always)]
    pub fn chunk(&self, i: usize, lanes: usize) -> RowsAt<'_, 'a, N, T> {
        assert!(i < self.len / lanes, "beyond the end of a row");
        RowsAt { rows: self, x: i * lanes, len: lanes }
    }
}

/// `N` slices that are written at the same place, as [`Rows`] are read.
///
/// ```
/// use convolve_simd::RowsMut;
/// let (mut a, mut b) = ([0.0; 5], [0.0; 4]);
/// let mut rows = RowsMut::new([&mut a, &mut b]);
/// rows.chunk(1, 1, 2).fill(1.0);
/// rows.at(0, 3, 1).fill(2.0);
/// assert_eq!((a, b), ([0.0, 0.0, 0.0, 2.0, 0.0], [0.0, 0.0, 1.0, 1.0]));
/// ```
#[derive(Debug)]
pub struct RowsMut<'a, const N: usize> {
    starts: [*mut f32; N],
    len: usize,
    marker: PhantomData<&'a mut [f32]>,
}

impl<'a, const N: usize> RowsMut<'a, N> {
    /// These slices, as far as the shortest goes.
    #[inline(always)]
    pub fn new(mut rows: [&'a mut [f32]; N]) -> Self {
        let len = rows.iter().fold(usize::MAX, |len, row| len.min(row.len()));
        Self { starts: core::array::from_fn(|i| rows[i].as_mut_ptr()), len, marker: PhantomData }
    }

    /// The elements `x .. x + len` of row `n`.
    ///
    /// # Panics
    /// When they are not all inside, or there is no such row.
    #[inline(always)]
    pub fn at(&mut self, n: usize, x: usize, len: usize) -> &mut [f32] {
        assert!(len <= self.len && x <= self.len - len, "beyond the end of a row");
        // SAFETY: `x + len` is at most the length of the shortest row; the rows are borrowed as long as `self`, and this row by the result.
        unsafe { core::slice::from_raw_parts_mut(self.starts[n].wrapping_add(x), len) }
    }

    /// Chunk `i` of `lanes` elements of row `n`: in a loop over all whole chunks the check is that of the loop.
    ///
    /// # Panics
    /// When it is not inside, or there is no such row.
    #[inline(always)]
    pub fn chunk(&mut self, n: usize, i: usize, lanes: usize) -> &mut [f32] {
        assert!(i < self.len / lanes, "beyond the end of a row");
        // SAFETY: `(i + 1) * lanes` is at most the length of the shortest row; the rows are borrowed as long as `self`, and this row by the result.
        unsafe { core::slice::from_raw_parts_mut(self.starts[n].wrapping_add(i * lanes), lanes) }
    }
}

/// `N` rows that are read at `B` places that move together, `len` elements at each: what is the same for all positions is computed before the first.
///
/// ```
/// use convolve_simd::Rows;
/// let (a, b) = ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]);
/// // One before and one after: offsets are modulo 2^64.
/// let rows = Rows::<2>::new(&[&a, &b]);
/// let places = rows.places([0usize.wrapping_sub(1), 1], 1);
/// let at = places.at(1);
/// assert_eq!([at.row(0, 0), at.row(0, 1), at.row(1, 1)], [&[1.0], &[3.0], &[6.0]]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Places<'a, const N: usize, const B: usize> {
    rows: Rows<'a, N>,
    offsets: [usize; B],
    /// The least offset, and how many elements the first place may have before it.
    least: usize,
    count: usize,
    len: usize,
}

/// Rows at one position. See [`Places::at`].
#[derive(Clone, Copy, Debug)]
pub struct PlacesAt<'p, 'a, const N: usize, const B: usize> {
    places: &'p Places<'a, N, B>,
    x: usize,
}

impl<'a, const N: usize> Rows<'a, N> {
    /// Places at `offsets` from a position, `len` elements each. The offsets, taken as signed numbers, are at most a row apart.
    #[inline(always)]
    pub fn places<const B: usize>(&self, offsets: [usize; B], len: usize) -> Places<'a, N, B> {
        let (mut least, mut most) = (isize::MAX, isize::MIN);
        for offset in offsets {
            (least, most) = (least.min(offset as isize), most.max(offset as isize));
        }
        let span = if B == 0 { 0 } else { most.abs_diff(least) };
        let count = self.len.checked_sub(span.saturating_add(len)).map_or(0, |last| last + 1);
        Places { rows: *self, offsets, least: least as usize, count, len }
    }
}

impl<'a, const N: usize, const B: usize> Places<'a, N, B> {
    /// The places at position `x`, modulo 2^64.
    ///
    /// # Panics
    /// When they are not all inside.
    #[inline(always)]
    pub fn at(&self, x: usize) -> PlacesAt<'_, 'a, N, B> {
        assert!(x.wrapping_add(self.least) < self.count, "beyond the end of a row");
        PlacesAt { places: self, x }
    }
}

impl<'a, const N: usize, const B: usize> PlacesAt<'_, 'a, N, B> {
    /// Those of row `i` at place `b`.
    ///
    /// # Panics
    /// When there is no such row or place.
    #[inline(always)]
    pub fn row(&self, i: usize, b: usize) -> &'a [f32] {
        let place = self.x.wrapping_add(self.places.offsets[b]);
        // SAFETY: `x` plus the least offset is less than `count`, and this offset is at most the span above the least: so `place` plus `len` is at
        // most the length of the shortest row.
        let start = unsafe { self.places.rows.starts[i].add(place) };
        // SAFETY: so these elements lie inside row `i`, which is borrowed for 'a.
        unsafe { core::slice::from_raw_parts(start, self.places.len) }
    }
}

impl<'a, const N: usize, T> RowsAt<'_, 'a, N, T> {
    /// Those of row `i`.
    ///
    /// # Panics
    /// When there is no such row.
    #[inline(always)]
    pub fn row(&self, i: usize) -> &'a [T] {
        let start = self.rows.starts[i];
        // SAFETY: `at` and `chunk` checked that `x .. x + len` lies inside the shortest row.
        let start = unsafe { start.add(self.x) };
        // SAFETY: so these elements lie inside row `i`, which is borrowed for 'a.
        unsafe { core::slice::from_raw_parts(start, self.len) }
    }
}

/// `each!(I in 0 1 2 { .. })`: the block once for each number, which is a constant in it.
///
/// A loop over an array of sums would do, if LLVM unrolled loops of more than ten rounds whose rounds differ; it does not, and the sums are
/// then in memory (a quarter of the speed). Conditions in the block are best `const { .. }`: what is false is then never compiled.
///
/// ```
/// let mut sum = 0;
/// convolve_simd::each!(I in 1 2 3 {
///     if const { I != 2 } {
///         sum += I;
///     }
/// });
/// assert_eq!(sum, 4);
/// ```
#[macro_export]
macro_rules! each {
    ($i:ident in $($n:literal)* $body:block) => {{
        $({
            const $i: usize = $n;
            $body
        })*
    }};
}
