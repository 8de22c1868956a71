//! Explicit `f32` SIMD behind one safe trait: AVX-512, AVX2 with FMA, NEON, and a portable fallback.
//!
//! # Tokens
//!
//! [`Avx2`], [`Avx512`] and [`Neon`] can only be made by their `detect`, which asks the CPU. So a
//! value of such a type proves that the CPU has the instructions, and what needs the instructions
//! asks for the value: all methods of [`Simd`] are safe. [`Portable`] needs no proof.
//!
//! [`Isa`] is one of these tokens, chosen at run time, and [`dispatch!`] goes from an `Isa` to code
//! that is generic in `S: Simd`. Tokens of foreign architectures are types without values, hence
//! every `match` and every table lists all instruction sets, and no crate but this one needs a
//! `#[cfg]`.
//!
//! ```
//! use convolve_simd::{Isa, Simd, dispatch};
//!
//! /// The sum of `a[i] * b[i]`.
//! fn dot<S: Simd>(s: S, a: &[f32], b: &[f32]) -> f32 {
//!     s.vectorize(
//!         #[inline(always)]
//!         |s| {
//!             let mut sum = s.splat(0.0);
//!             for (a, b) in a.chunks(S::LANES).zip(b.chunks(S::LANES)) {
//!                 sum = fold(s, sum, a, b);
//!             }
//!             s.sum(sum)
//!         },
//!     )
//! }
//!
//! #[inline(always)] // and nothing less, see below
//! fn fold<S: Simd>(s: S, sum: S::F32, a: &[f32], b: &[f32]) -> S::F32 {
//!     s.mul_add(s.load_first(a), s.load_first(b), sum)
//! }
//!
//! let [a, b] = [[2.0; 37], [0.5; 37]];
//! for &isa in Isa::available() {
//!     assert_eq!(dispatch!(isa, s => dot(s, &a, &b)), 37.0);
//! }
//! ```
//!
//! # Two traps
//!
//! The compiler uses an instruction set only in functions that enable it with
//! `#[target_feature]`, and in what it inlines into them. A safe trait method cannot carry the
//! attribute, and a function cannot carry both it and `#[inline(always)]`. So there is one
//! function that enables it, inside of [`Simd::vectorize`]; everything else is
//! `#[inline(always)]` and takes on the features of the place where it ends up. Whatever does not
//! end up inside stays correct, but each of its operations becomes a call with its operands in
//! memory. Two ways lead there:
//!
//! 1. **A helper without `#[inline(always)]`.** In the example, `fold` with no attribute or with
//!    plain `#[inline]` may be compiled on its own, without the instruction set. The compiler
//!    does inline many helpers unasked, so that this shows with some and not with others.
//! 2. **A closure handed to someone else inside `vectorize`**, such as a thread pool. It is a
//!    function of its own, which enables nothing. The pool goes outside, `vectorize` into the task:
//!
//! ```
//! # use convolve_simd::{Isa, Simd, dispatch};
//! fn negate<S: Simd>(s: S, data: &mut [f32]) {
//!     std::thread::scope(|scope| {
//!         for part in data.chunks_mut(1024) {
//!             scope.spawn(move || s.vectorize(|s| negate_part(s, part)));
//!         }
//!     })
//! }
//!
//! #[inline(always)]
//! fn negate_part<S: Simd>(s: S, part: &mut [f32]) {
//!     for part in part.chunks_mut(S::LANES) {
//!         s.store_first(s.sub(s.splat(0.0), s.load_first(part)), part);
//!     }
//! }
//! # let mut data = [1.0; 3000];
//! # dispatch!(Isa::best(), s => negate(s, &mut data));
//! # assert_eq!(data, [-1.0; 3000]);
//! ```
//!
//! Both leave functions behind that should not be there. In a release build this prints nothing
//! unless something went into a trap:
//!
//! ```text
//! nm -C target/release/deps/* | grep -E 'core_arch.*::_mm'
//! ```
//!
//! Generic code needs no attribute to be inlined across crates; functions that are not generic do.

#[macro_use]
mod backend;

mod aarch64;
mod bypass;
mod cpu;
mod isa;
mod measure;
mod pages;
mod portable;
mod rows;
mod simd;
mod strip;
#[cfg(test)]
mod tests;
mod x86;

pub use self::aarch64::Neon;
pub use self::bypass::{Bypass, bypass};
pub use self::cpu::Cpu;
pub use self::isa::{Isa, IsaError};
pub use self::measure::{fused, loads};
pub use self::pages::large_pages;
pub use self::portable::Portable;
pub use self::rows::{Places, PlacesAt, Rows, RowsAt, RowsMut};
pub use self::simd::Simd;
pub use self::strip::{Strip, StripAcross, StripAt};
pub use self::x86::{Avx2, Avx512};
