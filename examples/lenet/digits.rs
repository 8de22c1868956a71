//! The digits, and what is random.

use super::Result;
use std::path::Path;

/// Kinds of digits.
pub(crate) const CLASSES: usize = 10;

/// Rows of a digit, and pixels of a row.
pub(crate) const SIDE: usize = 28;
/// Pixels of a digit.
pub(crate) const SIZE: usize = SIDE * SIDE;

/// Digits with what they mean.
pub(crate) struct Digits {
    /// `SIZE` each, from 0 to 1.
    pub(crate) pixels: Vec<f32>,
    /// One per digit.
    pub(crate) labels: Vec<usize>,
}

impl Digits {
    /// Those in the program (see `examples/data/README.md`), of 8 x 8 pixels: three times as large, with a rim of two.
    pub(crate) fn embedded() -> Self {
        let Self { pixels, labels } = Self::records(include_bytes!("../data/digits.bin"), 8 * 8, 16.0);
        let place = |i: usize| (i as f32 - 2.0 + 0.5) / 3.0 - 0.5;
        let large = |digit: &[f32]| -> Vec<f32> {
            (0..SIZE).map(|i| between(digit, 8, [place(i / SIDE), place(i % SIDE)])).collect()
        };
        Self { pixels: pixels.chunks_exact(8 * 8).flat_map(large).collect(), labels }
    }

    /// The 5,000 digits of MNIST that `examples/fetch mnist5k` fetches.
    pub(crate) fn mnist5k(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|error| {
            format!("{}: {error}; `examples/fetch mnist5k` fetches the digits", path.display())
        })?;
        if bytes.len() != 5000 * (SIZE + 1) {
            return Err(format!("{}: not 5,000 digits of {SIDE} x {SIDE} pixels", path.display()).into());
        }
        Ok(Self::records(&bytes, SIZE, 255.0))
    }

    /// Records of pixels, from 0 to `most`, and what they mean.
    fn records(bytes: &[u8], size: usize, most: f32) -> Self {
        let records = bytes.chunks_exact(size + 1);
        let (pixels, labels): (Vec<_>, Vec<_>) =
            records.map(|record| (&record[..size], usize::from(record[size]))).unzip();
        let pixels = pixels.into_iter().flatten().map(|&x| f32::from(x) / most).collect();
        Self { pixels, labels }
    }

    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }

    /// Those to learn from, and every fifth to be tested with.
    pub(crate) fn split(&self) -> (Self, Self) {
        let part = |test: bool| {
            let chosen: Vec<usize> = (0..self.len()).filter(|i| (i % 5 == 4) == test).collect();
            let (pixels, labels) = self.gather(&chosen);
            Self { pixels, labels }
        };
        (part(false), part(true))
    }

    /// Some of them, one behind the other.
    pub(crate) fn gather(&self, which: &[usize]) -> (Vec<f32>, Vec<usize>) {
        let pixels = which.iter().flat_map(|&i| self.pixels[i * SIZE..][..SIZE].iter().copied()).collect();
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

/// The ink between pixels, of which there are `side` in a row, linear from one to the next. Around the digit there is none.
fn between(digit: &[f32], side: usize, [y, x]: [f32; 2]) -> f32 {
    let (top, left) = (y.floor(), x.floor());
    let (down, right) = (y - top, x - left);
    let at = |row: f32, column: f32| {
        let inside = |i: f32| (0.0..side as f32).contains(&i);
        if inside(row) && inside(column) { digit[row as usize * side + column as usize] } else { 0.0 }
    };
    let line = |row: f32| (1.0 - right) * at(row, left) + right * at(row, left + 1.0);
    (1.0 - down) * line(top) + down * line(top + 1.0)
}

/// Moves each digit by up to two pixels to any side, so that the network learns what a digit is and not where it was written.
pub(crate) fn shift(pixels: &mut [f32], random: &mut Random) {
    let mut moved = [0.0; SIZE];
    for digit in pixels.chunks_exact_mut(SIZE) {
        let [down, right] = [(); 2].map(|()| 2.0 * random.uniform());
        for (i, to) in moved.iter_mut().enumerate() {
            *to = between(digit, SIDE, [(i / SIDE) as f32 - down, (i % SIDE) as f32 - right]);
        }
        digit.copy_from_slice(&moved);
    }
}
