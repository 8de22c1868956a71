//! NEON: four lanes, thirty-two registers.

use core::arch::aarch64::*;

/// Stable Rust has no prefetch here.
#[cfg(not(miri))]
#[inline(always)]
fn prefetch(_: *const f32) {}

use crate::simd::{first_bytes, load_part_of_4, store_first_bytes, store_part_of_4};

backend! {
    /// The token for NEON.
    ///
    /// ```
    /// use convolve_simd::{Neon, Simd};
    /// if let Some(s) = Neon::detect() {
    ///     assert_eq!(s.vectorize(|s| s.sum(s.splat(0.5))), 2.0);
    /// }
    /// ```
    Neon = "neon", features ["neon"] by is_aarch64_feature_detected,
    32 registers of 4 lanes: float32x4_t, in vreg "/* {0:v} */", masks uint32x4_t,
    splat vdupq_n_f32, load vld1q_f32, store vst1q_f32, past the caches vst1q_f32,
    add vaddq_f32, sub vsubq_f32, mul vmulq_f32, max vmaxq_f32, min vminq_f32,
    div vdivq_f32, mul_add multiply_add,
    zip low halves vzip1q_f32, zip high halves vzip2q_f32,
}

/// `vfmaq_f32` has the summand first.
#[inline]
#[target_feature(enable = "neon")]
fn multiply_add(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
    vfmaq_f32(c, a, b)
}

#[inline]
#[target_feature(enable = "neon")]
fn load_part(from: &[f32]) -> float32x4_t {
    let lanes = load_part_of_4(from);
    // SAFETY: there are four lanes; the instruction needs no alignment beyond that of `f32`.
    unsafe { vld1q_f32(lanes.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
fn between(first: usize, end: usize) -> uint32x4_t {
    let lanes = crate::simd::between::<4>(first, end);
    // SAFETY: there are four lanes; the instruction needs no alignment beyond that of `u32`.
    unsafe { vld1q_u32(lanes.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
unsafe fn load_where(from: *const f32, mask: uint32x4_t) -> float32x4_t {
    if vminvq_u32(mask) != 0 {
        // SAFETY: the caller says that elements of selected lanes can be read, and those are all.
        return unsafe { vld1q_f32(from) };
    }
    let mut selected = [0; 4];
    // SAFETY: there are four lanes; the instruction needs no alignment beyond that of `u32`.
    unsafe { vst1q_u32(selected.as_mut_ptr(), mask) };
    // SAFETY: as the caller says.
    let lanes = unsafe { crate::simd::load_where(from, selected) };
    // SAFETY: there are four lanes; the instruction needs no alignment beyond that of `f32`.
    unsafe { vld1q_f32(lanes.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
fn store_part(v: float32x4_t, to: &mut [f32]) {
    let mut lanes = [0.0; 4];
    // SAFETY: there are four lanes; the instruction needs no alignment beyond that of `f32`.
    unsafe { vst1q_f32(lanes.as_mut_ptr(), v) };
    store_part_of_4(lanes, to);
}

#[inline]
#[target_feature(enable = "neon")]
fn sum(v: float32x4_t) -> f32 {
    vpadds_f32(vadd_f32(vget_low_f32(v), vget_high_f32(v)))
}

/// Through memory: there are only four lanes.
#[inline]
#[target_feature(enable = "neon")]
fn permute(v: float32x4_t, order: &[u32; 4]) -> float32x4_t {
    let mut lanes = [0.0; 4];
    // SAFETY: there are four lanes; the instruction needs no alignment beyond that of `f32`.
    unsafe { vst1q_f32(lanes.as_mut_ptr(), v) };
    let lanes = order.map(|lane| lanes[lane as usize % 4]);
    // SAFETY: there are four lanes; the instruction needs no alignment beyond that of `f32`.
    unsafe { vld1q_f32(lanes.as_ptr()) }
}

/// There is only one block.
#[inline]
#[target_feature(enable = "neon")]
fn transpose_quads(rows: [float32x4_t; 4]) -> [float32x4_t; 4] {
    rows
}

#[inline]
#[target_feature(enable = "neon")]
fn equal(a: float32x4_t, b: float32x4_t) -> uint32x4_t {
    vceqq_f32(a, b)
}

#[inline]
#[target_feature(enable = "neon")]
fn not_equal(a: float32x4_t, b: float32x4_t) -> uint32x4_t {
    vmvnq_u32(vceqq_f32(a, b))
}

#[inline]
#[target_feature(enable = "neon")]
fn less(a: float32x4_t, b: float32x4_t) -> uint32x4_t {
    vcltq_f32(a, b)
}

#[inline]
#[target_feature(enable = "neon")]
fn at_least(a: float32x4_t, b: float32x4_t) -> uint32x4_t {
    vcgeq_f32(a, b)
}

#[inline]
#[target_feature(enable = "neon")]
fn or(a: uint32x4_t, b: uint32x4_t) -> uint32x4_t {
    vorrq_u32(a, b)
}

#[inline]
#[target_feature(enable = "neon")]
fn select(mask: uint32x4_t, then: float32x4_t, otherwise: float32x4_t) -> float32x4_t {
    vbslq_f32(mask, then, otherwise)
}

#[inline]
#[target_feature(enable = "neon")]
fn keep(mask: uint32x4_t, v: float32x4_t) -> float32x4_t {
    vreinterpretq_f32_u32(vandq_u32(mask, vreinterpretq_u32_f32(v)))
}

#[inline]
#[target_feature(enable = "neon")]
fn equal_byte(from: &[u8], byte: u8) -> uint32x4_t {
    let bytes = vcreate_u8(u64::from(u32::from_le_bytes(first_bytes(from))));
    let hits = vreinterpret_s8_u8(vceq_u8(bytes, vdup_n_u8(byte)));
    vreinterpretq_u32_s32(vmovl_s16(vget_low_s16(vmovl_s8(hits))))
}

#[inline]
#[target_feature(enable = "neon")]
fn load_bytes(from: &[u8]) -> float32x4_t {
    let bytes = vcreate_u8(u64::from(u32::from_le_bytes(first_bytes(from))));
    vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(bytes))))
}

#[inline]
#[target_feature(enable = "neon")]
fn store_bytes(v: float32x4_t, to: &mut [u8]) {
    let halves = vmovn_u32(vcvtnq_u32_f32(v));
    let bytes = vmovn_u16(vcombine_u16(halves, halves));
    store_first_bytes(vget_lane_u32::<0>(vreinterpret_u32_u8(bytes)).to_le_bytes(), to);
}

/// The exponent field of 2^n is n + 127.
#[inline]
#[target_feature(enable = "neon")]
fn scale(v: float32x4_t, n: float32x4_t) -> float32x4_t {
    let exponent = vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127));
    vmulq_f32(v, vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent)))
}

#[inline]
#[target_feature(enable = "neon")]
fn deinterleave(a: float32x4_t, b: float32x4_t) -> (float32x4_t, float32x4_t) {
    (vuzp1q_f32(a, b), vuzp2q_f32(a, b))
}

#[inline]
#[target_feature(enable = "neon")]
fn interleave(a: float32x4_t, b: float32x4_t) -> (float32x4_t, float32x4_t) {
    (vzip1q_f32(a, b), vzip2q_f32(a, b))
}

#[inline]
#[target_feature(enable = "neon")]
fn shift_in(before: float32x4_t, v: float32x4_t) -> float32x4_t {
    vextq_f32::<3>(before, v)
}

/// The instruction itself keeps NaN of both sides.
#[inline]
#[target_feature(enable = "neon")]
fn max_nan(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    vmaxq_f32(a, b)
}
