//! The same numbers as your notebook: the checks of "Convolutional Model: step by step", computed here, in f64.
//!
//! ```text
//! cargo run --release --example notebook
//! ```

use convolve::{Conv2d, Error, Layout, Pool2d, WeightLayout, definition, pool_definition};
use convolve_testkit::numpy::RandomState;

fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len() as f64
}

fn main() -> Result<(), Error> {
    println!(
        "conv_forward: np.random.seed(1), A_prev (10, 4, 4, 3), W (2, 2, 3, 8), b (1, 1, 1, 8), pad = 2, stride = 2"
    );
    let mut random = RandomState::new(1);
    let (a_prev, w, b) = (random.randn(10 * 4 * 4 * 3), random.randn(2 * 2 * 3 * 8), random.randn(8));
    let conv = Conv2d::new(3, 8, 2).batch(10).input(4).stride(2).padding(2);
    let conv = conv.layout(Layout::Nhwc).weight_layout(WeightLayout::Hwio).geometry()?;
    let mut z = definition::forward(&conv, &a_prev, &w);
    z.iter_mut().zip(b.iter().cycle()).for_each(|(z, b)| *z += b);
    println!("  Z's mean = {:.13}           the notebook prints 0.0489952035289", mean(&z));
    println!("  Z[3,2,1] = {:.8?}", &z[((3 * 4 + 2) * 4 + 1) * 8..][..8]);

    println!("conv_backward: dZ = Z");
    println!(
        "  dA_mean  = {:.11}             1.45243777754",
        mean(&definition::backward_data(&conv, &z, &w))
    );
    println!(
        "  dW_mean  = {:.11}             1.72699145831",
        mean(&definition::backward_weights(&conv, &a_prev, &z))
    );
    println!("  db_mean  = {:.11}             7.83923256462", mean(&definition::backward_bias(&conv, &z)));

    println!("pool_forward: np.random.seed(1), A_prev (2, 4, 4, 3), stride = 2, f = 3");
    let a_prev = RandomState::new(1).randn(2 * 4 * 4 * 3);
    for (mode, pool) in [("max", Pool2d::max(3, 3)), ("average", Pool2d::average(3, 3))] {
        let pool = pool.input(4).batch(2).stride(2).layout(Layout::Nhwc).geometry()?;
        println!("  {mode:7} A = {:.8?}", pool_definition::forward(&pool, &a_prev));
    }

    println!("pool_backward: np.random.seed(1), A_prev (5, 5, 3, 2), dA (5, 4, 2, 2), stride = 1, f = 2");
    let mut random = RandomState::new(1);
    let (a_prev, da) = (random.randn(5 * 5 * 3 * 2), random.randn(5 * 4 * 2 * 2));
    for (mode, pool) in [("max", Pool2d::max(2, 2)), ("average", Pool2d::average(2, 2))] {
        let pool = pool.input([5, 3]).batch(5).stride(1).layout(Layout::Nhwc).geometry()?;
        let da_prev = pool_definition::backward(&pool, &a_prev, &da);
        println!("  {mode:7} dA_prev[1,1] = {:.8?}", &da_prev[(5 + 1) * 3 * 2..][..6]);
    }
    Ok(())
}
