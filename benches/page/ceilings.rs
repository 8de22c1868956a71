//! What memory allows: the bandwidth of copying within each level, measured in about a second.

use convolve::Machine;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// A level and its bandwidth.
#[derive(Clone, Debug, PartialEq)]
pub struct Ceiling {
    /// `L1`, `L2`, `L3`, `memory`.
    pub level: &'static str,
    /// 1e9 bytes per second, read and written, by one core.
    pub gbytes_per_second: f64,
}

/// All levels, fastest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ceilings(pub Vec<Ceiling>);

/// More is not copied, whatever the size of L3.
const LARGEST: usize = 512 << 20;
const EACH: Duration = Duration::from_millis(150);

impl Ceilings {
    /// Copies blocks that fill half of each cache, and one that is twice L3 (at most half a GiB), for 0.15 s each; the best pass counts. Without the memory
    /// for it, a level is left out.
    pub fn measure() -> Self {
        let caches = Machine::native().caches;
        let memory = (2 * caches.l3).clamp(128 << 20, LARGEST);
        // Beyond L2, and well within a shared L3.
        let l3 = (4 * caches.l2).min(caches.l3 / 2);
        let levels = [("L1", caches.l1 / 2), ("L2", caches.l2 / 2), ("L3", l3), ("memory", memory)];
        let measured = levels
            .into_iter()
            .filter_map(|(level, bytes)| Some(Ceiling { level, gbytes_per_second: copy(bytes)? }));
        Self(measured.collect())
    }
}

/// GB/s of copying within that many bytes: one half to the other.
fn copy(bytes: usize) -> Option<f64> {
    let half = (bytes / 2 / size_of::<f32>()).max(64);
    let mut block: Vec<f32> = Vec::new();
    block.try_reserve_exact(2 * half).ok()?;
    block.resize(2 * half, 1.0);
    let (from, to) = block.split_at_mut(half);
    let times = ((1 << 18) / half).max(1);
    let (begin, mut best) = (Instant::now(), f64::INFINITY);
    let mut passes = 0;
    while passes < 3 || begin.elapsed() < EACH {
        let start = Instant::now();
        for _ in 0..times {
            black_box(&mut *to).copy_from_slice(black_box(from));
        }
        let seconds = start.elapsed().as_secs_f64() / times as f64;
        // The first pass warms up.
        if passes > 0 {
            best = best.min(seconds);
        }
        passes += 1;
    }
    let gbytes = (2 * half * size_of::<f32>()) as f64 / best / 1e9;
    (gbytes.is_finite() && gbytes > 0.0).then_some(gbytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copying_takes_time() {
        let gbytes = copy(16 << 10).unwrap();
        assert!((0.01..1e5).contains(&gbytes), "{gbytes}");
    }
}
