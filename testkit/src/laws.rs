//! Laws that hold for bits, of any algorithm on any data: the result depends on nothing but the operands.

use convolve::{Conv2d, Layout, Operand, WeightLayout};

use crate::data::Real;
use crate::reference::{arrange, len};
use crate::{Agree, Direction, Execution, How, Run, Scope, Where, close};

fn data(execution: &Execution, seed: u64) -> [Vec<f32>; 2] {
    let (conv, direction) = (&execution.case.conv, execution.case.direction);
    let [left, right] = Real::ALL[(seed % 4) as usize].operands(conv, direction, seed);
    [arrange(conv, direction.left(), &left), arrange(conv, direction.right(), &right)]
}

fn same(execution: &Execution, what: &str, got: &[f32], expected: &[f32]) -> Agree {
    close::same_bits(execution.shape(), got, expected).map_err(|e| format!("{}: {what}: {e}", execution.case))
}

/// Neither threads, nor what buffers held, nor where they start, nor a repetition change a bit.
///
/// # Errors
/// What did.
pub fn conditions_change_no_bit(execution: &Execution, threads: &[usize], seed: u64) -> Agree {
    let [left, right] = data(execution, seed);
    let how = How::default();
    let calm = Run { poison: Run::POISONS[1], offsets: [0; 4], at: Where::Seq };
    let expected = execution.run(&left, &right, &how, calm)?;
    let mut runs = vec![(Where::Seq, Run::POISONS[0], [0; 4]), (Where::Seq, Run::POISONS[1], [0; 4])];
    runs.extend((1..16).map(|i| (Where::Seq, Run::POISONS[i % 2], [i, i * 5, i * 3, i * 7])));
    runs.extend(threads.iter().map(|&n| (Where::Pool(n), Run::POISONS[n % 2], [0, n, 0, n])));
    for (at, poison, offsets) in runs {
        let run = Run { poison, offsets, at };
        let got = execution.run(&left, &right, &how, run)?;
        same(execution, &format!("{run:?} changes the result"), &got, &expected)?;
    }
    Ok(())
}

/// Each image of a batch is the image alone (forward and the gradient of the input). The weight gradient has no batch.
///
/// # Errors
/// The first image that is not.
pub fn a_batch_is_its_images(scope: &Scope, execution: &Execution, seed: u64) -> Agree {
    let case = execution.case;
    if case.direction == Direction::BackwardWeights {
        return Ok(());
    }
    let one = Conv2d { batch: 1, ..case.conv };
    let Ok(alone) = scope.algorithms.ready(crate::Case { conv: one, ..case }) else {
        return Err(format!("{case}: refuses one image of its batch"));
    };
    let [left, right] = data(execution, seed);
    let batch = execution.run(&left, &right, &How::default(), Run::new(execution.planned(), seed))?;
    let (input, output) = (len(&one, case.direction.left()), len(&one, case.direction.result()));
    for (image, slice) in batch.chunks_exact(output).enumerate() {
        let left = &left[image * input..][..input];
        let got = alone.run(left, &right, &How::default(), Run::new(alone.planned(), seed + 1))?;
        same(&alone, &format!("image {image} alone differs from its place in the batch"), &got, slice)?;
    }
    Ok(())
}

/// The same bits on every instruction set with fused multiply-add. An algorithm that promises [`Strict`](convolve::Accuracy::Strict).
///
/// # Errors
/// The first that differs.
pub fn every_fused_isa_has_the_same_bits(
    scope: &Scope,
    conv: Conv2d,
    direction: Direction,
    seed: u64,
) -> Agree {
    let mut agree = Ok(());
    let mut first: Option<(&'static str, Vec<f32>)> = None;
    scope.for_each(conv, direction, |case, ready| {
        let (Ok(execution), Ok(())) = (ready, &agree) else { return };
        if case.isa.name() == "portable" {
            return;
        }
        let [left, right] = data(&execution, seed);
        agree = execution.run(&left, &right, &How::default(), Run::new(Where::Seq, seed)).and_then(|got| {
            match &first {
                Some((name, expected)) if *name == case.algorithm => {
                    same(&execution, "other bits than on the first ISA", &got, expected)?;
                }
                _ => first = Some((case.algorithm, got)),
            }
            Ok(())
        });
    });
    agree
}

/// A tensor of integers in the order of indices, as floats in the layout of `conv`.
pub fn placed(conv: &Conv2d, operand: Operand, integers: &[i64]) -> Vec<f32> {
    arrange(conv, operand, &crate::data::floats(integers))
}

/// Layouts for a law that needs only one of each per seed.
pub fn layouts(seed: u64) -> (Layout, WeightLayout) {
    (Layout::ALL[(seed % 2) as usize], WeightLayout::ALL[(seed / 2 % 3) as usize])
}
