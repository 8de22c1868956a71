//! Tests of the example `style`.

use super::*;
use convolve_examples::fetched::fetched;

fn tensor(size: [usize; 2], values: &[f32]) -> Tensor {
    Tensor { size, channels: values.len() / (size[0] * size[1]), values: values.to_vec() }
}

#[test]
fn a_mirror_does_not_repeat_the_rim() {
    let row = tensor([1, 4], &[1.0, 2.0, 3.0, 4.0]);
    assert_eq!(row.reflect([[0, 0], [2, 3]]).values, [3.0, 2.0, 1.0, 2.0, 3.0, 4.0, 3.0, 2.0, 1.0]);
    let pixels = tensor([2, 1], &[1.0, 10.0, 2.0, 20.0]);
    let padded = pixels.reflect([[1, 0], [0, 0]]);
    assert_eq!((padded.size, padded.channels), ([3, 1], 2));
    assert_eq!(padded.values, [10.0, 1.0, 10.0, 20.0, 2.0, 20.0]);
}

#[test]
fn every_pixel_becomes_four() {
    let row = tensor([1, 2], &[1.0, 2.0]);
    assert_eq!(row.enlarge(), tensor([2, 4], &[1.0, 1.0, 2.0, 2.0, 1.0, 1.0, 2.0, 2.0]));
}

#[test]
fn a_photograph_survives_the_way_to_the_network_and_back() {
    let photo = RgbImage::from_fn(19, 16, |x, y| image::Rgb([x as u8, y as u8, (x * y) as u8]));
    let back = photograph(&picture(&photo).unwrap());
    assert_eq!(back.dimensions(), (16, 16));
    assert!(back.enumerate_pixels().all(|(x, y, pixel)| pixel == photo.get_pixel(x, y)));
    let error = picture(&RgbImage::new(19, 15)).unwrap_err().to_string();
    assert_eq!(error, "the photograph has 19 x 15 pixels; it needs at least 16 x 16");
}

#[test]
fn a_missing_network_is_an_error_that_says_how_to_get_it() {
    let error = Network::load(Path::new("no/such/file")).err().unwrap().to_string();
    assert!(error.contains("examples/fetch style"), "{error}");
}

#[test]
fn it_paints_as_onnx_runtime_does() {
    if !fetched(NETWORK, "examples/fetch style") {
        return;
    }
    // What ONNX Runtime 1.32 makes of this pattern: style, row and column, pixel.
    const EXPECTED: [(usize, [usize; 2], [f32; 3]); 8] = [
        (0, [0, 0], [0.20401, 0.3448004, 0.2543386]),
        (0, [5, 17], [0.3844321, 0.4184787, 0.3369889]),
        (0, [16, 16], [0.6884193, 0.6376566, 0.5866227]),
        (0, [31, 30], [0.7949501, 0.6274641, 0.5599239]),
        (7, [0, 0], [0.9036694, 0.7090794, 0.1882764]),
        (7, [5, 17], [0.6099994, 0.5007638, 0.09233984]),
        (7, [16, 16], [0.2482273, 0.1025568, 0.07961091]),
        (7, [31, 30], [0.1414257, 0.1481371, 0.3194375]),
    ];
    let value = |i: usize| ((i / 32 % 32 * 7 + i % 32 * 13 + i / 1024 * 29) % 64) as f32 / 64.0;
    let picture = tensor([32, 32], &(0..32 * 32 * 3).map(value).collect::<Vec<_>>());
    let network = Network::load(Path::new(NETWORK)).unwrap();
    for (style, [y, x], expected) in EXPECTED {
        let repainted = network.run(&picture, style).unwrap();
        let got = [0, 1, 2].map(|channel| repainted.values[(channel * 32 + y) * 32 + x]);
        let far = got.iter().zip(expected).any(|(got, expected)| (got - expected).abs() > 1e-4);
        assert!(!far, "style {style}, row {y}, column {x}: {got:?}, expected {expected:?}");
    }
}
