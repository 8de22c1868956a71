//! What the core can do right now: a loop of nothing but independent fused multiply-adds, in registers.
//!
//! A core is not always at its speed: another tenant on its sibling, a lower clock, an interrupt. So a window of 10 us of this
//! loop stands before and after every sample, and tells whether the sample is worth anything. Where several threads work, each has its window, at
//! the same time, and the slowest of them counts.

use convolve::Isa;
use convolve_simd::fused;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// A window: long enough for the clock, short enough to stand around every sample.
const WINDOW: Duration = Duration::from_micros(10);
/// A core that was idle, or that was just given wide vectors, takes some time to reach its speed.
const WARM_UP: Duration = Duration::from_millis(100);
/// Windows of the opening measurement: about 100 ms.
const WINDOWS: usize = 10_000;

/// The loop, cut to a window.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    isa: Isa,
    rounds: usize,
    opening: f64,
    best: f64,
}

impl Probe {
    /// Warms the core up, finds how many rounds fill a window, and measures the peak.
    pub fn open(isa: Isa) -> Self {
        let mut this = Self { isa, rounds: 16, opening: 0.0, best: 0.0 };
        let begin = Instant::now();
        while begin.elapsed() < WARM_UP {
            black_box(this.run());
        }
        while this.window().1 < WINDOW {
            this.rounds += this.rounds.div_ceil(8);
        }
        let mut windows: Vec<f64> = (0..WINDOWS).map(|_| this.flops()).collect();
        this.opening = crate::sample::median(&mut windows).expect("there are windows");
        this
    }

    /// FLOP/s of one window, now: of the slowest thread of the pool that this runs in.
    pub fn flops(&mut self) -> f64 {
        let rate = || {
            let (flops, time) = self.window();
            flops as f64 / time.as_secs_f64()
        };
        let rates = match rayon::current_thread_index() {
            Some(_) => rayon::broadcast(|_| rate()),
            None => vec![rate()],
        };
        self.best = rates.iter().copied().fold(self.best, f64::max);
        rates.into_iter().fold(f64::INFINITY, f64::min)
    }

    /// The peak of one core: FLOP/s of the best window so far. A window is timed from outside, so it can look too slow but
    /// not too fast.
    pub fn peak(&self) -> f64 {
        self.best
    }

    /// FLOP/s of the median window of the opening measurement.
    pub fn opening(&self) -> f64 {
        self.opening
    }

    fn window(&self) -> (usize, Duration) {
        let begin = Instant::now();
        let flops = self.run();
        (flops, begin.elapsed())
    }

    fn run(&self) -> usize {
        fused(self.isa, self.rounds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_the_best_window() {
        let mut probe = Probe { isa: Isa::best(), rounds: 100, opening: 0.0, best: 0.0 };
        let windows = [probe.flops(), probe.flops(), probe.flops()];
        assert_eq!(probe.peak(), windows.into_iter().fold(0.0, f64::max));
        assert!(probe.peak() > 0.0);
    }
}
