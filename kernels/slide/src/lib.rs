//! Sliding-window convolution for few channels a group: depthwise and grouped layers, first layers, gradients with respect to images.
#![forbid(unsafe_code)]

#[expect(clippy::needless_range_loop, reason = "sums must be indexed by constants of unrolled loops")]
mod gather;
mod gradient;
mod outer;
mod run;
#[expect(clippy::needless_range_loop, reason = "accumulators must be indexed by constants of unrolled loops")]
mod sweep;
mod window;

pub use outer::Outer;

use convolve_core::{Algorithm, BackwardData, Direction, Estimate, Execute, Forward, Problem, Unsupported};

/// Sliding-window convolution.
///
/// ```
/// use convolve_core::{Algorithm, Forward};
/// assert_eq!(Algorithm::<Forward>::name(&convolve_slide::Slide), "slide");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Slide;

impl Slide {
    const NAME: &'static str = "slide";
}

impl Algorithm<Forward> for Slide {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn estimate(&self, problem: &Problem) -> Result<Estimate, Unsupported> {
        Ok(run::Runner::new(problem, Direction::Forward)?.estimate())
    }

    fn build(&self, problem: &Problem) -> Box<dyn Execute<Forward>> {
        Box::new(run::Runner::new(problem, Direction::Forward).expect("accepted by `estimate`"))
    }
}

impl Algorithm<BackwardData> for Slide {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn estimate(&self, problem: &Problem) -> Result<Estimate, Unsupported> {
        Ok(run::Runner::new(problem, Direction::BackwardData)?.estimate())
    }

    fn build(&self, problem: &Problem) -> Box<dyn Execute<BackwardData>> {
        Box::new(run::Runner::new(problem, Direction::BackwardData).expect("accepted by `estimate`"))
    }
}
