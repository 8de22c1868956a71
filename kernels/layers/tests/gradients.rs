//! Softmax, cross-entropy and normalisation: against their formulas in f64, and gradients against differences in f64.

use convolve_core::{Layout, Par, Update};
use convolve_layers::{Norm, Statistics, cross_entropy, softmax};
use convolve_simd::Isa;

fn numbers(len: usize, seed: usize) -> Vec<f64> {
    (0..len).map(|i| (((i * 7919 + seed * 104_729) % 65_537) as f64 / 32_768.5 - 1.0) * 2.0).collect()
}

fn floats(x: &[f64]) -> Vec<f32> {
    x.iter().map(|&x| x as f32).collect()
}

/// Probabilities of a row, in f64.
fn defined_softmax(row: &[f32]) -> Vec<f64> {
    let max = row.iter().fold(f64::NEG_INFINITY, |max, &x| max.max(f64::from(x)));
    let powers: Vec<f64> = row.iter().map(|&x| (f64::from(x) - max).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

#[test]
fn softmax_is_its_definition_and_stable() {
    for classes in [1, 2, 3, 10, 16, 17, 33, 1000] {
        let mut src = floats(&numbers(4 * classes, classes));
        src[classes..2 * classes].iter_mut().for_each(|x| *x = *x * 20.0 + 1e4);
        src[2 * classes..3 * classes].iter_mut().for_each(|x| *x *= 1e30);
        src[3 * classes + classes / 2] = f32::NEG_INFINITY;
        if classes == 1 {
            src[3] = 0.0;
        }
        for &isa in Isa::available() {
            let mut dst = vec![f32::NAN; src.len()];
            softmax(&src, classes, &mut dst, isa, Par::Seq).unwrap();
            for (row, dst) in src.chunks(classes).zip(dst.chunks(classes)) {
                for (got, expected) in dst.iter().zip(defined_softmax(row)) {
                    // A difference, an exponential of 4 u and of |x - max| u, a sum of `classes` positive terms, a division; below e^-86 zero.
                    let bound = (100.0 + classes as f64) * 2f64.powi(-24) * expected + (-86f64).exp();
                    assert!(
                        (f64::from(*got) - expected).abs() <= bound,
                        "{isa}, {classes}: {got} for {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn cross_entropy_is_its_definition_and_its_gradient_the_difference() {
    for classes in [1, 2, 10, 33] {
        let src = floats(&numbers(3 * classes, classes));
        let labels = [0, classes - 1, classes / 2];
        let loss = |src: &[f64]| -> f64 {
            let rows = src.chunks(classes).zip(labels);
            rows.map(|(row, label)| row.iter().map(|x| x.exp()).sum::<f64>().ln() - row[label]).sum::<f64>()
                / 3.0
        };
        let exact: Vec<f64> = src.iter().map(|&x| f64::from(x)).collect();
        for &isa in Isa::available() {
            let mut diff = vec![1.0; src.len()];
            let got =
                cross_entropy(&src, classes, &labels, Some(&mut diff), Update::Accumulate, isa, Par::Seq)
                    .unwrap();
            let bound = (10.0 + classes as f64) * 2f64.powi(-24);
            assert!((got - loss(&exact)).abs() <= bound, "{isa}: {got}");
            for i in 0..src.len() {
                let mut moved = exact.clone();
                let step = 1e-5;
                moved[i] += step;
                let above = loss(&moved);
                moved[i] -= 2.0 * step;
                let difference = (above - loss(&moved)) / (2.0 * step);
                // A central difference is off by step^2 times a third derivative of at most 1, and by rounding / step.
                let error = (f64::from(diff[i]) - 1.0 - difference).abs();
                assert!(error <= bound + 1e-10 + 1e-10, "{isa} at {i}: {} for {difference}", diff[i] - 1.0);
            }
        }
    }
}

#[test]
fn an_impossible_label_is_infinitely_bad_and_nonsense_is_refused() {
    let none = None::<&mut [f32]>;
    let loss =
        cross_entropy(&[0.0, f32::NEG_INFINITY], 2, &[1], none, Update::Overwrite, Isa::best(), Par::Seq)
            .unwrap();
    assert_eq!(loss, f64::INFINITY);
    let refuse = |classes, labels: &[usize]| {
        cross_entropy(&[0.0; 4], classes, labels, None, Update::Overwrite, Isa::best(), Par::Seq)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(refuse(0, &[]), "classes = 0: it must be at least 1");
    assert_eq!(refuse(3, &[0]), "src has 4 elements, but rows of 3 classes needs 3; it must be a multiple");
    assert_eq!(refuse(2, &[0]), "labels has 1 elements, but [2], one per row of src, needs 2");
    assert_eq!(refuse(2, &[0, 2]), "label = 2: it must be less than the classes");
}

fn norms() -> Vec<Norm> {
    let mut norms = Vec::new();
    for layout in Layout::ALL {
        for statistics in [Statistics::Batch, Statistics::Instance] {
            for [batch, channels, pixels] in [[1, 1, 4], [2, 3, 5], [3, 2, 37], [2, 17, 16]] {
                norms.push(Norm { batch, channels, pixels, layout, statistics, epsilon: 1e-3 });
            }
        }
    }
    norms
}

fn place(norm: &Norm, n: usize, c: usize, p: usize) -> usize {
    match norm.layout {
        Layout::Nchw => (n * norm.channels + c) * norm.pixels + p,
        Layout::Nhwc => (n * norm.pixels + p) * norm.channels + c,
    }
}

/// By the formula, in f64.
fn defined(norm: &Norm, src: &[f64], gamma: &[f64], beta: &[f64]) -> Vec<f64> {
    let mut dst = vec![0.0; src.len()];
    for (n, c) in (0..norm.batch).flat_map(|n| (0..norm.channels).map(move |c| (n, c))) {
        let images = if norm.statistics == Statistics::Batch { 0..norm.batch } else { n..n + 1 };
        let values: Vec<f64> = images
            .flat_map(|n| (0..norm.pixels).map(move |p| (n, p)))
            .map(|(n, p)| src[place(norm, n, c, p)])
            .collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / values.len() as f64;
        for p in 0..norm.pixels {
            let at = place(norm, n, c, p);
            dst[at] = gamma[c] * (src[at] - mean) / (variance + norm.epsilon).sqrt() + beta[c];
        }
    }
    dst
}

#[test]
fn normalisation_is_its_formula() {
    for norm in norms() {
        let src = numbers(norm.batch * norm.channels * norm.pixels, 1);
        let (gamma, beta) = (numbers(norm.channels, 2), numbers(norm.channels, 3));
        let expected = defined(&norm, &src, &gamma, &beta);
        for &isa in Isa::available() {
            let mut dst = vec![f64::NAN; src.len()];
            norm.forward(&src, &gamma, &beta, &mut dst, isa, Par::Seq).unwrap();
            let close = |bound: f64| move |(a, b): (f64, &f64)| (a - b).abs() <= bound;
            // Some hundred operations on numbers of at most 2 / sqrt(epsilon) = 64.
            assert!(dst.iter().copied().zip(&expected).all(close(1e-12)), "{norm:?} on {isa}");
            let mut single = vec![f32::NAN; src.len()];
            norm.forward(&floats(&src), &floats(&gamma), &floats(&beta), &mut single, isa, Par::Seq).unwrap();
            let doubles = single.iter().map(|&x| f64::from(x));
            assert!(doubles.zip(&expected).all(close(64.0 * 200.0 * 2f64.powi(-24))), "{norm:?} on {isa}");
        }
    }
}

#[test]
fn gradients_of_normalisation_are_differences() {
    for norm in norms() {
        let src = numbers(norm.batch * norm.channels * norm.pixels, 1);
        let (gamma, beta, diff_dst) =
            (numbers(norm.channels, 2), numbers(norm.channels, 3), numbers(src.len(), 4));
        let loss = |src: &[f64], gamma: &[f64], beta: &[f64]| -> f64 {
            defined(&norm, src, gamma, beta).iter().zip(&diff_dst).map(|(y, dy)| y * dy).sum()
        };
        let isa = Isa::best();
        let saved = norm.forward(&src, &gamma, &beta, &mut vec![0.0; src.len()], isa, Par::Seq).unwrap();
        let mut gradients =
            [vec![f64::NAN; src.len()], vec![f64::NAN; norm.channels], vec![f64::NAN; norm.channels]];
        let [a, b, c] = &mut gradients;
        norm.backward(&src, &diff_dst, &gamma, &saved, [a, b, c], Update::Overwrite, isa, Par::Seq).unwrap();
        for k in 0..3 {
            for i in 0..gradients[k].len() {
                let step = 1e-5;
                let moved = |by: f64| {
                    let mut operands = [src.clone(), gamma.clone(), beta.clone()];
                    operands[k][i] += by;
                    loss(&operands[0], &operands[1], &operands[2])
                };
                let difference = (moved(step) - moved(-step)) / (2.0 * step);
                let error = (gradients[k][i] - difference).abs();
                assert!(
                    error <= 1e-6 * (1.0 + difference.abs()),
                    "{norm:?}: {k}, {i}: {} for {difference}",
                    gradients[k][i]
                );
            }
        }
        let once = gradients.clone();
        let [a, b, c] = &mut gradients;
        norm.backward(&src, &diff_dst, &gamma, &saved, [a, b, c], Update::Accumulate, isa, Par::Seq).unwrap();
        // 2x and x + x differ by the rounding of sums over instances at most.
        let twice = |(a, b): (&f64, &f64)| (2.0 * a - b).abs() <= 1e-12 * (1.0 + b.abs());
        assert!(once.iter().flatten().zip(gradients.iter().flatten()).all(twice), "{norm:?}");
    }
}

#[test]
fn nonsense_norms_are_refused() {
    let norm = Norm {
        batch: 1,
        channels: 2,
        pixels: 3,
        layout: Layout::Nchw,
        statistics: Statistics::Batch,
        epsilon: 0.0,
    };
    let run = |norm: Norm, len: usize, gamma: usize| {
        norm.forward(
            &vec![0f32; len],
            &vec![1.0; gamma],
            &[0.0; 2],
            &mut vec![0.0; len],
            Isa::best(),
            Par::Seq,
        )
        .map(|_| ())
        .map_err(|e| e.to_string())
    };
    assert_eq!(run(norm, 6, 2), Ok(()));
    assert_eq!(run(norm, 5, 2).unwrap_err(), "src has 5 elements, but [1, 2, 3] NCHW needs 6");
    assert_eq!(run(norm, 6, 3).unwrap_err(), "gamma has 3 elements, but [2], one per channel, needs 2");
    assert_eq!(run(Norm { channels: 0, ..norm }, 0, 0).unwrap_err(), "channels = 0: it must be at least 1");
    assert!(run(Norm { channels: usize::MAX, ..norm }, 0, 0).unwrap_err().contains("address space"));
    assert_eq!(run(Norm { batch: 0, ..norm }, 0, 2), Ok(()));
    for epsilon in [-1e-5, f64::NAN, f64::INFINITY] {
        let error = run(Norm { epsilon, ..norm }, 6, 2).unwrap_err();
        assert_eq!(error, format!("epsilon = {epsilon}: it must be a finite number from 0 on"));
    }
}
