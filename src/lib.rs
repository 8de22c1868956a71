//! Convolution kernels for CPUs: forward, backward-data and backward-weights, NCHW and NHWC, explicit SIMD chosen at run time,
//! and the same bits for any number of threads.
#![forbid(unsafe_code)]

mod oneshot;
mod plan;
mod planner;
pub mod registry;

pub use convolve_core::{
    Accuracy, Activation, Algorithm, BackwardData, BackwardDataArgs, BackwardWeights, BackwardWeightsArgs,
    Caches, Conv2d, Epilogue, Error, Estimate, Execute, Forward, ForwardArgs, Geometry, Layout, NamedProblem,
    Operand, Padding, Pair, Par, Pass, Problem, Strides, Unsupported, Update, WeightLayout, WeightStrides,
    Workspace, backward_bias, definition, phase, problems,
};
pub use convolve_simd::{Isa, IsaError};
pub use oneshot::{Gradients, backward, backward_data, backward_weights, forward};
pub use plan::{PackedWeights, Plan};
pub use planner::{Explanation, Planner, Verdict};
