//! The trait [`Simd`]: what a kernel may ask of a vector unit.

use crate::Bypass;
use core::fmt::Debug;

/// A vector instruction set, for `f32`.
///
/// A value of an implementing type is a *token*: it can only be made when the CPU has the
/// instructions, so every method is safe. Kernels are generic in `S: Simd`, carry a token, and
/// enter the instruction set with [`vectorize`](Simd::vectorize).
///
/// ```
/// use convolve_simd::{Isa, Simd, dispatch};
///
/// /// Multiplies all elements by `factor`.
/// fn scale<S: Simd>(s: S, factor: f32, data: &mut [f32]) {
///     s.vectorize(
///         #[inline(always)]
///         |s| {
///             let factor = s.splat(factor);
///             for part in data.chunks_mut(S::LANES) {
///                 let scaled = s.mul(s.load_first(part), factor);
///                 s.store_first(scaled, part);
///             }
///         },
///     )
/// }
///
/// let mut data = [1.0, 2.0, 3.0, 4.0, 5.0];
/// dispatch!(Isa::best(), s => scale(s, 2.0, &mut data));
/// assert_eq!(data, [2.0, 4.0, 6.0, 8.0, 10.0]);
/// ```
pub trait Simd: Copy + Send + Sync + Debug + 'static {
    /// The name users see and write in `CONVOLVE_ISA`.
    ///
    /// ```
    /// use convolve_simd::{Avx2, Portable, Simd};
    /// assert_eq!((Portable::NAME, Avx2::NAME), ("portable", "avx2"));
    /// ```
    const NAME: &'static str;

    /// How many `f32` one register holds.
    ///
    /// ```
    /// use convolve_simd::{Avx2, Avx512, Neon, Portable, Simd};
    /// assert_eq!([Portable::LANES, Neon::LANES, Avx2::LANES, Avx512::LANES], [4, 4, 8, 16]);
    /// ```
    const LANES: usize;

    /// How many vector registers there are: what a register tile has to fit into.
    ///
    /// ```
    /// use convolve_simd::{Avx2, Avx512, Neon, Portable, Simd};
    /// let registers = [Portable::REGISTERS, Neon::REGISTERS, Avx2::REGISTERS, Avx512::REGISTERS];
    /// assert_eq!(registers, [16, 32, 16, 32]);
    /// ```
    const REGISTERS: usize;

    /// One register full of `f32`: [`LANES`](Simd::LANES) lanes.
    ///
    /// ```
    /// use convolve_simd::{Portable, Simd};
    /// fn lanes<S: Simd>(s: S, v: S::F32) -> Vec<f32> {
    ///     let mut lanes = vec![0.0; S::LANES];
    ///     s.store(v, &mut lanes);
    ///     lanes
    /// }
    /// let s = Portable::new();
    /// assert_eq!(lanes(s, s.splat(1.5)), [1.5; 4]);
    /// ```
    type F32: Copy + Debug;

    /// One truth value per lane: what comparisons give and [`select`](Simd::select) takes.
    ///
    /// ```
    /// use convolve_simd::{Portable, Simd};
    /// let s = Portable::new();
    /// let mask = s.less(s.load(&[1.0, 5.0, 2.0, 5.0]), s.splat(3.0));
    /// assert_eq!(s.sum(s.select(mask, s.splat(1.0), s.splat(0.0))), 2.0);
    /// ```
    type Mask: Copy + Debug;

    /// Runs `f` compiled with the instructions of this set; the only way into them.
    ///
    /// Outside of `vectorize` all methods work, but each is a function call through memory. All
    /// that `f` calls must be `#[inline(always)]`, and `f` itself is best marked so too; see
    /// [the crate's documentation](crate#two-traps) for why.
    ///
    /// ```
    /// use convolve_simd::{Portable, Simd};
    /// let seven = Portable::new().vectorize(|s| s.sum(s.splat(1.75)));
    /// assert_eq!(seven, 7.0);
    /// ```
    fn vectorize<R>(self, f: impl FnOnce(Self) -> R) -> R;

    /// All lanes are `x`.
    ///
    /// ```
    /// use convolve_simd::{Portable, Simd};
    /// let s = Portable::new();
    /// let mut lanes = [0.0; 4];
    /// s.store(s.splat(2.0), &mut lanes);
    /// assert_eq!(lanes, [2.0; 4]);
    /// ```
    fn splat(self, x: f32) -> Self::F32;

    /// Reads the first [`LANES`](Simd::LANES) elements; no alignment is needed.
    ///
    /// # Panics
    /// When `from` is shorter.
    ///
    /// ```
    /// use convolve_simd::{Portable, Simd};
    /// let s = Portable::new();
    /// assert_eq!(s.sum(s.load(&[1.0, 2.0, 3.0, 4.0, 99.0])), 10.0);
    /// ```
    fn load(self, from: &[f32]) -> Self::F32;

    /// Writes the first [`LANES`](Simd::LANES) elements; no alignment is needed.
    ///
    /// # Panics
    /// When `to` is shorter.
    ///
    /// ```
    /// use convolve_simd::{Portable, Simd};
    /// let s = Portable::new();
    /// let mut to = [0.0; 5];
    /// s.store(s.splat(1.0), &mut to);
    /// assert_eq!(to, [1.0, 1.0, 1.0, 1.0, 0.0]);
    /// ```
    fn store(self, v: Self::F32, to: &mut [f32]);

    /// Whether [`store_past`](Simd::store_past) would write there past the caches: where a vector is a whole cache line, and `to` starts with one. (Half a line takes
    /// longer that way than a store, if others are written before its other half.)
    ///
    /// ```
    /// use convolve_simd::{Portable, Simd};
    /// assert!(!Portable::new().goes_past(&[0.0; 64]));
    /// ```
    #[inline(always)]
    fn goes_past(self, to: &[f32]) -> bool {
        let _ = to;
        false
    }

    /// As [`store`](Simd::store), past the caches where it [can](Simd::goes_past): the line is not read before. For memory that no cache will hold; in a cache
    /// it takes four times as long.
    ///
    /// # Panics
    /// When `to` is shorter.
    ///
    /// ```
    /// use convolve_simd::{Portable, Simd, bypass};
    /// let (s, mut to) = (Portable::new(), [0.0; 5]);
    /// bypass(true, |past| s.store_past(s.splat(1.0), &mut to, past.unwrap()));
    /// assert_eq!(to, [1.0, 1.0, 1.0, 1.0, 0.0]);
    /// ```
    #[inline(always)]
    fn store_past(self, v: Self::F32, to: &mut [f32], past: &Bypass) {
        let _ = past;
        self.store(v, to);
    }

    /// Reads the first `min(from.len(), LANES)` elements and nothing beyond; other lanes are 0.
    ///
    /// ```
    /// use convolve_simd::{Portable, Simd};
    /// let s = Portable::new();
    /// assert_eq!(s.sum(s.load_first(&[1.0, 2.0, 3.0])), 6.0);
    /// ```
    fn load_first(self, from: &[f32]) -> Self::F32;

    /// The lanes `first .. end`; none if `first >= end`. Both are at most `LANES`.
    ///
    /// ```
    /// use convolve_simd::{Portable, Simd};
    /// let s = Portable::new();
    /// let inside = s.select(s.between(1, 3), s.splat(1.0), s.splat(0.0));
    /// assert_eq!(s.sum(inside), 2.0);
    /// ```
    fn between(self, first: usize, end: usize) -> Self::Mask;

    /// Lane `i` is the element `i`, or 0 where the mask does not select it. [`Strip::across`](crate::Strip::across) calls it.
    ///
    /// # Safety
    /// Elements that are selected must be readable; others are not touched.
    unsafe fn load_where(self, from: *const f32, mask: Self::Mask) -> Self::F32;

    /// Writes the first `min(to.len(), LANES)` elements and nothing beyond.
    ///
    /// ```
    /// use convolve_simd::{Portable, Simd};
    /// let s = Portable::new();
    /// let mut to = [0.0; 3];
    /// s.store_first(s.splat(1.0), &mut to);
    /// assert_eq!(to, [1.0; 3]);
    /// ```
    fn store_first(self, v: Self::F32, to: &mut [f32]);

    /// `v` itself; but what the source reads before comes before it in the machine code as well, and what it reads later later.
    ///
    /// A kernel that loads a vector for a few multiply-adds, then the next, means that order: it needs few registers, and neighbouring
    /// instructions do not wait for each other. LLVM's scheduler sees freedom instead: it loads everything first, spills it, and does all
    /// steps into one sum in a row. An empty piece of inline assembly tells it not to.
    ///
    /// ```
    /// use convolve_simd::{Portable, Simd};
    /// let s = Portable::new();
    /// assert_eq!(s.sum(s.in_order(s.splat(2.0))), 8.0);
    /// ```
    fn in_order(self, v: Self::F32) -> Self::F32 {
        v
    }

    /// Asks for the cache line of `data[at]` to be brought to L1; a hint that changes nothing else, wherever `at` is. Nothing is checked: a comparison
    /// for each hint costs more than hints for rows that do not exist.
    ///
    /// ```
    /// use convolve_simd::{Isa, Simd, dispatch};
    /// dispatch!(Isa::best(), s => s.prefetch(&[1.0], 0));
    /// ```
    fn prefetch(self, data: &[f32], at: usize) {
        let _ = (data, at);
    }

    /// `a + b`, lane by lane.
    ///
    /// ```
    /// use convolve_simd::{Portable, Simd};
    /// let s = Portable::new();
    /// assert_eq!(s.sum(s.add(s.splat(1.0), s.splat(2.0))), 4.0 * 3.0);
    /// ```
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;

    /// `a - b`, lane by lane.
    ///
    /// ```
    /// use convolve_simd::{Portable, Simd};
    /// let s = Portable::new();
    /// assert_eq!(s.sum(s.sub(s.splat(1.0), s.splat(2.0))), 4.0 * -1.0);
    /// ```
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32;

    /// `a * b`, lane by lane.
    ///
    /// ```
    /// use convolve_simd::{Portable, Simd};
    /// let s = Portable::new();
    /// assert_eq!(s.sum(s.mul(s.splat(3.0), s.splat(2.0))), 4.0 * 6.0);
    /// ```
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;

    /// The greater of `a` and `b`, lane by lane; NaN where `b` is NaN.
    ///
    /// Where only `a` is NaN the result is `b` or NaN, depending on the instruction set. So the
    /// value that may be NaN goes last: `max(low, v)`.
    ///
    /// ```
    /// use convolve_simd::{Portable, Simd};
    /// let s = Portable::new();
    /// assert_eq!(s.sum(s.max(s.splat(0.0), s.splat(-5.0))), 0.0);
    /// assert!(s.sum(s.max(s.splat(0.0), s.splat(f32::NAN))).is_nan());
    /// ```
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32;

    /// The lesser of `a` and `b`, lane by lane; NaN where `b` is NaN.
    ///
    /// As with [`max`](Simd::max), the value that may be NaN goes last: `min(high, v)`.
    ///
    /// ```
    /// use convolve_simd::{Portable, Simd};
    /// let s = Portable::new();
    /// assert_eq!(s.sum(s.min(s.splat(6.0), s.splat(7.0))), 4.0 * 6.0);
    /// assert!(s.sum(s.min(s.splat(6.0), s.splat(f32::NAN))).is_nan());
    /// ```
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32;

    /// The greater of `a` and `b`, lane by lane; NaN where either is.
    ///
    /// ```
    /// use convolve_simd::{Portable, Simd};
    /// let s = Portable::new();
    /// assert!(s.sum(s.max_nan(s.splat(f32::NAN), s.splat(1.0))).is_nan());
    /// assert!(s.sum(s.max_nan(s.splat(1.0), s.splat(f32::NAN))).is_nan());
    /// ```
    fn max_nan(self, a: Self::F32, b: Self::F32) -> Self::F32;

    /// `a / b`, lane by lane, rounded once.
    ///
    /// ```
    /// use convolve_simd::{Portable, Simd};
    /// let s = Portable::new();
    /// assert_eq!(s.sum(s.div(s.splat(3.0), s.splat(2.0))), 4.0 * 1.5);
    /// ```
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32;

    /// Where `a == b`; never where one is NaN.
    ///
    /// ```
    /// use convolve_simd::{Portable, Simd};
    /// let s = Portable::new();
    /// let mask = s.equal(s.load(&[0.0, 1.0, f32::NAN, 3.0]), s.load(&[-0.0, 2.0, f32::NAN, 3.0]));
    /// assert_eq!(s.sum(s.select(mask, s.splat(1.0), s.splat(0.0))), 2.0);
    /// ```
    fn equal(self, a: Self::F32, b: Self::F32) -> Self::Mask;

    /// Where `a != b`, or one is NaN: `not_equal(v, v)` is where `v` is NaN.
    ///
    /// ```
    /// use convolve_simd::{Portable, Simd};
    /// let s = Portable::new();
    /// let v = s.load(&[0.0, f32::NAN, f32::INFINITY, 3.0]);
    /// assert_eq!(s.sum(s.select(s.not_equal(v, v), s.splat(1.0), s.splat(0.0))), 1.0);
    /// ```
    fn not_equal(self, a: Self::F32, b: Self::F32) -> Self::Mask;

    /// Where `a < b`; never where one is NaN.
    ///
    /// ```
    /// use convolve_simd::{Portable, Simd};
    /// let s = Portable::new();
    /// let mask = s.less(s.load(&[0.0, 2.0, f32::NAN, 1.0]), s.splat(1.0));
    /// assert_eq!(s.sum(s.select(mask, s.splat(1.0), s.splat(0.0))), 1.0);
    /// ```
    fn less(self, a: Self::F32, b: Self::F32) -> Self::Mask;

    /// Where `a >= b`; never where one is NaN.
    ///
    /// ```
    /// use convolve_simd::{Portable, Simd};
    /// let s = Portable::new();
    /// let mask = s.at_least(s.load(&[0.0, 1.0, f32::NAN, 3.0]), s.splat(1.0));
    /// assert_eq!(s.sum(s.select(mask, s.splat(1.0), s.splat(0.0))), 2.0);
    /// ```
    fn at_least(self, a: Self::F32, b: Self::F32) -> Self::Mask;

    /// Where the byte is `byte`: lane by lane of the first [`LANES`](Simd::LANES) bytes. Where there are fewer, other lanes read 0.
    ///
    /// ```
    /// use convolve_simd::{Portable, Simd};
    /// let s = Portable::new();
    /// let mask = s.equal_byte(&[7, 200, 7], 7);
    /// assert_eq!(s.sum(s.select(mask, s.splat(1.0), s.splat(0.0))), 2.0);
    /// ```
    fn equal_byte(self, from: &[u8], byte: u8) -> Self::Mask;

    /// The first [`LANES`](Simd::LANES) bytes as numbers, zeros where there are fewer.
    ///
    /// ```
    /// use convolve_simd::{Portable, Simd};
    /// let s = Portable::new();
    /// assert_eq!(s.sum(s.load_bytes(&[7, 200, 7])), 214.0);
    /// ```
    fn load_bytes(self, from: &[u8]) -> Self::F32;

    /// Writes the first `min(to.len(), LANES)` lanes as bytes, and nothing beyond; lanes are whole numbers from 0 to 255.
    ///
    /// ```
    /// use convolve_simd::{Portable, Simd};
    /// let (s, mut to) = (Portable::new(), [0; 3]);
    /// s.store_bytes(s.load(&[0.0, 255.0, 7.0, 9.0]), &mut to);
    /// assert_eq!(to, [0, 255, 7]);
    /// ```
    fn store_bytes(self, v: Self::F32, to: &mut [u8]);

    /// Where either is true.
    ///
    /// ```
    /// use convolve_simd::{Portable, Simd};
    /// let s = Portable::new();
    /// let v = s.load(&[1.0, 2.0, f32::NAN, 4.0]);
    /// let mask = s.or(s.less(v, s.splat(2.0)), s.not_equal(v, v));
    /// assert_eq!(s.sum(s.select(mask, s.splat(1.0), s.splat(0.0))), 2.0);
    /// ```
    fn or(self, a: Self::Mask, b: Self::Mask) -> Self::Mask;

    /// The lanes of `then` where `mask` is true, those of `otherwise` elsewhere.
    ///
    /// ```
    /// use convolve_simd::{Portable, Simd};
    /// let s = Portable::new();
    /// let v = s.load(&[-1.0, 2.0, -3.0, 4.0]);
    /// assert_eq!(s.sum(s.select(s.less(v, s.splat(0.0)), s.splat(0.0), v)), 6.0);
    /// ```
    fn select(self, mask: Self::Mask, then: Self::F32, otherwise: Self::F32) -> Self::F32;

    /// The lanes of `v` where `mask` is true, zeros elsewhere.
    ///
    /// ```
    /// use convolve_simd::{Portable, Simd};
    /// let s = Portable::new();
    /// let v = s.load(&[-1.0, 2.0, -3.0, 4.0]);
    /// assert_eq!(s.sum(s.keep(s.less(v, s.splat(0.0)), v)), -4.0);
    /// ```
    fn keep(self, mask: Self::Mask, v: Self::F32) -> Self::F32;

    /// `v * 2^n`, lane by lane, for whole numbers `n` from -126 to 127; for others anything.
    ///
    /// ```
    /// use convolve_simd::{Portable, Simd};
    /// let s = Portable::new();
    /// assert_eq!(s.sum(s.scale(s.splat(1.5), s.load(&[0.0, 1.0, 2.0, 3.0]))), 1.5 * 15.0);
    /// ```
    fn scale(self, v: Self::F32, n: Self::F32) -> Self::F32;

    /// Of the elements of `a` and then `b`, those at even and those at odd places.
    ///
    /// ```
    /// use convolve_simd::{Portable, Simd};
    /// let s = Portable::new();
    /// let (even, odd) = s.deinterleave(s.load(&[0.0, 1.0, 2.0, 3.0]), s.load(&[4.0, 5.0, 6.0, 7.0]));
    /// assert_eq!((s.sum(even), s.sum(odd)), (12.0, 16.0));
    /// ```
    fn deinterleave(self, a: Self::F32, b: Self::F32) -> (Self::F32, Self::F32);

    /// The inverse of [`deinterleave`](Simd::deinterleave): `a[0], b[0], a[1], b[1]` and so on, as two registers.
    ///
    /// ```
    /// use convolve_simd::{Portable, Simd};
    /// let s = Portable::new();
    /// let (first, second) = s.interleave(s.load(&[0.0, 2.0, 4.0, 6.0]), s.load(&[1.0, 3.0, 5.0, 7.0]));
    /// assert_eq!((s.sum(first), s.sum(second)), (6.0, 22.0));
    /// ```
    fn interleave(self, a: Self::F32, b: Self::F32) -> (Self::F32, Self::F32);

    /// `v` moved up by a lane: the last lane of `before`, and then all but the last of `v`.
    ///
    /// ```
    /// use convolve_simd::{Portable, Simd};
    /// let (s, mut to) = (Portable::new(), [0.0; 4]);
    /// s.store(s.shift_in(s.splat(9.0), s.load(&[1.0, 2.0, 3.0, 4.0])), &mut to);
    /// assert_eq!(to, [9.0, 1.0, 2.0, 3.0]);
    /// ```
    fn shift_in(self, before: Self::F32, v: Self::F32) -> Self::F32;

    /// `a * b + c`, lane by lane: rounded once, except that [`Portable`](crate::Portable) rounds
    /// twice unless the crate was compiled for a CPU with FMA.
    ///
    /// ```
    /// use convolve_simd::{Portable, Simd};
    /// let s = Portable::new();
    /// assert_eq!(s.sum(s.mul_add(s.splat(2.0), s.splat(3.0), s.splat(1.0))), 4.0 * 7.0);
    /// ```
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;

    /// Lane `i` becomes what lane `order[i]` (modulo `LANES`) was.
    ///
    /// # Panics
    /// When `order` has fewer than `LANES` entries.
    ///
    /// ```
    /// use convolve_simd::{Portable, Simd};
    /// let (s, mut to) = (Portable::new(), [0.0; 4]);
    /// s.store(s.permute(s.load(&[5.0, 6.0, 7.0, 8.0]), &[3, 0, 0, 1]), &mut to);
    /// assert_eq!(to, [8.0, 5.0, 5.0, 6.0]);
    /// ```
    fn permute(self, v: Self::F32, order: &[u32]) -> Self::F32;

    /// The sum of all lanes, in a fixed order: lane `i` plus lane `i + LANES / 2`, and so on with
    /// the half that remains.
    ///
    /// ```
    /// use convolve_simd::{Portable, Simd};
    /// let s = Portable::new();
    /// // (1e8 - 1e8) + (1 + 2)
    /// assert_eq!(s.sum(s.load(&[1e8, 1.0, -1e8, 2.0])), 3.0);
    /// ```
    fn sum(self, v: Self::F32) -> f32;

    /// Transposes a block of `LANES` rows and `LANES` columns:
    /// `to[j * to_pitch + i] = from[i * from_pitch + j]`. The rest of `to` stays.
    ///
    /// # Panics
    /// When a pitch is less than `LANES`, or a slice does not contain the block.
    ///
    /// ```
    /// use convolve_simd::{Portable, Simd};
    /// let from: [f32; 16] = core::array::from_fn(|i| i as f32);
    /// let mut to = [0.0; 16];
    /// Portable::new().transpose(&from, 4, &mut to, 4);
    /// assert_eq!(to[..8], [0.0, 4.0, 8.0, 12.0, 1.0, 5.0, 9.0, 13.0]);
    /// ```
    fn transpose(self, from: &[f32], from_pitch: usize, to: &mut [f32], to_pitch: usize);
}

/// Panics unless a slice of `len` contains a block of `lanes` rows and columns.
#[inline(always)]
pub(crate) fn assert_block(lanes: usize, len: usize, pitch: usize) {
    assert!(pitch >= lanes, "the pitch is less than the number of lanes");
    // Saturated, the end is greater than any length.
    let end = pitch.saturating_mul(lanes - 1).saturating_add(lanes);
    assert!(end <= len, "the slice does not contain the block");
}

/// The lanes `first .. end`: all bits of a lane, or none.
#[inline(always)]
pub(crate) fn between<const LANES: usize>(first: usize, end: usize) -> [u32; LANES] {
    core::array::from_fn(|i| if first <= i && i < end { u32::MAX } else { 0 })
}

/// Element by element, for instruction sets without masked loads.
///
/// # Safety
/// Elements that are selected must be readable.
#[inline(always)]
pub(crate) unsafe fn load_where<const LANES: usize>(from: *const f32, mask: [u32; LANES]) -> [f32; LANES] {
    core::array::from_fn(|i| match mask[i] {
        0 => 0.0,
        // SAFETY: the caller says so.
        _ => unsafe { from.wrapping_add(i).read() },
    })
}

/// Up to three elements, then zeros. A copy of variable length would be a call to `memcpy`.
#[inline(always)]
pub(crate) fn load_part_of_4(from: &[f32]) -> [f32; 4] {
    match *from {
        [] => [0.0; 4],
        [a] => [a, 0.0, 0.0, 0.0],
        [a, b] => [a, b, 0.0, 0.0],
        [a, b, c, ..] => [a, b, c, 0.0],
    }
}

/// The inverse of [`load_part_of_4`].
#[inline(always)]
pub(crate) fn store_part_of_4(lanes: [f32; 4], to: &mut [f32]) {
    match to {
        [] => {}
        [a] => *a = lanes[0],
        [a, b] => [*a, *b] = [lanes[0], lanes[1]],
        [a, b, c, ..] => [*a, *b, *c] = [lanes[0], lanes[1], lanes[2]],
    }
}

/// The first bytes, then zeros.
#[inline(always)]
pub(crate) fn first_bytes<const LANES: usize>(from: &[u8]) -> [u8; LANES] {
    match from.first_chunk() {
        Some(bytes) => *bytes,
        None => core::array::from_fn(|i| from.get(i).copied().unwrap_or(0)),
    }
}

/// The inverse of [`first_bytes`].
#[inline(always)]
pub(crate) fn store_first_bytes<const LANES: usize>(bytes: [u8; LANES], to: &mut [u8]) {
    match to.first_chunk_mut() {
        Some(to) => *to = bytes,
        None => to.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte),
    }
}
