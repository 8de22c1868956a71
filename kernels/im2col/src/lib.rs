//! im2col + GEMM: convolution as a matrix product with the patch matrix, in all three passes.
//!
//! [`Im2col`] never builds the matrix: blocks of it are copied into the packing of the GEMM ("virtual im2col"), so its memory is that of
//! the GEMM's blocks. [`Matrixmultiply`] does build it ([`explicit`]): slow, large, by another author's GEMM, and therefore the cross-check.
#![deny(unsafe_code)]

mod backward_weights;
pub mod explicit;
mod patches;
mod phases;

use convolve_core::{
    Algorithm, BackwardData, Caches, Direction, Estimate, Execute, Forward, Problem, Unsupported,
};
use convolve_gemm::{Blocking, Ukernel, ukernel_of_rank};
pub use explicit::Matrixmultiply;
use phases::PatchRunner;

/// im2col packed on the fly into the GEMM.
///
/// ```
/// use convolve_core::{Algorithm, Forward};
/// assert_eq!(Algorithm::<Forward>::name(&convolve_im2col::Im2col), "im2col");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Im2col;

const ACCEPTED: &str = "accepted by `estimate`";

/// The micro-kernel for so many columns and such a depth: of every two ranks of a problem the next one.
fn kernel(problem: &Problem, size: [usize; 2]) -> Result<Box<dyn Ukernel>, Unsupported> {
    ukernel_of_rank(problem.isa, size, problem.rank / 2).ok_or(Unsupported::RANK)
}

/// The blocks for a micro-kernel: as the caches suggest, in odd ranks for half of L1, which makes them less deep.
fn blocking(problem: &Problem, kernel: &dyn Ukernel, size: [usize; 3]) -> Blocking {
    let caches = Caches { l1: problem.caches.l1 >> (problem.rank % 2), ..problem.caches };
    Blocking { caches: problem.caches, ..Blocking::new(kernel, &caches, size) }
}

impl Im2col {
    const NAME: &'static str = "im2col";
}

impl Algorithm<Forward> for Im2col {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn estimate(&self, problem: &Problem) -> Result<Estimate, Unsupported> {
        Ok(PatchRunner::new(problem, Direction::Forward)?.estimate())
    }

    fn build(&self, problem: &Problem) -> Box<dyn Execute<Forward>> {
        Box::new(PatchRunner::new(problem, Direction::Forward).expect(ACCEPTED))
    }
}

impl Algorithm<BackwardData> for Im2col {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn estimate(&self, problem: &Problem) -> Result<Estimate, Unsupported> {
        Ok(PatchRunner::new(problem, Direction::BackwardData)?.estimate())
    }

    fn build(&self, problem: &Problem) -> Box<dyn Execute<BackwardData>> {
        Box::new(PatchRunner::new(problem, Direction::BackwardData).expect(ACCEPTED))
    }
}
