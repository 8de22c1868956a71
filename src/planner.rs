//! The planner: asks every registered algorithm and takes the smallest estimate.

use crate::Plan;
use crate::registry::Registered;
use convolve_core::{
    Accuracy, Algorithm, Caches, Conv2d, Error, Estimate, Machine, Par, Problem, Unsupported,
};
use convolve_linear::{FullyConnected, Linear};
use convolve_pool::{Pool2d, Pooling};
use convolve_simd::Isa;
use core::fmt;

/// More lanes of workspace than any problem has tasks for.
const MAX_THREADS: usize = 1024;

/// Chooses an algorithm for a problem, within the limits that the caller sets.
///
/// From outside, `CONVOLVE_ISA=avx2` lowers the instruction set, `CONVOLVE_ALGORITHM=direct` forces an algorithm, and
/// `CONVOLVE_EXPLAIN=1` prints every decision to standard error. What the program sets itself wins over the environment.
///
/// ```
/// use convolve::{Conv2d, Forward, Planner};
/// let conv = Conv2d::new(64, 64, 3).input(56).padding(1);
/// let plan = Planner::new().plan::<Forward>(conv)?;
/// println!("{} with {} floats of workspace", plan.algorithm(), plan.workspace_len());
/// # Ok::<(), convolve::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Planner {
    isa: Option<Isa>,
    threads: Option<usize>,
    accuracy: Accuracy,
    caches: Caches,
    only: Option<String>,
}

impl Planner {
    /// The best instruction set of this CPU, the threads of the current pool, [`Accuracy::Standard`], any algorithm.
    /// ```
    /// # use convolve::{Conv2d, Forward, Planner};
    /// assert!(Planner::new().plan::<Forward>(Conv2d::new(1, 1, 3).input(6)).is_ok());
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Uses that instruction set. A value of [`Isa`] exists only where the CPU has it.
    /// ```
    /// # use convolve::{Conv2d, Forward, Isa, Planner};
    /// for &isa in Isa::available() {
    ///     let plan = Planner::new().isa(isa).plan::<Forward>(Conv2d::new(1, 1, 3).input(6))?;
    ///     assert_eq!(plan.isa(), isa);
    /// }
    /// # Ok::<(), convolve::Error>(())
    /// ```
    pub fn isa(self, isa: Isa) -> Self {
        Self { isa: Some(isa), ..self }
    }

    /// Plans for that many threads at most (1 to 1024): it sizes the workspace and the estimates, never the result. Default: the threads
    /// of the current rayon pool.
    /// ```
    /// # use convolve::{Conv2d, Forward, Planner};
    /// let one = Planner::new().threads(1).plan::<Forward>(Conv2d::new(64, 64, 3).input(9))?;
    /// let two = Planner::new().threads(2).plan::<Forward>(Conv2d::new(64, 64, 3).input(9))?;
    /// assert!(one.workspace_len() <= two.workspace_len());
    /// # Ok::<(), convolve::Error>(())
    /// ```
    pub fn threads(self, threads: usize) -> Self {
        Self { threads: Some(threads.clamp(1, MAX_THREADS)), ..self }
    }

    /// Never leaves that class of accuracy.
    /// ```
    /// # use convolve::{Accuracy, Conv2d, Forward, Planner};
    /// let planner = Planner::new().accuracy(Accuracy::Strict);
    /// assert!(planner.plan::<Forward>(Conv2d::new(8, 8, 3).input(9)).is_ok());
    /// ```
    pub fn accuracy(self, accuracy: Accuracy) -> Self {
        Self { accuracy, ..self }
    }

    /// Computes block sizes for those caches.
    /// ```
    /// # use convolve::{Caches, Planner};
    /// let planner = Planner::new().caches(Caches { l1: 48 << 10, l2: 2 << 20, l3: 8 << 20 });
    /// ```
    pub fn caches(self, caches: Caches) -> Self {
        Self { caches, ..self }
    }

    /// Allows only the algorithm of that name.
    /// ```
    /// # use convolve::{Conv2d, Error, Forward, Planner};
    /// let planner = Planner::new().only("alchemy");
    /// let error = planner.plan::<Forward>(Conv2d::new(1, 1, 3).input(6)).err().unwrap();
    /// assert!(matches!(error, Error::UnknownAlgorithm { .. }));
    /// ```
    pub fn only(self, name: impl Into<String>) -> Self {
        Self { only: Some(name.into()), ..self }
    }

    /// Checks the problem, chooses an algorithm and prepares it.
    ///
    /// # Errors
    /// Whatever [`Conv2d::geometry`] finds; an algorithm that was forced and refuses; an unknown name; an instruction set
    /// (from the environment) that this CPU does not have.
    pub fn plan<P: Registered>(&self, conv: Conv2d) -> Result<Plan<P>, Error> {
        let (explanation, problem) = self.decide::<P>(conv)?;
        if std::env::var_os("CONVOLVE_EXPLAIN").is_some_and(|value| value == "1") {
            eprint!("{explanation}");
        }
        let chosen = explanation.verdicts.iter().position(|verdict| verdict.chosen);
        let Some(chosen) = chosen else { return Err(explanation.refusal()) };
        let Verdict { algorithm, ref answer, .. } = explanation.verdicts[chosen];
        let estimate = answer.expect("a chosen algorithm has an estimate");
        let algorithm = find::<P>(algorithm).expect("a verdict names a registered algorithm");
        Ok(Plan::new(problem, algorithm.name(), estimate, algorithm.build(&problem)))
    }

    /// What every algorithm said, and which one [`plan`](Self::plan) takes.
    ///
    /// # Errors
    /// As [`plan`](Self::plan), but that an algorithm refuses is an answer, not an error.
    ///
    /// ```
    /// use convolve::{Conv2d, Forward, Planner};
    /// let explanation = Planner::new().explain::<Forward>(Conv2d::new(3, 8, 3).input(32))?;
    /// assert_eq!(explanation.verdicts.iter().filter(|verdict| verdict.chosen).count(), 1);
    /// println!("{explanation}");
    /// # Ok::<(), convolve::Error>(())
    /// ```
    pub fn explain<P: Registered>(&self, conv: Conv2d) -> Result<Explanation, Error> {
        Ok(self.decide::<P>(conv)?.0)
    }

    /// The problem as algorithms see it.
    ///
    /// # Errors
    /// As [`Conv2d::geometry`], and an instruction set from the environment that is not here.
    ///
    /// ```
    /// # use convolve::{Conv2d, Planner};
    /// assert_eq!(Planner::new().threads(3).problem(Conv2d::new(1, 1, 1).input(1))?.threads, 3);
    /// # Ok::<(), convolve::Error>(())
    /// ```
    pub fn problem(&self, conv: Conv2d) -> Result<Problem, Error> {
        let (isa, threads) = self.machine()?;
        let (geometry, accuracy, caches, machine) =
            (conv.geometry()?, self.accuracy, self.caches, Machine::native());
        Ok(Problem { geometry, isa, threads, accuracy, caches, machine })
    }

    /// The instruction set and the threads to plan for.
    fn machine(&self) -> Result<(Isa, usize), Error> {
        let isa = match self.isa {
            Some(isa) => isa,
            None => Isa::from_env()?,
        };
        Ok((isa, self.threads.unwrap_or_else(|| Par::Current.threads()).min(MAX_THREADS)))
    }

    /// Prepares a pooling.
    ///
    /// # Errors
    /// As [`Pool2d::plan`], and an instruction set from the environment that is not here.
    ///
    /// ```
    /// use convolve::{Par, Planner, Pool2d};
    /// let plan = Planner::new().pool(Pool2d::max(1, 2).input([2, 4]))?;
    /// let mut dst = [0.0; 2];
    /// plan.forward(&[1.0, 3.0, 2.0, 1.0, 2.0, 9.0, 1.0, 1.0], &mut dst, &mut plan.workspace()?, Par::Current)?;
    /// assert_eq!(dst, [9.0, 2.0]);
    /// # Ok::<(), convolve::Error>(())
    /// ```
    pub fn pool(&self, pool: Pool2d) -> Result<Pooling, Error> {
        let (isa, threads) = self.machine()?;
        pool.plan(isa, threads)
    }

    /// Prepares a fully connected layer.
    ///
    /// # Errors
    /// As [`Linear::plan`], and an instruction set from the environment that is not here.
    ///
    /// ```
    /// use convolve::{Epilogue, Linear, Par, Planner};
    /// let plan = Planner::new().linear(Linear::new(2, 1))?;
    /// let mut dst = [0.0];
    /// let weights = plan.pack(&[3.0, 4.0])?;
    /// plan.forward(&weights, &[10.0, 1.0], &mut dst, Epilogue::NONE, &mut plan.workspace()?, Par::Current)?;
    /// assert_eq!(dst, [34.0]);
    /// # Ok::<(), convolve::Error>(())
    /// ```
    pub fn linear(&self, linear: Linear) -> Result<FullyConnected, Error> {
        let (isa, threads) = self.machine()?;
        linear.plan(isa, threads)
    }

    fn decide<P: Registered>(&self, conv: Conv2d) -> Result<(Explanation, Problem), Error> {
        let problem = self.problem(conv)?;
        let only = match &self.only {
            Some(name) => Some(name.clone()),
            None => std::env::var("CONVOLVE_ALGORITHM").ok().filter(|name| !name.is_empty()),
        };
        if let Some(name) = &only
            && find::<P>(name).is_none()
        {
            let known: Vec<_> = P::algorithms().iter().map(|algorithm| algorithm.name()).collect();
            return Err(Error::UnknownAlgorithm {
                name: name.clone(),
                pass: P::NAME,
                known: known.join(", "),
            });
        }
        let mut verdicts: Vec<Verdict> = P::algorithms()
            .iter()
            .map(|algorithm| {
                let answer = match &only {
                    Some(name) if name != algorithm.name() => {
                        Err(Unsupported("another algorithm was forced"))
                    }
                    _ => algorithm.estimate(&problem),
                };
                Verdict { algorithm: algorithm.name(), answer, chosen: false }
            })
            .collect();
        let best = verdicts
            .iter_mut()
            .filter_map(|verdict| verdict.answer.ok().map(|estimate| (estimate.ns, verdict)))
            .min_by(|(a, _), (b, _)| a.total_cmp(b));
        if let Some((_, verdict)) = best {
            verdict.chosen = true;
        }
        let explanation = Explanation {
            problem: conv.to_string(),
            pass: P::NAME,
            layout: conv.layout.to_string(),
            isa: problem.isa,
            threads: problem.threads,
            verdicts,
        };
        Ok((explanation, problem))
    }
}

fn find<P: Registered>(name: &str) -> Option<&'static dyn Algorithm<P>> {
    P::algorithms().iter().copied().find(|algorithm| algorithm.name() == name)
}

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
    /// Its cost, or why not.
    pub answer: Result<Estimate, Unsupported>,
    /// Whether the planner takes it.
    pub chosen: bool,
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
    /// The instruction set.
    pub isa: Isa,
    /// Threads planned for.
    pub threads: usize,
    /// One per registered algorithm.
    pub verdicts: Vec<Verdict>,
}

impl Explanation {
    /// The error of a plan for which nothing was chosen: the reason of the one that was forced.
    fn refusal(&self) -> Error {
        let forced = Unsupported("another algorithm was forced");
        let refusal = self.verdicts.iter().find_map(|verdict| match verdict.answer {
            Err(reason) if reason != forced => Some((verdict.algorithm, reason.0)),
            _ => None,
        });
        let (algorithm, reason) = refusal.unwrap_or(("none", "no algorithm is registered for this pass"));
        Error::Unsupported { algorithm, pass: self.pass, problem: self.problem.clone(), reason }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { problem, pass, layout, isa, threads, .. } = self;
        let plural = if *threads == 1 { "" } else { "s" };
        writeln!(f, "{pass} {problem} {layout} on {isa}, {threads} thread{plural}")?;
        for Verdict { algorithm, answer, chosen } in &self.verdicts {
            match answer {
                Err(reason) => writeln!(f, "  {algorithm}: no, {reason}")?,
                Ok(estimate) => {
                    let mark = if *chosen { "  <- chosen" } else { "" };
                    let (us, workspace) = (estimate.ns * 1e-3, estimate.workspace as f64 / (1 << 18) as f64);
                    writeln!(f, "  {algorithm}: about {us:.1} us, workspace {workspace:.2} MiB{mark}")?;
                }
            }
        }
        Ok(())
    }
}
