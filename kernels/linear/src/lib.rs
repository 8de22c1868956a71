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
//! With a batch of one the product reads each packed weight once, in order, a broadcast times four vectors a step, and so runs at the
//! bandwidth of whatever memory holds the weights.
//!
//! [`Linear`] is the problem, [`Linear::plan`] checks it, [`FullyConnected`] runs it. Each output is one sum in the order of its index,
//! with fused multiply-adds: |error| <= K u S, and the same bits for any number of threads and any batch slice.
#![forbid(unsafe_code)]

mod plan;

pub use plan::{FullyConnected, Linear, PackedMatrix, WeightOrder};
