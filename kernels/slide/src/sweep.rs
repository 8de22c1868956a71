//! The micro-kernel of few channels: one column of the kernel window slides down some rows of an image.
//!
//! `acc[r] += sum over columns q, kernel rows k of  weights(q)[k] * rows[r*ST + k][x(q)]`,  r < R output rows, one vector each
//!
//! An input row that is loaded serves every output row whose window contains it: R*K multiply-adds for (R - 1)*ST + K loads and K
//! weights. What the lanes are is the caller's choice, and so one nest serves both layouts:
//!
//! | lanes | weights | a position is | from one column of the window to the next |
//! |---|---|---|---|
//! | channels (NHWC, depthwise) | vectors | a pixel | one pixel: C floats |
//! | pixels (planes of one channel each) | broadcast | a vector of pixels | one float; another plane, when channels are summed |
//!
//! Columns are a list, so dilation, several input channels and kernels cut into pieces are offsets. The loop over columns is a run-time
//! loop on purpose: with it unrolled as well, LLVM gives up on nests of more than about a hundred multiply-adds and puts the
//! accumulators into memory.

use convolve_core::BlockMut;
use convolve_gemm::UNCLAMPED;
use convolve_simd::{Isa, Rows, Simd, dispatch};
use core::ops::Range;

/// Most output rows of any tile.
pub(crate) const MAX_R: usize = 8;
/// Most kernel rows of a column.
pub(crate) const MAX_K: usize = 7;
/// Most input rows of a tile.
pub(crate) const MAX_ROWS: usize = (MAX_R - 1) * 2 + MAX_K;

/// Positions that have the same valid columns.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) positions: Range<usize>,
    pub(crate) columns: Range<usize>,
}

/// What accumulators start from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Init<'a> {
    Zero,
    /// One number per plane, or one per lane.
    Bias(&'a [f32]),
    Dst,
}

/// Everything that one sweep over a group of output rows reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sweep<'a> {
    /// Input rows, (R - 1)*ST + K of them.
    pub(crate) rows: &'a [&'a [f32]],
    /// Per vector of a position: `[column][K]` vectors; or numbers that serve all vectors, per plane.
    pub(crate) weights: &'a [f32],
    /// Where the columns of the window read, relative to the position; modulo 2^64, as they may lie before it.
    pub(crate) columns: &'a [usize],
    pub(crate) spans: &'a [Span],
    /// Floats from one position to the next in the input rows.
    pub(crate) advance: usize,
    /// Planes of the output, one after the other; and floats from one to the next in the input rows and in the weights.
    pub(crate) planes: usize,
    pub(crate) plane_steps: [usize; 2],
    /// Vectors of a position that are swept before the next position is: what is read again stays in L1.
    pub(crate) block: usize,
    pub(crate) init: Init<'a>,
    pub(crate) clamp: [f32; 2],
    /// Where position 0 of the first output row goes: plane, row, float; rows and positions are `steps` apart.
    pub(crate) to: [usize; 3],
    pub(crate) steps: [usize; 2],
    /// Outputs of a position (lanes are channels) or of a row (lanes are pixels).
    pub(crate) width: usize,
}

/// The shape of a tile: what selects a function of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Whether weights are numbers that serve all lanes.
    pub(crate) splat: bool,
    /// Kernel rows, 1 to [`MAX_K`].
    pub(crate) k: usize,
    /// Input rows from one output row to the next: 1 or 2.
    pub(crate) stride: usize,
}

/// `to[row*to_pitch + i] = from[row*from_pitch + i*by]` for `rows` rows of `len` numbers, taken from `from_len` of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowCopy {
    pub(crate) rows: usize,
    pub(crate) by: usize,
    pub(crate) len: usize,
    pub(crate) from_len: usize,
    pub(crate) from_pitch: usize,
    pub(crate) to_pitch: usize,
}

/// A copy by vectors, of which the last may overlap the one before: `memcpy` costs more than a short row.
#[inline(always)]
fn copy_row<S: Simd>(s: S, from: &[f32], to: &mut [f32]) {
    let len = to.len();
    let from = &from[..len];
    if len < S::LANES {
        return s.store_first(s.load_first(from), to);
    }
    let mut at = 0;
    while at + S::LANES <= len {
        s.store(s.load(&from[at..]), &mut to[at..]);
        at += S::LANES;
    }
    if at < len {
        s.store(s.load(&from[len - S::LANES..]), &mut to[len - S::LANES..]);
    }
}

#[inline(always)]
fn every_second(from: &[f32], to: &mut [f32]) {
    let (pairs, rest) = from.as_chunks::<2>();
    let whole = to.len().min(pairs.len());
    to.iter_mut().zip(pairs).for_each(|(to, [even, _])| *to = *even);
    if let Some(to) = to.get_mut(whole) {
        *to = rest[0];
    }
}

/// Sweeps of one instruction set.
pub(crate) trait Sweeper: Send + Sync {
    /// Lanes of a vector.
    fn lanes(&self) -> usize;
    /// Most output rows of a sweep with K kernel rows.
    fn rows(&self, k: usize) -> usize;
    /// Computes `rows` output rows.
    fn sweep(&self, shape: Shape, rows: usize, sweep: &Sweep<'_>, dst: &mut BlockMut<'_, f32>);
    /// Copies every `by`-th number of some rows.
    fn copy_rows(&self, copy: &RowCopy, from: &[f32], to: &mut [f32]);
    /// Joins two lists by turns: `to[2i] = even[i]`, `to[2i + 1] = odd[i]`.
    fn by_turns(&self, even: &[f32], odd: &[f32], to: &mut [f32]);
}

/// `each!(I in 0 1 2 { .. })`: the block once for each number, which is a constant in it. A loop would do, if LLVM unrolled loops of more
/// than ten rounds whose rounds differ; it does not, and the sums are then in memory (a quarter of the speed).
macro_rules! each {
    ($i:ident in $($n:literal)* $body:block) => {
        $({
            const $i: usize = $n;
            $body
        })*
    };
}

pub(crate) use each;

/// One tile: R rows of one vector. `weights` are those of its columns, `x` is where it reads (without the column), `at` where it is
/// written, `part` how much of the vector.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "what, from where, to where")]
fn tile<
    S: Simd,
    const SPLAT: bool,
    const PART: bool,
    const K: usize,
    const ST: usize,
    const R: usize,
    const N: usize,
>(
    s: S,
    call: &Sweep<'_>,
    rows: &Rows<'_, N>,
    columns: &[usize],
    weights: &[f32],
    start: S::F32,
    x: usize,
    dst: &mut [&mut [f32]; R],
    at: usize,
    part: usize,
) {
    let width = if SPLAT { 1 } else { S::LANES };
    let mut acc = [start; R];
    if call.init == Init::Dst {
        for r in 0..R {
            acc[r] = if PART { s.load_first(&dst[r][at..at + part]) } else { s.load(&dst[r][at..]) };
        }
    }
    for (column, weights) in columns.iter().zip(weights.chunks_exact(K * width)) {
        let mut w = [s.splat(0.0); K];
        for k in 0..K {
            w[k] = if SPLAT { s.splat(weights[k]) } else { s.load(&weights[k * width..]) };
        }
        let x = x.wrapping_add(*column);
        let rows = if PART && !SPLAT { rows.up_to(x, S::LANES) } else { rows.at(x, S::LANES) };
        each!(I in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 {
            if I < N {
                let value = if PART && !SPLAT { s.load_first(rows.row(I)) } else { s.load(rows.row(I)) };
                let value = s.in_order(value);
                each!(J in 0 1 2 3 4 5 6 {
                    let r = I.wrapping_sub(J) / ST;
                    if J < K && I >= J && (I.wrapping_sub(J)).is_multiple_of(ST) && r < R {
                        // In order: a step that nothing waits for would be put off, and its operands kept.
                        acc[r] = s.in_order(s.mul_add(value, w[J], acc[r]));
                    }
                });
                // Read once more, so that no sum moves into its register: each would need a copy at the end of the round.
                s.in_order(value);
            }
        });
    }
    if call.clamp != UNCLAMPED {
        let [least, greatest] = call.clamp.map(|bound| s.splat(bound));
        for r in 0..R {
            acc[r] = s.min(greatest, s.max(least, acc[r]));
        }
    }
    for r in 0..R {
        if PART {
            s.store_first(acc[r], &mut dst[r][at..at + part])
        } else {
            s.store(acc[r], &mut dst[r][at..])
        }
    }
}

#[inline(always)]
fn sweep<S: Simd, const SPLAT: bool, const K: usize, const ST: usize, const R: usize, const N: usize>(
    s: S,
    call: &Sweep<'_>,
    dst: &mut BlockMut<'_, f32>,
) {
    let rows: Rows<'_, N> = Rows::new(call.rows);
    let (width, vectors) = if SPLAT { (1, 1) } else { (S::LANES, call.width.div_ceil(S::LANES)) };
    for plane in 0..call.planes {
        let mut dst: [&mut [f32]; R] = dst.rows(call.to[0] + plane, call.to[1], call.steps[0]);
        for first in (0..vectors).step_by(call.block) {
            for Span { positions, columns } in call.spans {
                let within = columns.start * K * width..columns.end * K * width;
                let columns = &call.columns[columns.clone()];
                for position in positions.clone() {
                    let x = position * call.advance + plane * call.plane_steps[0];
                    let at = call.to[2] + position * call.steps[1];
                    for lane in (first..vectors.min(first + call.block)).map(|vector| vector * S::LANES) {
                        let panel =
                            if SPLAT { plane * call.plane_steps[1] } else { lane * K * call.columns.len() };
                        let weights = &call.weights[panel..][within.clone()];
                        let start = match call.init {
                            Init::Bias(bias) if SPLAT => s.splat(bias[plane]),
                            Init::Bias(bias) => s.load_first(&bias[lane..]),
                            _ => s.splat(0.0),
                        };
                        let part = call.width - if SPLAT { position * S::LANES } else { lane };
                        let (x, at) = (x + lane, at + lane);
                        if part >= S::LANES {
                            tile::<S, SPLAT, false, K, ST, R, N>(
                                s, call, &rows, columns, weights, start, x, &mut dst, at, part,
                            );
                        } else {
                            tile::<S, SPLAT, true, K, ST, R, N>(
                                s, call, &rows, columns, weights, start, x, &mut dst, at, part,
                            );
                        }
                    }
                }
            }
        }
    }
}

/// Most output rows of a tile of K kernel rows: sums, a column of weights, an input and one register to spare.
pub(crate) const fn most_rows(registers: usize, k: usize) -> usize {
    let rows = registers - 2 - k;
    if rows < MAX_R { rows } else { MAX_R }
}

type Entry<S> = fn(S, &Sweep<'_>, &mut BlockMut<'_, f32>);

/// A static table of function pointers, as in the product's micro-kernel, and for the same reason: `[stride - 1][k - 1][rows - 1]`.
struct Table<S, const SPLAT: bool>(core::marker::PhantomData<S>);

macro_rules! table {
    ($($k:literal)*) => { [table!(@stride 1; $($k)*), table!(@stride 2; $($k)*)] };
    (@stride $stride:literal; $($k:literal)*) => { [$(table!(@rows $stride $k; 1 2 3 4 5 6 7 8)),*] };
    (@rows $stride:literal $k:literal; $($r:literal)*) => {
        [$(|s, call, dst| s.vectorize(#[inline(always)] |s| {
            if const { $r <= most_rows(S::REGISTERS, $k) } {
                sweep::<S, SPLAT, $k, $stride, $r, { ($r - 1) * $stride + $k }>(s, call, dst);
            } else {
                unreachable!("{} rows do not fit the registers", $r);
            }
        })),*]
    };
}

impl<S: Simd, const SPLAT: bool> Table<S, SPLAT> {
    const ENTRIES: [[[Entry<S>; MAX_R]; MAX_K]; 2] = table!(1 2 3 4 5 6 7);
}

impl<S: Simd> Sweeper for S {
    fn lanes(&self) -> usize {
        S::LANES
    }

    fn rows(&self, k: usize) -> usize {
        most_rows(S::REGISTERS, k)
    }

    fn sweep(&self, shape: Shape, rows: usize, sweep: &Sweep<'_>, dst: &mut BlockMut<'_, f32>) {
        let table = if shape.splat { &Table::<S, true>::ENTRIES } else { &Table::<S, false>::ENTRIES };
        table[shape.stride - 1][shape.k - 1][rows - 1](*self, sweep, dst);
    }

    fn copy_rows(&self, copy: &RowCopy, from: &[f32], to: &mut [f32]) {
        self.vectorize(
            #[inline(always)]
            |s| {
                for row in 0..copy.rows {
                    let from = &from[row * copy.from_pitch..][..copy.from_len];
                    let to = &mut to[row * copy.to_pitch..][..copy.len];
                    match copy.by {
                        1 => copy_row(s, from, to),
                        2 => every_second(from, to),
                        by => to.iter_mut().zip(from.iter().step_by(by)).for_each(|(to, x)| *to = *x),
                    }
                }
            },
        );
    }

    fn by_turns(&self, even: &[f32], odd: &[f32], to: &mut [f32]) {
        self.vectorize(
            #[inline(always)]
            |_| {
                let (pairs, rest) = to.as_chunks_mut::<2>();
                for ((pair, even), odd) in pairs.iter_mut().zip(even).zip(odd) {
                    *pair = [*even, *odd];
                }
                if let [last] = rest {
                    *last = even[pairs.len()];
                }
            },
        );
    }
}

/// The sweeps of an instruction set.
pub(crate) fn sweeper(isa: Isa) -> Box<dyn Sweeper> {
    fn boxed<S: Simd>(s: S) -> Box<dyn Sweeper> {
        Box::new(s)
    }
    dispatch!(isa, s => boxed(s))
}
