//! The micro-kernel of the weights' gradient: every lane sums up its own products of a plane of `src` and one of `diff_dst`.
//!
//! `sums(c)[k][lane] += sum over rows r, registers x  src[r*ST + k][x + lane + d(c)] * diff_dst[r][x + lane]`,  c < C columns, k < K rows
//!
//! As in `stencil.rs` an input row that is loaded serves all that read it, and padding is zeros; here what stays in registers are C x K sums, for a
//! whole plane, and R rows of `diff_dst` beside them.

use crate::stencil::{Read, WINDOWS, place};
use convolve_simd::{Isa, Rows, Simd, dispatch, each};

/// Rows of `diff_dst` that are read together, in increasing order.
pub(crate) const ROWS: [usize; 3] = [1, 4, 7];
/// Most columns of a call.
const MOST: usize = 3;

/// A call: some rows of a pair of planes, as many times `R` as there are tiles.
#[derive(Clone, Debug)]
pub(crate) struct Pair<'a> {
    /// Two planes; rows and pixels of each.
    pub(crate) planes: [&'a [f32]; 2],
    pub(crate) sizes: [[usize; 2]; 2],
    /// The first row of `diff_dst`, and the first row of `src` that it meets.
    pub(crate) row: usize,
    pub(crate) first: isize,
    pub(crate) tiles: usize,
    /// A row of zeros, as wide as `src`.
    pub(crate) zeros: &'a [f32],
    /// Where the columns read, relative to the output.
    pub(crate) columns: &'a [isize],
}

/// What selects a function of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Whether windows step by two.
    pub(crate) split: bool,
    /// Kernel rows, one of [`WINDOWS`].
    pub(crate) k: usize,
}

/// Calls of one instruction set.
pub(crate) trait Moments: Send + Sync {
    /// Lanes of a register.
    fn lanes(&self) -> usize;
    /// Most columns of a call, and the rows that fit the registers beside the sums of so many.
    fn most(&self, shape: Shape) -> usize;
    fn rows(&self, shape: Shape, columns: usize) -> &'static [usize];
    /// Adds to sums of LANES parts each, `[column][K]`.
    fn add(&self, shape: Shape, rows: usize, pair: &Pair<'_>, sums: &mut [f32]);
    /// `weights[i]` = the sum of the parts of sum `i`.
    fn fold(&self, sums: &[f32], weights: &mut [f32]);
}

/// Adds the products of one column.
#[inline(always)]
fn column<
    S: Simd,
    const ALL: bool,
    const SHIFT: usize,
    const SPLIT: bool,
    const K: usize,
    const R: usize,
    const N: usize,
>(
    s: S,
    rows: &Rows<'_, N>,
    reads: [Read; 2],
    diffs: &[S::F32; R],
    sums: &mut [S::F32; K],
) {
    let at = [reads[0].at::<S, ALL, N>(rows), reads[1].at::<S, ALL, N>(rows)];
    each!(I in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 {
        if const { I < N } {
            let mut v = reads[0].row::<S, ALL, SHIFT, N>(s, &at[0], I);
            if SPLIT {
                let second = if SHIFT == Read::ANY {
                    reads[1].row::<S, ALL, { Read::ANY }, N>(s, &at[1], I)
                } else {
                    reads[1].row::<S, ALL, 0, N>(s, &at[1], I)
                };
                v = s.deinterleave(v, second).0;
            }
            serve::<S, SPLIT, K, R>(s, I, s.in_order(v), diffs, sums);
        }
    });
}

/// Adds the products of all columns, which all have all their pixels: by turns, so that no sum waits for its last addition.
#[inline(always)]
fn whole<S: Simd, const SPLIT: bool, const K: usize, const C: usize, const R: usize, const N: usize>(
    s: S,
    rows: &Rows<'_, N>,
    reads: &[[Read; 2]; C],
    diffs: &[S::F32; R],
    acc: &mut [[S::F32; K]; C],
) {
    let mut at = [[reads[0][0].at::<S, true, N>(rows); 2]; C];
    for c in 0..C {
        at[c] = [reads[c][0].at::<S, true, N>(rows), reads[c][1].at::<S, true, N>(rows)];
    }
    each!(I in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 {
        if const { I < N } {
            for c in 0..C {
                let mut v = s.load(at[c][0].row(I));
                if SPLIT {
                    v = s.deinterleave(v, s.load(at[c][1].row(I))).0;
                }
                serve::<S, SPLIT, K, R>(s, I, s.in_order(v), diffs, &mut acc[c]);
            }
        }
    });
}

/// Adds the products of input row `i` to the sums of the kernel rows that meet it.
#[inline(always)]
fn serve<S: Simd, const SPLIT: bool, const K: usize, const R: usize>(
    s: S,
    i: usize,
    pixels: S::F32,
    diffs: &[S::F32; R],
    sums: &mut [S::F32; K],
) {
    let stride = if SPLIT { 2 } else { 1 };
    for k in 0..K.min(i + 1) {
        let row = i - k;
        if row.is_multiple_of(stride) && row / stride < R {
            sums[k] = s.in_order(s.mul_add(pixels, diffs[row / stride], sums[k]));
        }
    }
}

/// The same, by what the reads are.
#[inline(always)]
fn any_column<S: Simd, const SPLIT: bool, const K: usize, const R: usize, const N: usize>(
    s: S,
    rows: &Rows<'_, N>,
    reads: [Read; 2],
    diffs: &[S::F32; R],
    sums: &mut [S::F32; K],
) {
    let all = reads[0].len == S::LANES && reads[1].len == S::LANES;
    let nothing = reads[0].is_nothing::<S>() && reads[1].is_nothing::<S>();
    match if SPLIT && reads[1].shift > 0 { Read::ANY } else { reads[0].shift } {
        _ if nothing => {}
        0 if all => column::<S, true, 0, SPLIT, K, R, N>(s, rows, reads, diffs, sums),
        0 => column::<S, false, 0, SPLIT, K, R, N>(s, rows, reads, diffs, sums),
        1 if all => column::<S, true, 1, SPLIT, K, R, N>(s, rows, reads, diffs, sums),
        1 => column::<S, false, 1, SPLIT, K, R, N>(s, rows, reads, diffs, sums),
        _ => column::<S, false, { Read::ANY }, SPLIT, K, R, N>(s, rows, reads, diffs, sums),
    }
}

#[inline(always)]
fn add<S: Simd, const SPLIT: bool, const K: usize, const C: usize, const R: usize, const N: usize>(
    s: S,
    pair: &Pair<'_>,
    sums: &mut [f32],
) {
    let columns: &[isize; C] = pair.columns.first_chunk().expect("there are C columns");
    let sums = &mut sums[..C * K * S::LANES];
    let mut acc = [[s.splat(0.0); K]; C];
    for c in 0..C {
        for k in 0..K {
            acc[c][k] = s.load(&sums[(c * K + k) * S::LANES..]);
        }
    }
    let [[height, width], [_, outputs]] = pair.sizes;
    let stride = if SPLIT { 2 } else { 1 };
    for tile in 0..pair.tiles {
        let first = pair.first + (tile * R * stride) as isize;
        let inside = |y: isize| (y - first).clamp(0, N as isize) as usize;
        let present = inside(0)..inside(height as isize);
        let rows = Rows::<N>::spaced(pair.planes[0], first * width as isize, width, present, pair.zeros);
        let top = pair.row + tile * R;
        let diffs = &pair.planes[1][top * outputs..(top + R) * outputs];
        let diff_rows = Rows::<R>::starting_at(diffs, &core::array::from_fn(|r| r * outputs));
        let next = first.saturating_add_unsigned(N).max(0) as usize * width;
        for x in (0..outputs).step_by(S::LANES) {
            // The next rows, which lie behind these, a part each: see `stencil.rs`.
            for r in 0..R * if SPLIT { 4 } else { 1 } {
                s.prefetch(pair.planes[0], next + x * R * if SPLIT { 4 } else { 1 } + r * S::LANES);
            }
            for r in 0..R {
                s.prefetch(diffs, R * outputs + x * R + r * S::LANES);
            }
            let mut diff = [s.splat(0.0); R];
            if outputs - x >= S::LANES {
                let at = diff_rows.at(x, S::LANES);
                for r in 0..R {
                    diff[r] = s.load(at.row(r));
                }
            } else {
                let at = diff_rows.at(x, outputs - x);
                for r in 0..R {
                    diff[r] = s.load_first(at.row(r));
                }
            }
            // Pixels beyond those that the last output reads must not meet its zeros: they may be anything.
            let (pixel, most) = if SPLIT { (2 * x, 2 * (outputs - x)) } else { (x, outputs - x) };
            let mut reads = [[Read::new::<S>(0, width, most); 2]; C];
            let mut inside = true;
            for c in 0..C {
                let at = pixel as isize + columns[c];
                reads[c] = [Read::new::<S>(at, width, most); 2];
                if SPLIT {
                    reads[c][1] =
                        Read::new::<S>(at + S::LANES as isize, width, most.saturating_sub(S::LANES));
                }
                inside &= reads[c][0].is_whole::<S>() && reads[c][1].is_whole::<S>();
            }
            if inside {
                whole::<S, SPLIT, K, C, R, N>(s, &rows, &reads, &diff, &mut acc);
            } else {
                // Not a loop: it is too long to be unrolled, and then sums are in memory.
                each!(Q in 0 1 2 {
                    if const { Q < C } {
                        any_column::<S, SPLIT, K, R, N>(s, &rows, reads[Q], &diff, &mut acc[Q]);
                    }
                });
            }
        }
    }
    for c in 0..C {
        for k in 0..K {
            s.store(acc[c][k], &mut sums[(c * K + k) * S::LANES..]);
        }
    }
}

/// Whether sums, rows of `diff_dst`, pixels and zeros fit the registers.
const fn fits(registers: usize, k: usize, columns: usize, rows: usize) -> bool {
    k * columns + rows + 2 <= registers
}

type Entry<S> = fn(S, &Pair<'_>, &mut [f32]);

/// Tables of function pointers: `[kernel rows][columns - 1][rows]`.
struct Table<S, const SPLIT: bool>(core::marker::PhantomData<S>);

macro_rules! table {
    ($($k:literal)*) => { [$(table!(@columns $k; 1 2 3)),*] };
    (@columns $k:literal; $($c:literal)*) => { [$(table!(@rows $k $c; 1 4 7)),*] };
    (@rows $k:literal $c:literal; $($r:literal)*) => {
        [$(|s, pair, sums| s.vectorize(#[inline(always)] |s| {
            // Three columns of more rows than three make no kernel faster: there are sums enough that none waits for its last addition.
            if const { fits(S::REGISTERS, $k, $c, $r) && ($k == 3 || $c < 3) } {
                if SPLIT {
                    add::<S, true, $k, $c, $r, { ($r - 1) * 2 + $k }>(s, pair, sums);
                } else {
                    add::<S, false, $k, $c, $r, { $r - 1 + $k }>(s, pair, sums);
                }
            } else {
                unreachable!("{} rows and {} columns do not fit the registers", $r, $c);
            }
        })),*]
    };
}

impl<S: Simd, const SPLIT: bool> Table<S, SPLIT> {
    const ENTRIES: [[[Entry<S>; ROWS.len()]; MOST]; WINDOWS.len()] = table!(3 5 7);
}

impl<S: Simd> Moments for S {
    fn lanes(&self) -> usize {
        S::LANES
    }

    fn most(&self, shape: Shape) -> usize {
        let most = if shape.k == 3 { MOST } else { 2 };
        (1..=most).rev().find(|c| fits(S::REGISTERS, shape.k, *c, ROWS[1])).unwrap_or(1)
    }

    fn rows(&self, shape: Shape, columns: usize) -> &'static [usize] {
        &ROWS[..ROWS.iter().filter(|rows| fits(S::REGISTERS, shape.k, columns, **rows)).count()]
    }

    fn add(&self, shape: Shape, rows: usize, pair: &Pair<'_>, sums: &mut [f32]) {
        let entries = if shape.split { &Table::<S, true>::ENTRIES } else { &Table::<S, false>::ENTRIES };
        entries[place(&WINDOWS, shape.k)][pair.columns.len() - 1][place(&ROWS, rows)](*self, pair, sums);
    }

    fn fold(&self, sums: &[f32], weights: &mut [f32]) {
        self.vectorize(
            #[inline(always)]
            |s| {
                for (weight, parts) in weights.iter_mut().zip(sums.chunks_exact(S::LANES)) {
                    *weight = s.sum(s.load(parts));
                }
            },
        );
    }
}

/// The calls of an instruction set.
pub(crate) fn moments(isa: Isa) -> Box<dyn Moments> {
    fn boxed<S: Simd>(s: S) -> Box<dyn Moments> {
        Box::new(s)
    }
    dispatch!(isa, s => boxed(s))
}
