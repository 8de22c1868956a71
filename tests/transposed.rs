//! Transposed convolution is its scatter, exactly; its gradients are passes of the same convolution; a 1-D convolution is its sum.

use convolve::{Conv1d, Epilogue, Layout, Transposed2d, WeightLayout, forward, transposed};

fn numbers(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 37 + seed * 11 + i / 7) % 17) as f32 - 8.0).collect()
}

/// Every product of the formula, added where it belongs.
fn scattered(layer: &Transposed2d, src: &[f32], weights: &[f32], bias: &[f32]) -> Vec<f32> {
    let [height, width] = layer.output().unwrap();
    let (ic, oc, g) = (layer.in_channels, layer.out_channels, layer.groups);
    let ([kh, kw], [ih, iw]) = (layer.kernel, layer.input);
    let mut dst: Vec<f32> =
        (0..layer.batch * oc * height * width).map(|i| bias[i / (height * width) % oc]).collect();
    for (n, c, y, x) in
        (0..layer.batch * ic * ih * iw).map(|t| (t / (ic * ih * iw), t / (ih * iw) % ic, t / iw % ih, t % iw))
    {
        let value = src[((n * ic + c) * ih + y) * iw + x];
        for (o, i, j) in (0..oc / g * kh * kw).map(|t| (t / (kh * kw), t / kw % kh, t % kw)) {
            let place = |at: usize, k: usize, axis: usize, size: usize| {
                let q = at * layer.stride[axis] + k * layer.dilation[axis];
                q.checked_sub(layer.padding[axis][0]).filter(|&q| q < size)
            };
            if let (Some(row), Some(column)) = (place(y, i, 0, height), place(x, j, 1, width)) {
                let channel = c / (ic / g) * (oc / g) + o;
                dst[((n * oc + channel) * height + row) * width + column] +=
                    value * weights[((c * (oc / g) + o) * kh + i) * kw + j];
            }
        }
    }
    dst
}

/// NCHW to NHWC.
fn pixels_first(x: &[f32], channels: usize, pixels: usize) -> Vec<f32> {
    let images = x.chunks(channels * pixels);
    images
        .flat_map(|image| (0..channels * pixels).map(move |i| image[i % channels * pixels + i / channels]))
        .collect()
}

#[test]
fn it_is_its_scatter() {
    let layer = Transposed2d::new(6, 4, 3).batch(2).input([4, 5]);
    for layer in [
        layer,
        layer.stride(2).padding(1).output_padding(1),
        layer.stride([3, 2]).output_padding([2, 0]).dilation(2),
        layer.groups(2).stride(2),
        Transposed2d { padding: [[0, 2], [1, 0]], ..layer },
        Transposed2d { kernel: [2, 5], stride: [2, 3], ..layer },
    ] {
        let [height, width] = layer.output().unwrap();
        let src = numbers(2 * 6 * 20, 1);
        let weights = numbers(6 * 4 / layer.groups * layer.kernel[0] * layer.kernel[1], 2);
        let bias = numbers(4, 3);
        let expected = scattered(&layer, &src, &weights, &bias);
        let mut dst = vec![f32::NAN; expected.len()];
        transposed(layer, &src, &weights, &mut dst, Some(&bias)).unwrap();
        assert_eq!(dst, expected, "{layer:?}");
        transposed(layer.layout(Layout::Nhwc), &pixels_first(&src, 6, 20), &weights, &mut dst, Some(&bias))
            .unwrap();
        assert_eq!(dst, pixels_first(&expected, 4, height * width), "{layer:?}");
    }
}

#[test]
fn nonsense_is_refused_with_a_sentence() {
    let layer = Transposed2d::new(1, 1, 3).input(4);
    let refuse = |layer: Transposed2d| layer.conv().unwrap_err().to_string();
    assert_eq!(refuse(layer.stride(0)), "stride = 0: it must be at least 1");
    assert_eq!(refuse(layer.output_padding(1)), "output_padding = 1: it must be less than the stride");
    assert_eq!(refuse(layer.padding(3)), "padding = 6: it must leave a pixel of dst");
    for most in [usize::MAX, usize::MAX / 2, 1 << 40] {
        assert!(layer.stride(most).conv().is_err() && layer.dilation(most).batch(most).conv().is_err());
        assert!(layer.padding(most).conv().is_err() && layer.input(most).conv().is_err());
    }
    let error = transposed(layer, &[0.0; 16], &[0.0; 9], &mut [0.0; 36], Some(&[0.0; 2])).unwrap_err();
    assert_eq!(error.to_string(), "bias has 2 elements, but [1], one per output channel, needs 1");
}

#[test]
fn a_signal_is_an_image_of_one_row() {
    for (conv, layout) in [
        (Conv1d::new(3, 4, 5).length(20).stride(2).padding([2, 1]), WeightLayout::Oihw),
        (Conv1d::new(4, 4, 3).length(33).dilation(4).padding([8, 0]).groups(4).batch(2), WeightLayout::Oihw),
    ] {
        let conv = conv.weight_layout(layout);
        let [_, length] = conv.view().geometry().unwrap().output();
        let (group_in, group_out) = (conv.in_channels / conv.groups, conv.out_channels / conv.groups);
        let src = numbers(conv.batch * conv.in_channels * conv.length, 1);
        let weights = numbers(conv.out_channels * group_in * conv.kernel, 2);
        let mut expected = vec![0.0; conv.batch * conv.out_channels * length];
        for (at, sum) in expected.iter_mut().enumerate() {
            let (n, oc, l) =
                (at / (conv.out_channels * length), at / length % conv.out_channels, at % length);
            for (ic, k) in (0..group_in * conv.kernel).map(|t| (t / conv.kernel, t % conv.kernel)) {
                let sample = (l * conv.stride + k * conv.dilation).checked_sub(conv.padding[0]);
                if let Some(sample) = sample.filter(|&sample| sample < conv.length) {
                    let channel = oc / group_out * group_in + ic;
                    *sum += src[(n * conv.in_channels + channel) * conv.length + sample]
                        * weights[(oc * group_in + ic) * conv.kernel + k];
                }
            }
        }
        let mut dst = vec![f32::NAN; expected.len()];
        forward(conv.view(), &src, &weights, &mut dst, Epilogue::NONE).unwrap();
        assert_eq!(dst, expected, "{conv:?}");
    }
}
