//! What can be wrong with a request, said for people: both shapes, the parameter, the likely fix.

use crate::Exclusion;
use convolve_simd::IsaError;

/// Every way in which a request can be refused.
///
/// Errors arise at three doors only: [`Conv2d::geometry`](crate::Conv2d::geometry) (the problem itself), planning
/// (no algorithm, an algorithm forced by name) and running (slice lengths). Nothing below them can fail.
///
/// ```
/// use convolve_core::{Conv2d, Error};
/// let error = Conv2d::new(3, 8, 7).input(4).geometry().unwrap_err();
/// assert!(matches!(error, Error::KernelDoesNotFit { .. }));
/// assert_eq!(
///     error.to_string(),
///     "kernel height 7 (dilation 1, so it covers 7) does not fit the padded input height 4 (input 4 + padding 0 + 0): \
///      the output would be empty; pad by at least 3 more or use a smaller kernel"
/// );
/// ```
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A parameter has a value that no convolution can have.
    #[error("{parameter} = {value}: {reason}")]
    Parameter {
        /// The builder method that sets it.
        parameter: &'static str,
        /// The value that was given.
        value: usize,
        /// What it must be, and why.
        reason: &'static str,
    },
    /// The same for a number that is not whole.
    #[error("{parameter} = {value}: {reason}")]
    Number {
        /// The field that has it.
        parameter: &'static str,
        /// The value that was given.
        value: f64,
        /// What it must be, and why.
        reason: &'static str,
    },
    /// Channels cannot be divided into the groups.
    #[error(
        "{parameter} = {channels} cannot be divided into {groups} groups: each group takes {parameter} / groups channels; \
         nearest that can: groups = {suggestion}"
    )]
    Groups {
        /// `in_channels` or `out_channels`.
        parameter: &'static str,
        /// Its value.
        channels: usize,
        /// The groups asked for.
        groups: usize,
        /// The nearest number of groups that divides both channel counts.
        suggestion: usize,
    },
    /// The dilated kernel is larger than the padded input, so the output would be empty.
    #[error(
        "kernel {axis} {kernel} (dilation {dilation}, so it covers {extent}) does not fit the padded input {axis} {padded} \
         (input {input} + padding {begin} + {end}): the output would be empty; pad by at least {} more or use a smaller kernel",
        extent - padded
    )]
    KernelDoesNotFit {
        /// `height` or `width`.
        axis: &'static str,
        /// Taps of the kernel.
        kernel: usize,
        /// Its dilation.
        dilation: usize,
        /// Pixels that it covers: `dilation * (kernel - 1) + 1`.
        extent: usize,
        /// Pixels of the input.
        input: usize,
        /// Padding before.
        begin: usize,
        /// Padding after.
        end: usize,
        /// `input + begin + end`.
        padded: usize,
    },
    /// A size does not fit the address space.
    #[error(
        "{what} of {problem} does not fit the address space ({bits} bits): is a size, a stride, a dilation or a padding meant to be that large? If so, split the batch or the channels"
    )]
    TooLarge {
        /// Which size overflowed.
        what: &'static str,
        /// The problem, in the words of its fields.
        problem: String,
        /// Bits of a `usize` here.
        bits: u32,
    },
    /// The system does not give that much memory.
    #[error("no memory for {floats} floats ({} MiB)", floats / (1 << 18))]
    OutOfMemory {
        /// Floats that were asked for.
        floats: usize,
    },
    /// A slice does not have the length that the problem says.
    #[error("{operand} has {got} elements, but {shape} needs {expected}{hint}")]
    Length {
        /// `src`, `weights`, `dst`, `diff_src`, ...
        operand: &'static str,
        /// The shape that the problem gives it, with its layout.
        shape: String,
        /// Elements of that shape.
        expected: usize,
        /// Elements of the slice.
        got: usize,
        /// The likely fix, or nothing.
        hint: String,
    },
    /// The only algorithm that was allowed does not serve this problem.
    #[error("algorithm `{algorithm}` does not serve {problem} ({pass}): {reason}")]
    Unsupported {
        /// Its name.
        algorithm: &'static str,
        /// The pass that was asked for.
        pass: &'static str,
        /// The problem as a benchdnn string.
        problem: String,
        /// The algorithm's own sentence.
        reason: &'static str,
    },
    /// The limits leave no algorithm.
    #[error("the limits leave no algorithm for {problem} ({pass}): {}", list(excluded))]
    Excluded {
        /// The pass that was asked for.
        pass: &'static str,
        /// The problem as a benchdnn string.
        problem: String,
        /// Every algorithm that serves the problem, and the limit that excludes it.
        excluded: Vec<(&'static str, Exclusion)>,
    },
    /// No algorithm has that name.
    #[error("no algorithm is called `{name}` in the {pass} pass; there are: {known}")]
    UnknownAlgorithm {
        /// The name that was asked for.
        name: String,
        /// The pass that was asked for.
        pass: &'static str,
        /// The names that exist.
        known: String,
    },
    /// A problem string does not parse.
    #[error("problem `{text}`: {reason}")]
    Problem {
        /// The text.
        text: String,
        /// What is wrong and where.
        reason: String,
    },
    /// The instruction set that was asked for is not here.
    #[error(transparent)]
    Isa(#[from] IsaError),
    /// Weights packed by another plan were handed to this one.
    #[error(
        "these weights were packed for {packed}, but the plan is for {plan}: call `pack` of the plan that runs them"
    )]
    Packed {
        /// Problem and algorithm that packed them.
        packed: String,
        /// Problem and algorithm of the plan.
        plan: String,
    },
}

/// `direct: it is forbidden; im2col: ...`.
fn list(excluded: &[(&'static str, Exclusion)]) -> String {
    let sentences: Vec<_> = excluded.iter().map(|(name, reason)| format!("{name}: {reason}")).collect();
    sentences.join("; ")
}
