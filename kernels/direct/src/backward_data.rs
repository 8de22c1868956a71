//! Backward-data: the phases of the geometry over `diff_dst`, with the weights transposed.

use crate::Direct;
use crate::phase::{Direction, Finish, PhaseRunner};
use convolve_core::{Algorithm, BackwardData, BackwardDataArgs, Epilogue, Estimate, Execute, Par, Problem, Unsupported};

impl Algorithm<BackwardData> for Direct {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn estimate(&self, problem: &Problem) -> Result<Estimate, Unsupported> {
        Ok(PhaseRunner::estimate(problem, Direction::BackwardData))
    }

    fn build(&self, problem: &Problem) -> Box<dyn Execute<BackwardData>> {
        Box::new(PhaseRunner::new(problem, Direction::BackwardData))
    }
}

impl Execute<BackwardData> for PhaseRunner {
    fn packed_len(&self) -> usize {
        self.packed_len()
    }

    fn pack(&self, weights: &[f32], packed: &mut [f32]) {
        self.pack(weights, packed);
    }

    fn workspace_len(&self) -> usize {
        self.workspace_len()
    }

    fn run(&self, args: BackwardDataArgs<'_>, workspace: &mut [f32], par: Par<'_>) {
        let finish = Finish { epilogue: Epilogue::NONE, update: args.update };
        self.run(args.diff_dst, args.weights, args.diff_src, finish, workspace, par);
    }
}
