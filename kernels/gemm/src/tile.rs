//! The micro-kernel: a small matrix of accumulators that stays in registers while a batch of outer products runs by.
//!
//! `acc[m][j] += sum over runs r, steps k of  lhs(m, r, k) * rhs(r, k)[j]`,  m < MR rows, j < NV vectors
//!
//! Each step loads NV vectors of the right operand, broadcasts MR numbers of the left one, and does MR * NV fused
//! multiply-adds. This one nest serves the GEMM, direct convolution and both gradients, all layouts, on every instruction set:
//! only addresses differ, and they are a [`Walk`]. The steps of one output run in one fixed order into one accumulator, so the
//! bits depend on nothing else.
//!
//! A call computes all rows of a product, tile by tile. One tile a call cost 70 cycles beside its steps, as many as five or six steps take; one of many
//! costs 20 (6x64, Zen 5; 64 steps: 195 -> 185 ns, 8 steps: 39 -> 28; of 14x32, evenly spaced, 60).
//!
//! The idea of a batch-reduce kernel that takes addresses instead of packed operands is Georganas et al., "High-Performance Deep
//! Learning via a Single Building Block" (2019). Tile shapes follow from the registers: MR * NV accumulators + NV + 1 must fit.

use crate::call::{Call, Init, Lhs, To, UNCLAMPED, Walk, cut};
use crate::transpose::{transpose, transpose_into};
use convolve_core::{BlockMut, LINE, Transpose, Update};
use convolve_simd::{Avx2, Avx512, Isa, Neon, Portable, Rows, RowsAt, Simd, dispatch, each};
/// A family of micro-kernels of one instruction set and one width.
pub trait Ukernel: Transpose + Send + Sync {
    /// Most rows of a tile.
    fn mr(&self) -> usize;
    /// Columns of a call: NV vectors.
    fn nr(&self) -> usize;
    /// Cycles of one step of a tile of `rows` rows (a mean may be broken): two multiply-adds or, measured, 1.6 loads a cycle, whichever take
    /// longer, and a little more where both take nearly as long: `direct` is 1 to 5 % slower with 14x32 than with 6x64 (Zen 5). (A core that does one of sixteen lanes, as Zen 4,
    /// takes twice as long for the multiply-adds.)
    fn step_cycles(&self, rows: f64) -> f64 {
        self.step_parts(rows).iter().sum()
    }
    /// Those of multiply-adds, and what loads take beyond: an [estimate](convolve_core::Estimate::on) that says them apart counts the first by how many a core
    /// does in a cycle, the others by its clock. (Apart: `direct` and `outer`, whose tiles are narrow where channels are few.)
    ///
    /// ```
    /// let kernel = convolve_gemm::ukernel(convolve_simd::Isa::best(), [64, 64]);
    /// let [multiply, load] = kernel.step_parts(2.0);
    /// assert!(load >= 0.0 && multiply + load == kernel.step_cycles(2.0));
    /// ```
    fn step_parts(&self, rows: f64) -> [f64; 2];
    /// Copies `rows` x `columns` floats to panels `[panel][row][NR]`, zeros beyond the last column. Row by row: neighbours are read together.
    ///
    /// ```
    /// let kernel = convolve_gemm::ukernel(convolve_simd::Isa::best(), [64, 64]);
    /// let mut panel = vec![9.0; 2 * kernel.nr()];
    /// kernel.copy(&[1.0, 2.0, 3.0, 4.0], 2, [2, 1], &mut panel);
    /// assert_eq!((panel[0], panel[1], panel[kernel.nr()]), (1.0, 0.0, 3.0));
    /// ```
    fn copy(&self, from: &[f32], step: usize, size: [usize; 2], to: &mut [f32]);
    /// Computes all rows of the product, tile by tile, [as even as can be](cut).
    ///
    /// ```
    /// use convolve_core::BlockMut;
    /// use convolve_gemm::{Ahead, Call, Init, Lhs, To, UNCLAMPED, Walk, ukernel};
    /// // 20 rows of 3 steps, times a panel of ones.
    /// let kernel = ukernel(convolve_simd::Isa::best(), [1, 3]);
    /// let (lhs, rhs, mut sums) = (vec![2.0; 20 * 3], vec![1.0; 3 * kernel.nr()], [0.0; 20]);
    /// let call = Call {
    ///     lhs: &lhs,
    ///     at: Lhs::Even { start: 0, rows: 20, pitch: 3 },
    ///     rhs: &rhs,
    ///     pitch: kernel.nr(),
    ///     walk: Walk::run(3),
    ///     init: Init::Zero,
    ///     clamp: UNCLAMPED,
    ///     to: To::Even { at: [0, 0], step: [0, 1] },
    ///     column: 0,
    ///     columns: 1,
    ///     fetch: None,
    ///     ahead: Ahead::NONE,
    /// };
    /// kernel.run(&call, &mut BlockMut::new(&mut sums, [1, 20, 1]));
    /// assert_eq!(sums, [6.0; 20]);
    /// ```
    ///
    /// # Panics
    /// When an operand is too short for the walk.
    fn run(&self, call: &Call<'_>, dst: &mut BlockMut<'_, f32>);
}

/// The left operand of one tile: the number that each step multiplies the vectors with, by row.
trait Steps<'a, const MR: usize> {
    /// Whether the right operand has the pitch NR, a constant.
    const PACKED: bool;
    /// One run of it.
    type Run<'r>
    where
        Self: 'r;
    /// From row `first` on.
    fn new(call: &Call<'a>, first: usize) -> Self;
    fn run(&self, offset: usize, len: usize) -> Self::Run<'_>;
    /// The factor of row `m` in step `k`.
    fn factor(run: &Self::Run<'_>, k: usize, m: usize) -> f32;
}

struct RowSteps<'a, const MR: usize>(Rows<'a, MR>);

impl<'a, const MR: usize> Steps<'a, MR> for RowSteps<'a, MR> {
    const PACKED: bool = true;
    type Run<'r>
        = RowsAt<'r, 'a, MR>
    where
        Self: 'r;

    #[inline(always)]
    fn new(call: &Call<'a>, first: usize) -> Self {
        Self(match call.at {
            Lhs::Rows(offsets) => Rows::starting_at(call.lhs, offsets[first..].first_chunk().unwrap()),
            Lhs::Even { start, pitch, .. } => Rows::apart(call.lhs, start + first * pitch, pitch),
            Lhs::Columns { .. } | Lhs::Packed { .. } => unreachable!(),
        })
    }

    #[inline(always)]
    fn run(&self, offset: usize, len: usize) -> RowsAt<'_, 'a, MR> {
        self.0.at(offset, len)
    }

    #[inline(always)]
    fn factor(run: &RowsAt<'_, 'a, MR>, k: usize, m: usize) -> f32 {
        run.row(m)[k]
    }
}

struct ColumnSteps<'a> {
    lhs: &'a [f32],
    pitch: usize,
}

impl<'a, const MR: usize> Steps<'a, MR> for ColumnSteps<'a> {
    const PACKED: bool = false;
    type Run<'r>
        = (&'a [f32], usize)
    where
        Self: 'r;

    #[inline(always)]
    fn new(call: &Call<'a>, first: usize) -> Self {
        match call.at {
            Lhs::Columns { start, pitch, .. } => Self { lhs: &call.lhs[start + first..], pitch },
            Lhs::Packed { .. } => {
                debug_assert_eq!(call.walk.count, [1, 1], "rows are packed for one run");
                Self { lhs: &call.lhs[first * call.walk.len..], pitch: MR }
            }
            Lhs::Rows(_) | Lhs::Even { .. } => unreachable!(),
        }
    }

    #[inline(always)]
    fn run(&self, offset: usize, _: usize) -> (&'a [f32], usize) {
        (&self.lhs[offset..], self.pitch)
    }

    #[inline(always)]
    fn factor((lhs, pitch): &(&'a [f32], usize), k: usize, m: usize) -> f32 {
        let factors: &[f32; MR] = lhs[k * pitch..].first_chunk().unwrap();
        factors[m]
    }
}

/// `each_row!(M { .. })`: the block for every row of the tile. Accumulators are only ever indexed by constants: one that is indexed by a
/// variable anywhere would live in memory always.
macro_rules! each_row {
    ($m:ident $body:block) => {
        each!($m in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 {
            if const { $m < MR } $body
        })
    };
}

/// Tiles of the same number of rows, as one call of them computes them.
struct Tiles {
    /// The first row of the first one.
    first: usize,
    count: usize,
    /// Tiles before it, of another number of rows.
    before: usize,
}

/// The micro-kernel itself, for some tiles one after the other.
#[inline(always)]
fn tile<'a, S: Simd, L: Steps<'a, MR>, const MR: usize, const NV: usize>(
    s: S,
    call: &Call<'a>,
    tiles: &Tiles,
    dst: &mut BlockMut<'_, f32>,
) {
    let nr = NV * S::LANES;
    let whole = call.columns == nr;
    let Walk { count, lhs, rhs, len } = call.walk;
    let pitch = if L::PACKED { nr } else { call.pitch };
    for tile in 0..tiles.count {
        let first = tiles.first + tile * MR;
        let (mut ahead, mut asking) = call.ahead.of(tiles.before + tile);
        // Where the rows go: found when they are stored, which is sooner than to remember it.
        macro_rules! rows {
            () => {{
                let columns = call.column..call.column + call.columns;
                match call.to {
                    To::Rows(to) => dst.rows_at::<MR>(to[first..].first_chunk().unwrap(), columns),
                    To::Even { at: [i, j], step } => {
                        dst.rows_apart::<MR>([i + first * step[0], j + first * step[1]], step, columns)
                    }
                }
            }};
        }
        let mut acc = [[s.splat(0.0); NV]; MR];
        match call.init {
            Init::Zero => {}
            Init::Bias(bias) => {
                let mut vectors = [s.splat(0.0); NV];
                for j in 0..NV {
                    vectors[j] = s.load_first(&bias[(j * S::LANES).min(bias.len())..]);
                }
                acc = [vectors; MR];
            }
            Init::Rows(numbers) => {
                let numbers: &[f32; MR] = numbers[first..].first_chunk().unwrap();
                each_row!(M {
                    acc[M] = [s.splat(numbers[M]); NV];
                });
            }
            Init::Dst => {
                let mut rows = rows!();
                each_row!(M {
                    let row = rows.row(M);
                    for j in 0..NV {
                        acc[M][j] = match whole {
                            true => s.load(&row[j * S::LANES..]),
                            false => s.load_first(&row[(j * S::LANES).min(row.len())..]),
                        };
                    }
                });
            }
        }
        if let Some(beyond) = call.fetch {
            let mut rows = rows!();
            each_row!(M {
                let row = rows.row(M);
                for j in (0..nr).step_by(LINE) {
                    s.prefetch(row, beyond + j);
                }
            });
        }
        let steps = L::new(call, first);
        for outer in 0..count[0] {
            for inner in 0..count[1] {
                let run = steps.run(outer * lhs[0] + inner * lhs[1], len);
                let taken = if L::PACKED { len * nr } else { (len.max(1) - 1) * pitch + nr.min(len * nr) };
                let panel = &call.rhs[outer * rhs[0] + inner * rhs[1]..][..taken];
                macro_rules! steps {
                    ($range:expr, $before:block) => {
                        for k in $range {
                            let step = &panel[k * pitch..][..nr];
                            $before;
                            let mut vectors = [s.splat(0.0); NV];
                            for j in 0..NV {
                                vectors[j] = s.load(&step[j * S::LANES..]);
                            }
                            each_row!(M {
                                let factor = s.splat(L::factor(&run, k, M));
                                for j in 0..NV {
                                    acc[M][j] = s.mul_add(factor, vectors[j], acc[M][j]);
                                }
                            });
                        }
                    };
                }
                let asking_here = asking.min(len);
                asking -= asking_here;
                steps!(0..asking_here, {
                    s.prefetch(call.ahead.data, ahead);
                    // Of a single step the distance may be any number.
                    ahead = ahead.wrapping_add(call.ahead.step);
                });
                steps!(asking_here..len, {});
            }
        }
        if call.clamp != UNCLAMPED {
            let [least, greatest] = [s.splat(call.clamp[0]), s.splat(call.clamp[1])];
            each_row!(M {
                for j in 0..NV {
                    acc[M][j] = s.min(greatest, s.max(least, acc[M][j]));
                }
            });
        }
        let mut rows = rows!();
        if whole {
            each_row!(M {
                let row = &mut rows.row(M)[..nr];
                for j in 0..NV {
                    s.store(acc[M][j], &mut row[j * S::LANES..]);
                }
            });
        } else {
            each_row!(M {
                let row = rows.row(M);
                for j in 0..NV {
                    s.store_first(acc[M][j], &mut row[(j * S::LANES).min(call.columns)..]);
                }
            });
        }
    }
}

type Entry<S> = fn(S, &Call<'_>, &Tiles, &mut BlockMut<'_, f32>);

/// Tiles of one width: entry `m - 1` has `m` rows.
pub(crate) struct Table<S: 'static> {
    vectors: usize,
    rows: &'static [Entry<S>],
    columns: &'static [Entry<S>],
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
            rows: &[$(|s, call, tiles, dst| s.vectorize(#[inline(always)] |s| tile::<Self, RowSteps<$mr>, $mr, $nv>(s, call, tiles, dst))),*],
            columns: &[$(|s, call, tiles, dst| s.vectorize(#[inline(always)] |s| tile::<Self, ColumnSteps, $mr, $nv>(s, call, tiles, dst))),*],
        }
    };
}

impl<S: Simd> Table<S> {
    /// See [`Ukernel::step_parts`].
    fn step_parts(&self, rows: f64) -> [f64; 2] {
        let vectors = self.vectors as f64;
        let multiply = rows * vectors / 2.0;
        [multiply, convolve_core::both::<6>(multiply, (rows + vectors) / 1.6) - multiply]
    }
}

impl Family for Portable {
    /// 16 registers: 8 + 2 + 1, and a product before it is added.
    const TABLES: &'static [Table<Self>] = &[table!(2; 1 2 3 4), table!(1; 1 2 3 4 5 6 7 8)];
}

impl Family for Avx2 {
    /// 16 registers: 12 + 2 + 1; latency 4 x 2 pipes asks for 8. More than 8 rows of one vector spill: LLVM loads all scalars first. So do 4 rows
    /// of three vectors.
    const TABLES: &'static [Table<Self>] = &[table!(2; 1 2 3 4 5 6), table!(1; 1 2 3 4 5 6 7 8)];
}

impl Family for Avx512 {
    /// 32 registers: 24 + 4 + 1 (7 rows of four vectors spill), 27 + 3 + 1, 28 + 2 + 1. 14 rows divide images of 14, 28 and 56 pixels.
    const TABLES: &'static [Table<Self>] = &[
        table!(4; 1 2 3 4 5 6),
        table!(3; 1 2 3 4 5 6 7 8 9),
        table!(2; 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        table!(1; 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
    ];
}

impl Family for Neon {
    /// 32 registers: 24 + 2 + 1.
    const TABLES: &'static [Table<Self>] =
        &[table!(2; 1 2 3 4 5 6 7 8 9 10 11 12), table!(1; 1 2 3 4 5 6 7 8 9 10 11 12)];
}

struct Kernel<S: Family> {
    s: S,
    table: &'static Table<S>,
}

impl<S: Family> Ukernel for Kernel<S> {
    fn mr(&self) -> usize {
        self.table.rows.len()
    }

    fn nr(&self) -> usize {
        self.table.vectors * S::LANES
    }

    fn step_parts(&self, rows: f64) -> [f64; 2] {
        self.table.step_parts(rows)
    }

    fn copy(&self, from: &[f32], step: usize, size: [usize; 2], to: &mut [f32]) {
        self.s.vectorize(
            #[inline(always)]
            |s| match self.table.vectors {
                1 => copy::<S, 1>(s, from, step, size, to),
                2 => copy::<S, 2>(s, from, step, size, to),
                3 => copy::<S, 3>(s, from, step, size, to),
                _ => copy::<S, 4>(s, from, step, size, to),
            },
        );
    }

    fn run(&self, call: &Call<'_>, dst: &mut BlockMut<'_, f32>) {
        let table = match call.at {
            Lhs::Rows(_) | Lhs::Even { .. } => self.table.rows,
            Lhs::Columns { .. } | Lhs::Packed { .. } => self.table.columns,
        };
        let mr = if let Lhs::Packed { mr, .. } = call.at { mr } else { self.mr() };
        let [tiles, size, longer] = cut(call.at.rows(), mr);
        if longer > 0 {
            table[size](self.s, call, &Tiles { first: 0, count: longer, before: 0 }, dst);
        }
        if size > 0 {
            let rest = Tiles { first: longer * (size + 1), count: tiles - longer, before: longer };
            table[size - 1](self.s, call, &rest, dst);
        }
    }
}

impl<S: Family> Transpose for Kernel<S> {
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

/// [`Ukernel::copy`] to panels of NV vectors.
#[inline(always)]
fn copy<S: Simd, const NV: usize>(
    s: S,
    from: &[f32],
    step: usize,
    [rows, columns]: [usize; 2],
    to: &mut [f32],
) {
    let nr = NV * S::LANES;
    for row in 0..rows {
        let from = &from[row * step..][..columns];
        let panels = from.chunks_exact(nr);
        let rest = panels.remainder();
        let mut at = row * nr;
        for panel in panels {
            let to = &mut to[at..][..nr];
            for j in 0..NV {
                s.store(s.load(&panel[j * S::LANES..]), &mut to[j * S::LANES..]);
            }
            at += rows * nr;
        }
        if !rest.is_empty() {
            let to = &mut to[at..][..nr];
            for j in 0..NV {
                s.store(s.load_first(&rest[(j * S::LANES).min(rest.len())..]), &mut to[j * S::LANES..]);
            }
        }
    }
}

/// The micro-kernels for `columns` columns (output channels, as a rule) and sums of `depth` steps: the shape that wastes least. Wide tiles
/// have fewer rows to set up, but stream more of the right operand per step, and so are for panels that stay in L1.
///
/// ```
/// let kernel = convolve_gemm::ukernel(convolve_simd::Isa::best(), [64, 576]);
/// assert!(kernel.mr() >= 4 && kernel.nr() >= 8);
/// ```
pub fn ukernel(isa: Isa, [columns, depth]: [usize; 2]) -> Box<dyn Ukernel> {
    /// Bytes of a panel that stays in L1 beside what else passes.
    const PANEL: usize = 24 << 10;
    fn choose<S: Family>(s: S, columns: usize, depth: usize) -> Box<dyn Ukernel> {
        // Tenths of a cycle per row: multiply-adds or loads, whichever are more, or the lines that come from L2; and what a tile costs per row.
        // (In lines, as wide vectors fill them sooner: counted in vectors, AVX2 took 8x8 for sums of 400 to 1150 steps, at 70 % of the peak, where
        // 6x16 streams a panel of 72 KiB at 97; Zen 3.)
        let cost = |table: &&Table<S>| {
            let (mr, nr) = (table.rows.len(), table.vectors * S::LANES);
            let far = depth.saturating_mul(nr * size_of::<f32>()) > PANEL;
            let lines = nr as f64 / LINE as f64;
            let stream = if far { (mr as f64 + 3.0 * lines + lines * lines) / 2.0 } else { 0.0 };
            let step = (10.0 * table.step_parts(mr as f64).iter().sum::<f64>().max(stream)) as usize;
            let tile = step.saturating_mul(depth).saturating_add(100 + 30 * mr);
            columns.div_ceil(nr).saturating_mul(tile).saturating_mul(64) / mr
        };
        let table = S::TABLES.iter().min_by_key(cost).expect("an instruction set has tiles");
        Box::new(Kernel { s, table })
    }
    dispatch!(isa, s => choose(s, columns.max(1), depth.clamp(1, 1 << 20)))
}

/// Of all families, the one of a rank: 0 is that of [`ukernel`], the others follow, widest first. `None` beyond the last.
///
/// ```
/// let isa = convolve_simd::Isa::best();
/// let tiles: Vec<_> = (0..).map_while(|rank| convolve_gemm::ukernel_of_rank(isa, [64, 576], rank)).map(|kernel| kernel.nr()).collect();
/// assert_eq!(tiles.len(), convolve_gemm::ukernels(isa).len());
/// assert_eq!(tiles[0], convolve_gemm::ukernel(isa, [64, 576]).nr());
/// ```
pub fn ukernel_of_rank(isa: Isa, size: [usize; 2], rank: usize) -> Option<Box<dyn Ukernel>> {
    let usual = ukernel(isa, size);
    if rank == 0 {
        return Some(usual);
    }
    let shape = |kernel: &dyn Ukernel| [kernel.mr(), kernel.nr()];
    ukernels(isa).into_iter().filter(|kernel| shape(kernel.as_ref()) != shape(usual.as_ref())).nth(rank - 1)
}

/// Every family of micro-kernels of an instruction set, widest first.
///
/// ```
/// assert!(convolve_gemm::ukernels(convolve_simd::Isa::best()).iter().all(|kernel| kernel.step_cycles(4.0) > 1.0));
/// ```
pub fn ukernels(isa: Isa) -> Vec<Box<dyn Ukernel>> {
    fn all<S: Family>(s: S) -> Vec<Box<dyn Ukernel>> {
        S::TABLES.iter().map(|table| Box::new(Kernel { s, table }) as Box<dyn Ukernel>).collect()
    }
    dispatch!(isa, s => all(s))
}

/// Every tile shape `[MR, NR]` of an instruction set: what tests must sweep tails around.
///
/// ```
/// assert!(convolve_gemm::tiles(convolve_simd::Isa::best()).iter().all(|[mr, nr]| *mr > 1 && *nr >= 4));
/// ```
pub fn tiles(isa: Isa) -> Vec<[usize; 2]> {
    ukernels(isa).iter().map(|kernel| [kernel.mr(), kernel.nr()]).collect()
}
