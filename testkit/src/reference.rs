//! The reference: `dst[o] += src[i] * weights[k]` for every triple with `i + begin = o*stride + k*dilation`, per axis.
//!
//! It reads nothing but the fields of a [`Conv2d`]: output size, padding, offsets and layouts are computed here a second time, in
//! 128 bits, so that a mistake in the library's geometry is a difference and not a shared belief. Tensors are in the order of
//! indices (NCHW, OIHW); [`arrange`] puts them into a layout.

use convolve::definition::Number;
use convolve::{Conv2d, Layout, Operand, Padding, WeightLayout};

use crate::Direction;

/// How far the last window of one axis may begin behind the first, and the padding (before, after), of input, kernel, stride and dilation;
/// none when there is no window.
pub(crate) fn room(sizes: [[usize; 2]; 4], padding: Padding, axis: usize) -> Option<(i128, [i128; 2])> {
    let [input, kernel, stride, dilation] = sizes.map(|pair| pair[axis] as i128);
    if input.min(kernel).min(stride).min(dilation) == 0 {
        return None;
    }
    let extent = (kernel - 1).checked_mul(dilation)? + 1;
    let same = (((input + stride - 1) / stride - 1) * stride + extent - input).max(0);
    let padding = match padding {
        Padding::Valid => [0, 0],
        Padding::Same => [same / 2, same - same / 2],
        Padding::SameLower => [same - same / 2, same / 2],
        Padding::Explicit { top, bottom, left, right } => {
            [[top, bottom], [left, right]][axis].map(|side| side as i128)
        }
    };
    let room = input + padding[0] + padding[1] - extent;
    (room >= 0).then_some((room, padding))
}

/// Output size and padding (before, after) of one axis; none when there is no such convolution.
pub fn axis(conv: &Conv2d, axis: usize) -> Option<(i128, [i128; 2])> {
    let (room, padding) = room([conv.input, conv.kernel, conv.stride, conv.dilation], conv.padding, axis)?;
    Some((room / conv.stride[axis] as i128 + 1, padding))
}

/// Shape of a tensor in the order of indices: `[N, C, H, W]`, `[OC, IC/G, KH, KW]`, `[OC, 1, 1, 1]`.
///
/// # Panics
/// When there is no such convolution.
pub fn shape(conv: &Conv2d, operand: Operand) -> [usize; 4] {
    let output = || [0, 1].map(|i| axis(conv, i).expect("a convolution").0 as usize);
    match operand {
        Operand::Src => [conv.batch, conv.in_channels, conv.input[0], conv.input[1]],
        Operand::Weights => {
            [conv.out_channels, conv.in_channels / conv.groups, conv.kernel[0], conv.kernel[1]]
        }
        Operand::Dst => [conv.batch, conv.out_channels, output()[0], output()[1]],
        Operand::Bias => [conv.out_channels, 1, 1, 1],
    }
}

/// Elements of a tensor.
pub fn len(conv: &Conv2d, operand: Operand) -> usize {
    shape(conv, operand).iter().product()
}

/// Every `[i, k, o]` of one axis whose tap lies inside the image.
fn triples(conv: &Conv2d, index: usize) -> Vec<[usize; 3]> {
    let Some((output, [begin, _])) = axis(conv, index) else { return Vec::new() };
    let mut triples = Vec::new();
    for k in 0..conv.kernel[index] {
        for o in 0..output as usize {
            let i = o as i128 * conv.stride[index] as i128 + k as i128 * conv.dilation[index] as i128 - begin;
            if (0..conv.input[index] as i128).contains(&i) {
                triples.push([i as usize, k, o]);
            }
        }
    }
    triples
}

/// Visits every multiplication as offsets `(src, weights, dst)` in the order of indices.
pub fn visit(conv: &Conv2d, mut f: impl FnMut(usize, usize, usize)) {
    let [src, weights, dst] = [Operand::Src, Operand::Weights, Operand::Dst].map(|o| shape(conv, o));
    let at = |shape: [usize; 4], [a, b, c, d]: [usize; 4]| ((a * shape[1] + b) * shape[2] + c) * shape[3] + d;
    let [rows, columns] = [triples(conv, 0), triples(conv, 1)];
    let group_out = conv.out_channels / conv.groups;
    for n in 0..conv.batch {
        for oc in 0..conv.out_channels {
            for ic in 0..weights[1] {
                for &[ih, kh, oh] in &rows {
                    let s = at(src, [n, oc / group_out * weights[1] + ic, ih, 0]);
                    let w = at(weights, [oc, ic, kh, 0]);
                    let d = at(dst, [n, oc, oh, 0]);
                    for &[iw, kw, ow] in &columns {
                        f(s + iw, w + kw, d + ow);
                    }
                }
            }
        }
    }
}

/// The result of a pass; `left` and `right` as [`Direction::left`] and [`Direction::right`] say.
pub fn reference<T: Number>(conv: &Conv2d, direction: Direction, left: &[T], right: &[T]) -> Vec<T> {
    let mut result = vec![T::default(); len(conv, direction.result())];
    match direction {
        Direction::Forward => visit(conv, |s, w, d| result[d] = result[d] + left[s] * right[w]),
        Direction::BackwardData => visit(conv, |s, w, d| result[s] = result[s] + left[d] * right[w]),
        Direction::BackwardWeights => visit(conv, |s, w, d| result[w] = result[w] + left[s] * right[d]),
    }
    result
}

/// How many products each element of the result is the sum of.
pub fn terms(conv: &Conv2d, direction: Direction) -> Vec<u64> {
    let [_, c, h, w] = shape(conv, direction.result());
    // Of a triple, the index that the result has; and what is summed over besides the two axes.
    let (index, factor) = match direction {
        Direction::Forward => (2, conv.in_channels / conv.groups),
        Direction::BackwardData => (0, conv.out_channels / conv.groups),
        Direction::BackwardWeights => (1, conv.batch),
    };
    let [rows, columns] = [(0, h), (1, w)].map(|(axis, len)| {
        let mut counts = vec![0u64; len];
        triples(conv, axis).iter().for_each(|triple| counts[triple[index]] += 1);
        counts
    });
    let plane = rows.iter().flat_map(|a| columns.iter().map(move |b| a * b * factor as u64));
    let plane: Vec<_> = plane.collect();
    plane.repeat(shape(conv, direction.result())[0] * c)
}

/// A tensor in the order of indices, put into the layout that `conv` says.
pub fn arrange<T: Copy>(conv: &Conv2d, operand: Operand, canonical: &[T]) -> Vec<T> {
    order(conv, operand).into_iter().map(|index| canonical[index]).collect()
}

/// The inverse of [`arrange`].
pub fn canonical<T: Copy + Default>(conv: &Conv2d, operand: Operand, arranged: &[T]) -> Vec<T> {
    let mut canonical = vec![T::default(); arranged.len()];
    order(conv, operand).into_iter().zip(arranged).for_each(|(index, x)| canonical[index] = *x);
    canonical
}

/// Which element of the order of indices lies at each place in memory.
fn order(conv: &Conv2d, operand: Operand) -> Vec<usize> {
    // The axes of the canonical shape, slowest in memory first.
    let axes = match (operand, conv.layout, conv.weight_layout) {
        (Operand::Src | Operand::Dst, Layout::Nhwc, _) => [0, 2, 3, 1],
        (Operand::Weights, _, WeightLayout::Ohwi) => [0, 2, 3, 1],
        (Operand::Weights, _, WeightLayout::Hwio) => [2, 3, 1, 0],
        _ => [0, 1, 2, 3],
    };
    let shape = shape(conv, operand);
    let pitch = [shape[1] * shape[2] * shape[3], shape[2] * shape[3], shape[3], 1];
    let ([a, b, c, d], [pa, pb, pc, pd]) = (axes.map(|x| shape[x]), axes.map(|x| pitch[x]));
    let mut order = Vec::with_capacity(a * b * c * d);
    for i in 0..a {
        for j in 0..b {
            for k in 0..c {
                order.extend((0..d).map(|l| i * pa + j * pb + k * pc + l * pd));
            }
        }
    }
    order
}

/// What the library's geometry says, against this file: the same answer, or both refuse.
///
/// # Errors
/// The difference, as a sentence.
pub fn same_geometry(conv: &Conv2d) -> Result<(), String> {
    let product = |factors: &[i128]| factors.iter().try_fold(1i128, |p, x| p.checked_mul(*x));
    let expected = (|| {
        let [n, ic, oc, g] =
            [conv.batch, conv.in_channels, conv.out_channels, conv.groups].map(|x| x as i128);
        if ic == 0 || oc == 0 || g == 0 || ic % g != 0 || oc % g != 0 {
            return None;
        }
        let axes = [axis(conv, 0)?, axis(conv, 1)?];
        let [i, k] = [conv.input, conv.kernel].map(|pair| pair.map(|x| x as i128));
        let lens = [
            product(&[n, ic, i[0], i[1]]),
            product(&[oc, ic / g, k[0], k[1]]),
            product(&[n, oc, axes[0].0, axes[1].0]),
        ];
        Some((axes, lens))
    })();
    let limit = isize::MAX as i128 / 8;
    let fits = |len: &Option<i128>| len.is_some_and(|len| len <= limit);
    match (expected, conv.geometry()) {
        (None, Err(_)) => Ok(()),
        (None, Ok(_)) => Err(format!("{conv:?}: accepted, but there is no such convolution")),
        (Some((axes, lens)), Ok(geometry)) => {
            let got = [geometry.src_len(), geometry.weights_len(), geometry.dst_len()];
            if !lens.iter().all(fits) || lens.map(|len| len.unwrap_or(-1)) != got.map(|len| len as i128) {
                return Err(format!("{conv:?}: lengths {got:?}, expected {lens:?}"));
            }
            if axes.map(|axis| axis.0) != geometry.output().map(|o| o as i128)
                || axes.map(|axis| axis.1) != geometry.padding().map(|sides| sides.map(|p| p as i128))
            {
                return Err(format!(
                    "{conv:?}: {:?} {:?}, expected {axes:?}",
                    geometry.output(),
                    geometry.padding()
                ));
            }
            Ok(())
        }
        // It may also refuse what is too large for the address space; that is judged by a margin of 2^8.
        (Some((axes, lens)), Err(error)) => {
            let wide = |x: i128| x > limit >> 8;
            let macs = lens[2].zip(lens[1]).and_then(|(d, w)| d.checked_mul(w / conv.out_channels as i128));
            let large = lens.iter().any(|len| !len.is_some_and(|len| !wide(len)))
                || macs.is_none_or(|macs| macs > u64::MAX as i128)
                || (0..2).any(|i| {
                    let [_, padding] = [[0; 2], axes[i].1];
                    let extent = (conv.kernel[i] as i128 - 1) * conv.dilation[i] as i128 + 1;
                    [conv.stride[i] as i128, extent, padding[0], padding[1], conv.input[i] as i128]
                        .into_iter()
                        .any(wide)
                });
            if large { Ok(()) } else { Err(format!("{conv:?}: refused ({error}), but it is a convolution")) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{data, strategy};
    use convolve::definition;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(strategy::config(300))]

        #[test]
        fn the_definition_of_the_library_is_the_reference(conv in strategy::convs(), seed in any::<u64>()) {
            let geometry = conv.geometry().unwrap();
            for direction in Direction::ALL {
                let [left, right] = data::Fill::Dense.integers(&conv, direction, seed);
                let expected = arrange(&conv, direction.result(), &reference(&conv, direction, &left, &right));
                let [left, right] =
                    [(direction.left(), left), (direction.right(), right)].map(|(o, x)| arrange(&conv, o, &x));
                let got = match direction {
                    Direction::Forward => definition::forward(&geometry, &left, &right),
                    Direction::BackwardData => definition::backward_data(&geometry, &left, &right),
                    Direction::BackwardWeights => definition::backward_weights(&geometry, &left, &right),
                };
                prop_assert_eq!(got, expected, "{} {}", direction, conv);
            }
        }

        #[test]
        fn terms_are_the_result_of_ones(conv in strategy::convs()) {
            for direction in Direction::ALL {
                let [left, right] = [direction.left(), direction.right()].map(|o| vec![1i64; len(&conv, o)]);
                let ones: Vec<_> = reference(&conv, direction, &left, &right).iter().map(|&x| x as u64).collect();
                prop_assert_eq!(terms(&conv, direction), ones);
            }
        }

        #[test]
        fn an_arrangement_can_be_undone(conv in strategy::convs()) {
            for operand in [Operand::Src, Operand::Weights, Operand::Dst, Operand::Bias] {
                let numbers: Vec<usize> = (0..len(&conv, operand)).collect();
                prop_assert_eq!(&canonical(&conv, operand, &arrange(&conv, operand, &numbers)), &numbers);
            }
        }

        #[test]
        fn the_geometry_is_that_of_128_bit_integers(conv in strategy::anything()) {
            same_geometry(&conv).map_err(TestCaseError::fail)?;
        }
    }

    #[test]
    fn an_arrangement_agrees_with_the_strides_of_the_library() {
        let conv = Conv2d::new(6, 4, [3, 2]).input([5, 4]).batch(2).groups(2);
        for layout in Layout::ALL {
            for weight_layout in WeightLayout::ALL {
                let conv = conv.layout(layout).weight_layout(weight_layout);
                let geometry = conv.geometry().unwrap();
                let numbers: Vec<usize> = (0..len(&conv, Operand::Src)).collect();
                let src = arrange(&conv, Operand::Src, &numbers);
                let s = geometry.src();
                assert_eq!(src[s.image + 2 * s.channel + 3 * s.row + s.column], ((6 + 2) * 5 + 3) * 4 + 1);
                let numbers: Vec<usize> = (0..len(&conv, Operand::Weights)).collect();
                let weights = arrange(&conv, Operand::Weights, &numbers);
                assert_eq!(weights[geometry.weights().at(3, 1, [2, 1])], ((3 * 3 + 1) * 3 + 2) * 2 + 1);
            }
        }
    }
}
