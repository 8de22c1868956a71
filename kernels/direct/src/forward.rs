//! Forward: one phase over `src`, with the epilogue on the register tile.

use crate::Direct;
use crate::phase::{Direction, Finish, PhaseRunner};
use convolve_core::{Algorithm, Estimate, Execute, Forward, ForwardArgs, Par, Problem, Unsupported, Update};

impl Algorithm<Forward> for Direct {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn estimate(&self, problem: &Problem) -> Result<Estimate, Unsupported> {
        Ok(PhaseRunner::estimate(problem, Direction::Forward))
    }

    fn build(&self, problem: &Problem) -> Box<dyn Execute<Forward>> {
        Box::new(PhaseRunner::new(problem, Direction::Forward))
    }
}

impl Execute<Forward> for PhaseRunner {
    fn packed_len(&self) -> usize {
        self.packed_len()
    }

    fn pack(&self, weights: &[f32], packed: &mut [f32]) {
        self.pack(weights, packed);
    }

    fn workspace_len(&self) -> usize {
        self.workspace_len()
    }

    fn run(&self, args: ForwardArgs<'_>, workspace: &mut [f32], par: Par<'_>) {
        let finish = Finish { epilogue: args.epilogue, update: Update::Overwrite };
        self.run(args.src, args.weights, args.dst, finish, workspace, par);
    }
}
