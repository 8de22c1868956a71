//! Normalisation in f32 and f64 against its formula: within the bound of a running error analysis, exact where everything is an integer,
//! and gradients against differences in f64.

use convolve::{Isa, Layout, Norm, Par, Real, Saved, Statistics, Update};
use convolve_testkit::data::{Random, floats, small};
use convolve_testkit::rough::Rough;
use convolve_testkit::{close, isas, pool};

/// Sums of at most a few hundred numbers, so that bounds are narrow.
fn norms() -> Vec<Norm> {
    let mut norms = Vec::new();
    for layout in Layout::ALL {
        for statistics in [Statistics::Batch, Statistics::Instance] {
            for ([batch, channels, pixels], epsilon) in [
                ([1, 1, 7], 1e-5),
                ([2, 3, 5], 1e-3),
                ([3, 2, 37], 1e-5),
                ([2, 17, 16], 1e-3),
                ([4, 5, 49], 1e-5),
                ([1, 33, 64], 1.0),
            ] {
                norms.push(Norm { batch, channels, pixels, layout, statistics, epsilon });
            }
        }
    }
    norms
}

/// Numbers that f32 holds: src of channels with means and deviations of their own, gamma, beta, diff_dst.
fn numbers(norm: &Norm, seed: u64) -> [Vec<f64>; 4] {
    let (mut random, len) = (Random::new(seed), norm.batch * norm.channels * norm.pixels);
    let mut normal = |scale: f64, shift: f64| f64::from((scale * random.normal() + shift) as f32);
    let mut src = vec![0.0; len];
    for (n, c, p) in indices(norm) {
        let (scale, shift) = ([1.0, 0.1, 30.0][c % 3], [0.5, -2.0, 0.0][c % 3]);
        src[place(norm, n, c, p)] = normal(scale, shift);
    }
    [
        src,
        (0..norm.channels).map(|_| normal(1.0, 0.0)).collect(),
        (0..norm.channels).map(|_| normal(1.0, 0.0)).collect(),
        (0..len).map(|_| normal(1.0, 0.2)).collect(),
    ]
}

fn single(x: &[f64]) -> Vec<f32> {
    x.iter().map(|&x| x as f32).collect()
}

fn indices(norm: &Norm) -> impl Iterator<Item = (usize, usize, usize)> + use<> {
    let Norm { batch, channels, pixels, .. } = *norm;
    (0..batch).flat_map(move |n| (0..channels).flat_map(move |c| (0..pixels).map(move |p| (n, c, p))))
}

fn place(norm: &Norm, n: usize, c: usize, p: usize) -> usize {
    match norm.layout {
        Layout::Nchw => (n * norm.channels + c) * norm.pixels + p,
        Layout::Nhwc => (n * norm.pixels + p) * norm.channels + c,
    }
}

/// Groups of values that share a mean, each with its channel.
fn groups(norm: &Norm) -> Vec<(usize, Vec<usize>)> {
    let count = if norm.statistics == Statistics::Batch { norm.channels } else { norm.batch * norm.channels };
    let mut groups: Vec<_> = (0..count).map(|g| (g % norm.channels, Vec::new())).collect();
    for (n, c, p) in indices(norm) {
        let g = if norm.statistics == Statistics::Batch { c } else { n * norm.channels + c };
        groups[g].1.push(place(norm, n, c, p));
    }
    groups
}

/// Forward and the three gradients, in numbers that carry their bounds.
struct Defined {
    dst: Vec<Rough>,
    gradients: [Vec<Rough>; 3],
}

fn mean(x: impl ExactSizeIterator<Item = Rough>) -> Rough {
    let count = Rough::nearly(1.0 / x.len() as f64);
    Rough::sum(x) * count
}

fn inverse(norm: &Norm, variance: Rough) -> Rough {
    Rough::exactly(1.0) / (variance + Rough::nearly(norm.epsilon)).sqrt()
}

fn defined(norm: &Norm, [src, gamma, beta, diff_dst]: &[Vec<f64>; 4]) -> Defined {
    let x = |i: usize| Rough::exactly(src[i]);
    let dy = |i: usize| Rough::exactly(diff_dst[i]);
    let mut dst = vec![Rough::default(); src.len()];
    let mut diff_src = dst.clone();
    let mut of_channels = vec![[Vec::new(), Vec::new()]; norm.channels];
    for (c, members) in groups(norm) {
        let [gamma, beta] = [gamma, beta].map(|of| Rough::exactly(of[c]));
        let center = mean(members.iter().map(|&i| x(i)));
        let variance = mean(members.iter().map(|&i| (x(i) - center) * (x(i) - center)));
        let inverse = inverse(norm, variance);
        let of_dy = mean(members.iter().map(|&i| dy(i)));
        let product = |i: usize| dy(i) * (x(i) - center);
        let of_product = mean(members.iter().map(|&i| product(i))) * inverse * inverse;
        let factor = gamma * inverse;
        for &i in &members {
            dst[i] = (x(i) - center) * factor + beta;
            diff_src[i] = factor * (dy(i) - of_dy - (x(i) - center) * of_product);
        }
        of_channels[c][0].push(Rough::sum(members.iter().map(|&i| product(i))) * inverse);
        of_channels[c][1].push(Rough::sum(members.iter().map(|&i| dy(i))));
    }
    let [diff_gamma, diff_beta] =
        [0, 1].map(|k| of_channels.iter().map(|sums| Rough::sum(sums[k].iter().copied())).collect());
    Defined { dst, gradients: [diff_src, diff_gamma, diff_beta] }
}

/// What f64 rounds, of what f32 does: in the reference and in the pass.
const DOUBLE: f64 = 2.0 / (1 << 29) as f64;

fn agree(what: &str, norm: &Norm, isa: Isa, got: &[f32], expected: &[Rough]) {
    let values: Vec<f64> = expected.iter().map(|x| x.value).collect();
    let errors: Vec<f64> = expected.iter().map(|x| x.error).collect();
    close::within([1, 1, 1, got.len()], got, &values, &errors)
        .unwrap_or_else(|e| panic!("{what} of {norm:?} on {isa}: {e}"));
}

/// The same for f64: the differences are what is compared, since comparators take f32.
fn agree_doubly(what: &str, norm: &Norm, isa: Isa, got: &[f64], expected: &[Rough]) {
    assert_eq!(got.len(), expected.len());
    let errors: Vec<f64> = expected.iter().map(|x| x.error * DOUBLE).collect();
    let off: Vec<f32> = got.iter().zip(expected).map(|(got, x)| (got - x.value) as f32).collect();
    close::within([1, 1, 1, got.len()], &off, &vec![0.0; off.len()], &errors)
        .unwrap_or_else(|e| panic!("{what} in f64 of {norm:?} on {isa}: {e}"));
}

/// dst and the three gradients, by the library; buffers start as NaN.
fn computed<T: Real>(
    norm: &Norm,
    operands: [&[T]; 4],
    nan: T,
    isa: Isa,
    par: Par<'_>,
) -> ([Vec<T>; 4], Saved<T>) {
    let [src, gamma, beta, diff_dst] = operands;
    let mut results = [src.len(), src.len(), norm.channels, norm.channels].map(|len| vec![nan; len]);
    let [dst, diff_src, diff_gamma, diff_beta] = &mut results;
    let saved = norm.forward(src, gamma, beta, dst, isa, par).unwrap();
    let gradients = [&mut diff_src[..], diff_gamma, diff_beta];
    norm.backward(src, diff_dst, gamma, &saved, gradients, Update::Overwrite, isa, par).unwrap();
    (results, saved)
}

#[test]
fn every_pass_is_within_its_running_error() {
    let mut widest = 0.0f64;
    for (norm, seed) in norms().into_iter().zip(0..) {
        let numbers = numbers(&norm, seed);
        let singles = numbers.each_ref().map(|x| single(x));
        let Defined { dst, gradients: [diff_src, diff_gamma, diff_beta] } = defined(&norm, &numbers);
        let expected = [dst, diff_src, diff_gamma, diff_beta];
        for isa in isas() {
            let (got, _) = computed(&norm, singles.each_ref().map(|x| &x[..]), f32::NAN, isa, Par::Seq);
            let (double, _) = computed(&norm, numbers.each_ref().map(|x| &x[..]), f64::NAN, isa, Par::Seq);
            let names = ["forward", "diff_src", "diff_gamma", "diff_beta"];
            for (i, name) in names.into_iter().enumerate() {
                agree(name, &norm, isa, &got[i], &expected[i]);
                agree_doubly(name, &norm, isa, &double[i], &expected[i]);
                for (got, x) in got[i].iter().zip(&expected[i]) {
                    widest = widest.max((f64::from(*got) - x.value).abs() / x.error);
                }
            }
            let (shared, _) = pool(3)
                .install(|| computed(&norm, singles.each_ref().map(|x| &x[..]), f32::NAN, isa, Par::Current));
            for (shared, got) in shared.iter().zip(&got) {
                close::same_bits([1, 1, 1, got.len()], shared, got).unwrap();
            }
        }
        // The bound says something: it is small next to what it bounds.
        let scale = |x: &[Rough]| x.iter().map(|x| x.value.abs()).fold(0.0, f64::max);
        let error = |x: &[Rough]| x.iter().map(|x| x.error).fold(0.0, f64::max);
        assert!(error(&expected[0]) < 1e-3 * scale(&expected[0]), "forward of {norm:?}");
        assert!(error(&expected[1]) < 1e-3 * scale(&expected[1]).max(1.0), "diff_src of {norm:?}");
    }
    assert!(widest > 0.01, "no error is near its bound: {widest}");
}

/// `loss = sum of dy * y`.
fn loss(norm: &Norm, [src, gamma, beta, diff_dst]: &[Vec<f64>; 4]) -> f64 {
    let mut loss = 0.0;
    for (c, members) in groups(norm) {
        let count = members.len() as f64;
        let mean = members.iter().map(|&i| src[i]).sum::<f64>() / count;
        let variance = members.iter().map(|&i| (src[i] - mean).powi(2)).sum::<f64>() / count;
        let inverse = 1.0 / (variance + norm.epsilon).sqrt();
        loss += members
            .iter()
            .map(|&i| diff_dst[i] * (gamma[c] * (src[i] - mean) * inverse + beta[c]))
            .sum::<f64>();
    }
    loss
}

/// Gradients in f32 against central differences in f64: off by what a smaller step changes, by what the loss is rounded to, and by what f32
/// rounds.
#[test]
fn gradients_are_differences() {
    for (norm, seed) in
        norms().into_iter().zip(50..).filter(|(norm, _)| norm.batch * norm.channels * norm.pixels < 300)
    {
        let numbers = numbers(&norm, seed);
        let singles = numbers.each_ref().map(|x| single(x));
        let bounds = defined(&norm, &numbers).gradients;
        let magnitude: f64 = {
            let Defined { dst, .. } = defined(&norm, &numbers);
            dst.iter().zip(&numbers[3]).map(|(y, dy)| (y.value * dy).abs()).sum()
        };
        let mut expected = bounds.each_ref().map(|x| vec![Rough::default(); x.len()]);
        for k in 0..3 {
            for i in 0..expected[k].len() {
                let deviation = if k == 0 { [1.0, 0.1, 30.0][channel(&norm, i) % 3] } else { 1.0 };
                let difference = |step: f64| {
                    let moved = |by: f64| {
                        let mut operands = numbers.clone();
                        operands[k][i] += by;
                        loss(&norm, &operands)
                    };
                    (moved(step) - moved(-step)) / (2.0 * step)
                };
                let step = deviation * 2f64.powi(-13);
                let (coarse, fine) = (difference(2.0 * step), difference(step));
                // A loss is a sum of some hundred terms, each of a dozen roundings.
                let rounding = 400.0 * 2f64.powi(-53) * magnitude / step;
                expected[k][i] =
                    Rough { value: fine, error: (coarse - fine).abs() + 2.0 * rounding + bounds[k][i].error };
                assert!(
                    (coarse - fine).abs() + 2.0 * rounding < 1e-4 * (1.0 + fine.abs()),
                    "a step too wide: {norm:?}"
                );
            }
        }
        for isa in isas() {
            let ([_, got @ ..], _) =
                computed(&norm, singles.each_ref().map(|x| &x[..]), f32::NAN, isa, Par::Seq);
            for (got, expected) in got.iter().zip(&expected) {
                agree("gradient by differences", &norm, isa, got, expected);
            }
        }
    }
}

fn channel(norm: &Norm, i: usize) -> usize {
    match norm.layout {
        Layout::Nchw => i / norm.pixels % norm.channels,
        Layout::Nhwc => i % norm.channels,
    }
}

/// Statistics from elsewhere, as running means are: they have nothing to do with src.
#[test]
fn inference_is_its_formula() {
    for (norm, seed) in norms().into_iter().zip(100..) {
        let [src, gamma, beta, other] = numbers(&norm, seed);
        let groups = groups(&norm);
        let saved = Saved {
            mean: (0..groups.len()).map(|g| other[g % other.len()]).collect::<Vec<f64>>(),
            variance: (0..groups.len())
                .map(|g| f64::from((other[(g * 7) % other.len()].abs() + 0.01) as f32))
                .collect(),
            count: 1000,
        };
        let mut expected = vec![Rough::default(); src.len()];
        for (g, (c, members)) in groups.into_iter().enumerate() {
            let [gamma, beta, mean, variance] =
                [gamma[c], beta[c], saved.mean[g], saved.variance[g]].map(Rough::exactly);
            let factor = gamma * inverse(&norm, variance);
            members.into_iter().for_each(|i| expected[i] = (Rough::exactly(src[i]) - mean) * factor + beta);
        }
        let halved =
            Saved { mean: single(&saved.mean), variance: single(&saved.variance), count: saved.count };
        for isa in isas() {
            let mut dst = vec![f32::NAN; src.len()];
            norm.inference(&single(&src), &single(&gamma), &single(&beta), &halved, &mut dst, isa, Par::Seq)
                .unwrap();
            agree("inference", &norm, isa, &dst, &expected);
            let mut dst = vec![f64::NAN; src.len()];
            norm.inference(&src, &gamma, &beta, &saved, &mut dst, isa, Par::Seq).unwrap();
            agree_doubly("inference", &norm, isa, &dst, &expected);
        }
    }
}

/// Variances that are powers of four and no epsilon: nothing is rounded.
#[test]
fn inference_of_integers_is_exact() {
    for norm in norms() {
        let (norm, len) = (Norm { epsilon: 0.0, ..norm }, norm.batch * norm.channels * norm.pixels);
        let (src, beta) = (small(len, 1), small(norm.channels, 2));
        let groups = groups(&norm);
        let (means, logs) = (small(groups.len(), 3), small(groups.len(), 4));
        let gamma: Vec<i64> = small(norm.channels, 5).iter().map(|x| 8 * x).collect();
        let mut expected = vec![0; len];
        for (g, (c, members)) in groups.iter().enumerate() {
            let deviation = 1 << logs[g].rem_euclid(4);
            members
                .iter()
                .for_each(|&i| expected[i] = (src[i] - means[g]) * (gamma[*c] / deviation) + beta[*c]);
        }
        let variance = logs.iter().map(|log| 4f32.powi(log.rem_euclid(4) as i32)).collect();
        let saved = Saved { mean: floats(&means), variance, count: 1 };
        for isa in isas() {
            let mut dst = vec![f32::NAN; len];
            norm.inference(&floats(&src), &floats(&gamma), &floats(&beta), &saved, &mut dst, isa, Par::Seq)
                .unwrap();
            close::exact([1, 1, 1, len], &dst, &expected)
                .unwrap_or_else(|e| panic!("{norm:?} on {isa}: {e}"));
        }
    }
}

/// Values that are a mean plus or minus one deviation, as many of each, a power of two of them: nothing is rounded, of one task or of many.
///
/// With x = m + s a, s = +-1: var = a^2, dgamma = sum of s dy, dx = gamma / a (dy - mean(dy) - s mean(s dy)).
#[test]
fn training_on_integers_is_exact() {
    for (layout, statistics) in Layout::ALL
        .into_iter()
        .flat_map(|layout| [Statistics::Batch, Statistics::Instance].map(|statistics| (layout, statistics)))
    {
        for [batch, channels, pixels] in
            [[1, 1, 2], [2, 3, 8], [4, 17, 32], [2, 5, 256], [2, 40, 512], [1, 2, 1 << 15]]
        {
            let norm = Norm { batch, channels, pixels, layout, statistics, epsilon: 0.0 };
            let groups = groups(&norm);
            let (len, count) = (batch * channels * pixels, groups[0].1.len() as i64);
            let (gamma, beta, diff_dst) = (small(channels, 2), small(channels, 3), small(len, 1));
            let gamma: Vec<i64> = gamma.iter().map(|x| 4 * x).collect();
            // diff_src is times the count.
            let [mut src, mut dst, mut diff_src] = [0, 1, 2].map(|_| vec![0i64; len]);
            let [mut diff_gamma, mut diff_beta] = [0, 1].map(|_| vec![0i64; channels]);
            let mut random = Random::new(4);
            for (c, members) in &groups {
                let (center, deviation) = (random.integer(-8, 8), [1, 2, 4][random.below(3)]);
                let mut signs: Vec<i64> = (0..members.len()).map(|i| [-1, 1][i % 2]).collect();
                (1..signs.len()).for_each(|i| signs.swap(i, random.below(i + 1)));
                let sum: i64 = members.iter().map(|&i| diff_dst[i]).sum();
                let signed: i64 = members.iter().zip(&signs).map(|(&i, s)| s * diff_dst[i]).sum();
                for (&i, s) in members.iter().zip(&signs) {
                    src[i] = center + s * deviation;
                    dst[i] = gamma[*c] * s + beta[*c];
                    diff_src[i] = gamma[*c] / deviation * (count * diff_dst[i] - sum - s * signed);
                }
                diff_gamma[*c] += signed;
                diff_beta[*c] += sum;
            }
            let operands = [&src, &gamma, &beta, &diff_dst].map(|x| floats(x));
            for isa in isas() {
                let (mut got, saved) =
                    computed(&norm, operands.each_ref().map(|x| &x[..]), f32::NAN, isa, Par::Seq);
                assert_eq!(saved.count as i64, count);
                got[1].iter_mut().for_each(|x| *x *= count as f32);
                let expected = [&dst, &diff_src, &diff_gamma, &diff_beta];
                for (i, name) in ["dst", "diff_src", "diff_gamma", "diff_beta"].into_iter().enumerate() {
                    close::exact([1, 1, 1, got[i].len()], &got[i], expected[i])
                        .unwrap_or_else(|e| panic!("{name} of {norm:?} on {isa}: {e}"));
                }
            }
        }
    }
}
