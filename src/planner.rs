//! The planner: asks every registered algorithm that the limits allow, and takes the smallest estimate, or what was measured to be
//! the fastest.

use crate::registry::Registered;
use crate::{Explanation, Plan, Verdict};
use convolve_core::{
    Accuracy, Algorithm, BackwardData, BackwardWeights, Caches, Conv2d, Error, Exclusion, Forward, Machine,
    Par, Pass, Problem,
};
use convolve_linear::{FullyConnected, Linear};
use convolve_pool::{Pool2d, Pooling};
use convolve_simd::Isa;
use core::fmt::Display;

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
    caches: Option<Caches>,
    machine: Option<Machine>,
    only: Option<String>,
    forbidden: Vec<String>,
    max_workspace: Option<usize>,
    rank: usize,
    #[cfg(feature = "tuning")]
    pub(crate) tuned: Option<std::sync::Arc<crate::TuningCache>>,
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

    /// Plans for that many threads at most (1 to 1024): it sizes the workspace and the estimates, never the result, as algorithms are ranked by their
    /// [price](crate::Estimate::price), which is the same for any number: the time of one thread, and a seventh of what several would wait. (A limit on
    /// the workspace may exclude more of them for more threads, and what was tuned holds for its threads.) Default: the threads of the current rayon pool.
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

    /// Computes block sizes for those caches. Default: those of the [`machine`](Self::machine) that was given, else
    /// [`Caches::default`].
    ///
    /// Block sizes are part of a plan: in the classes below [`Accuracy::Strict`] a sum may be cut in other places for other caches, so
    /// that its last bits differ; never for another number of threads.
    /// ```
    /// # use convolve::{Caches, Planner};
    /// let planner = Planner::new().caches(Caches { l1: 48 << 10, l2: 2 << 20, l3: 8 << 20 });
    /// ```
    pub fn caches(self, caches: Caches) -> Self {
        Self { caches: Some(caches), ..self }
    }

    /// Estimates with the constants of that machine, and computes block sizes for its caches. Default: those shipped for this CPU,
    /// [`Machine::native`].
    ///
    /// To plan alike on different machines, give all of them the same constants, such as [`Machine::GENERIC`].
    /// ```
    /// # use convolve::{Conv2d, Forward, Machine, Planner};
    /// let slow = Machine { ghz: 1.0, ..Machine::GENERIC };
    /// let conv = Conv2d::new(64, 64, 3).input(56);
    /// let [fast, slow] = [Machine::GENERIC, slow].map(|machine| Planner::new().machine(machine).plan::<Forward>(conv));
    /// assert!(slow?.estimate().ns > 3.0 * fast?.estimate().ns);
    /// # Ok::<(), convolve::Error>(())
    /// ```
    pub fn machine(self, machine: Machine) -> Self {
        Self { machine: Some(machine), ..self }
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

    /// Never takes the algorithm of that name; call it again to forbid several. A name that no pass has is an error when planning.
    /// ```
    /// # use convolve::{Conv2d, Exclusion, Forward, Planner};
    /// let conv = Conv2d::new(64, 64, 3).input(56);
    /// let first = Planner::new().plan::<Forward>(conv)?.algorithm();
    /// let explanation = Planner::new().forbid(first).explain::<Forward>(conv)?;
    /// assert_ne!(explanation.chosen().unwrap().algorithm, first);
    /// assert!(explanation.verdicts.iter().any(|verdict| verdict.answer == Err(Exclusion::Forbidden)));
    /// # Ok::<(), convolve::Error>(())
    /// ```
    pub fn forbid(mut self, name: impl Into<String>) -> Self {
        self.forbidden.push(name.into());
        self
    }

    /// Allows only plans whose workspace, for all threads, is at most that many bytes.
    /// ```
    /// # use convolve::{Conv2d, Error, Forward, Planner};
    /// let conv = Conv2d::new(64, 64, 3).input(56);
    /// let limit = Planner::new().plan::<Forward>(conv)?.workspace_len() * 4;
    /// assert!(Planner::new().max_workspace(limit).plan::<Forward>(conv).is_ok());
    /// let error = Planner::new().max_workspace(0).only("im2col").plan::<Forward>(conv).unwrap_err();
    /// assert!(matches!(error, Error::Excluded { .. }) && error.to_string().contains("KiB of workspace"));
    /// # Ok::<(), convolve::Error>(())
    /// ```
    pub fn max_workspace(self, bytes: usize) -> Self {
        Self { max_workspace: Some(bytes), ..self }
    }

    /// Takes another of the ways in which an algorithm cuts a problem: 0 is the one that it prefers (default), 1 another, and so on, as
    /// [`explain`](Self::explain) shows them in [`Estimate::tiling`](crate::Estimate::tiling). An algorithm that knows no further way
    /// refuses, and one that cuts in one way ignores this; a rank may repeat an earlier tiling. `tune` tries several, but of a planner with a
    /// rank only that.
    /// ```
    /// # use convolve::{Conv2d, Forward, Planner};
    /// let (conv, planner) = (Conv2d::new(64, 64, 3).input(56), Planner::new().only("direct"));
    /// let [usual, other] = [0, 1].map(|rank| planner.clone().rank(rank).plan::<Forward>(conv));
    /// assert_ne!(usual?.estimate().tiling, other?.estimate().tiling);
    /// assert!(planner.rank(1000).plan::<Forward>(conv).is_err());
    /// # Ok::<(), convolve::Error>(())
    /// ```
    pub fn rank(self, rank: usize) -> Self {
        Self { rank, ..self }
    }

    /// Checks the problem, chooses an algorithm and prepares it.
    ///
    /// # Errors
    /// Whatever [`Conv2d::geometry`] finds; an algorithm that was forced and refuses; limits that leave none
    /// ([`Error::Excluded`] says which limit excludes what); an unknown name; an instruction set (from the environment) that
    /// this CPU does not have.
    pub fn plan<P: Registered>(&self, conv: Conv2d) -> Result<Plan<P>, Error> {
        let (explanation, problem) = self.decide::<P>(conv)?;
        if explains() {
            eprint!("{explanation}");
        }
        let Some(verdict) = explanation.chosen() else { return Err(explanation.refusal()) };
        Ok(build(verdict, problem))
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
        let (isa, threads) = self.resources()?;
        let machine = self.machine.unwrap_or_else(Machine::native);
        let caches = self.caches_now();
        let (accuracy, rank) = (self.accuracy, self.rank);
        Ok(Problem { geometry: conv.geometry()?, isa, threads, accuracy, caches, machine, rank })
    }

    /// The instruction set and the threads to plan for.
    fn resources(&self) -> Result<(Isa, usize), Error> {
        let isa = match self.isa {
            Some(isa) => isa,
            None => Isa::from_env()?,
        };
        Ok((isa, self.threads_now()))
    }

    /// The threads to plan for; a pool is asked only if the caller did not say.
    pub(crate) fn threads_now(&self) -> usize {
        self.threads.unwrap_or_else(|| Par::Current.threads()).min(MAX_THREADS)
    }

    /// Prepares a pooling: with the instruction set and the threads of this planner, within its limit on the workspace. (There is one algorithm, which
    /// [`only`](Self::only) and [`forbid`](Self::forbid) do not concern; the plan prints how it computes.)
    ///
    /// # Errors
    /// As [`Pool2d::plan`]; an instruction set from the environment that is not here; [`Error::Excluded`] where it needs more workspace than allowed.
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
        let (isa, threads) = self.resources()?;
        let plan = pool.plan(isa, threads)?;
        self.only_one_way("pooling", &pool, &plan, plan.workspace_len())?;
        Ok(plan)
    }

    /// Prepares a fully connected layer, as [`pool`](Self::pool), with blocks for the caches of this planner.
    ///
    /// # Errors
    /// As [`Linear::plan`]; an instruction set from the environment that is not here; [`Error::Excluded`] where it needs more workspace than allowed.
    ///
    /// ```
    /// use convolve::{Epilogue, Linear, Par, Planner};
    /// let plan = Planner::new().linear(Linear::new(2, 1))?;
    /// let mut dst = [0.0];
    /// let weights = plan.pack(&[3.0, 4.0])?;
    /// plan.forward(&weights, &[10.0, 1.0], &mut dst, Epilogue::NONE, &mut plan.workspace()?, Par::Current)?;
    /// assert_eq!(dst, [34.0]);
    /// println!("{plan}");
    /// let error = Planner::new().max_workspace(0).linear(Linear::new(2, 1).batch(2)).unwrap_err();
    /// assert!(error.to_string().contains("KiB of workspace"));
    /// # Ok::<(), convolve::Error>(())
    /// ```
    pub fn linear(&self, linear: Linear) -> Result<FullyConnected, Error> {
        let (isa, threads) = self.resources()?;
        let plan = linear.plan_for(isa, threads, &self.caches_now())?;
        self.only_one_way("linear", &linear, &plan, plan.workspace_len())?;
        Ok(plan)
    }

    /// The limits and the explanation of a layer for which there is one algorithm: names of algorithms do not concern it.
    fn only_one_way(
        &self,
        name: &'static str,
        problem: &dyn Display,
        plan: &dyn Display,
        workspace: usize,
    ) -> Result<(), Error> {
        if explains() {
            eprintln!("{plan}");
        }
        let needs = workspace.saturating_mul(size_of::<f32>());
        let Some(limit) = self.max_workspace.filter(|&limit| needs > limit) else { return Ok(()) };
        let excluded = vec![(name, Exclusion::Workspace { needs, limit })];
        Err(Error::Excluded { pass: "all passes", problem: problem.to_string(), excluded })
    }

    /// The caches to compute block sizes for.
    fn caches_now(&self) -> Caches {
        self.caches.or(self.machine.map(|machine| machine.caches)).unwrap_or_default()
    }

    /// The algorithm that is forced, by the program or else from outside.
    fn forced(&self) -> Option<String> {
        let from_outside = || std::env::var("CONVOLVE_ALGORITHM").ok().filter(|name| !name.is_empty());
        self.only.clone().or_else(from_outside)
    }

    #[cfg(feature = "tuning")]
    pub(crate) fn set_cache(self, cache: std::sync::Arc<crate::TuningCache>) -> Self {
        Self { tuned: Some(cache), ..self }
    }

    /// The limits as one canonical word for each, empty if there are none: what was tuned within limits holds only there.
    #[cfg(feature = "tuning")]
    pub(crate) fn limits(&self) -> String {
        let mut limits: Vec<String> = self.forbidden.iter().map(|name| format!("forbid={name}")).collect();
        limits.extend(self.forced().map(|name| format!("only={name}")));
        limits.extend(self.max_workspace.map(|bytes| format!("max_workspace={bytes}")));
        limits.extend((self.rank > 0).then(|| format!("rank={}", self.rank)));
        limits.sort();
        limits.dedup();
        limits.join(" ")
    }

    /// What an algorithm says within the limits.
    fn verdict<P: Pass>(
        &self,
        algorithm: &dyn Algorithm<P>,
        only: Option<&str>,
        problem: &Problem,
    ) -> Verdict {
        let answer = || {
            if only.is_some_and(|name| name != algorithm.name()) {
                return Err(Exclusion::Forced);
            }
            if self.forbidden.iter().any(|name| name == algorithm.name()) {
                return Err(Exclusion::Forbidden);
            }
            let estimate = algorithm.estimate(problem)?.on(problem);
            let needs = estimate.workspace.saturating_mul(size_of::<f32>());
            match self.max_workspace {
                Some(limit) if needs > limit => Err(Exclusion::Workspace { needs, limit }),
                _ => Ok(estimate),
            }
        };
        let answer = answer();
        Verdict {
            algorithm: algorithm.name(),
            answer,
            rank: problem.rank,
            amplification: algorithm.amplification(),
            measured: None,
            chosen: false,
        }
    }

    /// What an algorithm says of another way to cut the problem, if it has one of that rank that these do not have.
    #[cfg(feature = "tuning")]
    pub(crate) fn other<P: Registered>(
        &self,
        rank: usize,
        problem: &Problem,
        known: &[Verdict],
    ) -> Option<Verdict> {
        let name = known.first()?.algorithm;
        let verdict = self.verdict(find::<P>(name)?, None, &Problem { rank, ..*problem });
        let tiling = verdict.answer.ok()?.tiling;
        let new = known.iter().all(|other| other.answer.is_ok_and(|estimate| estimate.tiling != tiling));
        new.then_some(verdict)
    }

    /// What every algorithm says within the limits; the least price is chosen.
    pub(crate) fn ask<P: Registered>(&self, conv: Conv2d) -> Result<(Explanation, Problem), Error> {
        let problem = self.problem(conv)?;
        let only = self.forced();
        if let Some(name) = only.iter().find(|name| find::<P>(name).is_none()) {
            return Err(unknown::<P>(name));
        }
        let nowhere = |name: &&String| {
            find::<Forward>(name).is_none()
                && find::<BackwardData>(name).is_none()
                && find::<BackwardWeights>(name).is_none()
        };
        if let Some(name) = self.forbidden.iter().find(nowhere) {
            return Err(unknown::<P>(name));
        }
        let mut explanation = Explanation {
            problem: conv.to_string(),
            pass: P::NAME,
            layout: conv.layout.to_string(),
            weights: conv.weight_layout.to_string(),
            isa: problem.isa,
            threads: problem.threads,
            accuracy: problem.accuracy,
            machine: problem.machine.name,
            verdicts: P::algorithms()
                .iter()
                .map(|&algorithm| self.verdict(algorithm, only.as_deref(), &problem))
                .collect(),
            why: None,
        };
        explanation.choose_by_estimate();
        Ok((explanation, problem))
    }

    /// As [`ask`](Self::ask), but what was measured wins over estimates.
    fn decide<P: Registered>(&self, conv: Conv2d) -> Result<(Explanation, Problem), Error> {
        #[allow(unused_mut, reason = "changed by the feature `tuning`")]
        let (mut explanation, problem) = self.ask::<P>(conv)?;
        #[cfg(feature = "tuning")]
        if let Some(cache) = &self.tuned {
            cache.apply(&mut explanation, &self.limits(), |usual, rank| {
                self.other::<P>(rank, &problem, usual)
            });
        }
        Ok((explanation, problem))
    }
}

/// Whether decisions are to be printed.
fn explains() -> bool {
    std::env::var_os("CONVOLVE_EXPLAIN").is_some_and(|value| value == "1")
}

fn find<P: Registered>(name: &str) -> Option<&'static dyn Algorithm<P>> {
    P::algorithms().iter().copied().find(|algorithm| algorithm.name() == name)
}

fn unknown<P: Registered>(name: &str) -> Error {
    let known: Vec<_> = P::algorithms().iter().map(|algorithm| algorithm.name()).collect();
    Error::UnknownAlgorithm { name: name.to_owned(), pass: P::NAME, known: known.join(", ") }
}

/// The plan by the algorithm of a verdict that accepted.
pub(crate) fn build<P: Registered>(verdict: &Verdict, problem: Problem) -> Plan<P> {
    let estimate = verdict.answer.expect("a candidate has an estimate");
    let algorithm = find::<P>(verdict.algorithm).expect("a verdict names a registered algorithm");
    let problem = Problem { rank: verdict.rank, ..problem };
    Plan::new(problem, algorithm.name(), estimate, algorithm.build(&problem))
}
