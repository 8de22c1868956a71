//! Why the planner chose what it chose: every candidate with its cost or the reason against it, as data and as text.

use crate::Accuracy;
use convolve_core::{Error, Estimate, Exclusion, Stages, Tiling, Unsupported};
use convolve_simd::Isa;
use core::fmt;

/// One algorithm's answer.
///
/// ```
/// # use convolve::{Conv2d, Forward, Planner};
/// for verdict in Planner::new().explain::<Forward>(Conv2d::new(3, 8, 3).input(32))?.verdicts {
///     println!("{}: {:?}", verdict.algorithm, verdict.answer);
/// }
/// # Ok::<(), convolve::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Its name.
    pub algorithm: &'static str,
    /// Its cost on the planner's machine, or why not. The least [`price`](Estimate::price) wins, however many threads there are.
    pub answer: Result<Estimate, Exclusion>,
    /// Which of its ways to cut the problem this is, as in [`Planner::rank`](crate::Planner::rank).
    pub rank: usize,
    /// How far it may be from exact: 1 for |error| <= K u S, else [`Algorithm::amplification`](crate::Algorithm::amplification).
    pub amplification: f64,
    /// Nanoseconds of a run, if it was timed for this problem on this machine.
    pub measured: Option<f64>,
    /// Whether the planner takes it.
    pub chosen: bool,
}

/// What decided.
///
/// ```
/// # use convolve::{Conv2d, Forward, Planner, Why};
/// let explanation = Planner::new().only("direct").explain::<Forward>(Conv2d::new(3, 8, 3).input(32))?;
/// assert_eq!(explanation.why, Some(Why::Alone));
/// # Ok::<(), convolve::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Why {
    /// It is the only candidate.
    Alone,
    /// Its [`price`](Estimate::price) is the least: that of the next one, as a multiple of it.
    Estimate {
        /// The next algorithm.
        next: &'static str,
        /// Its price over that of the winner.
        ratio: f64,
    },
    /// It was the fastest when candidates were timed.
    Measured,
}

/// Every verdict on one problem; `Display` prints it.
///
/// ```
/// # use convolve::{Conv2d, Forward, Planner};
/// let explanation = Planner::new().explain::<Forward>(Conv2d::new(3, 8, 3).input(32))?;
/// assert!(explanation.to_string().contains("<- chosen"));
/// # Ok::<(), convolve::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The problem as a benchdnn string.
    pub problem: String,
    /// `fwd`, `bwd_d`, `bwd_w`.
    pub pass: &'static str,
    /// `NCHW` or `NHWC`.
    pub layout: String,
    /// `OIHW`, `OHWI` or `HWIO`.
    pub weights: String,
    /// The instruction set.
    pub isa: Isa,
    /// Threads planned for.
    pub threads: usize,
    /// The accuracy class that is not left.
    pub accuracy: Accuracy,
    /// The machine whose constants the estimates use.
    pub machine: &'static str,
    /// One per registered algorithm; after `Planner::tune` also those of other ways to cut the problem that were timed, by a cache the one that won.
    pub verdicts: Vec<Verdict>,
    /// What decided; nothing if there was nothing to choose from.
    pub why: Option<Why>,
}

impl Explanation {
    /// The verdict that was chosen.
    /// ```
    /// # use convolve::{Conv2d, Forward, Planner};
    /// let explanation = Planner::new().only("im2col").explain::<Forward>(Conv2d::new(3, 8, 3).input(32))?;
    /// assert_eq!(explanation.chosen().map(|verdict| verdict.algorithm), Some("im2col"));
    /// # Ok::<(), convolve::Error>(())
    /// ```
    pub fn chosen(&self) -> Option<&Verdict> {
        self.verdicts.iter().find(|verdict| verdict.chosen)
    }

    /// Takes the least price.
    pub(crate) fn choose_by_estimate(&mut self) {
        let price = |(i, estimate): (usize, Estimate)| (estimate.price(), i);
        let mut order: Vec<(f64, usize)> = self.accepted().map(price).collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0));
        let Some(&(best, winner)) = order.first() else { return };
        let why = order.get(1).map_or(Why::Alone, |&(ns, next)| Why::Estimate {
            next: self.verdicts[next].algorithm,
            ratio: ns / best,
        });
        self.choose(winner, why);
    }

    /// Takes that verdict.
    pub(crate) fn choose(&mut self, winner: usize, why: Why) {
        self.verdicts.iter_mut().enumerate().for_each(|(i, verdict)| verdict.chosen = i == winner);
        self.why = Some(why);
    }

    /// Those that are candidates.
    pub(crate) fn accepted(&self) -> impl Iterator<Item = (usize, Estimate)> {
        self.verdicts.iter().enumerate().filter_map(|(i, verdict)| Some((i, verdict.answer.ok()?)))
    }

    /// The error of a plan for which nothing was chosen: the forced algorithm's own reason, or the limits.
    pub(crate) fn refusal(&self) -> Error {
        let (pass, problem) = (self.pass, self.problem.clone());
        let mut reasons: Vec<_> =
            self.verdicts.iter().filter_map(|v| v.answer.err().map(|reason| (v.algorithm, reason))).collect();
        reasons.retain(|(_, reason)| *reason != Exclusion::Forced);
        let forced = reasons.len() < self.verdicts.len();
        let own = |reason| match reason {
            Exclusion::Unsupported(reason) => Some(reason.0),
            Exclusion::Accuracy if forced => Some(Unsupported::ACCURACY.0),
            _ => None,
        };
        if reasons.iter().any(|&(_, reason)| own(reason).is_none()) {
            reasons.retain(|(_, reason)| reason.is_limit());
            return Error::Excluded { pass, problem, excluded: reasons };
        }
        let none = ("none", "no algorithm is registered for this pass");
        let first = reasons.first().and_then(|&(algorithm, reason)| Some((algorithm, own(reason)?)));
        let (algorithm, reason) = first.unwrap_or(none);
        Error::Unsupported { algorithm, pass, problem, reason }
    }
}

/// Bytes of that many floats in MiB.
fn mib(floats: usize) -> f64 {
    floats as f64 / (1 << 18) as f64
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.algorithm)?;
        let estimate = match &self.answer {
            Err(reason) => return write!(f, "no, {reason}"),
            Ok(estimate) => estimate,
        };
        if let Some(ns) = self.measured {
            write!(f, "measured {:.1} us, ", ns * 1e-3)?;
        }
        write!(f, "about {:.1} us", estimate.ns * 1e-3)?;
        let Stages { compute, memory, calls, waiting } = estimate.stages;
        if estimate.stages.sum() > 0.0 {
            let named = [("compute", compute), ("memory", memory), ("calls", calls), ("waiting", waiting)];
            let parts: Vec<_> = named
                .iter()
                .filter(|(_, ns)| *ns > 0.0)
                .map(|(name, ns)| format!("{name} {:.1}", ns * 1e-3))
                .collect();
            write!(f, " ({})", parts.join(" + "))?;
        }
        write!(f, ", workspace {:.2} MiB, packed {:.2} MiB", mib(estimate.workspace), mib(estimate.packed))?;
        if estimate.tiling != Tiling::default() {
            write!(f, ", {}", estimate.tiling)?;
        }
        match self.amplification {
            1.0 => write!(f, ", error <= K u S")?,
            a => write!(f, ", error <= {a:.0} (T + 40) u B")?,
        }
        if self.chosen { write!(f, "  <- chosen") } else { Ok(()) }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alone => write!(f, "nothing else is left"),
            Self::Estimate { next, ratio } => {
                write!(
                    f,
                    "its price is the least (the time of one thread, and a little of what threads would wait); that of the next, {next}, is {ratio:.2} times that"
                )
            }
            Self::Measured => write!(f, "it was the fastest when they were timed on this machine"),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { problem, pass, layout, weights, isa, threads, accuracy, machine, .. } = self;
        let plural = if *threads == 1 { "" } else { "s" };
        let accuracy = format!("{accuracy:?}").to_lowercase();
        writeln!(
            f,
            "{pass} {problem} {layout} {weights} on {isa}, {threads} thread{plural}, {accuracy}, by the constants of {machine}"
        )?;
        self.verdicts.iter().try_for_each(|verdict| writeln!(f, "  {verdict}"))?;
        match (self.chosen(), self.why) {
            (Some(verdict), Some(why)) => writeln!(f, "  {} because {why}", verdict.algorithm),
            _ => writeln!(f, "  nothing can be chosen"),
        }
    }
}
