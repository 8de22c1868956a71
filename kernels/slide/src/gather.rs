//! The micro-kernel of the weights' gradient: the sweep with the parts of output and weights exchanged.
//!
//! `sums(q)[k] += sum over positions p, rows r < R of  rows[r*ST + k][x(q) + p] * diffs[r][p]`,  q < B columns, k < K kernel rows
//!
//! The sums of B columns stay in registers over a whole run of positions, with R rows of `diff_dst` beside them; an input row that is loaded
//! serves every pair (r, k) with `r*ST + k = i`. Lanes are channels or pixels as in the sweep; where they are pixels the lanes of a
//! sum are added at the very end.

use crate::sweep::{KERNELS, MAX_K, output_row, place};
use convolve_simd::{Isa, Rows, Simd, dispatch, each};
use core::ops::Range;

/// Rows of `diff_dst` of a call, or a single one.
pub(crate) const R: usize = 4;
/// Most input rows of a call.
pub(crate) const MAX_ROWS: usize = (R - 1) * 2 + MAX_K;
/// Columns whose sums fit the registers, for 1 to 7 kernel rows: B*K sums, R rows and one input.
pub(crate) const COLUMNS: [usize; MAX_K] = [6, 4, 3, 2, 2, 1, 1];

/// Everything that one call reads.
#[derive(Clone, Debug)]
pub(crate) struct Gather<'a> {
    /// Input rows, (R - 1)*ST + K of them.
    pub(crate) rows: &'a [&'a [f32]],
    /// Rows of `diff_dst`: R of them, or one.
    pub(crate) diffs: &'a [&'a [f32]],
    /// Columns of the window.
    pub(crate) columns: &'a [Column],
    /// Positions of a row.
    pub(crate) positions: Range<usize>,
    /// Floats from one position to the next, in the input rows and in `diff_dst`.
    pub(crate) steps: [usize; 2],
    /// Groups of R rows, one after the other.
    pub(crate) groups: usize,
    /// Floats from one group to the next, in the input rows and in `diff_dst`.
    pub(crate) group_steps: [usize; 2],
    /// Lanes of a vector that are read; others are not touched, and zero.
    pub(crate) lanes: usize,
}

/// A column of the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    /// Where it reads, relative to the position; modulo 2^64.
    pub(crate) offset: usize,
    /// First position at which it lies inside the image, and how many there are.
    pub(crate) first: usize,
    pub(crate) count: usize,
}

/// Gathers of one instruction set.
pub(crate) trait Gatherer: Send + Sync {
    /// Adds to `[column][K][LANES]`.
    fn gather(&self, k: usize, stride: usize, call: &Gather<'_>, sums: &mut [f32]);
}

#[inline(always)]
fn gather<
    S: Simd,
    const PART: bool,
    const K: usize,
    const ST: usize,
    const B: usize,
    const R: usize,
    const N: usize,
>(
    s: S,
    call: &Gather<'_>,
    sums: &mut [f32],
) {
    let (rows, diffs): (Rows<'_, N>, Rows<'_, R>) = (Rows::new(call.rows), Rows::new(call.diffs));
    let columns: &[Column; B] = call.columns.first_chunk().unwrap();
    let sums = &mut sums[..B * K * S::LANES];
    let mut acc = [[s.splat(0.0); K]; B];
    for b in 0..B {
        for k in 0..K {
            acc[b][k] = s.load(&sums[(b * K + k) * S::LANES..]);
        }
    }
    // What row I of column Q adds.
    macro_rules! add {
        ($q:ident, $i:ident, $diff:ident, $row:expr) => {
            if const { $i < N } {
                let value = s.in_order(if PART { s.load_first($row) } else { s.load($row) });
                each!(J in 0 1 2 3 4 5 6 {
                    let r = const { output_row($i, J, ST) };
                    if const { J < K && output_row($i, J, ST) < R } {
                        acc[$q][J] = s.in_order(s.mul_add(value, $diff[r], acc[$q][J]));
                    }
                });
                s.in_order(value);
            }
        };
    }
    let lanes = if PART { call.lanes } else { S::LANES };
    let mut offsets = [0; B];
    for b in 0..B {
        offsets[b] = columns[b].offset;
    }
    let (places, diffs) = (rows.places(offsets, lanes), diffs.places([0], lanes));
    let inside = inside(call);
    for group in 0..call.groups {
        let start = call.group_steps.map(|step| group * step);
        let [mut x, mut at] = [0, 1].map(|i| start[i] + call.positions.start * call.steps[i]);
        for position in call.positions.clone() {
            let at_diffs = diffs.at(at);
            let mut diff = [s.splat(0.0); R];
            for r in 0..R {
                diff[r] = s.in_order(if PART {
                    s.load_first(at_diffs.row(r, 0))
                } else {
                    s.load(at_diffs.row(r, 0))
                });
            }
            if !PART && position.wrapping_sub(inside.start) < inside.len() {
                // Columns in turn: between two additions to a sum lie those to all others.
                let at = places.at(x);
                each!(I in 0 1 2 3 4 5 6 7 8 9 10 11 12 {
                    each!(Q in 0 1 2 3 4 5 {
                        if const { Q < B } {
                            add!(Q, I, diff, at.row(I, Q));
                        }
                    });
                });
            } else {
                each!(Q in 0 1 2 3 4 5 {
                    if const { Q < B } && position.wrapping_sub(columns[Q].first) < columns[Q].count {
                        let rows = rows.at(x.wrapping_add(columns[Q].offset), lanes);
                        each!(I in 0 1 2 3 4 5 6 7 8 9 10 11 12 {
                            add!(Q, I, diff, rows.row(I));
                        });
                    }
                });
            }
            (x, at) = (x.wrapping_add(call.steps[0]), at.wrapping_add(call.steps[1]));
        }
    }
    for b in 0..B {
        for k in 0..K {
            s.store(acc[b][k], &mut sums[(b * K + k) * S::LANES..]);
        }
    }
}

/// Positions at which all columns lie inside the image: there one check serves them all.
fn inside(call: &Gather<'_>) -> Range<usize> {
    let first = call.columns.iter().fold(0, |first, column| first.max(column.first));
    let end = call.columns.iter().fold(usize::MAX, |end, column| end.min(column.first + column.count));
    first..end
}

type Entry<S> = fn(S, &Gather<'_>, &mut [f32]);

/// `[part][columns - 1]`.
type Entries<S> = [&'static [Entry<S>]; 2];

/// Tables of function pointers, by the place of K in [`KERNELS`]: R rows with stride 1 or 2, and single rows.
struct Table<S>(core::marker::PhantomData<S>);

macro_rules! table {
    ($rows:literal $stride:literal; $($k:literal: $($b:literal)*;)*) => {
        [$([
            &[$(table!(@entry false $rows $stride $k $b)),*],
            &[$(table!(@entry true $rows $stride $k $b)),*],
        ]),*]
    };
    (@entry $part:literal $rows:literal $stride:literal $k:literal $b:literal) => {
        |s, call, sums| s.vectorize(#[inline(always)] |s| {
            gather::<S, $part, $k, $stride, $b, $rows, { ($rows - 1) * $stride + $k }>(s, call, sums);
        })
    };
}

macro_rules! tables {
    ($($rows:literal $stride:literal)*) => {
        [$(table!($rows $stride; 1: 1 2 3 4 5 6; 2: 1 2 3 4; 3: 1 2 3; 4: 1 2; 5: 1 2; 7: 1;)),*]
    };
}

impl<S: Simd> Table<S> {
    const ENTRIES: [[Entries<S>; KERNELS.len()]; 3] = tables!(4 1  4 2  1 1);
}

impl<S: Simd> Gatherer for S {
    fn gather(&self, k: usize, stride: usize, call: &Gather<'_>, sums: &mut [f32]) {
        let table = if call.diffs.len() == R { stride - 1 } else { 2 };
        let part = usize::from(call.lanes < S::LANES);
        Table::<S>::ENTRIES[table][place(&KERNELS, k)][part][call.columns.len() - 1](*self, call, sums);
    }
}

/// The gathers of an instruction set.
pub(crate) fn gatherer(isa: Isa) -> Box<dyn Gatherer> {
    fn boxed<S: Simd>(s: S) -> Box<dyn Gatherer> {
        Box::new(s)
    }
    dispatch!(isa, s => boxed(s))
}

/// Cuts a list of columns into blocks whose sums fit the registers.
pub(crate) fn blocks(k: usize, columns: usize) -> impl Iterator<Item = Range<usize>> {
    let most = COLUMNS[k - 1];
    (0..columns).step_by(most).map(move |start| start..columns.min(start + most))
}
