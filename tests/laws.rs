//! Laws of convolution, on integers and therefore exact: they need no reference, so they hold or fail by themselves.

use convolve::{Conv2d, Operand, Padding};
use convolve_testkit::data::{Random, floats};
use convolve_testkit::reference::{len, shape};
use convolve_testkit::{Case, Direction, Scope, strategy};
use proptest::prelude::*;
use proptest::sample::Index;

/// Runs a case on integers in the order of indices, in the layouts of the case; none when the algorithm refuses the problem.
fn run(
    scope: &Scope,
    case: Case,
    conv: Conv2d,
    direction: Direction,
    left: &[i64],
    right: &[i64],
) -> Option<Vec<i64>> {
    let conv = conv.layout(case.conv.layout).weight_layout(case.conv.weight_layout);
    let case = Case { conv, direction, ..case };
    let execution = match scope.algorithms.ready(case) {
        Ok(execution) => execution,
        Err(convolve_testkit::Refusal::Unsupported(_)) => return None,
        Err(error) => panic!("{case}: {error:?}"),
    };
    let result = execution.run_canonical(&floats(left), &floats(right), 5).unwrap_or_else(|e| panic!("{e}"));
    // Of an algorithm that transforms, only near one: which, is certain all the same.
    let room = if execution.sums() { 0.0 } else { 0.25 };
    let integer = |x: &f32| {
        assert!((x - x.round()).abs() <= room && x.abs() <= 16_777_216.0, "{case}: {x} is no exact integer");
        x.round() as i64
    };
    Some(result.iter().map(integer).collect())
}

/// Calls `law` with every algorithm that is registered for the forward pass, on every instruction set, in layouts that take turns.
fn for_each(conv: Conv2d, seed: u64, mut law: impl FnMut(&Scope, Case)) {
    let (layout, weight_layout) = convolve_testkit::laws::layouts(seed);
    let conv = conv.layout(layout).weight_layout(weight_layout);
    let scope = Scope::everything().serial();
    scope.for_each(conv, Direction::Forward, |case, ready| {
        if ready.is_ok() {
            law(&scope, case);
        }
    });
}

/// The forward pass in a law.
fn forward(scope: &Scope, case: Case, conv: Conv2d, src: &[i64], weights: &[i64]) -> Option<Vec<i64>> {
    run(scope, case, conv, Direction::Forward, src, weights)
}

/// Asserts that two results are there and equal, or that one of the problems is refused.
fn equal(case: Case, a: Option<Vec<i64>>, b: Option<Vec<i64>>) -> Result<(), TestCaseError> {
    if let (Some(a), Some(b)) = (a, b) {
        prop_assert_eq!(a, b, "{}", case);
    }
    Ok(())
}

fn integers(conv: &Conv2d, operand: Operand, seed: u64) -> Vec<i64> {
    let mut random = Random::new(seed);
    (0..len(conv, operand)).map(|_| random.integer(-8, 8)).collect()
}

/// `f([n, c, h, w])` over a shape, in the order of indices.
fn tensor(shape: [usize; 4], mut f: impl FnMut([usize; 4]) -> i64) -> Vec<i64> {
    let count: usize = shape.iter().product();
    (0..count)
        .map(|i| {
            let [_, b, c, d] = shape;
            f([i / (b * c * d), i / (c * d) % b, i / d % c, i % d])
        })
        .collect()
}

fn at(shape: [usize; 4], [a, b, c, d]: [usize; 4]) -> usize {
    ((a * shape[1] + b) * shape[2] + c) * shape[3] + d
}

fn inner(a: &[i64], b: &[i64]) -> i64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn explicit(conv: &Conv2d) -> [[usize; 2]; 2] {
    conv.geometry().unwrap().padding()
}

fn padded(conv: Conv2d, [[top, bottom], [left, right]]: [[usize; 2]; 2]) -> Conv2d {
    conv.padding(Padding::Explicit { top, bottom, left, right })
}

proptest! {
    #![proptest_config(strategy::config(128))]

    /// <conv(x, w), y> = <x, backward_data(y, w)> = <w, backward_weights(x, y)>.
    #[test]
    fn the_three_passes_are_adjoint(conv in strategy::convs(), seed in any::<u64>()) {
        let [src, weights, dst] = [(Operand::Src, 1), (Operand::Weights, 2), (Operand::Dst, 3)]
            .map(|(operand, i)| integers(&conv, operand, seed ^ i));
        let (layout, weight_layout) = convolve_testkit::laws::layouts(seed);
        let scope = Scope::everything().serial();
        let mut products = Vec::new();
        for direction in Direction::ALL {
            scope.for_each(conv.layout(layout).weight_layout(weight_layout), direction, |case, _| {
                let [left, right, other] = match direction {
                    Direction::Forward => [&src, &weights, &dst],
                    Direction::BackwardData => [&dst, &weights, &src],
                    Direction::BackwardWeights => [&src, &dst, &weights],
                };
                if let Some(result) = run(&scope, case, conv, direction, left, right) {
                    products.push((inner(&result, other), case.to_string()));
                }
            });
        }
        for (product, case) in &products {
            prop_assert_eq!(*product, products[0].0, "{} against {}", case, &products[0].1);
        }
    }

    #[test]
    fn forward_is_linear_in_both_operands(conv in strategy::convs(), seed in any::<u64>(), a in -3i64..=3, b in -3i64..=3) {
        let both = |x: &[i64], y: &[i64]| -> Vec<i64> { x.iter().zip(y).map(|(x, y)| a * x + b * y).collect() };
        let [x, y] = [1, 2].map(|i| integers(&conv, Operand::Src, seed ^ i));
        let [v, w] = [3, 4].map(|i| integers(&conv, Operand::Weights, seed ^ i));
        let mut agree = Ok(());
        for_each(conv, seed, |scope, case| {
            let f = |src: &[i64], weights: &[i64]| forward(scope, case, conv, src, weights).unwrap();
            if f(&both(&x, &y), &v) != both(&f(&x, &v), &f(&y, &v)) || f(&x, &both(&v, &w)) != both(&f(&x, &v), &f(&x, &w)) {
                agree = Err(TestCaseError::fail(case.to_string()));
            }
        });
        agree?;
    }

    /// An image without its first `stride` columns gives the output without its first column.
    #[test]
    fn forward_commutes_with_shifts_by_the_stride(conv in strategy::convs(), seed in any::<u64>()) {
        let valid = conv.padding(Padding::Valid).dilation([1, 1]);
        let whole = valid.input([0, 1].map(|i| valid.input[i].max(valid.kernel[i]) + valid.stride[i]));
        let less = whole.input([0, 1].map(|i| whole.input[i] - whole.stride[i]));
        let (from, to) = (shape(&whole, Operand::Src), shape(&less, Operand::Src));
        let src = integers(&whole, Operand::Src, seed);
        let weights = integers(&whole, Operand::Weights, !seed);
        let cropped = tensor(to, |[n, c, h, w]| src[at(from, [n, c, h + whole.stride[0], w + whole.stride[1]])]);
        let (from, to) = (shape(&whole, Operand::Dst), shape(&less, Operand::Dst));
        let mut agree = Ok(());
        for_each(whole, seed, |scope, case| {
            let dst = forward(scope, case, whole, &src, &weights);
            let expected = dst.map(|dst| tensor(to, |[n, c, h, w]| dst[at(from, [n, c, h + 1, w + 1])]));
            agree = agree.clone().and(equal(case, forward(scope, case, less, &cropped, &weights), expected));
        });
        agree?;
    }

    /// A kernel with a single one copies the image: shifted by the tap, strided, zero outside.
    #[test]
    fn a_delta_kernel_copies(conv in strategy::convs(), seed in any::<u64>(), tap in any::<Index>(), channel in any::<Index>()) {
        let (from, weights, to) = (shape(&conv, Operand::Src), shape(&conv, Operand::Weights), shape(&conv, Operand::Dst));
        let (tap, channel) = (tap.index(weights[2] * weights[3]), channel.index(weights[1]));
        let [kh, kw] = [tap / weights[3], tap % weights[3]];
        let src = integers(&conv, Operand::Src, seed);
        let delta = tensor(weights, |[_, ic, h, w]| i64::from([ic, h, w] == [channel, kh, kw]));
        let [[top, _], [left, _]] = explicit(&conv);
        let expected = tensor(to, |[n, oc, h, w]| {
            let row = (h * conv.stride[0] + kh * conv.dilation[0]).checked_sub(top).filter(|&i| i < conv.input[0]);
            let column = (w * conv.stride[1] + kw * conv.dilation[1]).checked_sub(left).filter(|&i| i < conv.input[1]);
            let ic = oc / (conv.out_channels / conv.groups) * weights[1] + channel;
            row.zip(column).map_or(0, |(row, column)| src[at(from, [n, ic, row, column])])
        });
        let mut agree = Ok(());
        for_each(conv, seed, |scope, case| {
            agree = agree.clone().and(equal(case, forward(scope, case, conv, &src, &delta), Some(expected.clone())));
        });
        agree?;
    }

    /// Groups are convolutions side by side.
    #[test]
    fn groups_are_single_convolutions_side_by_side(conv in strategy::convs(), seed in any::<u64>()) {
        prop_assume!(conv.groups > 1);
        let one = Conv2d {
            groups: 1,
            in_channels: conv.in_channels / conv.groups,
            out_channels: conv.out_channels / conv.groups,
            ..conv
        };
        let src = integers(&conv, Operand::Src, seed);
        let weights = integers(&conv, Operand::Weights, !seed);
        let (from, to) = (shape(&conv, Operand::Src), shape(&conv, Operand::Dst));
        let mut agree = Ok(());
        for_each(conv, seed, |scope, case| {
            let parts: Option<Vec<_>> = (0..conv.groups)
                .map(|g| {
                    let [n, c, h, w] = shape(&one, Operand::Src);
                    let src = tensor([n, c, h, w], |[n, ic, h, w]| src[at(from, [n, g * c + ic, h, w])]);
                    let each = len(&one, Operand::Weights);
                    forward(scope, case, one, &src, &weights[g * each..][..each])
                })
                .collect();
            let expected = parts.map(|parts| {
                tensor(to, |[n, oc, h, w]| {
                    let (g, oc) = (oc / one.out_channels, oc % one.out_channels);
                    parts[g][at(shape(&one, Operand::Dst), [n, oc, h, w])]
                })
            });
            agree = agree.clone().and(equal(case, forward(scope, case, conv, &src, &weights), expected));
        });
        agree?;
    }

    #[test]
    fn dilation_is_a_kernel_stuffed_with_zeros(conv in strategy::convs(), seed in any::<u64>()) {
        let conv = padded(conv, explicit(&conv));
        let stuffed = Conv2d { kernel: [0, 1].map(|i| (conv.kernel[i] - 1) * conv.dilation[i] + 1), dilation: [1, 1], ..conv };
        let src = integers(&conv, Operand::Src, seed);
        let weights = integers(&conv, Operand::Weights, !seed);
        let from = shape(&conv, Operand::Weights);
        let zeros = tensor(shape(&stuffed, Operand::Weights), |[oc, ic, h, w]| {
            let on = h.is_multiple_of(conv.dilation[0]) && w.is_multiple_of(conv.dilation[1]);
            if on { weights[at(from, [oc, ic, h / conv.dilation[0], w / conv.dilation[1]])] } else { 0 }
        });
        let mut agree = Ok(());
        for_each(conv, seed, |scope, case| {
            let expected = forward(scope, case, stuffed, &src, &zeros);
            agree = agree.clone().and(equal(case, forward(scope, case, conv, &src, &weights), expected));
        });
        agree?;
    }

    #[test]
    fn padding_is_a_frame_of_zeros(conv in strategy::convs(), seed in any::<u64>()) {
        let [[top, bottom], [left, right]] = explicit(&conv);
        let framed = conv.padding(Padding::Valid).input([conv.input[0] + top + bottom, conv.input[1] + left + right]);
        let src = integers(&conv, Operand::Src, seed);
        let weights = integers(&conv, Operand::Weights, !seed);
        let from = shape(&conv, Operand::Src);
        let frame = tensor(shape(&framed, Operand::Src), |[n, c, h, w]| {
            let row = h.checked_sub(top).filter(|&h| h < conv.input[0]);
            let column = w.checked_sub(left).filter(|&w| w < conv.input[1]);
            row.zip(column).map_or(0, |(h, w)| src[at(from, [n, c, h, w])])
        });
        let mut agree = Ok(());
        for_each(conv, seed, |scope, case| {
            let expected = forward(scope, case, framed, &frame, &weights);
            agree = agree.clone().and(equal(case, forward(scope, case, conv, &src, &weights), expected));
        });
        agree?;
    }

    #[test]
    fn a_stride_picks_from_the_dense_output(conv in strategy::convs(), seed in any::<u64>()) {
        let conv = padded(conv, explicit(&conv));
        let dense = conv.stride(1);
        let src = integers(&conv, Operand::Src, seed);
        let weights = integers(&conv, Operand::Weights, !seed);
        let from = shape(&dense, Operand::Dst);
        let mut agree = Ok(());
        for_each(conv, seed, |scope, case| {
            let expected = forward(scope, case, dense, &src, &weights).map(|dst| {
                tensor(shape(&conv, Operand::Dst), |[n, c, h, w]| dst[at(from, [n, c, h * conv.stride[0], w * conv.stride[1]])])
            });
            agree = agree.clone().and(equal(case, forward(scope, case, conv, &src, &weights), expected));
        });
        agree?;
    }

    #[test]
    fn a_1x1_kernel_is_a_matrix_product(conv in strategy::convs(), seed in any::<u64>()) {
        let conv = Conv2d { kernel: [1, 1], stride: [1, 1], padding: Padding::Valid, ..conv };
        let src = integers(&conv, Operand::Src, seed);
        let weights = integers(&conv, Operand::Weights, !seed);
        let [from, [_, group_in, ..], to] = [Operand::Src, Operand::Weights, Operand::Dst].map(|o| shape(&conv, o));
        let expected = tensor(to, |[n, oc, h, w]| {
            let first = oc / (conv.out_channels / conv.groups) * group_in;
            (0..group_in).map(|ic| src[at(from, [n, first + ic, h, w])] * weights[oc * group_in + ic]).sum()
        });
        let mut agree = Ok(());
        for_each(conv, seed, |scope, case| {
            agree = agree.clone().and(equal(case, forward(scope, case, conv, &src, &weights), Some(expected.clone())));
        });
        agree?;
    }

    /// Output channels in another order come from weights in that order.
    #[test]
    fn output_channels_are_independent(conv in strategy::convs(), seed in any::<u64>()) {
        prop_assume!(conv.groups == 1);
        let mut order: Vec<usize> = (0..conv.out_channels).collect();
        let mut random = Random::new(seed);
        (1..order.len()).rev().for_each(|i| order.swap(i, random.below(i + 1)));
        let src = integers(&conv, Operand::Src, seed);
        let weights = integers(&conv, Operand::Weights, !seed);
        let (from, to) = (shape(&conv, Operand::Weights), shape(&conv, Operand::Dst));
        let shuffled = tensor(from, |[oc, ic, h, w]| weights[at(from, [order[oc], ic, h, w])]);
        let mut agree = Ok(());
        for_each(conv, seed, |scope, case| {
            let dst = forward(scope, case, conv, &src, &weights);
            let expected = dst.map(|dst| tensor(to, |[n, oc, h, w]| dst[at(to, [n, order[oc], h, w])]));
            agree = agree.clone().and(equal(case, forward(scope, case, conv, &src, &shuffled), expected));
        });
        agree?;
    }
}

/// For readers: a central difference with step 1 is the gradient itself, because convolution is linear in each argument.
#[test]
fn gradients_are_central_differences() {
    for text in ["mb1ic2ih4oc3kh3ph1", "mb2ic1ih5oc2kh2sh2ph0", "g2mb1ic2ih4oc4kh3ph2dh1"] {
        let conv: Conv2d = text.parse().unwrap();
        let [src, weights, dst] =
            [Operand::Src, Operand::Weights, Operand::Dst].map(|o| integers(&conv, o, 7));
        let scope = Scope::everything().serial();
        scope.for_each(conv, Direction::Forward, |case, _| {
            let loss = |src: &[i64], weights: &[i64]| {
                forward(&scope, case, conv, src, weights).map(|y| inner(&y, &dst))
            };
            for (direction, values, other) in
                [(Direction::BackwardData, &src, &weights), (Direction::BackwardWeights, &weights, &src)]
            {
                if !scope.algorithms.names(direction).contains(&case.algorithm) {
                    continue;
                }
                let data = direction == Direction::BackwardData;
                let (left, right) = if data { (&dst, other) } else { (other, &dst) };
                let Some(gradient) = run(&scope, case, conv, direction, left, right) else { continue };
                for i in 0..values.len() {
                    let [up, down] = [1, -1].map(|step| {
                        let mut moved = values.clone();
                        moved[i] += step;
                        if data { loss(&moved, other) } else { loss(other, &moved) }
                    });
                    if let (Some(up), Some(down)) = (up, down) {
                        assert_eq!((up - down) / 2, gradient[i], "{case} {direction} at {i}");
                    }
                }
            }
        });
    }
}
