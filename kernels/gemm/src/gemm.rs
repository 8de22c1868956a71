//! The product of two operands, block by block: `C[i, j] = init + sum over k of A[i, k] * B[j, k]`, then clamped.
//!
//! ```text
//! LOOP 4  depth in blocks of KC                     (accumulators rest in C between blocks)
//! LOOP 3    columns in blocks of NC: pack B as panels of NR, KC x NC in half of L2     (or view them)
//! LOOP 2      rows: view some tiles of A, or, where they would crowd L1, pack one of MR x KC
//! LOOP 1        panels of the block: one call of the micro-kernel for all these tiles
//! ```
//!
//! The names and the order are GotoBLAS's (Goto and van de Geijn, 2008). A panel is used by all tiles of a call and then no more; where KC x NR
//! is more than L1 holds, each tile reads it from L2. Splitting the depth changes no bit of the result: an
//! accumulator that is stored and loaded again is the same number.

use crate::{Ahead, Call, Init, Lhs, Operand, To, UNCLAMPED, Ukernel, Walk, cut, first_row};
use convolve_core::{BlockMut, Caches, LINE, lines};
use core::ops::Range;

/// Block sizes.
///
/// ```
/// use convolve_core::Caches;
/// let kernel = convolve_gemm::ukernel(convolve_simd::Isa::best(), [64, 64]);
/// let blocking = convolve_gemm::Blocking::new(kernel.as_ref(), &Caches::default(), [1000, 64, 576]);
/// assert!(blocking.kc <= 512 && blocking.nc % kernel.nr() == 0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocking {
    /// Depth of a block.
    pub kc: usize,
    /// Columns of a block, whole panels.
    pub nc: usize,
    /// The caches that this is for.
    pub caches: Caches,
}

impl Blocking {
    /// Blocks for a product of at most `[rows, columns, depth]`: MR x KC floats in half of L1, KC x NC in half of L2.
    pub fn new(kernel: &dyn Ukernel, caches: &Caches, [_, columns, depth]: [usize; 3]) -> Self {
        const KC: usize = 512;
        let floats = |bytes: usize| bytes / 2 / size_of::<f32>();
        let kc = (floats(caches.l1) / kernel.mr()).clamp(64, KC).min(depth.max(1));
        let kc = depth.max(1).div_ceil(depth.max(1).div_ceil(kc));
        let most = columns.max(1).next_multiple_of(kernel.nr());
        let nc = (floats(caches.l2) / kc / kernel.nr()).max(1) * kernel.nr();
        Self { kc, nc: nc.min(most), caches: *caches }
    }

    /// Floats of workspace of one [`product`].
    /// ```
    /// # use convolve_core::Caches;
    /// let kernel = convolve_gemm::ukernel(convolve_simd::Isa::best(), [8, 64]);
    /// let blocking = convolve_gemm::Blocking { kc: 10, nc: kernel.nr(), caches: Caches::default() };
    /// assert!(blocking.workspace_len(kernel.as_ref()) >= 10 * kernel.nr());
    /// ```
    pub fn workspace_len(&self, kernel: &dyn Ukernel) -> usize {
        // Packing may write a vector behind the last step of a panel.
        lines(kernel.mr() * self.pitch()) + lines(self.kc * self.nc + kernel.nr())
    }

    /// Floats from one packed row to the next: a line more than the row, so that rows never share all their cache sets.
    fn pitch(&self) -> usize {
        lines(self.kc) + convolve_core::LINE
    }
}

/// Where the product goes, and what it starts from.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// Row `i` of the product as `[i, j]` of the destination; `i` counts from the first row of this call.
    pub row: &'a (dyn Fn(usize) -> [usize; 2] + Sync),
    /// Column of the destination for the first column of this call.
    pub column: usize,
    /// What accumulators start from; a bias is given for all columns of this call.
    pub init: Init<'a>,
    /// Least and greatest value to store.
    pub clamp: [f32; 2],
}

/// Computes `rows` x `columns` of the product on the calling thread. `O(rows * columns * depth)`, no allocation.
///
/// ```
/// use convolve_core::{BlockMut, Caches};
/// use convolve_gemm::{Blocking, Dense, Init, Target, UNCLAMPED, product, ukernel};
/// let (a, b) = (Dense { data: &[1.0, 2.0], strides: [2, 1] }, Dense { data: &[3.0, 4.0], strides: [2, 1] });
/// let kernel = ukernel(convolve_simd::Isa::best(), [1, 2]);
/// let blocking = Blocking::new(kernel.as_ref(), &Caches::default(), [1, 1, 2]);
/// let mut workspace = vec![0.0; blocking.workspace_len(kernel.as_ref())];
/// let (mut c, target) = ([0.0], Target { row: &|i| [0, i], column: 0, init: Init::Zero, clamp: UNCLAMPED });
/// product(kernel.as_ref(), blocking, &a, &b, [0..1, 0..1], 2, target, &mut BlockMut::new(&mut c, [1, 1, 1]), &mut workspace);
/// assert_eq!(c, [11.0]);
/// ```
#[expect(clippy::too_many_arguments, reason = "a product has two operands, a place and a size")]
pub fn product(
    kernel: &dyn Ukernel,
    blocking: Blocking,
    a: &dyn Operand,
    b: &dyn Operand,
    [rows, columns]: [Range<usize>; 2],
    depth: usize,
    target: Target<'_>,
    c: &mut BlockMut<'_, f32>,
    workspace: &mut [f32],
) {
    /// Most rows of a call: their places are kept, and they stay in L2.
    const ROWS: usize = 96;
    let (mr, nr, Blocking { kc, nc, caches }) = (kernel.mr(), kernel.nr(), blocking);
    let pitch = blocking.pitch();
    let (packed_a, packed_b) = workspace.split_at_mut(lines(mr * pitch));
    let apart = |distance: usize| distance.saturating_mul(size_of::<f32>());
    let view_a =
        a.view_rows().filter(|&(_, _, distance)| !caches.crowded(mr.min(rows.len()), apart(distance)));
    let view_b = b.view_panels(nr);
    // Rows are cut into tiles, and these joined again to blocks: those that are packed are one tile.
    let tiling = cut(rows.len(), mr);
    let tiles = tiling[0];
    let joined = if view_a.is_some() { (ROWS / mr).max(1) } else { 1 };
    // Every step asks for a little of the next panels. (Asked for by the first tile alone they are more than L1 holds, and only in the second half of a
    // depth: 64 x 4096 -> 1000 forward 70 % of the peak instead of 84; Zen 3.)
    let ahead_pitch = nr.div_ceil(tiles.max(1)).min(LINE);
    // LOOP 4; once also when there is nothing to sum, so that C is written.
    for k in (0..depth.max(1)).step_by(kc) {
        let ks = k..depth.min(k + kc);
        let clamp = if ks.end == depth { target.clamp } else { UNCLAMPED };
        // LOOP 3
        for j in columns.clone().step_by(nc) {
            let js = j..columns.end.min(j + nc);
            if view_b.is_none() {
                for (p, j) in js.clone().step_by(nr).enumerate() {
                    let to = &mut packed_b[p * ks.len() * nr..];
                    b.pack_panel(j..js.end.min(j + nr), ks.clone(), nr, to);
                }
            }
            // The panels of this block, and those that come after it, be it in the call that follows this one.
            let (panels, distance, next) = match view_b {
                Some((data, distance)) => {
                    let (column, step) = if js.end < columns.end {
                        (js.end, ks.start)
                    } else if ks.end < depth {
                        (columns.start, ks.end)
                    } else {
                        (columns.end, 0)
                    };
                    let from = |column: usize, step: usize| {
                        data.get(column.div_ceil(nr) * distance + step * nr..).unwrap_or_default()
                    };
                    (from(js.start, ks.start), distance, from(column, step))
                }
                None => (&*packed_b, ks.len() * nr, &[][..]),
            };
            // LOOP 2
            for index in (0..tiles).step_by(joined) {
                let block = first_row(tiling, index)..first_row(tiling, tiles.min(index + joined));
                let from = rows.start + block.start;
                let (lhs, start, pitch) = match view_a {
                    Some((data, first, distance)) => (data, first + from * distance + ks.start, distance),
                    None => {
                        a.pack_rows(from..from + block.len(), ks.clone(), pitch, packed_a);
                        (&*packed_a, 0, pitch)
                    }
                };
                let mut to = [[0; 2]; ROWS];
                for (to, row) in to.iter_mut().zip(block.clone()) {
                    *to = (target.row)(row);
                }
                let mut call = Call {
                    lhs,
                    at: Lhs::Even { start, rows: block.len(), pitch },
                    rhs: panels,
                    pitch: nr,
                    walk: Walk::run(ks.len()),
                    init: match target.init {
                        _ if ks.start > 0 => Init::Dst,
                        Init::Rows(numbers) => Init::Rows(&numbers[block.clone()]),
                        init => init,
                    },
                    clamp,
                    to: To::Rows(&to[..block.len()]),
                    column: target.column + js.start - columns.start,
                    columns: nr,
                    fetch: None,
                    ahead: Ahead::run(
                        next.get(index * ks.len() * ahead_pitch..).unwrap_or_default(),
                        ks.len(),
                        ahead_pitch,
                    ),
                };
                // LOOP 1: what does not change from panel to panel is not made again.
                for j in js.clone().step_by(nr) {
                    call.columns = nr.min(js.end - j);
                    if let (Init::Bias(_), Init::Bias(bias)) = (call.init, target.init) {
                        call.init = Init::Bias(&bias[j - columns.start..][..call.columns]);
                    }
                    kernel.run(&call, c);
                    call.column += nr;
                    call.rhs = call.rhs.get(distance..).unwrap_or_default();
                    call.ahead.data = call.ahead.data.get(distance..).unwrap_or_default();
                }
            }
        }
    }
}
