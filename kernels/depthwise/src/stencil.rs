//! The micro-kernel: a window of `K` rows slides down some rows of a plane, a register of neighbouring outputs wide.
//!
//! `acc[r][lane] += sum over columns c, kernel rows k of  weights(c)[k] * row[r*ST + k][x + lane + d(c)]`,  r < R output rows
//!
//! An input row that is loaded serves every output row whose window contains it. Nothing is copied: rows above and below the plane are one row of
//! zeros, and where a register begins before a row or ends beyond it, lanes are moved up or left out. Windows that step by two
//! (forward, [`Split`](Mode::Split)) read two registers and take them apart into two columns; outputs that step by two (backward-data,
//! [`Join`](Mode::Join)) are two sets of sums, of even and of odd pixels, which are joined where they are written.

use convolve_core::{BlockMut, RowsOfPlanes};
use convolve_simd::{Isa, Rows, RowsAt, Simd, dispatch, each};

/// Output rows that tiles may have, in increasing order.
const ROWS: [usize; 5] = [1, 2, 4, 7, MOST];
pub(crate) const MOST: usize = 14;

/// From pixels to outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Output `x` reads pixel `x + d`.
    Plain,
    /// Output `x` reads pixel `2 x + d`.
    Split,
    /// Outputs `2 x` and `2 x + 1` read pixel `x + d`.
    Join,
}

/// The shape of a tile: what selects a function of the table. Windows step by two in [`Mode::Split`], else by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) mode: Mode,
    /// Kernel rows.
    pub(crate) k: usize,
}

/// A column of the window, with `K` weights; in [`Mode::Split`] one or two neighbouring ones, with as many times `K`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    /// Where it reads, relative to the output.
    pub(crate) d: isize,
    /// In [`Mode::Split`] how many there are, in [`Mode::Join`] whether outputs are the even (0) or the odd ones (1).
    pub(crate) which: usize,
}

/// A tile of some planes, one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Tile<'a> {
    /// The first plane; rows and pixels of each.
    pub(crate) src: &'a [f32],
    pub(crate) size: [usize; 2],
    /// The first row of the first window.
    pub(crate) first: isize,
    /// A row of zeros.
    pub(crate) zeros: &'a [f32],
    pub(crate) columns: &'a [Column],
    /// Those of the first plane, from its first on, and how many a plane has.
    pub(crate) weights: &'a [f32],
    pub(crate) taps: usize,
    pub(crate) planes: usize,
    /// From one plane to the next: of `src`, of `weights`.
    pub(crate) steps: [usize; 2],
    /// One number per plane, or zeros.
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) clamp: [f32; 2],
    /// Whether results are added to what is there.
    pub(crate) add: bool,
    /// Whether outputs are asked for as well, a tile ahead: they do not fit the last cache. In a cache that takes up to a seventh longer.
    pub(crate) far: bool,
    /// Plane and row of the first output, and from one row to the next.
    pub(crate) to: [usize; 2],
    pub(crate) step: usize,
}

/// Tiles of one instruction set.
pub(crate) trait Stencil: Send + Sync {
    /// Lanes of a register.
    fn lanes(&self) -> usize;
    /// Output rows that tiles of a shape may have, in increasing order; none if there is no such shape.
    fn rows(&self, shape: Shape) -> &'static [usize];
    /// Computes a tile of `rows` output rows.
    fn run(&self, shape: Shape, rows: usize, tile: &Tile<'_>, dst: &mut BlockMut<'_, f32>);
}

/// A register of pixels from `x` on: `len` of them, moved up by `shift` lanes.
#[derive(Clone, Copy)]
pub(crate) struct Read {
    x: usize,
    pub(crate) len: usize,
    pub(crate) shift: usize,
}

impl Read {
    /// Lanes are moved up by a number that is not known when this is compiled.
    pub(crate) const ANY: usize = usize::MAX;

    /// Pixels `at`, `at + 1`, .. of a row of so many, for the first `most` lanes; others are zeros.
    #[inline(always)]
    pub(crate) fn new<S: Simd>(at: isize, width: usize, most: usize) -> Self {
        let (x, shift) =
            if at < 0 { (0, at.unsigned_abs().min(S::LANES)) } else { ((at as usize).min(width), 0) };
        Self { x, len: (width - x).min(most.saturating_sub(shift)).min(S::LANES), shift }
    }

    /// Whether every lane has its pixel.
    #[inline(always)]
    pub(crate) fn is_whole<S: Simd>(&self) -> bool {
        self.len == S::LANES && self.shift == 0
    }

    /// Whether no lane has a pixel.
    #[inline(always)]
    pub(crate) fn is_nothing<S: Simd>(&self) -> bool {
        self.len == 0 || self.shift == S::LANES
    }

    /// Where it reads; `ALL` lanes do.
    #[inline(always)]
    pub(crate) fn at<'r, 'a, S: Simd, const ALL: bool, const N: usize>(
        &self,
        rows: &'r Rows<'a, N>,
    ) -> RowsAt<'r, 'a, N> {
        rows.at(self.x, if ALL { S::LANES } else { self.len })
    }

    /// That of row `i`.
    #[inline(always)]
    pub(crate) fn row<S: Simd, const ALL: bool, const SHIFT: usize, const N: usize>(
        &self,
        s: S,
        at: &RowsAt<'_, '_, N>,
        i: usize,
    ) -> S::F32 {
        let mut v = if ALL { s.load(at.row(i)) } else { s.load_first(at.row(i)) };
        for _ in 0..if SHIFT == Read::ANY { self.shift } else { SHIFT } {
            v = s.shift_in(s.splat(0.0), v);
        }
        v
    }
}

/// Adds what pixels of input row `i` give to the sums of the windows that have the row.
#[inline(always)]
fn serve<S: Simd, const SPLIT: bool, const K: usize, const R: usize>(
    s: S,
    i: usize,
    pixels: S::F32,
    weights: &[S::F32; K],
    acc: &mut [S::F32; R],
) {
    let stride = if SPLIT { 2 } else { 1 };
    for k in 0..K.min(i + 1) {
        let row = i - k;
        if row.is_multiple_of(stride) && row / stride < R {
            // In order: all pixels would be loaded first, and sums spilled.
            acc[row / stride] = s.in_order(s.mul_add(pixels, weights[k], acc[row / stride]));
        }
    }
}

/// Adds what one column gives to all sums, or two columns.
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
    weights: &[f32],
    acc: &mut [S::F32; R],
) {
    // Said once, it is not asked for every row. (Of two registers the first may have all pixels.)
    assert!(ALL || SPLIT || SHIFT == Read::ANY || reads[0].len < S::LANES);
    let both = SPLIT && weights.len() == 2 * K;
    let mut w = [[s.splat(0.0); K]; 2];
    for k in 0..K {
        w[0][k] = s.splat(weights[k]);
        if both {
            w[1][k] = s.splat(weights[K + k]);
        }
    }
    let at = [reads[0].at::<S, ALL, N>(rows), reads[1].at::<S, ALL, N>(rows)];
    each!(I in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 {
        if const { I < N } {
            let mut v = [reads[0].row::<S, ALL, SHIFT, N>(s, &at[0], I); 2];
            if SPLIT {
                let shift = const { if SHIFT == Read::ANY { Read::ANY } else { 0 } };
                let second = if shift == Read::ANY {
                    reads[1].row::<S, ALL, { Read::ANY }, N>(s, &at[1], I)
                } else {
                    reads[1].row::<S, ALL, 0, N>(s, &at[1], I)
                };
                (v[0], v[1]) = s.deinterleave(v[0], second);
            }
            serve::<S, SPLIT, K, R>(s, I, s.in_order(v[0]), &w[0], acc);
            if both {
                serve::<S, SPLIT, K, R>(s, I, s.in_order(v[1]), &w[1], acc);
            }
        }
    });
}

/// The same, by what the reads are.
#[inline(always)]
fn any_column<S: Simd, const SPLIT: bool, const K: usize, const R: usize, const N: usize>(
    s: S,
    rows: &Rows<'_, N>,
    reads: [Read; 2],
    weights: &[f32],
    acc: &mut [S::F32; R],
) {
    let all = reads[0].len == S::LANES && reads[1].len == S::LANES;
    let part = SPLIT || reads[0].len < S::LANES;
    let shift = if SPLIT && reads[1].shift > 0 { Read::ANY } else { reads[0].shift };
    let nothing = reads[0].is_nothing::<S>() && reads[1].is_nothing::<S>();
    match shift {
        _ if nothing => {}
        0 if all => column::<S, true, 0, SPLIT, K, R, N>(s, rows, reads, weights, acc),
        0 if part => column::<S, false, 0, SPLIT, K, R, N>(s, rows, reads, weights, acc),
        1 if all => column::<S, true, 1, SPLIT, K, R, N>(s, rows, reads, weights, acc),
        1 if part => column::<S, false, 1, SPLIT, K, R, N>(s, rows, reads, weights, acc),
        2 if K > 3 && all => column::<S, true, 2, SPLIT, K, R, N>(s, rows, reads, weights, acc),
        2 if K > 3 && part => column::<S, false, 2, SPLIT, K, R, N>(s, rows, reads, weights, acc),
        3 if K > 5 && all => column::<S, true, 3, SPLIT, K, R, N>(s, rows, reads, weights, acc),
        3 if K > 5 && part => column::<S, false, 3, SPLIT, K, R, N>(s, rows, reads, weights, acc),
        _ => column::<S, false, { Read::ANY }, SPLIT, K, R, N>(s, rows, reads, weights, acc),
    }
}

/// Writes the first lanes.
#[inline(always)]
fn put<S: Simd>(s: S, v: S::F32, to: &mut [f32], add: bool) {
    if add {
        s.store_first(s.add(s.load_first(to), v), to);
    } else {
        s.store_first(v, to);
    }
}

/// Asks for a part of the next tile's rows, which lie behind those of this one; and, if they are far, for its outputs below those at `x`.
#[inline(always)]
fn ask<S: Simd, const SPLIT: bool, const JOIN: bool, const R: usize>(
    s: S,
    tile: &Tile<'_>,
    dst: &mut RowsOfPlanes<'_, f32, 1, R>,
    src: &[f32],
    next: usize,
    x: usize,
) {
    // Lines of a row that a register of outputs reads.
    let lines = if SPLIT { 4 } else { 1 };
    let first = next + if JOIN { x / 2 } else { x } * R * lines;
    for r in 0..R * lines {
        s.prefetch(src, first + r * S::LANES);
    }
    if tile.far {
        let below = R * tile.step * dst.row(0, 0).len() + x;
        for r in 0..R {
            s.prefetch(dst.row(0, r), below);
            if JOIN {
                s.prefetch(dst.row(0, r), below + S::LANES);
            }
        }
    }
}

/// A tile of one plane; `next` is where the rows behind those of its windows begin.
///
/// They are asked for beside the sums: the CPU sees no pattern in tiles of short rows. Beyond the last cache that, and asking for outputs, takes 1.6 to 2.8
/// times less (Zen 5, 16 images: 3.1 -> 1.95 ms for 144 channels of 56x56; with a stride of two, 96 of 112x112, 9.2 -> 3.3 forward); in a cache
/// the rows cost nothing. (Written past the caches, as `slide` does in NHWC: 6.2 -> 7.7 ms for the first, Zen 4; rows of 56 pixels begin within a line every second time.)
#[inline(always)]
fn plane<S: Simd, const SPLIT: bool, const JOIN: bool, const K: usize, const R: usize, const N: usize>(
    s: S,
    tile: &Tile<'_>,
    rows: &Rows<'_, N>,
    bias: f32,
    dst: &mut RowsOfPlanes<'_, f32, 1, R>,
    [src, weights]: [&[f32]; 2],
    next: usize,
) {
    let [least, greatest] = tile.clamp.map(|limit| s.splat(limit));
    let per_column = if SPLIT { 2 * K } else { K };
    let outputs = dst.row(0, 0).len();
    let step = if JOIN { 2 * S::LANES } else { S::LANES };
    for x in (0..outputs).step_by(step) {
        // The first pixel of the column with d = 0.
        let pixel = if JOIN {
            x / 2
        } else if SPLIT {
            2 * x
        } else {
            x
        };
        ask::<S, SPLIT, JOIN, R>(s, tile, dst, src, next, x);
        let mut acc = [[s.splat(bias); R]; 2];
        for (column_weights, Column { d, which }) in weights.chunks(per_column).zip(tile.columns) {
            let at = pixel as isize + d;
            let mut reads = [Read::new::<S>(at, rows.len(), usize::MAX); 2];
            if SPLIT {
                reads[1] = Read::new::<S>(at + S::LANES as isize, rows.len(), usize::MAX);
            }
            if JOIN && *which == 1 {
                any_column::<S, SPLIT, K, R, N>(s, rows, reads, column_weights, &mut acc[1]);
            } else {
                any_column::<S, SPLIT, K, R, N>(s, rows, reads, column_weights, &mut acc[0]);
            }
        }
        let len = step.min(outputs - x);
        for r in 0..R {
            let to = &mut dst.row(0, r)[x..x + len];
            if JOIN {
                let (first, second) = s.interleave(acc[0][r], acc[1][r]);
                let (low, high) = to.split_at_mut(S::LANES.min(len));
                put(s, first, low, tile.add);
                put(s, second, high, tile.add);
            } else {
                put(s, s.min(greatest, s.max(least, acc[0][r])), to, tile.add);
            }
        }
    }
}

/// A tile of all planes.
#[inline(always)]
fn planes<S: Simd, const SPLIT: bool, const JOIN: bool, const K: usize, const R: usize, const N: usize>(
    s: S,
    tile: &Tile<'_>,
    dst: &mut BlockMut<'_, f32>,
) {
    let [height, width] = tile.size;
    let row = |y: isize| (y - tile.first).clamp(0, N as isize) as usize;
    let present = row(0)..row(height as isize);
    for plane in 0..tile.planes {
        let src = &tile.src[plane * tile.steps[0]..][..height * width];
        let rows = Rows::<N>::spaced(src, tile.first * width as isize, width, present.clone(), tile.zeros);
        let weights = &tile.weights[plane * tile.steps[1]..][..tile.taps];
        let bias = tile.bias.map_or(0.0, |bias| bias[plane]);
        let mut to = dst.rows_of_planes::<1, R>([tile.to[0] + plane, tile.to[1]], tile.step);
        let next = tile.first.saturating_add_unsigned(N).max(0) as usize * width;
        self::plane::<S, SPLIT, JOIN, K, R, N>(s, tile, &rows, bias, &mut to, [src, weights], next);
    }
}

/// Whether sums, a column of weights, pixels and zeros fit the registers; with two sets of sums, another two.
const fn fits(registers: usize, shape: Shape, rows: usize) -> bool {
    let (sums, more) = match shape.mode {
        Mode::Join => (2 * rows, 4),
        // Most input rows of a tile.
        Mode::Split if rows > 7 => (registers, 2),
        _ => (rows, 2),
    };
    sums + shape.k + more <= registers
}

type Entry<S> = fn(S, &Tile<'_>, &mut BlockMut<'_, f32>);

/// A static table of function pointers: `[kernel rows][output rows]`. (A `match` would inline all of them into one function, which spills.)
struct Table<S>(core::marker::PhantomData<S>);

macro_rules! table {
    ($split:literal $join:literal $mode:ident; $($k:literal)*) => { [$(table!(@rows $split $join $mode $k; 1 2 4 7 14)),*] };
    (@rows $split:literal $join:literal $mode:ident $k:literal; $($r:literal)*) => {
        [$(|s, tile, dst| s.vectorize(#[inline(always)] |s| {
            const INPUTS: usize = ($r - 1) * if $split { 2 } else { 1 } + $k;
            if const { fits(S::REGISTERS, Shape { mode: Mode::$mode, k: $k }, $r) } {
                planes::<S, $split, $join, $k, $r, INPUTS>(s, tile, dst);
            } else {
                unreachable!("{} rows do not fit the registers", $r);
            }
        })),*]
    };
}

/// Kernel rows of the tables: windows, and what of them reaches every second row.
pub(crate) const WINDOWS: [usize; 3] = [3, 5, 7];
const PARTS: [usize; 4] = [1, 2, 3, 4];

impl<S: Simd> Table<S> {
    const PLAIN: [[Entry<S>; ROWS.len()]; WINDOWS.len()] = table!(false false Plain; 3 5 7);
    const SPLIT: [[Entry<S>; ROWS.len()]; WINDOWS.len()] = table!(true false Split; 3 5 7);
    const JOIN: [[Entry<S>; ROWS.len()]; PARTS.len()] = table!(false true Join; 1 2 3 4);

    fn entry(shape: Shape, rows: usize) -> Entry<S> {
        let rows = place(&ROWS, rows);
        match shape.mode {
            Mode::Plain => Self::PLAIN[place(&WINDOWS, shape.k)][rows],
            Mode::Split => Self::SPLIT[place(&WINDOWS, shape.k)][rows],
            Mode::Join => Self::JOIN[place(&PARTS, shape.k)][rows],
        }
    }
}

/// The place of a number in a list.
pub(crate) fn place(list: &[usize], number: usize) -> usize {
    list.iter().position(|entry| *entry == number).expect("the tile is in the table")
}

impl<S: Simd> Stencil for S {
    fn lanes(&self) -> usize {
        S::LANES
    }

    fn rows(&self, shape: Shape) -> &'static [usize] {
        let kernels: &[usize] = if shape.mode == Mode::Join { &PARTS } else { &WINDOWS };
        let count = ROWS
            .iter()
            .filter(|rows| kernels.contains(&shape.k) && fits(S::REGISTERS, shape, **rows))
            .count();
        &ROWS[..count]
    }

    fn run(&self, shape: Shape, rows: usize, tile: &Tile<'_>, dst: &mut BlockMut<'_, f32>) {
        Table::<S>::entry(shape, rows)(*self, tile, dst);
    }
}

/// The tiles of an instruction set.
pub(crate) fn stencil(isa: Isa) -> Box<dyn Stencil> {
    fn boxed<S: Simd>(s: S) -> Box<dyn Stencil> {
        Box::new(s)
    }
    dispatch!(isa, s => boxed(s))
}
