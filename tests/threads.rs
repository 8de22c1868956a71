//! The result depends on nothing but the operands: not on threads, batch, alignment, dirty memory or who else runs the same plan.

use convolve::registry::Registered;
use convolve::{
    Accuracy, BackwardData, BackwardWeights, Caches, Conv2d, Forward, Isa, Machine, Planner, Problem,
};
use convolve_testkit::{Direction, How, Run, Scope, TINY, Where, laws, reference, strategy, watchdog};
use proptest::prelude::*;

/// Problems large enough for several tasks, with tails everywhere.
const PROBLEMS: [&str; 9] = [
    "mb1ic20ih19oc35kh3ph1",
    "mb3ic33ih9oc17kh3ph1sh2",
    "g3mb2ic21ih11oc27kh3ph2dh1",
    "g37mb2ic37ih13oc37kh3ph1",
    "g8mb1ic8ih17oc24kh5ph2",
    "mb2ic65ih8oc70kh1",
    "mb1ic3ih33oc18kh7sh2ph3",
    "mb4ic9iw100oc12kw9pw4",
    "mb5ic130ih5oc9kh3",
];

#[test]
fn bits_do_not_depend_on_threads_dirt_or_alignment() {
    let scope = Scope::everything().serial();
    for (seed, text) in PROBLEMS.into_iter().enumerate() {
        scope.for_each_execution(text.parse().unwrap(), |execution| {
            laws::conditions_change_no_bit(execution, &[1, 2, 3, 4, 7, 8], seed as u64).unwrap();
        });
    }
}

/// A plan for one thread may run on many and the other way round.
#[test]
fn bits_do_not_depend_on_the_threads_planned_for() {
    for (seed, text) in PROBLEMS.into_iter().enumerate() {
        let conv: Conv2d = text.parse().unwrap();
        for direction in Direction::ALL {
            let [left, right] = convolve_testkit::data::Real::Normal.operands(&conv, direction, seed as u64);
            for conv in Scope::everything().layouts(conv) {
                let left = reference::arrange(&conv, direction.left(), &left);
                let right = reference::arrange(&conv, direction.right(), &right);
                let mut first: Option<(String, Vec<f32>)> = None;
                let scope = Scope { threads: vec![1, 2, 3, 8], ..Scope::everything() };
                scope.for_each(conv, direction, |case, ready| {
                    let Ok(execution) = ready else { return };
                    let name = format!("{} {}", case.algorithm, case.isa);
                    for at in [Where::Seq, Where::Pool(2), Where::Pool(8)] {
                        let got =
                            execution.run(&left, &right, &How::default(), Run::new(at, seed as u64)).unwrap();
                        match &first {
                            Some((same, expected)) if *same == name => {
                                let agree =
                                    convolve_testkit::close::same_bits(execution.shape(), &got, expected);
                                agree.unwrap_or_else(|e| panic!("{case}: run on {at:?}: {e}"));
                            }
                            _ => first = Some((name.clone(), got)),
                        }
                    }
                });
            }
        }
    }
}

/// Caches cut blocks, and in the classes below Strict also sums. In Strict a sum has one accumulator and one order, whatever the blocks.
#[test]
fn strict_bits_do_not_depend_on_the_caches_planned_for() {
    for (seed, text) in PROBLEMS.into_iter().chain(["mb2ic40ih28oc70kh3ph1"]).enumerate() {
        let conv: Conv2d = text.parse().unwrap();
        for direction in Direction::ALL {
            let [left, right] = convolve_testkit::data::Real::Normal.operands(&conv, direction, seed as u64);
            let caches = vec![Caches::default(), TINY, Machine::SAPPHIRE_RAPIDS.caches];
            let scope = Scope { caches, threads: vec![2], ..Scope::strict() };
            for conv in scope.layouts(conv) {
                let left = reference::arrange(&conv, direction.left(), &left);
                let right = reference::arrange(&conv, direction.right(), &right);
                let mut first: Option<(String, Vec<f32>)> = None;
                scope.for_each(conv, direction, |case, ready| {
                    let Ok(execution) = ready else { return };
                    let name = format!("{} {}", case.algorithm, case.isa);
                    let run = Run::new(Where::Seq, seed as u64);
                    let got = execution.run(&left, &right, &How::default(), run).unwrap();
                    match &first {
                        Some((same, expected)) if *same == name => {
                            let agree = convolve_testkit::close::same_bits(execution.shape(), &got, expected);
                            agree.unwrap_or_else(|e| panic!("{case}: {e}"));
                        }
                        _ => first = Some((name, got)),
                    }
                });
            }
        }
    }
}

proptest! {
    #![proptest_config(strategy::config(48))]

    #[test]
    fn bits_of_any_problem_do_not_depend_on_threads_dirt_or_alignment(conv in strategy::convs(), seed in any::<u64>()) {
        let weight_layouts = vec![conv.weight_layout];
        let mut agree = Ok(());
        Scope { weight_layouts, ..Scope::everything().serial() }.for_each_execution(conv, |execution| {
            agree = agree.clone().and_then(|()| laws::conditions_change_no_bit(execution, &[2, 3], seed));
        });
        agree.map_err(TestCaseError::fail)?;
    }

    #[test]
    fn an_image_has_the_same_bits_alone_and_in_a_batch(conv in strategy::convs(), seed in any::<u64>()) {
        let conv = conv.batch(3);
        let scope = Scope { weight_layouts: vec![conv.weight_layout], threads: vec![1, 2], ..Scope::everything() };
        let mut agree = Ok(());
        scope.for_each_execution(conv, |execution| {
            agree = agree.clone().and_then(|()| laws::a_batch_is_its_images(&scope, execution, seed));
        });
        agree.map_err(TestCaseError::fail)?;
    }

    #[test]
    fn strict_algorithms_have_the_same_bits_on_every_fused_isa(conv in strategy::convs(), seed in any::<u64>()) {
        let scope = Scope::strict().serial();
        for direction in Direction::ALL {
            laws::every_fused_isa_has_the_same_bits(&scope, conv, direction, seed).map_err(TestCaseError::fail)?;
        }
    }
}

/// Large enough to be cut into tasks, and for the sum of a weight gradient to be cut into parts, which the strict class must not do.
#[test]
fn strict_sums_of_large_problems_have_one_accumulator_on_every_fused_isa() {
    for text in ["mb2ic16ih28oc24kh3ph1", "mb2ic3ih56oc40kh5sh2ph2", "g4mb2ic16ih28oc48kh3ph1"] {
        let conv: Conv2d = text.parse().unwrap();
        assert!(conv.geometry().unwrap().macs() >= 1 << 20, "{text}");
        let scope = Scope { weight_layouts: vec![conv.weight_layout], ..Scope::strict().serial() };
        for direction in Direction::ALL {
            laws::every_fused_isa_has_the_same_bits(&scope, conv, direction, 5).unwrap();
        }
    }
}

#[test]
fn eight_threads_share_one_plan() {
    fn shared<T: Send + Sync>() {}
    shared::<convolve::Plan<Forward>>();
    shared::<convolve::Plan<convolve::BackwardData>>();
    shared::<convolve::Plan<convolve::BackwardWeights>>();
    shared::<convolve::PackedWeights>();
    for text in PROBLEMS {
        let scope = Scope { threads: vec![2], ..Scope::everything() };
        scope.for_each_execution(text.parse().unwrap(), |execution| {
            let (conv, direction) = (execution.case.conv, execution.case.direction);
            let [left, right] = convolve_testkit::data::Real::Normal.operands(&conv, direction, 1);
            let run = |at, seed| execution.run(&left, &right, &How::default(), Run::new(at, seed)).unwrap();
            let expected = run(Where::Seq, 0);
            std::thread::scope(|scope| {
                for thread in 0..8 {
                    let (run, expected) = (&run, &expected);
                    scope.spawn(move || {
                        for (turn, at) in [Where::Seq, Where::Pool(2), Where::Current].into_iter().enumerate()
                        {
                            let got = run(at, thread * 3 + turn as u64);
                            convolve_testkit::close::same_bits(execution.shape(), &got, expected).unwrap();
                        }
                    });
                }
            });
        });
    }
}

/// Parallel calls inside a parallel loop, in pools of one to three threads: no hang, no other bits.
#[test]
fn plans_run_inside_parallel_loops() {
    watchdog("nested par_iter", || {
        use rayon::prelude::*;
        for text in PROBLEMS {
            let conv: Conv2d = text.parse().unwrap();
            let scope =
                Scope { threads: vec![3], weight_layouts: vec![conv.weight_layout], ..Scope::everything() };
            scope.for_each_execution(conv, |execution| {
                let (conv, direction) = (execution.case.conv, execution.case.direction);
                let [left, right] = convolve_testkit::data::Real::Normal.operands(&conv, direction, 1);
                let run =
                    |at, seed| execution.run(&left, &right, &How::default(), Run::new(at, seed)).unwrap();
                let expected = run(Where::Seq, 0);
                for threads in 1..=3 {
                    convolve_testkit::pool(threads).install(|| {
                        (0..16u64).into_par_iter().for_each(|seed| {
                            let got = run(Where::Current, seed);
                            convolve_testkit::close::same_bits(execution.shape(), &got, &expected).unwrap();
                        });
                    });
                }
            });
        }
    });
}

/// A pool that the caller names is the same as being in it.
#[cfg(feature = "rayon")]
#[test]
fn a_named_pool_gives_the_same_bits() {
    use convolve::{Epilogue, Par};
    for text in PROBLEMS {
        let conv: Conv2d = text.parse().unwrap();
        let [src, weights] = convolve_testkit::data::Real::Normal.operands(&conv, Direction::Forward, 1);
        let plan = Planner::new().threads(3).plan::<Forward>(conv).unwrap();
        let (packed, mut workspace) = (plan.pack(&weights).unwrap(), plan.workspace().unwrap());
        let mut run = |par: Par<'_>| {
            let mut dst = vec![f32::NAN; plan.geometry().dst_len()];
            plan.run(&packed, &src, &mut dst, Epilogue::NONE, &mut workspace, par).unwrap();
            dst
        };
        let expected = run(Par::Seq);
        for threads in [1, 2, 3, 4] {
            assert_eq!(run(Par::Pool(convolve_testkit::pool(threads))), expected, "{text}");
        }
    }
}

/// Softmax, the loss and normalisation: rows and parts of images are cut by the shape, and sums of parts are added up in their order.
#[cfg(feature = "rayon")]
#[test]
fn the_other_layers_have_the_same_bits() {
    use convolve::{Layout, Norm, Par, Statistics, Update, cross_entropy, softmax};
    let numbers = |len: usize, seed: usize| -> Vec<f32> {
        (0..len).map(|i| (i * 7919 + seed) as f32 % 1009.0 / 300.0 - 1.7).collect()
    };
    let same = |name: &str, run: &dyn Fn(Par<'_>) -> Vec<f32>| {
        let expected = run(Par::Seq);
        assert!(expected.iter().all(|x| x.is_finite()), "{name}");
        for threads in [1, 2, 3, 8] {
            assert_eq!(
                run(Par::Pool(convolve_testkit::pool(threads))),
                expected,
                "{name}, {threads} threads"
            );
        }
    };
    for &isa in Isa::available() {
        for [rows, classes] in [[1, 1], [3000, 10], [700, 17], [5, 9000], [70_001, 2]] {
            let (src, labels) =
                (numbers(rows * classes, 1), (0..rows).map(|i| i * 31 % classes).collect::<Vec<_>>());
            same(&format!("softmax of {rows} x {classes} on {isa}"), &|par| {
                let mut dst = vec![f32::NAN; src.len()];
                softmax(&src, classes, &mut dst, isa, par).unwrap();
                dst
            });
            for update in [Update::Overwrite, Update::Accumulate] {
                same(&format!("the loss of {rows} x {classes} on {isa}, {update:?}"), &|par| {
                    let mut diff = if update == Update::Overwrite {
                        vec![f32::NAN; src.len()]
                    } else {
                        numbers(src.len(), 2)
                    };
                    let to = Some(&mut diff[..]);
                    let loss = cross_entropy(&src, classes, &labels, to, update, isa, par).unwrap();
                    let alone = cross_entropy(&src, classes, &labels, None, update, isa, par).unwrap();
                    assert_eq!(loss.to_bits(), alone.to_bits());
                    // All of its bits.
                    let bits = [0, 16, 32, 48].map(|shift| f32::from((loss.to_bits() >> shift) as u16));
                    diff.extend(bits);
                    diff
                });
            }
        }
        for layout in Layout::ALL {
            for statistics in [Statistics::Batch, Statistics::Instance] {
                for [batch, channels, pixels] in
                    [[2, 3, 40_000], [3, 70, 1000], [1, 2000, 40], [9, 7, 100], [2, 1, 20_000]]
                {
                    let norm = Norm { batch, channels, pixels, layout, statistics, epsilon: 1e-3 };
                    let (src, diff_dst) =
                        (numbers(batch * channels * pixels, 3), numbers(batch * channels * pixels, 4));
                    let (gamma, beta) = (numbers(channels, 5), numbers(channels, 6));
                    same(&format!("{norm:?} on {isa}"), &|par| {
                        let mut dst = vec![f32::NAN; src.len()];
                        let saved = norm.forward(&src, &gamma, &beta, &mut dst, isa, par).unwrap();
                        let mut fresh =
                            [vec![f32::NAN; src.len()], vec![f32::NAN; channels], vec![f32::NAN; channels]];
                        let mut added = [src.clone(), gamma.clone(), beta.clone()];
                        for (gradients, update) in
                            [(&mut fresh, Update::Overwrite), (&mut added, Update::Accumulate)]
                        {
                            let to = gradients.each_mut().map(Vec::as_mut_slice);
                            norm.backward(&src, &diff_dst, &gamma, &saved, to, update, isa, par).unwrap();
                        }
                        // What is added is the gradient itself.
                        assert!(
                            added[0].iter().zip(&src).zip(&fresh[0]).all(|((sum, x), diff)| *sum == x + diff)
                        );
                        [vec![dst, saved.mean, saved.variance], fresh.into(), added.into()].concat().concat()
                    });
                }
            }
        }
    }
}

/// What the planner takes by itself does not depend on chance.
#[test]
fn planning_twice_takes_the_same_algorithm() {
    for text in PROBLEMS {
        let names = [1, 2, 3]
            .map(|_| Planner::new().threads(2).plan::<Forward>(text.parse().unwrap()).unwrap().algorithm());
        assert_eq!(names, [names[0]; 3]);
    }
}

/// On AVX2 a network that was trained with three threads once had other bits than with one: the planner took other algorithms.
#[test]
fn what_is_chosen_does_not_depend_on_the_threads_planned_for() {
    fn check<P: Registered>(conv: Conv2d) {
        for (&isa, machine) in Isa::available().iter().flat_map(|isa| MACHINES.map(|machine| (isa, machine)))
        {
            let planner = Planner::new().isa(isa).machine(machine);
            let [one, others @ ..] = [1, 2, 3, 8]
                .map(|threads| planner.clone().threads(threads).plan::<P>(conv).unwrap().algorithm());
            assert_eq!(others, [one; 3], "{} {conv:?} on {isa}, {}", P::NAME, machine.name);
        }
    }
    const MACHINES: [Machine; 3] = [Machine::GENERIC, Machine::ZEN3, Machine::ZEN5];
    let problems = convolve_testkit::shapes::suite("all").unwrap().into_iter().map(|problem| problem.conv);
    for conv in problems.chain(PROBLEMS.map(|text| text.parse().unwrap())) {
        for conv in Scope::everything().layouts(conv) {
            check::<Forward>(conv);
            check::<BackwardData>(conv);
            check::<BackwardWeights>(conv);
        }
    }
}

/// A `direct` weight gradient once chose its path by its estimate for the threads planned for.
#[test]
fn no_cut_depends_on_the_threads_planned_for() {
    fn check<P: Registered>(conv: Conv2d) {
        let (geometry, isa, accuracy) = (conv.geometry().unwrap(), Isa::best(), Accuracy::Standard);
        let (caches, machine) = (Caches::default(), Machine::GENERIC);
        for (algorithm, rank) in P::algorithms().iter().flat_map(|a| [0, 1, 2].map(|rank| (a, rank))) {
            let [one, four] = [1, 4].map(|threads| {
                let problem = Problem { geometry, isa, threads, accuracy, caches, machine, rank };
                algorithm.estimate(&problem).map(|estimate| estimate.tiling)
            });
            assert_eq!(one, four, "{} of rank {rank} on {conv:?}", algorithm.name());
        }
    }
    for text in PROBLEMS.into_iter().chain([
        "mb2ic64ih56oc256kh1",
        "mb1ic256ih14oc256kh3ph1",
        "mb1ic512ih7oc512kh3ph1",
    ]) {
        for conv in Scope::everything().layouts(text.parse().unwrap()) {
            check::<Forward>(conv);
            check::<BackwardData>(conv);
            check::<BackwardWeights>(conv);
        }
    }
}

/// A `direct` weight gradient once chose its path, and so how its sums are cut, by the last cache of the machine.
#[test]
fn no_estimate_depends_on_the_machine() {
    fn check<P: Registered>(conv: Conv2d) {
        let (geometry, isa, accuracy) = (conv.geometry().unwrap(), Isa::best(), Accuracy::Standard);
        let tiny = Caches { l1: 1, l2: 1, l3: 1 };
        let machines = [Machine::GENERIC, Machine { caches: tiny, ..Machine::GENERIC }];
        for algorithm in P::algorithms() {
            let [expected, found] = machines.map(|machine| {
                let caches = Caches::default();
                algorithm.estimate(&Problem { geometry, isa, threads: 2, accuracy, caches, machine, rank: 0 })
            });
            assert_eq!(format!("{found:?}"), format!("{expected:?}"), "{} on {conv:?}", algorithm.name());
        }
    }
    for text in PROBLEMS.into_iter().chain(["mb2ic64ih56oc256kh1", "g32mb2ic32ih56oc32kh3ph1"]) {
        for conv in Scope::everything().layouts(text.parse().unwrap()) {
            check::<Forward>(conv);
            check::<BackwardData>(conv);
            check::<BackwardWeights>(conv);
        }
    }
}
