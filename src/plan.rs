//! A plan: one problem, one algorithm, everything decided; weights are packed once, memory is the caller's.

use convolve_core::{
    BackwardData, BackwardDataArgs, BackwardWeights, BackwardWeightsArgs, Conv2d, Epilogue, Error, Estimate,
    Execute, Forward, ForwardArgs, Geometry, Operand, Par, Pass, Problem, Update, Workspace, backward_bias,
};
use convolve_simd::Isa;
use core::fmt;

/// A chosen algorithm, ready to run. `Send + Sync`, holds no buffers: one plan serves any number of threads at a time, each with
/// its own workspace.
///
/// ```
/// use convolve::{Conv2d, Epilogue, Forward, Par, Planner};
/// let conv = Conv2d::new(1, 1, 3).input([6, 6]);
/// let plan = Planner::new().plan::<Forward>(conv)?;
/// let weights = plan.pack(&[1.0, 0.0, -1.0, 1.0, 0.0, -1.0, 1.0, 0.0, -1.0])?; // the lecture's vertical edge
/// let mut workspace = plan.workspace()?;
/// let src: Vec<f32> = (0..36).map(|i| if i % 6 < 3 { 10.0 } else { 0.0 }).collect();
/// let mut dst = [0.0; 16];
/// plan.run(&weights, &src, &mut dst, Epilogue::NONE, &mut workspace, Par::Seq)?;
/// assert_eq!(dst[..4], [0.0, 30.0, 30.0, 0.0]);
/// # Ok::<(), convolve::Error>(())
/// ```
pub struct Plan<P: Pass> {
    problem: Problem,
    algorithm: &'static str,
    estimate: Estimate,
    execute: Box<dyn Execute<P>>,
}

/// Weights in the order of one plan. Packing costs about one pass over the weights; do it once for inference, each step for training.
///
/// ```
/// # use convolve::{Conv2d, Forward, Planner};
/// let plan = Planner::new().plan::<Forward>(Conv2d::new(2, 2, 1).input(4))?;
/// let packed = plan.pack(&[1.0, 2.0, 3.0, 4.0])?;
/// assert!(packed.bytes() >= 16);
/// # Ok::<(), convolve::Error>(())
/// ```
#[derive(Debug)]
pub struct PackedWeights {
    buffer: Workspace,
    key: Key,
}

impl PackedWeights {
    /// Memory that they take.
    pub fn bytes(&self) -> usize {
        self.buffer.len() * size_of::<f32>()
    }
}

/// What packed weights belong to.
#[derive(Clone, Debug, PartialEq)]
struct Key {
    conv: Conv2d,
    pass: &'static str,
    algorithm: &'static str,
    /// Of the micro-kernel: panels are as wide.
    tile: [usize; 2],
    isa: Isa,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { conv, pass, algorithm, tile: [mr, nr], isa } = self;
        write!(
            f,
            "{pass} {conv} {} {} by {algorithm} on {isa} (tile {mr}x{nr})",
            conv.layout, conv.weight_layout
        )
    }
}

impl<P: Pass> Plan<P> {
    pub(crate) fn new(
        problem: Problem,
        algorithm: &'static str,
        estimate: Estimate,
        execute: Box<dyn Execute<P>>,
    ) -> Self {
        Self { problem, algorithm, estimate, execute }
    }

    /// What it was planned for.
    #[cfg(feature = "tuning")]
    pub(crate) fn problem(&self) -> &Problem {
        &self.problem
    }

    /// The checked problem.
    /// ```
    /// # use convolve::{Conv2d, Forward, Planner};
    /// let plan = Planner::new().plan::<Forward>(Conv2d::new(2, 2, 1).input(4))?;
    /// assert_eq!(plan.geometry().output(), [4, 4]);
    /// # Ok::<(), convolve::Error>(())
    /// ```
    pub fn geometry(&self) -> &Geometry {
        &self.problem.geometry
    }

    /// Name of the algorithm that was chosen.
    /// ```
    /// # use convolve::{Conv2d, Forward, Planner};
    /// let plan = Planner::new().only("direct").plan::<Forward>(Conv2d::new(2, 2, 1).input(4))?;
    /// assert_eq!(plan.algorithm(), "direct");
    /// # Ok::<(), convolve::Error>(())
    /// ```
    pub fn algorithm(&self) -> &'static str {
        self.algorithm
    }

    /// The instruction set that it runs on.
    /// ```
    /// # use convolve::{Conv2d, Forward, Isa, Planner};
    /// let plan = Planner::new().isa(Isa::best()).plan::<Forward>(Conv2d::new(2, 2, 1).input(4))?;
    /// assert_eq!(plan.isa(), Isa::best());
    /// # Ok::<(), convolve::Error>(())
    /// ```
    pub fn isa(&self) -> Isa {
        self.problem.isa
    }

    /// What the algorithm expects to need.
    /// ```
    /// # use convolve::{Conv2d, Forward, Planner};
    /// assert!(Planner::new().plan::<Forward>(Conv2d::new(2, 2, 1).input(4))?.estimate().ns > 0.0);
    /// # Ok::<(), convolve::Error>(())
    /// ```
    pub fn estimate(&self) -> Estimate {
        self.estimate
    }

    /// Floats of workspace that [`run`](Plan::run) needs, for all threads planned for.
    /// ```
    /// # use convolve::{Conv2d, Forward, Planner};
    /// let plan = Planner::new().plan::<Forward>(Conv2d::new(2, 2, 1).input(4))?;
    /// assert_eq!(plan.workspace_len(), plan.workspace()?.len());
    /// # Ok::<(), convolve::Error>(())
    /// ```
    pub fn workspace_len(&self) -> usize {
        self.execute.workspace_len()
    }

    /// A workspace of the right size; reuse it from run to run.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn workspace(&self) -> Result<Workspace, Error> {
        Workspace::new(self.workspace_len())
    }

    fn key(&self) -> Key {
        let (conv, tile) = (*self.geometry().conv(), self.estimate.tiling.tile);
        Key { conv, pass: P::NAME, algorithm: self.algorithm, tile, isa: self.problem.isa }
    }

    fn pack_weights(&self, weights: &[f32]) -> Result<PackedWeights, Error> {
        self.geometry().check(Operand::Weights, "weights", weights.len())?;
        let mut buffer = Workspace::new(self.execute.packed_len())?;
        self.execute.pack(weights, &mut buffer);
        Ok(PackedWeights { buffer, key: self.key() })
    }

    fn repack(&self, weights: &[f32], packed: &mut PackedWeights) -> Result<(), Error> {
        self.geometry().check(Operand::Weights, "weights", weights.len())?;
        self.packed_for_me(packed)?;
        self.execute.pack(weights, &mut packed.buffer);
        Ok(())
    }

    fn packed_for_me(&self, weights: &PackedWeights) -> Result<(), Error> {
        let plan = self.key();
        if weights.key == plan {
            return Ok(());
        }
        Err(Error::Packed { packed: weights.key.to_string(), plan: plan.to_string() })
    }

    fn enough(&self, workspace: &[f32]) -> Result<(), Error> {
        let (expected, got) = (self.workspace_len(), workspace.len());
        if got >= expected {
            return Ok(());
        }
        let shape = format!("{} on {} threads", self.algorithm, self.problem.threads);
        let hint = "; make it with `plan.workspace()`".to_string();
        Err(Error::Length { operand: "workspace", shape, expected, got, hint })
    }
}

impl Plan<Forward> {
    /// Packs weights for this plan. O(weights).
    ///
    /// # Errors
    /// A slice of the wrong length, or no memory.
    pub fn pack(&self, weights: &[f32]) -> Result<PackedWeights, Error> {
        self.pack_weights(weights)
    }

    /// Packs other weights into the same memory, as a training step does.
    ///
    /// # Errors
    /// A slice of the wrong length, or weights that another plan packed.
    /// ```
    /// # use convolve::{Conv2d, Forward, Planner};
    /// let plan = Planner::new().plan::<Forward>(Conv2d::new(2, 2, 1).input(4))?;
    /// let mut packed = plan.pack(&[1.0; 4])?;
    /// plan.pack_again(&[2.0; 4], &mut packed)?;
    /// # Ok::<(), convolve::Error>(())
    /// ```
    pub fn pack_again(&self, weights: &[f32], packed: &mut PackedWeights) -> Result<(), Error> {
        self.repack(weights, packed)
    }

    /// `dst = activation(src * weights + bias + residual)`. `dst` is overwritten, whatever it held.
    ///
    /// # Errors
    /// A slice of the wrong length, a workspace that is too small, weights that another plan packed. Nothing has been written
    /// then.
    pub fn run(
        &self,
        weights: &PackedWeights,
        src: &[f32],
        dst: &mut [f32],
        epilogue: Epilogue<'_>,
        workspace: &mut [f32],
        par: Par<'_>,
    ) -> Result<(), Error> {
        let geometry = self.geometry();
        geometry.check(Operand::Src, "src", src.len())?;
        geometry.check(Operand::Dst, "dst", dst.len())?;
        epilogue.bias.map_or(Ok(()), |bias| geometry.check(Operand::Bias, "bias", bias.len()))?;
        epilogue
            .residual
            .map_or(Ok(()), |residual| geometry.check(Operand::Dst, "residual", residual.len()))?;
        self.packed_for_me(weights)?;
        self.enough(workspace)?;
        if dst.is_empty() {
            return Ok(());
        }
        let workspace = &mut workspace[..self.execute.workspace_len()];
        self.execute.run(ForwardArgs { src, weights: &weights.buffer, dst, epilogue }, workspace, par);
        Ok(())
    }
}

impl Plan<BackwardData> {
    /// Packs weights for this plan. O(weights).
    ///
    /// # Errors
    /// A slice of the wrong length, or no memory.
    pub fn pack(&self, weights: &[f32]) -> Result<PackedWeights, Error> {
        self.pack_weights(weights)
    }

    /// Packs other weights into the same memory, as a training step does.
    ///
    /// # Errors
    /// A slice of the wrong length, or weights that another plan packed.
    pub fn pack_again(&self, weights: &[f32], packed: &mut PackedWeights) -> Result<(), Error> {
        self.repack(weights, packed)
    }

    /// `diff_src` = (or +=) the gradient of the input.
    ///
    /// # Errors
    /// As for the forward pass.
    ///
    /// ```
    /// use convolve::{BackwardData, Conv2d, Par, Planner, Update};
    /// let plan = Planner::new().plan::<BackwardData>(Conv2d::new(1, 1, [1, 2]).input([1, 3]))?;
    /// let weights = plan.pack(&[-1.0, 1.0])?;
    /// let mut diff_src = [0.0; 3];
    /// plan.run(&weights, &[1.0, 10.0], &mut diff_src, Update::Overwrite, &mut plan.workspace()?, Par::Seq)?;
    /// assert_eq!(diff_src, [-1.0, -9.0, 10.0]);
    /// # Ok::<(), convolve::Error>(())
    /// ```
    pub fn run(
        &self,
        weights: &PackedWeights,
        diff_dst: &[f32],
        diff_src: &mut [f32],
        update: Update,
        workspace: &mut [f32],
        par: Par<'_>,
    ) -> Result<(), Error> {
        let geometry = self.geometry();
        geometry.check(Operand::Dst, "diff_dst", diff_dst.len())?;
        geometry.check(Operand::Src, "diff_src", diff_src.len())?;
        self.packed_for_me(weights)?;
        self.enough(workspace)?;
        if diff_src.is_empty() {
            return Ok(());
        }
        let workspace = &mut workspace[..self.execute.workspace_len()];
        let weights = &weights.buffer;
        self.execute.run(BackwardDataArgs { diff_dst, weights, diff_src, update }, workspace, par);
        Ok(())
    }
}

impl Plan<BackwardWeights> {
    /// `diff_weights` = (or +=) the gradient of the weights, `diff_bias` = (or +=) that of the bias: either alone or both. The
    /// bits of one do not depend on whether the other was asked for.
    ///
    /// # Errors
    /// As for the forward pass.
    ///
    /// ```
    /// use convolve::{BackwardWeights, Conv2d, Par, Planner, Update};
    /// let plan = Planner::new().plan::<BackwardWeights>(Conv2d::new(1, 1, [1, 2]).input([1, 3]))?;
    /// let (mut diff_weights, mut diff_bias) = ([0.0; 2], [0.0]);
    /// let gradients = (Some(&mut diff_weights[..]), Some(&mut diff_bias[..]));
    /// let (src, diff_dst) = ([1.0, 2.0, 5.0], [1.0, 10.0]);
    /// plan.run(&src, &diff_dst, gradients.0, gradients.1, Update::Overwrite, &mut plan.workspace()?, Par::Seq)?;
    /// assert_eq!((diff_weights, diff_bias), ([21.0, 52.0], [11.0]));
    /// # Ok::<(), convolve::Error>(())
    /// ```
    #[expect(clippy::too_many_arguments, reason = "two operands, two optional gradients, and how")]
    pub fn run(
        &self,
        src: &[f32],
        diff_dst: &[f32],
        diff_weights: Option<&mut [f32]>,
        diff_bias: Option<&mut [f32]>,
        update: Update,
        workspace: &mut [f32],
        par: Par<'_>,
    ) -> Result<(), Error> {
        let geometry = self.geometry();
        geometry.check(Operand::Src, "src", src.len())?;
        geometry.check(Operand::Dst, "diff_dst", diff_dst.len())?;
        if let Some(diff_weights) = &diff_weights {
            geometry.check(Operand::Weights, "diff_weights", diff_weights.len())?;
        }
        if let Some(diff_bias) = &diff_bias {
            geometry.check(Operand::Bias, "diff_bias", diff_bias.len())?;
        }
        self.enough(workspace)?;
        if let Some(diff_weights) = diff_weights {
            let workspace = &mut workspace[..self.execute.workspace_len()];
            self.execute.run(BackwardWeightsArgs { src, diff_dst, diff_weights, update }, workspace, par);
        }
        if let Some(diff_bias) = diff_bias {
            backward_bias(geometry, diff_dst, diff_bias, update, par)?;
        }
        Ok(())
    }
}

impl<P: Pass> fmt::Debug for Plan<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("key", &self.key().to_string())
            .field("estimate", &self.estimate)
            .finish()
    }
}
