//! Every activation and its derivative against f64, over a dense sweep of all magnitudes, within the errors that its documentation states.

use convolve_core::{Par, Update};
use convolve_layers::Function;
use convolve_simd::Isa;

/// The threads of a pool; without the feature `rayon`, the calling thread.
fn on(pool: &rayon::ThreadPool) -> Par<'_> {
    #[cfg(feature = "rayon")]
    return Par::Pool(pool);
    #[cfg(not(feature = "rayon"))]
    {
        let _ = pool;
        Par::Current
    }
}

/// The error function by its series, or by its continued fraction.
fn erfc(x: f64) -> f64 {
    if x < 0.0 {
        return 2.0 - erfc(-x);
    }
    if x < 3.0 {
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= -x * x / n as f64;
            sum += term / (2 * n + 1) as f64;
        }
        return 1.0 - sum * std::f64::consts::FRAC_2_SQRT_PI;
    }
    let fraction = (1..200).rev().fold(0.0, |below, n| 0.5 * n as f64 / (x + below));
    (-x * x).exp() / (x + fraction) / std::f64::consts::PI.sqrt()
}

fn sigmoid(x: f64) -> f64 {
    if x < 0.0 { x.exp() / (1.0 + x.exp()) } else { 1.0 / (1.0 + (-x).exp()) }
}

fn probability(x: f64) -> f64 {
    0.5 * erfc(-x * std::f64::consts::FRAC_1_SQRT_2)
}

/// Value and derivative.
fn exact(function: Function, x: f64) -> [f64; 2] {
    let positive = f64::from(u8::from(x > 0.0));
    match function {
        Function::Relu => [x.max(0.0), positive],
        Function::Relu6 => [x.clamp(0.0, 6.0), if x < 6.0 { positive } else { 0.0 }],
        Function::LeakyRelu { slope } => {
            [if x > 0.0 { x } else { f64::from(slope) * x }, if x > 0.0 { 1.0 } else { f64::from(slope) }]
        }
        Function::Sigmoid => [sigmoid(x), sigmoid(x) * sigmoid(-x)],
        Function::Tanh => [x.tanh(), 4.0 * sigmoid(2.0 * x) * sigmoid(-2.0 * x)],
        Function::Silu => [x * sigmoid(x), sigmoid(x) + x * sigmoid(x) * sigmoid(-x)],
        Function::Gelu => {
            let density = (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt();
            [x * probability(x), probability(x) + x * density]
        }
        _ => unreachable!(),
    }
}

/// What errors are relative to, and how many 2^-24 of it are allowed: value and derivative.
fn allowed(function: Function, x: f64) -> [f64; 2] {
    let [value, slope] = exact(function, x).map(f64::abs);
    match function {
        Function::Relu | Function::Relu6 => [0.0, 0.0],
        Function::LeakyRelu { .. } => [value, 0.0],
        Function::Sigmoid => [4.0 * value, 6.0 * slope],
        Function::Tanh => [3.0 * value, 6.0 * slope],
        Function::Silu => [5.0 * value, 4.0],
        Function::Gelu => [4.0 * x.abs(), 4.0],
        _ => unreachable!(),
    }
}

/// What the documentation states: ten binary digits of every binade from 2^-20, the whole line from -86 to 88 in steps, and special points.
fn sweep() -> Vec<f32> {
    let binades =
        (107..134).flat_map(|e| (0..1024u32).map(move |m| f32::from_bits((e << 23) | (m << 13) | 0x5a3)));
    let line = (0..=400_000).map(|i| i as f32 * (88.0 / 400_000.0));
    let positive = binades.chain(line).chain([0.0, 0.625, 6.0, 1e-30, 1e-38, 86.0]);
    positive.flat_map(|x| [x, -x]).filter(|x| (-86.0..=88.0).contains(x)).collect()
}

fn run(function: Function, src: &[f32], isa: Isa, par: Par<'_>) -> [Vec<f32>; 2] {
    let (mut dst, mut slopes) = (vec![f32::NAN; src.len()], vec![f32::NAN; src.len()]);
    function.forward(src, &mut dst, isa, par).unwrap();
    function.backward(src, &vec![1.0; src.len()], &mut slopes, Update::Overwrite, isa, par).unwrap();
    [dst, slopes]
}

#[test]
fn values_and_derivatives_keep_their_bounds() {
    let src = sweep();
    for &isa in Isa::available() {
        for function in Function::ALL {
            let got = run(function, &src, isa, Par::Seq);
            let mut worst = [0.0f64; 2];
            for (i, &x) in src.iter().enumerate() {
                let (exact, allowed) = (exact(function, f64::from(x)), allowed(function, f64::from(x)));
                for k in 0..2 {
                    let error = (f64::from(got[k][i]) - exact[k]).abs() * 2f64.powi(24);
                    // What is below 2^-122 may be 0.
                    let slack = 2f64.powi(24 - 122);
                    assert!(
                        error <= allowed[k] + slack,
                        "{function:?} {k} on {isa} at {x:e}: {} for {}, {error} u",
                        got[k][i],
                        exact[k]
                    );
                    if allowed[k] > 1e-30 {
                        worst[k] = worst[k].max(error / allowed[k]);
                    }
                }
            }
            println!("{isa} {function:?}: worst value and derivative {worst:.2?} of what is allowed");
        }
    }
}

#[test]
fn special_values_are_what_limits_say() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    for &isa in Isa::available() {
        for function in Function::ALL {
            let [dst, slopes] = run(function, &[inf, -inf, 1e4, -1e4, nan, 0.0, -0.0], isa, Par::Seq);
            let bounded = matches!(function, Function::Sigmoid | Function::Tanh);
            let high = match function {
                Function::Relu6 => 6.0,
                _ if bounded => 1.0,
                _ => inf,
            };
            let low = match function {
                Function::Tanh => -1.0,
                Function::LeakyRelu { .. } => -inf,
                _ => 0.0,
            };
            assert_eq!((dst[0], dst[1]), (high, low), "{function:?} on {isa}");
            assert!(dst[4].is_nan(), "{function:?} on {isa}");
            assert!(slopes[..4].iter().all(|x| x.is_finite()), "{function:?} on {isa}: {slopes:?}");
            assert_eq!(
                slopes[0],
                if bounded || function == Function::Relu6 { 0.0 } else { 1.0 },
                "{function:?} on {isa}"
            );
            assert_eq!(dst[5], if function == Function::Sigmoid { 0.5 } else { 0.0 });
        }
    }
}

#[test]
fn threads_and_tails_change_no_bit() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    let src: Vec<f32> = sweep().into_iter().step_by(7).collect();
    for &isa in Isa::available() {
        for function in Function::ALL {
            let all = run(function, &src, isa, Par::Seq);
            assert_eq!(run(function, &src, isa, on(&pool)), all);
            for len in 0..40 {
                let part = run(function, &src[..len], isa, Par::Seq);
                assert_eq!(part, [all[0][..len].to_vec(), all[1][..len].to_vec()]);
            }
            let mut sum = vec![1.0; 40];
            function.backward(&src[..40], &[2.0; 40], &mut sum, Update::Accumulate, isa, Par::Seq).unwrap();
            assert!(sum.iter().zip(&all[1]).all(|(sum, slope)| *sum == 1.0 + 2.0 * slope));
        }
    }
}

#[test]
fn lengths_must_agree() {
    let error = Function::Relu.forward(&[1.0; 3], &mut [0.0; 2], Isa::best(), Par::Seq).unwrap_err();
    assert_eq!(error.to_string(), "dst has 2 elements, but the shape of src needs 3");
}
