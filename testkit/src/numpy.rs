//! `np.random.seed(1)` and `np.random.randn`: the numbers of many a notebook, without NumPy.
//!
//! NumPy's legacy generator is the Mersenne Twister MT19937 (Matsumoto and Nishimura, 1998), seeded by Knuth's recurrence; a double has 53
//! bits of two outputs; normal numbers come in pairs by Marsaglia's polar method, the second of a pair first. NumPy promises that this
//! stream does not change.

/// Words of state.
const N: usize = 624;

/// The generator behind `np.random.seed` and `np.random.randn`.
pub struct RandomState {
    state: [u32; N],
    next: usize,
    spare: Option<f64>,
}

impl RandomState {
    /// `np.random.seed(seed)`.
    pub fn new(seed: u32) -> Self {
        let mut state = [seed; N];
        for i in 1..N {
            let last = state[i - 1];
            state[i] = 1_812_433_253u32.wrapping_mul(last ^ (last >> 30)).wrapping_add(i as u32);
        }
        Self { state, next: N, spare: None }
    }

    fn bits(&mut self) -> u32 {
        if self.next == N {
            for i in 0..N {
                let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
                let twist = if y & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[i] = self.state[(i + 397) % N] ^ (y >> 1) ^ twist;
            }
            self.next = 0;
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// A number in `[0, 1)`: `np.random.rand()`.
    pub fn unit(&mut self) -> f64 {
        let (high, low) = (self.bits() >> 5, self.bits() >> 6);
        (f64::from(high) * 67_108_864.0 + f64::from(low)) / 9_007_199_254_740_992.0
    }

    fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        loop {
            let (x, y) = (2.0 * self.unit() - 1.0, 2.0 * self.unit() - 1.0);
            let square = x * x + y * y;
            if square < 1.0 && square != 0.0 {
                let factor = (-2.0 * square.ln() / square).sqrt();
                self.spare = Some(factor * x);
                return factor * y;
            }
        }
    }

    /// `np.random.randn(..)` of so many numbers, in C order.
    ///
    /// ```
    /// let x = convolve_testkit::numpy::RandomState::new(1).randn(3);
    /// assert_eq!(format!("{x:.8?}"), "[1.62434536, -0.61175641, -0.52817175]");
    /// ```
    pub fn randn(&mut self, len: usize) -> Vec<f64> {
        (0..len).map(|_| self.normal()).collect()
    }
}
