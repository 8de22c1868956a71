//! The optimisers are their formulas: bit for bit in f32, within a running error bound in f64 over many steps, exactly on integers.
//!
//! The bound is Wilkinson's (1963): a rounded operation is off by at most u |its result|, u = 2^-24, and what the operands were off by passes
//! through the formula. It is summed along with the steps, from the numbers that were computed; the f64 reference and the bound itself are
//! off by 2^-29 of it, for which [`SLACK`] is room.

use convolve_layers::{Adam, Sgd};
use convolve_simd::Isa;

const U: f64 = 1.0 / (1 << 24) as f64;
const SLACK: f64 = 1.0 + 1e-6;
/// Of no whole number of registers.
const LEN: usize = 83;

/// In (-2, 2), of all magnitudes down to 2^-7.
fn numbers(seed: usize) -> Vec<f32> {
    let number = |i: usize| {
        let bits = (i * 7919 + seed * 104_729) % 65_537;
        (bits as f32 / 32_768.5 - 1.0) * 2f32.powi(1 - (bits % 8) as i32)
    };
    (0..LEN).map(number).collect()
}

/// Of a step: noise around a direction.
fn gradient(time: usize) -> Vec<f32> {
    numbers(time).iter().zip(numbers(0)).map(|(noise, direction)| noise + direction).collect()
}

fn doubles(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// `|got - exact| <= bound` for all; and the bound says something: it is less than 1e-3 of the way.
fn check(got: &[f32], exact: &[f64], bound: &[f64], start: &[f32], name: &str) {
    let mut way: f64 = 0.0;
    for i in 0..LEN {
        let error = (f64::from(got[i]) - exact[i]).abs();
        assert!(
            error <= SLACK * bound[i],
            "{name}, {i}: {} for {}, off by {error:e} of {:e}",
            got[i],
            exact[i],
            bound[i]
        );
        way = way.max((exact[i] - f64::from(start[i])).abs());
    }
    let worst = bound.iter().fold(0.0, |worst: f64, bound| worst.max(*bound));
    assert!(worst < 1e-3 * way, "{name}: a bound of {worst:e} on a way of {way}");
}

const SGDS: [Sgd; 4] = [
    Sgd { rate: 0.01, momentum: 0.9 },
    Sgd { rate: 0.3, momentum: 0.0 },
    Sgd { rate: 1e-3, momentum: 0.99 },
    Sgd { rate: 0.1, momentum: -0.5 },
];

/// `v = momentum v + g` has two roundings, `w -= rate v` two more.
#[test]
fn sgd_stays_within_the_running_bound_of_its_formula() {
    for (sgd, &isa) in SGDS.iter().flat_map(|sgd| Isa::available().iter().map(move |isa| (sgd, isa))) {
        let start = numbers(1);
        let (mut w, mut v) = (start.clone(), vec![0.0; LEN]);
        let (mut exact_w, mut exact_v) = (doubles(&w), vec![0.0; LEN]);
        let (mut off_w, mut off_v) = (vec![0.0; LEN], vec![0.0; LEN]);
        let [rate, momentum] = [sgd.rate, sgd.momentum].map(f64::from);
        for time in 1..=500 {
            let g = gradient(time);
            let product: Vec<f64> = v.iter().map(|v| f64::from(sgd.momentum * v).abs()).collect();
            sgd.step(&mut w, &g, &mut v, isa).unwrap();
            for i in 0..LEN {
                exact_v[i] = momentum * exact_v[i] + f64::from(g[i]);
                exact_w[i] -= rate * exact_v[i];
                off_v[i] = momentum.abs() * off_v[i] + U * (product[i] + f64::from(v[i]).abs());
                let step = f64::from(sgd.rate * v[i]).abs();
                off_w[i] += rate * off_v[i] + U * (step + f64::from(w[i]).abs());
            }
        }
        check(&v, &exact_v, &off_v, &vec![0.0; LEN], &format!("velocity of {sgd:?} on {isa}"));
        check(&w, &exact_w, &off_w, &start, &format!("weights of {sgd:?} on {isa}"));
    }
}

/// With momentum 1 and a whole rate every number is a whole one, below 2^24: sums, and sums of sums.
#[test]
fn sgd_is_exact_on_integers() {
    for &isa in Isa::available() {
        let gradient = |time: usize| (0..LEN).map(move |i| ((i * 5 + time * 3) % 17) as i32 - 8);
        let (mut w, mut v) = (vec![100.0; LEN], vec![0.0; LEN]);
        let (mut whole_w, mut whole_v) = ([100; LEN], [0; LEN]);
        for time in 0..200 {
            let g: Vec<f32> = gradient(time).map(|g| g as f32).collect();
            Sgd { rate: 2.0, momentum: 1.0 }.step(&mut w, &g, &mut v, isa).unwrap();
            gradient(time).zip(&mut whole_v).for_each(|(g, v)| *v += g);
            whole_w.iter_mut().zip(whole_v).for_each(|(w, v)| *w -= 2 * v);
        }
        assert!(w.iter().zip(whole_w).all(|(w, whole)| *w == whole as f32), "{isa}");
        assert!(v.iter().zip(whole_v).all(|(v, whole)| *v == whole as f32), "{isa}");
    }
}

const ADAMS: [Adam; 3] = [
    Adam { rate: 1e-3, decay: [0.9, 0.999], epsilon: 1e-8 },
    Adam { rate: 0.05, decay: [0.5, 0.75], epsilon: 1e-3 },
    Adam { rate: 0.01, decay: [0.0, 0.99], epsilon: 0.1 },
];

/// Three roundings make `m`, four `v` (where 1 - decay is exact in f32, as it is from 1/2 to 1 and at 0). The step `d = s m / (sqrt(v) + eps)` has
/// five, that of s among them, and passes on
///
/// ```text
/// |d(m', v') - d(m, v)| <= s |m' - m| / (sqrt(v) + eps) + |d(m', v')| |sqrt(v') - sqrt(v)| / (sqrt(v) + eps)
/// |sqrt(v') - sqrt(v)| = |v' - v| / (sqrt(v') + sqrt(v))
/// ```
#[test]
fn adam_stays_within_the_running_bound_of_its_formula() {
    for (adam, &isa) in ADAMS.iter().flat_map(|adam| Isa::available().iter().map(move |isa| (adam, isa))) {
        let start = numbers(1);
        let (mut w, mut m, mut v) = (start.clone(), vec![0.0; LEN], vec![0.0; LEN]);
        let (mut exact_w, mut exact_m, mut exact_v) = (doubles(&w), vec![0.0; LEN], vec![0.0; LEN]);
        let (mut off_w, mut off_m, mut off_v) = (vec![0.0; LEN], vec![0.0; LEN], vec![0.0; LEN]);
        let ([a, b], epsilon) = (adam.decay.map(f64::from), f64::from(adam.epsilon));
        for time in 1..=500 {
            let g = gradient(time);
            let before = (doubles(&m), doubles(&v));
            adam.step(&mut w, &g, [&mut m, &mut v], time, isa).unwrap();
            let power = |x: f64| x.powf(time as f64);
            let step = adam.rate * (1.0 - power(b)).sqrt() / (1.0 - power(a));
            for i in 0..LEN {
                let g = f64::from(g[i]);
                exact_m[i] = a * exact_m[i] + (1.0 - a) * g;
                exact_v[i] = b * exact_v[i] + (1.0 - b) * g * g;
                let exact_root = exact_v[i].sqrt() + epsilon;
                exact_w[i] -= step * exact_m[i] / exact_root;

                let [m, v] = [m[i], v[i]].map(f64::from);
                off_m[i] = a * off_m[i] + U * (a * before.0[i].abs() + (1.0 - a) * g.abs() + m.abs());
                off_v[i] = b * off_v[i] + U * (b * before.1[i] + 2.0 * (1.0 - b) * g * g + v);
                let d = (step * m / (v.sqrt() + epsilon)).abs();
                let roots = off_v[i] / (v.sqrt() + exact_v[i].sqrt());
                off_w[i] += step * off_m[i] / exact_root + d * roots / exact_root;
                off_w[i] += U * (5.0 * d + f64::from(w[i]).abs());
            }
        }
        check(&m, &exact_m, &off_m, &vec![0.0; LEN], &format!("first moment of {adam:?} on {isa}"));
        check(&v, &exact_v, &off_v, &vec![0.0; LEN], &format!("second moment of {adam:?} on {isa}"));
        check(&w, &exact_w, &off_w, &start, &format!("weights of {adam:?} on {isa}"));
    }
}

/// Without memory and epsilon, m = g and v = g^2: the step is the rate with the sign of the gradient. Powers of two leave nothing to round.
#[test]
fn adam_without_memory_is_exact() {
    let adam = Adam { rate: 0.25, decay: [0.0, 0.0], epsilon: 0.0 };
    for &isa in Isa::available() {
        let (mut w, mut m, mut v) = (vec![1.0; LEN], vec![9.0; LEN], vec![9.0; LEN]);
        let g: Vec<f32> =
            (0..LEN).map(|i| if i % 3 == 0 { -2.0 } else { 2f32.powi(i as i32 % 40) }).collect();
        for time in 1..=8 {
            adam.step(&mut w, &g, [&mut m, &mut v], time, isa).unwrap();
        }
        assert_eq!(m, g, "{isa}");
        assert!(v.iter().zip(&g).all(|(v, g)| *v == g * g), "{isa}");
        assert!(w.iter().zip(&g).all(|(w, g)| *w == 1.0 - 2.0 * g.signum()), "{isa}");
    }
}

/// No multiply-add is fused and no sum reordered, so that a plain loop has the same bits, on every instruction set.
#[test]
fn bits_are_those_of_the_formula() {
    let (sgd, adam, g) = (SGDS[0], ADAMS[0], numbers(2));
    for &isa in Isa::available() {
        let (mut w, mut v) = (numbers(1), numbers(3));
        let (mut plain_w, mut plain_v) = (w.clone(), v.clone());
        sgd.step(&mut w, &g, &mut v, isa).unwrap();
        for i in 0..LEN {
            plain_v[i] = sgd.momentum * plain_v[i] + g[i];
            plain_w[i] -= sgd.rate * plain_v[i];
        }
        assert_eq!((&w, v), (&plain_w, plain_v), "{isa}");

        let (mut m, mut v) = (numbers(4), g.iter().map(|g| g.abs()).collect::<Vec<_>>());
        let (mut plain_m, mut plain_v) = (m.clone(), v.clone());
        adam.step(&mut w, &g, [&mut m, &mut v], 3, isa).unwrap();
        let [a, b] = adam.decay;
        let [power_a, power_b] = adam.decay.map(|decay| f64::from(decay).powf(3.0));
        let step = (adam.rate * (1.0 - power_b).sqrt() / (1.0 - power_a)) as f32;
        for i in 0..LEN {
            plain_m[i] = a * plain_m[i] + (1.0 - a) * g[i];
            plain_v[i] = b * plain_v[i] + (1.0 - b) * g[i] * g[i];
            plain_w[i] -= step * plain_m[i] / (plain_v[i].sqrt() + adam.epsilon);
        }
        assert_eq!((w, m, v), (plain_w, plain_m, plain_v), "{isa}");
    }
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_touched() {
    let (sgd, adam, isa) = (SGDS[0], ADAMS[0], Isa::best());
    let weights = [1.0, 2.0, 3.0];
    for (lens, operand) in
        [([2, 3], "gradient"), ([4, 3], "gradient"), ([3, 2], "velocity"), ([3, 0], "velocity")]
    {
        let (mut w, mut v) = (weights, vec![5.0; lens[1]]);
        let error = sgd.step(&mut w, &vec![1.0; lens[0]], &mut v, isa).unwrap_err();
        let got = if operand == "gradient" { lens[0] } else { lens[1] };
        assert_eq!(
            error.to_string(),
            format!("{operand} has {got} elements, but the shape of weights needs 3")
        );
        assert_eq!((w, v), (weights, vec![5.0; lens[1]]));
    }
    for (lens, operand) in [
        ([2, 3, 3], "gradient"),
        ([3, 4, 3], "the first moment"),
        ([3, 3, 2], "the second moment"),
        ([3, 3, 3], "time"),
    ] {
        let (mut w, mut m, mut v) = (weights, vec![5.0; lens[1]], vec![6.0; lens[2]]);
        let time = usize::from(operand != "time");
        let error = adam.step(&mut w, &vec![1.0; lens[0]], [&mut m, &mut v], time, isa).unwrap_err();
        let got = lens.into_iter().find(|&len| len != 3).unwrap_or(0);
        let expected = match operand {
            "time" => "time = 0: steps count from 1".to_owned(),
            _ => format!("{operand} has {got} elements, but the shape of weights needs 3"),
        };
        assert_eq!(error.to_string(), expected);
        assert_eq!((w, m, v), (weights, vec![5.0; lens[1]], vec![6.0; lens[2]]));
    }
}
