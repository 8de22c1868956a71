//! Gradients alone and together, replaced and accumulated: the same bits, and `+=` exact.

use convolve::registry::Registered;
use convolve::{
    BackwardData, BackwardWeights, Conv2d, Gradients, Operand, Par, Planner, Update, backward, definition,
};
use convolve_testkit::data::{Real, floats, small};
use convolve_testkit::{Direction, Run, Scope, close, reference, strategy};
use proptest::prelude::*;

/// src, weights, diff_dst in the layouts of the problem.
fn tensors(conv: &Conv2d, seed: u64) -> [Vec<f32>; 3] {
    [Operand::Src, Operand::Weights, Operand::Dst].map(|operand| {
        let values = Real::Normal.floats(reference::len(conv, operand), seed ^ operand as u64);
        reference::arrange(conv, operand, &values)
    })
}

fn bits(a: &[f32], b: &[f32]) -> Result<(), TestCaseError> {
    close::same_bits([1, 1, 1, a.len()], a, b).map_err(TestCaseError::fail)
}

proptest! {
    #![proptest_config(strategy::config(64))]

    /// Every subset of the three gradients, in one call or in several: the same bits of each.
    #[test]
    fn a_gradient_does_not_depend_on_which_others_are_wanted(conv in strategy::convs(), seed in any::<u64>()) {
        let [src, weights, diff_dst] = tensors(&conv, seed);
        let run = |wanted: usize| {
            let poison = Run::POISONS[wanted % 2];
            let mut gradients = [src.len(), weights.len(), conv.out_channels].map(|len| vec![poison; len]);
            let [a, b, c] = &mut gradients;
            let wanted = |i: usize, slice| (wanted & (1 << i) != 0).then_some(slice);
            let gradients_wanted = Gradients {
                diff_src: wanted(0, &mut a[..]),
                diff_weights: wanted(1, &mut b[..]),
                diff_bias: wanted(2, &mut c[..]),
                update: Update::Overwrite,
            };
            backward(conv, &src, &weights, &diff_dst, gradients_wanted).unwrap();
            gradients
        };
        let all = run(7);
        for wanted in 0..7 {
            let some = run(wanted);
            for i in 0..3 {
                if wanted & (1 << i) != 0 {
                    bits(&some[i], &all[i])?;
                } else {
                    prop_assert!(some[i].iter().all(|x| x.to_bits() == Run::POISONS[wanted % 2].to_bits()));
                }
            }
        }
        let mut alone = vec![f32::NAN; src.len()];
        convolve::backward_data(conv, &diff_dst, &weights, &mut alone).unwrap();
        bits(&alone, &all[0])?;
        let mut alone = vec![f32::NAN; weights.len()];
        convolve::backward_weights(conv, &src, &diff_dst, &mut alone).unwrap();
        bits(&alone, &all[1])?;
    }

    /// The plan says so too, for each algorithm: with and without the bias, the weights' gradient has the same bits.
    #[test]
    fn the_weight_gradient_of_each_algorithm_does_not_depend_on_the_bias(conv in strategy::convs(), seed in any::<u64>()) {
        let [src, _, diff_dst] = tensors(&conv, seed);
        for algorithm in BackwardWeights::algorithms() {
            let Ok(plan) = Planner::new().only(algorithm.name()).plan::<BackwardWeights>(conv) else { continue };
            let mut workspace = plan.workspace().unwrap();
            let mut run = |weights: bool, bias: bool| {
                let mut diff_weights = vec![f32::NAN; plan.geometry().weights_len()];
                let mut diff_bias = vec![f32::NAN; conv.out_channels];
                let gradients = (weights.then_some(&mut diff_weights[..]), bias.then_some(&mut diff_bias[..]));
                let update = Update::Overwrite;
                plan.run(&src, &diff_dst, gradients.0, gradients.1, update, &mut workspace, Par::Current).unwrap();
                (diff_weights, diff_bias)
            };
            let both = run(true, true);
            bits(&run(true, false).0, &both.0)?;
            bits(&run(false, true).1, &both.1)?;
        }
    }

    /// On integers, accumulating adds exactly: twice over what was there.
    #[test]
    fn accumulating_adds_to_what_is_there(conv in strategy::convs(), seed in any::<u64>()) {
        let [src, weights, dst] = [Operand::Src, Operand::Weights, Operand::Dst]
            .map(|o| small(reference::len(&conv, o), seed ^ o as u64));
        let geometry = conv.geometry().unwrap();
        let place = |o, x: &[i64]| reference::arrange(&conv, o, x);
        let [src, weights, dst] = [(Operand::Src, src), (Operand::Weights, weights), (Operand::Dst, dst)].map(|(o, x)| place(o, &x));
        let once = [
            definition::backward_data(&geometry, &dst, &weights),
            definition::backward_weights(&geometry, &src, &dst),
            definition::backward_bias(&geometry, &dst),
        ];
        let initial = once.each_ref().map(|x| small(x.len(), !seed));
        let mut gradients = initial.each_ref().map(|x| floats(x));
        let [src, weights, dst] = [src, weights, dst].map(|x| floats(&x));
        for _ in 0..2 {
            let [a, b, c] = &mut gradients;
            let update = Update::Accumulate;
            let all = Gradients { diff_src: Some(a), diff_weights: Some(b), diff_bias: Some(c), update };
            backward(conv, &src, &weights, &dst, all).unwrap();
        }
        for i in 0..3 {
            let expected: Vec<i64> = initial[i].iter().zip(&once[i]).map(|(a, b)| a + 2 * b).collect();
            close::exact([1, 1, 1, expected.len()], &gradients[i], &expected).map_err(TestCaseError::fail)?;
        }
    }

    /// The gradient of the bias, against its own formula: the sum over images and pixels.
    #[test]
    fn the_bias_gradient_is_the_sum_of_each_channel(conv in strategy::convs(), seed in any::<u64>()) {
        let diff_dst = small(reference::len(&conv, Operand::Dst), seed);
        let [_, channels, h, w] = reference::shape(&conv, Operand::Dst);
        let mut expected = vec![0i64; channels];
        diff_dst.iter().enumerate().for_each(|(i, x)| expected[i / (h * w) % channels] += x);
        let placed = floats(&reference::arrange(&conv, Operand::Dst, &diff_dst));
        let mut diff_bias = vec![f32::NAN; channels];
        let (src, weights) = (vec![0.0; reference::len(&conv, Operand::Src)], vec![0.0; reference::len(&conv, Operand::Weights)]);
        let gradients = Gradients { diff_bias: Some(&mut diff_bias), ..Gradients::default() };
        backward(conv, &src, &weights, &placed, gradients).unwrap();
        close::exact([1, 1, 1, channels], &diff_bias, &expected).map_err(TestCaseError::fail)?;
    }

    /// Accumulating onto zeros has the bits of replacing, up to the sign of zero.
    #[test]
    fn accumulating_onto_zeros_is_replacing(conv in strategy::convs(), seed in any::<u64>()) {
        let weight_layouts = vec![conv.weight_layout];
        let scope = Scope { weight_layouts, directions: vec![Direction::BackwardData, Direction::BackwardWeights], ..Scope::strict().serial() };
        let mut agree = Ok(());
        scope.for_each_execution(conv, |execution| {
            let (conv, direction) = (&execution.case.conv, execution.case.direction);
            let [left, right] = [(direction.left(), 1), (direction.right(), 2)]
                .map(|(o, i)| convolve_testkit::data::real(conv, o, seed ^ i));
            let zeros = vec![0.0; reference::len(conv, direction.result())];
            let run = |initial| {
                let how = convolve_testkit::How { initial, ..Default::default() };
                let got = execution.run(&left, &right, &how, Run::new(execution.planned(), seed))?;
                Ok::<_, String>(got.iter().map(|x| x + 0.0).collect::<Vec<_>>())
            };
            agree = agree.clone().and_then(|()| {
                let (replaced, added): (Vec<f32>, Vec<f32>) = (run(None)?, run(Some(&zeros))?);
                close::same_bits(execution.shape(), &added, &replaced).map_err(|e| format!("{}: {e}", execution.case))
            });
        });
        agree.map_err(TestCaseError::fail)?;
    }
}

/// NaN that is there stays when it is accumulated to, and goes when it is replaced.
#[test]
fn replacing_forgets_and_accumulating_keeps_nan() {
    let conv: Conv2d = "mb1ic3ih5oc18kh3ph1".parse().unwrap();
    for direction in [Direction::BackwardData, Direction::BackwardWeights] {
        Scope::everything().only(direction).for_each_execution(conv, |execution| {
            let [left, right] = Real::Normal.operands(&conv, direction, 1);
            let nans = vec![f32::NAN; reference::len(&conv, direction.result())];
            let how = convolve_testkit::How { initial: Some(&nans), ..Default::default() };
            let got = execution.run(&left, &right, &how, Run::new(execution.planned(), 1)).unwrap();
            assert!(got.iter().all(|x| x.is_nan()), "{}", execution.case);
            let got =
                execution.run(&left, &right, &Default::default(), Run::new(execution.planned(), 1)).unwrap();
            assert!(got.iter().all(|x| x.is_finite()), "{}", execution.case);
        });
    }
    assert!(!BackwardData::algorithms().is_empty());
}
