//! The numbers of the course's notebook, "Convolutional Model: step by step": its seed, its shapes, its letters, and the values that it
//! prints, to every printed digit, in f64.

use convolve::{Conv2d, Layout, Pool2d, Ties, WeightLayout, definition, explicit, pool_definition};
use convolve_testkit::numpy::RandomState;

fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len() as f64
}

/// As `np.set_printoptions(precision=8)` prints them.
fn printed(x: &[f64]) -> String {
    let digits = |x: &f64| format!("{:.8}", x + 0.0).trim_end_matches('0').trim_end_matches('.').to_string();
    x.iter().map(digits).collect::<Vec<_>>().join(" ")
}

#[test]
fn conv_forward_and_conv_backward() {
    // A_prev (10, 4, 4, 3), W (2, 2, 3, 8), b (1, 1, 1, 8); pad = 2, stride = 2.
    let mut random = RandomState::new(1);
    let (a_prev, w, b) = (random.randn(480), random.randn(96), random.randn(8));
    let conv = Conv2d::new(3, 8, 2).batch(10).input(4).stride(2).padding(2);
    let conv = conv.layout(Layout::Nhwc).weight_layout(WeightLayout::Hwio).geometry().unwrap();
    for way in ["definition", "explicit"] {
        let mut z = match way {
            "definition" => definition::forward(&conv, &a_prev, &w),
            _ => explicit::forward(&conv, &a_prev, &w),
        };
        z.iter_mut().zip(b.iter().cycle()).for_each(|(z, b)| *z += b);
        assert_eq!(format!("{:.13}", mean(&z)), "0.0489952035289");
        let place = ((3 * 4 + 2) * 4 + 1) * 8;
        assert_eq!(
            printed(&z[place..place + 8]),
            "-0.61490741 -6.7439236 -2.55153897 1.75698377 3.56208902 0.53036437 5.18531798 8.75898442"
        );
        // The notebook calls conv_backward(Z, cache): the gradient of the output is the output.
        let (da, dw) = match way {
            "definition" => {
                (definition::backward_data(&conv, &z, &w), definition::backward_weights(&conv, &a_prev, &z))
            }
            _ => (explicit::backward_data(&conv, &z, &w), explicit::backward_weights(&conv, &a_prev, &z)),
        };
        let db = definition::backward_bias(&conv, &z);
        assert_eq!(format!("{:.11}", mean(&da)), "1.45243777754");
        assert_eq!(format!("{:.11}", mean(&dw)), "1.72699145831");
        assert_eq!(format!("{:.11}", mean(&db)), "7.83923256462");
    }
}

#[test]
fn pool_forward() {
    // A_prev (2, 4, 4, 3); stride = 2, f = 3.
    let a_prev = RandomState::new(1).randn(96);
    let of = |pool: Pool2d| pool.input(4).batch(2).stride(2).layout(Layout::Nhwc).geometry().unwrap();
    let max = pool_definition::forward(&of(Pool2d::max(3, 3)), &a_prev);
    assert_eq!(printed(&max), "1.74481176 0.86540763 1.13376944 1.13162939 1.51981682 2.18557541");
    let average = pool_definition::forward(&of(Pool2d::average(3, 3)), &a_prev);
    assert_eq!(printed(&average), "0.02105773 -0.20328806 -0.40389855 -0.22154621 0.51716526 0.48155844");
}

#[test]
fn pool_backward() {
    // A_prev (5, 5, 3, 2), dA (5, 4, 2, 2); stride = 1, f = 2.
    let mut random = RandomState::new(1);
    let (a_prev, da) = (random.randn(150), random.randn(80));
    assert_eq!(format!("{:.12}", mean(&da)), "0.145713902729");
    let of = |pool: Pool2d| pool.input([5, 3]).batch(5).stride(1).layout(Layout::Nhwc).geometry().unwrap();
    // dA_prev[1, 1]
    let place = (5 + 1) * 3 * 2..((5 + 1) * 3 + 3) * 2;
    // The notebook's mask marks every maximum; here there are no ties.
    for ties in [Ties::All, Ties::First] {
        let max = pool_definition::backward(&of(Pool2d::max(2, 2).ties(ties)), &a_prev, &da);
        assert_eq!(printed(&max[place.clone()]), "0 0 5.05844394 -1.68282702 0 0");
    }
    let average = pool_definition::backward(&of(Pool2d::average(2, 2)), &a_prev, &da);
    assert_eq!(
        printed(&average[place]),
        "0.08485462 0.2787552 1.26461098 -0.25749373 1.17975636 -0.53624893"
    );
}

/// The kernels, in f32, on the same data: within their bound of what the notebook prints.
#[test]
fn the_kernels_agree() {
    let mut random = RandomState::new(1);
    let singles = |x: Vec<f64>| x.into_iter().map(|x| x as f32).collect::<Vec<f32>>();
    let (a_prev, w, b) = (singles(random.randn(480)), singles(random.randn(96)), singles(random.randn(8)));
    let conv = Conv2d::new(3, 8, 2).batch(10).input(4).stride(2).padding(2);
    let conv = conv.layout(Layout::Nhwc).weight_layout(WeightLayout::Hwio);
    let mut z = vec![0.0; 10 * 4 * 4 * 8];
    convolve::forward(conv, &a_prev, &w, &mut z, convolve::Epilogue::bias(&b)).unwrap();
    // 13 terms of |x||w| < 10 and rounded operands: 16 u * 130.
    let sum: f64 = z.iter().map(|&z| f64::from(z)).sum();
    assert!((sum / 1280.0 - 0.0489952035289).abs() <= 16.0 * 130.0 * 2f64.powi(-24));
}
