//! The digits, and what is random.

use super::Result;
use std::path::Path;

/// Kinds of digits.
pub(crate) const CLASSES: usize = 10;

/// Digits with what they mean.
pub(crate) struct Digits {
    /// Rows of a digit, and pixels of a row.
    pub(crate) side: usize,
    /// `side * side` each, from 0 to 1.
    pub(crate) pixels: Vec<f32>,
    /// One per digit.
    pub(crate) labels: Vec<usize>,
}

impl Digits {
    /// Those in the program: see `examples/data/README.md`.
    pub(crate) fn embedded() -> Self {
        Self::records(include_bytes!("../data/digits.bin"), 8, 16.0)
    }

    /// The 5,000 digits of MNIST that `examples/fetch mnist5k` fetches.
    pub(crate) fn mnist5k(path: &Path) -> Result<Self> {
        const SIDE: usize = 28;
        let bytes = std::fs::read(path).map_err(|error| {
            format!("{}: {error}; `examples/fetch mnist5k` fetches the digits", path.display())
        })?;
        if bytes.len() != 5000 * (SIDE * SIDE + 1) {
            return Err(format!("{}: not 5,000 digits of {SIDE} x {SIDE} pixels", path.display()).into());
        }
        Ok(Self::records(&bytes, SIDE, 255.0))
    }

    /// Records of pixels, from 0 to `most`, and what they mean.
    fn records(bytes: &[u8], side: usize, most: f32) -> Self {
        let records = bytes.chunks_exact(side * side + 1);
        let (pixels, labels): (Vec<_>, Vec<_>) =
            records.map(|record| (&record[..side * side], usize::from(record[side * side]))).unzip();
        let pixels = pixels.into_iter().flatten().map(|&x| f32::from(x) / most).collect();
        Self { side, pixels, labels }
    }

    /// Pixels of a digit.
    pub(crate) fn size(&self) -> usize {
        self.side * self.side
    }

    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }

    /// Those to learn from, and every fifth to be tested with.
    pub(crate) fn split(&self) -> (Self, Self) {
        let part = |test: bool| {
            let chosen: Vec<usize> = (0..self.len()).filter(|i| (i % 5 == 4) == test).collect();
            let (pixels, labels) = self.gather(&chosen);
            Self { side: self.side, pixels, labels }
        };
        (part(false), part(true))
    }

    /// Some of them, one behind the other.
    pub(crate) fn gather(&self, which: &[usize]) -> (Vec<f32>, Vec<usize>) {
        let size = self.size();
        let pixels = which.iter().flat_map(|&i| self.pixels[i * size..][..size].iter().copied()).collect();
        (pixels, which.iter().map(|&i| self.labels[i]).collect())
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in (-1, 1).
    pub(crate) fn uniform(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// Any order is as probable as any other.
    pub(crate) fn shuffle(&mut self, order: &mut [usize]) {
        for i in (1..order.len()).rev() {
            let j = ((u128::from(self.bits()) * (i as u128 + 1)) >> 64) as usize;
            order.swap(i, j);
        }
    }
}

/// Moves each digit by up to one pixel to any side, so that the network learns what a digit is and not where it was written.
pub(crate) fn shift(pixels: &mut [f32], side: usize, random: &mut Random) {
    let mut moved = vec![0.0; side * side];
    for digit in pixels.chunks_exact_mut(side * side) {
        let [down, right] = [(); 2].map(|()| [0, 1, 1, 1, 1, 2][(random.bits() % 6) as usize]);
        let from = |y: usize, x: usize| {
            let (y, x) = ((y + 1).checked_sub(down)?, (x + 1).checked_sub(right)?);
            (y < side && x < side).then_some(y * side + x)
        };
        for (i, to) in moved.iter_mut().enumerate() {
            *to = from(i / side, i % side).map_or(0.0, |at| digit[at]);
        }
        digit.copy_from_slice(&moved);
    }
}
