//! Fully connected layers: `dst[n, o] = activation(bias[o] + sum over i of src[n, i] * weights[o, i] + residual[n, o])`, and its gradients.
//!
//! ```text
//! backward-data      diff_src[n, i]     = sum over o of  diff_dst[n, o] * weights[o, i]
//! backward-weights   diff_weights[o, i] = sum over n of  diff_dst[n, o] * src[n, i]
//! bias               diff_bias[o]       = sum over n of  diff_dst[n, o]
//! ```
//!
//! A linear layer is a convolution of an image of one pixel with a kernel of one tap, and its words are the same: epilogue, update,
//! workspace. Each pass is one product of the crate `convolve-gemm`: its rows are images (or outputs), its columns are packed in panels.
//! With a batch of one (`vector.rs`) each packed weight is read once, several panels side by side, and a gradient of the weights is written without
//! any packing.
//!
//! [`Linear`] is the problem, [`Linear::plan`] checks it, [`FullyConnected`] runs it. Each output is one sum in the order of its index,
//! with fused multiply-adds: |error| <= K u S, and the same bits for any number of threads and any batch slice.
#![forbid(unsafe_code)]

mod explain;
mod plan;
mod vector;

pub use plan::{FullyConnected, Linear, PackedMatrix, WeightOrder};
