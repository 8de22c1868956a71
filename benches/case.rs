//! One pass of one problem by one algorithm, ready to be run again and again: planned, weights packed, memory allocated.

use crate::error;
use convolve::registry::Registered;
use convolve::{
    BackwardData, BackwardWeights, Budget, Conv2d, Epilogue, Error, Explanation, Forward, Geometry, Par,
    Pass, Plan, Planner, Update, Verdict, Workspace,
};

/// A pass as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnyPass {
    /// Forward.
    Forward,
    /// Gradient of the input.
    BackwardData,
    /// Gradient of the weights.
    BackwardWeights,
}

/// Evaluates an expression with the pass as the type `$P`.
macro_rules! with_pass {
    ($pass:expr, $P:ident => $body:expr) => {
        match $pass {
            AnyPass::Forward => {
                type $P = Forward;
                $body
            }
            AnyPass::BackwardData => {
                type $P = BackwardData;
                $body
            }
            AnyPass::BackwardWeights => {
                type $P = BackwardWeights;
                $body
            }
        }
    };
}

/// Names of the algorithms of all passes, each once, in the order of the registry.
pub fn algorithms() -> Vec<&'static str> {
    let mut names = Vec::new();
    for name in AnyPass::ALL.iter().flat_map(|pass| pass.algorithms()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

impl AnyPass {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Forward, Self::BackwardData, Self::BackwardWeights];

    /// benchdnn's name.
    pub fn name(self) -> &'static str {
        with_pass!(self, P => P::NAME)
    }

    /// Names of the registered algorithms.
    pub fn algorithms(self) -> Vec<&'static str> {
        with_pass!(self, P => P::algorithms().iter().map(|algorithm| algorithm.name()).collect())
    }

    /// What every algorithm says to the problem.
    ///
    /// # Errors
    /// A problem that makes no sense.
    pub fn verdicts(self, planner: &Planner, conv: Conv2d) -> Result<Vec<Verdict>, Error> {
        Ok(self.explain(planner, conv)?.verdicts)
    }

    /// The same with what was asked, and why the winner won.
    ///
    /// # Errors
    /// A problem that makes no sense.
    pub fn explain(self, planner: &Planner, conv: Conv2d) -> Result<Explanation, Error> {
        with_pass!(self, P => planner.explain::<P>(conv))
    }

    /// What every algorithm says after the best few were timed.
    ///
    /// # Errors
    /// A problem that makes no sense, or no memory.
    pub fn tune(self, planner: &Planner, conv: Conv2d, budget: Budget) -> Result<Explanation, Error> {
        with_pass!(self, P => planner.tune::<P>(conv, budget))
    }

    /// Prepares what `planner` chooses.
    ///
    /// # Errors
    /// No memory, or an algorithm that was forced and refuses.
    pub fn prepare<'a>(
        self,
        planner: &Planner,
        operands: &'a Operands,
        par: Par<'a>,
    ) -> Result<Case<'a>, Error> {
        with_pass!(self, P => {
            let plan = planner.plan::<P>(*operands.geometry.conv())?;
            let workspace_bytes = plan.workspace_len() * size_of::<f32>();
            let (len, mut pass) = P::runner(plan, operands, par)?;
            let mut result = Workspace::new(len)?;
            Ok(Case { workspace_bytes, run: Box::new(move || pass(&mut result)) })
        })
    }

    /// Runs the pass once and compares a sample of the result with f64: the worst |error| / (u S).
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare).
    pub fn error(self, planner: &Planner, operands: &Operands, par: Par<'_>) -> Result<f64, Error> {
        with_pass!(self, P => {
            let (len, mut pass) = P::runner(planner.plan::<P>(*operands.geometry.conv())?, operands, par)?;
            let mut result = Workspace::new(len)?;
            pass(&mut result);
            Ok(error::worst(&operands.geometry, self, operands.tensors(), &result))
        })
    }
}

/// The inputs of a problem: whatever its three passes read.
#[derive(Debug)]
pub struct Operands {
    geometry: Geometry,
    src: Workspace,
    weights: Workspace,
    dst: Workspace,
}

impl Operands {
    /// Numbers between -1 and 1, none of them subnormal.
    ///
    /// # Errors
    /// A problem that makes no sense, or no memory.
    pub fn new(conv: Conv2d) -> Result<Self, Error> {
        let geometry = conv.geometry()?;
        let [src, weights, dst] =
            [geometry.src_len(), geometry.weights_len(), geometry.dst_len()].map(numbers);
        Ok(Self { geometry, src: src?, weights: weights?, dst: dst? })
    }
}

impl Operands {
    /// `src`, weights, `dst` (which stands for `diff_dst`).
    pub fn tensors(&self) -> [&[f32]; 3] {
        [&self.src, &self.weights, &self.dst]
    }

    /// The problem.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }
}

/// Numbers of both signs, at most 1.
///
/// # Errors
/// No memory.
pub fn numbers(len: usize) -> Result<Workspace, Error> {
    let mut numbers = Workspace::new(len)?;
    let mut state = 1u32;
    for number in numbers.iter_mut() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *number = ((state >> 16) as f32 - 32767.5) / 32768.0;
    }
    Ok(numbers)
}

/// Ready to run.
pub struct Case<'a> {
    /// Memory that a run needs beside its operands.
    pub workspace_bytes: usize,
    /// Runs the pass once.
    pub run: Box<dyn FnMut() + 'a>,
}

/// The length of the result, and what writes it.
type Writer<'a> = (usize, Box<dyn FnMut(&mut [f32]) + 'a>);

trait Runner: Registered + Sized {
    fn runner<'a>(plan: Plan<Self>, operands: &'a Operands, par: Par<'a>) -> Result<Writer<'a>, Error>;
}

const CHECKED: &str = "every length was taken from the plan";

impl Runner for Forward {
    fn runner<'a>(plan: Plan<Self>, operands: &'a Operands, par: Par<'a>) -> Result<Writer<'a>, Error> {
        let Operands { geometry, src, weights, .. } = operands;
        let (weights, mut workspace) = (plan.pack(weights)?, plan.workspace()?);
        let run = move |dst: &mut [f32]| {
            plan.run(&weights, src, dst, Epilogue::NONE, &mut workspace, par).expect(CHECKED);
        };
        Ok((geometry.dst_len(), Box::new(run)))
    }
}

impl Runner for BackwardData {
    fn runner<'a>(plan: Plan<Self>, operands: &'a Operands, par: Par<'a>) -> Result<Writer<'a>, Error> {
        let Operands { geometry, weights, dst, .. } = operands;
        let (weights, mut workspace) = (plan.pack(weights)?, plan.workspace()?);
        let run = move |diff_src: &mut [f32]| {
            plan.run(&weights, dst, diff_src, Update::Overwrite, &mut workspace, par).expect(CHECKED);
        };
        Ok((geometry.src_len(), Box::new(run)))
    }
}

impl Runner for BackwardWeights {
    fn runner<'a>(plan: Plan<Self>, operands: &'a Operands, par: Par<'a>) -> Result<Writer<'a>, Error> {
        let Operands { geometry, src, dst, .. } = operands;
        let mut workspace = plan.workspace()?;
        let run = move |diff_weights: &mut [f32]| {
            let update = Update::Overwrite;
            plan.run(src, dst, Some(diff_weights), None, update, &mut workspace, par).expect(CHECKED);
        };
        Ok((geometry.weights_len(), Box::new(run)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_of_the_same_size_and_of_both_signs() {
        let numbers = numbers(10_000).unwrap();
        assert!(numbers.iter().all(|x| x.abs() <= 1.0 && x.abs() > 1e-6));
        assert!(numbers.iter().sum::<f32>().abs() < 200.0);
    }

    #[test]
    fn every_registered_algorithm_that_accepts_runs() {
        let operands = Operands::new(Conv2d::new(2, 3, 3).input(5)).unwrap();
        for pass in AnyPass::ALL {
            let planner = Planner::new().threads(1);
            for verdict in pass.verdicts(&planner, *operands.geometry.conv()).unwrap() {
                if verdict.answer.is_ok() {
                    let planner = planner.clone().only(verdict.algorithm);
                    (pass.prepare(&planner, &operands, Par::Seq).unwrap().run)();
                }
            }
        }
    }
}
