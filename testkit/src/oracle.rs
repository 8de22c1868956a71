//! The oracle: everything in a [`Scope`] against the reference, on integers, with tolerance 0.

use std::collections::BTreeMap;
use std::fmt;

use convolve::{Activation, Conv2d, Epilogue, Operand};

use crate::data::{self, Fill, floats};
use crate::{Direction, Execution, How, Refusal, Run, Scope, close, reference};

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Problems.
    pub problems: u64,
    /// Results compared.
    pub executions: u64,
    /// Cases refused, by pass, algorithm and reason.
    pub refused: BTreeMap<(Direction, &'static str, String), u64>,
    /// One sentence for each wrong result.
    pub mismatches: Vec<String>,
}

impl Tally {
    /// Adds another.
    pub fn add(&mut self, other: Self) {
        self.problems += other.problems;
        self.executions += other.executions;
        for (key, count) in other.refused {
            *self.refused.entry(key).or_default() += count;
        }
        self.mismatches.extend(other.mismatches);
    }

    /// Fails when something was wrong, or when nothing was compared.
    ///
    /// # Panics
    /// Then.
    pub fn assert_clean(&self) {
        assert!(self.mismatches.is_empty(), "{self}");
        assert!(self.executions > 0, "nothing was run");
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mismatch in self.mismatches.iter().take(20) {
            writeln!(f, "{mismatch}")?;
        }
        if self.mismatches.len() > 20 {
            writeln!(f, "... and {} more", self.mismatches.len() - 20)?;
        }
        let refused: u64 = self.refused.values().sum();
        let (problems, executions, mismatches) = (self.problems, self.executions, self.mismatches.len());
        write!(
            f,
            "{problems} problems, {executions} executions, {refused} refused, {mismatches} mismatches"
        )?;
        for ((direction, algorithm, reason), count) in &self.refused {
            write!(f, "\n  {count} refused: {direction} {algorithm}: {reason}")?;
        }
        Ok(())
    }
}

/// A law about a problem: `Err` says what broke it.
pub type Agree = Result<(), String>;

impl Scope {
    /// Runs everything in this scope on one problem and compares each result with the reference. Every case runs twice: plain, and
    /// with all that may be added (bias, residual and activation; a previous gradient). The seed decides data and conditions.
    pub fn check(&self, conv: Conv2d, seed: u64) -> Tally {
        let mut tally = Tally { problems: 1, ..Tally::default() };
        for &direction in &self.directions {
            self.check_pass(conv, direction, seed, &mut tally);
        }
        tally
    }

    fn check_pass(&self, conv: Conv2d, direction: Direction, seed: u64, tally: &mut Tally) {
        let fill = Fill::ALL[(seed % 3) as usize];
        let operands = fill.integers(&conv, direction, seed);
        let expected = reference::reference(&conv, direction, &operands[0], &operands[1]);
        if let Err(vacuous) = close::telling(&expected, &reference::terms(&conv, direction)) {
            tally.mismatches.push(format!("--pass {direction} {conv}: {fill:?}: {vacuous}"));
        }
        let result = direction.result();
        let (extra, bias) =
            (data::small(expected.len(), seed), data::small(reference::len(&conv, Operand::Bias), !seed));
        for conv in self.layouts(conv) {
            let in_place = |operand, tensor: &[i64]| reference::arrange(&conv, operand, tensor);
            let left = floats(&in_place(direction.left(), &operands[0]));
            let right = floats(&in_place(direction.right(), &operands[1]));
            let (expected, extra) = (in_place(result, &expected), in_place(result, &extra));
            let (bias, extra) = (floats(&bias), floats(&extra));
            let channels = channel_of(&conv);
            let mut conditions = seed;
            self.for_each(conv, direction, |case, ready| {
                let execution = match ready {
                    Ok(execution) => execution,
                    Err(Refusal::Unsupported(reason)) => {
                        *tally.refused.entry((direction, case.algorithm, reason)).or_default() += 1;
                        return;
                    }
                    Err(Refusal::Error(error)) => return tally.mismatches.push(format!("{case}: {error}")),
                };
                conditions = conditions.wrapping_add(1);
                let more = added(direction, conditions, &bias, &extra);
                for how in [How::default(), more] {
                    let run = Run::new(execution.planned(), conditions);
                    let agree = execution.run(&left, &right, &how, run).and_then(|got| {
                        let expected = finished(&expected, &how, &channels);
                        execution
                            .agrees(&got, &expected, &operands)
                            .map_err(|what| format!("{case}: {what} ({fill:?}, {how}, seed {seed})"))
                    });
                    tally.executions += 1;
                    tally.mismatches.extend(agree.err());
                }
            });
        }
    }
}

/// What the second run adds, in turn.
fn added<'a>(direction: Direction, turn: u64, bias: &'a [f32], extra: &'a [f32]) -> How<'a> {
    if direction != Direction::Forward {
        return How { initial: Some(extra), ..How::default() };
    }
    let clamp = Activation::Clamp { min: -20.0, max: 100.0 };
    let epilogue = match turn % 6 {
        0 => Epilogue::bias(bias),
        1 => Epilogue::bias(bias).relu(),
        2 => Epilogue::NONE.activation(clamp),
        3 => Epilogue::NONE.residual(extra),
        4 => Epilogue::bias(bias).residual(extra).activation(clamp),
        _ => Epilogue::bias(bias).activation(Activation::LeakyRelu { slope: 2.0 }),
    };
    How { epilogue, initial: None }
}

/// The output channel of each element of `dst`, in the order of memory.
pub(crate) fn channel_of(conv: &Conv2d) -> Vec<usize> {
    let [n, c, h, w] = reference::shape(conv, Operand::Dst);
    let channels: Vec<usize> = (0..n * c * h * w).map(|i| i / (h * w) % c).collect();
    reference::arrange(conv, Operand::Dst, &channels)
}

/// The reference after what `how` adds, by its definition, in integers.
fn finished(expected: &[i64], how: &How<'_>, channels: &[usize]) -> Vec<i64> {
    let Epilogue { bias, residual, activation } = how.epilogue;
    let finish = |(i, &sum): (usize, &i64)| {
        let at = |tensor: Option<&[f32]>, i: usize| tensor.map_or(0, |t| t[i] as i64);
        let x = sum + bias.map_or(0, |bias| bias[channels[i]] as i64) + at(residual, i) + at(how.initial, i);
        match activation {
            // A conversion of infinity saturates.
            Activation::Clamp { min, max } => x.max(min as i64).min(max as i64),
            Activation::LeakyRelu { slope } if x < 0 => x * slope as i64,
            _ => x,
        }
    };
    expected.iter().enumerate().map(finish).collect()
}

impl fmt::Display for How<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Epilogue { bias, residual, activation } = self.epilogue;
        let mut parts = Vec::new();
        parts.extend(bias.map(|_| "bias".to_owned()));
        parts.extend(residual.map(|_| "residual".to_owned()));
        parts.extend((activation != Activation::IDENTITY).then(|| format!("{activation:?}")));
        parts.extend(self.initial.map(|_| "accumulated".to_owned()));
        f.write_str(&if parts.is_empty() { "plain".to_owned() } else { parts.join(" + ") })
    }
}

impl Execution {
    /// A result of integer operands is the integers, or, from an algorithm that transforms, within its alarm of them.
    ///
    /// # Errors
    /// A sentence with the first difference.
    pub fn agrees(&self, got: &[f32], expected: &[i64], operands: &[Vec<i64>; 2]) -> Result<(), String> {
        if self.sums() {
            return close::exact(self.shape(), got, expected);
        }
        let [left, right] = operands.each_ref().map(|x| x.iter().map(|&x| x as f64).collect::<Vec<_>>());
        let expected: Vec<f64> = expected.iter().map(|&x| x as f64).collect();
        // A leaky slope of 2 doubles an error; bias, residual and what was there round once each.
        let bound = self.alarm(&left, &right).into_iter().zip(&expected);
        let bound: Vec<f64> = bound.map(|(b, x)| 2.0 * b + 4.0 * x.abs() * 2f64.powi(-24)).collect();
        close::within(self.shape(), got, &expected, &bound)
    }

    /// [`Execution::run`] as planned, on operands in the order of indices; the result is in that order too.
    ///
    /// # Errors
    /// As [`Execution::run`].
    pub fn run_canonical(&self, left: &[f32], right: &[f32], seed: u64) -> Result<Vec<f32>, String> {
        let (conv, direction) = (&self.case.conv, self.case.direction);
        let left = reference::arrange(conv, direction.left(), left);
        let right = reference::arrange(conv, direction.right(), right);
        let result = self.run(&left, &right, &How::default(), Run::new(self.planned(), seed))?;
        Ok(reference::canonical(conv, direction.result(), &result))
    }
}
