//! The planner's part of tuning: which candidates are worth timing, and what becomes of the winner.

use super::TuningCache;
use super::entry::{Key, TunedEntry};
use super::trial::{Operands, Tunable, interleave};
use crate::planner::build;
use crate::{Explanation, Planner, Verdict, Why};
use convolve_core::{Conv2d, Error, Par};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Algorithms that are timed, at most, each as it cuts the problem by itself.
const CANDIDATES: usize = 5;
/// An algorithm whose estimate is that much larger than the smallest is not timed.
const FAR: f64 = 2.5;
/// Other ways to cut the problem that are timed, at most; how many an algorithm is asked for; and how much larger their estimates may be.
const CUTS: usize = 4;
const RANKS: usize = 8;
const FURTHER: f64 = 1.5;

/// How long to time, and with weights from where.
///
/// ```
/// use convolve::Budget;
/// use std::time::Duration;
/// let budget = Budget::from(Duration::from_millis(50)).warm();
/// assert!(!budget.cold);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Time for one problem. Each candidate is run at least three times, whatever that takes.
    pub time: Duration,
    /// Whether packed weights that would fill an eighth of L2 or more come from beyond it, as they do when other layers run between two runs
    /// of this one. Copies are used in turn: their memory is twice that of L2, or one copy more than the weights.
    pub cold: bool,
}

impl From<Duration> for Budget {
    /// That time, with cold weights.
    fn from(time: Duration) -> Self {
        Self { time, cold: true }
    }
}

impl Budget {
    /// Weights stay where the last run left them: for a loop over one layer.
    /// ```
    /// # use convolve::Budget;
    /// assert!(!Budget::from(std::time::Duration::ZERO).warm().cold);
    /// ```
    pub fn warm(self) -> Self {
        Self { cold: false, ..self }
    }
}

impl Planner {
    /// Plans by what was measured: an entry of `cache` for the very problem, pass, layouts, threads, instruction set, accuracy class and limits wins
    /// over estimates, if its algorithm still accepts. Where there is none, estimates decide. Nothing is timed.
    /// ```
    /// # use convolve::{Conv2d, Forward, Planner, TuningCache, Why};
    /// # use std::{sync::Arc, time::Duration};
    /// let planner = Planner::new().threads(1).with_cache(Arc::new(TuningCache::new()));
    /// let conv = Conv2d::new(8, 8, 3).input(10);
    /// planner.tune::<Forward>(conv, Duration::from_millis(2))?;
    /// assert_eq!(planner.explain::<Forward>(conv)?.why, Some(Why::Measured));
    /// # Ok::<(), convolve::Error>(())
    /// ```
    pub fn with_cache(self, cache: Arc<TuningCache>) -> Self {
        self.set_cache(cache)
    }

    /// Times the model's best few candidates, within the planner's limits, and takes the fastest; the [`cache`](Self::with_cache) keeps it, if there
    /// is one. Never happens unless called.
    ///
    /// - Candidates: at most five algorithms, those whose estimates are at most 2.5 times the smallest; and of the further ways in which they can cut the
    ///   problem (micro-kernel, depth of a block, tasks) the four of the smallest estimates, if these are at most 1.5 times the smallest.
    /// - Threads: those of the current pool ([`Par::Current`]), or the calling thread alone for a planner of one thread. Call it
    ///   where plans will run.
    /// - Samples of at least 0.1 ms, taken from the candidates in turn so that a slow moment meets all of them; after three rounds those 30 %
    ///   behind the best are dropped; medians decide. Weights are packed and memory is allocated before.
    /// - Algorithms, and the ways in which one cuts a problem, differ in their last bits, within the accuracy class, and a close race may end differently the
    ///   next time: for the same bits in every run, plan by a saved cache.
    /// - [`Budget`] has the time and says what cold weights are. It takes the memory of the problem, a workspace for each candidate, and copies of the
    ///   weights.
    ///
    /// # Errors
    /// As [`plan`](Self::plan); no memory; fewer threads in the current pool than are planned for; an empty batch, in which there is nothing to time.
    pub fn tune<P: Tunable>(&self, conv: Conv2d, budget: impl Into<Budget>) -> Result<Explanation, Error> {
        let budget = budget.into();
        let (mut explanation, problem) = self.ask::<P>(conv)?;
        let par = if problem.threads == 1 { Par::Seq } else { Par::Current };
        if par.threads() < problem.threads {
            let reason = "the current pool has fewer threads: tune inside of the pool that will run the plan";
            return Err(Error::Parameter { parameter: "threads", value: problem.threads, reason });
        }
        if problem.geometry.macs() == 0 {
            let reason = "there is nothing to time in an empty problem: the batch must be at least 1";
            return Err(Error::Parameter { parameter: "batch", value: conv.batch, reason });
        }
        let mut order: Vec<_> = explanation.accepted().map(|(i, estimate)| (estimate.ns, i)).collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0));
        let Some(&(best, _)) = order.first() else { return Err(explanation.refusal()) };
        order.retain(|&(ns, _)| ns <= FAR * best);
        order.truncate(CANDIDATES);
        let mut others = Vec::new();
        if problem.rank == 0 {
            for &(_, i) in &order {
                let mut known = vec![explanation.verdicts[i].clone()];
                for rank in 1..RANKS {
                    known.extend(self.other::<P>(rank, &problem, &known));
                }
                others.extend(known.drain(1..));
            }
        }
        let price = |verdict: &Verdict| verdict.answer.map_or(f64::INFINITY, |estimate| estimate.ns);
        others.retain(|verdict| price(verdict) <= FURTHER * best);
        others.sort_by(|a, b| price(a).total_cmp(&price(b)));
        for other in others.into_iter().take(CUTS) {
            order.push((price(&other), explanation.verdicts.len()));
            explanation.verdicts.push(other);
        }
        let operands = Operands::new(&problem.geometry)?;
        let runs: Result<Vec<_>, Error> = order
            .iter()
            .map(|&(_, i)| P::run(build::<P>(&explanation.verdicts[i], problem), &operands, budget.cold, par))
            .collect();
        let times = interleave(&mut runs?, budget.time);
        for (&(_, i), &ns) in order.iter().zip(&times) {
            explanation.verdicts[i].measured = Some(ns);
        }
        let fastest = order.iter().zip(&times).min_by(|a, b| a.1.total_cmp(b.1));
        if let Some((&(_, winner), _)) = fastest {
            explanation.choose(winner, Why::Measured);
        }
        if let (Some(cache), Some(winner)) = (&self.tuned, explanation.chosen()) {
            let timed: Vec<_> = order.iter().map(|&(_, i)| &explanation.verdicts[i]).collect();
            let key = Key::new(&explanation, &self.limits());
            if let Some(entry) = TunedEntry::new(&key, budget.cold, winner, &timed) {
                cache.insert(entry);
            }
        }
        // Those of one algorithm beside each other.
        let position = |name: &str| P::algorithms().iter().position(|algorithm| algorithm.name() == name);
        explanation.verdicts.sort_by_key(|verdict| position(verdict.algorithm));
        Ok(explanation)
    }

    /// [`tune`](Self::tune)s one problem after the other; the time of `budget` is shared out evenly over those that are left.
    /// What cannot be tuned is an error in its place and does not stop the rest.
    /// ```
    /// # use convolve::{Conv2d, Forward, Planner};
    /// # use std::time::Duration;
    /// let layers = [Conv2d::new(3, 8, 3).input(9), Conv2d::new(8, 8, 3).input(2)];
    /// let results = Planner::new().threads(1).tune_all::<Forward>(&layers, Duration::from_millis(4));
    /// assert!(results[0].is_ok() && results[1].is_err()); // a kernel of 3 does not fit into 2 pixels
    /// ```
    pub fn tune_all<P: Tunable>(
        &self,
        list: &[Conv2d],
        budget: impl Into<Budget>,
    ) -> Vec<Result<Explanation, Error>> {
        let (budget, begin) = (budget.into(), Instant::now());
        let tune = |(i, &conv): (usize, &Conv2d)| {
            let left = (list.len() - i).try_into().unwrap_or(u32::MAX);
            let time = budget.time.saturating_sub(begin.elapsed()) / left;
            self.tune::<P>(conv, Budget { time, ..budget })
        };
        list.iter().enumerate().map(tune).collect()
    }
}
