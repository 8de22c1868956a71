//! Convolution kernels for CPUs: forward, backward-data and backward-weights, NCHW and NHWC, explicit SIMD chosen at run time, the
//! same bits for any number of threads.
//!
//! ```text
//! dst[n, oc, oh, ow] = bias[oc] + sum over ic, kh, kw of
//!     src[n, g*IC/G + ic, oh*stride_h + kh*dilation_h - top, ow*stride_w + kw*dilation_w - left] * weights[oc, ic, kh, kw]
//! ```
//!
//! Cross-correlation (the kernel is not flipped), dilation 1 is dense, a padded pixel is absent.
//!
//! # A tour
//!
//! - [`Conv2d`] is the problem, plain data built by chained calls; [`Conv2d::geometry`] checks it.
//! - [`Planner`] chooses an algorithm and explains itself; [`Plan`] runs it: [`Plan::pack`](Plan#method.pack) once,
//!   [`Plan::run`](Plan#method.run) often.
//! - [`forward`], [`backward_data`], [`backward_weights`], [`backward`] are for people without a plan.
//! - [`Epilogue`] is bias, residual and activation, applied before the output is written.
//! - [`definition`] is the formula above as loops, in f32, f64 or i64; [`explicit`] is textbook im2col in f32 or f64.
//! - [`NamedProblem`] and [`problems`] read oneDNN's benchdnn strings: `"mb1ic64ih56oc64kh3ph1".parse::<Conv2d>()`.
//!
//! - [`Pool2d`], [`Linear`], [`Function`], [`Norm`], [`cross_entropy`] are the other layers of a network, forward and backward;
//!   [`Sgd`] and [`Adam`] take a step with their gradients;
//!   [`Transposed2d`] enlarges, [`Conv1d`] is a view of signals; [`filters`] are the nine numbers of a first lecture.
//! - [`guide`] is a course week on all of this, from the first filter to backpropagation, every line running.
//!
//! Examples in the documentation of what is re-exported name the crate that it comes from (`convolve_core`, `convolve_pool`, `convolve_linear`,
//! `convolve_layers`, `convolve_simd`): all of these names are in this one as well, so write `convolve::` there.
//!
//! # The course's letters
//!
//! | course | here |
//! |---|---|
//! | A_prev (m, n_H_prev, n_W_prev, n_C_prev) | `src` in [`Layout::Nhwc`] |
//! | W (f, f, n_C_prev, n_C) | `weights` in [`WeightLayout::Hwio`] |
//! | b (1, 1, 1, n_C) | [`Epilogue::bias`] |
//! | Z, A = ReLU(Z) | `dst`, with [`Epilogue::relu`] |
//! | f, p, s | `kernel`, `padding`, `stride` |
//! | dA_prev, dW, db from dZ | [`Gradients`] of [`backward`] from `diff_dst` |
#![forbid(unsafe_code)]

mod conv1d;
mod explain;
pub mod filters;
pub mod guide;
mod oneshot;
mod plan;
mod planner;
mod plans;
pub mod registry;
mod transposed;
#[cfg(feature = "tuning")]
mod tuning;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use conv1d::Conv1d;
pub use convolve_core::{
    Accuracy, Activation, Algorithm, BackwardData, BackwardDataArgs, BackwardWeights, BackwardWeightsArgs,
    Caches, Conv2d, Epilogue, Error, Estimate, Exclusion, Execute, Forward, ForwardArgs, Geometry, Layout,
    Machine, NamedProblem, Operand, Padding, Pair, Par, Pass, Problem, Stages, Strides, Tiling, Unsupported,
    Update, WeightLayout, WeightStrides, Workspace, backward_bias, definition, phase, problems,
};
pub use convolve_im2col::explicit;
pub use convolve_layers::{Adam, Function, Norm, Real, Saved, Sgd, Statistics, cross_entropy, softmax};
pub use convolve_linear::{FullyConnected, Linear, PackedMatrix, WeightOrder};
pub use convolve_pool::definition as pool_definition;
pub use convolve_pool::{Pool2d, PoolGeometry, Pooling, Reduction, Ties, unpool};
pub use convolve_simd::{Cpu, Isa, IsaError};
pub use explain::{Explanation, Verdict, Why};
pub use oneshot::{Gradients, backward, backward_data, backward_weights, forward};
pub use plan::{PackedWeights, Plan};
pub use planner::Planner;
pub use plans::PlanCache;
pub use transposed::{Transposed2d, transposed};
#[cfg(feature = "tuning")]
pub use tuning::{Budget, Ignored, Note, Tunable, TunedEntry, TuningCache};
