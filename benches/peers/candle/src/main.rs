//! The training steps of `cargo bench --bench training` in candle: LeNet-5 and VGG, forward, loss, all gradients, momentum.
//!
//! ```text
//! RAYON_NUM_THREADS=1 cargo run --release --manifest-path benches/peers/candle/Cargo.toml -- SECONDS
//! ```
//!
//! A line for each network: its name, and the median of seconds a step. candle-nn has no momentum, so it is here, tensor by tensor.

use candle_core::{DType, Device, Module, Result, Tensor};
use candle_nn::{Conv2d, Conv2dConfig, Linear, VarBuilder, VarMap, conv2d, linear, loss};
use std::time::{Duration, Instant};

enum Layer {
    Conv(Conv2d),
    Pool,
    /// Whether a ReLU follows.
    Dense(Linear, bool),
}

fn network(layers: &[Layer], images: &Tensor) -> Result<Tensor> {
    layers.iter().try_fold(images.clone(), |x, layer| match layer {
        Layer::Conv(conv) => conv.forward(&x)?.relu(),
        Layer::Pool => x.max_pool2d(2),
        Layer::Dense(dense, relu) => {
            let z = dense.forward(&x.flatten_from(1)?)?;
            if *relu { z.relu() } else { Ok(z) }
        }
    })
}

fn lenet5(vars: &VarBuilder<'_>) -> Result<Vec<Layer>> {
    let padded = Conv2dConfig { padding: 2, ..Default::default() };
    Ok(vec![
        Layer::Conv(conv2d(1, 6, 5, padded, vars.pp("c1"))?),
        Layer::Pool,
        Layer::Conv(conv2d(6, 16, 5, Default::default(), vars.pp("c2"))?),
        Layer::Pool,
        Layer::Dense(linear(400, 120, vars.pp("f1"))?, true),
        Layer::Dense(linear(120, 84, vars.pp("f2"))?, true),
        Layer::Dense(linear(84, 10, vars.pp("f3"))?, false),
    ])
}

fn vgg(vars: &VarBuilder<'_>) -> Result<Vec<Layer>> {
    let padded = Conv2dConfig { padding: 1, ..Default::default() };
    let (mut layers, mut channels) = (Vec::new(), 3);
    for (block, filters) in [64, 128, 256].into_iter().enumerate() {
        for i in 0..2 {
            layers.push(Layer::Conv(conv2d(channels, filters, 3, padded, vars.pp(format!("c{block}.{i}")))?));
            channels = filters;
        }
        layers.push(Layer::Pool);
    }
    layers.push(Layer::Dense(linear(4096, 10, vars.pp("f"))?, false));
    Ok(layers)
}

fn main() -> Result<()> {
    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(3.0);
    let lenet = ("LeNet-5", lenet5 as fn(&VarBuilder<'_>) -> Result<Vec<Layer>>, (64, 1, 28, 28));
    for (name, build, shape) in [lenet, ("VGG", vgg, (32, 3, 32, 32))] {
        let map = VarMap::new();
        let layers = build(&VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu))?;
        let images = Tensor::rand(-1f32, 1f32, shape, &Device::Cpu)?;
        let labels = Tensor::from_iter((0..shape.0 as u32).map(|i| i * 7 % 10), &Device::Cpu)?;
        let vars = map.all_vars();
        let mut velocities = vars.iter().map(|var| var.zeros_like()).collect::<Result<Vec<_>>>()?;
        let (mut times, begin) = (Vec::new(), Instant::now());
        while times.len() < 4 || begin.elapsed() < Duration::from_secs_f64(seconds) {
            let now = Instant::now();
            let loss = loss::cross_entropy(&network(&layers, &images)?, &labels)?;
            let gradients = loss.backward()?;
            for (var, velocity) in vars.iter().zip(&mut velocities) {
                if let Some(gradient) = gradients.get(var) {
                    *velocity = ((&*velocity * 0.9)? + gradient)?;
                    var.set(&(var.as_tensor() - (&*velocity * 1e-4)?)?)?;
                }
            }
            times.push(now.elapsed().as_secs_f64());
        }
        // The first is warm-up.
        times.remove(0);
        times.sort_by(f64::total_cmp);
        println!("{name} {:e}", times[times.len() / 2]);
    }
    Ok(())
}
