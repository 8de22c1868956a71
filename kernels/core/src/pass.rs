//! The three passes as types, so that a forward plan cannot be handed gradients.

use crate::Epilogue;

mod sealed {
    pub trait Sealed {}
}

/// One of [`Forward`], [`BackwardData`], [`BackwardWeights`].
///
/// ```
/// use convolve_core::{Forward, Pass};
/// assert_eq!(Forward::NAME, "fwd");
/// ```
pub trait Pass: sealed::Sealed + Send + Sync + 'static {
    /// benchdnn's name: `fwd`, `bwd_d`, `bwd_w`.
    const NAME: &'static str;
    /// What one run reads and writes.
    type Operands<'a>;
}

/// `dst = activation(src * weights + bias)`.
///
/// ```
/// # use convolve_core::{Forward, Pass};
/// assert_eq!(Forward::NAME, "fwd");
/// ```
#[derive(Debug)]
pub enum Forward {}

/// `diff_src[n, ic, ih, iw] = sum of diff_dst * weights over all outputs that read that pixel`: the course's dA.
///
/// ```
/// # use convolve_core::{BackwardData, Pass};
/// assert_eq!(BackwardData::NAME, "bwd_d");
/// ```
#[derive(Debug)]
pub enum BackwardData {}

/// `diff_weights[oc, ic, kh, kw] = sum of src * diff_dst over all images and outputs`: the course's dW.
///
/// ```
/// # use convolve_core::{BackwardWeights, Pass};
/// assert_eq!(BackwardWeights::NAME, "bwd_w");
/// ```
#[derive(Debug)]
pub enum BackwardWeights {}

/// Operands of [`Forward`].
///
/// ```
/// # use convolve_core::{Epilogue, ForwardArgs};
/// let args = ForwardArgs { src: &[1.0], weights: &[2.0], dst: &mut [0.0], epilogue: Epilogue::NONE };
/// assert_eq!(args.dst.len(), 1);
/// ```
#[derive(Debug)]
pub struct ForwardArgs<'a> {
    /// The input.
    pub src: &'a [f32],
    /// Weights packed by the same plan.
    pub weights: &'a [f32],
    /// The output, written once.
    pub dst: &'a mut [f32],
    /// What is done to it on the way.
    pub epilogue: Epilogue<'a>,
}

/// Operands of [`BackwardData`].
///
/// ```
/// # use convolve_core::BackwardDataArgs;
/// let args = BackwardDataArgs { diff_dst: &[1.0], weights: &[2.0], diff_src: &mut [0.0], accumulate: false };
/// assert!(!args.accumulate);
/// ```
#[derive(Debug)]
pub struct BackwardDataArgs<'a> {
    /// Gradient of the output.
    pub diff_dst: &'a [f32],
    /// Weights packed by the same plan.
    pub weights: &'a [f32],
    /// Gradient of the input.
    pub diff_src: &'a mut [f32],
    /// Add to `diff_src` instead of overwriting it.
    pub accumulate: bool,
}

/// Operands of [`BackwardWeights`].
///
/// ```
/// # use convolve_core::BackwardWeightsArgs;
/// let args = BackwardWeightsArgs { src: &[1.0], diff_dst: &[2.0], diff_weights: &mut [0.0], accumulate: true };
/// assert!(args.accumulate);
/// ```
#[derive(Debug)]
pub struct BackwardWeightsArgs<'a> {
    /// The input of the forward pass.
    pub src: &'a [f32],
    /// Gradient of the output.
    pub diff_dst: &'a [f32],
    /// Gradient of the weights, in the weights' layout.
    pub diff_weights: &'a mut [f32],
    /// Add to `diff_weights` instead of overwriting them.
    pub accumulate: bool,
}

macro_rules! pass {
    ($pass:ident, $name:literal, $operands:ident) => {
        impl sealed::Sealed for $pass {}
        impl Pass for $pass {
            const NAME: &'static str = $name;
            type Operands<'a> = $operands<'a>;
        }
    };
}
pass!(Forward, "fwd", ForwardArgs);
pass!(BackwardData, "bwd_d", BackwardDataArgs);
pass!(BackwardWeights, "bwd_w", BackwardWeightsArgs);
