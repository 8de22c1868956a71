//! The problem as plain data, and its four passes as products.

use crate::vector::{self, Columns};
use convolve_core::{BlockMut, Caches, Cut, Epilogue, Error, Par, Update, Workspace, backward_bias};
use convolve_core::{Conv2d, Layout, lines};
use convolve_gemm::{Blocking, Dense, Init, Panels, Target, Ukernel, product, ukernel};
use convolve_simd::Isa;
use core::fmt;
use core::ops::Range;

/// Order of the weights in memory.
///
/// ```
/// use convolve_linear::{Linear, WeightOrder};
/// assert_eq!(Linear::new(3, 2).weights, WeightOrder::OutIn);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WeightOrder {
    /// `[out_features, in_features]`: PyTorch's.
    #[default]
    OutIn,
    /// `[in_features, out_features]`: TensorFlow's and ONNX's.
    InOut,
}

/// One fully connected layer: plain data, nothing is checked before [`plan`](Self::plan).
///
/// ```
/// use convolve_core::{Epilogue, Par};
/// use convolve_linear::Linear;
/// let plan = Linear::new(3, 2).plan(convolve_simd::Isa::best(), 1)?;
/// let weights = plan.pack(&[1.0, 0.0, -1.0, 1.0, 1.0, 1.0])?;
/// let mut dst = [0.0; 2];
/// let epilogue = Epilogue::bias(&[0.5, -1.0]).relu();
/// plan.forward(&weights, &[5.0, 6.0, 7.0], &mut dst, epilogue, &mut plan.workspace()?, Par::Seq)?;
/// assert_eq!(dst, [0.0, 17.0]);
/// # Ok::<(), convolve_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Linear {
    /// Rows of `src` and `dst`, N. Zero is allowed.
    pub batch: usize,
    /// Columns of `src`, K.
    pub in_features: usize,
    /// Columns of `dst`.
    pub out_features: usize,
    /// Order of the weights.
    pub weights: WeightOrder,
}

impl Linear {
    /// A layer of so many inputs and outputs; batch 1, weights `[out, in]`.
    /// ```
    /// # use convolve_linear::Linear;
    /// assert_eq!(Linear::new(784, 10).batch, 1);
    /// ```
    pub fn new(in_features: usize, out_features: usize) -> Self {
        Self { batch: 1, in_features, out_features, weights: WeightOrder::OutIn }
    }

    /// Sets the number of rows.
    /// ```
    /// # use convolve_linear::Linear;
    /// assert_eq!(Linear::new(784, 10).batch(64).batch, 64);
    /// ```
    pub fn batch(self, batch: usize) -> Self {
        Self { batch, ..self }
    }

    /// Sets the order of the weights.
    /// ```
    /// # use convolve_linear::{Linear, WeightOrder};
    /// assert_eq!(Linear::new(784, 10).weights(WeightOrder::InOut).weights, WeightOrder::InOut);
    /// ```
    pub fn weights(self, weights: WeightOrder) -> Self {
        Self { weights, ..self }
    }

    /// Checks the sizes and prepares the passes for an instruction set and so many threads (they size the workspace, never the result).
    ///
    /// # Errors
    /// A layer without inputs or outputs, or sizes beyond the address space.
    ///
    /// ```
    /// use convolve_linear::Linear;
    /// let error = Linear::new(0, 10).plan(convolve_simd::Isa::best(), 1).unwrap_err();
    /// assert_eq!(error.to_string(), "in_features = 0: it must be at least 1");
    /// ```
    pub fn plan(self, isa: Isa, threads: usize) -> Result<FullyConnected, Error> {
        self.plan_for(isa, threads, &Caches::default())
    }

    /// As [`plan`](Self::plan), with blocks computed for those caches instead of [`Caches::default`]. They change no bit of the result.
    ///
    /// # Errors
    /// As there.
    ///
    /// ```
    /// use convolve_core::Caches;
    /// use convolve_linear::Linear;
    /// let small = Caches { l1: 16 << 10, l2: 128 << 10, l3: 1 << 20 };
    /// let [small, usual] = [small, Caches::default()].map(|caches| {
    ///     Linear::new(4096, 4096).batch(64).plan_for(convolve_simd::Isa::best(), 1, &caches).map(|plan| plan.workspace_len())
    /// });
    /// assert!(small? < usual?);
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn plan_for(self, isa: Isa, threads: usize, caches: &Caches) -> Result<FullyConnected, Error> {
        FullyConnected::new(self, isa, threads, caches)
    }
}

/// Weights in panels, as one pass of one plan reads them.
///
/// ```
/// # use convolve_linear::Linear;
/// let plan = Linear::new(3, 2).plan(convolve_simd::Isa::best(), 1)?;
/// assert!(plan.pack(&[0.0; 6])?.bytes() >= 24);
/// # Ok::<(), convolve_core::Error>(())
/// ```
#[derive(Debug)]
pub struct PackedMatrix {
    buffer: Workspace,
    key: Key,
}

impl PackedMatrix {
    /// Memory that they take.
    pub fn bytes(&self) -> usize {
        self.buffer.len() * size_of::<f32>()
    }
}

/// What packed weights belong to; they serve any batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    pass: &'static str,
    in_features: usize,
    out_features: usize,
    isa: Isa,
    nr: usize,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pass, in_features, out_features, isa, nr } = self;
        write!(f, "{pass} of linear {in_features} -> {out_features} on {isa}, {nr} columns a panel")
    }
}

/// One product: rows x columns, a sum of `depth`.
pub(crate) struct Pass {
    pub(crate) name: &'static str,
    pub(crate) isa: Isa,
    pub(crate) size: [usize; 3],
    pub(crate) kernel: Box<dyn Ukernel>,
    pub(crate) blocking: Blocking,
}

impl Pass {
    fn new(name: &'static str, isa: Isa, size: [usize; 3], caches: &Caches) -> Self {
        let [_, columns, depth] = size;
        let kernel = ukernel(isa, [columns, depth]);
        let blocking = Blocking::new(kernel.as_ref(), caches, size);
        Self { name, isa, size, kernel, blocking }
    }

    /// Whether its sums are those of one row, which has a loop of its own. (An empty sum has no panels.)
    pub(crate) fn is_vector(&self) -> bool {
        self.size[0] == 1 && self.size[2] > 0
    }

    fn lane_len(&self) -> usize {
        lines(self.blocking.workspace_len(self.kernel.as_ref()))
    }

    fn panels(&self) -> usize {
        self.size[1].div_ceil(self.kernel.nr())
    }

    fn packed_len(&self) -> usize {
        self.panels() * self.size[2] * self.kernel.nr()
    }

    /// Packs `[columns][depth]` (neighbours are steps of a column) or `[depth][columns]` (neighbours are columns).
    fn pack(&self, matrix: &[f32], columns_first: bool, to: &mut [f32]) {
        let ([_, columns, depth], nr) = (self.size, self.kernel.nr());
        if !columns_first {
            return self.kernel.copy(matrix, columns, [depth, columns], to);
        }
        for (panel, to) in to.chunks_exact_mut(depth * nr).enumerate() {
            let these = panel * nr..columns.min((panel + 1) * nr);
            if these.len() < nr {
                to.fill(0.0);
            }
            self.kernel.transpose([these.len(), depth], &matrix[these.start * depth..], depth, to, nr);
        }
    }

    /// Cuts the product so that a task has about a million multiplications, in whole tiles: by columns first, which share no weights. Up to four panels at
    /// least where there are many, since each task reads, and may pack, its rows again.
    fn cuts(&self) -> [Cut; 3] {
        const TASK: usize = 1 << 20;
        const FEW: usize = 4;
        const TASKS: usize = 8;
        let [rows, columns, depth] = self.size;
        let (mr, nr) = (self.kernel.mr(), self.kernel.nr());
        let height = rows.clamp(1, 16 * mr);
        let few = FEW.min(self.panels() / TASKS);
        let panels = (TASK / (height * nr * depth).max(1)).max(few).clamp(1, self.panels().max(1));
        [Cut::whole(1), Cut { unit: rows.max(1), block: height }, Cut { unit: columns, block: panels * nr }]
    }

    /// `C = A * B`, where `row(i)` gives the first element of row `i` of A.
    #[expect(
        clippy::too_many_arguments,
        reason = "a product has two operands, a place and what happens there"
    )]
    fn run(
        &self,
        a: Dense<'_>,
        packed: &[f32],
        c: &mut [f32],
        epilogue: Epilogue<'_>,
        update: Update,
        workspace: &mut [f32],
        par: Par<'_>,
    ) {
        let ([rows, columns, depth], kernel) = (self.size, self.kernel.as_ref());
        let panels = Panels { data: packed, depth, width: kernel.nr() };
        let task = |ranges: [Range<usize>; 3], mut c: BlockMut<'_, f32>, lane: &mut [f32]| {
            let [_, rows, these] = ranges;
            if self.is_vector() {
                let columns = Columns { packed, depth, width: kernel.nr(), first: these.start };
                let (bias, clamp) = (epilogue.bias.map(|bias| &bias[these.clone()]), epilogue.early_clamp());
                vector::times_columns(self.isa, a.data, columns, bias, update, clamp, c.row(0, 0));
                if epilogue.late() {
                    epilogue.finish(c.row(0, 0), these.start);
                }
                return;
            }
            let init = match (update, epilogue.bias) {
                (Update::Accumulate, _) => Init::Dst,
                (_, Some(bias)) => Init::Bias(&bias[these.clone()]),
                _ => Init::Zero,
            };
            let target = Target { row: &|i| [0, i], column: 0, init, clamp: epilogue.early_clamp() };
            let place = [rows.clone(), these.clone()];
            product(kernel, self.blocking, &a, &panels, place, depth, target, &mut c, lane);
            if epilogue.late() {
                for (i, row) in rows.enumerate() {
                    epilogue.finish(c.row(0, i), row * columns + these.start);
                }
            }
        };
        let c = BlockMut::new(c, [1, rows, columns]);
        c.for_each_piece(self.cuts(), par, workspace, self.lane_len(), &task);
    }
}

impl fmt::Debug for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.name, self.size)
    }
}

/// A checked fully connected layer, ready to run. `Send + Sync`, holds no buffers.
///
/// ```
/// use convolve_core::{Epilogue, Par, Update};
/// use convolve_linear::Linear;
/// let plan = Linear::new(2, 1).batch(2).plan(convolve_simd::Isa::best(), 1)?;
/// let (src, weights, diff_dst) = ([1.0, 2.0, 3.0, 4.0], [10.0, 1.0], [1.0, -1.0]);
/// let mut workspace = plan.workspace()?;
///
/// let mut dst = [0.0; 2];
/// plan.forward(&plan.pack(&weights)?, &src, &mut dst, Epilogue::NONE, &mut workspace, Par::Seq)?;
/// assert_eq!(dst, [12.0, 34.0]);
///
/// let mut diff_src = [0.0; 4];
/// let transposed = plan.pack_for_data(&weights)?;
/// plan.backward_data(&transposed, &diff_dst, &mut diff_src, Update::Overwrite, &mut workspace, Par::Seq)?;
/// assert_eq!(diff_src, [10.0, 1.0, -10.0, -1.0]);
///
/// let (mut diff_weights, mut diff_bias) = ([0.0; 2], [0.0]);
/// plan.backward_weights(&src, &diff_dst, &mut diff_weights, Some(&mut diff_bias), Update::Overwrite, &mut workspace, Par::Seq)?;
/// assert_eq!((diff_weights, diff_bias), ([-2.0, -2.0], [0.0]));
/// # Ok::<(), convolve_core::Error>(())
/// ```
#[derive(Debug)]
pub struct FullyConnected {
    linear: Linear,
    isa: Isa,
    threads: usize,
    forward: Pass,
    data: Pass,
    weights: Pass,
}

impl FullyConnected {
    fn new(linear: Linear, isa: Isa, threads: usize, caches: &Caches) -> Result<Self, Error> {
        let Linear { batch, in_features, out_features, weights } = linear;
        for (parameter, value) in [("in_features", in_features), ("out_features", out_features)] {
            if value == 0 {
                return Err(Error::Parameter { parameter, value, reason: "it must be at least 1" });
            }
        }
        // Packing rounds columns up to a panel, and nothing else exceeds these products by more than a factor of 64.
        let most = isize::MAX as usize / 512;
        let products = [(batch, in_features), (batch, out_features), (in_features, out_features)];
        if products.iter().any(|(a, b)| a.checked_mul(*b).is_none_or(|len| len > most)) || batch > most {
            return Err(Error::TooLarge {
                what: "a matrix",
                problem: format!("{linear:?}"),
                bits: usize::BITS,
            });
        }
        let gradient = match weights {
            WeightOrder::OutIn => [out_features, in_features, batch],
            WeightOrder::InOut => [in_features, out_features, batch],
        };
        Ok(Self {
            linear,
            isa,
            threads: threads.max(1),
            forward: Pass::new("fwd", isa, [batch, out_features, in_features], caches),
            data: Pass::new("bwd_d", isa, [batch, in_features, out_features], caches),
            weights: Pass::new("bwd_w", isa, gradient, caches),
        })
    }

    /// The problem.
    /// ```
    /// # use convolve_linear::Linear;
    /// assert_eq!(Linear::new(2, 1).plan(convolve_simd::Isa::best(), 1)?.linear(), &Linear::new(2, 1));
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn linear(&self) -> &Linear {
        &self.linear
    }

    /// Whether that pass is the gradient of the weights of one example.
    pub(crate) fn is_outer(&self, pass: &Pass) -> bool {
        pass.name == self.weights.name && pass.size[2] == 1
    }

    pub(crate) fn passes(&self) -> [&Pass; 3] {
        [&self.forward, &self.data, &self.weights]
    }

    /// Floats of workspace that any pass needs, for all threads planned for.
    /// ```
    /// # use convolve_linear::Linear;
    /// let plan = Linear::new(2, 1).plan(convolve_simd::Isa::best(), 1)?;
    /// assert_eq!(plan.workspace_len(), plan.workspace()?.len());
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn workspace_len(&self) -> usize {
        let lane = self.passes().map(Pass::lane_len).into_iter().max().unwrap_or(0);
        self.threads.saturating_mul(lane).saturating_add(self.operands_len())
    }

    /// Floats of the operands of backward-weights: one packed, one transposed.
    fn operands_len(&self) -> usize {
        lines(self.weights.packed_len()) + lines(self.weights.size[0] * self.linear.batch)
    }

    /// A workspace of the right size; reuse it from run to run.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn workspace(&self) -> Result<Workspace, Error> {
        Workspace::new(self.workspace_len())
    }

    fn check(&self, name: &'static str, [rows, columns]: [usize; 2], got: usize) -> Result<(), Error> {
        let expected = rows * columns;
        if got == expected {
            return Ok(());
        }
        let hint = match got {
            0 => String::new(),
            _ if !name.contains("weights") && got.is_multiple_of(columns) => {
                format!("; did you mean batch = {}?", got / columns)
            }
            _ => String::new(),
        };
        Err(Error::Length { operand: name, shape: format!("[{rows}, {columns}]"), expected, got, hint })
    }

    fn src_shape(&self) -> [usize; 2] {
        [self.linear.batch, self.linear.in_features]
    }

    fn dst_shape(&self) -> [usize; 2] {
        [self.linear.batch, self.linear.out_features]
    }

    fn weights_shape(&self) -> [usize; 2] {
        let Linear { in_features, out_features, .. } = self.linear;
        match self.linear.weights {
            WeightOrder::OutIn => [out_features, in_features],
            WeightOrder::InOut => [in_features, out_features],
        }
    }

    fn check_bias(&self, name: &'static str, got: usize) -> Result<(), Error> {
        let expected = self.linear.out_features;
        if got == expected {
            return Ok(());
        }
        let shape = format!("[{expected}], one per output,");
        Err(Error::Length { operand: name, shape, expected, got, hint: String::new() })
    }

    fn enough(&self, workspace: &[f32]) -> Result<(), Error> {
        let (expected, got) = (self.workspace_len(), workspace.len());
        if got >= expected {
            return Ok(());
        }
        let shape = format!("a linear layer on {} threads", self.threads);
        let hint = "; make it with `plan.workspace()`".to_string();
        Err(Error::Length { operand: "workspace", shape, expected, got, hint })
    }

    fn key(&self, pass: &Pass) -> Key {
        let Linear { in_features, out_features, .. } = self.linear;
        Key { pass: pass.name, in_features, out_features, isa: self.isa, nr: pass.kernel.nr() }
    }

    fn pack_pass(&self, pass: &Pass, weights: &[f32]) -> Result<PackedMatrix, Error> {
        let mut packed = PackedMatrix { buffer: Workspace::new(pass.packed_len())?, key: self.key(pass) };
        self.pack_pass_again(pass, weights, &mut packed)?;
        Ok(packed)
    }

    fn pack_pass_again(&self, pass: &Pass, weights: &[f32], packed: &mut PackedMatrix) -> Result<(), Error> {
        self.check("weights", self.weights_shape(), weights.len())?;
        self.packed_for(pass, packed)?;
        // Columns of the forward pass are outputs, those of backward-data are inputs.
        let columns_first = (self.linear.weights == WeightOrder::OutIn) == (pass.name == self.forward.name);
        pass.pack(weights, columns_first, &mut packed.buffer);
        Ok(())
    }

    fn packed_for(&self, pass: &Pass, packed: &PackedMatrix) -> Result<(), Error> {
        let plan = self.key(pass);
        if packed.key == plan {
            return Ok(());
        }
        Err(Error::Packed { packed: packed.key.to_string(), plan: plan.to_string() })
    }

    /// Packs weights for [`forward`](Self::forward). O(weights).
    ///
    /// # Errors
    /// A slice of the wrong length, or no memory.
    pub fn pack(&self, weights: &[f32]) -> Result<PackedMatrix, Error> {
        self.pack_pass(&self.forward, weights)
    }

    /// Packs other weights into the same memory, for the pass that the memory was packed for.
    ///
    /// # Errors
    /// A slice of the wrong length, or weights that another plan packed.
    /// ```
    /// # use convolve_linear::Linear;
    /// let plan = Linear::new(3, 2).plan(convolve_simd::Isa::best(), 1)?;
    /// let mut packed = plan.pack_for_data(&[0.0; 6])?;
    /// plan.pack_again(&[1.0; 6], &mut packed)?;
    /// # Ok::<(), convolve_core::Error>(())
    /// ```
    pub fn pack_again(&self, weights: &[f32], packed: &mut PackedMatrix) -> Result<(), Error> {
        let pass = if packed.key.pass == self.data.name { &self.data } else { &self.forward };
        self.pack_pass_again(pass, weights, packed)
    }

    /// Packs weights for [`backward_data`](Self::backward_data). O(weights).
    ///
    /// # Errors
    /// A slice of the wrong length, or no memory.
    pub fn pack_for_data(&self, weights: &[f32]) -> Result<PackedMatrix, Error> {
        self.pack_pass(&self.data, weights)
    }

    /// `dst = activation(src * weights^T + bias + residual)`. `src` is `[batch, in_features]`, `dst` `[batch, out_features]`.
    /// O(batch * in * out); with a batch of one, one pass over the packed weights.
    ///
    /// # Errors
    /// A slice of the wrong length, or weights that another plan packed; `dst` is then not touched.
    pub fn forward(
        &self,
        weights: &PackedMatrix,
        src: &[f32],
        dst: &mut [f32],
        epilogue: Epilogue<'_>,
        workspace: &mut [f32],
        par: Par<'_>,
    ) -> Result<(), Error> {
        self.packed_for(&self.forward, weights)?;
        self.check("src", self.src_shape(), src.len())?;
        self.check("dst", self.dst_shape(), dst.len())?;
        epilogue.bias.map_or(Ok(()), |bias| self.check_bias("bias", bias.len()))?;
        epilogue
            .residual
            .map_or(Ok(()), |residual| self.check("residual", self.dst_shape(), residual.len()))?;
        self.enough(workspace)?;
        let a = Dense { data: src, strides: [self.linear.in_features, 1] };
        self.forward.run(a, &weights.buffer, dst, epilogue, Update::Overwrite, workspace, par);
        Ok(())
    }

    /// `diff_src = diff_dst * weights`, with weights from [`pack_for_data`](Self::pack_for_data).
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn backward_data(
        &self,
        weights: &PackedMatrix,
        diff_dst: &[f32],
        diff_src: &mut [f32],
        update: Update,
        workspace: &mut [f32],
        par: Par<'_>,
    ) -> Result<(), Error> {
        self.packed_for(&self.data, weights)?;
        self.check("diff_dst", self.dst_shape(), diff_dst.len())?;
        self.check("diff_src", self.src_shape(), diff_src.len())?;
        self.enough(workspace)?;
        let a = Dense { data: diff_dst, strides: [self.linear.out_features, 1] };
        self.data.run(a, &weights.buffer, diff_src, Epilogue::NONE, update, workspace, par);
        Ok(())
    }

    /// `diff_weights = diff_dst^T * src`, in the order of the weights, and `diff_bias` = the sum of the rows of `diff_dst`.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    #[expect(clippy::too_many_arguments, reason = "a pass has two inputs, two outputs, and where it runs")]
    pub fn backward_weights(
        &self,
        src: &[f32],
        diff_dst: &[f32],
        diff_weights: &mut [f32],
        diff_bias: Option<&mut [f32]>,
        update: Update,
        workspace: &mut [f32],
        par: Par<'_>,
    ) -> Result<(), Error> {
        self.check("src", self.src_shape(), src.len())?;
        self.check("diff_dst", self.dst_shape(), diff_dst.len())?;
        self.check("diff_weights", self.weights_shape(), diff_weights.len())?;
        diff_bias.as_ref().map_or(Ok(()), |bias| self.check_bias("diff_bias", bias.len()))?;
        self.enough(workspace)?;
        let (left, right) = match self.linear.weights {
            WeightOrder::OutIn => (diff_dst, src),
            WeightOrder::InOut => (src, diff_dst),
        };
        let ([rows, _, depth], pass) = (self.weights.size, &self.weights);
        if self.is_outer(pass) {
            vector::outer(self.isa, [left, right], diff_weights, update, par);
            return self.bias(diff_dst, diff_bias, update, par);
        }
        let (operands, workspace) = workspace.split_at_mut(self.operands_len());
        let (packed, transposed) = operands.split_at_mut(lines(pass.packed_len()));
        let (packed, transposed) = (&mut packed[..pass.packed_len()], &mut transposed[..rows * depth]);
        pass.pack(right, false, packed);
        pass.kernel.transpose([depth, rows], left, rows, transposed, depth);
        let a = Dense { data: transposed, strides: [depth, 1] };
        pass.run(a, packed, diff_weights, Epilogue::NONE, update, workspace, par);
        self.bias(diff_dst, diff_bias, update, par)
    }

    /// The gradient of the bias, if it is wanted: the same sum as that of a convolution over one pixel.
    fn bias(
        &self,
        diff_dst: &[f32],
        diff_bias: Option<&mut [f32]>,
        update: Update,
        par: Par<'_>,
    ) -> Result<(), Error> {
        let Some(diff_bias) = diff_bias else { return Ok(()) };
        let Linear { batch, out_features, .. } = self.linear;
        let conv = Conv2d::new(1, out_features, 1).input(1).batch(batch).layout(Layout::Nhwc);
        backward_bias(&conv.geometry()?, diff_dst, diff_bias, update, par)
    }
}
