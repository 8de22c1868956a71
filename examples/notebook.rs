//! The same numbers as your notebook: the checks of "Convolutional Model: step by step", computed here, in f64, beside what it prints.
//!
//! ```text
//! cargo run --release -p convolve-examples --example notebook
//! ```
//!
//! Exit code 1 if a printed digit differs.

use convolve::{Conv2d, Error, Layout, Pool2d, WeightLayout, definition, pool_definition};
use convolve_testkit::numpy::RandomState;
use std::process::ExitCode;

fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len() as f64
}

/// As `np.set_printoptions(precision=8)` prints them, one behind the other.
fn printed(x: &[f64]) -> String {
    let digits = |x: &f64| format!("{:.8}", x + 0.0).trim_end_matches('0').trim_end_matches('.').to_string();
    x.iter().map(digits).collect::<Vec<_>>().join(" ")
}

/// What is compared, and what is not equal.
#[derive(Default)]
struct Checks {
    all: usize,
    wrong: usize,
}

impl Checks {
    /// One value, ours beside the notebook's.
    fn compare(&mut self, name: &str, ours: &str, published: &str) {
        let equal = ours == published;
        (self.all, self.wrong) = (self.all + 1, self.wrong + usize::from(!equal));
        println!(
            "  {name}\n    ours      {ours}\n    notebook  {published}{}",
            if equal { "" } else { "   DIFFERS" }
        );
    }
}

/// A_prev (10, 4, 4, 3), W (2, 2, 3, 8), b (1, 1, 1, 8); pad = 2, stride = 2. The notebook calls conv_backward with Z as its own gradient.
fn convolution(checks: &mut Checks) -> Result<(), Error> {
    println!("conv_forward, conv_backward");
    let mut random = RandomState::new(1);
    let (a_prev, w, b) = (random.randn(10 * 4 * 4 * 3), random.randn(2 * 2 * 3 * 8), random.randn(8));
    let conv = Conv2d::new(3, 8, 2).batch(10).input(4).stride(2).padding(2);
    let conv = conv.layout(Layout::Nhwc).weight_layout(WeightLayout::Hwio).geometry()?;
    let mut z = definition::forward(&conv, &a_prev, &w);
    z.iter_mut().zip(b.iter().cycle()).for_each(|(z, b)| *z += b);
    checks.compare("Z's mean", &format!("{:.13}", mean(&z)), "0.0489952035289");
    checks.compare(
        "Z[3,2,1]",
        &printed(&z[((3 * 4 + 2) * 4 + 1) * 8..][..8]),
        "-0.61490741 -6.7439236 -2.55153897 1.75698377 3.56208902 0.53036437 5.18531798 8.75898442",
    );
    let da = definition::backward_data(&conv, &z, &w);
    let dw = definition::backward_weights(&conv, &a_prev, &z);
    let db = definition::backward_bias(&conv, &z);
    checks.compare("dA_mean", &format!("{:.11}", mean(&da)), "1.45243777754");
    checks.compare("dW_mean", &format!("{:.11}", mean(&dw)), "1.72699145831");
    checks.compare("db_mean", &format!("{:.11}", mean(&db)), "7.83923256462");
    Ok(())
}

/// A_prev (2, 4, 4, 3); stride = 2, f = 3.
fn pool_forward(checks: &mut Checks) -> Result<(), Error> {
    println!("pool_forward");
    let a_prev = RandomState::new(1).randn(2 * 4 * 4 * 3);
    for (mode, pool, published) in [
        ("max", Pool2d::max(3, 3), "1.74481176 0.86540763 1.13376944 1.13162939 1.51981682 2.18557541"),
        (
            "average",
            Pool2d::average(3, 3),
            "0.02105773 -0.20328806 -0.40389855 -0.22154621 0.51716526 0.48155844",
        ),
    ] {
        let pool = pool.input(4).batch(2).stride(2).layout(Layout::Nhwc).geometry()?;
        let a = pool_definition::forward(&pool, &a_prev);
        checks.compare(&format!("mode = {mode}: A"), &printed(&a), published);
    }
    Ok(())
}

/// A_prev (5, 5, 3, 2), dA (5, 4, 2, 2); stride = 1, f = 2.
fn pool_backward(checks: &mut Checks) -> Result<(), Error> {
    println!("pool_backward");
    let mut random = RandomState::new(1);
    let (a_prev, da) = (random.randn(5 * 5 * 3 * 2), random.randn(5 * 4 * 2 * 2));
    checks.compare("mean of dA", &format!("{:.12}", mean(&da)), "0.145713902729");
    for (mode, pool, published) in [
        ("max", Pool2d::max(2, 2), "0 0 5.05844394 -1.68282702 0 0"),
        (
            "average",
            Pool2d::average(2, 2),
            "0.08485462 0.2787552 1.26461098 -0.25749373 1.17975636 -0.53624893",
        ),
    ] {
        let pool = pool.input([5, 3]).batch(5).stride(1).layout(Layout::Nhwc).geometry()?;
        let da_prev = pool_definition::backward(&pool, &a_prev, &da);
        let ours = printed(&da_prev[(5 + 1) * 3 * 2..][..6]);
        checks.compare(&format!("mode = {mode}: dA_prev[1,1]"), &ours, published);
    }
    Ok(())
}

fn main() -> Result<ExitCode, Error> {
    let mut checks = Checks::default();
    convolution(&mut checks)?;
    pool_forward(&mut checks)?;
    pool_backward(&mut checks)?;
    let Checks { all, wrong } = checks;
    println!("{} of {all} values of the notebook are ours to the last digit that it prints", all - wrong);
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
