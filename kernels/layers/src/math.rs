//! exp, tanh and the normal distribution by polynomials, for any instruction set.
//!
//! ```text
//! exp(x)  = 2^n * (1 + r (1 + r q(r))),     n = round(x / ln 2),  r = x - n ln 2        (Cody and Waite, 1980)
//! tanh(x) = x + x^3 q(x^2)                where |x| < 0.625,  else 1 - 2 e / (e + 1),  e = exp(-2x),  for x >= 0
//! P(-x)   = exp(-x^2/2) * t q(t),         t = 1 / (1 + 0.4 x),  for x >= 0
//! ```
//!
//! The polynomials are minimax fits in relative error (Lawson's iteration): 3.3e-9, 4.4e-9 and 1.5e-8 of what they stand for, a quarter of a
//! unit in the last place at most.

use crate::abreast::Ops;

/// Below it, `exp` is 0: the result would be within a factor of two of the least normal number.
const LEAST: f32 = -86.6;

/// Horner's rule, the highest coefficient last.
#[inline(always)]
fn polynomial<S: Ops, const N: usize>(s: S, x: S::V, coefficients: [f32; N]) -> S::V {
    let mut sum = s.splat(coefficients[N - 1]);
    for i in (0..N - 1).rev() {
        sum = s.mul_add(sum, x, s.splat(coefficients[i]));
    }
    sum
}

/// `e^x` for `x` of at most 0, which is all that functions here need: within 2 units in the last place down to -86.6, 0 below.
#[inline(always)]
pub(crate) fn exp<S: Ops>(s: S, x: S::V) -> S::V {
    /// Adding it to a number below 2^22 leaves no bits behind the point.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts; a product of the first with n is exact.
    const LN2: [f32; 2] = [355.0 / 512.0, -2.121_944_4e-4];
    // The value that may be NaN goes last.
    let inside = s.max(s.splat(LEAST), x);
    let n = s.sub(s.mul_add(inside, s.splat(std::f32::consts::LOG2_E), s.splat(ROUND)), s.splat(ROUND));
    let r = s.mul_add(n, s.splat(-LN2[0]), inside);
    let r = s.mul_add(n, s.splat(-LN2[1]), r);
    let value = polynomial(
        s,
        r,
        [1.0, 1.0, 0.499_999_93, 0.166_665_15, 0.041_668_457, 0.008_369_419, 0.001_381_314_2],
    );
    s.select(s.less(x, s.splat(LEAST)), s.splat(0.0), s.scale(value, n))
}

/// `|x|`.
#[inline(always)]
pub(crate) fn abs<S: Ops>(s: S, x: S::V) -> S::V {
    s.max(s.sub(s.splat(0.0), x), x)
}

/// `-|x|`.
#[inline(always)]
fn minus_abs<S: Ops>(s: S, x: S::V) -> S::V {
    s.min(s.sub(s.splat(0.0), x), x)
}

/// `1 / (1 + e^-x)`, through `e^-|x|`, which is at most 1.
#[inline(always)]
pub(crate) fn sigmoid<S: Ops>(s: S, x: S::V) -> S::V {
    let (one, e) = (s.splat(1.0), exp(s, minus_abs(s, x)));
    s.div(s.select(s.less(x, s.splat(0.0)), e, one), s.add(one, e))
}

/// `sigmoid(x) (1 - sigmoid(x)) = e / (1 + e)^2` with `e = e^-|x|`: nothing cancels.
#[inline(always)]
pub(crate) fn sigmoid_slope<S: Ops>(s: S, x: S::V) -> S::V {
    let e = exp(s, minus_abs(s, x));
    let sum = s.add(s.splat(1.0), e);
    s.div(e, s.mul(sum, sum))
}

/// Both of them, from one exponential and one division; the first is off by one more rounding.
#[inline(always)]
pub(crate) fn sigmoid_and_slope<S: Ops>(s: S, x: S::V) -> (S::V, S::V) {
    let (one, e) = (s.splat(1.0), exp(s, minus_abs(s, x)));
    let part = s.div(one, s.add(one, e));
    let other = s.mul(e, part);
    (s.select(s.less(x, s.splat(0.0)), other, part), s.mul(other, part))
}

#[inline(always)]
pub(crate) fn tanh<S: Ops>(s: S, x: S::V) -> S::V {
    let square = s.mul(x, x);
    let q =
        polynomial(s, square, [-0.333_332_8, 0.133_314_42, -0.053_739_71, 0.020_639_079, -0.005_704_978_4]);
    let small = s.mul_add(s.mul(square, x), q, x);
    let (one, zero, size) = (s.splat(1.0), s.splat(0.0), minus_abs(s, x));
    let e = exp(s, s.add(size, size));
    let large = s.sub(one, s.div(s.add(e, e), s.add(e, one)));
    let large = s.select(s.less(x, zero), s.sub(zero, large), large);
    s.select(s.less(s.splat(-0.625), size), small, large)
}

/// The standard normal distribution: the probability of less than `x`, and its density.
#[inline(always)]
pub(crate) fn normal<S: Ops>(s: S, x: S::V) -> (S::V, S::V) {
    let (one, size) = (s.splat(1.0), abs(s, x));
    let e = exp(s, s.mul(s.splat(-0.5), s.mul(x, x)));
    let t = s.div(one, s.mul_add(s.splat(0.4), size, one));
    let q = polynomial(
        s,
        t,
        [
            0.159_576_3,
            0.159_619_17,
            0.133_210_45,
            0.091_003_284,
            -0.025_888_506,
            0.117_739_96,
            -0.371_963_13,
            0.380_776_05,
            -0.176_170_24,
            0.032_096_67,
        ],
    );
    let tail = s.mul(e, s.mul(t, q));
    let density = s.mul(e, s.splat(0.398_942_3));
    (s.select(s.less(x, s.splat(0.0)), tail, s.sub(one, tail)), density)
}
