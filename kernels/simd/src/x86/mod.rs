//! The instruction sets of x86-64.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

#[cfg(target_arch = "x86_64")]
pub use self::{avx2::Avx2, avx512::Avx512};

#[cfg(not(target_arch = "x86_64"))]
absent! {
    /// The token for AVX2 and FMA; this architecture does not have them.
    Avx2 = "avx2", 16 registers of 8 lanes
}

#[cfg(not(target_arch = "x86_64"))]
absent! {
    /// The token for AVX-512; this architecture does not have it.
    Avx512 = "avx512", 32 registers of 16 lanes
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
fn prefetch(address: *const f32) {
    use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: SSE is part of x86-64; a prefetch of any address, mapped or not, changes nothing that a program can see.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
}
