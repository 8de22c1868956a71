//! The network that repaints: convolutions padded by reflection, each followed by an instance normalisation whose scale and shift are the style.
//!
//! ```text
//! 9x9, 32 -> 3x3 s2, 32 -> 3x3 s2, 32 -> 6 x (x + 3x3(3x3(x))) -> twice as large, 3x3, 8 -> twice as large, 3x3, 4 -> 9x9, 3, sigmoid
//! ```
//!
//! (V. Dumoulin, J. Shlens, M. Kudlur, "A learned representation for artistic style", 2017.) All styles share the weights. Activations are
//! NCHW: the normalisation of a channel then runs along its pixels.

use crate::{Result, proto};
use convolve::{Conv2d, Epilogue, Function, Isa, Layout, Norm, Par, Statistics, forward};
use prost::Message;
use std::collections::HashMap;
use std::path::Path;

/// How many styles there are.
pub(crate) const STYLES: usize = 26;
/// Of the variance, as the network was trained.
const EPSILON: f64 = 1e-5;

/// A picture or what becomes of it: `[channels, height, width]`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tensor {
    pub(crate) size: [usize; 2],
    pub(crate) channels: usize,
    pub(crate) values: Vec<f32>,
}

impl Tensor {
    /// The picture whose rows and columns are those that `from` finds here, by axis.
    fn gather(&self, size: [usize; 2], from: impl Fn(usize, usize) -> usize) -> Self {
        let mut values = Vec::with_capacity(self.channels * size[0] * size[1]);
        let columns: Vec<usize> = (0..size[1]).map(|x| from(1, x)).collect();
        for plane in self.values.chunks_exact(self.size[0] * self.size[1]) {
            for y in 0..size[0] {
                let row = &plane[from(0, y) * self.size[1]..][..self.size[1]];
                values.extend(columns.iter().map(|&x| row[x]));
            }
        }
        Self { size, channels: self.channels, values }
    }

    /// Mirrored beyond its rim, whose pixels are not repeated; `[[top, bottom], [left, right]]`, each less than the size.
    pub(crate) fn reflect(&self, padding: [[usize; 2]; 2]) -> Self {
        let size = [0, 1].map(|axis| padding[axis][0] + self.size[axis] + padding[axis][1]);
        let mirror = |axis: usize, i: usize| {
            let inside = i.abs_diff(padding[axis][0]);
            inside.min(2 * (self.size[axis] - 1) - inside)
        };
        self.gather(size, mirror)
    }

    /// Twice as high and as wide: every pixel four times.
    pub(crate) fn enlarge(&self) -> Self {
        self.gather(self.size.map(|size| 2 * size), |_, i| i / 2)
    }
}

/// Shape and values.
type Parameter = (Vec<usize>, Vec<f32>);

pub(crate) struct Network {
    parameters: HashMap<String, Parameter>,
    isa: Isa,
}

impl Network {
    /// Reads the weights; the layers are those above.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|error| {
            format!("{}: {error}; `examples/fetch style` fetches the network", path.display())
        })?;
        let model = proto::Model::decode(&*bytes).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut parameters = HashMap::new();
        for tensor in model.graph.unwrap_or_default().initializers {
            let shape: Vec<usize> =
                tensor.shape.iter().filter_map(|&size| usize::try_from(size).ok()).collect();
            let values: Vec<f32> =
                tensor.raw.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
            if shape.iter().product::<usize>() != values.len() {
                return Err(format!("{}: `{}` is not {shape:?} of f32", path.display(), tensor.name).into());
            }
            parameters.insert(tensor.name, (shape, values));
        }
        Ok(Self { parameters, isa: Isa::from_env()? })
    }

    fn parameter(&self, name: &str) -> Result<&Parameter> {
        Ok(self.parameters.get(name).ok_or_else(|| format!("the network has no `{name}`"))?)
    }

    /// Scale or shift of a style.
    fn style(&self, name: &str, style: usize, channels: usize) -> Result<&[f32]> {
        let (shape, values) = self.parameter(name)?;
        if *shape != [STYLES, channels] {
            return Err(format!("`{name}` is {shape:?}, not {STYLES} styles of {channels}").into());
        }
        Ok(&values[style * channels..][..channels])
    }

    /// Padding, convolution, normalisation, and the function if there is one.
    fn layer(
        &self,
        src: &Tensor,
        name: &str,
        stride: usize,
        style: usize,
        function: Option<Function>,
    ) -> Result<Tensor> {
        let (shape, weights) = self.parameter(&format!("{name}.w"))?;
        let [outputs, inputs, kernel, _] = shape[..] else {
            return Err(format!("the weights of `{name}` are {shape:?}").into());
        };
        let src = src.reflect([[kernel / 2; 2]; 2]);
        let conv = Conv2d::new(inputs, outputs, kernel).input(src.size).stride(stride).layout(Layout::Nchw);
        let geometry = conv.geometry()?;
        let mut convolved = vec![0.0; geometry.dst_len()];
        forward(conv, &src.values, weights, &mut convolved, Epilogue::NONE)?;

        let [height, width] = geometry.output();
        let norm = Norm {
            batch: 1,
            channels: outputs,
            pixels: height * width,
            layout: Layout::Nchw,
            statistics: Statistics::Instance,
            epsilon: EPSILON,
        };
        let gamma = self.style(&format!("{name}.norm.gamma"), style, outputs)?;
        let beta = self.style(&format!("{name}.norm.beta"), style, outputs)?;
        let mut values = vec![0.0; convolved.len()];
        norm.forward(&convolved, gamma, beta, &mut values, self.isa, Par::Current)?;
        if let Some(function) = function {
            function.forward(&values, &mut convolved, self.isa, Par::Current)?;
            values = convolved;
        }
        Ok(Tensor { size: [height, width], channels: outputs, values })
    }

    /// Repaints a picture of values from 0 to 1, whose sides are multiples of 4 and at least 16.
    pub(crate) fn run(&self, picture: &Tensor, style: usize) -> Result<Tensor> {
        let relu = Some(Function::Relu);
        let mut x = self.layer(picture, "contract.0", 1, style, relu)?;
        x = self.layer(&x, "contract.1", 2, style, relu)?;
        x = self.layer(&x, "contract.2", 2, style, relu)?;
        for block in 0..6 {
            let inner = self.layer(&x, &format!("res.{block}.0"), 1, style, relu)?;
            let inner = self.layer(&inner, &format!("res.{block}.1"), 1, style, None)?;
            x.values.iter_mut().zip(&inner.values).for_each(|(x, inner)| *x += inner);
        }
        x = self.layer(&x.enlarge(), "expand.0", 1, style, relu)?;
        x = self.layer(&x.enlarge(), "expand.1", 1, style, relu)?;
        self.layer(&x, "expand.2", 1, style, Some(Function::Sigmoid))
    }
}
