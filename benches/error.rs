//! How far a result is from the exact one: `|error| / (u S)` of a sample of its elements, u = 2^-24, S = the sum of the |products| of one.
//!
//! The exact one is a sum in f64 over the products of the definition, element by element, so that a large layer costs no more than a small one.

use crate::case::AnyPass;
use convolve::Geometry;

/// Elements of a sample.
const SAMPLE: usize = 64;
const U: f64 = 1.0 / (1 << 24) as f64;

/// The worst of a sample of `result`, spread over the whole of it. `tensors` are `src`, weights and `dst` (or `diff_dst`).
pub fn worst(geometry: &Geometry, pass: AnyPass, tensors: [&[f32]; 3], result: &[f32]) -> f64 {
    // A step that shares no factor with sizes of layers, as a rule.
    let step = (result.len() / SAMPLE).max(1) | 1;
    let mut worst = 0.0f64;
    for element in (0..result.len()).step_by(step) {
        let (mut sum, mut size) = (0.0, 0.0);
        products(geometry, pass, element, |at| {
            let [src, weights, dst] = [0, 1, 2].map(|i| tensors[i].get(at[i]).map_or(0.0, |&x| f64::from(x)));
            let product = match pass {
                AnyPass::Forward => src * weights,
                AnyPass::BackwardData => dst * weights,
                AnyPass::BackwardWeights => src * dst,
            };
            (sum, size) = (sum + product, size + product.abs());
        });
        let error = (f64::from(result[element]) - sum).abs();
        let relative = if error == 0.0 { 0.0 } else { error / (U * size) };
        // `max` would hide a NaN.
        worst = if relative > worst || relative.is_nan() { relative } else { worst };
        if worst.is_nan() {
            return worst;
        }
    }
    worst
}

/// Visits the products of one element of the result, as offsets in `src`, weights and `dst`.
fn products(geometry: &Geometry, pass: AnyPass, element: usize, mut visit: impl FnMut([usize; 3])) {
    let (conv, out) = (geometry.conv(), geometry.output());
    let (src, dst, weights) = (geometry.src(), geometry.dst(), geometry.weights());
    let (group_in, group_out) = (geometry.group_in(), geometry.group_out());
    let [[top, _], [left, _]] = geometry.padding();
    // The element of the result that the visited product belongs to decides which of the loops are one step long.
    let all = |len: usize| 0..len;
    let one = |i: usize| i..i + 1;
    let decode = |image: usize, channel: usize, row: usize, column: usize, sizes: [usize; 4]| {
        [image, channel, row, column]
            .into_iter()
            .zip(sizes)
            .map(|(stride, size)| element.checked_div(stride).map_or(0, |at| at % size.max(1)))
            .collect::<Vec<_>>()
    };
    let mut ranges = [all(conv.batch), all(conv.out_channels), all(out[0]), all(out[1])];
    let mut taps = [all(group_in), all(conv.kernel[0]), all(conv.kernel[1])];
    let mut input = None;
    match pass {
        AnyPass::Forward => {
            let sizes = [conv.batch, conv.out_channels, out[0], out[1]];
            let at = decode(dst.image, dst.channel, dst.row, dst.column, sizes);
            ranges = [0, 1, 2, 3].map(|i| one(at[i]));
        }
        AnyPass::BackwardData => {
            let sizes = [conv.batch, conv.in_channels, conv.input[0], conv.input[1]];
            let at = decode(src.image, src.channel, src.row, src.column, sizes);
            let group = at[1] / group_in;
            ranges[0] = one(at[0]);
            ranges[1] = group * group_out..(group + 1) * group_out;
            taps[0] = one(at[1] % group_in);
            // Only output pixels near enough.
            for axis in 0..2 {
                let reach = (conv.kernel[axis] - 1) * conv.dilation[axis];
                let pixel = at[2 + axis] + [top, left][axis];
                let first = pixel.saturating_sub(reach).div_ceil(conv.stride[axis]);
                ranges[2 + axis] = first..out[axis].min(pixel / conv.stride[axis] + 1);
            }
            input = Some([at[2], at[3]]);
        }
        AnyPass::BackwardWeights => {
            let sizes = [conv.out_channels, group_in, conv.kernel[0], conv.kernel[1]];
            let index = |oc: usize, ic: usize, k: [usize; 2]| weights.at(oc, ic, k);
            let zero = index(0, 0, [0, 0]);
            let stride = [
                if sizes[0] > 1 { index(1, 0, [0, 0]) - zero } else { 0 },
                if sizes[1] > 1 { index(0, 1, [0, 0]) - zero } else { 0 },
                if sizes[2] > 1 { index(0, 0, [1, 0]) - zero } else { 0 },
                if sizes[3] > 1 { index(0, 0, [0, 1]) - zero } else { 0 },
            ];
            let at = decode(stride[0], stride[1], stride[2], stride[3], sizes);
            ranges[1] = one(at[0]);
            taps = [one(at[1]), one(at[2]), one(at[3])];
        }
    }
    let pixel = |o: usize, k: usize, axis: usize| {
        let padded = o * conv.stride[axis] + k * conv.dilation[axis];
        padded.checked_sub([top, left][axis]).filter(|&i| i < conv.input[axis])
    };
    for n in ranges[0].clone() {
        for oc in ranges[1].clone() {
            for y in ranges[2].clone() {
                for ky in taps[1].clone() {
                    let Some(iy) = pixel(y, ky, 0).filter(|&iy| input.is_none_or(|at| at[0] == iy)) else {
                        continue;
                    };
                    for x in ranges[3].clone() {
                        for kx in taps[2].clone() {
                            let Some(ix) = pixel(x, kx, 1).filter(|&ix| input.is_none_or(|at| at[1] == ix))
                            else {
                                continue;
                            };
                            for ic in taps[0].clone() {
                                let channel = oc / group_out * group_in + ic;
                                visit([
                                    n * src.image + channel * src.channel + iy * src.row + ix * src.column,
                                    weights.at(oc, ic, [ky, kx]),
                                    n * dst.image + oc * dst.channel + y * dst.row + x * dst.column,
                                ]);
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Operands;
    use convolve::{Conv2d, Layout, Par, Planner, WeightLayout, definition};

    fn problems() -> Vec<Conv2d> {
        let conv = Conv2d::new(4, 6, [3, 2]).groups(2).input([7, 9]).stride([2, 1]).padding(1).batch(2);
        let nhwc = conv.layout(Layout::Nhwc).weight_layout(WeightLayout::Hwio);
        vec![conv, nhwc, nhwc.weight_layout(WeightLayout::Ohwi), Conv2d::new(1, 1, 1).input(1).batch(1)]
    }

    #[test]
    fn products_are_those_of_the_definition() {
        for conv in problems() {
            let geometry = conv.geometry().unwrap();
            for (pass, result) in AnyPass::ALL.into_iter().zip([2, 0, 1]) {
                let mut expected = vec![
                    Vec::new();
                    [geometry.src_len(), geometry.weights_len(), geometry.dst_len()]
                        [result]
                ];
                definition::for_each_mac(&geometry, |s, w, d| expected[[s, w, d][result]].push([s, w, d]));
                for (element, expected) in expected.iter_mut().enumerate() {
                    let mut got = Vec::new();
                    products(&geometry, pass, element, |at| got.push(at));
                    got.sort_unstable();
                    expected.sort_unstable();
                    assert_eq!(&got, expected, "{pass:?} {conv} {element}");
                }
            }
        }
    }

    #[test]
    fn honest_results_are_near_and_others_are_not() {
        for conv in problems() {
            let operands = Operands::new(conv).unwrap();
            for pass in AnyPass::ALL {
                let error = pass.error(&Planner::new().threads(1), &operands, Par::Seq).unwrap();
                assert!(error < 40.0, "{pass:?} {conv}: {error}");
            }
            let wrong = vec![100.0; operands.geometry().dst_len()];
            assert!(worst(operands.geometry(), AnyPass::Forward, operands.tensors(), &wrong) > 1e6);
            let nan = vec![f32::NAN; wrong.len()];
            assert!(worst(operands.geometry(), AnyPass::Forward, operands.tensors(), &nan).is_nan());
        }
    }
}
