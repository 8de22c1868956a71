//! For people without a plan: one call, which plans, packs, allocates, runs and forgets. The same bits as a plan.

use crate::Planner;
use convolve_core::{BackwardData, BackwardWeights, Conv2d, Epilogue, Error, Forward, Par, Update};

/// `dst = activation(src * weights + bias + residual)`, on the current rayon pool.
///
/// Shapes: `src` `[N, IC, H, W]`, `dst` `[N, OC, OH, OW]` (or `[N, H, W, C]`, by the layout of `conv`), `weights` `[OC, IC/G, KH, KW]` (or
/// as its weight layout says). Each call packs the weights; whoever calls twice wants a [`Plan`](crate::Plan).
///
/// # Errors
/// A problem that makes no sense, or slices of the wrong length.
///
/// ```
/// use convolve::{Conv2d, Epilogue, forward};
/// let conv = Conv2d::new(1, 1, [1, 2]).input([1, 4]);
/// let mut dst = [0.0; 3];
/// forward(conv, &[0.0, 1.0, 5.0, 5.0], &[-1.0, 1.0], &mut dst, Epilogue::bias(&[-2.0]).relu())?;
/// assert_eq!(dst, [0.0, 2.0, 0.0]);
/// # Ok::<(), convolve::Error>(())
/// ```
pub fn forward(
    conv: Conv2d,
    src: &[f32],
    weights: &[f32],
    dst: &mut [f32],
    epilogue: Epilogue<'_>,
) -> Result<(), Error> {
    let plan = Planner::new().plan::<Forward>(conv)?;
    plan.run(&plan.pack(weights)?, src, dst, epilogue, &mut plan.workspace()?, Par::Current)
}

/// The gradient of the input: `diff_src` is overwritten.
///
/// # Errors
/// As [`forward`].
///
/// ```
/// use convolve::{Conv2d, backward_data};
/// let mut diff_src = [0.0; 3];
/// backward_data(Conv2d::new(1, 1, [1, 2]).input([1, 3]), &[1.0, 10.0], &[-1.0, 1.0], &mut diff_src)?;
/// assert_eq!(diff_src, [-1.0, -9.0, 10.0]);
/// # Ok::<(), convolve::Error>(())
/// ```
pub fn backward_data(
    conv: Conv2d,
    diff_dst: &[f32],
    weights: &[f32],
    diff_src: &mut [f32],
) -> Result<(), Error> {
    let gradients = Gradients { diff_src: Some(diff_src), ..Gradients::default() };
    backward_parts(conv, &[], weights, diff_dst, gradients)
}

/// The gradient of the weights: `diff_weights` is overwritten.
///
/// # Errors
/// As [`forward`].
///
/// ```
/// use convolve::{Conv2d, backward_weights};
/// let mut diff_weights = [0.0; 2];
/// backward_weights(Conv2d::new(1, 1, [1, 2]).input([1, 3]), &[1.0, 2.0, 5.0], &[1.0, 10.0], &mut diff_weights)?;
/// assert_eq!(diff_weights, [21.0, 52.0]);
/// # Ok::<(), convolve::Error>(())
/// ```
pub fn backward_weights(
    conv: Conv2d,
    src: &[f32],
    diff_dst: &[f32],
    diff_weights: &mut [f32],
) -> Result<(), Error> {
    let gradients = Gradients { diff_weights: Some(diff_weights), ..Gradients::default() };
    backward_parts(conv, src, &[], diff_dst, gradients)
}

/// The gradients that are wanted, and whether they replace what is there or are added to it.
///
/// ```
/// # use convolve::Gradients;
/// assert!(Gradients::default().diff_src.is_none());
/// ```
#[derive(Debug, Default)]
pub struct Gradients<'a> {
    /// Of the input: dA_prev.
    pub diff_src: Option<&'a mut [f32]>,
    /// Of the weights: dW.
    pub diff_weights: Option<&'a mut [f32]>,
    /// Of the bias: db.
    pub diff_bias: Option<&'a mut [f32]>,
    /// Replace, or add.
    pub update: Update,
}

/// Any of the three gradients, together: the backward pass of a layer.
///
/// # Errors
/// As [`forward`]; nothing is written unless every slice has its length.
///
/// ```
/// use convolve::{Conv2d, Gradients, Update, backward};
/// let conv = Conv2d::new(1, 1, [1, 2]).input([1, 3]);
/// let (mut diff_src, mut diff_weights, mut diff_bias) = ([0.0; 3], [0.0; 2], [0.0]);
/// let gradients = Gradients {
///     diff_src: Some(&mut diff_src),
///     diff_weights: Some(&mut diff_weights),
///     diff_bias: Some(&mut diff_bias),
///     update: Update::Overwrite,
/// };
/// backward(conv, &[1.0, 2.0, 5.0], &[-1.0, 1.0], &[1.0, 10.0], gradients)?;
/// assert_eq!((diff_src, diff_weights, diff_bias), ([-1.0, -9.0, 10.0], [21.0, 52.0], [11.0]));
/// # Ok::<(), convolve::Error>(())
/// ```
pub fn backward(
    conv: Conv2d,
    src: &[f32],
    weights: &[f32],
    diff_dst: &[f32],
    gradients: Gradients<'_>,
) -> Result<(), Error> {
    use convolve_core::Operand::{Bias, Dst, Src, Weights};
    let geometry = conv.geometry()?;
    geometry.check(Src, "src", src.len())?;
    geometry.check(Weights, "weights", weights.len())?;
    geometry.check(Dst, "diff_dst", diff_dst.len())?;
    let Gradients { diff_src, diff_weights, diff_bias, .. } = &gradients;
    diff_src.as_ref().map_or(Ok(()), |slice| geometry.check(Src, "diff_src", slice.len()))?;
    diff_weights.as_ref().map_or(Ok(()), |slice| geometry.check(Weights, "diff_weights", slice.len()))?;
    diff_bias.as_ref().map_or(Ok(()), |slice| geometry.check(Bias, "diff_bias", slice.len()))?;
    backward_parts(conv, src, weights, diff_dst, gradients)
}

/// As [`backward`]; an operand that no wanted gradient reads may be empty.
fn backward_parts(
    conv: Conv2d,
    src: &[f32],
    weights: &[f32],
    diff_dst: &[f32],
    gradients: Gradients<'_>,
) -> Result<(), Error> {
    let Gradients { diff_src, diff_weights, diff_bias, update } = gradients;
    if let Some(diff_src) = diff_src {
        let plan = Planner::new().plan::<BackwardData>(conv)?;
        plan.run(&plan.pack(weights)?, diff_dst, diff_src, update, &mut plan.workspace()?, Par::Current)?;
    }
    if diff_weights.is_some() || diff_bias.is_some() {
        let plan = Planner::new().plan::<BackwardWeights>(conv)?;
        plan.run(src, diff_dst, diff_weights, diff_bias, update, &mut plan.workspace()?, Par::Current)?;
    }
    Ok(())
}
