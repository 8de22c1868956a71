//! Writes past the caches, for what is written once and does not fit there: a line that is written whole need not be read before.

use core::marker::PhantomData;

/// Writes past the caches are allowed: [`bypass`] puts a fence after them. It stays in the thread and in the call that have it.
#[derive(Debug)]
pub struct Bypass {
    here: PhantomData<*const ()>,
}

/// The fence, where it is wanted; also after a panic.
struct Fence(bool);

impl Drop for Fence {
    #[inline(always)]
    fn drop(&mut self) {
        if self.0 {
            // SAFETY: SSE is part of x86-64; a fence touches nothing.
            #[cfg(all(target_arch = "x86_64", not(miri)))]
            unsafe {
                core::arch::x86_64::_mm_sfence();
            }
        }
    }
}

/// Calls `f`, which, if that is `wanted`, may write past the caches ([`Simd::store_past`](crate::Simd::store_past)), and waits until all of that has left the core: such writes are
/// not ordered with others, so whoever hears from this thread afterwards, by a lock or an atomic, could else find the memory as it was. For kernels of this
/// workspace alone: the fence comes when `f` ends, so nobody else may hear of the memory from within `f`.
///
/// ```
/// use convolve_simd::{Isa, Simd, bypass, dispatch};
/// let mut to = [0.0; 64];
/// dispatch!(Isa::best(), s => s.vectorize(#[inline(always)] |s| bypass(true, #[inline(always)] |past| {
///     to.chunks_exact_mut(16).for_each(|to| s.store_past(s.splat(1.0), to, past.unwrap()));
/// })));
/// assert!(to.chunks_exact(16).all(|to| to[0] == 1.0));
/// ```
#[doc(hidden)]
#[inline(always)]
pub fn bypass<R>(wanted: bool, f: impl FnOnce(Option<&Bypass>) -> R) -> R {
    let _fence = Fence(wanted);
    f(wanted.then_some(&Bypass { here: PhantomData }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Isa, Simd, dispatch};

    fn write<S: Simd>(s: S, to: &mut [f32]) {
        s.vectorize(
            #[inline(always)]
            |s| {
                bypass(
                    true,
                    #[inline(always)]
                    |past| {
                        let past = past.unwrap();
                        for (i, to) in to.chunks_exact_mut(S::LANES).enumerate() {
                            s.store_past(s.splat(i as f32), to, past);
                        }
                    },
                )
            },
        );
    }

    #[test]
    fn whole_lines_go_past_and_nothing_else() {
        let memory = vec![0.0; 64];
        let line = memory.as_ptr().align_offset(64);
        for &isa in Isa::available() {
            let past = |start: usize, len: usize| dispatch!(isa, s => s.goes_past(&memory[start..][..len]));
            assert_eq!(past(line, 16), isa.lanes() == 16 && cfg!(not(miri)), "{}", isa.name());
            assert!(!past(line + 1, 16) && !past(line, 15));
        }
    }

    #[test]
    fn any_start_will_do_and_others_see_it() {
        for &isa in Isa::available() {
            for start in 0..=16 {
                let mut memory = vec![-1.0; 16 * 64 + 16];
                dispatch!(isa, s => write(s, &mut memory[start..][..16 * 64]));
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        let lanes = isa.lanes();
                        assert!(
                            memory[start..][..16 * 64]
                                .iter()
                                .enumerate()
                                .all(|(i, &x)| x == (i / lanes) as f32)
                        );
                        let around = [&memory[..start], &memory[start + 16 * 64..]].concat();
                        assert!(around.iter().all(|&x| x == -1.0), "{}", isa.name());
                    });
                });
            }
        }
    }

    #[test]
    fn short_slices_are_refused() {
        for &isa in Isa::available() {
            let short = std::panic::catch_unwind(|| {
                dispatch!(isa, s => bypass(true, |past| s.store_past(s.splat(1.0), &mut [0.0; 3], past.unwrap())));
            });
            assert!(short.is_err(), "{}", isa.name());
        }
    }
}
