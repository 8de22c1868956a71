//! The instruction set that every CPU has: four lanes, by way of the crate `wide`.

use wide::f32x4;

use crate::simd::{Simd, assert_block, first_bytes, load_part_of_4, store_first_bytes, store_part_of_4};

/// The token for what the compiler may use on every CPU of the target.
///
/// Four lanes, not eight: on x86-64 without further features a register holds four.
///
/// ```
/// use convolve_simd::{Portable, Simd};
/// let s = Portable::new();
/// assert_eq!(s.sum(s.splat(0.5)), 2.0);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Portable(());

impl Portable {
    /// The token; it needs no proof.
    ///
    /// ```
    /// use convolve_simd::{Portable, Simd};
    /// assert_eq!(Portable::new().vectorize(|s| s.sum(s.splat(1.0))), 4.0);
    /// ```
    #[inline(always)]
    #[expect(clippy::new_without_default, reason = "a token states a fact; there is no default fact")]
    pub const fn new() -> Self {
        Self(())
    }
}

impl Simd for Portable {
    const NAME: &'static str = "portable";
    const LANES: usize = 4;
    const REGISTERS: usize = 16;
    type F32 = f32x4;
    /// All bits of a lane, or none.
    type Mask = f32x4;

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce(Self) -> R) -> R {
        f(self)
    }

    #[inline(always)]
    fn splat(self, x: f32) -> f32x4 {
        f32x4::splat(x)
    }

    #[inline(always)]
    fn load(self, from: &[f32]) -> f32x4 {
        assert!(from.len() >= Self::LANES);
        f32x4::new([from[0], from[1], from[2], from[3]])
    }

    #[inline(always)]
    fn store(self, v: f32x4, to: &mut [f32]) {
        to[..Self::LANES].copy_from_slice(&v.to_array());
    }

    #[inline(always)]
    fn load_first(self, from: &[f32]) -> f32x4 {
        if from.len() >= Self::LANES {
            return self.load(from);
        }
        f32x4::new(load_part_of_4(from))
    }

    #[inline(always)]
    fn between(self, first: usize, end: usize) -> f32x4 {
        f32x4::new(crate::simd::between(first, end).map(f32::from_bits))
    }

    #[inline(always)]
    unsafe fn load_where(self, from: *const f32, mask: f32x4) -> f32x4 {
        // SAFETY: the caller says that elements of selected lanes can be read.
        f32x4::new(unsafe { crate::simd::load_where(from, mask.to_array().map(f32::to_bits)) })
    }

    #[inline(always)]
    fn store_first(self, v: f32x4, to: &mut [f32]) {
        if to.len() >= Self::LANES {
            return self.store(v, to);
        }
        store_part_of_4(v.to_array(), to);
    }

    #[inline(always)]
    fn add(self, a: f32x4, b: f32x4) -> f32x4 {
        a + b
    }

    #[inline(always)]
    fn sub(self, a: f32x4, b: f32x4) -> f32x4 {
        a - b
    }

    #[inline(always)]
    fn mul(self, a: f32x4, b: f32x4) -> f32x4 {
        a * b
    }

    /// Not `f32x4::max`, which drops NaN.
    #[inline(always)]
    fn max(self, a: f32x4, b: f32x4) -> f32x4 {
        a.simd_gt(b).select(a, b)
    }

    /// Not `f32x4::min`, which drops NaN.
    #[inline(always)]
    fn min(self, a: f32x4, b: f32x4) -> f32x4 {
        a.simd_lt(b).select(a, b)
    }

    #[inline(always)]
    fn mul_add(self, a: f32x4, b: f32x4, c: f32x4) -> f32x4 {
        a.mul_add(b, c)
    }

    #[inline(always)]
    fn sum(self, v: f32x4) -> f32 {
        let [a, b, c, d] = v.to_array();
        (a + c) + (b + d)
    }

    #[inline(always)]
    fn permute(self, v: f32x4, order: &[u32]) -> f32x4 {
        let order: &[u32; 4] = order.first_chunk().expect("an entry for every lane");
        let lanes = v.to_array();
        f32x4::new(order.map(|lane| lanes[lane as usize % 4]))
    }

    #[inline(always)]
    fn div(self, a: f32x4, b: f32x4) -> f32x4 {
        a / b
    }

    #[inline(always)]
    fn equal(self, a: f32x4, b: f32x4) -> f32x4 {
        a.simd_eq(b)
    }

    #[inline(always)]
    fn not_equal(self, a: f32x4, b: f32x4) -> f32x4 {
        a.simd_ne(b)
    }

    #[inline(always)]
    fn less(self, a: f32x4, b: f32x4) -> f32x4 {
        a.simd_lt(b)
    }

    #[inline(always)]
    fn at_least(self, a: f32x4, b: f32x4) -> f32x4 {
        a.simd_ge(b)
    }

    #[inline(always)]
    fn equal_byte(self, from: &[u8], byte: u8) -> f32x4 {
        f32x4::new(first_bytes::<4>(from).map(|x| f32::from_bits(if x == byte { u32::MAX } else { 0 })))
    }

    #[inline(always)]
    fn load_bytes(self, from: &[u8]) -> f32x4 {
        f32x4::new(first_bytes::<4>(from).map(f32::from))
    }

    #[inline(always)]
    fn store_bytes(self, v: f32x4, to: &mut [u8]) {
        store_first_bytes(v.to_array().map(|x| x as u8), to);
    }

    #[inline(always)]
    fn or(self, a: f32x4, b: f32x4) -> f32x4 {
        a | b
    }

    #[inline(always)]
    fn select(self, mask: f32x4, then: f32x4, otherwise: f32x4) -> f32x4 {
        mask.select(then, otherwise)
    }

    #[inline(always)]
    fn keep(self, mask: f32x4, v: f32x4) -> f32x4 {
        mask & v
    }

    /// The exponent field of 2^n is n + 127.
    #[inline(always)]
    fn scale(self, v: f32x4, n: f32x4) -> f32x4 {
        v * f32x4::new(n.to_array().map(|n| f32::from_bits(((n as i32 + 127) as u32) << 23)))
    }

    #[inline(always)]
    fn max_nan(self, a: f32x4, b: f32x4) -> f32x4 {
        self.select(self.not_equal(a, a), a, self.max(a, b))
    }

    #[inline(always)]
    fn shift_in(self, before: f32x4, v: f32x4) -> f32x4 {
        let ([.., last], [a, b, c, _]) = (before.to_array(), v.to_array());
        f32x4::new([last, a, b, c])
    }

    #[inline(always)]
    fn deinterleave(self, a: f32x4, b: f32x4) -> (f32x4, f32x4) {
        let ([a, b, c, d], [e, f, g, h]) = (a.to_array(), b.to_array());
        (f32x4::new([a, c, e, g]), f32x4::new([b, d, f, h]))
    }

    #[inline(always)]
    fn interleave(self, a: f32x4, b: f32x4) -> (f32x4, f32x4) {
        let ([a, c, e, g], [b, d, f, h]) = (a.to_array(), b.to_array());
        (f32x4::new([a, b, c, d]), f32x4::new([e, f, g, h]))
    }

    #[inline(always)]
    fn transpose(self, from: &[f32], from_pitch: usize, to: &mut [f32], to_pitch: usize) {
        assert_block(Self::LANES, from.len(), from_pitch);
        assert_block(Self::LANES, to.len(), to_pitch);
        let row = |i: usize| self.load(&from[i * from_pitch..]);
        let columns = f32x4::transpose([row(0), row(1), row(2), row(3)]);
        for (j, column) in columns.into_iter().enumerate() {
            self.store(column, &mut to[j * to_pitch..]);
        }
    }
}
