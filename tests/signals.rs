//! A 1-D convolution is its sum in every pass, order of memory and algorithm: forward, both gradients and that of the bias, exactly.

use convolve::{Conv1d, Epilogue, Gradients, Layout, Update, WeightLayout, backward, forward};
use convolve_testkit::data::{Random, floats, inner, integers};
use convolve_testkit::{Direction, Scope, close, strategy};
use proptest::prelude::*;
use proptest::sample::select;

/// Signals of every kind, small enough that each sum of products of integers up to 8 is below 2^24.
fn signals() -> impl Strategy<Value = Conv1d> {
    let length = prop_oneof![3 => 1usize..=12, 2 => 13usize..=70];
    let taps = (1usize..=7, 1usize..=4, 1usize..=3, [0usize..=6, 0usize..=6]);
    let channels = prop_oneof![
        3 => (1usize..=3, 1usize..=9, 1usize..=9),
        1 => (1usize..=17, Just(1usize), 1usize..=2),
    ];
    let layouts = (select(&Layout::ALL[..]), select(&WeightLayout::ALL[..]));
    (0usize..=3, channels, length, taps, layouts).prop_filter_map(
        "the kernel does not fit",
        |(batch, (groups, ic, oc), length, (kernel, stride, dilation, padding), (layout, weight_layout))| {
            let conv = Conv1d {
                batch,
                in_channels: groups * ic,
                out_channels: groups * oc,
                groups,
                length,
                kernel,
                stride,
                dilation,
                padding,
                layout,
                weight_layout,
            };
            output(&conv).map(|_| conv)
        },
    )
}

/// Samples of `dst`.
fn output(conv: &Conv1d) -> Option<usize> {
    let padded = conv.length + conv.padding[0] + conv.padding[1];
    padded.checked_sub(conv.dilation * (conv.kernel - 1) + 1).map(|room| room / conv.stride + 1)
}

/// Every multiplication, as offsets `(src, weights, dst)` in the order of indices `[N, C, L]`, `[OC, IC/G, K]`.
fn visit(conv: &Conv1d, mut f: impl FnMut(usize, usize, usize)) {
    let [ic, oc] = [conv.in_channels, conv.out_channels].map(|channels| channels / conv.groups);
    let samples = output(conv).unwrap();
    for (n, o) in (0..conv.batch).flat_map(|n| (0..conv.out_channels).map(move |o| (n, o))) {
        for (i, l, k) in
            (0..ic).flat_map(|i| (0..samples).flat_map(move |l| (0..conv.kernel).map(move |k| (i, l, k))))
        {
            let at = (l * conv.stride + k * conv.dilation).checked_sub(conv.padding[0]);
            if let Some(at) = at.filter(|&at| at < conv.length) {
                let src = (n * conv.in_channels + o / oc * ic + i) * conv.length + at;
                f(src, (o * ic + i) * conv.kernel + k, (n * conv.out_channels + o) * samples + l);
            }
        }
    }
}

/// The three axes of a tensor moved: `to[i][j][k]` is the element whose indices are those of `axes`, slowest in memory first.
fn moved<T: Copy>(x: &[T], shape: [usize; 3], axes: [usize; 3]) -> Vec<T> {
    let pitch = [shape[1] * shape[2], shape[2], 1];
    let [a, b, c] = axes.map(|axis| (0..shape[axis]).map(move |i| i * pitch[axis]));
    let rows = a.flat_map(|i| b.clone().map(move |j| i + j));
    rows.flat_map(|row| c.clone().map(move |k| x[row + k])).collect()
}

/// `[N, C, L]` or `[N, L, C]`.
fn placed<T: Copy>(conv: &Conv1d, x: &[T], [channels, samples]: [usize; 2]) -> Vec<T> {
    let axes = if conv.layout == Layout::Nhwc { [0, 2, 1] } else { [0, 1, 2] };
    moved(x, [conv.batch, channels, samples], axes)
}

/// `[OC, IC/G, K]`, `[OC, K, IC/G]` or `[K, IC/G, OC]`.
fn placed_weights<T: Copy>(conv: &Conv1d, x: &[T]) -> Vec<T> {
    let axes = match conv.weight_layout {
        WeightLayout::Oihw => [0, 1, 2],
        WeightLayout::Ohwi => [0, 2, 1],
        WeightLayout::Hwio => [2, 1, 0],
    };
    moved(x, [conv.out_channels, conv.in_channels / conv.groups, conv.kernel], axes)
}

/// src, weights, bias and diff_dst in the order of indices.
fn operands(conv: &Conv1d, seed: u64) -> [Vec<i64>; 4] {
    let mut random = Random::new(seed);
    [
        conv.batch * conv.in_channels * conv.length,
        conv.out_channels * conv.in_channels / conv.groups * conv.kernel,
        conv.out_channels,
        conv.batch * conv.out_channels * output(conv).unwrap(),
    ]
    .map(|len| (0..len).map(|_| random.integer(1, 8) * [-1, 1][random.below(2)]).collect())
}

/// dst without bias, diff_src and diff_weights by the sum.
fn defined(conv: &Conv1d, [src, weights, _, diff_dst]: &[Vec<i64>; 4]) -> [Vec<i64>; 3] {
    let [mut dst, mut diff_src, mut diff_weights] = [diff_dst, src, weights].map(|like| vec![0; like.len()]);
    visit(conv, |s, w, d| {
        dst[d] += src[s] * weights[w];
        diff_src[s] += diff_dst[d] * weights[w];
        diff_weights[w] += src[s] * diff_dst[d];
    });
    [dst, diff_src, diff_weights]
}

/// The same by the library, with the bias in dst and the gradient of the bias, in the order of memory.
fn computed(conv: &Conv1d, [src, weights, bias, diff_dst]: &[Vec<i64>; 4]) -> [Vec<f32>; 4] {
    let samples = output(conv).unwrap();
    let src = floats(&placed(conv, src, [conv.in_channels, conv.length]));
    let weights = floats(&placed_weights(conv, weights));
    let diff_dst = floats(&placed(conv, diff_dst, [conv.out_channels, samples]));
    let mut results =
        [diff_dst.len(), src.len(), weights.len(), conv.out_channels].map(|len| vec![f32::NAN; len]);
    let [dst, diff_src, diff_weights, diff_bias] = &mut results;
    forward(conv.view(), &src, &weights, dst, Epilogue::bias(&floats(bias))).unwrap();
    let gradients = Gradients {
        diff_src: Some(diff_src),
        diff_weights: Some(diff_weights),
        diff_bias: Some(diff_bias),
        update: Update::Overwrite,
    };
    backward(conv.view(), &src, &weights, &diff_dst, gradients).unwrap();
    results
}

proptest! {
    #![proptest_config(strategy::config(600))]

    #[test]
    fn every_pass_is_its_sum(conv in signals(), seed in any::<u64>()) {
        let samples = output(&conv).unwrap();
        prop_assert_eq!(conv.view().geometry().unwrap().output(), [1, samples]);
        let operands = operands(&conv, seed);
        let [mut dst, diff_src, diff_weights] = defined(&conv, &operands);
        let mut diff_bias = vec![0; conv.out_channels];
        for (i, x) in operands[3].iter().enumerate() {
            diff_bias[i / samples % conv.out_channels] += x;
            dst[i] += operands[2][i / samples % conv.out_channels];
        }
        let expected = [
            placed(&conv, &dst, [conv.out_channels, samples]),
            placed(&conv, &diff_src, [conv.in_channels, conv.length]),
            placed_weights(&conv, &diff_weights),
            diff_bias,
        ];
        let got = computed(&conv, &operands);
        for (i, name) in ["dst", "diff_src", "diff_weights", "diff_bias"].into_iter().enumerate() {
            close::exact([1, 1, 1, got[i].len()], &got[i], &expected[i])
                .map_err(|e| TestCaseError::fail(format!("{name} of {conv:?}: {e}")))?;
        }
    }

    /// <conv(x, w), y> = <x, diff_src(y, w)> = <w, diff_weights(x, y)>, in whatever order memory has.
    #[test]
    fn the_passes_are_adjoint(conv in signals(), seed in any::<u64>()) {
        let mut operands = operands(&conv, seed);
        operands[2].fill(0);
        let [dst, diff_src, diff_weights] = {
            let [dst, diff_src, diff_weights, _] = computed(&conv, &operands);
            [dst, diff_src, diff_weights].map(|x| integers(&x).unwrap())
        };
        let [src, weights, _, diff_dst] = operands;
        let product = inner(&dst, &placed(&conv, &diff_dst, [conv.out_channels, output(&conv).unwrap()]));
        let by_src = inner(&diff_src, &placed(&conv, &src, [conv.in_channels, conv.length]));
        prop_assert_eq!(product, by_src, "diff_src of {:?}", conv);
        prop_assert_eq!(product, inner(&diff_weights, &placed_weights(&conv, &weights)), "diff_weights of {:?}", conv);
    }
}

proptest! {
    #![proptest_config(strategy::config(100))]

    /// Not only what the planner would choose: images of one row are an edge for every algorithm.
    #[test]
    fn every_algorithm_computes_signals(conv in signals(), seed in any::<u64>()) {
        let operands = operands(&conv, seed);
        let expected = defined(&conv, &operands);
        let [src, weights, _, diff_dst] = operands.each_ref().map(|x| floats(x));
        let (layouts, weight_layouts) = (vec![conv.layout], vec![conv.weight_layout]);
        let scope = Scope { layouts, weight_layouts, ..Scope::everything().serial() };
        let mut agree = Ok(());
        scope.for_each_execution(conv.view(), |execution| {
            let (left, right, expected) = match execution.case.direction {
                Direction::Forward => (&src, &weights, &expected[0]),
                Direction::BackwardData => (&diff_dst, &weights, &expected[1]),
                Direction::BackwardWeights => (&src, &diff_dst, &expected[2]),
            };
            if execution.sums() {
                let got = execution.run_canonical(left, right, seed);
                let same = got.and_then(|got| close::exact([1, 1, 1, got.len()], &got, expected));
                agree = agree.clone().and(same.map_err(|e| format!("{}: {e}", execution.case)));
            }
        });
        agree.map_err(TestCaseError::fail)?;
    }
}

/// What a recurrent network's rivals are made of: causal, dilated, depthwise and strided layers, in both orders of memory.
#[test]
fn known_layers_are_their_sum() {
    for conv in [
        Conv1d::new(16, 16, 3).length(40).dilation(4).padding([8, 0]).batch(2),
        Conv1d::new(1, 24, 10).length(100).stride(5),
        Conv1d::new(24, 24, 4).length(33).groups(24).padding([3, 0]),
        Conv1d::new(32, 48, 1).length(50).batch(2),
    ] {
        for layout in Layout::ALL {
            let conv = conv.layout(layout);
            let mut operands = operands(&conv, 11);
            operands[2].fill(0);
            let [dst, diff_src, diff_weights] = defined(&conv, &operands);
            let expected = [
                placed(&conv, &dst, [conv.out_channels, output(&conv).unwrap()]),
                placed(&conv, &diff_src, [conv.in_channels, conv.length]),
                placed_weights(&conv, &diff_weights),
            ];
            for (got, expected) in computed(&conv, &operands).iter().zip(&expected) {
                close::telling(expected, &vec![1; expected.len()]).unwrap();
                close::exact([1, 1, 1, got.len()], got, expected).unwrap_or_else(|e| panic!("{conv:?}: {e}"));
            }
        }
    }
}
