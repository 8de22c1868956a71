//! What the core can do right now: a loop of nothing but independent fused multiply-adds, in registers, and one of nothing but integer operations.
//!
//! A core is not always at its speed: another tenant on its sibling, a lower clock, an interrupt. So a window of 10 us of each
//! loop stands before and after every sample, and tells whether the sample is worth anything. Where several threads work, each has its windows, at
//! the same time, and the slowest of them counts.
//!
//! The second loop is for the sibling. One that runs code without vectors leaves the first loop as it is, for that needs two of six instructions in a cycle,
//! but takes a share of instructions and of the queues for loads and stores. (Zen 4, a virtual machine: both loops at their best, F(4x4, 3x3) of 56x56x64 in
//! 0.72 ms; multiply-adds at their best and integers at 0.55 to 0.9, in 0.82 to 0.90 ms. The two states last from seconds to minutes.)

use convolve::Isa;
use convolve_simd::fused;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// A window: long enough for the clock, short enough to stand around every sample.
const WINDOW: Duration = Duration::from_micros(10);
/// A core that was idle, or that was just given wide vectors, takes some time to reach its speed.
const WARM_UP: Duration = Duration::from_millis(100);
/// Windows of the opening measurement: about 200 ms.
const WINDOWS: usize = 10_000;

/// How fast a core is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pace {
    /// FLOP/s of multiply-adds.
    pub flops: f64,
    /// Steps of chains of integer operations in a second.
    pub steps: f64,
}

impl Pace {
    /// The slower of two, in both respects.
    pub fn slower(self, other: Self) -> Self {
        Self { flops: self.flops.min(other.flops), steps: self.steps.min(other.steps) }
    }

    /// The faster of two, in both respects.
    pub fn faster(self, other: Self) -> Self {
        Self { flops: self.flops.max(other.flops), steps: self.steps.max(other.steps) }
    }

    /// At least that fraction of another, in both respects.
    pub fn reaches(self, fraction: f64, of: Self) -> bool {
        self.flops >= fraction * of.flops && self.steps >= fraction * of.steps
    }
}

/// The loops, cut to a window.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    isa: Isa,
    /// Of multiply-adds and of integers.
    rounds: [usize; 2],
    opening: f64,
    best: Pace,
}

impl Probe {
    /// Warms the core up, finds how many rounds fill a window, and measures the peak.
    pub fn open(isa: Isa) -> Self {
        let mut this = Self { isa, rounds: [16; 2], opening: 0.0, best: Pace::default() };
        let begin = Instant::now();
        while begin.elapsed() < WARM_UP {
            black_box(fused(isa, this.rounds[0]));
        }
        while timed(|| fused(isa, this.rounds[0])).1 < WINDOW {
            this.rounds[0] += this.rounds[0].div_ceil(8);
        }
        while timed(|| integers(this.rounds[1])).1 < WINDOW {
            this.rounds[1] += this.rounds[1].div_ceil(8);
        }
        let mut windows: Vec<f64> = (0..WINDOWS).map(|_| this.pace().flops).collect();
        this.opening = crate::sample::median(&mut windows).expect("there are windows");
        this
    }

    /// The pace of a window of each loop, now: of the slowest thread of the pool that this runs in.
    pub fn pace(&mut self) -> Pace {
        let pace = || {
            let [flops, steps] =
                [timed(|| fused(self.isa, self.rounds[0])), timed(|| integers(self.rounds[1]))]
                    .map(|(work, time)| work as f64 / time.as_secs_f64());
            Pace { flops, steps }
        };
        let paces = match rayon::current_thread_index() {
            Some(_) => rayon::broadcast(|_| pace()),
            None => vec![pace()],
        };
        self.best = paces.iter().copied().fold(self.best, Pace::faster);
        paces.into_iter().reduce(Pace::slower).expect("there is a thread")
    }

    /// The best windows so far. A window is timed from outside, so it can look too slow but not too fast.
    pub fn best(&self) -> Pace {
        self.best
    }

    /// The peak of one core: FLOP/s of the best window so far.
    pub fn peak(&self) -> f64 {
        self.best.flops
    }

    /// FLOP/s of the median window of the opening measurement.
    pub fn opening(&self) -> f64 {
        self.opening
    }
}

fn timed(run: impl Fn() -> usize) -> (usize, Duration) {
    let begin = Instant::now();
    let work = run();
    (work, begin.elapsed())
}

/// Steps of eight chains of shifts, additions and exclusive ors: as many as a core takes in a cycle, and nothing that the compiler foresees.
#[inline(never)]
fn integers(rounds: usize) -> usize {
    const CHAINS: usize = 8;
    let mut x: [u64; CHAINS] = core::array::from_fn(|i| black_box(i as u64 + 3));
    for _ in 0..rounds {
        for x in &mut x {
            *x = x.rotate_left(7).wrapping_add(0x0123_4567) ^ (*x >> 5);
        }
    }
    black_box(x);
    rounds * CHAINS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_the_best_window() {
        let mut probe = Probe { isa: Isa::best(), rounds: [100; 2], opening: 0.0, best: Pace::default() };
        let windows = [probe.pace(), probe.pace(), probe.pace()];
        assert_eq!(probe.best(), windows.into_iter().fold(Pace::default(), Pace::faster));
        assert_eq!(probe.peak(), probe.best().flops);
        assert!(probe.peak() > 0.0 && probe.best().steps > 0.0);
    }

    #[test]
    fn a_pace_is_slow_if_either_loop_is() {
        let best = Pace { flops: 100.0, steps: 10.0 };
        assert!(Pace { flops: 90.0, steps: 9.0 }.reaches(0.9, best));
        assert!(!Pace { flops: 89.0, steps: 10.0 }.reaches(0.9, best));
        assert!(!Pace { flops: 100.0, steps: 8.9 }.reaches(0.9, best));
        assert_eq!(
            Pace { flops: 1.0, steps: 4.0 }.slower(Pace { flops: 2.0, steps: 3.0 }),
            Pace { flops: 1.0, steps: 3.0 }
        );
    }
}
