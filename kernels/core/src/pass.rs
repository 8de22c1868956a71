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

/// What a gradient does to what is there.
///
/// ```
/// # use convolve_core::Update;
/// assert_eq!(Update::default(), Update::Overwrite);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Update {
    /// Replaces it; it may hold anything, also NaN.
    #[default]
    Overwrite,
    /// Is added to it.
    Accumulate,
}

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
/// # use convolve_core::{BackwardDataArgs, Update};
/// let args = BackwardDataArgs { diff_dst: &[1.0], weights: &[2.0], diff_src: &mut [0.0], update: Update::Overwrite };
/// assert_eq!(args.update, Update::Overwrite);
/// ```
#[derive(Debug)]
pub struct BackwardDataArgs<'a> {
    /// Gradient of the output.
    pub diff_dst: &'a [f32],
    /// Weights packed by the same plan.
    pub weights: &'a [f32],
    /// Gradient of the input.
    pub diff_src: &'a mut [f32],
    /// Replace `diff_src` or add to it.
    pub update: Update,
}

/// Operands of [`BackwardWeights`].
///
/// ```
/// # use convolve_core::{BackwardWeightsArgs, Update};
/// let args = BackwardWeightsArgs { src: &[1.0], diff_dst: &[2.0], diff_weights: &mut [0.0], update: Update::Accumulate };
/// assert_eq!(args.update, Update::Accumulate);
/// ```
#[derive(Debug)]
pub struct BackwardWeightsArgs<'a> {
    /// The input of the forward pass.
    pub src: &'a [f32],
    /// Gradient of the output.
    pub diff_dst: &'a [f32],
    /// Gradient of the weights, in the weights' layout.
    pub diff_weights: &'a mut [f32],
    /// Replace `diff_weights` or add to them.
    pub update: Update,
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
