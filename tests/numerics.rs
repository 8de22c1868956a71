//! Real numbers against f64: within the bound that `Accuracy::Strict` promises, and within a closer one that only a changed order of
//! summation, a lost term or a rounded operand would leave.
//!
//! u = 2^-24; K products per output; S = sum of |x||w|. The promise is K u S (Jeannerod and Rump; with fused multiply-add K u / (1 -
//! K u)). It is too wide to notice a lost term once K > 4096, so there is an alarm at 2 sqrt(K) u S: the worst seen of honest
//! summation is 1.6 sqrt(K) u S, and for K <= 4 the alarm is above the promise anyway. Both have K 2^-149 added, for denormal
//! numbers.

use convolve::Conv2d;
use convolve_testkit::data::Real;
use convolve_testkit::{Direction, How, Run, Scope, close, reference, strategy};
use proptest::prelude::*;
use std::collections::BTreeMap;

const U: f64 = 1.0 / (1 << 24) as f64;

/// Checks all strict algorithms; returns the worst error in units of sqrt(K) u S of each.
fn check(conv: Conv2d, kind: Real, seed: u64, scope: &Scope) -> Result<BTreeMap<String, f64>, String> {
    let mut worst = BTreeMap::new();
    for direction in Direction::ALL {
        let operands = kind.operands(&conv, direction, seed);
        let [left, right] = operands.each_ref().map(|x| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
        let exact = reference::reference(&conv, direction, &left, &right);
        let [left, right] = [left, right].map(|x| x.iter().map(|x| x.abs()).collect::<Vec<_>>());
        let sums = reference::reference(&conv, direction, &left, &right);
        let terms = reference::terms(&conv, direction);
        let bound = |f: &dyn Fn(f64) -> f64| -> Vec<f64> {
            terms.iter().zip(&sums).map(|(&k, s)| f(k as f64) * U * s + k as f64 * 2f64.powi(-149)).collect()
        };
        let promise = bound(&|k| k / (1.0 - k * U));
        let alarm = bound(&|k| 2.0 * k.sqrt());
        for conv in scope.layouts(conv) {
            let [left, right] = [(direction.left(), 0), (direction.right(), 1)]
                .map(|(operand, i)| reference::arrange(&conv, operand, &operands[i]));
            let [exact, promise, alarm] =
                [&exact, &promise, &alarm].map(|x| reference::arrange(&conv, direction.result(), x));
            let mut agree = Ok(());
            scope.for_each(conv, direction, |case, ready| {
                let (Ok(execution), Ok(())) = (ready, &agree) else { return };
                let got = execution.run(&left, &right, &How::default(), Run::new(execution.planned(), seed));
                agree = got.and_then(|got| {
                    let name = format!("{direction} {} {kind:?}", case.algorithm);
                    let ratio = (0..got.len())
                        .map(|i| 2.0 * (f64::from(got[i]) - exact[i]).abs() / alarm[i].max(f64::MIN_POSITIVE))
                        .fold(0.0, f64::max);
                    let entry = worst.entry(name).or_insert(0.0);
                    *entry = ratio.max(*entry);
                    close::within(execution.shape(), &got, &exact, &promise)
                        .map_err(|e| format!("{case}: {kind:?}: beyond the promised K u S: {e}"))?;
                    close::within(execution.shape(), &got, &exact, &alarm)
                        .map_err(|e| format!("{case}: {kind:?}: beyond the alarm 2 sqrt(K) u S: {e}"))
                });
            });
            agree?;
        }
    }
    Ok(worst)
}

proptest! {
    #![proptest_config(strategy::config(64))]

    #[test]
    fn strict_algorithms_keep_their_bound_on_any_problem(conv in strategy::convs(), seed in any::<u64>()) {
        let scope = Scope { weight_layouts: vec![conv.weight_layout], ..Scope::strict().serial() };
        check(conv, Real::ALL[(seed % 5) as usize], seed, &scope).map_err(TestCaseError::fail)?;
    }
}

#[test]
fn strict_algorithms_keep_their_bound_on_long_sums() {
    let mut worst: BTreeMap<String, f64> = BTreeMap::new();
    for text in [
        "mb1ic64ih6oc5kh3ph1",
        "mb1ic512ih4oc3kh3",
        "mb1ic2048ih3oc3kh3",
        "mb1ic3ih4oc2048kh3",
        "mb1ic4608ih2oc2kh1",
        "mb2ic2ih97oc3kh3ph1",
        "mb1ic1ih130oc2kh1",
    ] {
        let conv: Conv2d = text.parse().unwrap();
        for (seed, kind) in Real::ALL.into_iter().enumerate() {
            let weight_layouts = vec![Scope::strict().weight_layouts[seed % 3]];
            let scope = Scope { weight_layouts, ..Scope::strict().serial() };
            for (name, ratio) in check(conv, kind, seed as u64, &scope).unwrap() {
                let entry = worst.entry(name).or_insert(0.0);
                *entry = ratio.max(*entry);
            }
        }
    }
    for (name, ratio) in worst {
        println!("worst error of {name}: {ratio:.3} sqrt(K) u S");
    }
}

/// The alarm itself can go off: one lost term, or one operand rounded to bf16, is beyond it on most outputs.
#[test]
fn the_alarm_notices_a_lost_term_and_a_rounded_operand() {
    let conv: Conv2d = "mb1ic64ih6oc8kh3ph1".parse().unwrap();
    let [left, right] = Real::Positive.operands(&conv, Direction::Forward, 1);
    let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
    let exact = reference::reference(&conv, Direction::Forward, &wide(&left), &wide(&right));
    let terms = reference::terms(&conv, Direction::Forward);
    let alarm: Vec<f64> = exact.iter().zip(&terms).map(|(s, &k)| 2.0 * (k as f64).sqrt() * U * s).collect();
    let count = |left: &[f32], right: &[f32]| {
        let got = reference::reference(&conv, Direction::Forward, &wide(left), &wide(right));
        (0..got.len()).filter(|&i| (got[i] - exact[i]).abs() > alarm[i]).count()
    };
    let lost: Vec<f32> =
        right.iter().enumerate().map(|(i, &w)| if i % 576 == 300 { 0.0 } else { w }).collect();
    // That tap is absent in the first column, a sixth of all outputs.
    assert!(count(&left, &lost) > exact.len() * 8 / 10);
    let rounded: Vec<f32> = left.iter().map(|x| f32::from_bits(x.to_bits() & 0xffff_0000)).collect();
    assert!(count(&rounded, &right) > exact.len() * 9 / 10);
    assert_eq!(count(&left, &right), 0);
}
