//! The network: the tiny face detector of face-api, a YOLO of depthwise-separable layers, and its weights, a byte each.
//!
//! ```text
//! 416x416x3 -> CONV 3x3 valid, 16 -> POOL -> 5 x (DEPTHWISE 3x3 same, POINTWISE to 32, 64, .., 512 -> POOL) -> CONV 1x1, 25 -> 13x13x25
//! ```
//!
//! Leaky ReLU with slope 0.1 after every layer but the depthwise ones and the last; pools are 2x2 s2 "same", the last of stride 1.
//! Activations are NHWC and weights HWIO, as TensorFlow has them.

use crate::Result;
use convolve::{
    Activation, Conv2d, Epilogue, Forward, Layout, PackedWeights, Padding, Par, Plan, Planner, Pool2d,
    Pooling, WeightLayout, Workspace,
};
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;

/// Height and width of what it sees.
pub(crate) const INPUT: usize = 416;
/// Height and width of its answer, in cells.
pub(crate) const CELLS: usize = 13;
/// Of red, green and blue in the pictures that it was trained with.
const MEAN: [f32; 3] = [117.001, 114.697, 97.404];

/// Name -> shape and values.
type Tensors = HashMap<String, (Vec<usize>, Vec<f32>)>;

struct Convolution {
    plan: Plan<Forward>,
    weights: PackedWeights,
    bias: Option<Vec<f32>>,
    activation: Activation,
}

enum Layer {
    Convolution(Box<Convolution>),
    Pool(Box<Pooling>),
}

pub(crate) struct Network {
    layers: Vec<Layer>,
    workspace: Workspace,
}

/// Reads the manifest and the bytes: a value is `byte * scale + min`.
fn tensors(folder: &Path) -> Result<Tensors> {
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read(&path).map_err(|error| {
            format!("{}: {error}; `examples/fetch detect` fetches the weights", path.display())
        })
    };
    let manifest = read("tiny_face_detector_model-weights_manifest.json")?;
    let bytes = read("tiny_face_detector_model.bin")?;
    let manifest: Value = serde_json::from_slice(&manifest)?;
    let entries = manifest[0]["weights"].as_array().ok_or("the manifest lists no weights")?;
    let (mut tensors, mut rest) = (Tensors::new(), &bytes[..]);
    for entry in entries {
        let name = entry["name"].as_str().ok_or("the manifest has weights without a name")?;
        let odd = || format!("the manifest's entry `{name}` is not a tensor of bytes with scale and min");
        let sizes = entry["shape"].as_array().ok_or_else(odd)?.iter();
        let shape: Vec<usize> =
            sizes.map(|size| size.as_u64()?.try_into().ok()).collect::<Option<_>>().ok_or_else(odd)?;
        let quantization = &entry["quantization"];
        let number = |key: &str| quantization[key].as_f64().ok_or_else(odd);
        let (scale, min) = (number("scale")?, number("min")?);
        let len = shape.iter().try_fold(1usize, |len, &size| len.checked_mul(size)).ok_or_else(odd)?;
        let too_short = || format!("the weights end in the middle of `{name}`");
        let (these, others) = rest.split_at_checked(len).ok_or_else(too_short)?;
        let values = these.iter().map(|&byte| (f64::from(byte) * scale + min) as f32).collect();
        tensors.insert(name.to_owned(), (shape, values));
        rest = others;
    }
    if rest.is_empty() {
        Ok(tensors)
    } else {
        Err(format!("{} bytes of weights are left over", rest.len()).into())
    }
}

/// Layers so far, and what comes out of the last.
struct Builder {
    planner: Planner,
    tensors: Tensors,
    layers: Vec<Layer>,
    size: [usize; 2],
    channels: usize,
}

impl Builder {
    fn take(&mut self, name: &str) -> Result<(Vec<usize>, Vec<f32>)> {
        Ok(self.tensors.remove(name).ok_or_else(|| format!("the weights have no `{name}`"))?)
    }

    fn convolve(
        &mut self,
        filters: &str,
        bias: Option<&str>,
        padding: Padding,
        activation: Activation,
    ) -> Result<()> {
        let (shape, weights) = self.take(filters)?;
        let [height, width, inputs, outputs] = shape[..] else {
            return Err(format!("`{filters}` is {shape:?}, not height, width, inputs, outputs").into());
        };
        // TensorFlow counts the outputs of a depthwise filter for each channel.
        let (groups, outputs) =
            if filters.ends_with("depthwise_filter") { (inputs, inputs * outputs) } else { (1, outputs) };
        let conv = Conv2d::new(self.channels, outputs, [height, width])
            .groups(groups)
            .input(self.size)
            .padding(padding);
        let conv = conv.layout(Layout::Nhwc).weight_layout(WeightLayout::Hwio);
        let plan = self.planner.plan::<Forward>(conv)?;
        (self.size, self.channels) = (plan.geometry().output(), outputs);
        let bias = bias.map(|name| self.take(name)).transpose()?.map(|(_, bias)| bias);
        let weights = plan.pack(&weights)?;
        self.layers.push(Layer::Convolution(Box::new(Convolution { plan, weights, bias, activation })));
        Ok(())
    }

    fn pool(&mut self, stride: usize) -> Result<()> {
        let pool = Pool2d::max(self.channels, 2).input(self.size).stride(stride).padding(Padding::Same);
        let plan = self.planner.pool(pool.layout(Layout::Nhwc))?;
        self.size = plan.geometry().output();
        self.layers.push(Layer::Pool(Box::new(plan)));
        Ok(())
    }
}

impl Network {
    /// Reads the weights from a folder and plans every layer.
    pub(crate) fn load(folder: &Path) -> Result<Self> {
        let mut builder = Builder {
            planner: Planner::new(),
            tensors: tensors(folder)?,
            layers: Vec::new(),
            size: [INPUT, INPUT],
            channels: 3,
        };
        let leaky = Activation::LeakyRelu { slope: 0.1 };
        builder.convolve("conv0/filters", Some("conv0/bias"), Padding::Valid, leaky)?;
        builder.pool(2)?;
        for k in 1..=5 {
            let [depthwise, pointwise, bias] =
                ["depthwise_filter", "pointwise_filter", "bias"].map(|tensor| format!("conv{k}/{tensor}"));
            builder.convolve(&depthwise, None, Padding::Same, Activation::IDENTITY)?;
            builder.convolve(&pointwise, Some(&bias), Padding::Valid, leaky)?;
            builder.pool(if k < 5 { 2 } else { 1 })?;
        }
        builder.convolve("conv8/filters", Some("conv8/bias"), Padding::Valid, Activation::IDENTITY)?;
        if (builder.size, builder.channels) != ([CELLS, CELLS], 25) {
            return Err(format!("the network ends in {:?} x {}", builder.size, builder.channels).into());
        }
        let floats = |layer: &Layer| match layer {
            Layer::Convolution(layer) => layer.plan.workspace_len(),
            Layer::Pool(plan) => plan.workspace_len(),
        };
        let workspace = Workspace::new(builder.layers.iter().map(floats).max().unwrap_or(0))?;
        Ok(Self { layers: builder.layers, workspace })
    }

    /// The answer for a picture of [`INPUT`] x [`INPUT`] pixels: 25 numbers for each cell.
    pub(crate) fn run(&mut self, pixels: &[u8]) -> Result<Vec<f32>> {
        let mut x: Vec<f32> = pixels
            .iter()
            .zip(MEAN.iter().cycle())
            .map(|(&byte, mean)| (f32::from(byte) - mean) / 255.0)
            .collect();
        for layer in &self.layers {
            let mut dst;
            match layer {
                Layer::Convolution(layer) => {
                    dst = vec![0.0; layer.plan.geometry().dst_len()];
                    let epilogue = layer.bias.as_deref().map_or(Epilogue::NONE, Epilogue::bias);
                    let epilogue = epilogue.activation(layer.activation);
                    layer.plan.run(
                        &layer.weights,
                        &x,
                        &mut dst,
                        epilogue,
                        &mut self.workspace,
                        Par::Current,
                    )?;
                }
                Layer::Pool(plan) => {
                    dst = vec![0.0; plan.geometry().dst_len()];
                    plan.forward(&x, &mut dst, &mut self.workspace, Par::Current)?;
                }
            }
            x = dst;
        }
        Ok(x)
    }
}
