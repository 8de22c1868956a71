//! Some registers abreast: what `math.rs` computes with, one register or a few of them at a time.
//!
//! An exponential is a chain of twenty instructions that wait for each other, and a core looks only so far ahead. With the steps of two
//! or three chains in turn it always has something to do. (Sigmoid and GELU take 1.2 and 1.4 times as long one register at a time, on Zen 3.)

use convolve_simd::Simd;

/// The operations that functions are made of.
pub(crate) trait Ops: Copy {
    /// Numbers.
    type V: Copy;
    /// What is true of them.
    type M: Copy;
    fn splat(self, x: f32) -> Self::V;
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    fn less(self, a: Self::V, b: Self::V) -> Self::M;
    fn select(self, mask: Self::M, then: Self::V, otherwise: Self::V) -> Self::V;
    fn scale(self, v: Self::V, n: Self::V) -> Self::V;
}

macro_rules! one {
    ($($name:ident($($x:ident: $X:ident),+) -> $R:ident;)+) => {
        impl<S: Simd> Ops for S {
            type V = S::F32;
            type M = S::Mask;

            #[inline(always)]
            fn splat(self, x: f32) -> S::F32 {
                Simd::splat(self, x)
            }

            #[inline(always)]
            fn mul_add(self, a: S::F32, b: S::F32, c: S::F32) -> S::F32 {
                Simd::mul_add(self, a, b, c)
            }

            $(
                #[inline(always)]
                fn $name(self, $($x: Self::$X),+) -> Self::$R {
                    Simd::$name(self, $($x),+)
                }
            )+
        }
    };
}

/// `N` registers of one instruction set.
#[derive(Clone, Copy)]
pub(crate) struct Abreast<S, const N: usize>(pub(crate) S);

macro_rules! some {
    ($($name:ident($a:ident: $A:ident $(, $x:ident: $X:ident)*) -> $R:ident;)+) => {
        impl<S: Simd, const N: usize> Ops for Abreast<S, N> {
            type V = [S::F32; N];
            type M = [S::Mask; N];

            #[inline(always)]
            fn splat(self, x: f32) -> Self::V {
                [self.0.splat(x); N]
            }

            /// LLVM would put the chains one after another again, if it were not told an order.
            #[inline(always)]
            fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
                let mut all = a;
                for i in 0..N {
                    all[i] = self.0.in_order(self.0.mul_add(a[i], b[i], c[i]));
                }
                all
            }

            $(
                #[inline(always)]
                fn $name(self, $a: Self::$A $(, $x: Self::$X)*) -> Self::$R {
                    // Not `from_fn`: its closure would be a function of its own, without the instruction set.
                    let first = Simd::$name(self.0, $a[0] $(, $x[0])*);
                    let mut all = [first; N];
                    for i in 1..N {
                        all[i] = Simd::$name(self.0, $a[i] $(, $x[i])*);
                    }
                    all
                }
            )+
        }
    };
}

macro_rules! operations {
    ($macro:ident) => {
        $macro! {
            add(a: V, b: V) -> V;
            sub(a: V, b: V) -> V;
            mul(a: V, b: V) -> V;
            div(a: V, b: V) -> V;
            max(a: V, b: V) -> V;
            min(a: V, b: V) -> V;
            less(a: V, b: V) -> M;
            select(mask: M, then: V, otherwise: V) -> V;
            scale(v: V, n: V) -> V;
        }
    };
}

operations! { one }
operations! { some }
