//! What the caller limits, the planner obeys, or says which limit excludes what.

use convolve::registry::Registered;
use convolve::{
    Accuracy, BackwardData, BackwardWeights, Conv2d, Epilogue, Error, Exclusion, Forward, Layout, Padding,
    Par, Plan, Planner, Update, WeightLayout, Why,
};

/// A 3x3 body, a first layer, a 1x1, a depthwise layer, one with a stride; both layouts.
fn problems() -> Vec<Conv2d> {
    let problems = [
        "mb1ic64ih14oc64kh3ph1",
        "mb2ic3ih32oc16kh7sh2ph3",
        "mb1ic64ih14oc32kh1",
        "g32mb1ic32ih14oc32kh3ph1",
        "mb1ic16ih15oc24kh5sh2ph2",
    ];
    let layouts = [(Layout::Nchw, WeightLayout::Oihw), (Layout::Nhwc, WeightLayout::Hwio)];
    let parse = |text: &str| text.parse::<Conv2d>().unwrap();
    problems
        .iter()
        .flat_map(|text| layouts.map(|(layout, weights)| parse(text).layout(layout).weight_layout(weights)))
        .collect()
}

fn in_every_pass(check: impl Fn(Conv2d, usize)) {
    for conv in problems() {
        for pass in 0..3 {
            check(conv, pass);
        }
    }
}

/// Calls a generic function for pass 0, 1 or 2.
macro_rules! with_pass {
    ($pass:expr, $f:ident($($arg:expr),*)) => {
        match $pass {
            0 => $f::<Forward>($($arg),*),
            1 => $f::<BackwardData>($($arg),*),
            _ => $f::<BackwardWeights>($($arg),*),
        }
    };
}

#[test]
fn a_plan_needs_the_workspace_that_its_estimate_says() {
    fn check<P: Registered>(conv: Conv2d) {
        for threads in [1, 3] {
            for algorithm in P::algorithms() {
                let planner =
                    Planner::new().threads(threads).accuracy(Accuracy::Relaxed).only(algorithm.name());
                if let Ok(plan) = planner.plan::<P>(conv) {
                    let estimate = plan.estimate();
                    assert_eq!(plan.workspace_len(), estimate.workspace, "{} {plan:?}", P::NAME);
                }
            }
        }
    }
    in_every_pass(|conv, pass| with_pass!(pass, check(conv)));
}

#[test]
fn the_planner_stays_below_the_maximum_workspace_or_names_every_excess() {
    fn check<P: Registered>(conv: Conv2d) {
        let planner = Planner::new().threads(2);
        let explanation = planner.explain::<P>(conv).unwrap();
        let mut needs: Vec<usize> =
            explanation.verdicts.iter().filter_map(|v| Some(4 * v.answer.ok()?.workspace)).collect();
        needs.sort();
        let accepted = needs.len();
        for (i, &limit) in needs.iter().enumerate() {
            let limited = planner.clone().max_workspace(limit);
            let plan = limited.plan::<P>(conv).unwrap();
            assert!(4 * plan.workspace_len() <= limit, "{plan:?}");
            for verdict in limited.explain::<P>(conv).unwrap().verdicts {
                if let Err(Exclusion::Workspace { needs, limit: said }) = verdict.answer {
                    assert!(needs > limit && said == limit, "{verdict:?}");
                }
            }
            if limit > 0 && i == 0 {
                let error = planner.clone().max_workspace(limit - 1).plan::<P>(conv).unwrap_err();
                let Error::Excluded { excluded, .. } = &error else { panic!("{error}") };
                let workspaces =
                    excluded.iter().filter(|(_, why)| matches!(why, Exclusion::Workspace { .. }));
                assert_eq!(workspaces.count(), accepted, "{error}");
                assert!(error.to_string().contains("KiB of workspace, and the limit is"), "{error}");
            }
        }
    }
    in_every_pass(|conv, pass| with_pass!(pass, check(conv)));
}

#[test]
fn algorithms_can_be_forbidden_one_by_one_until_none_is_left() {
    fn check<P: Registered>(conv: Conv2d) {
        let mut planner = Planner::new().threads(1);
        let mut taken = Vec::new();
        let error = loop {
            match planner.plan::<P>(conv) {
                Ok(plan) => {
                    assert!(!taken.contains(&plan.algorithm()));
                    taken.push(plan.algorithm());
                    planner = planner.forbid(plan.algorithm());
                }
                Err(error) => break error,
            }
        };
        assert!(!taken.is_empty());
        let Error::Excluded { excluded, pass, .. } = &error else { panic!("{error}") };
        assert_eq!(*pass, P::NAME);
        for name in taken {
            assert!(excluded.contains(&(name, Exclusion::Forbidden)), "{error}");
            assert!(error.to_string().contains(&format!("{name}: it is forbidden")), "{error}");
        }
        // Only limits are named, not what the algorithms say themselves.
        assert!(excluded.iter().all(|(_, why)| why.is_limit()), "{error}");
    }
    in_every_pass(|conv, pass| with_pass!(pass, check(conv)));
}

#[test]
fn the_accuracy_class_is_named_as_the_reason() {
    let conv = Conv2d::new(64, 64, 3).input(14).padding(1);
    let explanation = Planner::new().accuracy(Accuracy::Strict).explain::<Forward>(conv).unwrap();
    let relaxed = Planner::new().accuracy(Accuracy::Relaxed).explain::<Forward>(conv).unwrap();
    let mut named = 0;
    for (verdict, free) in explanation.verdicts.iter().zip(&relaxed.verdicts) {
        let by_class = verdict.answer == Err(Exclusion::Accuracy);
        assert_eq!(by_class, free.answer.is_ok() && verdict.amplification > 1.0, "{}", verdict.algorithm);
        named += usize::from(by_class);
    }
    assert!(named >= 3, "{explanation}");
    // Where it would not serve in any class, the class is not the reason.
    let pointwise = Planner::new()
        .accuracy(Accuracy::Strict)
        .explain::<Forward>(Conv2d::new(64, 64, 1).input(14))
        .unwrap();
    assert!(pointwise.verdicts.iter().all(|v| v.answer != Err(Exclusion::Accuracy)), "{pointwise}");
    let strict = Planner::new().accuracy(Accuracy::Strict);
    let alone = explanation.verdicts.iter().filter(|v| v.amplification == 1.0);
    let error =
        alone.fold(strict, |planner, v| planner.forbid(v.algorithm)).plan::<Forward>(conv).unwrap_err();
    let Error::Excluded { excluded, .. } = &error else { panic!("{error}") };
    assert!(excluded.contains(&("winograd-f4x3", Exclusion::Accuracy)), "{error}");
}

#[test]
fn limits_contradict_each_other_with_a_sentence() {
    let conv = Conv2d::new(64, 64, 3).input(14).padding(1);
    let error = Planner::new().only("direct").forbid("direct").plan::<Forward>(conv).unwrap_err();
    assert!(
        matches!(&error, Error::Excluded { excluded, .. } if excluded == &[("direct", Exclusion::Forbidden)])
    );
    let error = Planner::new().forbid("alchemy").plan::<Forward>(conv).unwrap_err();
    assert!(matches!(error, Error::UnknownAlgorithm { .. }), "a misspelt name must not be ignored: {error}");
    // `outer` serves another pass: it may be forbidden for all passes at once.
    assert!(Planner::new().forbid("outer").plan::<Forward>(conv).is_ok());
}

#[test]
fn the_winner_has_the_least_price_and_the_explanation_says_by_how_much() {
    fn check<P: Registered>(conv: Conv2d) {
        let planner = Planner::new().threads(1);
        let explanation = planner.explain::<P>(conv).unwrap();
        let chosen = explanation.chosen().unwrap();
        assert_eq!(planner.plan::<P>(conv).unwrap().algorithm(), chosen.algorithm);
        let price = chosen.answer.unwrap().price();
        let others = explanation.verdicts.iter().filter(|v| !v.chosen).filter_map(|v| v.answer.ok());
        let next = others.map(|estimate| estimate.price()).fold(f64::INFINITY, f64::min);
        assert!(price <= next);
        match explanation.why {
            Some(Why::Estimate { ratio, .. }) => assert_eq!(ratio, next / price),
            why => assert!(why == Some(Why::Alone) && next == f64::INFINITY, "{explanation}"),
        }
        let text = explanation.to_string();
        for part in [" workspace ", " packed ", "error <= ", "<- chosen", " because ", explanation.machine] {
            assert!(text.contains(part), "{part}: {text}");
        }
        for verdict in &explanation.verdicts {
            assert!(text.contains(&format!("  {}: ", verdict.algorithm)), "{text}");
            let Ok(estimate) = verdict.answer else { continue };
            // Stages, where an algorithm says them, are the whole.
            let sum = estimate.stages.sum();
            assert!(
                sum == 0.0 || (sum / estimate.ns - 1.0).abs() < 1e-6,
                "{}: {estimate:?}",
                verdict.algorithm
            );
        }
    }
    in_every_pass(|conv, pass| with_pass!(pass, check(conv)));
}

/// A thread has 2 MiB for any algorithm that counts every multiplication, but the textbook product and `direct` where the window of a few outputs
/// alone is larger, as with a dilation of 12. (In NCHW the copy of the input of deep layers with a stride took more, as did the outputs of a large
/// image that wait to be transposed.)
#[test]
fn a_thread_has_two_mebibytes() {
    fn check<P: Registered>(conv: Conv2d, too_much: &mut Vec<String>) {
        let verdicts = Planner::new().threads(1).explain::<P>(conv).unwrap().verdicts;
        let accepted = verdicts.iter().filter_map(|verdict| Some((verdict.algorithm, verdict.answer.ok()?)));
        for (algorithm, estimate) in accepted {
            let other = algorithm == "im2col-matrixmultiply" || algorithm.starts_with("winograd");
            let bytes = 4 * estimate.workspace;
            if bytes > 2 << 20 && !other {
                too_much.push(format!("{algorithm}: {bytes} bytes for {} of {conv}", P::NAME));
            }
        }
    }
    let deep = [
        "mb1ic1024ih28oc512kh1sh2",
        "mb1ic2048ih28oc64kh1sh2",
        "mb1ic2048ih14oc64kh3ph1",
        "mb1ic1024ih9oc16kh3ph1sh2",
        "mb1ic2048ih3iw300oc8kh3kw3ph1pw1",
        "mb64ic4096ih1oc100kh1",
        "mb1ic512ih28oc1024kh1sh2",
        "mb1ic3ih1024oc512kh3ph1",
        // A row alone.
        "mb1ic1ih1iw60000oc64kh1kw3pw1",
    ];
    let deep = deep.iter().map(|text| text.parse::<Conv2d>().unwrap());
    let layers = convolve_testkit::shapes::suite("all").unwrap().into_iter().map(|problem| problem.conv);
    let mut too_much = Vec::new();
    for conv in deep.chain(layers) {
        for (layout, weights) in [(Layout::Nchw, WeightLayout::Oihw), (Layout::Nhwc, WeightLayout::Hwio)] {
            let conv = conv.layout(layout).weight_layout(weights);
            check::<Forward>(conv, &mut too_much);
            check::<BackwardData>(conv, &mut too_much);
            check::<BackwardWeights>(conv, &mut too_much);
        }
    }
    assert!(too_much.is_empty(), "{too_much:#?}");
}

/// Small tensors with numbers as large as can be said beside them: every algorithm plans or refuses, and what it computes is right. (Columns of a
/// window were listed without end, 2^40 channels of one pixel; rows 2^57 apart panicked in a run, others 2^61 apart overflowed in an estimate, or in a run.)
#[test]
fn what_is_far_apart_is_planned_and_computed() {
    fn plans<P: Registered>(conv: Conv2d) -> Vec<Plan<P>> {
        let verdicts = Planner::new().threads(1).explain::<P>(conv).unwrap().verdicts;
        let accepted = verdicts.iter().filter(|verdict| verdict.answer.is_ok());
        accepted
            .map(|verdict| Planner::new().threads(1).only(verdict.algorithm).plan::<P>(conv).unwrap())
            .collect()
    }
    fn all_equal(results: Vec<(&'static str, Vec<f32>)>, conv: Conv2d) {
        let [(first, expected), others @ ..] = &results[..] else { panic!("nothing computes {conv}") };
        others.iter().for_each(|(name, got)| assert_eq!(got, expected, "{name} and {first}: {conv}"));
    }
    let numbers = |len: usize| (0..len).map(|i| (i % 7) as f32 - 3.0).collect::<Vec<f32>>();
    let pad = |top, left| Padding::Explicit { top, bottom: 0, left, right: 0 };
    let (far, farther) = (1 << 57, 1 << 61);
    let problems = [
        Conv2d::new(2, 2, [2, 1]).input(5).dilation([far, 1]).padding(pad(far, 0)),
        Conv2d::new(2, 2, [2, 1]).input(5).dilation([farther, 1]).padding(pad(farther, 0)),
        Conv2d::new(8, 2, [1, 2]).input(5).dilation([1, farther]).padding(pad(0, farther)),
        Conv2d::new(4, 4, [1, 2]).input(1).dilation([1, farther]).padding(pad(0, farther)),
        Conv2d::new(8, 8, [1, 2]).input(1).dilation([1, farther]).padding(pad(0, farther)),
        Conv2d::new(1, 1, 3).input([5, 8]).stride([farther, 1]),
        // As wide as its rows are long: whether rows follow each other was asked of a product of 2^64.
        Conv2d::new(1, 1, 1).input([5, 8]).stride([farther, 1]),
        // Gradients whose pixels are any distance apart, since there is one column, and chunks of different heights.
        Conv2d::new(24, 16, 1).batch(2).input([101, 1]).stride([1, (1 << 60) / 24]),
        Conv2d::new(2, 3, 3).input([8, 5]).stride([1, farther]),
        Conv2d::new(4, 6, 3).input(5).stride(farther),
    ];
    for conv in problems {
        for (layout, weights) in [(Layout::Nchw, WeightLayout::Oihw), (Layout::Nhwc, WeightLayout::Hwio)] {
            let conv = conv.layout(layout).weight_layout(weights);
            let geometry = conv.geometry().unwrap();
            let [src, weights, diff_dst] =
                [geometry.src_len(), geometry.weights_len(), geometry.dst_len()].map(numbers);
            let results = plans::<Forward>(conv).into_iter().map(|plan| {
                let (packed, mut dst) = (plan.pack(&weights).unwrap(), numbers(diff_dst.len()));
                let mut workspace = plan.workspace().unwrap();
                plan.run(&packed, &src, &mut dst, Epilogue::NONE, &mut workspace, Par::Seq).unwrap();
                (plan.algorithm(), dst)
            });
            all_equal(results.collect(), conv);
            let results = plans::<BackwardData>(conv).into_iter().map(|plan| {
                let (packed, mut diff_src) = (plan.pack(&weights).unwrap(), numbers(src.len()));
                let mut workspace = plan.workspace().unwrap();
                plan.run(&packed, &diff_dst, &mut diff_src, Update::Overwrite, &mut workspace, Par::Seq)
                    .unwrap();
                (plan.algorithm(), diff_src)
            });
            all_equal(results.collect(), conv);
            // `direct` packs a row of pixels from the first tap to the last: memory that cannot be had is an error.
            let results = plans::<BackwardWeights>(conv).into_iter().filter_map(|plan| {
                let (mut diff, mut workspace) = (numbers(weights.len()), plan.workspace().ok()?);
                plan.run(&src, &diff_dst, Some(&mut diff), None, Update::Overwrite, &mut workspace, Par::Seq)
                    .unwrap();
                Some((plan.algorithm(), diff))
            });
            all_equal(results.collect(), conv);
        }
    }
    // These are only planned: their tensors are too large.
    let (many, wide) = (1 << 40, Conv2d::new(1, 1, [1, 3]).padding([0, 1]));
    assert!(Planner::new().plan::<Forward>(Conv2d::new(many, 1, 1).input(1)).is_ok());
    assert!(Planner::new().plan::<BackwardData>(Conv2d::new(1, many, 1).input(1)).is_ok());
    assert!(Planner::new().plan::<BackwardWeights>(wide.input([1, many + 1])).is_ok());
}

/// A limit that the window of one output exceeds must not cut the work into single pixels (2048 channels, dilation 12: 1089 tasks, once).
#[test]
fn wide_dilations_keep_their_tasks() {
    for layout in [Layout::Nchw, Layout::Nhwc] {
        let conv = "mb1ic2048ih33oc256kh3ph12dh11".parse::<Conv2d>().unwrap().layout(layout);
        let planner = Planner::new().threads(1).only("direct");
        let [dense, dilated] = [conv.dilation(1).padding(1), conv]
            .map(|conv| planner.plan::<Forward>(conv).unwrap().estimate().ns);
        assert!(dilated < 2.0 * dense, "{layout}: {dilated} ns instead of {dense}");
    }
    // Strides as far apart as can be said.
    let far = Conv2d::new(4, 6, 3).input(5).stride(1 << 61).layout(Layout::Nhwc);
    assert!(Planner::new().plan::<Forward>(far).is_ok());
}
