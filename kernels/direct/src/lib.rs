//! Direct convolution: the image is read where it lies. The algorithm that refuses nothing: every stride, dilation, padding, group
//! count and layout, in all three passes.
//!
//! | pass | file | right operand (vectors) | left operand (broadcast) |
//! |---|---|---|---|
//! | forward | `phase` | weights, packed by tap | pixels of `src` |
//! | backward-data | `phase` | weights, transposed, by phase and tap | pixels of `diff_dst` |
//! | forward, backward-data of 1x1 kernels in NCHW | `pointwise` | pixels | weights |
//! | backward-weights | `backward_weights` | pixels of `src`, packed by chunk | pixels of `diff_dst` |
#![forbid(unsafe_code)]

mod backward_weights;
mod blocks;
mod in_place;
mod phase;
mod pointwise;

pub use pointwise::Pointwise;

use convolve_core::{Algorithm, BackwardData, Direction, Estimate, Execute, Forward, Problem, Unsupported};
use phase::PhaseRunner;

const ACCEPTED: &str = "accepted by `estimate`";

/// Of waiting for what has left the caches, half is hidden ([`Estimate::exposed`]); fitted on Zen 4.
const EXPOSED: f64 = 0.5;

/// Direct convolution.
///
/// ```
/// use convolve_core::{Algorithm, Forward};
/// assert_eq!(Algorithm::<Forward>::name(&convolve_direct::Direct), "direct");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Direct;

impl Direct {
    const NAME: &'static str = "direct";
}

impl Algorithm<Forward> for Direct {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn estimate(&self, problem: &Problem) -> Result<Estimate, Unsupported> {
        Ok(PhaseRunner::new(problem, Direction::Forward)?.estimate())
    }

    fn build(&self, problem: &Problem) -> Box<dyn Execute<Forward>> {
        Box::new(PhaseRunner::new(problem, Direction::Forward).expect(ACCEPTED))
    }
}

impl Algorithm<BackwardData> for Direct {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn estimate(&self, problem: &Problem) -> Result<Estimate, Unsupported> {
        Ok(PhaseRunner::new(problem, Direction::BackwardData)?.estimate())
    }

    fn build(&self, problem: &Problem) -> Box<dyn Execute<BackwardData>> {
        Box::new(PhaseRunner::new(problem, Direction::BackwardData).expect(ACCEPTED))
    }
}
