//! Rows at one pitch that are read side by side, some of which may be absent: one check for all of them.

use crate::Simd;
use core::marker::PhantomData;
use core::ops::Range;

/// `N` rows of a tensor, of which the first starts at `start` and each next one `pitch` elements further on.
///
/// A window at the border of an image sees rows that do not exist; these are never read. Rows have no end of their own: what follows one
/// in memory, the next one say, is what a read beyond it finds, unless it is done [`across`](Self::across) the ends.
///
/// ```
/// use convolve_simd::{Portable, Simd, Strip};
/// let image = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];
/// let (s, strip): (_, Strip<2>) = (Portable::new(), Strip::new(&image, 1, 4, 0..2));
/// let mut rows = strip.at(s, 0);
/// assert_eq!(s.sum(rows.next_row()), 2.0 + 3.0 + 4.0 + 5.0);
/// assert_eq!(s.sum(rows.next_row()), 6.0 + 7.0 + 8.0 + 9.0);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Strip<'a, const N: usize> {
    data: &'a [f32],
    start: isize,
    pitch: usize,
    /// Bit `i`: row `i` is present; and the ones from `ends[0]` to `ends[1]` are.
    present: u32,
    ends: [isize; 2],
    /// Elements between the start of the last row, if the first started with the slice, and the end of the slice.
    room: usize,
}

/// A vector of every row, from the first to the last. See [`Strip::at`].
#[derive(Clone, Copy, Debug)]
pub struct StripAt<'a, S: Simd, const N: usize> {
    s: S,
    walk: Walk,
    marker: PhantomData<&'a [f32]>,
}

/// A vector of every row that is present, from the first to the last. See [`Strip::across`].
#[derive(Clone, Copy, Debug)]
pub struct StripAcross<'a, S: Simd, const N: usize> {
    s: S,
    walk: Walk,
    present: u32,
    mask: S::Mask,
    marker: PhantomData<&'a [f32]>,
}

/// From row to row.
#[derive(Clone, Copy, Debug)]
struct Walk {
    next: *const f32,
    pitch: usize,
    row: usize,
}

impl Walk {
    /// Where the next row is read, and its number.
    #[inline(always)]
    fn step(&mut self) -> (*const f32, usize) {
        let step = (self.next, self.row);
        *self = Self { next: opaque(self.next.wrapping_add(self.pitch)), row: self.row + 1, ..*self };
        step
    }
}

/// Of the lanes that read a slice of `len` from `at` on, the first whose element is in it, and where they end.
#[inline(always)]
fn lanes_inside(lanes: usize, len: usize, at: isize) -> [usize; 2] {
    let (lanes, len) = (lanes as isize, isize::try_from(len).unwrap_or(isize::MAX));
    if at <= -lanes || at >= len {
        return [0, 0];
    }
    [if at < 0 { at.unsigned_abs() } else { 0 }, (len - at).min(lanes) as usize]
}

/// The address itself, of which the compiler knows nothing any more.
///
/// It would compute the addresses of all rows before the loop over columns, run out of registers, and fetch each from the stack; now
/// it adds the pitch.
#[inline(always)]
#[cfg_attr(
    not(miri),
    expect(clippy::pointers_in_nomem_asm_block, reason = "nothing is read from the address")
)]
fn opaque(address: *const f32) -> *const f32 {
    #[cfg(not(miri))]
    let address = {
        let mut address = address;
        // SAFETY: there is no instruction in it.
        unsafe {
            core::arch::asm!("/* {0} */", inout(reg) address, options(nomem, nostack, preserves_flags))
        };
        address
    };
    address
}

impl<'a, const N: usize> Strip<'a, N> {
    /// Row `i` starts at `start + i*pitch`; those in `present` exist.
    ///
    /// # Panics
    /// When `present` goes beyond `N`, or `N` beyond 32, or the pitch makes numbers overflow.
    #[inline(always)]
    pub fn new(data: &'a [f32], start: isize, pitch: usize, present: Range<usize>) -> Self {
        assert!(N > 0 && N <= 32, "there are too many rows");
        assert!(present.start <= present.end && present.end <= N, "a row is present that is none");
        // So all sums below stay far from the ends of the numbers.
        assert!(pitch < 1 << 57 && start.unsigned_abs() < 1 << 62, "rows are too far apart");
        let end = |row: usize| start + (row * pitch) as isize;
        let ends = [end(present.start), end(present.end.saturating_sub(1))];
        let bits = |end: usize| ((1_u64 << end) - 1) as u32;
        let room = data.len().saturating_sub((N - 1) * pitch);
        Self { data, start, pitch, present: bits(present.end) & !bits(present.start), ends, room }
    }

    /// Whether no row is absent.
    #[inline(always)]
    pub fn is_whole(&self) -> bool {
        self.present == u32::MAX >> (32 - N)
    }

    /// A vector of every row, from `x` on.
    ///
    /// # Panics
    /// When a row is absent, or they are not all in the slice.
    #[inline(always)]
    pub fn at<S: Simd>(&self, s: S, x: isize) -> StripAt<'a, S, N> {
        // A sum below 0 is a number beyond any length.
        let first = self.start.wrapping_add(x) as usize;
        assert!(
            self.is_whole() && S::LANES <= self.room && first <= self.room - S::LANES,
            "beyond the end of a row"
        );
        StripAt { s, walk: self.walk(first as isize), marker: PhantomData }
    }

    /// A vector of every row that is present, from `x` on. Its lane `i` stands for number `first + i` of a list of `len`, and is 0 where the list
    /// has ended or not begun.
    ///
    /// ```
    /// use convolve_simd::{Portable, Simd, Strip};
    /// let s = Portable::new();
    /// // Rows of three pixels, the second of which does not exist; of the first, pixels -1 to 2.
    /// let strip: Strip<2> = Strip::new(&[1.0, 2.0, 3.0], 0, 3, 0..1);
    /// let mut across = strip.across(s, -1, -1, 3);
    /// assert_eq!(across.next_row().map(|v| s.sum(v)), Some(6.0));
    /// assert!(across.next_row().is_none());
    /// ```
    ///
    /// # Panics
    /// When numbers of the list are not in the slice.
    #[inline(always)]
    pub fn across<S: Simd>(&self, s: S, x: isize, first: isize, len: usize) -> StripAcross<'a, S, N> {
        let [begin, end] = lanes_inside(S::LANES, len, first);
        let present = if begin < end { self.present } else { 0 };
        if present != 0 {
            let span = (self.ends[1] - self.ends[0]) as usize + (end - begin);
            // A sum below 0, or one that overflows, is a number beyond any length.
            let least = (self.ends[0] + begin as isize).wrapping_add(x) as usize;
            let room = self.data.len();
            assert!(span <= room && least <= room - span, "beyond the end of a row");
        }
        let (walk, mask) = (self.walk(self.start.wrapping_add(x)), s.between(begin, end));
        StripAcross { s, walk, present, mask, marker: PhantomData }
    }

    #[inline(always)]
    fn walk(&self, first: isize) -> Walk {
        Walk { next: self.data.as_ptr().wrapping_offset(first), pitch: self.pitch, row: 0 }
    }
}

impl<S: Simd, const N: usize> StripAt<'_, S, N> {
    /// That of the next row.
    ///
    /// # Panics
    /// When there is none.
    #[inline(always)]
    pub fn next_row(&mut self) -> S::F32 {
        let (from, row) = self.walk.step();
        assert!(row < N, "there is no such row");
        // SAFETY: `at` checked that a vector of the last row, hence of every row, lies in the slice, which is borrowed for 'a.
        self.s.load(unsafe { core::slice::from_raw_parts(from, S::LANES) })
    }
}

impl<S: Simd, const N: usize> StripAcross<'_, S, N> {
    /// That of the next row, if it is present.
    #[inline(always)]
    pub fn next_row(&mut self) -> Option<S::F32> {
        let (from, row) = self.walk.step();
        if row >= N || self.present >> row & 1 == 0 {
            return None;
        }
        // SAFETY: the row is present, and `across` checked that in the first and the last of these the lanes of the mask lie in the slice.
        Some(unsafe { self.s.load_where(from, self.mask) })
    }
}
