//! The network: plans for every layer and pass, made once; activations and gradients in memory that is reused from step to step.

use super::Result;
use super::digits::{CLASSES, Random};
use convolve::{
    BackwardData, BackwardWeights, Conv2d, Epilogue, Forward, FullyConnected, Function, Isa, Linear,
    PackedMatrix, PackedWeights, Padding, Par, Plan, Planner, Pool2d, Pooling, Update, Workspace,
};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use std::path::Path;

/// Names of the tensors of parameters.
const NAMES: [&str; 8] = [
    "conv1.weight",
    "conv1.bias",
    "conv2.weight",
    "conv2.bias",
    "fc1.weight",
    "fc1.bias",
    "fc2.weight",
    "fc2.bias",
];

/// Their shapes, for digits of `side` x `side` pixels.
fn shapes(side: usize) -> [Vec<usize>; 8] {
    [
        vec![16, 1, 3, 3],
        vec![16],
        vec![32, 16, 3, 3],
        vec![32],
        vec![64, flat(side)],
        vec![64],
        vec![CLASSES, 64],
        vec![CLASSES],
    ]
}

/// What the pooling leaves of a digit.
fn flat(side: usize) -> usize {
    32 * (side / 2) * (side / 2)
}

/// All that is learned, or the gradients of it.
pub(crate) struct Parameters {
    /// Of the digits.
    side: usize,
    pub(crate) tensors: [Vec<f32>; 8],
}

impl Parameters {
    /// Uniform with the variance 2 / inputs (He et al., 2015); biases are zero.
    pub(crate) fn random(side: usize, random: &mut Random) -> Self {
        Self {
            side,
            tensors: shapes(side).map(|shape| {
                let inputs: usize = shape[1..].iter().product();
                let most = if shape.len() == 1 { 0.0 } else { (6.0 / inputs as f32).sqrt() };
                (0..shape.iter().product()).map(|_| most * random.uniform()).collect()
            }),
        }
    }

    pub(crate) fn zeros(&self) -> Self {
        Self { side: self.side, tensors: self.tensors.each_ref().map(|tensor| vec![0.0; tensor.len()]) }
    }

    /// FNV-1a over all bits.
    pub(crate) fn fingerprint(&self) -> u64 {
        let bytes = self.tensors.iter().flatten().flat_map(|x| x.to_le_bytes());
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
    }

    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let bytes = self
            .tensors
            .each_ref()
            .map(|tensor| tensor.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
        let mut views = Vec::new();
        for ((name, shape), bytes) in NAMES.into_iter().zip(shapes(self.side)).zip(&bytes) {
            views.push((name, TensorView::new(Dtype::F32, shape, bytes)?));
        }
        safetensors::serialize_to_file(views, None, path)?;
        Ok(())
    }

    pub(crate) fn load(path: &Path, side: usize) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let file =
            SafeTensors::deserialize(&bytes).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut parameters = Self { side, tensors: Default::default() };
        for ((name, shape), tensor) in NAMES.into_iter().zip(shapes(side)).zip(&mut parameters.tensors) {
            let view = file.tensor(name)?;
            if view.shape() != shape || view.dtype() != Dtype::F32 {
                return Err(format!("{}: {name} is not {shape:?} of f32", path.display()).into());
            }
            let (floats, _) = view.data().as_chunks::<4>();
            *tensor = floats.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        }
        Ok(parameters)
    }
}

struct Conv {
    forward: Plan<Forward>,
    data: Plan<BackwardData>,
    weights: Plan<BackwardWeights>,
    packed: PackedWeights,
    packed_for_data: PackedWeights,
}

impl Conv {
    fn new(planner: &Planner, conv: Conv2d) -> Result<Self> {
        let (forward, data) = (planner.plan::<Forward>(conv)?, planner.plan::<BackwardData>(conv)?);
        let none = vec![0.0; conv.geometry()?.weights_len()];
        let (packed, packed_for_data) = (forward.pack(&none)?, data.pack(&none)?);
        Ok(Self { forward, data, weights: planner.plan(conv)?, packed, packed_for_data })
    }

    fn pack(&mut self, weights: &[f32]) -> Result<()> {
        self.forward.pack_again(weights, &mut self.packed)?;
        Ok(self.data.pack_again(weights, &mut self.packed_for_data)?)
    }

    fn workspace_len(&self) -> usize {
        self.forward.workspace_len().max(self.data.workspace_len()).max(self.weights.workspace_len())
    }
}

struct Dense {
    plan: FullyConnected,
    packed: PackedMatrix,
    packed_for_data: PackedMatrix,
}

impl Dense {
    fn new(planner: &Planner, linear: Linear) -> Result<Self> {
        let plan = planner.linear(linear)?;
        let none = vec![0.0; linear.in_features * linear.out_features];
        let (packed, packed_for_data) = (plan.pack(&none)?, plan.pack_for_data(&none)?);
        Ok(Self { plan, packed, packed_for_data })
    }

    fn pack(&mut self, weights: &[f32]) -> Result<()> {
        self.plan.pack_again(weights, &mut self.packed)?;
        Ok(self.plan.pack_again(weights, &mut self.packed_for_data)?)
    }
}

/// For a fixed number of digits at a time.
pub(crate) struct Network<'p> {
    conv: [Conv; 2],
    pool: Pooling,
    dense: [Dense; 2],
    /// Outputs of the layers: two convolutions, the pooling, two dense ones.
    a: [Vec<f32>; 5],
    /// Their gradients.
    da: [Vec<f32>; 5],
    gradients: Parameters,
    workspace: Workspace,
    isa: Isa,
    par: Par<'p>,
}

impl<'p> Network<'p> {
    pub(crate) fn new(side: usize, batch: usize, par: Par<'p>, threads: usize) -> Result<Self> {
        let isa = Isa::from_env()?;
        let planner = Planner::new().isa(isa).threads(threads);
        let convolution = |channels, filters| {
            Conv2d::new(channels, filters, 3).input(side).batch(batch).padding(Padding::Same)
        };
        let conv = [Conv::new(&planner, convolution(1, 16))?, Conv::new(&planner, convolution(16, 32))?];
        let pool = planner.pool(Pool2d::max(32, 2).input(side).batch(batch))?;
        let dense = [
            Dense::new(&planner, Linear::new(flat(side), 64).batch(batch))?,
            Dense::new(&planner, Linear::new(64, CLASSES).batch(batch))?,
        ];
        let a =
            [16 * side * side, 32 * side * side, flat(side), 64, CLASSES].map(|len| vec![0.0; batch * len]);
        let workspace = [conv[0].workspace_len(), conv[1].workspace_len(), pool.workspace_len()];
        let workspace =
            workspace.into_iter().chain(dense.iter().map(|dense| dense.plan.workspace_len())).max();
        Ok(Self {
            conv,
            pool,
            dense,
            da: a.clone(),
            a,
            gradients: Parameters {
                side,
                tensors: shapes(side).map(|shape| vec![0.0; shape.iter().product()]),
            },
            workspace: Workspace::new(workspace.unwrap_or(0))?,
            isa,
            par,
        })
    }

    pub(crate) fn isa(&self) -> Isa {
        self.isa
    }

    /// Puts weights into the order of the kernels: once per step.
    pub(crate) fn pack(&mut self, parameters: &Parameters) -> Result<()> {
        let [w1, _, w2, _, w3, _, w4, _] = &parameters.tensors;
        self.conv[0].pack(w1)?;
        self.conv[1].pack(w2)?;
        self.dense[0].pack(w3)?;
        self.dense[1].pack(w4)
    }

    /// The logits of a batch.
    pub(crate) fn forward(&mut self, parameters: &Parameters, pixels: &[f32]) -> Result<&[f32]> {
        let [_, b1, _, b2, _, b3, _, b4] = &parameters.tensors;
        let ([a1, a2, a3, a4, z], workspace, par) = (&mut self.a, &mut self.workspace, self.par);
        let [conv1, conv2] = &self.conv;
        conv1.forward.run(&conv1.packed, pixels, a1, Epilogue::bias(b1).relu(), workspace, par)?;
        conv2.forward.run(&conv2.packed, a1, a2, Epilogue::bias(b2).relu(), workspace, par)?;
        self.pool.forward(a2, a3, workspace, par)?;
        let [dense1, dense2] = &self.dense;
        dense1.plan.forward(&dense1.packed, a3, a4, Epilogue::bias(b3).relu(), workspace, par)?;
        dense2.plan.forward(&dense2.packed, a4, z, Epilogue::bias(b4), workspace, par)?;
        Ok(z)
    }

    /// The gradients of all parameters, from that of the logits; `pixels` are those of the last forward pass.
    pub(crate) fn backward(&mut self, pixels: &[f32], dz: &[f32]) -> Result<&Parameters> {
        let [dw1, db1, dw2, db2, dw3, db3, dw4, db4] = &mut self.gradients.tensors;
        let ([a1, a2, a3, a4, _], [da1, da2, da3, da4, scratch]) = (&self.a, &mut self.da);
        let (workspace, par, update, isa) = (&mut self.workspace, self.par, Update::Overwrite, self.isa);
        let ([conv1, conv2], [dense1, dense2]) = (&self.conv, &self.dense);
        scratch.copy_from_slice(dz);
        dense2.plan.backward_weights(a4, scratch, dw4, Some(db4), update, workspace, par)?;
        dense2.plan.backward_data(&dense2.packed_for_data, scratch, da4, update, workspace, par)?;
        // ReLU: the output is positive where the input is.
        relu(a4, da4, isa, par)?;
        dense1.plan.backward_weights(a3, da4, dw3, Some(db3), update, workspace, par)?;
        dense1.plan.backward_data(&dense1.packed_for_data, da4, da3, update, workspace, par)?;
        self.pool.backward(a2, da3, da2, update, workspace, par)?;
        relu(a2, da2, isa, par)?;
        conv2.weights.run(a1, da2, Some(dw2), Some(db2), update, workspace, par)?;
        conv2.data.run(&conv2.packed_for_data, da2, da1, update, workspace, par)?;
        relu(a1, da1, isa, par)?;
        conv1.weights.run(pixels, da1, Some(dw1), Some(db1), update, workspace, par)?;
        Ok(&self.gradients)
    }
}

/// The gradient of a ReLU, in place.
fn relu(a: &[f32], da: &mut [f32], isa: Isa, par: Par<'_>) -> Result<()> {
    let after = da.to_vec();
    Ok(Function::Relu.backward(a, &after, da, Update::Overwrite, isa, par)?)
}
