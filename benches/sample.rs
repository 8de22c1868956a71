//! Samples that can be believed: bracketed by probes, interleaved between algorithms, dropped when the core was slow.

use crate::probe::{Pace, Probe};
use std::time::{Duration, Instant};

/// A probe is slow when one of its loops is more than this fraction below the run's best. A slow core is mostly at half its speed; jitter and
/// the clock cost a window of 10 us a few per cent.
pub const SLOW: f64 = 0.10;
/// When fewer than this fraction of the samples survive, or only one of several, and fewer than five, all of them are used and the row is flagged.
pub const SURVIVORS: f64 = 0.20;
/// So many samples that survive are enough, however many do not: a tenant that comes and goes leaves some alone.
const ENOUGH: usize = 5;
/// A sample takes at least that long: short problems are run several times.
const LEAST: Duration = Duration::from_micros(200);
/// A run that is shorter than this finds in its caches what it left there: before each sample it runs untimed for as long, since the others have run in
/// between. (One run is not enough where machines share the last level: 4.8 MB read and 1.2 MB written in order take 0.37, 0.15, 0.08 and from then on
/// 0.07 ms, and by a convolution that reads seventeen rows at once 0.70 ms after one run, 0.45 after four, 0.17 after twelve; Zen 4, a virtual machine.) A longer
/// one has thrown out itself what it reads first.
const LONG: Duration = Duration::from_millis(4);

/// When a series is long enough.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effort {
    /// Good samples wanted.
    pub samples: usize,
    /// Time after which no further sample is begun, once there are as many as [`least`](Self::least).
    pub budget: Duration,
    /// Samples that are taken in any case: of three, one that went wrong is not the median.
    pub least: usize,
}

impl Effort {
    /// For figures to be published.
    pub const FULL: Self = Self { samples: 21, budget: Duration::from_millis(300), least: 3 };
    /// For a look.
    pub const QUICK: Self = Self { samples: 5, budget: Duration::from_millis(25), least: 3 };
}

/// One sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Time of one run.
    pub seconds: f64,
    /// The slower of the two probes around it.
    pub probe: Pace,
}

/// All samples of one row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series(pub Vec<Sample>);

/// What a series says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Statistics {
    /// Median time of one run, in seconds.
    pub median: f64,
    /// Least time of one run, in seconds.
    pub min: f64,
    /// From the first to the third quartile, over the median.
    pub spread: f64,
    /// Samples taken.
    pub taken: usize,
    /// Samples with a slow probe: dropped, unless the row is not `steady`.
    pub slow: usize,
    /// Enough samples survived. Otherwise nearly all were slow, and all were used.
    pub steady: bool,
}

impl Series {
    /// Samples whose probes were not slow, given the best.
    fn good(&self, best: Pace) -> impl Iterator<Item = f64> {
        self.0
            .iter()
            .filter(move |sample| sample.probe.reaches(1.0 - SLOW, best))
            .map(|sample| sample.seconds)
    }

    /// Drops the slow samples and takes median and minimum of the rest; nothing if there is no sample.
    pub fn statistics(&self, best: Pace) -> Option<Statistics> {
        let taken = self.0.len();
        let mut times: Vec<f64> = self.good(best).collect();
        let slow = taken - times.len();
        let few = times.len() >= 2.min(taken) && times.len() as f64 >= SURVIVORS * taken as f64;
        let steady = times.len() >= ENOUGH || few;
        if !steady {
            times = self.0.iter().map(|sample| sample.seconds).collect();
        }
        let min = times.iter().copied().fold(f64::INFINITY, f64::min);
        let median = median(&mut times)?;
        let spread = (quantile(&times, 0.75)? - quantile(&times, 0.25)?) / median;
        Some(Statistics { median, min, spread, taken, slow, steady })
    }
}

/// The middle value, or the mean of the two.
pub fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => None,
        len if len % 2 == 1 => Some(values[half]),
        _ => Some((values[half - 1] + values[half]) / 2.0),
    }
}

/// The value that a fraction of the sorted values is below; between two of them in proportion.
fn quantile(sorted: &[f64], fraction: f64) -> Option<f64> {
    let place = fraction * sorted.len().checked_sub(1)? as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    Some(low + place.fract() * (high - low))
}

/// Samples all the runs in turn, A B C A B C ..., each until it has enough. The first run of each is not timed.
pub fn interleave(runs: &mut [impl FnMut()], probe: &mut Probe, effort: Effort) -> Vec<Series> {
    let batches: Vec<(usize, bool)> = runs.iter_mut().map(batch).collect();
    let mut series = vec![Series::default(); runs.len()];
    let mut spent = vec![Duration::ZERO; runs.len()];
    loop {
        let mut done = true;
        for (i, run) in runs.iter_mut().enumerate() {
            let enough = series[i].good(probe.best()).count() >= effort.samples || spent[i] >= effort.budget;
            if enough && series[i].0.len() >= effort.least {
                continue;
            }
            done = false;
            let (batch, short) = batches[i];
            let begin = Instant::now();
            while short && begin.elapsed() < LONG {
                run();
            }
            let before = probe.pace();
            let time = time(run, batch);
            let after = probe.pace();
            spent[i] += time;
            let seconds = time.as_secs_f64() / batch as f64;
            series[i].0.push(Sample { seconds, probe: before.slower(after) });
        }
        if done {
            return series;
        }
    }
}

/// How many runs make a sample, and whether one of them is short.
fn batch(run: &mut impl FnMut()) -> (usize, bool) {
    run();
    let mut batch = 1;
    loop {
        let time = time(run, batch);
        if time >= LEAST {
            return (batch, time < LONG);
        }
        batch = longer(batch, time);
    }
}

/// A larger batch that should last long enough, given that this one lasted `time`.
fn longer(batch: usize, time: Duration) -> usize {
    let factor = 1.1 * LEAST.as_secs_f64() / time.as_secs_f64().max(1e-9);
    ((batch as f64 * factor.clamp(1.0, 100.0)).ceil() as usize).max(batch + 1)
}

fn time(run: &mut impl FnMut(), batch: usize) -> Duration {
    let begin = Instant::now();
    for _ in 0..batch {
        run();
    }
    begin.elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use convolve::Isa;
    use std::cell::RefCell;

    /// Of multiply-adds alone: integers are at their best.
    fn pace(flops: f64) -> Pace {
        Pace { flops, steps: 1.0 }
    }

    fn series(samples: &[(f64, f64)]) -> Series {
        Series(samples.iter().map(|&(seconds, flops)| Sample { seconds, probe: pace(flops) }).collect())
    }

    #[test]
    fn medians() {
        assert_eq!(median(&mut []), None);
        assert_eq!(median(&mut [7.0]), Some(7.0));
        assert_eq!(median(&mut [9.0, 1.0]), Some(5.0));
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&mut [4.0, 100.0, 1.0, 2.0]), Some(3.0));
    }

    #[test]
    fn quartiles() {
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(quantile(&[7.0], 0.75), Some(7.0));
        assert_eq!(
            [0.25, 0.5, 0.75].map(|part| quantile(&[1.0, 2.0, 4.0, 8.0], part)),
            [1.75, 3.0, 5.0].map(Some)
        );
        let one_outlier = [(1.0, 1.0), (1.0, 1.0), (1.0, 1.0), (1.0, 1.0), (9.0, 1.0)];
        assert_eq!(series(&one_outlier).statistics(pace(1.0)).unwrap().spread, 0.0);
    }

    #[test]
    fn slow_samples_are_dropped() {
        let samples = series(&[(1.0, 100.0), (9.0, 50.0), (3.0, 90.0), (8.0, 89.9), (0.5, 50.0)]);
        let expected = Statistics { median: 2.0, min: 1.0, spread: 0.5, taken: 5, slow: 3, steady: true };
        assert_eq!(samples.statistics(pace(100.0)), Some(expected));
    }

    #[test]
    fn the_rule_counts_against_the_best_of_the_run() {
        let samples = series(&[(1.0, 100.0), (2.0, 111.0)]);
        assert_eq!(samples.statistics(pace(111.0)).unwrap().slow, 0);
        assert_eq!(samples.statistics(pace(112.0)).unwrap().slow, 1);
    }

    #[test]
    fn when_nearly_all_are_slow_all_are_used_and_it_is_said() {
        let samples =
            series(&[(1.0, 100.0), (3.0, 50.0), (5.0, 50.0), (4.0, 50.0), (2.0, 50.0), (6.0, 50.0)]);
        let expected =
            Statistics { median: 3.5, min: 1.0, spread: 2.5 / 3.5, taken: 6, slow: 5, steady: false };
        assert_eq!(samples.statistics(pace(100.0)), Some(expected));
        let [slow, good] = [(9.0, 50.0), (1.0, 100.0)];
        let few_of_many: Vec<_> = [[slow; 95].as_slice(), &[good; ENOUGH]].concat();
        assert!(series(&few_of_many).statistics(pace(100.0)).unwrap().steady);
        assert!(!series(&few_of_many[1..][..98]).statistics(pace(100.0)).unwrap().steady);
        assert!(!series(&[(1.0, 100.0), (3.0, 50.0), (2.0, 50.0)]).statistics(pace(100.0)).unwrap().steady);
        let one_in_five = series(&[[(1.0, 100.0); 2].as_slice(), &[(3.0, 50.0); 8]].concat());
        assert!(one_in_five.statistics(pace(100.0)).unwrap().steady);
        assert!(!series(&[(1.0, 50.0)]).statistics(pace(100.0)).unwrap().steady);
    }

    #[test]
    fn no_sample_no_statistics() {
        assert_eq!(Series::default().statistics(pace(1.0)), None);
    }

    #[test]
    fn a_longer_batch_is_longer_and_not_by_much() {
        assert_eq!(longer(1, LEAST / 10), 11);
        assert_eq!(longer(10, LEAST / 2), 22);
        assert_eq!(longer(1, LEAST - Duration::from_nanos(1)), 2);
        assert_eq!(longer(3, Duration::ZERO), 300);
    }

    /// Not about time: without a budget each run gets its fewest samples, and they take turns.
    #[test]
    fn runs_take_turns() {
        let order = RefCell::new(String::new());
        let mut runs = ["A", "B", "C"].map(|name| {
            let order = &order;
            move || {
                std::thread::sleep(LONG);
                order.borrow_mut().push_str(name);
            }
        });
        let mut probe = Probe::open(Isa::best());
        let effort = Effort { samples: 3, budget: Duration::ZERO, least: 2 };
        let series = interleave(&mut runs, &mut probe, effort);
        assert_eq!(*order.borrow(), "AABBCCABCABC");
        assert!(series.iter().all(|series| series.0.len() == 2));
    }
}
