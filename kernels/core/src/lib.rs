//! What convolution is in this library: problem, geometry, phases, passes, the contract of an algorithm, and the definition that
//! every algorithm is tested against.
//!
//! No SIMD here, and `unsafe` only in [`BlockMut`]. The crate `convolve` is the one to depend on; it re-exports what users need.
#![deny(unsafe_code)]

mod algorithm;
mod bias;
mod conv2d;
pub mod definition;
#[allow(unsafe_code, reason = "the one cell that hands disjoint parts of a buffer to tasks")]
mod disjoint;
mod epilogue;
mod error;
mod geometry;
mod gradient;
mod machine;
mod par;
mod pass;
pub mod phase;
mod phased;
mod problem;
mod tasks;
mod tiling;
mod workspace;

pub use algorithm::{
    Accuracy, Algorithm, Caches, Estimate, Exclusion, Execute, Problem, Stages, Unsupported,
};
pub use bias::backward_bias;
pub use conv2d::{Conv2d, Layout, Padding, Pair, WeightLayout};
pub use disjoint::{BlockMut, Cut, PairFn, PieceFn, RowsOfPlanes};
pub use epilogue::{Activation, Epilogue};
pub use error::Error;
pub use geometry::{Geometry, Operand, Strides, WeightStrides};
pub use gradient::{DeliverFn, Parts, SumsFn, Transpose, WeightCuts, WeightTask};
pub use machine::Machine;
pub use par::Par;
pub use pass::{
    BackwardData, BackwardDataArgs, BackwardWeights, BackwardWeightsArgs, Forward, ForwardArgs, Pass, Update,
};
pub use phased::{Direction, Finish, Phased, Side, Sides};
pub use problem::{NamedProblem, problems};
pub use tasks::Tasks;
pub use tiling::{Ranked, Tiling, both, distinct, shares};
pub use workspace::{LINE, Workspace, lines};
