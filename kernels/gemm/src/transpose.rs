//! Transposition by vectors: squares of LANES x LANES by shuffles, parts of such squares, and a few numbers side by side by selection.

use convolve_core::{BlockMut, LINE, Update};
use convolve_simd::{Simd, each};
use core::ops::Range;

/// Squares of LANES x LANES by shuffles; what is left of more than three rows or columns as parts of such squares, of fewer one by one. (The gradient
/// of a 3x3 kernel in OIHW has 9 rows; 256 channels at 14x14, the whole pass: 1.09 ms in squares of four and one by one, 0.96 as parts; Zen 5.)
#[inline(always)]
pub(crate) fn transpose<S: Simd>(
    s: S,
    [rows, columns]: [usize; 2],
    from: &[f32],
    pitch: usize,
    to: &mut [f32],
    to_pitch: usize,
) {
    const FEW: usize = 3;
    if narrow(s, [rows, columns], from, pitch, to, to_pitch) {
        return;
    }
    let [r1, c1] = [rows, columns].map(|len| len / S::LANES * S::LANES);
    let [r2, c2] =
        [(rows, r1), (columns, c1)].map(|(len, whole)| if len - whole > FEW { len } else { whole });
    // Rows of a few numbers are written side by side, and the next transpose goes on behind: its lines are asked for in time.
    if to_pitch < LINE {
        for line in (0..columns * to_pitch).step_by(LINE) {
            s.prefetch(to, columns * to_pitch + line);
        }
    }
    squares(s, [0..r1, 0..c1], from, pitch, to, to_pitch);
    parts(s, [r1..r2, 0..c2], from, pitch, to, to_pitch);
    parts(s, [0..r1, c1..c2], from, pitch, to, to_pitch);
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

/// Parts of squares, through two squares in L1.
#[inline(always)]
fn parts<S: Simd>(
    s: S,
    [rows, columns]: [Range<usize>; 2],
    from: &[f32],
    pitch: usize,
    to: &mut [f32],
    to_pitch: usize,
) {
    let [mut square, mut transposed] = [[0.0; LINE * LINE]; 2];
    for i in rows.clone().step_by(S::LANES) {
        let height = S::LANES.min(rows.end - i);
        for j in columns.clone().step_by(S::LANES) {
            let width = S::LANES.min(columns.end - j);
            for (row, values) in square.chunks_exact_mut(S::LANES).take(height).enumerate() {
                s.store(s.load_first(&from[(i + row) * pitch + j..][..width]), values);
            }
            s.transpose(&square, S::LANES, &mut transposed, S::LANES);
            for (column, values) in transposed.chunks_exact(S::LANES).take(width).enumerate() {
                s.store_first(s.load(values), &mut to[(j + column) * to_pitch + i..][..height]);
            }
        }
    }
}

/// As [`transpose`], square by square through L1, since rows of a box are borrowed one at a time.
#[inline(always)]
pub(crate) fn transpose_into<S: Simd>(
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

/// Most channels of a pixel that are taken apart, or put together, by selection: with eight it is hardly faster than by squares (AVX2: half as fast).
const FEW_CHANNELS: usize = 6;
/// Most lanes of any vector.
const LANES: usize = 16;

/// Of N vectors, each lane of the result comes from one: which lane, and of which.
#[derive(Clone, Copy)]
struct Lanes {
    order: [u32; LANES],
    which: [f32; LANES],
}

/// For N channels: result `i` of N.
struct Orders<S>(core::marker::PhantomData<S>);

impl<S: Simd> Orders<S> {
    /// Pixel `l` of channel `i` lies at `l*N + i` of N vectors.
    const APART: [[Lanes; FEW_CHANNELS]; FEW_CHANNELS + 1] = Self::orders(true);
    /// Number `l` of vector `i` is pixel `(i*LANES + l) / N` of channel `(i*LANES + l) mod N`.
    const TOGETHER: [[Lanes; FEW_CHANNELS]; FEW_CHANNELS + 1] = Self::orders(false);

    const fn orders(apart: bool) -> [[Lanes; FEW_CHANNELS]; FEW_CHANNELS + 1] {
        let mut orders = [[Lanes { order: [0; LANES], which: [0.0; LANES] }; FEW_CHANNELS]; FEW_CHANNELS + 1];
        let mut n = 1;
        while n <= FEW_CHANNELS {
            let mut i = 0;
            while i < n {
                let mut l = 0;
                while l < S::LANES {
                    let (order, which) = match apart {
                        true => ((l * n + i) % S::LANES, (l * n + i) / S::LANES),
                        false => ((i * S::LANES + l) / n, (i * S::LANES + l) % n),
                    };
                    orders[n][i].order[l] = order as u32;
                    orders[n][i].which[l] = which as f32;
                    l += 1;
                }
                i += 1;
            }
            n += 1;
        }
        orders
    }
}

/// Pixels of a few channels that lie side by side, taken apart to planes, or planes put together to such pixels. Whether it was that.
///
/// A square would be empty but for these channels. In cycles of a Xeon (AVX-512): 28 pixels of 6 channels 331 as parts of squares, 157 so; 224
/// pixels of 3 channels 1800 one by one, 330 so; back again 242 -> 127 and 1480 -> 226. AVX2 gains 1.1 (6 channels) to 4 times (2).
#[inline(always)]
fn narrow<S: Simd>(
    s: S,
    [rows, columns]: [usize; 2],
    from: &[f32],
    pitch: usize,
    to: &mut [f32],
    to_pitch: usize,
) -> bool {
    // Vectors of four lanes, and pixels that fill less than half of one, are left to the other ways.
    if S::LANES < 8 {
        return false;
    }
    macro_rules! channels {
        ($n:expr, $f:ident($($x:expr),*)) => {
            match $n {
                1 => $f::<S, 1>($($x),*),
                2 => $f::<S, 2>($($x),*),
                3 => $f::<S, 3>($($x),*),
                4 => $f::<S, 4>($($x),*),
                5 => $f::<S, 5>($($x),*),
                _ => $f::<S, 6>($($x),*),
            }
        };
    }
    if (1..=FEW_CHANNELS).contains(&pitch) && columns <= pitch && rows >= S::LANES / 2 {
        channels!(pitch, apart(s, [rows, columns], from, to, to_pitch));
        return true;
    }
    if (1..=FEW_CHANNELS).contains(&rows) && to_pitch == rows && columns >= S::LANES / 2 {
        channels!(rows, together(s, columns, from, pitch, to));
        return true;
    }
    false
}

/// Each lane of one of N vectors.
#[inline(always)]
fn select<S: Simd, const N: usize>(s: S, from: &[S::F32; N], lanes: &Lanes) -> S::F32 {
    let which = s.load(&lanes.which);
    let mut selected = s.permute(from[0], &lanes.order);
    each!(I in 1 2 3 4 5 {
        if const { I < N } {
            let here = s.equal(which, s.splat(I as f32));
            selected = s.select(here, s.permute(from[I], &lanes.order), selected);
        }
    });
    selected
}

/// The first `columns` of N channels of `rows` pixels, to planes.
#[inline(always)]
fn apart<S: Simd, const N: usize>(
    s: S,
    [rows, columns]: [usize; 2],
    from: &[f32],
    to: &mut [f32],
    to_pitch: usize,
) {
    for first in (0..rows).step_by(S::LANES) {
        let (from, count) = (&from[first * N..], S::LANES.min(rows - first));
        let mut pixels = [s.splat(0.0); N];
        each!(I in 0 1 2 3 4 5 {
            if const { I < N } {
                pixels[I] = s.load_first(&from[from.len().min(I * S::LANES)..]);
            }
        });
        for (c, lanes) in Orders::<S>::APART[N].iter().enumerate().take(columns) {
            s.store_first(select(s, &pixels, lanes), &mut to[c * to_pitch + first..][..count]);
        }
    }
}

/// N planes of `columns` pixels, to N channels.
#[inline(always)]
fn together<S: Simd, const N: usize>(s: S, columns: usize, from: &[f32], pitch: usize, to: &mut [f32]) {
    for first in (0..columns).step_by(S::LANES) {
        let count = S::LANES.min(columns - first);
        let mut planes = [s.splat(0.0); N];
        each!(I in 0 1 2 3 4 5 {
            if const { I < N } {
                planes[I] = s.load_first(&from[I * pitch + first..][..count]);
            }
        });
        let to = &mut to[first * N..][..count * N];
        for (lanes, to) in Orders::<S>::TOGETHER[N].iter().zip(to.chunks_mut(S::LANES)) {
            s.store_first(select(s, &planes, lanes), to);
        }
    }
}
