//! The transforms of tiles, over even and odd parts: one 2-D nest each for what is read, what is written, and (weight gradients) the other
//! operand. Lanes are channels.
//!
//! ```text
//! data         V = B^T d B       n x n pixels   -> n x n products
//! evaluate     D = G' e G'^T     m x m pixels   -> n x n products      (G without 1 / M'(p), which `interpolate` then has)
//! interpolate  y = A^T M A       n x n products -> m x m outputs
//! ```
//!
//! In one dimension the row for p of each matrix is an even part plus an odd part, the row for -p is their difference (see `matrices`):
//! F(4,3) takes 12 operations for B^T and 12 for A^T where the dense matrices take 24 and 19. In two dimensions: rows first into a tile on the
//! stack, then columns. Products are numbered by column, then row, so that the products of a column are neighbouring planes.

use crate::matrices::Scheme;
use convolve_core::{BlockMut, Update};
use convolve_simd::{Rows, Simd};

/// A transform in one dimension, of `P` pixels to `N` products.
pub(crate) trait Line<const P: usize, const N: usize> {
    /// Of one vector of each.
    fn products<S: Simd>(s: S, pixels: [S::F32; P]) -> [S::F32; N];
}

/// B^T d.
struct Data<T>(T);

impl<T: Scheme<N>, const N: usize> Line<N, N> for Data<T> {
    #[inline(always)]
    fn products<S: Simd>(s: S, d: [S::F32; N]) -> [S::F32; N] {
        let mut v = d;
        if N == 1 {
            return v;
        }
        let pairs = const { T::PARTS.pairs };
        // Rows of 0 and infinity: the highest power has the factor 1.
        let (mut zero, mut infinity) = (d[N - 2], d[N - 1]);
        for k in 0..pairs {
            let factor = s.splat(T::PARTS.all[k] as f32);
            zero = s.mul_add(factor, d[2 * k], zero);
            infinity = s.mul_add(factor, d[2 * k + 1], infinity);
        }
        for p in 0..pairs {
            let (mut even, mut odd) = (d[N - 2], d[N - 3]);
            for k in 0..pairs - 1 {
                let factor = s.splat(T::PARTS.without[p][k] as f32);
                even = s.mul_add(factor, d[2 * k + 2], even);
                odd = s.mul_add(factor, d[2 * k + 1], odd);
            }
            let point = T::PARTS.points[p] as f32;
            v[2 * p + 1] = s.mul_add(s.splat(point), odd, even);
            v[2 * p + 2] = s.mul_add(s.splat(-point), odd, even);
        }
        (v[0], v[N - 1]) = (zero, infinity);
        v
    }
}

/// G' e: the values of a polynomial at the points.
struct Evaluate<T>(T);

impl<T: Scheme<N>, const M: usize, const N: usize> Line<M, N> for Evaluate<T> {
    #[inline(always)]
    fn products<S: Simd>(s: S, e: [S::F32; M]) -> [S::F32; N] {
        let mut v = [e[0]; N];
        v[N - 1] = e[M - 1];
        for p in 0..const { T::PARTS.pairs } {
            let (mut even, mut odd) = (e[0], e[0]);
            for k in 1..M {
                let factor = s.splat(T::PARTS.power(p, k) as f32);
                match k {
                    1 => odd = s.mul(factor, e[1]),
                    _ if k % 2 == 0 => even = s.mul_add(factor, e[k], even),
                    _ => odd = s.mul_add(factor, e[k], odd),
                }
            }
            v[2 * p + 1] = s.add(even, odd);
            v[2 * p + 2] = s.sub(even, odd);
        }
        v
    }
}

/// A^T v, plus `init`. With `scaled`, A has the factors 1 / M'(p) that [`evaluate`] left out.
#[inline(always)]
fn interpolate<S: Simd, T: Scheme<N>, const N: usize, const M: usize>(
    s: S,
    v: [S::F32; N],
    init: S::F32,
    scaled: bool,
) -> [S::F32; M] {
    let mut y = [init; M];
    let zero = if scaled { T::PARTS.at_zero } else { 1.0 };
    y[0] = s.mul_add(s.splat(zero as f32), v[0], y[0]);
    for p in 0..const { T::PARTS.pairs } {
        let (even, odd) = (s.add(v[2 * p + 1], v[2 * p + 2]), s.sub(v[2 * p + 1], v[2 * p + 2]));
        for k in 0..M {
            let factor = T::PARTS.power(p, k) * if scaled { T::PARTS.at_pair[p] } else { 1.0 };
            y[k] = s.mul_add(s.splat(factor as f32), if k % 2 == 0 { even } else { odd }, y[k]);
        }
    }
    if N > 1 {
        y[M - 1] = s.add(y[M - 1], v[N - 1]);
    }
    y
}

/// The pixels of tiles: `rows[i].row(j)` is pixel (i, j) of a tile, all channels.
pub(crate) type Pixels<'a, const NY: usize, const NX: usize> = [Rows<'a, NX>; NY];

/// Images as tiles see them.
#[derive(Clone, Copy)]
pub(crate) struct Images<'a> {
    /// From the first pixel of the first on.
    pub(crate) data: &'a [f32],
    /// Height and width.
    pub(crate) size: [usize; 2],
    /// From one image to the next, from one row, from one column.
    pub(crate) strides: [usize; 3],
    /// From one pixel of a tile to the next: the dilation.
    pub(crate) step: [usize; 2],
    /// Channels to read.
    pub(crate) channels: usize,
}

/// What a stage needs of one tile: its row in the planes of products, and its first pixel, which may lie outside.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TileAt {
    /// Image of the task.
    pub(crate) image: usize,
    /// First pixel that it reads.
    pub(crate) from: [isize; 2],
    /// First pixel that it writes, which may lie outside as well.
    pub(crate) to: [usize; 2],
}

/// What is added and where the outputs are cut off.
#[derive(Clone, Copy)]
pub(crate) struct Outputs<'a> {
    /// One number per channel of the slice.
    pub(crate) bias: Option<&'a [f32]>,
    /// Least and greatest value.
    pub(crate) clamp: [f32; 2],
    /// Replace or add.
    pub(crate) update: Update,
    /// Height and width of the part of the image that the box has.
    pub(crate) size: [usize; 2],
    /// From one pixel of a tile to the next.
    pub(crate) step: [usize; 2],
    /// Channels, as columns of the box.
    pub(crate) columns: [usize; 2],
}

/// The transforms of one F(m, r) x F(m, r) on one instruction set: an object, so that the loops around them are compiled once.
pub(crate) trait Transforms: Send + Sync {
    /// The products of tiles of some images, all channels; `strides` from one tile to the next and from one product.
    fn data(&self, images: &Images<'_>, tiles: &[TileAt], v: &mut [f32], strides: [usize; 2]);
    /// As [`data`](Self::data), of tiles of m x m pixels of the other operand.
    fn evaluate(&self, images: &Images<'_>, tiles: &[TileAt], v: &mut [f32], strides: [usize; 2]);
    /// `dst` of tiles from `m[product][tile][pitch]`, `[rows, pitch]` floats a plane.
    fn interpolate(
        &self,
        m: &[f32],
        plane: [usize; 2],
        tiles: &[TileAt],
        to: Outputs<'_>,
        dst: &mut BlockMut<'_, f32>,
    );
    /// `sums[tap][row][channel]` from `m[product][row][pitch]`, `[rows, pitch]` floats a plane.
    fn gradient(&self, m: &[f32], plane: [usize; 2], sums: &mut BlockMut<'_, f32>);
    /// `U = G g G^T` of the taps of some output channels in one input channel: in f64, then rounded once.
    fn weights(&self, taps: &[[f64; WIDTH]], u: &mut [[f32; WIDTH]]);
}

/// Output channels whose weights are transformed at a time.
pub(crate) const WIDTH: usize = 16;

/// A pair of schemes on an instruction set.
#[derive(Clone, Copy)]
pub(crate) struct Kernel<
    S,
    Y,
    X,
    const NY: usize,
    const NX: usize,
    const MY: usize,
    const MX: usize,
    const RY: usize,
    const RX: usize,
> {
    pub(crate) s: S,
    pub(crate) schemes: core::marker::PhantomData<(Y, X)>,
}

/// Channels of zeros that pixels outside of an image are read from.
static ZEROS: [f32; 1 << 14] = [0.0; 1 << 14];

/// Most channels: what pixels outside are read from has no more.
pub(crate) const MAX_CHANNELS: usize = ZEROS.len();

/// The pixels of one tile, those outside as zeros.
#[inline(always)]
fn border<'a, const NY: usize, const NX: usize>(images: &Images<'a>, tile: &TileAt) -> Pixels<'a, NY, NX> {
    core::array::from_fn(|i| {
        let Images { data, size, strides, step, .. } = *images;
        let y = tile.from[0] + (i * step[0]) as isize;
        let mut row = [&ZEROS[..]; NX];
        if (0..size[0] as isize).contains(&y) {
            let start = tile.image * strides[0] + y as usize * strides[1];
            for (j, pixel) in row.iter_mut().enumerate() {
                let x = tile.from[1] + (j * step[1]) as isize;
                if (0..size[1] as isize).contains(&x) {
                    *pixel = &data[start + x as usize * strides[2]..];
                }
            }
        }
        Rows::new(&row)
    })
}

/// Vectors of channels of one tile, at most [`CHUNK`]: `PY` x `PX` pixels to `NY` x `NX` products. All rows of all vectors come first, so that
/// a column of products is written for all of them: to few pages at a time, of which stores reach no more than sixteen for free.
#[inline(always)]
fn products<
    S: Simd,
    Y: Line<PY, NY>,
    X: Line<PX, NX>,
    const PY: usize,
    const PX: usize,
    const NY: usize,
    const NX: usize,
    const WHOLE: bool,
>(
    s: S,
    pixels: &Pixels<'_, PY, PX>,
    [at, len]: [usize; 2],
    rows: &mut [[[S::F32; NX]; PY]; CHUNK],
    v: &mut [f32],
    stride: usize,
) {
    let chunk = len.div_ceil(S::LANES);
    for (vector, rows) in rows[..chunk].iter_mut().enumerate() {
        let lanes = if WHOLE { S::LANES } else { len };
        for i in 0..PY {
            let row = pixels[i].at(at + vector * S::LANES, lanes);
            let mut values = [s.splat(0.0); PX];
            for j in 0..PX {
                values[j] = if WHOLE { s.load(row.row(j)) } else { s.load_first(row.row(j)) };
            }
            rows[i] = X::products(s, values);
        }
    }
    for j in 0..NX {
        let v = &mut v[j * NY * stride..][..(NY - 1) * stride + chunk * S::LANES];
        for (vector, rows) in rows[..chunk].iter().enumerate() {
            let mut values = [s.splat(0.0); PY];
            for i in 0..PY {
                values[i] = rows[i][j];
            }
            let values = Y::products(s, values);
            for i in 0..NY {
                s.store(values[i], &mut v[i * stride + vector * S::LANES..]);
            }
        }
    }
}

/// Vectors of channels that are transformed together: their rows stay in L1.
const CHUNK: usize = 4;

/// All tiles, vector by vector of their channels.
#[inline(always)]
fn all_products<
    S: Simd,
    Y: Line<PY, NY>,
    X: Line<PX, NX>,
    const PY: usize,
    const PX: usize,
    const NY: usize,
    const NX: usize,
>(
    s: S,
    images: &Images<'_>,
    tiles: &[TileAt],
    v: &mut [f32],
    v_strides: [usize; 2],
) {
    let Images { data, size, strides, step, channels } = *images;
    let reach = [(PY - 1) * step[0] + 1, (PX - 1) * step[1] + 1];
    let fits = size[0] >= reach[0] && size[1] >= reach[1];
    let inner: Pixels<'_, PY, PX> = core::array::from_fn(|i| {
        let place = |j: usize| if fits { i * step[0] * strides[1] + j * step[1] * strides[2] } else { 0 };
        Rows::starting_at(data, &core::array::from_fn(place))
    });
    let mut rows = [[[s.splat(0.0); NX]; PY]; CHUNK];
    for (t, tile) in tiles.iter().enumerate() {
        let [y, x] = tile.from;
        let whole = y >= 0 && x >= 0 && y as usize + reach[0] <= size[0] && x as usize + reach[1] <= size[1];
        let edge: Pixels<'_, PY, PX>;
        let (pixels, start) = if whole {
            (&inner, tile.image * strides[0] + y as usize * strides[1] + x as usize * strides[2])
        } else {
            edge = border(images, tile);
            (&edge, 0)
        };
        let (v, full) = (&mut v[t * v_strides[0]..], channels / S::LANES * S::LANES);
        for c in (0..full).step_by(CHUNK * S::LANES) {
            let at = [start + c, (full - c).min(CHUNK * S::LANES)];
            products::<S, Y, X, PY, PX, NY, NX, true>(s, pixels, at, &mut rows, &mut v[c..], v_strides[1]);
        }
        if full < channels {
            let at = [start + full, channels - full];
            products::<S, Y, X, PY, PX, NY, NX, false>(
                s,
                pixels,
                at,
                &mut rows,
                &mut v[full..],
                v_strides[1],
            );
        }
    }
}

impl<
    S: Simd,
    Y: Scheme<NY>,
    X: Scheme<NX>,
    const NY: usize,
    const NX: usize,
    const MY: usize,
    const MX: usize,
    const RY: usize,
    const RX: usize,
> Transforms for Kernel<S, Y, X, NY, NX, MY, MX, RY, RX>
{
    fn data(&self, images: &Images<'_>, tiles: &[TileAt], v: &mut [f32], strides: [usize; 2]) {
        self.s.vectorize(
            #[inline(always)]
            |s| all_products::<S, Data<Y>, Data<X>, NY, NX, NY, NX>(s, images, tiles, v, strides),
        );
    }

    fn evaluate(&self, images: &Images<'_>, tiles: &[TileAt], v: &mut [f32], strides: [usize; 2]) {
        self.s.vectorize(
            #[inline(always)]
            |s| all_products::<S, Evaluate<Y>, Evaluate<X>, MY, MX, NY, NX>(s, images, tiles, v, strides),
        );
    }

    fn interpolate(
        &self,
        m: &[f32],
        [rows, pitch]: [usize; 2],
        tiles: &[TileAt],
        to: Outputs<'_>,
        dst: &mut BlockMut<'_, f32>,
    ) {
        self.s.vectorize(
            #[inline(always)]
            |s| {
                let products = planes::<NY, NX>(m, rows * pitch);
                let [first, columns] = to.columns;
                let clamp = (to.clamp != [f32::NEG_INFINITY, f32::INFINITY]).then_some(to.clamp);
                for (t, tile) in tiles.iter().enumerate() {
                    for c in (0..columns).step_by(S::LANES) {
                        let bias = to.bias.map_or(s.splat(0.0), |bias| s.load_first(&bias[c..]));
                        let values =
                            backward::<S, Y, X, NY, NX, MY, MX>(s, &products, t * pitch + c, bias, false);
                        let [y, x] = tile.to;
                        let inside = |a: usize, at: usize| to.size[a].saturating_sub(at).div_ceil(to.step[a]);
                        let valid = MX.min(inside(1, x));
                        for i in 0..MY.min(inside(0, y)) {
                            let pixel = (y + i * to.step[0]) * to.size[1] + x;
                            for j in 0..MX {
                                if j >= valid {
                                    break;
                                }
                                let row = &mut dst.row(tile.image, pixel + j * to.step[1])
                                    [first..first + columns][c..];
                                let mut value = values[i][j];
                                if to.update == Update::Accumulate {
                                    value = s.add(value, s.load_first(row));
                                }
                                if let Some([least, greatest]) = clamp {
                                    value = s.min(s.splat(greatest), s.max(s.splat(least), value));
                                }
                                s.store_first(value, row);
                            }
                        }
                    }
                }
            },
        );
    }

    fn gradient(&self, m: &[f32], [rows, pitch]: [usize; 2], sums: &mut BlockMut<'_, f32>) {
        self.s.vectorize(
            #[inline(always)]
            |s| {
                let products = planes::<NY, NX>(m, rows * pitch);
                let [_, rows, columns] = sums.extent();
                for row in 0..rows {
                    for c in (0..columns).step_by(S::LANES) {
                        let zero = s.splat(0.0);
                        let taps =
                            backward::<S, Y, X, NY, NX, RY, RX>(s, &products, row * pitch + c, zero, true);
                        for i in 0..RY {
                            for j in 0..RX {
                                s.store_first(taps[i][j], &mut sums.row(i * RX + j, row)[c..]);
                            }
                        }
                    }
                }
            },
        );
    }

    fn weights(&self, taps: &[[f64; WIDTH]], u: &mut [[f32; WIDTH]]) {
        self.s.vectorize(
            #[inline(always)]
            |_| {
                let (gy, gx) = const { (Y::PARTS.g(RY), X::PARTS.g(RX)) };
                for j in 0..NX {
                    let mut column = [[0.0; WIDTH]; NY];
                    for (tap, row) in column.iter_mut().zip(taps.chunks_exact(RX)) {
                        for (factor, w) in gx[j].iter().zip(row) {
                            (0..WIDTH).for_each(|lane| tap[lane] += factor * w[lane]);
                        }
                    }
                    for i in 0..NY {
                        let mut sum = [0.0; WIDTH];
                        for (factor, tap) in gy[i].iter().zip(&column[..RY]) {
                            (0..WIDTH).for_each(|lane| sum[lane] += factor * tap[lane]);
                        }
                        u[j * NY + i] = sum.map(|x| x as f32);
                    }
                }
            },
        );
    }
}

/// The planes of products: `[column].row(row)`.
#[inline(always)]
fn planes<const NY: usize, const NX: usize>(m: &[f32], plane: usize) -> [Rows<'_, NY>; NX] {
    core::array::from_fn(|j| {
        let offsets: [usize; NY] = core::array::from_fn(|i| (j * NY + i) * plane);
        Rows::starting_at(m, &offsets)
    })
}

/// One vector of channels of one tile: products to `MY` x `MX` outputs.
#[inline(always)]
fn backward<
    S: Simd,
    Y: Scheme<NY>,
    X: Scheme<NX>,
    const NY: usize,
    const NX: usize,
    const MY: usize,
    const MX: usize,
>(
    s: S,
    products: &[Rows<'_, NY>; NX],
    at: usize,
    init: S::F32,
    scaled: bool,
) -> [[S::F32; MX]; MY] {
    let mut rows = [[s.splat(0.0); NX]; MY];
    for j in 0..NX {
        let column = products[j].at(at, S::LANES);
        let column = core::array::from_fn(|i| s.load(column.row(i)));
        let column: [S::F32; MY] = interpolate::<S, Y, NY, MY>(s, column, s.splat(0.0), scaled);
        for i in 0..MY {
            rows[i][j] = column[i];
        }
    }
    let mut outputs = [[s.splat(0.0); MX]; MY];
    for i in 0..MY {
        outputs[i] = interpolate::<S, X, NX, MX>(s, rows[i], init, scaled);
    }
    outputs
}
