//! Derivatives of activations and of the loss against central differences in f64, over the whole range that the documentation states, with
//! bounds that are derived.

use convolve::{Function, Par, Update, cross_entropy, softmax};
use convolve_testkit::data::Random;
use convolve_testkit::rough::U;
use convolve_testkit::{Run, close, isas};

/// A step of differences; adding it to what f32 holds in [2^-17, 128] is exact.
const STEP: f64 = 1.0 / (1 << 17) as f64;
/// The range of the table in the documentation of [`Function`].
const RANGE: [f32; 2] = [-86.0, 88.0];
/// What is below may be 0.
const LEAST: f64 = 1.0 / (1u128 << 122) as f64;

/// `erfc(x)` for `x >= 0`, to some units in the last place: 1 - a series of positive terms, or a continued fraction.
fn erfc(x: f64) -> f64 {
    if x < 2.0 {
        let (mut term, mut sum) = (x, x);
        for n in 1..100 {
            term *= 2.0 * x * x / f64::from(2 * n + 1);
            sum += term;
        }
        return 1.0 - sum * (-x * x).exp() * std::f64::consts::FRAC_2_SQRT_PI;
    }
    let fraction = (1..300).rev().fold(0.0, |below, n| 0.5 * f64::from(n) / (x + below));
    (-x * x).exp() / (x + fraction) / std::f64::consts::PI.sqrt()
}

/// The function up to a constant, which a difference does not see: what it tends to on that side of 0, so that little is rounded where it
/// is flat.
fn value(function: Function, x: f64, right: bool) -> f64 {
    let below = |x: f64| 0.5 * erfc(-x * std::f64::consts::FRAC_1_SQRT_2);
    match function {
        Function::Relu => x.max(0.0),
        Function::Relu6 => x.clamp(0.0, 6.0),
        Function::LeakyRelu { slope } => {
            if x > 0.0 {
                x
            } else {
                f64::from(slope) * x
            }
        }
        Function::Sigmoid if right => -1.0 / (x.exp() + 1.0),
        Function::Sigmoid => 1.0 / ((-x).exp() + 1.0),
        Function::Tanh if right => -2.0 / ((2.0 * x).exp() + 1.0),
        Function::Tanh => 2.0 / ((-2.0 * x).exp() + 1.0),
        Function::Silu => x / ((-x).exp() + 1.0),
        Function::Gelu if x > 0.0 => x * (1.0 - below(-x)),
        Function::Gelu => x * below(x),
        _ => unreachable!("a function that is not in the table"),
    }
}

/// What the table allows.
fn stated(function: Function, slope: f64) -> f64 {
    let u = 1.0 / (1 << 24) as f64;
    match function {
        Function::Sigmoid | Function::Tanh => 6.0 * u * slope.abs() + LEAST,
        Function::Silu | Function::Gelu => 4.0 * u,
        _ => 0.0,
    }
}

/// How far a central difference may be from the derivative: step^2 / 6 times a third derivative, and two values, each off by `rounded` of
/// some size, over twice the step.
fn off(function: Function, x: f64, slope: f64, right: bool) -> f64 {
    let size = value(function, x + STEP, right).abs().max(value(function, x - STEP, right).abs());
    let (third, rounded, size) = match function {
        // Sums of f32 and the step, exactly.
        Function::Relu | Function::Relu6 => (0.0, 0.0, 0.0),
        Function::LeakyRelu { .. } => (0.0, 0.5, size),
        // s''' = s' (1 - 6 s (1 - s)) and tanh''' = t' (6 t^2 - 2); within a step of x they change by less than a hundredth.
        Function::Sigmoid => (1.01 * slope.abs(), 4.0, size),
        Function::Tanh => (4.04 * slope.abs(), 4.0, size),
        // 3 s'' + x s'''.
        Function::Silu => (1.0, 4.0, size),
        // density(x) (x^3 - 4 x); a probability is 1 less something.
        Function::Gelu => (1.0, 4.0, 2.0 * x.abs() + STEP),
        _ => unreachable!("a function that is not in the table"),
    };
    third * STEP * STEP / 6.0 + rounded * f64::EPSILON * size / STEP
}

/// Eight binary digits of every binade, the line in steps, the ends.
fn sweep() -> Vec<f32> {
    let binades =
        (107..134).flat_map(|e| (0..256u32).map(move |m| f32::from_bits((e << 23) | (m << 15) | 0x5a3)));
    let line = (0..=40_000).map(|i| i as f32 * (88.0 / 40_000.0));
    let both = binades.chain(line).chain([86.0, 88.0, 0.625]).flat_map(|x| [x, -x]);
    both.filter(|x| (RANGE[0]..=RANGE[1]).contains(x)).collect()
}

#[test]
fn derivatives_are_differences_over_the_whole_range() {
    let all = sweep();
    assert!(RANGE.iter().all(|end| all.contains(end)));
    for function in Function::ALL {
        let kinks: &[f32] = match function {
            Function::Relu | Function::LeakyRelu { .. } => &[0.0],
            Function::Relu6 => &[0.0, 6.0],
            _ => &[],
        };
        // At a kink there is no derivative; what is said there is tested with the values.
        let smooth = |x: &&f32| kinks.iter().all(|kink| f64::from((**x - kink).abs()) > STEP);
        let src: Vec<f32> = all.iter().filter(smooth).copied().collect();
        assert!(src.len() * 100 > all.len() * 90);
        let (mut expected, mut bound) = (Vec::new(), Vec::new());
        for x in src.iter().map(|&x| f64::from(x)) {
            let right = x > 0.0;
            let slope = (value(function, x + STEP, right) - value(function, x - STEP, right)) / (2.0 * STEP);
            let off = off(function, x, slope, right);
            // The difference must not be the worse of the two.
            let worst = 0.1 * stated(function, slope).max(1.0 / (1 << 24) as f64 * slope.abs());
            assert!(off <= worst + LEAST, "{function:?} at {x}: a difference is off by {off:e}");
            expected.push(slope);
            bound.push(stated(function, slope) + off);
        }
        for isa in isas() {
            let mut got = vec![Run::POISONS[0]; src.len()];
            function
                .backward(&src, &vec![1.0; src.len()], &mut got, Update::Overwrite, isa, Par::Seq)
                .unwrap();
            close::within([1, 1, 1, src.len()], &got, &expected, &bound)
                .unwrap_or_else(|e| panic!("{function:?} on {isa}: {e}"));
            // A gradient on its way back, in place and not: one product more.
            let diff: Vec<f32> = (0..src.len()).map(|i| (i % 9) as f32 - 4.0).collect();
            let (mut in_place, mut apart) = (diff.clone(), vec![f32::NAN; src.len()]);
            function.backward_in_place(&src, &mut in_place, isa, Par::Seq).unwrap();
            function.backward(&src, &diff, &mut apart, Update::Overwrite, isa, Par::Seq).unwrap();
            let product: Vec<f32> = got.iter().zip(&diff).map(|(slope, diff)| slope * diff).collect();
            close::same_bits([1, 1, 1, src.len()], &apart, &product).unwrap();
            close::same_bits([1, 1, 1, src.len()], &in_place, &product).unwrap();
        }
    }
}

/// `log(sum over k of e^x[k]) - x[label]`, of one row.
fn loss(row: &[f64], label: usize) -> f64 {
    let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    row.iter().map(|x| (x - max).exp()).sum::<f64>().ln() + (max - row[label])
}

/// Rows of logits: a few apart, many apart, and one far above all others.
fn logits(classes: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed);
    let mut src: Vec<f32> = (0..4 * classes).map(|_| random.normal() as f32).collect();
    src[classes..2 * classes].iter_mut().for_each(|x| *x *= 12.0);
    src[2 * classes..3 * classes].iter_mut().for_each(|x| *x += 1000.0);
    src[3 * classes + classes / 3] = 70.0;
    src
}

/// Replaced and added to (which are computed by different code), every label, every class.
#[test]
fn the_gradient_of_the_loss_is_the_difference() {
    for classes in [1, 2, 3, 7, 10, 16, 17, 33, 50] {
        let src = logits(classes, classes as u64);
        let exact: Vec<f64> = src.iter().map(|&x| f64::from(x)).collect();
        for turn in 0..classes.min(6) {
            let labels = [turn, classes - 1 - turn, (turn * 7 + 1) % classes, classes / 3];
            let (mut expected, mut bound) = (Vec::new(), Vec::new());
            for (row, label) in exact.chunks(classes).zip(labels) {
                let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let powers: Vec<f64> = row.iter().map(|x| (x - max).exp()).collect();
                let total: f64 = powers.iter().sum();
                // A power is off by the rounding of x - max, which e^ makes relative, and by 4 u of its own.
                let of_power = |k: usize| (max - row[k] + 4.0) * U;
                let of_total =
                    (0..classes).map(|k| powers[k] * of_power(k)).sum::<f64>() / total + classes as f64 * U;
                for k in 0..classes {
                    let moved = |by: f64| {
                        let mut row = row.to_vec();
                        row[k] += by;
                        loss(&row, label)
                    };
                    expected.push((moved(STEP) - moved(-STEP)) / (2.0 * STEP) / 4.0);
                    let probability = powers[k] / total;
                    // A division; the label's 1; the product with 1/4 is exact. What is below e^-86.6 is 0.
                    let rounded = probability * (of_power(k) + of_total + U) * 1.01
                        + U * f64::from(u8::from(k == label));
                    // The third derivative of a loss is 1/6 at most; it is a logarithm and a difference of logits, off by their last places.
                    let size = 1.0 + classes as f64 + max - row[label];
                    let difference = STEP * STEP / 36.0 + 2.0 * f64::EPSILON * size / STEP;
                    bound.push((rounded + difference) / 4.0 + (-86.6f64).exp());
                }
            }
            let shape = [1, 1, 4, classes];
            for isa in isas() {
                let mut diff = vec![f32::NAN; src.len()];
                let run = |diff: &mut [f32], update| {
                    cross_entropy(&src, classes, &labels, Some(diff), update, isa, Par::Seq).unwrap()
                };
                let of_rows = run(&mut diff, Update::Overwrite);
                close::within(shape, &diff, &expected, &bound)
                    .unwrap_or_else(|e| panic!("{classes} classes, labels {labels:?}, on {isa}: {e}"));
                let total: f64 =
                    exact.chunks(classes).zip(labels).map(|(row, label)| loss(row, label)).sum::<f64>() / 4.0;
                // Logarithms of sums as above, in f64 from there on.
                assert!(
                    (of_rows - total).abs() <= (classes as f64 + 100.0) * U,
                    "{of_rows} for {total} on {isa}"
                );
                let mut added = vec![1.0; src.len()];
                assert_eq!(run(&mut added, Update::Accumulate).to_bits(), of_rows.to_bits());
                let sums: Vec<f64> = expected.iter().map(|x| x + 1.0).collect();
                let more: Vec<f64> = bound.iter().map(|x| x + 2.0 * U).collect();
                close::within(shape, &added, &sums, &more)
                    .unwrap_or_else(|e| panic!("added: {classes} classes, labels {labels:?}, on {isa}: {e}"));
                // The gradient is that of its definition: probabilities, less 1 at the label.
                let mut probabilities = vec![f32::NAN; src.len()];
                softmax(&src, classes, &mut probabilities, isa, Par::Seq).unwrap();
                for (row, label) in probabilities.chunks_mut(classes).zip(labels) {
                    row[label] -= 1.0;
                }
                let quarters: Vec<f32> = probabilities.iter().map(|p| p / 4.0).collect();
                close::same_bits(shape, &diff, &quarters)
                    .unwrap_or_else(|e| panic!("{classes} classes on {isa}: {e}"));
            }
        }
    }
}
