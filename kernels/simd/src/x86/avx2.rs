//! AVX2 with FMA: eight lanes, sixteen registers.

#[cfg(not(miri))]
use super::prefetch;
use core::arch::x86_64::*;

use crate::simd::{first_bytes, store_first_bytes, store_part_of_4};

backend! {
    /// The token for AVX2 and FMA.
    ///
    /// ```
    /// use convolve_simd::{Avx2, Simd};
    /// if let Some(s) = Avx2::detect() {
    ///     assert_eq!(s.vectorize(|s| s.sum(s.splat(0.5))), 4.0);
    /// }
    /// ```
    Avx2 = "avx2", features ["avx2", "fma"] by is_x86_feature_detected,
    16 registers of 8 lanes: __m256, in ymm_reg "/* {0} */", masks __m256,
    splat _mm256_set1_ps, load _mm256_loadu_ps, store _mm256_storeu_ps, past the caches _mm256_stream_ps,
    add _mm256_add_ps, sub _mm256_sub_ps, mul _mm256_mul_ps, max _mm256_max_ps, min _mm256_min_ps,
    div _mm256_div_ps, mul_add _mm256_fmadd_ps,
    zip low halves _mm256_unpacklo_ps, zip high halves _mm256_unpackhi_ps,
}

/// `MASKS[n]` selects the first `n` lanes.
static MASKS: [[i32; 8]; 8] = {
    let mut masks = [[0; 8]; 8];
    let mut n = 0;
    while n < 8 {
        let mut lane = 0;
        while lane < n {
            masks[n][lane] = -1;
            lane += 1;
        }
        n += 1;
    }
    masks
};

#[inline]
#[target_feature(enable = "avx2,fma")]
fn load_part(from: &[f32]) -> __m256 {
    let mask = &MASKS[from.len()];
    // SAFETY: a mask is eight `i32`; the instruction needs no alignment.
    let mask = unsafe { _mm256_loadu_si256(mask.as_ptr().cast()) };
    // SAFETY: the mask selects no lane beyond the slice, and others are not read.
    unsafe { _mm256_maskload_ps(from.as_ptr(), mask) }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn between(first: usize, end: usize) -> __m256 {
    let [before, end] = [first, end].map(|lane| _mm256_set1_epi32(lane as i32));
    let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    let mask = _mm256_andnot_si256(_mm256_cmpgt_epi32(before, lane), _mm256_cmpgt_epi32(end, lane));
    _mm256_castsi256_ps(mask)
}

#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn load_where(from: *const f32, mask: __m256) -> __m256 {
    let mask = _mm256_castps_si256(mask);
    // SAFETY: the caller says that elements of selected lanes can be read; others are not.
    unsafe { _mm256_maskload_ps(from, mask) }
}

/// In two halves: a masked store is slow on AMD.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn store_part(v: __m256, to: &mut [f32]) {
    let low = _mm256_castps256_ps128(v);
    if to.len() < 4 {
        return store_part_of_4(lanes(low), to);
    }
    let (four, rest) = to.split_at_mut(4);
    four.copy_from_slice(&lanes(low));
    store_part_of_4(lanes(_mm256_extractf128_ps::<1>(v)), rest);
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn permute(v: __m256, order: &[u32; 8]) -> __m256 {
    // SAFETY: an order is eight `i32`; the instruction needs no alignment.
    let order = unsafe { _mm256_loadu_si256(order.as_ptr().cast()) };
    _mm256_permutevar8x32_ps(v, order)
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn lanes(v: __m128) -> [f32; 4] {
    let mut lanes = [0.0; 4];
    // SAFETY: there are four lanes; the instruction needs no alignment.
    unsafe { _mm_storeu_ps(lanes.as_mut_ptr(), v) };
    lanes
}

#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn sum(v: __m256) -> f32 {
    let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
    _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn transpose_quads(rows: [__m256; 8]) -> [__m256; 8] {
    let mut columns = rows;
    for i in 0..4 {
        columns[i] = _mm256_permute2f128_ps::<0x20>(rows[i], rows[i + 4]);
        columns[i + 4] = _mm256_permute2f128_ps::<0x31>(rows[i], rows[i + 4]);
    }
    columns
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn equal(a: __m256, b: __m256) -> __m256 {
    _mm256_cmp_ps::<_CMP_EQ_OQ>(a, b)
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn not_equal(a: __m256, b: __m256) -> __m256 {
    _mm256_cmp_ps::<_CMP_NEQ_UQ>(a, b)
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn less(a: __m256, b: __m256) -> __m256 {
    _mm256_cmp_ps::<_CMP_LT_OQ>(a, b)
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn at_least(a: __m256, b: __m256) -> __m256 {
    _mm256_cmp_ps::<_CMP_GE_OQ>(a, b)
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn or(a: __m256, b: __m256) -> __m256 {
    _mm256_or_ps(a, b)
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn select(mask: __m256, then: __m256, otherwise: __m256) -> __m256 {
    _mm256_blendv_ps(otherwise, then, mask)
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn keep(mask: __m256, v: __m256) -> __m256 {
    _mm256_and_ps(mask, v)
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn equal_byte(from: &[u8], byte: u8) -> __m256 {
    let bytes = _mm_cvtsi64_si128(i64::from_le_bytes(first_bytes(from)));
    let hits = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte.cast_signed()));
    _mm256_castsi256_ps(_mm256_cvtepi8_epi32(hits))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn load_bytes(from: &[u8]) -> __m256 {
    let bytes = _mm_cvtsi64_si128(i64::from_le_bytes(first_bytes(from)));
    _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn store_bytes(v: __m256, to: &mut [u8]) {
    let v = _mm256_cvtps_epi32(v);
    let v = _mm_packus_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
    store_first_bytes(_mm_cvtsi128_si64(_mm_packus_epi16(v, v)).to_le_bytes(), to);
}

/// The exponent field of 2^n is n + 127.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn scale(v: __m256, n: __m256) -> __m256 {
    let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    _mm256_mul_ps(v, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
}

/// Shuffles leave the quarters as a, b, a, b.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn deinterleave(a: __m256, b: __m256) -> (__m256, __m256) {
    let quarters = [_mm256_shuffle_ps::<0x88>(a, b), _mm256_shuffle_ps::<0xDD>(a, b)];
    let [even, odd] = quarters.map(|v| _mm256_castpd_ps(_mm256_permute4x64_pd::<0xD8>(_mm256_castps_pd(v))));
    (even, odd)
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn interleave(a: __m256, b: __m256) -> (__m256, __m256) {
    let (low, high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    (_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn shift_in(before: __m256, v: __m256) -> __m256 {
    let (middle, v) = (_mm256_permute2f128_ps::<0x21>(before, v), _mm256_castps_si256(v));
    _mm256_castsi256_ps(_mm256_alignr_epi8::<12>(v, _mm256_castps_si256(middle)))
}

/// Where only one is NaN, `max` gives `b`.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn max_nan(a: __m256, b: __m256) -> __m256 {
    _mm256_blendv_ps(_mm256_max_ps(a, b), a, _mm256_cmp_ps::<_CMP_UNORD_Q>(a, a))
}
