//! im2col + GEMM: convolution as a matrix product with the patch matrix, in all three passes.
//!
//! [`Im2col`] never builds the matrix: blocks of it are copied into the packing of the GEMM ("virtual im2col"), so its memory is that of
//! the GEMM's blocks. [`Matrixmultiply`] does build it ([`explicit`]): slow, large, by another author's GEMM, and therefore the cross-check.
#![deny(unsafe_code)]

mod backward_weights;
pub mod explicit;
mod patches;
mod phases;

use convolve_core::{Algorithm, BackwardData, Direction, Estimate, Execute, Forward, Problem, Unsupported};
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

impl Im2col {
    const NAME: &'static str = "im2col";
}

impl Algorithm<Forward> for Im2col {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn estimate(&self, problem: &Problem) -> Result<Estimate, Unsupported> {
        Ok(PatchRunner::estimate(problem, Direction::Forward))
    }

    fn build(&self, problem: &Problem) -> Box<dyn Execute<Forward>> {
        Box::new(PatchRunner::new(problem, Direction::Forward))
    }
}

impl Algorithm<BackwardData> for Im2col {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn estimate(&self, problem: &Problem) -> Result<Estimate, Unsupported> {
        Ok(PatchRunner::estimate(problem, Direction::BackwardData))
    }

    fn build(&self, problem: &Problem) -> Box<dyn Execute<BackwardData>> {
        Box::new(PatchRunner::new(problem, Direction::BackwardData))
    }
}
