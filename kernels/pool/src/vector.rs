//! A run of numbers, a register at a time: whole registers are counted, so that in a loop over all of them the bound of the loop is the only check.

use convolve_simd::{Rows, RowsAt, RowsMut, Simd};
use core::ops::Range;

/// Some neighbouring numbers of a run: whole register number `i`, or `Rest(x, len)`.
#[derive(Clone, Copy)]
pub(crate) enum Vector {
    Whole(usize),
    Rest(usize, usize),
}

/// Calls `f` for all of `0 .. len`: whole registers, and then what is left.
#[inline(always)]
pub(crate) fn vectors<S: Simd>(len: usize, mut f: impl FnMut(Vector)) {
    for i in 0..len / S::LANES {
        f(Vector::Whole(i));
    }
    let rest = len % S::LANES;
    if rest > 0 {
        f(Vector::Rest(len - rest, rest));
    }
}

impl Vector {
    /// Which numbers of the run.
    #[inline(always)]
    pub(crate) fn range<S: Simd>(self) -> Range<usize> {
        match self {
            Self::Whole(i) => i * S::LANES..(i + 1) * S::LANES,
            Self::Rest(x, len) => x..x + len,
        }
    }

    /// They, of all rows.
    #[inline(always)]
    pub(crate) fn of<'r, 'a, S: Simd, const N: usize, T>(
        self,
        rows: &'r Rows<'a, N, T>,
    ) -> RowsAt<'r, 'a, N, T> {
        match self {
            Self::Whole(i) => rows.chunk(i, S::LANES),
            Self::Rest(x, len) => rows.at(x, len),
        }
    }

    /// They, of row `n`, to be written.
    #[inline(always)]
    pub(crate) fn of_mut<'t, S: Simd, const N: usize>(
        self,
        rows: &'t mut RowsMut<'_, N>,
        n: usize,
    ) -> &'t mut [f32] {
        match self {
            Self::Whole(i) => rows.chunk(n, i, S::LANES),
            Self::Rest(x, len) => rows.at(n, x, len),
        }
    }
}

/// A sum and one more, or that alone.
#[inline(always)]
pub(crate) fn plus<S: Simd>(s: S, sum: Option<S::F32>, more: S::F32) -> Option<S::F32> {
    // Not `map_or`: its closure would be a function of its own, without the instruction set.
    Some(match sum {
        Some(sum) => s.add(sum, more),
        None => more,
    })
}
