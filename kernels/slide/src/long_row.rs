//! The micro-kernel of the weights' gradient of single planes: both planes are one long row.
//!
//! `sums(t, u) += sum over f < len of  src[f - d(u)] * diff_dst[f + d(t)*pitch]`,  t < K kernel rows, u < B kernel columns
//!
//! With the same pitch for both planes a kernel row is an offset of `diff_dst`, a kernel column one of `src`, and a vector may begin
//! anywhere: no lane is lost at the end of a row, whatever the width. K + B vectors that are loaded serve K*B multiply-adds, and
//! one call takes a whole plane. Where a kernel column would read across the end of a row its lanes are zeros.

use convolve_core::phase::gcd;
use convolve_simd::{Isa, Rows, Simd, dispatch, each};
use core::ops::Range;

/// Kernel rows that a call may take.
const ROWS: [usize; 6] = [1, 2, 3, 4, 5, 7];
/// Most kernel columns of a call.
const MOST: usize = 7;

/// A kernel row: where it reads `diff_dst`, relative to the position and modulo 2^64; the positions that have it; its number.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) offset: usize,
    pub(crate) positions: Range<usize>,
    pub(crate) index: usize,
}

/// A kernel column: where it reads `src`, relative to the position and modulo 2^64; its number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    pub(crate) offset: usize,
    pub(crate) index: usize,
}

/// For each vector of positions, until they repeat, for each column: 1 for every lane in which the column lies inside the image.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flags {
    flags: Vec<u8>,
    /// Vectors until they repeat, and flags of a vector.
    period: usize,
    step: usize,
}

impl Flags {
    /// Vectors until they repeat.
    fn period(lanes: usize, pitch: usize) -> usize {
        pitch / gcd(pitch, lanes)
    }

    /// Bytes of them.
    pub(crate) fn len(lanes: usize, pitch: usize, columns: usize) -> usize {
        Self::period(lanes, pitch).saturating_mul(columns).saturating_mul(lanes)
    }

    /// `inside(column, j)` for positions j of a row.
    pub(crate) fn new(
        lanes: usize,
        pitch: usize,
        columns: usize,
        inside: &dyn Fn(usize, usize) -> bool,
    ) -> Self {
        let period = Self::period(lanes, pitch);
        let places = (0..period).flat_map(|vector| (0..columns).map(move |column| (vector, column)));
        let lane = |(vector, column)| {
            (0..lanes).map(move |lane| u8::from(inside(column, (vector * lanes + lane) % pitch)))
        };
        Self { flags: places.flat_map(lane).collect(), period, step: columns * lanes }
    }
}

/// Everything that one call reads.
#[derive(Clone, Debug)]
pub(crate) struct Flatten<'a> {
    /// The planes, and where position 0 lies in each.
    pub(crate) planes: [&'a [f32]; 2],
    pub(crate) origins: [usize; 2],
    pub(crate) rows: &'a [Row],
    pub(crate) columns: &'a [Column],
    /// Those of the columns start at `first_flag` of each vector.
    pub(crate) flags: &'a Flags,
    pub(crate) first_flag: usize,
    /// Positions.
    pub(crate) len: usize,
    /// Kernel columns: the sum of kernel row i, column j is number `i*width + j`.
    pub(crate) width: usize,
}

/// Calls of one instruction set.
pub(crate) trait Flattener: Send + Sync {
    /// Lanes of a vector.
    fn lanes(&self) -> usize;
    /// Most kernel rows and columns of a call, where there are so many.
    fn most(&self, size: [usize; 2]) -> [usize; 2];
    /// Adds to sums of LANES parts each.
    fn add(&self, call: &Flatten<'_>, sums: &mut [f32]);
}

/// Vectors `range` of the positions. At an EDGE some lanes have not all rows.
#[inline(always)]
fn vectors<S: Simd, const EDGE: bool, const K: usize, const B: usize>(
    s: S,
    call: &Flatten<'_>,
    rows: &[Row; K],
    [src, diffs]: [Rows<'_, 1>; 2],
    range: Range<usize>,
    acc: &mut [[S::F32; B]; K],
) {
    let columns: &[Column; B] = call.columns.first_chunk().unwrap();
    let src = src.places(core::array::from_fn::<_, B, _>(|b| columns[b].offset), S::LANES);
    let diffs = diffs.places(core::array::from_fn::<_, K, _>(|k| rows[k].offset), S::LANES);
    let Flags { period, step, .. } = *call.flags;
    let (mut flag, all) = (range.start % period * step, period * step);
    let (flags, [origin, from]) = (&call.flags.flags[call.first_flag..], call.origins);
    for position in range.map(|vector| vector * S::LANES) {
        let (src, diffs) = (src.at(origin + position), diffs.at(from + position));
        let flags = &flags[flag..flag + B * S::LANES];
        let mut value = [s.splat(0.0); B];
        each!(J in 0 1 2 3 4 5 6 {
            if const { J < B } {
                let inside = s.equal_byte(&flags[J * S::LANES..(J + 1) * S::LANES], 1);
                value[J] = s.in_order(s.select(inside, s.load(src.row(0, J)), s.splat(0.0)));
            }
        });
        each!(I in 0 1 2 3 4 5 6 {
            if const { I < K } {
                let lane = |end: usize| end.saturating_sub(position).min(S::LANES);
                let [start, end] = [rows[I].positions.start, rows[I].positions.end].map(lane);
                if !EDGE || start < end {
                    let diff = s.in_order(s.load(diffs.row(0, I)));
                    // Lanes that do not have the row keep their sum: what they read may be anything.
                    let has = s.between(start, end);
                    each!(J in 0 1 2 3 4 5 6 {
                        if const { J < B } {
                            let sum = s.mul_add(value[J], diff, acc[I][J]);
                            acc[I][J] = s.in_order(if EDGE { s.select(has, sum, acc[I][J]) } else { sum });
                        }
                    });
                }
            }
        });
        flag += step;
        flag -= if flag >= all { all } else { 0 };
    }
}

#[inline(always)]
fn add<S: Simd, const K: usize, const B: usize>(s: S, call: &Flatten<'_>, sums: &mut [f32]) {
    let rows: &[Row; K] = call.rows.first_chunk().unwrap();
    let place = |k: usize, b: usize| (rows[k].index * call.width + call.columns[b].index) * S::LANES;
    let mut acc = [[s.splat(0.0); B]; K];
    each!(I in 0 1 2 3 4 5 6 {
        each!(J in 0 1 2 3 4 5 6 {
            if const { I < K && J < B } {
                acc[I][J] = s.load(&sums[place(I, J)..]);
            }
        });
    });
    let planes = call.planes.map(|plane| Rows::<1>::new(&[plane]));
    // Vectors that have all kernel rows, between those that have not.
    let first = rows.iter().fold(0, |first, row| first.max(row.positions.start)).div_ceil(S::LANES);
    let end = rows.iter().fold(call.len, |end, row| end.min(row.positions.end)) / S::LANES;
    let (all, end) = (call.len.div_ceil(S::LANES), end.max(first));
    for edge in [0..first.min(all), end.min(all)..all] {
        vectors::<S, true, K, B>(s, call, rows, planes, edge, &mut acc);
    }
    vectors::<S, false, K, B>(s, call, rows, planes, first.min(all)..end.min(all), &mut acc);
    each!(I in 0 1 2 3 4 5 6 {
        each!(J in 0 1 2 3 4 5 6 {
            if const { I < K && J < B } {
                s.store(acc[I][J], &mut sums[place(I, J)..]);
            }
        });
    });
}

/// Whether the sums fit the registers, with a vector of each column and one of a row, and what masks take that have no registers of their own.
const fn fits<S: Simd>(rows: usize, columns: usize) -> bool {
    let masks = if size_of::<S::Mask>() < size_of::<S::F32>() { 0 } else { 4 };
    rows * columns + columns + masks < S::REGISTERS
}

type Entry<S> = fn(S, &Flatten<'_>, &mut [f32]);

/// A static table of function pointers, as in the product's micro-kernel, and for the same reason: `[rows][columns - 1]`.
struct Table<S>(core::marker::PhantomData<S>);

macro_rules! table {
    ($($k:literal)*) => { [$(table!(@columns $k; 1 2 3 4 5 6 7)),*] };
    (@columns $k:literal; $($b:literal)*) => {
        [$(|s, call, sums| s.vectorize(#[inline(always)] |s| {
            if const { fits::<S>($k, $b) } {
                add::<S, $k, $b>(s, call, sums);
            } else {
                unreachable!("{} by {} sums do not fit the registers", $k, $b);
            }
        })),*]
    };
}

impl<S: Simd> Table<S> {
    const ENTRIES: [[Entry<S>; MOST]; ROWS.len()] = table!(1 2 3 4 5 7);
}

impl<S: Simd> Flattener for S {
    fn lanes(&self) -> usize {
        S::LANES
    }

    fn most(&self, [rows, columns]: [usize; 2]) -> [usize; 2] {
        // As few calls as possible; of these, those that load the least, and least under a mask.
        let cuts = ROWS.iter().flat_map(|k| (1..=MOST).map(move |b| [*k, b]));
        let fitting = cuts.filter(|[k, b]| *k <= rows.max(1) && *b <= columns.max(1) && fits::<S>(*k, *b));
        let cost = |[k, b]: &[usize; 2]| (rows.div_ceil(*k) * columns.div_ceil(*b), k + b, *b);
        fitting.min_by_key(cost).expect("one sum fits")
    }

    fn add(&self, call: &Flatten<'_>, sums: &mut [f32]) {
        let rows = crate::sweep::place(&ROWS, call.rows.len());
        Table::<S>::ENTRIES[rows][call.columns.len() - 1](*self, call, sums);
    }
}

/// The calls of an instruction set.
pub(crate) fn flattener(isa: Isa) -> Box<dyn Flattener> {
    fn boxed<S: Simd>(s: S) -> Box<dyn Flattener> {
        Box::new(s)
    }
    dispatch!(isa, s => boxed(s))
}

/// Cuts kernel rows into calls of at most `most`.
pub(crate) fn cut_rows(most: usize, rows: usize) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    core::iter::from_fn(move || {
        let fits = ROWS.iter().rev().find(|k| **k <= most.min(rows - start))?;
        start += fits;
        Some(start - fits..start)
    })
}
