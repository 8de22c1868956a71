//! A linear layer is its sums in i64 in every pass, on integers of all sizes that f32 adds exactly; its gradients are adjoint to it, and
//! the differences of a loss.

use convolve::{Conv2d, Epilogue, FullyConnected, Linear, Par, Update, WeightOrder};
use convolve_testkit::data::{Fill, floats, inner, integers, small};
use convolve_testkit::{Direction, Run, close, isas, pool, strategy};
use proptest::prelude::*;
use proptest::sample::select;

/// Sizes at the edges of lanes and tiles, a batch of one (which has loops of its own) often.
fn layers() -> impl Strategy<Value = Linear> {
    let size = || prop_oneof![2 => select(strategy::edges()), 1 => 1usize..=150];
    let batch = prop_oneof![2 => Just(1usize), 2 => 2usize..=9, 1 => select(strategy::edges()), 1 => Just(0)];
    (batch, size(), size(), select(vec![WeightOrder::OutIn, WeightOrder::InOut])).prop_map(
        |(batch, inputs, outputs, weights)| Linear::new(inputs, outputs).batch(batch).weights(weights),
    )
}

/// `w(o, i)` in the order of memory.
fn place(linear: &Linear, o: usize, i: usize) -> usize {
    match linear.weights {
        WeightOrder::OutIn => o * linear.in_features + i,
        WeightOrder::InOut => i * linear.out_features + o,
    }
}

/// The operands of a pass whose every partial sum f32 holds: those of a convolution of single pixels.
fn operands(linear: &Linear, direction: Direction, fill: Fill, seed: u64) -> [Vec<i64>; 2] {
    let conv = Conv2d::new(linear.in_features, linear.out_features, 1).input(1).batch(linear.batch);
    fill.integers(&conv, direction, seed)
}

/// The result of a pass, from its two operands as [`Direction`] has them.
fn defined(linear: &Linear, direction: Direction, left: &[i64], right: &[i64]) -> Vec<i64> {
    let Linear { batch, in_features, out_features, .. } = *linear;
    let mut result = vec![0; result_len(linear, direction)];
    for (n, o, i) in
        (0..batch).flat_map(|n| (0..out_features).flat_map(move |o| (0..in_features).map(move |i| (n, o, i))))
    {
        let (src, weights, dst) = (n * in_features + i, place(linear, o, i), n * out_features + o);
        match direction {
            Direction::Forward => result[dst] += left[src] * right[weights],
            Direction::BackwardData => result[src] += left[dst] * right[weights],
            Direction::BackwardWeights => result[weights] += left[src] * right[dst],
        }
    }
    result
}

fn result_len(linear: &Linear, direction: Direction) -> usize {
    match direction {
        Direction::Forward => linear.batch * linear.out_features,
        Direction::BackwardData => linear.batch * linear.in_features,
        Direction::BackwardWeights => linear.in_features * linear.out_features,
    }
}

/// One pass of a plan: its result, to which something may be added, and the gradient of the bias.
fn run(
    plan: &FullyConnected,
    direction: Direction,
    [left, right]: [&[f32]; 2],
    bias: Option<&[f32]>,
    (result, update): (Vec<f32>, Update),
    par: Par<'_>,
) -> (Vec<f32>, Vec<f32>) {
    let mut result = result;
    let mut workspace = vec![Run::POISONS[0]; plan.workspace_len()];
    // Replaced or added to, as the weights are.
    let initial = if update == Update::Overwrite { f32::NAN } else { 3.0 };
    let mut diff_bias = vec![initial; plan.linear().out_features];
    match direction {
        Direction::Forward => {
            let packed = plan.pack(right).unwrap();
            let epilogue = bias.map_or(Epilogue::NONE, Epilogue::bias);
            plan.forward(&packed, left, &mut result, epilogue, &mut workspace, par)
        }
        Direction::BackwardData => {
            let packed = plan.pack_for_data(right).unwrap();
            plan.backward_data(&packed, left, &mut result, update, &mut workspace, par)
        }
        Direction::BackwardWeights => {
            let bias = Some(&mut diff_bias[..]);
            plan.backward_weights(left, right, &mut result, bias, update, &mut workspace, par)
        }
    }
    .unwrap();
    (result, diff_bias)
}

fn shaped(agree: Result<(), String>, what: &str, linear: &Linear) -> Result<(), TestCaseError> {
    agree.map_err(|e| TestCaseError::fail(format!("{what} of {linear:?}: {e}")))
}

proptest! {
    #![proptest_config(strategy::config(150))]

    /// Twelve significant bits on one side: no detour through fewer would pass.
    #[test]
    fn every_pass_is_its_sum_in_integers(linear in layers(), fill in select(&Fill::ALL[..]), seed in any::<u64>()) {
        for direction in Direction::ALL {
            let [left, right] = operands(&linear, direction, fill, seed);
            let expected = defined(&linear, direction, &left, &right);
            let (bias, before) = (small(linear.out_features, seed), small(expected.len(), !seed));
            let [with_bias, added] = [
                (0..expected.len()).map(|at| expected[at] + bias[at % linear.out_features]).collect::<Vec<_>>(),
                (0..expected.len()).map(|at| expected[at] + before[at]).collect(),
            ];
            let mut diff_bias = vec![0; linear.out_features];
            if direction == Direction::BackwardWeights {
                right.iter().enumerate().for_each(|(at, x)| diff_bias[at % linear.out_features] += x);
            }
            let added_bias: Vec<i64> = diff_bias.iter().map(|x| x + 3).collect();
            let operands = [floats(&left), floats(&right)];
            let (shape, bias, before) = ([1, 1, 1, expected.len()], floats(&bias), floats(&before));
            for (isa, threads) in isas().into_iter().flat_map(|isa| [1, 3].map(|threads| (isa, threads))) {
                let plan = linear.plan(isa, threads).unwrap();
                let go = |bias, result: &[f32], update| {
                    let [left, right] = &operands;
                    pool(threads).install(|| {
                        run(&plan, direction, [left, right], bias, (result.to_vec(), update), Par::Current)
                    })
                };
                let poison = vec![f32::NAN; expected.len()];
                let (got, bias_got) = go(None, &poison, Update::Overwrite);
                shaped(close::exact(shape, &got, &expected), &format!("{direction} on {isa}"), &linear)?;
                if direction == Direction::Forward {
                    let (got, _) = go(Some(&bias), &poison, Update::Overwrite);
                    shaped(close::exact(shape, &got, &with_bias), &format!("forward with bias on {isa}"), &linear)?;
                    continue;
                }
                let (got, bias_sum) = go(None, &before, Update::Accumulate);
                shaped(close::exact(shape, &got, &added), &format!("accumulated {direction} on {isa}"), &linear)?;
                if direction == Direction::BackwardWeights {
                    let shape = [1, 1, 1, bias_got.len()];
                    shaped(close::exact(shape, &bias_got, &diff_bias), &format!("diff_bias on {isa}"), &linear)?;
                    shaped(close::exact(shape, &bias_sum, &added_bias), &format!("added diff_bias on {isa}"), &linear)?;
                }
            }
        }
    }

    /// <L(x, w), y> = <x, diff_src(y, w)> = <w, diff_weights(x, y)>, of results of the library alone.
    #[test]
    fn the_passes_are_adjoint(linear in layers(), seed in any::<u64>()) {
        let Linear { batch, in_features, out_features, .. } = linear;
        let x = small(batch * in_features, seed);
        let w = small(in_features * out_features, !seed);
        let y = small(batch * out_features, seed.rotate_left(9));
        let [src, weights, diff_dst] = [&x, &w, &y].map(|x| floats(x));
        for isa in isas() {
            let plan = linear.plan(isa, 1).unwrap();
            let [dst, diff_src, diff_weights] = Direction::ALL.map(|direction| {
                let operands = match direction {
                    Direction::Forward => [&src[..], &weights],
                    Direction::BackwardData => [&diff_dst[..], &weights],
                    Direction::BackwardWeights => [&src[..], &diff_dst],
                };
                let poison = vec![f32::NAN; result_len(&linear, direction)];
                let (result, _) = run(&plan, direction, operands, None, (poison, Update::Overwrite), Par::Seq);
                integers(&result).unwrap()
            });
            prop_assert_eq!(inner(&dst, &y), inner(&x, &diff_src), "diff_src of {:?} on {}", linear, isa);
            prop_assert_eq!(inner(&dst, &y), inner(&w, &diff_weights), "diff_weights of {:?} on {}", linear, isa);
        }
    }
}

/// `loss = sum of dy * (W x + b)`, in f64.
fn loss(linear: &Linear, [src, weights, bias]: [&[f64]; 3], diff_dst: &[f64]) -> f64 {
    let Linear { batch, in_features, out_features, .. } = *linear;
    let mut loss = 0.0;
    for (n, o) in (0..batch).flat_map(|n| (0..out_features).map(move |o| (n, o))) {
        let products = (0..in_features).map(|i| src[n * in_features + i] * weights[place(linear, o, i)]);
        loss += diff_dst[n * out_features + o] * (products.sum::<f64>() + bias[o]);
    }
    loss
}

/// The loss is linear in each operand, so a central difference with a step of 1/2 is its derivative, and on small integers exact.
#[test]
fn gradients_are_differences_of_a_loss() {
    for (batch, weights) in [(1, WeightOrder::OutIn), (3, WeightOrder::OutIn), (3, WeightOrder::InOut)] {
        let linear = Linear::new(9, 7).batch(batch).weights(weights);
        let integers = [9 * batch, 63, 7, 7 * batch].map(|len| small(len, len as u64));
        let [src, weights, _, diff_dst] = integers.each_ref().map(|x| floats(x));
        let exact = integers.each_ref().map(|x| x.iter().map(|&x| x as f64).collect::<Vec<_>>());
        for isa in isas() {
            let plan = linear.plan(isa, 1).unwrap();
            let gradient = |direction, operands| {
                let poison = vec![f32::NAN; result_len(&linear, direction)];
                run(&plan, direction, operands, None, (poison, Update::Overwrite), Par::Seq)
            };
            let (diff_src, _) = gradient(Direction::BackwardData, [&diff_dst[..], &weights]);
            let (diff_weights, diff_bias) = gradient(Direction::BackwardWeights, [&src[..], &diff_dst]);
            for (k, got) in [diff_src, diff_weights, diff_bias].iter().enumerate() {
                let difference = |i: usize| {
                    let moved = |by: f64| {
                        let mut operands = [exact[0].clone(), exact[1].clone(), exact[2].clone()];
                        operands[k][i] += by;
                        loss(&linear, operands.each_ref().map(|x| &x[..]), &exact[3])
                    };
                    moved(0.5) - moved(-0.5)
                };
                let expected: Vec<i64> = (0..got.len()).map(|i| difference(i) as i64).collect();
                close::telling(&expected, &vec![1; expected.len()]).unwrap();
                close::exact([1, 1, 1, got.len()], got, &expected)
                    .unwrap_or_else(|e| panic!("{k} of {linear:?} on {isa}: {e}"));
            }
        }
    }
}
