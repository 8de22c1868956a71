//! Sliding-window convolution for few channels a group: depthwise and grouped layers, first layers, gradients with respect to images.
#![forbid(unsafe_code)]

mod channels;
mod deliver;
mod flat;
#[expect(clippy::needless_range_loop, reason = "sums must be indexed by constants of unrolled loops")]
mod gather;
mod gradient;
mod long_row;
mod outer;
mod planes;
mod prepared;
#[expect(clippy::needless_range_loop, reason = "accumulators must be indexed by constants of unrolled loops")]
mod sweep;
mod window;

pub use flat::Flat;
pub use outer::Outer;

use channels::Channels;
use convolve_core::{
    Algorithm, BackwardData, Direction, Estimate, Execute, Forward, Pass, Problem, Unsupported,
};
use planes::Planes;

/// Tasks of a problem, at least, so that a few threads share them evenly.
const TASKS: usize = 8;
/// Of waiting for what has left the caches, what is not hidden ([`Estimate::exposed`](convolve_core::Estimate::exposed)); fitted on Zen 4.
const EXPOSED: f64 = 0.25;
/// The same where planes are copied before they are read.
const COPIED: f64 = 1.5;
/// Below this many multiplications a problem is one task: it takes less time than waking a thread.
const MACS: u64 = 1 << 20;
/// Most floats of workspace that a thread has: 2 MiB.
const WORKSPACE: usize = 1 << 19;

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

/// Lanes are channels or pixels: what costs less, but for depthwise layers in NHWC, where channels always do.
fn choose<P: Pass>(
    problem: &Problem,
    direction: Direction,
) -> Result<(Estimate, Box<dyn Execute<P>>), Unsupported>
where
    Channels: Execute<P>,
    Planes: Execute<P>,
{
    let channels = Channels::new(problem, direction).map(|runner| (runner.estimate(), runner));
    let (estimate, runner): (_, Box<dyn Execute<P>>) = if let Ok((estimate, runner)) = channels {
        let planes = Planes::new(problem, direction).ok().filter(|_| !runner.is_depthwise());
        match planes.map(|planes| (planes.estimate(), planes)) {
            Some((other, planes)) if other.ns < estimate.ns => (other, Box::new(planes)),
            _ => (estimate, Box::new(runner)),
        }
    } else {
        let runner = Planes::new(problem, direction)?;
        (runner.estimate(), Box::new(runner))
    };
    match estimate.workspace / problem.threads.max(1) <= WORKSPACE {
        true => Ok((estimate, runner)),
        false => Err(Unsupported("the rows that it prepares take more than 2 MiB a thread")),
    }
}

macro_rules! pass {
    ($pass:ident) => {
        impl Algorithm<$pass> for Slide {
            fn name(&self) -> &'static str {
                Self::NAME
            }

            fn estimate(&self, problem: &Problem) -> Result<Estimate, Unsupported> {
                Ok(choose::<$pass>(problem, Direction::$pass)?.0)
            }

            fn build(&self, problem: &Problem) -> Box<dyn Execute<$pass>> {
                choose(problem, Direction::$pass).expect("accepted by `estimate`").1
            }
        }
    };
}
pass!(Forward);
pass!(BackwardData);
