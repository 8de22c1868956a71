//! Two loops that show what a core can do: nothing but fused multiply-adds in registers, and nothing but loads.

use crate::{Isa, Simd, dispatch};
use core::hint::black_box;

/// Runs `rounds` steps of independent chains `x = a * x + b`, as many as the registers hold, and returns the floating-point
/// operations: divided by the time that took, the peak.
///
/// ```
/// use convolve_simd::{Isa, fused};
/// assert_eq!(fused(Isa::best(), 20), 2 * fused(Isa::best(), 10));
/// ```
pub fn fused(isa: Isa, rounds: usize) -> usize {
    dispatch!(isa, s => chains_of(s, rounds))
}

/// As many chains as the registers hold beside two operands, or more than latency times units of any CPU.
#[inline(never)]
fn chains_of<S: Simd>(s: S, rounds: usize) -> usize {
    if S::REGISTERS >= 32 { chains::<S, 24>(s, rounds) } else { chains::<S, 14>(s, rounds) }
}

#[inline(always)]
fn chains<S: Simd, const CHAINS: usize>(s: S, rounds: usize) -> usize {
    let sum = s.vectorize(
        #[inline(always)]
        |s| {
            // Unknown to the compiler, different from chain to chain, and with a normal number as the limit.
            let (a, b) = (s.splat(black_box(0.5)), s.splat(black_box(1.0)));
            let mut x = [a; CHAINS];
            for x in &mut x {
                *x = s.splat(black_box(1.5));
            }
            for _ in 0..rounds {
                for x in &mut x {
                    *x = s.mul_add(*x, a, b);
                }
            }
            let mut sum = a;
            for x in x {
                sum = s.add(sum, x);
            }
            s.sum(sum)
        },
    );
    black_box(sum);
    2 * rounds * CHAINS * S::LANES
}

/// Reads `data` once, eight vectors at a time, and adds it up so that nothing is left out; what does not fill eight vectors is not
/// read. Returns the bytes: divided by the time that took, the bandwidth of the cache that holds `data`.
///
/// ```
/// use convolve_simd::{Isa, loads};
/// assert_eq!(loads(Isa::best(), &[1.0; 1024]), 4096);
/// ```
pub fn loads(isa: Isa, data: &[f32]) -> usize {
    dispatch!(isa, s => loads_of(s, data))
}

#[inline(never)]
fn loads_of<S: Simd>(s: S, data: &[f32]) -> usize {
    const VECTORS: usize = 8;
    let sum = s.vectorize(
        #[inline(always)]
        |s| {
            let mut sums = [s.splat(0.0); VECTORS];
            // Made in here, where its length is known: made outside, the sums were in memory, and L1 and L2 seemed equally fast.
            for chunk in data.chunks_exact(VECTORS * S::LANES) {
                for (sum, vector) in sums.iter_mut().zip(chunk.chunks_exact(S::LANES)) {
                    *sum = s.add(*sum, s.load(vector));
                }
            }
            let mut total = s.splat(0.0);
            for sum in sums {
                total = s.add(total, sum);
            }
            s.sum(total)
        },
    );
    black_box(sum);
    data.len() / (VECTORS * S::LANES) * VECTORS * S::LANES * size_of::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_counted() {
        for &isa in Isa::available() {
            let registers = dispatch!(isa, s => registers(s));
            let chains = if registers >= 32 { 24 } else { 14 };
            assert_eq!(fused(isa, 5), 2 * 5 * chains * isa.lanes());
            assert!(chains + 2 <= registers);
        }
    }

    fn registers<S: Simd>(_: S) -> usize {
        S::REGISTERS
    }
}
