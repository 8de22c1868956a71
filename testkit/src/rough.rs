//! Running error analysis: a number in f64 together with how far the same arithmetic in f32 may be from it.
//!
//! ```text
//! fl(a op b) = (a op b)(1 + d),  |d| <= u        so an error grows by what its operands bring and by u of the result
//! ```
//!
//! A formula written in these numbers is its own bound (J. Wilkinson, 1963; N. Higham, "Accuracy and Stability", 2002, 3.3). Nothing is of first order
//! only: every product of errors is in it. What f64 itself rounds is 2^-29 of that.

use std::ops::{Add, Div, Mul, Sub};

/// Half a unit in the last place next to 1, and a thousandth more for the rounding of f64.
pub const U: f64 = 1.001 / (1 << 24) as f64;

/// What is meant, and how far f32 may be from it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rough {
    /// In f64.
    pub value: f64,
    /// The bound.
    pub error: f64,
}

impl Rough {
    /// A number that f32 holds.
    pub fn exactly(value: f64) -> Self {
        Self { value, error: 0.0 }
    }

    /// A number that is rounded to f32.
    pub fn nearly(value: f64) -> Self {
        Self::rounded(value, 0.0)
    }

    /// The result of an operation whose operands bring that error.
    fn rounded(value: f64, brought: f64) -> Self {
        Self { value, error: brought + U * (value.abs() + brought) }
    }

    /// The greatest absolute value.
    fn most(self) -> f64 {
        self.value.abs() + self.error
    }

    /// The square root.
    pub fn sqrt(self) -> Self {
        // sqrt(a) - sqrt(a - e) is more than sqrt(a + e) - sqrt(a).
        let value = self.value.sqrt();
        Self::rounded(value, value - (self.value - self.error).max(0.0).sqrt())
    }

    /// The sum of some of them in any order: each passes through all additions but one at most.
    pub fn sum(terms: impl IntoIterator<Item = Self>) -> Self {
        let (mut count, mut value, mut error, mut most) = (0.0, 0.0, 0.0, 0.0);
        for term in terms {
            count += 1.0;
            value += term.value;
            error += term.error;
            most += term.most();
        }
        let growth = (count * U).exp() - 1.0;
        Self { value, error: error + growth * most }
    }
}

impl Add for Rough {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self::rounded(self.value + other.value, self.error + other.error)
    }
}

impl Sub for Rough {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self::rounded(self.value - other.value, self.error + other.error)
    }
}

impl Mul for Rough {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        Self::rounded(self.value * other.value, self.error * other.most() + self.value.abs() * other.error)
    }
}

impl Div for Rough {
    type Output = Self;
    fn div(self, other: Self) -> Self {
        // a/b - a'/b' = ((a - a') + (b' - b) a/b) / b', and |b'| >= |b| - e, beyond which there is no bound.
        let value = self.value / other.value;
        let least = (other.value.abs() - other.error).max(0.0);
        Self::rounded(value, (self.error + other.error * value.abs()) / least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Random;

    /// Formulas on f32 stay within their bounds, and come near enough that the bounds say something.
    #[test]
    fn f32_stays_within_and_is_not_far() {
        let (mut random, mut worst) = (Random::new(1), [0.0f64; 5]);
        for _ in 0..20_000 {
            let [a, b, c] = [0; 3].map(|_| random.normal() as f32);
            let [x, y, z] = [a, b, c].map(|x| Rough::exactly(f64::from(x)));
            let positive = z * z + Rough::exactly(0.25);
            let cases = [
                ((a + b) * c, (x + y) * z),
                ((a - b) * (b - c), (x - y) * (y - z)),
                ((c * c + 0.25).sqrt(), positive.sqrt()),
                ((a - b) / (c * c + 0.25).sqrt(), (x - y) / positive.sqrt()),
                ([a, b, c, a, b].iter().sum(), Rough::sum([x, y, z, x, y])),
            ];
            for (i, (got, bound)) in cases.into_iter().enumerate() {
                let share = (f64::from(got) - bound.value).abs() / bound.error;
                assert!(share <= 1.0, "{i}: {got} for {bound:?}");
                worst[i] = worst[i].max(share);
            }
        }
        assert!(worst.iter().all(|&share| share > 0.3), "{worst:?}");
    }

    #[test]
    fn a_divisor_that_may_be_zero_has_no_bound() {
        let quotient = Rough::exactly(1.0) / Rough { value: 1.0, error: 1.0 };
        assert_eq!(quotient.error, f64::INFINITY);
    }
}
