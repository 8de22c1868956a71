//! A batch of one: a vector times a matrix, and the product of a column and a row. Both are as fast as memory if nothing waits.
//!
//! ```text
//! forward, backward-data   dst[j]    = sum over k of  a[k] * packed[j / NR][k][j % NR]
//! backward-weights         dst[i, j] = a[i] * b[j]
//! ```
//!
//! The tile of one row that the product would take has as many sums as a panel is wide, two registers on AVX2, and every sum waits for its last
//! addition. Here several panels are read side by side. Sums are those of the product, bit by bit.

use convolve_core::{BlockMut, Cut, Par, Update};
use convolve_simd::{Isa, Rows, Simd, dispatch};

/// Packed columns: their panels are `width` wide and `depth` deep.
#[derive(Clone, Copy)]
pub(crate) struct Columns<'a> {
    pub(crate) packed: &'a [f32],
    pub(crate) depth: usize,
    pub(crate) width: usize,
    /// The first one that is wanted.
    pub(crate) first: usize,
}

/// `to` = the clamped products of `a` and columns, after what they start from: numbers, or what is there.
pub(crate) fn times_columns(
    isa: Isa,
    a: &[f32],
    columns: Columns<'_>,
    bias: Option<&[f32]>,
    update: Update,
    clamp: [f32; 2],
    to: &mut [f32],
) {
    dispatch!(isa, s => s.vectorize(
        #[inline(always)]
        |s| {
            let mut x = 0;
            while x < to.len() {
                let place = Place { x, bias, update, clamp };
                x += lanes(s) * match (to.len() - x).div_ceil(lanes(s)) {
                    1 => some::<_, 1>(s, a, columns, place, to),
                    2 | 3 => some::<_, 2>(s, a, columns, place, to),
                    4..=7 => some::<_, 4>(s, a, columns, place, to),
                    _ => some::<_, 8>(s, a, columns, place, to),
                };
            }
        },
    ));
}

/// Lanes of a register, for the type of a token.
#[inline(always)]
fn lanes<S: Simd>(_: S) -> usize {
    S::LANES
}

/// Where sums go, from column `x` on, and what happens to them.
#[derive(Clone, Copy)]
struct Place<'a> {
    x: usize,
    bias: Option<&'a [f32]>,
    update: Update,
    clamp: [f32; 2],
}

/// `N` registers of columns; gives `N`.
#[expect(clippy::needless_range_loop, reason = "registers must be indexed by constants of unrolled loops")]
#[inline(always)]
fn some<S: Simd, const N: usize>(
    s: S,
    a: &[f32],
    columns: Columns<'_>,
    place: Place<'_>,
    to: &mut [f32],
) -> usize {
    let Columns { packed, depth, width, first } = columns;
    let to = &mut to[place.x..];
    let start = |i: usize| i * S::LANES;
    let offsets: [usize; N] = core::array::from_fn(|i| {
        let column = first + place.x + i * S::LANES;
        column / width * depth * width + column % width
    });
    let rows = Rows::<N>::starting_at(packed, &offsets);
    let mut sums = [s.splat(0.0); N];
    for i in 0..N {
        let from = start(i);
        if place.update == Update::Accumulate {
            sums[i] = s.load_first(&to[from..]);
        } else if let Some(bias) = place.bias {
            sums[i] = s.load_first(&bias[place.x + from..]);
        }
    }
    for (k, x) in a[..depth].iter().enumerate() {
        let (at, factor) = (rows.at(k * width, S::LANES), s.splat(*x));
        for i in 0..N {
            sums[i] = s.mul_add(factor, s.load(at.row(i)), sums[i]);
        }
    }
    let [least, greatest] = [s.splat(place.clamp[0]), s.splat(place.clamp[1])];
    for i in 0..N {
        let from = start(i);
        s.store_first(s.min(greatest, s.max(least, sums[i])), &mut to[from..]);
    }
    N
}

/// `to[i, j] = a[i] * b[j]`, or is increased by it.
pub(crate) fn outer(isa: Isa, [a, b]: [&[f32]; 2], to: &mut [f32], update: Update, par: Par<'_>) {
    /// Products of a task.
    const TASK: usize = 1 << 16;
    let cuts = [
        Cut::whole(1),
        Cut { unit: a.len(), block: (TASK / b.len()).clamp(1, a.len()) },
        Cut::whole(b.len()),
    ];
    let block = BlockMut::new(to, [1, a.len(), b.len()]);
    dispatch!(isa, s => block.for_each_piece(cuts, par, &mut [], 0, &|[_, rows, _], mut to, _| {
        for (i, factor) in a[rows].iter().enumerate() {
            times_row(s, *factor, b, to.row(0, i), update);
        }
    }));
}

/// The sum of a product starts from zero also where it is one product: so -0 is 0.
fn times_row<S: Simd>(s: S, factor: f32, b: &[f32], to: &mut [f32], update: Update) {
    s.vectorize(
        #[inline(always)]
        |s| {
            let factor = s.splat(factor);
            let (vectors, rest) = to.split_at_mut(b.len() / S::LANES * S::LANES);
            let (b, tail) = b.split_at(vectors.len());
            if update == Update::Accumulate {
                for (b, to) in b.chunks_exact(S::LANES).zip(vectors.chunks_exact_mut(S::LANES)) {
                    s.store(s.mul_add(factor, s.load(b), s.load(to)), to);
                }
                s.store_first(s.mul_add(factor, s.load_first(tail), s.load_first(rest)), rest);
            } else {
                for (b, to) in b.chunks_exact(S::LANES).zip(vectors.chunks_exact_mut(S::LANES)) {
                    s.store(s.mul_add(factor, s.load(b), s.splat(0.0)), to);
                }
                s.store_first(s.mul_add(factor, s.load_first(tail), s.splat(0.0)), rest);
            }
        },
    );
}
