//! The gradients of a transposed convolution are a forward pass and a weight gradient with the operands exchanged: exactly those of its
//! scatter, and adjoint to the layer.

use convolve::{
    Conv2d, Epilogue, Layout, Operand, Transposed2d, WeightLayout, backward_weights, forward, transposed,
};
use convolve_testkit::data::{Random, floats, inner, integers};
use convolve_testkit::{close, reference, strategy};
use proptest::prelude::*;
use proptest::sample::select;

/// Layers of every kind, small enough that each sum of products of integers up to 8 is below 2^24.
fn layers() -> impl Strategy<Value = Transposed2d> {
    let axis = || (1usize..=7, 1usize..=5, 1usize..=4, 1usize..=3, [0usize..=3, 0usize..=3], 0usize..=3);
    let channels = (1usize..=4, 1usize..=6, 1usize..=6);
    let layouts = (select(&Layout::ALL[..]), select(&WeightLayout::ALL[..]));
    (1usize..=3, channels, axis(), axis(), layouts).prop_filter_map(
        "nothing is left",
        |(batch, (groups, ic, oc), h, w, (layout, weight_layout))| {
            let layer = Transposed2d {
                batch,
                in_channels: groups * ic,
                out_channels: groups * oc,
                groups,
                input: [h.0, w.0],
                kernel: [h.1, w.1],
                stride: [h.2, w.2],
                dilation: [h.3, w.3],
                padding: [h.4, w.4],
                output_padding: [h.5 % h.2, w.5 % w.2],
                layout,
                weight_layout,
            };
            layer.conv().ok().map(|_| layer)
        },
    )
}

/// Height and width of `dst`, by the formula of the documentation.
fn output(layer: &Transposed2d) -> [usize; 2] {
    [0, 1].map(|axis| {
        let [begin, end] = layer.padding[axis];
        let extent = layer.dilation[axis] * (layer.kernel[axis] - 1) + 1;
        (layer.input[axis] - 1) * layer.stride[axis] + extent + layer.output_padding[axis] - begin - end
    })
}

/// Every multiplication of the scatter, as offsets `(src, weights, dst)` in the order of indices.
fn visit(layer: &Transposed2d, mut f: impl FnMut(usize, usize, usize)) {
    let ([ih, iw], [oh, ow], [kh, kw]) = (layer.input, output(layer), layer.kernel);
    let [ic, oc] = [layer.in_channels, layer.out_channels].map(|channels| channels / layer.groups);
    let place = |axis: usize, at: usize, tap: usize, size: usize| {
        let padded = at * layer.stride[axis] + tap * layer.dilation[axis];
        padded.checked_sub(layer.padding[axis][0]).filter(|&place| place < size)
    };
    for (n, c, o) in (0..layer.batch)
        .flat_map(|n| (0..layer.in_channels).flat_map(move |c| (0..oc).map(move |o| (n, c, o))))
    {
        let (src, weights) = ((n * layer.in_channels + c) * ih * iw, (c * oc + o) * kh * kw);
        let dst = (n * layer.out_channels + c / ic * oc + o) * oh * ow;
        for (y, i) in (0..ih).flat_map(|y| (0..kh).map(move |i| (y, i))) {
            let Some(row) = place(0, y, i, oh) else { continue };
            for (x, j) in (0..iw).flat_map(|x| (0..kw).map(move |j| (x, j))) {
                let Some(column) = place(1, x, j, ow) else { continue };
                f(src + y * iw + x, weights + i * kw + j, dst + row * ow + column);
            }
        }
    }
}

/// src, weights and diff_dst in the order of indices.
fn operands(layer: &Transposed2d, seed: u64) -> [Vec<i64>; 3] {
    let mut random = Random::new(seed);
    let [oh, ow] = output(layer);
    [
        layer.batch * layer.in_channels * layer.input[0] * layer.input[1],
        layer.in_channels * layer.out_channels / layer.groups * layer.kernel[0] * layer.kernel[1],
        layer.batch * layer.out_channels * oh * ow,
    ]
    .map(|len| (0..len).map(|_| random.integer(1, 8) * [-1, 1][random.below(2)]).collect())
}

/// What the library says, in the order of indices: dst, diff_src and diff_weights of the layer.
fn computed(layer: &Transposed2d, conv: &Conv2d, operands: &[Vec<i64>; 3]) -> [Vec<f32>; 3] {
    // The layer's src is the convolution's dst, and the other way round.
    let roles = [Operand::Dst, Operand::Weights, Operand::Src];
    let [src, weights, diff_dst] =
        [0, 1, 2].map(|i| reference::arrange(conv, roles[i], &floats(&operands[i])));
    let mut results = [&diff_dst, &src, &weights].map(|like| vec![f32::NAN; like.len()]);
    let [dst, diff_src, diff_weights] = &mut results;
    transposed(*layer, &src, &weights, dst, None).unwrap();
    forward(*conv, &diff_dst, &weights, diff_src, Epilogue::NONE).unwrap();
    backward_weights(*conv, &diff_dst, &src, diff_weights).unwrap();
    let [dst, diff_src, diff_weights] = results;
    [(Operand::Src, dst), (Operand::Dst, diff_src), (Operand::Weights, diff_weights)]
        .map(|(role, x)| reference::canonical(conv, role, &x))
}

proptest! {
    #![proptest_config(strategy::config(600))]

    #[test]
    fn the_layer_and_its_gradients_are_those_of_the_scatter(layer in layers(), seed in any::<u64>()) {
        let conv = layer.conv().unwrap();
        let [src, weights, diff_dst] = operands(&layer, seed);
        let mut expected = [&diff_dst, &src, &weights].map(|like| vec![0i64; like.len()]);
        let mut terms = expected.each_ref().map(|like| vec![0u64; like.len()]);
        visit(&layer, |s, w, d| {
            let products = [(d, src[s] * weights[w]), (s, diff_dst[d] * weights[w]), (w, src[s] * diff_dst[d])];
            for (i, (at, product)) in products.into_iter().enumerate() {
                expected[i][at] += product;
                terms[i][at] += 1;
            }
        });
        let shapes = [Operand::Src, Operand::Dst, Operand::Weights].map(|role| reference::shape(&conv, role));
        let got = computed(&layer, &conv, &[src, weights, diff_dst]);
        for (i, name) in ["dst", "diff_src", "diff_weights"].into_iter().enumerate() {
            // Sums of one product each are many at large strides; sums of nothing are zero by right.
            prop_assert!(expected[i].iter().zip(&terms[i]).all(|(x, n)| *n > 0 || *x == 0));
            close::exact(shapes[i], &got[i], &expected[i])
                .map_err(|e| TestCaseError::fail(format!("{name} of {layer:?}: {e}")))?;
        }
    }

    /// <T(x, w), y> = <x, diff_src(y, w)> = <w, diff_weights(x, y)>, of results of the library alone.
    #[test]
    fn the_gradients_are_adjoint_to_the_layer(layer in layers(), seed in any::<u64>()) {
        let conv = layer.conv().unwrap();
        let operands = operands(&layer, seed);
        let results = computed(&layer, &conv, &operands);
        let [dst, diff_src, diff_weights] = [0, 1, 2].map(|i| integers(&results[i]).unwrap());
        let [src, weights, diff_dst] = operands;
        let product = inner(&dst, &diff_dst);
        prop_assert_eq!(product, inner(&src, &diff_src), "diff_src of {:?}", layer);
        prop_assert_eq!(product, inner(&weights, &diff_weights), "diff_weights of {:?}", layer);
    }
}

/// The layers of the literature, whose sizes are known: doubling with 4, 3 and 2 taps, a first layer of a generator, depthwise.
#[test]
fn known_layers_have_their_sizes_and_gradients() {
    for (layer, size) in [
        (Transposed2d::new(8, 4, 4).input(7).stride(2).padding(1), [14, 14]),
        (Transposed2d::new(8, 4, 3).input([7, 5]).stride(2).padding(1).output_padding(1), [14, 10]),
        (Transposed2d::new(8, 4, 2).input(6).stride(2), [12, 12]),
        (Transposed2d::new(20, 16, 4).input(1).batch(3), [4, 4]),
        (Transposed2d::new(16, 16, 3).input(6).stride(2).groups(16), [13, 13]),
    ] {
        for (layout, weight_layout) in
            Layout::ALL.into_iter().flat_map(|l| WeightLayout::ALL.into_iter().map(move |w| (l, w)))
        {
            let layer = layer.layout(layout).weight_layout(weight_layout);
            assert_eq!((layer.output().unwrap(), output(&layer)), (size, size));
            let [src, weights, diff_dst] = operands(&layer, 7);
            let mut expected = [vec![0; src.len()], vec![0; weights.len()]];
            visit(&layer, |s, w, d| {
                expected[0][s] += diff_dst[d] * weights[w];
                expected[1][w] += src[s] * diff_dst[d];
            });
            let conv = layer.conv().unwrap();
            let [_, diff_src, diff_weights] = computed(&layer, &conv, &[src, weights, diff_dst]);
            for (role, got, expected) in
                [(Operand::Dst, diff_src, &expected[0]), (Operand::Weights, diff_weights, &expected[1])]
            {
                close::telling(expected, &vec![1; expected.len()]).unwrap();
                close::exact(reference::shape(&conv, role), &got, expected)
                    .unwrap_or_else(|e| panic!("{layer:?}: {e}"));
            }
        }
    }
}
