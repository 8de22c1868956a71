//! A linear layer is its definition: exact on small integers in every pass, order of weights, instruction set and number of threads.

use convolve_core::{Activation, Epilogue, Error, Par, Update};
use convolve_linear::{FullyConnected, Linear, WeightOrder};
use convolve_simd::Isa;

/// The threads of a pool; without the feature `rayon`, the calling thread.
fn on(pool: &rayon::ThreadPool) -> Par<'_> {
    #[cfg(feature = "rayon")]
    return Par::Pool(pool);
    #[cfg(not(feature = "rayon"))]
    {
        let _ = pool;
        Par::Current
    }
}

fn numbers(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 37 + seed * 11 + i / 7) % 17) as f32 - 8.0).collect()
}

fn dirty(len: usize) -> Vec<f32> {
    vec![f32::NAN; len]
}

fn sizes() -> Vec<[usize; 3]> {
    let mut sizes = vec![
        [0, 3, 4],
        [1, 1, 1],
        [1, 4096, 10],
        [1, 33, 1000],
        [64, 400, 120],
        [64, 84, 10],
        [300, 30, 200],
    ];
    for batch in [1, 2, 13, 15, 29] {
        for inputs in [1, 7, 64, 65] {
            sizes.extend([1, 5, 16, 31, 63, 64, 65, 130].map(|outputs| [batch, inputs, outputs]));
        }
    }
    sizes
}

/// `w(o, i)` in the order of the weights.
fn place(linear: &Linear, o: usize, i: usize) -> usize {
    match linear.weights {
        WeightOrder::OutIn => o * linear.in_features + i,
        WeightOrder::InOut => i * linear.out_features + o,
    }
}

struct Data {
    src: Vec<f32>,
    weights: Vec<f32>,
    bias: Vec<f32>,
    residual: Vec<f32>,
    diff_dst: Vec<f32>,
}

/// Forward with bias and residual, both gradients and that of the bias, by the definition.
fn defined(linear: &Linear, data: &Data) -> [Vec<f32>; 4] {
    let Linear { batch, in_features, out_features, .. } = *linear;
    let mut dst = data.residual.clone();
    let (mut diff_src, mut diff_weights) = (vec![0.0; data.src.len()], vec![0.0; data.weights.len()]);
    let mut diff_bias = vec![0.0; out_features];
    for (n, o) in (0..batch).flat_map(|n| (0..out_features).map(move |o| (n, o))) {
        let gradient = data.diff_dst[n * out_features + o];
        dst[n * out_features + o] += data.bias[o];
        diff_bias[o] += gradient;
        for i in 0..in_features {
            let (x, w) = (data.src[n * in_features + i], data.weights[place(linear, o, i)]);
            dst[n * out_features + o] += x * w;
            diff_src[n * in_features + i] += gradient * w;
            diff_weights[place(linear, o, i)] += gradient * x;
        }
    }
    [dst, diff_src, diff_weights, diff_bias]
}

fn run(
    plan: &FullyConnected,
    data: &Data,
    activation: Activation,
    par: Par<'_>,
) -> Result<[Vec<f32>; 4], Error> {
    let mut workspace = dirty(plan.workspace_len());
    let mut results = [&data.residual, &data.src, &data.weights, &data.bias].map(|like| dirty(like.len()));
    let [dst, diff_src, diff_weights, diff_bias] = &mut results;
    let epilogue = Epilogue::bias(&data.bias).residual(&data.residual).activation(activation);
    plan.forward(&plan.pack(&data.weights)?, &data.src, dst, epilogue, &mut workspace, par)?;
    let packed = plan.pack_for_data(&data.weights)?;
    let update = Update::Overwrite;
    plan.backward_data(&packed, &data.diff_dst, diff_src, update, &mut workspace, par)?;
    plan.backward_weights(
        &data.src,
        &data.diff_dst,
        diff_weights,
        Some(diff_bias),
        update,
        &mut workspace,
        par,
    )?;
    Ok(results)
}

#[test]
fn every_pass_is_its_definition() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    for [batch, inputs, outputs] in sizes() {
        for weights in [WeightOrder::OutIn, WeightOrder::InOut] {
            let linear = Linear::new(inputs, outputs).batch(batch).weights(weights);
            let data = Data {
                src: numbers(batch * inputs, 1),
                weights: numbers(inputs * outputs, 2),
                bias: numbers(outputs, 3),
                residual: numbers(batch * outputs, 4),
                diff_dst: numbers(batch * outputs, 5),
            };
            let expected = defined(&linear, &data);
            for &isa in Isa::available() {
                let [one, three] = [1, 3].map(|threads| linear.plan(isa, threads).unwrap());
                let got = run(&one, &data, Activation::IDENTITY, Par::Seq).unwrap();
                assert_eq!(got, expected, "{linear:?} on {isa}");
                assert_eq!(
                    run(&three, &data, Activation::IDENTITY, on(&pool)).unwrap(),
                    got,
                    "{linear:?} on {isa}"
                );
                for activation in [Activation::RELU6, Activation::LeakyRelu { slope: 0.5 }] {
                    let got = run(&one, &data, activation, Par::Seq).unwrap();
                    let expected: Vec<f32> = expected[0].iter().map(|&x| activation.apply(x)).collect();
                    assert_eq!(got[0], expected, "{linear:?} on {isa} {activation:?}");
                }
            }
        }
    }
}

#[test]
fn gradients_accumulate() {
    [1, 5].into_iter().for_each(gradients_of_a_batch_accumulate);
}

fn gradients_of_a_batch_accumulate(batch: usize) {
    let linear = Linear::new(20, 30).batch(batch);
    let plan = linear.plan(Isa::best(), 1).unwrap();
    let mut workspace = plan.workspace().unwrap();
    let (src, diff_dst) = (numbers(20 * batch, 1), numbers(30 * batch, 2));
    let (mut once, mut bias) = (dirty(600), dirty(30));
    plan.backward_weights(
        &src,
        &diff_dst,
        &mut once,
        Some(&mut bias),
        Update::Overwrite,
        &mut workspace,
        Par::Seq,
    )
    .unwrap();
    let (mut twice, mut bias_twice) = (once.clone(), bias.clone());
    plan.backward_weights(
        &src,
        &diff_dst,
        &mut twice,
        Some(&mut bias_twice),
        Update::Accumulate,
        &mut workspace,
        Par::Seq,
    )
    .unwrap();
    assert!(
        once.iter().zip(&twice).all(|(a, b)| 2.0 * a == *b)
            && bias.iter().zip(&bias_twice).all(|(a, b)| 2.0 * a == *b)
    );
}

fn real(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|i| (((i * 7919 + seed * 104_729) % 65_537) as f32 / 32_768.5 - 1.0) * 1.1).collect()
}

/// The loops for a batch of one promise the sums of the product, bit by bit.
#[test]
fn a_batch_of_one_has_the_bits_of_a_row_of_many() {
    for [inputs, outputs] in [[1, 1], [7, 65], [130, 31], [400, 120], [1000, 200]] {
        let (src, diff_dst) = (real(3 * inputs, 1), real(3 * outputs, 2));
        let (weights, bias) = (real(inputs * outputs, 3), real(outputs, 4));
        for &isa in Isa::available() {
            let [one, many] = [1, 3].map(|batch| {
                let plan = Linear::new(inputs, outputs).batch(batch).plan(isa, 1).unwrap();
                let (mut dst, mut diff_src) = (real(batch * outputs, 5), real(batch * inputs, 6));
                let mut workspace = plan.workspace().unwrap();
                let (packed, for_data) =
                    (plan.pack(&weights).unwrap(), plan.pack_for_data(&weights).unwrap());
                let src = &src[..batch * inputs];
                plan.forward(&packed, src, &mut dst, Epilogue::bias(&bias), &mut workspace, Par::Seq)
                    .unwrap();
                let diff_dst = &diff_dst[..batch * outputs];
                let update = Update::Accumulate;
                plan.backward_data(&for_data, diff_dst, &mut diff_src, update, &mut workspace, Par::Seq)
                    .unwrap();
                [dst, diff_src].map(|numbers| numbers.iter().map(|x| x.to_bits()).collect::<Vec<_>>())
            });
            assert_eq!(one[0], many[0][..outputs], "forward, {inputs} -> {outputs} on {isa}");
            assert_eq!(one[1], many[1][..inputs], "backward-data, {inputs} -> {outputs} on {isa}");
        }
    }
}

#[test]
fn a_long_sum_keeps_its_bound() {
    // |error| <= K u S, with S the sum of |x||w|.
    let (inputs, outputs) = (10_000, 7);
    let (src, weights) = (real(inputs, 1), real(inputs * outputs, 2));
    for &isa in Isa::available() {
        let plan = Linear::new(inputs, outputs).plan(isa, 1).unwrap();
        let mut dst = dirty(outputs);
        let packed = plan.pack(&weights).unwrap();
        plan.forward(&packed, &src, &mut dst, Epilogue::NONE, &mut plan.workspace().unwrap(), Par::Seq)
            .unwrap();
        for (o, got) in dst.iter().enumerate() {
            let products =
                || src.iter().zip(&weights[o * inputs..]).map(|(x, w)| f64::from(*x) * f64::from(*w));
            let (exact, scale) = (products().sum::<f64>(), products().map(f64::abs).sum::<f64>());
            let error = (f64::from(*got) - exact).abs();
            assert!(error <= inputs as f64 * 2f64.powi(-24) * scale, "{isa}: off by {error:e}");
        }
    }
}

#[test]
fn nonsense_is_refused_with_a_sentence() {
    for linear in [
        Linear::new(usize::MAX, 2),
        Linear::new(2, 1 << 62),
        Linear::new(2, 2).batch(usize::MAX),
        Linear::new(1 << 40, 1 << 40),
    ] {
        let error = linear.plan(Isa::best(), 1).unwrap_err().to_string();
        assert!(error.contains("does not fit the address space"), "{error}");
    }
    let plan = Linear::new(4, 2).plan(Isa::best(), 1).unwrap();
    let mut workspace = plan.workspace().unwrap();
    let packed = plan.pack(&[1.0; 8]).unwrap();
    let error = plan.pack(&[1.0; 7]).unwrap_err();
    assert_eq!(error.to_string(), "weights has 7 elements, but [2, 4] needs 8");
    let error = plan
        .forward(&packed, &[1.0; 8], &mut [0.0; 2], Epilogue::NONE, &mut workspace, Par::Seq)
        .unwrap_err();
    assert_eq!(error.to_string(), "src has 8 elements, but [1, 4] needs 4; did you mean batch = 2?");
    let error = plan
        .backward_data(&packed, &[1.0; 2], &mut [0.0; 4], Update::Overwrite, &mut workspace, Par::Seq)
        .unwrap_err();
    assert!(matches!(error, Error::Packed { .. }));
    let bias = Epilogue::bias(&[1.0; 3]);
    let error = plan.forward(&packed, &[1.0; 4], &mut [0.0; 2], bias, &mut workspace, Par::Seq).unwrap_err();
    assert_eq!(error.to_string(), "bias has 3 elements, but [2], one per output, needs 2");
}

/// Found by a property test: the panels of an empty product are empty, and a row of sums must not look into them.
#[test]
fn an_empty_batch_of_one_feature_has_no_gradient() {
    for &isa in Isa::available() {
        for (inputs, outputs, order) in [(40, 1, WeightOrder::OutIn), (1, 40, WeightOrder::InOut)] {
            let plan = Linear::new(inputs, outputs).batch(0).weights(order).plan(isa, 1).unwrap();
            let (mut diff, mut workspace) = ([f32::NAN; 40], plan.workspace().unwrap());
            plan.backward_weights(&[], &[], &mut diff, None, Update::Overwrite, &mut workspace, Par::Seq)
                .unwrap();
            assert_eq!(diff, [0.0; 40]);
        }
    }
}
