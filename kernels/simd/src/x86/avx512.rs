//! AVX-512: sixteen lanes, thirty-two registers.

#[cfg(not(miri))]
use super::prefetch;
#[cfg(not(miri))]
use core::arch::asm;
use core::arch::x86_64::*;

backend! {
    /// The token for AVX-512 with its parts F, VL, BW and DQ.
    ///
    /// ```
    /// use convolve_simd::{Avx512, Simd};
    /// if let Some(s) = Avx512::detect() {
    ///     assert_eq!(s.vectorize(|s| s.sum(s.splat(0.5))), 8.0);
    /// }
    /// ```
    Avx512 = "avx512",
    features ["avx512f", "avx512vl", "avx512bw", "avx512dq", "avx2", "fma"] by is_x86_feature_detected,
    32 registers of 16 lanes: __m512, in zmm_reg "/* {0} */", masks __mmask16,
    splat _mm512_set1_ps, load _mm512_loadu_ps, store _mm512_storeu_ps, past the caches _mm512_stream_ps,
    add _mm512_add_ps, sub _mm512_sub_ps, mul _mm512_mul_ps, max _mm512_max_ps, min _mm512_min_ps,
    div _mm512_div_ps, mul_add _mm512_fmadd_ps,
    zip low halves _mm512_unpacklo_ps, zip high halves _mm512_unpackhi_ps,
}

/// `FIRST[n]` selects the first `n` lanes: two loads where shifts would take six instructions.
static FIRST: [__mmask16; 32] = {
    let mut masks = [0xFFFF; 32];
    let mut n = 0;
    while n < 16 {
        masks[n] = (1 << n) - 1;
        n += 1;
    }
    masks
};

/// Selects the first `count` lanes, fewer than sixteen.
#[inline]
fn first(count: usize) -> __mmask16 {
    (1 << count) - 1
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_part(from: &[f32]) -> __m512 {
    // SAFETY: the mask selects no lane beyond the slice, and others are not read.
    unsafe { _mm512_maskz_loadu_ps(first(from.len()), from.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn between(first: usize, end: usize) -> __mmask16 {
    let mask = FIRST[end % 32] & !FIRST[first % 32];
    #[cfg(not(miri))]
    let mask = {
        let mut mask = mask;
        // SAFETY: there is no instruction in it. From here on the mask is in a mask register, not copied there for every load.
        unsafe { asm!("/* {0} */", inout(kreg) mask, options(pure, nomem, nostack, preserves_flags)) };
        mask
    };
    mask
}

#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load_where(from: *const f32, mask: __mmask16) -> __m512 {
    // SAFETY: the caller says that elements of selected lanes can be read; others are not.
    unsafe { _mm512_maskz_loadu_ps(mask, from) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_part(v: __m512, to: &mut [f32]) {
    // SAFETY: the mask selects no lane beyond the slice, and others are not written.
    unsafe { _mm512_mask_storeu_ps(to.as_mut_ptr(), first(to.len()), v) }
}

#[inline]
#[target_feature(enable = "avx512dq,avx2,fma")]
fn sum(v: __m512) -> f32 {
    let halves = [_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v)];
    super::avx2::sum(_mm256_add_ps(halves[0], halves[1]))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn permute(v: __m512, order: &[u32; 16]) -> __m512 {
    // SAFETY: an order is sixteen `i32`; the instruction needs no alignment.
    let order = unsafe { _mm512_loadu_si512(order.as_ptr().cast()) };
    _mm512_permutexvar_ps(order, v)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn transpose_quads(rows: [__m512; 16]) -> [__m512; 16] {
    let mut columns = rows;
    for i in 0..4 {
        let [a, b, c, d] = [rows[i], rows[i + 4], rows[i + 8], rows[i + 12]];
        let low = [_mm512_shuffle_f32x4::<0x44>(a, b), _mm512_shuffle_f32x4::<0x44>(c, d)];
        let high = [_mm512_shuffle_f32x4::<0xEE>(a, b), _mm512_shuffle_f32x4::<0xEE>(c, d)];
        columns[i] = _mm512_shuffle_f32x4::<0x88>(low[0], low[1]);
        columns[i + 4] = _mm512_shuffle_f32x4::<0xDD>(low[0], low[1]);
        columns[i + 8] = _mm512_shuffle_f32x4::<0x88>(high[0], high[1]);
        columns[i + 12] = _mm512_shuffle_f32x4::<0xDD>(high[0], high[1]);
    }
    columns
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn equal(a: __m512, b: __m512) -> __mmask16 {
    _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(a, b)
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn not_equal(a: __m512, b: __m512) -> __mmask16 {
    _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(a, b)
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn less(a: __m512, b: __m512) -> __mmask16 {
    _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b)
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn at_least(a: __m512, b: __m512) -> __mmask16 {
    _mm512_cmp_ps_mask::<_CMP_GE_OQ>(a, b)
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn or(a: __mmask16, b: __mmask16) -> __mmask16 {
    a | b
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn select(mask: __mmask16, then: __m512, otherwise: __m512) -> __m512 {
    _mm512_mask_blend_ps(mask, otherwise, then)
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn keep(mask: __mmask16, v: __m512) -> __m512 {
    _mm512_maskz_mov_ps(mask, v)
}

#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512bw")]
fn sixteen_bytes(from: &[u8]) -> __m128i {
    match from.first_chunk::<16>() {
        // SAFETY: there are sixteen bytes; the instruction needs no alignment.
        Some(from) => unsafe { _mm_loadu_si128(from.as_ptr().cast()) },
        // SAFETY: the mask selects no byte beyond the slice, and others are not read.
        None => unsafe { _mm_maskz_loadu_epi8(first(from.len()), from.as_ptr().cast()) },
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512bw")]
fn equal_byte(from: &[u8], byte: u8) -> __mmask16 {
    _mm_cmpeq_epi8_mask(sixteen_bytes(from), _mm_set1_epi8(byte.cast_signed()))
}

#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512bw")]
fn load_bytes(from: &[u8]) -> __m512 {
    _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(sixteen_bytes(from)))
}

#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512bw")]
fn store_bytes(v: __m512, to: &mut [u8]) {
    let bytes = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v));
    match to.first_chunk_mut::<16>() {
        // SAFETY: there are sixteen bytes; the instruction needs no alignment.
        Some(to) => unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), bytes) },
        // SAFETY: the mask selects no byte beyond the slice, and others are not written.
        None => unsafe { _mm_mask_storeu_epi8(to.as_mut_ptr().cast(), first(to.len()), bytes) },
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn scale(v: __m512, n: __m512) -> __m512 {
    _mm512_scalef_ps(v, n)
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn deinterleave(a: __m512, b: __m512) -> (__m512, __m512) {
    let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    let odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    (_mm512_permutex2var_ps(a, even, b), _mm512_permutex2var_ps(a, odd, b))
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn interleave(a: __m512, b: __m512) -> (__m512, __m512) {
    let first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    let second = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    (_mm512_permutex2var_ps(a, first, b), _mm512_permutex2var_ps(a, second, b))
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn shift_in(before: __m512, v: __m512) -> __m512 {
    let (v, before) = (_mm512_castps_si512(v), _mm512_castps_si512(before));
    _mm512_castsi512_ps(_mm512_alignr_epi32::<15>(v, before))
}

/// Where only one is NaN, `max` gives `b`: so where `a` is, nothing is computed.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn max_nan(a: __m512, b: __m512) -> __m512 {
    _mm512_mask_max_ps(a, _mm512_cmp_ps_mask::<_CMP_ORD_Q>(a, a), a, b)
}
