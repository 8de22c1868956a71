//! The digits, and what is random.

/// Kinds of digits.
pub(crate) const CLASSES: usize = 10;
/// Pixels of a digit: 8 x 8.
pub(crate) const PIXELS: usize = 64;

/// Digits with what they mean.
pub(crate) struct Digits {
    /// 64 pixels each, from 0 to 1.
    pub(crate) pixels: Vec<f32>,
    /// One per digit.
    pub(crate) labels: Vec<usize>,
}

impl Digits {
    /// Those in the program: see `examples/data/README.md`.
    pub(crate) fn embedded() -> Self {
        let (records, _) = include_bytes!("../data/digits.bin").as_chunks::<{ PIXELS + 1 }>();
        Self {
            pixels: records
                .iter()
                .flat_map(|record| record[..PIXELS].iter().map(|&x| f32::from(x) / 16.0))
                .collect(),
            labels: records.iter().map(|record| usize::from(record[PIXELS])).collect(),
        }
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
        let pixels =
            which.iter().flat_map(|&i| self.pixels[i * PIXELS..][..PIXELS].iter().copied()).collect();
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
pub(crate) fn shift(pixels: &mut [f32], random: &mut Random) {
    const SIDE: usize = 8;
    for digit in pixels.chunks_exact_mut(PIXELS) {
        let [down, right] = [(); 2].map(|()| [0, 1, 1, 1, 1, 2][(random.bits() % 6) as usize]);
        let from = |y: usize, x: usize| {
            let (y, x) = ((y + 1).checked_sub(down)?, (x + 1).checked_sub(right)?);
            (y < SIDE && x < SIDE).then_some(y * SIDE + x)
        };
        let moved: [f32; PIXELS] =
            core::array::from_fn(|i| from(i / SIDE, i % SIDE).map_or(0.0, |at| digit[at]));
        digit.copy_from_slice(&moved);
    }
}
