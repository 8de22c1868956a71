//! The micro-kernel: a small matrix of accumulators that stays in registers while a batch of outer products runs by.
//!
//! `acc[m][j] += sum over runs r, steps k of  lhs(m, r, k) * rhs(r, k)[j]`,  m < MR rows, j < NV vectors
//!
//! Each step loads NV vectors of the right operand, broadcasts MR numbers of the left one, and does MR * NV fused
//! multiply-adds. This one nest serves the GEMM, direct convolution and both gradients, all layouts, on every instruction set:
//! only addresses differ, and they are a [`Walk`]. The steps of one output run in one fixed order into one accumulator, so the
//! bits depend on nothing else.
//!
//! The idea of a batch-reduce kernel that takes addresses instead of packed operands is Georganas et al., "High-Performance Deep
//! Learning via a Single Building Block" (2019). Tile shapes follow from the registers: MR * NV accumulators + NV + 1 must fit.

use convolve_core::{BlockMut, LINE, Transpose, Update};
use convolve_simd::{Avx2, Avx512, Isa, Neon, Portable, Simd, dispatch};
use core::ops::Range;

/// Two nested loops of runs; a run is `len` consecutive steps. Offsets are in elements.
///
/// ```
/// use convolve_gemm::Walk;
/// // Three kernel rows of 3 x 64 channels each: 576 steps.
/// let walk = Walk { count: [1, 3], lhs: [0, 56 * 64], rhs: [0, 3 * 64 * 16], len: 3 * 64 };
/// assert_eq!(walk.steps(), 576);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    /// Runs of the outer and of the inner loop.
    pub count: [usize; 2],
    /// Offset of the left operand from one run to the next, per loop.
    pub lhs: [usize; 2],
    /// Offset of the right operand from one run to the next, per loop.
    pub rhs: [usize; 2],
    /// Steps of a run.
    pub len: usize,
}

impl Walk {
    /// One run.
    /// ```
    /// assert_eq!(convolve_gemm::Walk::run(7).steps(), 7);
    /// ```
    pub fn run(len: usize) -> Self {
        Self { count: [1, 1], lhs: [0, 0], rhs: [0, 0], len }
    }

    /// The same steps in the same order, with loops joined whose runs follow each other without a gap; `lhs` and `rhs` are the distances
    /// from one step to the next.
    /// ```
    /// use convolve_gemm::Walk;
    /// let rows = Walk { count: [2, 7], lhs: [98, 14], rhs: [98, 14], len: 7 };
    /// assert_eq!(rows.joined(2, 2), Walk { count: [1, 1], lhs: [98, 14], rhs: [98, 14], len: 98 });
    /// ```
    pub fn joined(mut self, lhs: usize, rhs: usize) -> Self {
        for i in [1, 0] {
            let gapless = self.lhs[i] == self.len * lhs && self.rhs[i] == self.len * rhs;
            if gapless && self.count[i] > 1 && (i == 1 || self.count[1] == 1) {
                self.len *= self.count[i];
                self.count[i] = 1;
            }
        }
        self
    }

    /// Steps in all.
    pub fn steps(&self) -> usize {
        self.count[0] * self.count[1] * self.len
    }
}

/// How the MR numbers of one step of the left operand lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lhs<'a> {
    /// Row `m` starts at its own offset and has its steps next to each other: pixels of an NHWC image, rows of a matrix.
    Rows(&'a [usize]),
    /// The numbers of a step lie next to each other, steps are `pitch` apart: a transposed matrix, packed panels.
    Columns {
        /// Offset of the first number.
        start: usize,
        /// Rows, MR.
        rows: usize,
        /// From one step to the next.
        pitch: usize,
    },
    /// Row `m` starts at its own offset and gives a *vector* per step, not a number: each column of the product has its own left operand
    /// (depthwise convolution: channels). A run is one step; rows have as many columns as are stored.
    Vectors(&'a [usize]),
}

impl Lhs<'_> {
    fn rows(&self) -> usize {
        match *self {
            Self::Rows(offsets) | Self::Vectors(offsets) => offsets.len(),
            Self::Columns { rows, .. } => rows,
        }
    }
}

/// What accumulators start from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init<'a> {
    /// Zero.
    Zero,
    /// One number per column, from its first to at least the last valid one.
    Bias(&'a [f32]),
    /// What the destination holds.
    Dst,
}

/// Everything that one call of the micro-kernel reads.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The left operand, which is broadcast.
    pub lhs: &'a [f32],
    /// Where its rows are.
    pub at: Lhs<'a>,
    /// The right operand, from its first step on: NR floats per step. A run takes `len * pitch` floats, also behind its last step.
    pub rhs: &'a [f32],
    /// From one step of the right operand to the next, at least NR; must be NR unless the left operand is [`Lhs::Columns`].
    pub pitch: usize,
    /// The runs.
    pub walk: Walk,
    /// What accumulators start from.
    pub init: Init<'a>,
    /// Least and greatest value to store.
    pub clamp: [f32; 2],
    /// Rows of the destination, as `[i, j]` of a [`BlockMut`]; as many as the left operand has.
    pub to: &'a [[usize; 2]],
    /// First column of the destination.
    pub column: usize,
    /// Columns to store, at most NR.
    pub columns: usize,
}

/// No clamp.
pub const UNCLAMPED: [f32; 2] = [f32::NEG_INFINITY, f32::INFINITY];

/// A family of micro-kernels of one instruction set and one width.
pub trait Ukernel: Transpose + Send + Sync {
    /// Most rows of a call.
    fn mr(&self) -> usize;
    /// Columns of a call: NV vectors.
    fn nr(&self) -> usize;
    /// Runs one tile.
    ///
    /// # Panics
    /// When an operand is too short for the walk.
    fn run(&self, call: &Call<'_>, dst: &mut BlockMut<'_, f32>);
}

/// The left operand within one run: what each step multiplies the vectors with.
trait Steps<'a, S: Simd, const MR: usize, const NV: usize> {
    /// Whether the right operand has the pitch NR, a constant.
    const PACKED: bool;
    fn new(call: &Call<'a>, offset: usize, len: usize) -> Self;
    /// Hands the factors of step `k` to `f`, by row.
    fn each(&self, s: S, k: usize, f: impl FnMut(usize, [S::F32; NV]));
}

struct RowSteps<'a, const MR: usize>([&'a [f32]; MR]);

impl<'a, S: Simd, const MR: usize, const NV: usize> Steps<'a, S, MR, NV> for RowSteps<'a, MR> {
    const PACKED: bool = true;

    #[inline(always)]
    fn new(call: &Call<'a>, offset: usize, len: usize) -> Self {
        let Lhs::Rows(rows) = call.at else { unreachable!() };
        let rows: &[usize; MR] = rows.first_chunk().unwrap();
        let mut steps = [&call.lhs[..len]; MR];
        for m in 0..MR {
            steps[m] = &call.lhs[rows[m] + offset..][..len];
        }
        Self(steps)
    }

    #[inline(always)]
    fn each(&self, s: S, k: usize, mut f: impl FnMut(usize, [S::F32; NV])) {
        for m in 0..MR {
            f(m, [s.splat(self.0[m][k]); NV]);
        }
    }
}

struct ColumnSteps<'a> {
    lhs: &'a [f32],
    pitch: usize,
}

impl<'a, S: Simd, const MR: usize, const NV: usize> Steps<'a, S, MR, NV> for ColumnSteps<'a> {
    const PACKED: bool = false;

    #[inline(always)]
    fn new(call: &Call<'a>, offset: usize, _: usize) -> Self {
        let Lhs::Columns { start, pitch, .. } = call.at else { unreachable!() };
        Self { lhs: &call.lhs[start + offset..], pitch }
    }

    #[inline(always)]
    fn each(&self, s: S, k: usize, mut f: impl FnMut(usize, [S::F32; NV])) {
        let scalars: &[f32; MR] = self.lhs[k * self.pitch..].first_chunk().unwrap();
        for m in 0..MR {
            f(m, [s.splat(scalars[m]); NV]);
        }
    }
}

struct VectorSteps<'a, const MR: usize> {
    rows: [&'a [f32]; MR],
    /// Whether rows have all NR columns.
    whole: bool,
}

impl<'a, S: Simd, const MR: usize, const NV: usize> Steps<'a, S, MR, NV> for VectorSteps<'a, MR> {
    const PACKED: bool = true;

    #[inline(always)]
    fn new(call: &Call<'a>, offset: usize, len: usize) -> Self {
        let Lhs::Vectors(rows) = call.at else { unreachable!() };
        let rows: &[usize; MR] = rows.first_chunk().unwrap();
        assert!(len <= 1);
        let columns = call.columns * len;
        let mut steps = [&call.lhs[..columns]; MR];
        for m in 0..MR {
            steps[m] = &call.lhs[rows[m] + offset..][..columns];
        }
        Self { rows: steps, whole: columns == NV * S::LANES }
    }

    #[inline(always)]
    fn each(&self, s: S, _: usize, mut f: impl FnMut(usize, [S::F32; NV])) {
        for m in 0..MR {
            let row = self.rows[m];
            let mut vectors = [s.splat(0.0); NV];
            for j in 0..NV {
                vectors[j] = if self.whole {
                    s.load(&row[j * S::LANES..])
                } else {
                    s.load_first(&row[(j * S::LANES).min(row.len())..])
                };
            }
            f(m, vectors);
        }
    }
}

/// The micro-kernel itself. Accumulators are only ever indexed by constants: the loops over rows at both ends are too large to be
/// unrolled, so they work on copies in memory (an accumulator that is indexed by a variable anywhere would live there always).
#[inline(always)]
fn tile<'a, S: Simd, L: Steps<'a, S, MR, NV>, const MR: usize, const NV: usize>(
    s: S,
    call: &Call<'a>,
    dst: &mut BlockMut<'_, f32>,
) {
    let (nr, columns) = (NV * S::LANES, call.column..call.column + call.columns);
    let to: &[[usize; 2]; MR] = call.to.first_chunk().unwrap();
    let mut acc = match call.init {
        Init::Zero => [[s.splat(0.0); NV]; MR],
        Init::Bias(bias) => {
            let mut vectors = [s.splat(0.0); NV];
            for j in 0..NV {
                vectors[j] = s.load_first(&bias[(j * S::LANES).min(bias.len())..]);
            }
            [vectors; MR]
        }
        Init::Dst => {
            let mut start = [[s.splat(0.0); NV]; MR];
            for m in 0..MR {
                let row = &dst.row(to[m][0], to[m][1])[columns.clone()];
                for j in 0..NV {
                    start[m][j] = s.load_first(&row[(j * S::LANES).min(row.len())..]);
                }
            }
            start
        }
    };
    let Walk { count, lhs, rhs, len } = call.walk;
    let pitch = if L::PACKED { nr } else { call.pitch };
    for outer in 0..count[0] {
        for inner in 0..count[1] {
            let steps = L::new(call, outer * lhs[0] + inner * lhs[1], len);
            let panel = &call.rhs[outer * rhs[0] + inner * rhs[1]..][..len * pitch];
            for (k, step) in panel.chunks_exact(pitch).enumerate() {
                let mut vectors = [s.splat(0.0); NV];
                for j in 0..NV {
                    vectors[j] = s.load(&step[j * S::LANES..nr]);
                }
                steps.each(
                    s,
                    k,
                    #[inline(always)]
                    |m, factors| {
                        for j in 0..NV {
                            acc[m][j] = s.mul_add(factors[j], vectors[j], acc[m][j]);
                        }
                    },
                );
            }
        }
    }
    let [least, greatest] = call.clamp.map(|bound| s.splat(bound));
    let mut end = [[s.splat(0.0); NV]; MR];
    for m in 0..MR {
        for j in 0..NV {
            end[m][j] = s.min(greatest, s.max(least, acc[m][j]));
        }
    }
    for m in 0..MR {
        let row = &mut dst.row(to[m][0], to[m][1])[columns.clone()];
        if let Some(row) = row.get_mut(..nr) {
            for j in 0..NV {
                s.store(end[m][j], &mut row[j * S::LANES..]);
            }
        } else {
            for j in 0..NV {
                let start = (j * S::LANES).min(row.len());
                s.store_first(end[m][j], &mut row[start..]);
            }
        }
    }
}

type Entry<S> = fn(S, &Call<'_>, &mut BlockMut<'_, f32>);

/// Tiles of one width: entry `m - 1` has `m` rows.
pub(crate) struct Table<S: 'static> {
    vectors: usize,
    rows: &'static [Entry<S>],
    columns: &'static [Entry<S>],
    lanes: &'static [Entry<S>],
}

/// The tile shapes of an instruction set.
pub(crate) trait Family: Simd {
    /// One table per width, widest first.
    const TABLES: &'static [Table<Self>];
}

/// `table!(vectors; 1 2 .. MR)`: a static table of function pointers. Not a `match`: that would inline every tile into one function,
/// which then spills.
macro_rules! table {
    ($nv:literal; $($mr:literal)*) => {
        Table {
            vectors: $nv,
            rows: &[$(|s, call, dst| s.vectorize(#[inline(always)] |s| tile::<Self, RowSteps<$mr>, $mr, $nv>(s, call, dst))),*],
            columns: &[$(|s, call, dst| s.vectorize(#[inline(always)] |s| tile::<Self, ColumnSteps, $mr, $nv>(s, call, dst))),*],
                        lanes: &[$(|s, call, dst| s.vectorize(#[inline(always)] |s| tile::<Self, VectorSteps<$mr>, $mr, $nv>(s, call, dst))),*],
        }
    };
}

impl Family for Portable {
    /// 16 registers: 8 + 2 + 1, and a product before it is added.
    const TABLES: &'static [Table<Self>] = &[table!(2; 1 2 3 4), table!(1; 1 2 3 4 5 6 7 8)];
}

impl Family for Avx2 {
    /// 16 registers: 12 + 2 + 1; latency 4 x 2 pipes asks for 8. More than 8 rows of one vector spill: LLVM loads all scalars first.
    const TABLES: &'static [Table<Self>] = &[table!(2; 1 2 3 4 5 6), table!(1; 1 2 3 4 5 6 7 8)];
}

impl Family for Avx512 {
    /// 32 registers: 28 + 2 + 1. 14 rows divide images of 14, 28 and 56 pixels.
    const TABLES: &'static [Table<Self>] =
        &[table!(2; 1 2 3 4 5 6 7 8 9 10 11 12 13 14), table!(1; 1 2 3 4 5 6 7 8 9 10 11 12 13 14)];
}

impl Family for Neon {
    /// 32 registers: 24 + 2 + 1.
    const TABLES: &'static [Table<Self>] =
        &[table!(2; 1 2 3 4 5 6 7 8 9 10 11 12), table!(1; 1 2 3 4 5 6 7 8 9 10 11 12)];
}

struct Tiles<S: Family> {
    s: S,
    table: &'static Table<S>,
}

impl<S: Family> Ukernel for Tiles<S> {
    fn mr(&self) -> usize {
        self.table.rows.len()
    }

    fn nr(&self) -> usize {
        self.table.vectors * S::LANES
    }

    fn run(&self, call: &Call<'_>, dst: &mut BlockMut<'_, f32>) {
        let table = match call.at {
            Lhs::Rows(_) => self.table.rows,
            Lhs::Columns { .. } => self.table.columns,
            Lhs::Vectors(_) => self.table.lanes,
        };
        table[call.at.rows() - 1](self.s, call, dst);
    }
}

impl<S: Family> Transpose for Tiles<S> {
    fn panel(&self) -> usize {
        self.nr()
    }

    fn transpose(&self, size: [usize; 2], from: &[f32], pitch: usize, to: &mut [f32], to_pitch: usize) {
        self.s.vectorize(
            #[inline(always)]
            |s| transpose(s, size, from, pitch, to, to_pitch),
        );
    }

    fn transpose_into(
        &self,
        size: [usize; 2],
        from: &[f32],
        pitch: usize,
        to: &mut BlockMut<'_, f32>,
        at: [usize; 2],
        update: Update,
    ) {
        self.s.vectorize(
            #[inline(always)]
            |s| transpose_into(s, size, from, pitch, to, at, update),
        );
    }
}

/// Squares of LANES x LANES by shuffles, then squares of four, the rest one by one.
#[inline(always)]
fn transpose<S: Simd>(
    s: S,
    [rows, columns]: [usize; 2],
    from: &[f32],
    pitch: usize,
    to: &mut [f32],
    to_pitch: usize,
) {
    let four = Portable::new();
    let [r1, c1] = [rows, columns].map(|len| len / S::LANES * S::LANES);
    let [r2, c2] = [rows, columns].map(|len| len / Portable::LANES * Portable::LANES);
    squares(s, [0..r1, 0..c1], from, pitch, to, to_pitch);
    squares(four, [r1..r2, 0..c2], from, pitch, to, to_pitch);
    squares(four, [0..r1, c1..c2], from, pitch, to, to_pitch);
    for i in 0..rows {
        for j in if i < r2 { c2..columns } else { 0..columns } {
            to[j * to_pitch + i] = from[i * pitch + j];
        }
    }
}

/// A cache line of columns at a time: so lines are read whole and written in order, also where a pitch is a multiple of 4 KiB and all
/// lines of a column share one set of L1.
#[inline(always)]
fn squares<S: Simd>(
    s: S,
    [rows, columns]: [Range<usize>; 2],
    from: &[f32],
    pitch: usize,
    to: &mut [f32],
    to_pitch: usize,
) {
    for line in columns.clone().step_by(LINE) {
        for i in rows.clone().step_by(S::LANES) {
            for j in (line..columns.end.min(line + LINE)).step_by(S::LANES) {
                s.transpose(&from[i * pitch + j..], pitch, &mut to[j * to_pitch + i..], to_pitch);
            }
        }
    }
}

/// As [`transpose`], square by square through L1, since rows of a box are borrowed one at a time.
#[inline(always)]
fn transpose_into<S: Simd>(
    s: S,
    [rows, columns]: [usize; 2],
    from: &[f32],
    pitch: usize,
    to: &mut BlockMut<'_, f32>,
    [plane, first]: [usize; 2],
    update: Update,
) {
    let mut square = [0.0; LINE * LINE];
    let [whole_rows, whole_columns] = [rows, columns].map(|len| len / S::LANES * S::LANES);
    for j in (0..whole_columns).step_by(S::LANES) {
        for i in (0..whole_rows).step_by(S::LANES) {
            s.transpose(&from[i * pitch + j..], pitch, &mut square, S::LANES);
            for (column, values) in square.chunks_exact(S::LANES).take(S::LANES).enumerate() {
                let to = &mut to.row(plane, first + j + column)[i..];
                let value = s.load(values);
                let value = if update == Update::Accumulate { s.add(s.load(to), value) } else { value };
                s.store(value, to);
            }
        }
    }
    for j in 0..columns {
        let to = to.row(plane, first + j);
        for i in if j < whole_columns { whole_rows..rows } else { 0..rows } {
            let value = from[i * pitch + j];
            to[i] = if update == Update::Accumulate { to[i] + value } else { value };
        }
    }
}

/// The micro-kernels for `columns` columns (output channels, as a rule): the width that wastes least of the multiply-add units.
///
/// ```
/// let kernel = convolve_gemm::ukernel(convolve_simd::Isa::best(), 64);
/// assert!(kernel.mr() >= 4 && kernel.nr() >= 8);
/// ```
pub fn ukernel(isa: Isa, columns: usize) -> Box<dyn Ukernel> {
    fn choose<S: Family>(s: S, columns: usize) -> Box<dyn Ukernel> {
        // Cycles per step and row: multiply-adds or loads, whichever are more, over all panels.
        let cost = |table: &&Table<S>| {
            let (mr, nv) = (table.rows.len(), table.vectors);
            columns.div_ceil(nv * S::LANES) * (mr * nv).max(mr + nv) * 1000 / mr
        };
        let table = S::TABLES.iter().min_by_key(cost).expect("an instruction set has tiles");
        Box::new(Tiles { s, table })
    }
    dispatch!(isa, s => choose(s, columns))
}

/// Every tile shape `[MR, NR]` of an instruction set: what tests must sweep tails around.
///
/// ```
/// assert!(convolve_gemm::tiles(convolve_simd::Isa::best()).iter().all(|[mr, nr]| *mr > 1 && *nr >= 4));
/// ```
pub fn tiles(isa: Isa) -> Vec<[usize; 2]> {
    fn shapes<S: Family>(_: S) -> Vec<[usize; 2]> {
        S::TABLES.iter().map(|table| [table.rows.len(), table.vectors * S::LANES]).collect()
    }
    dispatch!(isa, s => shapes(s))
}
