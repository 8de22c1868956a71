//! What stands between the convolutions of a network, forward and backward: activations, softmax with cross-entropy, normalisation.
//!
//! - [`Function`]: ReLU, ReLU6, leaky ReLU, sigmoid, tanh, SiLU, GELU, with their derivatives and stated errors.
//! - [`softmax`], [`cross_entropy`]: stable for any finite logits.
//! - [`Norm`]: batch and instance normalisation, in f32 and f64.
//! - [`Sgd`], [`Adam`]: what a step does to the weights.
//!
//! They share a crate because none is large and all are passes over memory: pooling and linear layers, which have geometry or products, have
//! crates of their own. An activation that is a clamp or a leaky ReLU costs nothing as the epilogue of a convolution; this is for the
//! others, and for the way back.
#![forbid(unsafe_code)]

mod abreast;
mod activation;
mod math;
mod norm;
mod optimizer;
mod softmax;

pub use activation::Function;
pub use norm::{Norm, Real, Saved, Statistics};
pub use optimizer::{Adam, Sgd};
pub use softmax::{cross_entropy, softmax};
