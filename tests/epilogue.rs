//! Bias, residual and activation on integers, exact; and what NaN and infinity may touch.

use convolve::{Activation, Conv2d, Epilogue, Layout, Operand, WeightLayout};
use convolve_testkit::data::{Fill, floats, small};
use convolve_testkit::{Direction, Execution, How, Run, Scope, close, reference, strategy};
use proptest::prelude::*;

/// What is done to an output, by the definition: `activation(sum + bias + residual)`.
fn finish(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Clamp { min, max } => x.max(min.into()).min(max.into()),
        Activation::LeakyRelu { slope } => {
            if x > 0.0 {
                x
            } else {
                f64::from(slope) * x
            }
        }
        _ => unreachable!("a new activation needs its definition here"),
    }
}

const ACTIVATIONS: [Activation; 6] = [
    Activation::IDENTITY,
    Activation::RELU,
    Activation::RELU6,
    Activation::Clamp { min: -100.0, max: -1.0 },
    Activation::LeakyRelu { slope: 0.25 },
    Activation::LeakyRelu { slope: 0.0 },
];

proptest! {
    #![proptest_config(strategy::config(40))]

    #[test]
    fn every_combination_of_bias_residual_and_activation_is_exact(conv in strategy::convs(), seed in any::<u64>()) {
        let direction = Direction::Forward;
        let operands = Fill::Dense.integers(&conv, direction, seed);
        let sums = reference::reference(&conv, direction, &operands[0], &operands[1]);
        let [bias, residual] = [Operand::Bias, Operand::Dst].map(|o| small(reference::len(&conv, o), seed));
        let [_, channels, h, w] = reference::shape(&conv, Operand::Dst);
        let scope = Scope { weight_layouts: vec![conv.weight_layout], threads: vec![1, 2], ..Scope::everything() };
        let scope = scope.only(direction);
        let mut agree = Ok(());
        scope.for_each_execution(conv, |execution| {
            let conv = &execution.case.conv;
            let place = |o, x: &[i64]| floats(&reference::arrange(conv, o, x));
            let [left, right] = [(Operand::Src, &operands[0]), (Operand::Weights, &operands[1])].map(|(o, x)| place(o, x));
            let (bias_floats, residual_floats) = (floats(&bias), place(Operand::Dst, &residual));
            // Exact, or within what the transforms of the algorithm amplify.
            let reals = operands.each_ref().map(|x| x.iter().map(|&x| x as f64).collect::<Vec<_>>());
            let bound = match execution.sums() {
                true => vec![0.0; sums.len()],
                false => execution.alarm(&reals[0], &reals[1]).into_iter().map(|b| b + 1e-3).collect(),
            };
            for bits in 0..4 {
                for activation in ACTIVATIONS {
                    let epilogue = Epilogue {
                        bias: (bits & 1 != 0).then_some(&bias_floats[..]),
                        residual: (bits & 2 != 0).then_some(&residual_floats[..]),
                        activation,
                    };
                    let expected: Vec<f64> = (0..sums.len())
                        .map(|i| {
                            let bias = if bits & 1 != 0 { bias[i / (h * w) % channels] } else { 0 };
                            let residual = if bits & 2 != 0 { residual[i] } else { 0 };
                            finish(activation, (sums[i] + bias + residual) as f64)
                        })
                        .collect();
                    let expected = reference::arrange(conv, Operand::Dst, &expected);
                    let how = How { epilogue, initial: None };
                    let run = Run::new(execution.planned(), seed ^ bits);
                    agree = agree.clone().and_then(|()| {
                        let got = execution.run(&left, &right, &how, run)?;
                        close::within(execution.shape(), &got, &expected, &bound)
                            .map_err(|e| format!("{}: {how}: {e}", execution.case))
                    });
                }
            }
        });
        agree.map_err(TestCaseError::fail)?;
    }
}

/// NaN in a sum, a bias or a residual comes through every activation.
#[test]
fn nan_passes_every_activation() {
    let conv: Conv2d = "mb1ic3ih5oc20kh3ph1".parse().unwrap();
    let nans = |operand| vec![f32::NAN; reference::len(&conv, operand)];
    let ones = |operand| vec![1.0; reference::len(&conv, operand)];
    Scope::everything().only(Direction::Forward).for_each_execution(conv, |execution| {
        for activation in ACTIVATIONS {
            let (bias, residual) = (nans(Operand::Bias), nans(Operand::Dst));
            let plain = Epilogue::NONE.activation(activation);
            let cases = [
                (nans(Operand::Src), plain),
                (ones(Operand::Src), Epilogue { bias: Some(&bias), ..plain }),
                (ones(Operand::Src), plain.residual(&residual)),
            ];
            for (src, epilogue) in cases {
                let how = How { epilogue, initial: None };
                let run = Run::new(execution.planned(), 1);
                let got = execution.run(&src, &ones(Operand::Weights), &how, run).unwrap();
                assert!(got.iter().all(|x| x.is_nan()), "{}: {how}: {got:?}", execution.case);
            }
        }
    });
}

/// Which rules of locality an algorithm keeps. Those that multiply padding by weights, or transform tiles, keep fewer; by name, because
/// it is a promise of the algorithm and not of the library.
fn skips_padding(algorithm: &str) -> bool {
    algorithm == "direct"
}

fn mixes_tiles(algorithm: &str) -> bool {
    algorithm.starts_with("winograd")
}

fn for_each_plain(conv: Conv2d, direction: Direction, mut f: impl FnMut(&Execution)) {
    let scope = Scope { weight_layouts: vec![WeightLayout::Oihw], ..Scope::everything().serial() };
    scope.only(direction).for_each_execution(conv, |execution| {
        if !mixes_tiles(execution.case.algorithm) {
            f(execution);
        }
    });
}

/// What one non-finite element of the left operand touches: exactly the results that are sums over it. All others keep their bits.
#[test]
fn one_non_finite_input_touches_only_what_sees_it() {
    for text in [
        "mb2ic3ih5oc5kh3ph1",
        "mb1ic17ih4oc18kh3ph1sh2",
        "g2mb1ic6ih4oc10kh2ph2",
        "g9mb1ic9ih5oc9kh3ph1",
        // A row of more than a register; a last column that no window reads; two outputs a channel.
        "g2mb1ic2ih5iw20oc2kh3kw3ph1pw1",
        "g2mb1ic2ih7iw10oc2kh3kw3sh2sw2ph1pw0",
        "g2mb1ic2ih6oc4kh5ph2",
        "mb1ic2ih6iw19oc3kh1kw3pw1",
        "mb1ic5ih4oc7kh1",
    ] {
        let conv: Conv2d = text.parse().unwrap();
        for direction in Direction::ALL {
            let operands = convolve_testkit::data::Real::Positive.operands(&conv, direction, 3);
            // Not a multiple of the width, or of a part of it: a fault at the end of rows went unseen.
            let (width, mut step) = (conv.input[1], 1 + operands[0].len() / 24);
            while (2..=width).any(|n| width.is_multiple_of(n) && step.is_multiple_of(n)) {
                step += 1;
            }
            for place in (0..operands[0].len()).step_by(step) {
                // The results that have a term with that element, by the reference: ones there, zeros elsewhere.
                let mut mark = vec![0i64; operands[0].len()];
                mark[place] = 1;
                let seen = reference::reference(&conv, direction, &mark, &vec![1; operands[1].len()]);
                for bad in [f32::NAN, f32::INFINITY] {
                    let mut left = operands[0].clone();
                    left[place] = bad;
                    for_each_plain(conv, direction, |execution| {
                        let clean = execution.run_canonical(&operands[0], &operands[1], 1).unwrap();
                        let got = execution.run_canonical(&left, &operands[1], 1).unwrap();
                        for i in 0..got.len() {
                            let right = if seen[i] > 0 {
                                !got[i].is_finite()
                            } else {
                                got[i].to_bits() == clean[i].to_bits()
                            };
                            assert!(
                                right,
                                "{}: {bad} at {place} of left: result {i} is {}",
                                execution.case, got[i]
                            );
                        }
                    });
                }
            }
        }
    }
}

/// A weight that is not finite touches only the outputs whose tap lies in the image: padding is absent, not zero.
#[test]
fn a_non_finite_weight_does_not_reach_padding() {
    for text in
        ["mb1ic3ih5oc5kh3ph1", "mb1ic2ih4oc17kh3ph2sh2", "g4mb1ic4ih5oc4kh3ph1", "mb1ic3ih3oc4kh3ph2dh1"]
    {
        let conv: Conv2d = text.parse().unwrap();
        for direction in [Direction::Forward, Direction::BackwardData] {
            let operands = convolve_testkit::data::Real::Positive.operands(&conv, direction, 3);
            for place in 0..operands[1].len() {
                let mut mark = vec![0i64; operands[1].len()];
                mark[place] = 1;
                let seen = reference::reference(&conv, direction, &vec![1; operands[0].len()], &mark);
                let mut right = operands[1].clone();
                right[place] = f32::INFINITY;
                for_each_plain(conv, direction, |execution| {
                    let got = execution.run_canonical(&operands[0], &right, 1).unwrap();
                    for i in 0..got.len() {
                        if seen[i] > 0 {
                            assert!(
                                !got[i].is_finite(),
                                "{}: {place}: result {i} is {}",
                                execution.case,
                                got[i]
                            );
                        } else if skips_padding(execution.case.algorithm) {
                            assert!(
                                got[i].is_finite(),
                                "{}: {place}: result {i} is {}",
                                execution.case,
                                got[i]
                            );
                        }
                    }
                });
            }
        }
    }
}

/// Outputs that see nothing of the image hold the bias, and 0 without one.
#[test]
fn outputs_without_terms_hold_the_bias() {
    let conv: Conv2d = "mb1ic2ih1oc19kh2ph4dh1".parse().unwrap();
    let bias: Vec<f32> = (1..20).map(|i| i as f32).collect();
    let terms = reference::terms(&conv, Direction::Forward);
    assert!(terms.contains(&0));
    Scope::everything().only(Direction::Forward).for_each_execution(conv, |execution| {
        let [src, weights] = [Operand::Src, Operand::Weights].map(|o| vec![7.0; reference::len(&conv, o)]);
        let conv = execution.case.conv;
        for bias in [None, Some(&bias[..])] {
            let how = How { epilogue: Epilogue { bias, ..Epilogue::NONE }, initial: None };
            let got = execution.run(&src, &weights, &how, Run::new(execution.planned(), 1)).unwrap();
            let got = reference::canonical(&conv, Operand::Dst, &got);
            let plane = got.len() / 19;
            for (i, x) in got.iter().enumerate().filter(|(i, _)| terms[*i] == 0) {
                assert_eq!(*x, bias.map_or(0.0, |bias| bias[i / plane]), "{} at {i}", execution.case);
            }
        }
    });
    assert_eq!(Layout::ALL.len(), 2);
}
