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

use convolve_core::{BlockMut, RowsOfPlanes};
use convolve_gemm::UNCLAMPED;
use convolve_simd::{Bypass, Isa, Simd, Strip, bypass, dispatch, each};
use core::ops::Range;

/// Output rows that tiles may have. Any number of rows is a sum of these, and images of 7, 14, 28, 56 rows are whole tiles; a kernel for each
/// of 1 to 8 would double what there is to compile.
const ROWS: [usize; 5] = [1, 2, 4, 7, 8];
/// Kernel rows that tiles may have.
pub(crate) const KERNELS: [usize; 6] = [1, 2, 3, 4, 5, 7];
/// Most kernel rows of a column.
pub(crate) const MAX_K: usize = 7;
/// Most lanes of a vector.
const MAX_LANES: usize = 16;
/// Positions that have the same valid columns.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) positions: Range<usize>,
    pub(crate) columns: Range<usize>,
    /// Whether vectors of pixels may reach across an end of their row, where zeros are read.
    pub(crate) across: bool,
}

/// Where a sweep reads: (R - 1)*ST + K rows, of which those that lie outside the image are absent.
#[derive(Clone, Debug)]
pub(crate) struct Source<'a> {
    pub(crate) data: &'a [f32],
    /// Where the first row starts, from `data` on, and how far apart they are.
    pub(crate) start: isize,
    pub(crate) pitch: usize,
    pub(crate) present: Range<usize>,
    /// Where lanes are pixels, floats of a row: those before and beyond are zeros. Without end when rows are padded.
    pub(crate) len: usize,
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
#[derive(Clone, Debug)]
pub(crate) struct Sweep<'a> {
    pub(crate) source: Source<'a>,
    /// Per vector of a position: `[column][K]` vectors; or numbers that serve all vectors, per plane.
    pub(crate) weights: &'a [f32],
    /// Where the columns of the window read, relative to the position: in its row, modulo 2^64 as they may lie before it, and in which plane.
    pub(crate) columns: &'a [[usize; 2]],
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
    /// How many positions ahead the first column of the window and the outputs are asked for; 0 where operands lie in a cache.
    pub(crate) ahead: usize,
    /// Outputs go past the caches: nobody has read them, and nobody will soon.
    pub(crate) past: bool,
}

/// The shape of a tile: what selects a function of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Whether weights are numbers that serve all lanes.
    pub(crate) splat: bool,
    /// Kernel rows, one of [`KERNELS`].
    pub(crate) k: usize,
    /// Input rows from one output row to the next: 1 or 2.
    pub(crate) stride: usize,
    /// Planes that are swept together, 1 or 2: they read the same input.
    pub(crate) planes: usize,
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

/// Every second number, from the first on, as [`copy_row`] copies all. (What a compiler makes of short rows ends with many single numbers.)
#[inline(always)]
fn every_second<S: Simd>(s: S, from: &[f32], to: &mut [f32]) {
    let len = to.len();
    let from = &from[..(2 * len).saturating_sub(1)];
    let evens = |at: usize, count: usize| {
        let halves = [&from[2 * at..], &from[(2 * at + S::LANES).min(from.len())..][..count]];
        s.deinterleave(s.load_first(halves[0]), s.load_first(halves[1])).0
    };
    if len < S::LANES {
        return s.store_first(evens(0, from.len().saturating_sub(S::LANES)), to);
    }
    let mut at = 0;
    while at + S::LANES < len {
        s.store(evens(at, S::LANES), &mut to[at..]);
        at += S::LANES;
    }
    // The very last number has no neighbour.
    s.store(evens(len - S::LANES, S::LANES - 1), &mut to[len - S::LANES..]);
}

/// Sweeps of one instruction set.
pub(crate) trait Sweeper: Send + Sync {
    /// Lanes of a vector.
    fn lanes(&self) -> usize;
    /// Output rows that tiles of that shape may have, in increasing order.
    fn rows(&self, shape: Shape) -> &'static [usize];
    /// Most planes that are swept together.
    fn planes(&self) -> usize;
    /// Computes `rows` output rows.
    fn sweep(&self, shape: Shape, rows: usize, sweep: &Sweep<'_>, dst: &mut BlockMut<'_, f32>);
    /// Copies every `by`-th number of some rows.
    fn copy_rows(&self, copy: &RowCopy, from: &[f32], to: &mut [f32]);
    /// Joins two lists by turns: `to[2i] = even[i]`, `to[2i + 1] = odd[i]`.
    fn by_turns(&self, even: &[f32], odd: &[f32], to: &mut [f32]);
    /// For each pixel, `pitch` floats apart, one vector for each of the `orders` (LANES entries each): its lanes in that order.
    fn fan(&self, from: &[f32], pitch: usize, orders: &[u32], to: &mut [f32]);
}

/// The output row that reads input row `i` through kernel row `k`; a number beyond all rows if there is none.
pub(crate) const fn output_row(i: usize, k: usize, stride: usize) -> usize {
    if i < k || !(i - k).is_multiple_of(stride) { usize::MAX } else { (i - k) / stride }
}

/// Where a tile works.
#[derive(Clone, Copy)]
struct Place<'a, V, const D: usize> {
    /// The columns of the window that lie inside, and their weights, those of the first plane first.
    columns: &'a [[usize; 2]],
    weights: [&'a [f32]; D],
    /// What the sums of each plane start from.
    start: [V; D],
    /// Where it reads (without the column) and where it writes.
    x: usize,
    to: usize,
    /// Outputs from the first position on.
    part: usize,
}

/// Asks for what a tile some positions ahead reads, and for what it writes unless that goes past the caches: memory that is not in a cache has too many rows
/// here for the CPU to see their pattern by itself.
#[inline(always)]
fn ask<S: Simd, const D: usize, const X: usize, const N: usize, const R: usize>(
    s: S,
    call: &Sweep<'_>,
    x: usize,
    to: usize,
    dst: &mut RowsOfPlanes<'_, f32, D, R>,
) {
    let first = call.source.start.wrapping_add_unsigned(x.wrapping_add(call.ahead * call.advance)) as usize;
    for p in 0..X {
        for row in 0..N {
            s.prefetch(call.source.data, first.wrapping_add(p * call.advance + row * call.source.pitch));
        }
    }
    for d in 0..D {
        for p in 0..X {
            for r in 0..R {
                let (row, at) = (dst.row(d, r), to + (call.ahead + p) * call.steps[1]);
                if !call.past || !s.goes_past(row.get(at..).unwrap_or_default()) {
                    s.prefetch(row, at);
                }
            }
        }
    }
}

/// One tile: R rows of X neighbouring positions in D planes. Planes share the input, positions the weights. At an EDGE rows may be absent and vectors reach across the end of a row.
///
/// What is together is computed by turns: a sum waits four cycles for its last addition, and a row of the input gives each K of them.
#[inline(always)]
fn tile<
    S: Simd,
    const SPLAT: bool,
    const EDGE: bool,
    const D: usize,
    const X: usize,
    const K: usize,
    const ST: usize,
    const R: usize,
    const N: usize,
>(
    s: S,
    call: &Sweep<'_>,
    strip: &Strip<'_, N>,
    place: Place<'_, S::F32, D>,
    dst: &mut RowsOfPlanes<'_, f32, D, R>,
    past: Option<&Bypass>,
) {
    let Place { columns, weights, start, x, to, part } = place;
    let width = if SPLAT { 1 } else { S::LANES };
    // Outputs from position p on.
    let left = |p: usize| if SPLAT { part - p * S::LANES } else { part };
    let mut acc = [[[start[0]; R]; X]; D];
    for d in 0..D {
        for p in 0..X {
            for r in 0..R {
                let from = &dst.row(d, r)[to + p * call.steps[1]..];
                acc[d][p][r] = match call.init {
                    Init::Dst if EDGE => s.load_first(&from[..left(p)]),
                    Init::Dst => s.load(from),
                    _ => start[d],
                };
            }
        }
    }
    let weights = weights.map(|weights| &weights[..columns.len() * K * width]);
    if !EDGE && call.ahead > 0 {
        ask::<S, D, X, N, R>(s, call, x, to, dst);
    }
    for (index, [column, plane]) in columns.iter().enumerate() {
        let mut w = [[s.splat(0.0); K]; D];
        for d in 0..D {
            let weights = &weights[d][index * K * width..][..K * width];
            for k in 0..K {
                w[d][k] = if SPLAT { s.splat(weights[k]) } else { s.load(&weights[k * width..]) };
            }
        }
        let x = x.wrapping_add(*column);
        let mut at = [x as isize; X];
        for p in 0..X {
            at[p] = x.wrapping_add(p * call.advance) as isize;
        }
        // No closures from here on: one that is not inlined takes all sums through memory.
        macro_rules! slide {
            ($p:ident => $next:expr) => {
                each!(I in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 {
                    if const { I < (R - 1) * ST + K } {
                        for $p in 0..X {
                            if let Some(value) = $next {
                                let value = s.in_order(value);
                                for k in 0..K {
                                    let r = output_row(I, k, ST);
                                    if r < R {
                                        for d in 0..D {
                                            // In order: a step that nothing waits for would be put off, and its operands kept.
                                            acc[d][$p][r] = s.in_order(s.mul_add(value, w[d][k], acc[d][$p][r]));
                                        }
                                    }
                                }
                                // Read once more, so that no sum moves into its register: each would need a copy at the end of the round.
                                s.in_order(value);
                            }
                        }
                    }
                })
            };
        }
        if EDGE {
            let len = if SPLAT { call.source.len } else { part };
            let place = |p: usize| at[p].wrapping_add_unsigned(*plane);
            let mut rows = [strip.across(s, place(0), if SPLAT { at[0] } else { 0 }, len); X];
            for p in 1..X {
                rows[p] = strip.across(s, place(p), if SPLAT { at[p] } else { 0 }, len);
            }
            slide!(p => rows[p].next_row());
        } else {
            let mut rows = [strip.at(s, at[0].wrapping_add_unsigned(*plane)); X];
            for p in 1..X {
                rows[p] = strip.at(s, at[p].wrapping_add_unsigned(*plane));
            }
            slide!(p => Some(rows[p].next_row()));
        }
    }
    if call.clamp != UNCLAMPED {
        let [least, greatest] = [s.splat(call.clamp[0]), s.splat(call.clamp[1])];
        for d in 0..D {
            for p in 0..X {
                for r in 0..R {
                    acc[d][p][r] = s.min(greatest, s.max(least, acc[d][p][r]));
                }
            }
        }
    }
    for d in 0..D {
        for p in 0..X {
            for r in 0..R {
                let (sum, row) = (acc[d][p][r], &mut dst.row(d, r)[to + p * call.steps[1]..]);
                match past {
                    _ if EDGE => s.store_first(sum, &mut row[..left(p)]),
                    Some(past) => s.store_past(sum, row, past),
                    None => s.store(sum, row),
                }
            }
        }
    }
}

/// A sweep over D planes at a time, which must divide their number, R rows of them, and up to X positions at a time.
#[inline(always)]
fn sweep<
    S: Simd,
    const SPLAT: bool,
    const D: usize,
    const X: usize,
    const K: usize,
    const ST: usize,
    const R: usize,
    const N: usize,
>(
    s: S,
    call: &Sweep<'_>,
    dst: &mut BlockMut<'_, f32>,
    past: Option<&Bypass>,
) {
    let Source { data, start, pitch, ref present, .. } = call.source;
    let (width, vectors) = if SPLAT { (1, 1) } else { (S::LANES, call.width.div_ceil(S::LANES)) };
    for plane in (0..call.planes).step_by(D) {
        let mut dst = dst.rows_of_planes::<D, R>([call.to[0] + plane, call.to[1]], call.steps[0]);
        let start = start + (plane * call.plane_steps[0]) as isize;
        let strip: Strip<'_, N> = Strip::new(data, start, pitch, present.clone());
        for first in (0..vectors).step_by(call.block) {
            for Span { positions, columns, across } in call.spans {
                let within = columns.start * K * width;
                let columns = &call.columns[columns.clone()];
                let edge = *across || !strip.is_whole();
                for position in positions.clone().step_by(X) {
                    let all = position + X <= positions.end;
                    for lane in (first..vectors.min(first + call.block)).map(|vector| vector * S::LANES) {
                        let panel = |d: usize| match SPLAT {
                            true => (plane + d) * call.plane_steps[1],
                            false => lane * K * call.columns.len(),
                        };
                        let (mut starts, mut weights) = ([s.splat(0.0); D], [call.weights; D]);
                        for d in 0..D {
                            starts[d] = match call.init {
                                Init::Bias(bias) if SPLAT => s.splat(bias[plane + d]),
                                Init::Bias(bias) => s.load_first(&bias[lane..]),
                                _ => s.splat(0.0),
                            };
                            weights[d] = &call.weights[panel(d) + within..];
                        }
                        let place = Place {
                            columns,
                            weights,
                            start: starts,
                            x: position * call.advance + lane,
                            to: call.to[2] + position * call.steps[1] + lane,
                            part: call.width - if SPLAT { position * S::LANES } else { lane },
                        };
                        let whole = place.part >= if SPLAT { X * S::LANES } else { S::LANES };
                        if all && whole && !edge {
                            tile::<S, SPLAT, false, D, X, K, ST, R, N>(
                                s, call, &strip, place, &mut dst, past,
                            );
                        } else if X > 1 && all {
                            tile::<S, SPLAT, true, D, X, K, ST, R, N>(s, call, &strip, place, &mut dst, past);
                        } else {
                            tile::<S, SPLAT, true, D, 1, K, ST, R, N>(s, call, &strip, place, &mut dst, past);
                        }
                    }
                }
            }
        }
    }
}

/// Whether a tile of that many rows fits the registers: sums, a column of weights, an input and one to spare.
const fn fits(registers: usize, shape: Shape, rows: usize) -> bool {
    // A single kernel row has no stride.
    rows + shape.k + 2 <= registers && (shape.k > 1 || shape.stride == 1)
}

/// Planes, or positions, that a tile takes together: two where the registers hold them. Then no sum waits for its last addition, and a
/// weight, or an input, is loaded once for both.
pub(crate) const fn together(registers: usize) -> usize {
    if registers >= 32 { 2 } else { 1 }
}

type Entry<S> = fn(S, &Sweep<'_>, &mut BlockMut<'_, f32>);

/// A static table of function pointers, as in the product's micro-kernel, and for the same reason: `[stride - 1][k][rows]`, by their
/// places in [`KERNELS`] and [`ROWS`].
struct Table<S, const SPLAT: bool, const D: usize>(core::marker::PhantomData<S>);

macro_rules! table {
    ($($k:literal)*) => { [table!(@stride 1; $($k)*), table!(@stride 2; $($k)*)] };
    (@stride $stride:literal; $($k:literal)*) => { [$(table!(@rows $stride $k; 1 2 4 7 8)),*] };
    (@rows $stride:literal $k:literal; $($r:literal)*) => {
        [$(|s, call, dst| s.vectorize(#[inline(always)] |s| bypass(call.past, #[inline(always)] |past| {
            const INPUTS: usize = ($r - 1) * $stride + $k;
            if const { !fits(S::REGISTERS, Shape { splat: SPLAT, k: $k, stride: $stride, planes: D }, $r) || D > together(S::REGISTERS) } {
                unreachable!("{} rows of {} planes do not fit the registers", $r, D);
            } else if const { D == 1 && together(S::REGISTERS) == 2 } {
                sweep::<S, SPLAT, D, 2, $k, $stride, $r, INPUTS>(s, call, dst, past);
            } else {
                sweep::<S, SPLAT, D, 1, $k, $stride, $r, INPUTS>(s, call, dst, past);
            }
        }))),*]
    };
}

impl<S: Simd, const SPLAT: bool, const D: usize> Table<S, SPLAT, D> {
    const ENTRIES: [[[Entry<S>; ROWS.len()]; KERNELS.len()]; 2] = table!(1 2 3 4 5 7);
}

impl<S: Simd> Sweeper for S {
    fn lanes(&self) -> usize {
        S::LANES
    }

    fn rows(&self, shape: Shape) -> &'static [usize] {
        &ROWS[..ROWS.iter().filter(|rows| fits(S::REGISTERS, shape, **rows)).count()]
    }

    fn planes(&self) -> usize {
        together(S::REGISTERS)
    }

    fn sweep(&self, shape: Shape, rows: usize, sweep: &Sweep<'_>, dst: &mut BlockMut<'_, f32>) {
        let table = match (shape.splat, shape.planes) {
            (false, _) => &Table::<S, false, 1>::ENTRIES,
            (true, 1) => &Table::<S, true, 1>::ENTRIES,
            (true, _) => &Table::<S, true, 2>::ENTRIES,
        };
        let [k, rows] = [place(&KERNELS, shape.k), place(&ROWS, rows)];
        table[shape.stride - 1][k][rows](*self, sweep, dst);
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
                        2 => every_second(s, from, to),
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

    fn fan(&self, from: &[f32], pitch: usize, orders: &[u32], to: &mut [f32]) {
        let pixel = orders.len();
        self.vectorize(
            #[inline(always)]
            |s| {
                for (first, some) in orders.chunks(4 * S::LANES).enumerate() {
                    let start = first * 4 * S::LANES;
                    match some.len() / S::LANES {
                        1 => fan::<S, 1>(s, from, pitch, some, to, [start, pixel]),
                        2 => fan::<S, 2>(s, from, pitch, some, to, [start, pixel]),
                        3 => fan::<S, 3>(s, from, pitch, some, to, [start, pixel]),
                        _ => fan::<S, 4>(s, from, pitch, some, to, [start, pixel]),
                    }
                }
            },
        );
    }
}

/// J vectors of each pixel, from `start` of its `pixel` floats on; their orders stay in registers.
#[inline(always)]
fn fan<S: Simd, const J: usize>(
    s: S,
    from: &[f32],
    pitch: usize,
    orders: &[u32],
    to: &mut [f32],
    [start, pixel]: [usize; 2],
) {
    let mut lanes = [[0; MAX_LANES]; J];
    for (lanes, order) in lanes.iter_mut().zip(orders.chunks_exact(S::LANES)) {
        lanes[..S::LANES].copy_from_slice(order);
    }
    for (i, to) in to.chunks_exact_mut(pixel).enumerate() {
        let v = s.load_first(&from[i * pitch..]);
        let to = &mut to[start..start + J * S::LANES];
        for j in 0..J {
            s.store(s.permute(v, &lanes[j]), &mut to[j * S::LANES..]);
        }
    }
}

pub(crate) fn place(list: &[usize], number: usize) -> usize {
    list.iter().position(|entry| *entry == number).expect("the tile is in the table")
}

/// The sweeps of an instruction set.
pub(crate) fn sweeper(isa: Isa) -> Box<dyn Sweeper> {
    fn boxed<S: Simd>(s: S) -> Box<dyn Sweeper> {
        Box::new(s)
    }
    dispatch!(isa, s => boxed(s))
}
