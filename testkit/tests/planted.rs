//! The harness on trial: an honest toy passes everything, and each of these bugs, planted in it, is caught by the helper that tests
//! real algorithms. A bug that survives means that green runs prove nothing about its kind.

use std::sync::atomic::{AtomicU64, Ordering};

use convolve::{
    Algorithm, BackwardData, BackwardDataArgs, BackwardWeights, BackwardWeightsArgs, Conv2d, Estimate,
    Execute, Forward, ForwardArgs, Geometry, Layout, Par, Problem, Unsupported, Update, definition,
};
use convolve_testkit::{Algorithms, Direction, How, Run, Scope, Where, close, data, laws, strategy};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bug {
    None,
    /// Every group reads the channels of the first.
    GroupOffset,
    /// A row that is no multiple of 8 writes one element too many.
    TailMask,
    /// The last, partial tile of channels adds to what the destination held.
    StaleEdge,
    /// The last term of a sum longer than a block is lost.
    MissingTap,
    /// Sums are split by the number of threads.
    ThreadSplit,
    /// One element is NaN: what a comparator that folds with `max` lets pass.
    NotANumber,
    /// Accumulating overwrites.
    WrongAccumulate,
    /// Overwriting accumulates.
    WrongOverwrite,
    /// The workspace is read before it is written.
    DirtyWorkspace,
    /// Packing adds to what packed weights held.
    DirtyPack,
    /// The first operand is rounded to bf16.
    Bf16,
    /// The layout is taken from the sizes: equal ones mean NCHW.
    GuessedLayout,
    /// Padding at the start is one short when the stride is not 1.
    StridedPadding,
    /// The bias is only added on whole tiles of channels.
    BiasOnEdge,
    /// The activation comes before the residual.
    EarlyActivation,
    /// Whether the destination starts on a cache line shows.
    Alignment,
    /// Two runs differ.
    Unrepeatable,
    /// The first image of a batch is summed in another order.
    BatchOrder,
    /// A panic at one size.
    Panic,
}

const BUGS: [Bug; 19] = [
    Bug::GroupOffset,
    Bug::TailMask,
    Bug::StaleEdge,
    Bug::MissingTap,
    Bug::ThreadSplit,
    Bug::NotANumber,
    Bug::WrongAccumulate,
    Bug::WrongOverwrite,
    Bug::DirtyWorkspace,
    Bug::DirtyPack,
    Bug::Bf16,
    Bug::GuessedLayout,
    Bug::StridedPadding,
    Bug::BiasOnEdge,
    Bug::EarlyActivation,
    Bug::Alignment,
    Bug::Unrepeatable,
    Bug::BatchOrder,
    Bug::Panic,
];

/// The definition, with a bug.
#[derive(Clone, Copy)]
struct Toy(Bug);

struct Ready(Bug, Geometry);

macro_rules! algorithm {
    ($($pass:ident)*) => {$(
        impl Algorithm<$pass> for Toy {
            fn name(&self) -> &'static str {
                "toy"
            }
            fn estimate(&self, problem: &Problem) -> Result<Estimate, Unsupported> {
                if problem.geometry.conv().batch == 3 {
                    return Err(Unsupported("the batch is 3"));
                }
                Ok(Estimate { ns: 1.0, workspace: 16, packed: 0, ..Estimate::default() })
            }
            fn build(&self, problem: &Problem) -> Box<dyn Execute<$pass>> {
                Box::new(Ready(self.0, problem.geometry))
            }
        }
    )*};
}
algorithm!(Forward BackwardData BackwardWeights);

impl Ready {
    fn pack_weights(&self, weights: &[f32], packed: &mut [f32]) {
        for (to, from) in packed.iter_mut().zip(weights) {
            *to = if self.0 == Bug::DirtyPack { *to * 0.0 + from } else { *from };
        }
    }

    /// The result of a pass; `offsets` picks the offsets of left, right and result from those of src, weights and dst.
    fn compute(
        &self,
        offsets: fn([usize; 3]) -> [usize; 3],
        [left, right]: [&[f32]; 2],
        len: usize,
        workspace: &mut [f32],
        par: Par<'_>,
    ) -> Vec<f32> {
        let (bug, geometry, conv) = (self.0, &self.1, self.1.conv());
        assert!(bug != Bug::Panic || conv.kernel[1] != 3, "the toy panics");
        let mut wrong = *conv;
        if bug == Bug::GuessedLayout && conv.input == [conv.in_channels; 2] {
            wrong.layout = Layout::Nchw;
        }
        if let (Bug::StridedPadding, [[top, bottom], [left, right]]) = (bug, geometry.padding())
            && conv.stride[1] > 1
        {
            let shift = left.min(1);
            wrong = wrong.padding(convolve::Padding::Explicit {
                top,
                bottom,
                left: left - shift,
                right: right + shift,
            });
        }
        let geometry = &wrong.geometry().unwrap();
        let (src, dst) = (geometry.src(), geometry.dst());
        let parts = if bug == Bug::ThreadSplit { par.threads() } else { 1 };
        let mut sums = vec![vec![0.0f32; len]; parts];
        let mut terms = vec![0usize; len];
        definition::for_each_mac(geometry, |s, w, d| {
            let group = d / dst.channel % conv.out_channels / geometry.group_out();
            let s = if bug == Bug::GroupOffset { s - group * geometry.group_in() * src.channel } else { s };
            let [l, r, to] = offsets([s, w, d]);
            let x = if bug == Bug::Bf16 { f32::from_bits(left[l].to_bits() & 0xffff_0000) } else { left[l] };
            terms[to] += 1;
            let sum = &mut sums[terms[to] % parts][to];
            if !(bug == Bug::MissingTap && terms[to] == 9) {
                *sum = x.mul_add(right[r], *sum);
            }
        });
        let mut result: Vec<f32> = (0..len).map(|i| sums.iter().map(|part| part[i]).sum()).collect();
        let nudge = |x: &mut f32| *x = f32::from_bits(x.to_bits() ^ 1);
        static RUNS: AtomicU64 = AtomicU64::new(0);
        match bug {
            Bug::NotANumber if len > 2 => result[len / 2] = f32::NAN,
            Bug::DirtyWorkspace => {
                result.iter_mut().for_each(|x| *x += workspace[3] * 0.0 + workspace[3].min(0.0))
            }
            Bug::TailMask => {
                let width = conv.input[1].max(1);
                for row in (1..len.div_ceil(width)).filter(|_| !width.is_multiple_of(8)) {
                    result[row * width] = 0.0;
                }
            }
            Bug::Unrepeatable if RUNS.fetch_add(1, Ordering::Relaxed) % 2 == 1 => {
                result.iter_mut().for_each(nudge)
            }
            Bug::BatchOrder => result.iter_mut().take(if conv.batch > 1 { 3 } else { 0 }).for_each(nudge),
            _ => {}
        }
        workspace.fill(-7.0);
        result
    }

    fn write(&self, to: &mut [f32], from: &[f32], update: Update) {
        let accumulate = match self.0 {
            Bug::WrongAccumulate => false,
            Bug::WrongOverwrite => true,
            _ => update == Update::Accumulate,
        };
        let edge = if self.0 == Bug::StaleEdge { to.len() - to.len() % 4 } else { to.len() };
        for (i, (to, from)) in to.iter_mut().zip(from).enumerate() {
            *to = if accumulate || i >= edge { *to + from } else { *from };
        }
        if self.0 == Bug::Alignment && to.as_ptr().align_offset(64) != 0 {
            to.iter_mut().for_each(|x| *x = x.next_up());
        }
    }
}

impl Execute<Forward> for Ready {
    fn packed_len(&self) -> usize {
        self.1.weights_len()
    }
    fn pack(&self, weights: &[f32], packed: &mut [f32]) {
        self.pack_weights(weights, packed);
    }
    fn workspace_len(&self) -> usize {
        16
    }
    fn run(&self, operands: ForwardArgs<'_>, workspace: &mut [f32], par: Par<'_>) {
        let ForwardArgs { src, weights, dst, epilogue } = operands;
        let mut sums = self.compute(|[s, w, d]| [s, w, d], [src, weights], dst.len(), workspace, par);
        let (conv, strides) = (self.1.conv(), self.1.dst());
        for (i, sum) in sums.iter_mut().enumerate() {
            let channel = i / strides.channel % conv.out_channels;
            let edge = self.0 == Bug::BiasOnEdge && channel >= conv.out_channels / 4 * 4;
            *sum += epilogue.bias.filter(|_| !edge).map_or(0.0, |bias| bias[channel]);
            let residual = epilogue.residual.map_or(0.0, |residual| residual[i]);
            *sum = match self.0 {
                Bug::EarlyActivation => epilogue.activation.apply(*sum) + residual,
                _ => epilogue.activation.apply(*sum + residual),
            };
        }
        self.write(dst, &sums, Update::Overwrite);
    }
}

impl Execute<BackwardData> for Ready {
    fn packed_len(&self) -> usize {
        self.1.weights_len()
    }
    fn pack(&self, weights: &[f32], packed: &mut [f32]) {
        self.pack_weights(weights, packed);
    }
    fn workspace_len(&self) -> usize {
        16
    }
    fn run(&self, operands: BackwardDataArgs<'_>, workspace: &mut [f32], par: Par<'_>) {
        let BackwardDataArgs { diff_dst, weights, diff_src, update } = operands;
        let sums = self.compute(|[s, w, d]| [d, w, s], [diff_dst, weights], diff_src.len(), workspace, par);
        self.write(diff_src, &sums, update);
    }
}

impl Execute<BackwardWeights> for Ready {
    fn workspace_len(&self) -> usize {
        16
    }
    fn run(&self, operands: BackwardWeightsArgs<'_>, workspace: &mut [f32], par: Par<'_>) {
        let BackwardWeightsArgs { src, diff_dst, diff_weights, update } = operands;
        let sums = self.compute(|[s, w, d]| [s, d, w], [src, diff_dst], diff_weights.len(), workspace, par);
        self.write(diff_weights, &sums, update);
    }
}

fn scope(bug: Bug) -> Scope {
    let toy: &'static Toy = Box::leak(Box::new(Toy(bug)));
    let mut algorithms = Algorithms::default();
    algorithms.forward.push(toy);
    algorithms.backward_data.push(toy);
    algorithms.backward_weights.push(toy);
    Scope { isas: vec![convolve::Isa::available()[0]], threads: vec![1, 3], ..Scope::of(algorithms) }
}

fn problems() -> Vec<Conv2d> {
    let mut runner = TestRunner::new(strategy::config(1));
    (0..40).map(|_| strategy::convs().new_tree(&mut runner).unwrap().current()).collect()
}

/// What the exact oracle finds, and what the laws of bits find, in as many problems as a bug needs.
fn found(bug: Bug) -> [Option<String>; 2] {
    let scope = scope(bug);
    let [mut wrong, mut moved] = [None, None];
    for (seed, conv) in problems().into_iter().enumerate() {
        let seed = seed as u64;
        wrong = wrong.or(scope.check(conv, seed).mismatches.into_iter().next());
        scope.for_each_execution(conv, |execution| {
            let laws = || {
                laws::conditions_change_no_bit(execution, &[1, 2, 3], seed)?;
                laws::a_batch_is_its_images(&scope, execution, seed)
            };
            if moved.is_none() && execution.case.threads == 1 {
                moved = laws().err();
            }
        });
        if bug != Bug::None && (wrong.is_some() || moved.is_some()) {
            break;
        }
    }
    [wrong, moved]
}

#[test]
fn an_honest_toy_passes_everything() {
    assert_eq!(found(Bug::None), [None, None]);
    let tally = scope(Bug::None).check("mb1ic3ih5oc4kh3ph1".parse().unwrap(), 0);
    tally.assert_clean();
    // 3 passes x 6 layouts x 2 threads x plain and more.
    assert_eq!((tally.problems, tally.executions), (1, 3 * 6 * 2 * 2));
    let refused = scope(Bug::None).check("mb3ic3ih5oc4kh3ph1".parse().unwrap(), 0);
    assert_eq!((refused.executions, refused.refused.values().sum::<u64>()), (0, 36));
}

#[test]
fn every_planted_bug_is_caught() {
    // A panic in the toy is meant; its trace is noise.
    std::panic::set_hook(Box::new(|_| {}));
    let survivors: Vec<Bug> = BUGS
        .into_iter()
        .filter(|&bug| match found(bug) {
            [None, None] => true,
            [wrong, moved] => {
                println!("{bug:?}: {}", wrong.or(moved).unwrap());
                false
            }
        })
        .collect();
    let _ = std::panic::take_hook();
    assert!(survivors.is_empty(), "not caught: {survivors:?}");
}

#[test]
fn a_failing_case_can_be_pasted_back() {
    let failure = scope(Bug::MissingTap).check("mb1ic3ih5oc4kh3ph1".parse().unwrap(), 0).mismatches.remove(0);
    for part in [
        "--algorithm toy",
        "--pass fwd",
        "--layout NCHW",
        "--weight-layout OIHW",
        "--isa ",
        "--threads 1",
        "mb1ic3ih5",
    ] {
        assert!(failure.contains(part), "{failure}");
    }
}

#[test]
fn a_comparator_that_drops_nan_would_have_passed_it() {
    let scope = scope(Bug::NotANumber);
    let conv: Conv2d = "mb1ic3ih5oc4kh3ph1".parse().unwrap();
    let [left, right] = data::Fill::Dense.integers(&conv, Direction::Forward, 0).map(|x| data::floats(&x));
    scope.clone().serial().for_each_execution(conv, |execution| {
        if execution.case.direction == Direction::Forward && execution.case.conv == conv {
            let got = execution.run(&left, &right, &How::default(), Run::new(Where::Seq, 0)).unwrap();
            let worst = got.iter().zip(&got).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= 0.0, "the fold drops NaN");
            let itself: Vec<f64> = got.iter().map(|&x| x.into()).collect();
            assert!(close::within(execution.shape(), &got, &itself, &vec![1e30; got.len()]).is_err());
        }
    });
}

/// Writes through a guard cannot be planted in safe code, so the guard is tried by itself: an algorithm gets exactly its length.
#[test]
fn slices_have_exactly_their_length_at_every_offset() {
    struct Exact(Geometry);
    impl Execute<Forward> for Exact {
        fn packed_len(&self) -> usize {
            5
        }
        fn workspace_len(&self) -> usize {
            7
        }
        fn run(&self, operands: ForwardArgs<'_>, workspace: &mut [f32], _: Par<'_>) {
            assert_eq!(
                (operands.src.len(), operands.weights.len(), operands.dst.len(), workspace.len()),
                (self.0.src_len(), 5, self.0.dst_len(), 7)
            );
            assert!(operands.dst.iter().chain(&*workspace).all(|x| x.to_bits() == Run::POISONS[0].to_bits()));
            operands.dst.fill((operands.dst.as_ptr().addr() % 64 / 4) as f32);
        }
    }
    impl Algorithm<Forward> for Exact {
        fn name(&self) -> &'static str {
            "exact"
        }
        fn estimate(&self, _: &Problem) -> Result<Estimate, Unsupported> {
            Ok(Estimate { ns: 1.0, workspace: 7, packed: 5, ..Estimate::default() })
        }
        fn build(&self, problem: &Problem) -> Box<dyn Execute<Forward>> {
            Box::new(Exact(problem.geometry))
        }
    }
    let conv: Conv2d = "mb1ic2ih5oc3kh3".parse().unwrap();
    let mut algorithms = Algorithms::default();
    algorithms.forward.push(Box::leak(Box::new(Exact(conv.geometry().unwrap()))));
    Scope::of(algorithms).serial().only(Direction::Forward).for_each_execution(conv, |execution| {
        for offset in 0..16 {
            let run = Run { poison: Run::POISONS[0], offsets: [1, 2, offset, 3], at: Where::Seq };
            let got = execution.run(&[0.0; 50], &[0.0; 54], &How::default(), run).unwrap();
            assert_eq!(got, [offset as f32; 27]);
        }
    });
}
