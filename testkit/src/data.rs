//! Data: integers whose every partial sum f32 holds exactly, and real numbers of the kinds that show a loss of precision.
//!
//! An integer fill limits `K * max|x| * max|w|` to 2^24, so the order of summation does not matter and a result is right or wrong.
//! Where K is too long for that, most of one operand is zero. Small numbers alone would not do: integers up to 32 survive a
//! silent rounding to bf16 or TF32, so two fills have 12 significant bits on one side.

use convolve::{Conv2d, Operand};

use crate::{Direction, reference};

/// SplitMix64 (Steele, Lea, Flood 2014): small, fast, and the same everywhere.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// An index below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        ((self.bits() as u128 * n as u128) >> 64) as usize
    }

    /// An integer between the two, both included.
    pub fn integer(&mut self, least: i64, greatest: i64) -> i64 {
        least + self.below((greatest - least + 1) as usize) as i64
    }

    /// A real number in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A normally distributed number (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }
}

/// Largest integer up to which f32 holds all of them.
const EXACT: u64 = 1 << 24;
/// What bias, residual and previous gradient may add; see [`small`].
const EXTRA: u64 = 64;

/// Which integers. None is zero unless sums are too long: zeros would only hide something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Both sides up to 8.
    Dense,
    /// Left odd, up to 4095; right up to 2.
    WideLeft,
    /// The other way round.
    WideRight,
}

impl Fill {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Dense, Self::WideLeft, Self::WideRight];

    /// The operands of a pass, in the order of indices.
    pub fn integers(self, conv: &Conv2d, direction: Direction, seed: u64) -> [Vec<i64>; 2] {
        let mut random = Random::new(seed);
        let products = reference::terms(conv, direction).into_iter().max().unwrap_or(0);
        let greatest = if self == Self::Dense { 8 * 8 } else { 4095 * 2 };
        let room = (EXACT - EXTRA) / greatest;
        // Half the room, so that chance cannot exceed it: the number of nonzeros of a sum varies by its square root.
        let density = if products <= room { 1.0 } else { 0.5 * room as f64 / products as f64 };
        let wide = |random: &mut Random| (2 * random.integer(0, 2047) + 1) * [-1, 1][random.below(2)];
        let [left, right] = [direction.left(), direction.right()].map(|o| reference::len(conv, o));
        let dense = |random: &mut Random| random.integer(1, 8) * [-1, 1][random.below(2)];
        let narrow = |random: &mut Random| [-2, -1, 1, 2][random.below(4)];
        let left: Vec<i64> = (0..left)
            .map(|_| match self {
                Self::Dense => dense(&mut random),
                Self::WideLeft => wide(&mut random),
                Self::WideRight => narrow(&mut random),
            })
            .collect();
        let right = (0..right)
            .map(|_| match self {
                _ if density < 1.0 && random.unit() >= density => 0,
                Self::Dense => dense(&mut random),
                Self::WideLeft => narrow(&mut random),
                Self::WideRight => wide(&mut random),
            })
            .collect();
        [left, right]
    }
}

/// Small integers for bias, residual and previous gradient.
pub fn small(len: usize, seed: u64) -> Vec<i64> {
    let mut random = Random::new(seed ^ 0x5eed);
    (0..len).map(|_| random.integer(-8, 8)).collect()
}

/// The same numbers as f32; they are small enough.
pub fn floats(integers: &[i64]) -> Vec<f32> {
    integers.iter().map(|&x| x as f32).collect()
}

/// The way back: a result that ought to be of integers, as such.
///
/// # Errors
/// The first that is none, or so large that f32 might have rounded it.
pub fn integers(floats: &[f32]) -> Result<Vec<i64>, String> {
    let integer = |(i, &x): (usize, &f32)| {
        let exact = x.fract() == 0.0 && x.abs() <= EXACT as f32;
        if exact { Ok(x as i64) } else { Err(format!("{x} at {i} is no exact integer")) }
    };
    floats.iter().enumerate().map(integer).collect()
}

/// The inner product, in which adjoint passes must agree.
///
/// # Panics
/// When one is longer.
pub fn inner(a: &[i64], b: &[i64]) -> i64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Which real numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Real {
    /// Normally distributed.
    Normal,
    /// Uniform in 0.1..1: all positive, the worst for the growth of errors.
    Positive,
    /// Pairs x, -x and a little: the sum is small, its terms are not.
    Cancelling,
    /// Normal times 2^e, e in -20..=20.
    Scaled,
    /// Around the least normal f32: denormal products.
    Tiny,
}

impl Real {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Normal, Self::Positive, Self::Cancelling, Self::Scaled, Self::Tiny];

    /// So many of them.
    pub fn floats(self, len: usize, seed: u64) -> Vec<f32> {
        let mut random = Random::new(seed);
        let mut last = 0.0;
        (0..len)
            .map(|i| {
                let x = match self {
                    Self::Normal => random.normal(),
                    Self::Positive => 0.1 + 0.9 * random.unit(),
                    Self::Cancelling if i % 2 == 1 => -last + 1e-4 * random.normal(),
                    Self::Cancelling => random.normal(),
                    Self::Scaled => random.normal() * 2f64.powi(random.integer(-20, 20) as i32),
                    Self::Tiny => random.normal() * 2f64.powi(-70),
                };
                last = x;
                x as f32
            })
            .collect()
    }

    /// The operands of a pass, in the order of indices.
    pub fn operands(self, conv: &Conv2d, direction: Direction, seed: u64) -> [Vec<f32>; 2] {
        let [left, right] = [direction.left(), direction.right()].map(|o| reference::len(conv, o));
        [self.floats(left, seed), self.floats(right, !seed)]
    }
}

/// One number per element of a tensor.
pub fn real(conv: &Conv2d, operand: Operand, seed: u64) -> Vec<f32> {
    Real::Normal.floats(reference::len(conv, operand), seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partial_sum_of_integers_fits_24_bits() {
        for text in ["mb1ic2048ih3oc2kh3ph1", "mb4ic3ih40oc4kh3ph1", "mb1ic4ih4oc40000kh1", "mb1ic1ih1oc1kh1"]
        {
            let conv: Conv2d = text.parse().unwrap();
            for (direction, fill) in Direction::ALL.into_iter().flat_map(|d| Fill::ALL.map(|f| (d, f))) {
                let [left, right] =
                    fill.integers(&conv, direction, 1).map(|x| x.iter().map(|x| x.abs()).collect::<Vec<_>>());
                let absolute: Vec<i64> = reference::reference::<i64>(&conv, direction, &left, &right);
                let greatest = absolute.into_iter().max().unwrap();
                assert!(greatest as u64 + EXTRA <= EXACT, "{text} {direction} {fill:?}: {greatest}");
            }
        }
    }

    #[test]
    fn wide_integers_do_not_survive_bf16_or_tf32() {
        let conv: Conv2d = "mb1ic8ih8oc8kh3".parse().unwrap();
        let [left, _] = Fill::WideLeft.integers(&conv, Direction::Forward, 1);
        let rounded =
            |bits: u32| left.iter().filter(|&&x| (x as f32).to_bits().trailing_zeros() < bits).count();
        assert!(rounded(16) > left.len() / 2, "bf16");
        assert!(rounded(13) > left.len() / 4, "tf32");
    }

    #[test]
    fn only_integers_come_back() {
        assert_eq!(integers(&[3.0, -0.0, -16_777_216.0]).unwrap(), [3, 0, -(1 << 24)]);
        for wrong in [f32::NAN, f32::INFINITY, 0.5, 16_777_218.0] {
            assert!(integers(&[1.0, wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_sequence_is_that_of_the_paper() {
        let mut random = Random::new(1_234_567);
        assert_eq!(random.bits(), 6_457_827_717_110_365_317);
        assert_eq!(random.bits(), 3_203_168_211_198_807_973);
    }
}
