//! Textbook im2col in f64 is the definition, bit for bit on integers: it is what gradient checks are computed in.

use convolve_core::{Conv2d, Layout, Padding, WeightLayout, definition};
use convolve_im2col::explicit;

fn problems() -> impl Iterator<Item = Conv2d> {
    let sides = Padding::Explicit { top: 2, bottom: 0, left: 1, right: 3 };
    let shapes = [
        Conv2d::new(3, 4, [3, 2]).batch(2).input([6, 7]).stride([2, 1]).padding(sides),
        Conv2d::new(6, 4, 2).input(5).groups(2).dilation([1, 2]).padding(4),
        Conv2d::new(5, 5, 3).batch(3).input([4, 9]).groups(5).padding(Padding::Same),
        Conv2d::new(1, 1, 1).input(1),
    ];
    shapes.into_iter().flat_map(|conv| {
        Layout::ALL.into_iter().flat_map(move |layout| {
            WeightLayout::ALL.map(|weights| conv.layout(layout).weight_layout(weights))
        })
    })
}

fn numbers(len: usize, seed: i64) -> Vec<i64> {
    (0..len as i64).map(|i| (i * 31 + seed * 17 + i / 5) % 13 - 6).collect()
}

fn floats(values: &[i64]) -> Vec<f64> {
    values.iter().map(|&value| value as f64).collect()
}

#[test]
fn all_three_passes_equal_the_definition() {
    for conv in problems() {
        let geometry = conv.geometry().unwrap();
        let src = numbers(geometry.src_len(), 1);
        let weights = numbers(geometry.weights_len(), 2);
        let dst = numbers(geometry.dst_len(), 3);
        let [x, w, y] = [&src, &weights, &dst].map(|values| floats(values));
        let name = format!("{conv} {} {}", conv.layout, conv.weight_layout);
        assert_eq!(
            explicit::forward(&geometry, &x, &w),
            floats(&definition::forward(&geometry, &src, &weights)),
            "{name}"
        );
        let expected = definition::backward_data(&geometry, &dst, &weights);
        assert_eq!(explicit::backward_data(&geometry, &y, &w), floats(&expected), "{name}");
        let expected = definition::backward_weights(&geometry, &src, &dst);
        assert_eq!(explicit::backward_weights(&geometry, &x, &y), floats(&expected), "{name}");
    }
}

#[test]
fn gradients_are_the_slopes_of_the_loss() {
    // L = <conv(x, w), y> is linear in each argument, so a central difference is exact up to rounding.
    for conv in problems() {
        let geometry = conv.geometry().unwrap();
        let mut src = floats(&numbers(geometry.src_len(), 4));
        let mut weights = floats(&numbers(geometry.weights_len(), 5));
        let dst = floats(&numbers(geometry.dst_len(), 6));
        let diff_src = explicit::backward_data(&geometry, &dst, &weights);
        let diff_weights = explicit::backward_weights(&geometry, &src, &dst);
        let loss = |src: &[f64], weights: &[f64]| -> f64 {
            explicit::forward(&geometry, src, weights).iter().zip(&dst).map(|(z, y)| z * y).sum()
        };
        for i in (0..src.len()).step_by(7) {
            let slope = [1.0, -2.0].map(|step| {
                src[i] += step;
                loss(&src, &weights)
            });
            src[i] += 1.0;
            assert_eq!((slope[0] - slope[1]) / 2.0, diff_src[i], "{conv}: diff_src[{i}]");
        }
        for i in (0..weights.len()).step_by(5) {
            let slope = [1.0, -2.0].map(|step| {
                weights[i] += step;
                loss(&src, &weights)
            });
            weights[i] += 1.0;
            assert_eq!((slope[0] - slope[1]) / 2.0, diff_weights[i], "{conv}: diff_weights[{i}]");
        }
    }
}
