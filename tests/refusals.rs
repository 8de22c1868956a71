//! What cannot be served is refused with a sentence, before anything is written; what is not refused is right.

use std::collections::BTreeSet;
use std::path::Path;

use convolve::registry::Registered;
use convolve::{
    BackwardData, BackwardWeights, Caches, Conv2d, Epilogue, Error, Forward, Gradients, Linear, Par, Planner,
    Pool2d, Update, backward, backward_bias,
};
use convolve_testkit::{Direction, Refusal, Scope, problems, strategy};
use proptest::prelude::*;

/// Every literal `Unsupported("...")` in the code of the kernels, documentation aside.
fn reasons_in(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            reasons_in(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let code: String = text
                .lines()
                .take_while(|line| !line.contains("#[cfg(test)]"))
                .filter(|line| !line.trim_start().starts_with("//"))
                .collect();
            for part in code.split("Unsupported(").skip(1) {
                if let Some(rest) = part.trim_start().strip_prefix('"') {
                    found.insert(rest.split('"').next().unwrap().to_owned());
                }
            }
        }
    }
}

#[test]
fn every_reason_to_refuse_is_reached_by_some_problem() {
    let mut expected = BTreeSet::new();
    for krate in ["direct", "im2col", "gemm"] {
        reasons_in(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels").join(krate).join("src"),
            &mut expected,
        );
    }
    let mut reached = BTreeSet::new();
    // Too large for anything but an answer.
    let large = Conv2d::new(1 << 18, 1, 3).input([1 << 20, 1 << 20]).padding(1);
    for conv in [large, large.batch(2), Conv2d::new(1, 1 << 18, 3).input([1 << 20, 1 << 20]).padding(1)] {
        for conv in Scope::everything().layouts(conv) {
            let answers = [
                Planner::new().explain::<Forward>(conv),
                Planner::new().explain::<BackwardData>(conv),
                Planner::new().explain::<BackwardWeights>(conv),
            ];
            for verdict in answers.into_iter().flat_map(|answer| answer.unwrap().verdicts) {
                reached.extend(verdict.answer.err().map(|reason| reason.to_string()));
            }
        }
    }
    let files = problems::files();
    for (_, text) in &files {
        for (_, problem) in convolve::problems(text) {
            for direction in Direction::ALL {
                for scope in [Scope::everything().serial(), Scope::strict().serial()] {
                    for conv in scope.layouts(problem.as_ref().unwrap().conv) {
                        scope.for_each(conv, direction, |case, ready| match ready {
                            Err(Refusal::Unsupported(reason)) => drop(reached.insert(reason)),
                            Err(Refusal::Error(error)) => panic!("{case}: {error}"),
                            Ok(_) => {}
                        });
                    }
                }
            }
        }
    }
    let unreached: Vec<_> = expected.difference(&reached).collect();
    assert!(unreached.is_empty(), "no problem reaches: {unreached:?}");
    println!("{} reasons, all reached; said at run time: {reached:?}", expected.len());
}

fn names<P: Registered>() -> Vec<&'static str> {
    P::algorithms().iter().map(|algorithm| algorithm.name()).collect()
}

#[test]
fn names_are_unique_in_each_pass() {
    for names in [names::<Forward>(), names::<BackwardData>(), names::<BackwardWeights>()] {
        let unique: BTreeSet<_> = names.iter().collect();
        assert_eq!(unique.len(), names.len(), "{names:?}");
        assert!(!names.is_empty());
    }
}

/// Some registered algorithm refuses nothing, in every pass.
#[test]
fn every_problem_has_an_algorithm_even_under_strict_accuracy() {
    fn check<P: Registered>(conv: Conv2d) {
        let plan = Planner::new().accuracy(convolve::Accuracy::Strict).plan::<P>(conv);
        assert!(plan.is_ok(), "{} {conv}: {:?}", P::NAME, plan.err());
    }
    let files = problems::files();
    for (_, text) in &files {
        for (_, problem) in convolve::problems(text) {
            for conv in Scope::everything().layouts(problem.unwrap().conv) {
                check::<Forward>(conv);
                check::<BackwardData>(conv);
                check::<BackwardWeights>(conv);
            }
        }
    }
}

proptest! {
    #![proptest_config(strategy::config(64))]

    #[test]
    fn every_algorithm_refuses_a_problem_or_computes_it(conv in strategy::convs(), seed in any::<u64>()) {
        let scope = Scope { weight_layouts: vec![conv.weight_layout], ..Scope::everything().serial() };
        let tally = scope.check(conv, seed);
        prop_assert!(tally.mismatches.is_empty(), "{}", tally);
        let cases: u64 = Direction::ALL.iter().map(|&d| scope.algorithms.names(d).len() as u64).sum();
        let refused: u64 = tally.refused.values().sum();
        prop_assert_eq!(tally.executions / 2 + refused, cases * 2 * scope.isas.len() as u64);
    }

    #[test]
    fn no_conv2d_panics_when_it_is_planned(conv in strategy::anything()) {
        // Planning may be asked anything; memory is only taken for what is small.
        let _ = Planner::new().explain::<Forward>(conv);
        let _ = Planner::new().explain::<BackwardData>(conv);
        let _ = Planner::new().explain::<BackwardWeights>(conv);
    }
}

#[test]
fn an_algorithm_that_is_forced_and_refuses_is_an_error_with_its_reason() {
    let mut refusals = 0;
    let scope = Scope::everything().serial();
    for (_, problem) in convolve::problems(&problems::files().last().unwrap().1) {
        let conv = problem.unwrap().conv;
        scope.for_each(conv, Direction::Forward, |case, ready| {
            let forced = Planner::new().isa(case.isa).threads(1).accuracy(case.accuracy).only(case.algorithm);
            match (ready, forced.plan::<Forward>(conv)) {
                (
                    Err(Refusal::Unsupported(said)),
                    Err(Error::Unsupported { algorithm, reason, pass, problem }),
                ) => {
                    assert_eq!(
                        (algorithm, reason, pass, problem),
                        (case.algorithm, &*said, "fwd", conv.to_string())
                    );
                    refusals += 1;
                }
                (Ok(_), Ok(plan)) => assert_eq!(plan.algorithm(), case.algorithm),
                (_, plan) => panic!("{case}: {plan:?}"),
            }
        });
    }
    println!("{refusals} refusals");
}

#[test]
fn an_unknown_algorithm_is_an_error_that_lists_the_known_ones() {
    fn check<P: Registered>() {
        let conv = Conv2d::new(1, 1, 1).input(1);
        for name in ["alchemy", "Direct", " direct", ""] {
            match Planner::new().only(name).plan::<P>(conv) {
                Err(Error::UnknownAlgorithm { name: got, pass, known }) => {
                    assert_eq!((&*got, pass), (name, P::NAME));
                    assert_eq!(known, names::<P>().join(", "));
                }
                other => panic!("`{name}`: {other:?}"),
            }
        }
    }
    check::<Forward>();
    check::<BackwardData>();
    check::<BackwardWeights>();
}

/// The error of a wrong length: it names the operand, both sizes, and the shape.
#[track_caller]
fn wrong_length(result: Result<(), Error>, name: &str, expected: usize, got: usize) {
    match result {
        Err(error @ Error::Length { .. }) => {
            let text = error.to_string();
            let Error::Length { operand, expected: e, got: g, shape, .. } = error else { unreachable!() };
            assert_eq!((operand, e, g), (name, expected, got));
            for part in [name, &expected.to_string(), &got.to_string(), &shape] {
                assert!(text.contains(part), "{text}");
            }
        }
        other => panic!("{name} of {got}: {other:?}"),
    }
}

fn convs() -> Vec<Conv2d> {
    let conv = Conv2d::new(4, 6, 3).input([5, 7]).batch(2).groups(2).padding(1);
    Scope::everything().layouts(conv).collect()
}

/// Lengths that are wrong: one less, one more, none.
fn wrong(len: usize) -> [usize; 3] {
    [len - 1, len + 1, 0]
}

#[test]
fn forward_refuses_every_wrong_length_and_writes_nothing() {
    for conv in convs() {
        for name in names::<Forward>() {
            let Ok(plan) = Planner::new().only(name).plan::<Forward>(conv) else { continue };
            let g = *plan.geometry();
            let (s, w, d, c) = (g.src_len(), g.weights_len(), g.dst_len(), conv.out_channels);
            wrong(w)
                .into_iter()
                .for_each(|len| wrong_length(plan.pack(&vec![0.0; len]).map(drop), "weights", w, len));
            let mut packed = plan.pack(&vec![0.0; w]).unwrap();
            for len in wrong(w) {
                wrong_length(plan.pack_again(&vec![0.0; len], &mut packed), "weights", w, len);
            }
            let mut workspace = plan.workspace().unwrap();
            let mut run = |s: usize, d: usize, bias: usize, residual: usize| {
                let (bias, residual, mut dst) = (vec![0.0; bias], vec![0.0; residual], vec![5.0; d]);
                let epilogue = Epilogue::bias(&bias).residual(&residual);
                let result = plan.run(&packed, &vec![0.0; s], &mut dst, epilogue, &mut workspace, Par::Seq);
                assert!(result.is_ok() || dst.iter().all(|&x| x == 5.0), "{result:?} but dst was written");
                result
            };
            assert!(run(s, d, c, d).is_ok());
            wrong(s).into_iter().for_each(|len| wrong_length(run(len, d, c, d), "src", s, len));
            wrong(d).into_iter().for_each(|len| wrong_length(run(s, len, c, d), "dst", d, len));
            wrong(c).into_iter().for_each(|len| wrong_length(run(s, d, len, d), "bias", c, len));
            wrong(d).into_iter().for_each(|len| wrong_length(run(s, d, c, len), "residual", d, len));
        }
    }
}

#[test]
fn backward_data_refuses_every_wrong_length_and_writes_nothing() {
    for conv in convs() {
        for name in names::<BackwardData>() {
            let Ok(plan) = Planner::new().only(name).plan::<BackwardData>(conv) else { continue };
            let g = *plan.geometry();
            let (s, w, d) = (g.src_len(), g.weights_len(), g.dst_len());
            wrong(w)
                .into_iter()
                .for_each(|len| wrong_length(plan.pack(&vec![0.0; len]).map(drop), "weights", w, len));
            let packed = plan.pack(&vec![0.0; w]).unwrap();
            let mut workspace = plan.workspace().unwrap();
            let mut run = |d: usize, s: usize| {
                let mut diff_src = vec![5.0; s];
                let update = Update::Overwrite;
                let result =
                    plan.run(&packed, &vec![0.0; d], &mut diff_src, update, &mut workspace, Par::Seq);
                assert!(
                    result.is_ok() || diff_src.iter().all(|&x| x == 5.0),
                    "{result:?} but it was written"
                );
                result
            };
            assert!(run(d, s).is_ok());
            wrong(d).into_iter().for_each(|len| wrong_length(run(len, s), "diff_dst", d, len));
            wrong(s).into_iter().for_each(|len| wrong_length(run(d, len), "diff_src", s, len));
        }
    }
}

#[test]
fn backward_weights_refuses_every_wrong_length_and_writes_nothing() {
    for conv in convs() {
        for name in names::<BackwardWeights>() {
            let Ok(plan) = Planner::new().only(name).plan::<BackwardWeights>(conv) else { continue };
            let g = *plan.geometry();
            let (s, w, d, c) = (g.src_len(), g.weights_len(), g.dst_len(), conv.out_channels);
            let mut workspace = plan.workspace().unwrap();
            let mut run = |s: usize, d: usize, w: usize, c: usize| {
                let (mut diff_weights, mut diff_bias) = (vec![5.0; w], vec![5.0; c]);
                let gradients = (Some(&mut diff_weights[..]), Some(&mut diff_bias[..]));
                let (src, diff_dst) = (vec![0.0; s], vec![0.0; d]);
                let update = Update::Overwrite;
                let result =
                    plan.run(&src, &diff_dst, gradients.0, gradients.1, update, &mut workspace, Par::Seq);
                let clean = diff_weights.iter().chain(&diff_bias).all(|&x| x == 5.0);
                assert!(result.is_ok() || clean, "{result:?} but it was written");
                result
            };
            assert!(run(s, d, w, c).is_ok());
            wrong(s).into_iter().for_each(|len| wrong_length(run(len, d, w, c), "src", s, len));
            wrong(d).into_iter().for_each(|len| wrong_length(run(s, len, w, c), "diff_dst", d, len));
            wrong(w).into_iter().for_each(|len| wrong_length(run(s, d, len, c), "diff_weights", w, len));
            wrong(c).into_iter().for_each(|len| wrong_length(run(s, d, w, len), "diff_bias", c, len));
        }
    }
}

#[test]
fn one_shot_functions_refuse_every_wrong_length_and_write_nothing() {
    for conv in convs() {
        let g = conv.geometry().unwrap();
        let (s, w, d, c) = (g.src_len(), g.weights_len(), g.dst_len(), conv.out_channels);
        let zeros = |len: usize| vec![0.0; len];
        for len in wrong(s) {
            wrong_length(
                convolve::forward(conv, &zeros(len), &zeros(w), &mut zeros(d), Epilogue::NONE),
                "src",
                s,
                len,
            );
            wrong_length(
                convolve::backward_data(conv, &zeros(d), &zeros(w), &mut zeros(len)),
                "diff_src",
                s,
                len,
            );
            wrong_length(
                convolve::backward_weights(conv, &zeros(len), &zeros(d), &mut zeros(w)),
                "src",
                s,
                len,
            );
        }
        for len in wrong(w) {
            wrong_length(
                convolve::forward(conv, &zeros(s), &zeros(len), &mut zeros(d), Epilogue::NONE),
                "weights",
                w,
                len,
            );
            wrong_length(
                convolve::backward_data(conv, &zeros(d), &zeros(len), &mut zeros(s)),
                "weights",
                w,
                len,
            );
            wrong_length(
                convolve::backward_weights(conv, &zeros(s), &zeros(d), &mut zeros(len)),
                "diff_weights",
                w,
                len,
            );
        }
        for len in wrong(d) {
            wrong_length(
                convolve::forward(conv, &zeros(s), &zeros(w), &mut zeros(len), Epilogue::NONE),
                "dst",
                d,
                len,
            );
            wrong_length(
                convolve::backward_data(conv, &zeros(len), &zeros(w), &mut zeros(s)),
                "diff_dst",
                d,
                len,
            );
            wrong_length(
                convolve::backward_weights(conv, &zeros(s), &zeros(len), &mut zeros(w)),
                "diff_dst",
                d,
                len,
            );
        }
        let run = |lens: [usize; 6]| {
            let [s, w, d, ds, dw, db] = lens;
            let (mut a, mut b, mut c) = (vec![5.0; ds], vec![5.0; dw], vec![5.0; db]);
            let gradients = Gradients {
                diff_src: Some(&mut a),
                diff_weights: Some(&mut b),
                diff_bias: Some(&mut c),
                update: Update::Overwrite,
            };
            let result = backward(conv, &zeros(s), &zeros(w), &zeros(d), gradients);
            let clean = a.iter().chain(&b).chain(&c).all(|&x| x == 5.0);
            assert!(result.is_ok() || clean, "{result:?} but it was written");
            result
        };
        let right = [s, w, d, s, w, c];
        assert!(run(right).is_ok());
        let names = ["src", "weights", "diff_dst", "diff_src", "diff_weights", "diff_bias"];
        for (i, name) in names.into_iter().enumerate() {
            for len in wrong(right[i]) {
                let mut lens = right;
                lens[i] = len;
                wrong_length(run(lens), name, right[i], len);
            }
        }
    }
}

#[test]
fn weights_that_another_plan_packed_are_refused() {
    let conv = Conv2d::new(4, 4, 3).input(6).padding(1);
    let weights = vec![1.0; 4 * 4 * 9];
    let plan = Planner::new().plan::<Forward>(conv).unwrap();
    let others = [
        conv.stride(2),
        conv.input(7),
        conv.batch(2),
        conv.padding(2),
        conv.layout(convolve::Layout::Nhwc),
        conv.weight_layout(convolve::WeightLayout::Hwio),
    ];
    let mut dst = vec![5.0; plan.geometry().dst_len()];
    let mut workspace = plan.workspace().unwrap();
    for other in others {
        let mut foreign = Planner::new().plan::<Forward>(other).unwrap().pack(&weights).unwrap();
        let error =
            plan.run(&foreign, &[1.0; 144], &mut dst, Epilogue::NONE, &mut workspace, Par::Seq).unwrap_err();
        let Error::Packed { packed, plan: mine } = &error else { panic!("{error}") };
        assert!(packed.contains(&other.to_string()) && mine.contains(&conv.to_string()), "{error}");
        assert!(matches!(plan.pack_again(&weights, &mut foreign), Err(Error::Packed { .. })));
    }
    // Of another pass, algorithm or instruction set.
    let scope = Scope::everything().serial();
    for name in scope.algorithms.names(Direction::Forward) {
        for &isa in convolve::Isa::available() {
            let Ok(other) = Planner::new().only(name).isa(isa).plan::<Forward>(conv) else { continue };
            let same = other.algorithm() == plan.algorithm() && other.isa() == plan.isa();
            let foreign = other.pack(&weights).unwrap();
            let result = plan.run(&foreign, &[1.0; 144], &mut dst, Epilogue::NONE, &mut workspace, Par::Seq);
            assert_eq!(result.is_ok(), same, "{name} {isa}: {result:?}");
        }
    }
    let backward = Planner::new().plan::<BackwardData>(conv).unwrap().pack(&weights).unwrap();
    let result = plan.run(&backward, &[1.0; 144], &mut dst, Epilogue::NONE, &mut workspace, Par::Seq);
    assert!(matches!(result, Err(Error::Packed { .. })));
}

#[test]
fn a_workspace_that_is_too_small_is_refused() {
    let conv = Conv2d::new(20, 33, 3).input(9).padding(1);
    let mut small = 0;
    for name in names::<Forward>() {
        let Ok(plan) = Planner::new().only(name).threads(2).plan::<Forward>(conv) else { continue };
        let packed = plan.pack(&vec![1.0; plan.geometry().weights_len()]).unwrap();
        let src = vec![1.0; plan.geometry().src_len()];
        let mut dst = vec![5.0; plan.geometry().dst_len()];
        let need = plan.workspace_len();
        for len in (0..need).step_by(1.max(need / 5)).chain(need.checked_sub(1)) {
            let result = plan.run(&packed, &src, &mut dst, Epilogue::NONE, &mut vec![0.0; len], Par::Seq);
            wrong_length(result, "workspace", need, len);
            assert!(dst.iter().all(|&x| x == 5.0));
            small += 1;
        }
        // More than enough is fine.
        plan.run(&packed, &src, &mut dst, Epilogue::NONE, &mut vec![0.0; need + 100], Par::Seq).unwrap();
    }
    for name in names::<BackwardWeights>() {
        let Ok(plan) = Planner::new().only(name).threads(2).plan::<BackwardWeights>(conv) else { continue };
        let (src, diff_dst) = (vec![1.0; plan.geometry().src_len()], vec![1.0; plan.geometry().dst_len()]);
        let mut diff_weights = vec![5.0; plan.geometry().weights_len()];
        if let Some(len) = plan.workspace_len().checked_sub(1) {
            let gradient = Some(&mut diff_weights[..]);
            let update = Update::Overwrite;
            let result = plan.run(&src, &diff_dst, gradient, None, update, &mut vec![0.0; len], Par::Seq);
            wrong_length(result, "workspace", len + 1, len);
            assert!(diff_weights.iter().all(|&x| x == 5.0));
            small += 1;
        }
    }
    println!("{small} workspaces refused");
}

/// Degenerate problems and their specified answers.
#[test]
fn degenerate_problems_are_errors_that_name_the_parameter() {
    let conv = Conv2d::new(4, 6, 3).input(5);
    let parameter = |conv: Conv2d, name: &str| match conv.geometry() {
        Err(error @ Error::Parameter { .. }) => {
            assert!(error.to_string().starts_with(&format!("{name} = 0")), "{error}")
        }
        other => panic!("{name}: {other:?}"),
    };
    parameter(Conv2d { in_channels: 0, ..conv }, "in_channels");
    parameter(Conv2d { out_channels: 0, ..conv }, "out_channels");
    parameter(conv.groups(0), "groups");
    for (i, axis) in ["height", "width"].into_iter().enumerate() {
        let zero = |pair: [usize; 2]| if i == 0 { [0, pair[1]] } else { [pair[0], 0] };
        parameter(conv.input(zero(conv.input)), &format!("input {axis}"));
        parameter(Conv2d { kernel: zero(conv.kernel), ..conv }, &format!("kernel {axis}"));
        parameter(conv.stride(zero([1, 1])), &format!("stride {axis}"));
        parameter(conv.dilation(zero([1, 1])), &format!("dilation {axis}"));
    }
    for groups in [3, 4, 5, 6, 7, 100, usize::MAX] {
        assert!(matches!(conv.groups(groups).geometry(), Err(Error::Groups { .. })), "{groups}");
    }
    for (kernel, dilation, padding) in [(6, 1, 0), (3, 3, 0), (3, 5, 2), (100, 1, 40)] {
        let conv = Conv2d::new(1, 1, kernel).input(5).dilation(dilation).padding(padding);
        assert!(
            matches!(conv.geometry(), Err(Error::KernelDoesNotFit { .. })),
            "{kernel} {dilation} {padding}"
        );
    }
    for huge in [
        conv.batch(usize::MAX),
        conv.input([usize::MAX, 5]),
        conv.padding(usize::MAX),
        conv.padding(usize::MAX / 4),
        conv.dilation(usize::MAX),
        conv.stride(usize::MAX),
        Conv2d { kernel: [usize::MAX, 3], ..conv },
        Conv2d::new(usize::MAX, 1, 1).input(1),
        Conv2d::new(1, usize::MAX, 1).input(1),
        Conv2d::new(1 << 31, 1 << 31, 3).input(5),
    ] {
        assert!(huge.geometry().is_err(), "{huge:?}");
        assert!(Planner::new().plan::<Forward>(huge).is_err());
    }
    // Nothing wrong with these.
    for fine in [
        conv.batch(0),
        conv.stride(100),
        conv.padding(7),
        Conv2d::new(1, 1, 1).input(1).dilation(1000),
        Conv2d::new(1, 1, 1).input(1).dilation(usize::MAX),
        conv.padding(3).stride(4),
    ] {
        assert!(fine.geometry().is_ok(), "{fine:?}");
        Planner::new().plan::<Forward>(fine).unwrap();
    }
}

#[test]
fn an_empty_batch_is_computed_and_zeroes_gradients() {
    let conv = Conv2d::new(4, 6, 3).input(5).batch(0);
    assert!(convolve::forward(conv, &[], &[1.0; 216], &mut [], Epilogue::NONE).is_ok());
    assert!(convolve::backward_data(conv, &[], &[1.0; 216], &mut []).is_ok());
    let mut diff_weights = [f32::NAN; 216];
    convolve::backward_weights(conv, &[], &[], &mut diff_weights).unwrap();
    assert_eq!(diff_weights, [0.0; 216]);
}

/// A plan that needs more memory than there is says so.
#[test]
fn no_memory_is_an_error() {
    assert!(matches!(convolve::Workspace::new(usize::MAX), Err(Error::OutOfMemory { .. })));
    assert!(matches!(convolve::Workspace::new(isize::MAX as usize / 4 - 64), Err(Error::OutOfMemory { .. })));
}

#[test]
fn poolings_and_linear_layers_obey_the_planner() {
    let (pool, linear) = (Pool2d::average(64, 3).input(56).padding(1), Linear::new(4096, 1000).batch(64));
    let needs = |planner: &Planner| {
        (planner.pool(pool).unwrap().workspace_len() * 4, planner.linear(linear).unwrap().workspace_len() * 4)
    };
    let planner = Planner::new().threads(2);
    let (of_pool, of_linear) = needs(&planner);
    assert!(of_pool > 0 && of_linear > 0);
    assert!(planner.clone().max_workspace(of_pool).pool(pool).is_ok());
    assert!(planner.clone().max_workspace(of_linear).linear(linear).is_ok());
    let errors = [
        planner.clone().max_workspace(of_pool - 1).pool(pool).unwrap_err(),
        planner.clone().max_workspace(of_linear - 1).linear(linear).unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(&error, Error::Excluded { excluded, .. } if excluded.len() == 1), "{error}");
        let [problem, reason] =
            [" (all passes): ", "KiB of workspace"].map(|part| error.to_string().find(part).unwrap());
        assert!(problem < reason, "{error}");
    }
    // Smaller caches, smaller blocks; fewer threads, fewer lanes.
    let small = Caches { l1: 8 << 10, l2: 64 << 10, l3: 1 << 20 };
    assert!(needs(&planner.clone().caches(small)).1 < of_linear);
    let one = needs(&planner.threads(1));
    assert!(one.0 < of_pool && one.1 < of_linear);
}

/// Found by a reader: a gradient of the bias was made of whatever was there.
#[test]
fn the_gradient_of_a_bias_has_its_lengths() {
    for (dst, bias, wrong) in
        [(3, 1, "diff_dst"), (7, 1, "diff_dst"), (2, 3, "diff_dst"), (4, 3, "diff_bias")]
    {
        let geometry = Conv2d::new(1, 1, 2).input(3).geometry().unwrap();
        let mut diff_bias = vec![7.0; bias];
        let error = backward_bias(&geometry, &vec![1.0; dst], &mut diff_bias, Update::Overwrite, Par::Seq);
        assert!(error.unwrap_err().to_string().starts_with(wrong));
        assert!(diff_bias.iter().all(|&x| x == 7.0));
    }
}
