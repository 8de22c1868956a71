//! A network that can be trained: plans for every layer and pass, made once; activations and gradients in memory that is reused from step to
//! step.
//!
//! ```text
//! A[i] = max(0, W[i] * A[i-1] + b[i])          convolutions and dense layers, but the last: logits
//! A[i] = maximum of 2 x 2 pixels of A[i-1]     pooling
//! ```
//!
//! ReLU costs nothing on the way forward, where it is the epilogue of a layer, and a pass over a gradient on the way back. Before a pooling it may as well
//! stand behind it, max(0, max(x)) = max(max(0, x)), and there its gradient has a quarter of the pixels.

use convolve::{
    BackwardData, BackwardWeights, Conv2d, Epilogue, Error, Forward, FullyConnected, Function, Isa, Layout,
    Linear, PackedMatrix, PackedWeights, Padding, Par, Plan, Planner, Pool2d, Pooling, Sgd, Update,
    WeightLayout, WeightOrder, Workspace, cross_entropy,
};

/// A layer, as plain data.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Layer {
    /// So many filters of `size` x `size`.
    Conv {
        /// Output channels.
        filters: usize,
        /// Height and width of a filter.
        size: usize,
        /// What is around the image.
        padding: Padding,
    },
    /// The maximum of 2 x 2 pixels.
    Pool,
    /// So many outputs, each of all inputs.
    Dense(usize),
}

/// A network, as plain data.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// For people.
    pub name: &'static str,
    /// Channels, rows, columns of an image.
    pub input: [usize; 3],
    /// Images of a step.
    pub batch: usize,
    /// From the image to the logits.
    pub layers: Vec<Layer>,
    /// Of all activations; weights are OIHW with NCHW, HWIO with NHWC.
    pub layout: Layout,
}

const fn same(filters: usize, size: usize) -> Layer {
    Layer::Conv { filters, size, padding: Padding::Same }
}

impl Shape {
    /// LeNet-5 (LeCun et al., 1998) as it is built today: ReLU, max-pooling, softmax.
    pub fn lenet5(batch: usize) -> Self {
        let second = Layer::Conv { filters: 16, size: 5, padding: Padding::Valid };
        let [dense1, dense2, dense3] = [120, 84, 10].map(Layer::Dense);
        let layers = vec![same(6, 5), Layer::Pool, second, Layer::Pool, dense1, dense2, dense3];
        Self { name: "LeNet-5", input: [1, 28, 28], batch, layers, layout: Layout::Nchw }
    }

    /// A small relative of VGG (Simonyan and Zisserman, 2015) for images of 32 x 32 pixels.
    pub fn vgg(batch: usize) -> Self {
        let block = |filters| [same(filters, 3), same(filters, 3), Layer::Pool];
        let mut layers = [64, 128, 256].map(block).concat();
        layers.push(Layer::Dense(10));
        Self { name: "VGG", input: [3, 32, 32], batch, layers, layout: Layout::Nchw }
    }

    /// Another order of activations and weights.
    pub fn layout(self, layout: Layout) -> Self {
        Self { layout, ..self }
    }
}

/// What of a layer can be learned, or the gradients of it: weights and bias of every layer that has them.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameters {
    /// Sizes of each tensor.
    pub shapes: Vec<Vec<usize>>,
    /// Tensors, one behind the other: weights, bias, weights, bias, ..
    pub tensors: Vec<Vec<f32>>,
}

impl Parameters {
    /// Zeros of these shapes.
    pub fn zeros(shapes: Vec<Vec<usize>>) -> Self {
        let tensors = shapes.iter().map(|shape| vec![0.0; shape.iter().product()]).collect();
        Self { shapes, tensors }
    }

    /// Uniform with the variance 2 / inputs (He et al., 2015), from numbers in (-1, 1); biases are zero.
    pub fn random(shape: &Shape, mut uniform: impl FnMut() -> f32) -> Result<Self, Error> {
        let mut this = Self::zeros(shape.shapes()?);
        for (sizes, tensor) in this.shapes.iter().zip(&mut this.tensors).filter(|(sizes, _)| sizes.len() > 1)
        {
            let outputs = sizes[if sizes.len() == 4 && shape.layout == Layout::Nhwc { 3 } else { 0 }];
            let most = (6.0 / (tensor.len() / outputs) as f32).sqrt();
            tensor.iter_mut().for_each(|x| *x = most * uniform());
        }
        Ok(this)
    }
}

/// What a layer computes: a problem with its sizes checked.
enum Problem {
    Conv(Conv2d),
    Pool(Pool2d),
    Dense(Linear),
}

impl Shape {
    fn problems(&self) -> Result<Vec<Problem>, Error> {
        let [mut channels, mut height, mut width] = self.input;
        let weights = if self.layout == Layout::Nhwc { WeightLayout::Hwio } else { WeightLayout::Oihw };
        let problem = |layer: &Layer| match *layer {
            Layer::Conv { filters, size, padding } => {
                let conv = Conv2d::new(channels, filters, size).input([height, width]).batch(self.batch);
                let conv = conv.padding(padding).layout(self.layout).weight_layout(weights);
                ([height, width], channels) = (conv.geometry()?.output(), filters);
                Ok(Problem::Conv(conv))
            }
            Layer::Pool => {
                let pool = Pool2d::max(channels, 2).input([height, width]).batch(self.batch);
                let pool = pool.layout(self.layout);
                [height, width] = pool.geometry()?.output();
                Ok(Problem::Pool(pool))
            }
            Layer::Dense(outputs) => {
                let linear = Linear::new(channels * height * width, outputs).batch(self.batch);
                [channels, height, width] = [outputs, 1, 1];
                Ok(Problem::Dense(linear.weights(WeightOrder::OutIn)))
            }
        };
        self.layers.iter().map(problem).collect()
    }

    /// Sizes of the parameters, two for each layer that learns.
    pub fn shapes(&self) -> Result<Vec<Vec<usize>>, Error> {
        let mut shapes = Vec::new();
        for problem in self.problems()? {
            match problem {
                Problem::Conv(conv) => {
                    let ([kh, kw], ic, oc) = (conv.kernel, conv.in_channels, conv.out_channels);
                    let nhwc = self.layout == Layout::Nhwc;
                    shapes.push(if nhwc { vec![kh, kw, ic, oc] } else { vec![oc, ic, kh, kw] });
                    shapes.push(vec![oc]);
                }
                Problem::Dense(linear) => {
                    shapes.push(vec![linear.out_features, linear.in_features]);
                    shapes.push(vec![linear.out_features]);
                }
                Problem::Pool(_) => {}
            }
        }
        Ok(shapes)
    }

    /// Floating-point operations of the products of a step: three passes, and two for the first layer.
    pub fn flops(&self) -> Result<f64, Error> {
        let macs = |problem: &Problem| -> Result<f64, Error> {
            Ok(match problem {
                Problem::Conv(conv) => conv.geometry()?.macs() as f64,
                Problem::Dense(linear) => (linear.batch * linear.in_features * linear.out_features) as f64,
                Problem::Pool(_) => 0.0,
            })
        };
        let macs = self.problems()?.iter().map(macs).collect::<Result<Vec<_>, _>>()?;
        Ok(2.0 * (3.0 * macs.iter().sum::<f64>() - macs[0]))
    }
}

/// Plans of a layer, its weights in the order of the kernels, and where its parameters are.
enum Plans {
    Conv {
        forward: Box<Plan<Forward>>,
        data: Box<Plan<BackwardData>>,
        weights: Box<Plan<BackwardWeights>>,
        packed: PackedWeights,
        packed_for_data: PackedWeights,
        parameters: usize,
    },
    Pool(Box<Pooling>),
    Dense {
        plan: FullyConnected,
        packed: PackedMatrix,
        packed_for_data: PackedMatrix,
        parameters: usize,
    },
}

impl Plans {
    fn new(planner: &Planner, problem: &Problem, parameters: usize) -> Result<Self, Error> {
        Ok(match problem {
            Problem::Conv(conv) => {
                let (forward, data) = (planner.plan::<Forward>(*conv)?, planner.plan::<BackwardData>(*conv)?);
                let none = vec![0.0; conv.geometry()?.weights_len()];
                let (packed, packed_for_data) = (forward.pack(&none)?, data.pack(&none)?);
                let weights = Box::new(planner.plan(*conv)?);
                let (forward, data) = (Box::new(forward), Box::new(data));
                Self::Conv { forward, data, weights, packed, packed_for_data, parameters }
            }
            Problem::Pool(pool) => Self::Pool(Box::new(planner.pool(*pool)?)),
            Problem::Dense(linear) => {
                let plan = planner.linear(*linear)?;
                let none = vec![0.0; linear.in_features * linear.out_features];
                let (packed, packed_for_data) = (plan.pack(&none)?, plan.pack_for_data(&none)?);
                Self::Dense { plan, packed, packed_for_data, parameters }
            }
        })
    }

    fn dst_len(&self) -> usize {
        match self {
            Self::Conv { forward, .. } => forward.geometry().dst_len(),
            Self::Pool(pool) => pool.geometry().dst_len(),
            Self::Dense { plan, .. } => plan.linear().batch * plan.linear().out_features,
        }
    }

    fn workspace_len(&self) -> usize {
        match self {
            Self::Conv { forward, data, weights, .. } => {
                forward.workspace_len().max(data.workspace_len()).max(weights.workspace_len())
            }
            Self::Pool(pool) => pool.workspace_len(),
            Self::Dense { plan, .. } => plan.workspace_len(),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Conv { forward, data, weights, .. } => {
                let conv = forward.geometry().conv();
                format!(
                    "conv {}x{} {} -> {} at {}x{}: {}, {}, {}",
                    conv.kernel[0],
                    conv.kernel[1],
                    conv.in_channels,
                    conv.out_channels,
                    conv.input[0],
                    conv.input[1],
                    forward.algorithm(),
                    data.algorithm(),
                    weights.algorithm()
                )
            }
            Self::Pool(pool) => format!("max-pool {}", pool.geometry().pool().channels),
            Self::Dense { plan, .. } => {
                format!("dense {} -> {}", plan.linear().in_features, plan.linear().out_features)
            }
        }
    }
}

/// For a fixed number of images at a time.
pub struct Network<'p> {
    plans: Vec<Plans>,
    /// Whether the gradient at this layer's output is that of a ReLU.
    masked: Vec<bool>,
    /// Outputs of the layers.
    a: Vec<Vec<f32>>,
    /// Their gradients.
    da: Vec<Vec<f32>>,
    gradients: Parameters,
    workspace: Workspace,
    classes: usize,
    isa: Isa,
    par: Par<'p>,
}

impl<'p> Network<'p> {
    /// Plans every layer. `planner` knows how many threads `par` has.
    pub fn new(shape: &Shape, planner: &Planner, isa: Isa, par: Par<'p>) -> Result<Self, Error> {
        let planner = planner.clone().isa(isa);
        let (mut plans, mut parameters) = (Vec::new(), 0);
        for problem in shape.problems()? {
            plans.push(Plans::new(&planner, &problem, parameters)?);
            parameters += if matches!(problem, Problem::Pool(_)) { 0 } else { 2 };
        }
        let pooled = |i: usize| matches!(plans.get(i), Some(Plans::Pool(_)));
        let masked = (0..plans.len()).map(|i| i + 1 < plans.len() && !pooled(i + 1)).collect();
        let a: Vec<_> = plans.iter().map(|plans| vec![0.0; plans.dst_len()]).collect();
        let workspace = plans.iter().map(Plans::workspace_len).max().unwrap_or(0);
        Ok(Self {
            masked,
            classes: a.last().map_or(0, Vec::len) / shape.batch.max(1),
            da: a.clone(),
            a,
            gradients: Parameters::zeros(shape.shapes()?),
            workspace: Workspace::new(workspace)?,
            plans,
            isa,
            par,
        })
    }

    /// How many there are.
    pub fn layers(&self) -> usize {
        self.plans.len()
    }

    /// What the layers are, and by which algorithms.
    pub fn names(&self) -> Vec<String> {
        self.plans.iter().map(Plans::name).collect()
    }

    /// Puts weights into the order of the kernels: once per step.
    pub fn pack(&mut self, parameters: &Parameters) -> Result<(), Error> {
        for (i, plans) in self.plans.iter_mut().enumerate() {
            match plans {
                Plans::Conv { forward, data, packed, packed_for_data, parameters: at, .. } => {
                    forward.pack_again(&parameters.tensors[*at], packed)?;
                    // No gradient goes beyond the first layer.
                    if i > 0 {
                        data.pack_again(&parameters.tensors[*at], packed_for_data)?;
                    }
                }
                Plans::Dense { plan, packed, packed_for_data, parameters: at } => {
                    plan.pack_again(&parameters.tensors[*at], packed)?;
                    plan.pack_again(&parameters.tensors[*at], packed_for_data)?;
                }
                Plans::Pool(_) => {}
            }
        }
        Ok(())
    }

    /// Output of layer `i` from that of the layer before, or from the pixels.
    pub fn forward_layer(&mut self, i: usize, parameters: &Parameters, pixels: &[f32]) -> Result<(), Error> {
        let (before, after) = self.a.split_at_mut(i);
        let (src, dst) = (before.last().map_or(pixels, Vec::as_slice), &mut after[0]);
        let (workspace, par, last) = (&mut self.workspace, self.par, i + 1 == self.plans.len());
        let epilogue = |at: usize| {
            let bias = Epilogue::bias(&parameters.tensors[at + 1]);
            if last { bias } else { bias.relu() }
        };
        match &self.plans[i] {
            Plans::Conv { forward, packed, parameters: at, .. } => {
                forward.run(packed, src, dst, epilogue(*at), workspace, par)
            }
            Plans::Pool(pool) => pool.forward(src, dst, workspace, par),
            Plans::Dense { plan, packed, parameters: at, .. } => {
                plan.forward(packed, src, dst, epilogue(*at), workspace, par)
            }
        }
    }

    /// Gradients of the parameters of layer `i` and of its input, from that of its output.
    pub fn backward_layer(&mut self, i: usize, pixels: &[f32]) -> Result<(), Error> {
        let (before, after) = self.da.split_at_mut(i);
        let (diff_src, diff_dst) = (before.last_mut(), &mut after[0]);
        if self.masked[i] {
            // The output of a ReLU is positive where its input is.
            Function::Relu.backward_in_place(&self.a[i], diff_dst, self.isa, self.par)?;
        }
        let src = if i == 0 { pixels } else { &self.a[i - 1] };
        let (workspace, par, update) = (&mut self.workspace, self.par, Update::Overwrite);
        match &self.plans[i] {
            Plans::Conv { data, weights, packed_for_data, parameters: at, .. } => {
                let [dw, db] = two(&mut self.gradients.tensors, *at);
                weights.run(src, diff_dst, Some(dw), Some(db), update, workspace, par)?;
                diff_src.map_or(Ok(()), |to| data.run(packed_for_data, diff_dst, to, update, workspace, par))
            }
            Plans::Pool(pool) => {
                diff_src.map_or(Ok(()), |to| pool.backward(src, diff_dst, to, update, workspace, par))
            }
            Plans::Dense { plan, packed_for_data, parameters: at, .. } => {
                let [dw, db] = two(&mut self.gradients.tensors, *at);
                plan.backward_weights(src, diff_dst, dw, Some(db), update, workspace, par)?;
                diff_src.map_or(Ok(()), |to| {
                    plan.backward_data(packed_for_data, diff_dst, to, update, workspace, par)
                })
            }
        }
    }

    /// The logits of a batch.
    pub fn forward(&mut self, parameters: &Parameters, pixels: &[f32]) -> Result<&[f32], Error> {
        (0..self.plans.len()).try_for_each(|i| self.forward_layer(i, parameters, pixels))?;
        Ok(self.logits())
    }

    /// Those of the last forward pass.
    pub fn logits(&self) -> &[f32] {
        self.a.last().map_or(&[], Vec::as_slice)
    }

    /// The mean cross-entropy of those logits; its gradient is where [`backward`](Self::backward) starts.
    pub fn loss(&mut self, labels: &[usize]) -> Result<f64, Error> {
        let logits = self.a.last().map_or(&[][..], Vec::as_slice);
        let diff = self.da.last_mut().map(Vec::as_mut_slice);
        cross_entropy(logits, self.classes, labels, diff, Update::Overwrite, self.isa, self.par)
    }

    /// The gradients of all parameters, from that of the logits; `pixels` are those of the last forward pass.
    pub fn backward(&mut self, pixels: &[f32]) -> Result<&Parameters, Error> {
        (0..self.plans.len()).rev().try_for_each(|i| self.backward_layer(i, pixels))?;
        Ok(&self.gradients)
    }

    /// Those of the last backward pass.
    pub fn gradients(&self) -> &Parameters {
        &self.gradients
    }

    /// A step of gradient descent with momentum.
    pub fn descend(
        &self,
        sgd: Sgd,
        parameters: &mut Parameters,
        velocity: &mut Parameters,
    ) -> Result<(), Error> {
        let tensors = parameters.tensors.iter_mut().zip(&self.gradients.tensors).zip(&mut velocity.tensors);
        tensors.into_iter().try_for_each(|((w, g), v)| sgd.step(w, g, v, self.isa))
    }
}

/// The gradients of weights and of the bias behind them.
fn two(tensors: &mut [Vec<f32>], at: usize) -> [&mut [f32]; 2] {
    let (weights, bias) = tensors[at..].split_at_mut(1);
    [&mut weights[0], &mut bias[0]]
}
